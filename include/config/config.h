#ifndef DG_CONFIG_CONFIG_H
#define DG_CONFIG_CONFIG_H
/*
 * The configuration of a run: one struct, filled from one table of options
 * (config/option.h), which also gives defaults, ranges, --help, --print-config
 * and doc/config.md. Meaning, unit and range of every field: doc/config.md.
 *
 * Order of work: dg_config_defaults, dg_config_load (a file, rank 0),
 * dg_config_set (each --set, rank 0), dg_config_settle, dg_config_check; then
 * dg_config_print gives the text that is broadcast, stored in outputs, and parsed back by
 * dg_config_parse to the same bits. Nothing here is collective.
 */
#include "config/choices.h"

#include <stddef.h>
#include <stdint.h>

enum {
    DG_CONFIG_STRING = 512, /* bytes of a string field, with its '\0' */
    DG_CONFIG_REWARDS = 16, /* most rewards in one run */
    DG_CONFIG_AXES = 3,     /* rotary axes of FLUX */
    DG_CONFIG_LEVELS = 8,   /* most levels of a U-Net */
    DG_CONFIG_TEXTS = 32,   /* most texts of a list */
    DG_CONFIG_TEXT = 96     /* bytes of one, with its '\0' */
};

/* Texts in use come first; an empty one ends them. */
typedef struct TextList {
    char text[DG_CONFIG_TEXTS][DG_CONFIG_TEXT];
} TextList;

typedef struct RunConfig {
    char dir[DG_CONFIG_STRING]; /* run folder */
    int64_t seed;
    int64_t iterations;
    int64_t threads;     /* per rank; 0: cores of the node / its ranks */
    double max_seconds;  /* stop with a checkpoint after; 0: never */
    double wait_seconds; /* for another run that writes in dir */
    DeviceKind device;
    StoreKind dtype; /* of weights and activations in the networks */
    AttentionKind attention;
    ConvKind convolution;
    NanPolicy on_nan;
    int64_t witness_every; /* iterations; 0: never */
} RunConfig;

typedef struct PolicyConfig {
    PolicyKind kind;
    Prediction prediction;          /* of the network */
    char path[DG_CONFIG_STRING];    /* folder of the networks */
    char weights[DG_CONFIG_STRING]; /* file or folder; "": random */
    int64_t text_length;            /* tokens per prompt; 0: by the kind */
    double latent_scale;            /* of the space-to-depth codec */
    double guidance;                /* embedded guidance scale */
    CodecKind codec;                /* between latents and pixels */
    int bf16_compat;                /* FLUX: time, guidance as in bfloat16 */
    int draw_all;                   /* no random weights begin as zero */
    int64_t height, width;          /* pixels; 0: pretrain.image_size each */
} PolicyConfig;

typedef struct LoraConfig {
    int64_t rank;                /* 0: full fine-tuning */
    double alpha;                /* scale = alpha / rank */
    LoraInit init;               /* how A is drawn */
    TextList targets;            /* patterns of linears' names */
    char base[DG_CONFIG_STRING]; /* weights below a checkpoint's adapters */
} LoraConfig;

typedef struct FluxSizes {
    int64_t num_layers;        /* double-stream blocks */
    int64_t num_single_layers; /* single-stream blocks */
    int64_t num_heads;
    int64_t head_dim;
    int64_t axes_dims[DG_CONFIG_AXES]; /* sum = head_dim, each even */
    int64_t joint_attention_dim;       /* = t5.d_model */
    int64_t pooled_dim;                /* = clip.hidden */
    int64_t in_channels;               /* of one packed token */
    int guidance_embeds;
    double rope_theta; /* base of the rotary frequencies */
} FluxSizes;

/* As the unet's config.json of Stable Diffusion 1.x. */
typedef struct UnetSizes {
    int64_t in_channels; /* = out_channels */
    int64_t num_levels;  /* entries of block_out_channels; 0: no sizes given */
    int64_t block_out_channels[DG_CONFIG_LEVELS];
    char down_block_types[DG_CONFIG_STRING]; /* by commas, one per level */
    char up_block_types[DG_CONFIG_STRING];   /* from the lowest level up */
    int64_t layers_per_block;
    int64_t attention_head_dim;  /* the number of heads, as there */
    int64_t cross_attention_dim; /* = clip.hidden */
    int64_t norm_num_groups;
} UnetSizes;

typedef struct T5Sizes {
    int64_t d_model;
    int64_t d_ff;
    int64_t num_layers;
    int64_t num_heads;
    int64_t d_kv;
    int64_t vocab_size; /* 0: that of the world's words */
} T5Sizes;

typedef struct ClipSizes {
    int64_t hidden;
    int64_t intermediate;
    int64_t layers;
    int64_t heads;
    int64_t vocab_size; /* 0: that of the world's words */
    int64_t positions;  /* tokens per prompt; 0: policy.text_length */
} ClipSizes;

