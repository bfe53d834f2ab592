#define _GNU_SOURCE /* memmem */
#include "mpi_test.h"
#include "base/error.h"
#include "store/conditions.h"
#include "store/file.h"
#include "weights/half.h"

#include <unistd.h>

enum { NUM = 300, WIDTH = 3000, AT_ONCE = 7 };

static char folder[256], path[300];
static const FileInfo info = { .program = "test", .config = "a = 1;\n" };
static char text[NUM][16];
static const char *prompt[NUM];
static HexDigest key[NUM], digest[NUM];
static float rows[NUM][WIDTH];
static uint16_t narrow[NUM][WIDTH];

/* What a rank makes of its rows, as they are asked for. */
typedef struct Making {
    int64_t next, end, most; /* row that is to come; at most at once */
    int fails, done;
} Making;

static int make(void *user, void *to, int64_t first, int64_t num)
{
    Making *m = user;

    EXPECT(first == m->next && num > 0 && first + num <= m->end);
    EXPECT(!m->done);
    m->next += num;
    m->most = num > m->most ? num : m->most;
    memcpy(to, rows[first], sizeof rows[0] * (size_t)num);
    return m->fails ? dg_fail(DG_ENUMERIC, "row %d", 17) : DG_OK;
}

static void made(void *user)
{
    Making *m = user;

    EXPECT(m->next == m->end);
    m->done++;
}

static void fill(void)
{
    for (int i = 0; i < NUM; i++) {
        snprintf(text[i], sizeof text[i], "prompt %d", i);
        prompt[i] = text[i];
        snprintf(key[i], sizeof key[i], "%064d", i);
        for (int e = 0; e < WIDTH; e++)
            rows[i][e] = (float)(i * 7 + e) / 3.0F;
        EXPECT(!dg_sha256_bytes(digest[i], rows[i], sizeof rows[i]));
    }
}

static ConditionsContent content(Making *m)
{
    ConditionsContent k = { .num = NUM,
                            .width = WIDTH,
                            .type = DG_H5_F32,
                            .prompt = prompt,
                            .key = (const HexDigest *)key,
                            .tokens = (const HexDigest *)key,
                            .condition = (const HexDigest *)digest,
                            .encoder = "abc",
                            .at_once = AT_ONCE,
                            .fetch = make,
                            .fetched = made,
                            .user = m };

    dg_share_range(NUM, comm.rank, comm.size, &k.first, &k.num_local);
    *m = (Making) { .next = k.first, .end = k.first + k.num_local };
    return k;
}

/* The bytes of the file; to free. */
static char *bytes_of(size_t *num)
{
    char *bytes = NULL;

    EXPECT(dg_file_read(path, &bytes, num) == DG_OK);
    dg_comm_barrier(&comm);
    return bytes;
}

/* Of the same second: in all bytes, checksums too. */
static int same_date(const char *one, const char *other, size_t num)
{
    const char *date = memmem(one, num, "date", 5);

    EXPECT(date != NULL);
    return date == NULL || memcmp(date, other + (date - one), 80) == 0;
}

/* Rows that are made as they are written: a few at a time, in their order, and
 * the file is that of rows that were all there. */
static void test_rows_are_made_as_they_go(void **state)
{
    Making m;
    ConditionsContent k;
    char *one = NULL, *other = NULL;
    size_t num = 0, same = 0;

    (void)state;
    make_folder(folder);
    fill();
    snprintf(path, sizeof path, "%s/c.h5", folder);
    do {
        free(one);
        free(other);
        k = content(&m);
        EXPECT(!dg_conditions_write(&comm, path, &k, &info));
        EXPECT(m.most == AT_ONCE && m.done == 1);
        one = bytes_of(&num);
        k.fetch = NULL;
        k.fetched = NULL;
        k.rows = rows[k.first];
        EXPECT(!dg_conditions_write(&comm, path, &k, &info));
        other = bytes_of(&same);
        EXPECT(num == same);
    } while (num == same && !same_date(one, other, num));
    EXPECT(num == same && memcmp(one, other, num) == 0);
    free(one);
    free(other);
    drop_folder(folder);
    VERDICT();
}

/* Hours of others' work do not end in half a file, nor in a wait. */
static void test_a_row_that_fails_is_all_ranks(void **state)
{
    Making m;
    ConditionsContent k;

    (void)state;
    make_folder(folder);
    k = content(&m);
    m.fails = comm.rank == comm.size - 1;
    snprintf(path, sizeof path, "%s/c.h5", folder);
    EXPECT(dg_conditions_write(&comm, path, &k, &info) == DG_ENUMERIC);
    EXPECT(strcmp(dg_last_error()->text, "row 17") == 0 && !m.done);
    EXPECT(access(path, F_OK) != 0);
    snprintf(path, sizeof path, "%s/c.h5.tmp", folder);
    EXPECT(access(path, F_OK) != 0);
    drop_folder(folder);
    VERDICT();
}

/* A row of the file is that of the memory, of either type. */
static void test_rows_come_back(void **state)
{
    static const H5Type types[] = { DG_H5_F32, DG_H5_BF16 };
    float row[WIDTH], want[WIDTH];
    Making m;

    (void)state;
    make_folder(folder);
    fill();
    snprintf(path, sizeof path, "%s/c.h5", folder);
    for (int t = 0; t < 2; t++) {
        ConditionsContent k = content(&m);
        Conditions *c = NULL;
        HexDigest hex;

        k.type = types[t];
        k.fetch = NULL;
        k.fetched = NULL;
        k.rows = rows[k.first];
        for (int i = 0; i < NUM && t == 1; i++) {
            dg_bfloat_narrow(narrow[i], rows[i], WIDTH);
            EXPECT(!dg_sha256_bytes(digest[i], narrow[i], sizeof narrow[i]));
            k.rows = narrow[k.first];
        }
        EXPECT(!dg_conditions_write(&comm, path, &k, &info));
        EXPECT(!dg_conditions_open(&c, path));
        EXPECT(dg_conditions_type(c) == types[t]);
        EXPECT(dg_conditions_width(c) == WIDTH);
        for (int i = 0; i < NUM; i += 99) {
            EXPECT(!dg_conditions_read(c, i, row));
            memcpy(want, rows[i], sizeof want);
            if (t == 1)
                dg_bfloat_widen(want, narrow[i], WIDTH);
            EXPECT(memcmp(row, want, sizeof row) == 0);
        }
        dg_conditions_close(c);
        EXPECT(!dg_conditions_digest(path, hex));
        dg_comm_barrier(&comm);
    }
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_rows_are_made_as_they_go),
    cmocka_unit_test(test_a_row_that_fails_is_all_ranks),
    cmocka_unit_test(test_rows_come_back),
};

MPI_MAIN(mpi_conditions, tests)
