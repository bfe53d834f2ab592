#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/crc32.h"
#include "base/error.h"
#include "base/float_env.h"
#include "base/in_file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/piece_digest.h"
#include "base/progress.h"

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Its published check value; in any pieces, from any address. */
static void test_crc32_is_that_of_zip(void **state)
{
    static const char digits[] = "-123456789", many[] = "The quick brown fox";
    const uint32_t all = dg_crc32(0, many, sizeof many);

    (void)state;
    assert_int_equal(dg_crc32(0, digits + 1, 9), 0xCBF43926);
    assert_int_equal(dg_crc32(0, digits, 0), 0);
    for (size_t n = 0; n <= sizeof many; n++)
        assert_int_equal(
            dg_crc32(dg_crc32(0, many, n), many + n, sizeof many - n), all);
}

static void test_error_keeps_last_record(void **state)
{
    (void)state;
    dg_clear_error();
    assert_int_equal(dg_last_error()->code, DG_OK);
    assert_int_equal(dg_fail(DG_EIO, "%s: %d", "file", 3), DG_EIO);
    assert_string_equal(dg_last_error()->text, "file: 3");
    assert_int_equal(dg_last_error()->rank, -1);
    Error e = *dg_last_error();
    e.rank = 2;
    dg_clear_error();
    dg_set_error(&e);
    assert_int_equal(dg_last_error()->rank, 2);
    dg_fail(DG_EIO, "%s",
            "a\x1b[2J\xff \xe2\x82 \xc3\xa9\xe2\x82\xac\xc2\x9b\x7f");
    assert_string_equal(dg_last_error()->text,
                        "a?[2J? ?? \xc3\xa9\xe2\x82\xac???");
    dg_fail(DG_ENOMEM, "report of %s", "runs/a");
    assert_string_equal(dg_last_error()->text,
                        "report of runs/a: out of memory");
    dg_fail(DG_ENOMEM, "%s: no memory for its text", "a.cfg");
    assert_string_equal(dg_last_error()->text, "a.cfg: no memory for its text");
    assert_string_equal(dg_error_name(DG_EUSAGE), "usage");
    assert_string_equal(dg_error_name(99), "unknown error");
}

static size_t lay_out(Arena *a)
{
    dg_arena_take(a, 1);
    dg_arena_take(a, 1000);
    const size_t mark = dg_arena_mark(a);
    dg_arena_take(a, 5000);
    dg_arena_release(a, mark);
    dg_arena_take(a, 3);
    return a->peak;
}

static void test_arena_count_equals_placement(void **state)
{
    Arena a;
    (void)state;

    dg_arena_init_count(&a, "count");
    const size_t need = lay_out(&a);
    assert_int_equal(need, 256 + 1024 + 5000);
    assert_int_equal(dg_arena_init(&a, "place", need), DG_OK);
    assert_int_equal(lay_out(&a), need);
    assert_false(dg_arena_full(&a));
    assert_int_equal((uintptr_t)dg_arena_take(&a, 8) % 256, 0);
    dg_arena_fini(&a);
}

static void test_arena_names_what_does_not_fit(void **state)
{
    Arena a;
    (void)state;

    assert_int_equal(dg_arena_init(&a, "small", 512), DG_OK);
    assert_non_null(dg_arena_take(&a, 300));
    assert_null(dg_arena_take(&a, 1));
    assert_true(dg_arena_full(&a));
    assert_non_null(strstr(dg_last_error()->text, "arena small: 1 bytes"));
    dg_arena_fini(&a);
}

static void test_sha256_known_answers(void **state)
{
    char hex[DG_SHA256_HEX];
    Sha256 s;
    (void)state;

    assert_int_equal(dg_sha256_bytes(hex, "", 0), DG_OK);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb924"
                             "27ae41e4649b934ca495991b7852b855");
    assert_int_equal(dg_sha256_init(&s), DG_OK);
    dg_sha256_update(&s, "a", 1);
    dg_sha256_update(&s, "bc", 2);
    dg_sha256_final(&s, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223"
                             "b00361a396177a9cb410ff61f20015ad");
    dg_sha256_fini(&s);
}

