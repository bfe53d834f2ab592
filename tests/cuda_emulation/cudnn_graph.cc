/* What a graph of the emulated cuDNN computes: plain loops over places. */
#include "cudnn_graph.h"

#include "cuda_bf16.h"

#include <stdlib.h>

#include <string>

int64_t CudnnTensor::place(int64_t b, int64_t h, int64_t i, int64_t j) const
{
    /* of a tensor with one row or column all see the same */
    return b % dims[0] * strides[0] + h % dims[1] * strides[1] +
           i % dims[2] * strides[2] + j % dims[3] * strides[3];
}

int64_t CudnnTensor::extent() const
{
    int64_t last = 0;

    for (int i = 0; i < 4; ++i)
        last += (dims[i] - 1) * strides[i];
    return last + 1;
}

bool CudnnOp::convolves() const
{
    return type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ||
           type ==
               CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ||
           type ==
               CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
}

namespace
{

bool is(const char *mode)
{
    const char *text = getenv("CUDA_EMULATION_CUDNN");

    return text != nullptr && std::string(text) == mode;
}

bool same(const CudnnTensor &x, const CudnnTensor &y)
{
    for (int i = 0; i < 4; ++i)
        if (x.dims[i] != y.dims[i] || x.strides[i] != y.strides[i])
            return false;
    return x.type == y.type && x.between == y.between;
}

bool product_fits(const CudnnOp &op)
{
    const CudnnTensor &a = op.in[0], &b = op.in[1], &c = op.out[0];

    return a.dims[3] == b.dims[2] && a.dims[2] == c.dims[2] &&
           b.dims[3] == c.dims[3] && a.dims[1] == b.dims[1] &&
           a.dims[1] == c.dims[1] && b.type == CUDNN_DATA_BFLOAT16;
}

bool attention_fits(const CudnnOp &op)
{
    const CudnnTensor &q = op.in[0], &k = op.in[1], &v = op.in[2];
    const CudnnTensor &o = op.out[0], &stats = op.out[1];

    return q.dims[3] == k.dims[3] && q.dims[1] == k.dims[1] &&
           k.dims[2] == v.dims[2] && o.dims[2] == q.dims[2] &&
           o.dims[3] == v.dims[3] && stats.dims[2] == q.dims[2] &&
           stats.dims[3] == 1 && stats.type == CUDNN_DATA_FLOAT;
}

/* map, weights and result of a convolution, whichever is written */
struct Conv {
    const CudnnTensor &x, &w, &y;
};

Conv conv_of(const CudnnOp &op)
{
    const CudnnTensor &a = op.in[0], &b = op.in[1], &c = op.out[0];

    switch (op.type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return { a, b, c };
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return { c, a, b };
    default:
        return { a, c, b };
    }
}

bool conv_fits(const CudnnOp &op)
{
    const Conv c = conv_of(op);

    for (int i = 0; i < 2; ++i)
        if (op.step[i] < 1 || op.before[i] < 0 || op.after[i] < 0 ||
            (c.x.dims[2 + i] + op.before[i] + op.after[i] - c.w.dims[2 + i]) /
                        op.step[i] +
                    1 !=
                c.y.dims[2 + i])
            return false;
    return c.x.dims[1] == c.w.dims[1] && c.w.dims[0] == c.y.dims[1] &&
           c.x.dims[0] == c.y.dims[0];
}

/* what is between operations has been made before, what is given is one
 * thing */
bool known(std::map<int64_t, CudnnTensor> *made, CudnnGraph *g,
           const CudnnTensor &t, bool written)
{
    std::map<int64_t, CudnnTensor> *where = t.between ? made : &g->given;
    const auto found = where->find(t.id);

    if (found != where->end())
        return same(found->second, t) && !(t.between && written);
    (*where)[t.id] = t;
    return !t.between || written;
}

} // namespace

