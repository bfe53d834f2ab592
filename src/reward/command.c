/* A program of the user's that scores (rewards[].command): it is sent a picture
 * and its prompt, and answers with a number. */
#include "dialogue.h"
#include "kinds.h"
#include "program.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "reward/picture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIES = 2,         /* of a picture: bits shall not depend on an accident */
    MOST_FAILURES = 4, /* of a program, with no answer between them */
    GRACE_S = 5,       /* for its end, once there is nothing more to score */
    ENV_BYTES = 128
};

/* One of the programs; its thread's alone while it is busy. */
typedef struct Scorer {
    Program program;
    int busy;
    int heard;     /* its first line was read, since the run began */
    int fresh;     /* was not asked yet, since it was started */
    int failures;  /* since its last answer */
    int64_t id;    /* of the last picture */
    char *request; /* [room] what is sent before a picture */
    size_t room;
} Scorer;

typedef struct Crew {
    int num;
    Scorer *scorer;
    char **env;
    pthread_mutex_t lock; /* of what follows, and who is busy */
    pthread_cond_t news;
    Error given_up;    /* code DG_OK: not so */
    int num_failures;  /* since they were last told, */
    char failure[512]; /* and the first of them */
} Crew;

typedef struct CommandReward {
    RewardConfig c;
    int64_t index;
    char key[40];
    int ready;
    char version[DG_VERSION_BYTES]; /* as the first one said, */
    int told;                       /* 1: it has */
    Crew *crew;
} CommandReward;

/* --- what is sent -------------------------------------------------------- */

static int make_room(Scorer *s, size_t bytes)
{
    char *more;

    if (bytes <= s->room)
        return DG_OK;
    more = realloc(s->request, bytes);
    if (more == NULL)
        return dg_fail(DG_ENOMEM, "a prompt of %zu bytes", bytes);
    s->request = more;
    s->room = bytes;
    return DG_OK;
}

/* All prompts of a run have room from its start. */
static int read_list(void *net, const PromptList *list)
{
    const CommandReward *n = net;
    size_t most = 0;
    int err = DG_OK;

    for (int32_t i = 0; i < list->num; i++) {
        const Request r = { .id = INT64_MAX,
                            .prompt = &list->item[i],
                            .height = INT64_MAX,
                            .width = INT64_MAX };
        const size_t bytes = dg_request_write(NULL, 0, &r);

        most = bytes > most ? bytes : most;
    }
    for (int i = 0; i < n->crew->num && !err; i++)
        err = make_room(&n->crew->scorer[i], most);
    return err;
}

static int write_request(Scorer *s, const CommandReward *n,
                         const RewardInput *in, size_t *bytes)
{
    const Request r = { .id = s->id,
                        .prompt = in->prompt,
                        .height = in->height,
                        .width = in->width,
                        .quantize = n->c.quantize };
    int err = make_room(s, dg_request_write(NULL, 0, &r));

    if (!err)
        *bytes = dg_request_write(s->request, s->room, &r);
    return err;
}

/* --- a program's life ---------------------------------------------------- */

/* The first is told, with how many there were. */
static void note(Crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    if (crew->num_failures++ == 0)
        snprintf(crew->failure, sizeof crew->failure, "%.500s",
                 dg_last_error()->text);
    pthread_mutex_unlock(&crew->lock);
}

/* Ends it and tells why, behind "its program ". what: NULL: as it ended. */
static void fail(const CommandReward *n, Scorer *s, const char *what)
{
    const int ended = what == NULL;
    char how[160], said[DG_PROGRAM_SAID + 48] = "";

    dg_program_end(&s->program, ended ? 1 : 0, how, sizeof how);
    if (how[0] == '\0')
        snprintf(how, sizeof how, "closed its standard output");
    if (s->program.said[0] != '\0')
        snprintf(said, sizeof said, "; its last words on standard error: %s",
                 s->program.said);
    dg_fail(DG_EIO, "%.300s%.*s", ended ? how : what, DG_PROGRAM_SAID + 47,
            said);
    s->failures++;
    s->fresh = 1; /* whoever follows */
    note(n->crew);
}

