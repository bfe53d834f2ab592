#ifndef DG_POLICY_POLICY_H
#define DG_POLICY_POLICY_H
/*
 * A policy: a generator with its text encoders and its codec, behind one face.
 * It knows how to turn a prompt into a condition, latents and a time into the
 * network's prediction, and latents into pixels. It says what the prediction
 * is, and so which schedule it is sampled on. It knows nothing of GRPO or
 * ranks.
 *
 * Latents are kept in the network's own packed order, [tokens, features], all
 * the way; a sampler works element by element and need not know.
 *
 * Parameters lie in one flat buffer: the network's adapters, if it has any
 * (LoRA), the network ('net'), the text encoders ('text'), frozen in RL. What
 * RL trains, adapters or else the network, is so a prefix of it; net and text
 * together are the base. Names are the safetensors keys behind "transformer."
 * or "unet.", "text_encoder." (CLIP) and "text_encoder_2." (T5). A learned
 * codec is frozen, and in neither. Forward functions only read the policy: any
 * number of threads may use it, each with its own context.
 */
#include "config/config.h"
#include "diffusion/schedule.h"
#include "nn/lora.h"
#include "nn/param.h"
#include "parallel/node_memory.h"
#include "parallel/shard.h"
#include "store/h5.h"
#include "tensor/context.h"

#include <stdint.h>

enum {
    DG_PARAMS_NET = 1,
    DG_PARAMS_TEXT = 2,
    DG_PARAMS_REFERENCE = 3,
    DG_PARAMS_LORA = 4,
    DG_PARAMS_CODEC = 5,
    /* 6 is of rewards' networks (reward/reward.h) */
    DG_PARAMS_TEACHER = 7,
    DG_PARAMS_TEACHER_TEXT = 8
};

typedef struct PolicyShape {
    int64_t tokens, features;         /* of a packed latent */
    int64_t elements;                 /* D = tokens * features */
    int64_t height, width;            /* of a picture, pixels */
    int64_t text_tokens, embed_width; /* T5 states of one prompt; 0: no T5 */
    int64_t clip_tokens, pooled_width;
    int64_t condition; /* floats of one condition: T5 states, then CLIP's
                          pooled one; or CLIP's states */
    Prediction prediction;
    ModelTime time;    /* what PolicyBatch.time is */
    double auto_shift; /* of a flow schedule that is asked for shift 0 */
} PolicyShape;

/* Token ids of one prompt, for both encoders. */
typedef struct PromptTokens {
    const int32_t *t5;   /* [text_tokens] */
    const int32_t *clip; /* [clip_tokens] */
} PromptTokens;

/* A batch of predictions; every entry stands for itself. */
typedef struct PolicyBatch {
    int64_t num;                   /* B */
    const float *const *z;         /* [B] latents, [elements] each, and */
    const float *time;             /* [B] as shape.time says */
    const float *const *condition; /* [B] encoded prompts (kernel memory
                                      both), or NULL */
    const int32_t *t5_ids;   /* [B, text_tokens], when condition is NULL */
    const int32_t *clip_ids; /* [B, clip_tokens], when condition is NULL */
} PolicyBatch;

typedef struct PolicyImpl PolicyImpl;

