#include "models/t5.h"

#include "base/error.h"
#include "nn/layer.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <stdlib.h>

#define EPS 1e-6f

enum { NUM_BUCKETS = 32, MAX_DISTANCE = 128, EXACT = 8 };

typedef struct Layer {
    Norm norm_attn, norm_ff;
    Linear q, k, v, o, wi_0, wi_1, wo;
} Layer;

typedef struct Buckets {
    int64_t tokens;
    int32_t *table; /* [tokens, tokens] */
    struct Buckets *next;
} Buckets;

struct T5Encoder {
    T5Config c;
    const Tensor *shared, *relative_bias;
    Layer *layers;
    Norm final_norm;
    Buckets *buckets;
};

static int check_config(const T5Config *c)
{
    if (c->vocab_size < 1 || c->d_model < 1 || c->d_kv < 1 || c->d_ff < 1 ||
        c->num_heads < 1 || c->num_layers < 1)
        return dg_fail(DG_EINVAL, "t5 config: sizes must be >= 1");
    if (c->relative_attention_num_buckets != NUM_BUCKETS ||
        c->relative_attention_max_distance != MAX_DISTANCE)
        return dg_fail(DG_EINVAL,
                       "t5 config: %d buckets up to distance %d: only %d up "
                       "to %d is known",
                       c->relative_attention_num_buckets,
                       c->relative_attention_max_distance, NUM_BUCKETS,
                       MAX_DISTANCE);
    return DG_OK;
}

/* Standard deviations of T5: attention has no 1/sqrt(d_kv), so the queries'
 * weights carry it. */
static void add_attention(T5Encoder *m, LayerPath *p, int i)
{
    const T5Config *c = &m->c;
    const int64_t inner = c->num_heads * c->d_kv;
    Layer *l = &m->layers[i];
    const size_t mark = dg_path_enter(p, "layer.0");
    const size_t attn = dg_path_enter(p, "SelfAttention");

    l->q = dg_layer_linear_normal(p, "q", c->d_model, inner, DG_NO_BIAS,
                                  pow((double)(c->d_model * c->d_kv), -0.5));
    l->k = dg_layer_linear(p, "k", c->d_model, inner, DG_NO_BIAS,
                           DG_INIT_NORMAL_FAN);
    l->v = dg_layer_linear(p, "v", c->d_model, inner, DG_NO_BIAS,
                           DG_INIT_NORMAL_FAN);
    l->o = dg_layer_linear(p, "o", inner, c->d_model, DG_NO_BIAS,
                           DG_INIT_NORMAL_FAN);
    if (i == 0)
        m->relative_bias = dg_layer_table(p, "relative_attention_bias",
                                          NUM_BUCKETS, c->num_heads, 0);
    dg_path_leave(p, attn);
    l->norm_attn = dg_layer_rms_norm(p, "layer_norm", c->d_model);
    dg_path_leave(p, mark);
}

static void add_feed_forward(T5Encoder *m, LayerPath *p, int i)
{
    const T5Config *c = &m->c;
    Layer *l = &m->layers[i];
    const size_t mark = dg_path_enter(p, "layer.1");
    const size_t dense = dg_path_enter(p, "DenseReluDense");

    l->wi_0 = dg_layer_linear(p, "wi_0", c->d_model, c->d_ff, DG_NO_BIAS,
                              DG_INIT_NORMAL_FAN);
    l->wi_1 = dg_layer_linear(p, "wi_1", c->d_model, c->d_ff, DG_NO_BIAS,
                              DG_INIT_NORMAL_FAN);
    l->wo = dg_layer_linear(p, "wo", c->d_ff, c->d_model, DG_NO_BIAS,
                            DG_INIT_NORMAL_FAN);
    dg_path_leave(p, dense);
    l->norm_ff = dg_layer_rms_norm(p, "layer_norm", c->d_model);
    dg_path_leave(p, mark);
}

static int add_params(T5Encoder *m, ParamSet *set, const char *prefix)
{
    LayerPath p;

    dg_path_init(&p, set, prefix);
    m->shared =
        dg_layer_table(&p, "shared", m->c.vocab_size, m->c.d_model, 1.0);
    for (int i = 0; i < m->c.num_layers; i++) {
        const size_t mark = dg_path_enter(&p, "encoder.block.%d", i);

        /* among the first one's are those of the bias, which all layers need */
        if (i > 0)
            dg_path_group(&p);
        add_attention(m, &p, i);
        if (i == 0)
            dg_path_group(&p);
        add_feed_forward(m, &p, i);
        dg_path_group_end(&p);
        dg_path_leave(&p, mark);
    }
    m->final_norm =
        dg_layer_rms_norm(&p, "encoder.final_layer_norm", m->c.d_model);
    return p.err;
}

