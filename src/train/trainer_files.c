/*
 * Trajectory files and checkpoints, written beside the next iteration's rollout
 * (files.h). What is read for them stays until it is waited for: weights,
 * moments and EMA since they change in updates alone, trajectories since they
 * are set aside (dg_rollout_set_aside()).
 */
#include "trainer.h"

#include "base/error.h"
#include "files.h"

#include <stdlib.h>

struct TrainerFiles {
    const Trainer *trainer;
    Files *files;
    int64_t iteration;
    Trajectory *trajectory; /* the first file, or NULL; */
    int num;                /* of files, with the checkpoint */
};

/* By the thread. */
static int write_file(Worker *none, int64_t i, void *user)
{
    const TrainerFiles *f = user;
    const Trainer *t = f->trainer;
    const Session *s = dg_files_session(f->files);

    (void)none;
    return i == 0 && f->trajectory != NULL
               ? dg_trainer_write_trajectory(t, f->trajectory, s)
               : dg_learner_save(t->learner, s, t->dir.checkpoints,
                                 f->iteration);
}

int dg_trainer_open_files(Trainer *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    TrainerFiles *f;
    int err;

    if (!c->parallel.write_beside ||
        (c->trajectory.every == 0 && c->checkpoint.every == 0))
        return DG_OK;
    f = calloc(1, sizeof *f);
    err = dg_agree(s->comm, f != NULL ? DG_OK : dg_fail(DG_ENOMEM, "files"));
    if (!err)
        err = dg_files_open(&f->files, s, "iterations");
    if (err || f->files == NULL) {
        if (f != NULL)
            dg_files_close(f->files);
        free(f);
        return err;
    }
    f->trainer = t;
    t->files = f;
    return DG_OK;
}

static void forget(TrainerFiles *f)
{
    dg_trainer_free_trajectory(f->trajectory);
    f->trajectory = NULL;
    f->num = 0;
}

void dg_trainer_close_files(Trainer *t)
{
    TrainerFiles *f = t->files;

    if (f == NULL)
        return;
    dg_files_close(f->files);
    forget(f);
    free(f);
    t->files = NULL;
}

int dg_trainer_keep_trajectory(Trainer *t)
{
    Trajectory *k;
    int err = dg_trainer_take_trajectory(&k, t);

    if (err)
        return err;
    if (t->files != NULL) {
        t->files->trajectory = k;
        t->files->num = 1;
        dg_rollout_set_aside(t->rollout);
        return DG_OK;
    }
    err = dg_trainer_write_trajectory(t, k, t->session);
    dg_trainer_free_trajectory(k);
    return err;
}

void dg_trainer_start_files(Trainer *t, int checkpoint)
{
    TrainerFiles *f = t->files;

    f->num += checkpoint != 0;
    f->iteration = t->iteration;
    dg_files_start(f->files, write_file, f, f->num);
}

int dg_trainer_wait_files(Trainer *t)
{
    FilesTime took = { 0, 0 };
    int err = DG_OK;

    if (t->files != NULL && t->files->num > 0) {
        err = dg_files_wait(t->files->files, &took);
        forget(t->files);
    }
    t->phases.writing += took.writing; /* an evaluation may have waited first */
    t->phases.waiting += took.waiting;
    return err;
}
