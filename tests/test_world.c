#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "world/spoil.h"
#include "world/verify.h"
#include "world/world.h"

enum { PIXELS = 3 * 64 * 64 };

static float picture[PIXELS];
static WorldScratch scratch;
static WorldDetection seen;

static void test_scene_is_function_of_seed_and_index(void **state)
{
    WorldScene a, b;

    (void)state;
    for (uint64_t i = 0; i < 50; i++) {
        dg_world_scene(&a, 5, i, 32);
        dg_world_scene(&b, 5, i + 1, 32);
        assert_memory_not_equal(&a, &b, sizeof a);
        dg_world_scene(&b, 5, i, 32);
        assert_memory_equal(&a, &b, sizeof a);
    }
    dg_world_scene(&a, 5, (uint64_t)1 << 33, 32);
    dg_world_scene(&b, 5, 0, 32);
    assert_memory_not_equal(&a, &b, sizeof a);
}

/* The stream's first scenes and the last object of each, fixed: weights were
 * trained on them. */
static void test_scene_stream_stays_the_same(void **state)
{
    static const struct {
        uint64_t index;
        const char *prompt;
        WorldObject last;
    } first[] = {
        { 0,
          "three green squares and a purple circle",
          { 0, 5, 26.49929f, 32.42290f, 10.85215f, -0.29449f } },
        { 1, "a circle", { 0, 2, 21.87984f, 23.62342f, 8.04342f, -0.03500f } },
        { 2,
          "two yellow circles and two black squares",
          { 1, 7, 9.20907f, 40.08829f, 6.47408f, 0.13781f } },
        { 3,
          "a green triangle",
          { 2, 3, 16.51366f, 46.53605f, 9.05715f, -0.07775f } },
        { 4,
          "a red square and a white triangle",
          { 2, 6, 19.00028f, 37.80407f, 8.99696f, -0.04066f } },
    };
    WorldScene s;

    (void)state;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        const WorldObject *want = &first[i].last, *got;

        assert_int_equal(dg_world_scene(&s, 7, first[i].index, 64), DG_OK);
        assert_string_equal(s.prompt, first[i].prompt);
        got = &s.object[s.num_objects - 1];
        assert_int_equal(got->shape, want->shape);
        assert_int_equal(got->colour, want->colour);
        assert_float_equal(got->cx, want->cx, 1e-4);
        assert_float_equal(got->cy, want->cy, 1e-4);
        assert_float_equal(got->radius, want->radius, 1e-4);
        assert_float_equal(got->rotation, want->rotation, 1e-4);
    }
}

/* Two shapes in a relation are in no other, and the whole of each is there. */
static void test_scenes_of_relations_are_clear(void **state)
{
    WorldStream w = { .seed = 5, .side = 64 };
    WorldScene s;

    (void)state;
    w.weight[DG_TAG_POSITION] = 1.0f;
    for (uint64_t i = 0; i < 200; i++) {
        int relation, holds = 0;

        assert_int_equal(dg_world_stream_scene(&s, &w, i), DG_OK);
        relation = s.meta.clause[1].relation;
        dg_world_draw(picture, &s, 64);
        dg_world_detect(&seen, picture, 64, &scratch);
        assert_int_equal(seen.num_objects, 2);
        for (int r = 0; r < DG_NUM_RELATIONS; r++) {
            const int swap = seen.object[0].shape != s.object[1].shape;

            holds += dg_world_related(seen.object[swap].box,
                                      seen.object[!swap].box, r)
                     << r;
        }
        assert_int_equal(holds, 1 << relation);
    }
}

static void test_scene_tags_are_equally_frequent(void **state)
{
    enum { NUM = 7000 };
    int count[DG_NUM_TAGS] = { 0 };
    WorldScene s;

    (void)state;
    for (int i = 0; i < NUM; i++) {
        assert_int_equal(dg_world_scene(&s, 1, (uint64_t)i, 32), DG_OK);
        count[s.meta.tag]++;
    }
    /* 5 sigma of a binomial: sqrt(7000 / 7 * 6 / 7) = 29 */
    for (int t = 0; t < DG_NUM_TAGS; t++)
        assert_in_range(count[t], 1000 - 147, 1000 + 147);
}

