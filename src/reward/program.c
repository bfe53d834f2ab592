#define _GNU_SOURCE /* pipe2, posix_spawn_file_actions_addclosefrom_np */
#include "program.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <paths.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 34)
#define CLOSES_FROM
#endif
#endif

enum {
    FIRST_FD = 10, /* ours are above those that a shell is given */
    TICK_MS = 100, /* how often a wait looks around */
    LISTENS = 16,  /* reads in a row of its standard error: what a pipe holds */
    GUARD_FD = 3
};

/* In front of the command. Signals by which this process is asked for a stop may
 * be sent to all of a job: the shells are not ended by any, nor the program by
 * those that nobody else uses (a shell hands on what is ignored, not what is
 * blocked; libraries end their own children by TERM). */
static const char guard[] =
    "trap '' INT USR1 USR2\n"
    "{ trap '' HUP TERM; read -r _; sleep 5; kill -KILL 0; } "
    "<&3 >/dev/null 2>&1 &\n"
    "exec 3<&-\n"
    "trap : HUP TERM\n";

/* --- start --------------------------------------------------------------- */

/* A launcher's, and MPI's own. */
static int is_mpi(const char *variable)
{
    static const char *const prefixes[] = { "OMPI_",
                                            "ORTE_",
                                            "PRTE_",
                                            "PMIX_",
                                            "PMI_",
                                            "PMI2_",
                                            "MV2_COMM_",
                                            "MPI"
                                            "_LOCAL" };

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return 1;
    return 0;
}

/* The same name, up to its "=". */
static int is_among(const char *variable, const char *const *more, int num)
{
    const size_t length = strcspn(variable, "=") + 1;

    for (int i = 0; i < num; i++)
        if (strncmp(variable, more[i], length) == 0)
            return 1;
    return 0;
}

char **dg_program_environment(const char *const *more, int num)
{
    size_t count = 0, bytes = 0, kept = 0;
    char **env, *at;

    while (environ[count] != NULL)
        count++;
    for (int i = 0; i < num; i++)
        bytes += strlen(more[i]) + 1;
    env = malloc((count + (size_t)num + 1) * sizeof *env + bytes);
    if (env == NULL)
        return NULL;
    at = (char *)(env + count + (size_t)num + 1);
    for (size_t i = 0; i < count; i++)
        if (!is_mpi(environ[i]) && !is_among(environ[i], more, num))
            env[kept++] = environ[i];
    for (int i = 0; i < num; i++) {
        const size_t length = strlen(more[i]) + 1;

        env[kept++] = memcpy(at, more[i], length);
        at += length;
    }
    env[kept] = NULL;
    return env;
}

/* A pipe, no end of which is one of the first few descriptors or is passed on
 * to any program. Our end never waits. */
static int open_pipe(int ends[2], int ours)
{
    int made[2];

    ends[0] = ends[1] = -1;
    if (pipe2(made, O_CLOEXEC) != 0)
        return errno;
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(made[i], F_DUPFD_CLOEXEC, FIRST_FD);
        close(made[i]);
    }
    if (ends[0] < 0 || ends[1] < 0 ||
        fcntl(ends[ours], F_SETFL, O_NONBLOCK) != 0)
        return errno != 0 ? errno : EMFILE;
    return 0;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Files, sockets and devices that libraries have opened are not the program's.
 * Where the system cannot close all, those are named that there are now. */