static void fail_waiting(const CommandReward *n, Scorer *s, ProgramEnd end,
                         double seconds, const char *key)
{
    char what[160];

    if (end == DG_PROGRAM_LATE)
        snprintf(what, sizeof what, "said nothing for %g s (rewards.%s)",
                 seconds, key);
    else
        snprintf(what, sizeof what, "said a line of more than %d bytes",
                 DG_PROGRAM_LINE);
    fail(n, s, end == DG_PROGRAM_ENDED ? NULL : what);
}

static void fail_saying(const CommandReward *n, Scorer *s)
{
    char what[sizeof dg_last_error()->text];

    memcpy(what, dg_last_error()->text, sizeof what);
    fail(n, s, what);
}

static int start_one(const CommandReward *n, Scorer *s)
{
    s->program.name = n->c.name;
    return dg_program_start(&s->program, n->c.command, n->crew->env);
}

/* A wait for a program, with all others of the run. */
typedef struct Wait {
    const RewardSeat *seat;
    int err; /* of another program: nothing more is to be said to it */
} Wait;

/* A stop was asked for, or another program has failed, here or on another rank:
 * nothing comes of waiting for this one. */
static int in_vain(void *user)
{
    Wait *w = user;

    if ((w->seat->stopped != NULL && w->seat->stopped()) ||
        dg_comm_alarmed(w->seat->comm))
        return 1;
    w->err = dg_rewards_hear_ended(w->seat);
    return w->err != DG_OK;
}

/* Waits for its first line. w: with whom, or NULL. *stopped: was given up
 * before. Errors: DG_EIO, behind "its program "; it is ended then. */
static int hear_hello(const CommandReward *n, Scorer *s,
                      char version[DG_VERSION_BYTES], Wait *w, int *stopped)
{
    static const ProgramBytes nothing[2] = { { NULL, 0 }, { NULL, 0 } };
    const ProgramPatience patience = { n->c.start_seconds,
                                       w != NULL ? in_vain : NULL, w };
    const char *line;
    const ProgramEnd end =
        dg_program_ask(&s->program, nothing, &patience, &line);

    *stopped = end == DG_PROGRAM_STOPPED;
    if (*stopped)
        return DG_OK;
    if (end != DG_PROGRAM_LINE_THERE)
        fail_waiting(n, s, end, patience.seconds, "start_seconds");
    else if (dg_answer_hello(version, line) != DG_OK)
        fail_saying(n, s);
    else
        return DG_OK;
    return DG_EIO;
}

/* Behind "its program ". */
static int start_again(const CommandReward *n, Scorer *s)
{
    char version[DG_VERSION_BYTES], what[2 * DG_VERSION_BYTES + 64];
    int unused, err = start_one(n, s);

    if (err) {
        snprintf(what, sizeof what, "%.400s", dg_last_error()->text);
        s->failures++;
        return dg_fail(DG_EIO, "could not be started again: %s", what);
    }
    err = hear_hello(n, s, version, NULL, &unused);
    if (err || strcmp(version, n->version) == 0)
        return err;
    snprintf(what, sizeof what, "was \"%s\" and, started again, is \"%s\"",
             n->version, version);
    fail(n, s, what);
    return DG_EIO;
}

/* --- a score ------------------------------------------------------------- */

/* One of those that are not busy; NULL: there will be none. */
static Scorer *take(Crew *crew)
{
    Scorer *s = NULL;

    pthread_mutex_lock(&crew->lock);
    while (s == NULL && crew->given_up.code == DG_OK) {
        for (int i = 0; i < crew->num && s == NULL; i++)
            if (!crew->scorer[i].busy)
                s = &crew->scorer[i];
        if (s == NULL)
            pthread_cond_wait(&crew->news, &crew->lock);
    }
    if (s != NULL)
        s->busy = 1;
    pthread_mutex_unlock(&crew->lock);
    return s;
}

