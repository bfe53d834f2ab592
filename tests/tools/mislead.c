/*
 * Makes an HDF5 file one that misleads who reads it:
 *   mislead FILE tree   records of 0 bytes in every list of names, with the
 *                       checksum that belongs to them: HDF5 1.10 divides by it
 *   mislead FILE deep   300 groups within each other
 *   mislead FILE loop   a group that holds the root
 */
#include <hdf5.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* HDF5's own, of no public header. */
uint32_t H5_checksum_metadata(const void *data, size_t bytes, uint32_t before);

/* Heads of version 2 B-trees: signature, version, type, bytes of a node, bytes
 * of a record (at 10), ..., checksum of all before it. */
static int spoil_trees(const char *path)
{
    enum { RECORD = 10, BYTES = 34 };
    static unsigned char bytes[8 << 20];
    FILE *f = fopen(path, "r+b");
    size_t num;
    int found = 0;

    if (f == NULL)
        return 0;
    num = fread(bytes, 1, sizeof bytes, f);
    for (size_t at = 0; at + BYTES + 4 <= num; at++) {
        uint32_t sum;

        if (memcmp(bytes + at, "BTHD", 4) != 0)
            continue;
        memset(bytes + at + RECORD, 0, 2);
        sum = H5_checksum_metadata(bytes + at, BYTES, 0);
        memcpy(bytes + at + BYTES, &sum, sizeof sum);
        found++;
    }
    rewind(f);
    return fwrite(bytes, 1, num, f) == num && fclose(f) == 0 && found > 0;
}

static int add_groups(const char *path, int loop)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t at = file;
    int ok = file >= 0;

    if (ok && loop)
        ok = H5Lcreate_hard(file, "/", file, "again", H5P_DEFAULT,
                            H5P_DEFAULT) >= 0;
    for (int i = 0; i < 300 && ok && !loop; i++) {
        const hid_t next =
            H5Gcreate2(at, "a", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);

        if (at != file)
            H5Gclose(at);
        at = next;
        ok = at >= 0;
    }
    if (ok && at != file)
        H5Gclose(at);
    return H5Fclose(file) >= 0 && ok;
}

int main(int argc, char **argv)
{
    int ok;

    if (argc != 3) {
        fprintf(stderr, "usage: mislead FILE tree|deep|loop\n");
        return 2;
    }
    ok = strcmp(argv[2], "tree") == 0
             ? spoil_trees(argv[1])
             : add_groups(argv[1], strcmp(argv[2], "loop") == 0);
    if (!ok)
        fprintf(stderr, "mislead: %s could not be changed\n", argv[1]);
    return !ok;
}
