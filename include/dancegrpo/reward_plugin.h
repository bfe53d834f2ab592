#ifndef DANCEGRPO_REWARD_PLUGIN_H
#define DANCEGRPO_REWARD_PLUGIN_H
/*
 * A reward of your own: a shared library that dancegrpo opens and has score
 * pictures. This header is all that it needs; it may be written in C, or in
 * anything that offers functions as C has them.
 *
 *   rewards = ({ name = "mine"; plugin = "libmine.so"; options = "...";
 *                weight = 1.0; });
 *
 * The library has one function of a given name, dg_reward_plugin(), which
 * returns a table of what it can do. A small one is examples/named_colours.c.
 *
 *   cc -O2 -fPIC -shared -I PREFIX/include -o libmine.so mine.c -lm
 *
 * What the program relies on:
 *
 * - A score is a function of picture, prompt, metadata and options alone: the
 *   same bits on every rank, by any thread, in any order, the first time and
 *   the hundredth. Runs that are stopped and continued, or go on with another
 *   number of ranks, end with the same weights only then. What an instance
 *   keeps between calls may save time, and change no score.
 * - What cannot be scored is missing, with a reason. No number stands for it.
 * - Functions return: no exit(), no exception or longjmp() out of them. A crash
 *   takes the whole run down.
 * - The process is not the library's: it leaves signal handlers, locale, working
 *   directory, standard output and MPI alone, and of a GPU the calling thread's
 *   current device. Rounding and subnormal numbers are the program's again
 *   after each call.
 * - What it takes of memory is its own: `dancegrpo plan` counts the scratch
 *   alone.
 *
 * Every rank opens the library, whose file must be the same on all of them.
 * It stays mapped to the end of the process.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Of this header. A library that was built with another version than the
 *  program is refused, and told so. */
#define DG_REWARD_PLUGIN_ABI 1

/** Bytes of a reason, with the zero at its end. */
#define DG_REWARD_REASON 512

/** Flags of a library. Without DG_REWARD_THREAD_SAFE one call of it ends before
 *  the next begins, those of other such libraries too. With it, the threads of a
 *  rank (run.threads) call score() and scratch_bytes() at the same time. */
enum { DG_REWARD_THREAD_SAFE = 1 };

/** What score() returns. Anything else ends the run as DG_REWARD_FATAL does. */
enum {
    DG_REWARD_SCORED = 0,
    /* this picture has no score: its sample leaves the group's statistics, and
     * the run goes on */
    DG_REWARD_MISSING = 1,
    /* none will ever come: the run ends with the reason; its newest checkpoint
     * is what a later start goes on from */
    DG_REWARD_FATAL = 2
};

/** Who opens it, and for what. Texts are UTF-8, and are there until close(). */
typedef struct DgRewardSeat {
    const char *name;    /* rewards[].name */
    const char *options; /* rewards[].options, "" if there are none */
    int32_t rank, num_ranks;
    int32_t node_rank, node_ranks; /* the rank among those of its node */
    int32_t device; /* the GPU that this rank's networks run on, by its number
                       among those that this process sees; -1: the CPU */
} DgRewardSeat;

/** One picture: scores cannot depend on others. All of it is there during the
 *  call only. */
typedef struct DgRewardPicture {
    const float *rgb; /* [height, width, 3], row by row from the top; red,
                         green, blue in [0, 1], sRGB as files have it. On the
                         host, with run.device = "cuda" too */
    int64_t height, width;
    const char *prompt;   /* UTF-8, not empty */
    const char *metadata; /* the prompt's line of a .jsonl file, an object as
                             JSON has it; NULL: of a .txt file */
    void *scratch; /* scratch_bytes() of it, this call's own, aligned to 64; its
                      content is undefined. NULL: none was wanted */
} DgRewardPicture;

/** What score() makes of it. */
typedef struct DgRewardScore {
    float score;  /* any scale: scores are compared within a prompt's group. NaN
                     and infinity are missing. NaN before the call */
    float strict; /* 0 or 1: passed or not, which is reported beside the score
                     and never trained on; NaN, as it is before the call: it has
                     none. Anything else makes the score missing */
    char reason[DG_REWARD_REASON]; /* of what has no score, UTF-8, one line; ""
                                      before the call */
} DgRewardScore;

/** What a library can do. It outlives all calls; a function that may be NULL is
 *  not wanted then. */
typedef struct DgRewardPlugin {
    int32_t abi;             /* DG_REWARD_PLUGIN_ABI; first in every version */
    uint32_t flags;          /* DG_REWARD_THREAD_SAFE, or 0 */
    const char *description; /* for the log, a few words: what it is, and its
                                version; NULL: none */

    /**
     * Bytes of scratch that score() wants for a picture of that size. Asked
     * often, before open() too, and by `dancegrpo plan`, which never opens: so
     * it reads options alone, which may be wrong still. May be NULL: none.
     */
    size_t (*scratch_bytes)(const char *options, int64_t height, int64_t width);

    /**
     * An instance: reads options, models and the like. By each rank once for
     * each reward of the library, by its main thread; `train --dry-run` and
     * `doctor` open it too. May be NULL: self is NULL.
     * self    out: given to score() and close()
     * reason  [DG_REWARD_REASON] out: why not; "" before the call
     * Returns 0, or anything else to refuse: the program ends with the reason,
     * and close() is not called.
     */
    int (*open)(void **self, const DgRewardSeat *seat, char *reason);

    /**
     * Scores one picture, by any of the rank's threads. Not while an instance is
     * opened or closed. Ranks wait for the slowest of them, but no longer than
     * parallel.host_timeout_seconds where that is set.
     * Returns DG_REWARD_SCORED, DG_REWARD_MISSING or DG_REWARD_FATAL.
     */
    int (*score)(void *self, const DgRewardPicture *picture,
                 DgRewardScore *out);

    /** Gives the instance back, at the end of a command that ends by itself. May
     *  be NULL. */
    void (*close)(void *self);
} DgRewardPlugin;

/** The library's table. To be defined by it, as
 *      DG_REWARD_EXPORT const DgRewardPlugin *dg_reward_plugin(void)
 *  Called before anything else of the library. */
#if defined(__GNUC__)
#define DG_REWARD_EXPORT __attribute__((visibility("default")))
#else
#define DG_REWARD_EXPORT
#endif
DG_REWARD_EXPORT const DgRewardPlugin *dg_reward_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
