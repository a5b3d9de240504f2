/* Separable resize: each output row is a weighted sum of source rows, and each of its pixels one of
 * that sum's pixels. The first loop is plain C over whole rows, which compilers turn into vectors;
 * the second works on a pixel's channels (and the next one's first, ignored) as four lanes. Sums
 * are single precision, in the order of the taps, so every mode and NumPy give the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "parallel.h"

/* Compiled anew for each caller's target; left to itself the compiler would share one body. */
#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(16)));

typedef struct {
    const uint8_t *frame;
    int64_t width;
    const edge_taps *rows, *cols;
    uint8_t *out;
} resize_work;

/* sum += w0 * s0 + w1 * s1 + ..., one after the other; `begin` starts from nothing. */
INLINE void add_rows(float *restrict sum, const uint8_t *s, int64_t stride, const float *w,
                     int32_t taps, int64_t bytes, int begin) {
    const uint8_t *s1 = s + stride, *s2 = s1 + stride, *s3 = s2 + stride;
    if (taps == 1) {
        for (int64_t i = 0; i < bytes; i++) sum[i] = (begin ? 0.0f : sum[i]) + w[0] * s[i];
    } else if (taps == 2) {
        for (int64_t i = 0; i < bytes; i++) {
            sum[i] = (begin ? 0.0f : sum[i]) + w[0] * s[i] + w[1] * s1[i];
        }
    } else if (taps == 3) {
        for (int64_t i = 0; i < bytes; i++) {
            sum[i] = (begin ? 0.0f : sum[i]) + w[0] * s[i] + w[1] * s1[i] + w[2] * s2[i];
        }
    } else {
        for (int64_t i = 0; i < bytes; i++) {
            sum[i] = (begin ? 0.0f : sum[i]) + w[0] * s[i] + w[1] * s1[i] + w[2] * s2[i] +
                     w[3] * s3[i];
        }
    }
}

INLINE void sum_rows(const resize_work *w, int64_t y, float *sum) {
    const int32_t taps = w->rows->taps;
    const float *weights = w->rows->weights + y * taps;
    const uint8_t *from = w->frame + 3 * w->width * w->rows->first[y];
    for (int32_t k = 0; k < taps; k += 4) {
        const int32_t part = taps - k < 4 ? taps - k : 4;
        add_rows(sum, from + 3 * w->width * k, 3 * w->width, weights + k, part, 3 * w->width,
                 k == 0);
    }
}

/* Four lanes for each pixel of the output row, the fourth of no meaning. */
INLINE void sum_columns(const edge_taps *cols, const float *sum, int32_t taps, float *lanes_out) {
    for (int64_t x = 0; x < cols->target; x++) {
        const float *weights = cols->weights + x * taps;
        const float *from = sum + 3 * (int64_t)cols->first[x];
        lanes total = {0, 0, 0, 0}, pixel;
        for (int32_t k = 0; k < taps; k++) {
            memcpy(&pixel, from + 3 * k, sizeof pixel);
            total += weights[k] * pixel;
        }
        total += 0.5f;
        memcpy(lanes_out + 4 * x, &total, sizeof total);
    }
}

/* Weights sum to one but for rounding, so values stay below 256. */
INLINE void store_row(const float *restrict values, int64_t width, uint8_t *restrict bytes,
                      uint8_t *restrict out) {
    for (int64_t i = 0; i < 4 * width; i++) bytes[i] = (uint8_t)(int32_t)values[i];
    for (int64_t x = 0; x < width - 1; x++) memcpy(out + 3 * x, bytes + 4 * x, 4);
    memcpy(out + 3 * (width - 1), bytes + 4 * (width - 1), 3);
}

/* Half the size: the mean of four, in whole numbers. What the general loops give, as a quarter of a
 * sum below 2^10 is exact: floor(sum / 4 + 1/2) = (sum + 2) >> 2. */
