#ifndef DG_MODELS_T5_H
#define DG_MODELS_T5_H
/*
 * The T5 v1.1 encoder (gated gelu, RMS norms, no biases, relative attention
 * bias shared by all layers, unscaled attention). Parameter names are those
 * of the transformers safetensors files.
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

/* Fields as in the public config.json. */
typedef struct T5Config {
    int64_t vocab_size, d_model, d_kv, d_ff;
    int num_layers;
    int64_t num_heads;
    int relative_attention_num_buckets;  /* 32, the only layout defined */
    int relative_attention_max_distance; /* 128 */
} T5Config;

typedef struct T5Encoder T5Encoder;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "text_encoder_2."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_t5_create(T5Encoder **out, const T5Config *c, ParamSet *set,
                 const char *prefix);
void dg_t5_destroy(T5Encoder *m);

/**
 * Makes the bucket table of one sequence length: before the first
 * dg_t5_forward() with it, by one thread. Again: nothing happens.
 * Errors: DG_EINVAL when tokens < 1, DG_ENOMEM.
 */
int dg_t5_prepare(T5Encoder *m, int64_t tokens);

/**
 * Last hidden state [B, tokens, d_model] of ids [B, tokens] (host memory,
 * alive until backward). No mask: pad tokens are attended like any other.
 * NULL with the context's error set: DG_EINVAL when the length was not
 * prepared or an id is out of range, or what an op reports.
 */
Tensor *dg_t5_forward(const T5Encoder *m, Context *ctx, const int32_t *ids,
                      int64_t B, int64_t tokens);

/** Bucket 0..31 of key position minus query position. Source: T5's
 *  relative attention, bidirectional, 32 buckets, distance up to 128. */
int dg_t5_bucket(int64_t key_minus_query);

#endif
