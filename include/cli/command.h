#ifndef DG_CLI_COMMAND_H
#define DG_CLI_COMMAND_H
/*
 * Commands of the program. Each stands in src/cli/<name>.c as
 * dg_cli_<name>(argc, argv), argv[0] being the command's name, and returns
 * one of the exit codes; its row stands in src/cli/main.c.
 *
 * A command begins with dg_cli_begin() and ends with dg_cli_end():
 *
 *   static const CliSpec spec = { .name = "train", .config = DG_CLI_REQUIRED,
 *                                 .summary = "tune a policy by its rewards" };
 *   Cli cli;
 *   int code = dg_cli_begin(&cli, &spec, argc, argv);
 *   if (code != DG_CLI_GO)
 *       return code;
 *   int err = work(&cli);
 *   return dg_cli_end(&cli, err);
 */
#include "config/config.h"
#include "parallel/comm.h"
#include "train/bench_blocks.h"
#include "train/session.h"

enum {
    DG_EXIT_DONE = 0,
    DG_EXIT_ERROR = 1,
    DG_EXIT_USAGE = 2,
    DG_EXIT_STOPPED = 75 /* stopped early with a checkpoint: run again */
};

enum {
    DG_CLI_GO = -1,
    DG_CLI_ARGS = 16,
    DG_CLI_ANYWHERE = -1,
    DG_CLI_GPU_OUTLINE = 2
};

typedef enum CliConfig {
    DG_CLI_NONE,     /* the command takes no CONFIG and no --set */
    DG_CLI_OPTIONAL, /* first positional, if there is one */
    DG_CLI_REQUIRED
} CliConfig;

/* A flag of one command. With 'value' it takes one (--seed 3 or --seed=3),
 * else it only sets *on to 1. Both are left alone when it is not given. */
typedef struct CliFlag {
    const char *name; /* with its dashes */
    const char *help;
    int *on;
    const char **value;
} CliFlag;

typedef struct CliSpec {
    const char *name;
    const char *summary;   /* one line */
    const char *arguments; /* positionals behind CONFIG, "FILE.h5"; "" */
    int min_args, max_args;
    CliConfig config;
    int on_gpu;         /* it can run with run.device = "cuda"; DG_CLI_ANYWHERE:
                 * nothing runs, the CPU's table is enough */
    int own_prediction; /* policy.prediction is the configuration's, not that
                         * of the start weights */
    int outline;        /* only sizes are needed: see dg_policy_adopt_folder();
                  * DG_CLI_GPU_OUTLINE: with run.device = "cuda" */
    const CliFlag *flags;
    int num_flags;
} CliSpec;

typedef struct Cli {
    Comm comm;
    Config config;           /* equal on all ranks */
    char *config_text;       /* its text, dg_config_print */
    const char *config_path; /* NULL: none given */
    const char *args[DG_CLI_ARGS];
    int num_args;
    char command_line[1024]; /* for the attributes of outputs */
    const CliSpec *spec;
    struct CudaStream *gpu; /* of dg_cli_session(); ended by dg_cli_end() */
    int dry_run;            /* check everything, then end without computing */
} Cli;

/**
 * Starts MPI, understands the command line, reads the configuration on rank
 * 0 and gives it to all ranks, checks it (dg_config_check), sets up log and
 * progress bar. Collective over all ranks.
 * Every command has --help; those with a configuration also --set key=value,
 * --print-config, --dry-run.
 * Returns DG_CLI_GO, or the exit code when there is nothing more to do: all
 * is ended and reported then, and dg_cli_end() must not be called.
 */
int dg_cli_begin(Cli *cli, const CliSpec *spec, int argc, char **argv);

/**
 * Reports the error, if any, on rank 0, ends MPI and gives the exit code.
 * err must be agreed (dg_agree), the same on all ranks. Collective.
 */
int dg_cli_end(Cli *cli, int err);

/** Threads of this rank: run.threads, or the cores it may use divided by the
 *  ranks that may use the same ones. Collective. */
int dg_cli_threads(const Cli *cli);

/** What the long commands share: ranks, configuration, kernels, provenance.
 *  Borrows from cli. With run.device = "cuda" this rank takes a GPU: that of
 *  its number on the node. Collective. Errors, agreed: DG_EDEVICE when
 *  run.device cannot be had. */
int dg_cli_session(Session *out, Cli *cli);
/** Gives back the GPU that dg_cli_session() took, if it did. */
void dg_cli_session_end(Cli *cli);

/** What the bench of a GPU is measured against: *num of them, at most
 *  DG_BENCH_TOOLS, or none where the session is the CPU's. Not collective.
 *  Errors: DG_EDEVICE, DG_ENOMEM. */
int dg_cli_bare(BenchTools *out, int *num, const Cli *cli);
void dg_cli_bare_end(BenchTools *tools, int num);

/** A flag's whole number, 1 to most; *out is left alone where text is NULL.
 *  Errors: DG_EINVAL naming the flag. */
int dg_cli_number(int *out, const char *flag, const char *text, int most);

/** Figures as text: what dg_cli_tell() is given. *text is for free(). */
typedef int CliText(char **text, const void *figures);

/** Figures on the screen and, where path is not NULL, as JSON in that file.
 *  On rank 0 alone. Errors: those of the two; DG_EIO. */
int dg_cli_tell(const void *figures, CliText *text, CliText *json,
                const char *path);

int dg_cli_train(int argc, char **argv);
int dg_cli_sample(int argc, char **argv);
int dg_cli_encode(int argc, char **argv);
int dg_cli_evaluate(int argc, char **argv);
int dg_cli_convert(int argc, char **argv);
int dg_cli_inspect(int argc, char **argv);
int dg_cli_replay(int argc, char **argv);
int dg_cli_plan(int argc, char **argv);
int dg_cli_pretrain(int argc, char **argv);
int dg_cli_report(int argc, char **argv);
int dg_cli_bench(int argc, char **argv);
int dg_cli_config(int argc, char **argv);

#endif
