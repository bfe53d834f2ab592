#include "trainer.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "store/file.h"
#include "store/image.h"
#include "train/sampling.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- metrics and the screen -------------------------------------------- */

typedef struct Means {
    double reward, spread; /* weighted sum of rewards; mean group std */
    double strict;         /* NAN without */
    int64_t zero, skipped;
} Means;

/* A sample's weighted reward; NAN when any of its rewards is missing. */
static double sample_reward(const Trainer *t, int64_t item)
{
    const Rollout *r = t->rollout;
    double sum = 0;

    for (int64_t k = 0; k < r->K; k++) {
        const RewardScore *s = &r->scores[item * r->K + k];

        sum += s->missing ? NAN : t->rewards[k].weight * (double)s->value;
    }
    return sum;
}

/* Mean and unbiased spread of the valid members of one group. */
static int64_t group_stats(const Trainer *t, int64_t group, double *mean,
                           double *std)
{
    const Rollout *r = t->rollout;
    double sum = 0, squares = 0;
    int64_t n = 0;

    for (int64_t g = 0; g < r->G; g++) {
        const double v = sample_reward(t, group * r->G + g);

        if (!isnan(v)) {
            sum += v;
            n++;
        }
    }
    *mean = n > 0 ? sum / (double)n : NAN;
    for (int64_t g = 0; g < r->G; g++) {
        const double v = sample_reward(t, group * r->G + g);

        if (!isnan(v))
            squares += (v - *mean) * (v - *mean);
    }
    *std = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
    return n;
}

static Means take_means(const Trainer *t)
{
    const Rollout *r = t->rollout;
    Means m = { 0 };
    double strict = 0;
    int64_t groups = 0, num_strict = 0;

    for (int64_t p = 0; p < r->P; p++) {
        double mean, std;

        if (group_stats(t, p, &mean, &std) == 0)
            continue;
        m.reward += mean;
        m.spread += std;
        groups++;
    }
    m.reward = groups > 0 ? m.reward / (double)groups : NAN;
    m.spread = groups > 0 ? m.spread / (double)groups : NAN;
    for (int64_t i = 0; i < r->N * r->K; i++)
        if (!r->scores[i].missing && !isnan(r->scores[i].strict)) {
            strict += (double)r->scores[i].strict;
            num_strict++;
        }
    m.strict = num_strict > 0 ? strict / (double)num_strict : NAN;
    for (int64_t k = 0; k < r->K; k++) {
        m.zero += t->update->stats[k].zero_std_groups;
        m.skipped += t->update->stats[k].skipped_groups;
    }
    return m;
}

/* Scores that the reward itself says it has not. */
static int64_t num_declined(const Rollout *r, int64_t k)
{
    int64_t num = 0;

    for (int64_t i = k; i < r->N * r->K; i += r->K)
        num += r->scores[i].missing == DG_SCORE_NONE;
    return num;
}

/* Why scores are missing, and how often programs were started anew: a reason may
 * name what is by chance, such as a picture's number on its rank. */
static void put_accidents(Trainer *t)
{
    const Rollout *r = t->rollout;
    int whys = 0, programs = 0;

    for (int64_t k = 0; k < r->K; k++) {
        if (r->why[k].text[0] == '\0')
            continue;
        if (whys++ == 0)
            dg_metrics_enter(t->metrics, "missing_why");
        dg_metrics_text(t->metrics, t->rewards[k].name, r->why[k].text);
    }
    if (whys > 0)
        dg_metrics_leave(t->metrics);
    for (int64_t k = 0; k < r->K; k++) {
        if (t->restarts[k] < 0)
            continue;
        if (programs++ == 0)
            dg_metrics_enter(t->metrics, "restarts");
        dg_metrics_int(t->metrics, t->rewards[k].name, t->restarts[k]);
    }
    if (programs > 0)
        dg_metrics_leave(t->metrics);
}

static void put_rewards(Trainer *t)
{
    dg_metrics_enter(t->metrics, "rewards");
    for (int64_t k = 0; k < t->rollout->K; k++) {
        const RewardStats *s = &t->update->stats[k];

        dg_metrics_enter(t->metrics, t->rewards[k].name);
        dg_metrics_real(t->metrics, "mean", s->mean);
        dg_metrics_real(t->metrics, "std", s->std);
        dg_metrics_int(t->metrics, "missing", s->missing);
        if (num_declined(t->rollout, k) > 0)
            dg_metrics_int(t->metrics, "declined", num_declined(t->rollout, k));
        dg_metrics_leave(t->metrics);
    }
    dg_metrics_leave(t->metrics);
}

