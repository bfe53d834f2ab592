#include "train/learner.h"

#include "base/error.h"
#include "base/memory.h"
#include "learner_internal.h"
#include "optim/grad_norm.h"
#include "tensor/mirror.h"
#include "train/pool.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static int new_floats(float **out, const Backend *on, int64_t num)
{
    void *at = NULL;
    const int err = dg_kernel_memory_new(&at, on, sizeof(float) * (size_t)num);

    *out = at;
    return err;
}

static int new_codes(uint8_t **out, const Backend *on, int64_t num)
{
    void *at = NULL;
    const int err = dg_kernel_memory_new(&at, on, (size_t)num);

    *out = at;
    return err;
}

void dg_learner_shard(Shard *out, ShardLevel level, int rank, int size,
                      int64_t num)
{
    dg_shard_outline(out, rank, size, level, num, DG_GRAD_NORM_CHUNK);
}

void dg_learner_place(LearnerPlace *out, const Session *s, int64_t num)
{
    const Config *c = s->config;

    *out = (LearnerPlace) { .offload = c->parallel.offload_optimizer,
                            .ema_apart = c->parallel.offload_ema &&
                                         !c->parallel.offload_optimizer,
                            .sums_apart = c->parallel.offload_sums &&
                                          !c->parallel.offload_optimizer,
                            .host_threads = s->host_threads };
    dg_shard_init(&out->shard, s->comm, c->parallel.shard, num,
                  DG_GRAD_NORM_CHUNK);
}

int64_t dg_learner_piece(const LearnerPlace *p, int64_t at)
{
    const int64_t most = p->piece > 0 ? p->piece : DG_LEARNER_PIECE;
    const int64_t left = p->shard.num - at;

    return left < most ? left : most;
}

const Backend *dg_learner_on(const Learner *l)
{
    return l->place.offload ? NULL : l->policy->on;
}

const Backend *dg_learner_ema_on(const Learner *l)
{
    return l->place.ema_apart ? NULL : dg_learner_on(l);
}

static int reserve_moments(Learner *l, const Backend *on)
{
    const int64_t num = l->place.shard.num, blocks = dg_moments8_blocks(num);
    Moments8 *x = &l->codes;
    int err;

    if (l->optim.moments == DG_MOMENTS_FLOAT32) {
        err = new_floats(&l->m, on, num);
        return err ? err : new_floats(&l->v, on, num);
    }
    err = new_codes(&x->m, on, num);
    if (!err)
        err = new_codes(&x->v, on, num);
    if (!err)
        err = new_floats(&x->m_scale, on, blocks);
    return err ? err : new_floats(&x->v_scale, on, blocks);
}

static int reserve(Learner *l)
{
    const Backend *on = dg_learner_on(l);
    const int64_t num = l->place.shard.num;
    LearnerBytes bytes;
    int err = DG_OK;

    if (!l->place.offload)
        err = dg_policy_masters(l->policy, l->place.shard.first, num);
    dg_learner_bytes(&bytes, &l->place, &l->optim);
    if (!err)
        err = dg_kernel_memory_new((void **)&l->grads, on, bytes.gradient);
    if (!err)
        err = reserve_moments(l, on);
    if (!err && l->optim.ema_decay > 0)
        err = new_floats(&l->ema, dg_learner_ema_on(l), num);
    if (!err)
        err = dg_kernel_memory_new(&l->norm_scratch, on, bytes.norm);
    if (!err && bytes.chunks > 0) {
        l->chunks = calloc(1, bytes.chunks);
        err = l->chunks == NULL;
    }
    if (!err && bytes.stage > 0) {
        l->stage = dg_memory_new(bytes.stage);
        err = l->stage == NULL;
    }
    return err ? dg_fail(DG_ENOMEM, "optimizer state of %lld parameters",
                         (long long)num)
               : DG_OK;
}

int dg_learner_create(Learner **out, Policy *policy, int64_t num,
                      const OptimConfig *o, int64_t num_updates,
                      const LearnerPlace *place)
{
    Learner *l = calloc(1, sizeof *l);
    int err;

    if (l == NULL)
        return dg_fail(DG_ENOMEM, "learner");
    l->policy = policy;
    l->optim = *o;
    l->lr = (LrOpts) { o->schedule, o->lr, o->warmup, num_updates, 0 };
    l->num = num;
    if (place != NULL)
        l->place = *place;
    if (l->place.shard.size == 0)
        dg_learner_shard(&l->place.shard, DG_SHARD_NONE, 0, 1, num);
    l->engine = dg_engine_of(dg_learner_on(l));
    err = reserve(l);
    if (err) {
        dg_learner_destroy(l);
        return err;
    }
    if (l->ema != NULL)
        dg_learner_put(l, DG_STATE_EMA, policy->values + l->place.shard.first,
                       0, l->place.shard.num);
    *out = l;
    return DG_OK;
}