static int close_others(posix_spawn_file_actions_t *actions)
{
#ifdef CLOSES_FROM
    return posix_spawn_file_actions_addclosefrom_np(actions, GUARD_FD + 1);
#else
    const long most = sysconf(_SC_OPEN_MAX);
    int code = 0;

    for (int fd = GUARD_FD + 1; fd < most && fd < (1 << 16) && !code; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            code = posix_spawn_file_actions_addclose(actions, fd);
    return code;
#endif
}

/* As if nothing of what the calling thread blocks, or this process ignores, had
 * ever been said. */
static int set_signals(posix_spawnattr_t *attr)
{
    sigset_t set;
    int code;

    sigemptyset(&set);
    code = posix_spawnattr_setsigmask(attr, &set);
    sigfillset(&set);
    sigdelset(&set, SIGKILL);
    sigdelset(&set, SIGSTOP);
    return code ? code : posix_spawnattr_setsigdefault(attr, &set);
}

/* theirs: standard input, output, error, the guard's */
static int spawn(pid_t *pid, const int theirs[4], char *script,
                 char *const *env)
{
    char *argv[] = { "sh", "-c", script, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int code = posix_spawn_file_actions_init(&actions);

    if (code)
        return code;
    code = posix_spawnattr_init(&attr);
    for (int fd = 0; fd < 4 && !code; fd++)
        code = posix_spawn_file_actions_adddup2(&actions, theirs[fd], fd);
    if (!code)
        code = close_others(&actions);
    if (!code)
        code = set_signals(&attr);
    if (!code)
        code = posix_spawnattr_setpgroup(&attr, 0);
    if (!code)
        code = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP |
                                                   POSIX_SPAWN_SETSIGMASK |
                                                   POSIX_SPAWN_SETSIGDEF);
    if (!code)
        code = posix_spawn(pid, _PATH_BSHELL, &actions, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

/* which of each pipe's ends is ours */
static const int ours[4] = { 1, 0, 0, 1 };

int dg_program_start(Program *p, const char *command, char *const *env)
{
    const size_t length = sizeof guard + strlen(command);
    char *script = malloc(length);
    int pipes[4][2], theirs[4], code = 0;

    if (script == NULL)
        return dg_fail(DG_ENOMEM, "a program to score");
    snprintf(script, length, "%s%s", guard, command);
    for (int i = 0; i < 4; i++)
        pipes[i][0] = pipes[i][1] = -1;
    for (int i = 0; i < 4 && !code; i++) {
        code = open_pipe(pipes[i], ours[i]);
        theirs[i] = pipes[i][1 - ours[i]];
    }
    if (!code)
        code = spawn(&p->pid, theirs, script, env);
    free(script);
    for (int i = 0; i < 4; i++) {
        close_end(&pipes[i][1 - ours[i]]);
        if (code)
            close_end(&pipes[i][ours[i]]);
    }
    if (code) {
        p->pid = 0;
        return dg_fail(DG_EIO, "%s: no program can be started: %s", p->name,
                       strerror(code));
    }
    p->in = pipes[0][1];
    p->out = pipes[1][0];
    p->err = pipes[2][0];
    p->leash = pipes[3][1];
    p->have = p->used = p->saying = 0;
    p->said[0] = '\0';
    return DG_OK;
}

/* --- is it there --------------------------------------------------------- */

/* What a shell knows by itself. */
static int is_shells(const char *word)
{
    static const char *const own[] = {
        ".",    ":",    "[",      "cd",    "case",  "command", "do",
        "eval", "exec", "export", "for",   "if",    "set",     "test",
        "trap", "type", "ulimit", "umask", "until", "wait",    "while",
    };

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(word, own[i]) == 0)
            return 1;
    return 0;
}

static int is_file(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

static int can_run(const char *path)
{
    return is_file(path) && access(path, X_OK) == 0;
}

static int is_in_path(const char *word)
{
    const char *path = getenv("PATH");

    for (path = path != NULL ? path : _PATH_DEFPATH; *path != '\0';) {
        const int length = (int)strcspn(path, ":");
        char full[1024];

        snprintf(full, sizeof full, "%.*s%s%s", length, path,
                 length > 0 ? "/" : "", word);
        if (can_run(full))
            return 1;
        path += length + (path[length] == ':');
    }
    return 0;
}

int dg_program_find(const char *key, const char *command)
{
    const char *at = command + strspn(command, " \t\n");
    char word[512];

    for (;;) { /* NAME=value words go before it, and exec may */
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, " \t\n;&|"), at);
        if (strchr(word, '=') == NULL && strcmp(word, "exec") != 0)
            break;
        at += strlen(word);
        at += strspn(at, " \t\n");
        if (strpbrk(word, "\"'\\`$(") != NULL || *at == '-')
            return DG_OK; /* where it ends only a shell knows */
    }
    if (word[0] == '\0' && *at == '\0')
        return dg_fail(DG_EINVAL, "%s = \"%.200s\": must name a program", key,
                       command);
    if (strpbrk(word, "\"'\\`$(){}<>*?[~!#") != NULL || is_shells(word))
        return DG_OK; /* a shell's to find */
    if (strchr(word, '/') != NULL ? can_run(word) : is_in_path(word))
        return DG_OK;
    if (strchr(word, '/') != NULL && is_file(word))
        return dg_fail(DG_EINVAL,
                       "%s = \"%.200s\": %.200s may not be executed: chmod +x "
                       "it, or name before it what runs it, such as python3",
                       key, command, word);
    return dg_fail(DG_EINVAL,
                   "%s = \"%.200s\": there is no program %.200s that could be "
                   "started%s",
                   key, command, word,
                   strchr(word, '/') != NULL ? "" : " (PATH)");
}

/* --- talk ---------------------------------------------------------------- */

/* A line of its standard error. */
static void tell(Program *p)
{
    while (p->saying > 0 && strchr(" \r\t", p->says[p->saying - 1]) != NULL)
        p->saying--;
    p->says[p->saying] = '\0';
    p->saying = 0;
    /* of what was written over itself, as progress is, what was left */
    const char *shown = strrchr(p->says, '\r');

    shown = shown != NULL ? shown + 1 : p->says;
    if (*shown == '\0')
        return;
    snprintf(p->said, sizeof p->said, "%.*s", DG_PROGRAM_SAID - 1, shown);
    dg_info("%s: %.1500s", p->name, shown);
}

/* What is there, but no more than a pipe holds: one that never stops is not
 * listened to for ever. Closed at its end. */
static void listen(Program *p)
{
    char bytes[4096];
    ssize_t got = 1;

    for (int k = 0; k < LISTENS; k++) {
        got = read(p->err, bytes, sizeof bytes);
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got; i++) {
            if (bytes[i] != '\n' && bytes[i] != '\0')
                p->says[p->saying++] = bytes[i];
            if (bytes[i] == '\n' || p->saying == sizeof p->says - 1)
                tell(p);
        }
    }
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        tell(p);
        close_end(&p->err);
    }
}

