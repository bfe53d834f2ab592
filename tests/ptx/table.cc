/* Instructions of arithmetic, a row each. */
#include "arithmetic.h"

#include <math.h>

#include <unordered_map>

namespace ptx
{

namespace
{

struct Row {
    const char *opcode;
    Shape shape;
};

/* Section "Floating Point Instructions: fma": .rm rounds towards minus
 * infinity. The product is exact in double, and so is the error of the sum. */
inline f32 fused_down(f32 a, f32 b, f32 c)
{
    const f64 p = (f64)a * b, sum = p + c, t = sum - p;
    const f64 error = (p - (sum - t)) + (c - t);
    const f32 r = (f32)sum;

    if (!(fabs(sum) <= 3.4e38))
        return r;
    return r > sum || (r == sum && error < 0) ? nextafterf(r, -INFINITY) : r;
}

/* "min", "max": of a number and NaN the number, and -0 is below +0 */
inline f32 greater(f32 a, f32 b)
{
    return a != a ? b : b != b ? a : a > b || (a == b && !signbit(a)) ? a : b;
}
inline f32 lesser(f32 a, f32 b)
{
    return a != a ? b : b != b ? a : a < b || (a == b && signbit(a)) ? a : b;
}

inline f32 flushed(f32 x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

/* "cvt": to bfloat16 to nearest even; NaN is 0x7fff */
inline u32 half(f32 x)
{
    const u32 bits = placed(x);

    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

/* "cvt" of a float to an integer clamps; NaN to 64 bits is the least number */
inline s64 truncated(f64 x)
{
    return x != x || x < -0x1p63 ? INT64_MIN : x >= 0x1p63 ? INT64_MAX : (s64)x;
}
inline u32 truncated_positive(f32 x)
{
    return !(x > 0) ? 0 : x >= 0x1p32f ? UINT32_MAX : (u32)x;
}
inline s32 truncated_word(f32 x)
{
    return x != x         ? 0
           : x < -0x1p31f ? INT32_MIN
           : x >= 0x1p31f ? INT32_MAX
                          : (s32)x;
}

/* division by zero: any value, here one that is seen */
template <typename T> inline T quotient(T a, T b)
{
    if (b == 0)
        return (T)-1;
    if (std::is_signed_v<T> && b == (T)-1)
        return (T)(0 - (std::make_unsigned_t<T>)a);
    return a / b;
}
template <typename T> inline T remainder_of(T a, T b)
{
    return b == 0 ? a : std::is_signed_v<T> && b == (T)-1 ? 0 : a % b;
}

/* "prmt" without a mode: each byte by four bits, the highest of which says that
 * its sign is repeated */
inline u32 permuted(u32 a, u32 b, u32 c)
{
    const u64 all = (u64)b << 32 | a;
    u32 d = 0;

    for (int i = 0; i < 4; ++i) {
        const u32 pick = c >> 4 * i & 15;
        u32 byte = (u32)(all >> 8 * (pick & 7)) & 255;
        if (pick & 8)
            byte = byte & 128 ? 255 : 0;
        d |= byte << 8 * i;
    }
    return d;
}

/* "bfi": a's bits into b, from bit c on, d of them */
inline u32 inserted(u32 a, u32 b, u32 c, u32 d)
{
    const u32 at = c & 255, n = d & 255;
    const u64 mask = n == 0 || at > 31 ? 0 : ((((u64)1 << n) - 1) << at);

    return (u32)((b & ~mask) | (((u64)a << (at & 31)) & mask));
}

void run_insert(Warp &w, const Op &op, uint32_t lanes)
{
    uint32_t d[LANES];

    for (int i = 0; i < LANES; ++i)
        d[i] = inserted(w.words(op.from[0])[i], w.words(op.from[1])[i],
                        w.words(op.from[2])[i], w.words(op.from[3])[i]);
    put_words(w, op.to[0], d, lanes);
}

/* Approximations: "ex2" is off by 2^-22 of itself at most, "rcp" by an ulp.
 * Here they are exact, with 'rough' off by that, one way or the other. */
inline f32 coarse(f32 y, uint32_t bits, f32 off)
{
    return y - y == 0 ? y * (bits & 1 ? 1 + off : 1 - off) : y;
}

void run_power(Warp &w, const Op &op, uint32_t lanes)
{
    const uint32_t *a = w.words(op.from[0]);
    const bool flush = op.mode != 0;
    uint32_t d[LANES];

    for (int i = 0; i < LANES; ++i) {
        const f32 x = flush ? flushed(as<f32>(a[i])) : as<f32>(a[i]);
        f32 y = exp2f(x);
        if (w.block->rough && x != 0)
            y = coarse(y, a[i], 0x1p-22f);
        d[i] = placed(flush ? flushed(y) : y);
    }
    put_words(w, op.to[0], d, lanes);
}

void run_reciprocal(Warp &w, const Op &op, uint32_t lanes)
{
    const uint32_t *a = w.words(op.from[0]);
    uint32_t d[LANES];

    for (int i = 0; i < LANES; ++i) {
        f32 y = 1.0f / flushed(as<f32>(a[i]));
        if (w.block->rough)
            y = coarse(y, a[i], 0x1p-23f);
        d[i] = placed(flushed(y));
    }
    put_words(w, op.to[0], d, lanes);
}

const Row integers[] = {
    ROW("add.s16", s16, (s16 a, s16 b), a + b),
    ROW("add.s32", u32, (u32 a, u32 b), a + b),
    ROW("add.u32", u32, (u32 a, u32 b), a + b),
    ROW("add.s64", u64, (u64 a, u64 b), a + b),
    ROW("add.u64", u64, (u64 a, u64 b), a + b),
    ROW("sub.s16", s16, (s16 a, s16 b), a - b),
    ROW("sub.s32", u32, (u32 a, u32 b), a - b),
    ROW("sub.s64", u64, (u64 a, u64 b), a - b),
    ROW("neg.s16", s16, (s16 a), -a),
    ROW("neg.s32", u32, (u32 a), 0 - a),
    ROW("neg.s64", u64, (u64 a), 0 - a),
    ROW("abs.s32", u32, (s32 a), a < 0 ? 0 - (u32)a : (u32)a),
    ROW("abs.s64", u64, (s64 a), a < 0 ? 0 - (u64)a : (u64)a),
    ROW("mul.lo.s16", u16, (u16 a, u16 b), (u32)a *b),
    ROW("mul.lo.s32", u32, (u32 a, u32 b), a *b),
    ROW("mul.lo.u32", u32, (u32 a, u32 b), a *b),
    ROW("mul.lo.s64", u64, (u64 a, u64 b), a *b),
    ROW("mul.lo.u64", u64, (u64 a, u64 b), a *b),
    ROW("mul.hi.u16", u16, (u16 a, u16 b), ((u32)a * b) >> 16),
    ROW("mul.hi.s32", s32, (s32 a, s32 b), ((s64)a * b) >> 32),
    ROW("mul.hi.u32", u32, (u32 a, u32 b), ((u64)a * b) >> 32),
    ROW("mul.hi.s64", s64, (s64 a, s64 b), (s64)(((__int128)a * b) >> 64)),
    ROW("mul.hi.u64", u64, (u64 a, u64 b),
        (u64)(((unsigned __int128)a * b) >> 64)),
    ROW("mul.wide.u16", u32, (u16 a, u16 b), (u32)a *b),
    ROW("mul.wide.s16", s32, (s16 a, s16 b), (s32)a *b),
    ROW("mul.wide.u32", u64, (u32 a, u32 b), (u64)a *b),
    ROW("mul.wide.s32", s64, (s32 a, s32 b), (s64)a *b),
    ROW("mad.lo.s16", u16, (u16 a, u16 b, u16 c), (u32)a *b + c),
    ROW("mad.lo.s32", u32, (u32 a, u32 b, u32 c), a *b + c),
    ROW("mad.lo.s64", u64, (u64 a, u64 b, u64 c), a *b + c),
    ROW("mad.wide.u32", u64, (u32 a, u32 b, u64 c), (u64)a *b + c),
    ROW("mad.wide.s32", u64, (s32 a, s32 b, u64 c), (u64)((s64)a *b) + c),
    ROW("div.u16", u16, (u16 a, u16 b), quotient<u16>(a, b)),
    ROW("div.s32", s32, (s32 a, s32 b), quotient<s32>(a, b)),
    ROW("div.u32", u32, (u32 a, u32 b), quotient<u32>(a, b)),
    ROW("div.s64", s64, (s64 a, s64 b), quotient<s64>(a, b)),
    ROW("div.u64", u64, (u64 a, u64 b), quotient<u64>(a, b)),
    ROW("rem.u16", u16, (u16 a, u16 b), remainder_of<u16>(a, b)),
    ROW("rem.s32", s32, (s32 a, s32 b), remainder_of<s32>(a, b)),
    ROW("rem.u32", u32, (u32 a, u32 b), remainder_of<u32>(a, b)),
    ROW("rem.s64", s64, (s64 a, s64 b), remainder_of<s64>(a, b)),
    ROW("rem.u64", u64, (u64 a, u64 b), remainder_of<u64>(a, b)),
    ROW("min.u16", u16, (u16 a, u16 b), a < b ? a : b),
    ROW("max.u16", u16, (u16 a, u16 b), a > b ? a : b),
    ROW("min.s16", s16, (s16 a, s16 b), a < b ? a : b),
    ROW("max.s16", s16, (s16 a, s16 b), a > b ? a : b),
    ROW("min.s32", s32, (s32 a, s32 b), a < b ? a : b),
    ROW("min.u32", u32, (u32 a, u32 b), a < b ? a : b),
    ROW("min.s64", s64, (s64 a, s64 b), a < b ? a : b),
    ROW("min.u64", u64, (u64 a, u64 b), a < b ? a : b),
    ROW("max.s32", s32, (s32 a, s32 b), a > b ? a : b),
    ROW("max.u32", u32, (u32 a, u32 b), a > b ? a : b),
    ROW("max.s64", s64, (s64 a, s64 b), a > b ? a : b),
    ROW("max.u64", u64, (u64 a, u64 b), a > b ? a : b),
    ROW("and.b16", u16, (u16 a, u16 b), a &b),
    ROW("and.b32", u32, (u32 a, u32 b), a &b),
    ROW("and.b64", u64, (u64 a, u64 b), a &b),
    ROW("or.b16", u16, (u16 a, u16 b), a | b),
    ROW("or.b32", u32, (u32 a, u32 b), a | b),
    ROW("or.b64", u64, (u64 a, u64 b), a | b),
    ROW("xor.b16", u16, (u16 a, u16 b), a ^ b),
    ROW("xor.b32", u32, (u32 a, u32 b), a ^ b),
    ROW("xor.b64", u64, (u64 a, u64 b), a ^ b),
    ROW("not.b16", u16, (u16 a), ~a),
    ROW("not.b32", u32, (u32 a), ~a),
    ROW("not.b64", u64, (u64 a), ~a),
    ROW("and.pred", bool, (bool a, bool b), a &&b),
    ROW("or.pred", bool, (bool a, bool b), a || b),
    ROW("xor.pred", bool, (bool a, bool b), a != b),
    ROW("not.pred", bool, (bool a), !a),
    ROW("shl.b16", u16, (u16 a, u32 b), b > 15 ? 0 : a << b),
    ROW("shl.b32", u32, (u32 a, u32 b), b > 31 ? 0 : a << b),
    ROW("shl.b64", u64, (u64 a, u32 b), b > 63 ? 0 : a << b),
    ROW("shr.u16", u16, (u16 a, u32 b), b > 15 ? 0 : a >> b),
    ROW("shr.u32", u32, (u32 a, u32 b), b > 31 ? 0 : a >> b),
    ROW("shr.u64", u64, (u64 a, u32 b), b > 63 ? 0 : a >> b),
    ROW("shr.s16", s16, (s16 a, u32 b), a >> (b > 15 ? 15 : b)),
    ROW("shr.s32", s32, (s32 a, u32 b), a >> (b > 31 ? 31 : b)),
    ROW("shr.s64", s64, (s64 a, u32 b), a >> (b > 63 ? 63 : b)),
    ROW("prmt.b32", u32, (u32 a, u32 b, u32 c), permuted(a, b, c)),
    ROW("shf.l.wrap.b32", u32, (u32 a, u32 b, u32 c),
        ((u64)b << 32 | a) << (c & 31) >> 32),
    ROW("shf.r.wrap.b32", u32, (u32 a, u32 b, u32 c),
        ((u64)b << 32 | a) >> (c & 31)),
    ROW("popc.b32", u32, (u32 a), __builtin_popcount(a)),
    ROW("clz.b32", u32, (u32 a), a == 0 ? 32 : __builtin_clz(a)),
    { "bfi.b32", { run_insert, PLAIN, { 4 }, { 4, 4, 4, 4 } } },
};

#define COMPARE(T)                                                \
    ROW("setp.eq." #T, bool, (T a, T b), a == b),                 \
        ROW("setp.ne." #T, bool, (T a, T b), (a < b) || (a > b)), \
        ROW("setp.lt." #T, bool, (T a, T b), a < b),              \
        ROW("setp.le." #T, bool, (T a, T b), a <= b),             \
        ROW("setp.gt." #T, bool, (T a, T b), a > b),              \
        ROW("setp.ge." #T, bool, (T a, T b), a >= b)
/* or one of them is NaN */
#define COMPARE_NAN(T)                                           \
    ROW("setp.equ." #T, bool, (T a, T b), !(a < b || a > b)),    \
        ROW("setp.neu." #T, bool, (T a, T b), a != b),           \
        ROW("setp.ltu." #T, bool, (T a, T b), !(a >= b)),        \
        ROW("setp.leu." #T, bool, (T a, T b), !(a > b)),         \
        ROW("setp.gtu." #T, bool, (T a, T b), !(a <= b)),        \
        ROW("setp.geu." #T, bool, (T a, T b), !(a < b)),         \
        ROW("setp.num." #T, bool, (T a, T b), a == a && b == b), \
        ROW("setp.nan." #T, bool, (T a, T b), a != a || b != b)

const Row comparisons[] = {
    COMPARE(s16),
    COMPARE(u16),
    COMPARE(s32),
    COMPARE(u32),
    COMPARE(s64),
    COMPARE(u64),
    COMPARE(f32),
    COMPARE(f64),
    COMPARE_NAN(f32),
    COMPARE_NAN(f64),
    ROW("setp.eq.b16", bool, (u16 a, u16 b), a == b),
    ROW("setp.ne.b16", bool, (u16 a, u16 b), a != b),
    ROW("setp.eq.b32", bool, (u32 a, u32 b), a == b),
    ROW("setp.ne.b32", bool, (u32 a, u32 b), a != b),
    ROW("setp.eq.b64", bool, (u64 a, u64 b), a == b),
    ROW("setp.ne.b64", bool, (u64 a, u64 b), a != b),
};

#define CHOOSE(type, T)                                   \
    MOVE("selp." type, T, (T a, T b, bool p), p ? a : b), \
        MOVE("mov." type, T, (T a), a)

const Row moves[] = {
    CHOOSE("b16", u16), CHOOSE("u16", u16), CHOOSE("s16", u16),
    CHOOSE("b32", u32), CHOOSE("u32", u32), CHOOSE("s32", u32),
    CHOOSE("f32", u32), CHOOSE("b64", u64), CHOOSE("u64", u64),
    CHOOSE("s64", u64), CHOOSE("f64", u64), MOVE("mov.pred", bool, (bool a), a),
};

const Row floats[] = {
    ROW("add.rn.f32", f32, (f32 a, f32 b), a + b),
    ROW("sub.rn.f32", f32, (f32 a, f32 b), a - b),
    ROW("mul.rn.f32", f32, (f32 a, f32 b), a *b),
    ROW("div.rn.f32", f32, (f32 a, f32 b), a / b),
    ROW("fma.rn.f32", f32, (f32 a, f32 b, f32 c), __builtin_fmaf(a, b, c)),
    ROW("fma.rm.f32", f32, (f32 a, f32 b, f32 c), fused_down(a, b, c)),
    ROW("rcp.rn.f32", f32, (f32 a), 1.0f / a),
    ROW("sqrt.rn.f32", f32, (f32 a), __builtin_sqrtf(a)),
    ROW("neg.f32", u32, (u32 a), a ^ 0x80000000u),
    ROW("abs.f32", u32, (u32 a), a & 0x7fffffffu),
    ROW("max.f32", f32, (f32 a, f32 b), greater(a, b)),
    ROW("min.f32", f32, (f32 a, f32 b), lesser(a, b)),
    ROW("copysign.f32", u32, (u32 a, u32 b),
        (a & 0x80000000u) | (b & 0x7fffffffu)),
    ROW("add.rn.f64", f64, (f64 a, f64 b), a + b),
    ROW("sub.rn.f64", f64, (f64 a, f64 b), a - b),
    ROW("mul.rn.f64", f64, (f64 a, f64 b), a *b),
    ROW("div.rn.f64", f64, (f64 a, f64 b), a / b),
    ROW("fma.rn.f64", f64, (f64 a, f64 b, f64 c), __builtin_fma(a, b, c)),
    ROW("rcp.rn.f64", f64, (f64 a), 1.0 / a),
    ROW("sqrt.rn.f64", f64, (f64 a), __builtin_sqrt(a)),
    ROW("neg.f64", u64, (u64 a), a ^ ((u64)1 << 63)),
    ROW("abs.f64", u64, (u64 a), a & ~((u64)1 << 63)),
    { "rcp.approx.ftz.f32", { run_reciprocal, PLAIN, { 4 }, { 4 } } },
    ROW("sqrt.approx.ftz.f32", f32, (f32 a),
        flushed(__builtin_sqrtf(flushed(a)))),
    ROW("rsqrt.approx.ftz.f32", f32, (f32 a),
        flushed(1.0f / __builtin_sqrtf(flushed(a)))),
    ROW("lg2.approx.ftz.f32", f32, (f32 a), flushed(log2f(flushed(a)))),
    { "ex2.approx.ftz.f32", { run_power, PLAIN, { 4 }, { 4 } } },
    { "ex2.approx.f32", { run_power, PLAIN, { 4 }, { 4 } } },
};

const Row conversions[] = {
    ROW("cvt.u16.u32", u16, (u32 a), a),
    ROW("cvt.u16.u64", u16, (u64 a), a),
    ROW("cvt.u32.u16", u32, (u16 a), a),
    ROW("cvt.u16.u8", u16, (u16 a), a & 255),
    ROW("cvt.u32.u8", u32, (u16 a), a & 255),
    ROW("cvt.s16.s8", s16, (u16 a), (int8_t)a),
    ROW("cvt.s32.s8", s32, (u16 a), (int8_t)a),
    ROW("cvt.rn.f32.u16", f32, (u16 a), a),
    ROW("cvt.rn.f32.s16", f32, (s16 a), a),
    ROW("cvt.rn.f32.u8", f32, (u16 a), a & 255),
    ROW("cvt.rn.f32.s8", f32, (u16 a), (int8_t)a),
    ROW("cvt.s32.s16", s32, (s16 a), a),
    ROW("cvt.u32.u64", u32, (u64 a), a),
    ROW("cvt.u64.u16", u64, (u16 a), a),
    ROW("cvt.u64.u32", u64, (u32 a), a),
    ROW("cvt.s64.s32", s64, (s32 a), a),
    ROW("cvt.s64.s16", s64, (s16 a), a),
    ROW("cvt.f64.f32", f64, (f32 a), a),
    ROW("cvt.rn.f32.f64", f32, (f64 a), a),
    ROW("cvt.rn.f32.s32", f32, (s32 a), a),
    ROW("cvt.rn.f32.u32", f32, (u32 a), a),
    ROW("cvt.rn.f32.s64", f32, (s64 a), a),
    ROW("cvt.rn.f32.u64", f32, (u64 a), a),
    ROW("cvt.rn.f64.s64", f64, (s64 a), a),
    ROW("cvt.rn.f64.u64", f64, (u64 a), a),
    ROW("cvt.rn.f64.s32", f64, (s32 a), a),
    ROW("cvt.rn.f64.u32", f64, (u32 a), a),
    ROW("cvt.rzi.f32.f32", f32, (f32 a), truncf(a)),
    ROW("cvt.rni.f32.f32", f32, (f32 a), nearbyintf(a)),
    ROW("cvt.rmi.f32.f32", f32, (f32 a), floorf(a)),
    ROW("cvt.rni.f64.f64", f64, (f64 a), nearbyint(a)),
    ROW("cvt.rzi.s64.f64", s64, (f64 a), truncated(a)),
    ROW("cvt.rzi.s64.f32", s64, (f32 a), truncated(a)),
    ROW("cvt.rzi.u32.f32", u32, (f32 a), truncated_positive(a)),
    ROW("cvt.rni.u32.f32", u32, (f32 a), truncated_positive(nearbyintf(a))),
    ROW("cvt.rzi.s32.f32", s32, (f32 a), truncated_word(a)),
    ROW("cvt.rni.s32.f32", s32, (f32 a), truncated_word(nearbyintf(a))),
    ROW("cvt.rni.s64.f64", s64, (f64 a), truncated(nearbyint(a))),
    /* "cvt": .sat to 0 .. 1, NaN to +0 */
    ROW("cvt.sat.f32.f32", f32, (f32 a), a > 0 ? a < 1 ? a : 1.0f : 0.0f),
    ROW("cvt.f32.bf16", u32, (u16 a), (u32)a << 16),
    ROW("cvt.rn.bf16.f32", u16, (f32 a), half(a)),
    /* "cvt": for .bf16x2 what comes of a stands in the upper half */
    ROW("cvt.rn.bf16x2.f32", u32, (f32 a, f32 b), half(a) << 16 | half(b)),
    /* "Generic Addressing": windows of other state spaces within it; that of
     * global memory is all of it here */
    ROW("cvta.to.global.u64", u64, (u64 a), a),
    ROW("cvta.global.u64", u64, (u64 a), a),
    ROW("cvta.shared.u64", u64, (u64 a), a + SHARED_WINDOW),
    ROW("cvta.to.shared.u64", u64, (u64 a), a - SHARED_WINDOW),
};

template <size_t N>
void add(std::unordered_map<std::string, Shape> *all, const Row (&rows)[N])
{
    for (const Row &r : rows)
        all->emplace(r.opcode, r.shape);
}

} // namespace

Shape table_find(const std::string &opcode)
{
    static const std::unordered_map<std::string, Shape> *all = [] {
        auto *m = new std::unordered_map<std::string, Shape>;
        add(m, integers);
        add(m, comparisons);
        add(m, moves);
        add(m, floats);
        add(m, conversions);
        return m;
    }();
    const auto at = all->find(opcode);

    return at == all->end() ? Shape {} : at->second;
}

} // namespace ptx
