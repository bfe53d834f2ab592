#include "reward/reward.h"

#include "base/error.h"
#include "base/log.h"
#include "base/plural.h"
#include "kinds.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int dg_rewards_init(Reward *out, const Config *c)
{
    int err = DG_OK;

    for (int64_t k = 0; k < c->num_rewards && !err; k++) {
        const RewardConfig *rc = &c->rewards[k];
        const RewardKind *kind = NULL;

        err = dg_reward_kind_of(&kind, rc, k);
        if (err)
            break;
        out[k] = (Reward) { .kind = kind,
                            .weight = rc->weight,
                            .threshold = rc->threshold,
                            .target = rc->target,
                            .quantize = rc->quantize,
                            .gpu = -1 };
        snprintf(out[k].name, sizeof out[k].name, "%s", rc->name);
    }
    return err;
}

int dg_rewards_check_picture(const Reward *r, int64_t num, int64_t height,
                             int64_t width)
{
    for (int64_t k = 0; k < num; k++)
        if (r[k].kind->square && height != width)
            return dg_fail(DG_EINVAL,
                           "rewards[%lld].name = \"%s\": it scores square "
                           "pictures, these are %lld pixels high and %lld wide "
                           "(policy.height, policy.width)",
                           (long long)k, r[k].name, (long long)height,
                           (long long)width);
        else if (r[k].kind->most_side > 0 && (width < r[k].kind->least_side ||
                                              width > r[k].kind->most_side))
            return dg_fail(DG_EINVAL,
                           "rewards[%lld].name = \"%s\": it scores pictures of "
                           "%d to %d pixels a side, these have %lld "
                           "(pretrain.image_size, policy.height, policy.width)",
                           (long long)k, r[k].name, r[k].kind->least_side,
                           r[k].kind->most_side, (long long)width);
    return DG_OK;
}

void dg_rewards_seat(Reward *r, int64_t num, int gpu)
{
    for (int64_t k = 0; k < num; k++)
        r[k].gpu = gpu;
}

/* Floats of a prompt's features of its own. */
static int64_t num_features(const Reward *r)
{
    const RewardNet *net = r->kind->net;

    return r->net != NULL && net->num_features != NULL
               ? net->num_features(r->net)
               : 0;
}

/* Floats that its network makes of a picture. */
static int64_t num_seen(const Reward *r)
{
    const RewardNet *net = r->kind->net;

    return r->net != NULL && net->see != NULL ? net->num_seen(r->net) : 0;
}

static int create_all(Reward *r, const Config *c, int64_t num)
{
    int64_t features = 0;
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++) {
        const RewardNet *net = r[k].kind->net;

        r[k].network = r[k].sight = k;
        if (net == NULL)
            continue;
        err = net->create(&r[k].net, &c->rewards[k], k);
        r[k].features = features;
        if (!err)
            features += num_features(&r[k]);
    }
    return err;
}

/* --- one network for several ------------------------------------------- */

/* The first reward of each one's files; its own number where it is that, or has
 * nothing to share. */
static void find_hosts(int64_t *host, const Reward *r, int64_t num)
{
    for (int64_t k = 0; k < num; k++) {
        const RewardNet *net = r[k].kind->net;

        host[k] = k;
        for (int64_t j = 0; j < k && host[k] == k; j++)
            if (r[k].net != NULL && r[j].net != NULL && net->same != NULL &&
                r[j].kind->net->same == net->same &&
                net->same(r[k].net, r[j].net))
                host[k] = j;
    }
}

/* What not all ranks say is not so: a link may lead elsewhere on a node. */
static void agree_hosts(int64_t *host, const Reward *r, int64_t num,
                        const Comm *comm)
{
    int64_t least[DG_CONFIG_REWARDS], most[DG_CONFIG_REWARDS];

    memcpy(least, host, sizeof *host * (size_t)num);
    memcpy(most, host, sizeof *host * (size_t)num);
    dg_comm_min_i64(comm, least, num);
    dg_comm_max_i64(comm, most, num);
    for (int64_t k = 0; k < num; k++) {
        host[k] = least[k] == most[k] ? least[k] : k;
        if (least[k] != most[k])
            dg_warn("rewards[%lld], %s: its path leads to the files of "
                    "rewards[%lld] on some ranks and to others on the rest: it "
                    "gets a network of its own",
                    (long long)k, r[k].name, (long long)least[k]);
    }
}

static int sees_as(const Reward *r, int64_t k, int64_t j)
{
    return num_seen(&r[j]) > 0 && r[j].network == r[k].network &&
           r[k].kind->net->alike(r[k].net, r[j].net);
}

