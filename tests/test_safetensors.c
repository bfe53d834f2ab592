/* safetensors: files of the Python library, read and written again to the
 * byte; every harm a header can do, refused. */
#include "weights_golden.h"

#include "weights/safetensors.h"

#include <math.h>

static void test_python_files_read(void **state)
{
    (void)state;
    golden_check_file("mixed.safetensors");
}

/* Tensors of the golden mixed file as read. */
static void test_written_as_python_writes(void **state)
{
    size_t num_want, num_got;
    unsigned char *want = slurp(GOLDEN "mixed.safetensors", &num_want), *got;
    WeightOut out[8];
    float *data[8];
    WeightFile *f;
    int64_t num;

    (void)state;
    assert_int_equal(dg_weight_file_open(&f, GOLDEN "mixed.safetensors"),
                     DG_OK);
    assert_string_equal(dg_weight_file_note(f, "format"), "pt");
    assert_null(dg_weight_file_note(f, "other"));
    num = dg_weight_file_num(f);
    assert_int_equal(num, 6);
    for (int64_t i = 0; i < num; i++) {
        const WeightInfo *info = dg_weight_file_info(f, i);
        WeightOut *o = &out[num - 1 - i]; /* the order does not matter */

        data[i] = calloc((size_t)info->count + 1, sizeof **data);
        assert_int_equal(dg_weight_file_read(f, i, 0, info->count, data[i]),
                         DG_OK);
        *o = (WeightOut) { .name = info->name,
                           .type = info->type,
                           .num_dims = info->num_dims,
                           .data = data[i] };
        memcpy(o->dims, info->dims, sizeof info->dims);
    }
    assert_int_equal(
        dg_safetensors_write(in_scratch("mixed"), out, num, "format", "pt"),
        DG_OK);
    got = slurp(in_scratch("mixed"), &num_got);
    assert_int_equal(num_got, num_want);
    assert_memory_equal(got, want, num_want);
    assert_int_not_equal(access(in_scratch("mixed.tmp"), F_OK), 0);
    dg_weight_file_close(f);
    for (int64_t i = 0; i < num; i++)
        free(data[i]);
    free(want);
    free(got);
}

/* A file in memory: header text, then num_data bytes that count up. */
static int parse(WeightFile **f, const char *header, size_t num_data)
{
    static unsigned char bytes[8192];
    const uint64_t n = strlen(header);

    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < num_data; i++)
        bytes[8 + n + i] = (unsigned char)i;
    return dg_safetensors_parse(f, "x.safetensors", bytes, 8 + n + num_data);
}

#define T(name, type, shape, from, to)                       \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":[" shape \
    "],\"data_offsets\":[" #from "," #to "]}"

#define OFFSETS(offsets) \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" offsets "}}"

static void test_bad_headers_are_refused(void **state)
{
    static const struct {
        const char *header, *text;
        size_t num_data;
    } cases[] = {
        { "", "not JSON", 0 },
        { "[]", "not JSON", 0 },
        { "{", "not JSON", 0 },
        { "{} x", "not JSON", 0 },
        { "{" T("a", "F32", "2", 0, 8) "} \n", "not JSON", 8 },
        { "{\"a\":3}", "tensor a: must have dtype", 0 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "must have dtype", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],"
          "\"data_offsets\":[0,4]}}",
          "each once", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"x\":1,"
          "\"data_offsets\":[0,4]}}",
          "each once", 4 },
        { "{" T("a", "Q7", "2", 0, 8) "}", "a: unknown dtype Q7", 8 },
        { "{" T("a", "F32", "-2", 0, 8) "}", "a: shape", 8 },
        { "{" T("a", "F32", "1.5", 0, 8) "}", "a: shape", 8 },
        { "{" T("a", "F32", "\"2\"", 0, 8) "}", "a: shape", 8 },
        { "{" T("a", "F32", "1e300", 0, 8) "}", "a: shape", 8 },
        { "{" T("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", "more than 8", 4 },
        { "{" T("a", "F32", "4294967296,4294967296", 0, 8) "}",
          "a: its size overflows", 8 },
        { "{" T("a", "F32", "4503599627370496,512", 0, 8) "}",
          "a: its size overflows", 8 },
        { "{" T("a", "F4", "3", 0, 2) "}", "whole bytes", 2 },
        { "{" T("a", "F32", "2", 0, 12) "}", "hold 12 bytes", 12 },
        { "{" T("a", "F32", "2", 0, 8) "}", "0 to 8 of 7 bytes", 7 },
        { "{" T("a", "F32", "2", 0, 8) "}", "the file at 9", 9 },
        { "{" T("a", "F32", "2", 8, 0) "}", "8 to 0", 8 },
        { "{" T("a", "F32", "2", -1, 7) "}", "data_offsets", 8 },
        { "{" T("a", "F32", "2", 0, 1e300) "}", "data_offsets", 8 },
        { OFFSETS("[0]"), "data_offsets", 8 },
        { OFFSETS("[0,8,8]"), "data_offsets", 8 },
        { OFFSETS("{\"x\":0,\"y\":8}"), "data_offsets", 8 },
        { "{" T("a", "F32", "2", 0, 8) "," T("a", "F32", "1", 8, 12) "}",
          "tensor a is there twice", 12 },
        { "{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "2", 4, 12) "}",
          "b begins at byte 4 of the data, inside another", 12 },
        { "{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "1", 12, 16) "}",
          "b begins at byte 12 of the data, after a gap", 16 },
        { "{\"__metadata__\":[]}", "__metadata__ is not an object", 0 },
        { "{\"__metadata__\":{\"a\":1}}", "a is not a text", 0 },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", "twice", 0 },
    };
    WeightFile *f = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_error(parse(&f, cases[i].header, cases[i].num_data), DG_EFORMAT,
                     cases[i].text);
    assert_null(f);
}

