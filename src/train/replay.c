/* An iteration again, from its trajectory file alone. */
#include "trainer.h"

#include "base/error.h"
#include "base/log.h"
#include "base/plural.h"
#include "room.h"
#include "store/trajectory.h"
#include "train/pool.h"
#include "train/run_plan.h"
#include "train/setup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int read_items(Trainer *t, H5File *f)
{
    Rollout *r = t->rollout;
    const int64_t latents[] = { r->N, r->T + 1, r->D };
    const int64_t log_prob[] = { r->N, r->T };
    const int64_t decoded[] = { r->N, r->D };
    const int64_t condition[] = { r->P, t->policy->shape.condition };
    int err = DG_OK;

    if (r->num > 0) {
        err = dg_h5_read_rows(f, "latents", DG_H5_F32, 3, latents, r->first,
                              r->num, r->latents);
        if (!err)
            err = dg_h5_read_rows(f, "log_prob", DG_H5_F32, 2, log_prob,
                                  r->first, r->num, r->log_prob);
        if (!err)
            err = dg_h5_read_rows(f, "decoded", DG_H5_F32, 2, decoded, r->first,
                                  r->num, r->final);
        if (!err)
            err =
                dg_h5_read_rows(f, "condition", DG_H5_F32, 2, condition,
                                r->first_prompt, r->num_prompts, r->conditions);
    }
    if (!err && r->uncond != NULL)
        err = dg_h5_read(f, "uncond", DG_H5_F32, 1, &condition[1], r->uncond);
    return err ? err
               : dg_h5_read(f, "prompt_index", DG_H5_I64, 1, &r->P, r->prompt);
}

static int read_scores(Trainer *t, H5File *f)
{
    Rollout *r = t->rollout;
    const int64_t shape[] = { r->N, r->K };
    float *reward = malloc(sizeof *reward * (size_t)(r->N * r->K));
    uint8_t *missing = malloc((size_t)(r->N * r->K));
    int err = reward == NULL || missing == NULL
                  ? dg_fail(DG_ENOMEM, "rewards")
                  : dg_h5_read(f, "reward", DG_H5_F32, 2, shape, reward);

    if (!err)
        err = dg_h5_read(f, "missing", DG_H5_U8, 2, shape, missing);
    for (int64_t i = 0; i < r->N * r->K && !err; i++)
        r->scores[i] = (RewardScore) { reward[i], NAN, missing[i] };
    free(reward);
    free(missing);
    return err;
}

/* This rank's range of a moment, in pieces, to where it is used. */
static int read_moment(Trainer *t, H5File *f, const char *name,
                       LearnerState which)
{
    enum { PIECE = 1 << 18 };
    const Shard *own = &t->learner->place.shard;
    float *room = malloc(sizeof *room * PIECE);
    int err = room != NULL ? DG_OK : dg_fail(DG_ENOMEM, "%s", name);

    for (int64_t at = 0; at < own->num && !err; at += PIECE) {
        const int64_t n = own->num - at < PIECE ? own->num - at : PIECE;

        err = dg_h5_read_rows(f, name, DG_H5_F32, 1, &t->learner->num,
                              own->first + at, n, room);
        if (!err)
            dg_learner_put(t->learner, which, room, at, n);
    }
    free(room);
    return err;
}

/* Weights: all, or where ranks have ranges this rank's. */
static int read_weights(const Trainer *t, H5File *f, const char *name,
                        const ParamSet *set)
{
    const Shard *own = &t->learner->place.shard;

    if (t->learner->pool == NULL)
        return dg_h5_read(f, name, DG_H5_F32, 1, &set->count, set->values);
    return own->num > 0
               ? dg_h5_read_rows(f, name, DG_H5_F32, 1, &set->count, own->first,
                                 own->num, set->values + own->first)
               : DG_OK;
}

static int read_state(Trainer *t, H5File *f)
{
    const ParamSet *trained = dg_policy_trained(t->policy);
    int err = read_weights(t, f, "state/weights", trained);

    if (!err)
        err = read_moment(t, f, "state/adam_m", DG_STATE_M);
    if (!err)
        err = read_moment(t, f, "state/adam_v", DG_STATE_V);
    if (!err && t->reference != NULL && trained == &t->policy->net)
        err = read_weights(t, f, "state/reference", &t->reference->net);
    if (!err)
        err = dg_h5_get_i64(f, NULL, "optimizer_step", &t->learner->updates);
    return err;
}

/* Bits, not values; but one NaN is as good as another, whatever made it first.
 * base: place of the first in its dataset */
