/* A stand-in for libnvidia-ml.so.1 that tells what a script says, for machines without a GPU.
 *
 * The script is the file that the environment variable FAKE_NVML names. It is read anew at every call, so a test may
 * rewrite it at any time. One fact per line, words apart by single spaces:
 *
 *   driver VERSION
 *   device UUID TOTAL_MB BASE_MB NAME...          the next GPU; BASE_MB are in use by nobody that is listed
 *   mig UUID TOTAL_MB BASE_MB NAME...             an instance of the last device, which is divided thereby
 *   process PLACE WHO MB [FROM_MS UNTIL_MS]       on device PLACE (0 = first, instances counted in place of the divided)
 *   graphics PLACE WHO MB [FROM_MS UNTIL_MS]      the same, on the list of processes that draw
 *   hidden PLACE WHO MB [FROM_MS UNTIL_MS]        holds memory, but is on no list
 *   busy PLACE PERCENT [FROM_MS UNTIL_MS]
 *   power PLACE MILLIWATT, clock PLACE MHZ
 *   period MS                                     from one utilisation sample to the next; 100 if not given
 *   inclusive                                     each answer begins with the last sample of the one before
 *   unbuffered                                    no nvmlDeviceGetSamples
 *   error FUNCTION CODE FROM                      from call number FROM (1 = first) of FUNCTION on
 *   hang FUNCTION MS FROM                         the same: sleeps so long in each call
 *
 * WHO is a process id; or a command name: every process of this host that is called so; or ~TEXT: every process of this
 * host with TEXT in its command line, whose words are apart by single spaces there (this very process, too, if it has:
 * keep TEXT out of cpost's own words). MB are 10^6 bytes, "n/a" is not available. FROM_MS and UNTIL_MS count from the process's first sight; for `busy` from the library's start.
 * Only what cpost calls is here; the meanings are those of nvml.h.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9,
    MAX_LINES = 200, MAX_WORDS = 16, MAX_DEVICES = 16, MAX_SEEN = 256, MAX_NAMES = 64, MAX_RUNNING = 4096, RING = 100
};
static const unsigned long long MB = 1000 * 1000, NOT_AVAILABLE = ~0ULL, RESERVED_BYTES = 10 * 1000 * 1000;

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned long long at_us; union { unsigned value; unsigned long long whole; }; } sample;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[65536];
static char *words[MAX_LINES][MAX_WORDS];
static int counts[MAX_LINES], lines;
static int calls_made[MAX_NAMES];
static char call_names[MAX_NAMES][64];
static struct { int pid; long long first_ms; } seen[MAX_SEEN];
static int seen_count;
static struct { int pid; char name[64], command_line[512]; } running[MAX_RUNNING];
static int running_count;
static long long started_ms;
static char handles[MAX_DEVICES], whole_handles[MAX_DEVICES]; /* their addresses are the handles */

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void load(void) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    lines = 0;
    if (!file) return;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && lines < MAX_LINES) {
        counts[lines] = 0;
        char *word;
        while ((word = strsep(&line, " ")) && counts[lines] < MAX_WORDS)
            if (*word) words[lines][counts[lines]++] = word;
        if (counts[lines]) lines++;
    }
}

static int is(int line, const char *word) { return strcmp(words[line][0], word) == 0; }
static long long number(int line, int place) { return place < counts[line] ? atoll(words[line][place]) : 0; }

static int calls(const char *name) {
    int i = 0;
    while (i < MAX_NAMES - 1 && *call_names[i] && strcmp(call_names[i], name)) i++;
    snprintf(call_names[i], sizeof call_names[i], "%s", name);
    return ++calls_made[i];
}

/* Every function begins with this: reads the script, does what it says of the function, and leaves with the lock held. */
static int enter(const char *name) {
    pthread_mutex_lock(&lock);
    load();
    int code = lines ? SUCCESS : DRIVER_NOT_LOADED, call = calls(name);
    long long sleep_ms = 0;
    for (int i = 0; i < lines; i++) {
        if (counts[i] < 4 || strcmp(words[i][1], name) || call < number(i, 3)) continue;
        if (is(i, "error")) code = (int)number(i, 2);
        if (is(i, "hang")) sleep_ms = number(i, 2);
    }
    if (sleep_ms) {
        pthread_mutex_unlock(&lock);
        usleep((useconds_t)(sleep_ms * 1000));
        pthread_mutex_lock(&lock);
        load();
    }
    return code;
}

