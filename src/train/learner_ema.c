/* The average of the weights, where the state is or on the host apart from it. */
#include "learner_internal.h"

#include "base/error.h"
#include "optim/ema.h"

#include <omp.h>
#include <string.h>

/* Elements that a thread takes at once. */
enum { STRIDE = 1 << 16 };

static double decay(const Learner *l)
{
    return dg_ema_decay(l->optim.ema_decay, l->optim.ema_ramp, l->updates);
}

/* A part of the weights, of bytes from 'at' on, by all the host's threads. */
static int follow(void *user, const void *part, size_t at, size_t bytes)
{
    const Learner *l = user;
    const int64_t num = (int64_t)(bytes / sizeof(float));
    const float *w = part;
    float *ema = l->ema + at / sizeof(float);
    const double by = decay(l);

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < num; i += STRIDE)
        dg_ema_update(ema + i, w + i, num - i < STRIDE ? num - i : STRIDE, by);
    return DG_OK;
}

int dg_learner_average(Learner *l)
{
    const int64_t num = l->place.shard.num;
    int err;

    if (l->ema == NULL)
        return DG_OK;
    if (!l->place.ema_apart) {
        l->engine->ema(l->ema, dg_learner_own(l), num, decay(l));
        return DG_OK;
    }
    if (l->place.host_threads > 1)
        omp_set_num_threads(l->place.host_threads);
    err = dg_learner_on(l)->drain(dg_learner_own(l),
                                  sizeof(float) * (size_t)num, follow, l);
    omp_set_num_threads(1); /* as dg_team_create() left it */
    return err;
}

/* Piece by piece through the stage. */
static int swap_apart(const Learner *l)
{
    const Backend *on = dg_learner_on(l);
    int err = DG_OK;

    for (int64_t at = 0; at < l->place.shard.num && !err;) {
        const int64_t num = dg_learner_piece(&l->place, at);
        const size_t bytes = sizeof(float) * (size_t)num;
        float *w = dg_learner_own(l) + at;

        err = on->download(l->stage, w, bytes);
        if (!err) {
            on->upload(w, l->ema + at, bytes);
            memcpy(l->ema + at, l->stage, bytes);
        }
        at += num;
    }
    return err;
}

int dg_learner_swap_ema(Learner *l)
{
    int err = DG_OK;

    if (l->ema == NULL)
        return DG_OK;
    if (!l->place.ema_apart)
        l->engine->swap(dg_learner_own(l), l->ema, l->place.shard.num);
    else
        err = swap_apart(l);
    if (l->place.ema_apart && dg_shard_split(&l->place.shard))
        err = dg_agree(l->place.shard.comm, err);
    return err ? err : dg_learner_spread(l);
}
