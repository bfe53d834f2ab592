#include "store/image.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/ascii.h"

enum {
    GLYPH_W = 4, /* 3 columns and a gap */
    GLYPH_H = 6, /* 5 rows and a gap */
    CAPTION_LINES = 3
};

/* Letters of 3 x 5 pixels: a row is an octal digit, top row first. */
static const struct {
    char c;
    unsigned short rows;
} font[] = {
    { 'a', 025755 }, { 'b', 065656 }, { 'c', 034443 }, { 'd', 065556 },
    { 'e', 074647 }, { 'f', 074644 }, { 'g', 034553 }, { 'h', 055755 },
    { 'i', 072227 }, { 'j', 011152 }, { 'k', 055655 }, { 'l', 044447 },
    { 'm', 057755 }, { 'n', 065555 }, { 'o', 025552 }, { 'p', 065644 },
    { 'q', 025563 }, { 'r', 065655 }, { 's', 034216 }, { 't', 072222 },
    { 'u', 055557 }, { 'v', 055552 }, { 'w', 055775 }, { 'x', 055255 },
    { 'y', 055222 }, { 'z', 071247 }, { '0', 075557 }, { '1', 026227 },
    { '2', 071747 }, { '3', 071717 }, { '4', 055711 }, { '5', 074717 },
    { '6', 074757 }, { '7', 071122 }, { '8', 075757 }, { '9', 075717 },
    { '.', 000002 }, { ',', 000024 }, { '-', 000700 }, { '+', 002720 },
    { ':', 002020 }, { '=', 007070 }, { '/', 011244 }, { '%', 051245 },
    { '(', 024442 }, { ')', 021112 }, { '"', 055000 }, { '\'', 022000 },
    { '!', 022202 }, { '?', 061202 }, { ';', 002024 }, { '_', 000007 },
    { '*', 052500 }, { '&', 025253 }, { '#', 057575 }, { '@', 025743 },
    { '$', 036236 }, { '<', 012421 }, { '>', 042124 }, { '[', 064446 },
    { ']', 031113 }, { '{', 032623 }, { '}', 062326 }, { '\\', 044211 },
    { '|', 022222 }, { '^', 025000 }, { '`', 042000 }, { '~', 003600 },
};

void dg_image_quantise(unsigned char *out, const float *in, size_t num)
{
    for (size_t i = 0; i < num; i++) {
        float x = in[i] > 0.0f ? in[i] : 0.0f; /* NaN is not > 0 */

        out[i] = (unsigned char)((x < 1.0f ? x : 1.0f) * 255.0f + 0.5f);
    }
}

static unsigned glyph(char c)
{
    if (c >= 'A' && c <= 'Z')
        c = (char)(c - 'A' + 'a');
    for (size_t i = 0; i < sizeof font / sizeof *font; i++)
        if (font[i].c == c)
            return font[i].rows;
    return 0;
}

static void draw_letter(Image *im, int x0, int y0, char c)
{
    unsigned rows = glyph(c);

    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 3; x++)
            if (rows >> (3 * (4 - y) + 2 - x) & 1u)
                memset(im->rgb + 3 * ((size_t)(y0 + y) * (size_t)im->width +
                                      (size_t)(x0 + x)),
                       0, 3);
}

/* The words, as many to a line as fit. */
static void draw_words(Image *im, int x0, int y0, int width, const char *s)
{
    const int per_line = width / GLYPH_W;
    int line = 0, column = 0;

    while (*(s += strspn(s, " ")) != '\0' && per_line > 0) {
        int len = (int)strcspn(s, " ");

        if (column > 0 && column + len > per_line) {
            line++;
            column = 0;
        }
        for (; len > 0 && line < CAPTION_LINES; len--, s++, column++) {
            if (column == per_line) { /* a word longer than a line */
                line++;
                column = 0;
            }
            if (line < CAPTION_LINES)
                draw_letter(im, x0 + column * GLYPH_W, y0 + line * GLYPH_H, *s);
        }
        if (line >= CAPTION_LINES)
            break;
        column++;
    }
}

static int draw_caption(Image *im, int x0, int y0, int width, const char *s)
{
    char *text;
    const int err = dg_ascii_of(&text, s);

    if (err)
        return err;
    draw_words(im, x0, y0, width, text);
    free(text);
    return DG_OK;
}

static void draw_tile(Image *im, int x0, int y0, const unsigned char *tile,
                      const ImageGrid *g)
{
    for (int32_t y = 0; y < g->height * g->scale; y++) {
        unsigned char *to =
            im->rgb + 3 * ((size_t)(y0 + y) * (size_t)im->width + (size_t)x0);
        const unsigned char *from =
            tile + 3 * (size_t)(y / g->scale) * (size_t)g->width;

        for (int32_t x = 0; x < g->width * g->scale; x++)
            memcpy(to + 3 * (size_t)x, from + 3 * (size_t)(x / g->scale), 3);
    }
}

static int in_range(int32_t x, int32_t lo, int32_t hi)
{
    return x >= lo && x <= hi;
}

int dg_image_grid(Image *out, const unsigned char *tiles, const ImageGrid *g)
{
    const int text = g->captions != NULL ? CAPTION_LINES * GLYPH_H + 2 : 0;
    int64_t rows, step_x, step_y;
    size_t tile, bytes;
    int err = DG_OK;
    Image im;

    if (!in_range(g->num, 1, 1 << 20) || !in_range(g->width, 1, 8192) ||
        !in_range(g->height, 1, 8192) || !in_range(g->columns, 1, 1024) ||
        !in_range(g->scale, 1, 64) || !in_range(g->padding, 0, 256))
        return dg_fail(DG_EINVAL, "grid of %d pictures of %d x %d: bad sizes",
                       (int)g->num, (int)g->width, (int)g->height);
    rows = (g->num + g->columns - 1) / g->columns;
    step_x = g->width * g->scale + g->padding;
    step_y = g->height * g->scale + g->padding + text;
    if (g->columns * step_x > 16000 || rows * step_y > 16000)
        return dg_fail(DG_EINVAL,
                       "grid of %d pictures of %d x %d: more than 16000 pixels "
                       "a side",
                       (int)g->num, (int)g->width, (int)g->height);
    im.width = (int32_t)(g->columns * step_x) + g->padding;
    im.height = (int32_t)(rows * step_y) + g->padding;
    bytes = 3 * (size_t)im.width * (size_t)im.height;
    im.rgb = malloc(bytes);
    if (im.rgb == NULL)
        return dg_fail(DG_ENOMEM, "grid of %d pictures", (int)g->num);
    memset(im.rgb, 255, bytes);
    tile = 3 * (size_t)g->width * (size_t)g->height;
    for (int32_t i = 0; i < g->num && !err; i++) {
        int x = g->padding + (int)(i % g->columns * step_x);
        int y = g->padding + (int)(i / g->columns * step_y);

        draw_tile(&im, x, y, tiles + (size_t)i * tile, g);
        if (text)
            err = draw_caption(&im, x, y + g->height * g->scale + 2,
                               g->width * g->scale, g->captions[i]);
    }
    if (err)
        free(im.rgb);
    else
        *out = im;
    return err;
}
