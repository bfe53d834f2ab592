#include "store/file.h"

#include "base/error.h"
#include "base/out_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *path, const char *what)
{
    return dg_fail(DG_EIO, "%s: cannot %s: %s", path, what, strerror(errno));
}

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
    struct stat st;
    char *p = NULL;
    size_t got;
    int err = DG_OK;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return fail(path, "open");
    if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : errno;
        err = fail(path, "read");
        goto close_file;
    }
    p = malloc((size_t)st.st_size + 1);
    if (p == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: %lld bytes to read", path,
                      (long long)st.st_size);
        goto close_file;
    }
    if (read_all(fd, p, (size_t)st.st_size, &got) != 0) {
        err = fail(path, "read");
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
