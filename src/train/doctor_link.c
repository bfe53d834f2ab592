/* What goes between ranks: sums, broadcasts, messages of known content. */
#include "base/clock.h"
#include "base/error.h"
#include "doctor_internal.h"
#include "train/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMES = 5, EVERYBODY = -1 };

/* elements that are summed: of the host, and one step more of devices */
static const int64_t sizes[DG_DOCTOR_SIZES] = { 1 << 7, 1 << 14, 1 << 20,
                                                1 << 22 };
enum { SMALL = 1 << 14 };

typedef struct Link {
    const Comm *c;
    const Backend *on;
    const Engine *engine;
    DoctorPlace *places;
    Mirror v;
    int whole;     /* integers */
    int by_device; /* the last sum went by the devices' link */
} Link;

/* --- known content ---------------------------------------------------------- */

/* How much a rank gives of it, and all of them. */
enum { WEIGHTS = 64 };

static int64_t weight(int rank)
{
    return rank % WEIGHTS + 1;
}

static int64_t all_weights(int size)
{
    const int64_t turns = size / WEIGHTS, rest = size % WEIGHTS;

    return turns * (WEIGHTS * (WEIGHTS + 1) / 2) + rest * (rest + 1) / 2;
}

/* Bits that differ all over, of which as many ranks as there are may be summed
 * without a wrap; as float32 small whole numbers, whose sums are exact. */
