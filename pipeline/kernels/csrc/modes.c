/* Which instruction sets this library holds and this machine runs. */
#include "kernels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMD
#define HWCAP_ASIMD (1 << 1)
#endif
#endif

int edge_abi(void) { return EDGE_ABI; }

unsigned edge_supported_modes(void) {
    unsigned modes = 1u << EDGE_SCALAR;
#if defined(__x86_64__)
    /* These ask the operating system too: without saved registers a CPU's AVX is of no use. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) modes |= 1u << EDGE_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        modes |= 1u << EDGE_AVX512;
    }
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMD) modes |= 1u << EDGE_NEON;
#endif
    return modes;
}
