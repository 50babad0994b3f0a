/* A program of known appetites: it does the verbs of its command line one after the other, then exits 0.
 *
 *   burn MS THREADS   use CPU until the whole process has used MS milliseconds more than the burns before asked for
 *   touch MB          touch MB * 10^6 bytes of anonymous memory and keep them
 *   free              give back everything touched
 *   hog               touch memory until killed (gives up with exit code 97 after 2 GB, so that no host is harmed)
 *   sleep MS          do nothing
 *   ignore-term       ignore SIGTERM from here on
 *   flood MS          write log lines at full speed
 *   child VERB...     a child does all that follows; this process waits for it and exits 0 whatever became of it
 *   exit CODE         end
 *
 * Everything else that a test needs, the image's busybox does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BLOCKS = 256, BAD_USAGE = 98, HOG_GAVE_UP = 97 };
static const long MB = 1000 * 1000, HOG_STEP_MB = 4, HOG_LIMIT_MB = 2000;

static struct { void *at; size_t size; } blocks[MAX_BLOCKS];
static int block_count;
static long long burn_until_ns; /* on the clock of the process' own CPU time */

static long long now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *burner(void *unused) {
    (void)unused;
    volatile unsigned work = 0;
    while (now_ns(CLOCK_PROCESS_CPUTIME_ID) < burn_until_ns)
        for (int i = 0; i < 20000; i++) work += i;
    return NULL;
}

static void burn(long ms, long threads) {
    pthread_t others[64];
    if (threads < 1 || threads > 64) exit(BAD_USAGE);
    burn_until_ns += ms * 1000000LL;
    for (long i = 1; i < threads; i++)
        if (pthread_create(&others[i], NULL, burner, NULL)) exit(BAD_USAGE);
    burner(NULL);
    for (long i = 1; i < threads; i++) pthread_join(others[i], NULL);
}

static void touch(long mb) {
    size_t size = mb * MB;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || block_count == MAX_BLOCKS) exit(BAD_USAGE);
    madvise(at, size, MADV_NOHUGEPAGE); /* else the kernel rounds up to 2 MiB */
    for (size_t i = 0; i < size; i += 4096) at[i] = 1;
    blocks[block_count].at = at;
    blocks[block_count++].size = size;
}

static void free_all(void) {
    while (block_count > 0) {
        block_count--;
        munmap(blocks[block_count].at, blocks[block_count].size);
    }
}

static void hog(void) {
    for (long mb = 0; mb < HOG_LIMIT_MB; mb += HOG_STEP_MB) {
        touch(HOG_STEP_MB);
        block_count = 0; /* never given back */
    }
    exit(HOG_GAVE_UP);
}

static void pause_ms(long ms) {
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&rest, &rest) && errno == EINTR) {}
}

static void flood(long ms) {
    static const char line[] = "a line of the log that is as long as lines of logs usually are, more or less .......\n";
    long long end = now_ns(CLOCK_MONOTONIC) + ms * 1000000LL;
    while (now_ns(CLOCK_MONOTONIC) < end)
        if (write(STDOUT_FILENO, line, sizeof line - 1) < 0) exit(BAD_USAGE);
}

static void in_child(void) { /* the child returns and goes on with the verbs that follow */
    pid_t child = fork();
    if (child == 0) return;
    if (child < 0 || waitpid(child, NULL, 0) < 0) exit(BAD_USAGE);
    exit(0);
}

int main(int argc, char **argv) {
    burn_until_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID); /* without an init the container runtime's start-up is on it */
    char **word = argv + 1, **end = argv + argc;
#define VERB(name, count) (strcmp(*word, name) == 0 && end - word > (count) && (word += (count) + 1))
#define NUMBER(back) atol(word[-(back)])
    while (word < end) {
        if (VERB("burn", 2)) burn(NUMBER(2), NUMBER(1));
        else if (VERB("touch", 1)) touch(NUMBER(1));
        else if (VERB("free", 0)) free_all();
        else if (VERB("hog", 0)) hog();
        else if (VERB("sleep", 1)) pause_ms(NUMBER(1));
        else if (VERB("ignore-term", 0)) signal(SIGTERM, SIG_IGN);
        else if (VERB("flood", 1)) flood(NUMBER(1));
        else if (VERB("child", 0)) in_child();
        else if (VERB("exit", 1)) return (int)NUMBER(1);
        else {
            fprintf(stderr, "appetite: unknown or incomplete verb: %s\n", *word);
            return BAD_USAGE;
        }
    }
    return 0;
}
