#include "tokenizer_case.h"

#include <time.h>

#include "base/log.h"
#include "text/clip_bpe.h"
#include "text/clip_clean.h"

/* openai/CLIP's own list, MIT licence: beside the checkout or not at all */
static const char full_list[] =
    "../shared/data/clip_bpe_simple_vocab_16e6.txt.gz";

static int encode(const void *b, int32_t *ids, int32_t length,
                  TokenCount *count, const char *text)
{
    return dg_clip_bpe_encode(b, ids, length, count, text);
}

static ClipBpe *small(void)
{
    ClipBpe *b;

    assert_int_equal(dg_clip_bpe_open(&b, GOLDEN "clip_small"), DG_OK);
    return b;
}

/* The whole list, unpacked by gzip; NULL if it is not there. */
static ClipBpe *full(void)
{
    static const size_t room = (size_t)8 << 20;
    char command[256];
    char *text;
    ClipBpe *b = NULL;
    FILE *f;

    if (access(full_list, R_OK) != 0) {
        print_message("%s is not there: left out\n", full_list);
        return NULL;
    }
    snprintf(command, sizeof command, "gzip -dc '%s'", full_list);
    text = malloc(room);
    f = popen(command, "r");
    assert_true(text != NULL && f != NULL);
    {
        const ClipFiles files = { .merges = text,
                                  .merges_bytes = fread(text, 1, room, f),
                                  .num_merges = 48894,
                                  .folder = full_list };

        assert_int_equal(pclose(f), 0);
        assert_int_equal(dg_clip_bpe_create(&b, &files), DG_OK);
    }
    free(text);
    return b;
}

/* A merges.txt that is cut off between two lines still is one. */
static void test_rules_that_end_early_are_warned_of(void **state)
{
    char *vocab, *merges;
    ClipFiles f = { .folder = "cut" };
    ClipBpe *b;
    long warned;

    (void)state;
    assert_int_equal(
        dg_file_read(GOLDEN "clip_small/vocab.json", &vocab, &f.vocab_bytes),
        DG_OK);
    assert_int_equal(
        dg_file_read(GOLDEN "clip_small/merges.txt", &merges, &f.merges_bytes),
        DG_OK);
    f.vocab = vocab;
    f.merges = merges;
    for (int cut = 0; cut < 2; cut++) {
        warned = dg_log_count(DG_LOG_WARN);
        assert_int_equal(dg_clip_bpe_create(&b, &f), DG_OK);
        assert_int_equal(dg_log_count(DG_LOG_WARN) - warned, cut);
        dg_clip_bpe_destroy(b);
        do
            f.merges_bytes--;
        while (merges[f.merges_bytes - 1] != '\n');
    }
    free(vocab);
    free(merges);
}

/* Ids of transformers.CLIPTokenizer: see tests/golden/make_tokenizers.py. */
static void test_small_list_gives_the_ids_of_transformers(void **state)
{
    ClipBpe *b = small();

    (void)state;
    assert_int_equal(dg_clip_bpe_info(b)->num_ids, 5514);
    assert_int_equal(dg_clip_bpe_info(b)->bos, 5512);
    assert_int_equal(dg_clip_bpe_info(b)->eos, 5513);
    assert_int_equal(dg_clip_bpe_info(b)->pad, 5513);
    assert_int_equal(dg_clip_bpe_info(b)->length, 77);
    case_goldens("clip_small", "", 77, encode, b);
    dg_clip_bpe_destroy(b);
}

