#ifndef DG_TENSOR_TAPE_H
#define DG_TENSOR_TAPE_H
/*
 * Reverse-mode differentiation. Ops run eagerly; while recording, each pushes
 * a node. dg_tape_backward() walks back.
 *
 * Blocks bound memory. A block is a function from tensors to tensors; in
 * inference its inner activations are given back when it returns; at backward
 * its inner gradients are given back; with ctx->recompute its activations are
 * dropped after the forward pass and computed again, to the same bits, at
 * backward.
 */
#include "tensor/context.h"

enum { DG_BLOCK_MAX = 8 };

/* A block's function: reads in[0..num_in-1], sets out[0..num_out-1]. args is
 * a copy of what the caller gave. Every tensor that takes a gradient and is
 * used inside must be among the inputs. */
typedef void (*TapeBlockFn)(Context *ctx, const void *args, Tensor *const *in,
                            Tensor **out);

typedef struct TapeShape {
    int num_dims;
    int64_t dims[DG_MAX_DIMS];
} TapeShape;

typedef struct TapeBlock {
    TapeBlockFn fn;
    const void *args;
    size_t args_bytes;
    int num_in, num_out;
    Tensor *in[DG_BLOCK_MAX];
    TapeShape shape[DG_BLOCK_MAX]; /* of out[i]; num_dims 0: that of in[i] */
    const Tensor *weights; /* one of the group of parameters that it alone
                              reads; NULL: it has none */
} TapeBlock;

/**
 * Runs a block. out[i] has the shape of in[i] (residual streams) if no other
 * is given, and is stored as in[0] is: both must be known before the
 * function runs.
 * On error out[] is set to NULL and the context's error is set.
 */
void dg_tape_block(Context *ctx, const TapeBlock *b, Tensor **out);

/** Starts recording on an empty tape. */
void dg_tape_begin(Context *ctx);

/** Marks a tensor as a leaf whose gradient is wanted. */
void dg_tape_watch(Tensor *t);

/**
 * Walks the tape back from y with d loss / d y = grad_y, then the tape is
 * empty and recording stops. Parameter gradients are added into the bound
 * buffers; leaves' gradients are in leaf->grad (NULL if y does not depend on
 * the leaf).
 * grad_y  same shape as y; its memory is used as working space
 * Returns the context's error.
 */
int dg_tape_backward(Context *ctx, Tensor *y, Tensor *grad_y);

/* A recorded pass that waits for its way back. */
typedef struct TapePass {
    TapeNode *tape;
    Tensor *y, *grad_y;
} TapePass;

/** Takes what is recorded off the context, which stops recording; another pass
 *  may follow before dg_tape_backward_all(). */
TapePass dg_tape_hold(Context *ctx, Tensor *y, Tensor *grad_y);

/**
 * As dg_tape_backward() of each pass in its turn, bit for bit, but node by
 * node: all passes have gone back through a block before any goes through the
 * one before it, so that the gradients of a block are complete then. They must
 * have been recorded by the same code, of whatever batches.
 */
int dg_tape_backward_all(Context *ctx, TapePass *passes, int num);

/* --- for ops only ------------------------------------------------------ */
typedef void (*TapeBackFn)(Context *ctx, TapeNode *node);

enum { DG_NODE_TENSORS = 10, DG_NODE_NUMBERS = 8 };

struct TapeNode {
    TapeNode *prev;
    TapeBackFn back;
    Tensor *out;
    Tensor *t[DG_NODE_TENSORS]; /* inputs and saved values, op's own order */
    const Tensor *w[3];         /* parameters */
    int64_t n[DG_NODE_NUMBERS]; /* sizes and flags, op's own order */
    float f[2];
    const void *extra; /* op-specific, in the meta arena or longer-lived */
};

/** Pushes a node for out, or returns NULL when nothing is to be recorded. */
TapeNode *dg_tape_push(Context *ctx, TapeBackFn back, Tensor *out);
/** The gradient tensor of t to write to; *accumulate says whether it holds a
 *  value already. NULL when t takes no gradient or on error. */
Tensor *dg_tape_grad(Context *ctx, Tensor *t, int *accumulate);
/** As above, zero-filled at first use, so that the caller accumulates. */
Tensor *dg_tape_grad_zeroed(Context *ctx, Tensor *t);
/** Hands a finished gradient over to t: by reference if it is the first,
 *  else added. g is not used by anyone afterwards. */
void dg_tape_give(Context *ctx, Tensor *t, Tensor *g);
/** Gradient memory of a parameter; NULL when frozen or in a plan. On the way
 *  back only, by the op that adds to it at once: ctx->follower is told. */
float *dg_tape_param_grad(const Context *ctx, const Tensor *w);
/** 1 if gradients of this parameter are wanted. */
int dg_tape_trains(const Context *ctx, const Tensor *w);

#endif
