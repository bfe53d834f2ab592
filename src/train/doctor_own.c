/* The configuration's own network, as it is sized there, for a short group. */
#include "base/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "doctor_internal.h"
#include "train/run_plan.h"
#include "train/update.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- what is tried ------------------------------------------------------------- */

enum { SAMPLES = 2, STEPS = 4, MAX_WAYS = 5 }; /* samples of a rank */

/* A group of so many samples, few steps, one update, no files; of random weights
 * none is zero, so that all of the network shows in the results. */
static void shorten(Config *c, int64_t samples)
{
    c->policy.draw_all = 1;
    c->grpo.prompts_per_iteration = 1;
    c->grpo.num_generations = samples;
    c->grpo.updates_per_iteration = 1;
    c->grpo.epochs = 1;
    c->grpo.update_split = DG_SPLIT_AUTO;
    c->grpo.best_of_n = 0;
    c->grpo.timestep_fraction = 1;
    if (c->sampler.steps > STEPS)
        c->sampler.steps = STEPS;
    if (c->sampler.window_size > c->sampler.steps - 1)
        c->sampler.window_size = c->sampler.steps - 1;
    c->sampler.window_start = 0;
    c->sampler.window_every = 0;
    c->sampler.window_end = 0;
    c->sampler.window_move = DG_WINDOW_SLIDE;
    c->sampler.window_decay = DG_WINDOW_EVEN;
    c->trajectory.every = 0;
    c->prompts.eval_file[0] = '\0';
    c->evaluate.every = 0;
}

/* Another way to the same bits. */
typedef struct Way {
    const char *name;
    int64_t micro_batch;
    int recompute, graphs;
} Way;

/* Where ranks lend weights nothing is replayed. */
static int replays(const Session *s)
{
    const int lent =
        s->config->parallel.shard == DG_SHARD_PARAMETERS && s->comm->size > 1;

    return s->config->parallel.graphs && s->backend->replay != NULL && !lent;
}

/* The first as configured. */
static int list_ways(Way out[MAX_WAYS], const Session *s)
{
    const Config *c = s->config;
    const int64_t most = c->grpo.micro_batch;
    const Way as = { "what is configured", most, c->parallel.recompute, 1 };
    int num = 0;

    out[num++] = as;
    if (most > 1)
        out[num++] = (Way) { "grpo.micro_batch = 1", 1, as.recompute, 1 };
    if (most > 2)
        out[num++] = (Way) { "grpo.micro_batch = 2", 2, as.recompute, 1 };
    if (!as.recompute) /* without it there may be no room */
        out[num++] = (Way) { "parallel.recompute = true", most, 1, 1 };
    if (replays(s))
        out[num++] = (Way) { "parallel.graphs = false", most, as.recompute, 0 };
    return num;
}

static void tell_ways(DoctorOwn *out, const Session *s)
{
    const Config *c = s->config;
    const int64_t most = c->grpo.micro_batch;
    char batches[48];

    snprintf(batches, sizeof batches, "%s", most > 1 ? "1, 2" : "1");
    if (most > 2)
        snprintf(batches, sizeof batches, "1, 2, %lld", (long long)most);
    snprintf(out->tried, sizeof out->tried,
             "micro-batch %s, %s recomputation%s", batches,
             c->parallel.recompute ? "with" : "with and without",
             replays(s) ? ", with and without graphs" : "");
}

/* --- beforehand ------------------------------------------------------------------ */

static int is_absent(char *text, size_t bytes, const char *key,
                     const char *path)
{
    if (path[0] == '\0' || access(path, F_OK) == 0)
        return 0;
    snprintf(text, bytes, "%s = %.400s is not there", key, path);
    return 1;
}

