/* What blend.c hands to the loops of each instruction set (blend_body.h). */
#ifndef EDGE_BLEND_H
#define EDGE_BLEND_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* The widest vector: every row is padded so that a vector may begin at any cell. */
#define EDGE_MAX_LANES 8

/* Cells j = 0 .. cols->extent lie between padded grid points j and j + 1 (point 0 repeats the
 * grid's first, point extent + 1 its last). Cell j holds the output columns start[j] ..
 * start[j + 1]. Column start[j] + p of it takes its right point with right[p * stride + j]. */
typedef struct {
    const float *const *tiles;
    int32_t classes;
    const edge_axis *rows, *cols;
    uint8_t *out;
    int plain;       /* one tile of weight exactly one: rows are copied */
    size_t stride;   /* points of a padded row */
    int32_t phases;  /* most columns in a cell, rounded up to a multiple of 4 */
    const int32_t *start;        /* [stride + 1]: beyond the last cell, the output's width */
    const float *left, *right;   /* [phases][stride] */
} edge_blend_work;

/* Output rows first .. last; first and last must be where a new cell row begins. */
int edge_blend_scalar(void *work, int64_t first, int64_t last);
int edge_blend_avx2(void *work, int64_t first, int64_t last);
int edge_blend_avx512(void *work, int64_t first, int64_t last);
int edge_blend_neon(void *work, int64_t first, int64_t last);

#endif
