#ifndef DG_TESTS_FUZZ_RECIPE_H
#define DG_TESTS_FUZZ_RECIPE_H
/*
 * Changes to an HDF5 file, byte by byte from a recipe. What HDF5 refuses is
 * left out.
 */
#include <hdf5.h>
#include <stdint.h>
#include <string.h>

typedef struct Recipe {
    const uint8_t *at, *end;
} Recipe;

static inline unsigned take(Recipe *r, unsigned below)
{
    return r->at < r->end ? *r->at++ % below : 0;
}

#define PICK(r, list) (list)[take(r, sizeof(list) / sizeof *(list))]

static inline const char *pick_object(Recipe *r)
{
    static const char *const names[] = {
        "/",
        "arrays/weights",
        "arrays/ema",
        "parameters/name",
        "parameters/offset",
        "parameters/num_dims",
        "parameters/shape",
        "counters/optimizer_step",
        "weights/a.weight",
        "weights/b",
        "lists/words",
        "provenance",
        "condition",
        "prompt",
        "prompt_sha256",
        "tokens_sha256",
        "condition_sha256",
        "latent",
        "arrays",
        "more/of/it",
    };
    return PICK(r, names);
}

static inline const char *pick_key(Recipe *r)
{
    static const char *const keys[] = {
        "format",    "format_version", "complete",       "sha256",
        "iteration", "base_sha256",    "encoder_sha256", "units",
        "how",       "weights_sha256", "sha256_pieces",  "base_sha256_pieces",
    };
    return PICK(r, keys);
}

/* To be closed. */
static inline hid_t pick_type(Recipe *r)
{
    const unsigned which = take(r, 16), size = take(r, 200) + 1;
    const hid_t numbers[] = { H5T_IEEE_F32LE, H5T_IEEE_F64BE, H5T_STD_I64LE,
                              H5T_STD_U8LE,   H5T_STD_U64BE,  H5T_STD_I16LE,
                              H5T_STD_I32BE,  H5T_STD_B8LE,   H5T_STD_REF_OBJ };
    const hsize_t three = 3;
    hid_t t;

    if (which < 9)
        return H5Tcopy(numbers[which]);
    if (which == 9 || which == 10) {
        t = H5Tcopy(H5T_C_S1);
        H5Tset_size(t, which == 9 ? size : H5T_VARIABLE);
        return t;
    }
    if (which == 11)
        return H5Tarray_create2(H5T_STD_I32LE, 1, &three);
    if (which == 12)
        return H5Tvlen_create(H5T_STD_I32LE);
    if (which == 13)
        return H5Tcreate(H5T_OPAQUE, size);
    if (which == 14) {
        t = H5Tcreate(H5T_COMPOUND, 16);
        H5Tinsert(t, "a", 0, H5T_STD_I64LE);
        H5Tinsert(t, "b", 8, H5T_IEEE_F64LE);
        return t;
    }
    t = H5Tcopy(H5T_IEEE_F32LE); /* a float of an odd form, 2 bytes */
    H5Tset_fields(t, 15, 7, 8, 0, 7);
    H5Tset_size(t, 2);
    return t;
}

/* To be closed. */
static inline hid_t pick_space(Recipe *r, int large)
{
    static const hsize_t dims[] = { 0,
                                    1,
                                    2,
                                    3,
                                    4,
                                    5,
                                    10,
                                    65,
                                    (hsize_t)1 << 31,
                                    (hsize_t)1 << 40,
                                    (hsize_t)1 << 62,
                                    ((hsize_t)1 << 63) + 5 };
    const unsigned rank = take(r, 10);
    hsize_t d[8];

    if (rank == 8)
        return H5Screate(H5S_NULL);
    if (rank == 9 || rank == 0)
        return H5Screate(H5S_SCALAR);
    for (unsigned i = 0; i < rank; i++)
        d[i] = dims[take(r, large ? 12 : 8)];
    return H5Screate_simple((int)rank, d, NULL);
}

static inline hid_t pick_layout(Recipe *r)
{
    static const hsize_t chunk[8] = { 2, 2, 2, 2, 2, 2, 2, 2 };
    const hid_t how = H5Pcreate(H5P_DATASET_CREATE);

    switch (take(r, 6)) {
    case 0:
        H5Pset_layout(how, H5D_COMPACT);
        break;
    case 1:
        H5Pset_chunk(how, (int)take(r, 7) + 1, chunk);
        break;
    case 2:
        H5Pset_chunk(how, (int)take(r, 7) + 1, chunk);
        H5Pset_deflate(how, 1);
        break;
    case 3:
        H5Pset_external(how, "outside", 0, H5F_UNLIMITED);
        break;
    default:
        break;
    }
    return how;
}

