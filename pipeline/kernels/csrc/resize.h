/* The two passes of a resize, once in plain C and once for AVX2. All sums are exact whole numbers, so
 * every mode and NumPy give the same bytes.
 *
 * Across: a row of pixels becomes one of `target` pixels in 64ths, int16.
 * Down: rows of 64ths become a row of bytes. Weights are 16384ths and sum to one; see taps.py. */
#ifndef EDGE_RESIZE_H
#define EDGE_RESIZE_H

#include "kernels.h"

/* (x + ACROSS_ROUND) >> ACROSS_SHIFT: from 16384ths to 64ths. */
#define ACROSS_SHIFT 8
#define ACROSS_ROUND (1 << (ACROSS_SHIFT - 1))
/* From 64ths times 16384ths to whole numbers; halves are rounded up. */
#define DOWN_SHIFT 20
#define DOWN_ROUND (1 << (DOWN_SHIFT - 1))
/* A row of 64ths may be written this far beyond its end. */
#define ROW_SLACK 8

typedef struct {
    const edge_taps *cols;
    int64_t width;          /* of the source row, in pixels */
    const int16_t *spread;  /* weights as vectors want them, or NULL; see edge_spread */
    int64_t groups;         /* groups of four pixels that vectors may read, from the left */
} across_plan;

typedef void (*edge_across)(const across_plan *plan, const uint8_t *row, int16_t *to);
typedef void (*edge_down)(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                          int64_t count, uint8_t *to);

/* Half the size: rows a and b of 2 * target pixels to one of means of four. The general passes give
 * the same: 64ths of a half are whole, and so floor(sum / 4 + 1/2) = (sum + 2) >> 2. */
typedef void (*edge_halve)(const uint8_t *a, const uint8_t *b, int64_t target, uint8_t *to);

/* Pixels begin .. target of the row. */
void edge_across_rest(const across_plan *plan, int64_t begin, const uint8_t *row, int16_t *to);
void edge_across_plain(const across_plan *plan, const uint8_t *row, int16_t *to);
void edge_down_plain(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                     int64_t count, uint8_t *to);

void edge_halve_plain(const uint8_t *a, const uint8_t *b, int64_t target, uint8_t *to);

#if defined(__x86_64__)
/* Bytes that a vector loads for one pixel and four of its taps. */
#define ACROSS_LOAD 16
/* int16 numbers in one step of a group: its four pixels' weights of two taps, for four lanes. */
#define SPREAD_STEP 32

void edge_across_avx2(const across_plan *plan, const uint8_t *row, int16_t *to);
void edge_down_avx2(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                    int64_t count, uint8_t *to);
void edge_halve_avx2(const uint8_t *a, const uint8_t *b, int64_t target, uint8_t *to);
#endif

#endif
