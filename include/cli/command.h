#ifndef DG_CLI_COMMAND_H
#define DG_CLI_COMMAND_H
/*
 * Commands of the program. Each stands in src/cli/<name>.c as
 * dg_cli_<name>(argc, argv), argv[0] being the command's name, and returns
 * one of the exit codes; its row stands in src/cli/main.c.
 *
 * A command says what its command line may be and what is then to be done:
 *
 *   static const CliSpec spec = { .config = DG_CLI_REQUIRED,
 *                                 .summary = "Tunes a policy by its rewards",
 *                                 .work = train };
 *   return dg_cli_run(&spec, NULL, argc, argv);
 */
#include "config/config.h"
#include "parallel/comm.h"
#include "train/bench_blocks.h"
#include "train/session.h"

enum {
    DG_EXIT_DONE = 0,
    DG_EXIT_ERROR = 1,
    DG_EXIT_USAGE = 2,
    /* stopped early with a checkpoint, or another run has the folder: run
     * again */
    DG_EXIT_STOPPED = 75
};

enum { DG_CLI_ARGS = 16, DG_CLI_ANYWHERE = -1, DG_CLI_GPU_OUTLINE = 2 };

typedef enum CliConfig {
    DG_CLI_NONE,     /* the command takes no CONFIG and no --set */
    DG_CLI_OPTIONAL, /* first positional, if there is one */
    DG_CLI_REQUIRED
} CliConfig;

/* A flag of one command. With 'value' it takes one (--to A or --to=A), with
 * 'file' the name of a file to write, which is tried before work begins and ends
 * in 'ends', if that is given, with 'number' a whole number from least to most,
 * else it only sets *on to 1. What it sets is left alone when it is not given. */
typedef struct CliFlag {
    const char *name; /* with its dashes */
    const char *help;
    int *on;
    const char **value;
    const char **file;
    const char *ends; /* such as ".png": what is written whatever the name */
    int *number, least, most;
    const char *takes; /* what it takes, as help names it; NULL: by its kind */
} CliFlag;

typedef struct Cli Cli;

/* What a command does once its command line is understood; options are what
 * its flags set. Collective. Errors, agreed (dg_agree); DG_ESTOP: stopped early
 * with a checkpoint. */
typedef int CliWork(Cli *cli, void *options);

typedef struct CliSpec {
    CliWork *work;
    const char *summary;   /* one line */
    const char *arguments; /* positionals behind CONFIG, "FILE.h5"; "" */
    int min_args, max_args;
    CliConfig config;
    int on_gpu;         /* it can run with run.device = "cuda"; DG_CLI_ANYWHERE:
                 * nothing runs, the CPU's table is enough */
    int own_prediction; /* policy.prediction is the configuration's, not that
                         * of the start weights */
    int outline; /* 1: only sizes are needed: see dg_policy_adopt_folder(),
                  * dg_policy_lacks_weights();
                  * DG_CLI_GPU_OUTLINE: with run.device = "cuda" */
    const CliFlag *flags;
    int num_flags;
} CliSpec;

struct Cli {
    const char *name; /* of the command */
    Comm comm;
    Config config;           /* equal on all ranks */
    char *config_text;       /* its text, dg_config_print */
    const char *config_path; /* NULL: none given */
    const char *args[DG_CLI_ARGS];
    int num_args;
    char command_line[1024]; /* for the attributes of outputs */
    char arithmetic[288];    /* as FileInfo has it; of dg_cli_session() */
    int unlike; /* a rank that computes otherwise than rank 0; 0: none */
    const CliSpec *spec;
    struct CudaStream *gpu; /* of dg_cli_session(); given back at the end */
    int dry_run;            /* check everything, then end without computing */
};

/**
 * A command from its first to its last line; argv[0] is its name. Starts MPI,
 * understands the command line, reads the configuration on rank 0 and gives it
 * to all ranks, checks it (dg_config_check), sets up log and progress bar, calls
 * spec->work, reports its error, if any, on rank 0, ends MPI. Collective over
 * all ranks.
 * Every command has --help and, for the manual page, --man, for which MPI is
 * not started; those with a configuration also --set key=value,
 * --print-config, --dry-run. work is not called where there is nothing more to
 * do.
 * Returns the exit code.
 */
int dg_cli_run(const CliSpec *spec, void *options, int argc, char **argv);

/** Threads of this rank: run.threads, or the cores it may use divided by the
 *  ranks that may use the same ones. Collective. */
int dg_cli_threads(const Cli *cli);

/** The configuration that a trajectory file was written with, and its text; not
 *  settled yet. By this rank alone. Errors: DG_EIO, DG_EFORMAT; those of its
 *  keys. */
int dg_cli_stored_config(Cli *cli, const char *path);

/** A path of that configuration to what flag says instead; NULL: as it was.
 *  Errors: DG_EUSAGE when it is too long. */
int dg_cli_moved(char path[DG_CONFIG_STRING], const char *flag,
                 const char *now);

/** What the long commands share: ranks, configuration, kernels, provenance.
 *  Borrows from cli. With run.device = "cuda" this rank takes a GPU: that of
 *  its number on the node. Collective. Errors, agreed: DG_EDEVICE when
 *  run.device cannot be had. */
int dg_cli_session(Session *out, Cli *cli);
/** Gives back the GPU that dg_cli_session() took, if it did. */
void dg_cli_session_end(Cli *cli);

/** 1 if this program was built with its GPU side. */
int dg_cli_has_gpu_side(void);

/** What the bench of a GPU is measured against: *num of them, at most
 *  DG_BENCH_TOOLS, or none where the session is the CPU's. Not collective.
 *  Errors: DG_EDEVICE, DG_ENOMEM. */
int dg_cli_bare(BenchTools *out, int *num, const Cli *cli);
void dg_cli_bare_end(BenchTools *tools, int num);

/** How a run ended, as work() returns it: DG_OK, or with a line that says how
 *  to go on DG_ESTOP. */
int dg_cli_ended(RunEnd end);

/** A flag's whole number, least to most. Errors: DG_EUSAGE naming the flag. */
int dg_cli_number(int *out, const char *flag, const char *text, int least,
                  int most);

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
int dg_cli_doctor(int argc, char **argv);
int dg_cli_config(int argc, char **argv);

#endif
