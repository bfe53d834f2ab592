#include "tokenizer_case.h"

#include <math.h>
#include <time.h>

#include "text/t5_unigram.h"

static int encode(const void *u, int32_t *ids, int32_t length,
                  TokenCount *count, const char *text)
{
    return dg_t5_unigram_encode(u, ids, length, count, text);
}

static const char spiece_file[] = GOLDEN "t5_small/spiece.model";

static T5Unigram *from_message(const Message *m)
{
    T5Unigram *u;

    assert_int_equal(
        dg_t5_unigram_from_spiece(&u, "m", (const char *)m->at, m->used),
        DG_OK);
    return u;
}

static uint64_t take_varint(const unsigned char **p)
{
    uint64_t v = 0;
    int shift = 0;

    do
        v |= (uint64_t)(**p & 0x7F) << shift;
    while (shift += 7, *(*p)++ & 0x80);
    return v;
}

/* The bytes of a length-delimited field of a message that has only those
 * and varints before it. */
static const unsigned char *find_field(const unsigned char *p, uint64_t field,
                                       uint64_t *size)
{
    for (;;) {
        const uint64_t tag = take_varint(&p);

        *size = take_varint(&p);
        if (tag == (field << 3 | 2))
            return p;
        p += (tag & 7) == 2 ? *size : 0;
    }
}

static char *base64(const unsigned char *s, size_t size)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
                                "qrstuvwxyz0123456789+/";
    char *out = malloc(size / 3 * 4 + 8);
    size_t n = 0;

    assert_non_null(out);
    for (size_t i = 0; i < size; i += 3) {
        const uint32_t b = (uint32_t)s[i] << 16 |
                           (i + 1 < size ? (uint32_t)s[i + 1] << 8 : 0) |
                           (i + 2 < size ? s[i + 2] : 0);

        out[n++] = digit[b >> 18];
        out[n++] = digit[b >> 12 & 63];
        out[n++] = i + 1 < size ? digit[b >> 6 & 63] : '=';
        out[n++] = i + 2 < size ? digit[b & 63] : '=';
    }
    out[n] = '\0';
    return out;
}

/* tokenizer.json as transformers writes it: the one in the goldens with the
 * character map of spiece.model put back. old: with the normalizers and the
 * pre-tokenizer that transformers 4 made of a spiece.model. */
static char *tokenizer_json(int old)
{
    static const char steps[] =
        "{\"type\":\"Sequence\",\"normalizers\":[0,{\"type\":\"Strip\","
        "\"strip_left\":false,\"strip_right\":true},{\"type\":\"Replace\","
        "\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"\xE2\x96\x81\"}]}";
    static const char words[] = "{\"type\":\"Metaspace\",\"replacement\":"
                                "\"\xE2\x96\x81\",\"prepend_scheme\":"
                                "\"first\",\"split\":true}";
    char *text, *spiece, *map, *whole;
    size_t bytes;
    uint64_t size;
    cJSON *json, *normalizer;
    const unsigned char *p;

    assert_int_equal(dg_file_read(spiece_file, &spiece, &bytes), DG_OK);
    p = find_field((const unsigned char *)spiece, 3, &size);
    p = find_field(p, 2, &size);
    map = base64(p, size);
    assert_int_equal(
        dg_file_read(GOLDEN "t5_small/tokenizer.json", &text, &bytes), DG_OK);
    json = cJSON_Parse(text);
    normalizer = cJSON_GetObjectItem(json, "normalizer");
    cJSON_ReplaceItemInObject(normalizer, "precompiled_charsmap",
                              cJSON_CreateString(map));
    if (old) {
        cJSON *sequence = cJSON_Parse(steps);

        normalizer = cJSON_DetachItemFromObject(json, "normalizer");
        cJSON_ReplaceItemInArray(cJSON_GetObjectItem(sequence, "normalizers"),
                                 0, normalizer);
        cJSON_AddItemToObject(json, "normalizer", sequence);
        cJSON_ReplaceItemInObject(json, "pre_tokenizer", cJSON_Parse(words));
    }
    whole = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    free(text);
    free(map);
    free(spiece);
    return whole;
}