static int leave(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

#define ENTER int code = enter(__func__); if (code) return leave(code)

/* Places: the devices in order, where a divided one is replaced by its instances. */
static int line_of(int place) {
    int at = -1;
    for (int i = 0; i < lines; i++) {
        int divided = is(i, "device") && i + 1 < lines && is(i + 1, "mig");
        if ((is(i, "device") && !divided) || is(i, "mig")) at++;
        if (at == place && (is(i, "mig") || (is(i, "device") && !divided))) return i;
    }
    return -1;
}

static int place_of_line(int line) {
    for (int place = 0; place < MAX_DEVICES; place++)
        if (line_of(place) == line) return place;
    return -1;
}

static int device_line(int index) {
    for (int i = 0; i < lines; i++)
        if (is(i, "device") && index-- == 0) return i;
    return -1;
}

/* The line of a handle: of a whole divided device, its own line, which has no place. */
static int line_of_handle(const char *handle) {
    if (handle >= whole_handles && handle < whole_handles + MAX_DEVICES) return device_line((int)(handle - whole_handles));
    return line_of((int)(handle - handles));
}

static int has_instances(int line) { return is(line, "device") && line + 1 < lines && is(line + 1, "mig"); }

static long long age_ms(int pid) {
    long long now = now_us() / 1000;
    for (int i = 0; i < seen_count; i++)
        if (seen[i].pid == pid) return now - seen[i].first_ms;
    if (seen_count < MAX_SEEN) {
        seen[seen_count].pid = pid;
        seen[seen_count++].first_ms = now;
    }
    return 0;
}

static int within(int line, int place, long long ms) {
    return counts[line] < place + 2 || (ms >= number(line, place) && ms < number(line, place + 1));
}

/* A file of /proc/PID, its words apart by spaces; returns whether there is such a process. */
static int read_words(int pid, const char *file_name, char *into, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file_name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = fread(into, 1, size - 1, file);
    fclose(file);
    while (length && (into[length - 1] == '\n' || !into[length - 1])) length--;
    for (size_t i = 0; i < length; i++)
        if (!into[i]) into[i] = ' ';
    into[length] = 0;
    return 1;
}

/* All processes of this host with their names, looked up again after 20 ms. */
static void look_around(void) {
    static long long looked_us;
    if (now_us() - looked_us < 20000) return;
    looked_us = now_us();
    running_count = 0;
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) && running_count < MAX_RUNNING) {
        int pid = running[running_count].pid = atoi(entry->d_name);
        running_count += pid > 0 && read_words(pid, "comm", running[running_count].name, sizeof running[0].name) &&
            read_words(pid, "cmdline", running[running_count].command_line, sizeof running[0].command_line);
    }
    if (folder) closedir(folder);
}

static int is_meant(int running_place, const char *word) {
    if (*word == '~') return strstr(running[running_place].command_line, word + 1) != NULL;
    return !strcmp(running[running_place].name, word);
}

/* Processes that one line speaks of; returns how many. */
static int who(int line, int *pids, int max) {
    if (isdigit((unsigned char)*words[line][2])) {
        pids[0] = (int)number(line, 2);
        return within(line, 4, age_ms(pids[0]));
    }
    int found = 0;
    look_around();
    for (int i = 0; i < running_count && found < max; i++)
        if (is_meant(i, words[line][2]) && within(line, 4, age_ms(running[i].pid)))
            pids[found++] = running[i].pid;
    return found;
}

static unsigned long long amount(int line) {
    return strcmp(words[line][3], "n/a") ? (unsigned long long)number(line, 3) * MB : NOT_AVAILABLE;
}

static unsigned long long used_bytes(int line) {
    unsigned long long used = (unsigned long long)number(line, 3) * MB;
    int place = place_of_line(line), pids[64];
    for (int i = 0; i < lines; i++) {
        if (!(is(i, "process") || is(i, "graphics") || is(i, "hidden")) || number(i, 1) != place) continue;
        int found = who(i, pids, 64);
        if (amount(i) != NOT_AVAILABLE) used += amount(i) * (unsigned long long)found;
    }
    return used;
}

static unsigned busy_at(int place, long long ms) {
    unsigned percent = 0;
    for (int i = 0; i < lines; i++)
        if (is(i, "busy") && number(i, 1) == place && within(i, 3, ms)) percent = (unsigned)number(i, 2);
    return percent;
}

static int told(const char *word) {
    for (int i = 0; i < lines; i++)
        if (is(i, word)) return i;
    return -1;
}

static void name_of(int line, char *name, unsigned length) {
    *name = 0;
    for (int i = 4; i < counts[line]; i++) {
        strncat(name, words[line][i], length - strlen(name) - 1);
        if (i + 1 < counts[line]) strncat(name, " ", length - strlen(name) - 1);
    }
}

/* ---------------------------------------------------------------- the library */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    memset(calls_made, 0, sizeof calls_made);
    seen_count = 0;
    started_ms = now_us() / 1000;
    pthread_mutex_unlock(&lock);
    ENTER;
    return leave(SUCCESS);
}

int nvmlShutdown(void) {
    ENTER;
    return leave(SUCCESS);
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error that only the library knows";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    ENTER;
    int line = told("driver");
    snprintf(version, length, "%s", line < 0 ? "1.0" : words[line][1]);
    return leave(SUCCESS);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER;
    for (*count = 0; device_line((int)*count) >= 0;) ++*count;
    return leave(SUCCESS);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, char **handle) {
    ENTER;
    int line = device_line((int)index);
    *handle = has_instances(line) ? &whole_handles[index] : &handles[place_of_line(line)];
    return leave(SUCCESS);
}

