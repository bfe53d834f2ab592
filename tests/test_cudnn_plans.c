/*
 * The attention that cuda/cudnn_plan.cu describes, asked of the real cuDNN of
 * this machine for a GPU that is only described: that the library takes the
 * descriptors, has an engine for each of the sizes that the policies have, what
 * its workspace is, and that no kernel that it compiles for backward adds
 * floats in whatever order blocks come. No GPU, no driver. Left out where there
 * is no cuDNN.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "../cuda/cudnn_plan.h"
#include "base/error.h"

#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DG_CUDNN
/* An A100, an H100 SXM, a B200, by the names that the library asks for. */
static const char a100[] =
    "\"deviceVer\":800,\"multiProcessorCount\":108,\"l2CacheSize\":41943040,"
    "\"maxSharedMemoryPerBlockOptin\":166912,\"deviceName\":\"NVIDIA A100\"";
static const char h100[] =
    "\"deviceVer\":900,\"multiProcessorCount\":132,\"l2CacheSize\":52428800,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"deviceName\":\"NVIDIA H100\"";
static const char b200[] =
    "\"deviceVer\":1000,\"multiProcessorCount\":148,\"l2CacheSize\":132644864,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"deviceName\":\"NVIDIA B200\"";
static const char alike[] =
    "\"cudaDeviceId\":0,\"driverVer\":13000,"
    "\"maxGridSize\":[2147483647,65535,65535],"
    "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
    "\"warpSize\":32,"
    "\"maxSharedMemoryPerBlock\":49152,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
    "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,"
    "\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,"
    "\"memClockRateKHz\":2619000,\"totalGlobalMem\":85000000000";

/* instructions of sm_80 to sm_100 by their lowest 12 bits: RED, REDG, ATOMG of
 * floats, and UTMAREDG, which adds a tile; STG, and UTMASTG, which store */
enum {
    ADDS_OF_80 = 0x98e,
    ADDS = 0x9a6,
    ATOMIC_FLOAT = 0x9a3,
    ADDS_TILE = 0x3b6,
    STORES = 0x986,
    STORES_TILE = 0x3b5
};

typedef struct Found {
    int kernels, adds, stores;
} Found;

static struct CudnnLibrary *library;

/* of base64, without line breaks; freed by the caller */
static unsigned char *decoded(const char *text, size_t *bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq"
                                 "rstuvwxyz0123456789+/";
    unsigned char *out = malloc(strlen(text) + 8);
    uint32_t bits = 0;
    int num = 0;

    assert_non_null(out);
    *bytes = 0;
    for (; *text != '\0' && *text != '='; text++) {
        const char *at = strchr(digits, *text);

        assert_non_null(at);
        bits = bits << 6 | (uint32_t)(at - digits);
        num += 6;
        if (num >= 8) {
            num -= 8;
            out[(*bytes)++] = (unsigned char)(bits >> num);
        }
    }
    return out;
}

/* instructions of all code in a file of a kernel, 16 bytes each */
static void count_code(Found *f, const unsigned char *file, size_t bytes)
{
    Elf64_Ehdr head;

    assert_true(bytes > sizeof head);
    memcpy(&head, file, sizeof head);
    for (int i = 0; i < head.e_shnum; i++) {
        Elf64_Shdr s;

        memcpy(&s, file + head.e_shoff + (size_t)i * sizeof s, sizeof s);
        if (s.sh_type != SHT_PROGBITS || !(s.sh_flags & SHF_EXECINSTR))
            continue;
        assert_true(s.sh_offset + s.sh_size <= bytes);
        for (size_t at = 0; at + 16 <= s.sh_size; at += 16) {
            const unsigned char *code = file + s.sh_offset + at;
            const int op = code[0] | (code[1] & 15) << 8;

            f->adds += op == ADDS_OF_80 || op == ADDS || op == ATOMIC_FLOAT ||
                       op == ADDS_TILE;
            f->stores += op == STORES || op == STORES_TILE;
        }
    }
}

static Found count_plan(const struct CudnnPlan *p)
{
    char *text = dg_cudnn_text(p);
    cJSON *all = cJSON_Parse(text);
    const cJSON *engine = cJSON_GetObjectItem(all, "engine"), *kernel;
    const cJSON *payload = cJSON_GetObjectItem(engine, "payload");
    Found f = { 0 };

    assert_non_null(text);
    cJSON_ArrayForEach(kernel, cJSON_GetObjectItem(payload, "kernels"))
    {
        const char *code =
            cJSON_GetStringValue(cJSON_GetObjectItem(kernel, "cubin"));
        unsigned char *file;
        size_t bytes;

        assert_non_null(code);
        file = decoded(code, &bytes);
        count_code(&f, file, bytes);
        free(file);
        f.kernels++;
    }
    cJSON_Delete(all);
    free(text);
    return f;
}

