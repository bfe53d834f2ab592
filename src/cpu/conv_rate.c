#include "cpu/conv_rate.h"

#include "base/error.h"
#include "base/memory.h"

#include <dnnl.h>
#include <stdlib.h>

enum { MAX_OPERANDS = 4 };

typedef struct Bare {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[MAX_OPERANDS];
    float *memory[MAX_OPERANDS];
    int num;
} Bare;

static void must(dnnl_status_t status, const char *what)
{
    if (status != dnnl_success)
        dg_panic("%s: status %d", what, (int)status);
}

/* The map's, weight's, bias' and output's descriptions; the weight's order is
 * left to the library. */
static void describe(dnnl_memory_desc_t d[4], const ConvArgs *a)
{
    const dnnl_dims_t x = { 1, a->in, a->h, a->w };
    const dnnl_dims_t w = { a->out, a->in, a->kernel_h, a->kernel_w };
    const dnnl_dims_t y = { 1, a->out, a->out_h, a->out_w };
    const dnnl_dims_t b = { a->out };

    must(dnnl_memory_desc_init_by_tag(&d[0], 4, x, dnnl_f32, dnnl_nhwc), "x");
    must(dnnl_memory_desc_init_by_tag(&d[1], 4, w, dnnl_f32,
                                      dnnl_format_tag_any),
         "weight");
    must(dnnl_memory_desc_init_by_tag(&d[2], 1, b, dnnl_f32, dnnl_a), "bias");
    must(dnnl_memory_desc_init_by_tag(&d[3], 4, y, dnnl_f32, dnnl_nhwc), "y");
}

/* Zeros to the right and below, as far as the output reaches. */
static int64_t behind(int64_t out, int64_t stride, int64_t kernel, int64_t size,
                      int64_t before)
{
    return (out - 1) * stride + kernel - size - before;
}

static dnnl_primitive_desc_t make_desc(const Bare *b, const ConvArgs *a,
                                       int way)
{
    const dnnl_dims_t stride = { a->stride, a->stride };
    const dnnl_dims_t first = { a->top, a->left };
    const dnnl_dims_t last = {
        behind(a->out_h, a->stride, a->kernel_h, a->h, a->top),
        behind(a->out_w, a->stride, a->kernel_w, a->w, a->left)
    };
    dnnl_primitive_desc_t forward, desc;
    dnnl_convolution_desc_t c;
    dnnl_memory_desc_t d[4];

    describe(d, a);
    must(dnnl_convolution_forward_desc_init(
             &c, dnnl_forward_training, dnnl_convolution_direct, &d[0], &d[1],
             &d[2], &d[3], stride, first, last),
         "convolution");
    must(dnnl_primitive_desc_create(&forward, &c, NULL, b->engine, NULL),
         "convolution");
    if (way == 0)
        return forward;
    must(way == 1 ? dnnl_convolution_backward_data_desc_init(
                        &c, dnnl_convolution_direct, &d[0], &d[1], &d[3],
                        stride, first, last)
                  : dnnl_convolution_backward_weights_desc_init(
                        &c, dnnl_convolution_direct, &d[0], &d[1], &d[2], &d[3],
                        stride, first, last),
         "convolution");
    must(dnnl_primitive_desc_create(&desc, &c, NULL, b->engine, forward),
         "convolution");
    dnnl_primitive_desc_destroy(forward);
    return desc;
}

/* An operand, filled with small numbers; index 1 of the weights is the bias */
static int add_operand(Bare *b, const_dnnl_primitive_desc_t desc,
                       const int what[3])
{
    const dnnl_memory_desc_t *d =
        dnnl_primitive_desc_query_md(desc, (dnnl_query_t)what[0], what[1]);
    const size_t bytes = dnnl_memory_desc_get_size(d);
    float *p = dg_memory_new(bytes);

    if (p == NULL)
        return dg_fail(DG_ENOMEM, "bench: convolution of %zu bytes", bytes);
    for (size_t i = 0; i < bytes / sizeof *p; i++)
        p[i] = (float)(i % 7) - 3;
    b->memory[b->num] = p;
    b->args[b->num].arg = what[2];
    must(dnnl_memory_create(&b->args[b->num].memory, d, b->engine, p),
         "memory");
    b->num++;
    return DG_OK;
}

/* by way: what is asked for, its index, what it is when the code runs */
static const int operands[3][MAX_OPERANDS][3] = {
    { { dnnl_query_src_md, 0, DNNL_ARG_SRC },
      { dnnl_query_weights_md, 0, DNNL_ARG_WEIGHTS },
      { dnnl_query_weights_md, 1, DNNL_ARG_BIAS },
      { dnnl_query_dst_md, 0, DNNL_ARG_DST } },
    { { dnnl_query_diff_src_md, 0, DNNL_ARG_DIFF_SRC },
      { dnnl_query_weights_md, 0, DNNL_ARG_WEIGHTS },
      { dnnl_query_diff_dst_md, 0, DNNL_ARG_DIFF_DST } },
    { { dnnl_query_src_md, 0, DNNL_ARG_SRC },
      { dnnl_query_diff_weights_md, 0, DNNL_ARG_DIFF_WEIGHTS },
      { dnnl_query_diff_weights_md, 1, DNNL_ARG_DIFF_BIAS },
      { dnnl_query_diff_dst_md, 0, DNNL_ARG_DIFF_DST } },
};

int dg_cpu_conv_bare_create(void **out, const ConvArgs *a, int way)
{
    Bare *b = calloc(1, sizeof *b);
    dnnl_primitive_desc_t desc;
    int err = DG_OK;

    if (b == NULL)
        return dg_fail(DG_ENOMEM, "bench: convolution");
    must(dnnl_engine_create(&b->engine, dnnl_cpu, 0), "engine");
    must(dnnl_stream_create(&b->stream, b->engine, dnnl_stream_default_flags),
         "stream");
    desc = make_desc(b, a, way);
    must(dnnl_primitive_create(&b->primitive, desc), "convolution");
    for (int i = 0; i < MAX_OPERANDS && !err && operands[way][i][2]; i++)
        err = add_operand(b, desc, operands[way][i]);
    dnnl_primitive_desc_destroy(desc);
    if (err) {
        dg_cpu_conv_bare_destroy(b);
        return err;
    }
    *out = b;
    return DG_OK;
}

void dg_cpu_conv_bare_run(const void *conv)
{
    const Bare *b = conv;

    must(dnnl_primitive_execute(b->primitive, b->stream, b->num, b->args),
         "convolution");
    must(dnnl_stream_wait(b->stream), "stream");
}

void dg_cpu_conv_bare_destroy(void *conv)
{
    Bare *b = conv;

    if (b == NULL)
        return;
    for (int i = 0; i < b->num; i++) {
        dnnl_memory_destroy(b->args[i].memory);
        free(b->memory[i]);
    }
    dnnl_primitive_destroy(b->primitive);
    dnnl_stream_destroy(b->stream);
    dnnl_engine_destroy(b->engine);
    free(b);
}
