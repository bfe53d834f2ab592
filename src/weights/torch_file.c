#include "weights/torch_file.h"

#include "base/error.h"
#include "mapped.h"
#include "pickle.h"
#include "zip.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Members have names of ROOT/data.pkl, ROOT/data/KEY, ... */
enum { MAX_NAME = 512 };

typedef struct Reader {
    WeightFile *f;
    FileBytes bytes;
    Zip zip;
    char name[MAX_NAME]; /* ROOT/ and what is looked for */
    size_t root_length;  /* with its slash */
    int64_t num;
} Reader;

/* Member of that name under the root, or NULL. */
static const ZipMember *find(Reader *r, const char *name, size_t length)
{
    if (length > sizeof r->name - r->root_length)
        return NULL;
    memcpy(r->name + r->root_length, name, length);
    return dg_zip_find(&r->zip, r->name, r->root_length + length);
}

static int find_root(Reader *r)
{
    static const char want[] = "/data.pkl";
    const size_t tail = sizeof want - 1;

    for (int64_t i = 0; i < r->zip.num; i++) {
        const ZipMember *m = &r->zip.members[i];
        const size_t root = m->name_length - tail;

        if (m->name_length <= tail || root + 1 > MAX_NAME / 2 ||
            memcmp(m->name + root, want, tail) != 0 ||
            memchr(m->name, '/', root) != NULL)
            continue;
        r->root_length = root + 1;
        memcpy(r->name, m->name, root + 1);
        return DG_OK;
    }
    return dg_fail(DG_EFORMAT, "%s: not a PyTorch file: no member data.pkl",
                   r->f->path);
}

/* Whether a member is that text. */
static int member_is(const Reader *r, const ZipMember *m, const char *text,
                     int *is)
{
    char has[16];
    const size_t num = strlen(text);
    int err = DG_OK;

    *is = m->num_bytes == num;
    if (*is)
        err = dg_bytes_copy(has, &r->bytes, m->at, num);
    if (!err && *is)
        *is = memcmp(has, text, num) == 0;
    return err;
}

/* What else the archive says about itself. */
static int check_archive(Reader *r)
{
    const ZipMember *order = find(r, "byteorder", 9);
    int little = 1, err = DG_OK;

    if (find(r, "constants.pkl", 13) != NULL)
        return dg_fail(DG_EFORMAT,
                       "%s: a TorchScript program, not a file of weights: "
                       "take the model's safetensors file",
                       r->f->path);
    if (order != NULL)
        err = member_is(r, order, "little", &little);
    if (err)
        return err;
    if (!little)
        return dg_fail(DG_EFORMAT, "%s: its values are not little-endian",
                       r->f->path);
    return DG_OK;
}

static int find_storage(Reader *r, const char *tensor, const PickleStorage *s,
                        const ZipMember **out)
{
    char key[MAX_NAME / 2];
    const int n =
        s->key_length < sizeof key - 8
            ? snprintf(key, sizeof key, "data/%.*s", (int)s->key_length, s->key)
            : 0;
    const int64_t size = dg_weight_type_bits(s->type) / 8;
    const ZipMember *m = n > 0 ? find(r, key, (size_t)n) : NULL;

    if (m == NULL)
        return dg_fail(DG_EFORMAT, "%s: tensor %s: its storage %.*s is missing",
                       r->f->path, tensor,
                       s->key_length < 100 ? (int)s->key_length : 100, s->key);
    if (s->num > INT64_MAX / size || (uint64_t)(s->num * size) != m->num_bytes)
        return dg_fail(DG_EFORMAT,
                       "%s: tensor %s: its storage has %" PRIu64
                       " bytes and should hold %" PRId64 " values of type %s",
                       r->f->path, tensor, m->num_bytes, s->num,
                       dg_weight_type_name(s->type));
    *out = m;
    return DG_OK;
}

/* Highest place of a value, relative to the first; -1 beyond 63 bits. */
static int64_t reach(const PickleTensor *t)
{
    int64_t far = t->offset, step;

    for (int i = 0; i < t->num_dims; i++)
        if (__builtin_mul_overflow(t->dims[i] - 1, t->strides[i], &step) ||
            __builtin_add_overflow(far, step, &far))
            return -1;
    return far;
}

