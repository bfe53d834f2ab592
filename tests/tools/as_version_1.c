/*
 * Makes a checkpoint, or a trajectory, what programs before version 2 wrote, and
 * of files of adapters how they named the base:
 *   as_version_1 CHECKPOINT [SHA-256 of the base's values]
 *   as_version_1 TRAJECTORY NEXT [SHA-256 of the base's values]
 * NEXT is that of the next iteration, whose weights are those after this one.
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

static int digest_of(char hex[DG_SHA256_HEX], hid_t set)
{
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    const size_t bytes =
        (size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(type);
    void *data = malloc(bytes + 1);
    const int ok =
        data != NULL &&
        H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0 &&
        dg_sha256_bytes(hex, data, bytes) == 0;

    free(data);
    H5Sclose(space);
    H5Tclose(type);
    return ok;
}

/* One digest of all bytes in place of that of the pieces. */
static int change_array(hid_t set)
{
    char hex[DG_SHA256_HEX];

    return digest_of(hex, set) && H5Adelete(set, "sha256_pieces") >= 0 &&
           put_text(set, "sha256", hex);
}

/* The attribute of a trajectory, by the weights that another file begins with. */
static int change_note(hid_t file, const char *pieces, const char *whole,
                       hid_t of)
{
    const hid_t set = H5Dopen2(of, "state/weights", H5P_DEFAULT);
    char hex[DG_SHA256_HEX];

    return set >= 0 && digest_of(hex, set) && H5Dclose(set) >= 0 &&
           H5Adelete(file, pieces) >= 0 && put_text(file, whole, hex);
}

static herr_t forget_digest(hid_t file, const char *name,
                            const H5O_info_t *info, void *user)
{
    (void)info;
    (void)user;
    if (H5Aexists_by_name(file, name, "sha256_pieces", H5P_DEFAULT) > 0)
        return H5Adelete_by_name(file, name, "sha256_pieces", H5P_DEFAULT);
    return 0;
}

/* What came with version 2. */
static int remove_newer(hid_t file)
{
    static const char *const sets[] = {
        "mean_z", "mean_u", "mean_x0", "std", "reward_name", "reward_weight"
    };
    static const char *const keys[] = { "num_generations", "height", "width" };
    int ok = 1;

    for (size_t i = 0; i < sizeof sets / sizeof *sets && ok; i++)
        ok = H5Ldelete(file, sets[i], H5P_DEFAULT) >= 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && ok; i++)
        ok = H5Adelete(file, keys[i]) >= 0;
    return ok && H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, forget_digest,
                           NULL, H5O_INFO_BASIC) >= 0;
}

static int change_trajectory(hid_t file, const char *path)
{
    const hid_t next = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);

    return next >= 0 && remove_newer(file) &&
           change_note(file, "weights_before_sha256_pieces",
                       "weights_before_sha256", file) &&
           change_note(file, "weights_after_sha256_pieces",
                       "weights_after_sha256", next) &&
           H5Fclose(next) >= 0;
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

static int change_checkpoint(hid_t file)
{
    const hid_t arrays = H5Gopen2(file, "arrays", H5P_DEFAULT);

    return arrays >= 0 &&
           H5Literate(arrays, H5_INDEX_NAME, H5_ITER_INC, NULL, visit, NULL) >=
               0 &&
           H5Gclose(arrays) >= 0;
}

int main(int argc, char **argv)
{
    const hid_t file =
        argc > 1 ? H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT) : -1;
    const int trajectory =
        file >= 0 && H5Lexists(file, "latents", H5P_DEFAULT) > 0;
    const int base = trajectory ? 3 : 2; /* of the arguments */
    int ok = file >= 0 && argc >= base && argc <= base + 1;

    if (ok)
        ok = trajectory ? change_trajectory(file, argv[2])
                        : change_checkpoint(file);
    if (ok)
        ok = change_version(file);
    if (ok && argc == base + 1)
        ok = H5Adelete(file, "base_sha256_pieces") >= 0 &&
             put_text(file, "base_sha256", argv[base]);
    if (file >= 0)
        ok = H5Fclose(file) >= 0 && ok;
    if (!ok)
        fprintf(stderr, "as_version_1: cannot change the file\n");
    return ok ? 0 : 1;
}
