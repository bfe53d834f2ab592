#ifndef DG_CUDA_WIDE_H
#define DG_CUDA_WIDE_H
/*
 * Memory in pieces of 16 bytes, the most that a lane can ask for at once, and
 * indices without divisions of 64 bits, which take longer than the memory does.
 *
 * A kernel over packs of V values is written once. V is packed<T>, what a piece
 * holds, or 1: where a width, a pitch or an address does not let pieces be
 * moved. An element's arithmetic, and the order of sums, are the same for both.
 * Internal to cuda.
 */
#include "device.h"
#include "stream.h"

#include <type_traits>

enum { PIECE_BYTES = 16 };

/* values of type T in a piece */
template <typename T> constexpr int packed = PIECE_BYTES / (int)sizeof(T);

/* The two accesses that must be aligned: a device faults where they are not,
 * and so do the tests' emulations of them. The compiler would take a store apart
 * where the values come from branches. */
#ifndef CUDA_EMULATION_RUNTIME_H
__device__ inline uint4 load_piece(const void *p)
{
    return *reinterpret_cast<const uint4 *>(p);
}
__device__ inline void store_piece(void *p, uint4 piece)
{
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(p)), "r"(piece.x), "r"(piece.y),
                   "r"(piece.z), "r"(piece.w)
                 : "memory");
}
#endif

__device__ inline float word_value(const uint32_t *w, int k, float)
{
    return __uint_as_float(w[k]);
}
__device__ inline float word_value(const uint32_t *w, int k, __nv_bfloat16)
{
    return __uint_as_float(k % 2 ? w[k / 2] & 0xffff0000u : w[k / 2] << 16);
}

/* V values as they are stored, in registers. V: 1, or a multiple of packed<T>. */
template <typename T, int V> struct Pack {
    uint32_t w[V * sizeof(T) / sizeof(uint32_t)];

    __device__ float at(int k) const
    {
        return word_value(w, k, T());
    }
};
template <typename T> struct Pack<T, 1> {
    T value;

    __device__ float at(int) const
    {
        return widened(value);
    }
};

/* values i .. i + V - 1 of p */
template <typename T, int V>
__device__ inline Pack<T, V> fetch(const float *p, int64_t i)
{
    const T *from = reinterpret_cast<const T *>(p) + i;
    Pack<T, V> pack;

    if constexpr (V == 1) {
        pack.value = *from;
    } else {
#pragma unroll
        for (int j = 0; j < V / packed<T>; ++j) {
            const uint4 piece = load_piece(from + j * packed<T>);
            pack.w[4 * j] = piece.x;
            pack.w[4 * j + 1] = piece.y;
            pack.w[4 * j + 2] = piece.z;
            pack.w[4 * j + 3] = piece.w;
        }
    }
    return pack;
}

/* two values to the words they are stored in, rounded once */
template <typename F>
__device__ inline void words(uint32_t w[4], int j, const F &value, float)
{
#pragma unroll
    for (int k = 0; k < 4; ++k)
        w[k] = __float_as_uint(value(4 * j + k));
}
template <typename F>
__device__ inline void words(uint32_t w[4], int j, const F &value,
                             __nv_bfloat16)
{
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(
            value(8 * j + 2 * k), value(8 * j + 2 * k + 1));
        memcpy(&w[k], &pair, sizeof w[k]);
    }
}

/* values i .. i + V - 1 of p become value(0) .. value(V - 1) */
template <typename T, int V, typename F>
__device__ inline void store(float *p, int64_t i, const F &value)
{
    T *to = reinterpret_cast<T *>(p) + i;

    if constexpr (V == 1) {
        narrow(to, value(0));
    } else {
#pragma unroll
        for (int j = 0; j < V / packed<T>; ++j) {
            uint32_t w[4];
            words(w, j, value, T());
            store_piece(to + j * packed<T>, uint4 { w[0], w[1], w[2], w[3] });
        }
    }
}

