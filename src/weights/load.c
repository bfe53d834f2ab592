#include "weights/load.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "weights/snapshot.h"

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

/* Part of so many of the values first .. first+num-1, each once on a node. */
static int fill(const Opened *f, const Comm *c, int parts, int64_t first,
                int64_t num, float *values)
{
    const int part = c->node_rank;
    int64_t from = 0, mine = 0;
    int err = DG_OK;

    if (part < parts)
        err = dg_source_verify_part(f->source, part, parts);
    err = agree(c, err);
    if (err)
        return err;
    if (part < parts) {
        dg_share_range(num, part, parts, &from, &mine);
        dg_memory_take(values + from, sizeof *values * (size_t)mine);
        err = dg_manifest_fill(f->plan, first + from, mine, values + from);
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
        bad = fill(&f, c, parts, first, num, values);
        if (!bad && !o->together)
            exchange(c, parts, num, values);
    }
    close_files(&f);
    return bad;
}
