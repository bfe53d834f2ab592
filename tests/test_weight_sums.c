/* PyTorch's files: what only their checksums can tell. */
#define _GNU_SOURCE /* memmem */
#include "weights_golden.h"

#include "base/in_file.h"
#include "weights/torch_file.h"

/* A bit of a value, which only the archive's checksum can tell. */
static void test_damaged_values_are_told(void **state)
{
    static const char path[] = GOLDEN "torch.bin";
    float value[30];
    char *bytes, *at;
    size_t num;
    WeightFile *f;
    int64_t i;

    (void)state;
    assert_int_equal(dg_in_read(path, &bytes, &num), DG_OK);
    assert_int_equal(dg_torch_file_parse(&f, path, bytes, num), DG_OK);
    assert_int_equal(dg_weight_file_verify(f), DG_OK);
    i = dg_weight_file_find(f, "state_dict.f32");
    assert_int_equal(dg_weight_file_read_raw(f, i, value), DG_OK);
    dg_weight_file_close(f);
    at = memmem(bytes, num, value, sizeof value);
    assert_non_null(at);
    at[9] ^= 4;
    assert_int_equal(dg_torch_file_parse(&f, path, bytes, num), DG_OK);
    expect_error(dg_weight_file_verify(f), DG_EFORMAT, "/data/");
    assert_non_null(strstr(dg_last_error()->text, path));
    dg_weight_file_close(f);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_values_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
