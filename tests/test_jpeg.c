/* Sizes of JPEG files: those that Pillow 13 writes, which has libjpeg-turbo
 * too, of the same pictures. */
#include "clip_golden.h"

#include "base/error.h"
#include "store/jpeg.h"

#include <sys/wait.h>
#include <unistd.h>

/* libjpeg gets its memory here, and none while it is refused. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REFUSES 0 /* the sanitizer has the allocator */
static volatile int refused;
#else
#define REFUSES 1
static volatile int refused;

extern void *__libc_malloc(size_t);

__attribute__((noinline)) void *malloc(size_t size)
{
    return refused ? NULL : __libc_malloc(size);
}
#endif

static void picture(uint8_t *out, int height, int width)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);

    assert_non_null(rgb);
    clip_picture(rgb, height, width);
    for (int i = 0; i < 3 * height * width; i++)
        out[i] = (uint8_t)lrintf(255 * rgb[i]);
    free(rgb);
}

static int64_t size_of(const uint8_t *rgb, int height, int width, int quality)
{
    int64_t bytes;

    if (dg_jpeg_size(&bytes, rgb, height, width, quality))
        fail_msg("%s", dg_last_error()->text);
    return bytes;
}

/* Another process, told to leave the processor's vector code alone, counts the
 * same. libjpeg asks once for that: this comes before all other tests. */
static void test_vector_code_has_the_plain_codes_bits(void **state)
{
    static uint8_t rgb[CLIP_MOST];
    int64_t plain[CLIP_SIZES] = { 0 };
    int ends[2];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        setenv("JSIMD_FORCENONE", "1", 1);
        for (int i = 0; i < CLIP_SIZES; i++) {
            picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
            plain[i] = size_of(rgb, clip_sizes[i][0], clip_sizes[i][1], 95);
        }
        _exit(write(ends[1], plain, sizeof plain) != sizeof plain);
    }
    assert_true(child > 0);
    assert_int_equal(read(ends[0], plain, sizeof plain), sizeof plain);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ends[0]);
    close(ends[1]);
    for (int i = 0; i < CLIP_SIZES; i++) {
        picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
        assert_int_equal(size_of(rgb, clip_sizes[i][0], clip_sizes[i][1], 95),
                         plain[i]);
    }
}

static void test_sizes_are_pillows(void **state)
{
    static const int want[CLIP_SIZES][2] = { /* of quality 95 and 75 */
                                             { 5174, 2924 }, { 3180, 1892 },
                                             { 2481, 1547 }, { 4883, 2698 },
                                             { 2326, 1463 }, { 2597, 1587 }
    };
    static uint8_t rgb[CLIP_MOST];

    (void)state;
    for (int i = 0; i < CLIP_SIZES; i++) {
        const int h = clip_sizes[i][0], w = clip_sizes[i][1];

        picture(rgb, h, w);
        assert_int_equal(size_of(rgb, h, w, 95), want[i][0]);
        assert_int_equal(size_of(rgb, h, w, 75), want[i][1]);
    }
    picture(rgb, 64, 64);
    assert_int_equal(size_of(rgb, 64, 64, 100), 8285);
    assert_int_equal(size_of(rgb, 64, 64, 1), 753);
}

static void test_sizes_of_grey_and_of_a_gradient(void **state)
{
    static uint8_t rgb[512 * 512 * 3];

    (void)state;
    memset(rgb, 128, sizeof rgb);
    assert_int_equal(size_of(rgb, 512, 512, 75), 4721);
    assert_int_equal(size_of(rgb, 512, 512, 80), 4721);
    assert_int_equal(size_of(rgb, 512, 512, 95), 4721);
    for (int y = 0; y < 512; y++)
        for (int x = 0; x < 512; x++) {
            uint8_t *p = rgb + 3 * (512 * y + x);

            p[0] = (uint8_t)(x / 2);
            p[1] = (uint8_t)(y / 2);
            p[2] = (uint8_t)((x + y) / 4);
        }
    assert_int_equal(size_of(rgb, 512, 512, 95), 22490);
    assert_int_equal(size_of(rgb, 512, 512, 75), 10000);
}

static void test_sides_are_checked(void **state)
{
    static const int64_t sides[][2] = {
        { 0, 8 }, { 8, 0 }, { 65501, 1 }, { 1, 65501 }, { 1, (int64_t)1 << 32 }
    };
    static const uint8_t rgb[3] = { 0 };
    int64_t bytes = -5;

    (void)state;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(
            dg_jpeg_size(&bytes, rgb, sides[i][0], sides[i][1], 95), DG_EINVAL);
        assert_non_null(strstr(dg_last_error()->text, "must be 1 to 65500"));
    }
    assert_int_equal(bytes, -5);
}

static void test_no_memory_is_an_error(void **state)
{
    static uint8_t rgb[3 * 65500];
    int64_t bytes = -5;
    int err;

    (void)state;
    if (!REFUSES)
        skip();
    refused = 1;
    err = dg_jpeg_size(&bytes, rgb, 1, 65500, 95);
    refused = 0;
    assert_int_equal(err, DG_ENOMEM);
    assert_non_null(strstr(dg_last_error()->text, "JPEG of 65500 x 1 pixels"));
    assert_int_equal(bytes, -5);
    assert_true(size_of(rgb, 1, 65500, 95) > 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_vector_code_has_the_plain_codes_bits),
    cmocka_unit_test(test_sizes_are_pillows),
    cmocka_unit_test(test_sizes_of_grey_and_of_a_gradient),
    cmocka_unit_test(test_sides_are_checked),
    cmocka_unit_test(test_no_memory_is_an_error),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
