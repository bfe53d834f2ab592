#include "base/in_file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A relative path is looked for where the program was started, which may be
 * another folder than the user thinks. */
static int cannot_open(const char *path)
{
    const int why = errno;
    char here[512];

    if (why == ENOENT && path[0] != '/' && getcwd(here, sizeof here) != NULL)
        return dg_fail(DG_EIO,
                       "%s: cannot open: %s (looked for in %s, where the "
                       "program was started)",
                       path, strerror(why), here);
    return dg_fail(DG_EIO, "%s: cannot open: %s", path, strerror(why));
}

int dg_in_open(int *fd, int64_t *bytes, const char *path)
{
    struct stat st;
    const int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int err = DG_OK;

    if (f < 0)
        return cannot_open(path);
    if (fstat(f, &st) != 0)
        err = dg_fail(DG_EIO, "%s: cannot read: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        err = dg_fail(DG_EIO, "%s: cannot read: %s", path,
                      S_ISDIR(st.st_mode) ? "is a folder; a file is wanted"
                                          : "not a regular file");
    if (err) {
        close(f);
        return err;
    }
    *fd = f;
    *bytes = st.st_size;
    return DG_OK;
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

int dg_in_read(const char *path, char **text, size_t *bytes)
{
    int64_t size;
    char *p = NULL;
    size_t got;
    int fd;
    int err = dg_in_open(&fd, &size, path);

    if (err)
        return err;
    /* weights that are named for prompts would fill the memory first */
    if (size > DG_IN_MOST) {
        err = dg_fail(DG_EFORMAT,
                      "%s: %lld bytes, at most %lld are read into memory: is "
                      "it the right file?",
                      path, (long long)size, (long long)DG_IN_MOST);
        goto close_file;
    }
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
