/* Gradients of many items to the ranks that hold their sum. */
#include "train/team.h"

#include "base/error.h"
#include "team_bucket.h"
#include "train/pool.h"

#include <omp.h>

/* Sums are in a memory that the host may not look into. */
static int out_of_reach(const Team *t)
{
    return t->stage != NULL;
}

static int64_t piece_at(const Team *t, int64_t num, int64_t at)
{
    return num - at < t->piece ? num - at : t->piece;
}

static size_t part_bytes(const ExactSum *s)
{
    return dg_exact_bytes(s->num, s->fixed != NULL);
}

static void *buffer_of(const ExactSum *s)
{
    return s->fixed != NULL ? (void *)s->fixed : (void *)s->plain;
}

/* --- one item's gradient into a sum --------------------------------------- */

static int take_part(void *user, const void *part, size_t at, size_t bytes)
{
    ExactSum *to = user;
    ExactSum of = dg_exact_part(to, (int64_t)(at / sizeof(float)),
                                (int64_t)(bytes / sizeof(float)));

    of.items = to->items;
    return dg_exact_add(&of, part, NULL);
}

/* A gradient of kernel memory into a sum of the host's, which it was checked
 * for, by as many threads as the host has for it: a part is added while the
 * next one comes. */
static int add_down(Worker *w, ExactSum *to, const float *g)
{
    int err;

    omp_set_num_threads(w->team->host_threads);
    err = w->ctx.backend->drain(g, sizeof *g * (size_t)to->num, take_part, to);
    omp_set_num_threads(1);
    to->items += !err;
    return err;
}

/* to->num elements of a gradient, from g on */
static int add_part(Worker *w, ExactSum *to, const float *g)
{
    return w->team->down ? add_down(w, to, g)
                         : w->team->sums->exact_add(to, g, NULL);
}

int dg_team_add(Worker *w, int64_t *bad)
{
    const Team *t = w->team;
    const int later = dg_shard_rounds(&t->shard);
    ExactSum whole;
    int err;

    if (t->pool != NULL && dg_pool_trains(t->pool)) {
        err = dg_pool_give_rest(t->pool, w);
        w->ready = !err;
        return err;
    }
    if (dg_buckets_sending(t->buckets))
        return dg_buckets_add(t->buckets, bad);
    if (!later && !t->down)
        return t->sums->exact_add(&w->sum, w->grads, bad);
    if (w->ready)
        dg_panic("worker %d: two gradients in one round", w->index);
    /* a sum's limits, not its buffer: of rounds there is one, which nobody
     * adds to before their end */
    whole = later ? t->workers[0].sum : w->sum;
    whole.num = t->num_grads;
    err = w->engine->exact_check(&whole, w->grads, bad);
    if (err)
        return err;
    w->ready = later;
    return later ? DG_OK : add_part(w, &w->sum, w->grads);
}

/* --- between ranks --------------------------------------------------------- */

/* A part of the sums, through the host: to root, or with root -1 to all. */
static int stage(const Team *t, const Comm *c, ExactSum *part, int root)
{
    const Backend *be = t->workers[0].ctx.backend;
    int err = DG_OK;

    for (int64_t at = 0; at < part->num && !err; at += t->piece) {
        ExactSum piece = dg_exact_part(part, at, piece_at(t, part->num, at));
        ExactSum here = piece;

        here.fixed = part->fixed != NULL ? t->stage : NULL;
        here.plain = part->fixed != NULL ? NULL : t->stage;
        err = dg_agree(
            c, be->download(t->stage, buffer_of(&piece), part_bytes(&piece)));
        if (err)
            return err;
        if (root >= 0)
            dg_exact_sum_to(c, &here, root);
        else
            err = dg_exact_allreduce(c, &here);
        if (root < 0 || root == c->rank)
            be->upload(buffer_of(&piece), t->stage, part_bytes(&piece));
    }
    return err;
}

static int sum_to(Team *t, const Comm *c, ExactSum *part, int root)
{
    int done = 0;
    int err = DG_OK;

    if (c->size == 1 || part->num == 0)
        return DG_OK;
    t->traffic.sums += part_bytes(part);
    if (!out_of_reach(t)) {
        dg_exact_sum_to(c, part, root);
        return DG_OK;
    }
    if (t->sums->exact_sum_to != NULL)
        err = t->sums->exact_sum_to(c, part, root, &done);
    return err || done ? err : stage(t, c, part, root);
}

static int sum_to_all(Team *t, const Comm *c, ExactSum *s)
{
    int done = 0;
    int err = DG_OK;

    t->traffic.sums += c->size > 1 ? part_bytes(s) : 0;
    if (!out_of_reach(t))
        return dg_exact_allreduce(c, s);
    if (t->sums->exact_allreduce != NULL)
        err = t->sums->exact_allreduce(c, s, &done);
    if (err || done)
        return err;
    err = dg_exact_count(c, s);
    return err || c->size == 1 ? err : stage(t, c, s, -1);
}

