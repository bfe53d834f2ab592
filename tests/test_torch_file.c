/* PyTorch's zip files: those torch.save() wrote, and pickles that want more
 * than weights need. */
#include "weights_golden.h"

#include "weights/torch_file.h"

#include <math.h>

#define AESTHETIC "../shared/data/sac+logos+ava1-l14-linearMSE.pth"

static void test_torch_save_files_read(void **state)
{
    (void)state;
    golden_check_file("torch.bin");
    golden_check_file("module.pt");
}

/* 16-bit values with strides, as stored. */
static void test_raw_has_no_gaps(void **state)
{
    WeightFile *f;
    float want[30], got[30];
    int64_t at;

    (void)state;
    assert_int_equal(dg_weight_file_open(&f, GOLDEN "torch.bin"), DG_OK);
    at = dg_weight_file_find(f, "state_dict.transposed");
    assert_int_equal(dg_weight_file_read(f, at, 0, 30, want), DG_OK);
    assert_int_equal(dg_weight_file_read_raw(f, at, got), DG_OK);
    assert_memory_equal(got, want, sizeof want);
    at = dg_weight_file_find(f, "state_dict.f32");
    assert_int_equal(dg_weight_file_read(f, at, 0, 30, got), DG_OK);
    for (int r = 0; r < 6; r++)
        for (int c = 0; c < 5; c++)
            assert_true(want[c * 6 + r] == got[r * 5 + c]);
    dg_weight_file_close(f);
}

static void test_other_files_are_refused(void **state)
{
    WeightFile *f;

    (void)state;
    expect_error(dg_weight_file_open(&f, GOLDEN "forbidden.pt"), DG_EFORMAT,
                 "os.getenv");
    expect_error(dg_weight_file_open(&f, GOLDEN "old.pt"), DG_EFORMAT,
                 "before version 1.6");
    expect_error(dg_torch_file_parse(&f, "x", "12345678", 8), DG_EFORMAT,
                 "not a whole zip");
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    golden_cut(GOLDEN "module.pt", dg_torch_file_parse);
}

/* Archives of our own ---------------------------------------------------- */

typedef struct Archive {
    unsigned char p[1 << 16];
    size_t num;
    struct {
        char name[40];
        size_t at, num;
    } member[8];
    int num_members;
    size_t directory, end, last; /* places of it, its end and the last record */
} Archive;

static void put(Archive *a, uint64_t value, int bytes)
{
    while (bytes-- > 0) {
        a->p[a->num++] = (unsigned char)value;
        value >>= 8;
    }
}

static void put_bytes(Archive *a, const void *p, size_t num)
{
    if (num > 0)
        memcpy(a->p + a->num, p, num);
    a->num += num;
}

static void add(Archive *a, const char *name, const void *data, size_t num)
{
    a->member[a->num_members].at = a->num;
    a->member[a->num_members].num = num;
    snprintf(a->member[a->num_members++].name, 40, "%s", name);
    put_bytes(a, "PK\3\4", 4);
    for (int i = 0; i < 22; i++)
        put(a, 0, 1);
    put(a, strlen(name), 2);
    put(a, 0, 2);
    put_bytes(a, name, strlen(name));
    put_bytes(a, data, num);
}

/* What of an archive does not fit into its 16 and 32 bits. */
enum {
    FAR_MEMBERS = 1,
    LONG_MEMBERS = 2,
    MANY_MEMBERS = 4,
    LONG_DIRECTORY = 8,
    FAR_DIRECTORY = 16,
    ALL_WIDE = 31
};

static void put_or_wide(Archive *a, int is_wide, uint64_t value, int bytes)
{
    put(a, is_wide ? UINT64_MAX : value, bytes);
}

/* A member's record, with a field of another program's before the sizes that
 * did not fit, and a comment. */
static void put_central(Archive *a, int i, int method, int wide)
{
    const size_t num = a->member[i].num, at = a->member[i].at;
    const int is_long = (wide & LONG_MEMBERS) != 0,
              is_far = (wide & FAR_MEMBERS) != 0;
    const int extra = 8 * (2 * is_long + is_far);

    put_bytes(a, "PK\1\2\0\0\0\0\0\0", 10);
    put(a, (uint64_t)method, 2);
    put(a, 0, 8);
    put_or_wide(a, is_long, num, 4);
    put_or_wide(a, is_long, num, 4);
    put(a, strlen(a->member[i].name), 2);
    put(a, extra ? 6 + 4 + (uint64_t)extra : 0, 2);
    put(a, 3, 2);
    put(a, 0, 8);
    put_or_wide(a, is_far, at, 4);
    put_bytes(a, a->member[i].name, strlen(a->member[i].name));
    if (extra) {
        put_bytes(a, "xx\2\0no\1\0", 8);
        put(a, (uint64_t)extra, 2);
    }
    if (is_long) {
        put(a, num, 8);
        put(a, num, 8);
    }
    if (is_far)
        put(a, at, 8);
    put_bytes(a, "why", 3);
}

