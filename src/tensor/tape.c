#include "tensor/tape.h"

#include "base/error.h"
#include "op.h"

#include <string.h>

/* What a block node keeps: the call, and either the recorded inner tape
 * (tape != NULL or nothing inside takes a gradient) or, with recompute, just
 * the call. */
typedef struct BlockRecord {
    TapeBlock call;
    int recompute;
    TapeNode *tape;
    Tensor *inner[DG_BLOCK_MAX];
    Tensor *out[DG_BLOCK_MAX];
} BlockRecord;

static void *take_meta(Context *ctx, size_t bytes)
{
    void *p = dg_arena_take(&ctx->meta, bytes);

    if (p == NULL)
        ctx->err = DG_ENOMEM;
    else
        memset(p, 0, bytes);
    return p;
}

TapeNode *dg_tape_push(Context *ctx, TapeBackFn back, Tensor *out)
{
    TapeNode *node;

    if (!ctx->recording || ctx->err)
        return NULL;
    node = take_meta(ctx, sizeof *node);
    if (node == NULL)
        return NULL;
    node->back = back;
    node->out = out;
    node->prev = ctx->tape;
    ctx->tape = node;
    if (out != NULL)
        out->needs_grad = 1;
    return node;
}

void dg_tape_begin(Context *ctx)
{
    ctx->tape = NULL;
    ctx->recording = 1;
}

void dg_tape_watch(Tensor *t)
{
    if (t != NULL)
        t->needs_grad = 1;
}

Tensor *dg_tape_grad(Context *ctx, Tensor *t, int *accumulate)
{
    if (t == NULL || !t->needs_grad || ctx->err)
        return NULL;
    if (t->grad == NULL) {
        if (t->depth < ctx->depth)
            dg_panic("a tensor used inside a tape block takes a gradient "
                     "but is not among the block's inputs");
        t->grad = dg_tensor_like(ctx, t);
        t->grad_set = 0;
    }
    *accumulate = t->grad_set;
    t->grad_set = 1;
    return t->grad;
}

Tensor *dg_tape_grad_zeroed(Context *ctx, Tensor *t)
{
    int accumulate;
    Tensor *g = dg_tape_grad(ctx, t, &accumulate);

    if (g != NULL && !accumulate)
        dg_kernels(ctx, g)->fill(g->data, 0, dg_tensor_count(g));
    return g;
}

void dg_tape_give(Context *ctx, Tensor *t, Tensor *g)
{
    int accumulate;
    Tensor *to;

    if (t == NULL || !t->needs_grad || ctx->err)
        return;
    if (t->grad == NULL && t->depth == ctx->depth) {
        t->grad = g;
        t->grad_set = 1;
        return;
    }
    to = dg_tape_grad(ctx, t, &accumulate);
    if (to == NULL || to == g)
        return;
    if (accumulate)
        dg_kernels(ctx, g)->add(to->data, to->data, g->data,
                                dg_tensor_count(g));
    else
        dg_kernels(ctx, g)->scale(to->data, g->data, 1.0f, dg_tensor_count(g));
}

int dg_tape_trains(const Context *ctx, const Tensor *w)
{
    return w != NULL && w->param_set > 0 && ctx->trains[w->param_set];
}

float *dg_tape_param_grad(const Context *ctx, const Tensor *w)
{
    if (!dg_tape_trains(ctx, w) || ctx->param_grads[w->param_set] == NULL)
        return NULL;
    if (ctx->lender != NULL)
        return ctx->lender->grad(ctx->lender, w);

    float *grad = ctx->param_grads[w->param_set] + w->param_offset;
    if (ctx->follower != NULL)
        ctx->follower->writes(ctx->follower->user, grad, dg_tensor_count(w));
    return grad;
}

static void go_back(Context *ctx, TapeNode *node)
{
    if (node->out != NULL && !node->out->grad_set)
        return;
    node->back(ctx, node);
    if (ctx->follower != NULL && !ctx->err)
        ctx->follower->stepped(ctx->follower->user);
}

static void walk(Context *ctx, TapeNode *node)
{
    for (; node != NULL && !ctx->err; node = node->prev)
        go_back(ctx, node);
}

