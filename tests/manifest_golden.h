#ifndef DG_TESTS_MANIFEST_GOLDEN_H
#define DG_TESTS_MANIFEST_GOLDEN_H
/*
 * tests/golden/manifests/NETWORK.tsv: names and shapes of the public
 * checkpoints' tensors, by tests/golden/make_manifests.py from the modules of
 * diffusers and transformers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "weights/manifest.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ManifestRow {
    char name[256];
    int num_dims, found;
    int64_t dims[DG_WEIGHT_MAX_DIMS];
} ManifestRow;

/* Rows of a network, to free. */
static inline ManifestRow *manifest_rows(const char *network, int *num)
{
    ManifestRow *rows = calloc(2048, sizeof *rows);
    char path[128], line[256];
    FILE *f;

    snprintf(path, sizeof path, "tests/golden/manifests/%s.tsv", network);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(rows);
    for (*num = 0; fgets(line, sizeof line, f) != NULL; ++*num) {
        ManifestRow *r = &rows[*num];
        char *d = strchr(line, '\t');

        assert_true(*num < 2047 && d != NULL);
        *d++ = '\0';
        snprintf(r->name, sizeof r->name, "%s", line);
        while (*d != '\t' && *d != '\0') {
            r->dims[r->num_dims++] = strtol(d, &d, 10);
            d += *d == ',';
        }
    }
    fclose(f);
    return rows;
}

/**
 * The parameters of a set that begin with prefix, against the public files of
 * a network: the same names, the same shapes (up to the 1s of a 1x1
 * convolution), none missing, none besides, this many tensors and values.
 * Nothing is allocated for values.
 */
static inline void manifest_compare(const char *network, const ParamSet *set,
                                    const char *prefix, int num_tensors,
                                    int64_t num_values)
{
    int num_rows, num_wants, bad = 0;
    ManifestRow *rows = manifest_rows(network, &num_rows);
    WeightWant *wants;
    int64_t values = 0;

    assert_int_equal(dg_manifest_of_params(&wants, &num_wants, set, prefix), 0);
    for (int w = 0; w < num_wants; w++) {
        int64_t count = 1;
        int r = 0;

        for (int d = 0; d < wants[w].num_dims; d++)
            count *= wants[w].dims[d];
        values += count;
        while (r < num_rows && strcmp(rows[r].name, wants[w].name) != 0)
            r++;
        if (r == num_rows ||
            !dg_manifest_same_shape(rows[r].num_dims, rows[r].dims,
                                    wants[w].num_dims, wants[w].dims)) {
            print_error("%s: %s %s\n", network, wants[w].name,
                        r == num_rows ? "is not in the files"
                                      : "has another shape");
            bad++;
        } else {
            rows[r].found++;
        }
    }
    for (int r = 0; r < num_rows; r++)
        if (rows[r].found != 1) {
            print_error("%s: %s is missing\n", network, rows[r].name);
            bad++;
        }
    assert_int_equal(bad, 0);
    assert_int_equal(num_rows, num_tensors);
    assert_int_equal(num_wants, num_tensors);
    assert_int_equal(values, num_values);
    free(wants);
    free(rows);
}

#endif
