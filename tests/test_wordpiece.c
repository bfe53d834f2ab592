/* BERT's WordPiece against transformers' BertTokenizer
 * (tests/golden/make_wordpiece.py), and files that do not serve. */
#include "tokenizer_case.h"

#include "text/wordpiece.h"

#define VOCAB "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nab\n##c\n##cd\n#\n##\n"

enum { PAD, UNK, CLS, SEP, MASK, A, B, AB, C, CD, HASH, NUM = 12 };

static int encode(const void *w, int32_t *ids, int32_t length,
                  TokenCount *count, const char *text)
{
    return dg_wordpiece_encode(w, ids, length, count, text);
}

static WordPiece *of_vocab(const char *text, const char *added)
{
    WordPiece *w = NULL;

    assert_int_equal(dg_wordpiece_from_vocab(&w, "vocab.txt", text,
                                             strlen(text), added,
                                             added != NULL ? strlen(added) : 0),
                     DG_OK);
    return w;
}

static void test_goldens(void **state)
{
    char *vocab, *added;
    size_t size, added_size;
    WordPiece *w;

    (void)state;
    assert_int_equal(dg_wordpiece_open(&w, GOLDEN "bert_small"), DG_OK);
    assert_int_equal(dg_wordpiece_info(w)->num_ids, 2979);
    case_goldens("bert", "", 77, encode, w);
    dg_wordpiece_destroy(w);
    assert_int_equal(dg_file_read(GOLDEN "bert_small/vocab.txt", &vocab, &size),
                     DG_OK);
    assert_int_equal(dg_file_read(GOLDEN "bert_small/added_tokens.json", &added,
                                  &added_size),
                     DG_OK);
    assert_int_equal(
        dg_wordpiece_from_vocab(&w, "vocab", vocab, size, added, added_size),
        DG_OK);
    assert_int_equal(dg_wordpiece_info(w)->num_ids, 2979);
    case_goldens("bert", "", 77, encode, w);
    dg_wordpiece_destroy(w);
    free(vocab);
    free(added);
}

/* The longest piece is taken, even where a shorter one would leave a rest
 * that is known. */
static void test_words_are_the_longest_pieces(void **state)
{
    static const struct {
        const char *text;
        int32_t ids[9], num;
    } cases[] = {
        { "", { CLS, SEP }, 2 },
        { "ab", { CLS, AB, SEP }, 3 },
        { "abcd a", { CLS, AB, CD, A, SEP }, 5 },
        { "abccd", { CLS, AB, C, CD, SEP }, 5 },
        { "abd", { CLS, UNK, SEP }, 3 },
        { "c", { CLS, UNK, SEP }, 3 },
        { "##c", { CLS, HASH, HASH, UNK, SEP }, 5 },
        { "A\xC3\x81\tB", { CLS, UNK, B, SEP }, 4 },
        { "\xC3\x81\x62", { CLS, AB, SEP }, 3 },
        { "a[SEP]b [MASK][sep]",
          { CLS, A, SEP, B, MASK, UNK, UNK, UNK, SEP },
          9 },
    };
    WordPiece *w = of_vocab(VOCAB, NULL);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        case_expect(cases[i].ids, cases[i].num, encode, w, cases[i].text);
    assert_int_equal(dg_wordpiece_info(w)->bos, CLS);
    assert_int_equal(dg_wordpiece_info(w)->eos, SEP);
    assert_int_equal(dg_wordpiece_info(w)->pad, PAD);
    dg_wordpiece_destroy(w);
}

/* 100 characters, not bytes, are the most that a word may have; and the end
 * mark stays where the ids are cut. */
