/* Whether the promises hold here: a small network, numbers. */
#include "base/clock.h"
#include "base/error.h"
#include "base/philox.h"
#include "doctor_internal.h"
#include "train/bench.h"

#include <float.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- who is where, and who finds what ----------------------------------------- */

void dg_doctor_host(char text[DG_DOCTOR_HOST])
{
    memset(text, 0, DG_DOCTOR_HOST);
    gethostname(text, DG_DOCTOR_HOST - 1);
}

int dg_doctor_places(DoctorPlace **out, const Comm *c)
{
    DoctorPlace mine, *all = malloc((size_t)c->size * sizeof *all);
    const int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    memset(&mine, 0, sizeof mine);
    dg_doctor_host(mine.host);
    mine.node = c->rank;
    dg_comm_node_bcast(c, &mine.node, sizeof mine.node, 0);
    if (err) {
        free(all);
        return err;
    }
    dg_comm_allgather(c, all, &mine, sizeof mine);
    *out = all;
    return DG_OK;
}

/* The rank whose digest most ranks have; of equally many the lowest. */
static int usual(const DoctorFound *all, int size, int part)
{
    int best = 0, most = 0;

    for (int r = 0; r < size && 2 * most <= size; r++) {
        int same = 0;

        for (int i = 0; i < size; i++)
            same += strcmp(all[i].digest[part], all[r].digest[part]) == 0;
        if (same > most) {
            most = same;
            best = r;
        }
    }
    return best;
}

static int judge(const DoctorFound *all, const DoctorPlace *at, int size,
                 const char *const *part)
{
    for (int k = 0; k < DG_DOCTOR_PARTS && part[k] != NULL; k++) {
        const int right = usual(all, size, k);
        int odd = -1, others = 0;
        char more[48] = "";

        for (int r = size - 1; r >= 0; r--)
            if (strcmp(all[r].digest[k], all[right].digest[k]) != 0) {
                odd = r;
                others++;
            }
        if (odd < 0)
            continue;
        if (others > 1)
            snprintf(more, sizeof more, ", and so do %d more", others - 1);
        return dg_fail(DG_EPROMISE,
                       "rank %d on %s by itself ends with other %s (%.12s) "
                       "than rank %d on %s (%.12s)%s: their bits are not alike",
                       odd, at[odd].host, part[k], all[odd].digest[k], right,
                       at[right].host, all[right].digest[k], more);
    }
    return DG_OK;
}

int dg_doctor_compare(const Comm *c, DoctorFound *all, const DoctorFound *mine,
                      const char *const *part)
{
    DoctorPlace *places;
    int err = dg_doctor_places(&places, c);

    if (err)
        return err;
    dg_comm_allgather(c, all, mine, sizeof *mine);
    err = judge(all, places, c->size, part);
    free(places);
    return err;
}

void dg_doctor_pace(DoctorPace *out, const DoctorFound *all, int size)
{
    double seconds[size];

    *out = (DoctorPace) { .slowest = all[0].seconds };
    for (int r = 0; r < size; r++) {
        seconds[r] = all[r].seconds;
        if (all[r].seconds > out->slowest) {
            out->slowest = all[r].seconds;
            out->rank = r;
        }
    }
    out->median = dg_bench_quantile(seconds, size, 0.5);
}

/* --- a network ------------------------------------------------------------ */

/* Wide enough for the libraries' real kernels, small enough for seconds. Two
 * updates: AdamW's first one moves all weights alike, whatever a gradient's size.
 * With gates of zero no bit of attention or MLPs would be seen. */
