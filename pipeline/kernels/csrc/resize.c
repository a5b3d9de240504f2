/* Separable resize in whole numbers: rows are resized across, one after the other as they are needed,
 * and those that an output row takes from are kept in a ring; then they are summed down. */
#include "resize.h"

#include <stdlib.h>
#include <string.h>

#include "parallel.h"

/* Compiled anew for each number of taps; left to itself the compiler would share one body. */
#define INLINE static inline __attribute__((always_inline))

typedef int32_t lanes __attribute__((vector_size(16)));
typedef uint8_t pixel4 __attribute__((vector_size(4)));

typedef struct {
    const uint8_t *frame;
    int64_t width;
    const edge_taps *rows, *cols;
    const across_plan *plan;
    edge_across across;
    edge_down down;
    edge_halve halve;
    uint8_t *out;
} resize_work;

void edge_across_rest(const across_plan *plan, int64_t begin, const uint8_t *row, int16_t *to) {
    const edge_taps *cols = plan->cols;
    to += 3 * begin;
    for (int64_t x = begin; x < cols->target; x++, to += 3) {
        const int16_t *weights = cols->weights + x * cols->taps;
        const uint8_t *from = row + 3 * (int64_t)cols->first[x];
        for (int c = 0; c < 3; c++) {
            int32_t sum = ACROSS_ROUND;
            for (int32_t k = 0; k < cols->taps; k++) sum += weights[k] * from[3 * k + c];
            to[c] = (int16_t)(sum >> ACROSS_SHIFT);
        }
    }
}

/* A pixel's channels, and the next one's first (ignored), as four lanes. */
INLINE void across_plain(const across_plan *plan, const uint8_t *row, int16_t *to, int32_t taps) {
    const edge_taps *cols = plan->cols;
    int64_t x = 0;
    for (; x < cols->target && cols->first[x] + (int64_t)taps < plan->width; x++) {
        const int16_t *weights = cols->weights + x * taps;
        const uint8_t *from = row + 3 * (int64_t)cols->first[x];
        lanes sum = {ACROSS_ROUND, ACROSS_ROUND, ACROSS_ROUND, 0};
        for (int32_t k = 0; k < taps; k++) {
            pixel4 pixel;
            memcpy(&pixel, from + 3 * k, sizeof pixel);
            sum += weights[k] * __builtin_convertvector(pixel, lanes);
        }
        sum >>= ACROSS_SHIFT;
        for (int c = 0; c < 3; c++) to[3 * x + c] = (int16_t)sum[c];
    }
    edge_across_rest(plan, x, row, to);
}

void edge_across_plain(const across_plan *plan, const uint8_t *row, int16_t *to) {
    switch (plan->cols->taps) { /* a number the compiler knows is a loop it can unroll */
    case 2:
        across_plain(plan, row, to, 2);
        break;
    case 3:
        across_plain(plan, row, to, 3);
        break;
    default:
        across_plain(plan, row, to, plan->cols->taps);
    }
}

INLINE void down_plain(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                       int64_t count, uint8_t *restrict to) {
    for (int64_t i = 0; i < count; i++) {
        int32_t sum = DOWN_ROUND;
        for (int32_t k = 0; k < taps; k++) sum += weights[k] * lines[k][i];
        to[i] = (uint8_t)(sum >> DOWN_SHIFT);
    }
}

void edge_down_plain(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                     int64_t count, uint8_t *to) {
    switch (taps) {
    case 2:
        down_plain(lines, weights, 2, count, to);
        break;
    case 3:
        down_plain(lines, weights, 3, count, to);
        break;
    default:
        down_plain(lines, weights, taps, count, to);
    }
}

void edge_halve_plain(const uint8_t *a, const uint8_t *b, int64_t target, uint8_t *to) {
    for (int64_t x = 0; x < target; x++, a += 6, b += 6, to += 3) {
        for (int c = 0; c < 3; c++) to[c] = (uint8_t)((a[c] + b[c] + a[c + 3] + b[c + 3] + 2) >> 2);
    }
}

static int halve_rows(void *work, int64_t first, int64_t last) {
    const resize_work *w = work;
    for (int64_t y = first; y < last; y++) {
        const uint8_t *a = w->frame + 2 * y * 3 * w->width;
        w->halve(a, a + 3 * w->width, w->cols->target, w->out + 3 * (int64_t)w->cols->target * y);
    }
    return EDGE_OK;
}

static int halves(const edge_taps *taps, int64_t length) {
    if (taps->taps != 2 || length != 2 * (int64_t)taps->target) return 0;
    for (int32_t u = 0; u < taps->target; u++) {
        const int16_t *weights = taps->weights + 2 * (int64_t)u;
        if (taps->first[u] != 2 * u || weights[0] != weights[1]) return 0;
    }
    return 1;
}

/* Rows of the frame already resized across; row r lies in slot r % taps. */
typedef struct {
    int16_t *lines;    /* [taps][stride] */
    int64_t *held;     /* [taps], which row each slot holds */
    const int16_t **picked; /* [taps], for one output row */
    int64_t stride;
} ring;

