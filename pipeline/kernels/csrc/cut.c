/* Frame to tiles with reflected borders: rows are copied whole, only what hangs over the frame's
 * sides is fetched pixel by pixel.
 *
 * The tiles of a large frame are more than a core's own cache holds. Written as usual, each line of
 * them would first be read from memory to be overwritten, and would push out what is of use; on
 * x86 they are streamed past the cache instead, which halves the time. */
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels.h"
#include "parallel.h"

typedef struct {
    const uint8_t *frame;
    int64_t height, width;
    const int32_t *origins;
    uint8_t *out;
    int64_t tiles, tile_height, tile_width;
    int stream;
} cut_work;

#ifdef EDGE_SMALL_IS_LARGE
#define STREAM_BYTES 0
#else
#define STREAM_BYTES (4 << 20)
#endif

static void copy(uint8_t *to, const uint8_t *from, size_t bytes, int stream) {
#if defined(__SSE2__)
    if (stream) {
        const size_t vector = sizeof(__m128i);
        size_t head = (vector - (uintptr_t)to % vector) % vector;
        if (head > bytes) head = bytes;
        memcpy(to, from, head);
        for (to += head, from += head, bytes -= head; bytes >= vector; bytes -= vector) {
            _mm_stream_si128((void *)to, _mm_loadu_si128((const void *)from));
            to += vector;
            from += vector;
        }
    }
#else
    (void)stream;
#endif
    memcpy(to, from, bytes);
}

/* What was streamed becomes visible to other cores in order with what follows. */
static void settle(int stream) {
#if defined(__SSE2__)
    if (stream) _mm_sfence();
#else
    (void)stream;
#endif
}

/* dcb|abcd|cba for ever. The period is 2 (length - 1): a phase below length is that pixel, one above
 * it lies on the way back. A single pixel repeats. */
static int64_t period_of(int64_t length) { return length > 1 ? 2 * (length - 1) : 1; }

static int64_t phase_of(int64_t index, int64_t length) {
    const int64_t period = period_of(length), phase = index % period;
    return phase < 0 ? phase + period : phase;
}

static int64_t pixel_at(int64_t phase, int64_t length) {
    return phase < length ? phase : period_of(length) - phase;
}

/* Pixels first .. last of a tile's row, each where its reflection lies in the frame's row: runs to
 * the right are copied whole, runs back to the left pixel by pixel. */
static void copy_reflected(const cut_work *w, const uint8_t *from, uint8_t *to, int64_t x,
                           int64_t first, int64_t last) {
    const int64_t width = w->width, period = period_of(width);
    int64_t phase = phase_of(x + first, width);
    uint8_t *end = to + 3 * last;
    for (to += 3 * first; to < end;) {
        const int64_t left = (end - to) / 3, there = phase < width ? width - phase : period - phase;
        const int64_t run = left < there ? left : there;
        const uint8_t *pixel = from + 3 * pixel_at(phase, width);
        if (phase < width) {
            memcpy(to, pixel, (size_t)(3 * run));
            to += 3 * run;
        } else {
            for (int64_t i = 0; i < run; i++, to += 3, pixel -= 3) {
                to[0] = pixel[0];
                to[1] = pixel[1];
                to[2] = pixel[2];
            }
        }
        phase = (phase + run) % period;
    }
}

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* Rows are numbered through all tiles, row y of each before row y + 1 of any: tiles beside each
 * other take theirs from one row of the frame, which is then at hand. */
static int cut_rows(void *work, int64_t first, int64_t last) {
    const cut_work *w = work;
    for (int64_t row = first; row < last; row++) {
        int64_t tile = row % w->tiles, line = row / w->tiles;
        int64_t y = w->origins[2 * tile] + line;
        int64_t x = w->origins[2 * tile + 1];
        const uint8_t *from = w->frame + 3 * w->width * pixel_at(phase_of(y, w->height), w->height);
        uint8_t *to = w->out + 3 * w->tile_width * (tile * w->tile_height + line);
        int64_t inside = clamp(-x, 0, w->tile_width);
        int64_t outside = clamp(w->width - x, inside, w->tile_width);
        copy_reflected(w, from, to, x, 0, inside);
        if (outside > inside) {
            copy(to + 3 * inside, from + 3 * (x + inside), (size_t)(3 * (outside - inside)),
                 w->stream);
        }
        copy_reflected(w, from, to, x, outside, w->tile_width);
    }
    settle(w->stream);
    return EDGE_OK;
}

int edge_cut_tiles(const uint8_t *frame, int64_t height, int64_t width, const int32_t *origins,
                   int64_t tiles, uint8_t *out, int64_t tile_height, int64_t tile_width,
                   int threads) {
    const int stream = 3 * tiles * tile_height * tile_width > STREAM_BYTES;
    cut_work work = {frame, height, width, origins, out, tiles, tile_height, tile_width,
                     stream};
    int64_t grain = 1 + (4 << 20) / (3 * tile_width); /* 4 MiB a thread */
    return edge_parallel(cut_rows, &work, tiles * tile_height, grain, threads);
}
