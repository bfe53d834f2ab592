#include "base/in_file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int dg_in_open(int *fd, int64_t *bytes, const char *path)
{
    struct stat st;
    const int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int err = DG_OK;

    if (f < 0)
        return dg_fail(DG_EIO, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(f, &st) != 0)
        err = dg_fail(DG_EIO, "%s: cannot read: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        err = dg_fail(DG_EIO, "%s: cannot read: %s", path,
                      S_ISDIR(st.st_mode) ? "is a folder, wanted is a file"
                                          : "not a regular file");
    if (err) {
        close(f);
        return err;
    }
    *fd = f;
    *bytes = st.st_size;
    return DG_OK;
}
