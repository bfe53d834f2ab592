#ifndef DG_TESTS_CLIP_GOLDEN_H
#define DG_TESTS_CLIP_GOLDEN_H
/*
 * tests/golden/clip_tiny: a CLIP of transformers, and what it makes of
 * pictures and prompts; by tests/golden/make_clip_fixture.py.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIP_FOLDER "tests/golden/clip_tiny"
#define CLIP_WORDS  "tests/golden/sd_tiny/tokenizer"

enum {
    CLIP_SIDE = 34,
    CLIP_SIZES = 6,
    CLIP_PROMPTS = 3,
    CLIP_WIDTH = 24,
    CLIP_SEEN = 7 * 11 * 3, /* pixels in the file */
    CLIP_MOST = 90 * 90 * 3
};

static const int clip_sizes[CLIP_SIZES][2] = { /* height, width */
                                               { 64, 64 }, { 50, 37 },
                                               { 24, 61 }, { 35, 90 },
                                               { 34, 34 }, { 38, 37 }
};

static const char *const clip_prompts[CLIP_PROMPTS] = {
    "A red circle, and two blue squares!", "",
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
};

/** The fixture's picture of that size, in [0, 1]. */
static inline void clip_picture(float *rgb, int height, int width)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                const int smooth = 3 * x + 2 * y * (c + 1);
                const int rough =
                    (x * y * 7 + 13 * c) % 83 + 40 * ((x / 5 + y / 3) % 3);

                rgb[(y * width + x) * 3 + c] =
                    (float)((smooth + rough) % 256) / 255;
            }
}

/** The block "name count" of a folder's golden.txt. */
static inline void clip_golden_of(const char *folder, float *out, int num,
                                  const char *name, int index)
{
    char wanted[80], found[64], path[256];
    FILE *f;
    int there;

    snprintf(path, sizeof path, "%s/golden.txt", folder);
    f = fopen(path, "r");

    assert_non_null(f);
    snprintf(wanted, sizeof wanted, "%s%d", name, index);
    while (fscanf(f, "%63s %d", found, &there) == 2) {
        const int hit = strcmp(found, wanted) == 0;

        if (hit)
            assert_int_equal(there, num);
        for (int i = 0; i < there; i++) {
            float value;

            assert_int_equal(fscanf(f, "%f", &value), 1);
            if (hit)
                out[i] = value;
        }
        if (hit) {
            fclose(f);
            return;
        }
    }
    fail_msg("no block %s in %s", wanted, path);
}

static inline void clip_golden(float *out, int num, const char *name, int index)
{
    clip_golden_of(CLIP_FOLDER, out, num, name, index);
}

static inline void clip_near(const char *what, const float *got,
                             const float *want, int num, double tolerance)
{
    for (int i = 0; i < num; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance))
            fail_msg("%s: value %d is %.9g, the original has %.9g", what, i,
                     (double)got[i], (double)want[i]);
}

#endif
