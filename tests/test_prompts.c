#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "store/file.h"
#include "store/prompts.h"
#include "text/misread.h"
#include "text/words.h"
#include "world/lists.h"
#include "world/world.h"

static const char train_file[] = "configs/prompts/shapes_train.jsonl";
static const char heldout_file[] = "configs/prompts/shapes_heldout.jsonl";

static int parse(PromptList *l, const char *path, const char *text)
{
    return dg_prompts_parse(l, path, text, strlen(text));
}

/* Each text is one prompt, whatever is in it. */
static void test_texts_are_a_prompt_each(void **state)
{
    const char *const texts[] = { " a red\ncircle", "#2", "{\"prompt\":1}" };
    const char *const bad[] = { "a", "h\xC3\xA9\xFF" }, *const none[] = {
        " \t"
    };
    PromptList l;

    (void)state;
    assert_int_equal(dg_prompts_of(&l, texts, 3), DG_OK);
    assert_int_equal(l.num, 3);
    assert_string_equal(l.item[0].text, "a red circle");
    assert_string_equal(l.item[1].text, "#2");
    assert_string_equal(l.item[2].text, "{\"prompt\":1}");
    dg_prompts_free(&l);
    assert_int_equal(dg_prompts_of(&l, bad, 2), DG_EFORMAT);
    assert_string_equal(dg_last_error()->text,
                        "PROMPT 2: not UTF-8 (byte 4 of it)");
    assert_int_equal(dg_prompts_of(&l, none, 1), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "PROMPT 1 is empty"));
}

/* What a program made of UTF-8 that it took for Latin-1 or code page 1252. */
static void test_misread_texts_are_told(void **state)
{
    static const struct {
        const char *text, *likely;
        int num;
    } cases[] = {
        { "caf\xc3\x83\xc2\xa9", "caf\xc3\xa9", 1 },
        /* ’ as a\xcc\x82, euro, trade mark, and by Latin-1 with controls */
        { "it\xc3\xa2\xe2\x82\xac\xe2\x84\xa2s", "it\xe2\x80\x99s", 1 },
        { "it\xc3\xa2\xc2\x80\xc2\x99s", "it\xe2\x80\x99s", 1 },
        { "\xc3\xa6\xc2\x97\xc2\xa5\xc3\xa6\xc5\x93\xc2\xac",
          "\xe6\x97\xa5\xe6\x9c\xac", 2 },
        { "plain", "plain", 0 },
        { "caf\xc3\xa9", "", 0 },
        { "\xc3\x83o caf\xc3\x83\xc2\xa9", "", 0 }, /* not all of it */
        { "\xc3\x80\xc2\xa0la carte", "", 0 },      /* longer than needed */
        { "\xc3\x82\xc2\x85", "", 0 },              /* a control character */
        { "\xe6\x97\xa5", "", 0 },                  /* in neither page */
        { "\xc2\xbb\xc3\x84\xc2\xab", "", 0 },
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dg_misread(out, cases[i].text), cases[i].num);
        if (cases[i].num > 0)
            assert_string_equal(out, cases[i].likely);
    }
}

/* Warnings of a text, the last one in the log at path. */
static long warnings(const char *path, const char *name, const char *text)
{
    const long before = dg_log_count(DG_LOG_WARN);
    PromptList l;

    dg_log_setup(0, DG_LOG_ERROR);
    assert_int_equal(dg_log_open(path), DG_OK);
    assert_int_equal(parse(&l, name, text), DG_OK);
    dg_prompts_free(&l);
    assert_int_equal(dg_log_close(), DG_OK);
    return dg_log_count(DG_LOG_WARN) - before;
}