static int sum_to_owners(Team *t, const Comm *c, ExactSum *s)
{
    int err = dg_exact_count(c, s);

    for (int r = 0; r < c->size && !err; r++) {
        int64_t first, num;
        ExactSum part;

        dg_shard_range(&t->shard, r, &first, &num);
        part = dg_exact_part(s, first, num);
        err = sum_to(t, c, &part, r);
    }
    return err;
}

/* All has left when the last item ends, or follows it. */
static int sum_beside(Team *t, const Comm *c, int64_t num, TeamFn fn,
                      void *user)
{
    int err = dg_buckets_run(t->buckets, num, fn, user);

    err = t->sums->sent(c, err, 1);
    return err ? err : dg_exact_count(c, &t->workers[0].sum);
}

static int sum_whole(Team *t, const Comm *c, int64_t num, TeamFn fn, void *user)
{
    ExactSum *s = &t->workers[0].sum;
    int err = dg_team_run(t, num, fn, user);

    for (int i = 1; i < t->num && !err; i++)
        err = t->sums->exact_merge(s, &t->workers[i].sum);
    err = dg_agree(c, err);
    if (err)
        return err;
    return dg_shard_split(&t->shard) ? sum_to_owners(t, c, s)
                                     : sum_to_all(t, c, s);
}

/* --- sums that no rank holds whole ---------------------------------------- */

/* What was queued for the part is done: a device that fails does so before
 * others wait for it. */
static int settled(const Team *t, const ExactSum *part)
{
    int64_t seen;

    return out_of_reach(t)
               ? dg_kernel_download(t->sums_on, &seen, buffer_of(part),
                                    dg_exact_bytes(1, part->fixed != NULL))
               : DG_OK;
}

/* Gradients that this rank gives: elements from 'first' on. */
typedef struct Gift {
    const float *const *g;
    int num;
    int64_t first;
} Gift;

/* Elements first .. first + num - 1 of all ranks' gifts to their owner. */
static int give_part(Team *t, const Comm *c, const Gift *gift, int owner,
                     int64_t first, int64_t num)
{
    const Shard *s = &t->shard;
    const int alone = s->size == 1;
    ExactSum part = alone ? dg_exact_part(&t->workers[0].sum, first, num)
                          : dg_exact_part(&t->bucket, 0, num);
    int err = DG_OK;

    if (!alone)
        t->sums->exact_clear(&part);
    for (int i = 0; i < gift->num && !err; i++)
        err =
            add_part(&t->workers[0], &part, gift->g[i] + (first - gift->first));
    part.items = 0; /* counted once for all parts */
    if (alone)
        return err;
    if (!err)
        err = settled(t, &part);
    err = dg_agree(c, err);
    if (!err)
        err = sum_to(t, c, &part, owner);
    if (!err && owner == s->rank) {
        ExactSum own = dg_exact_part(&t->workers[0].sum, first - s->first, num);

        err = t->sums->exact_merge(&own, &part);
    }
    return dg_agree(c, err);
}

int dg_team_give(Team *t, const Comm *c, int64_t first, int64_t num,
                 const float *const *g, int num_g)
{
    const Gift gift = { g, num_g, first };
    int err = DG_OK;

    for (int r = 0; r < t->shard.size && !err; r++) {
        int64_t from, here;

        dg_shard_overlap(&t->shard, r, &(ShardRange) { first, num }, &from,
                         &here);
        for (int64_t at = 0; at < here && !err; at += t->piece)
            err = give_part(t, c, &gift, r, from + at, piece_at(t, here, at));
    }
    return err;
}

/* What has come down, by as many threads as the host has for it. */
static void take_down(void *user, ExactSum *into, const ExactSum *part)
{
    const Team *t = user;

    omp_set_num_threads(t->host_threads);
    if (dg_exact_merge(into, part) != DG_OK)
        dg_panic("a part of a gradient's sum: %s", dg_last_error()->text);
    omp_set_num_threads(1);
}

/* One part is on its way at a time: t->bucket serves them all in turn. */
static int send_part(Team *t, const Comm *c, ShardRange of, const float *g,
                     int owner)
{
    const Shard *s = &t->shard;
    const Worker *w = &t->workers[0];
    const Engine *e = dg_engine_of(t->bucket_on);
    ExactSend x = { .part = dg_exact_part(&t->bucket, 0, of.num),
                    .root = owner,
                    .take = t->down ? take_down : NULL,
                    .user = t,
                    .slot = -1 };

    e->turn();
    e->exact_clear(&x.part);
    if (g != NULL)
        e->exact_add_part(&x.part, g, of.first, w->bad.at);
    e->turn();
    if (owner == s->rank)
        x.into = dg_exact_part(&w->sum, of.first - s->first, of.num);
    t->traffic.sums += part_bytes(&x.part);
    return e->send(c, &x);
}

