#include "report_bed.h"

#include <sys/stat.h>
#include <unistd.h>

static void put_file(const char *run, const char *name, const char *text)
{
    char path[128];

    mkdir(in_dir(run), 0777);
    snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
    assert_int_equal(dg_file_write(path, text, strlen(text)), DG_OK);
}

/* n iterations whose reward rises by 0.01 each from 0.1, in s seconds each */
static void put_run(const char *run, int n, int seconds, const char *config)
{
    char text[8192];
    size_t at = 0;

    for (int i = 1; i <= n; i++)
        at += (size_t)snprintf(
            text + at, sizeof text - at,
            "{\"iteration\":%d,\"reward_mean\":%g,\"strict_mean\":0.5,"
            "\"ratio_max_deviation\":0,\"grad_norm\":1,"
            "\"seconds\":{\"total\":%d}}\n",
            i, 0.1 + 0.01 * i, seconds);
    put_file(run, "metrics.jsonl", text);
    if (config != NULL)
        put_file(run, "config.cfg", config);
}

/* What is told of them; NULL when it is refused. */
static char *told(const char *html, int num, const char *const *dirs)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);

    assert_non_null(f);
    const int err = dg_report_compare(f, html, dirs, num);
    fclose(f);
    if (err == DG_OK)
        return text;
    assert_int_equal(bytes, 0);
    free(text);
    return NULL;
}

static void assert_says(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_runs_stand_beside_each_other(void **state)
{
    (void)state;
    put_run("a", 10, 2, "run: { dir = \"a\"; iterations = 10; };\n");
    put_run("b", 20, 3,
            "run: { dir = \"b\"; iterations = 30; };\noptim: { lr = 0.001; };");
    put_file(
        "b", "evaluation_after.json",
        "{\"prompts\":2,\"seeds\":1,\"missing\":0,\"all\":{\"task\":\"all\","
        "\"pictures\":2,\"reward\":{\"mean\":0.9,\"low\":0.8,\"high\":1},"
        "\"strict\":{\"mean\":0.25,\"low\":0.125,\"high\":0.5}}}");
    const char *dirs[] = { in_dir("a"), in_dir("b") };
    char *text = told(NULL, 2, dirs);

    assert_non_null(text);
    assert_says(text, "at iteration 10   strict");
    assert_says(text, "10 of 10     0.110 \u2192 0.200   0.200             "
                      "0.500 \u2192 0.500");
    /* medians of two at each end, and of one up to the tenth */
    assert_says(text, "20 of 30     0.115 \u2192 0.295   0.200             ");
    assert_says(text, "strict 0.250 [0.125, 0.500]   3.00");
    assert_null(strstr(text, "KL"));
    assert_says(text, "\nWhat differs:\n"
                      "  run.iterations = 10 (1), 30 (2)\n"
                      "  optim.lr = 1e-05 (1), 0.001 (2)\n");
    assert_null(strstr(text, "run.dir"));
    free(text);
}

static void test_equal_runs_differ_in_nothing(void **state)
{
    (void)state;
    put_run("a", 10, 2, "run: { dir = \"a\"; };");
    put_run("c", 10, 2, "run: { dir = \"c\"; };");
    put_run("d", 10, 2, "no configuration");
    const char *dirs[] = { in_dir("a"), in_dir("c"), in_dir("d") };
    char *text = told(NULL, 2, dirs);

    assert_non_null(text);
    assert_says(text, "What differs:\n  nothing but run.dir\n");
    assert_null(strstr(text, "at iteration"));
    free(text);
    text = told(NULL, 3, dirs);
    assert_non_null(text);
    assert_says(text, "  (not known of 1: no config.cfg that can be read)\n");
    free(text);
}

static void test_page_has_all_curves(void **state)
{
    char *page;
    size_t bytes;

    (void)state;
    put_run("a", 10, 2, "run: { dir = \"a\"; };");
    put_run("b<i>", 3, 2, "run: { dir = \"b\"; };\noptim: { lr = 0.001; };");
    const char *dirs[] = { in_dir("a"), in_dir("b<i>//") };
    char *text = told(in_dir("page.html"), 2, dirs);

    assert_non_null(text);
    free(text);
    assert_int_equal(dg_file_read(in_dir("page.html"), &page, &bytes), DG_OK);
    assert_says(page, "<b>Reward</b>");
    assert_says(page, "<b>Gradient norm</b>");
    assert_null(strstr(page, "<b>KL to the base</b>"));
    assert_says(page, ">1 a");
    assert_says(page, "2 b&lt;i&gt;");
    assert_null(strstr(page, "b<i>"));
    assert_says(page, "optim.lr = 1e-05 (1), 0.001 (2)");
    assert_says(page, "</html>\n");
    free(page);
}

static void test_what_cannot_be_compared_is_refused(void **state)
{
    const char *many[DG_REPORT_RUNS + 1];

    (void)state;
    put_run("a", 10, 2, NULL);
    const char *dirs[] = { in_dir("a"), in_dir("none") };
    assert_null(told(NULL, 2, dirs));
    assert_says(dg_last_error()->text, "none: No such file");
    for (int i = 0; i <= DG_REPORT_RUNS; i++)
        many[i] = dirs[0];
    assert_null(told(NULL, DG_REPORT_RUNS + 1, many));
    assert_says(dg_last_error()->text, "17 runs: at most 16 can be compared");
    unlink(in_dir("page.html"));
    assert_null(told(in_dir("page.html"), DG_REPORT_PAGE_RUNS + 1, many));
    assert_int_not_equal(access(in_dir("page.html"), F_OK), 0);
    char *text = told(NULL, DG_REPORT_RUNS, many);
    assert_non_null(text);
    free(text);
    dg_clear_error();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_runs_stand_beside_each_other,
                                        start, end),
        cmocka_unit_test_setup_teardown(test_equal_runs_differ_in_nothing,
                                        start, end),
        cmocka_unit_test_setup_teardown(test_page_has_all_curves, start, end),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_compared_is_refused,
                                        start, end),
    };

    return cmocka_run_group_tests_name("report compare", tests, NULL, NULL);
}
