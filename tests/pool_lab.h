#ifndef DG_TESTS_POOL_LAB_H
#define DG_TESTS_POOL_LAB_H
/* A policy that a rank has whole and one of which it keeps a range, or of whose
 * gradients alone, and items that run with both. */
#include "mpi_test.h"

#include "base/error.h"
#include "base/philox.h"
#include "optim/grad_norm.h"
#include "tensor/mirror.h"
#include "tensor/tape.h"
#include "train/pool.h"
#include "train/session.h"

#include <math.h>

/* in the block that is gone back through first, in no block */
enum { IN_BLOCK = 1, IN_REST };

enum { ITEMS = 6, PASSES = 2, ROOM = 1 << 24 };

typedef struct Lab {
    const Backend *backend;
    ShardLevel level; /* of the second policy */
    int offload, inexact;
    Config config;
    Session session;
    Policy *whole, *held;
    Team *plain, *team; /* of the first, of the second */
    WeightPool *pool;
    int threads; /* of the second team; 0: one */
    int idles;   /* items 0, 3, ... go back through nothing */
    int recompute;
    int steep;       /* IN_...: one parameter's gradient is beyond sums */
    int text;        /* text encoders are trained too, and run in each pass */
    int bad_rank;    /* whose item 1 fails, or whose gradient is infinite */
    int break_rank;  /* whose GPU fails on the way back of item 1, */
    int break_link;  /* or its link */
    int64_t first;   /* item of a run's first */
    float *u[ITEMS]; /* predictions of the run */
} Lab;

/* The inputs of a product are far out and its weights small: what comes of it,
 * and all other gradients, are as usual. */
static void make_steep(Policy *p, int steep)
{
    static const char *const names[][2] = {
        { "transformer.single_transformer_blocks.2.proj_mlp.weight",
          "transformer.single_transformer_blocks.2.proj_out.weight" },
        { "transformer.time_text_embed.timestep_embedder.linear_1.weight",
          "transformer.time_text_embed.timestep_embedder.linear_2.weight" },
    };
    static const float by[] = { 1e12F, 1e-12F };

    for (int k = 0; k < 2; k++) {
        const Param *q = dg_params_find(&p->net, names[steep == IN_REST][k]);

        EXPECT(q != NULL);
        for (int64_t i = 0; q != NULL && i < dg_tensor_count(&q->value); i++)
            p->net.values[q->value.param_offset + i] *= by[k];
    }
}

static Policy *new_policy(const Config *c, int text)
{
    const RngKey key = { .seed = 4, .purpose = DG_RNG_TEST };
    Policy *p;
    float *noise;

    EXPECT(dg_policy_create(&p, c) == DG_OK);
    if (text)
        dg_policy_train_text(p);
    noise = malloc(sizeof *noise * (size_t)p->num_values);
    dg_policy_draw(p, 3);
    /* layers that begin at zero too */
    dg_rng_normal(noise, 0, p->num_values, &key);
    for (int64_t i = 0; i < p->num_values; i++)
        p->values[i] += 0.05f * noise[i];
    free(noise);
    return p;
}

static Team *new_team(const Lab *l, const Policy *p, ShardLevel level)
{
    TeamOpts o = { .backend = l->backend,
                   .num_threads =
                       level == l->level && l->threads > 0 ? l->threads : 1,
                   .step_bytes = ROOM,
                   .num_grads =
                       l->text ? p->num_values : dg_policy_trained(p)->count,
                   .exact = !l->inexact,
                   .max_items = 64,
                   .piece = 3000 };
    Team *t;

    dg_shard_init(&o.shard, &comm, level, o.num_grads, DG_GRAD_NORM_CHUNK);
    if (level == l->level) {
        const int rooms = dg_pool_grad_rooms(&l->config, &o.shard,
                                             l->backend->apart, l->offload);

        o.offload = l->offload;
        o.links = dg_session_links(&l->session);
        o.num_room = dg_pool_room(p, rooms);
        o.sends = dg_pool_descends(&o, p, rooms);
    }
    EXPECT(dg_team_create(&t, &o) == DG_OK);
    for (int i = 0; i < t->num; i++) {
        Worker *w = &t->workers[i];

        dg_context_train(&w->ctx, dg_policy_trained(p)->id, w->grads, 1);
        if (l->text)
            dg_context_train(&w->ctx, DG_PARAMS_TEXT, w->grads + p->net.count,
                             1);
        w->ctx.recompute = l->recompute;
    }
    return t;
}

