#include "base/text_out.h"

#include "base/error.h"

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

const char *dg_json_char(char room[DG_JSON_CHAR], char c)
{
    if ((unsigned char)c < 0x20)
        snprintf(room, DG_JSON_CHAR, "\\u%04x", (unsigned)c);
    else
        snprintf(room, DG_JSON_CHAR, "%s%c", c == '"' || c == '\\' ? "\\" : "",
                 c);
    return room;
}