static void test_stream_weights_choose_tags(void **state)
{
    WorldStream w = { .seed = 1, .side = 32 };
    WorldScene s;
    int counting = 0;

    (void)state;
    w.weight[DG_TAG_COUNTING] = 3.0f;
    w.weight[DG_TAG_COLORS] = 1.0f;
    for (uint64_t i = 0; i < 400; i++) {
        assert_int_equal(dg_world_stream_scene(&s, &w, i), DG_OK);
        assert_true(s.meta.tag == DG_TAG_COUNTING ||
                    s.meta.tag == DG_TAG_COLORS);
        counting += s.meta.tag == DG_TAG_COUNTING;
    }
    assert_in_range(counting, 300 - 45, 300 + 45);
    w.weight[0] = -1.0f;
    assert_int_equal(dg_world_stream_scene(&s, &w, 0), DG_EINVAL);
    assert_int_equal(dg_world_scene(&s, 1, 0, 31), DG_EINVAL);
    assert_int_equal(dg_world_scene(&s, 1, 0, 129), DG_EINVAL);
}

static void test_stream_leaves_out_excluded_meanings(void **state)
{
    WorldStream w = { .seed = 2, .side = 32 };
    uint64_t out[2];
    WorldScene s;

    (void)state;
    w.weight[DG_TAG_SINGLE_OBJECT] = 1.0f;
    for (int shape = 0; shape < 2; shape++) {
        WorldMeta m = { DG_TAG_SINGLE_OBJECT, 1, { { shape, 1, -1, -1, -1 } } };

        out[shape] = dg_world_meaning(&m);
    }
    if (out[0] > out[1]) {
        uint64_t swap = out[0];

        out[0] = out[1];
        out[1] = swap;
    }
    w.excluded = out;
    w.num_excluded = 2;
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(dg_world_stream_scene(&s, &w, i), DG_OK);
        assert_string_equal(s.prompt, "a triangle");
    }
}

/* Gap of 4 pixels between any two shapes: no pixel within 3 of two. */
static void test_scene_keeps_shapes_apart(void **state)
{
    (void)state;
    for (int side = 32; side <= 64; side *= 2) {
        for (uint64_t i = 0; i < 300; i++) {
            static unsigned char touched[64 * 64];
            WorldScene s, one;

            memset(touched, 0, sizeof touched);
            assert_int_equal(dg_world_scene(&s, 9, i, side), DG_OK);
            for (int k = 0; k < s.num_objects; k++) {
                one = s;
                one.num_objects = 1;
                one.object[0] = s.object[k];
                dg_world_draw(picture, &one, side);
                for (int p = 0; p < side * side; p++) {
                    int x = p % side, y = p / side;

                    if (fabsf(picture[3 * p] - 128.0f / 255.0f) < 1e-6f &&
                        fabsf(picture[3 * p + 2] - 128.0f / 255.0f) < 1e-6f)
                        continue;
                    assert_in_range(x, 1, side - 2);
                    assert_in_range(y, 1, side - 2);
                    assert_true(touched[p] == 0 || touched[p] == k + 1);
                    /* 1 pixel around: two shapes' touched pixels are then
                     * at least 3 apart, as a gap of 4 leaves */
                    for (int j = 0; j < 9; j++)
                        touched[p + (j / 3 - 1) * side + j % 3 - 1] =
                            (unsigned char)(k + 1);
                }
            }
        }
    }
}

