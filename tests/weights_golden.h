#ifndef DG_TESTS_WEIGHTS_GOLDEN_H
#define DG_TESTS_WEIGHTS_GOLDEN_H
/*
 * tests/golden/weights/digests.tsv: what PyTorch and diffusers hold in the
 * files beside it, by tests/golden/make_weights_fixtures.py. Values are
 * compared by the first 16 digits of the SHA-256 of their float32.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/error.h"
#include "base/sha256.h"
#include "weights/weight_file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN "tests/golden/weights/"

typedef struct GoldenRow {
    char file[64], name[128], type[8], digest[17];
    int num_dims;
    int64_t dims[DG_WEIGHT_MAX_DIMS], count;
} GoldenRow;

static inline void golden_parse(GoldenRow *r, char *line)
{
    char *field[6], *at = line;

    line[strcspn(line, "\n")] = '\0';
    for (int i = 0; i < 6; i++)
        field[i] = strsep(&at, "\t");
    assert_non_null(field[5]);
    memset(r, 0, sizeof *r);
    snprintf(r->file, sizeof r->file, "%s", field[0]);
    snprintf(r->name, sizeof r->name, "%s", field[1]);
    snprintf(r->type, sizeof r->type, "%s", field[2]);
    snprintf(r->digest, sizeof r->digest, "%s", field[5]);
    r->count = 1;
    for (char *d = field[3]; *d != '\0' && *d != '-';) {
        r->dims[r->num_dims] = strtol(d, &d, 10);
        r->count *= r->dims[r->num_dims++];
        d += *d == ',';
    }
}

/* Rows of a file, to free; their number in *num. */
static inline GoldenRow *golden_rows(const char *file, int *num)
{
    GoldenRow *rows = calloc(512, sizeof *rows), r;
    FILE *f = fopen(GOLDEN "digests.tsv", "r");
    char line[512];

    assert_non_null(f);
    assert_non_null(rows);
    for (*num = 0; fgets(line, sizeof line, f) != NULL;) {
        golden_parse(&r, line);
        if (strcmp(r.file, file) == 0)
            rows[(*num)++] = r;
    }
    fclose(f);
    assert_true(*num > 0 && *num < 512);
    return rows;
}

/* Values of a row's tensor against its digest. */
static inline void golden_check(const GoldenRow *r, const float *values)
{
    char hex[DG_SHA256_HEX];

    assert_int_equal(
        dg_sha256_bytes(hex, values, (size_t)r->count * sizeof *values), DG_OK);
    hex[16] = '\0';
    if (strcmp(hex, r->digest) != 0)
        print_error("%s: %s: values differ\n", r->file, r->name);
    assert_string_equal(hex, r->digest);
}

static inline void golden_check_info(const GoldenRow *r, const WeightInfo *info)
{
    assert_string_equal(dg_weight_type_name(info->type), r->type);
    assert_int_equal(info->num_dims, r->num_dims);
    for (int i = 0; i < r->num_dims; i++)
        assert_int_equal(info->dims[i], r->dims[i]);
    assert_int_equal(info->count, r->count);
}

/* All tensors of a file, read whole and again in two parts. */
static inline void golden_check_file(const char *file)
{
    char path[128];
    WeightFile *f;
    int num;
    GoldenRow *rows = golden_rows(file, &num);

    snprintf(path, sizeof path, GOLDEN "%s", file);
    assert_int_equal(dg_weight_file_open(&f, path), DG_OK);
    assert_int_equal(dg_weight_file_num(f), num);
    for (int i = 0; i < num; i++) {
        const int64_t at = dg_weight_file_find(f, rows[i].name);
        const int64_t n = rows[i].count, cut = n / 3;
        float *v = malloc((size_t)n * sizeof *v + 1);

        assert_true(at >= 0);
        golden_check_info(&rows[i], dg_weight_file_info(f, at));
        assert_int_equal(dg_weight_file_read(f, at, 0, n, v), DG_OK);
        golden_check(&rows[i], v);
        memset(v, 0, (size_t)n * sizeof *v);
        assert_int_equal(dg_weight_file_read(f, at, cut, n - cut, v + cut),
                         DG_OK);
        assert_int_equal(dg_weight_file_read(f, at, 0, cut, v), DG_OK);
        golden_check(&rows[i], v);
        free(v);
    }
    dg_weight_file_close(f);
    free(rows);
}

/* A whole small file, to free. */
static inline unsigned char *slurp(const char *path, size_t *num)
{
    FILE *f = fopen(path, "rb");
    unsigned char *p = malloc(1 << 20);

    if (f == NULL)
        print_error("%s cannot be read\n", path);
    assert_non_null(f);
    assert_non_null(p);
    *num = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

typedef int GoldenParse(WeightFile **out, const char *path, const void *bytes,
                        size_t num);

/* Cut anywhere, a golden file is refused; whole it is not. */
static inline void golden_cut(const char *path, GoldenParse *parse)
{
    size_t num;
    unsigned char *bytes = slurp(path, &num);
    WeightFile *f;

    for (size_t n = 0; n < num; n++)
        assert_int_equal(parse(&f, "x", bytes, n), DG_EFORMAT);
    assert_int_equal(parse(&f, "x", bytes, num), DG_OK);
    dg_weight_file_close(f);
    free(bytes);
}

static inline void spill(const char *path, const void *data, size_t num)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, num, f), num);
    assert_int_equal(fclose(f), 0);
}

/* A folder of this test's own. */
static char scratch[64];

static inline int scratch_make(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/dg_weights_XXXXXX");
    return mkdtemp(scratch) == NULL;
}

static inline int scratch_drop(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

/* Path of a file in it; good until the call after next. */
static inline const char *in_scratch(const char *name)
{
    static char path[2][160];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch, name);
    return path[turn];
}

/* The last error has that code, and its text that part. */
static inline void expect_error(int got, int code, const char *part)
{
    assert_int_equal(got, code);
    if (strstr(dg_last_error()->text, part) == NULL)
        print_error("\"%s\" is not in: %s\n", part, dg_last_error()->text);
    assert_non_null(strstr(dg_last_error()->text, part));
}

#endif
