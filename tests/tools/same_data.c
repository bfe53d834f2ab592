/*
 * Whether two files of this program hold the same, bit for bit:
 *   same_data FILE FILE
 * Names, types, shapes, data and digests of all datasets, and the root's
 * attributes but for those that tell of when and where. Names what differs.
 */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const apart[] = { "command", "config", "date",
                                     "hosts",   "ranks",  "libraries" };

typedef struct Pair {
    hid_t first, second;
    int num, bad;
} Pair;

typedef struct Data {
    hid_t type;
    hsize_t dims[H5S_MAX_RANK];
    int num_dims;
    size_t bytes;
    char *bits;
} Data;

static void tell(Pair *p, const char *what, const char *name)
{
    printf("same_data: %s %s differs\n", what, name);
    p->bad = 1;
}

static void shape_of(Data *d, hid_t space)
{
    d->num_dims = H5Sget_simple_extent_dims(space, d->dims, NULL);
    d->bytes =
        (size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(d->type);
    d->bits = calloc(d->bytes + 1, 1);
    H5Sclose(space);
}

static int read_set(Data *d, hid_t file, const char *name)
{
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    int bad;

    memset(d, 0, sizeof *d);
    if (set < 0)
        return 1;
    d->type = H5Dget_type(set);
    shape_of(d, H5Dget_space(set));
    bad = H5Dread(set, d->type, H5S_ALL, H5S_ALL, H5P_DEFAULT, d->bits) < 0;
    H5Dclose(set);
    return bad;
}

static int read_key(Data *d, hid_t at, const char *name)
{
    const hid_t key = H5Aopen(at, name, H5P_DEFAULT);
    int bad;

    memset(d, 0, sizeof *d);
    if (key < 0)
        return 1;
    d->type = H5Aget_type(key);
    shape_of(d, H5Aget_space(key));
    bad = H5Aread(key, d->type, d->bits) < 0;
    H5Aclose(key);
    return bad;
}

static int same(const Data *a, const Data *b)
{
    return H5Tequal(a->type, b->type) > 0 && a->num_dims == b->num_dims &&
           memcmp(a->dims, b->dims, sizeof a->dims) == 0 &&
           a->bytes == b->bytes && memcmp(a->bits, b->bits, a->bytes) == 0;
}

static void drop(Data *d)
{
    if (d->bits != NULL)
        H5Tclose(d->type);
    free(d->bits);
}

static herr_t compare_key(hid_t at, const char *name, const H5A_info_t *info,
                          void *user)
{
    Pair *p = user;
    Data a, b;

    (void)info;
    for (size_t i = 0; i < sizeof apart / sizeof *apart; i++)
        if (strcmp(name, apart[i]) == 0)
            return 0;
    if (read_key(&a, at, name) | read_key(&b, p->second, name) || !same(&a, &b))
        tell(p, "attribute", name);
    drop(&a);
    drop(&b);
    return 0;
}

static void compare_keys(Pair *p, hid_t first, hid_t second)
{
    Pair keys = { first, second, 0, 0 };

    H5Aiterate2(first, H5_INDEX_NAME, H5_ITER_INC, NULL, compare_key, &keys);
    p->bad |= keys.bad;
}

static void compare_set(Pair *p, const char *name)
{
    const hid_t first = H5Dopen2(p->first, name, H5P_DEFAULT);
    const hid_t second = H5Dopen2(p->second, name, H5P_DEFAULT);
    Data a, b;

    if (read_set(&a, p->first, name) | read_set(&b, p->second, name) ||
        !same(&a, &b))
        tell(p, "dataset", name);
    drop(&a);
    drop(&b);
    if (first >= 0 && second >= 0)
        compare_keys(p, first, second);
    if (first >= 0)
        H5Dclose(first);
    if (second >= 0)
        H5Dclose(second);
}

static herr_t visit(hid_t id, const char *name, const H5O_info_t *info,
                    void *user)
{
    Pair *p = user;

    (void)id;
    if (info->type == H5O_TYPE_DATASET) {
        compare_set(p, name);
        p->num++;
    }
    return 0;
}

/* datasets of the first file, which all are the second's */
static int compare(hid_t first, hid_t second, int *bad)
{
    Pair p = { first, second, 0, 0 };

    H5Ovisit2(first, H5_INDEX_NAME, H5_ITER_INC, visit, &p, H5O_INFO_BASIC);
    compare_keys(&p, first, second);
    *bad |= p.bad;
    return p.num;
}

int main(int argc, char **argv)
{
    hid_t first, second;
    int bad = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: same_data FILE FILE\n");
        return 2;
    }
    first = H5Fopen(argv[1], H5F_ACC_RDONLY, H5P_DEFAULT);
    second = H5Fopen(argv[2], H5F_ACC_RDONLY, H5P_DEFAULT);
    if (first < 0 || second < 0)
        return 1;
    if (compare(first, second, &bad) != compare(second, first, &bad))
        bad = 1;
    H5Fclose(first);
    H5Fclose(second);
    return bad;
}