void dg_learner_bytes(LearnerBytes *out, const LearnerPlace *place,
                      const OptimConfig *o)
{
    const Shard *shard = &place->shard;
    const size_t floats = sizeof(float) * (size_t)shard->num;
    const size_t codes = (size_t)shard->num +
                         sizeof(float) * (size_t)dg_moments8_blocks(shard->num);
    const size_t piece = sizeof(float) * (size_t)dg_learner_piece(place, 0);
    const int64_t mine = dg_grad_norm_num_chunks(shard->num);
    const int64_t all = dg_grad_norm_num_chunks(shard->total);
    const int apart = place->sums_apart;
    const int swaps = place->ema_apart && o->ema_decay > 0;

    *out = (LearnerBytes) {
        .gradient = apart ? piece : floats,
        .moments = 2 * (o->moments == DG_MOMENTS_INT8 ? codes : floats),
        .ema = o->ema_decay > 0 ? floats : 0,
        .norm = apart ? 0 : sizeof(double) * ((size_t)mine + 1),
        .chunks =
            apart || dg_shard_split(shard) ? sizeof(double) * (size_t)all : 0,
        .stage = apart || swaps ? piece : 0,
    };
}

void dg_learner_destroy(Learner *l)
{
    if (l == NULL)
        return;
    void *const all[] = { l->grads,         l->m,           l->v,
                          l->codes.m,       l->codes.v,     l->codes.m_scale,
                          l->codes.v_scale, l->norm_scratch };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        dg_kernel_memory_free(dg_learner_on(l), all[i]);
    dg_kernel_memory_free(dg_learner_ema_on(l), l->ema);
    free(l->chunks);
    free(l->stage);
    free(l);
}

/* --- state as float32 ------------------------------------------------------ */

/* from where some of the state is, and to there */
static int fetch(const Backend *on, void *to, const void *from, size_t bytes)
{
    if (on != NULL)
        return dg_kernel_download(on, to, from, bytes);
    memcpy(to, from, bytes);
    return DG_OK;
}

