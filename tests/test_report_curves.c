/* Curves that only some runs have. */
#include "report_bed.h"

/* A run of three iterations, each with more; the page it gets, to free. */
static char *page_of(const char *more)
{
    char text[2000], *page;
    size_t at = 0, bytes;

    for (int i = 1; i <= 3; i++)
        at += (size_t)snprintf(
            text + at, sizeof text - at,
            "{\"iteration\":%d,\"reward_mean\":0.5,\"grad_norm\":1%s}\n", i,
            more);
    assert_int_equal(dg_file_write(in_dir("metrics.jsonl"), text, at), DG_OK);
    if (dg_report_write(dir) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    assert_int_equal(dg_file_read(in_dir("report.html"), &page, &bytes), DG_OK);
    assert_null(strstr(page, "nan"));
    return page;
}

static void assert_says(const char *page, const char *text)
{
    if (strstr(page, text) == NULL)
        fail_msg("the page does not say: %s", text);
}

/* In the unit that the larger of the two wants. */
static void test_traffic_is_drawn_where_there_is_any(void **state)
{
    (void)state;
    char *page =
        page_of(",\"traffic\":{\"sums\":27372288,\"weights\":8250000000}");

    assert_says(page, "<b>Traffic</b> <span class=\"u\">GB per iteration, of "
                      "each rank</span>");
    assert_says(page, ">sums 0.027</text>");
    assert_says(page, ">weights 8.25</text>");
    free(page);
    page = page_of(",\"traffic\":{\"sums\":999,\"weights\":0}");
    assert_says(page, "\"u\">B per iteration, of each rank</span>");
    assert_says(page, ">sums 999</text>");
    free(page);
    page = page_of("");
    assert_null(strstr(page, "Traffic"));
    free(page);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_traffic_is_drawn_where_there_is_any),
    };

    return cmocka_run_group_tests_name("report curves", tests, NULL, NULL);
}
