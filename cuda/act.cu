#include "kernels.h"

#include "act.h"
#include "wide.h"

/*
 * All kernels here: a thread takes packs of elements, see each<V>() and
 * each_of_plane<V>() in wide.h; no shared memory, blocks of THREADS.
 */

template <typename T, int V> __global__ void act_kernel(ActArgs a)
{
    each<V>(a.count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> x = fetch<T, N>(a.x, i);
        store<T, N>(a.out, i, [&](int k) { return act_value(a.act, x.at(k)); });
    });
}

template <typename T, int V> __global__ void act_grad_kernel(ActArgs a)
{
    each<V>(a.count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> x = fetch<T, N>(a.x, i), dy = fetch<T, N>(a.dy, i);
        Pack<T, N> before = {};
        if (a.accumulate)
            before = fetch<T, N>(a.out, i);
        store<T, N>(a.out, i, [&](int k) {
            float grad;
            act_both(a.act, x.at(k), &grad);
            const float dx = dy.at(k) * grad;
            return a.accumulate ? before.at(k) + dx : dx;
        });
    });
}

/* A plane's rows are a.count wide. */
template <typename T, int V> __global__ void gated_kernel(GatedArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t, int64_t r, int64_t c) {
        const int64_t at = r * a.ld + c;
        const Pack<T, V> x = fetch<T, V>(a.a, at), g = fetch<T, V>(a.g, at);
        store<T, V>(a.y, r * a.count + c,
                    [&](int k) { return x.at(k) * act_value(a.act, g.at(k)); });
    });
}

template <typename T, int V>
__global__ void gated_grad_kernel(GatedArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t, int64_t r, int64_t c) {
        const int64_t at = r * a.ld + c;
        const Pack<T, V> x = fetch<T, V>(a.a, at), g = fetch<T, V>(a.g, at);
        const Pack<T, V> dy = fetch<T, V>(a.dy, r * a.count + c);
        float slope[V];
        store<T, V>(a.da, at, [&](int k) {
            return dy.at(k) * act_both(a.act, g.at(k), &slope[k]);
        });
        store<T, V>(a.dg, at,
                    [&](int k) { return dy.at(k) * x.at(k) * slope[k]; });
    });
}

template <typename T> void dg_cuda_act(const ActArgs *a)
{
    DG_LAUNCH_EACH(act_kernel, T, aligned(a->x, a->out), a->count, *a);
}

template <typename T> void dg_cuda_act_grad(const ActArgs *a)
{
    DG_LAUNCH_EACH(act_grad_kernel, T, aligned(a->x, a->dy, a->out), a->count,
                   *a);
}

/* one row where there are no pitches */
static GatedArgs in_rows(const GatedArgs *a)
{
    GatedArgs g = *a;

    g.rows = a->rows > 1 ? a->rows : 1;
    return g;
}

template <typename T> void dg_cuda_gated(const GatedArgs *a)
{
    const GatedArgs g = in_rows(a);

    DG_LAUNCH_PLANE(gated_kernel, T,
                    aligned(a->a, a->g, a->y) &&
                        (g.rows == 1 || a->ld % packed<T> == 0),
                    1, g.rows, a->count, g);
}

template <typename T> void dg_cuda_gated_grad(const GatedArgs *a)
{
    const GatedArgs g = in_rows(a);

    DG_LAUNCH_PLANE(gated_grad_kernel, T,
                    aligned(a->a, a->g, a->dy, a->da, a->dg) &&
                        (g.rows == 1 || a->ld % packed<T> == 0),
                    1, g.rows, a->count, g);
}

DG_BOTH(dg_cuda_act, ActArgs)
DG_BOTH(dg_cuda_act_grad, ActArgs)
DG_BOTH(dg_cuda_gated, GatedArgs)
DG_BOTH(dg_cuda_gated_grad, GatedArgs)
