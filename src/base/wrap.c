#include "base/wrap.h"

#include <string.h>

/* Characters of UTF-8 in n bytes. */
static int width_of(const char *text, size_t n)
{
    int width = 0;

    for (size_t i = 0; i < n; i++)
        width += (text[i] & 0xc0) != 0x80;
    return width;
}

void dg_wrap(FILE *out, int at, int indent, const char *text)
{
    int column = at, begins = 1;

    while (*text) {
        const size_t n = strcspn(text, " \n");
        const int width = width_of(text, n);

        if (!begins && column + 1 + width > DG_WRAP_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (!begins) {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, n, out);
        column += width;
        begins = 0;
        text += n;
        if (*text == '\n') {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            begins = 1;
        }
        text += *text != '\0';
    }
    fputc('\n', out);
}
