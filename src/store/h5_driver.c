#include "h5_internal.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

enum { PAGE_BYTES = 4096 };

/*
 * A file driver for writing. After a failed write HDF5's own drivers leave
 * the library with a file that it can neither write nor close, and it ends in
 * a crash inside MPI_Finalize(). This one keeps the first error for us in the
 * H5Sink, drops what follows, and lets HDF5 go on to a clean end.
 */
typedef struct DriverFile {
    H5FD_t public; /* must come first */
    H5Sink *sink;
    int fd;
    haddr_t eoa, eof;
} DriverFile;

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access,
                           haddr_t max)
{
    H5Sink *const *sink = H5Pget_driver_info(access);
    DriverFile *f = calloc(1, sizeof *f);

    (void)flags;
    (void)max;
    if (f == NULL || sink == NULL) {
        free(f);
        return NULL;
    }
    f->sink = *sink;
    f->fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        f->sink->error = errno;
        free(f);
        return NULL;
    }
    return &f->public;
}

static herr_t driver_close(H5FD_t *file)
{
    DriverFile *f = (DriverFile *)file;

    if (fsync(f->fd) != 0 && f->sink->error == 0)
        f->sink->error = errno;
    if (close(f->fd) != 0 && f->sink->error == 0)
        f->sink->error = errno;
    free(f);
    return 0;
}

static herr_t driver_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA;
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const DriverFile *)file)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t eoa)
{
    (void)type;
    ((DriverFile *)file)->eoa = eoa;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const DriverFile *)file)->eof;
}

static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t how, haddr_t at,
                          size_t bytes, void *data)
{
    const DriverFile *f = (const DriverFile *)file;
    char *to = data;

    (void)type;
    (void)how;
    while (bytes > 0) {
        const ssize_t n = pread(f->fd, to, bytes, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        to += n;
        at += (haddr_t)n;
        bytes -= (size_t)n;
    }
    memset(to, 0, bytes); /* beyond the end of the file */
    return 0;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t how, haddr_t at,
                           size_t bytes, const void *data)
{
    DriverFile *f = (DriverFile *)file;
    const char *from = data;

    (void)type;
    (void)how;
    if (at + bytes > f->eof)
        f->eof = at + bytes;
    while (bytes > 0 && f->sink->error == 0) {
        const ssize_t n = pwrite(f->fd, from, bytes, (off_t)at);

        if (n < 0 && errno != EINTR)
            f->sink->error = errno;
        from += n > 0 ? n : 0;
        at += n > 0 ? (haddr_t)n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static herr_t driver_truncate(H5FD_t *file, hid_t how, hbool_t closing)
{
    DriverFile *f = (DriverFile *)file;

    (void)how;
    (void)closing;
    if (f->sink->error == 0 && ftruncate(f->fd, (off_t)f->eoa) != 0)
        f->sink->error = errno;
    f->eof = f->eoa;
    return 0;
}

static const H5FD_class_t driver = {
#ifdef H5FD_CLASS_VERSION
    .version = H5FD_CLASS_VERSION,
    .value = 600, /* of the range HDF5 leaves to others */
#endif
    .name = "dancegrpo",
    .maxaddr = ((haddr_t)1 << 62) - 1,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(H5Sink *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t dg_h5_create_file(const char *path, H5Sink *sink)
{
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    const hid_t how = H5Pcreate(H5P_FILE_CREATE);
    hid_t file;

    sink->error = 0;
    sink->driver = H5FDregister(&driver);
    H5Pset_driver(access, sink->driver, &sink);
    /* Long attributes (a whole configuration) need the 1.8 layout. */
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    /* Pages of their own for datasets, and for what HDF5 writes about them: a
       client of NFS may write back the whole page of which it changed a part,
       and then one host's metadata undo the end of another's data. */
    H5Pset_alignment(access, PAGE_BYTES, PAGE_BYTES);
    H5Pset_meta_block_size(access, (hsize_t)16 * PAGE_BYTES);
    H5Pset_obj_track_times(how, 0); /* the root group's: as all else */
    file = H5Fcreate(path, H5F_ACC_TRUNC, how, access);
    H5Pclose(how);
    H5Pclose(access);
    if (file < 0)
        H5FDunregister(sink->driver);
    return file;
}

herr_t dg_h5_close_file(hid_t file, H5Sink *sink)
{
    const herr_t done = H5Fclose(file);

    /* not before: H5FD_close() gives back the file's hold on the driver and
       then still reads from it */
    H5FDunregister(sink->driver);
    return done;
}
