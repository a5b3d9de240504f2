/* The kernels' C interface. Plain C11; Python never appears here.
 *
 * Every function takes arguments that the binding has checked; what it cannot know cheaply (index
 * tables, whose entries become addresses) is checked again here. Formulas: reference.py.
 * Return values: EDGE_OK, or one of the negative codes below with nothing promised of the output.
 */
#ifndef EDGE_KERNELS_H
#define EDGE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define EDGE_OK 0
#define EDGE_NO_MEMORY (-1)
#define EDGE_BAD_TABLE (-2) /* an index table points outside its array */
#define EDGE_BAD_MODE (-3)  /* not compiled in, or not supported by this CPU */

/* Bumped whenever a signature changes, so that the binding never calls something else. */
#define EDGE_ABI 2

enum edge_mode { EDGE_SCALAR = 0, EDGE_AVX2 = 1, EDGE_AVX512 = 2, EDGE_NEON = 3, EDGE_MODES = 4 };

/* One axis of a tiled picture; see axis.py. Lengths in cells of the logits' grid. */
typedef struct {
    int32_t tiles;         /* how many lie along it */
    int32_t size;          /* length of one */
    int32_t extent;        /* length of the blended grid: origins[tiles - 1] + size */
    int32_t samples;       /* length of the output, in pixels */
    const int32_t *origins;  /* [tiles] */
    const float *weights;    /* [tiles][size] */
    const int32_t *cells;    /* [samples] ascending, 0 .. extent */
    const float *fractions;  /* [samples] */
} edge_axis;

/* The sum of a target pixel's weights. */
#define EDGE_TAPS_ONE 16384

/* How one axis is resized; see taps.py. Target pixel u is the sum of weights[u][k] / EDGE_TAPS_ONE
 * times source pixel first[u] + k. */
typedef struct {
    int32_t target;        /* length of the output */
    int32_t taps;          /* source pixels for each of its pixels */
    const int32_t *first;  /* [target] */
    const int16_t *weights;  /* [target][taps], none negative, each row summing to EDGE_TAPS_ONE */
} edge_taps;

#if defined(__GNUC__)
#define EDGE_API __attribute__((visibility("default")))
#else
#define EDGE_API
#endif

EDGE_API int edge_abi(void);

/* Bit m is set where mode m was compiled in and this CPU and operating system run it. */
EDGE_API unsigned edge_supported_modes(void);

/* frame [height][width][3], out [rows->target][cols->target][3] */
EDGE_API int edge_resize(int mode, const uint8_t *frame, int64_t height, int64_t width,
                         const edge_taps *rows, const edge_taps *cols, uint8_t *out, int threads);

/* frame [height][width][3], origins [tiles][2], out [tiles][tile_height][tile_width][3] */
EDGE_API int edge_cut_tiles(const uint8_t *frame, int64_t height, int64_t width,
                            const int32_t *origins, int64_t tiles, uint8_t *out,
                            int64_t tile_height, int64_t tile_width, int threads);

/* tiles[rows->tiles * cols->tiles] point to [classes][rows->size][cols->size];
 * out [rows->samples][cols->samples] */
EDGE_API int edge_blend_argmax(int mode, const float *const *tiles, int32_t classes,
                               const edge_axis *rows, const edge_axis *cols, uint8_t *out,
                               int threads);

/* tiles[count] point to [tile_height][tile_width]; rows [2][height], cols [2][width] */
EDGE_API int edge_pick_labels(const uint8_t *const *tiles, int64_t count, int64_t per_row,
                              int64_t tile_height, int64_t tile_width, const int32_t *rows,
                              const int32_t *cols, uint8_t *out, int64_t height, int64_t width,
                              int threads);

/* frame, out [pixels][3], may be the same; labels [pixels]; palette [256][4]: blue, green, red, and
 * 255 where the label is painted, else 0; alpha 0 .. 256:
 * out = (frame * (256 - alpha) + colour * alpha + 128) >> 8 */
EDGE_API int edge_overlay(int mode, const uint8_t *frame, const uint8_t *labels,
                          const uint8_t *palette, int32_t alpha, uint8_t *out, int64_t pixels,
                          int threads);

/* counts [classes + 1][classes + 1] are added to; row and column `classes` count what is no class */
EDGE_API int edge_confusion(const uint8_t *truth, const uint8_t *prediction, int64_t pixels,
                            int32_t classes, int32_t ignore, int64_t *counts, int threads);

#endif