/* The whole list as a file, which has five times as many rules as count. */
static void test_full_list_as_a_file(void **state)
{
    static const int32_t cat[] = { 49406, 320, 1125, 539, 320, 2368, 49407 };
    static const int32_t cafe[] = { 49406, 15304, 261,   1097, 35689,
                                    563,   39121, 19277, 361,  49407 };
    char folder[256], path[300], command[700], *clean;
    ClipBpe *b;

    (void)state;
    if (access(full_list, R_OK) != 0)
        skip();
    case_folder(folder);
    snprintf(path, sizeof path, "%s/list.txt", folder);
    snprintf(command, sizeof command, "gzip -dc '%s' >'%s'", full_list, path);
    assert_int_equal(system(command), 0);
    assert_int_equal(dg_clip_bpe_open_list(&b, path), DG_OK);
    assert_int_equal(dg_clip_bpe_info(b)->num_ids, 49408);
    case_expect(cat, 7, encode, b, "a photo of a cat");
    assert_int_equal(
        dg_clip_clean(&clean, "caf\u00E9 &amp; na\u00EFve \u65E5\u672C"),
        DG_OK);
    case_expect(cafe, 10, encode, b, clean);
    free(clean);
    dg_clip_bpe_destroy(b);
    case_remove(folder);
}

static void test_full_list_gives_the_ids_of_transformers(void **state)
{
    static const int32_t cat[] = { 49406, 320, 1125, 539, 320, 2368, 49407 };
    static const int32_t hello[] = { 49406, 3306, 267, 1002, 256, 49407 };
    static const int32_t none[] = { 49406, 49407 };
    ClipBpe *b = full();

    (void)state;
    if (b == NULL)
        skip();
    case_expect(cat, 7, encode, b, "a photo of a cat");
    case_expect(hello, 6, encode, b, "Hello, world!");
    case_expect(none, 2, encode, b, "");
    case_goldens("clip", "", 77, encode, b);
    dg_clip_bpe_destroy(b);
}

/* merges.txt alone, and both in a tokenizer.json, are the same tokenizer. */
static void test_all_sources_are_the_same_tokenizer(void **state)
{
    ClipFiles f = { .folder = "" };
    char *merges, *vocab;
    size_t bytes;
    cJSON *json, *model, *rules;
    ClipBpe *b;

    (void)state;
    assert_int_equal(
        dg_file_read(GOLDEN "clip_small/merges.txt", &merges, &f.merges_bytes),
        DG_OK);
    f.merges = merges;
    assert_int_equal(dg_clip_bpe_create(&b, &f), DG_OK);
    case_goldens("clip_small", "", 77, encode, b);
    dg_clip_bpe_destroy(b);

    assert_int_equal(
        dg_file_read(GOLDEN "clip_small/vocab.json", &vocab, &bytes), DG_OK);
    json = cJSON_CreateObject();
    model = cJSON_AddObjectToObject(json, "model");
    cJSON_AddStringToObject(model, "type", "BPE");
    cJSON_AddStringToObject(model, "end_of_word_suffix", "</w>");
    cJSON_AddItemToObject(model, "vocab", cJSON_Parse(vocab));
    rules = cJSON_AddArrayToObject(model, "merges");
    (void)strtok(merges, "\n"); /* the version */
    for (char *left; (left = strtok(NULL, " ")) != NULL;) {
        cJSON *pair = cJSON_CreateArray();

        cJSON_AddItemToArray(pair, cJSON_CreateString(left));
        cJSON_AddItemToArray(pair, cJSON_CreateString(strtok(NULL, "\n")));
        cJSON_AddItemToArray(rules, pair);
    }
    f = (ClipFiles) { .folder = "", .tokenizer = cJSON_PrintUnformatted(json) };
    f.tokenizer_bytes = strlen(f.tokenizer);
    assert_int_equal(dg_clip_bpe_create(&b, &f), DG_OK);
    case_goldens("clip_small", "", 77, encode, b);
    dg_clip_bpe_destroy(b);
    cJSON_free((char *)f.tokenizer);
    cJSON_Delete(json);
    free(vocab);
    free(merges);
}

/* The rules as written down by their authors: the pair of lowest rank, all
 * its occurrences from left to right, and again. */