int dg_team_send(Team *t, const Comm *c, int64_t first, int64_t num,
                 const float *g)
{
    int err = DG_OK;

    for (int r = 0; r < t->shard.size && !err; r++) {
        int64_t from, here;

        dg_shard_overlap(&t->shard, r, &(ShardRange) { first, num }, &from,
                         &here);
        for (int64_t at = 0; at < here && !err; at += t->piece) {
            const ShardRange of = { from + at, piece_at(t, here, at) };

            err = send_part(t, c, of, g != NULL ? g + (of.first - first) : NULL,
                            r);
        }
    }
    return err;
}

/* Counts the round's gradients, and gives those that are here whole. */
static int give_round(Team *t, const Comm *c)
{
    ExactSum all = { .max_items = t->workers[0].sum.max_items };
    const int64_t before = t->workers[0].sum.items;
    const float *g[t->num];
    int num = 0, err;

    for (int i = 0; i < t->num; i++)
        if (t->workers[i].ready)
            g[num++] = t->workers[i].grads;
    all.items = (c->rank == 0 ? before : 0) + num;
    err = dg_exact_count(c, &all);
    if (!err && all.items > before &&
        (t->pool == NULL || !dg_pool_trains(t->pool)))
        err = dg_team_give(t, c, 0, t->num_grads, g, num);
    for (int i = 0; i < t->num; i++)
        t->workers[i].ready = 0;
    t->workers[0].sum.items = all.items;
    return err;
}

/* What is left of fn for a round. */
typedef struct Round {
    TeamFn fn;
    void *user;
    int64_t first;
} Round;

/* 1 if gradients leave during an item. */
static int gives(const Team *t)
{
    return t->pool != NULL && !dg_pool_lends(t->pool);
}

static int run_one(Worker *w, int64_t i, void *user)
{
    const Round *r = user;
    const int err = r->fn(w, r->first + i, r->user);

    if (gives(w->team))
        dg_pool_end(w->team->pool, w);
    return err;
}

/* Where gradients leave during an item, ranks meet until it has ended for
 * all. */
static int run_round(Team *t, int64_t num, Round *r)
{
    int err;

    if (gives(t))
        dg_pool_round(t->pool, num);
    err = dg_team_run(t, num, run_one, r);
    return gives(t) ? dg_pool_leave(t->pool, err) : err;
}

/* A worker's gradient stays until it is given away: an item each a round, of
 * which all ranks take equally many. */
static int sum_in_rounds(Team *t, const Comm *c, int64_t num, TeamFn fn,
                         void *user)
{
    Round r = { fn, user, 0 };
    int64_t rounds = (num + t->num - 1) / t->num;
    int err = DG_OK;

    dg_comm_max_i64(c, &rounds, 1);
    for (; rounds > 0 && !err; rounds--) {
        const int64_t left = num - r.first;
        const int64_t now = left < t->num ? left : t->num;

        err = dg_agree(c, run_round(t, now, &r));
        if (!err)
            err = give_round(t, c);
        r.first += now;
    }
    return err;
}

/* The same where a round's sums leave during its items. */
static int rounds_beside(Team *t, const Comm *c, int64_t num, TeamFn fn,
                         void *user)
{
    Round r = { fn, user, 0 };
    int64_t rounds = num;
    int err = DG_OK;

    dg_comm_max_i64(c, &rounds, 1);
    for (; r.first < rounds && !err; r.first++) {
        const int64_t now = r.first < num;

        err = dg_buckets_run(t->buckets, now, run_one, &r);
        err = t->sums->sent(c, err, r.first + 1 == rounds);
    }
    return err ? err : dg_exact_count(c, &t->workers[0].sum);
}

static int sum(Team *t, const Comm *c, int64_t num, TeamFn fn, void *user)
{
    const int rounds = dg_shard_rounds(&t->shard);

    if (dg_buckets_open(t->buckets, c))
        return rounds ? rounds_beside(t, c, num, fn, user)
                      : sum_beside(t, c, num, fn, user);
    return rounds ? sum_in_rounds(t, c, num, fn, user)
                  : sum_whole(t, c, num, fn, user);
}

int dg_team_sum(Team *t, const Comm *c, int64_t num, TeamFn fn, void *user)
{
    const int rounds = dg_shard_rounds(&t->shard);
    int err;

    for (int i = 0; i < (rounds ? 1 : t->num); i++)
        t->sums->exact_clear(&t->workers[i].sum);
    for (int i = 0; i < t->num; i++)
        t->workers[i].ready = 0;
    err = sum(t, c, num, fn, user);
    if (!err)
        dg_buckets_learn(t->buckets, c);
    return err;
}

ExactSum dg_team_own(const Team *t)
{
    const ExactSum *s = &t->workers[0].sum;
    ExactSum own = dg_exact_part(
        s, dg_shard_rounds(&t->shard) ? 0 : t->shard.first, t->shard.num);

    own.items = s->items;
    return own;
}