static TapeShape out_shape(const TapeBlock *b, int i)
{
    TapeShape s = b->shape[i];

    if (s.num_dims == 0) {
        s.num_dims = b->in[i]->num_dims;
        memcpy(s.dims, b->in[i]->dims, sizeof s.dims);
    }
    return s;
}

static void check_block_shape(const TapeBlock *b, Tensor *const *inner)
{
    for (int i = 0; i < b->num_out; i++) {
        const TapeShape s = out_shape(b, i);

        if (s.num_dims != inner[i]->num_dims ||
            memcmp(s.dims, inner[i]->dims,
                   sizeof(int64_t) * (size_t)s.num_dims) != 0)
            dg_panic("tape block: output %d has not the shape it should", i);
        dg_op_alike(b->in[0], inner[i], "tape block");
    }
}

/* The block's weights are there when its function runs, and on its way back
 * room for their gradients. */
static void borrow(Context *ctx, const TapeBlock *b, int grads)
{
    const int first = grads && ctx->pass == 0;

    if (ctx->lender != NULL && b->weights != NULL && !ctx->err)
        ctx->err = ctx->lender->lend(ctx->lender, b->weights,
                                     first && dg_tape_trains(ctx, b->weights));
}

/* Of all passes. */
static void give_grads(Context *ctx, const TapeBlock *b)
{
    if (ctx->pass + 1 >= ctx->num_passes && ctx->lender != NULL &&
        dg_tape_trains(ctx, b->weights) && !ctx->err)
        ctx->err = ctx->lender->give(ctx->lender, b->weights);
}

/* Inner activations are given back; only copies of the outputs stay. */
static void run_released(Context *ctx, const TapeBlock *b, Tensor **out)
{
    const int recording = ctx->recording;
    Tensor *inner[DG_BLOCK_MAX] = { 0 };
    size_t mark, meta;

    for (int i = 0; i < b->num_out; i++) {
        const TapeShape s = out_shape(b, i);

        out[i] = dg_tensor_new(ctx, b->in[0]->dtype, s.num_dims, s.dims);
    }
    if (ctx->err)
        return;
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    borrow(ctx, b, 0);
    ctx->recording = 0;
    ctx->depth++;
    if (!ctx->err)
        b->fn(ctx, b->args, b->in, inner);
    ctx->depth--;
    ctx->recording = recording;
    if (!ctx->err) {
        check_block_shape(b, inner);
        for (int i = 0; i < b->num_out; i++)
            dg_kernels(ctx, out[i])
                ->scale(out[i]->data, inner[i]->data, 1.0f,
                        dg_tensor_count(out[i]));
    }
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
}

/* Runs the block's function onto a tape of its own; returns that tape. */
static TapeNode *run_recorded(Context *ctx, const TapeBlock *b, Tensor **inner)
{
    TapeNode *outer = ctx->tape, *tape;
    const int recording = ctx->recording;

    borrow(ctx, b, 0);
    ctx->tape = NULL;
    ctx->recording = 1;
    ctx->depth++;
    if (!ctx->err)
        b->fn(ctx, b->args, b->in, inner);
    ctx->depth--;
    ctx->recording = recording;
    tape = ctx->tape;
    ctx->tape = outer;
    if (!ctx->err)
        check_block_shape(b, inner);
    return tape;
}

/* Output i, computed before and to be computed again, has the size of input i,
 * and nobody needs it any more: its memory is for the input's gradient. */
static int takes_place(const BlockRecord *r, int i, const Tensor *t)
{
    const Tensor *out = i < r->call.num_out ? r->out[i] : NULL;

    return r->recompute && out != NULL && out->dtype == t->dtype &&
           dg_tensor_count(out) == dg_tensor_count(t);
}

/* Room for the inputs' gradients must be taken before the block's own. */
static void reserve_input_grads(Context *ctx, const BlockRecord *r)
{
    for (int i = 0; i < r->call.num_in; i++) {
        Tensor *t = r->call.in[i];

        if (t == NULL || !t->needs_grad || t->grad != NULL)
            continue;
        t->grad = takes_place(r, i, t)
                      ? dg_tensor_wrap(ctx, r->out[i]->data, t->dtype,
                                       t->num_dims, t->dims)
                      : dg_tensor_like(ctx, t);
        t->grad_set = 0;
    }
}

