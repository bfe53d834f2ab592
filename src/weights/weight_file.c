#include "weights/weight_file.h"

#include "base/crc32.h"
#include "base/error.h"
#include "mapped.h"
#include "weights/half.h"
#include "weights/safetensors.h"
#include "weights/torch_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 1 << 16
}; /* values that stay in a cache until they are checked */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "values in the files are little-endian and read as they are");

static const struct {
    const char *name;
    int bits;
} types[DG_WEIGHT_NUM_TYPES] = {
    [DG_WEIGHT_F32] = { "F32", 32 },
    [DG_WEIGHT_F16] = { "F16", 16 },
    [DG_WEIGHT_BF16] = { "BF16", 16 },
    [DG_WEIGHT_F64] = { "F64", 64 },
    [DG_WEIGHT_I64] = { "I64", 64 },
    [DG_WEIGHT_I32] = { "I32", 32 },
    [DG_WEIGHT_I16] = { "I16", 16 },
    [DG_WEIGHT_I8] = { "I8", 8 },
    [DG_WEIGHT_U64] = { "U64", 64 },
    [DG_WEIGHT_U32] = { "U32", 32 },
    [DG_WEIGHT_U16] = { "U16", 16 },
    [DG_WEIGHT_U8] = { "U8", 8 },
    [DG_WEIGHT_BOOL] = { "BOOL", 8 },
    [DG_WEIGHT_F8_E4M3] = { "F8_E4M3", 8 },
    [DG_WEIGHT_F8_E5M2] = { "F8_E5M2", 8 },
    [DG_WEIGHT_F8_E8M0] = { "F8_E8M0", 8 },
    [DG_WEIGHT_F6_E2M3] = { "F6_E2M3", 6 },
    [DG_WEIGHT_F6_E3M2] = { "F6_E3M2", 6 },
    [DG_WEIGHT_F4] = { "F4", 4 },
    [DG_WEIGHT_C64] = { "C64", 64 },
};

const char *dg_weight_type_name(WeightType t)
{
    return types[t].name;
}

WeightType dg_weight_type_find(const char *name)
{
    int t = 0;

    while (t < DG_WEIGHT_NUM_TYPES && strcmp(types[t].name, name) != 0)
        t++;
    return (WeightType)t;
}

int dg_weight_type_bits(WeightType t)
{
    return types[t].bits;
}

/* The bytes ------------------------------------------------------------- */

int dg_mapped_create(WeightFile **out, const char *path, const char *format,
                     const void *bytes, size_t num_bytes)
{
    WeightFile *f = calloc(1, sizeof *f);

    if (f != NULL)
        f->path = strdup(path);
    if (f == NULL || f->path == NULL) {
        free(f);
        return dg_fail(DG_ENOMEM, "%s: its index", path);
    }
    f->format = format;
    f->bytes = bytes;
    f->num_bytes = num_bytes;
    *out = f;
    return DG_OK;
}

/* What a checkout of a repository without Git LFS has in the file's place. */
static int is_pointer(const unsigned char *bytes, size_t num)
{
    static const char start[] = "version https://git-lfs";

    return num >= sizeof start - 1 &&
           memcmp(bytes, start, sizeof start - 1) == 0;
}

static int parse(WeightFile **out, const FileBytes *f)
{
    unsigned char b[32];
    const size_t num = f->num < sizeof b ? (size_t)f->num : sizeof b;
    const int err = dg_bytes_copy(b, f, 0, num);

    if (err)
        return err;
    if (is_pointer(b, num))
        return dg_fail(DG_EFORMAT,
                       "%s: a pointer of Git LFS, not the file itself: fetch "
                       "it with git lfs pull",
                       f->path);
    if (num >= 2 &&
        ((b[0] == 'P' && b[1] == 'K') || (b[0] == 0x80 && b[1] == 2)))
        return dg_torch_file_parse(out, f->path, f->p, f->num);
    return dg_safetensors_parse(out, f->path, f->p, f->num);
}

int dg_weight_file_open(WeightFile **out, const char *path)
{
    const unsigned char *bytes;
    size_t num;
    int64_t changed_ns;
    int err = dg_map_open(path, &bytes, &num, &changed_ns);

    if (err)
        return err;
    err = parse(out, &(FileBytes) { path, bytes, num });
    if (err) {
        dg_map_close(bytes, num);
        return err;
    }
    (*out)->owns_map = 1;
    (*out)->changed_ns = changed_ns;
    return DG_OK;
}