/* The directory; method: of compression; wide: what zip64 says. */
static void finish(Archive *a, int method, int wide)
{
    const uint64_t at = a->num, num = (uint64_t)a->num_members;
    const int is_many = (wide & MANY_MEMBERS) != 0;
    size_t end;

    for (int i = 0; i < a->num_members; i++)
        put_central(a, i, method, wide);
    a->directory = at;
    a->end = end = a->num;
    if (wide & (MANY_MEMBERS | LONG_DIRECTORY | FAR_DIRECTORY)) {
        put_bytes(a, "PK\6\6", 4);
        put(a, 44, 8);
        put(a, 0, 12);
        put(a, num, 8);
        put(a, num, 8);
        put(a, end - at, 8);
        put(a, at, 8);
        put_bytes(a, "PK\6\7\0\0\0\0", 8);
        put(a, end, 8);
        put(a, 1, 4);
    }
    a->last = a->num;
    put_bytes(a, "PK\5\6\0\0\0\0", 8);
    put_or_wide(a, is_many, num, 2);
    put_or_wide(a, is_many, num, 2);
    put_or_wide(a, (wide & LONG_DIRECTORY) != 0, end - at, 4);
    put_or_wide(a, (wide & FAR_DIRECTORY) != 0, at, 4);
    put(a, 2, 2);
    put_bytes(a, "hi", 2); /* a comment */
}

/* A pickle of { "w": tensor of 3 floats }, whose storage says num values,
 * with an offset, a size and a stride of one byte each. */
static size_t pickle(unsigned char *p, const char *storage_class, int num,
                     int offset, int size, int stride)
{
    const size_t n = (size_t)sprintf(
        (char *)p,
        "%cX%cXXXwctorch._utils\n_rebuild_tensor_v2\n((X%cXXXstorage"
        "c%s\nX%cXXX0X%cXXXcpuK%ctQK%cK%c%cK%c%c%cNt"
        "Rs.",
        '}', 1, 7, storage_class, 1, 3, '\1', '\1', '\1', 0x85, '\1', 0x85,
        0x89);
    static const char marks[] = "XXX"; /* lengths have four bytes */
    int arg = 0;
    const int values[] = { num, offset, size, stride };

    for (size_t i = 0; i + 4 < n; i++)
        if (memcmp(p + i, marks, 3) == 0)
            memset(p + i, 0, 3);
    for (size_t i = 0; i < n; i++)
        if (p[i] == 'K' && p[i + 1] == 1)
            p[i + 1] = (unsigned char)values[arg++];
    assert_int_equal(arg, 4);
    return n;
}

static const float three[] = { 1.5f, -2, 3.25f };

/* A pickle and the values of one storage. */
static void begin(Archive *a, const unsigned char *p, size_t num)
{
    a->num = 0;
    a->num_members = 0;
    add(a, "any/data.pkl", p, num);
    add(a, "any/data/0", three, sizeof three);
}

static int open_archive(WeightFile **f, const Archive *a)
{
    return dg_torch_file_parse(f, "x", a->p, a->num);
}

static int open_made(WeightFile **f, const unsigned char *p, size_t num,
                     int method, int wide)
{
    static Archive a;

    begin(&a, p, num);
    finish(&a, method, wide);
    return open_archive(f, &a);
}

/* One tensor of that name, which is the storage. */
static void check_three(int err, WeightFile *f, const char *name)
{
    float v[3];

    if (err)
        print_error("%s: %s\n", name, dg_last_error()->text);
    assert_int_equal(err, DG_OK);
    assert_int_equal(dg_weight_file_num(f), 1);
    assert_string_equal(dg_weight_file_info(f, 0)->name, name);
    assert_int_equal(dg_weight_file_read(f, 0, 0, 3, v), DG_OK);
    assert_memory_equal(v, three, sizeof v);
    dg_weight_file_close(f);
}

/* A long file has its last members beyond 32 bits, and few of them. */
static void test_archives_with_and_without_zip64(void **state)
{
    unsigned char p[512];
    const size_t n = pickle(p, "torch\nFloatStorage", 3, 0, 3, 1);
    WeightFile *f = NULL;

    (void)state;
    for (int wide = 0; wide <= ALL_WIDE; wide++) {
        const int err = open_made(&f, p, n, 0, wide);

        check_three(err, f, "w");
    }
}