static void test_header_lengths_are_refused(void **state)
{
    static const uint64_t lengths[] = { 3, 100000001, (uint64_t)1 << 63,
                                        UINT64_MAX, UINT64_MAX - 7 };
    unsigned char bytes[10] = { 0 };
    WeightFile *f;

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(bytes, &lengths[i], 8);
        expect_error(dg_safetensors_parse(&f, "x", bytes, sizeof bytes),
                     DG_EFORMAT, "x: not a whole safetensors file");
    }
    expect_error(dg_safetensors_parse(&f, "x", bytes, 7), DG_EFORMAT,
                 "7 bytes");
    expect_error(dg_safetensors_parse(&f, "x", NULL, 0), DG_EFORMAT, "0 bytes");
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    golden_cut(GOLDEN "mixed.safetensors", dg_safetensors_parse);
}

static void test_reads_are_checked(void **state)
{
    WeightFile *f;
    float v[4] = { 7, 7, 7, 7 };
    unsigned char raw[4];

    (void)state;
    assert_int_equal(
        parse(&f,
              "{" T("a", "F32", "2", 0, 8) "," T("b", "U8", "2,2", 8, 12) "}  ",
              12),
        DG_OK);
    assert_int_equal(dg_weight_file_find(f, "c"), -1);
    expect_error(dg_weight_file_read(f, 0, 0, 3, v), DG_EINVAL, "tensor a");
    expect_error(dg_weight_file_read(f, 0, -1, 1, v), DG_EINVAL, "tensor a");
    expect_error(dg_weight_file_read(f, 0, 2, INT64_MAX, v), DG_EINVAL, "a");
    expect_error(dg_weight_file_read(f, 1, 0, 4, v), DG_EINVAL,
                 "tensor b has type U8");
    assert_true(v[0] == 7 && v[3] == 7);
    assert_int_equal(dg_weight_file_read_raw(f, 1, raw), DG_OK);
    assert_memory_equal(raw, "\10\11\12\13", 4);
    dg_weight_file_close(f);
}

static void test_not_finite_is_named(void **state)
{
    static const float x[] = { 1, NAN, -INFINITY };
    const char *header = "{" T("w", "F32", "3", 0, 12) "}";
    unsigned char bytes[256];
    const uint64_t n = strlen(header);
    float v[3];
    WeightFile *f;

    (void)state;
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    memcpy(bytes + 8 + n, x, sizeof x);
    assert_int_equal(dg_safetensors_parse(&f, "x", bytes, 8 + n + 12), DG_OK);
    expect_error(dg_weight_file_read(f, 0, 0, 3, v), DG_ENUMERIC,
                 "x: tensor w, element 1 is nan");
    expect_error(dg_weight_file_read(f, 0, 2, 1, v), DG_ENUMERIC,
                 "element 2 is -inf");
    assert_int_equal(dg_weight_file_read(f, 0, 0, 1, v), DG_OK);
    assert_int_equal(dg_weight_file_read_any(f, 0, 0, 3, v), DG_OK);
    assert_memory_equal(v, x, sizeof x);
    dg_weight_file_close(f);
}

static void test_writer_refuses(void **state)
{
    float x[2] = { 1, 70000 };
    WeightOut t[2] = { { "a", DG_WEIGHT_F16, 1, { 2 }, x },
                       { "a", DG_WEIGHT_F32, 1, { 2 }, x } };
    const char *path = in_scratch("never");

    (void)state;
    expect_error(dg_safetensors_write(path, t, 2, NULL, NULL), DG_EINVAL,
                 "two tensors named a");
    expect_error(dg_safetensors_write(path, t, 1, NULL, NULL), DG_EINVAL,
                 "tensor a, element 1 is 70000");
    t[0].type = DG_WEIGHT_I64;
    expect_error(dg_safetensors_write(path, t, 1, NULL, NULL), DG_EINVAL,
                 "tensor a");
    x[0] = NAN;
    expect_error(dg_safetensors_write(path, t + 1, 1, NULL, NULL), DG_ENUMERIC,
                 "tensor a, element 0 is nan");
    expect_error(dg_safetensors_write("/nowhere/x", t + 1, 0, NULL, NULL),
                 DG_EIO, "/nowhere/x: cannot create");
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(in_scratch("never.tmp"), F_OK), 0);
}

static void test_files_that_are_none(void **state)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:4d7a214614ab2935c943f9e0ff69d22e"
                                  "ff8e0a3c9ea9ee69c38c8c1c1b1b3f4a\n"
                                  "size 9942110824\n";
    WeightFile *f;

    (void)state;
    expect_error(dg_weight_file_open(&f, in_scratch("none")), DG_EIO,
                 "none: cannot open");
    expect_error(dg_weight_file_open(&f, scratch), DG_EIO, "is a folder");
    spill(in_scratch("empty"), "", 0);
    expect_error(dg_weight_file_open(&f, in_scratch("empty")), DG_EFORMAT,
                 "0 bytes");
    spill(in_scratch("pointer"), pointer, sizeof pointer - 1);
    expect_error(dg_weight_file_open(&f, in_scratch("pointer")), DG_EFORMAT,
                 "git lfs pull");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_python_files_read),
        cmocka_unit_test(test_written_as_python_writes),
        cmocka_unit_test(test_bad_headers_are_refused),
        cmocka_unit_test(test_header_lengths_are_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_reads_are_checked),
        cmocka_unit_test(test_not_finite_is_named),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_files_that_are_none),
    };

    return cmocka_run_group_tests_name("safetensors", tests, scratch_make,
                                       scratch_drop);
}