/* Why there is nothing to try, in text. */
static int cannot(char *text, size_t bytes, const Config *c)
{
    int err = dg_config_check_train(c);

    if (!err)
        err = dg_trainer_check(c);
    if (!err && c->prompts.file[0] == '\0')
        err = dg_fail(DG_EINVAL, "prompts.file = \"\"");
    if (err) {
        snprintf(text, bytes, "%.500s", dg_last_error()->text);
        dg_clear_error();
        return 1;
    }
    for (int64_t i = 0; i < c->num_rewards; i++)
        if (is_absent(text, bytes, "rewards: path", c->rewards[i].path) ||
            is_absent(text, bytes, "rewards: head", c->rewards[i].head) ||
            is_absent(text, bytes, "rewards: tokenizer",
                      c->rewards[i].tokenizer) ||
            is_absent(text, bytes, "rewards: plugin", c->rewards[i].plugin))
            return 1;
    return is_absent(text, bytes, "policy.path", c->policy.path) ||
           is_absent(text, bytes, "policy.weights", c->policy.weights) ||
           is_absent(text, bytes, "prompts.file", c->prompts.file) ||
           is_absent(text, bytes, "prompts.cache", c->prompts.cache);
}

/* All of it, or beside a GPU what weights are while they are read. */
static uint64_t host_bytes(const RunPlan *p, const Session *s)
{
    static const char *const read[] = { "network", "text", "codec", "adapters",
                                        "rewards" };
    uint64_t values = 0;

    if (!s->backend->apart)
        return dg_run_plan_value(&p->memory, "total");
    for (int i = 0; i < (int)(sizeof read / sizeof *read); i++)
        for (int k = 0; k < p->parameters.num; k++)
            if (strcmp(p->parameters.line[k].key, read[i]) == 0)
                values += p->parameters.line[k].value;
    return sizeof(float) * values;
}

/* On the first rank, which no other exceeds. */
static int plan_first(DoctorPlan *out, const Session *s)
{
    Config config = *s->config;
    Session brief = *s;
    Way ways[MAX_WAYS];
    RunPlan p;
    int err;

    if (cannot(out->absent, sizeof out->absent, s->config))
        return DG_OK;
    err = dg_run_plan(&p, s, s->comm->size);
    if (err)
        return err;
    out->bytes = host_bytes(&p, s);
    shorten(&config, SAMPLES * s->comm->size);
    brief.config = &config;
    err = dg_run_plan(&p, &brief, s->comm->size);
    if (!err) /* each way, the same samples by all, and the update */
        out->flops = (double)(list_ways(ways, s) + 2) *
                     (double)dg_run_plan_value(&p.flops, "iteration_rank");
    return err;
}

int dg_doctor_plan(DoctorPlan *out, const Session *s)
{
    int err;

    memset(out, 0, sizeof *out);
    err = dg_agree(s->comm, s->comm->rank == 0 ? plan_first(out, s) : DG_OK);
    if (!err)
        dg_comm_bcast(s->comm, out, sizeof *out, 0);
    return err;
}

int dg_doctor_fits(const Session *s)
{
    return dg_trainer_check_room(s);
}

/* --- digests --------------------------------------------------------------------- */

/* What is compared, in the order in which one thing is made of another: each
 * reward's scores have their own place, from SCORES on, and gradients are last. */
enum { CONDITIONS, TRAJECTORIES, SCORES };

typedef struct Parts {
    int gradients;                         /* where they are */
    const char *name[DG_DOCTOR_PARTS + 1]; /* NULL ends them */
    char scores[DG_CONFIG_REWARDS][96];
} Parts;

static void name_parts(Parts *p, const Trainer *t)
{
    const int K = (int)t->rollout->K;

    memset(p, 0, sizeof *p);
    p->name[CONDITIONS] = "encoded prompts";
    p->name[TRAJECTORIES] = "trajectories";
    for (int k = 0; k < K; k++) {
        snprintf(p->scores[k], sizeof p->scores[k], "scores of reward %s",
                 t->rewards[k].name);
        p->name[SCORES + k] = p->scores[k];
    }
    p->gradients = SCORES + K;
    p->name[p->gradients] = "gradients";
}

/* A reward's of all samples. */
static int digest_scores(char digest[65], const Rollout *r, int64_t k)
{
    Sha256 sum;
    int err = dg_sha256_init(&sum);

    if (err)
        return err;
    for (int64_t i = k; i < r->N * r->K; i += r->K) {
        dg_sha256_update(&sum, &r->scores[i].value, sizeof(float));
        dg_sha256_update(&sum, &r->scores[i].missing, sizeof(int));
    }
    dg_sha256_final(&sum, digest);
    return DG_OK;
}

