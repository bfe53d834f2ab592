#ifndef TESTS_PTX_ARITHMETIC_H
#define TESTS_PTX_ARITHMETIC_H
/*
 * An instruction of arithmetic from what it does for one lane: a lambda whose
 * argument types say what its operands are. bool is a predicate.
 */
#include "ptx.h"

#include <string.h>

#include <type_traits>

namespace ptx
{

using u16 = uint16_t;
using s16 = int16_t;
using u32 = uint32_t;
using s32 = int32_t;
using u64 = uint64_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

/* what is in a lane's place of a register */
template <typename T>
using Place = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <typename T> constexpr uint8_t bytes_of = sizeof(T);

template <typename T> inline T as(Place<T> x)
{
    if constexpr (std::is_same_v<T, bool>)
        return x & 1;
    else if constexpr (std::is_floating_point_v<T>)
        return __builtin_bit_cast(T, x);
    else
        return (T)x;
}

/* "Floating Point Instructions": of float32 all NaN that come are one */
template <typename T> inline Place<T> placed(T x)
{
    if constexpr (std::is_same_v<T, float>)
        return x != x ? 0x7fffffffu : __builtin_bit_cast(Place<T>, x);
    else if constexpr (std::is_floating_point_v<T>)
        return __builtin_bit_cast(Place<T>, x);
    else
        return (Place<T>)(std::make_unsigned_t<
                          std::conditional_t<sizeof(T) == 1, uint8_t, T>>)x;
}

template <typename T> inline const Place<T> *lanes_at(Warp &w, uint32_t slot)
{
    return (const Place<T> *)w.slot[slot];
}

template <typename T>
inline void put(Warp &w, uint32_t slot, const Place<T> *value, uint32_t lanes)
{
    if constexpr (sizeof(T) == 8)
        put_longs(w, slot, value, lanes);
    else
        put_words(w, slot, value, lanes);
}

template <auto f, typename D, typename A>
void each_of(Warp &w, const Op &op, uint32_t lanes)
{
    const Place<A> *a = lanes_at<A>(w, op.from[0]);
    Place<D> d[LANES];

    for (int i = 0; i < LANES; ++i)
        d[i] = placed<D>(f(as<A>(a[i])));
    put<D>(w, op.to[0], d, lanes);
}

template <auto f, typename D, typename A, typename B>
void each_of(Warp &w, const Op &op, uint32_t lanes)
{
    const Place<A> *a = lanes_at<A>(w, op.from[0]);
    const Place<B> *b = lanes_at<B>(w, op.from[1]);
    Place<D> d[LANES];

    for (int i = 0; i < LANES; ++i)
        d[i] = placed<D>(f(as<A>(a[i]), as<B>(b[i])));
    put<D>(w, op.to[0], d, lanes);
}

template <auto f, typename D, typename A, typename B, typename C>
void each_of(Warp &w, const Op &op, uint32_t lanes)
{
    const Place<A> *a = lanes_at<A>(w, op.from[0]);
    const Place<B> *b = lanes_at<B>(w, op.from[1]);
    const Place<C> *c = lanes_at<C>(w, op.from[2]);
    Place<D> d[LANES];

    for (int i = 0; i < LANES; ++i)
        d[i] = placed<D>(f(as<A>(a[i]), as<B>(b[i]), as<C>(c[i])));
    put<D>(w, op.to[0], d, lanes);
}

template <auto f, typename D, typename... A>
constexpr Shape shape_of(D (*)(A...), Kind kind)
{
    if constexpr (sizeof...(A) == 4)
        return Shape { nullptr, kind, { bytes_of<D> }, { bytes_of<A>... } };
    else
        return Shape {
            each_of<f, D, A...>, kind, { bytes_of<D> }, { bytes_of<A>... }
        };
}

template <auto f> constexpr Shape shape(Kind kind = PLAIN)
{
    return shape_of<f>(+f, kind);
}

/* name, type of the result, its arguments, the result */
#define ROW(name, D, arguments, result)                          \
    {                                                            \
        name, shape<[] arguments -> D { return (D)(result); }>() \
    }
#define MOVE(name, D, arguments, result)                                \
    {                                                                   \
        name, shape<[] arguments -> D { return (D)(result); }>(SPREADS) \
    }

} // namespace ptx

#endif