void dg_weight_file_close(WeightFile *f)
{
    if (f == NULL)
        return;
    for (int64_t i = 0; i < f->num; i++)
        free((char *)(uintptr_t)f->tensors[i].info.name);
    for (int64_t i = 0; i < f->num_notes; i++) {
        free(f->notes[i].key);
        free(f->notes[i].text);
    }
    for (int64_t i = 0; i < f->num_sums; i++)
        free(f->sums[i].name);
    free(f->sums);
    if (f->owns_map)
        dg_map_close(f->bytes, f->num_bytes);
    free(f->notes);
    free(f->tensors);
    free(f->path);
    free(f);
}

/* The list -------------------------------------------------------------- */

int dg_mapped_measure(const WeightFile *f, WeightInfo *info)
{
    int64_t bits;

    info->count = 1;
    for (int i = 0; i < info->num_dims; i++)
        if (__builtin_mul_overflow(info->count, info->dims[i], &info->count))
            return dg_fail(DG_EFORMAT, "%s: tensor %s: its size overflows",
                           f->path, info->name);
    if (__builtin_mul_overflow(info->count, types[info->type].bits, &bits))
        return dg_fail(DG_EFORMAT, "%s: tensor %s: its size overflows", f->path,
                       info->name);
    if (bits % 8 != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: tensor %s: %" PRId64 " values of type %s do not "
                       "fill whole bytes",
                       f->path, info->name, info->count,
                       types[info->type].name);
    info->bytes = bits / 8;
    return DG_OK;
}

int dg_mapped_add(WeightFile *f, const MappedTensor *t)
{
    char *name;

    if (f->num == f->cap) {
        const int64_t cap = f->cap ? 2 * f->cap : 64;
        MappedTensor *more = realloc(f->tensors, (size_t)cap * sizeof *more);

        if (more == NULL)
            return dg_fail(DG_ENOMEM, "%s: index of %" PRId64 " tensors",
                           f->path, cap);
        f->tensors = more;
        f->cap = cap;
    }
    name = strdup(t->info.name);
    if (name == NULL)
        return dg_fail(DG_ENOMEM, "%s: a tensor's name", f->path);
    f->tensors[f->num] = *t;
    f->tensors[f->num++].info.name = name;
    return DG_OK;
}

int dg_mapped_add_note(WeightFile *f, const char *key, const char *text)
{
    WeightFileNote n = { strdup(key), strdup(text) };
    WeightFileNote *more =
        realloc(f->notes, (size_t)(f->num_notes + 1) * sizeof *more);

    if (more != NULL)
        f->notes = more;
    if (more == NULL || n.key == NULL || n.text == NULL) {
        free(n.key);
        free(n.text);
        return dg_fail(DG_ENOMEM, "%s: a note", f->path);
    }
    f->notes[f->num_notes++] = n;
    return DG_OK;
}

int dg_mapped_new_sums(WeightFile *f, int64_t num)
{
    f->sums = calloc((size_t)num + 1, sizeof *f->sums);
    if (f->sums == NULL)
        return dg_fail(DG_ENOMEM, "%s: %" PRId64 " checksums", f->path, num);
    f->num_sums = num;
    return DG_OK;
}

static int by_name(const void *a, const void *b)
{
    const MappedTensor *s = a, *t = b;

    return strcmp(s->info.name, t->info.name);
}

int dg_mapped_sort(WeightFile *f)
{
    if (f->num > 1)
        qsort(f->tensors, (size_t)f->num, sizeof *f->tensors, by_name);
    for (int64_t i = 1; i < f->num; i++)
        if (by_name(&f->tensors[i - 1], &f->tensors[i]) == 0)
            return dg_fail(DG_EFORMAT, "%s: tensor %s is there twice", f->path,
                           f->tensors[i].info.name);
    return DG_OK;
}

const char *dg_weight_file_path(const WeightFile *f)
{
    return f->path;
}

const char *dg_weight_file_format(const WeightFile *f)
{
    return f->format;
}

int64_t dg_weight_file_num(const WeightFile *f)
{
    return f->num;
}

const WeightInfo *dg_weight_file_info(const WeightFile *f, int64_t i)
{
    return &f->tensors[i].info;
}

int64_t dg_weight_file_find(const WeightFile *f, const char *name)
{
    const MappedTensor key = { .info = { .name = name } };
    const MappedTensor *t = NULL;

    if (f->num > 0)
        t = bsearch(&key, f->tensors, (size_t)f->num, sizeof *f->tensors,
                    by_name);
    return t != NULL ? t - f->tensors : -1;
}

const char *dg_weight_file_note(const WeightFile *f, const char *key)
{
    for (int64_t i = 0; i < f->num_notes; i++)
        if (strcmp(f->notes[i].key, key) == 0)
            return f->notes[i].text;
    return NULL;
}

