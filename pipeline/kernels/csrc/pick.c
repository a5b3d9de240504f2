/* Labels of overlapping tiles: each pixel from the one tile that its tables name. */
#include "kernels.h"
#include "parallel.h"

typedef struct {
    const uint8_t *const *tiles;
    int64_t per_row, tile_width;
    const int32_t *rows, *cols;
    uint8_t *out;
    int64_t height, width;
} pick_work;

static int pick_rows(void *work, int64_t first, int64_t last) {
    const pick_work *w = work;
    const int32_t *owner = w->cols, *place = w->cols + w->width;
    for (int64_t y = first; y < last; y++) {
        const uint8_t *const *tiles = w->tiles + w->per_row * w->rows[y];
        int64_t line = w->tile_width * w->rows[w->height + y];
        uint8_t *to = w->out + w->width * y;
        for (int64_t x = 0; x < w->width;) {
            int32_t tile = owner[x];
            const uint8_t *from = tiles[tile] + line;
            do {
                to[x] = from[place[x]];
                x++;
            } while (x < w->width && owner[x] == tile);
        }
    }
    return EDGE_OK;
}

static int within(const int32_t *table, int64_t length, int64_t limit) {
    for (int64_t i = 0; i < length; i++) {
        if (table[i] < 0 || table[i] >= limit) return 0;
    }
    return 1;
}

int edge_pick_labels(const uint8_t *const *tiles, int64_t count, int64_t per_row,
                     int64_t tile_height, int64_t tile_width, const int32_t *rows,
                     const int32_t *cols, uint8_t *out, int64_t height, int64_t width,
                     int threads) {
    if (!within(rows, height, count / per_row) || !within(rows + height, height, tile_height) ||
        !within(cols, width, per_row) || !within(cols + width, width, tile_width)) {
        return EDGE_BAD_TABLE;
    }
    pick_work work = {tiles, per_row, tile_width, rows, cols, out, height, width};
    return edge_parallel(pick_rows, &work, height, 1 + (1 << 19) / width, threads);
}