/* Fields of the records, set to what says that the file is another one. */
static void test_archives_are_checked(void **state)
{
    enum { CENTRAL, END64, LAST };
    static const struct {
        int record, at, value;
        const char *text;
    } cases[] = {
        { CENTRAL, 8, 1, "any/data.pkl: encrypted" },
        { CENTRAL, 10, 8, "any/data.pkl: compressed" },
        { CENTRAL, 46 + 12 + 6 + 4, 1, "any/data.pkl: two different sizes" },
        { CENTRAL, 46 + 12 + 6 + 12, 1, "any/data.pkl: two different sizes" },
        { CENTRAL, 46 + 12 + 6 + 4 + 20, 1, "local header is missing" },
        { CENTRAL, 46 + 12 + 6 + 4 + 23, 1, "local header is missing" },
        { CENTRAL, 46 + 12 + 6 + 2, 20, "zip64 sizes are missing" },
        { END64, 16, 1, "one of several parts" },
        { END64, 20, 1, "one of several parts" },
        { END64, 51, 1, "directory lies beyond its end" },
        { END64, 33, 1, "too short for its members" },
        { LAST, 4, 1, "one of several parts" },
        { LAST, 6, 1, "one of several parts" },
    };
    unsigned char p[512];
    const size_t n = pickle(p, "torch\nFloatStorage", 3, 0, 3, 1);
    static Archive a;
    WeightFile *f;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int record = cases[i].record;

        begin(&a, p, n);
        finish(&a, 0, record == LAST ? 0 : ALL_WIDE);
        a.p[(record == CENTRAL ? a.directory
             : record == END64 ? a.end
                               : a.last) +
            (size_t)cases[i].at] = (unsigned char)cases[i].value;
        expect_error(open_archive(&f, &a), DG_EFORMAT, cases[i].text);
    }
}

/* What members besides the pickle and the storages say of an archive. */
static void test_other_members_are_looked_at(void **state)
{
    static const struct {
        const char *name, *data, *text;
    } cases[] = {
        { "any/byteorder", "big", "not little-endian" },
        { "any/byteorder", "middle", "not little-endian" },
        { "any/constants.pkl", "", "TorchScript" },
        { "any/data/0", "", "any/data/0: is there twice" },
        { "any/byteorder", "little", NULL },
        { "an/older/data.pkl", ".", NULL }, /* deeper than an archive's own */
    };
    unsigned char p[512];
    const size_t n = pickle(p, "torch\nFloatStorage", 3, 0, 3, 1);
    static Archive a;
    WeightFile *f = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&a, p, n);
        add(&a, cases[i].name, cases[i].data, strlen(cases[i].data));
        finish(&a, 0, 0);
        if (cases[i].text != NULL) {
            expect_error(open_archive(&f, &a), DG_EFORMAT, cases[i].text);
        } else {
            const int err = open_archive(&f, &a);

            check_three(err, f, "w");
        }
    }
}

/* A tensor of the storage's three floats, its offset, size and stride by
 * opcodes. */
#define TENSOR(offset, size, stride)                        \
    "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storage" \
    "ctorch\nFloatStorage\nX\1\0\0\0"                       \
    "0X\3\0\0\0cpuK\3tQ" offset size "\x85" stride "\x85\x89NtR"
#define PLAIN TENSOR("K\0", "K\3", "K\1")
#define W     "}X\1\0\0\0w"
#define CASE(bytes, text)             \
    {                                 \
        bytes, text, sizeof bytes - 1 \
    }

typedef struct PickleCase {
    const char *p, *text;
    size_t num;
} PickleCase;

static void test_names_and_numbers_of_pickles(void **state)
{
    static const PickleCase cases[] = {
        CASE("}K\7" PLAIN "s.", "7"),
        CASE("](NN" PLAIN "e.", "2"),
        CASE(W "N" PLAIN "\x86s.", "w.1"),
        CASE(W TENSOR("\x8a\0", "\x8a\1\3", "\x8a\5\1\0\0\0\0") "s.", "w"),
        CASE(W TENSOR("M\0\0", "M\3\0", "J\1\0\0\0") "s.", "w"),
        /* more memos than a byte can say, as files of many tensors have */
        CASE("}X\1\0\0\0ar\x2c\1\0\0"
             "0X\1\0\0\0bq\x2c"
             "0j\x2c\1\0\0" PLAIN "s.",
             "a"),
        CASE("}X\1\0\0\0aq\x2c"
             "0X\1\0\0\0br\x2c\1\0\0"
             "0h\x2c" PLAIN "s.",
             "a"),
    };
    WeightFile *f = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int err = open_made(&f, (const unsigned char *)cases[i].p,
                                  cases[i].num, 0, 0);

        check_three(err, f, cases[i].text);
    }
}