/* Python's hashlib: sha256 of the joined digest()s of each 2^20 bytes. */
static void test_piece_digest_known_answers(void **state)
{
    enum { MOST = 2621441 };
    static const struct {
        size_t bytes;
        const char *start;
    } want[] = {
        { 0, "e3b0c44298fc1c14" },       { 1, "1406e05881e29936" },
        { 1048576, "0867f7520f79ca9c" }, { 1048577, "449b4b607a9401b0" },
        { MOST, "fd42286998877ce5" },
    };
    unsigned char *data = malloc(MOST);
    char hex[DG_SHA256_HEX];
    Sha256 all;
    (void)state;

    assert_non_null(data);
    for (size_t i = 0; i < MOST; i++)
        data[i] = (unsigned char)(i * 7 + (i >> 8));
    for (int threads = 1; threads <= 3; threads += 2)
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
            omp_set_num_threads(threads);
            assert_int_equal(dg_piece_digest(hex, data, want[i].bytes), DG_OK);
            assert_memory_equal(hex, want[i].start, 16);
        }
    assert_int_equal(dg_sha256_init(&all), DG_OK);
    for (size_t at = 0; at < MOST; at += 2 * DG_PIECE_BYTES)
        assert_int_equal(dg_piece_add(&all, data + at,
                                      MOST - at < 2 * DG_PIECE_BYTES
                                          ? MOST - at
                                          : 2 * DG_PIECE_BYTES),
                         DG_OK);
    dg_sha256_final(&all, hex);
    assert_memory_equal(hex, want[4].start, 16);
    free(data);
}

static void test_clock_goes_forward(void **state)
{
    char date[DG_DATE_BYTES];
    const double a = dg_clock_now();
    (void)state;

    assert_true(dg_clock_now() >= a);
    dg_clock_date(date);
    assert_int_equal(strlen(date), 20);
    assert_int_equal(date[10], 'T');
    assert_int_equal(date[19], 'Z');
}

static void test_duration_reads_well(void **state)
{
    static const struct {
        double s;
        const char *text;
    } rows[] = { { 0, "0.0 s" },
                 { 59.94, "59.9 s" },
                 { 59.96, "1 min 00 s" },
                 { 245, "4 min 05 s" },
                 { 7620, "2 h 07 min" },
                 { 273600, "3 d 04 h" },
                 { -1, "?" },
                 { NAN, "?" } };
    char text[DG_DURATION_BYTES];
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dg_clock_duration(text, rows[i].s);
        assert_string_equal(text, rows[i].text);
    }
}

static void test_progress_text(void **state)
{
    char text[160];
    (void)state;

    dg_progress_text(text, sizeof text, "rollout", 30, 120, 10);
    assert_string_equal(text, "rollout  [=======>                    ]  25%"
                              "  30/120  ETA 30.0 s");
    dg_progress_text(text, sizeof text, "update", 0, 0, 0);
    assert_non_null(strstr(text, "ETA ?"));
    dg_progress_enable(1); /* stderr of a test may be anything */
    dg_progress_start("test", 10);
    dg_progress_add(10);
    dg_progress_end();
}

static void read_back(char *text, size_t size, const char *path)
{
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
}

static void test_log_writes_level_and_date(void **state)
{
    char path[] = "/tmp/dg_log_XXXXXX", text[4096];
    (void)state;

    close(mkstemp(path));
    const long before = dg_log_count(DG_LOG_WARN);
    dg_log_setup(0, DG_LOG_ERROR);
    assert_int_equal(dg_log_open(path), DG_OK);
    dg_info("it %d/%d", 1, 3);
    dg_warn("slow");
    dg_log_setup(1, DG_LOG_INFO);
    dg_info("not of this rank");
    dg_log_setup(0, DG_LOG_INFO);
    assert_int_equal(dg_log_close(), DG_OK);
    assert_int_equal(dg_log_count(DG_LOG_WARN), before + 1);
    read_back(text, sizeof text, path);
    assert_non_null(strstr(text, "Z INFO  it 1/3\n"));
    assert_non_null(strstr(text, "Z WARN  slow\n"));
    assert_null(strstr(text, "rank"));
    unlink(path);
}