/* Ids of the sentencepiece library: see tests/golden/make_tokenizers.py. */
static void test_spiece_gives_the_ids_of_sentencepiece(void **state)
{
    T5Unigram *u;
    char *data;
    size_t size;

    (void)state;
    assert_int_equal(dg_file_read(spiece_file, &data, &size), DG_OK);
    assert_int_equal(dg_t5_unigram_from_spiece(&u, "m", data, size), DG_OK);
    free(data);
    assert_int_equal(dg_t5_unigram_info(u)->num_ids, 1500);
    assert_int_equal(dg_t5_unigram_info(u)->bos, -1);
    assert_int_equal(dg_t5_unigram_info(u)->pad, 0);
    assert_int_equal(dg_t5_unigram_info(u)->eos, 1);
    assert_int_equal(dg_t5_unigram_info(u)->unk, 2);
    assert_int_equal(dg_t5_unigram_info(u)->length, 512);
    case_goldens("spm", "", 512, encode, u);
    dg_t5_unigram_destroy(u);
}

/* Ids of transformers.T5TokenizerFast, now and as it was in version 4. */
static void test_json_gives_the_ids_of_transformers(void **state)
{
    (void)state;
    for (int old = 0; old < 2; old++) {
        T5Unigram *u;
        char *json = tokenizer_json(old);

        assert_int_equal(dg_t5_unigram_from_json(&u, "j", json, strlen(json)),
                         DG_OK);
        assert_int_equal(dg_t5_unigram_info(u)->num_ids, 1500);
        assert_int_equal(dg_t5_unigram_info(u)->pad, 0);
        assert_int_equal(dg_t5_unigram_info(u)->eos, 1);
        case_goldens(old ? "t5_old" : "t5", "spm", 512, encode, u);
        dg_t5_unigram_destroy(u);
        cJSON_free(json);
    }
}

/* All segmentations of a text over pieces of a and b, by recursion. */
typedef struct Brute {
    const char *piece[16];
    double score[16];
    int num;
    double best;
    int32_t ids[32], best_ids[32];
    int best_num;
} Brute;

static void try_all(Brute *b, const char *text, int depth, double score)
{
    if (*text == '\0' && score > b->best) {
        b->best = score;
        b->best_num = depth;
        memcpy(b->best_ids, b->ids, sizeof b->ids);
    }
    for (int i = 0; i < b->num && *text != '\0'; i++) {
        const size_t n = strlen(b->piece[i]);

        if (strncmp(text, b->piece[i], n) != 0)
            continue;
        b->ids[depth] = 3 + i;
        try_all(b, text + n, depth + 1, score + b->score[i]);
    }
}

static void test_largest_sum_agrees_with_all_segmentations(void **state)
{
    Brute b = { .piece = { "a", "b", "\xE2\x96\x81",
                           "\xE2\x96\x81"
                           "a",
                           "ab", "ba", "aab", "bab", "abba", "aa", "bbb",
                           "aabb",
                           "\xE2\x96\x81"
                           "ba" },
                .num = 13 };
    uint32_t seed = 7;
    Message m;
    T5Unigram *u;

    (void)state;
    case_marks(&m);
    for (int i = 0; i < b.num; i++) {
        /* eighths: sums are exact in float32; different for every piece */
        b.score[i] = -2.0 - 0.125 * ((i * 37) % 61);
        case_piece(&m, b.piece[i], (float)b.score[i], 1);
    }
    u = from_message(&m);
    for (int k = 0; k < 400; k++) {
        char text[40] = "\xE2\x96\x81";
        int n;
        int32_t ids[40];
        TokenCount count;
        double sum = 0;

        seed = seed * 1664525u + 1013904223u;
        n = 1 + (int)(seed >> 29) + (int)(seed >> 28 & 1);
        for (int i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            text[3 + i] = (char)('a' + (seed >> 30 & 1));
        }
        text[3 + n] = '\0';
        b.best = -INFINITY;
        try_all(&b, text, 0, 0);
        assert_int_equal(encode(u, ids, 40, &count, text + 3), DG_OK);
        for (int i = 0; i + 1 < count.used; i++)
            sum += b.score[ids[i] - 3];
        assert_true(sum == b.best); /* ties may be cut otherwise */
        assert_int_equal(ids[count.used - 1], 1);
    }
    dg_t5_unigram_destroy(u);
}

