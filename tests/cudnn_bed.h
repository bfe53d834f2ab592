/*
 * What tests of plans share that the real cuDNN of this machine makes for a GPU
 * that is only described: devices, a look at the kernels it has compiled. No GPU,
 * no driver.
 */
#ifndef DG_TESTS_CUDNN_BED_H
#define DG_TESTS_CUDNN_BED_H
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
    "\"memClockRateKHz\":2619000,\"totalGlobalMem\":85000000000,"
    /* asked for since 9.28 */
    "\"memoryBusWidth\":5120,\"smCountOrigin\":0,"
    "\"oversizedSharedMemoryPerBlock\":0";

/* instructions of sm_80 to sm_100 by their lowest 9 bits, three more being the form
 * of their operands: RED, REDG, ATOMG of floats, and UTMAREDG, which adds a tile;
 * STG, and UTMASTG, which store */
enum {
    OPERATION = 0x1ff,
    ADDS_OF_80 = 0x18e,
    ADDS = 0x1a6,
    ATOMIC_FLOAT = 0x1a3,
    ADDS_TILE = 0x1b6,
    STORES = 0x186,
    STORES_TILE = 0x1b5
};

typedef struct Found {
    int kernels, adds, stores;
} Found;

static struct CudnnLibrary *library;

static const size_t room = (size_t)257 << 20;

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
            const int op = (code[0] | code[1] << 8) & OPERATION;

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

/* From now on plans are for this device. 0: there is no library. */
static int describe(const char *device)
{
    char text[1200];

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

/* A driver beside this program, before the library looks for one. */
static void open_library(const char *program)
{
    const char *end = strrchr(program, '/');
    char driver[4096];

    snprintf(driver, sizeof driver, "%.*scudnn_driver.so",
             end != NULL ? (int)(end + 1 - program) : 0, program);
    if (dlopen(driver, RTLD_NOW | RTLD_GLOBAL) == NULL)
        print_message("%s\n", dlerror());
    if (dg_cudnn_open(&library, "run.convolution") != DG_OK)
        print_message("left out: %s\n", dg_last_error()->text);
}
#endif

#endif