static void test_misread_files_are_told(void **state)
{
    static const char one[] = "a caf\xc3\xa9\n\na caf\xc3\x83\xc2\xa9\n";
    static const char jsonl[] =
        "{\"prompt\":\"a\"}\n{\"prompt\":\"\\u00c3\\u00a9\\u00c3\\u00a8\"}";
    char path[] = "/tmp/dg_test_XXXXXX", two[128], *log;
    size_t bytes;

    (void)state;
    close(mkstemp(path));
    snprintf(two, sizeof two,
             "%sna\xc3\x83\xc2\xaf"
             "f\n",
             one);
    assert_int_equal(warnings(path, "a.txt", one), 0); /* may be meant */
    assert_int_equal(warnings(path, "a.txt", two), 1);
    assert_int_equal(warnings(path, "b.jsonl", jsonl), 1);
    assert_int_equal(dg_file_read(path, &log, &bytes), DG_OK);
    assert_non_null(strstr(log, "prompts file a.txt, line 3: \"a caf"
                                "\xc3\x83\xc2\xa9\" looks like"));
    assert_non_null(strstr(log, "again: \"a caf\xc3\xa9\"? (2 prompts)"));
    assert_non_null(strstr(log, "prompts file b.jsonl, line 2: "));
    assert_non_null(strstr(log, "again: \"\xc3\xa9\xc3\xa8\"? (1 prompt)"));
    free(log);
    remove(path);
}

static void test_txt_has_a_prompt_per_line(void **state)
{
    PromptList l;

    (void)state;
    assert_int_equal(parse(&l, "a.txt",
                           "\xEF\xBB\xBF"
                           "a cat\r\n\n  \n"
                           " ein H\xC3\xBCgel \nlast"),
                     DG_OK);
    assert_int_equal(l.num, 3);
    assert_string_equal(l.item[0].text, "a cat");
    assert_string_equal(l.item[1].text, "ein H\xC3\xBCgel");
    assert_string_equal(l.item[2].text, "last");
    assert_string_equal(l.item[2].tag, "");
    assert_null(l.item[0].json);
    assert_int_equal(l.item[0].has_meta, 0);
    dg_prompts_free(&l);
}

static void test_jsonl_keeps_metadata(void **state)
{
    static const char text[] =
        "{\"tag\":\"position\",\"include\":[{\"class\":\"square\",\"count\":1},"
        "{\"class\":\"circle\",\"count\":2,\"color\":\"red\",\"position\":"
        "[\"left of\",0]}],\"prompt\":\"x\"}\n\n"
        "{\"tag\":\"colors\",\"include\":[{\"class\":\"dog\",\"count\":1,"
        "\"color\":\"pink\"}],\"prompt\":\"a pink dog \\u00fc\"}\n"
        "{\"prompt\":\"plain\"}\n";
    PromptList l;

    (void)state;
    assert_int_equal(parse(&l, "a.jsonl", text), DG_OK);
    assert_int_equal(l.num, 3);
    assert_string_equal(l.item[0].tag, "position");
    assert_int_equal(l.item[0].has_meta, 1);
    assert_int_equal(l.item[0].meta.tag, DG_TAG_POSITION);
    assert_int_equal(l.item[0].meta.clause[1].count, 2);
    assert_int_equal(l.item[0].meta.clause[1].colour, DG_COLOUR_RED);
    assert_int_equal(l.item[0].meta.clause[1].relation, DG_REL_LEFT);
    assert_int_equal(l.item[1].has_meta, 0); /* another world's classes */
    assert_string_equal(l.item[1].text, "a pink dog \xC3\xBC");
    assert_non_null(strstr(l.item[1].json, "\"pink\""));
    assert_int_equal(dg_last_error()->code, DG_OK);
    assert_int_equal(l.item[2].has_meta, 0);
    assert_string_equal(l.item[2].tag, "");
    dg_prompts_free(&l);
}

