#ifndef DG_BASE_PHILOX_H
#define DG_BASE_PHILOX_H
/*
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11).
 *
 * A number is a pure function of (seed, purpose, counter): no state, no order,
 * so the noise of a sample does not depend on rank count, threads or resume.
 * The key is (seed low ^ purpose, seed high); the 128-bit counter is made of
 * iteration, prompt, sample|step and element block as RngKey says.
 * The normals are Box-Muller on own log and sincos polynomials in plain
 * float operations (no contraction), so host and device give the same bits.
 */
#include <stdint.h>

/* Every use of random numbers has its own purpose: add here, never reuse. */
typedef enum RngPurpose {
    DG_RNG_INIT_LATENTS = 1, /* first noise of a rollout */
    DG_RNG_SDE_NOISE = 2,    /* noise of one SDE step */
    DG_RNG_TIMESTEPS = 3,    /* choice of the trained timesteps */
    DG_RNG_PROMPT_ORDER = 4, /* permutation of the prompts */
    DG_RNG_WEIGHT_INIT = 5,  /* initial weights; counter: parameter */
    DG_RNG_WORLD = 6,        /* procedural pictures */
    DG_RNG_PRETRAIN_TIME = 7,
    DG_RNG_PRETRAIN_NOISE = 8,
    DG_RNG_EVAL_LATENTS = 9, /* fixed noises of evaluate and sample */
    DG_RNG_BOOTSTRAP = 10,   /* resampling of scores */
    DG_RNG_BEST_OF_N = 11,   /* order of the kept samples */
    DG_RNG_TEST = 12,        /* test data */
    DG_RNG_PROMPT_DROP = 13, /* prompt dropout of pretraining */
    DG_RNG_LORA_INIT = 14,   /* adapters' first values; counter: parameter */
    DG_RNG_LORA_PROBE = 15,  /* do adapters act? a trial at the start */
    DG_RNG_PROMPT_SWAP = 16, /* pictures under another one's prompt */
    DG_RNG_SPOIL = 17,       /* washed-out and blurred pictures */
    DG_RNG_WINDOW = 18,      /* where the SDE steps of an iteration are */
    DG_RNG_MAX
} RngPurpose;

typedef struct RngKey {
    uint64_t seed;
    RngPurpose purpose;
    uint32_t iteration; /* counter word 3 */
    uint32_t prompt;    /* counter word 2 */
    uint32_t sample;    /* counter word 1, high 20 bits: < 2^20 */
    uint32_t step;      /* counter word 1, low 12 bits: < 2^12 */
} RngKey;

/** Raw Philox4x32-10: out = f(counter, key). */
void dg_philox4x32(uint32_t out[4], const uint32_t counter[4],
                   const uint32_t key[2]);

/** What a key's stream is made of: its counter, word 0 (the block) being 0,
 *  and Philox' own key. Panics when a coordinate does not fit. */
void dg_rng_counter(uint32_t ctr[4], uint32_t key[2], const RngKey *k);

/** The block-th four words of a key's stream (counter word 0 = block). */
void dg_rng_block(uint32_t out[4], const RngKey *k, uint32_t block);

/** num standard normals, elements first..first+num-1 of the stream.
 *  Element e lies in block e/4; first may be any value. */
void dg_rng_normal(float *out, int64_t first, int64_t num, const RngKey *k);

/** num uniforms in (0,1) (24 bits, never 0 or 1), same element rule. */
void dg_rng_uniform(float *out, int64_t first, int64_t num, const RngKey *k);

/** One unsigned integer in [0, n), n >= 1, without bias worth a test:
 *  64-bit multiply-shift of element e's two words. */
uint32_t dg_rng_below(uint32_t n, int64_t element, const RngKey *k);

/** Permutation of 0..n-1 (Fisher-Yates on dg_rng_below). */
void dg_rng_permutation(int32_t *out, int32_t n, const RngKey *k);

#endif
