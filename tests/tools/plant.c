/*
 * Plants a fault in an HDF5 file, for tests that must notice it:
 *   plant FILE flip DATASET INDEX   the lowest bit of one number
 *   plant FILE add DATASET INDEX    0.25 more, in a float dataset
 *   plant FILE nan DATASET INDEX    a NaN, in a float dataset
 *   plant FILE attribute NAME N     another integer value
 *   plant FILE config FROM TO       another text of the same length in the
 *                                   stored configuration
 */
#include <hdf5.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One number of a dataset, in the type it is stored in. */
static int change_number(hid_t file, const char *name, int64_t index, char how)
{
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    const hssize_t num = H5Sget_simple_extent_npoints(space);
    const size_t size = H5Tget_size(type);
    unsigned char *data = malloc((size_t)num * size);
    float value;
    int ok = data != NULL && index >= 0 && index < num &&
             H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;

    ok = ok && (how == 'f' || size == sizeof value);
    if (ok && how == 'f') {
        data[(size_t)index * size] ^= 1; /* little-endian: lowest bit */
    } else if (ok) {
        memcpy(&value, data + (size_t)index * size, size);
        value = how == 'n' ? NAN : value + 0.25f;
        memcpy(data + (size_t)index * size, &value, size);
    }
    ok = ok && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    free(data);
    H5Sclose(space);
    H5Tclose(type);
    return ok && H5Dclose(set) >= 0;
}

static int change_attribute(hid_t file, const char *name, int64_t value)
{
    const hid_t a = H5Aopen(file, name, H5P_DEFAULT);
    const int ok = a >= 0 && H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0;

    return ok && H5Aclose(a) >= 0;
}

static int change_config(hid_t file, const char *from, const char *to)
{
    const hid_t a = H5Aopen(file, "config", H5P_DEFAULT);
    const hid_t type = H5Aget_type(a);
    const size_t size = H5Tget_size(type);
    char *text = calloc(size + 1, 1), *at = NULL;
    int ok = text != NULL && strlen(from) == strlen(to) &&
             H5Aread(a, type, text) >= 0;

    if (ok)
        at = strstr(text, from);
    if (at != NULL)
        memcpy(at, to, strlen(to));
    ok = at != NULL && H5Awrite(a, type, text) >= 0;
    free(text);
    H5Tclose(type);
    return ok && H5Aclose(a) >= 0;
}

int main(int argc, char **argv)
{
    hid_t file;
    int64_t number;
    int ok;

    if (argc != 5) {
        fprintf(stderr, "usage: plant FILE flip|add|nan|attribute NAME NUMBER\n"
                        "       plant FILE config FROM TO\n");
        return 2;
    }
    file = H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT);
    number = strtoll(argv[4], NULL, 10);
    if (strcmp(argv[2], "attribute") == 0)
        ok = change_attribute(file, argv[3], number);
    else if (strcmp(argv[2], "config") == 0)
        ok = change_config(file, argv[3], argv[4]);
    else
        ok = change_number(file, argv[3], number, argv[2][0]);
    ok = H5Fclose(file) >= 0 && ok;
    if (!ok)
        fprintf(stderr, "plant: %s: %s could not be changed\n", argv[1],
                argv[3]);
    return !ok;
}
