#ifndef DG_MODELS_BERT_H
#define DG_MODELS_BERT_H
/*
 * BERT that reads a picture's tokens besides, as BLIP has it: each layer is
 * attention to itself, attention to those, and a feed-forward layer, the norms
 * behind the sums (epsilon 1e-12), erf-GELU; no token types. Parameter names
 * are those of BLIP's files.
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

/* Fields as in BLIP's configuration. */
typedef struct BertConfig {
    int64_t vocab_size, hidden_size, intermediate_size;
    int num_hidden_layers;
    int64_t num_attention_heads;
    int64_t max_position_embeddings;
    int64_t encoder_width; /* of the picture's tokens */
} BertConfig;

typedef struct Bert Bert;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "blip.text_encoder."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_bert_create(Bert **out, const BertConfig *c, ParamSet *set,
                   const char *prefix);
void dg_bert_destroy(Bert *m);

/**
 * Hidden states behind the last layer, [B, tokens, hidden_size], of ids
 * [B, tokens] (host memory, alive until backward) and seen, the picture's
 * tokens [B, S, encoder_width].
 * There is no mask: a text is given without its pads. That is what a mask of
 * -10000 gives, whose weights exp(-10000 + ...) are 0 in float32.
 * NULL with the context's error set: DG_EINVAL when tokens exceed the
 * position table or an id is out of range, or what an op reports.
 */
Tensor *dg_bert_forward(const Bert *m, Context *ctx, const int32_t *ids,
                        int64_t B, int64_t tokens, Tensor *seen);

#endif
