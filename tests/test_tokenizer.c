#include "tokenizer_case.h"

static int encode(const void *t, int32_t *ids, int32_t length,
                  TokenCount *count, const char *text)
{
    return dg_tokenizer_encode(t, ids, length, count, text);
}

static Tokenizer *opened(const char *folder, TokenizerKind kind)
{
    Tokenizer *t;

    assert_int_equal(dg_tokenizer_open(&t, folder), DG_OK);
    assert_int_equal(dg_tokenizer_info(t)->kind, kind);
    return t;
}

static void put_copy(const char *folder, const char *name, const char *from)
{
    char *data;
    size_t size;

    assert_int_equal(dg_file_read(from, &data, &size), DG_OK);
    case_write(folder, name, data, size);
    free(data);
}

/* A list alone gives the ids of the folder whose vocabulary follows it. */
static void test_a_list_of_rules_alone(void **state)
{
    static const char packed[] = "\x1f\x8b\x08";
    Tokenizer *t = opened(GOLDEN "clip_small/merges.txt", DG_TOKENIZER_CLIP);
    char folder[256], path[300];

    (void)state;
    assert_int_equal(dg_tokenizer_info(t)->num_ids, 5514);
    case_goldens("clip_small", "", 77, encode, t);
    dg_tokenizer_destroy(t);
    case_folder(folder);
    snprintf(path, sizeof path, "%s/list.txt.gz", folder);
    case_write(folder, "list.txt.gz", packed, sizeof packed - 1);
    assert_int_equal(dg_tokenizer_open(&t, path), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "list.txt.gz: is packed"));
    case_write(folder, "list.txt.gz", "a b\nc\n", 6);
    assert_int_equal(dg_tokenizer_open(&t, path), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "list.txt.gz, line 2"));
    case_remove(folder);
}

/* What a folder is opened as depends on what is in it. */
static void test_folders_are_known_by_their_files(void **state)
{
    static const char unigram[] =
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":[[\"<pad>\","
        "0],[\"</s>\",0],[\"<unk>\",0],[\"a\",-1]]}}";
    static const char bpe[] =
        "{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\","
        "\"vocab\":{\"a</w>\":0,\"<|startoftext|>\":1,\"<|endoftext|>\":2},"
        "\"merges\":[]}}";
    static const int32_t json_ids[] = { 3, 1 }, bpe_ids[] = { 1, 0, 2 };
    char folder[256];
    Tokenizer *t;

    (void)state;
    case_folder(folder);
    put_copy(folder, "spiece.model", GOLDEN "t5_small/spiece.model");
    t = opened(folder, DG_TOKENIZER_T5);
    assert_int_equal(dg_tokenizer_info(t)->length, 512);
    case_goldens("spm", "", 512, encode, t);
    dg_tokenizer_destroy(t);

    case_write(folder, "tokenizer.json", unigram, sizeof unigram - 1);
    t = opened(folder, DG_TOKENIZER_T5);
    case_expect(json_ids, 2, encode, t, "a");
    dg_tokenizer_destroy(t);
    case_remove(folder);

    case_folder(folder);
    case_write(folder, "tokenizer.json", bpe, sizeof bpe - 1);
    t = opened(folder, DG_TOKENIZER_CLIP);
    case_expect(bpe_ids, 3, encode, t, "A");
    dg_tokenizer_destroy(t);

    put_copy(folder, "merges.txt", GOLDEN "clip_small/merges.txt");
    t = opened(folder, DG_TOKENIZER_CLIP);
    assert_int_equal(dg_tokenizer_info(t)->num_ids, 5514);
    case_goldens("clip_small", "", 77, encode, t);
    dg_tokenizer_destroy(t);
    case_remove(folder);
    dg_tokenizer_destroy(NULL);
}

static void test_bad_folders_are_named(void **state)
{
    Tokenizer *t = NULL;
    char folder[256], path[640];

    (void)state;
    case_folder(folder);
    assert_int_equal(dg_tokenizer_open(&t, folder), DG_EIO);
    case_said("no tokenizer.json, spiece.model (T5), merges.txt (CLIP) or ");
    case_said("vocab.txt (BERT) in it");
    case_said(folder);
    assert_int_equal(dg_tokenizer_open(&t, "tests/no_such_folder"), DG_EIO);
    case_said("tests/no_such_folder");

    case_write(folder, "spiece.model", "\x0a", 1);
    assert_int_equal(dg_tokenizer_open(&t, folder), DG_EFORMAT);
    case_said("/spiece.model: protobuf cut off at byte 1");
    case_write(folder, "merges.txt", "a b c\n", 6);
    assert_int_equal(dg_tokenizer_open(&t, folder), DG_EFORMAT);
    case_said("/merges.txt, line 1: \"a b c\" is not two tokens");
    case_write(folder, "tokenizer.json", "{\"model\":", 9);
    assert_int_equal(dg_tokenizer_open(&t, folder), DG_EFORMAT);
    case_said("/tokenizer.json: malformed JSON near byte");
    snprintf(path, sizeof path,
             "rm '%s/tokenizer.json' && mkdir "
             "'%s/tokenizer.json'",
             folder, folder);
    assert_int_equal(system(path), 0);
    assert_int_equal(dg_tokenizer_open(&t, folder), DG_EIO);
    case_said("/tokenizer.json: ");
    case_remove(folder);
    assert_null(t);
}

/* The byte is named; nothing that is not UTF-8 gets through. */
static void test_bad_prompts_are_named(void **state)
{
    static const char *const bad[] = {
        "\xFF",
        "a\x80",
        "a\xC3",
        "\xC0\x80",
        "\xE2\x96",
        "\xED\xA0\x80",
        "\xF4\x90\x80\x80",
        "\xF8\x88\x80\x80",
        "ok \xE2\x28\xA1",
    };
    static const char *const folders[] = { GOLDEN "clip_small", NULL,
                                           GOLDEN "bert_small" };
    char t5[256];

    (void)state;
    case_folder(t5);
    put_copy(t5, "spiece.model", GOLDEN "t5_small/spiece.model");
    for (int k = 0; k < 3; k++) {
        Tokenizer *t;
        int32_t ids[77];
        char *text = malloc(DG_TOKENIZER_TEXT_BYTES + 2);

        assert_non_null(text);
        assert_int_equal(
            dg_tokenizer_open(&t, folders[k] != NULL ? folders[k] : t5), DG_OK);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            assert_int_equal(dg_tokenizer_encode(t, ids, 77, NULL, bad[i]),
                             DG_EINVAL);
            case_said("not UTF-8 at byte");
        }
        case_said("\"ok ...\": not UTF-8 at byte 4 (0xe2)");
        memset(text, ' ', DG_TOKENIZER_TEXT_BYTES + 1);
        text[DG_TOKENIZER_TEXT_BYTES + 1] = '\0';
        assert_int_equal(dg_tokenizer_encode(t, ids, 77, NULL, text),
                         DG_EINVAL);
        case_said("at most 16777216 are");
        text[DG_TOKENIZER_TEXT_BYTES] = '\0';
        assert_int_equal(dg_tokenizer_encode(t, ids, 77, NULL, text), DG_OK);
        free(text);
        dg_tokenizer_destroy(t);
    }
    case_remove(t5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_of_rules_alone),
        cmocka_unit_test(test_folders_are_known_by_their_files),
        cmocka_unit_test(test_bad_folders_are_named),
        cmocka_unit_test(test_bad_prompts_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
