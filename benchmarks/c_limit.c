/* The same work as a sampler's in C, as the limit of what any language could do: it reads the files of a schedule once
 * per sample, kept open and read in place, turns what it read into a number and stores it.
 *
 *   c_limit back SCHEDULE SAMPLES             back to back; prints nanoseconds per sample
 *   c_limit paced SCHEDULE PERIOD_NS SECONDS  at absolute deadlines; prints the time of every sample (ns, monotonic)
 *
 * A line of the schedule is "fast|slow r|w PATH": what is read, or written "0" to, at most samples and at every tenth.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STEPS = 128, MAX_FILES = 128, SLOW_BEAT = 10 };

static struct step { int fd, writes; } steps[2][MAX_STEPS];
static int step_counts[2];
static struct { char path[512]; int fd; } files[MAX_FILES];
static int file_count;
static long long *values;

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static int opened(const char *path) { /* each file once, whoever reads or writes it */
    for (int i = 0; i < file_count; i++)
        if (strcmp(files[i].path, path) == 0) return files[i].fd;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || file_count == MAX_FILES) fail(path);
    snprintf(files[file_count].path, sizeof files[0].path, "%s", path);
    return files[file_count++].fd = fd;
}

static void read_schedule(const char *name) {
    char beat[8], kind[2], path[512];
    FILE *schedule = fopen(name, "r");
    if (!schedule) fail(name);
    while (fscanf(schedule, "%7s %1s %511[^\n]", beat, kind, path) == 3) {
        int slow = strcmp(beat, "slow") == 0;
        if (step_counts[slow] == MAX_STEPS) fail("too long a schedule");
        steps[slow][step_counts[slow]++] = (struct step){opened(path), *kind == 'w'};
    }
    fclose(schedule);
}

static void sample(long n) {
    static char text[16384];
    int slow = n % SLOW_BEAT == 0;
    long long *row = values + n % 1024 * MAX_STEPS;
    for (int i = 0; i < step_counts[slow]; i++) {
        struct step each = steps[slow][i];
        if (each.writes) {
            row[i] = pwrite(each.fd, "0", 1, 0); /* some kernels refuse, and cost as much */
        } else {
            ssize_t size = pread(each.fd, text, sizeof text - 1, 0);
            if (size < 0) fail("pread");
            text[size] = 0;
            row[i] = strtoll(text, NULL, 10);
        }
    }
}

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void back_to_back(long samples) {
    long long begin = now_ns();
    for (long n = 0; n < samples; n++) sample(n);
    printf("%lld\n", (now_ns() - begin) / samples);
}

static void paced(long period_ns, long seconds) {
    long samples = seconds * 1000000000L / period_ns;
    long long *times = calloc(samples, sizeof *times), begin = now_ns();
    if (!times) fail("calloc");
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    for (long n = 0; n < samples; n++) {
        long long due = begin + n * period_ns;
        struct timespec at = {due / 1000000000LL, due % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        times[n] = now_ns();
        sample(n);
    }
    for (long n = 0; n < samples; n++) printf("%lld\n", times[n] - begin);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    values = calloc(1024 * MAX_STEPS, sizeof *values);
    if (!values) fail("calloc");
    read_schedule(argv[2]);
    if (strcmp(argv[1], "back") == 0) back_to_back(atol(argv[3]));
    else if (argc == 5 && strcmp(argv[1], "paced") == 0) paced(atol(argv[3]), atol(argv[4]));
    else return 2;
    return 0;
}