static void join_all(Reward *r, const int64_t *host, int64_t num)
{
    int64_t seen = 0;

    for (int64_t k = 0; k < num; k++) {
        r[k].network = host[k];
        if (host[k] != k)
            r[k].kind->net->join(r[k].net, r[host[k]].net);
    }
    for (int64_t k = 0; k < num; k++) {
        for (int64_t j = 0; j < k && num_seen(&r[k]) > 0; j++)
            if (r[k].sight == k && sees_as(r, k, j))
                r[k].sight = j;
        r[k].seen = r[k].sight != k ? r[r[k].sight].seen : seen;
        if (r[k].sight == k)
            seen += num_seen(&r[k]);
    }
}

int dg_rewards_outline(Reward *r, const Config *c, int64_t num)
{
    int64_t host[DG_CONFIG_REWARDS];
    const int err = create_all(r, c, num);

    if (err)
        return err;
    find_hosts(host, r, num);
    join_all(r, host, num);
    return DG_OK;
}

/* Ranks whose programs are ready or have scored wait for the others. */
static void tell_patience(const Config *c, int64_t num, const Comm *comm)
{
    const double patience = c->parallel.host_timeout_seconds;

    for (int64_t k = 0; k < num && comm->size > 1 && patience > 0; k++) {
        const RewardConfig *o = &c->rewards[k];
        const int starts = o->start_seconds >= o->timeout_seconds;
        const double most = starts ? o->start_seconds : o->timeout_seconds;

        if (o->command[0] == '\0' || patience > most)
            continue;
        dg_warn("parallel.host_timeout_seconds = %g is not longer than "
                "rewards[%lld].%s = %g: a program of %s that takes so long on "
                "one rank is not waited for by the others, which end the run; "
                "make the first longer or the second shorter",
                patience, (long long)k,
                starts ? "start_seconds" : "timeout_seconds", most, o->name);
        return;
    }
}

int dg_rewards_prepare(Reward *r, const Config *c, int64_t num,
                       const Comm *comm)
{
    int64_t host[DG_CONFIG_REWARDS];
    int err = dg_agree(comm, create_all(r, c, num));

    if (err)
        return err;
    tell_patience(c, num, comm);
    find_hosts(host, r, num);
    agree_hosts(host, r, num, comm);
    join_all(r, host, num);
    for (int64_t k = 0; k < num && !err; k++) {
        if (r[k].net == NULL)
            continue;
        if (r[k].kind->net->seat != NULL)
            r[k].kind->net->seat(r[k].net, r[k].gpu);
        err = r[k].kind->net->prepare(r[k].net, comm);
    }
    return err;
}

int dg_rewards_load(Reward *r, int64_t num, const Comm *comm)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL && r[k].kind->net->load != NULL)
            err = r[k].kind->net->load(r[k].net, comm);
    return err;
}

int dg_rewards_open(Reward *r, const Config *c, int64_t num, const Comm *comm)
{
    const int err = dg_rewards_prepare(r, c, num, comm);

    return err ? err : dg_rewards_load(r, num, comm);
}

uint64_t dg_reward_digest(const Reward *r)
{
    const RewardNet *net = r->kind->net;

    return r->net != NULL && net->digest != NULL ? net->digest(r->net) : 0;
}

int dg_rewards_place(Reward *r, int64_t num, const Backend *backend)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && backend->apart && !err; k++)
        if (r[k].net != NULL && r[k].kind->net->place != NULL)
            err = r[k].kind->net->place(r[k].net, backend);
    return err;
}

/* Some prompts without metadata are warned of as they come; a run of no
 * others would learn nothing. */
static int check_meta(const Reward *r, int64_t k, const PromptList *list)
{
    for (int32_t i = 0; i < list->num; i++)
        if (list->item[i].has_meta)
            return DG_OK;
    return dg_fail(DG_EINVAL,
                   "rewards[%lld].name = \"%s\": none of the %d prompts has "
                   "what it scores by, metadata of the shapes world "
                   "(\"include\", in a .jsonl file)",
                   (long long)k, r[k].name, (int)list->num);
}

int dg_rewards_check_prompts(const Reward *r, int64_t num,
                             const PromptList *list)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].kind->wants_meta)
            err = check_meta(r, k, list);
    return err;
}

int dg_rewards_read(Reward *r, int64_t num, const PromptList *list)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL && r[k].kind->net->read != NULL)
            err = r[k].kind->net->read(r[k].net, list);
    return err;
}

