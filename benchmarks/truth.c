/* A workload that knows the truth about itself: it does the verbs of its command line one after the other and reports
 * what it really used, by its own account, when it ends.
 *
 *   to FILE                     report there instead of on stdout (first, if at all)
 *   on CPU                      run on this CPU alone from here on
 *   burn MS                     use MS milliseconds of CPU
 *   chunks MS ROUNDS            do the same fixed work over and over for MS, and report how long each time took
 *   heap MIB                    touch MIB * 2^20 bytes of memory and keep them
 *   spikes COUNT MB MS GAP_MS   COUNT times: touch MB * 10^6 bytes, give them back so that more than half of them were there
 *                               for MS, rest for GAP_MS and a bit
 *   stream FILE                 read a file from end to end into the heap, over and over its length
 *   fill FILE MIB               write a file of MIB * 2^20 bytes
 *   sleep MS                    do nothing
 *   hog MB                      touch MB * 10^6 bytes at once, more than is allowed; 97 when it got them
 *   child                       a child does all that follows; this process waits for it and exits 0, without a report
 *
 * The report, one "name value..." per line: cpu_ns (getrusage), anonymous_bytes (before the first spike),
 * page_table_bytes (at the last spike's height), chunk START_NS WALL_NS, spike BEGIN_NS FULL_NS END_NS GONE_NS
 * (wall clock, Unix).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_EVENTS = 100000, BAD_USAGE = 98, HOG_GOT_IT = 97, PIECE = 1 << 20 };
static const long MB = 1000 * 1000, MIB = 1 << 20;

static struct { const char *name; long long at[4]; int count; } events[MAX_EVENTS];
static int event_count;
static char *heap;
static size_t heap_size;
static const char *report_to; /* NULL: stdout */
static long long anonymous_bytes = -1, page_table_bytes;

static void fail(const char *what) {
    perror(what);
    exit(BAD_USAGE);
}

static long long now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pause_us(long us) {
    struct timespec rest = {us / 1000000, us % 1000000 * 1000L};
    while (nanosleep(&rest, &rest) && errno == EINTR) {}
}

static void stay_on(long cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one)) fail("sched_setaffinity");
}

static void burn(long ms) {
    volatile unsigned work = 0;
    long long end = now_ns(CLOCK_PROCESS_CPUTIME_ID) + ms * 1000000LL;
    while (now_ns(CLOCK_PROCESS_CPUTIME_ID) < end)
        for (int i = 0; i < 20000; i++) work += i;
}

static void chunks(long ms, long rounds) {
    volatile unsigned work = 0;
    long long end = now_ns(CLOCK_MONOTONIC) + ms * 1000000LL, begin;
    while ((begin = now_ns(CLOCK_MONOTONIC)) < end && event_count < MAX_EVENTS) {
        long long wall = now_ns(CLOCK_REALTIME);
        for (long i = 0; i < rounds; i++) work += i;
        events[event_count].name = "chunk";
        events[event_count].at[0] = wall;
        events[event_count].at[1] = now_ns(CLOCK_MONOTONIC) - begin;
        events[event_count++].count = 2;
    }
}

/* The kernel's figure of this process in a file such as /proc/self/status: "Name:   123 kB". */
static long long kernel_says(const char *file, const char *name) {
    static char text[16384];
    int fd = open(file, O_RDONLY);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (size < 0) fail(file);
    close(fd);
    text[size] = 0;
    char *found = strstr(text, name);
    return found ? atoll(found + strlen(name)) * 1024 : 0;
}

static void *touched(size_t size) {
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) fail("mmap");
    madvise(at, size, MADV_NOHUGEPAGE); /* else the kernel rounds up to 2 MiB */
    if (madvise(at, size, 23 /* MADV_POPULATE_WRITE */)) /* before Linux 5.14: page by page */
        for (size_t i = 0; i < size; i += 4096) at[i] = 1;
    return at;
}

static void take_heap(long mib) {
    heap_size = mib * MIB;
    heap = touched(heap_size);
}

