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

static int verify(const RewardInput *in, WorldScore *out)
{
    const Prompt *prompt = in->prompt;
    Scratch *s = in->scratch;
    int err;

    if (!prompt->has_meta)
        return dg_fail(DG_ENOSCORE,
                       "reward shapes: prompt \"%.80s\" has no metadata of "
                       "the shapes world",
                       prompt->text);
    err = dg_world_detect(&s->seen, in->rgb, (int)in->width, &s->detector);
    if (err)
        return err;
    dg_world_score(out, &s->seen, &prompt->meta, 0);
    return DG_OK;
}

static int score_graded(const RewardInput *in, RewardScore *out)
{
    WorldScore verdict;
    int err = verify(in, &verdict);

    if (err)
        return err;
    out->value = verdict.graded;
    out->strict = (float)verdict.strict;
    return DG_OK;
}

static int score_strict(const RewardInput *in, RewardScore *out)
{
    int err = score_graded(in, out);

    if (!err) {
        out->value = out->strict;
        out->strict = NAN; /* the metric is counted once, by shapes */
    }
    return err;
}

const RewardKind dg_reward_shapes = {
    .name = "shapes",
    .has_strict = 1,
    .square = 1,
    .least_side = DG_WORLD_MIN_SIDE,
    .most_side = DG_WORLD_MAX_SIDE,
    .wants_meta = 1,
    .scratch_bytes = sizeof(Scratch),
    .score = score_graded,
};

const RewardKind dg_reward_shapes_strict = {
    .name = "shapes_strict",
    .square = 1,
    .least_side = DG_WORLD_MIN_SIDE,
    .most_side = DG_WORLD_MAX_SIDE,
    .wants_meta = 1,
    .scratch_bytes = sizeof(Scratch),
    .score = score_strict,
};
