#include "store/jpeg.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>

#include <jerror.h>
#include <jpeglib.h>

#include "base/error.h"

enum { PIECE = 4096 };

/* Where libjpeg's file goes: it is counted and forgotten. */
typedef struct Counter {
    struct jpeg_destination_mgr head; /* libjpeg's face, comes first */
    int64_t before;                   /* bytes of the pieces that were full */
    JOCTET piece[PIECE];
} Counter;

/* libjpeg's complaint, kept until its stack is left. */
typedef struct Trouble {
    struct jpeg_error_mgr head; /* comes first */
    jmp_buf back;
    int code;
    char text[JMSG_LENGTH_MAX];
} Trouble;

typedef struct Job {
    struct jpeg_compress_struct jpeg;
    Counter counter;
    Trouble trouble;
} Job;

static void begin_piece(j_compress_ptr jpeg)
{
    Counter *c = (Counter *)jpeg->dest;

    c->head.next_output_byte = c->piece;
    c->head.free_in_buffer = PIECE;
}

static boolean next_piece(j_compress_ptr jpeg)
{
    Counter *c = (Counter *)jpeg->dest;

    c->before += PIECE; /* all of it, whatever free_in_buffer says */
    begin_piece(jpeg);
    return TRUE;
}

static void end_pieces(j_compress_ptr jpeg)
{
    Counter *c = (Counter *)jpeg->dest;

    c->before += PIECE - (int64_t)c->head.free_in_buffer;
}

static void on_error(j_common_ptr jpeg)
{
    Trouble *t = (Trouble *)jpeg->err;

    t->code = t->head.msg_code == JERR_OUT_OF_MEMORY ? DG_ENOMEM : DG_EINVAL;
    t->head.format_message(jpeg, t->text);
    longjmp(t->back, 1);
}

static void on_message(j_common_ptr jpeg)
{
    (void)jpeg;
}

static void compress(Job *j, const uint8_t *rgb, int64_t height, int64_t width,
                     int quality)
{
    struct jpeg_compress_struct *c = &j->jpeg;

    jpeg_create_compress(c);
    c->dest = &j->counter.head;
    c->image_height = (JDIMENSION)height;
    c->image_width = (JDIMENSION)width;
    c->input_components = 3;
    c->in_color_space = JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, quality, TRUE);
    c->dct_method = JDCT_ISLOW;
    jpeg_start_compress(c, TRUE);
    while (c->next_scanline < c->image_height) {
        /* libjpeg reads rows and has no const */
        JSAMPROW row =
            (JSAMPROW)(uintptr_t)(rgb + 3 * width * (int64_t)c->next_scanline);

        jpeg_write_scanlines(c, &row, 1);
    }
    jpeg_finish_compress(c);
}

/* j is not this function's own: it is what libjpeg has made of it when on_error()
 * comes back here. */
static int attempt(Job *j, const uint8_t *rgb, int64_t height, int64_t width,
                   int quality)
{
    if (setjmp(j->trouble.back) != 0)
        return dg_fail(j->trouble.code, "JPEG of %lld x %lld pixels: %s",
                       (long long)width, (long long)height, j->trouble.text);
    compress(j, rgb, height, width, quality);
    return DG_OK;
}

int dg_jpeg_size(int64_t *bytes, const uint8_t *rgb, int64_t height,
                 int64_t width, int quality)
{
    Job j = { .counter.head = { .init_destination = begin_piece,
                                .empty_output_buffer = next_piece,
                                .term_destination = end_pieces } };
    int err;

    if (height < 1 || width < 1 || height > JPEG_MAX_DIMENSION ||
        width > JPEG_MAX_DIMENSION)
        return dg_fail(
            DG_EINVAL, "JPEG of %lld x %lld pixels: sides must be 1 to %d",
            (long long)width, (long long)height, (int)JPEG_MAX_DIMENSION);
    j.jpeg.err = jpeg_std_error(&j.trouble.head);
    j.trouble.head.error_exit = on_error;
    j.trouble.head.output_message = on_message;
    err = attempt(&j, rgb, height, width, quality);
    jpeg_destroy_compress(&j.jpeg);
    if (!err)
        *bytes = j.counter.before;
    return err;
}
