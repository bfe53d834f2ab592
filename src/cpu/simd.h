#ifndef DG_CPU_SIMD_H
#define DG_CPU_SIMD_H
/*
 * Sixteen float lanes with one meaning on every host: one AVX-512 register,
 * or two halves of eight which the compiler maps to what there is. Sums over
 * lanes use one fixed tree, so a reduction's bits depend on its length alone.
 * Internal to src/cpu.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

enum { VL = 16 };
#define V_INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__)

typedef __m512 V;

V_INLINE V v_set(float x)
{
    return _mm512_set1_ps(x);
}
V_INLINE V v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
V_INLINE void v_store(float *p, V a)
{
    _mm512_storeu_ps(p, a);
}
/* the first n lanes, 0 in the others; n in 0..16 */
V_INLINE V v_load_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
V_INLINE void v_store_n(float *p, V a, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
/* lanes n.. replaced by x */
V_INLINE V v_keep_n(V a, float x, int64_t n)
{
    return _mm512_mask_mov_ps(v_set(x), (__mmask16)((1u << n) - 1), a);
}
V_INLINE V v_add(V a, V b)
{
    return _mm512_add_ps(a, b);
}
V_INLINE V v_sub(V a, V b)
{
    return _mm512_sub_ps(a, b);
}
V_INLINE V v_mul(V a, V b)
{
    return _mm512_mul_ps(a, b);
}
V_INLINE V v_fma(V a, V b, V c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* b where either is NaN */
V_INLINE V v_max(V a, V b)
{
    return _mm512_max_ps(a, b);
}
V_INLINE V v_min(V a, V b)
{
    return _mm512_min_ps(a, b);
}
V_INLINE V v_abs(V a)
{
    return _mm512_abs_ps(a);
}
/* p 2^n, 0 where x < -126; n given as the low bits of 'shifted' */
V_INLINE V v_exp2_end(V p, V shifted, V x)
{
    const __mmask16 m = _mm512_cmp_ps_mask(x, v_set(-126.0f), _CMP_NLT_UQ);
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(
        _mm512_maskz_add_epi32(m, _mm512_castps_si512(p), n));
}
/* 1/a to an ulp or so, for a in 1..1e38 */
V_INLINE V v_recip(V a)
{
    const V r = _mm512_rcp14_ps(a);
    const V e = _mm512_fnmadd_ps(a, r, v_set(1.0f));
    return v_fma(r, e, r);
}
/* lanes where c < 0 take a, the others b */
V_INLINE V v_if_negative(V c, V a, V b)
{
    const __mmask16 m = _mm512_cmp_ps_mask(c, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(b, m, a);
}
/* neighbours change places: 1 0 3 2 ... */
V_INLINE V v_swap(V a)
{
    return _mm512_permute_ps(a, 0xB1);
}

#else

/* everything is inlined: no function passes such vectors in registers */
#pragma GCC diagnostic ignored "-Wpsabi"

typedef float V8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef uint32_t U8 __attribute__((vector_size(32)));
typedef struct V {
    V8 a, b;
} V;

V_INLINE V8 v8_set(float x)
{
    return (V8) { x, x, x, x, x, x, x, x };
}
V_INLINE V v_set(float x)
{
    return (V) { v8_set(x), v8_set(x) };
}
/* half by half: copies of the whole struct would keep it in memory */
V_INLINE V8 v8_load(const float *p)
{
    V8 r;
    memcpy(&r, p, sizeof r);
    return r;
}
V_INLINE V v_load(const float *p)
{
    return (V) { v8_load(p), v8_load(p + 8) };
}
V_INLINE void v_store(float *p, V a)
{
    memcpy(p, &a.a, sizeof a.a);
    memcpy(p + 8, &a.b, sizeof a.b);
}
V_INLINE V8 v8_select(I8 m, V8 a, V8 b)
{
    return (V8)((m & (I8)a) | (~m & (I8)b));
}
/* all bits set in the first n of 8 lanes, whatever n */
V_INLINE I8 v8_first(int64_t n)
{
    const I8 lane = { 0, 1, 2, 3, 4, 5, 6, 7 };
    const int32_t m = (int32_t)n;
    return lane < (I8) { m, m, m, m, m, m, m, m };
}
#if defined(__AVX2__)
V_INLINE V v_load_n(const float *p, int64_t n)
{
    return (V) { (V8)_mm256_maskload_ps(p, (__m256i)v8_first(n)),
                 (V8)_mm256_maskload_ps(p + 8, (__m256i)v8_first(n - 8)) };
}
V_INLINE void v_store_n(float *p, V a, int64_t n)
{
    _mm256_maskstore_ps(p, (__m256i)v8_first(n), (__m256)a.a);
    _mm256_maskstore_ps(p + 8, (__m256i)v8_first(n - 8), (__m256)a.b);
}
#else
V_INLINE V v_load_n(const float *p, int64_t n)
{
    float t[VL] = { 0 };
    memcpy(t, p, (size_t)n * sizeof *t);
    return v_load(t);
}
V_INLINE void v_store_n(float *p, V a, int64_t n)
{
    memcpy(p, &a, (size_t)n * sizeof *p);
}
#endif
V_INLINE V v_keep_n(V a, float x, int64_t n)
{
    return (V) { v8_select(v8_first(n), a.a, v8_set(x)),
                 v8_select(v8_first(n - 8), a.b, v8_set(x)) };
}
V_INLINE V v_add(V a, V b)
{
    return (V) { a.a + b.a, a.b + b.b };
}
V_INLINE V v_sub(V a, V b)
{
    return (V) { a.a - b.a, a.b - b.b };
}
V_INLINE V v_mul(V a, V b)
{
    return (V) { a.a * b.a, a.b * b.b };
}
V_INLINE V v_fma(V a, V b, V c)
{
#if defined(__FMA__)
    return (V) { (V8)_mm256_fmadd_ps((__m256)a.a, (__m256)b.a, (__m256)c.a),
                 (V8)_mm256_fmadd_ps((__m256)a.b, (__m256)b.b, (__m256)c.b) };
#else
    return (V) { a.a * b.a + c.a, a.b * b.b + c.b };
#endif
}
V_INLINE V8 v8_max(V8 a, V8 b)
{
#if defined(__AVX2__)
    return (V8)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return v8_select(a > b, a, b);
#endif
}
V_INLINE V8 v8_min(V8 a, V8 b)
{
#if defined(__AVX2__)
    return (V8)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return v8_select(a < b, a, b);
#endif
}
V_INLINE V v_max(V a, V b)
{
    return (V) { v8_max(a.a, b.a), v8_max(a.b, b.b) };
}
V_INLINE V v_min(V a, V b)
{
    return (V) { v8_min(a.a, b.a), v8_min(a.b, b.b) };
}
V_INLINE V8 v8_abs(V8 a)
{
    return (V8)((I8)a & 0x7fffffff);
}
V_INLINE V v_abs(V a)
{
    return (V) { v8_abs(a.a), v8_abs(a.b) };
}
V_INLINE V8 v8_exp2_end(V8 p, V8 shifted, V8 x)
{
    /* unsigned: lanes that are dropped may wrap */
    return (V8)(((U8)p + ((U8)shifted << 23)) & ~(U8)(x < -126.0f));
}
V_INLINE V v_exp2_end(V p, V shifted, V x)
{
    return (V) { v8_exp2_end(p.a, shifted.a, x.a),
                 v8_exp2_end(p.b, shifted.b, x.b) };
}
V_INLINE V v_recip(V a)
{
    return (V) { 1.0f / a.a, 1.0f / a.b };
}
V_INLINE V v_if_negative(V c, V a, V b)
{
    return (V) { v8_select(c.a < 0.0f, a.a, b.a),
                 v8_select(c.b < 0.0f, a.b, b.b) };
}
V_INLINE V v_swap(V a)
{
    const I8 order = { 1, 0, 3, 2, 5, 4, 7, 6 };
    return (V) { __builtin_shuffle(a.a, order), __builtin_shuffle(a.b, order) };
}

#endif

V_INLINE V v_zero(void)
{
    return v_set(0.0f);
}

/* elements i.. of an array of count: whole vectors, then the rest */
V_INLINE V v_get(const float *p, int64_t i, int64_t count)
{
    return count - i >= VL ? v_load(p + i) : v_load_n(p + i, count - i);
}
V_INLINE void v_put(float *p, int64_t i, int64_t count, V a)
{
    if (count - i >= VL)
        v_store(p + i, a);
    else
        v_store_n(p + i, a, count - i);
}
/* lanes beyond the array's end replaced by x */
V_INLINE V v_trim(V a, int64_t i, int64_t count, float x)
{
    return count - i >= VL ? a : v_keep_n(a, x, count - i);
}

/*
 * Sum and maximum of the lanes: halves folded onto each other, lanes i and
 * i + 8, then i and i + 4 and so on. The maximum may drop NaN lanes: callers
 * find NaN through the sums that follow.
 */
#if defined(__AVX2__)
#if defined(__AVX512F__)
#define V_LOW(a) _mm512_castps512_ps256(a)
#define V_HIGH(a) \
    _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1))
#else
#define V_LOW(v)  ((__m256)(v).a)
#define V_HIGH(v) ((__m256)(v).b)
#endif
#define V_FOLD(v, op)                                                      \
    __m256 h = op##256(V_LOW(v), V_HIGH(v));                               \
    __m128 q = op(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)); \
    q = op(q, _mm_movehl_ps(q, q));                                        \
    return _mm_cvtss_f32(op(q, _mm_movehdup_ps(q)))
