/* Random calls of every kernel, to be run under sanitizers and on other machines.
 *
 * usage: fuzz [seed [rounds]]
 *
 * Every array is its own allocation of the exact size, so that a step outside is a sanitizer's
 * error. Each mode must give what scalar gives, with one thread and with several; the kernels that
 * have one mode are held against loops written here. Prints a checksum of all outputs, which is the
 * same on every machine for the same seed and rounds. Exit code 1 on the first difference. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_random.h"
#include "kernels.h"

/* --- cut_tiles: walk to the pixel, turning round at the ends ------------------------------- */

static int32_t walk(int32_t index, int32_t length) {
    int32_t at = 0, step = 1;
    for (int32_t k = 0, n = index < 0 ? -index : index; k < n && length > 1; k++) {
        if (at + step < 0 || at + step >= length) step = -step;
        at += step;
    }
    return at; /* a reflection is the same in both directions from pixel 0 */
}

static void fuzz_cut(void) {
    const int32_t height = between(1, 30), width = between(1, 30), tiles = between(1, 4);
    const int32_t th = between(1, 40), tw = between(1, 40), threads = between(1, 4);
    const size_t size = (size_t)(3 * tiles * th * tw);
    uint8_t *frame = noise((size_t)(3 * height * width), 256), *out = get(size);
    int32_t *origins = get((size_t)(2 * tiles) * sizeof *origins);
    for (int32_t i = 0; i < 2 * tiles; i++) origins[i] = between(-90, 90);
    expect_ok(edge_cut_tiles(frame, height, width, origins, tiles, out, th, tw, threads),
              "cut_tiles", 0);
    for (int32_t t = 0; t < tiles; t++) {
        for (int32_t y = 0; y < th; y++) {
            for (int32_t x = 0; x < tw; x++) {
                const uint8_t *want = frame + 3 * (walk(origins[2 * t] + y, height) * width +
                                                   walk(origins[2 * t + 1] + x, width));
                if (memcmp(out + 3 * ((t * th + y) * tw + x), want, 3) != 0) fail("cut_tiles", 0);
            }
        }
    }
    add_to_checksum(out, size);
    free(frame);
    free(out);
    free(origins);
}

/* --- resize: the same sums, pixel by pixel ---------------------------------------------------- */

static edge_taps random_taps(int32_t source, int32_t target, int halve) {
    const int32_t count = halve ? 2 : between(1, source < 9 ? source : 9);
    int32_t *first = get((size_t)target * sizeof *first);
    int16_t *weights = get((size_t)(target * count) * sizeof *weights);
    for (int32_t u = 0; u < target; u++) {
        int32_t left = EDGE_TAPS_ONE;
        first[u] = halve ? 2 * u : between(0, source - count);
        for (int32_t k = 0; k < count; k++) {
            const int32_t weight = k + 1 == count ? left : halve ? left / 2 : between(0, left);
            weights[u * count + k] = (int16_t)weight;
            left -= weight;
        }
    }
    return (edge_taps){target, count, first, weights};
}

static int32_t row_sum(const uint8_t *row, const edge_taps *cols, int32_t x) {
    int32_t sum = 1 << 7;
    for (int32_t k = 0; k < cols->taps; k++) {
        sum += cols->weights[x * cols->taps + k] * row[3 * (cols->first[x] + k)];
    }
    return sum >> 8;
}

static void fuzz_resize(void) {
    const int halve = next() % 3 == 0;
    const int32_t th = between(1, 20), tw = between(1, 40), threads = between(1, 4);
    const int32_t height = halve ? 2 * th : between(1, 30), width = halve ? 2 * tw : between(1, 30);
    const size_t size = (size_t)(3 * th * tw);
    uint8_t *frame = noise((size_t)(3 * height * width), 256), *out = get(size), *want = get(size);
    edge_taps rows = random_taps(height, th, halve), cols = random_taps(width, tw, halve);
    for (int32_t i = 0; i < 3 * th * tw; i++) {
        const int32_t y = i / (3 * tw), x = i / 3 % tw;
        int32_t sum = 1 << 19;
        for (int32_t k = 0; k < rows.taps; k++) {
            const uint8_t *row = frame + 3 * width * (rows.first[y] + k) + i % 3;
            sum += rows.weights[y * rows.taps + k] * row_sum(row, &cols, x);
        }
        want[i] = (uint8_t)(sum >> 20);
    }
    for (int mode = 0; mode < EDGE_MODES; mode++) {
        if (!(edge_supported_modes() >> mode & 1)) continue;
        memset(out, 77, size);
        expect_ok(edge_resize(mode, frame, height, width, &rows, &cols, out, threads), "resize",
                  mode);
        if (memcmp(out, want, size) != 0) fail("resize", mode);
    }
    add_to_checksum(out, size);
    free(frame);
    free(out);
    free(want);
    free((void *)(uintptr_t)rows.first);
    free((void *)(uintptr_t)rows.weights);
    free((void *)(uintptr_t)cols.first);
    free((void *)(uintptr_t)cols.weights);
}

