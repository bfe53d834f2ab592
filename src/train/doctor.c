/* Whether the promises hold here: a small network, sums, numbers, a file. */
#include "train/doctor.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/philox.h"
#include "train/bench.h"
#include "trainer.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { HOST_BYTES = 64 };

static void host_name(char text[HOST_BYTES])
{
    memset(text, 0, HOST_BYTES);
    gethostname(text, HOST_BYTES - 1);
}

/* --- a network ------------------------------------------------------------ */

/* Wide enough for the libraries' real kernels, small enough for seconds. */
static const char common[] =
    "run: { seed = 1; iterations = 1; };"
    "policy: { text_length = 16; latent_scale = 2.0; };"
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
    "grpo: { num_generations = 2; prompts_per_iteration = 3; };"
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
    out->optim.moments = c->optim.moments;
    dg_config_settle(out);
    return err ? err : dg_config_check(out);
}

static int train_once(Trainer *t, const Session *s, char digest[65])
{
    const UpdateJob job = {
        .session = s,
        .update = t->update,
        .rollout = t->rollout,
        .team = t->team,
        .learner = t->learner,
        .policy = t->policy,
    };
    int err = dg_trainer_experience(t);

    if (!err)
        err = dg_update_run(&job, &t->stats);
    if (!err)
        err = dg_learner_fetch(t->learner, s->comm);
    return err ? err : dg_learner_digest(t->learner, s->comm, digest);
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

/* What a rank found. */
typedef struct Found {
    char host[HOST_BYTES];
    char digest[65];
} Found;

/* All ranks' weights are to be those of rank 0 by itself. */
static int judge(const Found *all, int num, const char *together)
{
    for (int r = 1; r < num; r++)
        if (strcmp(all[r].digest, all[0].digest) != 0)
            return dg_fail(DG_EPROMISE,
                           "rank %d on %s by itself ends with other weights "
                           "(%.12s) than rank 0 on %s (%.12s): their bits are "
                           "not alike",
                           r, all[r].host, all[r].digest, all[0].host,
                           all[0].digest);
    return strcmp(together, all[0].digest) == 0
               ? DG_OK
               : dg_fail(DG_EPROMISE,
                         "%d ranks together end with other weights (%.12s) "
                         "than each by itself (%.12s)",
                         num, together, all[0].digest);
}

static int compare(const Comm *c, const char *alone, const char *together)
{
    Found mine, *all = malloc((size_t)c->size * sizeof *all);
    int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    host_name(mine.host);
    memcpy(mine.digest, alone, sizeof mine.digest);
    if (!err) {
        dg_comm_allgather(c, all, &mine, sizeof mine);
        err = judge(all, c->size, together);
    }
    free(all);
    return err;
}

/* As the session, on ranks of its own, and in another way. */
static int try_network(DoctorNetwork *out, const Session *s, const Comm *self)
{
    Config config;
    Session other = *s;
    char alone[65] = "";
    int err = dg_agree(s->comm, configure(&config, s->config));

    if (err)
        return err;
    other.config = &config;
    config.grpo.micro_batch = 5;
    config.parallel.recompute = !s->config->parallel.recompute;
    other.comm = self;
    err = dg_agree(s->comm, iteration(&other, alone, &out->alone_s));
    if (err)
        return err;
    dg_comm_max_f64(s->comm, &out->alone_s, 1);
    config.grpo.micro_batch = 3;
    config.parallel.recompute = s->config->parallel.recompute;
    other.comm = s->comm;
    err = iteration(&other, out->digest, &out->all_s);
    return err ? err : compare(s->comm, alone, out->digest);
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

/* --- sums ------------------------------------------------------------------- */

static int sum_once(const Comm *c, int64_t *v, int64_t num, double *seconds)
{
    const int64_t size = c->size;
    double began;

    for (int64_t i = 0; i < num; i++)
        v[i] = (c->rank + 1) * ((i << 20) - 1);
    dg_comm_barrier(c);
    began = dg_clock_now();
    dg_comm_sum_i64(c, v, num);
    *seconds = dg_clock_now() - began;
    for (int64_t i = 0; i < num; i++)
        if (v[i] != size * (size + 1) / 2 * ((i << 20) - 1))
            return dg_fail(DG_EPROMISE,
                           "a sum of integers over %d ranks is wrong on rank "
                           "%d: element %lld is %lld",
                           c->size, c->rank, (long long)i, (long long)v[i]);
    return DG_OK;
}

int dg_doctor_sums(double *rate, const Comm *c)
{
    enum { NUM = 1 << 20, TIMES = 5 };
    int64_t *v = malloc(sizeof *v * NUM);
    double seconds[TIMES], median;
    int err =
        dg_agree(c, v != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: sums"));

    for (int i = 0; i < TIMES && !err; i++)
        err = dg_agree(c, sum_once(c, v, NUM, &seconds[i]));
    free(v);
    *rate = 0;
    if (err || c->size == 1)
        return err;
    median = dg_bench_quantile(seconds, TIMES, 0.5);
    dg_comm_max_f64(c, &median, 1);
    *rate = sizeof *v * NUM / median;
    return DG_OK;
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
    char host[HOST_BYTES];

    host_name(host);
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

/* --- files ------------------------------------------------------------------- */

/* The nearest folder above path that is there, path itself if it is. */
static void nearest(char *out, size_t bytes, const char *path)
{
    struct stat st;

    snprintf(out, bytes, "%s", *path != '\0' ? path : ".");
    while (stat(out, &st) != 0 || !S_ISDIR(st.st_mode)) {
        char *slash = strrchr(out, '/');

        if (slash == NULL)
            snprintf(out, bytes, ".");
        else
            slash[slash == out] = '\0';
        if (slash == NULL || slash == out)
            return;
    }
}

enum { ROWS = 1 << 18 }; /* a rank's elements of the file */

static float value_at(int64_t i)
{
    return (float)(i * 7919 % 65537);
}

static int write_file(const Session *s, const char *path, float *v)
{
    const Comm *c = s->comm;
    const H5Item item = { .name = "values",
                          .type = DG_H5_F32,
                          .num_dims = 1,
                          .dims = { (int64_t)ROWS * c->size },
                          .shared = 1,
                          .first = (int64_t)ROWS * c->rank,
                          .num = ROWS,
                          .data = v,
                          .units = "1",
                          .long_name = "numbers of a trial",
                          .axes = "element" };
    H5File *f;
    int err;

    for (int64_t i = 0; i < ROWS; i++)
        v[i] = value_at(item.first + i);
    err = dg_h5_create(&f, c, path, "dancegrpo trial", 1, &s->info,
                       item.dims[0] * (int64_t)sizeof *v);
    if (err)
        return err;
    err = dg_h5_write(f, &item);
    if (err) {
        dg_h5_abandon(f);
        return err;
    }
    return dg_h5_commit(f);
}

/* What the next rank wrote. */
static int read_file(const Comm *c, const char *path, float *v)
{
    const int64_t dims[1] = { -1 };
    const int64_t first = (int64_t)ROWS * ((c->rank + 1) % c->size);
    char host[HOST_BYTES];
    H5File *f;
    int err = dg_h5_open(&f, path, "dancegrpo trial", 1);

    host_name(host);
    if (err)
        return dg_fail(DG_EPROMISE,
                       "%s, written by all ranks: rank %d on %s does not see "
                       "it; the folder has to be on a file system that all "
                       "nodes share",
                       path, c->rank, host);
    err = dg_h5_read_rows(f, "values", DG_H5_F32, 1, dims, first, ROWS, v);
    for (int64_t i = 0; i < ROWS && !err; i++)
        if (v[i] != value_at(first + i))
            err = dg_fail(DG_EPROMISE,
                          "%s: rank %d on %s reads %g at element %lld, where "
                          "%g was written",
                          path, c->rank, host, v[i], (long long)(first + i),
                          value_at(first + i));
    dg_h5_close(f);
    return err;
}

int dg_doctor_files(DoctorFiles *out, const Session *s, const char *folder)
{
    const Comm *c = s->comm;
    char path[DG_CONFIG_STRING + 64];
    double began;
    float *v = malloc(sizeof *v * ROWS);
    struct statvfs fs;
    int64_t process = getpid();
    int err =
        dg_agree(c, v != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: a file"));

    memset(out, 0, sizeof *out);
    if (err) {
        free(v);
        return err;
    }
    if (c->rank == 0)
        nearest(out->folder, sizeof out->folder, folder);
    dg_comm_bcast(c, out->folder, sizeof out->folder, 0);
    dg_comm_bcast(c, &process, sizeof process, 0);
    snprintf(path, sizeof path, "%s/doctor-%lld.h5", out->folder,
             (long long)process);
    out->bytes = (double)sizeof *v * ROWS * c->size;
    if (statvfs(out->folder, &fs) == 0)
        out->unused = (double)fs.f_bavail * (double)fs.f_frsize;
    began = dg_clock_now();
    err = write_file(s, path, v);
    out->write_s = dg_clock_now() - began;
    if (!err)
        err = dg_agree(c, read_file(c, path, v));
    dg_comm_barrier(c);
    if (c->rank == 0)
        unlink(path);
    free(v);
    return err;
}