static const CudnnShape shapes[] = {
    { 6, 24, 128, 4608, 4608 }, /* FLUX.1 at 1024 x 1024 */
    { 4, 8, 40, 4096, 4096 },   /* Stable Diffusion 1.x at 512 x 512, */
    { 8, 8, 80, 1024, 77 },     /* and its words, */
    { 8, 8, 160, 64, 64 },      /* where its map is smallest */
    { 4, 4, 16, 68, 68 },       /* the demo's */
};
static const CudnnShape whole = { 24, 24, 128, 4608, 4608 };

static const size_t room = (size_t)257 << 20;

/* From now on plans are for this device. 0: there is no library. */
static int describe(const char *device)
{
    char text[1000];

    if (library == NULL)
        return 0;
    snprintf(text, sizeof text, "{%s,%s}", device, alike);
    if (dg_cudnn_describe(library, text) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    return 1;
}

/* Its compiled kernels store, and add nothing to what others have stored. */
static void check_code(const struct CudnnPlan *p)
{
    const Found f = count_plan(p);

    assert_true(f.kernels > 0);
    assert_true(f.stores > 0);
    assert_int_equal(f.adds, 0);
}

static void test_library_takes_the_descriptors(void **state)
{
    (void)state;
    for (size_t i = 0; describe(h100) && i < sizeof shapes / sizeof *shapes;
         i++) {
        CudnnShape all = shapes[i];
        struct CudnnPlan *forward, *backward;
        char why[300];

        all.heads = all.all_heads;
        dg_cudnn_forward(&forward, library, &all, 1 << 20, why, sizeof why);
        if (forward == NULL)
            fail_msg("forward, d %d: %s", (int)all.d, why);
        dg_cudnn_backward(&backward, library, &shapes[i], room, why,
                          sizeof why);
        if (backward == NULL)
            fail_msg("backward, d %d: %s", (int)all.d, why);
        print_message(
            "cuDNN %s, %d x %d, %d queries, %d keys: engine %d, %d "
            "bytes; backward engine %d, %.1f MB for %d heads\n",
            dg_cudnn_version(library), (int)all.heads, (int)all.d, (int)all.sq,
            (int)all.sk, (int)dg_cudnn_engine(forward),
            (int)dg_cudnn_workspace(forward), (int)dg_cudnn_engine(backward),
            (double)dg_cudnn_workspace(backward) * 1e-6, (int)shapes[i].heads);
        check_code(backward);
        dg_cudnn_plan_free(forward);
        dg_cudnn_plan_free(backward);
    }
}

/* dS of more heads than there is room for */
static void test_workspace_is_a_limit(void **state)
{
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(h100))
        return;
    dg_cudnn_backward(&p, library, &whole, room, why, sizeof why);
    assert_null(p);
    assert_non_null(strstr(why, "its workspace of"));
}

/* The eldest that CUDA_ARCH names. */
static void test_older_devices_have_it(void **state)
{
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(a100))
        return;
    dg_cudnn_forward(&p, library, &whole, 1 << 20, why, sizeof why);
    if (p == NULL)
        fail_msg("%s", why);
    dg_cudnn_plan_free(p);
    dg_cudnn_backward(&p, library, &shapes[0], room, why, sizeof why);
    if (p == NULL)
        fail_msg("%s", why);
    check_code(p);
    dg_cudnn_plan_free(p);
}

/* A Blackwell has backward in two kernels, for all heads at once. */
static void test_two_kernels_want_no_workspace(void **state)
{
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(b200))
        return;
    dg_cudnn_backward(&p, library, &whole, room, why, sizeof why);
    if (p == NULL)
        fail_msg("%s", why);
    assert_int_equal(dg_cudnn_workspace(p), 0);
    assert_int_equal(count_plan(p).kernels, 2);
    check_code(p);
    dg_cudnn_plan_free(p);
}

static void test_what_it_has_not_is_told(void **state)
{
    const CudnnShape odd = { 2, 2, 12, 64, 64 };
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(h100))
        return;
    dg_cudnn_forward(&p, library, &odd, room, why, sizeof why);
    assert_null(p);
    print_message("heads of 12: %s\n", why);
    assert_true(strlen(why) > 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_library_takes_the_descriptors),
    cmocka_unit_test(test_workspace_is_a_limit),
    cmocka_unit_test(test_older_devices_have_it),
    cmocka_unit_test(test_two_kernels_want_no_workspace),
    cmocka_unit_test(test_what_it_has_not_is_told),
};

/* A driver beside this program, before the library looks for one. */
static void open_library(const char *program)
{
    const char *end = strrchr(program, '/');
    char driver[4096];

    snprintf(driver, sizeof driver, "%.*scudnn_driver.so",
             end != NULL ? (int)(end + 1 - program) : 0, program);
    if (dlopen(driver, RTLD_NOW | RTLD_GLOBAL) == NULL)
        print_message("%s\n", dlerror());
    if (dg_cudnn_open(&library) != DG_OK)
        print_message("left out: %s\n", dg_last_error()->text);
}

int main(int argc, char **argv)
{
    (void)argc;
    open_library(argv[0]);

    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    dg_cudnn_close(library);
    return failed;
}
#else
static void test_library_takes_the_descriptors(void **state)
{
    (void)state;
    print_message("left out: cuDNN's header was not found (CUDNN_HOME)\n");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library_takes_the_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
