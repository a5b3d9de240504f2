/* Vectors of one lane: what the loops mean, on any machine. See simd_avx2.h for the vocabulary. */
#include <stdint.h>
#include <string.h>

#define LANES 1
#define TARGET
#define NAME(x) x##_scalar

typedef float vf;
typedef int32_t vi;
typedef int vm;

static inline vf vf_load(const float *p) { return *p; }
static inline vf vf_set(float x) { return x; }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_abs(vf a) { return a < 0 ? -a : a; }
static inline vf vf_max(vf a, vf b) { return a > b ? a : b; }
static inline vf vf_min(vf a, vf b) { return a < b ? a : b; }
static inline vm vf_gt(vf a, vf b) { return a > b; }
static inline int vm_any_not(vm m) { return !m; }
static inline vi vi_set(int32_t x) { return x; }
static inline vi vi_load(const int32_t *p) { return *p; }
static inline void vi_store(void *p, vi a) { memcpy(p, &a, sizeof a); }
static inline vi vi_where(vm m, vi a, vi b) { return m ? a : b; }
static inline vi vi_bits(vi mask, vi a, vi b) { return (a & mask) | (b & ~mask); }
/* Unsigned, so that no byte is lost to undefined behaviour. Bytes do not borrow of each other. */
static inline vi vi_pack(vi a, vi b, vi c, vi d) {
    uint32_t bytes = ((uint32_t)(a - 1) & 255u) | ((uint32_t)(b - 1) & 255u) << 8 |
                     ((uint32_t)(c - 1) & 255u) << 16 | ((uint32_t)(d - 1) & 255u) << 24;
    vi packed;
    memcpy(&packed, &bytes, sizeof packed);
    return packed;
}