static void block_back(Context *ctx, TapeNode *node)
{
    BlockRecord *r = (BlockRecord *)node->extra;
    Tensor *inner[DG_BLOCK_MAX];
    TapeNode *tape = r->tape;
    int wanted = 0;
    size_t mark, meta;

    for (int i = 0; i < r->call.num_out; i++)
        wanted |= r->out[i]->grad_set;
    if (!wanted)
        return;
    reserve_input_grads(ctx, r);
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    memcpy(inner, r->inner, sizeof inner);
    borrow(ctx, &r->call, 1);
    if (r->recompute)
        tape = run_recorded(ctx, &r->call, inner);
    for (int i = 0; i < r->call.num_out && !ctx->err; i++) {
        if (!r->out[i]->grad_set)
            continue;
        inner[i]->grad = r->out[i]->grad;
        inner[i]->grad_set = 1;
    }
    ctx->depth++;
    walk(ctx, tape);
    ctx->depth--;
    give_grads(ctx, &r->call);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
}

static BlockRecord *new_record(Context *ctx, const TapeBlock *b)
{
    BlockRecord *r = take_meta(ctx, sizeof *r);
    void *args;

    if (r == NULL)
        return NULL;
    r->call = *b;
    args = take_meta(ctx, b->args_bytes);
    if (args == NULL)
        return NULL;
    if (b->args_bytes > 0)
        memcpy(args, b->args, b->args_bytes);
    r->call.args = args;
    return r;
}

void dg_tape_block(Context *ctx, const TapeBlock *b, Tensor **out)
{
    BlockRecord *r;
    TapeNode *node;

    for (int i = 0; i < b->num_out; i++)
        out[i] = NULL;
    if (ctx->err)
        return;
    if (!ctx->recording) {
        run_released(ctx, b, out);
        return;
    }
    r = new_record(ctx, b);
    if (r == NULL)
        return;
    r->recompute = ctx->recompute;
    if (r->recompute) {
        run_released(ctx, &r->call, r->out);
    } else {
        r->tape = run_recorded(ctx, &r->call, r->inner);
        for (int i = 0; i < b->num_out && !ctx->err; i++)
            r->out[i] =
                dg_tensor_wrap(ctx, r->inner[i]->data, r->inner[i]->dtype,
                               r->inner[i]->num_dims, r->inner[i]->dims);
    }
    node = dg_tape_push(ctx, block_back, NULL);
    if (node == NULL)
        return;
    node->extra = r;
    for (int i = 0; i < b->num_out; i++) {
        r->out[i]->needs_grad = 1;
        out[i] = r->out[i];
    }
}

TapePass dg_tape_hold(Context *ctx, Tensor *y, Tensor *grad_y)
{
    const TapePass pass = { ctx->tape, y, grad_y };

    ctx->recording = 0;
    ctx->tape = NULL;
    return pass;
}

/* One node of each pass. */
static void step_back(Context *ctx, TapePass *passes, int num)
{
    for (ctx->pass = 0; ctx->pass < num && !ctx->err; ctx->pass++) {
        TapeNode *node = passes[ctx->pass].tape;

        if (node == NULL)
            dg_panic("passes of unequal length go back together");
        go_back(ctx, node);
        passes[ctx->pass].tape = node->prev;
    }
}

int dg_tape_backward_all(Context *ctx, TapePass *passes, int num)
{
    for (int i = 0; i < num && !ctx->err; i++) {
        passes[i].y->grad = passes[i].grad_y;
        passes[i].y->grad_set = 1;
    }
    ctx->num_passes = num;
    while (num > 0 && passes[0].tape != NULL && !ctx->err)
        step_back(ctx, passes, num);
    ctx->pass = 0;
    ctx->num_passes = 0;
    return ctx->err;
}

int dg_tape_backward(Context *ctx, Tensor *y, Tensor *grad_y)
{
    TapePass pass = dg_tape_hold(ctx, y, grad_y);

    return dg_tape_backward_all(ctx, &pass, 1);
}
