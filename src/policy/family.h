#ifndef DG_SRC_POLICY_FAMILY_H
#define DG_SRC_POLICY_FAMILY_H
/* What a generator family provides to policy.c; not public. */
#include "policy/policy.h"
#include "text/words.h"

#include <math.h>
#include <stdio.h>

/** A value of a picture, in [0, 1]; what is not finite is NaN, an Inf too, which
 *  nobody shall take for white. */
static inline float dg_policy_pixel(float v)
{
    return !isfinite(v) ? NAN : v < 0 ? 0 : v > 1 ? 1 : v;
}

typedef struct PolicyFamily {
    /* The network's folder in a pipeline of diffusers; its names begin so. */
    const char *component;
    /* Sets p->shape, its prediction and time too, and p->impl; adds
     * parameters to p->net and p->text. */
    int (*create)(Policy *p, const Config *c);
    void (*destroy)(Policy *p);
    /* See dg_policy_adopt_folder(); there: policy.path names a folder that
     * must be read. Of the family that a kind stands for. */
    int (*adopt)(Config *c, int there);
    /* See dg_policy_load_folder(); NULL: the family has no folder. */
    int (*load)(Policy *p, const Comm *comm, int all);
    int (*tokenize)(const Policy *p, const char *prompt, int32_t *ids_t5,
                    int32_t *ids_clip, int *cut);
    /* What a condition consists of, float32, one part behind the other; the
     * second is NULL where there is one. Errors: the context's. */
    void (*encode)(const Policy *p, Context *ctx, const PromptTokens *t,
                   Tensor *part[2]);
    Tensor *(*predict)(const Policy *p, Context *ctx, const PolicyBatch *b);
    int (*decode)(const Policy *p, Context *ctx, const float *latent,
                  float *rgb);
    /* Parameters of its own to kernel memory, see dg_policy_place(); NULL:
     * it has none. */
    int (*place)(Policy *p, const Backend *backend);
    /* whether pictures can be coded; NULL: always, if there is code */
    int (*codes)(const Policy *p);
    /* config.json of the network, as diffusers writes it, where no folder has
     * one. */
    void (*describe)(const Config *c, FILE *out);
    /* NULL: pictures cannot be coded */
    void (*code)(const Policy *p, const float *rgb, float *latent);
} PolicyFamily;

/** That of a kind. */
const PolicyFamily *dg_policy_family_of(PolicyKind kind);

/* Every impl starts with its family. */
struct PolicyImpl {
    const PolicyFamily *family;
};

/** 1 if p stands for one that need not be there: a plan's. */
static inline int dg_policy_lenient(const Policy *p)
{
    return p->outline && !p->strict;
}

extern const PolicyFamily dg_policy_flux;
extern const PolicyFamily dg_policy_sd;

/* Tokens of an encoder whose size is the key's: 'wanted', or with 0 as many as
 * there are words. Other numbers than that are for outlines only, or for a
 * folder's tokenizer, without words. DG_EINVAL naming the key. */
int dg_policy_vocab(int64_t *out, const Policy *p, const char *key,
                    int64_t wanted, const Words *words);

/* Sides of pictures: policy.height and policy.width, or pretrain.image_size
 * where they are 0. DG_EINVAL naming the key, unless each is a multiple of
 * step, for which networks is to blame. */
int dg_policy_sides(int64_t *height, int64_t *width, const Config *c,
                    int64_t step, const char *networks);

/* One tensor of dims[0] rows gathered from as many places, each offset values
 * on. In a plan rows is not read. */
Tensor *dg_policy_rows(Context *ctx, const float *const *rows, int64_t offset,
                       int num_dims, const int64_t *dims);

/* The networks' tensors over kernel memory of p->dtype laid out as p->values,
 * where that is apart with the gap before text encoders; at NULL: over none. */
void dg_policy_point(Policy *p, void *at, int apart);

/* Placed, or held, where and as another one is. */
int dg_policy_place_as(Policy *p, const Policy *other);

/* Kernel memory where the host can read it: itself, or a copy that lives until
 * the context is reset. NULL on error. */
const float *dg_policy_on_host(Context *ctx, const float *at, int64_t num);

#endif
