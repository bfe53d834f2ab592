/*
 * Trajectory files and checkpoints, written by a thread of its own while the
 * next iteration rolls out. It has a stream of its own on the device and a
 * communicator of its own. What it reads stays until it is waited for: weights,
 * moments and EMA since they change in updates alone, trajectories since they
 * are set aside (dg_rollout_set_aside()).
 */
#include "trainer.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <stdlib.h>

struct TrainerFiles {
    const Trainer *trainer;
    Beside *thread;
    Comm comm;       /* of the thread, */
    Session session; /* which writes by this */
    int64_t iteration;
    Trajectory *trajectory; /* the first file, or NULL; */
    int num;                /* of files, with the checkpoint */
    double seconds;         /* they took */
};

/* --- the thread ------------------------------------------------------------ */

static int write_file(Worker *none, int64_t i, void *user)
{
    TrainerFiles *f = user;
    const Trainer *t = f->trainer;
    const double at = dg_clock_now();
    const int err =
        i == 0 && f->trajectory != NULL
            ? dg_trainer_write_trajectory(t, f->trajectory, &f->session)
            : dg_learner_save(t->learner, &f->session, t->dir.checkpoints,
                              f->iteration);

    (void)none;
    f->seconds += dg_clock_now() - at;
    return err;
}

/* --- the main thread ------------------------------------------------------- */

static int create(Trainer *t)
{
    const Session *s = t->session;
    TrainerFiles *f = calloc(1, sizeof *f);
    int err =
        dg_agree(s->comm, f != NULL ? DG_OK : dg_fail(DG_ENOMEM, "files"));

    if (err) {
        free(f);
        return err;
    }
    t->files = f;
    f->trainer = t;
    err =
        dg_comm_beside(&f->comm, s->comm, " of files that are written beside");
    if (err)
        return err;
    f->session = *s;
    f->session.comm = &f->comm;
    return dg_agree(
        s->comm,
        dg_beside_create(&f->thread, &(TeamOpts) { .backend = s->backend }));
}

int dg_trainer_open_files(Trainer *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    int room, err;

    if (!c->parallel.write_beside ||
        (c->trajectory.every == 0 && c->checkpoint.every == 0))
        return DG_OK;
    if (!s->comm->threads) {
        dg_info("files are written between iterations: MPI serves one thread "
                "of a rank only (its level is below MULTIPLE)");
        return DG_OK;
    }
    err = dg_trainer_room_beside(&room, s, 0);
    if (err)
        return err;
    if (!room) {
        dg_info("files are written between iterations: no room for a stream");
        return DG_OK;
    }
    return create(t);
}

static void forget(TrainerFiles *f)
{
    dg_trainer_free_trajectory(f->trajectory);
    f->trajectory = NULL;
    f->num = 0;
}

void dg_trainer_close_files(Trainer *t)
{
    const Error first = *dg_last_error();
    TrainerFiles *f = t->files;

    if (f == NULL)
        return;
    if (f->thread != NULL)
        dg_beside_finish(f->thread);
    dg_set_error(&first);
    forget(f);
    dg_beside_destroy(f->thread);
    dg_comm_beside_free(&f->comm);
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
    f->seconds = 0;
    dg_beside_start(f->thread, write_file, f);
    dg_beside_give(f->thread, f->num);
}

int dg_trainer_wait_files(Trainer *t)
{
    const double at = dg_clock_now();
    TrainerFiles *f = t->files;
    int err;

    t->phases.writing = t->phases.waiting = 0;
    if (f == NULL || f->num == 0)
        return DG_OK;
    err = dg_beside_finish(f->thread);
    forget(f);
    t->phases.writing = f->seconds;
    t->phases.waiting = dg_clock_now() - at; /* for files, not for ranks */
    return dg_agree(t->session->comm, err);
}
