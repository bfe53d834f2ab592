#include "tokenizer_case.h"

#include <math.h>

#include "text/t5_unigram.h"

static int encode(const void *u, int32_t *ids, int32_t length,
                  TokenCount *count, const char *text)
{
    return dg_t5_unigram_encode(u, ids, length, count, text);
}

static const char spiece_file[] = GOLDEN "t5_small/spiece.model";

/* Cut off anywhere the file is refused, between two pieces too, and never read
 * past its end (the copy is exact). */
static void test_cut_off_models_are_refused(void **state)
{
    char *data;
    size_t size;

    (void)state;
    assert_int_equal(dg_file_read(spiece_file, &data, &size), DG_OK);
    for (size_t n = 0; n < size; n += n < 600 ? 1 : 9973) {
        T5Unigram *u = NULL;
        char *copy = malloc(n + 1);

        assert_non_null(copy);
        memcpy(copy + 1, data, n);
        assert_int_equal(dg_t5_unigram_from_spiece(&u, "cut", copy + 1, n),
                         DG_EFORMAT);
        case_said("cut: ");
        free(copy);
    }
    free(data);
}

static void put_u32(Message *m, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        m->at[m->used++] = (unsigned char)(v >> (8 * i));
}

/* A model whose character map has one rule, A to "a", with an edit. */
static int with_map(int unit, uint32_t value, int size, const char *text,
                    size_t text_size)
{
    uint32_t units[256] = { 128u << 10 };
    Message m, map = { .used = 0 }, rules = { .used = 0 };
    T5Unigram *u = NULL;
    int err;

    units[128 ^ 'A'] = 'A' | 1u << 8 | ((128u ^ 'A') ^ 7u) << 10;
    units[7] = 1u << 31;
    units[unit] = value != 0 ? value : units[unit];
    put_u32(&map, size < 0 ? sizeof units : (uint32_t)size);
    for (int i = 0; i < 256; i++)
        put_u32(&map, units[i]);
    memcpy(map.at + map.used, text, text_size);
    map.used += text_size;
    case_marks(&m);
    case_piece(&m, "\xE2\x96\x81", -1, 1);
    case_piece(&m, "a", -1, 1);
    case_bytes(&rules, 2, map.at, map.used);
    case_bytes(&m, 3, rules.at, rules.used);
    err = dg_t5_unigram_from_spiece(&u, "m", (const char *)m.at, m.used);
    if (!err) {
        static const int32_t want[] = { 3, 4, 4, 1 };

        case_expect(want, 4, encode, u, "Aa");
    }
    dg_t5_unigram_destroy(u);
    return err;
}

static void test_character_maps_are_checked(void **state)
{
    const int a = 128 ^ 'A';

    (void)state;
    assert_int_equal(with_map(0, 0, -1, "a", 2), DG_OK);
    assert_int_equal(with_map(0, 0, 1025, "a", 2), DG_EFORMAT);
    case_said("its trie cannot have 1025");
    assert_int_equal(with_map(0, 0, 0, "a", 2), DG_EFORMAT);
    assert_int_equal(with_map(0, 0, 1028, "a", 2), DG_EFORMAT);
    assert_int_equal(with_map(0, 0, -1, "a", 1), DG_EFORMAT);
    case_said("its last replacement has no end");
    assert_int_equal(with_map(0, 0, -1, "\xC3", 2), DG_EFORMAT);
    case_said("replacements are not UTF-8");
    assert_int_equal(with_map(a, 'A' | 1u << 8 | 999u << 10, -1, "a", 2),
                     DG_EFORMAT);
    case_said("points to");
    assert_int_equal(
        with_map(a, 'A' | 1u << 8 | ((uint32_t)a ^ 8u) << 10, -1, "a", 2),
        DG_EFORMAT);
    case_said("points to 8, where no value is");
    assert_int_equal(with_map(7, 1u << 31 | 2, -1, "a", 2), DG_EFORMAT);
    case_said("has the replacement at byte 2 of 2");
    assert_int_equal(with_map(7, 1u << 31 | 1, -1, "\xC3\xA9", 3), DG_EFORMAT);
}

static int from_pieces(const char *text, float score, int type)
{
    T5Unigram *u = NULL;
    Message m;
    int err;

    case_marks(&m);
    case_piece(&m, text, score, type);
    err = dg_t5_unigram_from_spiece(&u, "m", (const char *)m.at, m.used);
    dg_t5_unigram_destroy(u);
    return err;
}

static int from_option(int message, int field, uint64_t value)
{
    T5Unigram *u = NULL;
    Message m, options = { .used = 0 };
    int err;

    case_marks(&m);
    case_number(&options, field, value);
    case_bytes(&m, message, options.at, options.used);
    err = dg_t5_unigram_from_spiece(&u, "m", (const char *)m.at, m.used);
    dg_t5_unigram_destroy(u);
    return err;
}