int nvmlDeviceGetUUID(char *handle, char *uuid, unsigned length) {
    ENTER;
    snprintf(uuid, length, "%s", words[line_of_handle(handle)][1]);
    return leave(SUCCESS);
}

int nvmlDeviceGetName(char *handle, char *name, unsigned length) {
    ENTER;
    name_of(line_of_handle(handle), name, length);
    return leave(SUCCESS);
}

int nvmlDeviceGetMigMode(char *handle, unsigned *current, unsigned *pending) {
    ENTER;
    *current = *pending = (unsigned)has_instances(line_of_handle(handle));
    return leave(SUCCESS);
}

int nvmlDeviceGetMaxMigDeviceCount(char *handle, unsigned *count) {
    (void)handle;
    ENTER;
    *count = 7;
    return leave(SUCCESS);
}

int nvmlDeviceGetMigDeviceHandleByIndex(char *handle, unsigned index, char **instance) {
    ENTER;
    int line = line_of_handle(handle) + 1 + (int)index;
    for (int i = line_of_handle(handle) + 1; i <= line; i++)
        if (i >= lines || !is(i, "mig")) return leave(NOT_FOUND);
    *instance = &handles[place_of_line(line)];
    return leave(SUCCESS);
}

int nvmlDeviceGetMemoryInfo(char *handle, memory_v1 *memory) {
    ENTER;
    int line = line_of_handle(handle);
    memory->total = (unsigned long long)number(line, 2) * MB;
    memory->used = used_bytes(line) + RESERVED_BYTES;
    memory->free = memory->total - memory->used;
    return leave(SUCCESS);
}

int nvmlDeviceGetMemoryInfo_v2(char *handle, memory_v2 *memory) {
    ENTER;
    int line = line_of_handle(handle);
    memory->total = (unsigned long long)number(line, 2) * MB;
    memory->used = used_bytes(line);
    memory->reserved = RESERVED_BYTES;
    memory->free = memory->total - memory->used - memory->reserved;
    return leave(SUCCESS);
}

static int list(const char *kind, char *handle, unsigned *count, process_info *processes) {
    int place = place_of_line(line_of_handle(handle)), pids[64];
    unsigned found = 0, room = processes ? *count : 0;
    for (int i = 0; i < lines; i++) {
        if (!is(i, kind) || number(i, 1) != place) continue;
        int several = who(i, pids, 64);
        for (int each = 0; each < several; each++, found++)
            if (found < room) processes[found] = (process_info){(unsigned)pids[each], amount(i), ~0u, ~0u};
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(char *handle, unsigned *count, process_info *processes) {
    ENTER;
    return leave(list("process", handle, count, processes));
}

int nvmlDeviceGetComputeRunningProcesses_v2(char *handle, unsigned *count, process_info *processes) {
    ENTER;
    return leave(list("process", handle, count, processes));
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(char *handle, unsigned *count, process_info *processes) {
    ENTER;
    return leave(list("graphics", handle, count, processes));
}

int nvmlDeviceGetUtilizationRates(char *handle, utilization *rates) {
    ENTER;
    int place = place_of_line(line_of_handle(handle));
    if (is(line_of_handle(handle), "mig")) return leave(NOT_SUPPORTED);
    rates->gpu = busy_at(place, now_us() / 1000 - started_ms);
    rates->memory = 0;
    return leave(SUCCESS);
}

int nvmlDeviceGetSamples(
    char *handle, int type, unsigned long long since_us, int *value_type, unsigned *count, sample *samples
) {
    (void)type;
    ENTER;
    if (told("unbuffered") >= 0 || is(line_of_handle(handle), "mig")) return leave(NOT_SUPPORTED);
    int place = place_of_line(line_of_handle(handle)), line = told("period");
    long long period_us = (line < 0 ? 100 : number(line, 1)) * 1000, last = now_us() / period_us;
    unsigned found = 0, room = samples ? *count : RING;
    for (long long tick = last - RING + 1; tick <= last && found < room; tick++) {
        unsigned long long at_us = (unsigned long long)(tick * period_us);
        if (at_us < since_us || (at_us == since_us && told("inclusive") < 0)) continue;
        if (samples) {
            samples[found].at_us = at_us;
            samples[found].whole = busy_at(place, (long long)at_us / 1000 - started_ms);
        }
        found++;
    }
    *value_type = 1;
    *count = found;
    return leave(found ? SUCCESS : NOT_FOUND);
}

int nvmlDeviceGetPowerUsage(char *handle, unsigned *milliwatt) {
    ENTER;
    int place = place_of_line(line_of_handle(handle));
    *milliwatt = 0;
    for (int i = 0; i < lines; i++)
        if (is(i, "power") && number(i, 1) == place) *milliwatt = (unsigned)number(i, 2);
    return leave(SUCCESS);
}

int nvmlDeviceGetClockInfo(char *handle, int type, unsigned *mhz) {
    ENTER;
    int place = place_of_line(line_of_handle(handle));
    *mhz = 0;
    for (int i = 0; i < lines; i++)
        if (type == 1 && is(i, "clock") && number(i, 1) == place) *mhz = (unsigned)number(i, 2);
    return leave(SUCCESS);
}