/* Unknown code points cost min - 10 each and fuse; control and unused pieces
 * match no text, a user-defined one always does. */
static void test_types_of_pieces(void **state)
{
    static const int32_t unknown[] = { 3, 2, 4, 2, 1 };
    static const int32_t user[] = { 3, 4, 5, 4, 1 };
    static const int32_t cut[] = { 3, 4, 0, 3, 4, 2, 1, 3, 4, 107, 1 };
    Message m;
    T5Unigram *u;

    (void)state;
    case_marks(&m);
    case_piece(&m, "\xE2\x96\x81", -1, 1);
    case_piece(&m, "a", -1, 1);
    case_piece(&m, "<u>", -50, 4);
    case_piece(&m, "x", 0, 5);
    case_piece(&m, "y", 0, 3);
    u = from_message(&m);
    case_expect(unknown, 5, encode, u, "xyzaxx\xF0\x9F\x98\x80");
    case_expect(user, 5, encode, u, "a<u>a");
    /* 8 pieces: <extra_id_0> is 107 */
    case_expect(cut, 11, encode, u, "a<pad>a<unk></s> a<extra_id_0>");
    assert_int_equal(dg_t5_unigram_info(u)->num_ids, 108);
    dg_t5_unigram_destroy(u);
}

/* Pieces of these scores behind <pad>, </s>, <unk> and U+2581 (3). */
static void expect_ids(int json, const char *const piece[3],
                       const double score[3], const char *text,
                       const int32_t ids[4])
{
    char whole[512];
    Message m;
    T5Unigram *u;
    int num = 0;

    case_marks(&m);
    case_piece(&m, "\xE2\x96\x81", -1, 1);
    for (int i = 0; i < 3; i++)
        case_piece(&m, piece[i], (float)score[i], 1);
    snprintf(
        whole, sizeof whole,
        "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":"
        "\"\xE2\x96\x81\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":2,"
        "\"vocab\":[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],"
        "[\"\xE2\x96\x81\",-1],[\"%s\",%.17g],[\"%s\",%.17g],[\"%s\",%.17g]]}}",
        piece[0], score[0], piece[1], score[1], piece[2], score[2]);
    if (json)
        assert_int_equal(dg_t5_unigram_from_json(&u, "j", whole, strlen(whole)),
                         DG_OK);
    else
        u = from_message(&m);
    while (ids[num++] != 1)
        continue;
    case_expect(ids, num, encode, u, text);
    dg_t5_unigram_destroy(u);
}

/* What decides where sums are near each other. */
static void test_close_sums_are_decided_as_in_the_libraries(void **state)
{
    static const char *const tie[] = { "a", "aa", "c" };
    static const char *const unk[] = { "ab", "b", "c" };
    static const char *const begin[] = { "ab", "bc", "d" };
    static const char *const round[] = { "a", "ab", "b" };
    static const double tie_score[] = { -1, -2, -1 };
    static const double unk_score[] = { -5, 3, -1 };
    static const double begin_score[] = { -100, -1, -1 };
    static const double round_score[] = { -16777216, -16777218, -2.5 };

    (void)state;
    for (int json = 0; json < 2; json++) {
        /* of equal sums the token that starts first stays */
        expect_ids(json, tie, tie_score, "aa", (int32_t[4]) { 3, 5, 1 });
        /* unknown: min - 10 = -15, so -5 against -15 + 3 */
        expect_ids(json, unk, unk_score, "ab", (int32_t[4]) { 3, 4, 1 });
        /* unknown is offered beside a longer piece that starts alike */
        expect_ids(json, begin, begin_score, "abc",
                   (int32_t[4]) { 3, 2, 5, 1 });
    }
    /* behind -1: -16777218 against -16777216 - 2.5; float32 rounds the one
     * sum down and the other up */
    expect_ids(1, round, round_score, "ab", (int32_t[4]) { 3, 5, 1 });
    expect_ids(0, round, round_score, "ab", (int32_t[4]) { 3, 4, 6, 1 });
}

/* White space at the ends and in runs, with each of SentencePiece's switches:
 * ids of "  a  a " over the pieces U+2581, a and a space. */
