#include "tensor/context.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* Structs only: a few hundred bytes per op of one step's deepest moment. */
static const size_t meta_bytes = (size_t)16 << 20;

static int arena_apart(Arena *a, const Backend *backend, size_t bytes)
{
    void *base;
    const int err = backend->take(&base, bytes);

    if (!err)
        dg_arena_init_over(a, "step", base, bytes);
    return err;
}

int dg_context_init(Context *ctx, const Backend *backend, size_t arena_bytes)
{
    int err;

    memset(ctx, 0, sizeof *ctx);
    ctx->backend = backend;
    err = dg_arena_init(&ctx->meta, "meta", meta_bytes);
    if (err)
        return err;
    /* a plan does not count what few of these bytes the first step will take */
    dg_memory_drop(ctx->meta.base, meta_bytes);
    if (!backend->computes) {
        dg_arena_init_count(&ctx->arena, "step");
        return DG_OK;
    }
    if (backend->apart)
        err = arena_apart(&ctx->arena, backend, arena_bytes);
    else
        err = dg_arena_init(&ctx->arena, "step", arena_bytes);
    if (err)
        dg_arena_fini(&ctx->meta);
    return err;
}

void dg_context_fini(Context *ctx)
{
    if (ctx->backend != NULL && ctx->backend->computes && ctx->backend->apart)
        ctx->backend->give(ctx->arena.base);
    else
        dg_arena_fini(&ctx->arena);
    dg_arena_fini(&ctx->meta);
    memset(ctx, 0, sizeof *ctx);
}

size_t dg_context_saved_bytes(void)
{
    return sizeof(Context) + meta_bytes;
}

void dg_context_save(const Context *ctx, void *room)
{
    memcpy(room, ctx, sizeof *ctx);
    memcpy((char *)room + sizeof *ctx, ctx->meta.base, ctx->meta.used);
}

void dg_context_restore(Context *ctx, const void *room)
{
    memcpy(ctx, room, sizeof *ctx);
    memcpy(ctx->meta.base, (const char *)room + sizeof *ctx, ctx->meta.used);
}

void dg_context_replay(Context *ctx, void (*step)(void *), void *user,
                       const Moving *moving, int kinds)
{
    if (ctx->backend->replay != NULL && ctx->lender == NULL)
        ctx->backend->replay(step, user, moving, kinds);
    else
        step(user);
}

void dg_context_reset(Context *ctx)
{
    dg_arena_release(&ctx->arena, 0);
    dg_arena_release(&ctx->meta, 0);
    ctx->recording = 0;
    ctx->tape = NULL;
    ctx->depth = 0;
    ctx->num_scopes = 0;
    ctx->err = DG_OK;
}

void dg_context_train(Context *ctx, int param_set, float *grads, int trains)
{
    if (param_set < 1 || param_set > DG_MAX_PARAM_SETS)
        dg_panic("parameter set id %d: 1..%d", param_set, DG_MAX_PARAM_SETS);
    ctx->param_grads[param_set] = grads;
    ctx->trains[param_set] = trains;
}

int dg_context_error(const Context *ctx)
{
    return ctx->err;
}

static Tensor *new_struct(Context *ctx, DType dtype, int num_dims,
                          const int64_t *dims)
{
    Tensor *t;

    if (ctx->err)
        return NULL;
    t = dg_arena_take(&ctx->meta, sizeof *t);
    if (t == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    memset(t, 0, sizeof *t);
    t->dtype = dtype;
    t->num_dims = num_dims;
    for (int i = 0; i < num_dims; i++)
        t->dims[i] = dims[i];
    t->depth = ctx->depth;
    return t;
}

Tensor *dg_tensor_new(Context *ctx, DType dtype, int num_dims,
                      const int64_t *dims)
{
    Tensor *t = new_struct(ctx, dtype, num_dims, dims);

    if (t == NULL)
        return NULL;
    t->data = dg_arena_take(
        &ctx->arena, (size_t)(dg_tensor_count(t) * dg_dtype_bytes(dtype)));
    if (t->data == NULL && ctx->backend->computes) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    return t;
}

Tensor *dg_tensor_like(Context *ctx, const Tensor *t)
{
    if (ctx->err || t == NULL)
        return NULL;
    return dg_tensor_new(ctx, t->dtype, t->num_dims, t->dims);
}

Tensor *dg_tensor_wrap(Context *ctx, void *data, DType dtype, int num_dims,
                       const int64_t *dims)
{
    Tensor *t = new_struct(ctx, dtype, num_dims, dims);

    if (t != NULL)
        t->data = data;
    return t;
}

void dg_scope_push(Context *ctx, const char *name, int index)
{
    if (ctx->num_scopes == DG_MAX_SCOPES)
        dg_panic("more than %d scopes open at %s", DG_MAX_SCOPES, name);
    ctx->scope[ctx->num_scopes] = name;
    ctx->scope_index[ctx->num_scopes++] = index;
}

void dg_scope_pop(Context *ctx)
{
    if (ctx->num_scopes == 0)
        dg_panic("scope popped that was not pushed");
    ctx->num_scopes--;
}

void dg_scope_text(const Context *ctx, char *out, size_t size)
{
    size_t used = 0;

    if (size == 0)
        return;
    out[0] = '\0';
    for (int i = 0; i < ctx->num_scopes && used < size; i++) {
        const char *dot = i > 0 ? "." : "";

        if (ctx->scope_index[i] >= 0)
            used += (size_t)snprintf(out + used, size - used, "%s%s.%d", dot,
                                     ctx->scope[i], ctx->scope_index[i]);
        else
            used += (size_t)snprintf(out + used, size - used, "%s%s", dot,
                                     ctx->scope[i]);
    }
}
