#include "files.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "train/beside.h"
#include "trainer.h"

#include <stdlib.h>

struct Files {
    const Comm *main; /* of the run's own thread */
    Beside *thread;
    Comm comm;       /* of the thread, */
    Session session; /* which writes by this */
    TeamFn fn;
    void *user;
    int num;        /* of items that were started */
    double seconds; /* they took */
};

static int create(Files **out, const Session *s)
{
    Files *f = calloc(1, sizeof *f);
    int err =
        dg_agree(s->comm, f != NULL ? DG_OK : dg_fail(DG_ENOMEM, "files"));

    if (err) {
        free(f);
        return err;
    }
    *out = f;
    f->main = s->comm;
    err =
        dg_comm_beside(&f->comm, s->comm, " of files that are written beside");
    if (err)
        return err;
    f->session = *s;
    f->session.comm = &f->comm;
    f->session.host_threads = 1; /* the others are the rollout's */
    return dg_agree(
        s->comm,
        dg_beside_create(&f->thread, &(TeamOpts) { .backend = s->backend }));
}

int dg_files_open(Files **out, const Session *s, const char *turns)
{
    int room, err;

    *out = NULL;
    if (!s->comm->threads) {
        dg_info("files are written between %s: MPI serves one thread of a "
                "rank only (its level is below MULTIPLE)",
                turns);
        return DG_OK;
    }
    err = dg_trainer_room_beside(&room, s, 0);
    if (err)
        return err;
    if (!room) {
        dg_info("files are written between %s: no room for a stream", turns);
        return DG_OK;
    }
    return create(out, s);
}

void dg_files_close(Files *f)
{
    const Error first = *dg_last_error();

    if (f == NULL)
        return;
    if (f->thread != NULL)
        dg_beside_finish(f->thread);
    dg_set_error(&first);
    dg_beside_destroy(f->thread);
    dg_comm_beside_free(&f->comm);
    free(f);
}

const Session *dg_files_session(const Files *f)
{
    return &f->session;
}

static int write_one(Worker *none, int64_t i, void *user)
{
    Files *f = user;
    const double at = dg_clock_now();
    const int err = f->fn(none, i, f->user);

    f->seconds += dg_clock_now() - at;
    return err;
}

void dg_files_start(Files *f, TeamFn fn, void *user, int num)
{
    f->fn = fn;
    f->user = user;
    f->num = num;
    f->seconds = 0;
    dg_beside_start(f->thread, write_one, f);
    dg_beside_give(f->thread, num);
}

int dg_files_wait(Files *f, FilesTime *took)
{
    const double at = dg_clock_now();
    int err;

    *took = (FilesTime) { 0, 0 };
    if (f == NULL || f->num == 0)
        return DG_OK;
    err = dg_beside_finish(f->thread);
    f->num = 0;
    took->writing = f->seconds;
    took->waiting = dg_clock_now() - at; /* for files, not for ranks */
    return dg_agree(f->main, err);
}