static int same(const char *path, const char *name, const float *now,
                const float *then, int64_t num, int64_t base)
{
    for (int64_t i = 0; i < num; i++)
        if (memcmp(&now[i], &then[i], sizeof *now) != 0 &&
            !(isnan(now[i]) && isnan(then[i])))
            return dg_fail(DG_EPROMISE,
                           "%s: %s[%lld] is %.9g in the file and %.9g in the "
                           "replay: must be equal bit for bit",
                           path, name, (long long)(base + i), (double)then[i],
                           (double)now[i]);
    return DG_OK;
}

static int compare_floats(H5File *f, const char *name, const float *now,
                          int num_dims, const int64_t *dims)
{
    int64_t num = 1;
    float *then;
    int err;

    for (int i = 0; i < num_dims; i++)
        num *= dims[i];
    then = malloc(sizeof *then * (size_t)num);
    if (then == NULL)
        return dg_fail(DG_ENOMEM, "%s", name);
    err = dg_h5_read(f, name, DG_H5_F32, num_dims, dims, then);
    if (!err)
        err = same(dg_h5_path(f), name, now, then, num, 0);
    free(then);
    return err;
}

/* What may be said of other weights, after an update too; "" with exact sums. */
static const char *of_float_sums(const Trainer *t)
{
    return t->session->config->parallel.exact_sum
               ? ""
               : ": with parallel.exact_sum = false they are the same for as "
                 "many ranks of one thread each";
}

static int compare_results(const Trainer *t, H5File *f)
{
    const Update *u = t->update;
    const int64_t dims[] = { u->num_kept, u->steps_per_item };
    const int64_t num = dims[0] * dims[1];
    float *column = calloc((size_t)num + 1, sizeof *column);
    int err;

    if (column == NULL)
        return dg_fail(DG_ENOMEM, "results");
    for (int64_t i = 0; i < num; i++)
        column[i] = u->result[i].log_prob;
    err = compare_floats(f, "replayed_log_prob", column, 2, dims);
    for (int64_t i = 0; i < num; i++)
        column[i] = (float)u->result[i].ratio;
    if (!err)
        err = compare_floats(f, "ratio", column, 2, dims);
    if (!err)
        err = dg_trainer_match_trajectory(t, f);
    free(column);
    if (err == DG_EPROMISE) {
        const Error found = *dg_last_error();

        return dg_fail(err, "%s%s", found.text, of_float_sums(t));
    }
    return err;
}

static int compare_weights(const Trainer *t, H5File *f)
{
    const Comm *c = t->session->comm;
    /* files of version 1 have that of all bytes */
    const char *key = "weights_after_sha256_pieces";
    int pieces = dg_h5_has_key(f, NULL, key);
    char digest[65], *stored = NULL;
    int err = dg_agree(c, dg_learner_fetch(t->learner, c));

    dg_comm_bcast(c, &pieces, sizeof pieces, 0);
    if (!err)
        err = pieces
                  ? dg_learner_digest(t->learner, t->session, digest)
                  : dg_agree(c, dg_learner_digest_whole(t->learner, c, digest));
    if (!err)
        err = dg_h5_get_text(f, NULL, pieces ? key : "weights_after_sha256",
                             &stored);
    if (err)
        return err;
    if (strcmp(digest, stored) != 0)
        err = dg_fail(DG_EPROMISE,
                      "%s: weights after the iteration have SHA-256 %.16s... "
                      "in the file and %.16s... in the replay%s",
                      dg_h5_path(f), stored, digest, of_float_sums(t));
    free(stored);
    return err;
}

/* The rollout's own log-probs, all T steps, and what was decoded, from the stored
 * latents. */
typedef struct Rescore {
    Trainer *t;
    SamplingRun run;
    const char *path;
} Rescore;

static int rescore_one(Worker *w, int64_t i, void *user)
{
    const Rescore *j = user;
    const Rollout *r = j->t->rollout;
    const Backend *be = w->ctx.backend;
    Mirror log_prob;
    Sample sample = {
        .condition = dg_rollout_condition(r, j->t->policy, r->first + i),
        .latents = dg_rollout_latent(r, r->first + i, 0),
        .final = w->room,
    };
    int err = dg_mirror_new(&log_prob, be, sizeof(float) * (size_t)r->T,
                            "log-densities");

    if (err)
        return err;
    sample.log_prob = log_prob.at;
    err = dg_sampling_run(w, &j->run, &sample, 1);
    if (!err)
        err = dg_mirror_down(&log_prob);
    if (!err && be->apart) /* elsewhere the room is the scratch itself */
        err = be->download(w->scratch, w->room, sizeof(float) * (size_t)r->D);
    if (!err)
        err = same(j->path, "log_prob", log_prob.host, r->log_prob + i * r->T,
                   r->T, (r->first + i) * r->T);
    if (!err)
        err = same(j->path, "decoded", w->scratch, r->final + i * r->D, r->D,
                   (r->first + i) * r->D);
    dg_mirror_free(&log_prob);
    return err;
}

