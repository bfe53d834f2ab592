/*
 * A program whose GPU side was built without cuDNN's header: runs that ask for it
 * are told so, and nothing is by cuDNN.
 */
#include "base/error.h"
#include "cuda/attention_cudnn.h"
#include "cuda/conv_cudnn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void expect(int err, const char *key)
{
    assert_int_equal(err, DG_EDEVICE);
    assert_non_null(strstr(dg_last_error()->text, key));
    assert_non_null(
        strstr(dg_last_error()->text,
               " = \"cudnn\": this program was built without cuDNN's "
               "header (make CUDA=1 CUDNN_HOME=...); use \"own\""));
}

static void test_built_without_is_told(void **state)
{
    char version[32];

    (void)state;
    expect(dg_cuda_attention_library(NULL, version, sizeof version),
           "run.attention");
    expect(dg_cuda_conv_library(NULL, version, sizeof version),
           "run.convolution");
}

static void test_nothing_is_by_cudnn(void **state)
{
    const AttentionArgs attention = { .batch = 1 };
    const ConvArgs conv = { .batch = 1 };

    (void)state;
    assert_int_equal(dg_cuda_attention_cudnn(&attention), 0);
    assert_int_equal(dg_cuda_attention_cudnn_grad(&attention), 0);
    assert_int_equal(dg_cuda_conv_cudnn(&conv), 0);
    assert_int_equal(dg_cuda_conv_cudnn_input_grad(&conv), 0);
    assert_int_equal(dg_cuda_conv_cudnn_weight_grad(&conv), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_built_without_is_told),
    cmocka_unit_test(test_nothing_is_by_cudnn),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
