#include "train/witness.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What goes from rank to rank ahead of the numbers. */
typedef struct Note {
    int64_t prompt, sample;
    int32_t rank, step;
    float log_prob;
    int32_t there; /* 0: this rank has nothing to show */
} Note;

/* What a rank has found of the one before it. */
typedef struct Finding {
    Note note;
    float log_prob; /* its own */
    int32_t differs;
    char host[64];
} Finding;

/* A sample's numbers begin where kernels read as fast as from its own place,
 * and so choose the same way. */
enum { ALIGN = 64 };

/* elements from the beginning: condition, latent and the next one, side by side
 * as in a trajectory, and room for a latent that nobody wants */
typedef struct Places {
    int64_t z, next, unused, all;
} Places;

static int64_t aligned(int64_t num)
{
    return (num + ALIGN - 1) / ALIGN * ALIGN;
}

static Places places(int64_t condition, int64_t D)
{
    Places p = { .z = aligned(condition) };

    p.next = p.z + D;
    p.unused = aligned(p.next + D);
    p.all = p.unused + aligned(D);
    return p;
}

int dg_witness_wanted(const Session *s, int64_t iteration)
{
    const int64_t every = s->config->run.witness_every;

    return every > 0 && iteration % every == 0 && s->comm->size > 1 &&
           s->unlike == 0;
}

int dg_witness_reserve(Rollout *r, const Config *c, const Policy *p,
                       int num_ranks)
{
    const Places at = places(p->shape.condition, r->D);
    const size_t shown = sizeof(float) * (size_t)at.unused;
    const size_t bytes = sizeof(float) * (size_t)at.all;

    if (c->run.witness_every == 0 || num_ranks < 2)
        return DG_OK;
    r->bytes += shown + bytes;
    r->witness.bytes = bytes;
    if (r->outline)
        return DG_OK;
    r->shown = dg_memory_new(shown);
    if (r->shown == NULL ||
        dg_mirror_new(&r->witness, p->on, bytes, "another rank's sample"))
        return dg_fail(DG_ENOMEM,
                       "run.witness_every: %zu bytes for another rank's sample",
                       shown + bytes);
    return DG_OK;
}

/* --- what is shown --------------------------------------------------------- */

/* the turn-th stochastic step, counted around; -1: there is none */
static int choose_step(const Rollout *r, int64_t turn, int64_t *around)
{
    int stochastic[r->T], num = 0;

    for (int i = 0; i < r->T; i++)
        if (r->steps[i].stochastic)
            stochastic[num++] = i;
    *around = num > 0 ? turn / num : 0;
    return num > 0 ? stochastic[turn % num] : -1;
}

/* One of this rank's samples, step and iteration by iteration another. */
static int show(Note *note, Rollout *r, const Session *s, const Policy *p)
{
    const Places at = places(p->shape.condition, r->D);
    const size_t latents = sizeof(float) * (size_t)(2 * r->D);
    int64_t around;
    const int step =
        choose_step(r, r->iteration / s->config->run.witness_every, &around);
    int64_t item;
    int err;

    *note = (Note) { .rank = s->comm->rank, .step = step };
    if (step < 0 || r->num < 1)
        return DG_OK;
    item = r->first + around % r->num;
    note->prompt = r->prompt[item / r->G];
    note->sample = item % r->G;
    note->log_prob = r->log_prob[(item - r->first) * r->T + step];
    note->there = isfinite(note->log_prob);
    err = dg_kernel_download(s->backend, r->shown,
                             dg_rollout_condition(r, p, item),
                             sizeof(float) * (size_t)p->shape.condition);
    return err ? err
               : dg_kernel_download(s->backend, r->shown + at.z,
                                    dg_rollout_latent(r, item, step), latents);
}

/* --- what is seen ---------------------------------------------------------- */

typedef struct Look {
    Rollout *rollout;
    const Session *session;
    const Policy *policy;
    int step;
    float log_prob; /* out */
} Look;

static int look(Worker *w, int64_t unused, void *user)
{
    Look *l = user;
    const Rollout *r = l->rollout;
    const Places at = places(l->policy->shape.condition, r->D);
    float *numbers = r->witness.at;
    const SamplingRun run = {
        .policy = l->policy,
        .steps = r->steps + l->step,
        .time = r->time + l->step,
        .guidance = dg_rollout_guidance(r, l->session->config),
        .num_steps = 1,
        .keep_all = 1,
        .decode = DG_DECODE_ZT,
        .score_given = 1,
    };
    Sample sample = { .condition = numbers,
                      .latents = numbers + at.z,
                      .log_prob = w->log_prob.at,
                      .final = numbers + at.unused };
    int err;

    (void)unused;
    dg_mirror_up(&r->witness);
    err = dg_sampling_run(w, &run, &sample, 1);
    if (!err)
        err = dg_mirror_down(&w->log_prob);
    l->log_prob = sample.failed ? NAN : *(const float *)w->log_prob.host;
    return err;
}

/* The same bits, and NaN is no answer. */
static int same(float x, float y)
{
    return memcmp(&x, &y, sizeof x) == 0;
}

/* What one rank after the other has found: of more than two, who differs from
 * both of its neighbours is the one to look at. */
static int tell(const Finding *all, int size, int64_t iteration)
{
    for (int i = 0; i < size; i++) {
        const Finding *f = &all[i], *before = &all[f->note.rank];
        const Finding *next = &all[(i + 1) % size];
        const char *at = f->host[0] != '\0' ? " on host " : "";
        char who[64] = "one of both computes otherwise, or by other weights";

        if (!f->differs)
            continue;
        if (size > 2 && (before->differs || next->differs))
            snprintf(who, sizeof who,
                     "rank %d differs from both its neighbours",
                     before->differs ? f->note.rank : i);
        return dg_fail(DG_EPROMISE,
                       "iteration %lld: ranks do not compute the same: prompt "
                       "%lld, sample %lld, timestep %d has log-density %.9g by "
                       "rank %d%s%s and %.9g by rank %d%s%s: %s",
                       (long long)iteration + 1, (long long)f->note.prompt,
                       (long long)f->note.sample, f->note.step,
                       (double)f->note.log_prob, f->note.rank, at, before->host,
                       (double)f->log_prob, i, at, f->host, who);
    }
    return DG_OK;
}

static int compare(const Finding *mine, const Comm *c, int64_t iteration)
{
    Finding all[c->size];

    dg_comm_allgather(c, all, mine, sizeof *mine);
    return tell(all, c->size, iteration);
}

int dg_witness_run(Rollout *r, const Session *s, Team *team, const Policy *p)
{
    const Comm *c = s->comm;
    const Places at = places(p->shape.condition, r->D);
    Look l = { .rollout = r, .session = s, .policy = p };
    Finding f;
    Note note;
    int err = dg_agree(c, show(&note, r, s, p));

    if (err)
        return err;
    memset(&f, 0, sizeof f);
    dg_comm_ring(c, &note, &f.note, sizeof note);
    dg_comm_ring(c, r->shown, r->witness.host,
                 sizeof(float) * (size_t)at.unused);
    l.step = f.note.step;
    err = dg_agree(c, dg_team_run(team, f.note.there ? 1 : 0, look, &l));
    if (err)
        return err;
    f.log_prob = l.log_prob;
    f.differs = f.note.there && !same(f.log_prob, f.note.log_prob);
    dg_comm_host(c, f.host, sizeof f.host);
    return compare(&f, c, r->iteration);
}
