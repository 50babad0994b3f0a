/* For the kernel of the virtual machine, which keeps 2696 bytes of a process' extended registers (up to AVX-512).
 *
 * Linux takes them back (PTRACE_SETREGSET, NT_X86_XSTATE) only whole, and on a processor with AMX the whole is 11008
 * bytes (arch/x86/kernel/fpu/regset.c, xstateregs_set): what such a machine has beyond that is filled up here, with
 * what the process has at the moment. Preloaded, as that kernel is a program with a shared C library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { MOST_BYTES = 64 * 1024 };

typedef long ptrace_fn(int request, pid_t pid, void *address, void *data);

static long set_whole(ptrace_fn *ptrace_of_libc, pid_t pid, const struct iovec *part)
{
    static char bytes[MOST_BYTES]; /* that kernel has one thread */
    struct iovec whole = { bytes, sizeof bytes };

    if (ptrace_of_libc(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &whole) < 0)
        return -1;
    if (part->iov_len < whole.iov_len)
        memcpy(bytes, part->iov_base, part->iov_len);
    else
        whole = *part;
    return ptrace_of_libc(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_fn *ptrace_of_libc;
    va_list rest;

    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (!ptrace_of_libc)
        ptrace_of_libc = (ptrace_fn *)dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_whole(ptrace_of_libc, pid, data);
    return ptrace_of_libc(request, pid, address, data);
}
