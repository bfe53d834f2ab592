#include "store/file.h"

#include "base/error.h"
#include "base/in_file.h"
#include "base/out_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_all(int fd, char *at, size_t bytes, size_t *got)
{
    *got = 0;
    while (*got < bytes) {
        const ssize_t n = read(fd, at + *got, bytes - *got);

        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            return -1;
        *got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int dg_file_read(const char *path, char **text, size_t *bytes)
{
    int64_t size;
    char *p = NULL;
    size_t got;
    int fd;
    int err = dg_in_open(&fd, &size, path);

    if (err)
        return err;
    p = malloc((size_t)size + 1);
    if (p == NULL) {
        err =
            dg_fail(DG_ENOMEM, "%s: %lld bytes to read", path, (long long)size);
        goto close_file;
    }
    if (read_all(fd, p, (size_t)size, &got) != 0) {
        err = dg_fail(DG_EIO, "%s: cannot read: %s", path, strerror(errno));
        free(p);
        goto close_file;
    }
    p[got] = '\0';
    *text = p;
    *bytes = got;
close_file:
    close(fd);
    return err;
}

int dg_file_write(const char *path, const void *data, size_t bytes)
{
    OutFile *f;
    int err = dg_out_open(&f, path);

    if (err)
        return err;
    err = dg_out_write(f, data, bytes);
    if (err)
        dg_out_abandon(f);
    else
        err = dg_out_commit(f);
    return err;
}