static void test_bad_files_are_named_with_line(void **state)
{
    static const struct {
        const char *path, *text, *says;
        int code;
    } bad[] = {
        { "e.txt", "", "no prompt", DG_EFORMAT },
        { "e.txt", "\n \n", "no prompt", DG_EFORMAT },
        { "e.csv", "a", ".jsonl", DG_EINVAL },
        { "e.txt", "fine\nbad \xFF byte\n", "line 2: not UTF-8", DG_EFORMAT },
        { "e.txt", "cut \xC3", "line 1: not UTF-8", DG_EFORMAT },
        { "e.txt", "\xC0\xAF", "line 1: not UTF-8", DG_EFORMAT },
        { "e.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\n", "line 2: malformed",
          DG_EFORMAT },
        { "e.jsonl", "{\"prompt\":\"a\"} x\n", "line 1: malformed",
          DG_EFORMAT },
        { "e.jsonl", "\n[1]\n", "line 2: not a JSON object", DG_EFORMAT },
        { "e.jsonl", "{\"text\":\"a\"}\n", "line 1: no \"prompt\"",
          DG_EFORMAT },
        { "e.jsonl", "{\"prompt\":\" \"}\n", "line 1: no \"prompt\"",
          DG_EFORMAT },
        { "e.jsonl", "{\"prompt\":3}\n", "line 1: no \"prompt\"", DG_EFORMAT },
        { "e.jsonl", "{\"prompt\":\"a\",\"prompt\":\"b\"}\n",
          "line 1: key prompt is there twice, with two values", DG_EFORMAT },
        { "e.jsonl", "{\"prompt\":\"a\",\"include\":[{}]}\n",
          "line 1: \"include\"", DG_EFORMAT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        PromptList l = { NULL, -7, NULL };

        assert_int_equal(parse(&l, bad[i].path, bad[i].text), bad[i].code);
        assert_non_null(strstr(dg_last_error()->text, bad[i].path));
        assert_non_null(strstr(dg_last_error()->text, bad[i].says));
        assert_int_equal(l.num, -7);
    }
}

static void test_read_names_a_missing_file(void **state)
{
    PromptList l;

    (void)state;
    assert_int_equal(dg_prompts_read(&l, "no/such/file.txt"), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, "no/such/file.txt"));
    assert_int_equal(dg_prompts_read(&l, "."), DG_EIO);
}

static void test_nul_byte_is_refused(void **state)
{
    PromptList l;

    (void)state;
    assert_int_equal(dg_prompts_parse(&l, "a.txt", "a\0b", 3), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "NUL"));
    /* in JSON, where it would end the text; not after a backslash's own */
    const char *cut = "{\"prompt\":\"a\\\\\\u0000b\"}";
    assert_int_equal(dg_prompts_parse(&l, "a.jsonl", cut, strlen(cut)),
                     DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "line 1: a NUL"));
    const char *good = "{\"prompt\":\"a\\\\u0000b\"}";
    assert_int_equal(dg_prompts_parse(&l, "a.jsonl", good, strlen(good)),
                     DG_OK);
    assert_string_equal(l.item[0].text, "a\\u0000b");
    dg_prompts_free(&l);
}

static int same_text(const void *a, const void *b)
{
    return strcmp(((const Prompt *)a)->text, ((const Prompt *)b)->text);
}

static int in_list(const uint64_t *m, size_t num, uint64_t x)
{
    for (size_t i = 0; i < num; i++)
        if (m[i] == x)
            return 1;
    return 0;
}

static void test_lists_are_disjoint_in_text_and_meaning(void **state)
{
    PromptList train, held;
    uint64_t *a, *b;
    size_t na, nb;

    (void)state;
    assert_int_equal(dg_prompts_read(&train, train_file), DG_OK);
    assert_int_equal(dg_prompts_read(&held, heldout_file), DG_OK);
    assert_int_equal(train.num, DG_WORLD_TRAIN_LINES);
    assert_int_equal(held.num, 30 * DG_NUM_TAGS);
    for (int i = 0; i < train.num; i++)
        for (int j = 0; j < held.num; j++)
            assert_int_not_equal(same_text(&train.item[i], &held.item[j]), 0);
    assert_int_equal(dg_prompts_meanings(&a, &na, &train), DG_OK);
    assert_int_equal(dg_prompts_meanings(&b, &nb, &held), DG_OK);
    assert_true(na > 300 && nb > 100);
    for (size_t i = 0; i < nb; i++) {
        assert_false(in_list(a, na, b[i]));
        assert_true(i == 0 || b[i] > b[i - 1]);
    }
    free(a);
    free(b);
    dg_prompts_free(&train);
    dg_prompts_free(&held);
}

/* The grammar's caption of each line's metadata is its prompt, the tag is
 * one of ours, the word tokenizer knows every word, and a scene exists. */
