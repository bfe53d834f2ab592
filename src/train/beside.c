#include "train/beside.h"

#include "base/error.h"

#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct Beside {
    const Backend *on;
    void *stream; /* NULL: kernels' memory is the host's */
    Team *team;   /* of the one worker, or NULL */
    pthread_t thread;
    int runs;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t news;
    TeamFn fn;
    void *user;
    int64_t given, done;
    int began; /* 1: the thread has; -1: it has no memory */
    int end;
    int err;
    Error error;
};

/* of what a thread must be able to take */
enum { FIRST_BYTES = 1 << 16 };

/* until an item is there; 0 at the end */
static int next_item(Beside *b, int64_t *item)
{
    int more;

    pthread_mutex_lock(&b->lock);
    while (!b->end && b->done == b->given)
        pthread_cond_wait(&b->news, &b->lock);
    *item = b->done;
    more = !b->end;
    pthread_mutex_unlock(&b->lock);
    return more;
}

/* OpenMP takes a little for each thread that speaks to it, and where there is
 * none it ends the program in the middle of whatever others do. */
static int begin(Beside *b)
{
    void *volatile room = malloc(FIRST_BYTES); /* not to be left out */
    const int began = room != NULL ? 1 : -1;

    free(room);
    if (began > 0)
        omp_set_num_threads(1);
    pthread_mutex_lock(&b->lock);
    b->began = began;
    pthread_cond_broadcast(&b->news);
    pthread_mutex_unlock(&b->lock);
    return began > 0;
}

static void *run(void *user)
{
    Beside *b = user;
    Worker *worker = b->team != NULL ? &b->team->workers[0] : NULL;
    int64_t item;

    if (b->stream != NULL)
        b->on->side_use(b->stream);
    if (!begin(b))
        return NULL;
    while (next_item(b, &item)) {
        const int err = b->err ? b->err : b->fn(worker, item, b->user);

        pthread_mutex_lock(&b->lock);
        if (err && !b->err) { /* never seen without its text */
            b->err = err;
            b->error = *dg_last_error();
        }
        b->done++;
        pthread_cond_broadcast(&b->news);
        pthread_mutex_unlock(&b->lock);
    }
    return NULL;
}

/* Signals stay with the main thread, but those of its own faults: who has them
 * blocked ends without a word. */
static int start_thread(Beside *b)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&b->thread, NULL, run, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    b->runs = !failed;
    pthread_mutex_lock(&b->lock);
    while (!failed && b->began == 0)
        pthread_cond_wait(&b->news, &b->lock);
    failed = failed || b->began < 0;
    pthread_mutex_unlock(&b->lock);
    return failed ? dg_fail(DG_ENOMEM, "a thread beside the workers") : DG_OK;
}

/* its memory is cleared by its own stream */
static int create_team(Beside *b, const TeamOpts *o)
{
    void *before = b->stream != NULL ? b->on->side_use(b->stream) : NULL;
    const int err = dg_team_create(&b->team, o);

    if (b->stream != NULL)
        b->on->side_use(before);
    return err;
}

int dg_beside_create(Beside **out, const TeamOpts *o)
{
    Beside *b = calloc(1, sizeof *b);
    int err = DG_OK;

    if (b == NULL)
        return dg_fail(DG_ENOMEM, "a thread beside the workers");
    b->on = o->backend;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->news, NULL);
    if (b->on->side_new != NULL)
        err = b->on->side_new(&b->stream);
    if (!err && o->num_threads > 0)
        err = create_team(b, o);
    if (!err)
        err = start_thread(b);
    if (err) {
        dg_beside_destroy(b);
        return err;
    }
    *out = b;
    return DG_OK;
}

void dg_beside_destroy(Beside *b)
{
    if (b == NULL)
        return;
    if (b->runs) {
        pthread_mutex_lock(&b->lock);
        b->end = 1;
        pthread_cond_broadcast(&b->news);
        pthread_mutex_unlock(&b->lock);
        pthread_join(b->thread, NULL);
    }
    dg_team_destroy(b->team);
    if (b->stream != NULL)
        b->on->side_free(b->stream);
    pthread_cond_destroy(&b->news);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void dg_beside_start(Beside *b, TeamFn fn, void *user)
{
    pthread_mutex_lock(&b->lock);
    b->fn = fn;
    b->user = user;
    b->given = b->done = 0;
    b->err = DG_OK;
    b->error = (Error) { .code = DG_OK, .rank = -1 };
    pthread_mutex_unlock(&b->lock);
}

void dg_beside_give(Beside *b, int64_t num)
{
    if (b->stream != NULL)
        b->on->side_after(b->stream);
    pthread_mutex_lock(&b->lock);
    b->given += num;
    pthread_cond_broadcast(&b->news);
    pthread_mutex_unlock(&b->lock);
}

int dg_beside_finish(Beside *b)
{
    return dg_beside_settle(b, 0);
}

int dg_beside_settle(Beside *b, int64_t left)
{
    int err;

    pthread_mutex_lock(&b->lock);
    while (b->given - b->done > left)
        pthread_cond_wait(&b->news, &b->lock);
    err = b->err;
    if (err)
        dg_set_error(&b->error);
    pthread_mutex_unlock(&b->lock);
    return err;
}

uint64_t dg_beside_take_flops(Beside *b)
{
    return dg_team_take_flops(b->team);
}

size_t dg_beside_peak(const Beside *b)
{
    return dg_team_peak(b->team);
}