int dg_rewards_hear_ended(const RewardSeat *seat)
{
    int err = DG_OK;

    for (int64_t k = 0; k < seat->num && !err; k++) {
        const Reward *r = &seat->rewards[k];

        if (r->net != NULL && r->kind->net->hear_ended != NULL)
            err = r->kind->net->hear_ended(r->net);
    }
    return err;
}

int dg_rewards_start(Reward *r, const Config *c, int64_t num, const Comm *comm,
                     int (*stopped)(void))
{
    const RewardSeat seat = { .comm = comm,
                              .cuda = c->run.device == DG_DEVICE_CUDA,
                              .stopped = stopped,
                              .rewards = r,
                              .num = num };
    int err = DG_OK, any = 0;

    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL && r[k].kind->net->start != NULL) {
            any = 1;
            err = r[k].kind->net->start(r[k].net, &seat);
        }
    if (any)
        err = dg_agree(comm, err);
    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL && r[k].kind->net->await != NULL)
            err = r[k].kind->net->await(r[k].net, &seat);
    return err;
}

const char *dg_reward_version(const Reward *r)
{
    const RewardNet *net = r->kind->net;

    return r->net != NULL && net->version != NULL ? net->version(r->net) : NULL;
}

void dg_rewards_tell(const Reward *r, int64_t num, const Comm *comm,
                     int64_t *restarts)
{
    for (int64_t k = 0; k < num; k++) {
        int64_t first = comm->size, all;
        char text[640] = "";

        if (restarts != NULL)
            restarts[k] = -1;
        if (r[k].net == NULL || r[k].kind->net->take_note == NULL)
            continue;
        all = r[k].kind->net->take_note(r[k].net, text, sizeof text);
        if (all > 0)
            first = comm->rank;
        dg_comm_min_i64(comm, &first, 1);
        dg_comm_sum_i64(comm, &all, 1);
        if (restarts != NULL)
            restarts[k] = all;
        if (first == comm->size)
            continue;
        dg_comm_bcast(comm, text, sizeof text, (int)first);
        dg_warn("%s (%lld time%s on all ranks, the first on rank %lld)", text,
                (long long)all, dg_plural(all), (long long)first);
    }
}

void dg_rewards_count_missing(char *text, size_t bytes, const Reward *r,
                              int64_t num, const RewardScore *scores,
                              int64_t pictures, int64_t stride)
{
    size_t used = 0;

    text[0] = '\0';
    for (int64_t k = 0; k < num; k++) {
        int64_t missing = 0;

        for (int64_t i = 0; i < pictures; i++)
            missing += scores[i * stride + k].missing != 0;
        if (missing == 0)
            continue;
        if (used == 0)
            used = (size_t)snprintf(text, bytes,
                                    " (missing of %lld:", (long long)pictures);
        else if (used < bytes)
            used += (size_t)snprintf(text + used, bytes - used, ",");
        if (used < bytes)
            used += (size_t)snprintf(text + used, bytes - used, " %s %lld",
                                     r[k].name, (long long)missing);
    }
    if (used > 0 && used < bytes)
        snprintf(text + used, bytes - used, ")");
}

void dg_rewards_close(Reward *r, int64_t num)
{
    for (int64_t k = 0; k < num; k++) {
        if (r[k].net != NULL)
            r[k].kind->net->destroy(r[k].net);
        r[k].net = NULL;
    }
}

static size_t aligned_bytes(int64_t floats)
{
    return (sizeof(float) * (size_t)floats + 63) & ~(size_t)63;
}

/* Of what networks make of a picture, once for those that see the same. */
static size_t seen_bytes(const Reward *r, int64_t num)
{
    int64_t seen = 0;

    for (int64_t k = 0; k < num; k++)
        if (r[k].sight == k)
            seen += num_seen(&r[k]);
    return aligned_bytes(seen);
}

size_t dg_rewards_scratch(const Reward *r, int64_t num, int64_t height,
                          int64_t width)
{
    size_t most = 0;

    for (int64_t k = 0; k < num; k++) {
        const size_t bytes =
            r[k].net != NULL
                ? r[k].kind->net->scratch(r[k].net, height, width)
                : r[k].kind->scratch_bytes +
                      r[k].kind->pixel_bytes * (size_t)(height * width);

        if (bytes > most)
            most = bytes;
    }
    return seen_bytes(r, num) + most;
}

int64_t dg_rewards_num_values(const Reward *r, int64_t num)
{
    int64_t values = 0;

    for (int64_t k = 0; k < num; k++)
        if (r[k].net != NULL && r[k].kind->net->num_values != NULL)
            values += r[k].kind->net->num_values(r[k].net);
    return values;
}