static void test_white_space_switches(void **state)
{
    static const int32_t want[8][9] = {
        { 3, 4, 3, 4, 1 },             /* all on, as T5 has it */
        { 4, 3, 4, 1 },                /* no dummy prefix */
        { 3, 3, 3, 4, 3, 3, 4, 3, 1 }, /* extra spaces stay */
        { 3, 3, 4, 3, 3, 4, 3, 1 },
        { 5, 4, 5, 4, 1 }, /* spaces are not escaped */
        { 4, 5, 4, 1 },
        { 5, 5, 5, 4, 5, 5, 4, 5, 1 },
        { 5, 5, 4, 5, 5, 4, 5, 1 },
    };
    static const int num[8] = { 5, 4, 9, 8, 5, 4, 9, 8 };

    (void)state;
    for (int k = 0; k < 8; k++) {
        Message m, rules = { .used = 0 };
        T5Unigram *u;

        case_marks(&m);
        case_piece(&m, "\xE2\x96\x81", -1, 1);
        case_piece(&m, "a", -1, 1);
        case_piece(&m, " ", -1, 1);
        case_number(&rules, 3, !(k & 1));
        case_number(&rules, 4, !(k & 2));
        case_number(&rules, 5, !(k & 4));
        case_bytes(&m, 3, rules.at, rules.used);
        u = from_message(&m);
        case_expect(want[k], num[k], encode, u, "  a  a ");
        dg_t5_unigram_destroy(u);
    }
}

static void test_length_cuts_tokens_not_the_mark(void **state)
{
    int32_t ids[16];
    TokenCount count;
    Message m;
    T5Unigram *u;

    (void)state;
    case_marks(&m);
    case_piece(&m, "\xE2\x96\x81", -1, 1);
    case_piece(&m, "a", -1, 1);
    u = from_message(&m);
    for (int32_t n = 1; n < 16; n++) {
        assert_int_equal(encode(u, ids, n, &count, "aaaa"), DG_OK);
        assert_int_equal(count.used, n < 6 ? n : 6);
        assert_int_equal(count.truncated, n < 6);
        for (int32_t i = 0; i < n; i++)
            assert_int_equal(ids[i], i == count.used - 1 ? 1
                                     : i >= count.used   ? 0
                                     : i == 0            ? 3
                                                         : 4);
    }
    assert_int_equal(encode(u, ids, 0, NULL, ""), DG_EINVAL);
    dg_t5_unigram_destroy(u);
}

/* 200 characters take some ten microseconds. */
static void test_encoding_is_fast(void **state)
{
    static const char line[] =
        "a photo of four red zebras next to a yellow umbrella, oil painting, ";
    char prompt[208] = "";
    int32_t ids[512];

    (void)state;
    for (int i = 0; i < 3; i++)
        strcat(prompt, line);
    for (int json = 0; json < 2; json++) {
        T5Unigram *u;
        char *data = NULL;
        size_t size;
        clock_t began;

        if (json) {
            data = tokenizer_json(0);
            size = strlen(data);
            assert_int_equal(dg_t5_unigram_from_json(&u, "j", data, size), 0);
        } else {
            assert_int_equal(dg_file_read(spiece_file, &data, &size), DG_OK);
            assert_int_equal(dg_t5_unigram_from_spiece(&u, "m", data, size), 0);
        }
        free(data);
        began = clock();
        for (int i = 0; i < 500; i++)
            assert_int_equal(encode(u, ids, 512, NULL, prompt), DG_OK);
        assert_true(clock() - began < CLOCKS_PER_SEC / 2);
        dg_t5_unigram_destroy(u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spiece_gives_the_ids_of_sentencepiece),
        cmocka_unit_test(test_json_gives_the_ids_of_transformers),
        cmocka_unit_test(test_largest_sum_agrees_with_all_segmentations),
        cmocka_unit_test(test_types_of_pieces),
        cmocka_unit_test(test_close_sums_are_decided_as_in_the_libraries),
        cmocka_unit_test(test_white_space_switches),
        cmocka_unit_test(test_length_cuts_tokens_not_the_mark),
        cmocka_unit_test(test_encoding_is_fast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