static int plain_merges(const cJSON *rules, char *parts, int num)
{
    const cJSON *rule;

    cJSON_ArrayForEach(rule, rules)
    {
        const char *space = strchr(rule->valuestring, ' ');
        const size_t n = (size_t)(space - rule->valuestring);

        for (int i = 0; i + 1 < num; i++) {
            char *left = parts + 64 * i, *right = left + 64;

            if (strlen(left) != n || strncmp(left, rule->valuestring, n) != 0 ||
                strcmp(right, space + 1) != 0)
                continue;
            strcat(left, right);
            memmove(right, right + 64, (size_t)(num - i - 2) * 64);
            num--;
        }
    }
    return num;
}

/* Id in a vocabulary rebuilt from rules: 512 + the rank of the rule that
 * makes it, or a byte symbol. */
static int32_t plain_id(const cJSON *rules, const char *part)
{
    int32_t id = part[0] - '!' + (part[1] == '\0' ? 0 : 256), rank = 0;
    const cJSON *rule;

    cJSON_ArrayForEach(rule, rules)
    {
        const char *space = strchr(rule->valuestring, ' ');
        const size_t n = (size_t)(space - rule->valuestring);

        if (strncmp(part, rule->valuestring, n) == 0 &&
            strcmp(part + n, space + 1) == 0)
            id = 512 + rank;
        rank++;
    }
    return id;
}

static const char rule_list[] = "a b\na a\nab a\nb a\nb a</w>\naa ab\nb b\n"
                                "ab ab\nbb a</w>\naa aa\naba ab\na b</w>";

static cJSON *rules_of_list(void)
{
    char copy[sizeof rule_list];
    cJSON *rules = cJSON_CreateArray();

    memcpy(copy, rule_list, sizeof copy);
    for (char *s = strtok(copy, "\n"); s != NULL; s = strtok(NULL, "\n"))
        cJSON_AddItemToArray(rules, cJSON_CreateString(s));
    return rules;
}

static void test_merges_agree_with_plain_loops(void **state)
{
    const ClipFiles f = { .merges = rule_list,
                          .merges_bytes = sizeof rule_list - 1,
                          .folder = "" };
    cJSON *rules = rules_of_list();
    uint32_t seed = 1;
    ClipBpe *b;

    (void)state;
    assert_int_equal(dg_clip_bpe_create(&b, &f), DG_OK);
    for (int k = 0; k < 3000; k++) {
        char text[24], parts[24 * 64];
        int32_t ids[64];
        TokenCount count;
        int n, num;

        seed = seed * 1664525u + 1013904223u;
        n = 1 + (int)(seed >> 28);
        for (int i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            text[i] = (char)('a' + (seed >> 30 & 1));
            snprintf(parts + 64 * i, 64, "%c%s", text[i],
                     i == n - 1 ? "</w>" : "");
        }
        text[n] = '\0';
        num = plain_merges(rules, parts, n);
        assert_int_equal(encode(b, ids, 64, &count, text), DG_OK);
        assert_int_equal(count.used, num + 2);
        for (int i = 0; i < num; i++)
            assert_int_equal(ids[i + 1], plain_id(rules, parts + 64 * i));
    }
    cJSON_Delete(rules);
    dg_clip_bpe_destroy(b);
}

/* Marks at the ends stay; what does not fit is cut and said so. */
static void test_length_cuts_tokens_not_marks(void **state)
{
    ClipBpe *b = small();
    const TokenizerInfo *info = dg_clip_bpe_info(b);
    int32_t whole[77], ids[77];
    TokenCount all, count;

    (void)state;
    assert_int_equal(encode(b, whole, 77, &all, "a cat, a dog and 2 birds"),
                     DG_OK);
    for (int32_t n = 2; n <= 77; n++) {
        assert_int_equal(encode(b, ids, n, &count, "a cat, a dog and 2 birds"),
                         DG_OK);
        assert_int_equal(count.truncated, n < all.used);
        assert_int_equal(count.used, n < all.used ? n : all.used);
        assert_memory_equal(ids, whole, (size_t)(count.used - 1) * sizeof *ids);
        for (int32_t i = count.used - 1; i < n; i++)
            assert_int_equal(ids[i], info->eos);
    }
    assert_int_equal(encode(b, ids, 1, &count, ""), DG_EINVAL);
    assert_int_equal(encode(b, ids, 0, NULL, ""), DG_EINVAL);
    dg_clip_bpe_destroy(b);
}

