#include "reward/reward.h"

#include "base/error.h"
#include "kinds.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const RewardKind *const kinds[] = {
    &dg_reward_shapes,      &dg_reward_shapes_strict, &dg_reward_brightness,
    &dg_reward_hpsv2,       &dg_reward_clip,          &dg_reward_pickscore,
    &dg_reward_imagereward,
};

enum { NUM_KINDS = sizeof kinds / sizeof *kinds };

static const RewardKind *find(const char *name)
{
    for (int i = 0; i < NUM_KINDS; i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    return NULL;
}

static int unknown(const char *name, int64_t k)
{
    char names[256] = "";

    for (int i = 0; i < NUM_KINDS; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s",
                 i == 0               ? ""
                 : i == NUM_KINDS - 1 ? " or "
                                      : ", ",
                 kinds[i]->name);
    return dg_fail(DG_EINVAL, "rewards[%lld].name = \"%s\": must be %s",
                   (long long)k, name, names);
}

/* Keys that only networks have. */
static int check_plain(const RewardConfig *c, int64_t k)
{
    const struct {
        const char *key, *value;
    } texts[] = { { "path", c->path },
                  { "tokenizer", c->tokenizer },
                  { "model", c->model } };

    for (int i = 0; i < 3; i++)
        if (texts[i].value[0] != '\0')
            return dg_fail(DG_EINVAL,
                           "rewards[%lld].%s = \"%s\": must be empty, %s has "
                           "no network",
                           (long long)k, texts[i].key, texts[i].value, c->name);
    return DG_OK;
}

int dg_rewards_init(Reward *out, const Config *c)
{
    int err = DG_OK;

    for (int64_t k = 0; k < c->num_rewards && !err; k++) {
        const RewardConfig *rc = &c->rewards[k];
        const RewardKind *kind = find(rc->name);

        if (kind == NULL)
            return unknown(rc->name, k);
        if (kind->net == NULL)
            err = check_plain(rc, k);
        else if (rc->path[0] == '\0')
            err = dg_fail(DG_EINVAL,
                          "rewards[%lld].path = \"\": must name the weights of "
                          "%s",
                          (long long)k, rc->name);
        out[k] = (Reward) { .kind = kind,
                            .weight = rc->weight,
                            .threshold = rc->threshold };
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

int dg_rewards_outline(Reward *r, const Config *c, int64_t num)
{
    int64_t features = 0;
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++) {
        const RewardNet *net = r[k].kind->net;

        if (net == NULL)
            continue;
        err = net->create(&r[k].net, &c->rewards[k], k);
        r[k].features = features;
        if (!err)
            features += net->num_features(r[k].net);
    }
    return err;
}

int dg_rewards_open(Reward *r, const Config *c, int64_t num, const Comm *comm)
{
    int err = dg_agree(comm, dg_rewards_outline(r, c, num));

    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL)
            err = r[k].kind->net->load(r[k].net, comm);
    return err;
}

int dg_rewards_place(Reward *r, int64_t num, const Backend *backend)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && backend->apart && !err; k++)
        if (r[k].net != NULL)
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
        if (r[k].net != NULL)
            err = r[k].kind->net->read(r[k].net, list);
    return err;
}

void dg_rewards_close(Reward *r, int64_t num)
{
    for (int64_t k = 0; k < num; k++) {
        if (r[k].net != NULL)
            r[k].kind->net->destroy(r[k].net);
        r[k].net = NULL;
    }
}

size_t dg_rewards_scratch(const Reward *r, int64_t num, int64_t height,
                          int64_t width)
{
    size_t most = 0;

    for (int64_t k = 0; k < num; k++) {
        const size_t bytes =
            r[k].net != NULL ? r[k].kind->net->scratch(r[k].net, height, width)
                             : r[k].kind->scratch_bytes;

        if (bytes > most)
            most = bytes;
    }
    return most;
}

int64_t dg_rewards_num_values(const Reward *r, int64_t num)
{
    int64_t values = 0;

    for (int64_t k = 0; k < num; k++)
        if (r[k].net != NULL)
            values += r[k].kind->net->num_values(r[k].net);
    return values;
}

int64_t dg_rewards_num_features(const Reward *r, int64_t num)
{
    int64_t features = 0;

    for (int64_t k = 0; k < num; k++)
        if (r[k].net != NULL)
            features += r[k].kind->net->num_features(r[k].net);
    return features;
}

int dg_rewards_encode(const Reward *r, int64_t num, Context *ctx,
                      const Prompt *prompt, float *features)
{
    int err = DG_OK;

    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL)
            err = r[k].kind->net->encode(
                r[k].net, ctx, prompt,
                features != NULL ? features + r[k].features : NULL);
    return err;
}

int dg_rewards_plan(RewardPlan *out, const Reward *r, int64_t num, Context *ctx,
                    int64_t height, int64_t width)
{
    RewardPlan plan = { 0 };
    int err;

    ctx->arena.peak = 0;
    ctx->flops = 0;
    err = dg_rewards_encode(r, num, ctx, NULL, NULL);
    plan.encode_flops = ctx->flops;
    ctx->flops = 0;
    for (int64_t k = 0; k < num && !err; k++)
        if (r[k].net != NULL)
            err = r[k].kind->net->score(
                r[k].net,
                &(RewardInput) { .height = height, .width = width, .ctx = ctx },
                NULL);
    plan.score_flops = ctx->flops;
    plan.bytes = ctx->arena.peak;
    if (!err)
        *out = plan;
    return err;
}

static int score(const Reward *r, const RewardInput *in, RewardScore *out)
{
    RewardInput own = *in;

    if (r->kind->net == NULL)
        return r->kind->score(in, out);
    if (r->net == NULL || in->features == NULL)
        dg_panic("reward %s scores before it was opened", r->name);
    own.features += r->features;
    return r->kind->net->score(r->net, &own, out);
}

void dg_reward_score(const Reward *r, const RewardInput *in, RewardScore *out)
{
    RewardScore s = { .value = NAN, .strict = NAN };

    if (score(r, in, &s) != DG_OK) {
        s.missing = 1;
    } else if (!isfinite(s.value)) {
        dg_fail(DG_ENUMERIC, "reward %s gave %g", r->name, (double)s.value);
        s.missing = 1;
    } else if (!isnan(r->threshold)) {
        s.value = (double)s.value > r->threshold ? 1.0f : 0.0f;
    }
    if (s.missing)
        s.value = s.strict = NAN;
    *out = s;
}
