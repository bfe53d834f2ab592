#define _GNU_SOURCE /* memmem */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "store/file.h"
#include "store/image.h"
#include "text/ascii.h"

static char folder[] = "/tmp/dg_image_XXXXXX";
static char path[64]; /* of a picture in it */

static unsigned char pixels[3 * 20 * 10];

static Image sample(void)
{
    Image im = { 20, 10, pixels };

    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (unsigned char)(i * 37 + i / 7);
    return im;
}

static void test_png_round_trip_with_texts(void **state)
{
    static const ImageText texts[] = {
        { "seed", "42" },
        { "prompt", "zwei gr\xC3\xBCne Kreise" },
    };
    Image im = sample(), back;
    char text[64], *data;
    size_t num;

    (void)state;
    assert_int_equal(dg_image_write_png(path, &im, texts, 2), DG_OK);
    assert_int_equal(dg_image_read_png(&back, path), DG_OK);
    assert_true(back.width == 20 && back.height == 10);
    assert_memory_equal(back.rgb, pixels, sizeof pixels);
    dg_image_free(&back);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            dg_image_read_text(text, sizeof text, path, texts[i].key), DG_OK);
        assert_string_equal(text, texts[i].value);
    }
    assert_int_equal(dg_image_read_text(text, sizeof text, path, "nothing"),
                     DG_EINVAL);
    assert_int_equal(dg_image_read_text(text, 2, path, "seed"), DG_EINVAL);
    /* Latin-1 is all that a tEXt chunk may hold */
    assert_int_equal(dg_file_read(path, &data, &num), DG_OK);
    assert_non_null(memmem(data, num, "tEXtseed", 8));
    assert_non_null(memmem(data, num, "iTXtprompt", 10));
    free(data);
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* nothing else was left in it */
    assert_int_equal(mkdir(folder, 0700), 0);
}

static void test_png_write_refuses_bad_input(void **state)
{
    ImageText bad = { "", "x" };
    Image im = sample(), none = { 0, 3, pixels };

    (void)state;
    assert_int_equal(dg_image_write_png(path, &none, NULL, 0), DG_EINVAL);
    assert_int_equal(dg_image_write_png(path, &im, &bad, 1), DG_EINVAL);
    assert_int_equal(dg_image_write_png("/no/such/folder/x.png", &im, NULL, 0),
                     DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, "/no/such/folder/x.png"));
    assert_int_not_equal(access(path, F_OK), 0);
}

/* Every truncation, and a flipped bit in every byte, is an error or gives a
 * picture of the same size: nothing crashes, nothing leaks. */
static void test_png_read_survives_damage(void **state)
{
    Image im = sample(), back;
    char *data;
    size_t num;

    (void)state;
    assert_int_equal(dg_image_write_png(path, &im, NULL, 0), DG_OK);
    assert_int_equal(dg_file_read(path, &data, &num), DG_OK);
    for (size_t i = 0; i < num; i += 3) {
        assert_int_equal(dg_file_write(path, data, i), DG_OK);
        assert_int_equal(dg_image_read_png(&back, path), DG_EFORMAT);
        data[i] = (char)(data[i] ^ 0x10);
        assert_int_equal(dg_file_write(path, data, num), DG_OK);
        if (dg_image_read_png(&back, path) == DG_OK)
            dg_image_free(&back);
        data[i] = (char)(data[i] ^ 0x10);
    }
    free(data);
    unlink(path);
    assert_int_equal(dg_image_read_png(&back, path), DG_EIO);
}

static void test_quantise_rounds_and_clamps(void **state)
{
    const float in[] = { -1.0f,          0.0f, 0.5f / 255.0f,
                         0.49f / 255.0f, 1.0f, 254.5f / 255.0f,
                         7.0f,           NAN };
    const unsigned char want[] = { 0, 0, 1, 0, 255, 255, 255, 0 };
    unsigned char out[8];

    (void)state;
    dg_image_quantise(out, in, 8);
    assert_memory_equal(out, want, 8);
    for (int i = 0; i < 256; i++) {
        float x = (float)i / 255.0f;

        dg_image_quantise(out, &x, 1);
        assert_int_equal(out[0], i);
    }
}

static void test_grid_places_tiles(void **state)
{
    enum { W = 3, H = 2, NUM = 5 };
    unsigned char tiles[NUM * W * H * 3];
    ImageGrid g = { NUM, W, H, 2, 2, 1, NULL };
    Image im;

    (void)state;
    for (size_t i = 0; i < sizeof tiles; i++)
        tiles[i] = (unsigned char)(i * 2);
    assert_int_equal(dg_image_grid(&im, tiles, &g), DG_OK);
    assert_true(im.width == 2 * 7 + 1 && im.height == 3 * 5 + 1);
    for (int y = 0; y < im.height; y++) {
        for (int x = 0; x < im.width; x++) {
            int rim = x % 7 == 0 || y % 5 == 0;
            int tile = y / 5 * 2 + x / 7;
            int at = ((y % 5 - 1) / 2 * W + (x % 7 - 1) / 2) * 3;

            for (int c = 0; c < 3; c++) {
                int want = rim || tile >= NUM || x == im.width - 1 ||
                                   y == im.height - 1
                               ? 255
                               : tiles[tile * W * H * 3 + at + c];

                assert_int_equal(im.rgb[3 * (y * im.width + x) + c], want);
            }
        }
    }
    dg_image_free(&im);
    g.columns = 0;
    assert_int_equal(dg_image_grid(&im, tiles, &g), DG_EINVAL);
}