static ClipBpe *with_config(const char *config, const char *special,
                            const char *added)
{
    ClipFiles f = { .folder = "",
                    .merges = "c a\nca t</w>\n",
                    .merges_bytes = 12,
                    .config = config,
                    .special = special,
                    .added = added };
    ClipBpe *b;

    f.config_bytes = config != NULL ? strlen(config) : 0;
    f.special_bytes = special != NULL ? strlen(special) : 0;
    f.added_bytes = added != NULL ? strlen(added) : 0;
    assert_int_equal(dg_clip_bpe_create(&b, &f), DG_OK);
    return b;
}

/* Ids as transformers 5.24 gives them for the same files: 514 begin, 515 end,
 * 513 "cat</w>", 256 "!</w>", 0 "!", 27 "<", 347 the bar
 * with "</w>". */
static void test_marks_follow_the_small_files(void **state)
{
    static const char text[] = "cat!<|ENDOFTEXT|>";
    static const char decoder[] =
        "{\"added_tokens_decoder\":{\"515\":{\"content\":\"<|endoftext|>\","
        "\"normalized\":true}},\"pad_token\":\"<|endoftext|>\"}";
    static const char pads[] = "{\"pad_token\":{\"content\":\"!\"}}";
    static const int32_t cut[] = { 514, 513, 256, 515, 515 };
    static const int32_t pad[] = { 514, 513, 0, 27, 347 };
    static const int32_t toy[] = { 514, 513, 516, 513, 515 };
    static const char one[] = "{\"eos_token\":{\"content\":\"<|endoftext|>\","
                              "\"normalized\":true},\"pad_token\":"
                              "\"<|endoftext|>\"}";
    ClipBpe *b = with_config(decoder, NULL, NULL);

    (void)state;
    case_expect(cut, 5, encode, b, text);
    dg_clip_bpe_destroy(b);

    /* end and pad are one token: the pad's flags count */
    b = with_config(one, NULL, NULL);
    {
        int32_t ids[40];

        assert_int_equal(encode(b, ids, 40, NULL, text), DG_OK);
        assert_memory_equal(ids, pad, sizeof pad);
    }
    dg_clip_bpe_destroy(b);

    /* a pad that is a token of its own is cut out of texts, too */
    b = with_config("{\"pad_token\":\"a\"}", pads, NULL);
    {
        int32_t ids[40];
        TokenCount count;

        assert_int_equal(dg_clip_bpe_info(b)->pad, 0);
        assert_int_equal(encode(b, ids, 40, &count, text), DG_OK);
        assert_memory_equal(ids, pad, sizeof pad);
        assert_int_equal(ids[count.used - 1], 515);
        assert_int_equal(ids[count.used], 0);
    }
    dg_clip_bpe_destroy(b);

    b = with_config(NULL, NULL, "{\"<Cat-Toy>\":516}");
    assert_int_equal(dg_clip_bpe_info(b)->num_ids, 517);
    case_expect(toy, 5, encode, b, "Cat<cat-TOY>cat");
    dg_clip_bpe_destroy(b);
}

/* Flags of added tokens; ids as transformers 5.24 gives them. 516 takes white
 * space along, 517 stands alone, 518 is looked for in lower case. */