#define fold_add256 _mm256_add_ps
#define fold_add    _mm_add_ps
#define fold_max256 _mm256_max_ps
#define fold_max    _mm_max_ps
V_INLINE float v_sum(V a)
{
    V_FOLD(a, fold_add);
}
V_INLINE float v_max_lane(V a)
{
    V_FOLD(a, fold_max);
}
#else
V_INLINE float v_sum(V a)
{
    float t[VL];

    v_store(t, a);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int i = 0; i < w; ++i)
            t[i] += t[i + w];
    return t[0];
}
V_INLINE float v_max_lane(V a)
{
    float t[VL];

    v_store(t, a);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int i = 0; i < w; ++i)
            t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
    return t[0];
}
#endif

/*
 * 2^x for x <= 127 (callers see to that): 2^n 2^r with |r| <= 1/2, 2^r by a
 * polynomial of degree 6 through the Chebyshev nodes (error 1e-8, so that
 * rounding is what remains, 1.2e-7). n is the nearest integer, left in the
 * low bits of a float by adding 1.5 2^23. Below -126 the result is 0: there
 * are no subnormals, which would be slow. NaN stays NaN.
 */
V_INLINE V v_exp2(V x)
{
    const V magic = v_set(12582912.0f);
    const V shifted = v_add(x, magic);
    const V r = v_sub(x, v_sub(shifted, magic));
    V p = v_set(0.000154448839f);
    p = v_fma(p, r, v_set(0.00133813025f));
    p = v_fma(p, r, v_set(0.00961810326f));
    p = v_fma(p, r, v_set(0.0555038101f));
    p = v_fma(p, r, v_set(0.240226507f));
    p = v_fma(p, r, v_set(0.693147181f));
    p = v_fma(p, r, v_set(1.0f));
    return v_exp2_end(p, shifted, x);
}

