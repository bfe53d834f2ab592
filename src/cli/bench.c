#include "cli/command.h"

#include "base/error.h"
#include "cpu/conv_rate.h"
#include "cpu/sgemm_rate.h"
#include "train/bench.h"
#include "train/bench_blocks.h"

#include <stdio.h>

static int as_text(char **text, const void *bench)
{
    return dg_bench_text(text, bench);
}

static int as_json(char **text, const void *bench)
{
    return dg_bench_json(text, bench);
}

/* On rank 0, the others wait in the agreement that follows. */
static int bench_blocks(const Session *session, int repeats)
{
    static const BenchConv conv = { dg_cpu_conv_bare_create,
                                    dg_cpu_conv_bare_run,
                                    dg_cpu_conv_bare_destroy };
    const BlockSizes sizes = dg_bench_block_sizes();
    BenchBlock blocks[DG_BENCH_BLOCKS];
    int num;
    const int err = dg_bench_blocks(blocks, &num, session->backend, &sizes,
                                    dg_cpu_sgemm_bare, &conv, repeats);

    if (!err)
        dg_bench_blocks_text(stdout, blocks, num);
    return err;
}

int dg_cli_bench(int argc, char **argv)
{
    BenchOpts o = { .bare = dg_cpu_sgemm_bare, .repeats = 21 };
    const char *json = NULL, *repeats = NULL;
    int blocks = 0;
    const CliFlag flags[] = {
        { "--network", "the network alone, no iterations", &o.network_only,
          NULL },
        { "--blocks", "full-size blocks of SD and FLUX.1 alone (6 GB)", &blocks,
          NULL },
        { "--repeats", "pairs of measurements (21)", NULL, &repeats },
        { "--json", "write the figures to this file too", NULL, &json },
    };
    const CliSpec spec = {
        .name = "bench",
        .config = DG_CLI_REQUIRED,
        .summary = "Measures speed as ratios within one run: the network "
                   "against the library's bare\nmatrix product, all ranks "
                   "against one; where the time of an iteration goes.",
        .flags = flags,
        .num_flags = 4,
    };
    Session session;
    Bench bench;
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_number(&o.repeats, "--repeats", repeats, 1000);
    if (!err)
        err = dg_cli_session(&session, &cli);
    if (!err && !cli.dry_run && blocks)
        err = dg_agree(&cli.comm, cli.comm.rank == 0
                                      ? bench_blocks(&session, o.repeats)
                                      : DG_OK);
    else if (!err && !cli.dry_run)
        err = dg_bench_run(&bench, &session, &o);
    if (!err && !cli.dry_run && !blocks)
        err = dg_agree(&cli.comm,
                       cli.comm.rank == 0
                           ? dg_cli_tell(&bench, as_text, as_json, json)
                           : DG_OK);
    return dg_cli_end(&cli, err);
}
