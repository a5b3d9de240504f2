/* Split [0, count) among threads. Threads live for one call: starting one costs some 20 us, beside
 * which the millisecond it saves is much, and no thread survives into a fork or past an unload. */
#ifndef EDGE_PARALLEL_H
#define EDGE_PARALLEL_H

#include <stdint.h>

#define EDGE_MAX_THREADS 64

/* Does [first, last) of the work; returns EDGE_OK or an error code. Called at once from several
 * threads, on parts that do not overlap. */
typedef int (*edge_part)(void *work, int64_t first, int64_t last);

/* The first error of any part, or EDGE_OK. Where a thread cannot be started its part is done here.
 * No part is smaller than `grain`. */
int edge_parallel(edge_part part, void *work, int64_t count, int64_t grain, int threads);

#endif
