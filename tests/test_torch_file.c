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

/* The directory; method: of compression; wide: 1 with zip64 sizes. */
static void finish(Archive *a, int method, int wide)
{
    const size_t at = a->num;
    size_t end;

    for (int i = 0; i < a->num_members; i++) {
        put_bytes(a, "PK\1\2\0\0\0\0\0\0", 10);
        put(a, (uint64_t)method, 2);
        put(a, 0, 8);
        put(a, wide ? 0xffffffff : a->member[i].num, 4);
        put(a, wide ? 0xffffffff : a->member[i].num, 4);
        put(a, strlen(a->member[i].name), 2);
        put(a, wide ? 28 : 0, 2);
        put(a, 0, 10);
        put(a, wide ? 0xffffffff : a->member[i].at, 4);
        put_bytes(a, a->member[i].name, strlen(a->member[i].name));
        if (wide) {
            put(a, 1, 2);
            put(a, 24, 2);
            put(a, a->member[i].num, 8);
            put(a, a->member[i].num, 8);
            put(a, a->member[i].at, 8);
        }
    }
    end = a->num;
    if (wide) {
        put_bytes(a, "PK\6\6", 4);
        put(a, 44, 8);
        put(a, 0, 12);
        put(a, (uint64_t)a->num_members, 8);
        put(a, (uint64_t)a->num_members, 8);
        put(a, end - at, 8);
        put(a, at, 8);
        put_bytes(a, "PK\6\7\0\0\0\0", 8);
        put(a, end, 8);
        put(a, 1, 4);
    }
    put_bytes(a, "PK\5\6\0\0\0\0", 8);
    put(a, wide ? 0xffff : (uint64_t)a->num_members, 2);
    put(a, wide ? 0xffff : (uint64_t)a->num_members, 2);
    put(a, wide ? 0xffffffff : end - at, 4);
    put(a, wide ? 0xffffffff : at, 4);
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

static int open_made(WeightFile **f, const unsigned char *p, size_t num,
                     int method, int wide)
{
    static Archive a;

    a.num = 0;
    a.num_members = 0;
    add(&a, "any/data.pkl", p, num);
    add(&a, "any/data/0", three, sizeof three);
    finish(&a, method, wide);
    return dg_torch_file_parse(f, "x", a.p, a.num);
}

static void test_archives_with_and_without_zip64(void **state)
{
    unsigned char p[512];
    const size_t n = pickle(p, "torch\nFloatStorage", 3, 0, 3, 1);

    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        WeightFile *f;
        float v[3];

        assert_int_equal(open_made(&f, p, n, 0, wide), DG_OK);
        assert_int_equal(dg_weight_file_num(f), 1);
        assert_string_equal(dg_weight_file_info(f, 0)->name, "w");
        assert_int_equal(dg_weight_file_read(f, 0, 0, 3, v), DG_OK);
        assert_memory_equal(v, three, sizeof v);
        dg_weight_file_close(f);
    }
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
    static const struct {
        const char *p, *text;
        size_t num;
    } cases[] = {
#define CASE(bytes, text) { bytes, text, sizeof bytes - 1 }
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
        cmocka_unit_test(test_storages_are_checked),
        cmocka_unit_test(test_pickles_are_refused),
        cmocka_unit_test(test_a_real_file),
    };

    return cmocka_run_group_tests_name("torch_file", tests, NULL, NULL);
}