static void put_seconds(Trainer *t)
{
    dg_metrics_enter(t->metrics, "seconds");
    dg_metrics_real(t->metrics, "rollout", t->phases.rollout);
    dg_metrics_real(t->metrics, "reward", t->phases.reward);
    dg_metrics_real(t->metrics, "update", t->phases.update);
    dg_metrics_real(t->metrics, "io", t->phases.io);
    if (t->files != NULL) {
        dg_metrics_real(t->metrics, "writing", t->phases.writing);
        dg_metrics_real(t->metrics, "waiting", t->phases.waiting);
    }
    dg_metrics_real(t->metrics, "total", t->phases.total);
    dg_metrics_leave(t->metrics);
}

/* Of the plan's step: the workers' part of it, and what is beside them. */
static size_t peak_bytes(const Trainer *t)
{
    const size_t peak = dg_team_peak(t->team);
    const size_t beside = t->beside != NULL ? dg_beside_peak(t->beside) : 0;

    return beside > peak ? beside : peak;
}

/* How far updates after the first are from the rollout's policy; where there is
 * one a line has no such keys. */
static void put_later(Metrics *out, const UpdateStats *u)
{
    dg_metrics_real(out, "clip_fraction_low", u->clip_low);
    dg_metrics_real(out, "clip_fraction_high", u->clip_high);
    dg_metrics_real(out, "approx_kl", u->approx_kl);
    dg_metrics_real(out, "ratio_min", u->ratio_min);
    dg_metrics_real(out, "ratio_max", u->ratio_max);
}

/* Which a rank alone has none of. */
static void put_traffic(Trainer *t)
{
    if (t->session->comm->size == 1)
        return;
    dg_metrics_enter(t->metrics, "traffic");
    dg_metrics_int(t->metrics, "sums", (int64_t)t->traffic.sums);
    dg_metrics_int(t->metrics, "weights", (int64_t)t->traffic.weights);
    dg_metrics_leave(t->metrics);
}

static int write_metrics(Trainer *t, const Means *m, double gflops)
{
    const UpdateStats *u = &t->stats;
    Metrics *out = t->metrics;

    dg_metrics_begin(out, t->iteration);
    dg_metrics_real(out, "reward_mean", m->reward);
    dg_metrics_real(out, "reward_std", m->spread);
    put_rewards(t);
    if (!isnan(m->strict))
        dg_metrics_real(out, "strict_mean", m->strict);
    dg_metrics_real(out, "diversity",
                    dg_diversity_mean(t->rollout->pictures, t->rollout->P));
    dg_metrics_int(out, "zero_std_groups", m->zero);
    dg_metrics_int(out, "skipped_groups", m->skipped);
    dg_metrics_real(out, "ratio_max_deviation", u->ratio_max_deviation);
    dg_metrics_real(out, "clip_fraction", u->clip_fraction);
    if (t->update->num_updates > 1)
        put_later(out, u);
    dg_metrics_real(out, "grad_norm", u->grad_norm);
    dg_metrics_real(out, "lr", u->lr);
    dg_metrics_real(out, "loss", u->loss);
    if (t->reference != NULL)
        dg_metrics_real(out, "kl", u->kl);
    dg_metrics_int(out, "samples", t->rollout->N);
    if (t->team->sends_early)
        dg_metrics_int(out, "early_sums", dg_team_take_early(t->team));
    dg_metrics_int(out, "set_aside", u->set_aside);
    dg_metrics_int(out, "skipped_updates", u->skipped_updates);
    put_accidents(t);
    put_seconds(t);
    put_traffic(t);
    dg_metrics_real(out, "gflops", gflops);
    dg_metrics_int(out, "peak_bytes", (int64_t)peak_bytes(t));
    dg_metrics_int(out, "plan_bytes", (int64_t)t->plan_bytes);
    return dg_metrics_commit(out);
}

