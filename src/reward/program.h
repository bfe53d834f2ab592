#ifndef DG_SRC_REWARD_PROGRAM_H
#define DG_SRC_REWARD_PROGRAM_H
/*
 * A program beside this one, that is sent bytes and answers in lines. A shell
 * starts it, in a process group of its own, with no descriptor of ours but the
 * pipes of its standard input, output and error. What it writes on its standard
 * error goes to the log, of rank 0, a line each.
 *
 * It is not left behind. Its standard input ends when this process does, be it
 * by SIGKILL, and it should end then; a second shell, its guard, sees the end of
 * a pipe of its own and kills the group a little later.
 *
 * SIGINT, SIGUSR1 and SIGUSR2 are ignored in it: a launcher may send them to all
 * processes of a job, to ask this one for a stop, which needs the program for
 * what it still does.
 */
#include <stddef.h>
#include <sys/types.h>

enum {
    DG_PROGRAM_LINE = 8192, /* bytes of a line of its, most */
    DG_PROGRAM_SAID = 320
};

typedef struct Program {
    const char *name;  /* borrowed, in front of what it says */
    pid_t pid;         /* of the shell, which leads the group; 0: none runs */
    int in, out, err;  /* our ends of its pipes; -1: closed */
    int leash;         /* of the guard's */
    size_t have, used; /* of line: bytes, and what was taken */
    char line[DG_PROGRAM_LINE]; /* its standard output */
    size_t saying;              /* of its standard error, a line that */
    char says[DG_PROGRAM_LINE]; /* has not ended yet, and */
    char said[DG_PROGRAM_SAID]; /* the last one that has; "" */
} Program;

/* How a wait for a line ended. */
typedef enum ProgramEnd {
    DG_PROGRAM_LINE_THERE,
    DG_PROGRAM_ENDED,  /* it has, or has closed its standard output */
    DG_PROGRAM_LATE,   /* no line in time */
    DG_PROGRAM_LONG,   /* a line of more than DG_PROGRAM_LINE bytes */
    DG_PROGRAM_STOPPED /* asked for by stopped() */
} ProgramEnd;

/* Bytes to send. */
typedef struct ProgramBytes {
    const void *at;
    size_t num;
} ProgramBytes;

/* For how long to wait; time in which all was suspended does not count. */
typedef struct ProgramPatience {
    double seconds;
    int (*stopped)(void *user); /* is asked now and then; NULL: never */
    void *user;
} ProgramPatience;

/** The environment without what tells an MPI program of its ranks, which is
 *  this process's, and with num more, NAME=VALUE: for dg_program_start(), to be
 *  freed in one piece. NULL: no memory. */
char **dg_program_environment(const char *const *more, int num);

/** Whether a shell would find what a command begins with. Errors: DG_EINVAL
 *  naming the word, behind 'key = "command": '. */
int dg_program_find(const char *key, const char *command);

/** Starts one: /bin/sh -c command. p was zero, or ended; p->name is set.
 *  Errors: DG_EIO. */
int dg_program_start(Program *p, const char *command, char *const *env);

/**
 * Sends two parts, either may be empty, and waits for a line, which is in
 * *line without its end until the next call. A line that was there before is
 * taken first. What the program does not read any more is given up.
 */
ProgramEnd dg_program_ask(Program *p, const ProgramBytes parts[2],
                          const ProgramPatience *patience, const char **line);

/** 1: it has ended, and nobody has asked how (dg_program_end()). */
int dg_program_has_ended(const Program *p);

/** Closes its standard input, if it runs: it should end by itself. */
void dg_program_dismiss(Program *p);

/**
 * The same, waits so long for its end, then kills what is left of its group.
 * how  [bytes] out, "ended with exit code 3", "was ended by signal 11", or ""
 *      where it had to be killed. NULL: not wanted
 */
void dg_program_end(Program *p, double grace_s, char *how, size_t bytes);

#endif
