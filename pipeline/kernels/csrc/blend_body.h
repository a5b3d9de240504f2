/* Blend, sample, argmax: the loops, once for each instruction set that a simd_*.h gives words for.
 *
 * Rows of the blended grid are made one after the other and only two are kept. Between them lies a
 * row of cells, each with the (scale x scale) output pixels between four grid points. Three facts
 * save nearly all of the work, and none changes a label:
 *
 * 1. A class that wins at all four points wins everywhere between them (a convex combination keeps
 *    the order). Most cells lie inside one thing: their pixels are set, not computed.
 * 2. Of the others, with m_c and M_c a class's least and greatest value at the four points, class c
 *    cannot win where M_c < max_k m_k. Two to four classes of nineteen remain.
 * 3. Consecutive cells are lanes of a vector; the columns within a cell differ only by weights.
 *
 * Labels are carried as class + 1, so that 0 is "none yet", which as a byte less one is 255. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blend.h"

typedef struct {
    float *points;     /* [classes][stride], point g of the grid at g + 1, edges repeated */
    uint8_t *winner;   /* [stride], as labels */
    int32_t row;       /* which row of the grid; -1 for none */
} NAME(grid_row);

/* Where cells need no computing: mask -1 there, else 0, and the label in all four bytes. */
typedef struct {
    uint8_t *agreed;    /* [stride] 255 or 0; 255 beyond the last cell */
    int32_t *mask, *label; /* [stride] */
} NAME(agreement);

/* points = sum of weight * tile over the tiles that cover this row of the grid. */
TARGET static void NAME(blend_row)(const edge_blend_work *w, int32_t g, float *points,
                                   float *weights) {
    const edge_axis *rows = w->rows, *cols = w->cols;
    const size_t size = (size_t)cols->size, plane = (size_t)rows->size * size;
    if (w->plain) {
        for (int32_t c = 0; c < w->classes; c++) {
            memcpy(points + (size_t)c * w->stride + 1,
                   w->tiles[0] + (size_t)c * plane + (size_t)g * size, size * sizeof *points);
        }
        return;
    }
    for (int32_t c = 0; c < w->classes; c++) {
        memset(points + (size_t)c * w->stride + 1, 0, (size_t)cols->extent * sizeof *points);
    }
    for (int32_t i = 0; i < rows->tiles; i++) {
        const int32_t y = g - rows->origins[i];
        if (y < 0 || y >= rows->size) continue;
        const float vertical = rows->weights[(size_t)i * (size_t)rows->size + (size_t)y];
        for (int32_t j = 0; j < cols->tiles; j++) {
            for (size_t x = 0; x < size; x++) {
                weights[x] = vertical * cols->weights[(size_t)j * size + x];
            }
            const float *tile = w->tiles[(size_t)i * (size_t)cols->tiles + (size_t)j];
            for (int32_t c = 0; c < w->classes; c++) {
                const float *restrict from = tile + (size_t)c * plane + (size_t)y * size;
                float *restrict to = points + (size_t)c * w->stride + 1 + cols->origins[j];
                for (size_t x = 0; x < size; x++) to[x] += weights[x] * from[x];
            }
        }
    }
}

TARGET static void NAME(make_row)(const edge_blend_work *w, int32_t g, NAME(grid_row) *row,
                                  float *weights) {
    if (row->row == g) return;
    row->row = g;
    NAME(blend_row)(w, g, row->points, weights);
    const size_t last = (size_t)w->cols->extent;
    for (int32_t c = 0; c < w->classes; c++) {
        float *points = row->points + (size_t)c * w->stride;
        points[0] = points[1];
        for (size_t x = last + 1; x < w->stride; x++) points[x] = points[last];
    }
    for (size_t x = 1; x <= last; x += LANES) {
        vf best = vf_set(-INFINITY);
        vi label = vi_set(0);
        for (int32_t c = 0; c < w->classes; c++) {
            vf value = vf_load(row->points + (size_t)c * w->stride + x);
            vm better = vf_gt(value, best);
            best = vf_max(value, best);
            label = vi_where(better, vi_set(c + 1), label);
        }
        int32_t lanes[LANES];
        vi_store(lanes, label);
        for (int k = 0; k < LANES; k++) row->winner[x + (size_t)k] = (uint8_t)(lanes[k] - 1);
    }
    row->winner[0] = row->winner[1];
    memset(row->winner + last + 1, row->winner[last], w->stride - last - 1);
}

