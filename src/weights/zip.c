#include "zip.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Sizes of the records without their names and extra fields. */
enum {
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_COMMENT = 65535
};

/* The central directory: where, and how many members. */
typedef struct Directory {
    uint64_t at, bytes, num;
} Directory;

static uint16_t u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const unsigned char *p)
{
    return u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p)
{
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

static int holds(const FileBytes *in, uint64_t at, uint64_t bytes)
{
    return at <= in->num && bytes <= in->num - at;
}

static int bad(const FileBytes *in, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: not a whole zip archive: %s", in->path,
                   what);
}

static int bad_member(const FileBytes *in, const ZipMember *m, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: member %.*s: %s", in->path,
                   m->name_length < 200 ? (int)m->name_length : 200, m->name,
                   what);
}

/* The end record stands before a comment of any length: from the end back. */
static int find_end(const FileBytes *in, uint64_t *at,
                    unsigned char record[END_BYTES])
{
    const uint64_t reach = END_BYTES + MAX_COMMENT;
    const uint64_t num = in->num < reach ? in->num : reach;
    unsigned char *tail = NULL;
    uint64_t i;
    int err;

    if (in->num < END_BYTES)
        return bad(in, "it is too short");
    err = dg_bytes_take(&tail, in, in->num - num, num);
    if (err)
        return err;
    for (i = num - END_BYTES + 1; i-- > 0;)
        if (memcmp(tail + i, "PK\5\6", 4) == 0 &&
            u16(tail + i + 20) == num - i - END_BYTES) {
            *at = in->num - num + i;
            memcpy(record, tail + i, END_BYTES);
            break;
        }
    free(tail);
    return i < num ? DG_OK : bad(in, "its end record is missing");
}

static int read_end64(const FileBytes *in, uint64_t end, Directory *d)
{
    unsigned char p[END64_BYTES] = { 0 }, locator[LOCATOR_BYTES] = { 0 };
    uint64_t at;
    int err = DG_OK;

    if (end >= LOCATOR_BYTES)
        err = dg_bytes_copy(locator, in, end - LOCATOR_BYTES, LOCATOR_BYTES);
    if (err)
        return err;
    if (memcmp(locator, "PK\6\7", 4) != 0)
        return bad(in, "its zip64 locator is missing");
    at = u64(locator + 8);
    if (!holds(in, at, END64_BYTES))
        return bad(in, "its zip64 end record is missing");
    err = dg_bytes_copy(p, in, at, END64_BYTES);
    if (err)
        return err;
    if (memcmp(p, "PK\6\6", 4) != 0)
        return bad(in, "its zip64 end record is missing");
    if (u32(p + 16) != 0 || u32(p + 20) != 0)
        return bad(in, "it is one of several parts");
    d->num = u64(p + 32);
    d->bytes = u64(p + 40);
    d->at = u64(p + 48);
    return DG_OK;
}

static int find_directory(const FileBytes *in, Directory *d)
{
    unsigned char p[END_BYTES] = { 0 };
    uint64_t end = 0;
    int err = find_end(in, &end, p);

    if (err)
        return err;
    d->num = u16(p + 10);
    d->bytes = u32(p + 12);
    d->at = u32(p + 16);
    if (d->num == 0xffff || d->bytes == 0xffffffffU || d->at == 0xffffffffU)
        err = read_end64(in, end, d);
    else if (u16(p + 4) != 0 || u16(p + 6) != 0)
        err = bad(in, "it is one of several parts");
    if (err)
        return err;
    if (!holds(in, d->at, d->bytes))
        return bad(in, "its directory lies beyond its end");
    if (d->num > d->bytes / CENTRAL_BYTES)
        return bad(in, "its directory is too short for its members");
    return DG_OK;
}

/* Extra field 1 has, in this order, those of the three that did not fit. */
static int widen_sizes(const FileBytes *in, const ZipMember *m,
                       const unsigned char *extra, uint64_t length,
                       uint64_t *const value[3])
{
    while (length >= 4) {
        const uint64_t size = u16(extra + 2);
        const unsigned char *p = extra + 4;
        uint64_t rest = size;

        if (size > length - 4)
            break;
        for (int i = 0; u16(extra) == 1 && i < 3; i++) {
            if (*value[i] != 0xffffffffU)
                continue;
            if (rest < 8)
                return bad_member(in, m, "its zip64 sizes are missing");
            *value[i] = u64(p);
            p += 8;
            rest -= 8;
        }
        extra += 4 + size;
        length -= 4 + size;
    }
    return DG_OK;
}

