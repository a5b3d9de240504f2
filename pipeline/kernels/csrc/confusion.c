/* Confusion counts. Labels come in runs, so eight pixels at a time are compared with those before
 * and only counted when they end. What is no run goes round robin into four tables, so that equal
 * neighbours do not wait for each other's store. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "parallel.h"

#define BANKS 4
#define STEP 8

typedef struct {
    const uint8_t *truth, *prediction;
    int32_t classes;
    int32_t row[256], column[256]; /* a label's row offset and column in a table */
    int64_t *counts;
    pthread_mutex_t lock;
} confusion_work;

static int count_pixels(void *work, int64_t first, int64_t last) {
    confusion_work *w = work;
    const int32_t *row = w->row, *column = w->column;
    /* One row more than the result: what is ignored lands there and stays there. */
    const size_t side = (size_t)w->classes + 1, length = side * (side + 1);
    int64_t *banks = calloc(BANKS * length, sizeof *banks);
    if (banks == NULL) return EDGE_NO_MEMORY;
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t truths = 0, predictions = 0, t8, p8; /* the run's pair, eight times over */
    int64_t run = 0, i = first;
    for (; i + STEP <= last; i += STEP) {
        const uint8_t *t = w->truth + i, *p = w->prediction + i;
        memcpy(&t8, t, STEP);
        memcpy(&p8, p, STEP);
        if (((t8 ^ truths) | (p8 ^ predictions)) == 0) {
            run++;
            continue;
        }
        banks[row[truths & 255] + column[predictions & 255]] += STEP * run;
        run = 0;
        if (t8 == t[0] * ones && p8 == p[0] * ones) {
            truths = t8;
            predictions = p8;
            run = 1;
            continue;
        }
        for (int k = 0; k < STEP; k++) { /* byte by byte out of registers */
            banks[(size_t)(k % BANKS) * length + (size_t)(row[t8 & 255] + column[p8 & 255])]++;
            t8 >>= 8;
            p8 >>= 8;
        }
    }
    banks[row[truths & 255] + column[predictions & 255]] += STEP * run;
    for (; i < last; i++) banks[row[w->truth[i]] + column[w->prediction[i]]]++;
    pthread_mutex_lock(&w->lock);
    for (size_t k = 0; k < BANKS; k++) {
        for (size_t j = 0; j < side * side; j++) w->counts[j] += banks[k * length + j];
    }
    pthread_mutex_unlock(&w->lock);
    free(banks);
    return EDGE_OK;
}

int edge_confusion(const uint8_t *truth, const uint8_t *prediction, int64_t pixels,
                   int32_t classes, int32_t ignore, int64_t *counts, int threads) {
    confusion_work work = {.truth = truth, .prediction = prediction, .classes = classes,
                           .counts = counts};
    const int32_t side = classes + 1;
    for (int32_t label = 0; label < 256; label++) {
        int32_t index = label < classes ? label : classes;
        work.column[label] = index;
        work.row[label] = side * (label == ignore ? side : index);
    }
    if (pthread_mutex_init(&work.lock, NULL) != 0) return EDGE_NO_MEMORY;
    int result = edge_parallel(count_pixels, &work, pixels, 1 << 20, threads);
    pthread_mutex_destroy(&work.lock);
    return result;
}