/* 1: a whole line is there */
static int has_line(const Program *p)
{
    return memchr(p->line + p->used, '\n', p->have - p->used) != NULL;
}

static void forget_used(Program *p)
{
    memmove(p->line, p->line + p->used, p->have - p->used);
    p->have -= p->used;
    p->used = 0;
}

/* 0 at the end of its standard output */
static int hear(Program *p)
{
    ssize_t got;

    if (p->have == sizeof p->line)
        return 1;
    got = read(p->out, p->line + p->have, sizeof p->line - p->have);
    if (got > 0)
        p->have += (size_t)got;
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

/* A pipe that nobody reads sends SIGPIPE to the thread that writes: it is to
 * end nobody here, now or later. */
static ssize_t write_quietly(int fd, const void *at, size_t num)
{
    const struct timespec now = { 0, 0 };
    sigset_t pipe, before, pending;
    ssize_t done;
    int code, was;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    was = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    done = write(fd, at, num);
    code = errno;
    if (done < 0 && code == EPIPE && !was)
        while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = code;
    return done;
}

/* As much as it takes now. */
static void send_some(Program *p, ProgramBytes left[2])
{
    ProgramBytes *part = left[0].num > 0 ? &left[0] : &left[1];
    const ssize_t done = write_quietly(p->in, part->at, part->num);

    if (done >= 0) {
        part->at = (const char *)part->at + done;
        part->num -= (size_t)done;
    } else if (errno != EAGAIN && errno != EINTR) {
        close_end(&p->in);
    }
}

static int has_exited(const Program *p)
{
    siginfo_t info = { 0 };

    return waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) !=
               0 ||
           info.si_pid == p->pid;
}

int dg_program_has_ended(const Program *p)
{
    return p->pid != 0 && has_exited(p);
}

/* Waits for news, no longer than a tick, and takes them. 0: there is nothing
 * more to come. */