static void test_flags_of_added_tokens(void **state)
{
    static const char config[] =
        "{\"added_tokens_decoder\":{"
        "\"514\":{\"content\":\"<|startoftext|>\"},"
        "\"515\":{\"content\":\"<|endoftext|>\"},"
        "\"516\":{\"content\":\"<toy>\",\"lstrip\":true,\"rstrip\":true},"
        "\"517\":{\"content\":\"Dog\",\"single_word\":true},"
        "\"518\":{\"content\":\"<toy>s\",\"normalized\":true}}}";
    static const int32_t space[] = { 514, 513, 516, 513, 515 };
    static const int32_t alone[] = { 514, 517, 267, 67, 78,  70,  338,
                                     127, 102, 67,  78, 326, 67,  78,
                                     326, 318, 67,  78, 131, 369, 263,
                                     517, 264, 517, 515 };
    static const int32_t twice[] = { 514, 516, 516, 516, 515 };
    static const int32_t first[] = { 514, 518, 516, 338, 513, 515 };
    static const int32_t joiner[] = { 514, 67,  78,  326, 158, 222,
                                      491, 517, 126, 366, 515 };
    ClipBpe *b = with_config(config, NULL, NULL);

    (void)state;
    assert_int_equal(dg_clip_bpe_info(b)->num_ids, 519);
    case_expect(space, 5, encode, b, "cat \t<toy>\xE3\x80\x80 cat");
    case_expect(alone, 25, encode, b,
                "Dog,Dogs \xC3\xA9"
                "Dog Dog_ Dog\xCC\x81 (Dog)Dog");
    case_expect(twice, 5, encode, b, "<toy><toy> <toy>");
    case_expect(first, 6, encode, b, "<TOY>S<toy>s  cat");
    case_expect(joiner, 11, encode, b, "Dog\xE2\x80\x8D Dog\xC2\xB2");
    dg_clip_bpe_destroy(b);
}

typedef struct BadFile {
    const char *vocab, *merges, *config, *said;
} BadFile;

static void test_bad_files_are_named(void **state)
{
    static const char good[] =
        "{\"a\":0,\"b</w>\":1,\"ab</w>\":2,\"<|startoftext|>\":3,"
        "\"<|endoftext|>\":4}";
    static const BadFile bad[] = {
        { "{\"a\":0", "", NULL, "d/vocab.json: malformed JSON near byte" },
        { "{\"a\":0} x", "", NULL, "more behind the JSON" },
        { "[1]", "", NULL, "no object of tokens and ids" },
        { "{}", "", NULL, "no object of tokens and ids" },
        { "{\"a\":5}", "", NULL, "id of \"a\" must be an integer of [0, 1)" },
        { "{\"a\":-1}", "", NULL, "[0, 1)" },
        { "{\"a\":0.5,\"b\":1}", "", NULL, "[0, 2)" },
        { "{\"a\":1e300}", "", NULL, "[0, 1)" },
        { "{\"a\":\"0\"}", "", NULL, "[0, 1)" },
        { "{\"a\":0,\"b\":0}", "", NULL, "id 0 is there twice (\"b\")" },
        { "{\"a\":0,\"a\":1}", "", NULL, "key a is there twice" },
        { "{\"\":0}", "", NULL, "a token has no text" },
        { "{\"\xC3\":0}", "", NULL, "a token is not UTF-8" },
        { "{\"a\":0}", "", NULL, "bos_token \"<|startoftext|>\" is not in" },
        { good, "#version: 0.2\na b</w>\nab\n", NULL,
          "d/merges.txt, line 3: \"ab\" is not two tokens" },
        { good, "a  b</w>", NULL, "line 1: \"a  b</w>\" is not two tokens" },
        { good, " b</w>", NULL, "is not two tokens" },
        { good, "a ", NULL, "is not two tokens" },
        { good, "a b</w> b</w>", NULL, "is not two tokens" },
        { good, "a x\n", NULL, "rule in line 1: \"x\" has no id in d/vocab" },
        { good, "a a\n", NULL, "\"aa\" has no id in d/vocab.json" },
        { good, "a b</w>\na b</w>\n", NULL, "line 2: rule is there twice" },
        { NULL, "a b\nab zz\n", NULL,
          "\"zz\" has no id in the symbols and rules before it" },
        { NULL, "a b\nab c\nb c\na bc\n", NULL, "line 4: \"abc\" is there" },
        { good, "", "{\"pad_token\":\"[PAD]\"}", "pad_token \"[PAD]\" is not" },
        { good, "", "{\"added_tokens_decoder\":{\"1\":{\"content\":\"x\"}}}",
          "added token \"x\" has id 1, in the vocabulary another token's" },
        { good, "", "{\"added_tokens_decoder\":{\"1\":{\"content\":\"a\"}}}",
          "in the vocabulary it has another" },
        { good, "", "{\"added_tokens_decoder\":{\"9999999\":\"x\"}}",
          "must be an integer of [0, 65541)" },
        { good, "", "{\"added_tokens_decoder\":{\"z\":\"x\"}}", "[0, 65541)" },
        { good, "", "{\"added_tokens_decoder\":{\"5\":{}}}", "has no text" },
    };
    ClipBpe *b = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const BadFile *c = &bad[i];
        ClipFiles f = { .folder = "d",
                        .vocab = c->vocab,
                        .merges = c->merges,
                        .merges_bytes = strlen(c->merges),
                        .config = c->config };

        f.vocab_bytes = c->vocab != NULL ? strlen(c->vocab) : 0;
        f.config_bytes = c->config != NULL ? strlen(c->config) : 0;
        assert_int_equal(dg_clip_bpe_create(&b, &f), DG_EFORMAT);
        case_said(c->said);
        assert_null(b);
    }
}