TARGET static void NAME(compare_rows)(const edge_blend_work *w, const uint8_t *top,
                                      const uint8_t *bottom, NAME(agreement) *a) {
    const size_t cells = (size_t)w->cols->extent + 1;
    for (size_t j = 0; j < cells; j++) {
        int same = (top[j] == top[j + 1]) & (top[j] == bottom[j]) & (top[j] == bottom[j + 1]);
        a->agreed[j] = (uint8_t)-same;
        a->mask[j] = -same;
        a->label[j] = (int32_t)(top[j] * 0x01010101u);
    }
}

/* The classes that may win in some lane's cell (fact 2), ascending; how many. A class whose values
 * there are not all finite sets no bound, but may win. The bound is lowered by more than rounding
 * can move an interpolated value (some 6 ulp), so that none is lost to it. */
TARGET static int32_t NAME(contenders)(const edge_blend_work *w, const float *top,
                                       const float *bottom, int32_t *list) {
    const vf zero = vf_set(0.0f);
    vf bound = vf_set(-INFINITY);
    for (int32_t c = 0; c < w->classes; c++) {
        const size_t at = (size_t)c * w->stride;
        vf a = vf_load(top + at), b = vf_load(top + at + 1);
        vf d = vf_load(bottom + at), e = vf_load(bottom + at + 1);
        vf least = vf_min(vf_min(a, b), vf_min(d, e));
        vf finite = vf_mul(zero, vf_add(vf_add(a, b), vf_add(d, e))); /* 0, or NaN */
        bound = vf_max(vf_add(least, finite), bound);
    }
    vf slack = vf_add(vf_mul(vf_abs(bound), vf_set(0x1p-20f)), vf_set(0x1p-120f));
    bound = vf_sub(bound, slack);
    int32_t count = 0;
    for (int32_t c = 0; c < w->classes; c++) {
        const size_t at = (size_t)c * w->stride;
        vf a = vf_load(top + at), b = vf_load(top + at + 1);
        vf d = vf_load(bottom + at), e = vf_load(bottom + at + 1);
        vf most = vf_max(vf_max(a, b), vf_max(d, e));
        list[count] = c;
        count += vm_any_not(vf_gt(bound, most));
    }
    return count;
}

/* Labels of output row y, columns p .. p + 3 of the LANES cells from j, four bytes a lane. */
TARGET static inline vi NAME(four_columns)(const edge_blend_work *w, const float *top,
                                           const float *bottom, const int32_t *list, int32_t count,
                                           float fraction, const float *left, const float *right) {
    const vf upper = vf_set(1.0f - fraction), lower = vf_set(fraction);
    vf best0 = vf_set(-INFINITY), best1 = best0, best2 = best0, best3 = best0;
    vi label0 = vi_set(0), label1 = label0, label2 = label0, label3 = label0;
#define COLUMN(k)                                                                  \
    do {                                                                           \
        vf value = vf_add(vf_mul(vf_load(left + (k) * w->stride), west),           \
                          vf_mul(vf_load(right + (k) * w->stride), east));         \
        label##k = vi_where(vf_gt(value, best##k), name, label##k);                \
        best##k = vf_max(value, best##k);                                          \
    } while (0)
    for (int32_t k = 0; k < count; k++) {
        const size_t at = (size_t)list[k] * w->stride;
        const vi name = vi_set(list[k] + 1);
        const vf west = vf_add(vf_mul(upper, vf_load(top + at)), vf_mul(lower, vf_load(bottom + at)));
        const vf east = vf_add(vf_mul(upper, vf_load(top + at + 1)),
                               vf_mul(lower, vf_load(bottom + at + 1)));
        COLUMN(0);
        COLUMN(1);
        COLUMN(2);
        COLUMN(3);
    }
#undef COLUMN
    return vi_pack(label0, label1, label2, label3);
}

