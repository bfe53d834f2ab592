/*
 * How far two checkpoints' weights are apart:
 *   close FILE FILE MOST [START]
 * prints max |a - b| / max |b|, and with START, the checkpoint or the
 * trajectory file that both began with, |a - b| / |b - start|, norms of what
 * was learnt. Fails when the first is above MOST.
 */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static float *read_floats(const char *path, const char *name, hssize_t *num)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t set = file < 0 ? -1 : H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t space = set < 0 ? -1 : H5Dget_space(set);
    float *data = NULL;

    *num = space < 0 ? 0 : H5Sget_simple_extent_npoints(space);
    if (*num > 0)
        data = malloc((size_t)*num * sizeof *data);
    if (data != NULL && H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL,
                                H5P_DEFAULT, data) < 0) {
        free(data);
        data = NULL;
    }
    if (data == NULL)
        fprintf(stderr, "close: no %s in %s\n", name, path);
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
    if (file >= 0)
        H5Fclose(file);
    return data;
}

int main(int argc, char **argv)
{
    hssize_t num[3] = { 0, 0, 0 };
    float *a, *b, *start = NULL;
    double off = 0, size = 0, apart = 0, learnt = 0;

    if (argc < 4) {
        fprintf(stderr, "usage: close FILE FILE MOST [START]\n");
        return 2;
    }
    a = read_floats(argv[1], "arrays/weights", &num[0]);
    b = read_floats(argv[2], "arrays/weights", &num[1]);
    if (argc > 4)
        start = read_floats(argv[4], "state/weights", &num[2]);
    if (a == NULL || b == NULL || num[0] != num[1])
        return 2;
    for (hssize_t i = 0; i < num[0]; i++) {
        const double d = fabs((double)a[i] - b[i]);

        /* written so that NaN counts */
        off = d <= off ? off : d;
        size = fmax(size, fabs(b[i]));
        if (start != NULL && i < num[2]) {
            apart += d * d;
            learnt += ((double)b[i] - start[i]) * ((double)b[i] - start[i]);
        }
    }
    printf("%.3g\n", off / size);
    if (start != NULL)
        printf("%.3g of what was learnt\n", sqrt(apart / learnt));
    free(a);
    free(b);
    free(start);
    return off / size <= atof(argv[3]) ? 0 : 1;
}
