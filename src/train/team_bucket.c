/*
 * Sums that leave while the way back still runs.
 *
 * The gradient is cut into buckets. A rank's part of a sum is final, bucket by
 * bucket, where its last item's last way back adds nothing more; then it is
 * added to the sum and sent, beside the kernels that follow.
 *
 * When a bucket is final follows from how often a way back adds to it, and
 * all ways back of a run are alike: the first one on the first rank is
 * counted, and all ranks are told. They send the buckets in the order in
 * which that one was through with them, a rank without items too: what a rank
 * has not sent when its items are done it sends then. A way back that adds to
 * a bucket that has left would be a wrong sum: the program ends.
 */
#include "team_bucket.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

typedef enum BucketsMode {
    DG_BUCKETS_IDLE,
    DG_BUCKETS_COUNT, /* how often a way back adds to each */
    DG_BUCKETS_SEND
} BucketsMode;

struct Buckets {
    Team *team; /* borrowed */
    TapeFollower follower;
    int64_t size; /* elements of one */
    int num;
    int32_t *adds;  /* [num] of a way back, */
    int32_t *order; /* [num] in which it is through with them, */
    int known;      /* by all ranks: both */
    int counted;    /* here */
    int able;       /* devices sum on their own */
    int32_t *seen;  /* [num] adds of the way back in work, or the last one */
    char *gone;     /* [num] */
    BucketsMode mode;
    int open; /* they leave early in this sum */
    const Comm *comm;
    TeamFn fn;
    void *user;
    int64_t items, left; /* of a rank, and those not done */
    int next;            /* in order */
    int slot, slots;     /* of Team.bucket, where sums are not whole */
    int err;             /* of sending, the first */
};

static Worker *worker(const Buckets *b)
{
    return &b->team->workers[0];
}

/* --- counting -------------------------------------------------------------- */

static void count_adds(Buckets *b, int first, int last)
{
    for (int i = first; i <= last; i++) {
        b->adds[i]++;
        b->seen[i] = ++b->next;
    }
}

static void stop_counting(Buckets *b)
{
    b->mode = DG_BUCKETS_IDLE;
    b->counted = b->next > 0 && !dg_context_error(&worker(b)->ctx);
    if (!b->counted)
        return;
    /* by the last add to each: few buckets, once a run */
    for (int i = 0; i < b->num; i++) {
        int at = i;

        for (; at > 0 && b->seen[b->order[at - 1]] > b->seen[i]; at--)
            b->order[at] = b->order[at - 1];
        b->order[at] = i;
    }
}

void dg_buckets_learn(Buckets *b, const Comm *c)
{
    const size_t bytes = b != NULL ? sizeof *b->adds * (size_t)b->num : 0;

    if (b == NULL || !b->able || b->known)
        return;
    if (b->mode == DG_BUCKETS_COUNT)
        stop_counting(b);
    b->known = b->counted;
    dg_comm_bcast(c, &b->known, sizeof b->known, 0);
    if (!b->known)
        return;
    dg_comm_bcast(c, b->adds, bytes, 0);
    dg_comm_bcast(c, b->order, bytes, 0);
}

/* --- sending --------------------------------------------------------------- */

/* A bucket of a sum, from element first on, to who holds it. */
static int send_part(const Buckets *b, const ExactSum *part, int64_t first,
                     int slot)
{
    Team *t = b->team;
    const Shard *s = &t->shard;
    const int64_t end = first + part->num;
    ExactSend x = { .part = *part, .root = -1, .slot = slot };
    int err = DG_OK;

    t->traffic.sums += dg_exact_bytes(part->num, part->fixed != NULL);
    if (!dg_shard_split(s))
        return t->sums->send(b->comm, &x);
    for (int64_t at = first; at < end && !err;) {
        int64_t from, num;

        x.root = dg_shard_owner(s, at);
        dg_shard_range(s, x.root, &from, &num);
        num = (from + num < end ? from + num : end) - at;
        x.part = dg_exact_part(part, at - first, num);
        if (slot >= 0 && x.root == s->rank)
            x.into = dg_exact_part(&worker(b)->sum, at - s->first, num);
        else
            x.into.num = 0;
        err = t->sums->send(b->comm, &x);
        at += num;
    }
    return err;
}

/* The next bucket leaves; add: with this item's gradient. */
static void leave(Buckets *b, int add)
{
    Team *t = b->team;
    Worker *w = worker(b);
    const int i = b->order[b->next++];
    const int64_t first = i * b->size, left = t->num_grads - first;
    const int64_t num = left < b->size ? left : b->size;
    int slot = -1;
    ExactSum part;

    if (b->slots > 0) {
        slot = b->slot;
        b->slot = (b->slot + 1) % b->slots;
        t->sums->slot(slot);
        part = dg_exact_part(&t->bucket, slot * b->size, num);
        t->sums->exact_clear(&part);
    } else {
        part = dg_exact_part(&w->sum, first, num);
    }
    if (add)
        t->sums->exact_add_part(&part, w->grads + first, first, w->bad.at);
    b->gone[i] = 1;
    if (!b->err)
        b->err = send_part(b, &part, first, slot);
}

