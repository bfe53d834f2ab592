/*
 * Makes a checkpoint what programs before version 2 wrote, and of files of
 * adapters, trajectories too, how they named the base:
 *   as_version_1 FILE [SHA-256 of the base's values]
 */
#include "base/sha256.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int put_text(hid_t object, const char *key, const char *value)
{
    const hid_t type = H5Tcopy(H5T_C_S1), one = H5Screate(H5S_SCALAR);
    hid_t a;
    int ok;

    H5Tset_size(type, strlen(value));
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    a = H5Acreate2(object, key, type, one, H5P_DEFAULT, H5P_DEFAULT);
    ok = a >= 0 && H5Awrite(a, type, value) >= 0 && H5Aclose(a) >= 0;
    H5Sclose(one);
    H5Tclose(type);
    return ok;
}

/* One digest of all bytes in place of that of the pieces. */
static int change_array(hid_t set)
{
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    const size_t bytes =
        (size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(type);
    void *data = malloc(bytes + 1);
    char hex[DG_SHA256_HEX];
    const int ok =
        data != NULL &&
        H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0 &&
        dg_sha256_bytes(hex, data, bytes) == 0 &&
        H5Adelete(set, "sha256_pieces") >= 0 && put_text(set, "sha256", hex);

    free(data);
    H5Sclose(space);
    H5Tclose(type);
    return ok;
}

static herr_t visit(hid_t arrays, const char *name, const H5L_info_t *info,
                    void *user)
{
    const hid_t set = H5Dopen2(arrays, name, H5P_DEFAULT);
    const int ok = set >= 0 && change_array(set);

    (void)info;
    (void)user;
    return ok && H5Dclose(set) >= 0 ? 0 : -1;
}

static int change_version(hid_t file)
{
    const hid_t a = H5Aopen(file, "format_version", H5P_DEFAULT);
    const int64_t one = 1;

    return a >= 0 && H5Awrite(a, H5T_NATIVE_INT64, &one) >= 0 &&
           H5Aclose(a) >= 0;
}

int main(int argc, char **argv)
{
    hid_t file, arrays;
    int ok = argc == 2 || argc == 3;

    file = ok ? H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT) : -1;
    ok = file >= 0;
    if (ok && H5Lexists(file, "arrays", H5P_DEFAULT) > 0) {
        arrays = H5Gopen2(file, "arrays", H5P_DEFAULT);
        ok = H5Literate(arrays, H5_INDEX_NAME, H5_ITER_INC, NULL, visit,
                        NULL) >= 0 &&
             H5Gclose(arrays) >= 0 && change_version(file);
    }
    if (ok && argc == 3)
        ok = H5Adelete(file, "base_sha256_pieces") >= 0 &&
             put_text(file, "base_sha256", argv[2]);
    if (file >= 0)
        ok = H5Fclose(file) >= 0 && ok;
    if (!ok)
        fprintf(stderr, "as_version_1: cannot change the file\n");
    return ok ? 0 : 1;
}