static void test_log_reports_bad_places(void **state)
{
    (void)state;
    assert_int_equal(dg_log_open("/nonexistent/log.txt"), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, "/nonexistent/log.txt"));
    if (access("/dev/full", W_OK) != 0)
        return;
    assert_int_equal(dg_log_open("/dev/full"), DG_OK);
    dg_info("this line has no room");
    assert_int_equal(dg_log_close(), DG_EIO);
}

/* Aligned, zeroed, whatever the size; weights must begin on a vector's
 * border or every load of them crosses a cache line. */
/* as a library linked with -ffast-math leaves it */
static void test_subnormals_are_numbers(void **state)
{
    volatile float tiny = 1e-38f, half;

    (void)state;
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
    half = tiny * 0.1f;
    assert_true(half == 0);
#endif
    dg_float_env_standard();
    half = tiny * 0.1f;
    assert_true(half > 0.9e-39f && half < 1.1e-39f);
}

static void test_memory_is_aligned_and_zero(void **state)
{
    const size_t sizes[] = { 0, 1, 255, 4096, (1 << 21) - 1, (1 << 21) + 1 };

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t unit = sizes[i] >= 1 << 21 ? 1 << 21 : 256;
        unsigned char *p = dg_memory_new(sizes[i]);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % unit, 0);
        dg_memory_take(p + (sizes[i] > 3 ? 3 : 0), sizes[i] / 2);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(p[k], 0);
        free(p);
    }
}

/* opened as others are, it would be waited for until somebody writes */
static void test_pipe_is_not_waited_for(void **state)
{
    char folder[] = "/tmp/dg_test_XXXXXX", path[64];
    int64_t bytes = -1;
    char *text;
    size_t num;
    int fd = -1;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(10);
    assert_int_equal(dg_in_open(&fd, &bytes, path), DG_EIO);
    alarm(0);
    assert_non_null(strstr(dg_last_error()->text, "/pipe: cannot read: not a "
                                                  "regular file"));
    assert_int_equal(dg_in_open(&fd, &bytes, folder), DG_EIO);
    assert_int_equal(fd, -1);
    assert_int_equal(remove(path), 0);
    assert_int_equal(dg_in_open(&fd, &bytes, path), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, "cannot open"));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("four", f);
    fclose(f);
    assert_int_equal(dg_in_open(&fd, &bytes, path), DG_OK);
    assert_int_equal(bytes, 4);
    close(fd);
    /* a hole: nothing is on the disk, and all of it would be in memory */
    assert_int_equal(truncate(path, DG_IN_MOST + 1), 0);
    assert_int_equal(dg_in_read(path, &text, &num), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "4294967297 bytes"));
    remove(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_keeps_last_record),
        cmocka_unit_test(test_arena_count_equals_placement),
        cmocka_unit_test(test_arena_names_what_does_not_fit),
        cmocka_unit_test(test_sha256_known_answers),
        cmocka_unit_test(test_piece_digest_known_answers),
        cmocka_unit_test(test_clock_goes_forward),
        cmocka_unit_test(test_duration_reads_well),
        cmocka_unit_test(test_progress_text),
        cmocka_unit_test(test_crc32_is_that_of_zip),
        cmocka_unit_test(test_log_writes_level_and_date),
        cmocka_unit_test(test_log_reports_bad_places),
        cmocka_unit_test(test_subnormals_are_numbers),
        cmocka_unit_test(test_memory_is_aligned_and_zero),
        cmocka_unit_test(test_pipe_is_not_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
