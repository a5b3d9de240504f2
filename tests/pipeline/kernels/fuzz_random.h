/* What fuzz.c draws its calls with, and how it says what it found. For that file alone. */
#ifndef FUZZ_RANDOM_H
#define FUZZ_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

static uint64_t state, checksum = UINT64_C(14695981039346656037);

static uint64_t next(void) { /* splitmix64 */
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int32_t between(int32_t low, int32_t high) {
    return low + (int32_t)(next() % (uint64_t)(high - low + 1));
}

static float unit(void) { return (float)(next() >> 40) * 0x1p-24f; }

static void fail(const char *what, int mode) {
    fprintf(stderr, "fuzz: %s differs in mode %d (state %llu)\n", what, mode,
            (unsigned long long)state);
    exit(1);
}

static void *get(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL) exit(2);
    return memory;
}

static uint8_t *noise(size_t bytes, int limit) {
    uint8_t *memory = get(bytes);
    for (size_t i = 0; i < bytes; i++) {
        /* Runs, as labels have them, among single pixels. */
        memory[i] = (uint8_t)(i && next() % 4 ? memory[i - 1] : next() % (uint64_t)limit);
    }
    return memory;
}

static void add_to_checksum(const void *bytes, size_t length) {
    const uint8_t *p = bytes;
    for (size_t i = 0; i < length; i++) checksum = (checksum ^ p[i]) * UINT64_C(1099511628211);
}

static void expect_ok(int code, const char *what, int mode) {
    if (code != EDGE_OK) fail(what, mode);
}

#endif