int dg_weight_file_note_at(const WeightFile *f, int64_t i, const char **key,
                           const char **text)
{
    if (i < 0 || i >= f->num_notes)
        return DG_EINVAL;
    *key = f->notes[i].key;
    *text = f->notes[i].text;
    return DG_OK;
}

/* Checksums ------------------------------------------------------------- */

typedef struct Summing {
    const MappedSum *of;
    uint32_t crc;
} Summing;

static void sum_up(void *user)
{
    Summing *s = user;

    s->crc = dg_crc32(0, s->of->data, s->of->num_bytes);
}

static int verify(const WeightFile *f, const MappedSum *of)
{
    Summing s = { of, 0 };
    const int err = dg_map_guard(f->path, f->bytes, f->num_bytes, sum_up, &s);

    if (err)
        return err;
    if (s.crc != of->crc)
        return dg_fail(DG_EFORMAT,
                       "%s: member %s: CRC-32 is %08" PRIx32
                       ", stored is %08" PRIx32
                       ": the file is damaged, or was saved without "
                       "checksums: save it again with them",
                       f->path, of->name, s.crc, of->crc);
    return DG_OK;
}

int dg_weight_file_verify(const WeightFile *f)
{
    return dg_weight_file_verify_part(f, 0, INT64_MAX);
}

int64_t dg_weight_file_summed(const WeightFile *f)
{
    int64_t bytes = 0;

    for (int64_t i = 0; i < f->num_sums; i++)
        bytes += (int64_t)f->sums[i].num_bytes;
    return bytes;
}

int dg_weight_file_verify_part(const WeightFile *f, int64_t from, int64_t end)
{
    int64_t at = 0;
    int err = DG_OK;

    for (int64_t i = 0; i < f->num_sums && !err; i++) {
        if (at >= from && at < end)
            err = verify(f, &f->sums[i]);
        at += (int64_t)f->sums[i].num_bytes;
    }
    return err;
}

uint64_t dg_weight_file_stamp(const WeightFile *f)
{
    return (uint64_t)f->num_bytes * 0x9E3779B97F4A7C15u ^
           (uint64_t)f->changed_ns;
}

/* The values ------------------------------------------------------------ */

/* Values stand anywhere: old safetensors headers are not padded. */
#define TAKE(type, value)                      \
    for (int64_t k = 0; k < num; k++) {        \
        type x;                                \
        memcpy(&x, from + k * step, sizeof x); \
        dst[k] = value;                        \
    }

/* num values, step bytes from one to the next */
static void widen(float *dst, const unsigned char *from, WeightType type,
                  int64_t num, int64_t step)
{
    switch (type) {
    case DG_WEIGHT_F32:
        if (step == sizeof *dst) {
            memcpy(dst, from, (size_t)num * sizeof *dst);
            break;
        }
        TAKE(float, x)
        break;
    case DG_WEIGHT_F16:
        if (step == sizeof(uint16_t)) {
            dg_half_widen(dst, from, num);
            break;
        }
        TAKE(uint16_t, dg_half_to_float(x))
        break;
    case DG_WEIGHT_BF16:
        if (step == sizeof(uint16_t)) {
            dg_bfloat_widen(dst, from, num);
            break;
        }
        TAKE(uint16_t, dg_bfloat_to_float(x))
        break;
    case DG_WEIGHT_F64:
        TAKE(double, (float)x)
        break;
    case DG_WEIGHT_I64:
        TAKE(int64_t, (float)x)
        break;
    default:
        dg_panic("values of type %d are not convertible", (int)type);
    }
}

/* Byte offset of value i, as strides have it. */
static int64_t place(const MappedTensor *t, int64_t i, int64_t size)
{
    int64_t at = 0;

    for (int d = t->info.num_dims - 1; d >= 0; d--) {
        at += i % t->info.dims[d] * t->strides[d];
        i /= t->info.dims[d];
    }
    return at * size;
}

/* Calls of take() for runs of values whose places are evenly spaced. */
typedef void RunFn(void *dst, const unsigned char *from, WeightType type,
                   int64_t num, int64_t step);

/* Values of a tensor on their way to the caller's memory. */
typedef struct Walk {
    const MappedTensor *t;
    int64_t first, num;
    void *dst;
    int64_t dst_size; /* of a value */
    RunFn *take;
} Walk;