static const char common[] =
    "run: { seed = 1; iterations = 1; };"
    "policy: { text_length = 16; latent_scale = 2.0; draw_all = true; };"
    "flux: { num_layers = 1; num_single_layers = 1; num_heads = 4;"
    " head_dim = 64; axes_dims = [16, 24, 24]; in_channels = 48;"
    " joint_attention_dim = 64; pooled_dim = 64; guidance_embeds = false; };"
    "unet: { in_channels = 48; block_out_channels = [64, 128];"
    " down_block_types = \"DownBlock2D, CrossAttnDownBlock2D\";"
    " up_block_types = \"CrossAttnUpBlock2D, UpBlock2D\";"
    " layers_per_block = 1; attention_head_dim = 2;"
    " cross_attention_dim = 64; norm_num_groups = 16; };"
    "t5: { d_model = 64; d_ff = 128; num_layers = 1; num_heads = 2;"
    " d_kv = 32; };"
    "clip: { hidden = 64; intermediate = 128; layers = 1; heads = 2; };"
    "pretrain: { image_size = 32; };"
    "prompts: { world = \"shapes\"; };"
    "grpo: { num_generations = 2; prompts_per_iteration = 3;"
    " updates_per_iteration = 2; };"
    "rewards = ({ name = \"brightness\"; weight = 1.0; });"
    "optim: { lr = 1e-3; };";
static const char of_flux[] =
    "policy: { kind = \"flux\"; };"
    "sampler: { sde = \"dance\"; eta = 0.7; steps = 4; shift = 3.0; };";
static const char of_sd[] =
    "policy: { kind = \"sd\"; prediction = \"epsilon\"; };"
    "sampler: { sde = \"ddim\"; eta = 1.0; steps = 4; };";
static const char prompts[] = "a red circle\ntwo blue squares\n"
                              "a green triangle and a red square\n";

/* The small network, computed as the session has it. */
static int configure(Config *out, const Config *c)
{
    const int sd = c->policy.kind == DG_POLICY_SD;
    int err;

    dg_config_defaults(out);
    err = dg_config_parse(out, common, "doctor");
    if (!err)
        err = dg_config_parse(out, sd ? of_sd : of_flux, "doctor");
    out->run.device = c->run.device;
    out->run.dtype = c->run.dtype;
    out->run.threads = c->run.threads;
    out->parallel = c->parallel;
    /* float32 sums are others for other numbers of ranks, which is no fault */
    out->parallel.exact_sum = 1;
    out->optim.moments = c->optim.moments;
    dg_config_settle(out);
    return err ? err : dg_config_check(out);
}

static int train_once(Trainer *t, const Session *s, char digest[65])
{
    const UpdateJob job = dg_trainer_update(t);
    int err = dg_trainer_experience(t);

    if (!err)
        err = dg_update_run(&job, &t->stats);
    if (!err)
        err = dg_learner_fetch(t->learner, s->comm);
    return err ? err : dg_learner_digest_whole(t->learner, s->comm, digest);
}

/* An iteration over the session's ranks. */
static int iteration(const Session *s, char digest[65], double *seconds)
{
    Trainer *t = calloc(1, sizeof *t);
    const double began = dg_clock_now();
    int err = t != NULL ? dg_prompts_parse(&t->prompts, "doctor.txt", prompts,
                                           sizeof prompts - 1)
                        : dg_fail(DG_ENOMEM, "doctor: a run");

    err = dg_agree(s->comm, err);
    if (!err)
        err = dg_trainer_build(t, s);
    if (!err)
        err = train_once(t, s, digest);
    if (t != NULL)
        dg_trainer_close(t);
    free(t);
    *seconds = dg_clock_now() - began;
    return err;
}

/* All ranks' weights are to be those of each by itself. */
static int compare(DoctorNetwork *out, const Comm *c, const DoctorFound *alone)
{
    static const char *const part[] = { "weights", NULL };
    DoctorFound *all = malloc((size_t)c->size * sizeof *all);
    int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    if (!err)
        err = dg_doctor_compare(c, all, alone, part);
    if (!err) {
        dg_doctor_pace(&out->alone, all, c->size);
        if (strcmp(out->digest, alone->digest[0]) != 0)
            err = dg_fail(DG_EPROMISE,
                          "all ranks together, with another micro-batch, end "
                          "with other weights (%.12s) than each by itself "
                          "(%.12s)",
                          out->digest, alone->digest[0]);
    }
    free(all);
    return err;
}