typedef struct Policy {
    PolicyShape shape;
    ParamSet net, text;
    ParamSet adapters; /* without parameters where lora.rank is 0 */
    ParamSet *codec;   /* of a learned decoder, frozen, with memory of its
                              own; NULL: none */
    Lora lora;
    float *values; /* [num_values]: adapters, net, text; the host's */
    float *at;     /* the same for kernels: values itself, or a copy */
    /* how networks' weights are stored where kernels are: DG_F32, in 'at', or
     * DG_BF16: then in 'stored', and 'at' is the float32 masters that training
     * moves, of values first_master .. + num_masters - 1, or NULL */
    DType dtype;
    void *stored;
    int64_t first_master, num_masters;
    /* with held set, kernel memory that is apart has the adapters and then
     * these values of net and of text alone: see dg_policy_hold() */
    int held;
    ShardRange held_net, held_text;
    /* of so many first values the host's copy was given back, see
     * dg_policy_drop() */
    int64_t dropped;
    const Backend *on;  /* whose memory that copy is; NULL: none */
    int64_t num_values; /* with the padding behind the adapters */
    int owns_values;
    NodeMemory *together; /* whose values are; NULL: this rank's */
    int frozen;           /* nothing of it is trained: a reference */
    int outline;          /* sizes only: nothing is reserved, nothing can run */
    int strict;           /* and no others than dg_policy_create() takes */
    int text_dropped;
    int text_left; /* where it is placed, without the text encoders */
    /* pretraining: the text encoders are trained with the network, and where
     * ranks have ranges, these are of both, one behind the other:
     * dg_policy_train_text() */
    int trains_text;
    /* with adapters: where the base came from, and what it is */
    char base_path[DG_CONFIG_STRING];
    char base_pieces[65]; /* digest of net.values, then text.values, in pieces;
                             and of all bytes, where a file may have that: "" */
    char base_sha256[65];
    char base_moved[DG_CONFIG_STRING]; /* lora.base */
    PolicyImpl *impl;
} Policy;

/**
 * Builds the networks of c->policy, c->flux, c->t5, c->clip, or those of the
 * folder policy.path, and reserves their parameters, all zero. Not collective.
 * Errors: DG_EINVAL naming the key that does not fit, DG_ENOMEM; of a folder
 * DG_EIO, DG_EFORMAT naming the file.
 */
int dg_policy_create(Policy **out, const Config *c);
void dg_policy_destroy(Policy *p);

/**
 * The same with values that the ranks of a node have together, see
 * parallel/node_memory.h: for who places it on GPUs. Until dg_policy_publish() only
 * those may touch values that dg_policy_fills() says, but for
 * dg_policy_load_folder(), of which each rank fills a part. Collective. Errors,
 * agreed: as dg_policy_create().
 */
int dg_policy_create_on_node(Policy **out, const Config *c, const Comm *comm);
int dg_policy_fills(const Policy *p);
/** Collective. Errors, agreed: DG_ENOMEM. Of dg_policy_create(): nothing. */
int dg_policy_publish(Policy *p, const Comm *comm);
/**
 * After dg_policy_drop(), or where nothing is dropped: of values that the ranks of
 * a node have together each takes those for itself that training moves, text
 * encoders and a reference stay one for all, and what was dropped is given back.
 * Of any other policy nothing. Collective. Errors, agreed: DG_ENOMEM.
 */
int dg_policy_settle(Policy *p, const Comm *comm);

/** The same without any memory for parameters: for plans, of networks of any
 *  size, those too that this version can only plan (policy.codec = "vae",
 *  vocabularies of other tokenizers). */
int dg_policy_outline(Policy **out, const Config *c);

/** The same of a policy that will be created: what dg_policy_create() would refuse
 *  is refused, so that it is before weights are read. Prompts can be made into
 *  tokens, and of dg_policy_load_folder() nothing is left but that it checks the
 *  files' lists of tensors. Errors: those of dg_policy_create(). */
int dg_policy_sizes(Policy **out, const Config *c);

/** The same with memory for the text encoders' parameters alone, which nothing
 *  but dg_policy_load_folder() of them and encoding may follow. */
int dg_policy_encoders(Policy **out, const Config *c);
/** That memory as dg_policy_create_on_node() has it. Collective. Errors, agreed. */
int dg_policy_encoders_on_node(Policy **out, const Config *c, const Comm *comm);

/** The same with memory for the decoder's parameters alone, if it has any, which
 *  nothing but dg_policy_load_folder() of them and decoding may follow. */
int dg_policy_decoder(Policy **out, const Config *c);

/**
 * A second network of the same shape with frozen weights (KL's reference):
 * a copy of p's present ones; of a policy with adapters, the base without
 * them, which is p's own memory and must not outlive p. It is placed, or
 * held, where p is. Its text encoders are unused. Errors: DG_ENOMEM.
 */