static void leave(Crew *crew, Scorer *s)
{
    pthread_mutex_lock(&crew->lock);
    s->busy = 0;
    pthread_cond_signal(&crew->news);
    pthread_mutex_unlock(&crew->lock);
}

/* The same is said of every picture from then on. */
static int is_over(Crew *crew)
{
    Error e;

    pthread_mutex_lock(&crew->lock);
    e = crew->given_up;
    pthread_mutex_unlock(&crew->lock);
    dg_set_error(&e);
    return e.code;
}

/* No other picture is tried: dg_last_error() is behind "its program ". */
static int give_up(const CommandReward *n, const Scorer *s)
{
    Crew *crew = n->crew;
    char why[sizeof dg_last_error()->text];

    memcpy(why, dg_last_error()->text, sizeof why);
    dg_fail(DG_EREWARD,
            "%s: the program of %s failed %d times in a row; the last time it "
            "%.700s",
            n->key, n->c.name, s->failures, why);
    pthread_mutex_lock(&crew->lock);
    if (crew->given_up.code == DG_OK)
        crew->given_up = *dg_last_error();
    pthread_cond_broadcast(&crew->news);
    pthread_mutex_unlock(&crew->lock);
    return is_over(crew);
}

/* Behind "its program "; where it runs no more, it failed. */
static int ask(const CommandReward *n, Scorer *s, const RewardInput *in,
               RewardScore *out)
{
    const size_t bytes = (size_t)(3 * in->height * in->width);
    ProgramPatience patience = { .seconds = n->c.timeout_seconds };
    ProgramBytes parts[2] = { { NULL, 0 }, { in->scratch, bytes } };
    AnswerKind kind;
    const char *line, *key;
    ProgramEnd end;
    int err = s->program.pid == 0 ? start_again(n, s) : DG_OK;

    s->id++;
    if (!err)
        err = write_request(s, n, in, &parts[0].num);
    if (err)
        return err;
    parts[0].at = s->request;
    if (s->fresh && patience.seconds < n->c.start_seconds)
        patience.seconds = n->c.start_seconds;
    key = patience.seconds > n->c.timeout_seconds ? "start_seconds"
                                                  : "timeout_seconds";
    end = dg_program_ask(&s->program, parts, &patience, &line);
    s->fresh = 0;
    if (end != DG_PROGRAM_LINE_THERE) {
        fail_waiting(n, s, end, patience.seconds, key);
        if (end == DG_PROGRAM_LATE) /* a picture is not waited for twice so */
            s->fresh = 0;
        return DG_EIO;
    }
    kind = dg_answer_read(out, line, s->id);
    if (kind == DG_ANSWER_BROKEN) {
        fail_saying(n, s);
        return DG_EIO;
    }
    s->failures = 0;
    return kind == DG_ANSWER_SCORE ? DG_OK : dg_last_error()->code;
}

/* A picture at which a program ends is shown to a new one: whatever else ended
 * it is not to be seen in the scores. */
static int score(const void *net, const RewardInput *in, RewardScore *out)
{
    const CommandReward *n = net;
    char why[sizeof dg_last_error()->text];
    Scorer *s;
    int err;

    if (in->rgb == NULL) /* a plan */
        return DG_OK;
    if (!n->ready)
        dg_panic("reward %s scores before its program was started", n->c.name);
    err = dg_picture_quantize(in->scratch, in->rgb, 3 * in->height * in->width,
                              n->c.quantize);
    if (err)
        return err;
    s = take(n->crew);
    if (s == NULL)
        return is_over(n->crew);
    err = ask(n, s, in, out);
    for (int i = 1;
         i < TRIES && err && s->program.pid == 0 && s->failures < MOST_FAILURES;
         i++)
        err = ask(n, s, in, out);
    if (err && s->failures >= MOST_FAILURES)
        err = give_up(n, s);
    leave(n->crew, s);
    if (!err || err == DG_EREWARD)
        return err;
    memcpy(why, dg_last_error()->text, sizeof why);
    return dg_fail(err, "its program %.900s", why);
}