/* The area of what is drawn, against pi r^2, from the picture alone. */
static void test_draw_has_exact_area(void **state)
{
    (void)state;
    for (int shape = 0; shape < DG_NUM_SHAPES; shape++) {
        for (int i = 0; i < 8; i++) {
            WorldScene s = { .num_objects = 1 };
            double sum = 0.0, r = 8.0 + 0.3 * i;

            s.object[0] = (WorldObject) { .shape = shape,
                                          .colour = DG_COLOUR_WHITE,
                                          .cx = 30.3f + 0.1f * (float)i,
                                          .cy = 33.1f,
                                          .radius = (float)r,
                                          .rotation = 0.05f * (float)i };
            dg_world_draw(picture, &s, 64);
            for (int p = 0; p < 64 * 64; p++)
                sum += (double)(picture[3 * p] - 128.0f / 255.0f);
            sum /= 117.0 / 255.0;
            /* 8 x 8 samples on about 4 r edge pixels: error below 1 % */
            assert_true(fabs(sum / (M_PI * r * r) - 1.0) < 0.01);
        }
    }
}

static void test_meta_json_round_trip(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 300; i++) {
        char line[1024], again[1024];
        WorldScene s;
        WorldMeta m;

        dg_world_scene(&s, 8, i, 32);
        assert_int_equal(
            dg_world_meta_write(line, sizeof line, &s.meta, s.prompt), DG_OK);
        assert_int_equal(dg_world_meta_read(&m, line), DG_OK);
        assert_memory_equal(&m, &s.meta, sizeof m);
        assert_int_equal(dg_world_caption(again, sizeof again, &m), DG_OK);
        assert_string_equal(again, s.prompt);
    }
}

/* Into a buffer that holds it, or one that is a byte short. */
static void test_texts_need_their_room(void **state)
{
    WorldMeta m = { DG_TAG_COLORS,
                    1,
                    { { DG_SHAPE_CIRCLE, 1, DG_COLOUR_RED, -1, -1 } } };
    char line[256], text[256];
    size_t num;

    (void)state;
    assert_int_equal(dg_world_caption(text, sizeof text, &m), DG_OK);
    num = strlen(text);
    assert_int_equal(dg_world_caption(line, num + 1, &m), DG_OK);
    memset(line, '#', sizeof line);
    assert_int_equal(dg_world_caption(line, num, &m), DG_EINVAL);
    assert_int_equal(line[num], '#');
    assert_int_equal(dg_world_meta_write(text, sizeof text, &m, "x"), DG_OK);
    num = strlen(text);
    assert_int_equal(dg_world_meta_write(line, num + 1, &m, "x"), DG_OK);
    memset(line, '#', sizeof line);
    assert_int_equal(dg_world_meta_write(line, num, &m, "x"), DG_EINVAL);
    assert_int_equal(line[num], '#');
}

/* Counts, relations and shapes that no caption or picture has. */
static void test_metadata_has_its_limits(void **state)
{
    const WorldMeta right = { DG_TAG_POSITION,
                              2,
                              { { DG_SHAPE_SQUARE, 1, -1, -1, -1 },
                                { DG_SHAPE_CIRCLE, 1, -1, DG_REL_LEFT, 0 } } };
    WorldMeta m = right;
    WorldScene s;
    char text[256];

    (void)state;
    assert_int_equal(dg_world_caption(text, sizeof text, &m), DG_OK);
    m.clause[1].ref = 2; /* there are clauses 0 and 1 */
    assert_false(dg_world_meta_valid(&m));
    m = right;
    m.clause[0].relation = DG_REL_ABOVE;
    m.clause[0].ref = 1;
    assert_true(dg_world_meta_valid(&m));
    assert_int_equal(dg_world_caption(text, sizeof text, &m), DG_EINVAL);
    m = right;
    m.clause[0].count = 5; /* numbers are words up to four */
    assert_int_equal(dg_world_caption(text, sizeof text, &m), DG_EINVAL);
    m.num_clauses = 3;
    for (int i = 0; i < 3; i++)
        m.clause[i] = (WorldClause) { i, 3, -1, -1, -1 };
    assert_int_equal(dg_world_scene_of(&s, &m, 1, 0, 64), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "more than 8 shapes"));
}

