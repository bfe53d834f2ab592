#include "store/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "base/error.h"
#include "store/file.h"

enum { MAX_SIDE = 16384, MAX_TEXTS = 16 };

/* The file in memory: written at 'used', or read from it. */
typedef struct Bytes {
    unsigned char *data;
    size_t used, cap;
} Bytes;

/* libpng's complaint, kept until its stack is left. */
static void on_error(png_structp png, png_const_charp text)
{
    char *why = png_get_error_ptr(png);

    snprintf(why, 128, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void put_bytes(png_structp png, png_bytep from, size_t num)
{
    Bytes *b = png_get_io_ptr(png);

    if (b->used + num > b->cap) {
        size_t cap = 2 * (b->used + num);
        unsigned char *more = realloc(b->data, cap);

        if (more == NULL)
            png_error(png, "out of memory");
        b->data = more;
        b->cap = cap;
    }
    memcpy(b->data + b->used, from, num);
    b->used += num;
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static void get_bytes(png_structp png, png_bytep to, size_t num)
{
    Bytes *b = png_get_io_ptr(png);

    if (num > b->cap - b->used)
        png_error(png, "cut short");
    memcpy(to, b->data + b->used, num);
    b->used += num;
}

static int is_ascii(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s > 127)
            return 0;
    return 1;
}

static void put_texts(png_structp png, png_infop info, const ImageText *texts,
                      int num)
{
    png_text t[MAX_TEXTS];

    memset(t, 0, sizeof t);
    for (int i = 0; i < num; i++) {
        t[i].compression = is_ascii(texts[i].value) ? PNG_TEXT_COMPRESSION_NONE
                                                    : PNG_ITXT_COMPRESSION_NONE;
        t[i].key = (char *)texts[i].key;
        t[i].text = (char *)texts[i].value;
        t[i].text_length = strlen(texts[i].value);
    }
    png_set_text(png, info, t, num);
}

/* Nothing in here is touched after a jump back but what the caller owns. */
static int encode(Bytes *b, const Image *im, const ImageText *texts, int num,
                  char *why)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, why,
                                              on_error, on_warning);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;

    if (info == NULL) {
        png_destroy_write_struct(&png, NULL);
        return DG_ENOMEM;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return DG_EINVAL;
    }
    png_set_write_fn(png, b, put_bytes, flush_bytes);
    png_set_IHDR(png, info, (png_uint_32)im->width, (png_uint_32)im->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    put_texts(png, info, texts, num);
    png_write_info(png, info);
    for (int32_t y = 0; y < im->height; y++)
        png_write_row(png, im->rgb + 3 * (size_t)y * (size_t)im->width);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return DG_OK;
}

int dg_image_write_png(const char *path, const Image *image,
                       const ImageText *texts, int num_texts)
{
    Bytes b = { NULL, 0, 0 };
    char why[128] = "out of memory";
    int err;

    if (image->width < 1 || image->height < 1 || image->width > MAX_SIDE ||
        image->height > MAX_SIDE)
        return dg_fail(DG_EINVAL, "%s: picture of %d x %d: must be 1 to %d",
                       path, (int)image->width, (int)image->height, MAX_SIDE);
    if (num_texts < 0 || num_texts > MAX_TEXTS)
        return dg_fail(DG_EINVAL, "%s: %d texts: must be 0 to %d", path,
                       num_texts, MAX_TEXTS);
    for (int i = 0; i < num_texts; i++)
        if (strlen(texts[i].key) < 1 || strlen(texts[i].key) > 79 ||
            !is_ascii(texts[i].key))
            return dg_fail(DG_EINVAL,
                           "%s: text key \"%.80s\": must be 1 to "
                           "79 ASCII characters",
                           path, texts[i].key);
    err = encode(&b, image, texts, num_texts, why);
    if (err)
        dg_fail(err, "%s: cannot make a PNG: %s", path, why);
    else
        err = dg_file_write(path, b.data, b.used);
    free(b.data);
    return err;
}

/* What decode() is asked for: the picture, or the text of a key. */
typedef struct Wish {
    Image *image;
    const char *key;
    char *text;
    size_t cap;
    int found; /* 1: there, 2: too long */
} Wish;

static void get_text(png_structp png, png_infop info, Wish *w)
{
    png_textp t;
    int num = 0;

    png_get_text(png, info, &t, &num);
    for (int i = 0; i < num && !w->found; i++) {
        size_t len;

        if (strcmp(t[i].key, w->key) != 0)
            continue;
        len = t[i].compression > 0 ? t[i].itxt_length : t[i].text_length;
        w->found = len < w->cap ? 1 : 2;
        if (w->found == 2)
            continue;
        memcpy(w->text, t[i].text, len);
        w->text[len] = '\0';
    }
}

static void get_image(png_structp png, png_infop info, Image *im)
{
    int passes;

    im->width = (int32_t)png_get_image_width(png, info);
    im->height = (int32_t)png_get_image_height(png, info);
    png_set_scale_16(png);
    png_set_expand(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    im->rgb = malloc(3 * (size_t)im->width * (size_t)im->height);
    if (im->rgb == NULL)
        png_error(png, "out of memory");
    for (int i = 0; i < passes; i++)
        for (int32_t y = 0; y < im->height; y++)
            png_read_row(png, im->rgb + 3 * (size_t)y * (size_t)im->width,
                         NULL);
    png_read_end(png, info);
}

static int decode(Bytes *b, Wish *w, char *why)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, why,
                                             on_error, on_warning);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;

    if (info == NULL) {
        png_destroy_read_struct(&png, NULL, NULL);
        return DG_ENOMEM;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, NULL);
        return DG_EFORMAT;
    }
    png_set_user_limits(png, MAX_SIDE, MAX_SIDE);
    png_set_read_fn(png, b, get_bytes);
    png_read_info(png, info);
    if (w->image != NULL)
        get_image(png, info, w->image);
    else
        get_text(png, info, w);
    png_destroy_read_struct(&png, &info, NULL);
    return DG_OK;
}

static int read_png(Wish *w, const char *path)
{
    Bytes b = { NULL, 0, 0 };
    char why[128] = "out of memory", *data;
    int err = dg_file_read(path, &data, &b.cap);

    if (err)
        return err;
    b.data = (unsigned char *)data;
    err = decode(&b, w, why);
    if (err)
        dg_fail(err, "%s: cannot be read as a PNG: %s", path, why);
    free(data);
    return err;
}

int dg_image_read_png(Image *out, const char *path)
{
    Image im = { 0, 0, NULL };
    Wish w = { .image = &im };
    int err = read_png(&w, path);

    if (err)
        free(im.rgb);
    else
        *out = im;
    return err;
}

int dg_image_read_text(char *out, size_t cap, const char *path, const char *key)
{
    Wish w = { .key = key, .text = out, .cap = cap };
    int err = read_png(&w, path);

    if (!err && w.found != 1)
        err = dg_fail(DG_EINVAL, "%s: text \"%s\" %s", path, key,
                      w.found ? "is too long" : "is not there");
    return err;
}

void dg_image_free(Image *image)
{
    free(image->rgb);
    memset(image, 0, sizeof *image);
}