bool CudnnGraph::close()
{
    std::map<int64_t, CudnnTensor> made;

    for (const CudnnOp &op : ops) {
        if (op.convolves()) {
            if (!conv_fits(op))
                return false;
            conv = true, d = conv_of(op).x.dims[1];
            back = op.type !=
                   CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
        }
        for (const CudnnTensor &t : op.in)
            if (!known(&made, this, t, false))
                return false;
        for (const CudnnTensor &t : op.out)
            if (!known(&made, this, t, true))
                return false;
        if (op.type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
            if (!product_fits(op))
                return false;
            if (sq == 0) /* the first is of the scores */
                heads = op.out[0].dims[1], sq = op.out[0].dims[2],
                sk = op.out[0].dims[3], d = op.in[0].dims[3], back = true;
        }
        if (op.type == CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR) {
            if (!attention_fits(op))
                return false;
            heads = op.in[0].dims[1], sq = op.in[0].dims[2],
            sk = op.in[1].dims[2], d = op.in[0].dims[3];
        }
    }
    return sq > 0 || conv;
}

size_t CudnnGraph::workspace(const CudnnEngine &e) const
{
    const int64_t rows = (sq + 63) / 64 * 64, columns = (sk + 63) / 64 * 64;

    if (e.bare)
        return 0;
    return back && !conv ? (size_t)(heads * rows * columns * 2 + 256) : 256;
}

std::vector<CudnnEngine> CudnnGraph::engines(bool fallback) const
{
    const CudnnEngine unordered = { 6, false, true, false, 1, true };
    const CudnnEngine split = { 10, true, true, false, 2, false };

    if (fallback || is("nothing") || d == 56 || (!conv && d % 8 != 0) ||
        (back && is("forward")))
        return {};
    if (is("unordered"))
        return { unordered };
    if (conv && is("splits"))
        return { split };
    if (conv)
        return { unordered, split, { 41, true, true, false, 1, false } };
    return { unordered,
             { 9, true, false, false, 1, true },
             { 8, true, true, false, 1, true } };
}

namespace
{

/* A graph on its way: places, and memory of what is between operations. */
struct Run {
    const std::map<int64_t, void *> &at;
    const std::map<int64_t, float> &values;
    std::map<int64_t, std::vector<float>> between;
    int64_t chunk; /* of a sum */

    float get(const CudnnTensor &t, int64_t place)
    {
        if (t.between)
            return between[t.id][(size_t)place];
        if (t.by_value)
            return values.at(t.id);
        if (t.type == CUDNN_DATA_BFLOAT16)
            return __bfloat162float(((__nv_bfloat16 *)at.at(t.id))[place]);
        return ((float *)at.at(t.id))[place];
    }
    void put(const CudnnTensor &t, int64_t place, float x)
    {
        const bool narrow = t.type == CUDNN_DATA_BFLOAT16;

        if (t.between)
            between[t.id][(size_t)place] =
                narrow ? __bfloat162float(__float2bfloat16_rn(x)) : x;
        else if (narrow)
            ((__nv_bfloat16 *)at.at(t.id))[place] = __float2bfloat16_rn(x);
        else
            ((float *)at.at(t.id))[place] = x;
    }
    /* what is written is poison before */
    void open(const CudnnTensor &t)
    {
        if (t.between)
            between[t.id].assign((size_t)t.extent(), NAN);
        else
            each(t, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
                put(t, t.place(b, h, i, j), NAN);
            });
    }
    template <typename F> void each(const CudnnTensor &t, F f)
    {
        for (int64_t b = 0; b < t.dims[0]; ++b)
            for (int64_t h = 0; h < t.dims[1]; ++h)
                for (int64_t i = 0; i < t.dims[2]; ++i)
                    for (int64_t j = 0; j < t.dims[3]; ++j)
                        f(b, h, i, j);
    }
    /* f(0) + f(1) + .., 'chunk' of them at a time */
    template <typename F> float sum(int64_t num, F f)
    {
        float all = 0.0f, part = 0.0f;

        for (int64_t k = 0; k < num; ++k) {
            part += f(k);
            if ((k + 1) % chunk == 0 || k + 1 == num) {
                all += part;
                part = 0.0f;
            }
        }
        return all;
    }
};

