/* Any bytes as a PyTorch file, and as the pickle inside one: refused, or
 * every tensor can be read. The first byte chooses: 'P' begins an archive,
 * other inputs become the pickle of one with a storage "0" of 64 bytes. */
#include "weights/torch_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Expanded tensors may have any number of values: some of them are enough. */
enum { MOST = 1 << 12, STORAGE = 64 };

static void read_all(const WeightFile *f)
{
    static float v[MOST];

    for (int64_t i = 0; i < dg_weight_file_num(f); i++) {
        const WeightInfo *info = dg_weight_file_info(f, i);
        const int64_t num = info->count < MOST ? info->count : MOST;

        if (dg_weight_file_find(f, info->name) != i)
            abort();
        (void)dg_weight_file_read(f, i, 0, num, v);
        (void)dg_weight_file_read_any(f, i, info->count - num, num, v);
        if (info->bytes <= MOST && dg_weight_file_read_raw(f, i, v) != 0)
            abort();
    }
}

static size_t put(uint8_t *p, size_t at, uint32_t value, int bytes)
{
    while (bytes-- > 0) {
        p[at++] = (uint8_t)value;
        value >>= 8;
    }
    return at;
}

static size_t put_bytes(uint8_t *p, size_t at, const void *from, size_t num)
{
    if (num > 0)
        memcpy(p + at, from, num);
    return at + num;
}

static size_t put_local(uint8_t *p, size_t at, const char *name)
{
    at = put_bytes(p, at, "PK\3\4", 4);
    memset(p + at, 0, 22);
    at = put(p, at + 22, (uint32_t)strlen(name), 4);
    return put_bytes(p, at, name, strlen(name));
}

static size_t put_central(uint8_t *p, size_t at, const char *name, size_t num,
                          size_t place)
{
    at = put_bytes(p, at, "PK\1\2", 4);
    memset(p + at, 0, 16);
    at = put(p, at + 16, (uint32_t)num, 4);
    at = put(p, at, (uint32_t)num, 4);
    at = put(p, at, (uint32_t)strlen(name), 4);
    memset(p + at, 0, 10);
    at = put(p, at + 10, (uint32_t)place, 4);
    return put_bytes(p, at, name, strlen(name));
}

/* An archive with the pickle and its storage, to free. */
static uint8_t *wrap(const uint8_t *pickle, size_t size, size_t *num)
{
    uint8_t *p = malloc(size + 1024), storage[STORAGE];
    size_t at, second, directory;

    if (p == NULL)
        abort();
    memset(storage, 0x3c, sizeof storage);
    at = put_local(p, 0, "a/data.pkl");
    at = put_bytes(p, at, pickle, size);
    second = at;
    at = put_local(p, at, "a/data/0");
    directory = put_bytes(p, at, storage, sizeof storage);
    at = put_central(p, directory, "a/data.pkl", size, 0);
    at = put_central(p, at, "a/data/0", sizeof storage, second);
    *num = at;
    at = put_bytes(p, at, "PK\5\6\0\0\0\0\2\0\2\0", 12);
    at = put(p, at, (uint32_t)(*num - directory), 4);
    at = put(p, at, (uint32_t)directory, 4);
    *num = put(p, at, 0, 2);
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *made = NULL;
    WeightFile *f;

    if (size == 0 || data[0] != 'P')
        data = made = wrap(data, size, &size);
    if (dg_torch_file_parse(&f, "fuzz", data, size) == 0) {
        read_all(f);
        (void)dg_weight_file_verify(f);
        dg_weight_file_close(f);
    }
    free(made);
    return 0;
}
