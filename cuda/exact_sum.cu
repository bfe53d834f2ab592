#include "wide.h"

#include <math.h>

extern "C" {
#include "cuda/comm.h"
#include "cuda/exact_sum.h"
}

/*
 * All kernels: a thread takes packs of elements, see each<V>(); no shared
 * memory, blocks of THREADS.
 */

/* The first element not allowed. The comparison is false for NaN. */
template <typename T, int V>
__global__ void exact_bad_kernel(unsigned long long *found, const float *g,
                                 int64_t num, float limit)
{
    keep_first_bad<T, V>(found, g, num,
                         [=](float value) { return fabsf(value) <= limit; });
}

__device__ inline int64_t fixed_of(float x, double scale)
{
    return (int64_t)rint((double)x * scale);
}

template <typename T, int V>
__global__ void exact_fixed_kernel(int64_t *sum, const float *g, int64_t num,
                                   double scale)
{
    each<V>(num, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> x = fetch<T, N>(g, i);
        int64_t s[N];
        load_all(s, sum + i);
#pragma unroll
        for (int k = 0; k < N; ++k)
            s[k] += fixed_of(x.at(k), scale);
        store_all(sum + i, s);
    });
}

/* S: of both sums */
template <typename S, int V>
__global__ void exact_merge_kernel(S *sum, const S *more, int64_t num)
{
    each<V>(num, [&](auto n, int64_t i) {
        S s[decltype(n)::value], m[decltype(n)::value];
        load_all(s, sum + i);
        load_all(m, more + i);
#pragma unroll
        for (int k = 0; k < decltype(n)::value; ++k)
            s[k] += m[k];
        store_all(sum + i, s);
    });
}

/* what is not allowed is left out and noted */
template <typename T, int V>
__global__ void exact_part_kernel(ExactSum s, const float *g, double scale,
                                  unsigned long long *bad, int64_t first)
{
    each<V>(s.num, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> x = fetch<T, N>(g, i);
        const auto allowed = [&](int k) { return fabsf(x.at(k)) <= s.limit; };
#pragma unroll
        for (int k = 0; k < N; ++k)
            if (!allowed(k))
                keep_least(bad, (unsigned long long)(first + i + k));
        if (s.fixed != NULL) {
            int64_t sum[N];
            load_all(sum, s.fixed + i);
#pragma unroll
            for (int k = 0; k < N; ++k)
                sum[k] += allowed(k) ? fixed_of(x.at(k), scale) : 0;
            store_all(s.fixed + i, sum);
        } else {
            float sum[N];
            load_all(sum, s.plain + i);
#pragma unroll
            for (int k = 0; k < N; ++k)
                sum[k] = allowed(k) ? sum[k] + x.at(k) : sum[k];
            store_all(s.plain + i, sum);
        }
    });
}

template <typename T, int V>
__global__ void exact_read_kernel(float *out, ExactSum s, double unit,
                                  double divisor)
{
    each<V>(s.num, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        double x[N];
        if (s.fixed != NULL) {
            int64_t sum[N];
            load_all(sum, s.fixed + i);
#pragma unroll
            for (int k = 0; k < N; ++k)
                x[k] = (double)sum[k] * unit;
        } else {
            const Pack<T, N> sum = fetch<T, N>(s.plain, i);
#pragma unroll
            for (int k = 0; k < N; ++k)
                x[k] = (double)sum.at(k);
        }
        store<T, N>(out, i, [&](int k) { return (float)(x[k] / divisor); });
    });
}

/* sum += more, of one type */
template <typename S> static void merge(S *sum, const S *more, int64_t num)
{
    DG_LAUNCH_EACH(exact_merge_kernel, S, aligned(sum, more), num, sum, more,
                   num);
}

extern "C" int dg_cuda_exact_init(ExactSum *s, void *buffer, int64_t num,
                                  int exact, int scale_bits, int64_t max_items)
{
    /* of no elements: the buffer is not the host's to clear */
    const int err = dg_exact_init(s, buffer, num < 0 ? num : 0, exact,
                                  scale_bits, max_items);

    if (err)
        return err;
    s->num = num;
    dg_cuda_exact_clear(s);
    return DG_OK;
}

extern "C" void dg_cuda_exact_clear(ExactSum *s)
{
    void *buffer = s->fixed != NULL ? (void *)s->fixed : (void *)s->plain;

    s->items = 0;
    dg_cuda_note(cudaMemsetAsync(buffer, 0,
                                 dg_exact_bytes(s->num, s->fixed != NULL),
                                 dg_cuda_current()->stream),
                 "clearing a gradient sum");
}

/* index of the first element not allowed, or -1 */
static int64_t first_bad(const ExactSum *s, const float *g)
{
    CudaStream *c = dg_cuda_current();

    dg_cuda_note(cudaMemsetAsync(c->result, 0xff, sizeof *c->result, c->stream),
                 "gradient sum");
    DG_LAUNCH_EACH(exact_bad_kernel, float, aligned(g), s->num,
                   (unsigned long long *)c->result, g, s->num, s->limit);
    return dg_cuda_result(c, -1);
}

