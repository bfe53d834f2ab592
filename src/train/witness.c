#include "train/witness.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What goes from rank to rank ahead of the numbers. */
typedef struct Note {
    int64_t item, prompt;
    int32_t rank, step;
    float log_prob; /* of a stochastic step */
    int32_t there;  /* 0: this rank has nothing to show */
} Note;

/* What a rank has found of the one before it. */
typedef struct Finding {
    Note note;
    int32_t differs;
    char host[64];
    char what[160]; /* in which number */
} Finding;

/* A sample's numbers begin where kernels read as fast as from its own place,
 * and so choose the same way. */
enum { ALIGN = 64 };

/* elements from the beginning: condition, latent, the next one that the step
 * leads to here, side by side as in a trajectory; what it led to there; and room
 * for a latent that nobody wants */
typedef struct Places {
    int64_t z, next, theirs, unused, all;
} Places;

static int64_t aligned(int64_t num)
{
    return (num + ALIGN - 1) / ALIGN * ALIGN;
}

static Places places(int64_t condition, int64_t D)
{
    Places p = { .z = aligned(condition) };

    p.next = p.z + D;
    p.theirs = aligned(p.next + D);
    p.unused = p.theirs + aligned(D);
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
    const size_t bytes = sizeof(float) * (size_t)at.all;

    if (c->run.witness_every == 0 || num_ranks < 2)
        return DG_OK;
    r->bytes += bytes;
    r->witness.bytes = bytes;
    if (!r->outline && dg_mirror_new(&r->witness, p->on, bytes, "a witness"))
        return dg_fail(DG_ENOMEM,
                       "run.witness_every: %zu bytes for another rank's sample",
                       bytes);
    return DG_OK;
}

/* --- what is shown --------------------------------------------------------- */

/* What a rank shows, in its rollout's own place on the host. */
typedef struct Shown {
    Note note;
    float *condition, *latents; /* the two of a step */
} Shown;

/* The turn-th of the steps that need nothing but their own latent: those of
 * second order do not come round. */
static int step_of(const Rollout *r, int64_t turn)
{
    int alone[r->T], num = 1;

    alone[0] = 0;
    for (int i = 1; i < r->T; i++)
        if (!r->steps[i].multistep)
            alone[num++] = i;
    return alone[turn % num];
}

/* One of this rank's samples, step and iteration by iteration another. */
static int show(Shown *out, const Rollout *r, const Session *s, const Policy *p)
{
    const int64_t turn = r->iteration / s->config->run.witness_every;
    const int64_t C = p->shape.condition, D = r->D;
    const int step = step_of(r, turn);
    int64_t item, place;
    int err = DG_OK;

    memset(out, 0, sizeof *out);
    out->note.rank = s->comm->rank;
    out->note.step = step;
    if (r->num < 1)
        return DG_OK;
    place = turn / r->T % r->num;
    item = r->first + place;
    out->note.item = item;
    out->note.prompt = r->prompt[item / r->G];
    out->note.log_prob = r->log_prob[place * r->T + step];
    out->condition = r->conditions + (item / r->G - r->first_prompt) * C;
    out->latents = r->latents + (place * (r->T + 1) + step) * D;
    if (s->backend->apart)
        err = dg_kernel_download(s->backend, out->condition,
                                 dg_rollout_condition(r, p, item),
                                 sizeof(float) * (size_t)C);
    if (!err && s->backend->apart)
        err = dg_kernel_download(s->backend, out->latents,
                                 dg_rollout_latent(r, item, step),
                                 sizeof(float) * (size_t)(2 * D));
    out->note.there = !err;
    for (int64_t i = 0; i < 2 * D && !err; i++)
        out->note.there &= isfinite(out->latents[i]);
    return err;
}

/* --- what is seen ---------------------------------------------------------- */

typedef struct Look {
    Rollout *rollout;
    const Session *session;
    const Policy *policy;
    Note note;
    float log_prob; /* out */
} Look;

