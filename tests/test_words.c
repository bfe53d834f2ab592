#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "text/words.h"
#include "world/world.h"

static void test_world_vocabulary_is_fixed(void **state)
{
    Words t5, clip;

    (void)state;
    dg_words_world(&t5, DG_WORDS_EOS_FIRST);
    dg_words_world(&clip, DG_WORDS_EOS_LAST);
    assert_int_equal(t5.num, 28);
    assert_int_equal(clip.num, 28);
    assert_true(t5.pad == 0 && t5.eos == 1 && t5.unk == 2);
    assert_true(clip.pad == 0 && clip.unk == 1 && clip.eos == clip.num - 1);
    assert_string_equal(t5.word[3], "a");
    assert_string_equal(t5.word[27], "black");
    assert_string_equal(clip.word[2], "a");
}

static void test_encode_pads_after_eos(void **state)
{
    const int32_t want[8] = { 3, 20, 14, 1, 0, 0, 0, 0 };
    int32_t ids[8], used;
    Words w;

    (void)state;
    dg_words_world(&w, DG_WORDS_EOS_FIRST);
    assert_int_equal(dg_words_encode(&w, ids, &used, "  A red,  Circle.", 8, 0),
                     DG_OK);
    assert_string_equal(w.word[20], "red");
    assert_string_equal(w.word[14], "circle");
    assert_memory_equal(ids, want, sizeof want);
    assert_int_equal(used, 4);
    assert_int_equal(dg_words_encode(&w, ids, &used, "", 8, 0), DG_OK);
    assert_true(ids[0] == 1 && ids[1] == 0 && used == 1);
}

static void test_encode_refuses_unknown_words(void **state)
{
    int32_t ids[8];
    Words w;

    (void)state;
    dg_words_world(&w, DG_WORDS_EOS_FIRST);
    assert_int_equal(dg_words_encode(&w, ids, NULL, "a red dog", 8, 0),
                     DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "\"dog\""));
    assert_int_equal(dg_words_encode(&w, ids, NULL, "a red dog", 8, 1), DG_OK);
    assert_int_equal(ids[2], w.unk);
    assert_int_equal(
        dg_words_encode(&w, ids, NULL,
                        "a incomprehensibilitiesincomprehensibilities", 8, 1),
        DG_OK);
    assert_int_equal(ids[1], w.unk);
}

static void test_encode_refuses_long_prompts(void **state)
{
    int32_t ids[4];
    Words w;

    (void)state;
    dg_words_world(&w, DG_WORDS_EOS_FIRST);
    assert_int_equal(dg_words_encode(&w, ids, NULL, "a red circle", 4, 0),
                     DG_OK);
    assert_int_equal(dg_words_encode(&w, ids, NULL, "a red circle", 3, 0),
                     DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "3 words"));
}

static void test_encode_knows_the_whole_stream(void **state)
{
    int32_t longest = 0;
    Words w;

    (void)state;
    dg_words_world(&w, DG_WORDS_EOS_LAST);
    for (uint64_t i = 0; i < 3000; i++) {
        int32_t ids[12], used;
        WorldScene s;

        assert_int_equal(dg_world_scene(&s, 6, i, 32), DG_OK);
        assert_int_equal(dg_words_encode(&w, ids, &used, s.prompt, 12, 0),
                         DG_OK);
        longest = used > longest ? used : longest;
        for (int k = 0; k + 1 < used; k++)
            assert_true(ids[k] > 0 && ids[k] < w.eos);
    }
    assert_int_equal(longest, 9);
}

static void test_bad_vocabularies_are_refused(void **state)
{
    static const struct {
        int num;
        const char *entries[4];
    } bad[] = {
        { 0, { NULL } },
        { 1, { "" } },
        { 2, { DG_WORDS_PAD, DG_WORDS_EOS } },
        { 3, { DG_WORDS_EOS, DG_WORDS_PAD, DG_WORDS_UNK } },
        { 4, { DG_WORDS_PAD, DG_WORDS_EOS, DG_WORDS_UNK, DG_WORDS_EOS } },
        { 4, { DG_WORDS_PAD, DG_WORDS_EOS, DG_WORDS_UNK, "" } },
        { 4, { DG_WORDS_PAD, DG_WORDS_EOS, DG_WORDS_UNK, "a\nb" } },
        { 4,
          { DG_WORDS_PAD, DG_WORDS_EOS, DG_WORDS_UNK,
            "abcdefghijklmnopqrstuvwxyz" } },
    };
    const char *many[DG_WORDS_MAX + 1];
    char names[DG_WORDS_MAX + 1][4];
    Words w = { .num = -7 };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(dg_words_init(&w, bad[i].entries, bad[i].num),
                         DG_EFORMAT);
    for (int i = 0; i <= DG_WORDS_MAX; i++) {
        names[i][0] = (char)('a' + i % 26);
        names[i][1] = (char)('a' + i / 26);
        names[i][2] = '\0';
        many[i] = names[i];
    }
    many[0] = DG_WORDS_PAD;
    many[1] = DG_WORDS_EOS;
    many[2] = DG_WORDS_UNK;
    assert_int_equal(dg_words_init(&w, many, DG_WORDS_MAX + 1), DG_EFORMAT);
    assert_int_equal(w.num, -7);
    assert_int_equal(dg_words_init(&w, many, DG_WORDS_MAX), DG_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_world_vocabulary_is_fixed),
        cmocka_unit_test(test_encode_pads_after_eos),
        cmocka_unit_test(test_encode_refuses_unknown_words),
        cmocka_unit_test(test_encode_refuses_long_prompts),
        cmocka_unit_test(test_encode_knows_the_whole_stream),
        cmocka_unit_test(test_bad_vocabularies_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