int64_t dg_rewards_num_features(const Reward *r, int64_t num)
{
    int64_t features = 0;

    for (int64_t k = 0; k < num; k++)
        features += num_features(&r[k]);
    return features;
}

int dg_rewards_encode(const Reward *r, int64_t num, Context *ctx,
                      const Prompt *prompt, float *features)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++)
        if (num_features(&r[k]) > 0)
            err = r[k].kind->net->encode(
                r[k].net, ctx, prompt,
                features != NULL ? features + r[k].features : NULL);
    return err;
}

static int plan_score(const Reward *r, int64_t k, const RewardInput *in)
{
    const RewardNet *net = r[k].kind->net;

    if (net->see == NULL)
        return net->score(r[k].net, in, NULL);
    return r[k].sight == k ? net->see(r[k].net, in, NULL) : DG_OK;
}

int dg_rewards_plan(RewardPlan *out, const Reward *r, int64_t num, Context *ctx,
                    int64_t height, int64_t width)
{
    const RewardInput in = { .height = height, .width = width, .ctx = ctx };
    RewardPlan plan = { 0 };
    int err;

    ctx->arena.peak = 0;
    ctx->flops = 0;
    err = dg_rewards_encode(r, num, ctx, NULL, NULL);
    plan.encode_flops = ctx->flops;
    ctx->flops = 0;
    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL)
            err = plan_score(r, k, &in);
    plan.score_flops = ctx->flops;
    plan.bytes = ctx->arena.peak;
    if (!err)
        *out = plan;
    return err;
}

/* --- scores ------------------------------------------------------------ */

/* Scratch behind what is seen. */
static void *behind(const RewardInput *in, size_t bytes)
{
    return bytes > 0 ? (char *)in->scratch + bytes : in->scratch;
}

/* seen: room for what its network makes of the picture; *known: it is there. */
static int look_and_score(const Reward *r, RewardInput own, float *seen,
                          int *known, RewardScore *out)
{
    const RewardNet *net = r->kind->net;
    int err = DG_OK;

    own.reward = r;
    own.seen = seen;
    if (net == NULL)
        return r->kind->score(&own, out);
    if (r->net == NULL || (own.features == NULL && num_features(r) > 0))
        dg_panic("reward %s scores before it was opened", r->name);
    if (own.features != NULL)
        own.features += r->features;
    if (net->see != NULL && !*known)
        err = net->see(r->net, &own, seen);
    *known = !err;
    return err ? err : net->score(r->net, &own, out);
}

/* What comes of it: err, of the reward that gave s. */
static int conclude(const Reward *r, int err, RewardScore s, RewardScore *out)
{
    if (err != DG_OK) {
        s.missing = err == DG_ENOSCORE ? DG_SCORE_NONE : DG_SCORE_FAILED;
    } else if (!isfinite(s.value)) {
        dg_fail(DG_ENUMERIC, "its score is %g", (double)s.value);
        s.missing = DG_SCORE_FAILED;
    } else if (!isnan(r->threshold)) {
        s.value = (double)s.value > r->threshold ? 1.0f : 0.0f;
    }
    if (s.missing)
        s.value = s.strict = NAN;
    *out = s;
    return err == DG_EREWARD ? err : DG_OK;
}

int dg_reward_score(const Reward *r, const RewardInput *in, RewardScore *out)
{
    RewardScore s = { .value = NAN, .strict = NAN };
    RewardInput own = *in;
    int known = 0, err;

    own.scratch = behind(in, aligned_bytes(num_seen(r)));
    err = look_and_score(r, own, in->scratch, &known, &s);
    return conclude(r, err, s, out);
}

int dg_rewards_score(const Reward *r, int64_t num, const RewardInput *in,
                     RewardScore *out, void (*missing)(void *user, int64_t k),
                     void *user)
{
    int known[DG_CONFIG_REWARDS] = { 0 };
    RewardInput own = *in;
    float *seen = in->scratch;
    int err = DG_OK;

    own.scratch = behind(in, seen_bytes(r, num));
    for (int64_t k = 0; k < num && !err; k++) {
        RewardScore s = { .value = NAN, .strict = NAN };

        err = look_and_score(&r[k], own,
                             num_seen(&r[k]) > 0 ? seen + r[k].seen : NULL,
                             &known[r[k].sight], &s);
        err = conclude(&r[k], err, s, &out[k]);
        if (out[k].missing && missing != NULL)
            missing(user, k);
    }
    return err;
}