static const char *version_of(const void *net)
{
    const CommandReward *n = net;

    return n->ready ? n->version : NULL;
}

static int take_note(const void *net, char *text, size_t bytes)
{
    const CommandReward *n = net;
    Crew *crew = n->crew;
    int num;

    pthread_mutex_lock(&crew->lock);
    num = crew->num_failures;
    crew->num_failures = 0;
    if (num > 0)
        snprintf(text, bytes,
                 "reward %s: its program was started anew, since it %s",
                 n->c.name, crew->failure);
    pthread_mutex_unlock(&crew->lock);
    return num;
}

/* --- a reward's life ----------------------------------------------------- */

static void destroy(void *net)
{
    CommandReward *n = net;
    Crew *crew = n->crew;

    for (int i = 0; crew != NULL && i < crew->num; i++)
        dg_program_dismiss(&crew->scorer[i].program);
    for (int i = 0; crew != NULL && i < crew->num; i++) {
        dg_program_end(&crew->scorer[i].program, GRACE_S, NULL, 0);
        free(crew->scorer[i].request);
    }
    if (crew != NULL) {
        pthread_cond_destroy(&crew->news);
        pthread_mutex_destroy(&crew->lock);
        free(crew->env);
        free(crew->scorer);
    }
    free(crew);
    free(n);
}

static int create(void **net, const RewardConfig *c, int64_t index)
{
    CommandReward *n = calloc(1, sizeof *n);

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    n->c = *c;
    n->index = index;
    snprintf(n->key, sizeof n->key, "rewards[%lld].command", (long long)index);
    n->crew = calloc(1, sizeof *n->crew);
    if (n->crew != NULL) {
        pthread_mutex_init(&n->crew->lock, NULL);
        pthread_cond_init(&n->crew->news, NULL);
        n->crew->scorer = calloc((size_t)c->processes, sizeof(Scorer));
    }
    if (n->crew == NULL || n->crew->scorer == NULL) {
        destroy(n);
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    }
    n->crew->num = (int)c->processes;
    for (int i = 0; i < n->crew->num; i++)
        n->crew->scorer[i].fresh = 1;
    *net = n;
    return DG_OK;
}

/* Nothing is started yet; but what is not there is told. */
static int prepare(void *net, const Comm *comm)
{
    const CommandReward *n = net;

    return dg_agree(comm, dg_program_find(n->key, n->c.command));
}

static int make_environment(const CommandReward *n, const RewardSeat *seat)
{
    const Comm *c = seat->comm;
    char text[6][ENV_BYTES];
    const char *more[6];

    snprintf(text[0], ENV_BYTES, "DANCEGRPO_REWARD=%s", n->c.name);
    snprintf(text[1], ENV_BYTES, "DANCEGRPO_RANK=%d", c->rank);
    snprintf(text[2], ENV_BYTES, "DANCEGRPO_RANKS=%d", c->size);
    snprintf(text[3], ENV_BYTES, "DANCEGRPO_LOCAL_RANK=%d", c->node_rank);
    snprintf(text[4], ENV_BYTES, "DANCEGRPO_LOCAL_RANKS=%d", c->node_size);
    snprintf(text[5], ENV_BYTES, "DANCEGRPO_DEVICE=%s",
             seat->cuda ? "cuda" : "cpu");
    for (int i = 0; i < 6; i++)
        more[i] = text[i];
    n->crew->env = dg_program_environment(more, 6);
    return n->crew->env != NULL ? DG_OK : dg_fail(DG_ENOMEM, "an environment");
}

static int start(void *net, const RewardSeat *seat)
{
    const CommandReward *n = net;
    int err = n->crew->env == NULL ? make_environment(n, seat) : DG_OK;

    for (int i = 0; i < n->crew->num && !err; i++)
        if (n->crew->scorer[i].program.pid == 0) {
            n->crew->scorer[i].heard = 0;
            err = start_one(n, &n->crew->scorer[i]);
        }
    return err;
}