/* Networks of the configuration. */
static void open_networks(Lab *l)
{
    l->session = (Session) { .comm = &comm,
                             .config = &l->config,
                             .backend = l->backend,
                             .num_threads = 1 };
    l->whole = new_policy(&l->config, l->text);
    l->held = new_policy(&l->config, l->text);
    if (l->steep) {
        make_steep(l->whole, l->steep);
        make_steep(l->held, l->steep);
    }
    EXPECT(dg_policy_place(l->whole, l->backend) == DG_OK);
    l->plain = new_team(l, l->whole, DG_SHARD_NONE);
    l->team = new_team(l, l->held, l->level);
    EXPECT((l->level == DG_SHARD_PARAMETERS
                ? dg_pool_hold(&l->session, l->held)
                : dg_policy_place(l->held, l->backend)) == DG_OK);
    EXPECT(dg_pool_create(&l->pool, &l->session, l->team, l->held, NULL) ==
           DG_OK);
    for (int i = 0; i < ITEMS; i++)
        l->u[i] =
            calloc((size_t)l->whole->shape.elements * PASSES, sizeof(float));
}

/* Of l: backend, level, recompute, and the rest if it is not 0. With sets of
 * the caller's, or none. */
static void open_lab_of(Lab *l, const char *config, const char *set)
{
    const Backend *backend = l->backend;

    l->bad_rank = l->break_rank = -1;
    dg_config_defaults(&l->config);
    EXPECT(dg_config_load(&l->config, config) == DG_OK);
    EXPECT(dg_config_set(&l->config, "flux.num_single_layers=3") == DG_OK);
    if (backend->apart) { /* an emulated one takes its time */
        EXPECT(dg_config_set(&l->config, "pretrain.image_size=16") == DG_OK);
        EXPECT(dg_config_set(&l->config, "policy.text_length=4") == DG_OK);
        EXPECT(dg_config_set(&l->config, "flux.num_heads=1") == DG_OK);
    }
    if (set != NULL)
        EXPECT(dg_config_set(&l->config, set) == DG_OK);
    dg_config_settle(&l->config);
    open_networks(l);
}

static inline void open_lab(Lab *l, const Backend *backend, const char *config,
                            int recompute, const char *set)
{
    *l = (Lab) { .backend = backend,
                 .level = DG_SHARD_PARAMETERS,
                 .recompute = recompute };
    open_lab_of(l, config, set);
}

/* Of networks whose text encoders are trained with them. */
static inline void open_lab_with_text(Lab *l, const Backend *backend,
                                      const char *config, int recompute)
{
    *l = (Lab) { .backend = backend,
                 .level = DG_SHARD_PARAMETERS,
                 .recompute = recompute,
                 .text = 1 };
    open_lab_of(l, config, NULL);
}

static void close_lab(Lab *l)
{
    for (int i = 0; i < ITEMS; i++)
        free(l->u[i]);
    dg_pool_destroy(l->pool);
    dg_team_destroy(l->team);
    dg_team_destroy(l->plain);
    dg_policy_destroy(l->held);
    dg_policy_destroy(l->whole);
}

static float *drawn(int64_t num, uint32_t item, uint32_t step)
{
    const RngKey key = {
        .seed = 7, .purpose = DG_RNG_TEST, .sample = item, .step = step
    };
    float *x = malloc(sizeof *x * (size_t)num);

    dg_rng_normal(x, 0, num, &key);
    return x;
}