/* --- blend_argmax: every mode against scalar ------------------------------------------------ */

typedef struct {
    edge_axis axis;
    int32_t *origins, *cells;
    float *weights, *fractions;
} own_axis;

static own_axis random_axis(void) {
    own_axis a;
    const int32_t tiles = between(1, 3), size = between(1, 30);
    a.origins = get((size_t)tiles * sizeof *a.origins);
    a.weights = get((size_t)(tiles * size) * sizeof *a.weights);
    a.origins[0] = 0;
    for (int32_t k = 1; k < tiles; k++) a.origins[k] = a.origins[k - 1] + between(0, size);
    for (int32_t i = 0; i < tiles * size; i++) a.weights[i] = tiles == 1 ? 1.0f : unit() + 0.01f;
    const int32_t extent = a.origins[tiles - 1] + size;
    /* As fine as x10, as coarse as every tenth cell; exactly x4 often, the kernel's main case. */
    const int32_t samples = next() % 3 ? between(1, 10 * extent) : 4 * extent;
    const float shift = next() % 2 ? 0.0f : 2 * unit() - 1;
    a.cells = get((size_t)samples * sizeof *a.cells);
    a.fractions = get((size_t)samples * sizeof *a.fractions);
    for (int32_t u = 0; u < samples; u++) {
        float at = ((float)u + 0.5f) * (float)extent / (float)samples - 0.5f + shift;
        float cell = floorf(at) + 1;
        cell = cell < 0 ? 0 : cell > (float)extent ? (float)extent : cell;
        a.cells[u] = (int32_t)cell;
        a.fractions[u] = at - floorf(at);
    }
    a.axis = (edge_axis){tiles,     size,      extent,  samples,
                         a.origins, a.weights, a.cells, a.fractions};
    return a;
}

static void free_axis(own_axis *a) {
    free(a->origins);
    free(a->cells);
    free(a->weights);
    free(a->fractions);
}

static float *random_logits(size_t count, int wild) {
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-42f, 3e38f, -3e38f};
    float *values = get(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = i && next() % 8 ? values[i - 1] + 0.01f * (unit() - 0.5f) : 8 * unit() - 4;
        if (wild && next() % 16 == 0) values[i] = special[next() % 8];
        if (wild && next() % 4 == 0) values[i] = (float)between(-1, 1); /* ties */
    }
    return values;
}

static void fuzz_blend(void) {
    own_axis rows = random_axis(), cols = random_axis();
    const int32_t classes = next() % 8 ? between(1, 24) : between(200, 255);
    const int32_t count = rows.axis.tiles * cols.axis.tiles, threads = between(1, 4);
    const size_t tile = (size_t)classes * (size_t)(rows.axis.size * cols.axis.size);
    const size_t size = (size_t)rows.axis.samples * (size_t)cols.axis.samples;
    const float **tiles = get((size_t)count * sizeof *tiles);
    const int wild = next() % 2 == 0;
    for (int32_t t = 0; t < count; t++) tiles[t] = random_logits(tile, wild);
    uint8_t *want = get(size), *out = get(size);
    expect_ok(edge_blend_argmax(EDGE_SCALAR, tiles, classes, &rows.axis, &cols.axis, want, 1),
              "blend_argmax", EDGE_SCALAR);
    for (int mode = 0; mode < EDGE_MODES; mode++) {
        if (!(edge_supported_modes() >> mode & 1)) continue;
        memset(out, 77, size);
        expect_ok(edge_blend_argmax(mode, tiles, classes, &rows.axis, &cols.axis, out, threads),
                  "blend_argmax", mode);
        if (memcmp(out, want, size) != 0) fail("blend_argmax", mode);
    }
    add_to_checksum(want, size);
    for (int32_t t = 0; t < count; t++) free((void *)(uintptr_t)tiles[t]);
    free(tiles);
    free(want);
    free(out);
    free_axis(&rows);
    free_axis(&cols);
}

/* --- pick_labels ----------------------------------------------------------------------------- */

static int32_t *random_table(int32_t length, int32_t owners, int32_t places) {
    int32_t *table = get((size_t)(2 * length) * sizeof *table);
    for (int32_t i = 0; i < length; i++) {
        table[i] = between(0, owners - 1);
        table[length + i] = between(0, places - 1);
    }
    return table;
}

