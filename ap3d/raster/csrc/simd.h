// Vectors of the width of one instruction set. A source that includes this is compiled once for each set (AP3D_ISA)
// and holds no library templates: the linker would keep one copy of an instantiation for all of them.
#pragma once
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define LANES (WIDTH / 2)  // doubles in a register
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

namespace {

typedef float Float __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * WIDTH), may_alias));

inline Float &at(float *p) { return *(Float *)p; }
inline const Float &at(const float *p) { return *(const Float *)p; }
inline Int &at(int32_t *p) { return *(Int *)p; }

#if defined(__AVX512F__)
typedef __mmask16 Mask;
inline Mask at_least(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask below(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask above(Int a, Int b) { return _mm512_cmpgt_epi32_mask((__m512i)a, (__m512i)b); }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Mask but_not(Mask a, Mask b) { return a & ~b; }
inline bool any(Mask m) { return m != 0; }
inline Float select(Mask m, Float a, Float b) { return _mm512_mask_blend_ps(m, b, a); }
inline Int select(Mask m, Int a, Int b) { return (Int)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a); }
inline Float keep(Mask m, Float a) { return _mm512_maskz_mov_ps(m, a); }
inline Mask either(Mask a, Mask b) { return a | b; }
inline Mask neither(Mask a, Mask b) { return ~(a | b); }
inline Float least(Float a, Float b) { return _mm512_min_ps(a, b); }
inline Float greatest(Float a, Float b) { return _mm512_max_ps(a, b); }
inline Float root(Float a) { return _mm512_sqrt_ps(a); }
#else
typedef Int Mask;
inline Mask at_least(Float a, Float b) { return a >= b; }
inline Mask below(Float a, Float b) { return a < b; }
inline Mask above(Int a, Int b) { return a > b; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Mask but_not(Mask a, Mask b) { return a & ~b; }
inline Mask either(Mask a, Mask b) { return a | b; }
inline Mask neither(Mask a, Mask b) { return ~(a | b); }
inline Float select(Mask m, Float a, Float b) { return m ? a : b; }
inline Int select(Mask m, Int a, Int b) { return m ? a : b; }
inline Float keep(Mask m, Float a) { return (Float)(m & (Int)a); }
#if defined(__AVX2__)
inline bool any(Mask m) { return _mm256_movemask_ps((__m256)m) != 0; }
inline Float least(Float a, Float b) { return _mm256_min_ps(a, b); }
inline Float greatest(Float a, Float b) { return _mm256_max_ps(a, b); }
inline Float root(Float a) { return _mm256_sqrt_ps(a); }
#else
inline bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
inline Float least(Float a, Float b) { return a < b ? a : b; }
inline Float greatest(Float a, Float b) { return a > b ? a : b; }
inline Float root(Float a) {
    for (int i = 0; i < WIDTH; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
#endif
#endif

inline Int lanes() {
    Int v;
    for (int i = 0; i < WIDTH; i++) v[i] = i;
    return v;
}

inline Float splat(float v) { return Float{} + v; }

#if defined(__AVX2__) && !defined(__AVX512F__)
struct Compaction {  // for each set of 8 lanes: the lanes that are in it, in order
    alignas(32) uint8_t lanes[256][8];
    constexpr Compaction() : lanes() {
        for (int set = 0; set < 256; set++)
            for (int i = 0, n = 0; i < 8; i++)
                if (set >> i & 1) lanes[set][n++] = i;
    }
};
constexpr Compaction COMPACTION;
#endif

// Writes first + lane for the lanes in the mask, and anything after them up to WIDTH numbers; returns how many.
inline int append(Mask mask, int first, int32_t *to) {
#if defined(__AVX512F__)
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(mask, (__m512i)(lanes() + first)));
    return __builtin_popcount(mask);
#elif defined(__AVX2__)
    const int set = _mm256_movemask_ps((__m256)mask);
    const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)COMPACTION.lanes[set]));
    _mm256_storeu_si256((__m256i *)to, _mm256_add_epi32(order, _mm256_set1_epi32(first)));
    return __builtin_popcount(set);
#else
    int n = 0;
    for (int i = 0; i < WIDTH; i++) to[n] = first + i, n -= mask[i];
    return n;
#endif
}

// 2^x for x in [-126, 126], relative error below 2.5e-7; anything for other x. 12582912 = 1.5 * 2^23 rounds.
inline Float exp2_of(Float x) {
    const Float shifted = x + 12582912.f, f = x - (shifted - 12582912.f);
    Float p = f * 0.001327647129f + 0.009675540961f;  // minimax on [-1/2, 1/2]
    p = p * f + 0.055507130921f;
    p = p * f + 0.240221202374f;
    p = p * f + 0.693146944046f;
    p = p * f + 1.000000119209f;
    return (Float)((Int)p + ((Int)shifted << 23));
}

// 1 / x for x in [1e-6, 1], relative error about 2e-7.
inline Float reciprocal(Float x) {
#if defined(__AVX512F__)
    const Float r = _mm512_rcp14_ps(x);
#elif defined(__AVX2__)
    const Float r = _mm256_rcp_ps(x);
#else
    return 1.f / x;
#endif
#if defined(__AVX2__)
    return r * (2.f - x * r);
#endif
}

// The sums over the lanes of four vectors.
typedef float Four __attribute__((vector_size(16), may_alias));
inline Four sums(Float a, Float b, Float c, Float d) {
    const Int lane = lanes(), group = lane & ~3, i = lane & 3, second = (i >> 1) * WIDTH;
    // In each group of four lanes: (a0 + a2, a1 + a3, b0 + b2, b1 + b3), then the sum of each of the four.
    const Int low = group + second + (i & 1), high = low + 2;
    const Float ab = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    const Float cd = __builtin_shuffle(c, d, low) + __builtin_shuffle(c, d, high);
    const Int even = group + second + 2 * (i & 1), odd = even + 1;
    const Float v = __builtin_shuffle(ab, cd, even) + __builtin_shuffle(ab, cd, odd);
#if defined(__AVX512F__)
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
#else
    return v;
#endif
}

}  // namespace
