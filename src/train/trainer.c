/* DanceGRPO, Algorithm 1. */
#include "trainer.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "train/setup.h"
#include "train/witness.h"

#include <string.h>

static int due(int64_t every, int64_t iteration)
{
    return every > 0 && iteration % every == 0;
}

/* The first note of any rank, once, on rank 0's log, with more behind it; with
 * on_nan = stop it ends the run. */
static int tell_note(const Trainer *t, const char *note, int64_t item,
                     const char *more)
{
    const Session *s = t->session;
    int64_t first = note[0] != '\0' ? item : t->rollout->N;
    char text[512];

    dg_comm_min_i64(s->comm, &first, 1);
    if (first == t->rollout->N)
        return DG_OK;
    memcpy(text, note, sizeof text);
    dg_comm_bcast(s->comm, text, sizeof text,
                  dg_share_owner(t->rollout->N, s->comm->size, first));
    if (s->config->run.on_nan == DG_NAN_STOP)
        return dg_fail(DG_ENUMERIC, "%s%s (run.on_nan = \"stop\")", text, more);
    dg_warn("%s%s", text, more);
    return DG_OK;
}

/* After a rollout that ended with err, which what is beside it does not
 * outlive. */
static int score(Scoring *s, Team *team, int err)
{
    const Error first = *dg_last_error();

    if (err && s->beside == NULL)
        return err;
    if (!err)
        return dg_rollout_score(s, team);
    dg_rollout_score(s, team);
    dg_set_error(&first);
    return err;
}

int dg_trainer_experience(Trainer *t)
{
    const Session *s = t->session;
    Rollout *r = t->rollout;
    Scoring scoring = {
        r,           t->policy,
        &t->prompts, t->rewards,
        t->beside,   due(s->config->trajectory.every, t->iteration + 1)
    };
    double at = dg_clock_now(), now;
    char missing[256];
    int err = dg_rollout_begin(r, s, t->prompts.num, t->iteration);

    if (err)
        return err;
    dg_progress_start("rollout", r->num);
    dg_rollout_score_beside(&scoring);
    err = dg_rollout_encode(r, t->team, t->policy, &t->prompts);
    err = dg_agree(s->comm, err); /* weights may be all ranks' together */
    if (!err)
        err = dg_rollout_sample(r, s, t->team, t->policy);
    dg_progress_end();
    t->phases.rollout = (now = dg_clock_now()) - at;
    at = now;
    err = dg_agree(s->comm, score(&scoring, t->team, err));
    if (err)
        return err;
    dg_rollout_share(r, s->comm);
    dg_rewards_tell(t->rewards, r->K, s->comm, t->restarts);
    t->phases.reward = dg_clock_now() - at;
    dg_rewards_count_missing(missing, sizeof missing, t->rewards, r->K,
                             r->scores, r->N, r->K);
    err = tell_note(t, r->note, r->note_item, missing);
    return err ? err : dg_update_prepare(t->update, s, r);
}

static int learn(Trainer *t)
{
    const UpdateJob job = dg_trainer_update(t);
    const double at = dg_clock_now();
    int err;

    dg_progress_start("update", t->update->num_local * t->update->epochs);
    err = dg_update_run(&job, &t->stats);
    dg_progress_end();
    t->phases.update = dg_clock_now() - at;
    if (!err)
        err = tell_note(t, t->update->note, t->update->note_item, "");
    return err;
}

/* What is written after an iteration, the checkpoint last: one that is there
 * vouches for the iteration's metrics, trajectory and pictures. Beside, the
 * trajectory file follows the metrics: those that no checkpoint vouches for are
 * made again. A stop has no pictures of its own: who stops a run may leave it a
 * minute, and the run never stopped has none there either. */
static int keep(Trainer *t)
{
    const Config *c = t->session->config;
    int err = DG_OK;

    if (due(c->trajectory.every, t->iteration))
        err = dg_trainer_keep_trajectory(t);
    if (!err && (t->iteration == c->run.iterations ||
                 due(c->report.every, t->iteration)))
        err = dg_trainer_write_pictures(t);
    return err;
}

static int keep_checkpoint(Trainer *t, int last)
{
    const int wanted =
        last || due(t->session->config->checkpoint.every, t->iteration);
    const double at = dg_clock_now();
    int err = DG_OK;

    t->checkpoint_s = 0;
    if (wanted)
        t->saved = t->iteration;
    if (wanted)
        err =
            dg_agree(t->session->comm,
                     t->metrics != NULL ? dg_metrics_sync(t->metrics) : DG_OK);
    if (err)
        return err;
    if (t->files != NULL) {
        dg_trainer_start_files(t, wanted);
        return last ? dg_trainer_wait_files(t) : DG_OK;
    }
    if (wanted) {
        err = dg_learner_save(t->learner, t->session, t->dir.checkpoints,
                              t->iteration);
        t->checkpoint_s = dg_clock_now() - at;
    }
    return err;
}

/* Once what stands above is safe, or on its way: an evaluation that is given up
 * for a stop is made up for by the next start. saved: the iteration has a
 * checkpoint. */
static int evaluate(Trainer *t, int saved, int *stop)
{
    int err;

    if (!dg_trainer_heldout_due(t))
        return DG_OK;
    t->owed = 1;
    if (*stop)
        return DG_OK;
    err = dg_trainer_evaluate(t, t->session->config->run.max_seconds);
    if (err || !t->owed)
        return err;
    *stop = 1;
    err = dg_trainer_wait_files(t);
    return err || saved ? err : keep_checkpoint(t, 1);
}

