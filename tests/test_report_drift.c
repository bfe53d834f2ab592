/* What a report makes of diversity and of the updates after an iteration's
 * first: each threshold from both sides, and runs that have no such numbers. */
#include "report_bed.h"

#include <math.h>

/* A run whose diversity goes from 0.1 to a share of it in a straight line, and
 * whose ratios are lopsided in the first iterations of it. */
typedef struct Case {
    int n;
    double share;
    int lopsided;        /* iterations */
    double below, above; /* of ratios, elsewhere */
    double lower;        /* than 1.001, what rose most in these */
    int from_grey;       /* diversity rises from 0 instead */
    const char *without; /* a line's numbers in place of all these */
} Case;

static void put_run(const Case *c)
{
    char path[128], *text = malloc((size_t)c->n * 400 + 1);
    size_t at = 0;

    assert_non_null(text);
    for (int i = 1; i <= c->n; i++) {
        const double u = c->n > 1 ? (i - 1.0) / (c->n - 1) : 0;
        const int bad = i <= c->lopsided;

        at += (size_t)sprintf(
            text + at,
            "{\"iteration\":%d,\"reward_mean\":%.9g,\"ratio_max_deviation\":0,"
            "\"clip_fraction\":0.25,",
            i, 0.5 + 0.01 * i);
        if (c->without != NULL)
            at += (size_t)sprintf(text + at, "%s", c->without);
        else
            at += (size_t)sprintf(
                text + at,
                "\"clip_fraction_low\":0.125,\"clip_fraction_high\":0.125,"
                "\"approx_kl\":%.9g,\"ratio_min\":%.9g,\"ratio_max\":%.9g,"
                "\"diversity\":%.9g,",
                bad ? 3e-5 : 2e-9, bad ? 0.95 : 1 - c->below,
                bad ? 1.001 - c->lower : 1 + c->above,
                c->from_grey ? fmax(0, u - 0.2) : 0.1 * (1 - u + c->share * u));
        at += (size_t)sprintf(text + at, "\"grad_norm\":1}\n");
    }
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    assert_int_equal(dg_file_write(path, text, at), DG_OK);
    free(text);
}

/* What the report says as text, its lines of 80 columns joined, to free. */
static char *tell(const Case *c)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);

    put_run(c);
    assert_non_null(f);
    if (dg_report_tell(f, dir) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    fclose(f);
    for (char *at = text; (at = strstr(at, "\n       ")) != NULL; *at = ' ')
        memmove(at + 1, at + 8, strlen(at + 8) + 1);
    return text;
}

#define DIVERSE "Are the pictures of a group still diverse? "
#define NEAR    "Do updates stay near the rollout's policy? "

/* level and question as they stand in a line; NULL: it is not asked */
static void check(const Case *c, const char *want)
{
    char *text = tell(c);

    if (strstr(text, want) == NULL)
        fail_msg("not \"%s\" but\n%s", want, text);
    free(text);
}

static const Case right = {
    .n = 40, .share = 1.2, .below = 3e-4, .above = 2e-4
};

static void test_diversity_is_judged_by_its_beginning(void **state)
{
    Case c = right;

    (void)state;
    check(&c, "good   " DIVERSE "Yes: the spread of a pixel between them went "
              "from 0.101 to 0.119 (");
    /* the medians of the first and last four lie a little inside of the ends */
    c.share = 0.48;
    check(&c, "good   " DIVERSE "Yes: ");
    c.share = 0.46;
    check(&c, "look   " DIVERSE "Less and less: ");
    c.share = 0.22;
    check(&c, "look   " DIVERSE "Less and less: ");
    c.share = 0.20;
    check(&c, "WRONG  " DIVERSE "Hardly: ");
    c.share = 0;
    c.from_grey = 1;
    check(&c, "good   " DIVERSE "Yes: the spread of a pixel between them went "
              "from 0 to ");
    c.from_grey = 0;
    check(&c, " The policy may come to paint one picture");
}

