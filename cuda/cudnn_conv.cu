#include "cudnn_making.h"

#include <stdio.h>

#if DG_CUDNN
/*
 * Maps lie channels-last, weights tap by tap: so the library's kernels for
 * tensor cores want them. Its kernels store no gradient as float32; that of the
 * weights, and the map's where it is not all of dx, are therefore a graph of two
 * operations, the second doing nothing, which the library compiles into one
 * kernel.
 */

/* [n, channels, rows, columns], channels-last */
static Desc channels_last(Making *m, int64_t number, enum Kind kind,
                          cudnnDataType_t type, const int64_t dims[4])
{
    const int64_t c = dims[1], h = dims[2], w = dims[3];
    const int64_t strides[] = { c * h * w, 1, w * c, c };

    return tensor_of(m, number, kind, type, dims, strides, 16);
}

static Desc map_of(Making *m, const CudnnConv *s, int64_t number,
                   enum Kind kind, cudnnDataType_t type)
{
    const int64_t dims[] = { 1, s->in, s->h, s->w };

    return channels_last(m, number, kind, type, dims);
}

static Desc weights_of(Making *m, const CudnnConv *s, int64_t number,
                       enum Kind kind, cudnnDataType_t type)
{
    const int64_t dims[] = { s->out, s->in, s->kernel_h, s->kernel_w };

    return channels_last(m, number, kind, type, dims);
}

static Desc result_of(Making *m, const CudnnConv *s, int64_t number,
                      enum Kind kind, cudnnDataType_t type)
{
    const int64_t dims[] = { 1, s->out, s->out_h, s->out_w };

    return channels_last(m, number, kind, type, dims);
}

/* zeros behind, as far as the last window reaches */
static int64_t behind(int64_t places, int64_t stride, int64_t kernel,
                      int64_t size, int64_t before)
{
    const int64_t more = (places - 1) * stride + kernel - size - before;

    return more > 0 ? more : 0;
}

static Desc windows_of(Making *m, const CudnnConv *s)
{
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t two = 2, ones[] = { 1, 1 },
                  steps[] = { s->stride, s->stride };
    const int64_t before[] = { s->top, s->left };
    const int64_t after[] = {
        behind(s->out_h, s->stride, s->kernel_h, s->h, s->top),
        behind(s->out_w, s->stride, s->kernel_w, s->w, s->left)
    };
    Desc d = make(m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);

    set(m, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
        &in_float);
    set(m, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1,
        &mode);
    set(m, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
    set(m, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    set(m, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2,
        steps);
    set(m, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    set(m, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    finish(m, d);
    return d;
}

/* The attributes of one of the three operations, by name. */
typedef struct Names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t windows, x, w, y, alpha, beta;
} Names;

static const Names forward_names = {
    CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA
};
static const Names map_names = {
    CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA
};
static const Names weights_names = {
    CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA
};

static void convolution(Making *m, const CudnnConv *s, const Names *n, Desc x,
                        Desc w, Desc y)
{
    const float one = 1.0f, none = 0.0f;
    Desc windows = windows_of(m, s);
    Desc op = make(m, n->type);

    set_desc(m, op, n->windows, windows);
    set_desc(m, op, n->x, x);
    set_desc(m, op, n->w, w);
    set_desc(m, op, n->y, y);
    set(m, op, n->alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(m, op, n->beta, CUDNN_TYPE_FLOAT, 1, &none);
    add_op(m, op);
}

/* what is between the two operations: float32 */
static Desc between(Making *m, const CudnnConv *s,
                    Desc (*of)(Making *, const CudnnConv *, int64_t, enum Kind,
                               cudnnDataType_t))
{
    return of(m, s, m->next++, BETWEEN, CUDNN_DATA_FLOAT);
}

static void forward_ops(Making *m, const CudnnConv *s, bool biased)
{
    const cudnnDataType_t type = CUDNN_DATA_BFLOAT16;
    const int64_t dims[] = { 1, s->out, 1, 1 };
    Desc x = map_of(m, s, DG_CUDNN_X, GIVEN, type);
    Desc w = weights_of(m, s, DG_CUDNN_W, GIVEN, type);
    Desc y = result_of(m, s, DG_CUDNN_Y, GIVEN, type);
    Desc sums = biased ? between(m, s, result_of) : y;

    convolution(m, s, &forward_names, x, w, sums);
    if (biased)
        pointwise(m, CUDNN_POINTWISE_ADD, sums,
                  channels_last(m, DG_CUDNN_BIAS, GIVEN, type, dims), y);
}

static void map_ops(Making *m, const CudnnConv *s, bool wide)
{
    const cudnnDataType_t type = CUDNN_DATA_BFLOAT16;
    Desc w = weights_of(m, s, DG_CUDNN_W, GIVEN, type);
    Desc y = result_of(m, s, DG_CUDNN_Y, GIVEN, type);
    Desc x = map_of(m, s, DG_CUDNN_X, GIVEN, wide ? CUDNN_DATA_FLOAT : type);
    Desc sums = wide ? between(m, s, map_of) : x;

    convolution(m, s, &map_names, sums, w, y);
    if (wide)
        pointwise(m, CUDNN_POINTWISE_IDENTITY, sums, NULL, x);
}

static void weights_ops(Making *m, const CudnnConv *s)
{
    const cudnnDataType_t type = CUDNN_DATA_BFLOAT16;
    Desc x = map_of(m, s, DG_CUDNN_X, GIVEN, type);
    Desc y = result_of(m, s, DG_CUDNN_Y, GIVEN, type);
    Desc w = weights_of(m, s, DG_CUDNN_W, GIVEN, CUDNN_DATA_FLOAT);
    Desc sums = between(m, s, weights_of);

    convolution(m, s, &weights_names, x, sums, y);
    pointwise(m, CUDNN_POINTWISE_IDENTITY, sums, NULL, w);
}

void dg_cudnn_conv(struct CudnnPlan **out, const struct CudnnLibrary *l,
                   const CudnnConv *s, CudnnWay way, size_t most, char *why,
                   size_t bytes)
{
    Making m = dg_cudnn_begin(out, l, why, bytes);

    if (*out == NULL)
        return;
    m.whole = true;
    if (way == DG_CUDNN_DW_SUMS)
        weights_ops(&m, s);
    else if (way == DG_CUDNN_DX || way == DG_CUDNN_DX_SUMS)
        map_ops(&m, s, way == DG_CUDNN_DX_SUMS);
    else
        forward_ops(&m, s, way == DG_CUDNN_BIASED);
    Desc graph = dg_cudnn_graph(&m);
    dg_cudnn_choose(out, &m, graph, most);
}
#endif
