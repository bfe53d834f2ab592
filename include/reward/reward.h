#ifndef DG_REWARD_REWARD_H
#define DG_REWARD_REWARD_H
/*
 * Rewards: pictures and prompts in, one number per picture out. A score that
 * cannot be had is missing, never 0. Rewards know nothing of GRPO or ranks.
 *
 * Some have a network: its weights are read once, at dg_rewards_open(); what
 * it makes of a prompt, its features, is computed once per prompt and kept by
 * the caller, on the host; its activations lie in the step arena of the
 * caller's context, on whose device it runs. A picture's score depends on
 * picture and prompt alone. Rewards whose files and sizes are the same have one
 * network in memory, and those that also see the same in a picture look once
 * (dg_rewards_score()).
 *
 * One of the user's own is a shared library (rewards[].plugin), which is opened
 * by dg_rewards_open(), or a program (rewards[].command) that runs beside each
 * rank, is asked for one picture at a time, and is started by
 * dg_rewards_start(), by those who score alone.
 */
#include "config/config.h"
#include "parallel/comm.h"
#include "store/prompts.h"
#include "tensor/context.h"

#include <stdint.h>

enum { DG_PARAMS_REWARD = 6 }; /* 1 to 5 are the policy's sets */

/* Why a score is missing. */
enum {
    DG_SCORE_FAILED = 1, /* it was to be had, and was not, or was not finite */
    DG_SCORE_NONE,  /* the reward has none for this picture, as itself says */
    DG_SCORE_ASIDE, /* the sample was set aside, no reward has seen it */
    DG_SCORE_SPOILT /* nor this one: its picture is not finite */
};

typedef struct RewardScore {
    float value;     /* the reward; meaningless when missing */
    float strict;    /* strict 0/1 metric; NAN if the reward has none */
    int32_t missing; /* 0: it is there; else DG_SCORE_... */
} RewardScore;

typedef struct Reward Reward;

/* Keys of rewards[] that not every kind has. */
enum {
    DG_KEY_PATH = 1,
    DG_KEY_HEAD = 2,
    DG_KEY_TOKENIZER = 4,
    DG_KEY_MODEL = 8,
    DG_KEY_SCALE = 16,
    DG_KEY_QUANTIZE = 32,
    DG_KEY_TARGET = 64,
    DG_KEY_OPTIONS = 128
};

/* What one is scored from. */
typedef struct RewardInput {
    const float *rgb; /* [height, width, 3] in [0, 1] */
    int64_t height, width;
    const Prompt *prompt;
    const float *features; /* of the prompt, all rewards' in their order; NULL
                              where no reward has any */
    Context *ctx;          /* for networks; is reset */
    void *scratch;         /* this thread's own, dg_rewards_scratch() bytes */
    const Reward *reward;  /* the one that scores: dg_reward_score() sets it, */
    const float *seen;     /* and what its network saw: RewardNet.see */
} RewardInput;

/* Where programs are started. */
typedef struct RewardSeat {
    const Comm *comm;
    int cuda;               /* the rank's own networks run on a GPU */
    int (*stopped)(void);   /* ends the wait until they are ready; or NULL */
    struct Reward *rewards; /* all of them, [num] */
    int64_t num;
} RewardSeat;

/**
 * What a reward that is opened provides: one with a network, a user's library, a
 * user's program. Members that may be NULL say so.
 */
