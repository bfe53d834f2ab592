#include "buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/in_file.h"

static const size_t largest_file = (size_t)256 << 20;

int dg_buffer_reserve(void **at, size_t *room, size_t num, size_t size)
{
    size_t more = *room;
    void *p;

    if (num <= *room)
        return DG_OK;
    while (more < num)
        more = more < 32 ? 32 : more + more / 2;
    if (more > PTRDIFF_MAX / size)
        return dg_fail(DG_ENOMEM, "tokenizer: %zu elements", num);
    p = realloc(*at, more * size);
    if (p == NULL)
        return dg_fail(DG_ENOMEM, "tokenizer: %zu bytes", more * size);
    *at = p;
    *room = more;
    return DG_OK;
}

int dg_bytes_add(Bytes *b, const void *data, size_t size)
{
    void *at = b->at;
    int err = dg_buffer_reserve(&at, &b->room, b->used + size, 1);

    b->at = at;
    if (err || size == 0)
        return err;
    memcpy(b->at + b->used, data, size);
    b->used += size;
    return DG_OK;
}

int dg_ids_add(Ids *ids, int32_t id)
{
    void *at = ids->at;
    int err = dg_buffer_reserve(&at, &ids->room, ids->used + 1, sizeof id);

    ids->at = at;
    if (!err)
        ids->at[ids->used++] = id;
    return err;
}

void dg_bytes_free(Bytes *b)
{
    free(b->at);
    memset(b, 0, sizeof *b);
}

void dg_ids_free(Ids *ids)
{
    free(ids->at);
    memset(ids, 0, sizeof *ids);
}

static int read_open(Bytes *b, FILE *f, int64_t size, const char *path)
{
    if ((uint64_t)size > largest_file)
        return dg_fail(DG_EFORMAT, "%s: %lld bytes; at most %zu are read", path,
                       (long long)size, largest_file);
    b->room = (size_t)size + 1;
    b->at = malloc(b->room);
    if (b->at == NULL)
        return dg_fail(DG_ENOMEM, "%s: %zu bytes to read", path, b->room);
    b->used = fread(b->at, 1, b->room - 1, f);
    if (ferror(f))
        return dg_fail(DG_EIO, "%s: cannot read: %s", path, strerror(errno));
    b->at[b->used] = '\0';
    return DG_OK;
}

int dg_bytes_read(Bytes *b, const char *path, int must)
{
    struct stat st;
    int64_t size;
    FILE *f;
    int fd, err;

    memset(b, 0, sizeof *b);
    if (!must && stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return DG_OK;
    err = dg_in_open(&fd, &size, path);
    if (err)
        return err;
    f = fdopen(fd, "rb");
    if (f == NULL) {
        close(fd);
        return dg_fail(DG_ENOMEM, "%s: to be read", path);
    }
    err = read_open(b, f, size, path);
    fclose(f);
    if (err)
        dg_bytes_free(b);
    return err;
}

int dg_bytes_read_in(Bytes *b, char *path, size_t path_room, const char *folder,
                     const char *name, int must)
{
    int n = snprintf(path, path_room, "%s/%s", folder, name);

    memset(b, 0, sizeof *b);
    if (n < 0 || (size_t)n >= path_room)
        return dg_fail(DG_EINVAL, "tokenizer folder %.80s...: name too long",
                       folder);
    return dg_bytes_read(b, path, must);
}