/* The iteration is not done, and what was before it has a checkpoint: a later
 * start has it anew, by a reward that was mended. */
static int check_scores(Trainer *t)
{
    const int err = dg_trainer_check_scores(t);
    Error why;

    if (!err)
        return DG_OK;
    why = *dg_last_error();
    if (t->saved < t->iteration && keep_checkpoint(t, 1) != DG_OK)
        return dg_last_error()->code;
    dg_set_error(&why);
    return err;
}

static int iterate(Trainer *t, int *stop)
{
    const Config *c = t->session->config;
    const double began = dg_clock_now();
    double at;
    int last, err;

    t->team->traffic = (Traffic) { 0, 0 };
    t->learner->spread = 0;
    err = dg_trainer_experience(t);
    /* nothing of what files are written from has changed until here */
    if (!err)
        err = dg_trainer_wait_files(t);
    if (!err)
        err = check_scores(t);
    if (!err)
        err = dg_agree(t->session->comm, dg_trainer_remember(t));
    if (!err && dg_witness_wanted(t->session, t->iteration))
        err = dg_witness_run(t->rollout, t->session, t->team, t->policy);
    if (!err)
        err = learn(t);
    if (err)
        return err;
    if (due(c->optim.ema_every, t->iteration + 1))
        err = dg_agree(t->session->comm, dg_learner_average(t->learner));
    if (err)
        return err;
    /* what pictures cost below is not the iteration's */
    t->flops = (double)dg_team_take_flops(t->team);
    if (t->beside != NULL)
        t->flops += (double)dg_beside_take_flops(t->beside);
    t->traffic = t->team->traffic;
    t->traffic.weights += t->learner->spread;
    t->iteration++;
    *stop = dg_stop_wanted(t->session->comm, c->run.max_seconds);
    last = *stop || t->iteration == c->run.iterations;
    at = dg_clock_now();
    err = keep(t);
    t->phases.io = dg_clock_now() - at + t->phases.waiting + t->checkpoint_s;
    t->phases.total = dg_clock_now() - began + t->checkpoint_s;
    err = err ? err : dg_agree(t->session->comm, dg_trainer_report(t));
    t->phases.writing = t->phases.waiting = 0; /* told */
    if (!err)
        err = keep_checkpoint(t, last);
    return err ? err
               : evaluate(t, last || due(c->checkpoint.every, t->iteration),
                          stop);
}

/* Conditions of a cache are of the text encoders of policy.weights, with which it
 * was compared; those of the checkpoint take their place. */
static int resume_learner(Trainer *t, int *found)
{
    const Session *s = t->session;
    const int reads = t->cache != NULL && t->policy->adapters.num_params == 0;
    uint64_t before = 0, after = 0;
    int err = DG_OK;

    if (reads)
        err = dg_learner_text_digest(t->learner, s->comm, &before);
    if (!err)
        err = dg_learner_resume(t->learner, s, t->dir.checkpoints,
                                &t->iteration, found);
    if (err || !reads || !*found)
        return err;
    err = dg_learner_text_digest(t->learner, s->comm, &after);
    return err || before == after
               ? err
               : dg_fail(DG_EINVAL,
                         "prompts.cache = \"%s\": it was made by other text "
                         "encoders than the run has, whose checkpoints hold "
                         "them: are policy.weights those that it began with?",
                         s->config->prompts.cache);
}

/* stop: asked for while all was read and reserved, which takes long where
 * networks are large; an iteration on top may not be waited for. */
static int resume(Trainer *t, int *stop)
{
    const Session *s = t->session;
    int found = 0, err;

    dg_trainer_keep_unscored(t);
    err = dg_trainer_note_frozen(t);
    if (!err)
        err = resume_learner(t, &found);
    if (!err && s->comm->rank == 0)
        err = dg_metrics_open(&t->metrics, t->dir.metrics, t->iteration);
    err = dg_agree(s->comm, err);
    if (!err)
        err = dg_trainer_heldout_owed(t);
    if (!err && found)
        dg_setup_tell_resumed("iteration", "run.iterations", t->iteration,
                              s->config->run.iterations + t->owed);
    *stop = !err && dg_stop_wanted(s->comm, 0);
    if (!err && !*stop && t->iteration == 0)
        err = dg_trainer_write_pictures(t);
    t->resumed = t->saved = t->iteration;
    if (!err && !*stop && t->owed) {
        err = dg_trainer_evaluate(t, 0);
        *stop = t->owed;
    }
    t->started = dg_clock_now();
    return err;
}

int dg_train(const Session *s, RunEnd *end)
{
    Trainer t = { .session = s };
    int stop = 0;
    int err = dg_setup_rundir(s, &t.dir, "train");

    *end = DG_RUN_DONE;
    if (!err)
        err = dg_trainer_build(&t, s);
    if (!err)
        err = dg_trainer_open_files(&t);
    if (!err)
        err = dg_rewards_start(t.rewards, s->config, s->config->num_rewards,
                               s->comm, dg_stop_asked);
    if (!err)
        err = resume(&t, &stop);
    while (!err && !stop && t.iteration < s->config->run.iterations)
        err = iterate(&t, &stop);
    if (!err && (t.iteration < s->config->run.iterations || t.owed))
        *end = t.iteration > t.resumed ? DG_RUN_STOPPED : DG_RUN_NOT_BEGUN;
    dg_trainer_close(&t);
    return err;
}

int dg_train_check(const Session *s)
{
    Trainer t = { .session = s };
    int err = dg_setup_look_rundir(s, "train");

    if (!err)
        err = dg_trainer_build(&t, s);
    dg_trainer_close(&t);
    return err;
}
