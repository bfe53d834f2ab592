#include "world/spoil.h"

static const float grey = 128.0f / 255;

void dg_world_fade(float *rgb, int side, float contrast)
{
    for (int i = 0; i < 3 * side * side; i++)
        rgb[i] = grey + contrast * (rgb[i] - grey);
}

/* A line of n values, 'stride' apart. */
static void blur_line(float *x, int n, int stride)
{
    float before = x[0];

    for (int i = 0; i < n; i++) {
        const float here = x[i * stride];
        const float after = x[(i + 1 < n ? i + 1 : i) * stride];

        x[i * stride] = 0.25f * before + 0.5f * here + 0.25f * after;
        before = here;
    }
}

void dg_world_blur(float *rgb, int side, int passes)
{
    for (int p = 0; p < passes; p++)
        for (int c = 0; c < 3; c++) {
            for (int y = 0; y < side; y++)
                blur_line(rgb + 3 * side * y + c, side, 3);
            for (int x = 0; x < side; x++)
                blur_line(rgb + 3 * x + c, side, 3 * side);
        }
}
