#define _GNU_SOURCE /* sched_getaffinity */
#include "help.h"
#include "man.h"

#include "base/error.h"
#include "base/float_env.h"
#include "base/log.h"
#include "base/out_file.h"
#include "base/progress.h"
#include "config/option.h"
#include "policy/policy.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SETS = 256 };

/* The command line as understood, before any file is read. */
typedef struct Line {
    const char *sets[MAX_SETS];
    int num_sets, print_config;
} Line;

static int takes_value(const CliFlag *f)
{
    return dg_cli_takes(f) != NULL;
}

/* The value of an option at argv[*i], as "--name value" or "--name=value";
 * NULL when argv[*i] is another option. */
static const char *value_of(const char *name, int argc, char **argv, int *i)
{
    const size_t n = strlen(name);

    if (strncmp(argv[*i], name, n) != 0)
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    if (argv[*i][n] != '\0')
        return NULL;
    if (*i + 1 >= argc)
        return "";
    return argv[++*i];
}

enum { MAX_FLAGS = 16 };

/* The key that is meant by "--iterations" or "--run.iterations=5"; NULL: none,
 * or several. */
static const char *key_meant(const char *given)
{
    const char *name = given + strspn(given, "-"), *found = NULL;
    const size_t length = strcspn(name, "=");
    const Option *table;
    int num;

    table = dg_option_table(&num);
    for (int i = 0; i < num; i++) {
        const char *key = table[i].key, *last = strrchr(key, '.');

        if (strlen(key) == length && strncmp(key, name, length) == 0)
            return key;
        if (last == NULL || strlen(last + 1) != length ||
            strncmp(last + 1, name, length) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = key;
    }
    return found;
}

static int unknown_option(const CliSpec *s, const char *given)
{
    const char *names[MAX_FLAGS] = { "--help", "--set", "--print-config",
                                     "--dry-run" };
    int num = s->config == DG_CLI_NONE ? 1 : 4;
    const char *key = num > 1 ? key_meant(given) : NULL, *near;

    for (int i = 0; i < s->num_flags && num < MAX_FLAGS; i++)
        names[num++] = s->flags[i].name;
    near = dg_nearest_name(given, names, num);
    if (near != NULL)
        return dg_fail(DG_EUSAGE, "unknown option %s, did you mean %s?", given,
                       near);
    if (key != NULL)
        return dg_fail(DG_EUSAGE,
                       "unknown option %s; keys are set by --set %s=...", given,
                       key);
    return dg_fail(DG_EUSAGE, "unknown option %s%s", given,
                   s->max_args > 0 ? " (an argument that begins with - comes "
                                     "behind --)"
                                   : "");
}

static int ends_in(const char *name, const char *end)
{
    const size_t length = strlen(name), most = strlen(end);

    return length > most && strcasecmp(name + length - most, end) == 0;
}

static int take_flag(const CliSpec *s, int argc, char **argv, int *i)
{
    for (int j = 0; j < s->num_flags; j++) {
        const CliFlag *f = &s->flags[j];

        if (!takes_value(f)) {
            if (strcmp(argv[*i], f->name) == 0) {
                *f->on = 1;
                return DG_OK;
            }
            continue;
        }
        const char *value = value_of(f->name, argc, argv, i);
        if (value == NULL)
            continue;
        if (*value == '\0')
            return dg_fail(DG_EUSAGE, "%s needs a value", f->name);
        if (f->number != NULL)
            return dg_cli_number(f->number, f->name, value, f->least, f->most);
        if (f->ends != NULL && !ends_in(value, f->ends))
            return dg_fail(DG_EUSAGE,
                           "%s %s: must end in %s, as what is written", f->name,
                           value, f->ends);
        *(f->file != NULL ? f->file : f->value) = value;
        return DG_OK;
    }
    return unknown_option(s, argv[*i]);
}

static int take_option(Cli *cli, Line *line, int argc, char **argv, int *i)
{
    const int has_config = cli->spec->config != DG_CLI_NONE;

    if (has_config && strcmp(argv[*i], "--print-config") == 0) {
        line->print_config = 1;
        return DG_OK;
    }
    if (has_config && strcmp(argv[*i], "--dry-run") == 0) {
        cli->dry_run = 1;
        return DG_OK;
    }
    const char *set = has_config ? value_of("--set", argc, argv, i) : NULL;
    if (set == NULL)
        return take_flag(cli->spec, argc, argv, i);
    if (line->num_sets == MAX_SETS)
        return dg_fail(DG_EUSAGE, "more than %d --set", MAX_SETS);
    line->sets[line->num_sets++] = set;
    return DG_OK;
}

static int check_arguments(const Cli *cli)
{
    const CliSpec *s = cli->spec;

    if (s->config == DG_CLI_REQUIRED && cli->config_path == NULL)
        return dg_fail(DG_EUSAGE, "%s needs a CONFIG file", cli->name);
    if (cli->num_args < s->min_args)
        return dg_fail(DG_EUSAGE, "%s needs %s", cli->name, s->arguments);
    if (cli->num_args > s->max_args)
        return dg_fail(DG_EUSAGE, "%s: one argument too many: %s%s", cli->name,
                       cli->args[s->max_args],
                       s->config != DG_CLI_NONE &&
                               strchr(cli->args[s->max_args], '=') != NULL
                           ? "; keys are set by --set key=value"
                           : "");
    return DG_OK;
}

static int understand(Cli *cli, Line *line, int argc, char **argv)
{
    int ended = 0; /* "--" was there: what follows is no option */

    for (int i = 1; i < argc; i++) {
        int err = DG_OK;

        if (!ended && strcmp(argv[i], "--") == 0)
            ended = 1;
        else if (!ended && argv[i][0] == '-' && argv[i][1] != '\0')
            err = take_option(cli, line, argc, argv, &i);
        else if (cli->spec->config != DG_CLI_NONE && cli->config_path == NULL)
            cli->config_path = argv[i];
        else if (cli->num_args < DG_CLI_ARGS)
            cli->args[cli->num_args++] = argv[i];
        else
            err = dg_fail(DG_EUSAGE, "more than %d arguments", DG_CLI_ARGS);
        if (err)
            return err;
    }
    return check_arguments(cli);
}

static void keep_command_line(Cli *cli, int argc, char **argv)
{
    size_t at = (size_t)snprintf(cli->command_line, sizeof cli->command_line,
                                 "dancegrpo");

    for (int i = 0; i < argc && at < sizeof cli->command_line; i++)
        at += (size_t)snprintf(cli->command_line + at,
                               sizeof cli->command_line - at, " %s", argv[i]);
}

static int only_sizes(const CliSpec *s, const Config *c)
{
    return s->outline == DG_CLI_GPU_OUTLINE ? c->run.device == DG_DEVICE_CUDA
                                            : s->outline;
}

/* Weights of others come with their sizes and tokenizers, as a folder. */
static int check_weights(const char *path)
{
    static const char *const others[] = { ".safetensors", ".bin", ".pt", ".pth",
                                          ".ckpt" };
    const char *end = strrchr(path, '.');
    struct stat st;
    int is_other = stat(path, &st) == 0 && S_ISDIR(st.st_mode);

    for (size_t i = 0; end != NULL && i < sizeof others / sizeof *others; i++)
        is_other |= strcmp(end, others[i]) == 0;
    return is_other
               ? dg_fail(DG_EINVAL,
                         "policy.weights = \"%s\": must be a checkpoint or "
                         "weights file of this program (.h5); those of "
                         "others are a whole folder, policy.path",
                         path)
               : DG_OK;
}

/* Where more arguments follow, one of them may stand in its place. */
static int load_config(Config *c, const char *path, const CliSpec *s)
{
    char why[sizeof dg_last_error()->text];
    const int err = dg_config_load(c, path);

    if (err != DG_EIO || s->max_args == 0 || access(path, F_OK) == 0)
        return err;
    memcpy(why, dg_last_error()->text, sizeof why);
    return dg_fail(err, "%.900s (the first argument is CONFIG, %s follows)",
                   why, s->arguments);
}

static int read_config(Config *c, const char *path, const Line *line,
                       const CliSpec *s)
{
    Prediction own;
    int err = DG_OK;

    if (path != NULL)
        err = load_config(c, path, s);
    for (int i = 0; !err && i < line->num_sets; i++)
        err = dg_config_set(c, line->sets[i]);
    /* weights that exist know the sizes of their networks */
    own = c->policy.prediction;
    if (!err)
        err = dg_config_check_names(c);
    if (!err && c->policy.weights[0] != '\0' &&
        !(s->outline == 1 && dg_policy_lacks_weights(c))) {
        err = check_weights(c->policy.weights);
        if (!err)
            err = dg_policy_adopt_sizes(c, c->policy.weights);
    }
    if (s->own_prediction)
        c->policy.prediction = own;
    if (!err)
        err = dg_policy_adopt_folder(c, only_sizes(s, c));
    dg_config_settle(c);
    return err ? err : dg_config_check(c);
}

/* Rank 0 reads; then all ranks, it too, parse the same bytes. */
static int share_config(Cli *cli, const Line *line)
{
    const Comm *comm = &cli->comm;
    size_t bytes = 0;
    int err = DG_OK;

    dg_config_defaults(&cli->config);
    if (comm->rank == 0) {
        err = read_config(&cli->config, cli->config_path, line, cli->spec);
        if (!err)
            err = dg_config_print(&cli->config_text, &cli->config);
        if (!err)
            bytes = strlen(cli->config_text);
    }
    err = dg_agree(comm, err);
    if (err)
        return err;
    err = dg_comm_bcast_alloc(comm, &cli->config_text, &bytes, 0);
    if (err)
        return err;
    dg_config_defaults(&cli->config);
    return dg_agree(comm, dg_config_parse(&cli->config, cli->config_text,
                                          "broadcast configuration"));
}

static int report_usage(const Cli *cli)
{
    if (cli->comm.rank == 0) {
        fprintf(stderr, "dancegrpo: %s\n", dg_last_error()->text);
        dg_cli_usage(stderr, cli);
        fprintf(stderr, "Try: dancegrpo %s --help\n", cli->name);
    }
    dg_clear_error();
    return DG_EXIT_USAGE;
}

/* Log and standard output can still fail a command that went well. */
static int report_end(Cli *cli, int err)
{
    int bad = err != DG_OK && err != DG_ESTOP;

    if (bad)
        dg_log_last_error();
    dg_progress_end();
    if (dg_log_close() != DG_OK && !bad) {
        dg_log_last_error();
        bad = 1;
    }
    if (cli->comm.rank == 0 && !bad && !dg_cli_said_all())
        bad = 1;
    if (bad)
        return err == DG_EUSAGE  ? DG_EXIT_USAGE
               : err == DG_EBUSY ? DG_EXIT_STOPPED
                                 : DG_EXIT_ERROR;
    return err == DG_ESTOP ? DG_EXIT_STOPPED : DG_EXIT_DONE;
}

/* Rank 0 will write them. */
static int try_files(const Cli *cli)
{
    const CliSpec *s = cli->spec;
    int err = DG_OK;

    for (int i = 0; i < s->num_flags && cli->comm.rank == 0 && !err; i++)
        if (s->flags[i].file != NULL && *s->flags[i].file != NULL)
            err = dg_out_try(*s->flags[i].file);
    return dg_agree(&cli->comm, err);
}

static int configured(Cli *cli, const Line *line, void *options)
{
    int err = DG_OK;

    if (cli->spec->config == DG_CLI_NONE)
        return cli->spec->work(cli, options);
    err = share_config(cli, line);
    if (!err)
        err = dg_comm_watch(&cli->comm,
                            cli->config.parallel.host_timeout_seconds);
    if (err)
        return err;
    if (line->print_config) {
        if (cli->comm.rank == 0)
            fputs(cli->config_text, stdout);
        return DG_OK;
    }
    dg_log_setup(cli->comm.rank, cli->config.log.level == DG_LOG_SHOW_WARN
                                     ? DG_LOG_WARN
                                     : DG_LOG_INFO);
    dg_progress_enable(cli->comm.rank == 0 && cli->config.log.progress);
    err = try_files(cli);
    if (!err)
        err = cli->spec->work(cli, options);
    if (!err && cli->dry_run && cli->spec->outline != 1)
        dg_info("dry run: all checks passed, nothing was computed");
    return err;
}

/* All of a command between MPI's start and end. */
static int command(Cli *cli, void *options, int argc, char **argv)
{
    Line line = { .num_sets = 0 };
    int err = understand(cli, &line, argc, argv);

    if (err == DG_EUSAGE)
        return report_usage(cli);
    if (!err)
        err = configured(cli, &line, options);
    return report_end(cli, err);
}

static int asks_help(const CliSpec *s, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int is_value = s->config != DG_CLI_NONE &&
                       value_of("--set", argc, argv, &i) != NULL;

        for (int j = 0; j < s->num_flags && !is_value; j++)
            is_value = takes_value(&s->flags[j]) &&
                       value_of(s->flags[j].name, argc, argv, &i) != NULL;
        if (!is_value &&
            (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0))
            return 1;
    }
    return 0;
}