static int attend(Program *p, ProgramBytes left[2])
{
    const int sends = p->in >= 0 && left[0].num + left[1].num > 0;
    struct pollfd on[3] = { { p->out, POLLIN, 0 },
                            { p->err, POLLIN, 0 },
                            { sends ? p->in : -1, POLLOUT, 0 } };
    const int news = poll(on, 3, TICK_MS);
    int more = 1;

    if (news > 0 && on[2].revents != 0)
        send_some(p, left);
    if (news > 0 && on[1].revents != 0)
        listen(p);
    if (news > 0 && on[0].revents != 0)
        return hear(p);
    /* its end shows in the pipe, unless a child of its has it too */
    if (news == 0 && has_exited(p)) {
        more = hear(p) && has_line(p);
        if (p->err >= 0)
            listen(p);
    }
    return more;
}

/* A zero byte does not end it, else what follows would be passed over. */
static const char *take_line(Program *p)
{
    char *line = p->line + p->used;
    char *end = memchr(line, '\n', p->have - p->used);

    p->used += (size_t)(end - line) + 1;
    if (end > line && end[-1] == '\r')
        end--;
    *end = '\0';
    for (char *c = line; c < end; c++)
        if (*c == '\0')
            *c = '?';
    return line;
}

ProgramEnd dg_program_ask(Program *p, const ProgramBytes parts[2],
                          const ProgramPatience *patience, const char **line)
{
    const double tick = 2e-3 * TICK_MS; /* generously */
    ProgramBytes left[2] = { parts[0], parts[1] };
    double waited = 0, last = dg_clock_now();

    forget_used(p);
    while (!has_line(p) || (p->in >= 0 && left[0].num + left[1].num > 0)) {
        double now;

        if (!has_line(p) && p->have == sizeof p->line)
            return DG_PROGRAM_LONG;
        if (patience->stopped != NULL && patience->stopped(patience->user))
            return DG_PROGRAM_STOPPED;
        if (!attend(p, left) && !has_line(p))
            return DG_PROGRAM_ENDED;
        now = dg_clock_now();
        waited += now - last < tick ? now - last : tick;
        last = now;
        if (waited > patience->seconds && !has_line(p))
            return DG_PROGRAM_LATE;
        if (waited > patience->seconds)
            close_end(&p->in); /* it answers, but does not read to the end */
    }
    *line = take_line(p);
    return DG_PROGRAM_LINE_THERE;
}

/* --- end ----------------------------------------------------------------- */

static void describe(char *how, size_t bytes, int status, int by_us)
{
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;

    if (how == NULL)
        return;
    if (by_us || (!WIFEXITED(status) && !WIFSIGNALED(status)))
        how[0] = '\0';
    else if (WIFSIGNALED(status))
        snprintf(how, bytes, "was ended by signal %d", WTERMSIG(status));
    else if (code > 128 && code <= 128 + 64) /* so a shell tells */
        snprintf(how, bytes, "ended with exit code %d, by signal %d", code,
                 code - 128);
    else
        snprintf(how, bytes, "ended with exit code %d%s", code,
                 code == 127   ? ", which is a shell's for what it did not find"
                 : code == 126 ? ", which is a shell's for what may not be run"
                               : "");
}

void dg_program_dismiss(Program *p)
{
    if (p->pid != 0)
        close_end(&p->in);
}

void dg_program_end(Program *p, double grace_s, char *how, size_t bytes)
{
    const ProgramBytes nothing[2] = { { NULL, 0 }, { NULL, 0 } };
    const double until = dg_clock_now() + grace_s;
    int status = 0, exited;
    pid_t waited;

    if (p->pid == 0)
        return;
    close_end(&p->in);
    while (!(exited = has_exited(p)) && dg_clock_now() < until) {
        ProgramBytes left[2] = { nothing[0], nothing[1] };

        p->have = p->used = 0; /* what it still says is to nobody */
        if (!attend(p, left))
            nanosleep(&(struct timespec) { 0, 5000000 }, NULL);
    }
    if (p->err >= 0)
        listen(p);
    /* the group is there as long as the shell is not waited for */
    kill(-p->pid, SIGKILL);
    do
        waited = waitpid(p->pid, &status, 0);
    while (waited < 0 && errno == EINTR);
    if (waited == p->pid || how == NULL)
        describe(how, bytes, status, !exited);
    else /* the system keeps nothing of it */
        snprintf(how, bytes,
                 "ended, how is not known: SIGCHLD is ignored, or others have "
                 "waited for it");
    p->pid = 0;
    close_end(&p->out);
    close_end(&p->err);
    close_end(&p->leash);
}
