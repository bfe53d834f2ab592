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

static int as_device_text(char **text, const void *bench)
{
    return dg_device_bench_text(text, bench);
}

static int as_device_json(char **text, const void *bench)
{
    return dg_device_bench_json(text, bench);
}

static void bare_product(void *user, float *c, const float *a, const float *b,
                         int64_t m, int64_t n, int64_t k)
{
    (void)user;
    dg_cpu_sgemm_bare(c, a, b, m, n, k);
}

/* Of the command line. */
typedef struct Wanted {
    BenchOpts opts;
    int blocks, side;
    const char *json;
} Wanted;

static int bench_blocks(const Session *session, int repeats)
{
    static const BenchConv conv = { dg_cpu_conv_bare_create,
                                    dg_cpu_conv_bare_run,
                                    dg_cpu_conv_bare_destroy };
    const BenchTools tools = { .name = "float32",
                               .product = bare_product,
                               .conv = &conv };
    const BlockSizes sizes = dg_bench_block_sizes();
    BenchBlock blocks[DG_BENCH_BLOCKS];
    int num;
    const int err = dg_bench_blocks(blocks, &num, session->backend, &sizes,
                                    &tools, repeats);

    if (!err)
        dg_bench_blocks_text(stdout, blocks, num);
    return err;
}

static int bench_gpu(const Session *session, const Cli *cli, const Wanted *w)
{
    BenchTools tools[DG_BENCH_TOOLS];
    DeviceBenchOpts o = { .tools = tools,
                          .side = w->side,
                          .blocks = w->blocks,
                          .repeats = w->opts.repeats,
                          .sizes = dg_bench_block_sizes() };
    const DType wanted =
        cli->config.run.dtype == DG_STORE_BFLOAT16 ? DG_BF16 : DG_F32;
    DeviceBench bench;
    int err = dg_cli_bare(tools, &o.num_tools, cli);

    while (!err && tools[o.used].dtype != wanted)
        o.used++;
    if (!err)
        err = dg_bench_device(&bench, session, &o);
    if (!err)
        err = dg_cli_tell(&bench, as_device_text, as_device_json, w->json);
    dg_cli_bare_end(tools, o.num_tools);
    return err;
}

/* On a GPU, and of blocks, rank 0 measures while the others wait. */
static int measure(const Session *session, const Cli *cli, const Wanted *w)
{
    const int gpu = cli->config.run.device == DG_DEVICE_CUDA;
    const int first = cli->comm.rank == 0;
    Bench bench;
    int err = DG_OK;

    if (gpu)
        err = first ? bench_gpu(session, cli, w) : DG_OK;
    else if (w->blocks)
        err = first ? bench_blocks(session, w->opts.repeats) : DG_OK;
    if (gpu || w->blocks)
        return dg_agree(&cli->comm, err);
    err = dg_bench_run(&bench, session, &w->opts);
    if (!err && first)
        err = dg_cli_tell(&bench, as_text, as_json, w->json);
    return dg_agree(&cli->comm, err);
}

static int bench(Cli *cli, void *options)
{
    Wanted *w = options;
    Session session;
    int err = dg_cli_session(&session, cli);

    cli->config.evaluate.every = 0; /* iterations alone are measured */
    if (w->opts.repeats == 0)
        w->opts.repeats = cli->config.run.device == DG_DEVICE_CUDA ? 7 : 21;
    return err || cli->dry_run ? err : measure(&session, cli, w);
}

int dg_cli_bench(int argc, char **argv)
{
    Wanted w = { .opts = { .bare = dg_cpu_sgemm_bare, .repeats = 0 },
                 .side = 8192 };
    const CliFlag flags[] = {
        { "--network", "measure the network alone, without iterations",
          .on = &w.opts.network_only },
        { "--blocks",
          "measure full-size blocks of SD and FLUX.1 alone (takes 6 GB)",
          .on = &w.blocks },
        { "--repeats", "pairs of measurements (default 21, on a GPU 7)",
          .number = &w.opts.repeats, .least = 1, .most = 1000 },
        { "--product",
          "side of the matrix product that gives a GPU's rate (default "
          "8192)",
          .number = &w.side, .least = 1, .most = 1 << 16 },
        { "--json", "write the figures to this JSON file too",
          .file = &w.json },
    };
    const CliSpec spec = {
        .work = bench,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .outline = DG_CLI_GPU_OUTLINE,
        .summary =
            "Measures speed, as ratios within one run so that other load on "
            "the machine matters little: the network against the bare matrix "
            "product of the library, all ranks against one, and where the time "
            "of an iteration goes. On a GPU it measures the network with "
            "random weights, or single blocks.",
        .flags = flags,
        .num_flags = 5,
    };

    return dg_cli_run(&spec, &w, argc, argv);
}
