#include "base/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_NS = 50000000 };

/* Who waited for a file that was then renamed or removed has another one. */
static int has_name(int fd, const char *path)
{
    struct stat mine, there;

    return fstat(fd, &mine) == 0 && stat(path, &there) == 0 &&
           mine.st_ino == there.st_ino;
}

FileLock dg_file_lock(int *fd, const char *path, int flags)
{
    const int f = open(path, O_RDWR | O_CLOEXEC | flags, 0666);
    FileLock lock = DG_LOCK_MINE;

    if (f < 0)
        return DG_LOCK_NO_FILE;
    if (flock(f, LOCK_EX | LOCK_NB) != 0)
        lock = errno == EWOULDBLOCK ? DG_LOCK_OTHERS : DG_LOCK_UNKNOWN;
    if (lock != DG_LOCK_OTHERS && !has_name(f, path))
        lock = DG_LOCK_OTHERS;
    if (lock == DG_LOCK_OTHERS)
        close(f);
    else
        *fd = f;
    return lock;
}

FileLock dg_file_lock_wait(int *fd, const char *path, int flags,
                           double patience_s)
{
    static const struct timespec pause = { 0, PAUSE_NS };
    FileLock lock;

    while ((lock = dg_file_lock(fd, path, flags)) == DG_LOCK_OTHERS &&
           patience_s > 0) {
        nanosleep(&pause, NULL);
        patience_s -= 1e-9 * PAUSE_NS;
    }
    return lock;
}