static void test_meta_read_refuses_bad_json(void **state)
{
#define C "{\"class\":\"circle\"},"
    static const char *const bad[] = {
        "{",
        "[]",
        "{}",
        "{\"include\":[]}",
        "{\"include\":[{}]}",
        "{\"include\":[{\"class\":\"circle\",\"count\":0}]}",
        "{\"include\":[{\"class\":\"circle\",\"count\":1.5}]}",
        "{\"include\":[{\"class\":\"circle\",\"color\":3}]}",
        "{\"include\":[{\"class\":\"circle\",\"position\":[\"left of\",1]}]}",
        "{\"include\":[{\"class\":\"circle\",\"position\":[\"left of\",0]}]}",
        "{\"include\":[{\"class\":\"circle\"},"
        "{\"class\":\"square\",\"position\":[\"inside\",0]}]}",
        "{\"include\":[{\"class\":\"dog\"},{\"class\":7}]}",
        "{\"include\":[{\"class\":\"circle\"}]} x",
        /* nine clauses */
        "{\"include\":[" C C C C C C C C "{\"class\":\"circle\"}]}",
    };
    static const char *const foreign[] = {
        "{\"include\":[{\"class\":\"dog\",\"count\":1}]}",
        "{\"include\":[{\"class\":\"circle\",\"color\":\"pink\"}]}",
    };
    WorldMeta m;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(dg_world_meta_read(&m, bad[i]), DG_EFORMAT);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        assert_int_equal(dg_world_meta_read(&m, foreign[i]), DG_EINVAL);
    assert_int_equal(
        dg_world_meta_read(&m, "{\"tag\":\"x\",\"include\":[{\"class\":"
                               "\"circle\"}],\"exclude\":[]}"),
        DG_OK);
    assert_true(m.tag == DG_TAG_UNKNOWN && m.clause[0].count == 1);
    assert_int_equal(dg_world_meta_read(&m, "{\"include\":[" C C C C C C C
                                            "{\"class\":\"square\"}]}"),
                     DG_OK);
    assert_true(m.num_clauses == 8 && m.clause[7].shape == DG_SHAPE_SQUARE);
#undef C
}

static void test_meaning_is_that_of_equivalent_captions(void **state)
{
    WorldMeta a = { DG_TAG_POSITION,
                    2,
                    { { DG_SHAPE_SQUARE, 1, -1, -1, -1 },
                      { DG_SHAPE_CIRCLE, 1, -1, DG_REL_LEFT, 0 } } };
    WorldMeta b = { DG_TAG_POSITION,
                    2,
                    { { DG_SHAPE_CIRCLE, 1, -1, -1, -1 },
                      { DG_SHAPE_SQUARE, 1, -1, DG_REL_RIGHT, 0 } } };
    WorldMeta c = a;

    (void)state;
    assert_true(dg_world_meaning(&a) == dg_world_meaning(&b));
    b.clause[1].relation = DG_REL_LEFT;
    assert_true(dg_world_meaning(&a) != dg_world_meaning(&b));
    b.clause[1].relation = DG_REL_ABOVE;
    assert_true(dg_world_meaning(&a) != dg_world_meaning(&b));
    c.clause[1].relation = c.clause[1].ref = -1;
    assert_true(dg_world_meaning(&a) != dg_world_meaning(&c));
    b = c;
    b.clause[0] = c.clause[1];
    b.clause[1] = c.clause[0];
    assert_true(dg_world_meaning(&b) == dg_world_meaning(&c));
    b.clause[0].colour = DG_COLOUR_RED;
    assert_true(dg_world_meaning(&b) != dg_world_meaning(&c));
    b = c;
    b.clause[0].count = 2;
    assert_true(dg_world_meaning(&b) != dg_world_meaning(&c));
    b = a;
    b.clause[1].relation = DG_REL_ABOVE;
    assert_true(dg_world_meaning(&a) != dg_world_meaning(&b));
}

