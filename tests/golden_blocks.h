#ifndef DG_TESTS_GOLDEN_BLOCKS_H
#define DG_TESTS_GOLDEN_BLOCKS_H
/* Numbers that diffusers gave, in files of lines "name count" and then a
 * number a line. */
#include <math.h>
#include <stdio.h>

static inline void read_block(FILE *f, const char *name, float *out, int num)
{
    char found[64];
    int there;

    assert_int_equal(fscanf(f, "%63s %d", found, &there), 2);
    assert_string_equal(found, name);
    assert_int_equal(there, num);
    for (int i = 0; i < num; i++)
        assert_int_equal(fscanf(f, "%f", &out[i]), 1);
}

/* Of a picture's pixels those that the files have; returns their number. */
static inline int picture_seen(float *seen, const float *rgb, int height,
                               int width)
{
    int n = 0;

    for (int y = 3; y < height; y += 7)
        for (int x = 2; x < width; x += 5)
            for (int c = 0; c < 3; c++)
                seen[n++] = rgb[(y * width + x) * 3 + c];
    return n;
}

static inline void near(const float *got, const float *want, int num,
                        double tolerance)
{
    for (int i = 0; i < num; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance))
            fail_msg("value %d is %.7g, diffusers has %.7g", i, (double)got[i],
                     (double)want[i]);
}

#endif
