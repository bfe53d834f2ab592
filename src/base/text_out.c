#include "base/text_out.h"

#include "base/error.h"
#include "base/legible.h"

#include <stdlib.h>

static int fail(const TextOut *t)
{
    return dg_fail(DG_ENOMEM, "%s: no memory for its text", t->what);
}

int dg_text_open(TextOut *t, const char *what)
{
    *t = (TextOut) { .what = what };
    t->file = open_memstream(&t->text, &t->bytes);
    return t->file != NULL ? DG_OK : fail(t);
}

int dg_text_close(TextOut *t, char **text)
{
    t->failed |= ferror(t->file) != 0;
    t->failed |= fclose(t->file) != 0; /* only now is the text's place known */
    if (t->failed) {
        free(t->text);
        return fail(t);
    }
    *text = t->text;
    return DG_OK;
}

const char *dg_json_char(char room[DG_JSON_CHAR], const char **text)
{
    const unsigned char *c = (const unsigned char *)*text;
    const int bytes = dg_utf8_bytes(*text);

    if (bytes == 0)
        snprintf(room, DG_JSON_CHAR, "\\ufffd");
    else if (*c < 0x20 || *c == 0x7f)
        snprintf(room, DG_JSON_CHAR, "\\u%04x", (unsigned)*c);
    else if (*c == 0xc2 && c[1] < 0xa0) /* these steer a terminal too */
        snprintf(room, DG_JSON_CHAR, "\\u%04x", (unsigned)c[1]);
    else
        snprintf(room, DG_JSON_CHAR, "%s%.*s",
                 *c == '"' || *c == '\\' ? "\\" : "", bytes, *text);
    *text += bytes > 0 ? bytes : 1;
    return room;
}