/* A vocabulary without some byte gives the unknown token for it. */
static void test_missing_symbols_are_unknown(void **state)
{
    static const char vocab[] =
        "{\"a\":0,\"b</w>\":1,\"ab</w>\":2,\"<|startoftext|>\":3,"
        "\"<|endoftext|>\":4}";
    static const int32_t want[] = { 3, 2, 4, 1, 4, 4 };
    const ClipFiles f = { .folder = "",
                          .vocab = vocab,
                          .vocab_bytes = sizeof vocab - 1,
                          .merges = "a b</w>",
                          .merges_bytes = 7 };
    ClipBpe *b;

    (void)state;
    assert_int_equal(dg_clip_bpe_create(&b, &f), DG_OK);
    case_expect(want, 6, encode, b, "AB zb A");
    dg_clip_bpe_destroy(b);
}

/* 200 characters take some ten microseconds; a word of a million takes its
 * n log n, not n squared. */
static void test_encoding_is_fast(void **state)
{
    static const char line[] =
        "a photo of four red zebras next to a yellow umbrella, oil painting, ";
    const size_t size = (size_t)1 << 20;
    char prompt[208] = "", *word = malloc(size + 1);
    ClipBpe *b = small();
    int32_t ids[77];
    clock_t began = clock();

    (void)state;
    for (int i = 0; i < 3; i++)
        strcat(prompt, line);
    for (int i = 0; i < 500; i++)
        assert_int_equal(encode(b, ids, 77, NULL, prompt), DG_OK);
    assert_true(clock() - began < CLOCKS_PER_SEC / 2);
    assert_non_null(word);
    memset(word, 'a', size);
    word[size] = '\0';
    assert_int_equal(encode(b, ids, 77, NULL, word), DG_OK);
    assert_true(clock() - began < 10 * CLOCKS_PER_SEC);
    free(word);
    dg_clip_bpe_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_list_gives_the_ids_of_transformers),
        cmocka_unit_test(test_full_list_as_a_file),
        cmocka_unit_test(test_full_list_gives_the_ids_of_transformers),
        cmocka_unit_test(test_all_sources_are_the_same_tokenizer),
        cmocka_unit_test(test_merges_agree_with_plain_loops),
        cmocka_unit_test(test_length_cuts_tokens_not_marks),
        cmocka_unit_test(test_marks_follow_the_small_files),
        cmocka_unit_test(test_flags_of_added_tokens),
        cmocka_unit_test(test_bad_files_are_named),
        cmocka_unit_test(test_missing_symbols_are_unknown),
        cmocka_unit_test(test_rules_that_end_early_are_warned_of),
        cmocka_unit_test(test_encoding_is_fast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