/* V values of any type at p, as they are. V: 1, or a multiple of packed<S>. */
template <int V, typename S>
__device__ inline void load_all(S (&v)[V], const S *p)
{
    if constexpr (V == 1) {
        v[0] = *p;
    } else {
#pragma unroll
        for (int j = 0; j < V / packed<S>; ++j) {
            const uint4 piece = load_piece(p + j * packed<S>);
            memcpy(&v[j * packed<S>], &piece, sizeof piece);
        }
    }
}
template <int V, typename S>
__device__ inline void store_all(S *p, const S (&v)[V])
{
    if constexpr (V == 1) {
        *p = v[0];
    } else {
#pragma unroll
        for (int j = 0; j < V / packed<S>; ++j) {
            uint4 piece;
            memcpy(&piece, &v[j * packed<S>], sizeof piece);
            store_piece(p + j * packed<S>, piece);
        }
    }
}

/* --- packs of rows whose width may be no multiple of them ---------------- */

__device__ inline void word_put(uint32_t *w, int k, float x)
{
    w[k] = __float_as_uint(x);
}
__device__ inline void word_put(uint32_t *w, int k, __nv_bfloat16 x)
{
    uint16_t bits;

    memcpy(&bits, &x, sizeof bits);
    w[k / 2] |= (uint32_t)bits << k % 2 * 16;
}

/* The first n values of pack i .. of p, zeros behind them. WIDE: n is 0 or all
 * of a piece, which may be moved as one. */
template <typename T, int WIDE>
__device__ inline Pack<T, packed<T>> fetch_some(const float *p, int64_t i,
                                                int n)
{
    const T *from = reinterpret_cast<const T *>(p) + i;
    Pack<T, packed<T>> pack = {};

    if constexpr (WIDE) {
        if (n > 0)
            pack = fetch<T, packed<T>>(p, i);
    } else {
#pragma unroll
        for (int k = 0; k < packed<T>; ++k)
            if (k < n)
                word_put(pack.w, k, from[k]);
    }
    return pack;
}

template <typename T, int WIDE, typename F>
__device__ inline void store_some(float *p, int64_t i, int n, const F &value)
{
    if constexpr (WIDE) {
        if (n > 0)
            store<T, packed<T>>(p, i, value);
    } else {
#pragma unroll
        for (int k = 0; k < packed<T>; ++k)
            if (k < n)
                put<T>(p, i + k, value(k));
    }
}

/* 1: the addresses are multiples of 16; NULL is one */
template <typename... P> static inline int aligned(const P *...p)
{
    return ((... | (uintptr_t)p) & (PIECE_BYTES - 1)) == 0;
}

/* --- all elements of something flat -------------------------------------- */

/*
 * f(n, i) for packs of n = V values from i = 0, V, .. on, then f(1, i) for
 * what is left of count. n is a type: decltype(n)::value is the number.
 */
template <int V, typename F> __device__ inline void each(int64_t count, F f)
{
    const int64_t packs = count / V;

    for (int64_t i = first_index(); i < packs; i += index_step())
        f(std::integral_constant<int, V>(), i * V);
    if (V > 1 && packs * V + first_index() < count)
        f(std::integral_constant<int, 1>(), packs * V + first_index());
}

/* *found becomes the least i < count for which good(x[i]) is false, if less */
template <typename T, int V, typename Good>
__device__ inline void keep_first_bad(unsigned long long *found, const float *x,
                                      int64_t count, const Good &good)
{
    each<V>(count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> p = fetch<T, N>(x, i);
        int first = N;
#pragma unroll
        for (int k = N - 1; k >= 0; --k)
            first = good(p.at(k)) ? first : k;
        if (first < N)
            keep_least(found, (unsigned long long)(i + first));
    });
}

/* blocks that cover count elements by each<V>() */
static inline dim3 dg_each_blocks(int64_t count, int V)
{
    return count > 0 ? dg_blocks(count / V + (V > 1), THREADS) : dim3(0);
}