int dg_policy_reference(Policy **out, const Policy *p, const Config *c);

/** The same with a copy that the ranks of a node have together, where p's values
 *  are: before p is settled. Collective. Errors, agreed: DG_ENOMEM. */
int dg_policy_reference_on_node(Policy **out, const Policy *p, const Config *c,
                                const Comm *comm);

/** The same on a device, for whoever has no use of the host's copy: there it is
 *  p's own memory, of what p has now, and must not outlive p. */
int dg_policy_reference_placed(Policy **out, const Policy *p, const Config *c);

/**
 * Pretraining: the text encoders are trained with the network, one range of values.
 * They begin on a boundary of DG_PARAM_ALIGN from now on, since products choose by
 * what addresses show: of them and of their gradients these must be the same
 * wherever they are whole or lent. Of a new policy, while it has no values yet.
 */
void dg_policy_train_text(Policy *p);

/** The ids of a second policy's networks, whose weights are lent beside those
 *  of the first (DG_PARAMS_TEACHER, DG_PARAMS_TEACHER_TEXT). */
void dg_policy_as_teacher(Policy *p);

/**
 * Copies the parameters to the backend's memory, where the networks read them
 * from now on: the last step of making a policy. Nothing where that memory is
 * the host's. Afterwards p->values is the host's own copy, brought up to date
 * by dg_policy_fetch(); of a policy with adapters the base's part of it is
 * given back. A second time: nothing. Not collective. Errors: DG_ENOMEM.
 */
int dg_policy_place(Policy *p, const Backend *backend);

/**
 * Values that are left free there before text encoders, so that these begin on a
 * boundary as they do alone, or lent: products choose by what addresses show, and
 * must see the same wherever a prompt is encoded. 0 of dg_policy_train_text().
 */
int64_t dg_policy_gap(const Policy *p);

/** Bytes that it takes there. */
uint64_t dg_policy_placed_bytes(const Policy *p);

/**
 * In place of dg_policy_place(), where ranks have ranges: of the network only
 * these values are kept, on the host too, and of the text encoders these,
 * where kernel memory is apart or they are trained; else all, as on every
 * host, which of those that are trained keeps these alone too. The tensors of
 * what is not whole are nowhere until somebody points them to a copy
 * (train/pool.h). Adapters and decoder are placed whole.
 * backend  NULL: the host's memory
 * text     NULL: nothing is encoded
 * Errors: DG_ENOMEM.
 */
int dg_policy_hold(Policy *p, const Backend *backend, const ShardRange *net,
                   const ShardRange *text);

/**
 * What training needs of a placed policy: float32 masters of values first ..
 * first + num - 1, which dg_policy_fetch(), dg_policy_send() move from then
 * on. They are 'at' already where weights are float32. Errors: DG_ENOMEM.
 */
int dg_policy_masters(Policy *p, int64_t first, int64_t num);
/** The float32 of value i that training moves, in kernel memory. */
float *dg_policy_master(const Policy *p, int64_t i);
/** Where value i is for the networks, as p->dtype. */
void *dg_policy_at(const Policy *p, int64_t i);
/** p->values first .. first + num - 1 to the networks' weights alone, each
 *  rounded as dg_policy_round() does. */
void dg_policy_upload(const Policy *p, int64_t first, int64_t num);
/** After masters have changed: the stored weights are these, each rounded to
 *  nearest even. Nothing where they are one. */
void dg_policy_round(const Policy *p);

/**
 * Gives the host's copy of a placed policy back, as far as there is another in
 * kernel memory: p->values is then no longer there, and dg_policy_get() fetches
 * what it is asked for. Nothing with adapters, whose base was given back before.
 * float32s  1: all will be asked for, so that text encoders of stored bfloat16
 *           stay, unless they are trained, and so do those that are not placed;
 *           masters are some rank's. 0: none will
 */
