#include "base/error.h"
#include "store/file.h"
#include "store/metrics.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <cmocka.h>

static char path[] = "/tmp/dg_metrics_XXXXXX";

static int start(void **state)
{
    (void)state;
    strcpy(path, "/tmp/dg_metrics_XXXXXX");
    const int fd = mkstemp(path);
    close(fd);
    return fd < 0;
}

static int end(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_line(Metrics *m, int64_t iteration)
{
    dg_metrics_begin(m, iteration);
    dg_metrics_real(m, "reward_mean", 1.0 / 3.0);
    dg_metrics_enter(m, "rewards");
    dg_metrics_enter(m, "sha\"pes\n");
    dg_metrics_real(m, "mean", NAN);
    dg_metrics_int(m, "missing", 3);
    dg_metrics_leave(m);
    dg_metrics_leave(m);
    dg_metrics_reals(m, "list", (double[]) { 1, INFINITY, 2.5 }, 3);
    dg_metrics_text(m, "note", "a\\b");
    assert_int_equal(dg_metrics_commit(m), DG_OK);
}

static char *content(void)
{
    char *text = NULL;
    size_t bytes;

    assert_int_equal(dg_file_read(path, &text, &bytes), DG_OK);
    return text;
}

static void test_lines_are_json_in_order(void **state)
{
    Metrics *m;

    (void)state;
    assert_int_equal(dg_metrics_open(&m, path, -1), DG_OK);
    write_line(m, 1);
    dg_metrics_close(m);
    char *text = content();
    assert_string_equal(
        text, "{\"iteration\":1,\"reward_mean\":0.333333333,\"rewards\":"
              "{\"sha\\\"pes\\u000a\":{\"mean\":null,\"missing\":3}},"
              "\"list\":[1,null,2.5],\"note\":\"a\\\\b\"}\n");
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    cJSON_Delete(json);
    free(text);
}

static void test_resume_cuts_what_came_later(void **state)
{
    Metrics *m;

    (void)state;
    assert_int_equal(dg_metrics_open(&m, path, -1), DG_OK);
    for (int i = 1; i <= 12; i++)
        write_line(m, i);
    dg_metrics_close(m);
    char *all = content();
    for (int last = 0; last <= 12; last++) {
        /* half a line at the end, as of a killed run */
        assert_int_equal(dg_file_write(path, all, strlen(all) - 9), DG_OK);
        assert_int_equal(dg_metrics_open(&m, path, last), DG_OK);
        for (int i = (last < 11 ? last : 11) + 1; i <= 12; i++)
            write_line(m, i);
        dg_metrics_close(m);
        char *again = content();
        assert_string_equal(all, again);
        free(again);
    }
    free(all);
}

/* What follows a damaged line is not thrown away with it. */
static void test_damaged_line_is_named(void **state)
{
    Metrics *m;

    (void)state;
    assert_int_equal(dg_metrics_open(&m, path, -1), DG_OK);
    for (int i = 1; i <= 4; i++)
        write_line(m, i);
    dg_metrics_close(m);
    char *all = content();
    const size_t second = strcspn(all, "\n") + 1;
    all[second + 3] ^= 1;
    assert_int_equal(dg_file_write(path, all, strlen(all)), DG_OK);
    assert_int_equal(dg_metrics_open(&m, path, 3), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "line 2: damaged"));
    char *again = content();
    assert_string_equal(all, again);
    free(again);
    /* what follows goes anyhow */
    assert_int_equal(dg_metrics_open(&m, path, 1), DG_OK);
    dg_metrics_close(m);
    again = content();
    assert_int_equal(strlen(again), second);
    free(again);
    free(all);
}

static int ends_with(int64_t iteration, const char *key)
{
    int yes = 7;

    assert_int_equal(dg_metrics_end_with(&yes, path, iteration, key), DG_OK);
    return yes;
}

static void test_last_line_is_known_by_its_key(void **state)
{
    Metrics *m;

    (void)state;
    assert_int_equal(dg_metrics_open(&m, path, -1), DG_OK);
    assert_int_equal(ends_with(0, "reward_mean"), 0);
    write_line(m, 1);
    assert_int_equal(ends_with(1, "reward_mean"), 1);
    assert_int_equal(ends_with(1, "rewards"), 0);
    assert_int_equal(ends_with(10, "reward_mean"), 0);
    write_line(m, 12);
    assert_int_equal(ends_with(1, "reward_mean"), 0);
    assert_int_equal(ends_with(12, "reward_mean"), 1);
    assert_int_equal(ends_with(2, "reward_mean"), 0);
    dg_metrics_close(m);
    assert_int_equal(dg_metrics_open(&m, path, 1), DG_OK); /* cut */
    assert_int_equal(ends_with(1, "reward_mean"), 1);
    dg_metrics_close(m);
    unlink(path);
    assert_int_equal(ends_with(1, "reward_mean"), 0);
    assert_int_equal(dg_file_write(path, "", 0), DG_OK);
}

static void test_full_disk_leaves_whole_lines(void **state)
{
    struct rlimit old, tight;
    Metrics *m;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(dg_metrics_open(&m, path, -1), DG_OK);
    write_line(m, 1);
    char *before = content();
    tight = (struct rlimit) { strlen(before) + 20, old.rlim_max };
    setrlimit(RLIMIT_FSIZE, &tight);
    dg_metrics_begin(m, 2);
    dg_metrics_text(m, "note", "longer than the twenty bytes there are");
    assert_int_equal(dg_metrics_commit(m), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, path));
    setrlimit(RLIMIT_FSIZE, &old);
    char *after = content();
    assert_string_equal(before, after);
    dg_metrics_close(m);
    free(before);
    free(after);
}

/* Where the C library's would be called. */
static int syncs, sync_error;

int fdatasync(int fd)
{
    (void)fd;
    syncs++;
    errno = sync_error;
    return sync_error ? -1 : 0;
}

/* A network's file system tells of a full disk no earlier. */
static void test_sync_tells_what_writing_did_not(void **state)
{
    Metrics *m;

    (void)state;
    assert_int_equal(dg_metrics_open(&m, path, -1), DG_OK);
    write_line(m, 1);
    assert_int_equal(dg_metrics_sync(m), DG_OK);
    assert_int_equal(syncs, 1);
    sync_error = EDQUOT;
    assert_int_equal(dg_metrics_sync(m), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, path));
    assert_non_null(strstr(dg_last_error()->text, "quota"));
    dg_metrics_close(m);
}

static void test_unwritable_file_is_named(void **state)
{
    Metrics *m;

    (void)state;
    assert_int_equal(dg_metrics_open(&m, "/nowhere/m.jsonl", -1), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, "/nowhere/m.jsonl"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines_are_json_in_order, start,
                                        end),
        cmocka_unit_test_setup_teardown(test_damaged_line_is_named, start, end),
        cmocka_unit_test_setup_teardown(test_resume_cuts_what_came_later, start,
                                        end),
        cmocka_unit_test_setup_teardown(test_last_line_is_known_by_its_key,
                                        start, end),
        cmocka_unit_test_setup_teardown(test_full_disk_leaves_whole_lines,
                                        start, end),
        cmocka_unit_test(test_sync_tells_what_writing_did_not),
        cmocka_unit_test(test_unwritable_file_is_named),
    };

    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
