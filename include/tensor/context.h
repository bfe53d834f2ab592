#ifndef DG_TENSOR_CONTEXT_H
#define DG_TENSOR_CONTEXT_H
/*
 * One stream of work: backend, step arena, tape, counters. A thread has one.
 * Errors are sticky: once an op fails, the following ops return NULL at once
 * and the caller looks at dg_context_error() at the end.
 */
#include "base/arena.h"
#include "tensor/backend.h"
#include "tensor/lender.h"
#include "tensor/tensor.h"

#include <stdint.h>

enum { DG_MAX_PARAM_SETS = 8, DG_MAX_SCOPES = 8 };

typedef struct TapeNode TapeNode;

/* Who follows walks back. */
typedef struct TapeFollower {
    /* an op is about to add to so many parameters' gradients */
    void (*writes)(void *user, const float *grad, int64_t count);
    void (*stepped)(void *user); /* what was written so far is queued */
    void *user;
} TapeFollower;

typedef struct Context {
    const Backend *backend;
    Arena arena;          /* activations of a step */
    Arena meta;           /* Tensor and TapeNode structs, host memory */
    int recording;        /* ops push nodes */
    int recompute;        /* dg_tape_block: 1 run again at backward */
    int depth;            /* current tape block depth */
    TapeNode *tape;       /* last node of the open block */
    int pass, num_passes; /* on the way back: which of how many together */
    /* gradient buffer of parameter set i, NULL: frozen (or a plan) */
    float *param_grads[DG_MAX_PARAM_SETS + 1];
    int trains[DG_MAX_PARAM_SETS + 1];
    Lender *lender; /* of weights that are not all here; NULL: they are */
    const TapeFollower *follower; /* borrowed; NULL: nobody */
    int check_finite; /* each op checks its output and names itself */
    const char *scope[DG_MAX_SCOPES]; /* open layers, outermost first */
    int scope_index[DG_MAX_SCOPES];   /* their numbers; -1: none */
    int num_scopes;
    int err;
    uint64_t flops; /* of forward and backward, counted by the ops */
} Context;

/**
 * backend  borrowed
 * arena_bytes  reserved at once; with a plan backend the arena only counts
 * Errors: DG_ENOMEM.
 */
int dg_context_init(Context *ctx, const Backend *backend, size_t arena_bytes);
void dg_context_fini(Context *ctx);

/**
 * Keeps tape, tensors and counters as they are now, in room of at least
 * dg_context_saved_bytes(), and puts them back: then a way back can be walked
 * again. What tensors hold stays what it is.
 */
size_t dg_context_saved_bytes(void);
void dg_context_save(const Context *ctx, void *room);
void dg_context_restore(Context *ctx, const void *room);

/** step(user) by Backend.replay, where there is one and nobody lends weights
 *  on the way; else called. */
void dg_context_replay(Context *ctx, void (*step)(void *), void *user,
                       const Moving *moving, int kinds);

/** Forgets tape and activations, clears the sticky error. */
void dg_context_reset(Context *ctx);

/** Binds a gradient buffer to a parameter set; trains = 0: frozen. In a plan
 *  pass trains = 1 with a NULL buffer. */
void dg_context_train(Context *ctx, int param_set, float *grads, int trains);

/** The sticky error: DG_OK or its code; text in dg_last_error(). */
int dg_context_error(const Context *ctx);

/** A new tensor in the step arena, contents undefined; NULL on error. */
Tensor *dg_tensor_new(Context *ctx, DType dtype, int num_dims,
                      const int64_t *dims);
/** The same shape and dtype as another one. */
Tensor *dg_tensor_like(Context *ctx, const Tensor *t);
/** A tensor over memory that already exists (not copied). */
Tensor *dg_tensor_wrap(Context *ctx, void *data, DType dtype, int num_dims,
                       const int64_t *dims);

/** Names layers for error messages: push "transformer_blocks", 3. */
void dg_scope_push(Context *ctx, const char *name, int index);
void dg_scope_pop(Context *ctx);
/** Writes "transformer_blocks.3.attn" into out. */
void dg_scope_text(const Context *ctx, char *out, size_t size);

#endif