static int64_t pattern(int64_t i, int whole, int size)
{
    const uint64_t mixed = (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
    int spare = 2;

    if (!whole)
        return (int64_t)(mixed >> 32) % 13 - 6;
    while ((int64_t)1 << (spare - 2) < all_weights(size))
        spare++;
    return (i % 2 == 0 ? 1 : -1) * (int64_t)(mixed >> spare);
}

static int64_t give(const Link *l, int64_t i, int only)
{
    const int gives = only == EVERYBODY || only == l->c->rank;

    return gives ? weight(l->c->rank) * pattern(i, l->whole, l->c->size) : 0;
}

static int64_t wanted(const Link *l, int64_t i, int only)
{
    const int size = l->c->size;

    return (only == EVERYBODY ? all_weights(size) : weight(only)) *
           pattern(i, l->whole, size);
}

static size_t bytes_of(const Link *l, int64_t num)
{
    return dg_exact_bytes(num, l->whole);
}

static void fill(const Link *l, int64_t num, int only)
{
    int64_t *whole = l->v.host;
    float *plain = l->v.host;

    for (int64_t i = 0; i < num; i++)
        if (l->whole)
            whole[i] = give(l, i, only);
        else
            plain[i] = (float)give(l, i, only);
    dg_kernel_upload(l->on, l->v.at, l->v.host, bytes_of(l, num));
}

/* to the host, waiting; where it is the host's already, nothing */
static int bring(const Link *l, int64_t num)
{
    return l->on->apart
               ? dg_kernel_download(l->on, l->v.host, l->v.at, bytes_of(l, num))
               : DG_OK;
}

static int check(const Link *l, int64_t num, int only, const char *what)
{
    const int64_t *whole = l->v.host;
    const float *plain = l->v.host;
    char host[DG_DOCTOR_HOST];

    dg_doctor_host(host);
    for (int64_t i = 0; i < num; i++) {
        const int64_t seen = l->whole ? whole[i] : (int64_t)plain[i];

        if (seen != wanted(l, i, only))
            return dg_fail(DG_EPROMISE,
                           "rank %d on %s gets a wrong %s of %lld %s by %s: "
                           "element %lld is %lld, must be %lld",
                           l->c->rank, host, what, (long long)num,
                           l->whole ? "integers" : "numbers",
                           l->by_device ? "the GPUs' link" : "MPI",
                           (long long)i, (long long)seen,
                           (long long)wanted(l, i, only));
    }
    return DG_OK;
}

/* --- collectives, as a team has them --------------------------------------------- */

/* root -1: to all. Where devices have no way of their own, by the host. */
static int sum(Link *l, int64_t num, int root)
{
    const Engine *e = l->engine;
    ExactSum s = { .fixed = l->whole ? l->v.at : NULL,
                   .plain = l->whole ? NULL : l->v.at,
                   .num = num,
                   .max_items = l->c->size };
    int done = 0, err = DG_OK;

    if (l->on->apart && root < 0 && e->exact_allreduce != NULL)
        err = e->exact_allreduce(l->c, &s, &done);
    if (l->on->apart && root >= 0 && e->exact_sum_to != NULL)
        err = e->exact_sum_to(l->c, &s, root, &done);
    l->by_device = done;
    if (err || done)
        return err;
    err = dg_agree(l->c, bring(l, num));
    if (err)
        return err;
    s.fixed = l->whole ? l->v.host : NULL;
    s.plain = l->whole ? NULL : l->v.host;
    if (root >= 0)
        dg_exact_sum_to(l->c, &s, root);
    else
        err = dg_exact_allreduce(l->c, &s);
    dg_kernel_upload(l->on, l->v.at, l->v.host, bytes_of(l, num));
    return err;
}

static int send_round(Link *l, int64_t num, int root)
{
    const size_t bytes = bytes_of(l, num);
    int done = 0, err = DG_OK;

    if (l->on->apart && l->engine->bcast != NULL)
        err = l->engine->bcast(l->c, l->v.at, bytes, root, &done);
    l->by_device = done;
    if (err || done)
        return err;
    dg_comm_bcast(l->c, l->v.host, bytes, root);
    dg_kernel_upload(l->on, l->v.at, l->v.host, bytes);
    return DG_OK;
}

/* --- sums ------------------------------------------------------------------------ */

/* What only one gives, or all do; agreed. */
static int sum_once(Link *l, int64_t num, int only, double *seconds)
{
    double began;
    int err;

    fill(l, num, only);
    err = dg_agree(l->c, bring(l, num)); /* what was queued is done */
    if (err)
        return err;
    dg_comm_barrier(l->c);
    began = dg_clock_now();
    err = sum(l, num, EVERYBODY);
    *seconds = dg_clock_now() - began;
    if (!err)
        err = bring(l, num);
    return dg_agree(l->c, err ? err : check(l, num, only, "sum"));
}

/* A sum was wrong: whose part of it? Each gives alone. */
static int blame(Link *l, int64_t num)
{
    const Error first = *dg_last_error();
    int wrong = 0, last = 0;
    char text[768];
    double unused;

    snprintf(text, sizeof text, "%.760s", first.text);
    for (int r = 0; r < l->c->size; r++) {
        const int err = sum_once(l, num, r, &unused);

        if (err && err != DG_EPROMISE)
            return err;
        wrong += err != DG_OK;
        last = err ? r : last;
    }
    if (wrong == 1)
        return dg_fail(DG_EPROMISE,
                       "%s; what rank %d on %s gives does not arrive", text,
                       last, l->places[last].host);
    return dg_fail(DG_EPROMISE,
                   "%s; where one rank gives and the others zeros, %d of %d "
                   "sums are wrong",
                   text, wrong, l->c->size);
}

static int try_sums(Link *l, DoctorLink *out)
{
    const int num_sizes = l->on->apart ? DG_DOCTOR_SIZES : DG_DOCTOR_SIZES - 1;
    int err = DG_OK;

    for (int k = 0; k < num_sizes && !err; k++) {
        double seconds[TIMES];

        for (int i = 0; i < TIMES && !err; i++)
            err = sum_once(l, sizes[k], EVERYBODY, &seconds[i]);
        if (err)
            return err == DG_EPROMISE ? blame(l, sizes[k]) : err;
        out->bytes[k] = (double)bytes_of(l, sizes[k]);
        out->seconds[k] = dg_bench_quantile(seconds, TIMES, 0.5);
        dg_comm_max_f64(l->c, &out->seconds[k], 1);
    }
    out->num = num_sizes;
    out->devices = l->by_device;
    return err;
}

static int sum_to_one(Link *l, int root)
{
    int err;

    fill(l, SMALL, EVERYBODY);
    err = sum(l, SMALL, root);
    if (!err)
        err = bring(l, SMALL);
    if (!err && l->c->rank == root)
        err = check(l, SMALL, EVERYBODY, "sum");
    return dg_agree(l->c, err);
}

/* root's part, to all */
static int from_one(Link *l, int root)
{
    char text[512];
    int err;

    fill(l, SMALL, root);
    err = dg_agree(l->c, bring(l, SMALL));
    if (!err)
        err = send_round(l, SMALL, root);
    if (!err)
        err = bring(l, SMALL);
    if (!err && check(l, SMALL, root, "broadcast")) {
        snprintf(text, sizeof text, "%.500s", dg_last_error()->text);
        err = dg_fail(DG_EPROMISE, "%s; it comes from rank %d on %s", text,
                      root, l->places[root].host);
    }
    return dg_agree(l->c, err);
}

/* A block of each rank to all. */
static int gather(Link *l)
{
    enum { EACH = 128 };
    const Comm *c = l->c;
    int64_t mine[EACH], *all = malloc(sizeof mine * (size_t)c->size);
    int err = dg_agree(
        c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: a gathering"));

    for (int i = 0; i < EACH; i++)
        mine[i] = weight(c->rank) * pattern(i, 1, c->size);
    if (!err)
        dg_comm_allgather(c, all, mine, sizeof mine);
    for (int64_t i = 0; i < (int64_t)EACH * c->size && !err; i++)
        if (all[i] != weight((int)(i / EACH)) * pattern(i % EACH, 1, c->size)) {
            char host[DG_DOCTOR_HOST];

            dg_doctor_host(host);
            err = dg_fail(DG_EPROMISE,
                          "rank %d on %s gathers other numbers of rank %d on "
                          "%s than those it has",
                          c->rank, host, (int)(i / EACH),
                          l->places[i / EACH].host);
        }
    free(all);
    return dg_agree(c, err);
}

/* --- messages -------------------------------------------------------------------- */

enum { MESSAGE = 1 << 19 }; /* elements of 8 bytes */

/* from's pattern to 'to', and how fast it was at best. */
static int pass(const Link *l, int64_t *v, int from, int to, double *rate)
{
    const Comm *c = l->c;
    double best = 0;
    int err = DG_OK;

    for (int i = 0; i < TIMES && !err; i++) {
        double began;

        for (int64_t k = 0; k < MESSAGE; k++)
            v[k] = c->rank == from ? pattern(k + from, 1, 1) : 0;
        dg_comm_barrier(c);
        began = dg_clock_now();
        dg_comm_pass(c, v, sizeof *v * MESSAGE, from, to);
        began = dg_clock_now() - began;
        for (int64_t k = 0; k < MESSAGE && c->rank == to && !err; k++)
            if (v[k] != pattern(k + from, 1, 1))
                err =
                    dg_fail(DG_EPROMISE,
                            "rank %d on %s gets wrong bytes of rank %d on %s",
                            to, l->places[to].host, from, l->places[from].host);
        err = dg_agree(c, err);
        if (c->rank == to && began > 0 &&
            (double)sizeof *v * MESSAGE / began > best)
            best = (double)sizeof *v * MESSAGE / began;
    }
    dg_comm_max_f64(c, &best, 1);
    *rate = best;
    return err;
}

/* The next rank of the same node, or the first rank of the next one; from
 * itself where there is none. */
static int neighbour(const Link *l, int from, int within)
{
    const int32_t node = l->places[from].node;

    for (int i = 1; i < l->c->size; i++) {
        const int to = (from + i) % l->c->size;
        const int same = l->places[to].node == node;

        if (within ? same : !same && l->places[to].node == to)
            return to;
    }
    return from;
}

/* Each rank to its neighbour on its node, or each node's first to the next's. */
static int try_messages(const Link *l, int within, double *median,
                        double *least, int pair[2])
{
    const int size = l->c->size;
    int64_t *v = malloc(sizeof *v * MESSAGE);
    double *rates = malloc(sizeof *rates * (size_t)size);
    int num = 0;
    int err = dg_agree(l->c, v != NULL && rates != NULL
                                 ? DG_OK
                                 : dg_fail(DG_ENOMEM, "doctor: messages"));

    *least = 0;
    for (int r = 0; r < size && !err; r++) {
        const int to = neighbour(l, r, within);

        if (to == r || (!within && l->places[r].node != r))
            continue;
        err = pass(l, v, r, to, &rates[num]);
        if (num == 0 || rates[num] < *least) {
            *least = rates[num];
            pair[0] = r;
            pair[1] = to;
        }
        num++;
    }
    *median = num > 0 && !err ? dg_bench_quantile(rates, num, 0.5) : 0;
    free(rates);
    free(v);
    return err;
}

static int try_link(Link *l, DoctorLink *out)
{
    int err = try_sums(l, out);

    for (int r = 0; r < l->c->size && !err; r++) {
        err = sum_to_one(l, r);
        if (!err)
            err = from_one(l, r);
    }
    if (!err)
        err = gather(l);
    if (!err)
        err = try_messages(l, 1, &out->within, &out->within_least,
                           out->within_pair);
    if (!err)
        err = try_messages(l, 0, &out->between, &out->between_least,
                           out->between_pair);
    return err;
}

int dg_doctor_link(DoctorLink *out, const Session *s)
{
    Link l = { .c = s->comm,
               .on = s->backend,
               .engine = dg_engine_of(s->backend),
               .whole = s->config->parallel.exact_sum };
    int err = DG_OK;

    *out = (DoctorLink) { .whole = l.whole };
    if (l.c->size == 1)
        return DG_OK;
    err = dg_doctor_places(&l.places, l.c);
    if (err)
        return err;
    err = dg_agree(
        l.c, dg_mirror_new(&l.v, l.on, sizeof(int64_t) << 22, "doctor: a sum"));
    if (!err)
        err = try_link(&l, out);
    dg_mirror_free(&l.v);
    free(l.places);
    return err;
}
