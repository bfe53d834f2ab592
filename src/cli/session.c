#include "cli/command.h"

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "cpu/cpu.h"
#include "generated/features.h"
#include "store/trajectory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if DG_CUDA
#include "cuda/attention_cudnn.h"
#include "cuda/bare.h"
#include "cuda/comm.h"
#include "cuda/conv_cudnn.h"
#include "cuda/cuda.h"

/* A rank's GPU, and the first rank of its node. */
typedef struct Seat {
    CudaDevice gpu;
    int32_t node;
} Seat;

/* How many ranks have this rank's GPU, and how many that of the most wanted
 * one: by what GPUs are, not by their numbers, since each rank may see others.
 * Whose memory it is goes by the part of a GPU, what NCCL takes by the whole. */
static int crowds(const Comm *c, const CudaDevice *gpu, int *here, int *most)
{
    Seat *all = malloc((size_t)c->size * sizeof *all), mine;
    int64_t board = 0;
    const int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "ranks' GPUs"));

    *here = 0;
    memset(&mine, 0, sizeof mine);
    mine.gpu = *gpu;
    mine.node = c->rank;
    dg_comm_node_bcast(c, &mine.node, sizeof mine.node, 0);
    if (!err)
        dg_comm_allgather(c, all, &mine, sizeof mine);
    for (int i = 0; i < c->size && !err; i++)
        if (all[i].node == mine.node) {
            const CudaDevice *its = &all[i].gpu;

            *here += memcmp(its->uuid, gpu->uuid, sizeof gpu->uuid) == 0;
            board += memcmp(its->bus, gpu->bus, sizeof gpu->bus) == 0;
        }
    free(all);
    dg_comm_max_i64(c, &board, 1);
    *most = (int)board;
    return err;
}

/* How gradients go between ranks: NCCL wants a GPU for each. */
static int join(const Comm *c, int most, double patience_s)
{
    if (c->size == 1)
        return DG_OK;
    if (most > 1)
        dg_warn("%d ranks share a GPU: gradients are summed through the host",
                most);
    else if (!dg_cuda_comm_built())
        dg_warn("built without NCCL: gradients are summed through the host");
    else
        return dg_cuda_comm_join(c, patience_s);
    return DG_OK;
}

/* Whose kernels they are belongs to what bits depend on. */
static int open_library(Cli *cli, const char *what,
                        int (*open)(CudaStream *, char *, size_t))
{
    const size_t used = strlen(cli->arithmetic);
    char version[32];
    const int err = open(cli->gpu, version, sizeof version);

    if (!err)
        snprintf(cli->arithmetic + used, sizeof cli->arithmetic - used,
                 ", %s by cuDNN %s", what, version);
    return err;
}

static int open_libraries(Cli *cli)
{
    int err = DG_OK;

    if (cli->config.run.attention == DG_ATTENTION_CUDNN)
        err = open_library(cli, "attention", dg_cuda_attention_library);
    if (!err && cli->config.run.convolution == DG_CONV_CUDNN)
        err = open_library(cli, "convolutions", dg_cuda_conv_library);
    return err;
}

/* One worker drives the GPU; ranks of a node take its GPUs in turn. */
static int open_gpu(Session *s, Cli *cli)
{
    const Comm *c = &cli->comm;
    CudaDevice gpu = { .name = "" };
    int count = 0, most = 0;
    int err = dg_cuda_device_count(&count);

    if (!err)
        err = dg_cuda_device(&gpu, c->node_rank % count);
    if (!err)
        err = dg_cuda_arithmetic(cli->arithmetic, sizeof cli->arithmetic,
                                 c->node_rank % count);
    if (!err)
        err = dg_cuda_stream_create(&cli->gpu, c->node_rank % count);
    if (!err && cli->config.parallel.graphs)
        err = dg_cuda_replays(cli->gpu);
    if (!err)
        err = open_libraries(cli);
    err = dg_agree(c, err);
    if (err)
        return err;
    dg_cuda_use(cli->gpu);
    err = crowds(c, &gpu, &s->device_ranks, &most);
    if (!err)
        err = join(c, most, cli->config.parallel.timeout_seconds);
    if (err)
        return err;
    dg_info("%s", cli->arithmetic);
    s->backend = dg_backend_cuda();
    s->gpu = c->node_rank % count;
    s->host_threads = s->num_threads;
    s->num_threads = 1;
    return DG_OK;
}

static const Backend *gpu_kernels(void)
{
    return dg_backend_cuda();
}

void dg_cli_session_end(Cli *cli)
{
    dg_cuda_stream_destroy(cli->gpu);
    cli->gpu = NULL;
}

int dg_cli_bare(BenchTools *out, int *num, const Cli *cli)
{
    static const char *const names[DG_CUDA_ARITHMETICS] = {
        "float32", "TF32", "bfloat16", "own float32", "own bfloat16"
    };
    int err = DG_OK;

    *num = 0;
    for (int i = 0; i < DG_CUDA_ARITHMETICS && cli->gpu != NULL && !err; i++) {
        CudaBare *bare;

        err = dg_cuda_bare_create(&bare, (CudaArithmetic)i);
        if (!err)
            out[(*num)++] =
                (BenchTools) { .name = names[i],
                               .user = bare,
                               .product = dg_cuda_bare_product,
                               .dtype = i == DG_CUDA_BFLOAT16 ||
                                                i == DG_CUDA_OWN_BFLOAT16
                                            ? DG_BF16
                                            : DG_F32,
                               .start = dg_cuda_bare_start,
                               .stop = dg_cuda_bare_stop };
    }
    return err;
}