/* Such numbers in kernel memory, one of them infinite if bad >= 0. */
static float *put(Context *ctx, int64_t num, const uint32_t from[2], int bad)
{
    Tensor *t = dg_tensor_new(ctx, DG_F32, 1, &num);
    float *x = drawn(num, from[0], from[1]);

    EXPECT(t != NULL);
    if (bad >= 0)
        x[bad] = INFINITY;
    dg_kernel_upload(ctx->backend, t->data, x, sizeof *x * (size_t)num);
    free(x);
    return dg_tensor_f32(t);
}

/* A prediction of an item, recorded where the context records. */
static Tensor *predict(const Policy *p, Context *ctx, int64_t item, int pass)
{
    const uint32_t of_z[] = { (uint32_t)item, (uint32_t)pass },
                   of_c[] = { (uint32_t)item, 99 };
    const float *z = put(ctx, p->shape.elements, of_z, -1),
                *condition = put(ctx, p->shape.condition, of_c, -1);
    const float time = 0.3f + 0.2f * (float)pass;
    /* which the way back looks at too */
    int32_t *ids =
        dg_arena_take(&ctx->meta, sizeof *ids * (size_t)(p->shape.text_tokens +
                                                         p->shape.clip_tokens));
    const PolicyBatch b = { .num = 1,
                            .z = &z,
                            .time = &time,
                            .condition = p->trains_text ? NULL : &condition,
                            .t5_ids = ids,
                            .clip_ids = ids + p->shape.text_tokens };

    EXPECT(dg_policy_tokenize(p, item % 2 ? "a red circle" : "two circles", ids,
                              ids + p->shape.text_tokens) == DG_OK);
    return dg_policy_predict(p, ctx, &b);
}

static int predict_one(Worker *w, int64_t i, void *user)
{
    const Lab *l = user;
    const Policy *p = w->team == l->team ? l->held : l->whole;
    Tensor *u;

    dg_context_reset(&w->ctx);
    u = predict(p, &w->ctx, l->first + i, 0);
    if (u == NULL)
        return dg_context_error(&w->ctx);
    if (dg_kernel_download(w->ctx.backend, l->u[i], u->data,
                           sizeof(float) * (size_t)p->shape.elements) != DG_OK)
        return DG_EDEVICE;
    return comm.rank == l->bad_rank && i == 1
               ? dg_fail(DG_EINVAL, "an item of rank %d", comm.rank)
               : DG_OK;
}

/* Both ways, of rank's own number of items: bits are equal. */
static inline void compare_predictions(Lab *l, int64_t num)
{
    const size_t bytes = sizeof(float) * (size_t)l->whole->shape.elements;
    float *want[ITEMS];

    l->first = 10 * comm.rank;
    EXPECT(dg_team_run(l->plain, num, predict_one, l) == DG_OK);
    for (int i = 0; i < num; i++) {
        want[i] = malloc(bytes);
        memcpy(want[i], l->u[i], bytes);
        memset(l->u[i], 0, bytes);
    }
    EXPECT(dg_team_run(l->team, num, predict_one, l) == DG_OK);
    for (int i = 0; i < num; i++) {
        EXPECT(memcmp(want[i], l->u[i], bytes) == 0);
        free(want[i]);
    }
}