static void send(const Backend *on, void *to, const void *from, size_t bytes)
{
    if (on != NULL)
        dg_kernel_upload(on, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

enum { CODED_BLOCKS = 64 };

/* Codes on the host, of one moment at a time. */
typedef struct Coded {
    uint8_t code[CODED_BLOCKS * DG_MOMENT_BLOCK];
    float scale[CODED_BLOCKS];
    Moments8 as; /* both moments are these */
    /* where they are, and their number */
    uint8_t *code_at;
    float *scale_at;
    int64_t num;
    size_t scale_bytes;
} Coded;

/* as many of elements 'first' .. 'first + left - 1' as there is room for */
static void lay_coded(Coded *c, const Learner *l, LearnerState which,
                      int64_t first, int64_t left)
{
    const int64_t most = CODED_BLOCKS * DG_MOMENT_BLOCK;
    const Moments8 there = dg_moments8_at(&l->codes, first);

    c->as = (Moments8) { c->code, c->code, c->scale, c->scale };
    c->code_at = which == DG_STATE_M ? there.m : there.v;
    c->scale_at = which == DG_STATE_M ? there.m_scale : there.v_scale;
    c->num = left < most ? left : most;
    c->scale_bytes = sizeof *c->scale * (size_t)dg_moments8_blocks(c->num);
}

static int get_coded(const Learner *l, LearnerState which, float *to,
                     int64_t first, int64_t num)
{
    Coded c;
    int err = DG_OK;

    for (int64_t at = 0; at < num && !err; at += c.num) {
        lay_coded(&c, l, which, first + at, num - at);
        err = fetch(dg_learner_on(l), c.code, c.code_at, (size_t)c.num);
        if (!err)
            err = fetch(dg_learner_on(l), c.scale, c.scale_at, c.scale_bytes);
        if (!err && which == DG_STATE_M)
            dg_moments8_read_m(to + at, &c.as, c.num);
        else if (!err)
            dg_moments8_read_v(to + at, &c.as, c.num);
    }
    return err;
}

static void put_coded(const Learner *l, LearnerState which, const float *from,
                      int64_t first, int64_t num)
{
    Coded c;

    for (int64_t at = 0; at < num; at += c.num) {
        lay_coded(&c, l, which, first + at, num - at);
        if (which == DG_STATE_M)
            dg_moments8_write_m(&c.as, from + at, c.num);
        else
            dg_moments8_write_v(&c.as, from + at, c.num);
        send(dg_learner_on(l), c.code_at, c.code, (size_t)c.num);
        send(dg_learner_on(l), c.scale_at, c.scale, c.scale_bytes);
    }
}

static int is_coded(const Learner *l, LearnerState which)
{
    return which != DG_STATE_EMA && l->optim.moments == DG_MOMENTS_INT8;
}

static float *state_at(const Learner *l, LearnerState which, int64_t first)
{
    float *const all[] = { l->m, l->v, l->ema };

    return all[which] + first;
}

static const Backend *state_on(const Learner *l, LearnerState which)
{
    return which == DG_STATE_EMA ? dg_learner_ema_on(l) : dg_learner_on(l);
}

int dg_learner_get(const Learner *l, LearnerState which, float *to,
                   int64_t first, int64_t num)
{
    return is_coded(l, which)
               ? get_coded(l, which, to, first, num)
               : fetch(state_on(l, which), to, state_at(l, which, first),
                       sizeof *to * (size_t)num);
}

void dg_learner_put(const Learner *l, LearnerState which, const float *from,
                    int64_t first, int64_t num)
{
    if (is_coded(l, which))
        put_coded(l, which, from, first, num);
    else
        send(state_on(l, which), state_at(l, which, first), from,
             sizeof *from * (size_t)num);
}

/* --- weights --------------------------------------------------------------- */

int dg_learner_fetch(const Learner *l, const Comm *c)
{
    Shard s = l->place.shard;
    int err;

    s.comm = c;
    if (l->policy->dropped > 0) /* who wants some asks for pieces */
        return DG_OK;
    err = dg_policy_fetch(l->policy, l->num);
    /* the networks have others' weights rounded: their masters are elsewhere */
    if (dg_shard_split(&s) && l->policy->stored != NULL && l->pool == NULL) {
        err = dg_agree(c, err);
        if (!err)
            dg_shard_gather(&s, l->policy->values, sizeof(float));
    }
    return err;
}

void dg_learner_send(const Learner *l)
{
    dg_policy_send(l->policy);
}

float *dg_learner_own(const Learner *l)
{
    const int64_t first = l->place.shard.first;

    return l->place.offload ? l->policy->values + first
                            : dg_policy_master(l->policy, first);
}

/* Of the whole gradient, of which this rank has its range. */
static int grad_norm(Learner *l, double *norm)
{
    const Shard *s = &l->place.shard;
    const int64_t mine = dg_grad_norm_num_chunks(s->num);
    const Backend *on = dg_learner_on(l);
    double *part = l->chunks + s->first / DG_GRAD_NORM_CHUNK;
    int err = DG_OK;

    if (!dg_shard_split(s))
        return l->engine->grad_norm(norm, l->grads, s->num, l->norm_scratch);
    l->engine->norm_chunks(on != NULL ? l->norm_scratch : part, l->grads,
                           s->num);
    if (on != NULL)
        err = dg_kernel_download(on, part, l->norm_scratch,
                                 sizeof *part * (size_t)mine);
    err = dg_agree(s->comm, err);
    if (err)
        return err;
    dg_shard_gather_blocks(s, l->chunks, sizeof *l->chunks);
    *norm =
        sqrt(dg_grad_norm_fold(l->chunks, dg_grad_norm_num_chunks(s->total)));
    return DG_OK;
}

/* Owners' weights to all ranks' kernel memory, from there. A device that has
 * failed shows it before others wait for its part. */
static int spread_there(const Learner *l, int *done)
{
    const Policy *p = l->policy;
    const Engine *e = dg_engine_of(p->on);
    const Shard *s = &l->place.shard;
    uint16_t seen;
    int err = dg_agree(s->comm,
                       p->on->download(&seen, dg_policy_at(p, 0), sizeof seen));

    *done = e->bcast != NULL;
    for (int r = 0; r < s->size && !err && *done; r++) {
        int64_t first, num;

        dg_shard_range(s, r, &first, &num);
        err = e->bcast(s->comm, dg_policy_at(p, first),
                       (size_t)(dg_dtype_bytes(p->dtype) * num), r, done);
    }
    return err;
}

int dg_learner_spread(Learner *l)
{
    const Policy *p = l->policy;
    const Shard *s = &l->place.shard;
    const int64_t end = s->first + s->num;
    int err = DG_OK, done = 0;

    if (l->place.offload)
        dg_policy_upload(p, s->first, s->num);
    else
        dg_policy_round(p);
    if (l->pool != NULL)
        return dg_pool_refresh(l->pool);
    if (!dg_shard_split(s))
        return DG_OK;
    if (p->on != NULL)
        err = spread_there(l, &done);
    l->spread += (uint64_t)s->total * (done ? (uint64_t)dg_dtype_bytes(p->dtype)
                                            : sizeof *p->values);
    if (err || done)
        return err;
    if (p->on != NULL && !l->place.offload && s->num > 0)
        err = p->on->download(p->values + s->first, dg_learner_own(l),
                              sizeof *p->values * (size_t)s->num);
    err = dg_agree(s->comm, err);
    if (err)
        return err;
    dg_shard_gather(s, p->values, sizeof *p->values);
    if (p->on != NULL) {
        dg_policy_upload(p, 0, s->first);
        dg_policy_upload(p, end, s->total - end);
    }
    if (p->dropped > 0) /* it was there for the way alone */
        dg_policy_drop(l->policy, 1);
    return DG_OK;
}

/* Elements that a thread takes at once. */
enum { STRIDE = 1 << 16 };

/* grad: of element 'at' of the range, and on */
static void adamw_part(const Learner *l, int64_t at, int64_t num,
                       const float *grad, const AdamwStep *step)
{
    float *w = dg_learner_own(l) + at;

    if (!is_coded(l, DG_STATE_M)) {
        l->engine->adamw(w, l->m + at, l->v + at, grad, num, step);
    } else {
        const Moments8 codes = dg_moments8_at(&l->codes, at);

        l->engine->adamw8(w, &codes, grad, l->place.shard.first + at, num,
                          step);
    }
}

/* A piece of sums of the host's, as float32 in l->stage. */
static void stage_piece(const Learner *l, const ExactSum *own, int64_t at)
{
    const ExactSum part =
        dg_exact_part(own, at, dg_learner_piece(&l->place, at));

    dg_exact_read(&part, l->stage, 1.0);
}

/* By pieces on the host, in the order of the device's. */
static int norm_apart(const Learner *l, const ExactSum *own, double *norm)
{
    const Shard *s = &l->place.shard;
    double *mine = l->chunks + s->first / DG_GRAD_NORM_CHUNK;

    for (int64_t at = 0; at < s->num; at += dg_learner_piece(&l->place, at)) {
        stage_piece(l, own, at);
        dg_grad_norm_chunks(mine + at / DG_GRAD_NORM_CHUNK, l->stage,
                            dg_learner_piece(&l->place, at));
    }
    dg_shard_gather_blocks(s, l->chunks, sizeof *l->chunks);
    *norm =
        sqrt(dg_grad_norm_fold(l->chunks, dg_grad_norm_num_chunks(s->total)));
    return DG_OK;
}

static void adamw_apart(const Learner *l, const ExactSum *own,
                        const AdamwStep *step)
{
    const Shard *s = &l->place.shard;

    for (int64_t at = 0; at < s->num; at += dg_learner_piece(&l->place, at)) {
        const int64_t num = dg_learner_piece(&l->place, at);

        stage_piece(l, own, at);
        send(dg_learner_on(l), l->grads, l->stage,
             sizeof *l->stage * (size_t)num);
        adamw_part(l, at, num, l->grads, step);
    }
}

static void adamw(const Learner *l, const AdamwStep *step)
{
    const int64_t num = l->place.shard.num;

    if (!l->place.offload) {
        adamw_part(l, 0, num, l->grads, step);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < num; at += STRIDE)
        adamw_part(l, at, num - at < STRIDE ? num - at : STRIDE, l->grads + at,
                   step);
}

static int update(Learner *l, const ExactSum *own, LearnerStep *out)
{
    const AdamwOpts o = { l->optim.beta1, l->optim.beta2, l->optim.eps,
                          l->optim.weight_decay };
    const double lr = dg_lr_at(&l->lr, l->updates + 1);
    const int apart = l->place.sums_apart;
    double norm, scale;
    AdamwStep step;
    int err;

    if (!apart)
        l->engine->exact_read(own, l->grads, 1.0);
    err = apart ? norm_apart(l, own, &norm) : grad_norm(l, &norm);
    if (!err)
        err = dg_grad_norm_scale(&scale, norm, l->optim.max_grad_norm);
    if (!err)
        err = dg_adamw_step_init(&step, &o, lr, l->updates + 1, scale);
    if (err)
        return err;
    if (apart)
        adamw_apart(l, own, &step);
    else
        adamw(l, &step);
    err = dg_learner_spread(l);
    if (err)
        return err;
    l->updates++;
    *out = (LearnerStep) { norm, lr };
    return DG_OK;
}

int dg_learner_update(Learner *l, const ExactSum *own, LearnerStep *out)
{
    int err;

    if (l->place.host_threads > 1)
        omp_set_num_threads(l->place.host_threads);
    err = update(l, own, out);
    omp_set_num_threads(1); /* as dg_team_create() left it */
    return err;
}
