/* Texts of others, as people and JSON get them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/legible.h"
#include "base/log.h"
#include "base/text_out.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utf8proc.h>

/* All characters there are, and none that is not: as utf8proc has it. */
static void test_utf8_is_that_of_the_standard(void **state)
{
    char text[5] = "";

    (void)state;
    for (utf8proc_int32_t c = 1; c < 0x110000; c++) {
        const utf8proc_ssize_t n =
            utf8proc_encode_char(c, (utf8proc_uint8_t *)text);

        text[n] = '\0';
        assert_int_equal(dg_utf8_bytes(text),
                         c >= 0xd800 && c <= 0xdfff ? 0 : n);
    }
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++)
            for (int i = 0; i < 4; i++) {
                const char tail[] = "\x7f\x80\xbf";
                utf8proc_int32_t c;

                text[0] = (char)a, text[1] = (char)b;
                text[2] = tail[i], text[3] = tail[i];
                const utf8proc_ssize_t n =
                    utf8proc_iterate((const utf8proc_uint8_t *)text, 4, &c);
                assert_int_equal(dg_utf8_bytes(text), n > 0 && a != 0 ? n : 0);
            }
}

/* As one text, to free. */
static char *put(void (*how)(FILE *, const char *, size_t), const char *text,
                 size_t most)
{
    char *got = NULL;
    size_t bytes;
    FILE *out = open_memstream(&got, &bytes);

    how(out, text, most);
    fclose(out);
    return got;
}

static void test_nothing_steers_a_terminal(void **state)
{
    static const char text[] = "a\x1b[2J\r\n\xff\tb\xc2\x9b\xc3\xa9\x9b.\x7f";
    char here[sizeof text];

    (void)state;
    strcpy(here, text);
    dg_legible(here);
    assert_string_equal(here, "a?[2J?\n?\tb??\xc3\xa9?.?");
    strcpy(here + 1, text + 1);
    dg_legible_line(here);
    assert_string_equal(here, "a?[2J? ? b??\xc3\xa9?.?");
    strcpy(here, text);
    dg_legible(here);
    char *lines = put(dg_legible_put, text, SIZE_MAX);
    assert_string_equal(lines, here);
    char *line = put(dg_legible_put_line, text, SIZE_MAX);
    assert_string_equal(line, "a?[2J????b??\xc3\xa9?.?");
    char *cut = put(dg_legible_put, "ab\xc3\xa9", 3);
    assert_string_equal(cut, "ab"); /* and no half of the third */
    free(lines);
    free(line);
    free(cut);
}

static void test_json_is_utf8(void **state)
{
    const char *text =
        "\"\\\n\x1f\x7f\xff/\xc2\x9b\xc3\xa9\xed\xa0\x80\xe2\x82";
    char all[128] = "", room[DG_JSON_CHAR];

    (void)state;
    while (*text != '\0')
        strcat(all, dg_json_char(room, &text));
    assert_string_equal(all, "\\\"\\\\\\u000a\\u001f\\u007f\\ufffd/\\u009b"
                             "\xc3\xa9\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd");
}

/* Prompts and names of files are in its lines. */
static void test_log_is_legible(void **state)
{
    char path[] = "/tmp/dg_test_XXXXXX", got[256] = "";
    const int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    dg_log_setup(0, DG_LOG_ERROR);
    assert_int_equal(dg_log_open(path), 0);
    dg_info("prompt \"%s\"", "\x1b]0;title\x07 caf\xc3\xa9");
    assert_int_equal(dg_log_close(), 0);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(got, 1, sizeof got - 1, f) > 0);
    fclose(f);
    remove(path);
    assert_non_null(strstr(got, "prompt \"?]0;title? caf\xc3\xa9\"\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_is_that_of_the_standard),
        cmocka_unit_test(test_nothing_steers_a_terminal),
        cmocka_unit_test(test_json_is_utf8),
        cmocka_unit_test(test_log_is_legible),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