static void test_bad_models_are_named(void **state)
{
    static const char *const raw[][2] = {
        { "", "no piece <pad> among its 0" },
        { "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "10 bytes" },
        { "\x0b", "wire type" },
        { "\x01", "field number out of range" },
        { "\x08\x01", "field of a wrong type" },
        { "\x0a\x7f", "longer than its message" },
        { "\x0d\x01\x02", "cut off at byte 1" },
        { "\x0a\x02\x18\x80", "cut off at byte 4" },
    };
    T5Unigram *u = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        assert_int_equal(
            dg_t5_unigram_from_spiece(&u, "m", raw[i][0], strlen(raw[i][0])),
            DG_EFORMAT);
        case_said(raw[i][1]);
    }
    assert_int_equal(from_pieces("a", -1, 1), DG_OK);
    assert_int_equal(from_pieces("", -1, 1), DG_EFORMAT);
    case_said("m: piece 3 is empty or not UTF-8");
    assert_int_equal(from_pieces("\xC3(", -1, 1), DG_EFORMAT);
    assert_int_equal(from_pieces("a", NAN, 1), DG_EFORMAT);
    case_said("piece 3 \"a\" has score nan");
    assert_int_equal(from_pieces("a", -INFINITY, 1), DG_EFORMAT);
    assert_int_equal(from_pieces("a", -1, 6), DG_EFORMAT);
    assert_int_equal(from_pieces("a", -1, 0), DG_EFORMAT);
    assert_int_equal(from_pieces("<pad>", -1, 1), DG_EFORMAT);
    case_said("is there twice");
    assert_int_equal(from_pieces("a", -1, 2), DG_EFORMAT);
    case_said("pieces 2 and 3 are both unknown");
    assert_int_equal(from_option(2, 3, 1), DG_OK);
    assert_int_equal(from_option(2, 3, 2), DG_EFORMAT);
    case_said("model type 2");
    assert_int_equal(from_option(2, 24, 1), DG_EFORMAT);
    assert_int_equal(from_option(2, 35, 1), DG_EFORMAT);
    case_said("byte_fallback");
    assert_int_equal(from_option(3, 2, 1), DG_EFORMAT);
    assert_null(u);
}

#define MODEL                                                                \
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":[[\"<pad>\",0]," \
    "[\"</s>\",0],[\"<unk>\",0],[\"a\",-1]]}"

static void test_bad_json_is_named(void **state)
{
    static const char *const bad[][2] = {
        { "{\"model\":", "malformed JSON" },
        { "{}", "model is not T5's" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":[1]}}", "is not T5's" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[1,2]]}}",
          "piece 0 has no text" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"x\"]]}}",
          "piece 0 \"a\" has no finite score" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1],[\"a\",1]]}}",
          "piece 1 \"a\" is there twice" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1]]}}",
          "unk_id must be an integer of [0, 1)" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":"
          "[[\"a\",1]]}}",
          "no token </s> among its 1" },
        { "{\"normalizer\":{\"type\":\"NFKC\"}," MODEL "}",
          "normalizer \"NFKC\" is not understood" },
        { "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":"
          "\"x+\"},\"content\":\"\"}," MODEL "}",
          "Replace of \"x+\"" },
        { "{\"normalizer\":{\"type\":\"Precompiled\"}," MODEL "}",
          "has no precompiled_charsmap" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
          "\"A?==\"}," MODEL "}",
          "is not base64 (4 characters, at 1)" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
          "\"AAAA\"}," MODEL "}",
          "character map of 3 bytes" },
        { "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"}," MODEL "}",
          "pre-tokenizer \"ByteLevel\"" },
        { "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}"
          "," MODEL "}",
          "replacement must be U+2581" },
        { "{\"added_tokens\":[{\"id\":1,\"content\":\"<pad>\"}]," MODEL "}",
          "id of added token \"<pad>\" must be its piece's" },
        { "{\"added_tokens\":[{\"id\":3,\"content\":\"q\"}]," MODEL "}",
          "integer of [4, 65540)" },
    };
    T5Unigram *u = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(
            dg_t5_unigram_from_json(&u, "j", bad[i][0], strlen(bad[i][0])),
            DG_EFORMAT);
        case_said("j: ");
        case_said(bad[i][1]);
        assert_null(u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_off_models_are_refused),
        cmocka_unit_test(test_character_maps_are_checked),
        cmocka_unit_test(test_bad_models_are_named),
        cmocka_unit_test(test_bad_json_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