static int digest_samples(DoctorFound *out, const Rollout *r)
{
    const size_t conditions = r->in[DG_ROLLOUT_CONDITIONS].bytes;
    Sha256 sum;
    int err = dg_rollout_fetch(r);

    if (!err)
        err =
            dg_sha256_bytes(out->digest[CONDITIONS], r->conditions, conditions);
    if (!err)
        err = dg_sha256_init(&sum);
    if (err)
        return err;
    dg_sha256_update(&sum, r->latents, r->in[DG_ROLLOUT_LATENTS].bytes);
    dg_sha256_update(&sum, r->log_prob, r->in[DG_ROLLOUT_LOG_PROB].bytes);
    dg_sha256_final(&sum, out->digest[TRAJECTORIES]);
    for (int64_t k = 0; k < r->K && !err; k++)
        err = digest_scores(out->digest[SCORES + k], r, k);
    return err;
}

/* This rank's part of the sum, from wherever it is. Sums of several workers in
 * float32 have no bits of their own. */
static int digest_gradient(char digest[65], const Team *t)
{
    enum { PIECE = 1 << 22 };
    const ExactSum own = dg_team_own(t);
    const char *at = own.fixed != NULL ? (char *)own.fixed : (char *)own.plain;
    const size_t bytes = dg_exact_bytes(own.num, own.fixed != NULL);
    const int apart = t->sums_on != NULL && t->sums_on->apart;
    char *room = apart ? malloc(PIECE) : NULL;
    Sha256 sum;
    int err = apart && room == NULL ? dg_fail(DG_ENOMEM, "doctor: a gradient")
                                    : dg_sha256_init(&sum);

    if (err) {
        free(room);
        return err;
    }
    for (size_t i = 0; i < bytes && !err; i += PIECE) {
        const size_t n = bytes - i < PIECE ? bytes - i : PIECE;

        if (apart)
            err = dg_kernel_download(t->sums_on, room, at + i, n);
        dg_sha256_update(&sum, apart ? room : at + i, n);
    }
    dg_sha256_final(&sum, digest);
    if (own.fixed == NULL && t->num > 1)
        digest[0] = '\0';
    free(room);
    return err;
}

/* --- all ranks together, in each way ------------------------------------------------ */

/* A trial: t's session is brief, whose configuration is config. */
typedef struct Trial {
    Config config;
    Session brief;
    Trainer t;
    Backend plain; /* kernels without graphs */
    Parts parts;
    char missing[DG_TRAINER_MISSING];
} Trial;

static UpdateJob job_of(const Trial *x, int dry)
{
    UpdateJob job = dg_trainer_update(&x->t);

    job.session = &x->brief;
    job.dry = dry;
    return job;
}

static void set_way(Trial *x, const Way *w)
{
    Team *team = x->t.team;

    x->config.grpo.micro_batch = w->micro_batch;
    for (int i = 0; i < team->num; i++) {
        team->workers[i].ctx.recompute = w->recompute;
        team->workers[i].ctx.backend = w->graphs ? x->brief.backend : &x->plain;
    }
}

/* The group once more, from the same weights; dry: which stay. */
static int run_group(Trial *x, int dry, DoctorFound *out)
{
    Trainer *t = &x->t;
    const UpdateJob job = job_of(x, dry);
    int err = dg_trainer_experience(t);

    if (!err) /* the same on all ranks */
        err = dg_trainer_try_scores(t, x->missing);
    if (!err && dry)
        err = dg_agree(x->brief.comm, digest_samples(out, t->rollout));
    if (!err)
        err = dg_update_spread(t->update, &x->brief, t->rollout);
    if (!err)
        err = dg_update_run(&job, &t->stats);
    if (!err && t->update->note[0] != '\0')
        err = dg_fail(DG_ENUMERIC, "%s", t->update->note);
    if (!err && dry)
        err = digest_gradient(out->digest[x->parts.gradients], t->team);
    return dg_agree(x->brief.comm, err);
}

