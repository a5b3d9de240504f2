/* The vocabulary of blend_body.h in AVX-512 F, BW and VL; see simd_avx2.h.
 *
 * Eight lanes, not sixteen: narrow vectors leave out more settled cells, which is worth more than
 * their width, and masks and twice the registers are the gain over AVX2. */
#include <immintrin.h>
#include <stdint.h>

#define LANES 8
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))
#define NAME(x) x##_avx512

typedef __m256 vf;
typedef __m256i vi;
typedef __mmask8 vm;

TARGET static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
TARGET static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
TARGET static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
TARGET static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
TARGET static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
TARGET static inline vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
TARGET static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
TARGET static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
TARGET static inline vm vf_gt(vf a, vf b) { return _mm256_cmp_ps_mask(a, b, _CMP_GT_OQ); }
TARGET static inline int vm_any_not(vm m) { return m != 0xff; }
TARGET static inline vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
TARGET static inline vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const void *)p); }
TARGET static inline void vi_store(void *p, vi a) { _mm256_storeu_si256(p, a); }
TARGET static inline vi vi_where(vm m, vi a, vi b) { return _mm256_mask_mov_epi32(b, m, a); }
TARGET static inline vi vi_bits(vi mask, vi a, vi b) {
    return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b));
}
TARGET static inline vi vi_pack(vi a, vi b, vi c, vi d) {
    vi low = _mm256_or_si256(a, _mm256_slli_epi32(b, 8));
    vi high = _mm256_or_si256(_mm256_slli_epi32(c, 16), _mm256_slli_epi32(d, 24));
    return _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(1));
}
