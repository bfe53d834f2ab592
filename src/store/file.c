#include "store/file.h"

#include "base/error.h"
#include "base/in_file.h"
#include "base/out_file.h"

int dg_file_read(const char *path, char **text, size_t *bytes)
{
    return dg_in_read(path, text, bytes);
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
