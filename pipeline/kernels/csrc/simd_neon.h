/* The vocabulary of blend_body.h in AArch64 NEON: four lanes. See simd_avx2.h.
 *
 * The architecture's own maximum hands a NaN on, and its maxnm a signalling one too; comparing and
 * selecting gives the second operand, as the other modes do. */
#include <arm_neon.h>
#include <stdint.h>

#define LANES 4
#define TARGET
#define NAME(x) x##_neon

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;

static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline vf vf_set(float x) { return vdupq_n_f32(x); }
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_abs(vf a) { return vabsq_f32(a); }
static inline vf vf_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vm vf_gt(vf a, vf b) { return vcgtq_f32(a, b); }
static inline int vm_any_not(vm m) { return vminvq_u32(m) == 0; }
static inline vi vi_set(int32_t x) { return vdupq_n_s32(x); }
static inline vi vi_load(const int32_t *p) { return vld1q_s32(p); }
static inline void vi_store(void *p, vi a) { vst1q_u8(p, vreinterpretq_u8_s32(a)); }
static inline vi vi_where(vm m, vi a, vi b) { return vbslq_s32(m, a, b); }
static inline vi vi_bits(vi mask, vi a, vi b) {
    return vbslq_s32(vreinterpretq_u32_s32(mask), a, b);
}
static inline vi vi_pack(vi a, vi b, vi c, vi d) {
    vi low = vorrq_s32(a, vshlq_n_s32(b, 8));
    vi high = vorrq_s32(vshlq_n_s32(c, 16), vshlq_n_s32(d, 24));
    uint8x16_t bytes = vreinterpretq_u8_s32(vorrq_s32(low, high));
    return vreinterpretq_s32_u8(vsubq_u8(bytes, vdupq_n_u8(1)));
}
