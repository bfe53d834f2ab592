#include "kinds.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const RewardKind *const kinds[] = {
    &dg_reward_shapes,      &dg_reward_shapes_strict, &dg_reward_brightness,
    &dg_reward_hpsv2,       &dg_reward_clip,          &dg_reward_pickscore,
    &dg_reward_aesthetic,   &dg_reward_jpeg_size,     &dg_reward_colourfulness,
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
    return dg_fail(DG_EINVAL,
                   "rewards[%lld].name = \"%s\": must be %s; one of your own "
                   "has a command or a plugin",
                   (long long)k, name, names);
}

/* Keys of texts that this kind does not have. */
static int check_texts(const RewardKind *kind, const RewardConfig *c, int64_t k)
{
    const struct {
        unsigned bit;
        const char *key, *value;
    } texts[] = { { DG_KEY_PATH, "path", c->path },
                  { DG_KEY_HEAD, "head", c->head },
                  { DG_KEY_TOKENIZER, "tokenizer", c->tokenizer },
                  { DG_KEY_MODEL, "model", c->model },
                  { DG_KEY_OPTIONS, "options", c->options } };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!(kind->keys & texts[i].bit) && texts[i].value[0] != '\0')
            return dg_fail(DG_EINVAL,
                           "rewards[%lld].%s = \"%s\": must be empty, %s has "
                           "no %s",
                           (long long)k, texts[i].key, texts[i].value, c->name,
                           kind->net == NULL && texts[i].bit != DG_KEY_OPTIONS
                               ? "network"
                               : texts[i].key);
    return DG_OK;
}

/* And of choices and numbers: they would have no effect. */
static int check_others(const RewardKind *kind, const RewardConfig *c,
                        int64_t k)
{
    const struct {
        unsigned bit;
        int set;
        const char *key, *must;
    } others[] = { { DG_KEY_SCALE, c->scale != DG_SCALE_COS, "scale", "cos" },
                   { DG_KEY_QUANTIZE, c->quantize != DG_QUANTIZE_RINT,
                     "quantize", "rint" },
                   { DG_KEY_TARGET, !isnan(c->target), "target", "left out" } };

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!(kind->keys & others[i].bit) && others[i].set)
            return dg_fail(
                DG_EINVAL, "rewards[%lld].%s: must be %s, %s does not have it",
                (long long)k, others[i].key, others[i].must, c->name);
    return DG_OK;
}

/* Files that a kind cannot do without. */
static int check_files(const RewardKind *kind, const RewardConfig *c, int64_t k)
{
    if ((kind->keys & DG_KEY_PATH) && c->path[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].path = \"\": must name the weights of %s",
                       (long long)k, c->name);
    if ((kind->keys & DG_KEY_HEAD) && c->head[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].head = \"\": must name the file with the "
                       "last layers of %s",
                       (long long)k, c->name);
    return DG_OK;
}

/* A reward that the user brings has a name of the user's. */
static int check_own_name(const RewardConfig *c, int64_t k)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

    if (c->name[strspn(c->name, allowed)] != '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].name = \"%s\": of a reward of your own, "
                       "must be of letters, digits, _ and -, at most %zu",
                       (long long)k, c->name, sizeof c->name - 1);
    if (find(c->name) != NULL)
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].name = \"%s\": must be a name of your "
                       "own, this program has a reward of that one",
                       (long long)k, c->name);
    return DG_OK;
}

int dg_reward_kind_of(const RewardKind **kind, const RewardConfig *c, int64_t k)
{
    int err = DG_OK;

    *kind = c->command[0] != '\0'  ? &dg_reward_command
            : c->plugin[0] != '\0' ? &dg_reward_of_plugin
                                   : find(c->name);
    if (*kind == NULL)
        return unknown(c->name, k);
    if (c->command[0] != '\0' && c->plugin[0] != '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].plugin = \"%s\": must be empty where "
                       "rewards[%lld].command is set",
                       (long long)k, c->plugin, (long long)k);
    if (c->command[0] != '\0' || c->plugin[0] != '\0')
        err = check_own_name(c, k);
    if (!err)
        err = check_texts(*kind, c, k);
    if (!err)
        err = check_others(*kind, c, k);
    if (!err)
        err = check_files(*kind, c, k);
    return err;
}