/* Of all ranks the first part that differs: gradients, which are all ranks'
 * sum, differ on all where one rank's samples do. */
static int same_as_first(const DoctorFound *first, const DoctorFound *now,
                         const Way *w, const Trial *x)
{
    const Parts *p = &x->parts;
    const Comm *c = x->brief.comm;
    int64_t part = DG_DOCTOR_PARTS, least;
    char host[DG_DOCTOR_HOST];
    int err = DG_OK;

    dg_doctor_host(host);
    for (int k = p->gradients; k >= 0; k--)
        if (strcmp(first->digest[k], now->digest[k]) != 0)
            part = k;
    least = part;
    dg_comm_min_i64(c, &least, 1);
    if (least < DG_DOCTOR_PARTS && part == least)
        err = dg_fail(DG_EPROMISE,
                      "rank %d on %s: with %s %s%s are others (%.12s) than as "
                      "configured (%.12s)",
                      c->rank, host, w->name,
                      part == p->gradients ? "all ranks' " : "", p->name[part],
                      now->digest[part], first->digest[part]);
    return dg_agree(c, err);
}

/* Against the first, which is what is configured. */
static int try_ways(Trial *x, const DoctorFound *first)
{
    DoctorFound now = { .seconds = 0 };
    Way ways[MAX_WAYS];
    const int num = list_ways(ways, &x->brief);
    int err = DG_OK;

    for (int i = 1; i < num && !err; i++) {
        set_way(x, &ways[i]);
        err = run_group(x, 1, &now);
        if (!err)
            err = same_as_first(first, &now, &ways[i], x);
    }
    set_way(x, &ways[0]);
    return err;
}

/* --- each rank the same samples ------------------------------------------------------- */

/* The trial's networks, seen as if this rank were the only one. */
typedef struct Alone {
    Config config;
    Session session;
    Rollout *rollout;
    Update *update;
} Alone;

static int open_alone(Alone *a, const Trial *x, const Comm *self)
{
    const Trainer *t = &x->t;
    int err;

    a->config = x->config;
    a->config.grpo.num_generations = SAMPLES;
    a->session = x->brief;
    a->session.comm = self;
    a->session.config = &a->config;
    err = dg_rollout_create(&a->rollout, &a->session, t->policy,
                            t->rollout->most);
    if (!err)
        err = dg_rollout_reserve_features(a->rollout, t->rewards);
    if (!err)
        err = dg_update_create(&a->update, &a->session, a->rollout);
    if (!err) {
        a->rollout->cache = t->cache;
        err = dg_rollout_begin(a->rollout, &a->session, t->prompts.num, 0);
    }
    return err;
}

/* Weights may be all ranks' together: all go on, or none does. */
static int run_alone(Alone *a, Trial *x, DoctorFound *out)
{
    Trainer *t = &x->t;
    const Comm *c = x->brief.comm;
    Scoring scoring = { .rollout = a->rollout,
                        .policy = t->policy,
                        .prompts = &t->prompts,
                        .rewards = t->rewards };
    int err = dg_agree(
        c, dg_rollout_encode(a->rollout, t->team, t->policy, &t->prompts));

    if (!err)
        err = dg_agree(
            c, dg_rollout_sample(a->rollout, &a->session, t->team, t->policy));
    if (!err)
        err = dg_agree(c, dg_rollout_score(&scoring, t->team));
    return err ? err : dg_agree(c, digest_samples(out, a->rollout));
}

/* The same where a rank has all of its sums. */
static int learn_alone(Alone *a, const Trial *x, DoctorFound *out)
{
    UpdateJob job = job_of(x, 1);
    UpdateStats stats;
    int err = dg_update_spread(a->update, &a->session, a->rollout);

    job.session = &a->session;
    job.rollout = a->rollout;
    job.update = a->update;
    if (!err)
        err = dg_update_run(&job, &stats);
    if (!err)
        err = digest_gradient(out->digest[x->parts.gradients], x->t.team);
    return dg_agree(x->brief.comm, err);
}