/* By what launchers tell their processes, before MPI has begun. */
static int is_first_rank(void)
{
    static const char *const names[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK",
                                         "PMI_RANK", "SLURM_PROCID" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *rank = getenv(names[i]);

        if (rank != NULL)
            return strcmp(rank, "0") == 0;
    }
    return 1;
}

/* Without MPI, which may not begin on a login node. */
static int tell(Cli *cli, void (*how)(const Cli *cli))
{
    dg_log_setup(0, DG_LOG_INFO);
    if (is_first_rank())
        how(cli);
    return report_end(cli, DG_OK);
}

int dg_cli_run(const CliSpec *spec, void *options, int argc, char **argv)
{
    Cli cli = { .name = argv[0], .spec = spec };
    int code, err;

    if (argc == 2 && strcmp(argv[1], "--man") == 0)
        return tell(&cli, dg_man_command);
    if (asks_help(spec, argc, argv))
        return tell(&cli, dg_cli_help);
    keep_command_line(&cli, argc, argv);
    err = dg_comm_init(&cli.comm, &argc, &argv);
    dg_float_env_standard(); /* MPI has loaded what it loads */
    dg_log_setup(cli.comm.rank, DG_LOG_INFO);
    code = err ? report_end(&cli, err) : command(&cli, options, argc, argv);
    dg_cli_session_end(&cli);
    free(cli.config_text);
    dg_comm_fini(&cli.comm);
    return code;
}

int dg_cli_threads(const Cli *cli)
{
    struct Place {
        char host[64];
        cpu_set_t cores;
    } mine, *all;
    int same = 0;

    if (cli->config.run.threads > 0)
        return (int)cli->config.run.threads;
    memset(&mine, 0, sizeof mine);
    gethostname(mine.host, sizeof mine.host - 1);
    if (sched_getaffinity(0, sizeof mine.cores, &mine.cores) != 0)
        CPU_SET(0, &mine.cores);
    all = calloc((size_t)cli->comm.size, sizeof *all);
    if (all == NULL)
        dg_panic("no memory to count the cores of %d ranks", cli->comm.size);
    dg_comm_allgather(&cli->comm, all, &mine, sizeof mine);
    for (int i = 0; i < cli->comm.size; i++)
        same += memcmp(&all[i], &mine, sizeof mine) == 0;
    free(all);
    const int cores = CPU_COUNT(&mine.cores) / same;
    const int most = omp_get_thread_limit();
    const int threads = cores < most ? cores : most;
    return threads > 0 ? threads : 1;
}