/* Metadata from a file makes a scene that shows it. */
static void test_scene_of_metadata_shows_it(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 60; i++) {
        WorldScene s, again;
        WorldScore score;

        dg_world_scene(&s, 8, i, 32);
        assert_int_equal(dg_world_scene_of(&again, &s.meta, 99, i, 32), DG_OK);
        assert_string_equal(again.prompt, s.prompt);
        dg_world_draw(picture, &again, 32);
        dg_world_detect(&seen, picture, 32, &scratch);
        dg_world_score(&score, &seen, &s.meta, 0);
        assert_int_equal(score.strict, 1);
    }
}

/* n over k: the binomial filter, applied p times, is row 2 p of the triangle. */
static double binomial(int n, int k)
{
    double b = 1;

    for (int i = 1; i <= k; i++)
        b = b * (n - k + i) / i;
    return k < 0 || k > n ? 0 : b;
}

/* One bright pixel far from the rim becomes the filter itself. */
static void test_blur_is_the_binomial_filter(void **state)
{
    enum { SIDE = 32, AT = 15, PASSES = 6 };
    const double all = pow(4, PASSES);

    (void)state;
    memset(picture, 0, sizeof picture);
    picture[3 * (SIDE * AT + AT) + 1] = 1;
    dg_world_blur(picture, SIDE, PASSES);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const double want = binomial(2 * PASSES, y - AT + PASSES) / all *
                                binomial(2 * PASSES, x - AT + PASSES) / all;

            assert_true(fabs(picture[3 * (SIDE * y + x) + 1] - want) < 1e-7);
            assert_true(picture[3 * (SIDE * y + x)] == 0);
            assert_true(picture[3 * (SIDE * y + x) + 2] == 0);
        }
}

/* An even picture stays: the rim is repeated, not darkened. */
static void test_blur_keeps_an_even_picture(void **state)
{
    (void)state;
    for (int i = 0; i < PIXELS; i++)
        picture[i] = 0.625f;
    dg_world_blur(picture, 64, 9);
    for (int i = 0; i < PIXELS; i++)
        assert_true(picture[i] == 0.625f);
}

static void test_fade_moves_towards_grey(void **state)
{
    const float grey = 128.0f / 255;

    (void)state;
    for (int i = 0; i < 3 * 32 * 32; i++)
        picture[i] = (float)(i % 256) / 255;
    dg_world_fade(picture, 32, 0.25f);
    for (int i = 0; i < 3 * 32 * 32; i++)
        assert_true(fabs((picture[i] - grey) -
                         0.25 * ((i % 256) / 255.0 - grey)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scene_is_function_of_seed_and_index),
        cmocka_unit_test(test_scene_stream_stays_the_same),
        cmocka_unit_test(test_scene_tags_are_equally_frequent),
        cmocka_unit_test(test_stream_weights_choose_tags),
        cmocka_unit_test(test_stream_leaves_out_excluded_meanings),
        cmocka_unit_test(test_scene_keeps_shapes_apart),
        cmocka_unit_test(test_draw_has_exact_area),
        cmocka_unit_test(test_meta_json_round_trip),
        cmocka_unit_test(test_scenes_of_relations_are_clear),
        cmocka_unit_test(test_texts_need_their_room),
        cmocka_unit_test(test_metadata_has_its_limits),
        cmocka_unit_test(test_meta_read_refuses_bad_json),
        cmocka_unit_test(test_meaning_is_that_of_equivalent_captions),
        cmocka_unit_test(test_scene_of_metadata_shows_it),
        cmocka_unit_test(test_blur_is_the_binomial_filter),
        cmocka_unit_test(test_blur_keeps_an_even_picture),
        cmocka_unit_test(test_fade_moves_towards_grey),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
