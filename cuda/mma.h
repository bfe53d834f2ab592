#ifndef DG_CUDA_MMA_H
#define DG_CUDA_MMA_H
/*
 * Products of bfloat16 tiles by a warp's tensor cores, sums in float32:
 * D[16, 8] += A[16, 16] B[16, 8]. What a lane holds is the instruction's own
 * (PTX ISA, mma.m16n8k16 and ldmatrix), with row = lane / 4 and
 * pair = 2 (lane % 4):
 *   A  [row + 8 (i % 2)][pair + 8 (i / 2)] and the next column, i < 4
 *   B  [pair + 8 i][column row] and the next row, i < 2
 *   D  [row + 8 (i / 2)][pair + i % 2], i < 4
 * All lanes call. And copies to shared memory that are on their way while the
 * warp goes on: a thread sees its own after mma_copies_wait(), the others' after
 * a barrier behind it.
 * What runs on a device alone is below: the product, the load of tiles as they
 * stand and across, the pair, the power of two, copies of 16 and 4 bytes, the
 * wait for them. The tests' emulation has them lane by lane. Internal to cuda.
 */
#include "device.h"

typedef uint32_t Pair; /* two bfloat16, the first in the lower half */

#ifndef CUDA_EMULATION_RUNTIME_H
__device__ inline void mma_add(float d[4], const Pair a[4], Pair b0, Pair b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* four 8 x 8 tiles from shared memory; a lane gives the place of row
 * lane % 8 of tile lane / 8, aligned to 16 bytes */
__device__ inline void mma_load(Pair r[4], const Pair *place)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(place))
                 : "memory");
}

/* the same, each tile transposed */
__device__ inline void mma_load_across(Pair r[4], const Pair *place)
{
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
        : "r"((uint32_t)__cvta_generic_to_shared(place))
        : "memory");
}

/* to nearest, ties to even */
__device__ inline Pair mma_pair(float first, float second)
{
    Pair p;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(second), "f"(first));
    return p;
}

/* 2^x, off by 2^-22 of itself at most; below the normal numbers 0 */
__device__ inline float mma_power(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes to shared memory, both places aligned to them; !there: zeros, and
 * 'from' is not read */
__device__ inline void mma_copy(Pair *to, const Pair *from, int there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from),
                   "r"(there ? 16 : 0)
                 : "memory");
}

/* the same of one float */
__device__ inline void mma_copy_float(float *to, const float *from, int there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from),
                   "r"(there ? 4 : 0)
                 : "memory");
}

/* until all copies of this thread have arrived */
__device__ inline void mma_copies_wait(void)
{
    asm volatile("cp.async.wait_all;" : : : "memory");
}
#endif

/* The thread's number in a block of one dimension; what follows from it is
 * worked out where it stands: the compiler keeps none of it in registers
 * meanwhile. */
__device__ inline int thread_here(void)
{
    unsigned thread = threadIdx.x;

    asm volatile("" : "+r"(thread));
    return (int)(thread % 1024);
}

__device__ inline float pair_first(Pair p)
{
    return __uint_as_float(p << 16);
}
__device__ inline float pair_second(Pair p)
{
    return __uint_as_float(p & 0xffff0000u);
}

/* A's 16 x 16 from a tile of rows of 'pitch' pairs: rows row.., columns
 * column.. */
__device__ inline void mma_load_a(Pair a[4], int lane, const Pair *tile,
                                  int pitch, int row, int column)
{
    const int j = lane / 8;

    mma_load(a, tile + (j % 2 * 8 + lane % 8) * pitch + j / 2 * 4 +
                    row * pitch + column / 2);
}

/* Two B of 16 x 8 side by side, the tile's rows being their columns: b[0],
 * b[1] of rows row.., b[2], b[3] of the next eight. */
__device__ inline void mma_load_b(Pair b[4], int lane, const Pair *tile,
                                  int pitch, int row, int column)
{
    const int j = lane / 8;

    mma_load(b, tile + (j / 2 * 8 + lane % 8) * pitch + j % 2 * 4 +
                    row * pitch + column / 2);
}

/* Two B of 16 x 8 side by side, the tile's rows being their rows: b[0], b[1]
 * of columns column.., b[2], b[3] of the next eight. */
__device__ inline void mma_load_b_across(Pair b[4], int lane, const Pair *tile,
                                         int pitch, int row, int column)
{
    const int j = lane / 8;

    mma_load_across(b, tile + (j % 2 * 8 + lane % 8) * pitch + j / 2 * 4 +
                           row * pitch + column / 2);
}

#endif
