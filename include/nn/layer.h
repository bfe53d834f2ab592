#ifndef DG_NN_LAYER_H
#define DG_NN_LAYER_H
/*
 * Layers: the small groups of parameters that networks are made of, added to
 * a parameter set under a dotted path, which is their safetensors key.
 * Errors are sticky: after one, nothing more is added and p->err tells.
 */
#include "nn/param.h"
#include "tensor/ops.h"

#include <stddef.h>

typedef struct LayerPath {
    ParamSet *set;
    char text[DG_PARAM_NAME]; /* "transformer_blocks.3.attn." */
    int err;
} LayerPath;

typedef struct Linear {
    const Tensor *w; /* [out, in] */
    const Tensor *b; /* [out] or NULL */
    LoraPair lora;   /* its adapter, if it has one */
} Linear;

typedef struct Norm {
    const Tensor *w; /* [width] */
    const Tensor *b; /* [width], NULL for RMS */
} Norm;

/* linear_2(silu(linear_1(x))) */
typedef struct Mlp2 {
    Linear linear_1, linear_2;
} Mlp2;

/** prefix  "" or a path with its dot, "text_encoder." */
void dg_path_init(LayerPath *p, ParamSet *set, const char *prefix);

/** Goes one level down: printf text without the dot. Returns the mark for
 *  dg_path_leave(). */
size_t dg_path_enter(LayerPath *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void dg_path_leave(LayerPath *p, size_t mark);

/** From here to its end the parameters added are a group, a block's. */
void dg_path_group(LayerPath *p);
void dg_path_group_end(LayerPath *p);

enum { DG_NO_BIAS = 0, DG_WITH_BIAS = 1 };

/** name.weight drawn by init, name.bias zero (bias: DG_NO_BIAS: none). Where
 *  the set has a Lora that names it, with an adapter. */
Linear dg_layer_linear(LayerPath *p, const char *name, int64_t in, int64_t out,
                       int bias, ParamInit init);

/** name.weight normal of the given std, name.bias zero. */
Linear dg_layer_linear_normal(LayerPath *p, const char *name, int64_t in,
                              int64_t out, int bias, double std);

/** name.weight = 1 [width], no bias. */
Norm dg_layer_rms_norm(LayerPath *p, const char *name, int64_t width);

/** name.weight = 1, name.bias = 0 [width]. */
Norm dg_layer_layer_norm(LayerPath *p, const char *name, int64_t width);

/** name.weight [rows, width], normal of the given std. */
const Tensor *dg_layer_table(LayerPath *p, const char *name, int64_t rows,
                             int64_t width, double std);

/** A parameter of that name that is no layer's weight or bias. */
const Tensor *dg_layer_tensor(LayerPath *p, const char *name, ParamInit init,
                              int num_dims, const int64_t *dims);

/** in -> width -> width, both with bias. */
Mlp2 dg_layer_mlp2(LayerPath *p, const char *name, int64_t in, int64_t width,
                   ParamInit init);

/** y = act(x w^T + b), the adapter's part added before act.
 *  x [.., in] -> [.., out]. */
Tensor *dg_linear(Context *ctx, Tensor *x, const Linear *l, Act act);
/** The same of values from outside a network, stored as its weights first. */
Tensor *dg_linear_in(Context *ctx, Tensor *x, const Linear *l, Act act);

/** The same of [x, x2] without forming the concatenation, no activation. */
Tensor *dg_linear2(Context *ctx, Tensor *x, Tensor *x2, const Linear *l);

/** linear_2(silu(linear_1(x))). */
Tensor *dg_mlp2(Context *ctx, Tensor *x, const Mlp2 *m);

#endif