void run_product(Run *r, const CudnnOp &op)
{
    const CudnnTensor &a = op.in[0], &b = op.in[1], &c = op.out[0];

    r->each(c, [&](int64_t n, int64_t h, int64_t i, int64_t j) {
        r->put(c, c.place(n, h, i, j), r->sum(a.dims[3], [&](int64_t k) {
            return r->get(a, a.place(n, h, i, k)) *
                   r->get(b, b.place(n, h, k, j));
        }));
    });
}

void run_pointwise(Run *r, const CudnnOp &op)
{
    const CudnnTensor &x = op.in[0], &y = op.out[0];

    r->each(y, [&](int64_t n, int64_t h, int64_t i, int64_t j) {
        const float at = r->get(x, x.place(n, h, i, j));
        const float by =
            op.in.size() > 1 ? r->get(op.in[1], op.in[1].place(n, h, i, j)) : 0;

        r->put(y, y.place(n, h, i, j),
               op.mode == CUDNN_POINTWISE_ADD   ? at + by
               : op.mode == CUDNN_POINTWISE_MUL ? at * by
               : op.mode == CUDNN_POINTWISE_SUB ? at - by
               : op.mode == CUDNN_POINTWISE_EXP ? expf(at)
                                                : at);
    });
}

void run_reduction(Run *r, const CudnnOp &op)
{
    const CudnnTensor &x = op.in[0], &y = op.out[0];

    r->each(y, [&](int64_t n, int64_t h, int64_t i, int64_t) {
        r->put(y, y.place(n, h, i, 0), r->sum(x.dims[3], [&](int64_t k) {
            return r->get(x, x.place(n, h, i, k));
        }));
    });
}

void run_reshape(Run *r, const CudnnOp &op)
{
    const CudnnTensor &y = op.out[0];

    r->each(y, [&](int64_t n, int64_t h, int64_t i, int64_t j) {
        const int64_t place = y.place(n, h, i, j);
        r->put(y, place, r->get(op.in[0], place));
    });
}

void run_attention(Run *r, const CudnnOp &op)
{
    const CudnnTensor &q = op.in[0], &k = op.in[1], &v = op.in[2];
    const CudnnTensor &o = op.out[0], &stats = op.out[1];
    const float scale = r->get(op.in[3], 0);
    const int64_t sk = k.dims[2];
    std::vector<float> w((size_t)sk);

    r->each(stats, [&](int64_t n, int64_t h, int64_t i, int64_t) {
        float most = -INFINITY;
        for (int64_t j = 0; j < sk; ++j) {
            const float s = scale * r->sum(q.dims[3], [&](int64_t l) {
                return r->get(q, q.place(n, h, i, l)) *
                       r->get(k, k.place(n, h, j, l));
            });
            w[(size_t)j] = s;
            most = s > most || s != s ? s : most;
        }
        for (float &s : w)
            s = expf(s - most);
        const float all = r->sum(sk, [&](int64_t j) { return w[(size_t)j]; });
        for (int64_t l = 0; l < o.dims[3]; ++l)
            r->put(o, o.place(n, h, i, l), r->sum(sk, [&](int64_t j) {
                const float p =
                    __bfloat162float(__float2bfloat16_rn(w[(size_t)j]));
                return p * r->get(v, v.place(n, h, j, l));
            }) / all);
        r->put(stats, stats.place(n, h, i, 0), most + logf(all));
    });
}

/* of channel c, 0 outside the map */
float seen(Run *r, const CudnnTensor &x, int64_t c, int64_t i, int64_t j)
{
    return i < 0 || j < 0 || i >= x.dims[2] || j >= x.dims[3]
               ? 0.0f
               : r->get(x, x.place(0, c, i, j));
}