static void fuzz_pick(void) {
    const int32_t down = between(1, 3), across = between(1, 3), th = between(1, 20);
    const int32_t tw = between(1, 20), height = between(1, 50), width = between(1, 50);
    const uint8_t **tiles = get((size_t)(down * across) * sizeof *tiles);
    for (int32_t t = 0; t < down * across; t++) tiles[t] = noise((size_t)(th * tw), 256);
    int32_t *rows = random_table(height, down, th), *cols = random_table(width, across, tw);
    const size_t size = (size_t)(height * width);
    uint8_t *out = get(size);
    expect_ok(edge_pick_labels(tiles, down * across, across, th, tw, rows, cols, out, height,
                               width, between(1, 4)),
              "pick_labels", 0);
    for (int32_t y = 0; y < height; y++) {
        for (int32_t x = 0; x < width; x++) {
            const uint8_t *from = tiles[rows[y] * across + cols[x]];
            if (out[y * width + x] != from[rows[height + y] * tw + cols[width + x]]) {
                fail("pick_labels", 0);
            }
        }
    }
    rows[between(0, 2 * height - 1)] = next() % 2 ? -1 : 1000;
    if (edge_pick_labels(tiles, down * across, across, th, tw, rows, cols, out, height, width,
                         1) != EDGE_BAD_TABLE) {
        fail("pick_labels, which took a bad table,", 0);
    }
    add_to_checksum(out, size);
    for (int32_t t = 0; t < down * across; t++) free((void *)(uintptr_t)tiles[t]);
    free(tiles);
    free(rows);
    free(cols);
    free(out);
}

/* --- overlay --------------------------------------------------------------------------------- */

static void fuzz_overlay(void) {
    const int32_t pixels = between(1, 3000), alpha = between(0, 256), threads = between(1, 4);
    const size_t size = (size_t)(3 * pixels);
    uint8_t *frame = noise(size, 256), *labels = noise((size_t)pixels, 256);
    uint8_t *palette = noise(4 * 256, 256), *out = get(size), *want = get(size);
    for (int c = 0; c < 256; c++) palette[4 * c + 3] = next() % 4 ? 255 : 0;
    for (int32_t i = 0; i < pixels; i++) {
        const uint8_t *entry = palette + 4 * labels[i];
        for (int k = 0; k < 3; k++) {
            int mixed = (frame[3 * i + k] * (256 - alpha) + entry[k] * alpha + 128) / 256;
            want[3 * i + k] = entry[3] ? (uint8_t)mixed : frame[3 * i + k];
        }
    }
    for (int mode = 0; mode < EDGE_MODES; mode++) {
        if (!(edge_supported_modes() >> mode & 1)) continue;
        expect_ok(edge_overlay(mode, frame, labels, palette, alpha, out, pixels, threads),
                  "overlay", mode);
        if (memcmp(out, want, size) != 0) fail("overlay", mode);
        memcpy(out, frame, size);
        expect_ok(edge_overlay(mode, out, labels, palette, alpha, out, pixels, threads),
                  "overlay in place", mode);
        if (memcmp(out, want, size) != 0) fail("overlay in place", mode);
    }
    add_to_checksum(out, size);
    free(frame);
    free(labels);
    free(palette);
    free(out);
    free(want);
}

/* --- confusion ------------------------------------------------------------------------------- */

static void fuzz_confusion(void) {
    const int32_t pixels = between(1, 3000), classes = between(1, 30);
    const int32_t ignore = next() % 4 ? 255 : between(0, 40), side = classes + 1;
    const size_t cells = (size_t)(side * side);
    uint8_t *truth = noise((size_t)pixels, 34), *prediction = noise((size_t)pixels, 34);
    int64_t *counts = get(cells * sizeof *counts), *want = get(cells * sizeof *want);
    for (size_t i = 0; i < cells; i++) want[i] = counts[i] = between(0, 1000);
    for (int32_t i = 0; i < pixels; i++) {
        if (truth[i] == ignore) continue;
        int t = truth[i] < classes ? truth[i] : classes;
        int p = prediction[i] < classes ? prediction[i] : classes;
        want[t * side + p]++;
    }
    expect_ok(edge_confusion(truth, prediction, pixels, classes, ignore, counts, between(1, 4)),
              "confusion", 0);
    if (memcmp(counts, want, cells * sizeof *want) != 0) fail("confusion", 0);
    for (size_t i = 0; i < cells; i++) {
        uint8_t bytes[8];
        for (int k = 0; k < 8; k++) bytes[k] = (uint8_t)((uint64_t)counts[i] >> 8 * k);
        add_to_checksum(bytes, 8);
    }
    free(truth);
    free(prediction);
    free(counts);
    free(want);
}

int main(int count, char **arguments) {
    const unsigned long long seed = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    const unsigned long long rounds = count > 2 ? strtoull(arguments[2], NULL, 10) : 200;
    for (unsigned long long round = 0; round < rounds; round++) {
        state = seed * UINT64_C(1000003) + round;
        fuzz_resize();
        fuzz_cut();
        fuzz_blend();
        fuzz_pick();
        fuzz_overlay();
        fuzz_confusion();
    }
    printf("modes %#x checksum %016llx\n", edge_supported_modes(), (unsigned long long)checksum);
    return 0;
}