static inline double bytes_of(hid_t type, hid_t space)
{
    hsize_t dims[H5S_MAX_RANK];
    double bytes = (double)H5Tget_size(type);
    const int rank = H5Sget_simple_extent_dims(space, dims, NULL);

    for (int i = 0; i < rank; i++)
        bytes *= (double)dims[i];
    return bytes;
}

static inline void put_set(Recipe *r, hid_t file)
{
    static char bytes[1 << 16];
    const char *name = pick_object(r);
    const hid_t type = pick_type(r), space = pick_space(r, 1);
    const hid_t how = pick_layout(r), links = H5Pcreate(H5P_LINK_CREATE);
    const unsigned value = take(r, 256);
    hid_t set;

    H5Pset_create_intermediate_group(links, 1);
    H5Ldelete(file, name, H5P_DEFAULT);
    set = H5Dcreate2(file, name, type, space, links, how, H5P_DEFAULT);
    memset(bytes, (int)value, sizeof bytes);
    if (set >= 0 && value != 0 && H5Tis_variable_str(type) <= 0 &&
        H5Tget_class(type) != H5T_VLEN && H5Tget_class(type) != H5T_REFERENCE &&
        bytes_of(type, space) <= (double)sizeof bytes)
        H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes);
    if (set >= 0)
        H5Dclose(set);
    H5Pclose(links);
    H5Pclose(how);
    H5Sclose(space);
    H5Tclose(type);
}

/* An attribute of any type, or a text given in the recipe. */
static inline void put_key(Recipe *r, hid_t file, int text)
{
    static char bytes[1 << 16];
    const char *object = pick_object(r), *key = pick_key(r);
    const hid_t type = text ? H5Tcopy(H5T_C_S1) : pick_type(r);
    const hid_t space = text ? H5Screate(H5S_SCALAR) : pick_space(r, 0);
    const unsigned n = take(r, 80);
    hid_t a;

    memset(bytes, (int)n, sizeof bytes);
    if (text) {
        H5Tset_size(type, n + 1);
        for (unsigned i = 0; i < n; i++)
            bytes[i] = (char)take(r, 256);
    }
    H5Adelete_by_name(file, object, key, H5P_DEFAULT);
    a = bytes_of(type, space) > (double)sizeof bytes
            ? H5I_INVALID_HID
            : H5Acreate_by_name(file, object, key, type, space, H5P_DEFAULT,
                                H5P_DEFAULT, H5P_DEFAULT);
    if (a >= 0 && H5Tis_variable_str(type) <= 0 &&
        H5Tget_class(type) != H5T_VLEN && H5Tget_class(type) != H5T_REFERENCE)
        H5Awrite(a, type, bytes);
    if (a >= 0)
        H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
}

static inline void put_link(Recipe *r, hid_t file)
{
    const char *name = pick_object(r), *target = pick_object(r);

    H5Ldelete(file, name, H5P_DEFAULT);
    switch (take(r, 3)) {
    case 0:
        H5Lcreate_soft(target, file, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 1:
        H5Lcreate_external("weights.h5", target, file, name, H5P_DEFAULT,
                           H5P_DEFAULT);
        break;
    default:
        H5Lcreate_hard(file, target, file, name, H5P_DEFAULT, H5P_DEFAULT);
    }
}

static inline void fuzz_recipe(const char *path, const uint8_t *data,
                               size_t size)
{
    Recipe r = { data, data + size };
    hid_t file;

    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    for (int i = 0; i < 20 && file >= 0 && r.at < r.end; i++) {
        switch (take(&r, 5)) {
        case 0:
            H5Ldelete(file, pick_object(&r), H5P_DEFAULT);
            break;
        case 1:
            put_set(&r, file);
            break;
        case 2:
            put_key(&r, file, 0);
            break;
        case 3:
            put_key(&r, file, 1);
            break;
        default:
            put_link(&r, file);
        }
    }
    if (file < 0 || H5Fclose(file) < 0)
        H5Eclear2(H5E_DEFAULT);
}

#endif