/* Where the values of a member lie whose local header is at that byte. */
static int find_values(const FileBytes *in, ZipMember *m, uint64_t at)
{
    unsigned char p[LOCAL_BYTES] = { 0 };
    uint64_t local;
    int err;

    if (!holds(in, at, LOCAL_BYTES))
        return bad_member(in, m, "its local header is missing");
    err = dg_bytes_copy(p, in, at, LOCAL_BYTES);
    if (err)
        return err;
    if (memcmp(p, "PK\3\4", 4) != 0)
        return bad_member(in, m, "its local header is missing");
    local = LOCAL_BYTES + u16(p + 26) + (uint64_t)u16(p + 28);
    if (!holds(in, at, local) || !holds(in, at + local, m->num_bytes))
        return bad_member(in, m, "reaches beyond the end of the file");
    m->at = at + local;
    return DG_OK;
}

/* The member at p of the directory, and the length of its record. */
static int read_member(const FileBytes *in, const unsigned char *p,
                       uint64_t rest, ZipMember *m, uint64_t *length)
{
    uint64_t stored = 0, full = 0, at = 0, extra;
    uint64_t *const value[3] = { &full, &stored, &at };
    int err;

    if (rest < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
        return bad(in, "its directory is damaged");
    m->name_length = u16(p + 28);
    extra = u16(p + 30);
    *length = CENTRAL_BYTES + m->name_length + extra + u16(p + 32);
    if (*length > rest)
        return bad(in, "its directory is damaged");
    m->name = (const char *)p + CENTRAL_BYTES;
    if (u16(p + 10) != 0)
        return bad_member(in, m, "compressed: stored members are known only");
    if (u16(p + 8) & 1)
        return bad_member(in, m, "encrypted");
    stored = u32(p + 20);
    full = u32(p + 24);
    at = u32(p + 42);
    err = widen_sizes(in, m, p + CENTRAL_BYTES + m->name_length, extra, value);
    if (err)
        return err;
    if (stored != full)
        return bad_member(in, m, "two different sizes");
    m->num_bytes = full;
    m->crc = u32(p + 16);
    return find_values(in, m, at);
}

static int by_name(const void *a, const void *b)
{
    const ZipMember *m = a, *n = b;
    const size_t both =
        m->name_length < n->name_length ? m->name_length : n->name_length;
    const int order = memcmp(m->name, n->name, both);

    if (order)
        return order;
    return (m->name_length > n->name_length) -
           (m->name_length < n->name_length);
}

static int read_members(Zip *zip, const FileBytes *in, const Directory *d)
{
    uint64_t at = 0, held = 0;

    for (; zip->num < (int64_t)d->num; zip->num++) {
        uint64_t length = 0;
        int err = read_member(in, zip->directory + at, d->bytes - at,
                              &zip->members[zip->num], &length);

        if (err)
            return err;
        at += length;
        /* a short file whose members take forever to look through */
        held += zip->members[zip->num].num_bytes;
        if (held > in->num)
            return bad(in, "its members overlap");
    }
    if (zip->num > 1)
        qsort(zip->members, (size_t)zip->num, sizeof *zip->members, by_name);
    for (int64_t i = 1; i < zip->num; i++)
        if (by_name(&zip->members[i - 1], &zip->members[i]) == 0)
            return bad_member(in, &zip->members[i], "is there twice");
    return DG_OK;
}

int dg_zip_open(Zip *zip, const FileBytes *in)
{
    Directory d;
    int err = find_directory(in, &d);

    if (err)
        return err;
    *zip = (Zip) { .members = calloc(d.num + 1, sizeof *zip->members) };
    if (zip->members == NULL)
        return dg_fail(DG_ENOMEM, "%s: directory of %" PRIu64 " members",
                       in->path, d.num);
    err = dg_bytes_take(&zip->directory, in, d.at, d.bytes);
    if (!err)
        err = read_members(zip, in, &d);
    if (err)
        dg_zip_close(zip);
    return err;
}

void dg_zip_close(Zip *zip)
{
    free(zip->members);
    free(zip->directory);
    *zip = (Zip) { 0 };
}

const ZipMember *dg_zip_find(const Zip *zip, const char *name,
                             size_t name_length)
{
    const ZipMember key = { .name = name, .name_length = name_length };

    if (zip->num == 0)
        return NULL;
    return bsearch(&key, zip->members, (size_t)zip->num, sizeof *zip->members,
                   by_name);
}