void run_conv(Run *r, const CudnnOp &op)
{
    const Conv v = conv_of(op);
    const int64_t wide = v.w.dims[3], taps = v.w.dims[2] * wide;

    r->each(v.y, [&](int64_t n, int64_t o, int64_t i, int64_t j) {
        r->put(v.y, v.y.place(n, o, i, j),
               r->sum(v.x.dims[1] * taps, [&](int64_t k) {
                   const int64_t c = k / taps, t = k % taps;
                   return seen(r, v.x, c,
                               i * op.step[0] + t / wide - op.before[0],
                               j * op.step[1] + t % wide - op.before[1]) *
                          r->get(v.w, v.w.place(o, c, t / wide, t % wide));
               }));
    });
}

/* the place of the result whose tap sees 'at', or -1 */
int64_t looks(int64_t at, int64_t tap, const CudnnOp &op, int i)
{
    const int64_t off = at + op.before[i] - tap;

    return off % op.step[i] != 0 ? -1 : off / op.step[i];
}

void run_map_grad(Run *r, const CudnnOp &op)
{
    const Conv v = conv_of(op);
    const int64_t wide = v.w.dims[3], taps = v.w.dims[2] * wide;

    r->each(v.x, [&](int64_t n, int64_t c, int64_t y, int64_t x) {
        r->put(v.x, v.x.place(n, c, y, x),
               r->sum(v.y.dims[1] * taps, [&](int64_t k) {
                   const int64_t o = k / taps, t = k % taps;
                   return seen(r, v.y, o, looks(y, t / wide, op, 0),
                               looks(x, t % wide, op, 1)) *
                          r->get(v.w, v.w.place(o, c, t / wide, t % wide));
               }));
    });
}

void run_weights_grad(Run *r, const CudnnOp &op)
{
    const Conv v = conv_of(op);
    const int64_t columns = v.y.dims[3];

    r->each(v.w, [&](int64_t o, int64_t c, int64_t t, int64_t u) {
        r->put(v.w, v.w.place(o, c, t, u),
               r->sum(v.y.dims[2] * columns, [&](int64_t k) {
                   const int64_t i = k / columns, j = k % columns;
                   return r->get(v.y, v.y.place(0, o, i, j)) *
                          seen(r, v.x, c, i * op.step[0] + t - op.before[0],
                               j * op.step[1] + u - op.before[1]);
               }));
    });
}

void run_op(Run *r, const CudnnOp &op)
{
    for (const CudnnTensor &t : op.out)
        r->open(t);
    switch (op.type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        return run_product(r, op);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return run_pointwise(r, op);
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        return run_reduction(r, op);
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        return run_reshape(r, op);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return run_conv(r, op);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return run_map_grad(r, op);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return run_weights_grad(r, op);
    default:
        return run_attention(r, op);
    }
}

} // namespace

bool cuda_emulation_cudnn_run(const CudnnGraph &g, const CudnnEngine &e,
                              const std::map<int64_t, void *> &at,
                              const std::map<int64_t, float> &values,
                              void *workspace)
{
    static int64_t calls; /* what comes of a sum in any order */
    int64_t all = 0;

    for (const auto &t : g.given) {
        const auto place = at.find(t.first);
        if (!t.second.by_value &&
            (place == at.end() || place->second == nullptr ||
             (uintptr_t)place->second % (uintptr_t)t.second.align != 0))
            return false;
        all += t.second.count();
    }
    Run r = {
        at, values, {}, e.ordered && !is("vary") ? 3 + all % 5 : 2 + calls++ % 3
    };

    if (workspace == nullptr && !e.bare)
        return false;
    if (!e.bare)
        memset(workspace, 0xff, g.workspace(e));
    for (const CudnnOp &op : g.ops)
        run_op(&r, op);
    return true;
}
