/* Tables that all rows share, and the choice of the loops; the loops are in blend_body.h. */
#include "blend.h"

#include <stdlib.h>
#include <string.h>

#include "parallel.h"

static int axis_is_sound(const edge_axis *axis) {
    if (axis->tiles < 1 || axis->size < 1 || axis->samples < 1) return 0;
    for (int32_t k = 0; k < axis->tiles; k++) {
        int32_t origin = axis->origins[k];
        if (origin < 0 || origin > axis->extent - axis->size) return 0;
    }
    int32_t last = 0;
    for (int32_t u = 0; u < axis->samples; u++) {
        if (axis->cells[u] < last || axis->cells[u] > axis->extent) return 0;
        last = axis->cells[u];
    }
    return 1;
}

static int is_one(const edge_axis *axis) {
    if (axis->tiles != 1) return 0;
    for (int32_t x = 0; x < axis->size; x++) {
        if (axis->weights[x] != 1.0f) return 0;
    }
    return 1;
}

/* First output column of every cell, and of "cells" past the last, which are empty. */
static int32_t find_starts(const edge_axis *cols, size_t stride, int32_t *start) {
    int32_t u = 0, most = 0;
    for (size_t j = 0; j <= stride; j++) {
        start[j] = u;
        while (u < cols->samples && (size_t)cols->cells[u] == j) u++;
        if (u - start[j] > most) most = u - start[j];
    }
    return most;
}

static void set_weights(const edge_axis *cols, const int32_t *start, size_t stride, float *left,
                        float *right) {
    for (int32_t u = 0; u < cols->samples; u++) {
        size_t j = (size_t)cols->cells[u];
        size_t at = (size_t)(u - start[j]) * stride + j;
        right[at] = cols->fractions[u];
        left[at] = 1.0f - cols->fractions[u];
    }
}

typedef struct {
    edge_part loops;
    edge_blend_work *blend;
} band_work;

/* Threads divide the output's rows; a row of cells goes to the thread that holds its first row. */
static int blend_band(void *work, int64_t first, int64_t last) {
    const band_work *band = work;
    const edge_axis *rows = band->blend->rows;
    while (first > 0 && first < rows->samples && rows->cells[first] == rows->cells[first - 1]) {
        first++;
    }
    while (last > 0 && last < rows->samples && rows->cells[last] == rows->cells[last - 1]) last++;
    return first < last ? band->loops(band->blend, first, last) : EDGE_OK;
}

static edge_part loops_of(int mode) {
    switch (mode) {
    case EDGE_SCALAR:
        return edge_blend_scalar;
#if defined(__x86_64__)
    case EDGE_AVX2:
        return edge_blend_avx2;
    case EDGE_AVX512:
        return edge_blend_avx512;
#elif defined(__aarch64__)
    case EDGE_NEON:
        return edge_blend_neon;
#endif
    default:
        return NULL;
    }
}

int edge_blend_argmax(int mode, const float *const *tiles, int32_t classes, const edge_axis *rows,
                      const edge_axis *cols, uint8_t *out, int threads) {
    edge_part loops = loops_of(mode);
    if (loops == NULL) return EDGE_BAD_MODE;
    if (classes < 1 || classes > 255 || !axis_is_sound(rows) || !axis_is_sound(cols)) {
        return EDGE_BAD_TABLE;
    }
    /* An odd number of widest vectors: rows of neighbouring classes never share a cache set. */
    size_t vectors = ((size_t)cols->extent + 2 * EDGE_MAX_LANES + 1) / EDGE_MAX_LANES;
    size_t stride = EDGE_MAX_LANES * (vectors | 1);
    int32_t *start = malloc((stride + 1) * sizeof *start);
    if (start == NULL) return EDGE_NO_MEMORY;
    int32_t phases = (find_starts(cols, stride, start) + 3) / 4 * 4;
    float *weights = calloc(2 * (size_t)phases * stride, sizeof *weights);
    if (weights == NULL) {
        free(start);
        return EDGE_NO_MEMORY;
    }
    float *right = weights + (size_t)phases * stride;
    set_weights(cols, start, stride, weights, right);
    edge_blend_work blend = {tiles,  classes, rows,  cols,    out,  is_one(rows) && is_one(cols),
                             stride, phases,  start, weights, right};
    band_work band = {loops, &blend};
    int64_t grain = 1 + (1 << 18) / cols->samples;
    int result = edge_parallel(blend_band, &band, rows->samples, grain, threads);
    free(weights);
    free(start);
    return result;
}
