/* Texts as OpenCLIP cleans them. Entities are those of Python's html.unescape,
 * applied as often; letters those of its "fix text" library. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/error.h"
#include "text/clip_clean.h"

static void clean(const char *text, const char *want)
{
    char *got;

    assert_int_equal(dg_clip_clean(&got, text), DG_OK);
    assert_string_equal(got, want);
    free(got);
}

static void test_entities(void **state)
{
    (void)state;
    clean("caf\u00E9 &amp; na\u00EFve", "caf\u00E9 & na\u00EFve");
    clean("a &lt;b&gt; &quot;c&quot;", "a <b> \"c\"");
    clean("&eacute;&Uuml;&szlig;&hellip;", "\u00E9\u00DC\u00DF\u2026");
    clean("&#233; &#xE9; &#XE9 &#39s", "\u00E9 \u00E9 \u00E9 's");
    clean("&#0; &#xD800; &#x110000; &#99999999999999;",
          "\uFFFD \uFFFD \uFFFD \uFFFD");
    clean("&#128;&#x9F;", "\u20AC\u0178");
    clean("&#x1F600;", "\U0001F600");
    clean("A&B &unknown; &#; &#x; &", "A&B &unknown; &#; &#x; &");
    clean("&ampx &apos", "&x &apos");
}

/* "&amp;amp;" is "&" after two times, "&amp;amp;amp;" after three, of which
 * there are two where there is a '<'. */
static void test_entities_of_entities(void **state)
{
    (void)state;
    clean("&amp;amp;", "&");
    clean("&amp;amp;lt;", "<");
    clean("&amp;amp;amp; <", "&amp; <");
}

static void test_letters(void **state)
{
    (void)state;
    clean("\u2018it\u2019s\u201C\u201D", "'it's\"\"");
    /* between two rounds of entities */
    clean("&lsquo;", "'");
    clean("<&lsquo;", "<\u2018");
    clean("\uFB00\uFB01\uFB02\uFB03\uFB04\uFB06", "fffifl"
                                                  "ffifflst");
    clean("\uFF21\uFF42\uFF11\uFF01\u3000x", "Ab1! x");
    clean("\uFF76\uFF9E\uFFE1", "\u30AB\u3099\u00A3");
    clean("\u0149\u0132\u0133", "'nIJij");
    clean("\u01C4\u01C5\u01C6\u01C7\u01C8\u01C9", "D\u017DD\u017Ed\u017E"
                                                  "LJLjlj");
    clean("\u01CA\u01CB\u01CC\u01F1\u01F2\u01F3", "NJNjnjDZDzdz");
    clean("\uFEFFa\x01\x7F\tb\u206A\uFFFC \u200B", "a\tb \u200B");
    clean("\u65E5\u672C caf\u00E9", "\u65E5\u672C caf\u00E9");
    clean("", "");
}

static void test_what_is_no_text_is_left(void **state)
{
    (void)state;
    clean("&amp; \xFF", "&amp; \xFF");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entities),
        cmocka_unit_test(test_entities_of_entities),
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_what_is_no_text_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