static int halve(void *work, int64_t first, int64_t last) {
    const resize_work *w = work;
    const int64_t width = w->cols->target, count = 6 * width - 3;
    uint8_t *means = malloc((size_t)(6 * width));
    if (means == NULL) return EDGE_NO_MEMORY;
    for (int64_t y = first; y < last; y++) {
        const uint8_t *a = w->frame + 2 * y * 3 * w->width, *b = a + 3 * w->width;
        uint8_t *out = w->out + 3 * width * y;
        for (int64_t i = 0; i < count; i++) { /* of every pixel and the next, every other is used */
            means[i] = (uint8_t)((uint16_t)(a[i] + b[i] + a[i + 3] + b[i + 3] + 2) >> 2);
        }
        for (int64_t x = 0; x < width - 1; x++) memcpy(out + 3 * x, means + 6 * x, 4);
        memcpy(out + 3 * (width - 1), means + 6 * (width - 1), 3);
    }
    free(means);
    return EDGE_OK;
}

static int halves(const edge_taps *taps, int64_t length) {
    if (taps->taps != 2 || length != 2 * (int64_t)taps->target) return 0;
    for (int32_t u = 0; u < taps->target; u++) {
        const float *weights = taps->weights + 2 * (int64_t)u;
        if (taps->first[u] != 2 * u || weights[0] != 0.5f || weights[1] != 0.5f) return 0;
    }
    return 1;
}

INLINE int resize_body(const resize_work *w, int64_t first, int64_t last) {
    const int64_t width = w->cols->target;
    const size_t floats = (size_t)(3 * w->width + 1 + 4 * width);
    float *sum = malloc(floats * sizeof *sum + (size_t)(4 * width));
    if (sum == NULL) return EDGE_NO_MEMORY;
    float *values = sum + 3 * w->width + 1;
    uint8_t *bytes = (uint8_t *)(sum + floats);
    sum[3 * w->width] = 0; /* the fourth lane of the last pixel */
    for (int64_t y = first; y < last; y++) {
        sum_rows(w, y, sum);
        switch (w->cols->taps) { /* a number the compiler knows is a loop it can unroll */
        case 2:
            sum_columns(w->cols, sum, 2, values);
            break;
        case 3:
            sum_columns(w->cols, sum, 3, values);
            break;
        case 4:
            sum_columns(w->cols, sum, 4, values);
            break;
        default:
            sum_columns(w->cols, sum, w->cols->taps, values);
        }
        store_row(values, width, bytes, w->out + 3 * width * y);
    }
    free(sum);
    return EDGE_OK;
}

static int resize_plain(void *work, int64_t first, int64_t last) {
    return resize_body(work, first, last);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int resize_avx2(void *work, int64_t first, int64_t last) {
    return resize_body(work, first, last);
}
#endif

static int taps_are_sound(const edge_taps *taps, int64_t length) {
    if (taps->target < 1 || taps->taps < 1) return 0;
    for (int32_t i = 0; i < taps->target; i++) {
        if (taps->first[i] < 0 || taps->first[i] > length - taps->taps) return 0;
    }
    return 1;
}

int edge_resize(int mode, const uint8_t *frame, int64_t height, int64_t width,
                const edge_taps *rows, const edge_taps *cols, uint8_t *out, int threads) {
    if (!taps_are_sound(rows, height) || !taps_are_sound(cols, width)) return EDGE_BAD_TABLE;
    resize_work work = {frame, width, rows, cols, out};
    edge_part part = NULL;
    switch (mode) {
    case EDGE_SCALAR:
    case EDGE_NEON: /* AArch64 has NEON throughout: the plain body is vectorised with it */
        part = resize_plain;
        break;
#if defined(__x86_64__)
    case EDGE_AVX2:
    case EDGE_AVX512:
        part = resize_avx2;
        break;
#endif
    default:
        return EDGE_BAD_MODE;
    }
    /* Wider vectors gain nothing here, so there is one body for all modes. */
    if (halves(rows, height) && halves(cols, width)) part = halve;
    int64_t grain = 1 + (1 << 20) / (3 * width);
    return edge_parallel(part, &work, rows->target, grain, threads);
}