/* As the session, on ranks of its own, and in another way. */
static int try_network(DoctorNetwork *out, const Session *s, const Comm *self)
{
    Config config;
    Session other = *s;
    DoctorFound alone = { .seconds = 0 };
    int err = dg_agree(s->comm, configure(&config, s->config));

    if (err)
        return err;
    other.config = &config;
    config.grpo.micro_batch = 5;
    config.parallel.recompute = !s->config->parallel.recompute;
    other.comm = self;
    err = dg_agree(s->comm, iteration(&other, alone.digest[0], &alone.seconds));
    if (err)
        return err;
    config.grpo.micro_batch = 3;
    config.parallel.recompute = s->config->parallel.recompute;
    other.comm = s->comm;
    err = iteration(&other, out->digest, &out->all_s);
    return err ? err : compare(out, s->comm, &alone);
}

int dg_doctor_network(DoctorNetwork *out, const Session *s)
{
    Comm self;
    int err = dg_agree(s->comm, dg_comm_self(&self));

    memset(out, 0, sizeof *out);
    if (err)
        return err;
    err = try_network(out, s, &self);
    dg_comm_self_free(&self);
    return err;
}

/* --- numbers ---------------------------------------------------------------- */

/* The vector of all zeros that the authors of Philox give with it. */
static int noise_differs(void)
{
    static const uint32_t known[4] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c,
                                       0x9b00dbd8 };
    const uint32_t counter[4] = { 0 }, key[2] = { 0 };
    uint32_t words[4];

    dg_philox4x32(words, counter, key);
    return memcmp(words, known, sizeof words) != 0;
}

int dg_doctor_numbers(const Comm *c)
{
    volatile float least = FLT_MIN, one = 1.0f, half_ulp = FLT_EPSILON / 2;
    volatile float subnormal = least / 4, even = one + half_ulp;
    const char *what = NULL;
    char host[DG_DOCTOR_HOST];

    dg_doctor_host(host);
    if (subnormal == 0 || subnormal * 4 != least)
        what = "subnormal numbers are taken for 0";
    else if (even != 1.0f || one + 3 * half_ulp != 1 + 2 * FLT_EPSILON)
        what = "sums are not rounded to nearest even";
    else if (noise_differs())
        what = "random words are not Philox4x32-10's";
    return dg_agree(c, what == NULL ? DG_OK
                                    : dg_fail(DG_EPROMISE, "rank %d on %s: %s",
                                              c->rank, host, what));
}

/* --- speed ------------------------------------------------------------------- */

/* A product of that side, s; by the thread's or the device's clock. */
static double time_product(const BenchTools *tool, BenchProduct product,
                           Mirror m[3], int64_t side)
{
    const double began = dg_clock_thread();

    if (tool == NULL) {
        product(m[0].at, m[1].at, m[2].at, side, side, side);
        return dg_clock_thread() - began;
    }
    tool->start(tool->user);
    tool->product(tool->user, m[0].at, m[1].at, m[2].at, side, side, side);
    return tool->stop(tool->user);
}

int dg_doctor_rate(double *rate, const Session *s, const BenchTools *tool,
                   BenchProduct product)
{
    enum { LEAST = 64, MOST = 4096 };
    const int threads = omp_get_max_threads();
    const double enough = 5e-3; /* s */
    double seconds = 0;
    int err = DG_OK;

    omp_set_num_threads(1);
    for (int64_t n = LEAST; n <= MOST && seconds < enough && !err; n *= 2) {
        Mirror m[3] = { { .bytes = 0 } };

        for (int i = 0; i < 3 && !err; i++)
            err = dg_mirror_new(&m[i], s->backend,
                                sizeof(float) * (size_t)(n * n), "a product");
        if (!err) {
            time_product(tool, product, m, n); /* makes its code */
            seconds = time_product(tool, product, m, n);
            *rate = 2.0 * (double)(n * n * n) / seconds;
        }
        for (int i = 0; i < 3; i++)
            dg_mirror_free(&m[i]);
    }
    omp_set_num_threads(threads);
    if (!err && tool == NULL)
        *rate *= s->num_threads;
    return err;
}
