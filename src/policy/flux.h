#ifndef DG_SRC_POLICY_FLUX_H
#define DG_SRC_POLICY_FLUX_H
/*
 * The state of a FLUX policy, and what takes the place of the world's words
 * and of space-to-depth where it comes from a folder.
 */
#include "family.h"
#include "folder.h"
#include "models/clip.h"
#include "models/flux_transformer.h"
#include "models/t5.h"
#include "models/vae.h"
#include "text/words.h"

/* How a scheduler chooses the shift of its flow schedule. */
typedef struct FluxShift {
    int dynamic;
    double shift; /* not dynamic */
    double base_shift, max_shift;
    double base_tokens, max_tokens;
} FluxShift;

typedef struct FluxPolicy {
    PolicyImpl base;
    FluxTransformer *transformer;
    T5Encoder *t5;
    ClipText *clip;
    int64_t grid_h, grid_w; /* packed tokens */
    int64_t cell;           /* pixels per latent cell */
    float guidance;
    int guidance_embeds;
    FluxShift shift;
    int bf16_compat; /* time and guidance as bfloat16 code rounds them */

    /* without a folder */
    Words t5_words, clip_words;
    float scale; /* latents = scale (2 pixels - 1) */

    /* with one, or in an outline of one */
    char path[DG_CONFIG_STRING];
    Folder folder; /* of path */
    VaeConfig vae_config;
    Vae *vae;        /* decoder; NULL in a reference, which paints nothing */
    ParamSet codec;  /* of the decoder, */
    FolderCopy copy; /* and where kernels read it */
    Tokenizer *t5_tokens, *clip_tokens; /* NULL: an outline without folder */
} FluxPolicy;

/** FLUX.1-dev's. */
FluxShift dg_flux_shift_public(void);

/** exp(mu) of a picture of so many tokens: mu is linear in the tokens through
 *  (base_tokens, base_shift) and (max_tokens, max_shift); or the fixed one. */
double dg_flux_shift(const FluxShift *s, int64_t tokens);

/** Sizes of the folder's networks into c. As PolicyFamily.adopt. */
int dg_flux_adopt(Config *c, int there);

/** The folder's decoder and the shift of its scheduler.
 *  Errors: DG_EIO, DG_EFORMAT naming file and key. */
int dg_flux_read_codec(VaeConfig *vae, FluxShift *shift, const Folder *folder);

/** Tokenizers and the decoder of f->folder, when all sizes are known. */
int dg_flux_open_folder(Policy *p, FluxPolicy *f, const Config *c);
void dg_flux_close_folder(FluxPolicy *f);

/* As in PolicyFamily. */
int dg_flux_load(Policy *p, const Comm *comm, int all);
int dg_flux_place(Policy *p, const Backend *backend);
int dg_flux_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                     int32_t *ids_clip, int *cut);
int dg_flux_decode(const Policy *p, Context *ctx, const float *latent,
                   float *rgb);

#endif