/* Output rows y .. y_end of the LANES cells from j, computed. */
TARGET static void NAME(compute_cells)(const edge_blend_work *w, const float *top,
                                       const float *bottom, const NAME(agreement) *a, size_t j,
                                       int64_t y, int64_t y_end) {
    const int32_t *start = w->start + j;
    const size_t width = (size_t)w->cols->samples;
    int32_t list[256];
    const int32_t count = NAME(contenders)(w, top + j, bottom + j, list);
    const vi mask = vi_load(a->mask + j), settled = vi_load(a->label + j);
    int32_t most = 0;
    int even = 1; /* whether all cells have four columns */
    for (int k = 0; k < LANES; k++) {
        int32_t columns = start[k + 1] - start[k];
        if (columns > most) most = columns;
        even &= columns == 4;
    }
    for (; y < y_end; y++) {
        uint8_t *out = w->out + (size_t)y * width;
        for (int32_t p = 0; p < most; p += 4) {
            const float *left = w->left + (size_t)p * w->stride + j;
            const float *right = w->right + (size_t)p * w->stride + j;
            vi labels = NAME(four_columns)(w, top + j, bottom + j, list, count,
                                           w->rows->fractions[y], left, right);
            labels = vi_bits(mask, settled, labels);
            if (even) {
                vi_store(out + start[0], labels);
                continue;
            }
            uint8_t bytes[4 * LANES];
            vi_store(bytes, labels);
            for (int k = 0; k < LANES; k++) {
                int32_t columns = start[k + 1] - start[k] - p;
                uint8_t *to = out + start[k] + p;
                if (columns >= 4) {
                    memcpy(to, bytes + 4 * k, 4);
                } else {
                    for (int32_t i = 0; i < columns; i++) to[i] = bytes[4 * k + i];
                }
            }
        }
    }
}

/* Output rows y .. y_end, which lie between two rows of the grid. */
TARGET static void NAME(fill_rows)(const edge_blend_work *w, const NAME(grid_row) *top,
                                   const NAME(grid_row) *bottom, NAME(agreement) *a, int64_t y,
                                   int64_t y_end) {
    const size_t cells = (size_t)w->cols->extent + 1, width = (size_t)w->cols->samples;
    uint8_t all[LANES];
    memset(all, 255, sizeof all);
    NAME(compare_rows)(w, top->winner, bottom->winner, a);
    for (size_t j = 0; j < cells;) {
        size_t from = j;
        while (j < cells && memcmp(a->agreed + j, all, sizeof all) == 0) j += LANES;
        if (j > from) { /* neighbours share two points, so one label holds throughout */
            size_t x = (size_t)w->start[from];
            size_t x_end = (size_t)w->start[j < cells ? j : cells];
            for (int64_t k = y; k < y_end; k++) {
                memset(w->out + (size_t)k * width + x, top->winner[from], x_end - x);
            }
        } else {
            NAME(compute_cells)(w, top->points, bottom->points, a, j, y, y_end);
            j += LANES;
        }
    }
}

TARGET int NAME(edge_blend)(void *work, int64_t first, int64_t last) {
    const edge_blend_work *w = work;
    const size_t points = (size_t)w->classes * w->stride;
    const size_t floats = 2 * points + (size_t)w->cols->size, ints = 2 * w->stride;
    /* One block: floats, then int32, then bytes. */
    char *block = malloc(floats * sizeof(float) + ints * sizeof(int32_t) + 3 * w->stride);
    if (block == NULL) return EDGE_NO_MEMORY;
    float *memory = (float *)(void *)block;
    int32_t *words = (int32_t *)(void *)(memory + floats);
    uint8_t *bytes = (uint8_t *)(words + ints);
    NAME(grid_row) slots[2] = {{memory, bytes, -1}, {memory + points, bytes + w->stride, -1}};
    NAME(agreement) a = {bytes + 2 * w->stride, words, words + w->stride};
    memset(a.agreed, 255, w->stride);
    memset(words, 0, ints * sizeof *words);
    NAME(grid_row) *top = &slots[0], *bottom = &slots[1];
    for (int64_t y = first; y < last;) {
        const int32_t cell = w->rows->cells[y];
        int64_t y_end = y + 1;
        while (y_end < last && w->rows->cells[y_end] == cell) y_end++;
        const int32_t above = cell > 0 ? cell - 1 : 0;
        const int32_t below = cell < w->rows->extent ? cell : w->rows->extent - 1;
        if (bottom->row == above) {
            NAME(grid_row) *swap = top;
            top = bottom;
            bottom = swap;
        }
        NAME(make_row)(w, above, top, memory + 2 * points);
        if (below != above) NAME(make_row)(w, below, bottom, memory + 2 * points);
        NAME(fill_rows)(w, top, below != above ? bottom : top, &a, y, y_end);
        y = y_end;
    }
    free(block);
    return EDGE_OK;
}
