/* A stand-in for libcuda.so.1 beside the one for NVML: what a process takes here stands in NVML's script.
 *
 * A context takes 100 MB, an allocation its size and FAKE_CUDA_EXCESS_MB more. Each changes the process's line in the
 * file that FAKE_NVML names; callers take turns.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT_MB = 100, OUT_OF_MEMORY = 2, LARGEST_MB = 40000 };
static long held_mb;

static int hold(long mb) {
    char text[65536], own[64], beside[4096];
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 1;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    snprintf(beside, sizeof beside, "%s.%d", path, getpid());
    file = fopen(beside, "w");
    if (!file) return 1;
    snprintf(own, sizeof own, "process 0 %d ", getpid());
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")))
        if (*line && strncmp(line, own, strlen(own))) fprintf(file, "%s\n", line);
    held_mb += mb;
    fprintf(file, "%s%ld\n", own, held_mb);
    fclose(file);
    return rename(beside, path);
}

int cuInit(unsigned flags) { return (int)flags; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal; }
int cuCtxSynchronize(void) { return 0; }

int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    *context = &held_mb;
    return (int)flags || device || hold(CONTEXT_MB);
}

int cuMemAlloc_v2(unsigned long long *at, size_t size) {
    const char *excess = getenv("FAKE_CUDA_EXCESS_MB");
    long mb = (long)((size + 500000) / 1000000);
    if (mb > LARGEST_MB) return OUT_OF_MEMORY;
    *at = 1;
    return hold(mb + (excess ? atol(excess) : 0));
}

int cuMemsetD8_v2(unsigned long long at, unsigned char value, size_t size) { return !(at && value && size); }