/* All of them are to be the same. */
static int take_version(CommandReward *n, Scorer *s, const char *version)
{
    s->heard = 1;
    if (!n->told)
        memcpy(n->version, version, sizeof n->version);
    else if (strcmp(n->version, version) != 0)
        return dg_fail(DG_EINVAL,
                       "%s: one program of this rank says that it is \"%s\", "
                       "another \"%s\"",
                       n->key, n->version, version);
    n->told = 1;
    return DG_OK;
}

/* w->err is told as it is. */
static int hear(CommandReward *n, Scorer *s, Wait *w, int *stopped)
{
    char why[sizeof dg_last_error()->text], version[DG_VERSION_BYTES];
    const int err = hear_hello(n, s, version, w, stopped);

    if (!err)
        return *stopped ? DG_OK : take_version(n, s, version);
    memcpy(why, dg_last_error()->text, sizeof why);
    return dg_fail(err,
                   "%s = \"%.200s\": before it was ready, the program %.600s",
                   n->key, n->c.command, why);
}

static int hear_all(CommandReward *n, const RewardSeat *seat, int *stopped)
{
    Wait w = { .seat = seat };
    int err = DG_OK;

    for (int i = 0; i < n->crew->num && !err && !*stopped; i++)
        if (!n->crew->scorer[i].heard)
            err = hear(n, &n->crew->scorer[i], &w, stopped);
    return err ? err : w.err;
}

static int hear_ended(void *net)
{
    CommandReward *n = net;
    int stopped = 0, err = DG_OK;

    for (int i = 0; i < n->crew->num && !err; i++) {
        Scorer *s = &n->crew->scorer[i];

        if (!s->heard && dg_program_has_ended(&s->program))
            err = hear(n, s, NULL, &stopped);
    }
    return err;
}

/* Else scores were a matter of who has which picture. */
static int compare(const CommandReward *n, const Comm *comm, int stopped)
{
    struct {
        int stopped;
        char version[DG_VERSION_BYTES];
    } first = { .stopped = stopped };
    int err = DG_OK;

    memcpy(first.version, n->version, sizeof first.version);
    dg_comm_bcast(comm, &first, sizeof first, 0);
    if (!stopped && !first.stopped && strcmp(first.version, n->version) != 0)
        err = dg_fail(DG_EINVAL,
                      "%s: the program of rank %d says that it is \"%s\", that "
                      "of rank 0 \"%s\"",
                      n->key, comm->rank, n->version, first.version);
    return dg_agree(comm, err);
}

static int await(void *net, const RewardSeat *seat)
{
    CommandReward *n = net;
    const double began = dg_clock_now();
    int stopped = 0;
    int err = hear_all(n, seat, &stopped);

    if (err)
        dg_comm_alarm(seat->comm);
    dg_comm_alarm_end(seat->comm);
    err = dg_agree(seat->comm, err);
    if (!err)
        err = compare(n, seat->comm, stopped);
    n->ready = !err && !stopped;
    if (n->ready)
        dg_info("reward %s: %d program%s a rank ready after %.1f s%s%s%s: %s",
                n->c.name, n->crew->num, n->crew->num > 1 ? "s" : "",
                dg_clock_now() - began,
                n->version[0] != '\0' ? ", of version \"" : "", n->version,
                n->version[0] != '\0' ? "\"" : "", n->c.command);
    return err;
}

/* The picture as bytes. */
static size_t scratch(const void *net, int64_t height, int64_t width)
{
    (void)net;
    return (size_t)(3 * height * width);
}

static const RewardNet command_net = {
    .create = create,
    .destroy = destroy,
    .prepare = prepare,
    .scratch = scratch,
    .read = read_list,
    .score = score,
    .start = start,
    .await = await,
    .hear_ended = hear_ended,
    .version = version_of,
    .take_note = take_note,
};

const RewardKind dg_reward_command = { .name = "command",
                                       .keys = DG_KEY_QUANTIZE,
                                       .net = &command_net };