/* Half a file of 16-bit values. */
static void test_offsets_are_in_values(void **state)
{
    unsigned char p[512], got[6];
    const size_t n = pickle(p, "torch\nHalfStorage", 6, 3, 3, 1);
    WeightFile *f;

    (void)state;
    assert_int_equal(open_made(&f, p, n, 0, 0), DG_OK);
    assert_int_equal(dg_weight_file_read_raw(f, 0, got), DG_OK);
    assert_memory_equal(got, (const char *)three + 6, 6);
    dg_weight_file_close(f);
}

/* Many members over the same bytes: the file is short, looking is not. */
static void test_members_do_not_overlap(void **state)
{
    static const char long_one[5000];
    static Archive a;
    WeightFile *f;

    (void)state;
    begin(&a, (const unsigned char *)"\x80\2}.", 4);
    add(&a, "any/0", long_one, sizeof long_one);
    a.member[a.num_members] = a.member[a.num_members - 1];
    a.member[a.num_members++].name[4] = '1';
    finish(&a, 0, 0);
    expect_error(open_archive(&f, &a), DG_EFORMAT, "its members overlap");
}

static void test_storages_are_checked(void **state)
{
    static const struct {
        const char *type;
        int num, offset, size, stride;
        const char *text;
    } cases[] = {
        { "torch\nFloatStorage", 4, 0, 3, 1, "12 bytes" },
        { "torch\nHalfStorage", 3, 0, 3, 1, "12 bytes" },
        { "torch\nFloatStorage", 3, 0, 4, 1, "w reaches beyond" },
        { "torch\nFloatStorage", 3, 1, 3, 1, "w reaches beyond" },
        { "torch\nFloatStorage", 3, 0, 2, 3, "w reaches beyond" },
        { "torch\nQInt8Storage", 3, 0, 3, 1, "torch.QInt8Storage" },
        { "os\nsystem", 3, 0, 3, 1, "os.system" },
        { "collections\nOrderedDict", 3, 0, 3, 1, "a storage without type" },
    };
    unsigned char p[512];
    WeightFile *f;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t n = pickle(p, cases[i].type, cases[i].num, cases[i].offset,
                                cases[i].size, cases[i].stride);

        expect_error(open_made(&f, p, n, 0, 0), DG_EFORMAT, cases[i].text);
    }
    expect_error(
        open_made(&f, p, pickle(p, "torch\nFloatStorage", 3, 0, 3, 1), 8, 0),
        DG_EFORMAT, "any/data.pkl: compressed");
}

static void test_pickles_are_refused(void **state)
{
    static const PickleCase cases[] = {
        CASE("", "ends early"),
        CASE("\x80\4.", "protocol 4"),
        CASE("N", "ends early"),
        CASE(".", "other than one value"),
        CASE("cos\nsystem\n.", "os.system"),
        CASE("cbuiltins\neval\n(NtR.", "builtins.eval"),
        CASE("ccollections\nOrderedDict\n(NtR.", "OrderedDict with"),
        CASE("ctorch\nFloatStorage\n)R.", "cannot be called"),
        CASE("K\1)R.", "cannot be called"),
        CASE("i", "opcode 0x69"),
        CASE("\x93", "opcode 0x93"),
        CASE("h\0.", "never set"),
        CASE("Nr\xff\xff\xff\xff.", "memo beyond"),
        CASE("X\xff\xff\xff\xff"
             "a",
             "mebibyte"),
        CASE("X\5\0\0\0a", "ends early"),
        CASE("NN\x87.", "stack is empty"),
        CASE("Nt.", "mark is missing"),
        CASE("}(Nu.", "key without value"),
        CASE("](NNu.", "no dict"),
        CASE("}(NNe.", "no list"),
        CASE("}NNs.", "neither text nor number"),
        CASE("(N.", "other than one value"),
        CASE("NN.", "other than one value"),
        CASE("NQ.", "five values"),
        CASE("\x8a\x09"
             "123456789.",
             "64 bits"),
        CASE("]q\0h\0a.", "in lists"), /* a list that holds itself */
        CASE("ctorch._utils\n_rebuild_parameter\n(NNNtR.", "without tensor"),
        CASE("ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.", "without stor"),
        CASE("NNb.", "no dict"),
        CASE("}X\3\0\0\0a\0bNs.", "no text"),
        CASE(W TENSOR("J\xff\xff\xff\xff", "K\3", "K\1") "s.", "negative"),
        CASE(W TENSOR("\x8a\1\xff", "K\3", "K\1") "s.", "negative"),
        /* the last value's place is beyond 63 bits */
        CASE(W TENSOR("K\0", "K\3", "\x8a\x08\0\0\0\0\0\0\0\x40") "s.",
             "w reaches beyond"),
    };
    WeightFile *f;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_error(open_made(&f, (const unsigned char *)cases[i].p,
                               cases[i].num, 0, 0),
                     DG_EFORMAT, cases[i].text);
    assert_int_equal(open_made(&f, (const unsigned char *)"\x80\2}.", 4, 0, 0),
                     DG_OK);
    assert_int_equal(dg_weight_file_num(f), 0);
    dg_weight_file_close(f);
}