static void check_list(const char *path, int per_tag)
{
    int count[DG_NUM_TAGS] = { 0 };
    PromptList l;
    Words w;

    dg_words_world(&w, DG_WORDS_EOS_FIRST);
    assert_int_equal(dg_prompts_read(&l, path), DG_OK);
    for (int i = 0; i < l.num; i++) {
        const Prompt *p = &l.item[i];
        char caption[DG_WORLD_MAX_PROMPT];
        WorldScene s;
        int32_t ids[12];

        assert_int_equal(p->has_meta, 1);
        assert_int_equal(dg_world_caption(caption, sizeof caption, &p->meta),
                         DG_OK);
        assert_string_equal(caption, p->text);
        assert_string_equal(dg_world_tag_name(p->meta.tag), p->tag);
        count[p->meta.tag]++;
        assert_int_equal(dg_words_encode(&w, ids, NULL, p->text, 12, 0), DG_OK);
        assert_int_equal(dg_world_scene_of(&s, &p->meta, 1, (uint64_t)i, 32),
                         DG_OK);
    }
    for (int t = 0; t < DG_NUM_TAGS; t++)
        assert_true(per_tag ? count[t] == per_tag : count[t] >= 20);
    dg_prompts_free(&l);
}

static void test_lists_belong_to_the_grammar(void **state)
{
    (void)state;
    check_list(train_file, 0);
    check_list(heldout_file, 30);
}

static void assert_same_file(const char *a, const char *b)
{
    char *p, *q;
    size_t n, m;

    assert_int_equal(dg_file_read(a, &p, &n), DG_OK);
    assert_int_equal(dg_file_read(b, &q, &m), DG_OK);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    free(p);
    free(q);
}

static void test_lists_are_written_again_the_same(void **state)
{
    char a[] = "/tmp/dg_train_XXXXXX", b[] = "/tmp/dg_held_XXXXXX";

    (void)state;
    close(mkstemp(a));
    close(mkstemp(b));
    assert_int_equal(dg_world_write_prompts(a, b, 30, 2025), DG_OK);
    assert_same_file(a, train_file);
    assert_same_file(b, heldout_file);
    unlink(a);
    unlink(b);
    assert_int_equal(dg_world_write_prompts(a, b, 0, 1), DG_EINVAL);
    assert_int_equal(dg_world_write_prompts("no/such/x", b, 30, 1), DG_EIO);
}

/* A stream told to leave out the held-out prompts never shows one. */
static void test_stream_leaves_out_heldout_prompts(void **state)
{
    WorldStream s = { .seed = 4, .side = 32 };
    PromptList held;
    uint64_t *m;
    size_t n;
    int without = 0;

    (void)state;
    assert_int_equal(dg_prompts_read(&held, heldout_file), DG_OK);
    assert_int_equal(dg_prompts_meanings(&m, &n, &held), DG_OK);
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < 2000; i++) {
            WorldScene scene;
            int is_held;

            assert_int_equal(dg_world_stream_scene(&scene, &s, i), DG_OK);
            is_held = in_list(m, n, dg_world_meaning(&scene.meta));
            without += is_held;
            assert_false(is_held && round == 1);
        }
        assert_true(without > 100);
        s.excluded = m;
        s.num_excluded = n;
    }
    free(m);
    dg_prompts_free(&held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_txt_has_a_prompt_per_line),
        cmocka_unit_test(test_jsonl_keeps_metadata),
        cmocka_unit_test(test_bad_files_are_named_with_line),
        cmocka_unit_test(test_texts_are_a_prompt_each),
        cmocka_unit_test(test_misread_texts_are_told),
        cmocka_unit_test(test_misread_files_are_told),
        cmocka_unit_test(test_read_names_a_missing_file),
        cmocka_unit_test(test_nul_byte_is_refused),
        cmocka_unit_test(test_lists_are_disjoint_in_text_and_meaning),
        cmocka_unit_test(test_lists_belong_to_the_grammar),
        cmocka_unit_test(test_lists_are_written_again_the_same),
        cmocka_unit_test(test_stream_leaves_out_heldout_prompts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