static int look(Worker *w, int64_t unused, void *user)
{
    Look *l = user;
    const Rollout *r = l->rollout;
    const Config *c = l->session->config;
    const Places at = places(l->policy->shape.condition, r->D);
    float *numbers = r->witness.at;
    const SamplingRun run = {
        .policy = l->policy,
        .steps = r->steps + l->note.step,
        .time = r->time + l->note.step,
        .guidance = dg_rollout_guidance(r, c),
        .num_steps = 1,
        .keep_all = 1,
        .decode = DG_DECODE_ZT,
        .begun = 1,
    };
    Sample sample = { .noise = dg_rollout_noise(r, c, l->note.item),
                      .condition = numbers,
                      .latents = numbers + at.z,
                      .log_prob = w->log_prob.at,
                      .final = numbers + at.unused };
    int err;

    (void)unused;
    dg_mirror_up(&r->witness);
    err = dg_sampling_run(w, &run, &sample, 1);
    if (!err)
        err = dg_mirror_down(&w->log_prob);
    if (!err)
        err = dg_mirror_down(&r->witness);
    l->log_prob = *(const float *)w->log_prob.host;
    return err;
}

/* The same bits: NaN is no answer. */
static int same(float x, float y)
{
    return memcmp(&x, &y, sizeof x) == 0;
}

static void judge(Finding *f, const Look *l)
{
    const Rollout *r = l->rollout;
    const Places at = places(l->policy->shape.condition, r->D);
    const float *mine = (const float *)r->witness.host + at.next;
    const float *theirs = (const float *)r->witness.host + at.theirs;
    int64_t i = 0;

    while (i < r->D && same(mine[i], theirs[i]))
        i++;
    f->differs = i < r->D;
    if (f->differs) {
        snprintf(f->what, sizeof f->what,
                 "element %lld of the next latent is %.9g there and %.9g here",
                 (long long)i, (double)theirs[i], (double)mine[i]);
    } else if (r->steps[f->note.step].stochastic &&
               !same(f->note.log_prob, l->log_prob)) {
        f->differs = 1;
        snprintf(f->what, sizeof f->what,
                 "the log-density is %.9g there and %.9g here",
                 (double)f->note.log_prob, (double)l->log_prob);
    }
}

/* What one rank after the other has found: of more than two, who differs from
 * both of its neighbours is the one to look at. */
static int tell(const Finding *all, int size, const Rollout *r)
{
    for (int i = 0; i < size; i++) {
        const Finding *f = &all[i], *before = &all[f->note.rank];
        const Finding *next = &all[(i + 1) % size];
        const char *at = f->host[0] != '\0' ? " on " : "";
        char who[64] = "one of both computes otherwise, or by other weights";

        if (!f->differs)
            continue;
        if (size > 2 && (before->differs || next->differs))
            snprintf(who, sizeof who,
                     "rank %d differs from both its neighbours",
                     before->differs ? f->note.rank : i);
        return dg_fail(DG_EPROMISE,
                       "iteration %lld: ranks do not compute the same: prompt "
                       "%lld, sample %lld, timestep %d of rank %d%s%s, seen by "
                       "rank %d%s%s: %s: %s",
                       (long long)r->iteration + 1, (long long)f->note.prompt,
                       (long long)(f->note.item % r->G), f->note.step,
                       f->note.rank, at, before->host, i, at, f->host, f->what,
                       who);
    }
    return DG_OK;
}

/* From the rank before, to where kernels get it. */
static void pass_on(Note *note, const Shown *mine, const Rollout *r,
                    const Comm *c, int64_t condition)
{
    const Places at = places(condition, r->D);
    const size_t C = sizeof(float) * (size_t)condition;
    const size_t D = sizeof(float) * (size_t)r->D;
    float *to = r->witness.host;

    dg_comm_ring(c, &mine->note, sizeof *note, note, sizeof *note);
    dg_comm_ring(c, mine->condition, mine->note.there ? C : 0, to,
                 note->there ? C : 0);
    dg_comm_ring(c, mine->latents, mine->note.there ? 2 * D : 0, to + at.z,
                 note->there ? 2 * D : 0);
    memcpy(to + at.theirs, to + at.next, D);
}

int dg_witness_run(Rollout *r, const Session *s, Team *team, const Policy *p)
{
    const Comm *c = s->comm;
    Look l = { .rollout = r, .session = s, .policy = p };
    Finding f, all[c->size];
    Shown mine;
    int err = dg_agree(c, show(&mine, r, s, p));

    if (err)
        return err;
    memset(&f, 0, sizeof f);
    pass_on(&f.note, &mine, r, c, p->shape.condition);
    l.note = f.note;
    err = dg_agree(c, dg_team_run(team, f.note.there ? 1 : 0, look, &l));
    if (err)
        return err;
    if (f.note.there)
        judge(&f, &l);
    dg_comm_host(c, f.host, sizeof f.host);
    dg_comm_allgather(c, all, &f, sizeof f);
    return tell(all, c->size, r);
}
