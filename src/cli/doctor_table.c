/* The doctor's findings: rows on the screen, and all of them as JSON. */
#include "doctor.h"

#include "base/error.h"
#include "base/legible.h"
#include "base/text_out.h"
#include "store/file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[DG_VERDICTS] = { "ok", "slow", "WARN", "FAIL" };

void dg_finding(Doctor *d, const char *what, Verdict v, const char *fmt, ...)
{
    char text[1400];
    va_list args;

    d->count[v]++;
    if (d->cli->comm.rank != 0)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    printf("%-10s %-5s ", what, words[v]);
    dg_legible_put(stdout, text, sizeof text);
    putchar('\n');
    fflush(stdout);
    if (d->num < DG_FINDINGS)
        d->finding[d->num++] =
            (Finding) { .what = what, .verdict = v, .text = strdup(text) };
}

void dg_finding_error(Doctor *d, const char *what)
{
    dg_finding(d, what, DG_WRONG, "%s", dg_last_error()->text);
    dg_clear_error();
}

void dg_finding_number(Doctor *d, const char *key, double value)
{
    Finding *f = d->num > 0 ? &d->finding[d->num - 1] : NULL;

    if (f == NULL || f->num_numbers == DG_FINDING_NUMBERS)
        return;
    f->number[f->num_numbers].key = key;
    f->number[f->num_numbers++].value = value;
}

static void quoted(FILE *f, const char *text)
{
    char room[DG_JSON_CHAR];

    fputc('"', f);
    while (text != NULL && *text != '\0')
        fputs(dg_json_char(room, &text), f);
    fputc('"', f);
}

/* JSON knows neither NaN nor infinities. */
static void number(FILE *f, const char *key, double value)
{
    if (isfinite(value))
        fprintf(f, ",\"%s\":%.9g", key, value);
    else
        fprintf(f, ",\"%s\":null", key);
}

static void row(FILE *f, const Finding *r)
{
    fprintf(f, "{\"row\":\"%s\",\"verdict\":\"%s\",\"text\":", r->what,
            words[r->verdict]);
    quoted(f, r->text);
    for (int i = 0; i < r->num_numbers; i++)
        number(f, r->number[i].key, r->number[i].value);
    fputc('}', f);
}

int dg_findings_write(const Doctor *d, const char *path)
{
    TextOut out;
    char *text;
    int err = dg_text_open(&out, "findings");

    if (err)
        return err;
    fprintf(out.file, "{\"ok\":%d,\"to_look_at\":%d,\"failed\":%d,\"rows\":[",
            d->count[DG_FINE], d->count[DG_DOUBTFUL] + d->count[DG_SLOW],
            d->count[DG_WRONG]);
    for (int i = 0; i < d->num; i++) {
        fputs(i > 0 ? ",\n" : "\n", out.file);
        row(out.file, &d->finding[i]);
    }
    fputs("]}\n", out.file);
    err = dg_text_close(&out, &text);
    if (err)
        return err;
    err = dg_file_write(path, text, strlen(text));
    free(text);
    return err;
}

void dg_findings_free(Doctor *d)
{
    for (int i = 0; i < d->num; i++)
        free(d->finding[i].text);
    free(d->seen);
}
