#include "sd_pixels.h"

#include "base/error.h"
#include "family.h"

int dg_sd_pixels_cell(int64_t *cell, int64_t channels)
{
    int64_t side = 1;

    while (3 * side * side < channels)
        side++;
    if (3 * side * side != channels)
        return dg_fail(DG_EINVAL,
                       "unet.in_channels = %lld: must be 3 cell^2 (3, 12, 27, "
                       "48, ...) for pictures coded by space-to-depth",
                       (long long)channels);
    *cell = side;
    return DG_OK;
}

/* Where component c of the picture's pixel (y, x) is in the latent. */
static int64_t place(const SdPixels *p, int64_t y, int64_t x, int64_t c)
{
    const int64_t cell = p->cell;
    const int64_t at = y / cell * (p->width / cell) + x / cell;

    return at * 3 * cell * cell + (c * cell + y % cell) * cell + x % cell;
}

void dg_sd_pixels_code(const SdPixels *p, const float *rgb, float *latent)
{
    for (int64_t y = 0; y < p->height; y++)
        for (int64_t x = 0; x < p->width; x++)
            for (int64_t c = 0; c < 3; c++)
                latent[place(p, y, x, c)] =
                    p->scale * (2 * rgb[(y * p->width + x) * 3 + c] - 1);
}

void dg_sd_pixels_decode(const SdPixels *p, const float *latent, float *rgb)
{
    const float half = 0.5f / p->scale;

    for (int64_t y = 0; y < p->height; y++)
        for (int64_t x = 0; x < p->width; x++)
            for (int64_t c = 0; c < 3; c++) {
                const float v = latent[place(p, y, x, c)] * half + 0.5f;

                rgb[(y * p->width + x) * 3 + c] = dg_policy_pixel(v);
            }
}
