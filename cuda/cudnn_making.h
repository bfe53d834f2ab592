#ifndef DG_CUDA_CUDNN_MAKING_H
#define DG_CUDA_CUDNN_MAKING_H
/*
 * How cuDNN's descriptors come to be: what graphs of attention and of convolutions
 * are written in. After a failure all of these do nothing. Internal to
 * cuda/cudnn_*.
 */
#include "cudnn_calls.h"

#include <stdio.h>

#if DG_CUDNN
enum { MOST_OPS = 24, FIRST_BETWEEN = 100 /* first tensor nobody is given */ };

/* While a plan is made: the first call that failed, and what became of it. */
typedef struct Making {
    CudnnPlan *p;
    const CudnnLibrary *l;
    CudnnShape s; /* of attention */
    bool whole;   /* no sum is split, none is rounded between: convolutions */
    Desc op[MOST_OPS];
    int num_ops;
    int64_t next; /* number of a tensor between operations */
    int failed;
    char *why;
    size_t bytes;
} Making;

/** One for a plan that is to be; *out is NULL, and why says it, without memory. */
Making dg_cudnn_begin(struct CudnnPlan **out, const struct CudnnLibrary *l,
                      char *why, size_t bytes);
/** The operations as a graph. */
Desc dg_cudnn_graph(Making *m);
/** Whether an engine's notes and a configuration's splits let it be taken. */
bool dg_cudnn_may(Making *m, Desc config);
/** True: the plan of this configuration is the one. */
bool dg_cudnn_plan(Making *m, Desc config, size_t most);
/** Of the library's lists the first that may; frees *out and makes it NULL
 *  where there is none. */
void dg_cudnn_choose(struct CudnnPlan **out, Making *m, Desc graph,
                     size_t most);

/* --- descriptors --------------------------------------------------------- */

/* keeps the first failure */
static inline int good(Making *m, cudnnStatus_t e)
{
    if (e != CUDNN_STATUS_SUCCESS && !m->failed) {
        m->failed = 1;
        dg_cudnn_said(m->l, e, m->why, m->bytes);
    }
    return e == CUDNN_STATUS_SUCCESS;
}

/* After a failure there are only NULLs, of which nothing more is asked. */
static inline Desc make(Making *m, cudnnBackendDescriptorType_t type)
{
    Desc d = NULL;

    if (m->failed)
        return NULL;
    if (m->p->num == MOST_MADE) {
        m->failed = 1;
        snprintf(m->why, m->bytes, "more descriptors than are kept");
        return NULL;
    }
    if (!good(m, m->l->cudnnBackendCreateDescriptor(type, &d)))
        return NULL;
    m->p->made[m->p->num++] = d;
    return d;
}

static inline void set(Making *m, Desc d, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t count,
                       const void *value)
{
    if (!m->failed)
        good(m, m->l->cudnnBackendSetAttribute(d, name, type, count, value));
}

static inline void set_desc(Making *m, Desc d, cudnnBackendAttributeName_t name,
                            Desc value)
{
    set(m, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static inline void finish(Making *m, Desc d)
{
    if (!m->failed)
        good(m, m->l->cudnnBackendFinalize(d));
}

/* --- tensors ------------------------------------------------------------- */

enum Kind { GIVEN, BY_VALUE, BETWEEN };

/* Elements from one to the next of each of four dimensions; 'align': bytes. */
static inline Desc tensor_of(Making *m, int64_t number, enum Kind kind,
                             cudnnDataType_t type, const int64_t dims[4],
                             const int64_t strides[4], int64_t align)
{
    const bool yes = true;
    Desc t = make(m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);

    set(m, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number);
    set(m, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(m, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(m, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(m, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    if (kind == BY_VALUE)
        set(m, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (kind == BETWEEN)
        set(m, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    finish(m, t);
    if (kind != BETWEEN && m->p->num_given < DG_CUDNN_GIVEN)
        m->p->given[m->p->num_given++] = number;
    return t;
}

/* --- operations ---------------------------------------------------------- */

static inline void add_op(Making *m, Desc op)
{
    finish(m, op);
    if (m->num_ops < MOST_OPS)
        m->op[m->num_ops++] = op;
}

static const cudnnDataType_t in_float = CUDNN_DATA_FLOAT;

/* y = x mode b; b NULL: of x alone */
static inline Desc pointwise(Making *m, cudnnPointwiseMode_t mode, Desc x,
                             Desc b, Desc y)
{
    Desc how = make(m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(m, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(m, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1,
        &in_float);
    finish(m, how);
    Desc op = make(m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b != NULL)
        set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_op(m, op);
    return y;
}

#endif

#endif
