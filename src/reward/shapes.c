/* Does the picture show the shapes its prompt asks for? The detector and
 * verifier of the shapes world: shapes is the graded score with the strict
 * 0/1 metric besides, shapes_strict makes that metric the reward. */
#include "kinds.h"

#include "base/error.h"
#include "world/detect.h"
#include "world/verify.h"

#include <math.h>

typedef struct Scratch {
    WorldScratch detector;
    WorldDetection seen;
} Scratch;

static int verify(const float *rgb, int64_t size, const Prompt *prompt,
                  WorldScore *out, void *scratch)
{
    Scratch *s = scratch;
    int err;

    if (!prompt->has_meta)
        return dg_fail(DG_EINVAL,
                       "reward shapes: prompt \"%.80s\" has no metadata of "
                       "the shapes world",
                       prompt->text);
    err = dg_world_detect(&s->seen, rgb, (int)size, &s->detector);
    if (err)
        return err;
    dg_world_score(out, &s->seen, &prompt->meta, 0);
    return DG_OK;
}

static int score_graded(const float *rgb, int64_t size, const Prompt *prompt,
                        RewardScore *out, void *scratch)
{
    WorldScore verdict;
    int err = verify(rgb, size, prompt, &verdict, scratch);

    if (err)
        return err;
    out->value = verdict.graded;
    out->strict = (float)verdict.strict;
    return DG_OK;
}

static int score_strict(const float *rgb, int64_t size, const Prompt *prompt,
                        RewardScore *out, void *scratch)
{
    int err = score_graded(rgb, size, prompt, out, scratch);

    if (!err) {
        out->value = out->strict;
        out->strict = NAN; /* the metric is counted once, by shapes */
    }
    return err;
}

const RewardKind dg_reward_shapes = {
    .name = "shapes",
    .has_strict = 1,
    .scratch_bytes = sizeof(Scratch),
    .score = score_graded,
};

const RewardKind dg_reward_shapes_strict = {
    .name = "shapes_strict",
    .scratch_bytes = sizeof(Scratch),
    .score = score_strict,
};