static int replay(Trainer *t, H5File *f)
{
    const Session *s = t->session;
    Rollout *r = t->rollout;
    Rescore job = {
        .t = t,
        .path = dg_h5_path(f),
        .run = { .policy = t->policy,
                 .steps = r->steps,
                 .time = r->time,
                 .guidance = dg_rollout_guidance(r, s->config),
                 .num_steps = r->T,
                 .keep_all = 1,
                 .decode = s->config->sampler.decode,
                 .score_given = 1 },
    };
    const UpdateJob update = dg_trainer_update(t);
    int err = dg_team_run(t->team, r->num, rescore_one, &job);

    err = dg_agree(s->comm, err);
    if (!err)
        err = dg_update_prepare(t->update, s, r);
    if (!err)
        err = dg_agree(s->comm,
                       compare_floats(f, "advantage", t->update->advantage, 2,
                                      (int64_t[]) { r->N, r->K }));
    if (!err)
        err = dg_update_run(&update, &t->stats);
    if (!err)
        err = dg_agree(s->comm, compare_results(t, f));
    return err ? err : dg_agree(s->comm, compare_weights(t, f));
}

/* Adapters alone are in the file: what lies below them must be what did. */
static int open_base(Trainer *t, H5File *f)
{
    const Session *s = t->session;
    const int err = dg_setup_policy(s, 0, &t->policy);

    return err ? err
               : dg_agree(s->comm,
                          s->comm->rank != 0
                              ? DG_OK
                              : dg_policy_match_base(t->policy, f,
                                                     t->policy->base_path));
}

/* what was read to where kernels work */
static void send(const Trainer *t)
{
    dg_rollout_send(t->rollout);
    dg_learner_send(t->learner);
    if (t->reference != NULL && t->policy->adapters.num_params == 0)
        dg_policy_send(t->reference);
}

/* The configuration is the file's: what helps is another place. */
static int check_room(const Session *s)
{
    const RoomKey keys[] = {
        { s->device_ranks > 1, "fewer ranks on a GPU" },
        { s->config->parallel.shard != DG_SHARD_NONE, "more ranks" },
        { 1, "a larger GPU" },
    };
    uint64_t needs;
    const int err = dg_run_plan_placed(&needs, s, 1);

    return err ? err
               : dg_room_given(s, needs, keys, sizeof keys / sizeof *keys);
}

static int open_parts(Trainer *t, H5File *f)
{
    const Session *s = t->session;
    int64_t iteration;
    int err = dg_trainer_check(s->config);

    if (!err)
        err = dg_rewards_init(t->rewards, s->config);
    if (!err && s->config->lora.rank > 0)
        err = open_base(t, f);
    else if (!err)
        err = dg_agree(s->comm, dg_policy_create(&t->policy, s->config));
    if (!err)
        err = check_room(s);
    if (!err) { /* the file has all conditions */
        dg_policy_leave_text(t->policy);
        err = dg_agree(s->comm, dg_trainer_place(t->policy, s));
    }
    if (!err) /* below adapters */
        err = dg_policy_settle(t->policy, s->comm);
    if (!err)
        err = dg_trainer_reserve(t);
    if (!err)
        err = dg_h5_get_i64(f, NULL, "iteration", &iteration);
    if (!err && (iteration < 1 || iteration > UINT32_MAX))
        err = dg_fail(
            DG_EFORMAT, "%s: attribute iteration = %lld: must be 1 to %lld",
            dg_h5_path(f), (long long)iteration, (long long)UINT32_MAX);
    /* the list of prompts is not needed: the file has indices and conditions */
    if (!err)
        err = dg_rollout_begin(t->rollout, s, t->rollout->P, iteration - 1);
    if (!err)
        err = read_items(t, f);
    if (!err)
        err = read_scores(t, f);
    if (!err)
        err = read_state(t, f);
    if (!err)
        send(t);
    err = dg_agree(s->comm, err);
    return err || t->pool == NULL ? err : dg_pool_reload(t->pool);
}

int dg_replay(const Session *s, const char *path)
{
    Trainer t = { .session = s, .reads_copies = 1 };
    H5File *f;
    int err = dg_agree(s->comm, dg_trajectory_open(&f, path));

    if (err)
        return err;
    dg_h5_tell_origin(f, &s->info);
    err = open_parts(&t, f);
    if (!err)
        err = replay(&t, f);
    if (!err)
        dg_info(
            "%s: %lld samples x %d log-probs, what was decoded, advantages, "
            "%d update%s and the weights after them agree bit for bit",
            path, (long long)t.rollout->N, t.rollout->T, t.update->num_updates,
            dg_plural(t.update->num_updates));
    dg_h5_close(f);
    dg_trainer_close(&t);
    return err;
}