static void test_lopsided_ratios_are_counted(void **state)
{
    Case c = right;

    (void)state;
    check(&c, "good   " NEAR "Yes: in 0 of 40 iterations ratios fell");
    check(&c, "Furthest: 3e\u22124 below, 2e\u22124 above; approx_kl up to "
              "2e\u22129.");
    c.lopsided = 4;
    check(&c, "good   " NEAR "Yes: in 4 of 40 iterations ");
    c.lopsided = 5;
    check(&c, "look   " NEAR "Not always: in 5 of 40 iterations ");
    check(&c, "Furthest: 0.050 below, 0.001 above; approx_kl up to 3e\u22125.");
    c.lopsided = 20;
    check(&c, "look   " NEAR);
    c.lopsided = 21;
    check(&c, "WRONG  " NEAR "No: in 21 of 40 iterations ");
    c.n = c.lopsided = 7; /* a beginning */
    check(&c, "look   " NEAR "No: in 7 of 7 iterations ");
    c.n = c.lopsided = 8;
    check(&c, "WRONG  " NEAR);
    c.lower = 0.002; /* none rose at all */
    check(&c, "Furthest: 0.050 below, 0 above; ");
}

/* Five times as far, and what rounding alone makes of ratios. */
static void test_what_counts_as_lopsided(void **state)
{
    Case c = right;

    (void)state;
    c.below = 4.9 * c.above;
    check(&c, NEAR "Yes: in 0 of ");
    c.below = 5.1 * c.above;
    check(&c, NEAR "No: in 40 of ");
    c.above = -1e-4; /* none above 1 at all */
    check(&c, NEAR "No: in 40 of ");
    c.below = 8e-7, c.above = 0;
    check(&c, NEAR "Yes: in 0 of ");
    c.below = c.above = 0;
    check(&c, NEAR "Yes: in 0 of ");
}

/* Older runs have no such keys, those of one update some, and a line that could
 * not tell has nulls. */
static void test_runs_without_them_are_read(void **state)
{
    static const char *const without[] = {
        "", "\"approx_kl\":null,\"ratio_min\":null,\"ratio_max\":null,"
            "\"diversity\":null,"
    };

    (void)state;
    for (int i = 0; i < 2; i++) {
        const Case c = { .n = 12, .without = without[i] };
        char path[128], *text = tell(&c), *page;
        size_t bytes;

        assert_null(strstr(text, DIVERSE));
        assert_null(strstr(text, NEAR));
        free(text);
        assert_int_equal(dg_report_write(dir), DG_OK);
        snprintf(path, sizeof path, "%s/report.html", dir);
        assert_int_equal(dg_file_read(path, &page, &bytes), DG_OK);
        assert_null(strstr(page, "Diversity"));
        assert_null(strstr(page, "Approximate KL"));
        assert_null(strstr(page, "Ratio of later updates"));
        free(page);
    }
    check(&(Case) { .n = 12, .without = "\"diversity\":0.1," },
          "good   " DIVERSE);
    check(&(Case) { .n = 12, .without = "\"diversity\":0," },
          "WRONG  " DIVERSE "Hardly: ");
}

static void test_curves_are_drawn(void **state)
{
    static const char *const titles[] = {
        "Diversity", "Approximate KL", "Ratio of later updates",
        ">low ",     ">below ",        ">above "
    };
    char path[128], *page;
    size_t bytes;

    (void)state;
    put_run(&right);
    assert_int_equal(dg_report_write(dir), DG_OK);
    snprintf(path, sizeof path, "%s/report.html", dir);
    assert_int_equal(dg_file_read(path, &page, &bytes), DG_OK);
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (strstr(page, titles[i]) == NULL)
            fail_msg("no %s", titles[i]);
    assert_null(strstr(page, "nan"));
    free(page);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_diversity_is_judged_by_its_beginning),
        IN_FOLDER(test_lopsided_ratios_are_counted),
        IN_FOLDER(test_what_counts_as_lopsided),
        IN_FOLDER(test_runs_without_them_are_read),
        IN_FOLDER(test_curves_are_drawn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