/* Row-major without gaps? Strides of dims of 1 say nothing. */
static int has_gaps(const PickleTensor *t)
{
    int64_t next = 1;

    for (int i = t->num_dims - 1; i >= 0; i--) {
        if (t->dims[i] != 1 && t->strides[i] != next)
            return 1;
        next *= t->dims[i];
    }
    return 0;
}

static int add_tensor(void *user, const char *name, const PickleTensor *t)
{
    Reader *r = user;
    MappedTensor m = { .info = { .name = name,
                                 .type = t->storage.type,
                                 .num_dims = t->num_dims } };
    const ZipMember *storage = NULL;
    int64_t far;
    int err;

    if (name[0] == '\0')
        return dg_fail(DG_EFORMAT, "%s: a single tensor without name",
                       r->f->path);
    if (r->num++ == 100000)
        return dg_fail(DG_EFORMAT, "%s: more than 100000 tensors", r->f->path);
    memcpy(m.info.dims, t->dims, sizeof t->dims);
    memcpy(m.strides, t->strides, sizeof t->strides);
    err = dg_mapped_measure(r->f, &m.info);
    if (!err)
        err = find_storage(r, name, &t->storage, &storage);
    if (err)
        return err;
    far = m.info.count > 0 ? reach(t) : t->offset - 1;
    if (m.info.count > 0 && (far < 0 || far >= t->storage.num))
        return dg_fail(DG_EFORMAT,
                       "%s: tensor %s reaches beyond its storage of %" PRId64
                       " values",
                       r->f->path, name, t->storage.num);
    m.data = r->bytes.p + storage->at;
    if (m.info.count > 0) {
        m.data += t->offset * (dg_weight_type_bits(t->storage.type) / 8);
        m.gaps = has_gaps(t);
    }
    return dg_mapped_add(r->f, &m);
}

/* Members that have a checksum; torch.save() can leave them out. */
static int keep_sums(Reader *r)
{
    int64_t num = 0;
    int err = dg_mapped_new_sums(r->f, r->zip.num);

    for (int64_t i = 0; i < r->zip.num && !err; i++) {
        const ZipMember *m = &r->zip.members[i];
        char *name;

        if (m->crc == 0)
            continue;
        name = strndup(m->name, m->name_length);
        if (name == NULL)
            err = dg_fail(DG_ENOMEM, "%s: names of its members", r->f->path);
        else
            r->f->sums[num++] =
                (MappedSum) { name, r->bytes.p + m->at, m->num_bytes, m->crc };
    }
    if (!err)
        r->f->num_sums = num;
    return err;
}

static int read_archive(Reader *r)
{
    const ZipMember *pickle;
    unsigned char *text = NULL;
    int err = find_root(r);

    if (!err)
        err = check_archive(r);
    if (err)
        return err;
    pickle = find(r, "data.pkl", 8);
    err = dg_bytes_take(&text, &r->bytes, pickle->at, pickle->num_bytes);
    if (!err)
        err =
            dg_pickle_read(r->f->path, text, pickle->num_bytes, add_tensor, r);
    free(text);
    if (!err)
        err = dg_mapped_sort(r->f);
    return err ? err : keep_sums(r);
}

int dg_torch_file_parse(WeightFile **out, const char *path, const void *bytes,
                        size_t num_bytes)
{
    static const unsigned char old[] = { 0x80, 2, 0x8a, 10, 0x6c, 0xfc };
    Reader r = { .bytes = { path, bytes, num_bytes } };
    unsigned char first[sizeof old] = { 0 };
    int err = DG_OK;

    if (num_bytes >= sizeof old)
        err = dg_bytes_copy(first, &r.bytes, 0, sizeof old);
    if (err)
        return err;
    if (memcmp(first, old, sizeof old) == 0)
        return dg_fail(DG_EFORMAT,
                       "%s: a PyTorch file from before version 1.6: load it "
                       "in PyTorch and save it again",
                       path);
    err = dg_mapped_create(&r.f, path, "PyTorch", bytes, num_bytes);
    if (err)
        return err;
    err = dg_zip_open(&r.zip, &r.bytes);
    if (!err)
        err = read_archive(&r);
    dg_zip_close(&r.zip);
    if (err)
        dg_weight_file_close(r.f);
    else
        *out = r.f;
    return err;
}