typedef struct PromptsConfig {
    char file[DG_CONFIG_STRING];      /* JSONL or text; "": from world */
    char eval_file[DG_CONFIG_STRING]; /* held-out prompts; "": none */
    char cache[DG_CONFIG_STRING];     /* their conditions; "": none */
    CacheKind cache_dtype;            /* in that file */
    WorldKind world; /* procedural source and meaning of metadata */
    int shuffle;
} PromptsConfig;

typedef struct SamplerConfig {
    SdeKind sde;
    double eta;
    int64_t steps; /* T */
    double shift;
    InitNoise init_noise;
    int64_t window_start; /* first SDE step of a mixed ODE-SDE window */
    int64_t window_size;  /* 0: no window, every step is an SDE step */
    int64_t window_every; /* iterations between moves; 0: fixed */
    WindowMove window_move;
    int64_t window_end;    /* it stays before this step; 0: the last */
    int64_t window_stride; /* slide: steps of a move */
    int window_wrap; /* slide: from the last place to step 0, or no more */
    WindowDecay window_decay;
    int64_t window_every_least; /* linear: window_every at the end */
    int64_t window_decay_from;  /* exp: first step after which it decays */
    double window_decay_rate;   /* exp: of a step */
    WindowSolver window_solver;
    double window_compress; /* dpmpp_2m: part of the steps that is taken */
    DecodeFrom decode;
    int cps_gaussian; /* 1: true Gaussian log-density, 0: -(z'-mu)^2 */
} SamplerConfig;

typedef struct GrpoConfig {
    int64_t num_generations; /* G: samples per prompt */
    int64_t prompts_per_iteration;
    int64_t updates_per_iteration; /* of a pass over the samples */
    int64_t epochs;                /* passes */
    UpdateSplit update_split;
    RatioKind ratio;
    double clip_range;
    double clip_range_low, clip_range_high; /* by sides; 0: clip_range */
    double advantage_clip;
    double timestep_fraction; /* tau */
    TimestepMode timestep_mode;
    TimestepCount timestep_count;
    TimestepScope timestep_scope;
    TimestepWeight timestep_weight;
    AdvantageAgg adv_agg;
    AdvantageStd adv_std;
    double kl_beta; /* 0: no reference model */
    int best_of_n;  /* train keep_top + keep_bottom of each group */
    int64_t keep_top;
    int64_t keep_bottom;
    int64_t micro_batch; /* samples of one forward pass */
} GrpoConfig;

typedef struct RewardConfig {
    char name[64];
    double weight;
    double threshold; /* NAN: as is; else 1 above it, 0 below */
    double target;    /* brightness: NAN: none */
    /* of rewards with a network */
    char path[DG_CONFIG_STRING];      /* weights: a file or a folder */
    char head[DG_CONFIG_STRING];      /* aesthetic: its own layers' */
    char tokenizer[DG_CONFIG_STRING]; /* folder or list; "": with weights */
    char model[64];                   /* sizes by name; "": beside them */
    RewardScale scale;
    Quantize quantize;
    /* of a user's own */
    char plugin[DG_CONFIG_STRING];  /* a library that scores; "": none */
    char options[DG_CONFIG_STRING]; /* what it is told */
    /* of rewards that are programs of the user's */
    char command[DG_CONFIG_STRING]; /* for /bin/sh; "": none */
    int64_t processes;              /* programs of a rank */
    double timeout_seconds;         /* for a picture's score */
    double start_seconds;           /* until it is ready; of the first score */
} RewardConfig;

typedef struct OptimConfig {
    double lr;
    double weight_decay;
    double beta1;
    double beta2;
    double eps;
    MomentKind moments;
    double max_grad_norm; /* 0: no clipping */
    int64_t warmup;       /* updates */
    LrSchedule schedule;
    double ema_decay; /* 0: no EMA */
    int64_t ema_every;
    int ema_ramp;
} OptimConfig;

typedef struct PretrainConfig {
    int64_t steps;
    int64_t batch;
    int64_t item_size; /* pictures of one work item */
    int64_t world_seed;
    int64_t image_size; /* pixels, height = width */
    double logit_mean;  /* of the logit-normal times */
    double logit_std;
    int64_t eval_every; /* steps; 0: only at the end */
    double loss_power;  /* epsilon: loss times alpha_bar^-this */
    double prompt_drop; /* probability of an empty prompt */
    double prompt_swap; /* probability of another picture's prompt */
    double faded;       /* probability of a washed-out picture */
    double blurred;     /* probability of a picture out of focus */
    double distill_cfg; /* guidance of the base that is learned; 1: none */
} PretrainConfig;

