#ifndef DG_CONFIG_CHOICES_H
#define DG_CONFIG_CHOICES_H
/*
 * What a key of the configuration may choose between. The modules that carry
 * a choice out use these enums themselves.
 */

typedef enum DeviceKind { DG_DEVICE_CPU, DG_DEVICE_CUDA } DeviceKind;
typedef enum StoreKind { DG_STORE_FLOAT32, DG_STORE_BFLOAT16 } StoreKind;
/* How encoded prompts are stored: by the run's dtype, or whatever it is. */
typedef enum CacheKind {
    DG_CACHE_RUN,
    DG_CACHE_FLOAT32,
    DG_CACHE_BFLOAT16
} CacheKind;
/* Whose attention the networks have on GPUs. */
typedef enum AttentionKind {
    DG_ATTENTION_OWN,
    DG_ATTENTION_CUDNN
} AttentionKind;
/* Whose convolutions. */
typedef enum ConvKind { DG_CONV_OWN, DG_CONV_CUDNN } ConvKind;
typedef enum NanPolicy { DG_NAN_SKIP, DG_NAN_STOP } NanPolicy;
typedef enum PolicyKind { DG_POLICY_FLUX, DG_POLICY_SD } PolicyKind;
typedef enum CodecKind { DG_CODEC_PIXELS, DG_CODEC_VAE } CodecKind;
/* What the network puts out. The last two are for small ones of our own. */
typedef enum Prediction {
    DG_PREDICT_VELOCITY, /* noise - x, on a flow schedule */
    DG_PREDICT_EPSILON,  /* the noise, on a DDIM schedule */
    DG_PREDICT_DATA      /* x, on a flow schedule: u follows from it and z */
} Prediction;

typedef enum WorldKind { DG_WORLD_NONE, DG_WORLD_SHAPES } WorldKind;

/* lora.init: of A */
typedef enum LoraInit { DG_LORA_UNIFORM, DG_LORA_NORMAL } LoraInit;

typedef enum SdeKind {
    DG_SDE_ODE,
    DG_SDE_DANCE,
    DG_SDE_FLOW_SDE,
    DG_SDE_CPS,
    DG_SDE_DDIM
} SdeKind;

typedef enum InitNoise { DG_NOISE_PER_PROMPT, DG_NOISE_PER_SAMPLE } InitNoise;

/* sampler.window_move */
typedef enum WindowMove { DG_WINDOW_SLIDE, DG_WINDOW_RANDOM } WindowMove;
/* sampler.window_decay: how long it stays where it is, by where that is */
typedef enum WindowDecay {
    DG_WINDOW_EVEN,   /* as long everywhere */
    DG_WINDOW_LINEAR, /* less with every step, down to a least */
    DG_WINDOW_EXP     /* less from a step on, exponentially */
} WindowDecay;
/* sampler.window_solver: of the steps behind it */
typedef enum WindowSolver {
    DG_SOLVER_ODE,     /* Euler's, as all others */
    DG_SOLVER_DPMPP_2M /* DPM-Solver++ of second order, fewer */
} WindowSolver;
typedef enum DecodeFrom {
    DG_DECODE_AUTO, /* until dg_config_settle() */
    DG_DECODE_X0,
    DG_DECODE_ZT
} DecodeFrom;

typedef enum CfgGrad { DG_CFG_JOINT, DG_CFG_DETACH_UNCOND } CfgGrad;

typedef enum TimestepMode {
    DG_TIMESTEP_RANDOM,
    DG_TIMESTEP_FIRST,
    DG_TIMESTEP_LAST,
    DG_TIMESTEP_ALL,
    DG_TIMESTEP_WINDOW
} TimestepMode;
typedef enum TimestepCount { DG_COUNT_FLOOR_K, DG_COUNT_CEIL_T } TimestepCount;
typedef enum TimestepScope { DG_SCOPE_SAMPLE, DG_SCOPE_GROUP } TimestepScope;
typedef enum TimestepWeight {
    DG_WEIGHT_NONE,
    DG_WEIGHT_STD,
    DG_WEIGHT_LENGTH
} TimestepWeight;

/* what an update takes */
typedef enum UpdateSplit {
    DG_SPLIT_AUTO,
    DG_SPLIT_GROUPS,
    DG_SPLIT_SAMPLES
} UpdateSplit;

typedef enum RatioKind { DG_RATIO_PLAIN, DG_RATIO_GUARD } RatioKind;
typedef enum AdvantageAgg {
    DG_AGG_SUM,        /* of the rewards' advantages */
    DG_AGG_PER_REWARD, /* a loss of each */
    DG_AGG_REWARD_SUM  /* the advantage of the rewards' sum */
} AdvantageAgg;
typedef enum AdvantageStd { DG_STD_GROUP, DG_STD_GLOBAL } AdvantageStd;

/* 8-bit values of a picture for a reward's network. */
typedef enum Quantize { DG_QUANTIZE_RINT, DG_QUANTIZE_TRUNC } Quantize;
/* What of a cosine is the score. */
typedef enum RewardScale {
    DG_SCALE_COS,
    DG_SCALE_LOGIT,   /* exp(logit_scale) cos */
    DG_SCALE_LOGIT_26 /* a 26th of it */
} RewardScale;

/* What a rank holds of a flat buffer's optimizer state; each level has what
 * those before it have. */
typedef enum ShardLevel {
    DG_SHARD_NONE,      /* all of it */
    DG_SHARD_OPTIMIZER, /* its range's moments and EMA */
    DG_SHARD_GRADIENTS, /* and its range's gradient sums */
    DG_SHARD_PARAMETERS /* and its range's weights */
} ShardLevel;

/* How a sample's passes of an update go back where gradient sums are in
 * ranges. */
typedef enum PassesChoice {
    DG_PASSES_AUTO,    /* by what takes less memory */
    DG_PASSES_APART,   /* each by itself: the gradient is whole */
    DG_PASSES_TOGETHER /* block by block: the gradient is never whole */
} PassesChoice;

/* What AdamW's moments are kept in. */
typedef enum MomentKind {
    DG_MOMENTS_FLOAT32,
    DG_MOMENTS_INT8 /* codes: optim/adamw8.h */
} MomentKind;

typedef enum LrSchedule {
    DG_LR_CONSTANT,
    DG_LR_LINEAR,
    DG_LR_COSINE
} LrSchedule;

typedef enum LogChoice { DG_LOG_SHOW_INFO, DG_LOG_SHOW_WARN } LogChoice;

#endif