/* log2(e): what turns an exponent of e into one of 2 */
#define V_LOG2E 1.44269504f

/* 1 / (1 + 2^y); relative error 2e-7 */
V_INLINE V v_logistic2(V y)
{
    const V e = v_exp2(v_min(v_set(126.0f), y));
    return v_recip(v_add(v_set(1.0f), e));
}

/*
 * The normal distribution's upper tail, doubled: erfc(|x| / sqrt 2), from
 * e = exp(-x^2 / 2). The Mills ratio as a polynomial of degree 10 in
 * t = 1 / (1 + 0.3 |x|), fitted at Chebyshev nodes over |x| <= 14 (4e-9).
 */
V_INLINE V v_erfc_tail(V x, V e)
{
    static const float c[] = { 0.239375386f,  0.239103526f,  0.22081036f,
                               0.155178129f,  0.19696148f,   -0.167485098f,
                               0.393881354f,  -0.464076966f, 0.228080544f,
                               -0.0418287195f };
    const V a = v_min(v_set(14.0f), v_abs(x));
    const V t = v_recip(v_fma(a, v_set(0.3f), v_set(1.0f)));
    V p = v_set(c[9]);

    for (int i = 8; i >= 0; --i)
        p = v_fma(p, t, v_set(c[i]));
    return v_mul(v_mul(p, t), e);
}

/*
 * ln x for normal x > 0: x = 2^n m, 1/sqrt2 <= m < sqrt2, ln m = 2 atanh(s),
 * s = (m - 1) / (m + 1), as its series to s^9 (next term 2e-9). 0 gives -87
 * or so, NaN and Inf give NaN.
 */
V_INLINE V v_log(V x)
{
    float t[VL], n[VL];

    v_store(t, x);
    for (int i = 0; i < VL; ++i) {
        uint32_t bits;
        int32_t e;
        memcpy(&bits, &t[i], sizeof bits);
        e = (int32_t)(bits - 0x3f3504f3u) >> 23; /* 1/sqrt2 */
        bits -= (uint32_t)e << 23;
        memcpy(&t[i], &bits, sizeof bits);
        n[i] = (float)e;
    }
    const V m = v_load(t), one = v_set(1.0f);
    const V s = v_mul(v_sub(m, one), v_recip(v_add(m, one)));
    const V z = v_mul(s, s);
    V p = v_set(2.0f / 9);
    p = v_fma(p, z, v_set(2.0f / 7));
    p = v_fma(p, z, v_set(2.0f / 5));
    p = v_fma(p, z, v_set(2.0f / 3));
    p = v_fma(v_mul(p, z), s, v_mul(s, v_set(2.0f)));
    p = v_fma(v_load(n), v_set(0.693147181f), p);
    return v_fma(x, v_zero(), p);
}

#endif