/** Launches a kernel<T, V> of each<V>(), in packs if 'wide'. */
#define DG_LAUNCH_EACH(kernel, T, wide, count, ...)                         \
    do {                                                                    \
        if (wide)                                                           \
            DG_LAUNCH((kernel<T, packed<T>>),                               \
                      dg_each_blocks(count, packed<T>), THREADS, 0,         \
                      __VA_ARGS__);                                         \
        else                                                                \
            DG_LAUNCH((kernel<T, 1>), dg_each_blocks(count, 1), THREADS, 0, \
                      __VA_ARGS__);                                         \
    } while (0)

/* --- rows of samples ------------------------------------------------------ */

/* i / by for i < 2^31 by a product: 'times' is 2^(31 + shift) / by rounded
 * up, 2^shift >= by, so that its error does not reach the next quotient. */
typedef struct Split {
    uint32_t by, times;
    int shift;
} Split;

static inline Split dg_split(uint32_t by)
{
    Split s = { by, 0, 31 };

    while (((uint64_t)1 << (s.shift - 31)) < by)
        ++s.shift;
    s.times = (uint32_t)((((uint64_t)1 << s.shift) - 1) / by + 1);
    return s;
}

__device__ inline uint32_t split_quotient(const Split &s, uint32_t i)
{
    return (uint32_t)(((uint64_t)i * s.times) >> s.shift);
}

/* Part of [batch, rows, width]: of each sample rows of 'across' packs. Its
 * packs of a sample are counted by 32 bits. */
typedef struct Plane {
    int64_t batch, first_row, first_pack;
    uint32_t packs;
    Split across;
} Plane;

/* f(b, r, c) for the packs of a plane: sample, row, first column. A block is
 * of one sample at a time, blockIdx.y, + gridDim.y .. */
template <int V, typename F>
__device__ inline void each_of_plane(const Plane &p, F f)
{
    const uint32_t step = gridDim.x * blockDim.x;

    for (int64_t b = blockIdx.y; b < p.batch; b += gridDim.y)
        for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < p.packs;
             i += step) {
            const uint32_t r = split_quotient(p.across, i);
            f(b, p.first_row + r, (p.first_pack + (i - r * p.across.by)) * V);
        }
}

#ifndef DG_PLANE_PACKS /* tests take less, so that planes have many parts */
#define DG_PLANE_PACKS 0x7fffffff
#endif

/** launch(plane, grid) for the parts of [batch, rows, width in packs]. */
template <typename F>
void dg_planes(int64_t batch, int64_t rows, int64_t packs, F launch)
{
    const int64_t most = DG_PLANE_PACKS;
    const int64_t wide = packs < most ? packs : most;
    const int64_t tall = wide > 0 ? most / wide : 0;

    if (batch < 1 || rows < 1)
        return;
    for (int64_t c = 0; c < packs; c += wide)
        for (int64_t r = 0; r < rows; r += tall) {
            const int64_t across = packs - c < wide ? packs - c : wide;
            const int64_t down = rows - r < tall ? rows - r : tall;
            const Plane p = { batch, r, c, (uint32_t)(across * down),
                              dg_split((uint32_t)across) };
            launch(p,
                   dim3(dg_blocks(across * down, THREADS).x, dg_side(batch)));
        }
}

/** Launches a kernel<T, V>(args, plane) over [batch, rows, width], in packs if
 *  'wide' and the width is one of packs. */
#define DG_LAUNCH_PLANE(kernel, T, wide, batch, rows, width, args)             \
    do {                                                                       \
        if ((wide) && (width) % packed<T> == 0)                                \
            dg_planes(batch, rows, (width) / packed<T>,                        \
                      [&](const Plane &plane, dim3 grid) {                     \
                          DG_LAUNCH((kernel<T, packed<T>>), grid, THREADS, 0,  \
                                    args, plane);                              \
                      });                                                      \
        else                                                                   \
            dg_planes(batch, rows, width, [&](const Plane &plane, dim3 grid) { \
                DG_LAUNCH((kernel<T, 1>), grid, THREADS, 0, args, plane);      \
            });                                                                \
    } while (0)

#endif