int dg_t5_create(T5Encoder **out, const T5Config *c, ParamSet *set,
                 const char *prefix)
{
    T5Encoder *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "t5 encoder");
    m->c = *c;
    m->layers = calloc((size_t)c->num_layers, sizeof *m->layers);
    if (m->layers == NULL)
        err = dg_fail(DG_ENOMEM, "t5 encoder");
    else
        err = add_params(m, set, prefix);
    if (err) {
        dg_t5_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_t5_destroy(T5Encoder *m)
{
    if (m == NULL)
        return;
    while (m->buckets != NULL) {
        Buckets *b = m->buckets;

        m->buckets = b->next;
        free(b->table);
        free(b);
    }
    free(m->layers);
    free(m);
}

int dg_t5_bucket(int64_t key_minus_query)
{
    /* first distances of buckets 8..15: ceil(8 16^(j/8)), so that no float
     * rounding decides an edge */
    static const int64_t first[8] = { 8, 12, 16, 23, 32, 46, 64, 91 };
    const int64_t a = key_minus_query < 0 ? -key_minus_query : key_minus_query;
    int bucket = EXACT + 7;

    if (a < EXACT)
        bucket = (int)a;
    else
        while (first[bucket - EXACT] > a)
            bucket--;
    return bucket + (key_minus_query > 0 ? NUM_BUCKETS / 2 : 0);
}

static const Buckets *find_buckets(const T5Encoder *m, int64_t tokens)
{
    for (const Buckets *b = m->buckets; b != NULL; b = b->next)
        if (b->tokens == tokens)
            return b;
    return NULL;
}

int dg_t5_prepare(T5Encoder *m, int64_t tokens)
{
    Buckets *b;

    if (tokens < 1)
        return dg_fail(DG_EINVAL, "t5: %lld tokens: must be >= 1",
                       (long long)tokens);
    if (find_buckets(m, tokens) != NULL)
        return DG_OK;
    b = calloc(1, sizeof *b);
    if (b != NULL)
        b->table = malloc((size_t)(tokens * tokens) * sizeof *b->table);
    if (b == NULL || b->table == NULL) {
        free(b);
        return dg_fail(DG_ENOMEM, "t5 bucket table of %lld tokens",
                       (long long)tokens);
    }
    b->tokens = tokens;
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t j = 0; j < tokens; j++)
            b->table[i * tokens + j] = dg_t5_bucket(j - i);
    b->next = m->buckets;
    m->buckets = b;
    return DG_OK;
}

typedef struct BlockArgs {
    const T5Encoder *m;
    int index;
} BlockArgs;

/* in = { x, bias }, out = { x } */
static void block(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    const BlockArgs *a = args;
    const Layer *l = &a->m->layers[a->index];
    const AttentionOpts opts = { .heads = (int)a->m->c.num_heads,
                                 .scale = 1.0f,
                                 .bias = in[1] };
    Tensor *x = in[0], *n, *h, *q, *k;

    dg_scope_push(ctx, "encoder.block", a->index);
    n = dg_op_rms_norm(ctx, x, l->norm_attn.w, EPS);
    q = dg_linear(ctx, n, &l->q, DG_ACT_NONE);
    k = dg_linear(ctx, n, &l->k, DG_ACT_NONE);
    h = dg_linear(ctx, n, &l->v, DG_ACT_NONE);
    h = dg_op_attention(ctx, q, k, h, &opts);
    x = dg_op_add(ctx, x, dg_linear(ctx, h, &l->o, DG_ACT_NONE));
    n = dg_op_rms_norm(ctx, x, l->norm_ff.w, EPS);
    h = dg_linear(ctx, n, &l->wi_0, DG_ACT_NONE);
    n = dg_linear(ctx, n, &l->wi_1, DG_ACT_NONE);
    h = dg_op_gated(ctx, n, h, DG_ACT_GELU_TANH);
    out[0] = dg_op_add(ctx, x, dg_linear(ctx, h, &l->wo, DG_ACT_NONE));
    dg_scope_pop(ctx);
}

Tensor *dg_t5_forward(const T5Encoder *m, Context *ctx, const int32_t *ids,
                      int64_t B, int64_t tokens)
{
    BlockArgs args = { m, 0 };
    TapeBlock b = { .fn = block,
                    .args = &args,
                    .args_bytes = sizeof args,
                    .num_in = 2,
                    .num_out = 1 };
    const Buckets *buckets = find_buckets(m, tokens);
    Tensor *x;

    if (ctx->err)
        return NULL;
    if (buckets == NULL) {
        ctx->err = dg_fail(DG_EINVAL,
                           "t5: a length of %lld tokens was not "
                           "prepared",
                           (long long)tokens);
        return NULL;
    }
    x = dg_op_embed(ctx, ids, B, tokens, m->shared);
    b.in[1] = dg_op_bias_table(ctx, buckets->table, tokens, m->relative_bias);
    for (args.index = 0; args.index < m->c.num_layers && !ctx->err;
         args.index++) {
        b.in[0] = x;
        b.weights = m->layers[args.index].wo.w;
        dg_tape_block(ctx, &b, &x);
    }
    return dg_op_rms_norm(ctx, x, m->final_norm.w, EPS);
}