static int ring_make(ring *r, int64_t taps, int64_t target) {
    r->stride = 3 * target + ROW_SLACK;
    r->lines = malloc((size_t)(taps * r->stride) * sizeof *r->lines);
    r->held = malloc((size_t)taps * sizeof *r->held);
    r->picked = malloc((size_t)taps * sizeof *r->picked);
    if (r->lines == NULL || r->held == NULL || r->picked == NULL) return EDGE_NO_MEMORY;
    for (int64_t k = 0; k < taps; k++) r->held[k] = -1;
    return EDGE_OK;
}

static void ring_free(ring *r) {
    free(r->lines);
    free(r->held);
    free(r->picked);
}

static int resize_rows(void *work, int64_t first, int64_t last) {
    const resize_work *w = work;
    const int32_t taps = w->rows->taps;
    const int64_t count = 3 * (int64_t)w->cols->target;
    ring r;
    int result = ring_make(&r, taps, w->cols->target);
    for (int64_t y = first; result == EDGE_OK && y < last; y++) {
        for (int32_t k = 0; k < taps; k++) {
            const int64_t row = w->rows->first[y] + (int64_t)k, slot = row % taps;
            int16_t *line = r.lines + slot * r.stride;
            if (r.held[slot] != row) {
                w->across(w->plan, w->frame + 3 * w->width * row, line);
                r.held[slot] = row;
            }
            r.picked[k] = line;
        }
        w->down(r.picked, w->rows->weights + y * taps, taps, count, w->out + count * y);
    }
    ring_free(&r);
    return result;
}

/* Positions must lie in the source; weights must be sums of one, or sums could overflow. */
static int taps_are_sound(const edge_taps *taps, int64_t length) {
    if (taps->target < 1 || taps->taps < 1) return 0;
    for (int64_t i = 0; i < taps->target; i++) {
        int64_t sum = 0;
        if (taps->first[i] < 0 || taps->first[i] > length - taps->taps) return 0;
        for (int64_t k = 0; k < taps->taps; k++) {
            if (taps->weights[i * taps->taps + k] < 0) return 0;
            sum += taps->weights[i * taps->taps + k];
        }
        if (sum != EDGE_TAPS_ONE) return 0;
    }
    return 1;
}

#if defined(__x86_64__)
/* How many groups of four pixels, from the left, vectors may read without leaving the row. */
static int64_t readable_groups(const edge_taps *cols, int64_t width) {
    const int64_t last = (cols->taps - 1) / 4 * 4; /* the tap that the last load begins with */
    int64_t x = 0;
    while (x < cols->target && 3 * (cols->first[x] + last) + ACROSS_LOAD <= 3 * width) x++;
    return x / 4;
}

/* Weights by group, step of two taps, pixels 0 and 2 and then 1 and 3, and channel: each channel of a
 * pixel has its own copy of the two weights, and the fourth lane none. */
static int16_t *edge_spread(const edge_taps *cols, int64_t groups) {
    const int32_t steps = (cols->taps + 1) / 2;
    int16_t *spread = calloc((size_t)(groups * steps * SPREAD_STEP), sizeof *spread);
    if (spread == NULL) return NULL;
    for (int64_t x = 0; x < 4 * groups; x++) {
        const int16_t *weights = cols->weights + x * cols->taps;
        for (int32_t k = 0; k < cols->taps; k++) {
            int16_t *step = spread + (x / 4 * steps + k / 2) * SPREAD_STEP;
            int16_t *lane = step + x % 2 * (SPREAD_STEP / 2) + x % 4 / 2 * (SPREAD_STEP / 4);
            for (int c = 0; c < 3; c++) lane[2 * c + k % 2] = weights[k];
        }
    }
    return spread;
}
#endif

int edge_resize(int mode, const uint8_t *frame, int64_t height, int64_t width,
                const edge_taps *rows, const edge_taps *cols, uint8_t *out, int threads) {
    if (!taps_are_sound(rows, height) || !taps_are_sound(cols, width)) return EDGE_BAD_TABLE;
    across_plan plan = {cols, width, NULL, 0};
    resize_work work = {frame, width, rows, cols, &plan, edge_across_plain, edge_down_plain,
                        edge_halve_plain, out};
    int64_t grain = 1 + (1 << 20) / (3 * width);
    int16_t *spread = NULL;
    switch (mode) {
    case EDGE_SCALAR:
    case EDGE_NEON: /* AArch64 has NEON throughout: the plain passes are vectorised with it */
        break;
#if defined(__x86_64__)
    case EDGE_AVX2:
    case EDGE_AVX512: /* wider vectors would gain little: loads are by the pixel */
        work.down = edge_down_avx2;
        work.halve = edge_halve_avx2;
        break;
#endif
    default:
        return EDGE_BAD_MODE;
    }
    if (halves(rows, height) && halves(cols, width)) {
        return edge_parallel(halve_rows, &work, rows->target, grain, threads);
    }
#if defined(__x86_64__)
    if (mode != EDGE_SCALAR) plan.groups = readable_groups(cols, width);
    if (plan.groups) {
        spread = edge_spread(cols, plan.groups);
        if (spread == NULL) return EDGE_NO_MEMORY;
        plan.spread = spread;
        work.across = edge_across_avx2;
    }
#endif
    const int result = edge_parallel(resize_rows, &work, rows->target, grain, threads);
    free(spread);
    return result;
}