/* Captions leave black pixels below their tile only, whatever their text. */
static void test_grid_writes_captions_below_tiles(void **state)
{
    static const char *const captions[] = {
        "a red circle left of a blue square and so on and so on",
        "unbreakablewordthatislongerthanthetile \xC3\xBC \x01 (1.5%)"
    };
    unsigned char tiles[2 * 16 * 16 * 3];
    ImageGrid g = { 2, 16, 16, 1, 2, 2, captions };
    int black[2] = { 0, 0 };
    Image im;

    (void)state;
    memset(tiles, 200, sizeof tiles);
    assert_int_equal(dg_image_grid(&im, tiles, &g), DG_OK);
    assert_int_equal(im.width, 36);
    assert_int_equal(im.height, 2 + 2 * (32 + 2 + 20));
    for (int y = 0; y < im.height; y++) {
        for (int x = 0; x < im.width; x++) {
            int v = im.rgb[3 * (y * im.width + x)];
            int row = y >= 2 ? (y - 2) % 54 : -1;

            if (v != 0)
                continue;
            assert_in_range(row, 34, 51);
            assert_in_range(x, 2, 33);
            black[(y - 2) / 54]++;
        }
    }
    assert_true(black[0] > 50 && black[1] > 50);
    dg_image_free(&im);
}

/* Eight letters to a line: the second word goes to the next. */
static void test_grid_wraps_captions_between_words(void **state)
{
    static const char *const captions[] = { "lll lllllll" };
    unsigned char tile[16 * 16 * 3] = { 0 };
    ImageGrid g = { 1, 16, 16, 1, 2, 0, captions };
    int black[3] = { 0, 0, 0 };
    Image im;

    (void)state;
    assert_int_equal(dg_image_grid(&im, tile, &g), DG_OK);
    for (int y = 34; y < im.height; y++)
        for (int x = 0; x < im.width; x++)
            if (im.rgb[3 * (y * im.width + x)] == 0 && (y - 34) / 6 < 3)
                black[(y - 34) / 6]++;
    assert_int_equal(black[0] * 7, black[1] * 3);
    assert_int_equal(black[2], 0);
    dg_image_free(&im);
}

/* Of a caption alone, to free. */
static unsigned char *drawn(const char *caption, size_t *bytes)
{
    unsigned char tile[16 * 16 * 3];
    ImageGrid g = { 1, 16, 16, 1, 2, 0, &caption };
    Image im;

    memset(tile, 255, sizeof tile);
    assert_int_equal(dg_image_grid(&im, tile, &g), DG_OK);
    *bytes = 3 * (size_t)im.width * (size_t)im.height;
    return im.rgb;
}

static int draws_as(const char *a, const char *b)
{
    size_t bytes;
    unsigned char *x = drawn(a, &bytes), *y = drawn(b, &bytes);
    const int same = memcmp(x, y, bytes) == 0;

    free(x);
    free(y);
    return same;
}

/* Nothing of a caption is blank that is not a space, and what is drawn tells it
 * from others: of capitals alone there are none. */
static void test_captions_leave_nothing_out(void **state)
{
    (void)state;
    for (char a = '!'; a <= '~'; a++)
        for (char b = ' '; b < a; b++) {
            const char x[] = { a, '\0' }, y[] = { b, '\0' };
            const int same = b >= 'A' && b <= 'Z' && a == b - 'A' + 'a';

            if (draws_as(x, y) != same)
                fail_msg("%s and %s", x, y);
        }
    assert_true(draws_as("caf\xC3\xA9", "cafe"));
    assert_true(draws_as("\xE7\x8C\xAB cat", "? cat"));
}

static void assert_ascii(const char *text, const char *want)
{
    char *got;

    assert_int_equal(dg_ascii_of(&got, text), DG_OK);
    assert_string_equal(got, want);
    free(got);
}

static void test_ascii_has_something_for_each_character(void **state)
{
    (void)state;
    assert_ascii("", "");
    assert_ascii("a b~!", "a b~!");
    assert_ascii("Z\xC3\xBCrich, e\xCC\x81t\xC3\xA9", "Zurich, ete");
    assert_ascii("Stra\xC3\x9F"
                 "e, sm\xC3\xB8r, \xC5\x81\xC3\xB3"
                 "d\xC5\xBA",
                 "Strasse, smor, Lodz");
    assert_ascii("\xE2\x80\x9C"
                 "a\xE2\x80\x9D \xE2\x80\x93 b\xE2\x80\xA6",
                 "\"a\" - b...");
    /* ligature, full width, fraction; one that is made of several and is none */
    assert_ascii("\xEF\xAC\x81 \xEF\xBC\xA1 \xC2\xBD \xEF\xB7\xBA",
                 "fi A 1/2 ?");
    assert_ascii("\xE7\x8C\xAB\xD0\xBA\xF0\x9F\x98\x80", "???");
    assert_ascii("a\xC2\xA0"
                 "b\tc\xE2\x80\xA8"
                 "d\xC2\xAD"
                 "e",
                 "a b c de");
    assert_ascii("a\xFF"
                 "b\xC3",
                 "a?b?");
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/a.png", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_round_trip_with_texts),
        cmocka_unit_test(test_png_write_refuses_bad_input),
        cmocka_unit_test(test_png_read_survives_damage),
        cmocka_unit_test(test_quantise_rounds_and_clamps),
        cmocka_unit_test(test_grid_places_tiles),
        cmocka_unit_test(test_grid_writes_captions_below_tiles),
        cmocka_unit_test(test_grid_wraps_captions_between_words),
        cmocka_unit_test(test_captions_leave_nothing_out),
        cmocka_unit_test(test_ascii_has_something_for_each_character),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