static void walk(void *user)
{
    const Walk *w = user;
    const MappedTensor *t = w->t;
    const int64_t size = types[t->info.type].bits / 8, dst_size = w->dst_size;
    const int last = t->info.num_dims - 1;
    int64_t first = w->first, num = w->num;
    RunFn *const take = w->take;
    char *to = w->dst;

    if (!t->gaps || last < 0) {
        take(to, t->data + first * size, t->info.type, num, size);
        return;
    }
    while (num > 0) {
        const int64_t rest = t->info.dims[last] - first % t->info.dims[last];
        const int64_t n = num < rest ? num : rest;

        take(to, t->data + place(t, first, size), t->info.type, n,
             t->strides[last] * size);
        to += n * dst_size;
        first += n;
        num -= n;
    }
}

static int guarded(const WeightFile *f, Walk w)
{
    return dg_map_guard(f->path, f->bytes, f->num_bytes, walk, &w);
}

static void take_floats(void *dst, const unsigned char *from, WeightType type,
                        int64_t num, int64_t step)
{
    widen(dst, from, type, num, step);
}

static void take_bytes(void *dst, const unsigned char *from, WeightType type,
                       int64_t num, int64_t step)
{
    const size_t size = (size_t)types[type].bits / 8;

    for (int64_t k = 0; k < num; k++)
        memcpy((char *)dst + (size_t)k * size, from + k * step, size);
}

/* num bytes, of whatever type: it may be below a byte */
static void take_all(void *dst, const unsigned char *from, WeightType type,
                     int64_t num, int64_t step)
{
    (void)type;
    (void)step;
    memcpy(dst, from, (size_t)num);
}

static int check_range(const WeightFile *f, int64_t i, int64_t first,
                       int64_t num)
{
    const MappedTensor *t = &f->tensors[i];

    if (t->info.type > DG_WEIGHT_I64)
        return dg_fail(DG_EINVAL,
                       "%s: tensor %s has type %s: only F32, F16, BF16, F64 "
                       "and I64 can be read",
                       f->path, t->info.name, types[t->info.type].name);
    if (first < 0 || num < 0 || first > t->info.count ||
        num > t->info.count - first)
        return dg_fail(DG_EINVAL,
                       "%s: tensor %s: %" PRId64 " values from %" PRId64
                       ", it has %" PRId64,
                       f->path, t->info.name, num, first, t->info.count);
    return DG_OK;
}

static int read_floats(const WeightFile *f, int64_t i, int64_t first,
                       int64_t num, float *dst)
{
    const MappedTensor *t = &f->tensors[i];

    return guarded(f, (Walk) { t, first, num, dst, sizeof *dst, take_floats });
}

int dg_weight_file_read_any(const WeightFile *f, int64_t i, int64_t first,
                            int64_t num, float *dst)
{
    const int err = check_range(f, i, first, num);

    return err || num == 0 ? err : read_floats(f, i, first, num, dst);
}

/* Of values in the processor's cache, first .. of tensor i. */
static int check_finite(const WeightFile *f, int64_t i, int64_t first,
                        int64_t num, const float *values)
{
    int bad = 0;

    /* x - x is 0 for finite x alone */
    for (int64_t k = 0; k < num; k++)
        bad |= values[k] - values[k] != 0.0F;
    for (int64_t k = 0; k < num && bad; k++)
        if (!isfinite(values[k]))
            return dg_fail(DG_ENUMERIC,
                           "%s: tensor %s, element %" PRId64
                           " is %g: weights must be finite",
                           f->path, f->tensors[i].info.name, first + k,
                           (double)values[k]);
    return DG_OK;
}

int dg_weight_file_read(const WeightFile *f, int64_t i, int64_t first,
                        int64_t num, float *dst)
{
    int err = check_range(f, i, first, num);

    for (int64_t k = 0; k < num && !err; k += PIECE) {
        const int64_t n = num - k < PIECE ? num - k : PIECE;

        err = read_floats(f, i, first + k, n, dst + k);
        if (!err)
            err = check_finite(f, i, first + k, n, dst + k);
    }
    return err;
}

int dg_weight_file_read_raw(const WeightFile *f, int64_t i, void *dst)
{
    const MappedTensor *t = &f->tensors[i];
    const int bits = types[t->info.type].bits;

    if (!t->gaps && t->info.bytes > 0)
        return guarded(f, (Walk) { t, 0, t->info.bytes, dst, 1, take_all });
    if (!t->gaps)
        return DG_OK;
    if (bits % 8 != 0)
        return dg_fail(DG_EINVAL, "%s: tensor %s has gaps in type %s", f->path,
                       t->info.name, types[t->info.type].name);
    if (t->info.count == 0)
        return DG_OK;
    return guarded(f,
                   (Walk) { t, 0, t->info.count, dst, bits / 8, take_bytes });
}