static int bad_element(const ExactSum *s, const float *g, int64_t at)
{
    float value = NAN;
    int err;

    dg_cuda_download(&value, g + at, sizeof value);
    err = dg_cuda_wait();
    if (err)
        return err;
    return dg_fail(DG_ENUMERIC,
                   "gradient element %lld is %g: finite values up to %g in "
                   "size are allowed",
                   (long long)at, (double)value, (double)s->limit);
}

static int too_many(int64_t items, int64_t max_items)
{
    return dg_fail(DG_EINVAL,
                   "gradient sum: %lld items, at most %lld were announced",
                   (long long)items, (long long)max_items);
}

extern "C" int dg_cuda_exact_check(const ExactSum *s, const float *g,
                                   int64_t *bad)
{
    const int64_t at = first_bad(s, g);
    const int err = dg_cuda_wait();

    if (err)
        return err;
    if (bad != NULL)
        *bad = at;
    return at >= 0 ? bad_element(s, g, at) : DG_OK;
}

extern "C" int dg_cuda_exact_add(ExactSum *s, const float *g, int64_t *bad)
{
    const int err = dg_cuda_exact_check(s, g, bad);

    if (err)
        return err;
    if (s->items >= s->max_items)
        return too_many(s->items + 1, s->max_items);
    if (s->fixed != NULL)
        DG_LAUNCH_EACH(exact_fixed_kernel, float, aligned(g, s->fixed), s->num,
                       s->fixed, g, s->num, ldexp(1.0, s->scale_bits));
    else
        merge(s->plain, g, s->num);
    s->items++;
    return DG_OK;
}

extern "C" int dg_cuda_exact_merge(ExactSum *into, const ExactSum *from)
{
    if (into->num != from->num || into->scale_bits != from->scale_bits ||
        (into->fixed == NULL) != (from->fixed == NULL))
        return dg_fail(DG_EINVAL, "gradient sums of different kinds");
    if (into->items + from->items > into->max_items)
        return too_many(into->items + from->items, into->max_items);
    if (into->fixed != NULL)
        merge(into->fixed, (const int64_t *)from->fixed, into->num);
    else
        merge(into->plain, (const float *)from->plain, into->num);
    into->items += from->items;
    return DG_OK;
}

extern "C" int dg_cuda_exact_allreduce(const Comm *c, ExactSum *s, int *done)
{
    void *buffer = s->fixed != NULL ? (void *)s->fixed : (void *)s->plain;
    int64_t items = s->items;

    *done = dg_cuda_comm_joined(c);
    if (!*done)
        return DG_OK;
    dg_comm_sum_i64(c, &items, 1);
    if (items > s->max_items)
        return too_many(items, s->max_items);
    s->items = items;
    return dg_cuda_comm_sum(c, buffer, s->num, s->fixed != NULL);
}

extern "C" int dg_cuda_exact_sum_to(const Comm *c, ExactSum *s, int root,
                                    int *done)
{
    void *buffer = s->fixed != NULL ? (void *)s->fixed : (void *)s->plain;

    *done = dg_cuda_comm_joined(c);
    return *done
               ? dg_cuda_comm_sum_to(c, buffer, s->num, s->fixed != NULL, root)
               : DG_OK;
}

extern "C" void dg_cuda_exact_add_part(ExactSum *part, const float *g,
                                       int64_t first, int64_t *bad)
{
    DG_LAUNCH_EACH(exact_part_kernel, float,
                   aligned(g, part->plain) && aligned(part->fixed), part->num,
                   *part, g, ldexp(1.0, part->scale_bits),
                   (unsigned long long *)bad, first);
}

extern "C" int dg_cuda_exact_send(const Comm *c, const ExactSend *x)
{
    void *buffer =
        x->part.fixed != NULL ? (void *)x->part.fixed : (void *)x->part.plain;
    ExactSum into = x->into;
    int err =
        dg_cuda_comm_send(buffer, x->part.num, x->part.fixed != NULL, x->root);

    if (!err && into.num > 0 && x->root == c->rank && x->take != NULL) {
        err = dg_cuda_comm_descend(x);
    } else if (!err && into.num > 0 && x->root == c->rank) {
        dg_cuda_comm_turn();
        err = dg_cuda_exact_merge(&into, &x->part);
        dg_cuda_comm_turn();
    }
    if (x->slot >= 0)
        dg_cuda_comm_leaves(x->slot);
    return err;
}

extern "C" void dg_cuda_exact_read(const ExactSum *s, float *out,
                                   double divisor)
{
    DG_LAUNCH_EACH(exact_read_kernel, float,
                   aligned(out, s->plain) && aligned(s->fixed), s->num, out, *s,
                   ldexp(1.0, -s->scale_bits), divisor);
}
