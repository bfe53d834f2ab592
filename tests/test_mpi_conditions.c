#include "mpi_test.h"
#include "base/error.h"
#include "store/conditions.h"

#include <sys/stat.h>
#include <unistd.h>

enum { NUM = 300, WIDTH = 3000, AT_ONCE = 7 };

static char folder[256], path[300];
static const FileInfo info = { .program = "test", .config = "a = 1;\n" };
static char text[NUM][16];
static const char *prompt[NUM];
static HexDigest key[NUM], digest[NUM];
static float rows[NUM][WIDTH];

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

/* What a file holds: its digest and its size. Not its bytes, of which some tell
 * the second in which it was written. */
static off_t look(HexDigest hex)
{
    static float row[WIDTH];
    Conditions *c = NULL;
    struct stat s = { .st_size = 0 };

    EXPECT(!dg_conditions_open(&c, path));
    for (int i = 0; c != NULL && i < NUM; i++) {
        EXPECT(!dg_conditions_read(c, i, row));
        EXPECT(memcmp(row, rows[i], sizeof row) == 0);
    }
    dg_conditions_close(c);
    EXPECT(!dg_conditions_digest(path, hex));
    EXPECT(stat(path, &s) == 0 && s.st_size > 0);
    return s.st_size;
}

/* Rows that are made as they are written: a few at a time, in their order, and
 * the file is that of rows that were all there. */
static void test_rows_are_made_as_they_go(void **state)
{
    Making m;
    ConditionsContent k;
    HexDigest one = "one", other = "other";
    off_t size;

    (void)state;
    make_folder(folder);
    fill();
    k = content(&m);
    snprintf(path, sizeof path, "%s/c.h5", folder);
    EXPECT(!dg_conditions_write(&comm, path, &k, &info));
    EXPECT(m.most == AT_ONCE && m.done == 1);
    size = look(one);
    dg_comm_barrier(&comm);
    k.fetch = NULL;
    k.fetched = NULL;
    k.rows = rows[k.first];
    EXPECT(!dg_conditions_write(&comm, path, &k, &info));
    EXPECT(look(other) == size);
    EXPECT(strcmp(one, other) == 0);
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_rows_are_made_as_they_go),
    cmocka_unit_test(test_a_row_that_fails_is_all_ranks),
};

MPI_MAIN(mpi_conditions, tests)
