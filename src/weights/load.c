#include "weights/load.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/value_digest.h"
#include "weights/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK =
        1 << 18, /* values that are still in a cache when they are digested */
    HOST = 64,
    NAMED = 4 /* hosts in a message */
};

/* Files that this rank has open, and what is read of them. */
typedef struct Opened {
    WeightSource *source;
    WeightPlan *plan;
} Opened;

static int open_files(Opened *f, const LoadOpts *o)
{
    const int err = dg_snapshot_open(&f->source, o->path, o->variant);

    return err ? err
               : dg_manifest_plan(&f->plan, f->source, o->wants, o->num_wants,
                                  o->manifest);
}

static void close_files(Opened *f)
{
    dg_manifest_free(f->plan);
    dg_source_close(f->source);
}

/* As dg_agree(); what is wrong with a file is told by the first rank of its node,
 * whosever part it is in. */
static int agree(const Comm *c, int err)
{
    for (int r = 0; r < c->node_size; r++) {
        Error e = { .code = DG_OK };

        if (r == c->node_rank && err)
            e = *dg_last_error();
        dg_comm_node_bcast(c, &e, sizeof e, r);
        if (e.code == DG_OK)
            continue;
        dg_set_error(&e);
        err = e.code;
        break;
    }
    return dg_agree(c, err);
}

/* 1: all ranks have opened what the first of their node has. err: this rank's. */
static int see_the_same(const Comm *c, const Opened *f, int err)
{
    const uint64_t mine = err ? 0 : dg_source_stamp(f->source);
    uint64_t first = mine;
    int64_t same;

    dg_comm_node_bcast(c, &first, sizeof first, 0);
    same = !err && mine == first;
    dg_comm_min_i64(c, &same, 1);
    return (int)same;
}

/* --- nodes ----------------------------------------------------------------- */

/* What a rank has read; values that several have are one's. */
typedef struct PartRead {
    uint64_t digest;
    int node; /* the lowest rank there */
    char host[HOST];
} PartRead;

/* Of all parts of a node. */
static uint64_t digest_of(const PartRead *all, int size, int node)
{
    uint64_t sum = 0;

    for (int r = 0; r < size; r++)
        if (all[r].node == node)
            sum += all[r].digest;
    return sum;
}

/* Whose digest is another than that of rank 0's node, in text; returns their
 * number. */
static int name_others(char *text, size_t bytes, const PartRead *all, int size)
{
    const uint64_t first = digest_of(all, size, 0);
    int num = 0;

    text[0] = '\0';
    for (int r = 0; r < size; r++) {
        const size_t used = strlen(text);

        if (all[r].node != r || digest_of(all, size, r) == first)
            continue;
        if (num++ < NAMED)
            snprintf(text + used, bytes - used, "%s%s (rank %d)",
                     num > 1 ? ", " : "", all[r].host, r);
    }
    if (num > NAMED)
        snprintf(text + strlen(text), bytes - strlen(text), " and %d more",
                 num - NAMED);
    return num;
}

/* mine: of what this rank alone has looked at. *digest: of all, out. */
static int compare(const Comm *c, const char *what, uint64_t mine,
                   uint64_t *digest)
{
    PartRead own = { .digest = mine, .node = c->rank };
    PartRead *all = calloc((size_t)c->size, sizeof *all);
    char others[NAMED * (HOST + 20) + 40];
    int err = dg_agree(
        c, all != NULL ? DG_OK
                       : dg_fail(DG_ENOMEM, "%s: %d digests", what, c->size));

    if (err)
        goto free_all;
    dg_comm_node_bcast(c, &own.node, sizeof own.node, 0);
    dg_comm_host(c, own.host, sizeof own.host);
    dg_comm_allgather(c, all, &own, sizeof own);
    if (name_others(others, sizeof others, all, c->size) > 0)
        err =
            dg_fail(DG_EINVAL,
                    "%s: other weights on %s than on %s (rank 0): must be the "
                    "same files on all hosts",
                    what, others, all[0].host);
    else if (digest != NULL)
        *digest = digest_of(all, c->size, 0);
free_all:
    free(all);
    return err;
}

int dg_load_compare(const Comm *c, const char *what, int64_t num,
                    const float *values, uint64_t *digest)
{
    int64_t from, mine;

    dg_share_range(num, c->node_rank, c->node_size, &from, &mine);
    return compare(c, what, dg_value_digest(from, values + from, mine), digest);
}

/* --- values ------------------------------------------------------------------ */

/* Adds to *digest as it goes. */
static int fill_part(const Opened *f, int64_t first, int64_t num, float *values,
                     uint64_t *digest)
{
    int err = DG_OK;

    dg_memory_take(values, sizeof *values * (size_t)num);
    for (int64_t k = 0; k < num && !err; k += CHUNK) {
        const int64_t n = num - k < CHUNK ? num - k : CHUNK;

        err = dg_manifest_fill(f->plan, first + k, n, values + k);
        if (!err)
            *digest += dg_value_digest(first + k, values + k, n);
    }
    return err;
}

/* Part of so many of the values first .. first+num-1, each once on a node.
 * *digest: of this rank's, out. */
static int fill(const Opened *f, const Comm *c, int parts, int64_t first,
                int64_t num, float *values, uint64_t *digest)
{
    const int part = c->node_rank;
    int64_t from = 0, mine = 0;
    int err = DG_OK;

    *digest = 0;

    if (part < parts)
        err = dg_source_verify_part(f->source, part, parts);
    err = agree(c, err);
    if (err)
        return err;
    if (part < parts) {
        dg_share_range(num, part, parts, &from, &mine);
        err = fill_part(f, first + from, mine, values + from, digest);
    }
    return agree(c, err);
}

/* Every rank gets what the others of its node have read. */
static void exchange(const Comm *c, int parts, int64_t num, float *values)
{
    for (int r = 0; r < parts; r++) {
        int64_t from, n;

        dg_share_range(num, r, parts, &from, &n);
        dg_comm_node_bcast(c, values + from, sizeof *values * (size_t)n, r);
    }
}

int dg_load_values(const Comm *c, const LoadOpts *o, int64_t first, int64_t num,
                   float *values)
{
    Opened f = { 0 };
    uint64_t digest;
    int err = DG_OK, bad, parts = 1;

    if (c->node_rank == 0 || num > 0)
        err = open_files(&f, o);
    /* what others cannot open is read by the first */
    bad = dg_agree(c, c->node_rank == 0 ? err : DG_OK);
    if (!bad && num > 0) {
        if (see_the_same(c, &f, err))
            parts = c->node_size;
        else
            dg_info("%s: read by one rank of each node, since others do not "
                    "see the same files there",
                    o->path);
        dg_clear_error();
        bad = fill(&f, c, parts, first, num, values, &digest);
        if (!bad)
            bad = compare(c, o->path, digest, o->digest);
        if (!bad && !o->together)
            exchange(c, parts, num, values);
    }
    close_files(&f);
    return bad;
}
