#include "weights/load.h"

#include "base/error.h"
#include "weights/snapshot.h"

/* By this rank alone. */
static int read_values(const LoadOpts *o, int64_t first, int64_t num,
                       float *values)
{
    WeightSource *source;
    WeightPlan *plan = NULL;
    int err = dg_snapshot_open(&source, o->path, o->variant);

    if (err)
        return err;
    err = dg_manifest_plan(&plan, source, o->wants, o->num_wants, o->manifest);
    if (!err && num > 0)
        err = dg_source_verify(source);
    if (!err)
        err = dg_manifest_fill(plan, first, num, values);
    dg_manifest_free(plan);
    dg_source_close(source);
    return err;
}

int dg_load_values(const Comm *c, const LoadOpts *o, int64_t first, int64_t num,
                   float *values)
{
    int err = DG_OK;

    if (c->node_rank == 0)
        err = read_values(o, first, num, values);
    err = dg_agree(c, err);
    if (!err && !o->together)
        dg_comm_node_bcast(c, values, (size_t)num * sizeof *values, 0);
    return err;
}
