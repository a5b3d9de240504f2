/* Labels over a frame, a chunk at a time: first each pixel's colour is written to a small buffer,
 * then frame and buffer are mixed byte by byte. A pixel that is not painted gets the frame's own
 * colour, of which the mixture is the frame again, exactly: (f (256 - a) + f a + 128) >> 8 = f.
 *
 * The second loop is plain C, which compilers turn into vectors of whatever width the function's
 * target allows. The first finds most blocks of sixteen pixels to be of one label. */
#include <string.h>

#include "kernels.h"
#include "parallel.h"

#define BLOCK 16
#define CHUNK (32 * BLOCK)

/* Compiled anew for each caller's target; left to itself the compiler would share one body. */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const uint8_t *frame, *labels;
    const uint8_t *palette; /* [256][4]: blue, green, red, and 255 where painted */
    uint8_t *out;
    uint16_t alpha;
} overlay_work;

/* Colours of `count` pixels. */
INLINE void look_up(const uint8_t *palette, const uint8_t *labels, const uint8_t *frame,
                    uint8_t *colours, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *entry = palette + 4 * (size_t)labels[i];
        memcpy(colours + 3 * i, entry[3] ? entry : frame + 3 * i, 3);
    }
}

/* The same for BLOCK pixels, four bytes at a time, the fourth overwritten by the next pixel; only
 * the last must keep to three, beyond which nothing may be. First as if all were painted, which
 * nearly always is so; then, if it was not, choosing without a branch. */
INLINE void look_up_block(const uint8_t *palette, const uint8_t *labels, const uint8_t *frame,
                          uint8_t *colours) {
    const int last = BLOCK - 1;
    uint8_t bytes[4];
    uint32_t all = UINT32_MAX, entry;
    for (int i = 0; i < last; i++) {
        memcpy(&entry, palette + 4 * (size_t)labels[i], 4);
        memcpy(colours + 3 * i, &entry, 4);
        all &= entry;
    }
    memcpy(bytes, &all, 4);
    for (int i = 0; !bytes[3] && i < last; i++) {
        uint32_t own;
        memcpy(&entry, palette + 4 * (size_t)labels[i], 4);
        memcpy(&own, frame + 3 * i, 4);
        const uint32_t painted = 0u - (palette[4 * (size_t)labels[i] + 3] & 1u);
        entry = (entry & painted) | (own & ~painted);
        memcpy(colours + 3 * i, &entry, 4);
    }
    look_up(palette, labels + last, frame + 3 * last, colours + 3 * last, 1);
}

INLINE void colour_chunk(const uint8_t *palette, const uint8_t *labels, const uint8_t *frame,
                         uint8_t *colours, int64_t count) {
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint8_t uniform[3 * BLOCK] = {0};
    int laid_out = -1; /* the label whose colour `uniform` repeats */
    int64_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        const uint8_t *block = labels + i;
        uint64_t halves[2];
        memcpy(halves, block, BLOCK);
        if (halves[0] != halves[1] || halves[0] != block[0] * ones) {
            look_up_block(palette, block, frame + 3 * i, colours + 3 * i);
        } else if (!palette[4 * (size_t)block[0] + 3]) {
            memcpy(colours + 3 * i, frame + 3 * i, 3 * BLOCK);
        } else {
            if (block[0] != laid_out) look_up_block(palette, block, frame + 3 * i, uniform);
            laid_out = block[0];
            memcpy(colours + 3 * i, uniform, 3 * BLOCK);
        }
    }
    look_up(palette, labels + i, frame + 3 * i, colours + 3 * i, count - i);
}

INLINE int overlay_body(const overlay_work *w, int64_t first, int64_t last) {
    const uint16_t alpha = w->alpha, rest = (uint16_t)(256 - alpha);
    uint8_t colours[3 * CHUNK];
    for (int64_t i = first; i < last; i += CHUNK) {
        const int64_t count = last - i < CHUNK ? last - i : CHUNK;
        const uint8_t *frame = w->frame + 3 * i;
        uint8_t *out = w->out + 3 * i;
        colour_chunk(w->palette, w->labels + i, frame, colours, count);
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep /* out may be the frame, but never a frame shifted */
#endif
        for (int64_t k = 0; k < 3 * count; k++) {
            out[k] = (uint8_t)((uint16_t)(frame[k] * rest + colours[k] * alpha + 128) >> 8);
        }
    }
    return EDGE_OK;
}

static int overlay_plain(void *work, int64_t first, int64_t last) {
    return overlay_body(work, first, last);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int overlay_avx2(void *work, int64_t first, int64_t last) {
    return overlay_body(work, first, last);
}
#endif

int edge_overlay(int mode, const uint8_t *frame, const uint8_t *labels, const uint8_t *palette,
                 int32_t alpha, uint8_t *out, int64_t pixels, int threads) {
    overlay_work work = {frame, labels, palette, out, (uint16_t)alpha};
    edge_part part = NULL;
    switch (mode) {
    case EDGE_SCALAR:
    case EDGE_NEON: /* AArch64 has NEON throughout: the plain body is vectorised with it */
        part = overlay_plain;
        break;
#if defined(__x86_64__)
    case EDGE_AVX2:
    case EDGE_AVX512: /* memory is the limit before vectors of 512 bits would be */
        part = overlay_avx2;
        break;
#endif
    default:
        return EDGE_BAD_MODE;
    }
    return edge_parallel(part, &work, pixels, 1 << 19, threads);
}