typedef struct RewardNet {
    /* The network of rewards[index], sizes only; a library's table. DG_EINVAL
     * naming the key, DG_EIO, DG_EFORMAT naming the file, DG_ENOMEM. */
    int (*create)(void **net, const RewardConfig *c, int64_t index);
    void (*destroy)(void *net);
    /* Whether net could have the network of other, of a kind with the same
     * function, and whose files are read as its own would be: by this rank
     * alone, before prepare. NULL: never. */
    int (*same)(const void *net, const void *other);
    /* From now on it has that network: of a host that joined nobody and loads
     * and places it; it is not in num_values again. */
    void (*join)(void *net, void *host);
    /* What this rank's networks run on, before prepare: see dg_rewards_seat().
     * NULL: it is not asked. */
    void (*seat)(void *net, int gpu);
    /* All that can be refused without weights, which may take minutes to come:
     * looks for files and programs, compares the files' lists of tensors, opens
     * tokenizers and libraries. Collective; errors agreed. */
    int (*prepare)(void *net, const Comm *comm);
    /* Reserves and reads the weights. Collective; errors agreed. NULL: there are
     * none. */
    int (*load)(void *net, const Comm *comm);
    /* Copies the weights to the memory of a backend that is apart; the host's
     * copy is given back. DG_ENOMEM. NULL: there are none. */
    int (*place)(void *net, const Backend *backend);
    /* Of the weights, once they are there: base/value_digest.h. NULL: there are
     * none. */
    uint64_t (*digest)(const void *net);
    /* Parameters, with padding. NULL: 0. */
    int64_t (*num_values)(const void *net);
    /* Host memory to make a picture of that size ready in, bytes. */
    size_t (*scratch)(const void *net, int64_t height, int64_t width);
    /* Floats that stand for a prompt. NULL: 0, and then encode is NULL too. */
    int64_t (*num_features)(const void *net);
    /* Reads all texts of a list that outlives net, so that no later call has
     * to. A prompt of no list, or of another, is read as it comes. NULL: there
     * is nothing to be read beforehand. */
    int (*read)(void *net, const PromptList *list);
    /* A prompt's features [num_features] out. Resets ctx; in a plan nothing
     * is read or written. */
    int (*encode)(const void *net, Context *ctx, const Prompt *prompt,
                  float *features);
    /* Floats that the network makes of a picture whatever its prompt; whether
     * those are the same for other, which has the same network; and makes them:
     * seen [num_seen] out, errors of score, in a plan nothing is written. NULL:
     * score does all. */
    int64_t (*num_seen)(const void *net);
    int (*alike)(const void *net, const void *other);
    int (*see)(const void *net, const RewardInput *in, float *seen);
    /* in->features is this reward's own, in->seen what see made. As encode;
     * in->rgb NULL: a plan, of those without see.
     * Errors: DG_EREWARD: it will never score again; DG_ENOSCORE: there is none
     * for this picture, and that is no fault; others: it failed. */
    int (*score)(const void *net, const RewardInput *in, RewardScore *out);
    /* Of programs, NULL for others. Starts them. Not collective. DG_EIO. */
    int (*start)(void *net, const RewardSeat *seat);
    /* Waits until they are ready, or stopped() is. Collective; errors agreed. */
    int (*await)(void *net, const RewardSeat *seat);
    /* Hears those that have ended before they were ready, while others are
     * waited for. Not collective. DG_EIO, DG_EINVAL, as await. */
    int (*hear_ended)(void *net);
    /* What they say they are; "" where they do not say. */
    const char *(*version)(const void *net);
    /* Number of faults since the last call, the first one's text out. */
    int (*take_note)(const void *net, char *text, size_t bytes);
} RewardNet;

/** What one kind of reward provides. */
typedef struct RewardKind {
    const char *name;
    unsigned keys;                     /* DG_KEY_...: those it has */
    int has_strict;                    /* it has a strict 0/1 metric besides */
    size_t scratch_bytes, pixel_bytes; /* needed; and for every pixel besides */
    int square;                        /* it scores square pictures only, */
    int least_side, most_side;         /* of so many pixels; 0: of any size */
    int wants_meta; /* a prompt without metadata of the world has no score */
    /* Scores one picture. Errors: as those of RewardNet.score. */
    int (*score)(const RewardInput *in, RewardScore *out);
    const RewardNet *net; /* in place of score; NULL: nothing to open */
} RewardKind;

struct Reward {
    const RewardKind *kind;
    /* as the configuration names it: in metrics, files, messages */
    char name[64];
    double weight;
    double threshold; /* NAN: none; else 1 above it and 0 below */
    double target;    /* brightness: NAN: none */
    Quantize quantize;
    void *net;        /* of the kind's net; NULL: none, or not opened */
    int64_t features; /* where its own begin in a prompt's */
    int64_t
        network;   /* the reward whose network it has, mostly its own number */
    int64_t sight; /* the first that sees the same in a picture, likewise */
    int64_t seen;  /* where that is in what all see of it */
    int gpu;       /* see dg_rewards_seat(); -1: none */
};

/**
 * The rewards of a configuration, in its order; networks are left for
 * dg_rewards_open(). Only the weights of the rewards can be used before.
 * out [c->num_rewards] filled. Errors: DG_EINVAL naming rewards.name and the
 * names there are, or a key that the reward does not have.
 */
int dg_rewards_init(Reward *out, const Config *c);

/** Whether the first num rewards can score pictures of that size:
 *  DG_EINVAL naming the reward. */
int dg_rewards_check_picture(const Reward *r, int64_t num, int64_t height,
                             int64_t width);

/** Tells rewards that are yet to be opened which GPU this rank computes on, by
 *  its number among those that it sees; -1, as it is before: none. A user's
 *  library may want to know. Not collective. */
void dg_rewards_seat(Reward *r, int64_t num, int gpu);

/**
 * Makes the networks of the first num rewards, sizes only: enough to plan. One
 * for all of those whose files are the same, by this rank's view of them.
 * Not collective. Errors: see RewardNet.create. Then dg_rewards_close().
 */
int dg_rewards_outline(Reward *r, const Config *c, int64_t num);

/** The same, and all that can be refused without weights: files and programs are
 *  looked for, lists of tensors compared, tokenizers and libraries opened. Files
 *  are the same where all ranks say so. Collective.
 *  Errors, agreed: DG_EINVAL, DG_EIO, DG_EFORMAT naming key or file; DG_EREWARD:
 *  a user's library refuses. */
int dg_rewards_prepare(Reward *r, const Config *c, int64_t num,
                       const Comm *comm);

/** Reads the weights, once they are prepared. Collective. Errors, agreed: DG_EIO,
 *  DG_EFORMAT, DG_ENUMERIC naming the file; DG_ENOMEM. */
int dg_rewards_load(Reward *r, int64_t num, const Comm *comm);

