#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "nn/layer.h"
#include "nn/param.h"

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const int64_t matrix[2] = { 48, 32 }, vector[1] = { 5 };

static void fill_set(ParamSet *s, int id)
{
    assert_int_equal(dg_params_init(s, id), DG_OK);
    assert_non_null(dg_params_add(s, "zero", DG_INIT_ZERO, 1, vector));
    assert_non_null(dg_params_add(s, "one", DG_INIT_ONE, 1, vector));
    assert_non_null(dg_params_add(s, "xavier", DG_INIT_XAVIER, 2, matrix));
    assert_non_null(dg_params_add_normal(s, "small", 0.02f, 2, matrix));
    assert_non_null(dg_params_add(s, "fan", DG_INIT_NORMAL_FAN, 2, matrix));
    assert_non_null(dg_params_add_normal(s, "wide", 3.0f, 2, matrix));
    assert_int_equal(dg_params_allocate(s, NULL), DG_OK);
}

static const float *values(const ParamSet *s, const char *name)
{
    return dg_params_find(s, name)->value.data;
}

/* Numbers of the fill rule, made by an independent program. */
static void test_golden_fill_known_values(void **state)
{
    static const int64_t conv[4] = { 2, 4, 3, 3 };
    static const float want[3] = { 0.0411362f, 0.2212779f, -0.2366969f };
    static const float input[3] = { -0.6999435f, -0.3079480f, -1.3591605f };
    ParamSet s;
    float x[3];
    (void)state;

    dg_params_init(&s, 1);
    dg_params_add(&s, "net.conv_in.weight", DG_INIT_ZERO, 4, conv);
    dg_params_add(&s, "net.conv_in.bias", DG_INIT_ZERO, 1, conv);
    dg_params_add(&s, "net.norm.weight", DG_INIT_ZERO, 1, conv);
    dg_params_allocate(&s, NULL);
    dg_params_fill_golden(&s, "net.");
    dg_golden_input(x, 3, "input.sample");
    for (int i = 0; i < 3; i++) {
        assert_float_equal(values(&s, "net.conv_in.weight")[i], want[i], 1e-7);
        assert_float_equal(x[i], input[i], 1e-7);
    }
    assert_true(fabsf(values(&s, "net.conv_in.bias")[0]) <= 0.1f);
    assert_true(fabsf(values(&s, "net.norm.weight")[0] - 1) <= 0.1f);
    dg_params_fini(&s);
}

static void test_offsets_aligned_and_padding_zero(void **state)
{
    ParamSet s;
    int64_t at = 0;
    (void)state;

    fill_set(&s, 1);
    dg_params_draw(&s, 7);
    for (int i = 0; i < s.num_params; i++) {
        const Tensor *t = &s.params[i]->value;

        assert_int_equal(t->param_offset % DG_PARAM_ALIGN, 0);
        assert_ptr_equal(t->data, s.values + t->param_offset);
        for (; at < t->param_offset; at++)
            assert_true(s.values[at] == 0);
        at += dg_tensor_count(t);
    }
    assert_int_equal(at, s.count);
    assert_int_equal(dg_params_num_values(&s), 2 * 5 + 4 * 48 * 32);
    dg_params_fini(&s);
}

static void moments(double *mean, double *std, const float *v, int n)
{
    double sum = 0, squares = 0;

    for (int i = 0; i < n; i++) {
        sum += v[i];
        squares += (double)v[i] * v[i];
    }
    *mean = sum / n;
    *std = sqrt(squares / n - *mean * *mean);
}

/* Errors of mean and deviation of n draws: std/sqrt(n) and std/sqrt(2n); five
 * of them are allowed. */
static void test_draws_have_the_stated_spread(void **state)
{
    static const struct {
        const char *name;
        double std;
    } want[] = { { "xavier", 0.158113883 }, /* sqrt(2/(48+32)) */
                 { "small", 0.02 },
                 { "fan", 0.176776695 },
                 { "wide", 3.0 } };
    const int n = 48 * 32;
    ParamSet s;
    (void)state;

    fill_set(&s, 1);
    dg_params_draw(&s, 7);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const float *v = values(&s, want[i].name);
        double mean, std;

        moments(&mean, &std, v, n);
        assert_true(fabs(mean) < 5 * want[i].std / sqrt(n));
        assert_true(fabs(std - want[i].std) < 5 * want[i].std / sqrt(2.0 * n));
    }
    for (int i = 0; i < n; i++) /* sqrt(6/(48+32)) */
        assert_true(fabsf(values(&s, "xavier")[i]) <= 0.27386128f);
    for (int i = 0; i < 5; i++) {
        assert_true(values(&s, "zero")[i] == 0);
        assert_true(values(&s, "one")[i] == 1);
    }
    dg_params_fini(&s);
}

static void test_nothing_begins_as_zero_where_all_is_drawn(void **state)
{
    ParamSet s, other;
    (void)state;

    fill_set(&s, 1);
    fill_set(&other, 1);
    dg_params_draw_zeros(&s);
    dg_params_draw(&s, 7);
    dg_params_draw(&other, 7);
    for (int i = 0; i < 5; i++)
        assert_true(values(&s, "zero")[i] != 0);
    assert_memory_equal(values(&s, "fan"), values(&other, "fan"),
                        48 * 32 * sizeof(float));
    dg_params_fini(&s);
    dg_params_fini(&other);
}