typedef struct EvaluateConfig {
    char file[DG_CONFIG_STRING]; /* prompts; "": prompts.eval_file */
    int64_t seeds;               /* pictures per prompt */
    int64_t steps;
    double shift;
    int64_t num_prompts; /* 0: all of the file */
    int64_t bootstrap;   /* resamplings of the intervals */
    int64_t every;       /* iterations of train between two; 0: none */
} EvaluateConfig;

typedef struct Config {
    RunConfig run;
    PolicyConfig policy;
    LoraConfig lora;
    FluxSizes flux;
    UnetSizes unet;
    T5Sizes t5;
    ClipSizes clip;
    PromptsConfig prompts;
    SamplerConfig sampler;
    struct {
        double scale; /* classifier-free guidance w; 1: none */
        CfgGrad grad; /* branches that the gradient goes through */
    } cfg;
    GrpoConfig grpo;
    int64_t num_rewards;
    RewardConfig rewards[DG_CONFIG_REWARDS];
    OptimConfig optim;
    PretrainConfig pretrain;
    EvaluateConfig evaluate;
    struct {
        int64_t every; /* iterations; 0: only at the end */
        int64_t keep;  /* newest kept; 0: all */
    } checkpoint;
    struct {
        int64_t every; /* iterations; 0: never */
    } trajectory;
    struct {
        int64_t every;   /* iterations between picture strips; 0: ends */
        int64_t prompts; /* pictures in a strip */
    } report;
    struct {
        int exact_sum;               /* 64-bit fixed-point gradient sums */
        int recompute;               /* blocks again at backward, less memory */
        double timeout_seconds;      /* for the other GPUs in a sum */
        double host_timeout_seconds; /* for others in MPI; 0: for ever */
        int graphs;                  /* steps are replayed as CUDA graphs */
        int overlap;                 /* sums beside the way back */
        int ahead;                   /* blocks' weights fetched ahead */
        int64_t bucket_size;         /* elements that leave at once */
        int write_beside;            /* files while the next rollout runs */
        ShardLevel shard;
        PassesChoice passes;
        int offload_optimizer; /* sums, moments, EMA in the host's memory */
        int offload_sums;      /* sums alone */
        int offload_ema;       /* EMA alone, or with the sums */
    } parallel;
    struct {
        LogChoice level;
        int progress; /* bar inside an iteration, on a terminal */
    } log;
} Config;

/** Fills every field with its default. */
void dg_config_defaults(Config *c);

/**
 * Reads a libconfig file over c; @include is relative to the file's folder.
 * Keys that are not in the file keep their value.
 * Errors: DG_EIO unreadable; DG_EFORMAT, DG_EINVAL with file, line, key and
 * what is allowed, "did you mean" for an unknown key. c is then untouched.
 */
int dg_config_load(Config *c, const char *path);

/** The same from text in memory; name stands for the file in messages. */
int dg_config_parse(Config *c, const char *text, const char *name);

/**
 * One override "key.sub=value"; the value is written as in a file, strings
 * with or without quotes, lists as libconfig text.
 * Errors: DG_EUSAGE without '='; DG_EINVAL as above. c is then untouched.
 */
int dg_config_set(Config *c, const char *assignment);

/**
 * Decides what is left to other keys: sampler.decode = auto becomes x0 where
 * the network predicts velocity, zT where it predicts epsilon;
 * policy.text_length = 0 becomes 512 for FLUX from a folder, else 32. The
 * effective configuration has the decision.
 */
void dg_config_settle(Config *c);

/**
 * Texts that a shell would have replaced, as ~/a or $HOME/a: nothing here does,
 * and a folder of that name would be made. Errors: DG_EINVAL naming the key.
 */
int dg_config_check_names(const Config *c);

/**
 * What no single key can tell: sums, orders and bounds between keys.
 * Errors: DG_EINVAL naming the keys.
 */
int dg_config_check(const Config *c);

/** The same and what training needs: rewards, a sampler with noise. */
int dg_config_check_train(const Config *c);

/**
 * The effective configuration, defaults too, as libconfig text that parses
 * back to the same bits. *text is taken by the caller (free). DG_ENOMEM.
 */
int dg_config_print(char **text, const Config *c);

/**
 * Keys whose values differ, one line "key: a -> b" each; "" when none do.
 * Keys that may change between the parts of one run are passed over.
 * *text is taken by the caller (free). DG_ENOMEM.
 */
int dg_config_compare(char **text, const Config *a, const Config *b);

/**
 * Keys in which any of several configurations differ but run.dir, a line each:
 * "  key = a (1, 3), b (2)\n", where number [num] is what each is called; ""
 * when none do. *text is taken by the caller (free). DG_ENOMEM.
 */
int dg_config_differences(char **text, const Config *const *c,
                          const int *number, int num);

#endif
