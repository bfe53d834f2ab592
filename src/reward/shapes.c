/* Does the picture show the shapes its prompt asks for? The detector and
 * verifier of the shapes world; graded score, strict 0/1 metric. */
#include "kinds.h"

#include "base/error.h"
#include "world/detect.h"
#include "world/verify.h"

typedef struct Scratch {
    WorldScratch detector;
    WorldDetection seen;
} Scratch;

static int score(const float *rgb, int64_t size, const Prompt *prompt,
                 RewardScore *out, void *scratch)
{
    Scratch *s = scratch;
    WorldScore verdict;
    int err;

    if (!prompt->has_meta)
        return dg_fail(DG_EINVAL,
                       "reward shapes: prompt \"%.80s\" has no metadata of "
                       "the shapes world",
                       prompt->text);
    err = dg_world_detect(&s->seen, rgb, (int)size, &s->detector);
    if (err)
        return err;
    dg_world_score(&verdict, &s->seen, &prompt->meta, 0);
    out->value = verdict.graded;
    out->strict = (float)verdict.strict;
    return DG_OK;
}

const RewardKind dg_reward_shapes = {
    .name = "shapes",
    .has_strict = 1,
    .scratch_bytes = sizeof(Scratch),
    .score = score,
};
