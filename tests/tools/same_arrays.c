/*
 * Whether two checkpoints hold the same arrays, bit for bit:
 *   same_arrays FILE FILE
 * Their names, data and digests; fails naming those that differ.
 */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Array {
    char digest[80];
    float *data;
    hssize_t num;
} Array;

static int read_array(Array *a, hid_t file, const char *path)
{
    const hid_t set = H5Dopen2(file, path, H5P_DEFAULT);
    const hid_t space = set < 0 ? -1 : H5Dget_space(set);
    const hid_t key = set < 0 ? -1 : H5Aopen(set, "sha256_pieces", H5P_DEFAULT);
    const hid_t type = key < 0 ? -1 : H5Aget_type(key);
    int bad;

    memset(a, 0, sizeof *a);
    a->num = space < 0 ? 0 : H5Sget_simple_extent_npoints(space);
    a->data = malloc((size_t)a->num * sizeof *a->data + 1);
    bad = type < 0 || H5Tget_size(type) >= sizeof a->digest ||
          H5Aread(key, type, a->digest) < 0 || a->data == NULL ||
          H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                  a->data) < 0;
    if (type >= 0)
        H5Tclose(type);
    if (key >= 0)
        H5Aclose(key);
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
    return bad;
}

static int differ(const hid_t file[2], const char *name)
{
    char path[256];
    Array a[2];
    int bad = 0;

    snprintf(path, sizeof path, "arrays/%s", name);
    /* moments are there in one way */
    if (H5Lexists(file[0], path, H5P_DEFAULT) == 0 &&
        H5Lexists(file[1], path, H5P_DEFAULT) == 0)
        return 0;
    for (int i = 0; i < 2; i++)
        bad |= read_array(&a[i], file[i], path);
    if (!bad)
        bad = a[0].num != a[1].num || strcmp(a[0].digest, a[1].digest) != 0 ||
              memcmp(a[0].data, a[1].data,
                     (size_t)a[0].num * sizeof *a[0].data) != 0;
    if (bad)
        printf("same_arrays: %s differs\n", path);
    free(a[0].data);
    free(a[1].data);
    return bad;
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "weights",       "adam_m",
                                         "adam_v",        "adam_m_codes",
                                         "adam_v_codes",  "adam_m_scales",
                                         "adam_v_scales", "ema" };
    hid_t file[2];
    int bad = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: same_arrays FILE FILE\n");
        return 2;
    }
    for (int i = 0; i < 2; i++)
        file[i] = H5Fopen(argv[1 + i], H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int i = 0; i < 8 && file[0] >= 0 && file[1] >= 0; i++)
        bad |= differ(file, names[i]);
    bad |= file[0] < 0 || file[1] < 0;
    for (int i = 0; i < 2; i++)
        if (file[i] >= 0)
            H5Fclose(file[i]);
    return bad;
}