/** Both. */
int dg_rewards_open(Reward *r, const Config *c, int64_t num, const Comm *comm);

/** Of a loaded reward's weights: base/value_digest.h; 0: it has none. */
uint64_t dg_reward_digest(const Reward *r);

/** Whether each of them can score some of these prompts: DG_EINVAL naming the
 *  reward. */
int dg_rewards_check_prompts(const Reward *r, int64_t num,
                             const PromptList *list);

/** Copies the weights of opened networks to where the backend's kernels read
 *  them; nothing where that is the host's memory. Not collective.
 *  Errors: DG_ENOMEM. */
int dg_rewards_place(Reward *r, int64_t num, const Backend *backend);

/**
 * Reads the prompts of a run, which outlive the rewards, for all networks: one
 * that cannot be read is told now, and the loop takes no memory for it. Not
 * collective. Errors: DG_EINVAL naming the prompt's number, DG_ENOMEM.
 */
int dg_rewards_read(Reward *r, int64_t num, const PromptList *list);

/**
 * Starts the programs among them and waits until they are ready; the first that
 * ends before, of whichever reward, ends the wait. What has
 * started stays; others than programs are passed over. After
 * dg_rewards_open(), before the first score. Collective.
 * stopped  NULL, or asked meanwhile: once it says so, the wait ends with DG_OK,
 *          and nothing may be scored
 * Errors, agreed: DG_EIO, DG_EINVAL naming the key and what the program said.
 */
int dg_rewards_start(Reward *r, const Config *c, int64_t num, const Comm *comm,
                     int (*stopped)(void));

/** What its program says it is, such as a digest of its weights, "" where it
 *  says nothing; NULL where it is none, or is not ready. */
const char *dg_reward_version(const Reward *r);

/** Warns of programs that failed since the last call, on any rank. Collective.
 *  restarts  [num] out: how often, on all ranks; -1: it is no program. Or NULL */
void dg_rewards_tell(const Reward *r, int64_t num, const Comm *comm,
                     int64_t *restarts);

/**
 * How many scores of which rewards are missing, to go behind the reason of the
 * first: " (missing of 12: warm 8, face 2)"; "" where none is.
 * text    [bytes] out: cut where it does not fit
 * scores  [pictures, stride] in, the first num of each picture count
 */
void dg_rewards_count_missing(char *text, size_t bytes, const Reward *r,
                              int64_t num, const RewardScore *scores,
                              int64_t pictures, int64_t stride);

/** Gives the networks back, opened or not, and ends the programs. */
void dg_rewards_close(Reward *r, int64_t num);

/** Room on the host that one thread needs for any of them, bytes, where
 *  pictures are of that size. */
size_t dg_rewards_scratch(const Reward *r, int64_t num, int64_t height,
                          int64_t width);

/** Parameters of all networks, with padding; one that several have counts once. */
int64_t dg_rewards_num_values(const Reward *r, int64_t num);

/** Floats of a prompt's features, of all of them together. */
int64_t dg_rewards_num_features(const Reward *r, int64_t num);

/** A prompt's features, of all of them: [dg_rewards_num_features()] out. ctx
 *  is reset. Errors: a prompt that cannot be read; those of the context. */
int dg_rewards_encode(const Reward *r, int64_t num, Context *ctx,
                      const Prompt *prompt, float *features);

/**
 * What the networks need, by a context of a plan: the highest use of its step
 * arena for a prompt or a picture of that size, and the operations of each.
 */
typedef struct RewardPlan {
    size_t bytes;
    uint64_t encode_flops, score_flops; /* of one prompt, one picture */
} RewardPlan;

/** Counts; ctx is reset. Errors: those of the context. */
int dg_rewards_plan(RewardPlan *out, const Reward *r, int64_t num, Context *ctx,
                    int64_t height, int64_t width);

/**
 * The libraries of a user's rewards (rewards[].plugin), a line for each, without
 * an end of line behind the last: NAME: FILE, SHA-256 HEX. What stands in a run's
 * files, so that another library is told. One that cannot be read has no
 * digest: dg_rewards_open() says why.
 * *text  out: the same on all ranks, rank 0's; to be freed. "": there are none.
 * Collective. Errors, agreed: DG_ENOMEM.
 */
int dg_rewards_plugins(char **text, const Config *c, const Comm *comm);

/**
 * Scores one picture. A reward that fails, or gives NaN or Inf, or says that it
 * has no score, is reported missing so, with the reason in dg_last_error(). A
 * threshold is applied here.
 * Errors: DG_EREWARD: a user's reward will never score again, and the run has to
 * end; the score is then missing too.
 */
int dg_reward_score(const Reward *r, const RewardInput *in, RewardScore *out);

/**
 * The same of the first num rewards, whose networks look once where they see the
 * same: what one alone would score, bit for bit.
 * out      [num] out; after an error those from the one that failed on stay
 * missing  is called for each reward that is missing, by its number, while
 *          dg_last_error() has the reason; NULL: nobody asks
 */
int dg_rewards_score(const Reward *r, int64_t num, const RewardInput *in,
                     RewardScore *out, void (*missing)(void *user, int64_t k),
                     void *user);

#endif