void dg_policy_drop(Policy *p, int float32s);
/** Values first .. first + num - 1 as float32, from where they are, and to
 *  there; of weights that ranks have in ranges, among this one's. After put()
 *  rounded weights are those of before until dg_policy_round(). Get waits.
 *  Errors: DG_EDEVICE. */
int dg_policy_get(const Policy *p, float *to, int64_t first, int64_t num);
void dg_policy_put(const Policy *p, const float *from, int64_t first,
                   int64_t num);
/** To p->values alone, of which nothing is dropped: dg_policy_send() follows. */
void dg_policy_set(const Policy *p, const float *from, int64_t first,
                   int64_t num);

/** The first num values, those that are trained, kernel memory to p->values:
 *  of stored bfloat16 the masters there are. Waits. Errors: DG_EDEVICE. */
int dg_policy_fetch(const Policy *p, int64_t num);
/** p->values to kernel memory: the adapters, or all where there are none. */
void dg_policy_send(const Policy *p);

/** What RL trains: the adapters, or the network where there are none. Its
 *  values are the first of p->values. */
const ParamSet *dg_policy_trained(const Policy *p);

/** A gradient's element was refused with err, DG_ENUMERIC: names its parameter
 *  in front of the message.
 *  at  element of what is trained, with text encoders of both; < 0: not known
 *  Returns err. */
int dg_policy_name_gradient(const Policy *p, int64_t at, int err);

/** Gives the text encoders' memory back: from now on nothing can be encoded
 *  (DG_EINVAL), and the base's values and digest are no longer there. */
void dg_policy_drop_text(Policy *p);

/** The text encoders stay on the host when the policy is placed, for
 *  checkpoints: then nothing can be encoded either. */
void dg_policy_leave_text(Policy *p);

/** Number of values of the base, padding included. */
int64_t dg_policy_num_base(const Policy *p);

/**
 * on: 1 if a file holds adapters that stand on the weights of the folder
 * policy.path, which dg_policy_load() finds in place. By this rank alone.
 * Errors: DG_EIO, DG_EFORMAT naming the file.
 */
int dg_policy_on_folder(const Policy *p, const char *path, int *on);

/** Sets base_pieces from the values there are, equal on all ranks, each of
 *  which looks at a share. Collective. Errors, agreed: DG_ENOMEM. */
int dg_policy_note_base(Policy *p, const Comm *c);

/** base_sha256, which files of before base_pieces have; slow. By this rank
 *  alone. Errors: DG_ENOMEM. */
int dg_policy_note_old_base(Policy *p);

/** 1 where a file is one of adapters. */
int dg_policy_is_adapters(const H5File *f);

/**
 * The values there are must be those that a file was made on, whose adapters it
 * names by either digest; of: what they are, for the message. By this rank
 * alone, from base_pieces. Errors: DG_EFORMAT; DG_ENOMEM.
 */
int dg_policy_match_base(Policy *p, H5File *f, const char *of);

/**
 * Whether the adapters of each of lora.targets change the network's output,
 * tried with values of B that are put back afterwards, bit for bit. The
 * context, of a step arena for one prediction, is reset. Not collective.
 * Errors: DG_EINVAL naming the target; those of the context.
 */
int dg_policy_check_adapters(Policy *p, Context *ctx);

/**
 * Puts the adapters into the network: W + (alpha / rank) B A, each element
 * summed in double and rounded once; B is then 0, so that the policy stays
 * what it was. The base is no longer that of base_pieces.
 */
void dg_policy_merge(Policy *p);

/** Fresh parameters for pretraining, drawn from seed. */
void dg_policy_draw(Policy *p, uint64_t seed);

/** Fresh adapters: A drawn from seed, B zero. */
void dg_policy_draw_adapters(Policy *p, uint64_t seed);

/**
 * Makes c's network sizes those of a weights file or checkpoint (the
 * configuration stored in it), and policy.path its folder if it names none; of
 * a checkpoint of adapters, lora.* too, which must be the same where c sets
 * lora.rank. By this rank alone.
 * Errors: DG_EIO, DG_EFORMAT naming the file; DG_EINVAL.
 */