static void spikes(long count, long mb, long ms, long gap_ms) {
    if (anonymous_bytes < 0) anonymous_bytes = kernel_says("/proc/self/smaps_rollup", "\nAnonymous:");
    for (long n = 0; n < count && event_count < MAX_EVENTS; n++) {
        long long *at = events[event_count].at;
        at[0] = now_ns(CLOCK_REALTIME);
        void *block = touched(mb * MB);
        at[1] = now_ns(CLOCK_REALTIME);
        page_table_bytes = kernel_says("/proc/self/status", "\nVmPTE:");
        long long left_ns = (at[0] + at[1]) / 2 + ms * 1000000LL - now_ns(CLOCK_REALTIME);
        if (left_ns > 0) pause_us(left_ns / 1000);
        at[2] = now_ns(CLOCK_REALTIME);
        munmap(block, mb * MB);
        at[3] = now_ns(CLOCK_REALTIME);
        events[event_count].name = "spike";
        events[event_count++].count = 4;
        pause_us(gap_ms * 1000 + n * 6700 % 31000); /* never in step with whoever samples */
    }
}

static void stream(const char *name) {
    int fd = open(name, O_RDONLY);
    size_t at = 0;
    ssize_t got;
    if (fd < 0 || heap_size < PIECE) fail(name);
    while ((got = read(fd, heap + at, PIECE)) > 0) at = at + 2 * PIECE <= heap_size ? at + PIECE : 0;
    if (got < 0) fail(name);
    close(fd);
}

static void fill(const char *name, long mib) {
    static char piece[PIECE];
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) fail(name);
    memset(piece, 1, sizeof piece);
    for (long i = 0; i < mib; i++)
        if (write(fd, piece, sizeof piece) != sizeof piece) fail(name);
    close(fd);
}

static void in_child(void) { /* the child returns and goes on with the verbs that follow */
    pid_t child = fork();
    if (child == 0) return;
    if (child < 0 || waitpid(child, NULL, 0) < 0) fail("child");
    exit(0);
}

static void report(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    long long cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    FILE *out = report_to ? fopen(report_to, "w") : stdout;
    if (!out) fail(report_to);
    fprintf(out, "cpu_ns %lld\n", cpu_us * 1000);
    if (anonymous_bytes >= 0)
        fprintf(out, "anonymous_bytes %lld\npage_table_bytes %lld\n", anonymous_bytes, page_table_bytes);
    for (int i = 0; i < event_count; i++) {
        fprintf(out, "%s", events[i].name);
        for (int j = 0; j < events[i].count; j++) fprintf(out, " %lld", events[i].at[j]);
        fprintf(out, "\n");
    }
    if (fclose(out)) fail("report");
}

int main(int argc, char **argv) {
    char **word = argv + 1, **end = argv + argc;
#define VERB(name, count) (strcmp(*word, name) == 0 && end - word > (count) && (word += (count) + 1))
#define NUMBER(back) atol(word[-(back)])
    while (word < end) {
        if (VERB("to", 1)) report_to = word[-1];
        else if (VERB("on", 1)) stay_on(NUMBER(1));
        else if (VERB("burn", 1)) burn(NUMBER(1));
        else if (VERB("chunks", 2)) chunks(NUMBER(2), NUMBER(1));
        else if (VERB("heap", 1)) take_heap(NUMBER(1));
        else if (VERB("spikes", 4)) spikes(NUMBER(4), NUMBER(3), NUMBER(2), NUMBER(1));
        else if (VERB("stream", 1)) stream(word[-1]);
        else if (VERB("fill", 2)) fill(word[-2], NUMBER(1));
        else if (VERB("sleep", 1)) pause_us(NUMBER(1) * 1000);
        else if (VERB("hog", 1)) { touched(NUMBER(1) * MB); return HOG_GOT_IT; }
        else if (VERB("child", 0)) in_child();
        else {
            fprintf(stderr, "truth: unknown or incomplete verb: %s\n", *word);
            return BAD_USAGE;
        }
    }
    report();
    return 0;
}