/* --- followed by the tape --------------------------------------------------- */

static void writes(void *user, const float *grad, int64_t count)
{
    Buckets *b = user;
    const int64_t at = grad - worker(b)->grads;
    const int first = (int)(at / b->size),
              last = (int)((at + count - 1) / b->size);

    if (b->mode == DG_BUCKETS_COUNT) {
        count_adds(b, first, last);
        return;
    }
    for (int i = first; i <= last; i++) {
        if (b->gone[i])
            dg_panic("the gradient of parameter values %lld and on grows after "
                     "it has left for other ranks (parallel.overlap)",
                     (long long)at);
        b->seen[i]++;
    }
}

static void stepped(void *user)
{
    Buckets *b = user;

    if (b->mode != DG_BUCKETS_SEND)
        return;
    while (b->next < b->num &&
           b->seen[b->order[b->next]] >= b->adds[b->order[b->next]]) {
        leave(b, 1);
        b->team->early++;
    }
}

void dg_team_pass(Worker *w, int last)
{
    Buckets *b = w->team->buckets;

    if (b == NULL || !b->able)
        return;
    if (b->mode == DG_BUCKETS_COUNT)
        stop_counting(b);
    w->ctx.follower = NULL;
    if (!b->known && !b->counted) {
        b->mode = DG_BUCKETS_COUNT;
        b->next = 0;
        memset(b->seen, 0, sizeof *b->seen * (size_t)b->num);
        w->ctx.follower = &b->follower;
    } else if (b->open && b->left == 1 && last) {
        b->mode = DG_BUCKETS_SEND;
        dg_worker_unflag(w);
        w->ctx.follower = &b->follower;
    }
}

/* --- a sum ----------------------------------------------------------------- */

int dg_buckets_open(Buckets *b, const Comm *c)
{
    if (b == NULL)
        return 0;
    b->able = c->size > 1 && b->team->sums->sends(c);
    b->open = b->able && b->known;
    b->comm = c;
    b->err = DG_OK;
    return b->open;
}

/* Items in their order: one worker. */
static int run_one(Worker *w, int64_t i, void *user)
{
    Buckets *b = user;

    b->left = b->items - i;
    return b->fn(w, i, b->user);
}

int dg_buckets_run(Buckets *b, int64_t num, TeamFn fn, void *user)
{
    int err;

    b->items = num;
    b->fn = fn;
    b->user = user;
    b->next = 0;
    memset(b->seen, 0, sizeof *b->seen * (size_t)b->num);
    memset(b->gone, 0, (size_t)b->num);
    err = dg_team_run(b->team, num, run_one, b);
    worker(b)->ctx.follower = NULL;
    b->mode = DG_BUCKETS_IDLE;
    while (b->next < b->num)
        leave(b, 0);
    return err ? err : b->err;
}

int dg_buckets_sending(const Buckets *b)
{
    return b != NULL && b->mode == DG_BUCKETS_SEND;
}

int dg_buckets_add(Buckets *b, int64_t *bad)
{
    Worker *w = worker(b);
    ExactSum whole = w->sum;
    int err;

    whole.num = b->team->num_grads;
    w->ctx.follower = NULL;
    b->mode = DG_BUCKETS_IDLE;
    while (b->next < b->num)
        leave(b, 1);
    err = dg_mirror_down(&w->bad);
    if (err)
        return err;
    if (*(const int64_t *)w->bad.host >= 0) /* once more, to name it */
        return w->engine->exact_check(&whole, w->grads, bad);
    if (bad != NULL)
        *bad = -1;
    if (w->sum.items >= w->sum.max_items)
        return dg_fail(
            DG_EINVAL, "gradient sum: %lld items, at most %lld were announced",
            (long long)w->sum.items + 1, (long long)w->sum.max_items);
    w->sum.items++;
    return DG_OK;
}

/* --- life ------------------------------------------------------------------ */

int dg_buckets_create(Buckets **out, Team *t, int64_t size)
{
    const int split = dg_shard_rounds(&t->shard);
    Buckets *b = calloc(1, sizeof *b);
    size_t num;

    if (b == NULL)
        return dg_fail(DG_ENOMEM, "buckets of gradient sums");
    b->team = t;
    b->follower = (TapeFollower) { writes, stepped, b };
    b->size = split && size > t->piece ? t->piece : size;
    b->num = (int)((t->num_grads + b->size - 1) / b->size);
    if (split)
        b->slots =
            (int)(t->piece / b->size < DG_ENGINE_SLOTS ? t->piece / b->size
                                                       : DG_ENGINE_SLOTS);
    num = (size_t)b->num;
    b->adds = calloc(num, sizeof *b->adds);
    b->order = calloc(num, sizeof *b->order);
    b->seen = calloc(num, sizeof *b->seen);
    b->gone = calloc(num, 1);
    *out = b;
    return b->adds && b->order && b->seen && b->gone
               ? DG_OK
               : dg_fail(DG_ENOMEM, "buckets of gradient sums");
}

void dg_buckets_destroy(Buckets *b)
{
    if (b == NULL)
        return;
    free(b->adds);
    free(b->order);
    free(b->seen);
    free(b->gone);
    free(b);
}