static void test_long_words_and_cuts(void **state)
{
    const int32_t known[] = { CLS, A, SEP }, unknown[] = { CLS, UNK, SEP };
    const int32_t cut[] = { CLS, A, A, SEP };
    const int32_t behind[] = { CLS, UNK, B, SEP };
    WordPiece *w = of_vocab(VOCAB "##\xC3\x9F\n", NULL);
    char text[300] = "a";
    int32_t ids[104];
    TokenCount count;

    (void)state;
    for (int i = 1; i < 100; i++)
        strcat(text, "\xC3\x9F"); /* lower case stays, and is two bytes */
    assert_int_equal(encode(w, ids, 104, &count, text), DG_OK);
    assert_int_equal(count.used, 102);
    assert_memory_equal(ids, known, 2 * sizeof *ids);
    strcat(text, "\xC3\x9F");
    case_expect(unknown, 3, encode, w, text);
    strcat(text, " b");
    case_expect(behind, 4, encode, w, text);
    memmove(text + 1, text + 3, strlen(text) - 2); /* 100 of them are left */
    assert_int_equal(encode(w, ids, 104, &count, text), DG_OK);
    assert_int_equal(count.used, 103);
    assert_memory_equal(ids, known, 2 * sizeof *ids);
    assert_int_equal(encode(w, ids, 4, &count, "a a a"), DG_OK);
    assert_true(count.used == 4 && count.truncated);
    assert_memory_equal(ids, cut, sizeof cut);
    assert_int_equal(encode(w, ids, 4, &count, "a a"), DG_OK);
    assert_true(count.used == 4 && !count.truncated);
    assert_int_equal(encode(w, ids, 1, &count, "a"), DG_EINVAL);
    dg_wordpiece_destroy(w);
}

/* As a file that Windows wrote, and one whose last line has no end. */
static void test_ends_of_lines(void **state)
{
    const int32_t want[] = { CLS, A, SEP };
    WordPiece *w =
        of_vocab("[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\na", NULL);

    (void)state;
    case_expect(want, 3, encode, w, "a");
    assert_int_equal(dg_wordpiece_info(w)->num_ids, 6);
    dg_wordpiece_destroy(w);
    assert_true(dg_wordpiece_is_list("a\r\n[UNK]\r\n", 10));
    assert_true(dg_wordpiece_is_list("a\n[UNK]", 7));
    assert_false(dg_wordpiece_is_list("a\n[UNK] b\n", 10));
    assert_false(dg_wordpiece_is_list("", 0));
}

static void test_added_tokens(void **state)
{
    const int32_t want[] = { CLS, A, NUM, NUM + 1, B, SEP };
    WordPiece *w = of_vocab(VOCAB, "{\"[ENC]\": 13, \"[DEC]\": 12, \"ab\": 7}");

    (void)state;
    case_expect(want, 6, encode, w, "a[DEC] [ENC]b");
    assert_int_equal(dg_wordpiece_info(w)->num_ids, NUM + 2);
    dg_wordpiece_destroy(w);
}