int dg_policy_adopt_sizes(Config *c, const char *path);

/**
 * Makes c->policy.prediction, and of kind flux the codec and all sizes, those
 * of the folder policy.path, whose configuration files it checks; without one
 * only the prediction of kind sd, which has no other. By this rank alone.
 * outline  1: only sizes are needed. A folder that is not there is then no
 *          error: sizes are c's, or of kind sd Stable Diffusion 1.4's
 * Errors: DG_EIO, DG_EFORMAT naming file and key.
 */
int dg_policy_adopt_folder(Config *c, int outline);

/** 1 if policy.path names a folder that is there. */
int dg_policy_has_folder(const Config *c);

/** 1 if policy.weights names what is not there, so that its sizes are not known:
 *  where they alone are wanted, c's are taken. */
int dg_policy_lacks_weights(const Config *c);

enum { DG_FOLDER_CODEC, DG_FOLDER_ALL, DG_FOLDER_TEXT };
/**
 * Fills the parameters that the folder policy.path holds, if the kind has one:
 * all, or only the codec's, which no weights file has, or only the text
 * encoders'. Each node reads once. Collective.
 * Errors, agreed: DG_EIO, DG_EFORMAT naming file and tensor.
 */
int dg_policy_load_folder(Policy *p, const Comm *comm, int all);

/**
 * Reads all parameters from a weights file or a checkpoint (EMA if ema is
 * set, else master weights); of a checkpoint of adapters, these and then the
 * base that it names (or lora.base; if it names none, that of the folder,
 * which must be loaded before), whose digest must be the stored one.
 * Adapters that the file has not are left alone. By this rank alone.
 * Errors: DG_EIO, DG_EFORMAT naming file and tensor; DG_EINVAL: no EMA in it.
 */
int dg_policy_load(Policy *p, const char *path, int ema);

/**
 * Token ids of a prompt. ids_t5 [text_tokens], ids_clip [clip_tokens] out.
 * Errors: DG_EINVAL naming the prompt and the word that is not known, or
 * the length allowed.
 */
int dg_policy_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                       int32_t *ids_clip);
/** The same; *cut = 1 if the encoder of all the network learns of the prompt
 *  (T5 where there is one, else CLIP) does not read its end, else 0. */
int dg_policy_tokenize_cut(const Policy *p, const char *prompt, int32_t *ids_t5,
                           int32_t *ids_clip, int *cut);

/** Encodes one prompt: condition [shape.condition] f32 out. The context is
 *  reset. Errors: those of the context. */
int dg_policy_encode(const Policy *p, Context *ctx, const PromptTokens *t,
                     float *condition);

/**
 * The schedule of the policy's prediction: flow with that shift, or, of 0,
 * the shape's own, for velocity and data; DDIM, which has none, for epsilon.
 * Release with dg_schedule_fini().
 * Errors: those of dg_schedule_init_flow(), dg_schedule_init_ddim().
 */
int dg_policy_schedule(const Policy *p, Schedule *out, int num_steps,
                       double shift);

/**
 * The prediction u [B, tokens, features] for a batch: a noise where
 * shape.prediction is epsilon, else a velocity, that of predicted data being
 * (z - x) / max(sigma, 0.05); recorded when the context records. Text encoders
 * run too (and take gradients if their set trains) when b->condition is NULL. NULL
 * on error.
 */
Tensor *dg_policy_predict(const Policy *p, Context *ctx, const PolicyBatch *b);

/** Latent to pixels: rgb [height, width, 3] f32 on the host,
 *  clamped to [0, 1]; what is not finite is NaN. latent [elements], kernel
 *  memory. The context is reset; in a plan neither array is read or written.
 *  Errors: those of the context. */
int dg_policy_decode(const Policy *p, Context *ctx, const float *latent,
                     float *rgb);

/** 1 if pictures can be coded, as pretraining must. */
int dg_policy_codes(const Policy *p);

/** Pixels in [0, 1] to a clean latent. */
void dg_policy_code(const Policy *p, const float *rgb, float *latent);

#endif
