#ifndef DG_NN_RESNET_H
#define DG_NN_RESNET_H
/*
 * What convolutional networks are made of: convolutions and residual blocks on
 * maps [B, H, W, C], with the parameter names and shapes of diffusers'
 * ResnetBlock2D, Downsample2D and Upsample2D.
 */
#include "nn/layer.h"

/* k x k; 1 x 1 convolutions are Linears whose weight is [out, in, 1, 1] */
typedef struct Conv {
    const Tensor *w; /* [out, in, k, k] */
    const Tensor *b; /* [out] */
} Conv;

/** name.weight drawn by init, name.bias zero. */
Conv dg_layer_conv(LayerPath *p, const char *name, int64_t in, int64_t out,
                   int64_t k, ParamInit init);
/** The same for k = 1. */
Linear dg_layer_conv1(LayerPath *p, const char *name, int64_t in, int64_t out,
                      ParamInit init);

/** Stride 1 and (k - 1) / 2 zeros all around: the map keeps its size. */
Tensor *dg_conv(Context *ctx, Tensor *x, const Conv *c);
/** The same of the map enlarged twofold, each pixel four times. */
Tensor *dg_conv_up(Context *ctx, Tensor *x, const Conv *c);
/** To h x w pixels, each twice the map's side or one less, where the last row
 *  or column is left out. */
Tensor *dg_conv_up_to(Context *ctx, Tensor *x, const Conv *c, int64_t h,
                      int64_t w);

typedef struct ResnetOpts {
    int64_t in, out, time; /* time: width of the time embedding, 0: none */
    int64_t groups;
    float eps;
} ResnetOpts;

typedef struct Resnet {
    ResnetOpts o;
    Norm norm1, norm2;
    Conv conv1, conv2;
    Linear time, shortcut; /* shortcut.w NULL where in = out */
} Resnet;

/** Under the path as it stands: norm1, conv1, time_emb_proj, norm2, conv2,
 *  conv_shortcut. conv2 starts at zero, so that the block is the shortcut. */
void dg_layer_resnet(Resnet *r, LayerPath *p, const ResnetOpts *o);

/**
 * h = conv1(silu(GN(x))) + time_emb_proj(time); shortcut(x) +
 * conv2(silu(GN(h))).
 * x     [B, H, W, in]
 * skip  [B, H, W, in - width of x] put behind x's channels first, or NULL
 * time  [B, time], silu applied already; NULL if o.time = 0
 * A tape block: inner values are given back, or made again at backward.
 */
Tensor *dg_resnet(Context *ctx, const Resnet *r, Tensor *x, Tensor *skip,
                  Tensor *time);

#endif