/* Large parameters are drawn by several threads, part by part. */
static void test_draws_do_not_depend_on_threads(void **state)
{
    const int64_t dims[2] = { 700, 300 }, n = 700 * 300;
    const int before = omp_get_max_threads();
    ParamSet s[2];
    float *one;
    (void)state;

    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(i == 0 ? 1 : 3);
        assert_int_equal(dg_params_init(&s[i], 1), DG_OK);
        dg_params_add(&s[i], "normal", DG_INIT_NORMAL_FAN, 2, dims);
        dg_params_add(&s[i], "uniform", DG_INIT_XAVIER, 2, dims);
        assert_int_equal(dg_params_allocate(&s[i], NULL), DG_OK);
        dg_params_draw(&s[i], 7);
    }
    omp_set_num_threads(before);
    assert_memory_equal(s[0].values, s[1].values,
                        (size_t)s[0].count * sizeof(float));
    /* and is one stream */
    one = malloc((size_t)n * sizeof *one);
    assert_non_null(one);
    dg_rng_normal(
        one, 0, n,
        &(RngKey) { .seed = 7, .purpose = DG_RNG_WEIGHT_INIT, .iteration = 1 });
    for (int64_t i = 0; i < n; i++)
        assert_true(s[1].values[i] == (float)(1 / sqrt(300.0) * one[i]));
    free(one);
    for (int i = 0; i < 2; i++)
        dg_params_fini(&s[i]);
}

static void test_draws_are_a_function_of_seed_set_and_place(void **state)
{
    ParamSet a, b, c;
    const size_t bytes = 48 * 32 * sizeof(float);
    (void)state;

    fill_set(&a, 1);
    fill_set(&b, 1);
    fill_set(&c, 2);
    dg_params_draw(&a, 7);
    dg_params_draw(&b, 7);
    dg_params_draw(&c, 7);
    assert_memory_equal(a.values, b.values, (size_t)a.count * sizeof(float));
    assert_memory_not_equal(values(&a, "fan"), values(&c, "fan"), bytes);
    dg_params_draw(&b, 8);
    assert_memory_not_equal(values(&a, "fan"), values(&b, "fan"), bytes);
    assert_true(values(&a, "fan")[0] / values(&a, "small")[0] !=
                values(&a, "fan")[1] / values(&a, "small")[1]);
    dg_params_fini(&a);
    dg_params_fini(&b);
    dg_params_fini(&c);
}

static void test_bad_parameters_are_refused(void **state)
{
    static const int64_t empty[2] = { 3, 0 };
    char longer[DG_PARAM_NAME + 1];
    ParamSet s;
    (void)state;

    fill_set(&s, 1);
    assert_null(dg_params_add(&s, "late", DG_INIT_ZERO, 1, vector));
    assert_int_equal(dg_params_allocate(&s, NULL), DG_EINVAL);
    dg_params_fini(&s);

    dg_params_init(&s, 1);
    assert_non_null(dg_params_add(&s, "twice", DG_INIT_ZERO, 1, vector));
    assert_null(dg_params_add(&s, "twice", DG_INIT_ZERO, 1, vector));
    assert_non_null(strstr(dg_last_error()->text, "twice"));
    assert_null(dg_params_add(&s, "empty", DG_INIT_ZERO, 2, empty));
    memset(longer, 'x', DG_PARAM_NAME);
    longer[DG_PARAM_NAME] = '\0';
    assert_null(dg_params_add(&s, longer, DG_INIT_ZERO, 1, vector));
    longer[DG_PARAM_NAME - 1] = '\0';
    assert_non_null(dg_params_add(&s, longer, DG_INIT_ZERO, 1, vector));
    assert_int_equal(s.num_params, 2);
    dg_params_fini(&s);
}

static void test_adopted_memory_is_kept_as_it_is(void **state)
{
    float memory[32];
    ParamSet s;
    (void)state;

    for (int i = 0; i < 32; i++)
        memory[i] = (float)i;
    dg_params_init(&s, 1);
    dg_params_add(&s, "a", DG_INIT_ZERO, 1, vector);
    dg_params_add(&s, "b", DG_INIT_ZERO, 1, vector);
    assert_int_equal(s.count, 16 + 5);
    assert_int_equal(dg_params_allocate(&s, memory), DG_OK);
    assert_true(values(&s, "b")[0] == 16);
    dg_params_fini(&s);
    assert_true(memory[20] == 20);
}

static void test_path_errors_are_sticky(void **state)
{
    ParamSet s;
    LayerPath p;
    size_t mark;
    Linear l;
    (void)state;

    dg_params_init(&s, 1);
    dg_path_init(&p, &s, "net.");
    mark = dg_path_enter(&p, "blocks.%d", 3);
    l = dg_layer_linear(&p, "to_q", 4, 6, DG_WITH_BIAS, DG_INIT_XAVIER);
    dg_path_leave(&p, mark);
    assert_int_equal(p.err, DG_OK);
    assert_non_null(dg_params_find(&s, "net.blocks.3.to_q.bias"));
    assert_int_equal(l.w->dims[0], 6);
    assert_int_equal(l.w->dims[1], 4);
    dg_path_enter(&p, "%0200d", 1);
    assert_int_equal(p.err, DG_EINVAL);
    l = dg_layer_linear(&p, "to_k", 4, 6, DG_WITH_BIAS, DG_INIT_XAVIER);
    assert_null(l.w);
    assert_int_equal(s.num_params, 2);
    dg_params_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_fill_known_values),
        cmocka_unit_test(test_offsets_aligned_and_padding_zero),
        cmocka_unit_test(test_draws_have_the_stated_spread),
        cmocka_unit_test(test_nothing_begins_as_zero_where_all_is_drawn),
        cmocka_unit_test(test_draws_do_not_depend_on_threads),
        cmocka_unit_test(test_draws_are_a_function_of_seed_set_and_place),
        cmocka_unit_test(test_bad_parameters_are_refused),
        cmocka_unit_test(test_adopted_memory_is_kept_as_it_is),
        cmocka_unit_test(test_path_errors_are_sticky),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
