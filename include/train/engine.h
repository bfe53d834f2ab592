#ifndef DG_TRAIN_ENGINE_H
#define DG_TRAIN_ENGINE_H
/*
 * What training computes outside of the networks, where the networks run: a
 * second table beside tensor/backend.h's, of the floors above. Arrays are
 * kernel memory (Backend.apart), one sample of D elements a call. The twins
 * of a GPU give the host's bits from the same numbers.
 */
#include "base/philox.h"
#include "diffusion/denoise.h"
#include "diffusion/sde.h"
#include "grpo/objective.h"
#include "optim/adamw.h"
#include "optim/adamw8.h"
#include "parallel/exact_sum.h"
#include "tensor/backend.h"

enum { DG_ENGINE_SLOTS = 8 };

typedef struct Engine {
    /* dg_rng_normal(), elements 0..num-1 */
    void (*normal)(float *out, int64_t num, const RngKey *key);
    /* dg_sde_next() with key's noise where the step is stochastic;
     * scratch [D] f32 may be used for it */
    void (*next)(float *z_next, const SdeStep *s, const float *z,
                 const float *u, const RngKey *key, float *scratch, int64_t D);
    /* dg_sde_x0() */
    void (*x0)(float *x0, const SdeStep *s, const float *z, const float *u,
               int64_t D);
    /* dg_sde_log_prob(), dg_sde_kl() into one number of kernel memory */
    void (*log_prob)(float *log_prob, const SdeStep *s, const float *z,
                     const float *u, const float *z_next, int64_t D);
    void (*kl)(double *kl, const SdeStep *s, const float *u, const float *u_ref,
               int64_t D);
    /* dg_objective_seed() */
    void (*seed)(float *grad_u, const ObjectiveTerm *term, const SdeStep *s,
                 const ObjectiveTensors *x, int64_t D);
    /* pretraining: diffusion/denoise.h; error is one number of kernel memory */
    void (*spoil)(float *z, float *target, const DenoiseLevel *l, int64_t D);
    void (*error)(double *error, float *grad, const float *u,
                  const float *target, float scale, int64_t D);
    /* parallel/exact_sum.h; the sum's buffer is kernel memory */
    int (*exact_init)(ExactSum *s, void *buffer, int64_t num, int exact,
                      int scale_bits, int64_t max_items);
    void (*exact_clear)(ExactSum *s);
    int (*exact_add)(ExactSum *s, const float *g, int64_t *bad);
    int (*exact_check)(const ExactSum *s, const float *g, int64_t *bad);
    int (*exact_merge)(ExactSum *into, const ExactSum *from);
    /* *least = value if that is less, as unsigned, and x has a NaN or Inf;
     * nobody waits. least: kernel memory */
    void (*flag)(int64_t *least, int64_t value, const float *x, int64_t num);
    /* the same sum on all ranks, where the devices have a way of their own
     * (*done = 1); NULL: they have none */
    int (*exact_allreduce)(const Comm *c, ExactSum *s, int *done);
    /* dg_exact_sum_to(), and dg_comm_bcast(), in the same way */
    int (*exact_sum_to)(const Comm *c, ExactSum *s, int root, int *done);
    int (*bcast)(const Comm *c, void *at, size_t bytes, int root, int *done);
    /*
     * Sums between ranks beside the kernels; NULL: there are none. All ranks
     * send the same parts in the same order. What is sent is what all kernels
     * queued so far have made; its memory is not to be touched before sent().
     * sends()  1 where the ranks' devices have a way of their own
     * slot()   kernels queued from now on come after what was sent from it
     * sent()   agrees on err; with none, and wait = 1, waits until all has
     *          arrived. With one, what is under way is given up. Collective.
     * descends()  reserves what ExactSend.take needs. Errors: DG_ENOMEM,
     *             DG_EDEVICE
     */
    int (*sends)(const Comm *c);
    int (*descends)(void);
    int (*send)(const Comm *c, const ExactSend *what);
    void (*slot)(int slot);
    int (*sent)(const Comm *c, int err, int wait);
    /*
     * Values of their owners likewise: into memory that is free once all that
     * was queued is done; slot() waits for them.
     * beside()  what is queued between the first and the second turn() comes
     *           after what was queued so far and what was sent
     * leaves()  slot() waits for what was sent, and queued beside, so far
     * pace()    waits until what was queued before its last call is done.
     *           Errors: DG_EDEVICE
     * nudge()   for ranks that wait for others: what is under way gets on
     * A rank that fails while others may wait for its part tells them by
     * dg_comm_alarm(), and all meet in sent(), which ends that.
     */
    int (*fetch)(const Comm *c, const CommFetch *what);
    void (*beside)(void);
    void (*turn)(void);
    void (*leaves)(int slot);
    int (*pace)(void);
    void (*nudge)(void);
    /* exact_add() of elements first .. of a gradient, g the first of them: what
     * is not allowed is left out, and *bad, kernel memory, becomes its index
     * if that is less, as unsigned. Items are not counted, nobody waits. */
    void (*exact_add_part)(ExactSum *part, const float *g, int64_t first,
                           int64_t *bad);
    void (*exact_read)(const ExactSum *s, float *out, double divisor);
    /* optim/grad_norm.h, adamw.h, ema.h; *norm is the host's, scratch
     * [dg_grad_norm_num_chunks(num)] f64 kernel memory */
    int (*grad_norm)(double *norm, const float *grad, int64_t num,
                     double *scratch);
    /* dg_grad_norm_chunks(): kernel memory */
    void (*norm_chunks)(double *partial, const float *grad, int64_t num);
    void (*adamw)(float *w, float *m, float *v, const float *grad, int64_t num,
                  const AdamwStep *s);
    /* dg_adamw8_update(), moments in 8 bits */
    void (*adamw8)(float *w, const Moments8 *x, const float *grad,
                   int64_t first, int64_t num, const AdamwStep *s);
    void (*ema)(float *ema, const float *w, int64_t num, double decay);
    /* exchanges a and b */
    void (*swap)(float *a, float *b, int64_t num);
} Engine;

/** The table of the backend's device; NULL: the host's. */
const Engine *dg_engine_of(const Backend *backend);

#endif