/* Forty lists, each twice in the next: no name is ever done. */
static void test_lists_that_multiply_are_refused(void **state)
{
    unsigned char p[512] = "]q\0"
                           "0";
    size_t n = 4;
    WeightFile *f;

    (void)state;
    for (int i = 0; i < 40; i++) {
        memcpy(p + n,
               "](h\0h\0eq\0"
               "0",
               10);
        n += 10;
    }
    memcpy(p + n, "h\0", 2);
    n += 2;
    p[n++] = '.';
    expect_error(open_made(&f, p, n, 0, 0), DG_EFORMAT, "too many values");
}

/* The aesthetic head is an affine map: the numbers are the authors' own. */
static void test_a_real_file(void **state)
{
    static const int layer[] = { 0, 2, 4, 6, 7 };
    static double x[4][1024], y[4][1024];
    static float w[1024 * 768], b[1024];
    static const double want[4] = { 5.236646, 4.883285, 4.545052, 5.310305 };
    char name[40];
    WeightFile *f;
    int64_t at;

    (void)state;
    if (access(AESTHETIC, R_OK) != 0) {
        print_message("%s is not there: left out\n", AESTHETIC);
        skip();
    }
    assert_int_equal(dg_weight_file_open(&f, AESTHETIC), DG_OK);
    assert_int_equal(dg_weight_file_num(f), 10);
    for (int i = 0; i < 768; i++) {
        x[1][i] = 1 / sqrt(768);
        x[2][i] = i == 0;
        x[3][i] = (i % 2 ? -1 : 1) / sqrt(768);
    }
    for (int l = 0; l < 5; l++) {
        snprintf(name, sizeof name, "layers.%d.weight", layer[l]);
        at = dg_weight_file_find(f, name);
        const WeightInfo *info = dg_weight_file_info(f, at);
        const int64_t rows = info->dims[0], width = info->dims[1];

        assert_int_equal(dg_weight_file_read(f, at, 0, rows * width, w), DG_OK);
        snprintf(name, sizeof name, "layers.%d.bias", layer[l]);
        at = dg_weight_file_find(f, name);
        assert_int_equal(dg_weight_file_read(f, at, 0, rows, b), DG_OK);
        for (int k = 0; k < 4; k++) {
            for (int64_t r = 0; r < rows; r++) {
                y[k][r] = b[r];
                for (int64_t i = 0; i < width; i++)
                    y[k][r] += (double)w[r * width + i] * x[k][i];
            }
            memcpy(x[k], y[k], sizeof x[k]);
        }
    }
    for (int k = 0; k < 4; k++)
        assert_float_equal(x[k][0], want[k], 2e-6);
    dg_weight_file_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_save_files_read),
        cmocka_unit_test(test_raw_has_no_gaps),
        cmocka_unit_test(test_other_files_are_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_archives_with_and_without_zip64),
        cmocka_unit_test(test_archives_are_checked),
        cmocka_unit_test(test_other_members_are_looked_at),
        cmocka_unit_test(test_names_and_numbers_of_pickles),
        cmocka_unit_test(test_offsets_are_in_values),
        cmocka_unit_test(test_members_do_not_overlap),
        cmocka_unit_test(test_storages_are_checked),
        cmocka_unit_test(test_pickles_are_refused),
        cmocka_unit_test(test_lists_that_multiply_are_refused),
        cmocka_unit_test(test_a_real_file),
    };

    return cmocka_run_group_tests_name("torch_file", tests, NULL, NULL);
}