static int compare_alone(DoctorOwn *out, const Trial *x,
                         const DoctorFound *mine)
{
    const Comm *c = x->brief.comm;
    DoctorFound *all = malloc((size_t)c->size * sizeof *all);
    Sha256 sum;
    int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    if (!err)
        err = dg_doctor_compare(c, all, mine, x->parts.name);
    if (!err)
        err = dg_sha256_init(&sum);
    if (!err) {
        dg_doctor_pace(&out->pace, all, c->size);
        for (int k = CONDITIONS; k < x->parts.gradients; k++)
            dg_sha256_update(&sum, mine->digest[k], 64);
        dg_sha256_final(&sum, out->digest);
    }
    free(all);
    return err;
}

static int try_alone(DoctorOwn *out, Trial *x, const Comm *self)
{
    const Comm *c = x->brief.comm;
    Alone *a = calloc(1, sizeof *a);
    DoctorFound mine;
    double began;
    int err = a != NULL ? open_alone(a, x, self)
                        : dg_fail(DG_ENOMEM, "doctor: samples");

    memset(&mine, 0, sizeof mine);
    out->gradients = c->size == 1 || x->config.parallel.shard == DG_SHARD_NONE;
    err = dg_agree(c, err);
    began = dg_clock_now();
    if (!err)
        err = run_alone(a, x, &mine);
    if (!err && out->gradients)
        err = learn_alone(a, x, &mine);
    mine.seconds = dg_clock_now() - began;
    if (!err)
        err = compare_alone(out, x, &mine);
    if (a != NULL) {
        dg_update_destroy(a->update);
        dg_rollout_destroy(a->rollout);
    }
    free(a);
    return err;
}

/* --- an update ------------------------------------------------------------------------ */

static int try_update(Trial *x)
{
    static const char *const part[] = { "weights after an update", NULL };
    const Comm *c = x->brief.comm;
    const Learner *l = x->t.learner;
    DoctorFound mine, *all = malloc((size_t)c->size * sizeof *all);
    int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    memset(&mine, 0, sizeof mine);
    if (!err)
        err = run_group(x, 0, NULL);
    if (!err)
        err = dg_agree(c, dg_learner_average(x->t.learner));
    if (!err)
        err = dg_agree(c, dg_learner_fetch(l, c));
    if (!err)
        err = dg_learner_digest_whole(l, c, mine.digest[0]); /* own copy's */
    if (!err)
        err = dg_doctor_compare(c, all, &mine, part);
    free(all);
    return err;
}

static int try_all(DoctorOwn *out, Trial *x, const Comm *self)
{
    DoctorFound first = { .seconds = 0 };
    int err = dg_trainer_build(&x->t, &x->brief);

    if (!err)
        err = dg_rewards_start(x->t.rewards, &x->config, x->config.num_rewards,
                               x->brief.comm, NULL);
    if (err)
        return err;
    x->plain = *x->brief.backend;
    x->plain.replay = NULL;
    name_parts(&x->parts, &x->t);
    err = run_group(x, 1, &first);
    if (!err) /* an odd rank is named here, below it would spoil sums */
        err = try_alone(out, x, self);
    if (!err)
        err = try_ways(x, &first);
    if (!err)
        err = try_update(x);
    out->flops = (double)dg_team_take_flops(x->t.team);
    return err;
}

int dg_doctor_own(DoctorOwn *out, const Session *s)
{
    const double began = dg_clock_now();
    Trial *x = calloc(1, sizeof *x);
    Comm self = { .impl = NULL };
    int err =
        x != NULL ? dg_comm_self(&self) : dg_fail(DG_ENOMEM, "doctor: a trial");

    memset(out, 0, sizeof *out);
    err = dg_agree(s->comm, err);
    if (!err) {
        tell_ways(out, s);
        x->config = *s->config;
        shorten(&x->config, SAMPLES * s->comm->size);
        x->brief = *s;
        x->brief.config = &x->config;
        err = try_all(out, x, &self);
        dg_trainer_close(&x->t);
        snprintf(out->missing, sizeof out->missing, "%s", x->missing);
    }
    dg_comm_self_free(&self);
    free(x);
    out->all_s = dg_clock_now() - began;
    return err;
}