static void test_bad_vocabularies_are_named(void **state)
{
    static const struct {
        const char *vocab, *added, *said;
    } bad[] = {
        { "", NULL, "v: no token [PAD]: not a BERT vocabulary" },
        { "[PAD]\n[UNK]\n[CLS]\n", NULL, "v: no token [SEP]" },
        { VOCAB "\nd\n", NULL, "v, line 13: a piece without text" },
        { VOCAB "ab\n", NULL, "v, line 13: piece \"ab\" is there twice" },
        { VOCAB "##c\n", NULL, "v, line 13: piece \"##c\" is there twice" },
        { VOCAB "\xC3\n", NULL, "v, line 13: not UTF-8" },
        { VOCAB, "{", "added_tokens.json beside v: malformed JSON" },
        { VOCAB, "{\"x\": 11}", "id of added token \"x\" must be its piece's" },
        { VOCAB, "{\"ab\": 12}",
          "id of added token \"ab\" must be its piece's" },
        { VOCAB, "{\"x\": 1.5}", "or an integer of [12, 65548)" },
        { VOCAB, "{\"x\": 65548}", "or an integer of [12, 65548)" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        WordPiece *w = NULL;

        assert_int_equal(dg_wordpiece_from_vocab(
                             &w, "v", bad[i].vocab, strlen(bad[i].vocab),
                             bad[i].added,
                             bad[i].added != NULL ? strlen(bad[i].added) : 0),
                         DG_EFORMAT);
        case_said(bad[i].said);
        assert_null(w);
    }
}

#define JSON(normalizer, model)                                           \
    "{\"normalizer\":{\"type\":\"BertNormalizer\"" normalizer "},"        \
    "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"                  \
    "\"added_tokens\":[{\"id\":4,\"content\":\"[X]\"}],\"model\":{" model \
    "\"vocab\":{\"[PAD]\":0,\"[CLS]\":2,\"[UNK]\":1,\"[SEP]\":3}}}"

static void test_json(void **state)
{
    static const char good[] =
        JSON(",\"strip_accents\":null,\"lowercase\":true", "");
    static const struct {
        const char *json, *said;
    } bad[] = {
        { "{}", "t.json: model has no vocab" },
        { JSON(",\"lowercase\":false", ""), "t.json: lowercase must be true" },
        { JSON(",\"strip_accents\":false", ""),
          "t.json: strip_accents must be true" },
        { JSON("", "\"type\":\"BPE\","),
          "t.json: model.type is \"BPE\": must be \"WordPiece\"" },
        { JSON("", "\"continuing_subword_prefix\":\"@\","),
          "continuing_subword_prefix is \"@\": must be \"##\"" },
        { JSON("", "\"max_input_chars_per_word\":200,"), "must be 100" },
        { "{\"normalizer\":{\"type\":\"NFC\"},\"model\":{\"vocab\":{}}}",
          "normalizer.type is \"NFC\": must be \"BertNormalizer\"" },
        { "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"model\":"
          "{\"vocab\":{}}}",
          "pre_tokenizer must be a BertPreTokenizer" },
        { "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":"
          "{\"type\":\"BertPreTokenizer\"},\"model\":{\"vocab\":{\"a\":0,"
          "\"b\":0}}}",
          "id of piece \"b\" must be an integer of [0, 2) of its own" },
    };
    const int32_t want[] = { 2, 4, 1, 3 };
    WordPiece *w;

    (void)state;
    assert_int_equal(
        dg_wordpiece_from_json(&w, "t.json", good, sizeof good - 1), DG_OK);
    case_expect(want, 4, encode, w, "[X] x");
    dg_wordpiece_destroy(w);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        w = NULL;
        assert_int_equal(dg_wordpiece_from_json(&w, "t.json", bad[i].json,
                                                strlen(bad[i].json)),
                         DG_EFORMAT);
        case_said(bad[i].said);
        assert_null(w);
    }
}

/* Folders and files, by what is in them. */
static void test_opened_as_berts(void **state)
{
    static const char cased[] = "{\"do_lower_case\": false}";
    char folder[256], path[300];
    Tokenizer *t = NULL;
    WordPiece *w = NULL;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dg_tokenizer_open(&t, i == 0 ? GOLDEN "bert_small"
                                                      : GOLDEN
                                                   "bert_small/vocab.txt"),
                         DG_OK);
        assert_int_equal(dg_tokenizer_info(t)->kind, DG_TOKENIZER_WORDPIECE);
        assert_int_equal(dg_tokenizer_info(t)->num_ids, i == 0 ? 2979 : 2977);
        dg_tokenizer_destroy(t);
    }
    case_folder(folder);
    case_write(folder, "vocab.txt", VOCAB, sizeof VOCAB - 1);
    case_write(folder, "added_tokens.json", "{\"x\":12}", 8);
    assert_int_equal(dg_tokenizer_open(&t, folder), DG_OK);
    assert_int_equal(dg_tokenizer_info(t)->kind, DG_TOKENIZER_WORDPIECE);
    assert_int_equal(dg_tokenizer_info(t)->num_ids, NUM + 1);
    dg_tokenizer_destroy(t);
    case_write(folder, "tokenizer_config.json", cased, sizeof cased - 1);
    assert_int_equal(dg_wordpiece_open(&w, folder), DG_EFORMAT);
    case_said("tokenizer_config.json: do_lower_case must be true");
    case_remove(folder);
    case_folder(folder);
    assert_int_equal(dg_wordpiece_open(&w, folder), DG_EIO);
    case_said("vocab.txt");
    snprintf(path, sizeof path, "%s/none.txt", folder);
    assert_int_equal(dg_wordpiece_open_list(&w, path), DG_EIO);
    assert_null(w);
    case_remove(folder);
    dg_wordpiece_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_words_are_the_longest_pieces),
        cmocka_unit_test(test_long_words_and_cuts),
        cmocka_unit_test(test_ends_of_lines),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_bad_vocabularies_are_named),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_opened_as_berts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
