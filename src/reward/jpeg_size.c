/* Size of the picture as a JPEG of quality 95, in kB: DDPO's incompressibility,
 * and with a negative weight its compressibility. */
#include "kinds.h"

#include "base/error.h"
#include "reward/picture.h"
#include "store/jpeg.h"

enum { QUALITY = 95 };

static int score(const RewardInput *in, RewardScore *out)
{
    uint8_t *rgb = in->scratch;
    int64_t bytes;
    int err = dg_picture_quantize(rgb, in->rgb, 3 * in->height * in->width,
                                  in->reward->quantize);

    if (!err)
        err = dg_jpeg_size(&bytes, rgb, in->height, in->width, QUALITY);
    if (!err)
        out->value = (float)((double)bytes / 1000);
    return err;
}

const RewardKind dg_reward_jpeg_size = {
    .name = "jpeg_size",
    .keys = DG_KEY_QUANTIZE,
    .pixel_bytes = 3,
    .score = score,
};