void dg_cli_bare_end(BenchTools *tools, int num)
{
    for (int i = 0; i < num; i++)
        dg_cuda_bare_destroy(tools[i].user);
}
#else
static int open_gpu(Session *s, Cli *cli)
{
    (void)s;
    (void)cli;
    return dg_fail(DG_EDEVICE, "run.device = \"cuda\": this program was built "
                               "without its GPU side (make CUDA=1); use "
                               "\"cpu\"");
}

static const Backend *gpu_kernels(void)
{
    return NULL;
}

void dg_cli_session_end(Cli *cli)
{
    (void)cli;
}

int dg_cli_bare(BenchTools *out, int *num, const Cli *cli)
{
    (void)out;
    (void)cli;
    *num = 0;
    return DG_OK;
}

void dg_cli_bare_end(BenchTools *tools, int num)
{
    (void)tools;
    (void)num;
}
#endif

int dg_cli_has_gpu_side(void)
{
    return DG_CUDA;
}

/* Ranks that compute otherwise make bits a matter of who has which sample. */
static int compare_ranks(Cli *cli)
{
    char mine[sizeof cli->arithmetic + 64] = "";
    const Comm *c = &cli->comm;
    char(*all)[sizeof mine] = malloc((size_t)c->size * sizeof *all);
    const int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "ranks"));
    int other = 0;

    snprintf(mine, sizeof mine, "commit %s, %s", dg_git_commit(),
             cli->arithmetic);
    if (!err)
        dg_comm_allgather(c, all, mine, sizeof mine);
    for (int r = c->size - 1; r > 0 && !err; r--)
        if (strcmp(all[r], all[0]) != 0)
            other = r;
    cli->unlike = other;
    if (other != 0)
        dg_warn(
            "rank %d computes with %s; rank 0 with %s: the last bits depend on "
            "which of them has which sample; use nodes of one kind",
            other, all[other], all[0]);
    free(all);
    return err;
}

/* What the kernels are, and what their bits depend on. */
static int open_kernels(Session *out, Cli *cli)
{
    dg_cpu_arithmetic(cli->arithmetic, sizeof cli->arithmetic);
    if (cli->config.run.device == DG_DEVICE_CPU)
        return DG_OK;
    if (!cli->spec->on_gpu)
        return dg_fail(DG_EDEVICE,
                       "run.device = \"cuda\": %s runs on the CPU alone; use "
                       "\"cpu\"",
                       cli->name);
    return open_gpu(out, cli);
}

int dg_cli_stored_config(Cli *cli, const char *path)
{
    char *text = NULL;
    H5File *f;
    int err = dg_trajectory_open(&f, path);

    if (err)
        return err;
    err = dg_h5_get_text(f, NULL, "config", &text);
    dg_h5_close(f);
    if (err)
        return err;
    dg_config_defaults(&cli->config);
    err = dg_config_parse(&cli->config, text, path);
    free(cli->config_text);
    cli->config_text = text;
    return err;
}

int dg_cli_moved(char path[DG_CONFIG_STRING], const char *flag, const char *now)
{
    const size_t length = now != NULL ? strlen(now) : 0;

    if (length >= DG_CONFIG_STRING)
        return dg_fail(DG_EUSAGE, "%s %.40s...: at most %d bytes are allowed",
                       flag, now, DG_CONFIG_STRING - 1);
    if (now != NULL)
        memcpy(path, now, length + 1);
    return DG_OK;
}

static int check_library(const Config *c, const char *key)
{
    if (c->run.dtype == DG_STORE_BFLOAT16)
        return DG_OK;
    return dg_fail(DG_EINVAL,
                   "%s = \"cudnn\": only with run.dtype = \"bfloat16\", which "
                   "is a GPU's; use \"own\"",
                   key);
}

int dg_cli_session(Session *out, Cli *cli)
{
    int err = DG_OK;

    *out = (Session) {
        .comm = &cli->comm,
        .config = &cli->config,
        .backend = dg_backend_cpu(),
        .info = { .program = "dancegrpo " DG_VERSION,
                  .git_commit = dg_git_commit(),
                  .command = cli->command_line,
                  .config = cli->config_text,
                  .seed = cli->config.run.seed,
                  .arithmetic = cli->arithmetic },
        .num_threads = dg_cli_threads(cli),
        .gpu_kernels = gpu_kernels(),
    };
    if (cli->config.run.dtype != DG_STORE_FLOAT32 &&
        cli->config.run.device == DG_DEVICE_CPU)
        return dg_fail(DG_EINVAL, "run.dtype = \"bfloat16\": only with "
                                  "run.device = \"cuda\"; on the CPU it must "
                                  "be \"float32\"");
    if (cli->config.run.attention == DG_ATTENTION_CUDNN)
        err = check_library(&cli->config, "run.attention");
    if (!err && cli->config.run.convolution == DG_CONV_CUDNN)
        err = check_library(&cli->config, "run.convolution");
    if (err)
        return err;
    if (cli->spec->on_gpu == DG_CLI_ANYWHERE)
        return DG_OK;
    err = open_kernels(out, cli);
    if (!err)
        err = compare_ranks(cli);
    out->unlike = cli->unlike;
    return err;
}
