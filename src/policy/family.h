#ifndef DG_SRC_POLICY_FAMILY_H
#define DG_SRC_POLICY_FAMILY_H
/* What a generator family provides to policy.c; not public. */
#include "policy/policy.h"

typedef struct PolicyFamily {
    /* Sets p->shape, its prediction and time too, and p->impl; adds
     * parameters to p->net and p->text. */
    int (*create)(Policy *p, const Config *c);
    void (*destroy)(Policy *p);
    int (*tokenize)(const Policy *p, const char *prompt, int32_t *ids_t5,
                    int32_t *ids_clip);
    int (*encode)(const Policy *p, Context *ctx, const PromptTokens *t,
                  float *condition);
    Tensor *(*predict)(const Policy *p, Context *ctx, const PolicyBatch *b);
    void (*decode)(const Policy *p, const float *latent, float *rgb);
    void (*code)(const Policy *p, const float *rgb, float *latent);
} PolicyFamily;

/* Every impl starts with its family. */
struct PolicyImpl {
    const PolicyFamily *family;
};

extern const PolicyFamily dg_policy_flux;

#endif
