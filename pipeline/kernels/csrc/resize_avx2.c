/* The passes of resize.h with AVX2. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "resize.h"

#define INLINE static inline __attribute__((always_inline, target("avx2")))

INLINE __m256i pair_of(const uint8_t *low, const uint8_t *high) {
    __m128i a = _mm_loadu_si128((const void *)low), b = _mm_loadu_si128((const void *)high);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

INLINE __m256i twice(__m128i x) { return _mm256_broadcastsi128_si256(x); }

/* Two pixels, one a lane: their four channels (the fourth of no meaning) in 64ths, int32. */
INLINE __m256i two_pixels(const uint8_t *low, const uint8_t *high, const int16_t *weights,
                          int32_t steps) {
    /* Bytes k, k + 3 of each channel: two taps side by side, widened to 16 bits. */
    const __m256i first = twice(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i second = twice(
        _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    __m256i sum = _mm256_set1_epi32(ACROSS_ROUND);
    for (int32_t step = 0; step < steps; step += 2) {
        const __m256i pixels = pair_of(low + 6 * step, high + 6 * step);
        const __m256i *w = (const void *)(weights + SPREAD_STEP * step);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, first),
                                                      _mm256_loadu_si256(w)));
        if (step + 1 < steps) {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, second),
                                                          _mm256_loadu_si256(w + 2)));
        }
    }
    return _mm256_srai_epi32(sum, ACROSS_SHIFT);
}

INLINE void across(const across_plan *plan, const uint8_t *row, int16_t *to, int32_t steps) {
    /* Three words of each four, together. */
    const __m256i close_up = twice(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, -1, -1, -1, -1));
    const int32_t *first = plan->cols->first;
    const int16_t *weights = plan->spread;
    for (int64_t g = 0; g < plan->groups; g++, first += 4, to += 12) {
        __m256i even = two_pixels(row + 3 * first[0], row + 3 * first[2], weights, steps);
        __m256i odd = two_pixels(row + 3 * first[1], row + 3 * first[3],
                                 weights + SPREAD_STEP / 2, steps);
        __m256i words = _mm256_shuffle_epi8(_mm256_packs_epi32(even, odd), close_up);
        _mm_storeu_si128((void *)to, _mm256_castsi256_si128(words));
        _mm_storeu_si128((void *)(to + 6), _mm256_extracti128_si256(words, 1));
        weights += SPREAD_STEP * steps;
    }
}

__attribute__((target("avx2"))) void edge_across_avx2(const across_plan *plan, const uint8_t *row,
                                                      int16_t *to) {
    const int32_t steps = (plan->cols->taps + 1) / 2;
    if (steps == 1) { /* a number the compiler knows is a loop it can unroll */
        across(plan, row, to, 1);
    } else if (steps == 2) {
        across(plan, row, to, 2);
    } else {
        across(plan, row, to, steps);
    }
    edge_across_rest(plan, 4 * plan->groups, row, to);
}

/* Sixteen columns: 64ths of `taps` rows to int16 of whole numbers, in order. */
INLINE __m256i sixteen(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                       int64_t at) {
    __m256i low = _mm256_set1_epi32(DOWN_ROUND), high = low;
    for (int32_t k = 0; k < taps; k += 2) {
        const int paired = k + 1 < taps;
        const __m256i a = _mm256_loadu_si256((const void *)(lines[k] + at));
        const __m256i b = paired ? _mm256_loadu_si256((const void *)(lines[k + 1] + at))
                                 : _mm256_setzero_si256();
        const uint32_t next = paired ? (uint16_t)weights[k + 1] : 0u;
        const __m256i w = _mm256_set1_epi32((int32_t)((uint16_t)weights[k] | next << 16));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w));
    }
    return _mm256_packs_epi32(_mm256_srai_epi32(low, DOWN_SHIFT),
                              _mm256_srai_epi32(high, DOWN_SHIFT));
}

INLINE int64_t down(const int16_t *const *lines, const int16_t *weights, int32_t taps,
                    int64_t count, uint8_t *to) {
    int64_t at = 0;
    for (; at + 32 <= count; at += 32) {
        __m256i bytes = _mm256_packus_epi16(sixteen(lines, weights, taps, at),
                                            sixteen(lines, weights, taps, at + 16));
        _mm256_storeu_si256((void *)(to + at), _mm256_permute4x64_epi64(bytes, 0xD8));
    }
    return at;
}

__attribute__((target("avx2"))) void edge_down_avx2(const int16_t *const *lines,
                                                    const int16_t *weights, int32_t taps,
                                                    int64_t count, uint8_t *to) {
    int64_t at;
    switch (taps) {
    case 2:
        at = down(lines, weights, 2, count, to);
        break;
    case 3:
        at = down(lines, weights, 3, count, to);
        break;
    case 4:
        at = down(lines, weights, 4, count, to);
        break;
    default:
        at = down(lines, weights, taps, count, to);
    }
    for (; at < count; at++) {
        int32_t sum = DOWN_ROUND;
        for (int32_t k = 0; k < taps; k++) sum += weights[k] * lines[k][at];
        to[at] = (uint8_t)(sum >> DOWN_SHIFT);
    }
}
/* Four pixels at each of two places, and those below: four means of three bytes, a word each, the
 * last two words of a lane of no meaning. */
INLINE __m256i four_means(const uint8_t *a, const uint8_t *b) {
    const __m256i neighbours = twice(
        _mm_setr_epi8(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1));
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i upper = _mm256_shuffle_epi8(pair_of(a, a + 12), neighbours);
    __m256i lower = _mm256_shuffle_epi8(pair_of(b, b + 12), neighbours);
    __m256i sum = _mm256_add_epi16(_mm256_maddubs_epi16(upper, ones),
                                   _mm256_maddubs_epi16(lower, ones));
    return _mm256_srli_epi16(_mm256_add_epi16(sum, _mm256_set1_epi16(2)), 2);
}

__attribute__((target("avx2"))) void edge_halve_avx2(const uint8_t *a, const uint8_t *b,
                                                     int64_t target, uint8_t *to) {
    /* After packing a lane holds bytes 0-5 of one pair of pixels, and 12-17 of the other. */
    const __m256i close_up = twice(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, -1, -1, 8, 9, 10, 11, 12, 13, -1, -1));
    int64_t x = 0;
    /* Loads end 4 bytes beyond the 16 pixels, stores 2 beyond the 8: one group is left to the rest. */
    for (; x + 9 <= target; x += 8, a += 48, b += 48, to += 24) {
        __m256i bytes = _mm256_packus_epi16(four_means(a, b), four_means(a + 24, b + 24));
        bytes = _mm256_shuffle_epi8(bytes, close_up);
        const __m128i low = _mm256_castsi256_si128(bytes);
        const __m128i high = _mm256_extracti128_si256(bytes, 1);
        _mm_storel_epi64((void *)to, low);
        _mm_storel_epi64((void *)(to + 6), high);
        _mm_storel_epi64((void *)(to + 12), _mm_unpackhi_epi64(low, low));
        _mm_storel_epi64((void *)(to + 18), _mm_unpackhi_epi64(high, high));
    }
    edge_halve_plain(a, b, target - x, to);
}
#else
typedef int edge_not_here; /* ISO C wants a declaration in every file */
#endif
