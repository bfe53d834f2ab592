#include "cudnn_making.h"

#include <stdio.h>

#if DG_CUDNN
/*
 * Forward is the library's one operation. Backward is a graph of products and
 * elementwise operations, which the library recognises and runs as one kernel:
 * its one operation for backward is there for some devices only.
 *
 * Order of sums. An engine may carry the note that its results differ from run
 * to run, and then it is not taken. That is not enough: where dq is summed into
 * an accumulator of float32, which is the fast way, the kernel adds to it by
 * atomics (seen in its machine code), and no note says so. The graph here has
 * no such accumulator: dq is a product of all of dS, which the library keeps in
 * its workspace, [heads, sq, sk] of bfloat16. For the Blackwell of data centres
 * it has two kernels instead, one for dk and dv and one for dq, and no
 * workspace; but its lists do not name them. Kernels of such plans have no
 * reduction of floats (tests/test_cudnn_plans.c reads them).
 */

/* --- tensors ------------------------------------------------------------- */

/* A tensor of one sample: [1, heads, rows, columns], and elements from one to
 * the next of each. */
typedef struct Lies {
    int64_t rows, columns, by_sample, by_head, by_row, by_column;
} Lies;

static Desc tensor(Making *m, int64_t number, enum Kind kind,
                   cudnnDataType_t type, int64_t heads, const Lies *l)
{
    const int64_t dims[] = { 1, heads, l->rows, l->columns };
    const int64_t strides[] = { l->by_sample, l->by_head, l->by_row,
                                l->by_column };

    return tensor_of(m, number, kind, type, dims, strides,
                     type == CUDNN_DATA_BFLOAT16 ? 16 : 4);
}

/* rows of the heads of a sample, turned: [d, s] */
static Desc heads_of(Making *m, int64_t number, int64_t s, bool turned,
                     enum Kind kind)
{
    const int64_t d = m->s.d, ld = m->s.all_heads * d;
    const Lies straight = { s, d, s * ld, d, ld, 1 },
               across = { d, s, s * ld, d, 1, ld };

    return tensor(m, number, kind, CUDNN_DATA_BFLOAT16, m->s.heads,
                  turned ? &across : &straight);
}

static Desc given(Making *m, int64_t number, int64_t s)
{
    return heads_of(m, number, s, false, GIVEN);
}

/* a number for each query */
static Desc per_query(Making *m, int64_t number, enum Kind kind)
{
    const Lies l = { m->s.sq, 1, m->s.heads * m->s.sq, m->s.sq, 1, 1 };

    return tensor(m, number, kind, CUDNN_DATA_FLOAT, m->s.heads, &l);
}

static Desc number_of_host(Making *m, int64_t number)
{
    const Lies l = { 1, 1, 1, 1, 1, 1 };

    return tensor(m, number, BY_VALUE, CUDNN_DATA_FLOAT, 1, &l);
}

/* scores, and what becomes of them: [sq, sk], float32 */
static Desc scores(Making *m)
{
    const int64_t all = m->s.sq * m->s.sk;
    const Lies l = { m->s.sq, m->s.sk, m->s.heads * all, all, m->s.sk, 1 };

    return tensor(m, m->next++, BETWEEN, CUDNN_DATA_FLOAT, m->s.heads, &l);
}

/* the same turned, [sk, sq], and rounded */
static Desc turned_scores(Making *m)
{
    const int64_t all = m->s.sq * m->s.sk;
    const Lies l = { m->s.sk, m->s.sq, m->s.heads * all, all, 1, m->s.sk };

    return tensor(m, m->next++, BETWEEN, CUDNN_DATA_BFLOAT16, m->s.heads, &l);
}
/* --- operations ---------------------------------------------------------- */

