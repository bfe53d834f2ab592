#include "cli/command.h"

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "cpu/cpu.h"
#include "generated/features.h"

#include <string.h>
#if DG_CUDA
#include "cuda/bare.h"
#include "cuda/comm.h"
#include "cuda/cuda.h"

/* A rank's GPU, and its node by the rank that is the first there. */
typedef struct Place {
    int node;
    CudaName gpu;
} Place;

static int same_card(const Place *x, const Place *y)
{
    return x->node == y->node &&
           memcmp(x->gpu.card, y->gpu.card, sizeof x->gpu.card) == 0;
}

static int same_gpu(const Place *x, const Place *y)
{
    return same_card(x, y) &&
           memcmp(x->gpu.id, y->gpu.id, sizeof x->gpu.id) == 0;
}

/* A node whose ranks share a card: how many there are, on how many cards; 0,
 * everywhere, if no node's do. */
static int sharing(const Place *all, int size, int *cards)
{
    for (int i = 0; i < size; i++) {
        int ranks = 0, shared = 0;

        *cards = 0;
        for (int j = 0; j < size; j++) {
            int first = j;

            if (all[j].node != all[i].node)
                continue;
            for (int k = j - 1; k >= 0; k--)
                if (same_card(&all[k], &all[j]))
                    first = k;
            ranks++;
            *cards += first == j;
            shared |= first != j;
        }
        if (shared)
            return ranks;
    }
    return 0;
}

/* How gradients go between ranks: NCCL wants a GPU for each. */
static int join(const Comm *c, const Place *all, double patience_s)
{
    int cards;
    const int ranks = sharing(all, c->size, &cards);

    if (c->size == 1)
        return DG_OK;
    if (ranks)
        dg_warn("%d ranks of a node share %d GPUs: gradients are summed "
                "through the host",
                ranks, cards);
    else if (!dg_cuda_comm_built())
        dg_warn("built without NCCL: gradients are summed through the host");
    else
        return dg_cuda_comm_join(c, patience_s);
    return DG_OK;
}

/* Every rank may see GPUs of its own, each as its first one (a scheduler that
 * binds them), or all those of the node: what counts is which they are. */
static void tell_places(const Comm *c, Place *all, const CudaName *gpu)
{
    Place mine = { .node = c->rank, .gpu = *gpu };

    dg_comm_node_bcast(c, &mine.node, sizeof mine.node, 0);
    dg_comm_allgather(c, all, &mine, sizeof mine);
}

/* One worker drives the GPU; ranks of a node take those they see in turn. */
static int open_gpu(Session *s, Cli *cli)
{
    const Comm *c = &cli->comm;
    Place all[c->size];
    CudaName gpu = { 0 };
    int count = 0;
    int err = dg_cuda_device_count(&count);

    if (!err)
        err = dg_cuda_stream_create(&cli->gpu, c->node_rank % count);
    if (!err)
        err = dg_cuda_device_name(&gpu, c->node_rank % count);
    if (!err && cli->config.parallel.graphs)
        err = dg_cuda_replays(cli->gpu);
    err = dg_agree(c, err);
    if (err)
        return err;
    dg_cuda_use(cli->gpu);
    tell_places(c, all, &gpu);
    err = join(c, all, cli->config.parallel.timeout_seconds);
    if (err)
        return err;
    s->device_ranks = 0;
    for (int r = 0; r < c->size; r++)
        s->device_ranks += same_gpu(&all[r], &all[c->rank]);
    s->backend = dg_backend_cuda();
    s->host_threads = s->num_threads;
    s->num_threads = 1;
    return DG_OK;
}

void dg_cli_session_end(Cli *cli)
{
    dg_cuda_stream_destroy(cli->gpu);
    cli->gpu = NULL;
}

int dg_cli_bare(BenchTools *out, int *num, const Cli *cli)
{
    static const char *const names[DG_CUDA_ARITHMETICS] = { "float32", "TF32",
                                                            "bfloat16" };
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
                               .dtype =
                                   i == DG_CUDA_BFLOAT16 ? DG_BF16 : DG_F32,
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

int dg_cli_session(Session *out, Cli *cli)
{
    *out = (Session) {
        .comm = &cli->comm,
        .config = &cli->config,
        .backend = dg_backend_cpu(),
        .info = { .program = "dancegrpo " DG_VERSION,
                  .git_commit = dg_git_commit(),
                  .command = cli->command_line,
                  .config = cli->config_text,
                  .seed = cli->config.run.seed },
        .num_threads = dg_cli_threads(cli),
    };
    if (cli->config.run.dtype != DG_STORE_FLOAT32 &&
        cli->config.run.device == DG_DEVICE_CPU)
        return dg_fail(DG_EINVAL, "run.dtype = \"bfloat16\": only with "
                                  "run.device = \"cuda\"; on the CPU it must "
                                  "be \"float32\"");
    if (cli->config.run.device == DG_DEVICE_CPU ||
        cli->spec->on_gpu == DG_CLI_ANYWHERE)
        return DG_OK;
    if (!cli->spec->on_gpu)
        return dg_fail(DG_EDEVICE,
                       "run.device = \"cuda\": %s runs on the CPU alone; use "
                       "\"cpu\"",
                       cli->name);
    return open_gpu(out, cli);
}
