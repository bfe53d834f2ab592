#include "store/file.h"

#include "base/error.h"

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

static int write_all(int fd, const char *at, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t n = write(fd, at, bytes);

        if (n < 0 && errno != EINTR)
            return -1;
        at += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int dg_file_write(const char *path, const void *data, size_t bytes)
{
    const size_t room = strlen(path) + sizeof ".tmp";
    char *tmp = malloc(room);
    int err, fd;

    if (tmp == NULL)
        return dg_fail(DG_ENOMEM, "%s: its name", path);
    snprintf(tmp, room, "%s.tmp", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        err = fail(tmp, "create");
        goto free_name;
    }
    err = DG_OK;
    if (write_all(fd, data, bytes) != 0 || fsync(fd) != 0)
        err = fail(path, "write");
    if (close(fd) != 0 && err == DG_OK)
        err = fail(path, "write");
    if (err == DG_OK && rename(tmp, path) != 0)
        err = fail(path, "rename into");
    if (err == DG_OK)
        err = dg_file_sync_folder(path);
    else
        unlink(tmp);
free_name:
    free(tmp);
    return err;
}

int dg_file_sync_folder(const char *path_in_folder)
{
    const char *slash = strrchr(path_in_folder, '/');
    const size_t length = slash ? (size_t)(slash - path_in_folder) : 0;
    char *folder =
        slash ? strndup(path_in_folder, length ? length : 1) : strdup(".");
    int err = DG_OK, fd;

    if (folder == NULL)
        return dg_fail(DG_ENOMEM, "%s: its folder's name", path_in_folder);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot sync a folder and say EINVAL. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        err = fail(folder, "sync");
    if (fd >= 0)
        close(fd);
    free(folder);
    return err;
}