static void show(const Trainer *t, const Means *m)
{
    const int64_t all = t->session->config->run.iterations;
    const int64_t done = t->iteration - t->resumed;
    const double spent = dg_clock_now() - t->started;
    const double off = t->stats.ratio_max_deviation;
    char eta[DG_DURATION_BYTES], strict[32] = "", ratio[16] = "none";

    dg_clock_duration(eta, spent / (double)done * (double)(all - t->iteration));
    if (!isnan(m->strict))
        snprintf(strict, sizeof strict, " | strict %.3f", m->strict);
    if (!isnan(off))
        snprintf(ratio, sizeof ratio, "%.4f", 1 + off);
    dg_info("it %4lld/%lld | reward %.4f%s | ratio %s | clip %3.0f%% | grad "
            "%.3g | %.1f s | ETA %s",
            (long long)t->iteration, (long long)all, m->reward, strict, ratio,
            100 * t->stats.clip_fraction, t->stats.grad_norm, t->phases.total,
            eta);
}

int dg_trainer_report(Trainer *t)
{
    const Means m = take_means(t);
    double flops = t->flops;

    dg_comm_sum_f64(t->session->comm, &flops, 1);
    show(t, &m);
    if (t->metrics == NULL)
        return DG_OK;
    return write_metrics(t, &m, flops / t->phases.total * 1e-9);
}

/* --- pictures ---------------------------------------------------------- */

static int make_folder(const char *path)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return DG_OK;
    return dg_fail(DG_EIO, "%s: %s", path, strerror(errno));
}

static int write_captions(const char *folder, const PromptList *list,
                          int64_t num, const PolicyShape *shape)
{
    char path[DG_RUNDIR_PATH + 64];
    cJSON *root = cJSON_CreateObject();
    cJSON *prompts = cJSON_AddArrayToObject(root, "prompts");
    char *text;
    int err;

    for (int64_t i = 0; i < num; i++)
        cJSON_AddItemToArray(prompts, cJSON_CreateString(list->item[i].text));
    cJSON_AddNumberToObject(root, "height", (double)shape->height);
    cJSON_AddNumberToObject(root, "width", (double)shape->width);
    text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL)
        return dg_fail(DG_ENOMEM, "captions of the pictures");
    snprintf(path, sizeof path, "%s/prompts.json", folder);
    err = dg_file_write(path, text, strlen(text));
    free(text);
    return err;
}

static int write_strip(const Trainer *t, const uint8_t *pictures, int64_t num)
{
    const PolicyShape *shape = &t->policy->shape;
    char folder[DG_RUNDIR_PATH + 16], path[DG_RUNDIR_PATH + 64], seed[32];
    const ImageGrid grid = { .num = (int32_t)num,
                             .width = (int32_t)shape->width,
                             .height = (int32_t)shape->height,
                             .columns = (int32_t)num,
                             .scale = 1 };
    const ImageText text = { "seed", seed };
    Image image;
    int err;

    snprintf(folder, sizeof folder, "%s/pictures", t->dir.root);
    snprintf(path, sizeof path, "%s/iter_%06lld.png", folder,
             (long long)t->iteration);
    snprintf(seed, sizeof seed, "%lld",
             (long long)t->session->config->run.seed);
    err = make_folder(folder);
    if (!err)
        err = write_captions(folder, &t->heldout, num, shape);
    if (!err)
        err = dg_image_grid(&image, pictures, &grid);
    if (err)
        return err;
    err = dg_image_write_png(path, &image, &text, 1);
    dg_image_free(&image);
    return err;
}

int dg_trainer_write_pictures(Trainer *t)
{
    const Session *s = t->session;
    const PolicyShape *shape = &t->policy->shape;
    const int64_t wanted = s->config->report.prompts;
    const int64_t num =
        wanted < t->heldout.num ? wanted : (int64_t)t->heldout.num;
    EvaluateJob job = {
        .session = s,
        .team = t->team,
        .policy = t->policy,
        .prompts = &t->heldout,
        .rewards = t->rewards,
        .cache = t->cache,
        .num_prompts = num,
        .seeds = 1,
        .batch = dg_sampling_batch(s->config->grpo.micro_batch, wanted,
                                   s->comm->size),
        .seed = (uint64_t)s->config->run.seed,
    };
    Evaluation unused;
    int err;

    if (num == 0)
        return DG_OK;
    job.pictures = calloc((size_t)(num * shape->height * shape->width), 3);
    err = job.pictures == NULL ? dg_fail(DG_ENOMEM, "pictures") : DG_OK;
    err = dg_agree(s->comm, err);
    if (!err)
        err = dg_evaluate(&unused, &job);
    if (!err && s->comm->rank == 0)
        err = write_strip(t, job.pictures, num);
    free(job.pictures);
    dg_team_take_flops(t->team); /* not the next iteration's */
    return dg_agree(s->comm, err);
}