/* All passes of an item: back one by one, or together. */
static int go_back(Worker *w, int64_t i, void *user)
{
    const Lab *l = user;
    const int lent = w->team == l->team;
    const int together = lent && dg_pool_trains(l->pool);
    const Policy *p = lent ? l->held : l->whole;
    const int64_t item = l->first + i;
    /* of neighbours one goes back where the other still goes forward */
    const int num =
        l->idles && i % 3 == 0 ? 0 : 1 + (int)(comm.rank + i) % PASSES;
    TapePass pass[PASSES];

    dg_context_reset(&w->ctx);
    if (together)
        dg_pool_begin(l->pool, w);
    else
        w->ctx.backend->fill(w->grads, 0, w->team->num_grads);
    for (int k = 0; k < num; k++) {
        const uint32_t of[] = { (uint32_t)item, 50 + (uint32_t)k };
        const int bad = comm.rank == l->bad_rank && i == 1 ? 5 : -1;
        Tensor *u, *grad;

        dg_tape_begin(&w->ctx);
        u = predict(p, &w->ctx, item, k);
        grad = u != NULL ? dg_tensor_like(&w->ctx, u) : NULL;
        if (grad == NULL)
            return dg_context_error(&w->ctx);
        grad->data = put(&w->ctx, p->shape.elements, of, bad);
        pass[k] = dg_tape_hold(&w->ctx, u, grad);
        if (!together && dg_tape_backward_all(&w->ctx, &pass[k], 1) != DG_OK)
            return dg_context_error(&w->ctx);
    }
    if (comm.rank == l->break_rank && i == 1) {
        char at[32];

        snprintf(at, sizeof at, "%d:1", comm.rank);
        setenv(l->break_link ? "CUDA_EMULATION_LINK" : "CUDA_EMULATION_FAIL",
               at, 1);
    }
    return together ? dg_tape_backward_all(&w->ctx, pass, num) : DG_OK;
}

static int learn_one(Worker *w, int64_t i, void *user)
{
    const int err = go_back(w, i, user);

    return err ? err : dg_team_add(w, NULL);
}

/* A sum's numbers, for the caller to free. */
static int64_t *fixed_of(const Team *t, const ExactSum *s)
{
    const size_t bytes = sizeof *s->fixed * (size_t)s->num;
    int64_t *x = calloc(1, bytes + 1);

    if (t->sums_on == NULL)
        memcpy(x, s->fixed, bytes);
    else
        EXPECT(dg_kernel_download(t->sums_on, x, s->fixed, bytes) == DG_OK);
    return x;
}

static void compare_sums(Lab *l, int64_t num)
{
    ExactSum all, own;
    int64_t *want, *got;

    l->first = 10 * comm.rank;
    EXPECT(dg_team_sum(l->plain, &comm, num, learn_one, l) == DG_OK);
    EXPECT(dg_team_sum(l->team, &comm, num, learn_one, l) == DG_OK);
    all = dg_team_own(l->plain);
    own = dg_team_own(l->team);
    want = fixed_of(l->plain, &all);
    got = fixed_of(l->team, &own);
    EXPECT(own.items == all.items && own.num == l->team->shard.num);
    EXPECT(memcmp(got, want + l->team->shard.first,
                  sizeof *got * (size_t)own.num) == 0);
    for (int64_t i = 0, any = 0; i <= own.num; i++) {
        any |= i < own.num && got[i] != 0;
        EXPECT(i < own.num || any || own.num == 0 || own.items == 0);
    }
    free(want);
    free(got);
}

/* A gradient that no sum can take, and then an item that fails, are all ranks'
 * failures; the sum after them is whole. */
static void fail_and_go_on(Lab *l)
{
    l->bad_rank = comm.size - 1;
    EXPECT(dg_team_sum(l->team, &comm, 2, learn_one, l) == DG_ENUMERIC);
    EXPECT(strstr(dg_last_error()->text, "gradient of transformer.") != NULL);
    EXPECT(dg_team_sum(l->team, &comm, 2 + comm.rank % 2, predict_one, l) ==
           DG_EINVAL);
    EXPECT(strstr(dg_last_error()->text, "an item of rank") != NULL);
    l->bad_rank = -1;
    compare_sums(l, 1);
}

static inline void check_failures(Lab *l, const char *config)
{
    open_lab_of(l, config, NULL);
    fail_and_go_on(l);
    close_lab(l);
}

#endif