/* c = a b per head */
static Desc product(Making *m, Desc a, Desc b, Desc c)
{
    Desc how = make(m, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set(m, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
        &in_float);
    finish(m, how);
    Desc op = make(m, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_desc(m, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    set_desc(m, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_desc(m, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_desc(m, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    add_op(m, op);
    return c;
}

/* y: sums of x over columns */
static Desc row_sums(Making *m, Desc x, Desc y)
{
    const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
    Desc how = make(m, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(m, how, CUDNN_ATTR_REDUCTION_OPERATOR,
        CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &add);
    set(m, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
        &in_float);
    finish(m, how);
    Desc op = make(m, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_desc(m, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    set_desc(m, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_desc(m, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add_op(m, op);
    return y;
}

/* y: x as y lies */
static Desc reshaped(Making *m, Desc x, Desc y)
{
    Desc op = make(m, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);

    set_desc(m, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_desc(m, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_op(m, op);
    return y;
}

/* o = softmax(scale q k^T) v, and lse */
static void forward_ops(Making *m)
{
    const int64_t sq = m->s.sq, sk = m->s.sk;
    Desc op = make(m, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);

    set_desc(m, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC,
             given(m, DG_CUDNN_Q, sq));
    set_desc(m, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
             given(m, DG_CUDNN_K, sk));
    set_desc(m, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,
             given(m, DG_CUDNN_V, sk));
    set_desc(m, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC,
             given(m, DG_CUDNN_O, sq));
    set_desc(m, op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC,
             per_query(m, DG_CUDNN_LSE, GIVEN));
    set_desc(m, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC,
             number_of_host(m, DG_CUDNN_SCALE));
    add_op(m, op);
}

/*
 * delta = sums of o d_o,  p = exp(scale q k^T - lse),  dv = p^T d_o
 * ds = scale p (d_o v^T - delta),  dk = ds^T q,  dq = ds k
 * in the order, and with the two operations that do nothing (a factor of 1, k
 * turned twice), by which the library knows attention.
 */
static void backward_ops(Making *m)
{
    const int64_t sq = m->s.sq, sk = m->s.sk;
    const int64_t all = sq * m->s.d;
    const Lies dots = { sq, m->s.d, m->s.heads * all, all, m->s.d, 1 };
    Desc q = given(m, DG_CUDNN_Q, sq), o = given(m, DG_CUDNN_O, sq);
    Desc d_o = given(m, DG_CUDNN_DO, sq);
    Desc kt = heads_of(m, DG_CUDNN_K, sk, true, GIVEN);
    Desc vt = heads_of(m, DG_CUDNN_V, sk, true, GIVEN);
    Desc scale = number_of_host(m, DG_CUDNN_SCALE);
    Desc delta = per_query(m, DG_CUDNN_DELTA, GIVEN);

    Desc t = pointwise(
        m, CUDNN_POINTWISE_MUL, d_o, o,
        tensor(m, m->next++, BETWEEN, CUDNN_DATA_FLOAT, m->s.heads, &dots));
    t = row_sums(m, t, per_query(m, m->next++, BETWEEN));
    pointwise(m, CUDNN_POINTWISE_MUL, t, number_of_host(m, DG_CUDNN_ONE),
              delta);

    t = product(m, q, kt, scores(m));
    t = pointwise(m, CUDNN_POINTWISE_MUL, t, scale, scores(m));
    t = pointwise(m, CUDNN_POINTWISE_SUB, t, per_query(m, DG_CUDNN_LSE, GIVEN),
                  scores(m));
    Desc p = pointwise(m, CUDNN_POINTWISE_EXP, t, NULL, scores(m));
    product(m, reshaped(m, p, turned_scores(m)), d_o,
            given(m, DG_CUDNN_DV, sk));

    t = product(m, d_o, vt, scores(m));
    t = pointwise(m, CUDNN_POINTWISE_SUB, t, delta, scores(m));
    t = pointwise(m, CUDNN_POINTWISE_MUL, t, p, scores(m));
    Desc ds = pointwise(m, CUDNN_POINTWISE_MUL, t, scale, scores(m));
    product(m, reshaped(m, ds, turned_scores(m)), q, given(m, DG_CUDNN_DK, sk));
    t = reshaped(m, kt, heads_of(m, m->next++, sk, false, BETWEEN));
    product(m, ds, t, given(m, DG_CUDNN_DQ, sq));
}
/* --- plans --------------------------------------------------------------- */

/* The two kernels of Blackwell, by the numbers that NVIDIA's own front end asks
 * for them with. Of any other device the library refuses them. */
static bool in_two_kernels(Making *m, Desc graph, size_t most)
{
    typedef struct Knob {
        cudnnBackendKnobType_t type;
        int64_t value;
    } Knob;
    static const Knob before[] = { { CUDNN_KNOB_TYPE_STAGES, 2 },
                                   { CUDNN_KNOB_TYPE_KERNEL_CFG, 31 } };
    static const Knob since_9_23[] = {
        { CUDNN_KNOB_TYPE_STAGES, 2 },     { CUDNN_KNOB_TYPE_KERNEL_CFG, 2 },
        { CUDNN_KNOB_TYPE_TILE_M, 3 },     { CUDNN_KNOB_TYPE_TILE_N, 2 },
        { CUDNN_KNOB_TYPE_TILE_CGA_M, 0 }, { CUDNN_KNOB_TYPE_STREAM_K, 0 }
    };
    const bool now = m->l->number >= 92300;
    const Knob *knob = now ? since_9_23 : before;
    const int num = now ? 6 : 2;
    const int64_t number = 5;
    Desc choice[6] = {}, engine = make(m, CUDNN_BACKEND_ENGINE_DESCRIPTOR);

    set_desc(m, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
    set(m, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1,
        &number);
    if (m->l->device != NULL)
        set_desc(m, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, m->l->device);
    finish(m, engine);
    for (int i = 0; i < num; ++i) {
        choice[i] = make(m, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        set(m, choice[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
            CUDNN_TYPE_KNOB_TYPE, 1, &knob[i].type);
        set(m, choice[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64,
            1, &knob[i].value);
        finish(m, choice[i]);
    }
    Desc config = make(m, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set_desc(m, config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    set(m, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
        CUDNN_TYPE_BACKEND_DESCRIPTOR, num, choice);
    finish(m, config);
    const bool taken =
        !m->failed && dg_cudnn_may(m, config) && dg_cudnn_plan(m, config, most);
    m->failed = 0; /* what comes next says why */
    m->why[0] = '\0';
    return taken;
}
static void plan_make(struct CudnnPlan **out, const struct CudnnLibrary *l,
                      const CudnnShape *s, void (*ops)(Making *), size_t most,
                      char *why, size_t bytes)
{
    Making m = dg_cudnn_begin(out, l, why, bytes);

    if (*out == NULL)
        return;
    m.s = *s;
    ops(&m);
    Desc graph = dg_cudnn_graph(&m);
    if (m.failed || ops != backward_ops || !in_two_kernels(&m, graph, most))
        dg_cudnn_choose(out, &m, graph, most);
}

void dg_cudnn_forward(struct CudnnPlan **out, const struct CudnnLibrary *l,
                      const CudnnShape *s, size_t most, char *why, size_t bytes)
{
    plan_make(out, l, s, forward_ops, most, why, bytes);
}

void dg_cudnn_backward(struct CudnnPlan **out, const struct CudnnLibrary *l,
                       const CudnnShape *s, size_t most, char *why,
                       size_t bytes)
{
    plan_make(out, l, s, backward_ops, most, why, bytes);
}
#endif
