#include "parallel.h"

#include <pthread.h>
#include <stddef.h>

#include "kernels.h"

typedef struct {
    edge_part part;
    void *work;
    int64_t first, last;
    int result;
} share;

static void *run(void *argument) {
    share *own = argument;
    own->result = own->part(own->work, own->first, own->last);
    return NULL;
}

int edge_parallel(edge_part part, void *work, int64_t count, int64_t grain, int threads) {
    share shares[EDGE_MAX_THREADS];
    pthread_t started[EDGE_MAX_THREADS];
    char joinable[EDGE_MAX_THREADS] = {0};
#ifdef EDGE_SMALL_IS_LARGE /* tests let threads share even the smallest work */
    grain = 1;
#endif
    int64_t most = count / grain;
    int64_t parts = threads < EDGE_MAX_THREADS ? threads : EDGE_MAX_THREADS;
    if (parts > most) parts = most;
    if (parts <= 1) return part(work, 0, count);
    for (int64_t i = 0; i < parts; i++) {
        shares[i] = (share){part, work, count * i / parts, count * (i + 1) / parts, EDGE_OK};
    }
    for (int64_t i = 1; i < parts; i++) {
        joinable[i] = pthread_create(&started[i], NULL, run, &shares[i]) == 0;
    }
    run(&shares[0]);
    int result = shares[0].result;
    for (int64_t i = 1; i < parts; i++) {
        if (joinable[i]) {
            pthread_join(started[i], NULL);
        } else {
            run(&shares[i]);
        }
        if (result == EDGE_OK) result = shares[i].result;
    }
    return result;
}
