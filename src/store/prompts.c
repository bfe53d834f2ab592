#include "store/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/json_keys.h"
#include "base/log.h"
#include "base/plural.h"
#include "store/file.h"
#include "text/misread.h"

/* One file on its way to a list. */
typedef struct Reader {
    const char *path; /* NULL: texts of a command line, a line each */
    int jsonl;
    long line;
    size_t used; /* bytes of list.memory */
    PromptList list;
    int misread; /* characters that look misread, in so many prompts, */
    int32_t num_misread, first_misread; /* of which the first is */
    long misread_line;                  /* in this line */
} Reader;

static int ends_in(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);

    return n > m && strcmp(path + n - m, suffix) == 0;
}

/* Bytes of UTF-8 that it begins with. */
static size_t utf8_end(const utf8proc_uint8_t *s, size_t len)
{
    size_t at = 0;
    utf8proc_int32_t c;

    while (at < len) {
        const utf8proc_ssize_t n =
            utf8proc_iterate(s + at, (utf8proc_ssize_t)(len - at), &c);

        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return at;
}

static int check_utf8(const Reader *r, const char *s, size_t len)
{
    const size_t at = utf8_end((const utf8proc_uint8_t *)s, len);

    if (at < len && r->path == NULL)
        return dg_fail(DG_EFORMAT, "PROMPT %ld: not UTF-8 (byte %zu of it)",
                       r->line, at + 1);
    if (at < len)
        return dg_fail(DG_EFORMAT,
                       "prompts file %s, line %ld: not UTF-8 (byte %zu of "
                       "the line)",
                       r->path, r->line, at + 1);
    if (memchr(s, '\0', len) != NULL)
        return dg_fail(DG_EFORMAT,
                       "prompts file %s, line %ld: a NUL byte in the text",
                       r->path, r->line);
    return DG_OK;
}

/* The memory was sized for all that can be kept. */
static const char *keep(Reader *r, const char *s, size_t len)
{
    char *to = r->list.memory + r->used;

    memcpy(to, s, len);
    to[len] = '\0';
    r->used += len + 1;
    return to;
}

static size_t trim(const char **s, size_t len)
{
    while (len > 0 && strchr(" \t\r", (*s)[len - 1]) != NULL)
        len--;
    while (len > 0 && strchr(" \t", **s) != NULL) {
        (*s)++;
        len--;
    }
    return len;
}

static int read_meta(const Reader *r, Prompt *p, const cJSON *o)
{
    char why[sizeof dg_last_error()->text];
    int err;

    if (cJSON_GetObjectItemCaseSensitive(o, "include") == NULL)
        return DG_OK;
    err = dg_world_meta_read(&p->meta, p->json);
    p->has_meta = err == DG_OK;
    if (err == DG_EINVAL) { /* classes of another world: an outer reward's */
        dg_clear_error();
        return DG_OK;
    }
    if (err == DG_OK)
        return DG_OK;
    memcpy(why, dg_last_error()->text, sizeof why);
    return dg_fail(err, "prompts file %s, line %ld: %.400s", r->path, r->line,
                   why);
}

static int read_object(Reader *r, Prompt *p, const cJSON *o)
{
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(o, "prompt");
    const cJSON *tag = cJSON_GetObjectItemCaseSensitive(o, "tag");
    const char *s;
    size_t len;

    if (!cJSON_IsObject(o))
        return dg_fail(DG_EFORMAT,
                       "prompts file %s, line %ld: not a JSON object", r->path,
                       r->line);
    s = cJSON_IsString(text) ? text->valuestring : "";
    len = trim(&s, strlen(s));
    if (len == 0)
        return dg_fail(DG_EFORMAT,
                       "prompts file %s, line %ld: no \"prompt\" with text",
                       r->path, r->line);
    p->text = keep(r, s, len);
    s = cJSON_IsString(tag) ? tag->valuestring : "";
    p->tag = keep(r, s, strlen(s));
    return read_meta(r, p, o);
}

/* cJSON would end a text there. */
static int has_nul(const char *json)
{
    for (; *json != '\0'; json++) {
        if (strncmp(json, "\\u0000", 6) == 0)
            return 1;
        json += *json == '\\' && json[1] != '\0';
    }
    return 0;
}

/* A reward's program is sent the line, and Python takes the last of two. */
static int check_keys(const Reader *r, const cJSON *o)
{
    char where[sizeof dg_last_error()->text];

    snprintf(where, sizeof where, "prompts file %s, line %ld", r->path,
             r->line);
    return dg_json_check_keys(where, o);
}

static int read_json(Reader *r, Prompt *p, const char *s, size_t len)
{
    cJSON *o;
    int err;

    p->json = keep(r, s, len);
    if (has_nul(p->json))
        return dg_fail(DG_EFORMAT,
                       "prompts file %s, line %ld: a NUL byte in the text",
                       r->path, r->line);
    o = cJSON_ParseWithOpts(p->json, NULL, 1);
    if (o == NULL)
        return dg_fail(DG_EFORMAT, "prompts file %s, line %ld: malformed JSON",
                       r->path, r->line);
    err = check_keys(r, o);
    if (!err)
        err = read_object(r, p, o);
    cJSON_Delete(o);
    return err;
}

/* Its words are other ones than meant, in training and tokens, and nothing else
 * tells. Behind the kept texts there is room for one more. */
static void look_misread(Reader *r, const Prompt *p)
{
    const int num = dg_misread(r->list.memory + r->used, p->text);

    if (num > 0 && r->num_misread++ == 0) {
        r->first_misread = r->list.num;
        r->misread_line = r->line;
    }
    r->misread += num;
}

/* One such character may be meant; with several, all of them in their places,
 * nothing else was. */
static void tell_misread(Reader *r)
{
    const char *text = r->list.item[r->first_misread].text;
    char *likely = r->list.memory + r->used;

    if (r->misread < 2 || dg_misread(likely, text) == 0)
        return;
    dg_warn(
        "%s%s%s %ld: \"%.200s\" looks like UTF-8 that was taken for Latin-1 "
        "and written as UTF-8 again: \"%.200s\"? (%d prompt%s)",
        r->path != NULL ? "prompts file " : "", r->path != NULL ? r->path : "",
        r->path != NULL ? ", line" : "PROMPT", r->misread_line, text, likely,
        (int)r->num_misread, dg_plural(r->num_misread));
}

static int read_line(Reader *r, const char *s, size_t len)
{
    Prompt *p = &r->list.item[r->list.num];
    int err = check_utf8(r, s, len);

    if (err)
        return err;
    len = trim(&s, len);
    if (len == 0)
        return DG_OK;
    memset(p, 0, sizeof *p);
    p->tag = "";
    if (r->jsonl)
        err = read_json(r, p, s, len);
    else
        p->text = keep(r, s, len);
    if (!err)
        look_misread(r, p);
    if (!err)
        r->list.num++;
    return err;
}

static int read_lines(Reader *r, const char *s, size_t left)
{
    int err = DG_OK;

    while (left > 0 && !err) {
        const char *end = memchr(s, '\n', left);
        size_t len = end != NULL ? (size_t)(end - s) : left;
        size_t step = end != NULL ? len + 1 : len;

        r->line++;
        err = read_line(r, s, len);
        s += step;
        left -= step;
    }
    if (!err && r->list.num == 0)
        err = dg_fail(DG_EFORMAT, "prompts file %s: no prompt in it", r->path);
    return err;
}

/* Space for every line to be a prompt, and for the longest once more. JSON never
 * shrinks when kept: text and tag together are shorter than the line they stand
 * in. */
static int reserve(Reader *r, const char *bytes, size_t num_bytes)
{
    size_t lines = 1, length = 0, longest = 0;

    for (size_t i = 0; i < num_bytes; i++) {
        lines += bytes[i] == '\n';
        length = bytes[i] == '\n' ? 0 : length + 1;
        longest = length > longest ? length : longest;
    }
    if (lines > INT32_MAX)
        return dg_fail(DG_EFORMAT, "prompts file %s: too many lines", r->path);
    r->list.item = malloc(lines * sizeof *r->list.item);
    r->list.memory = malloc(2 * num_bytes + 3 * lines + longest + 1);
    if (r->list.item == NULL || r->list.memory == NULL) {
        dg_prompts_free(&r->list);
        return dg_fail(DG_ENOMEM, "prompts file %s: %zu bytes", r->path,
                       num_bytes);
    }
    return DG_OK;
}

int dg_prompts_parse(PromptList *out, const char *path, const char *bytes,
                     size_t num_bytes)
{
    Reader r = { .path = path, .jsonl = ends_in(path, ".jsonl") };
    int err;

    if (!r.jsonl && !ends_in(path, ".txt"))
        return dg_fail(DG_EINVAL,
                       "prompts file %s: name must end in .txt (a prompt per "
                       "line) or .jsonl (an object per line)",
                       path);
    if (num_bytes >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
        bytes += 3; /* a byte order mark is not text */
        num_bytes -= 3;
    }
    err = reserve(&r, bytes, num_bytes);
    if (err)
        return err;
    err = read_lines(&r, bytes, num_bytes);
    if (err) {
        dg_prompts_free(&r.list);
        return err;
    }
    tell_misread(&r);
    *out = r.list;
    return DG_OK;
}

int dg_prompts_of(PromptList *out, const char *const *texts, int num)
{
    Reader r = { .path = NULL };
    size_t bytes = 0, longest = 0;
    int err = DG_OK;

    for (int i = 0; i < num; i++) {
        const size_t length = strlen(texts[i]) + 1;

        bytes += length;
        longest = length > longest ? length : longest;
    }
    r.list.item = malloc((size_t)num * sizeof *r.list.item);
    r.list.memory = malloc(bytes + longest);
    if (r.list.item == NULL || r.list.memory == NULL)
        err = dg_fail(DG_ENOMEM, "prompts");
    for (int i = 0; i < num && !err; i++) {
        char *text = r.list.memory + r.used;

        r.line++;
        err = read_line(&r, texts[i], strlen(texts[i]));
        if (!err && r.list.num < i + 1)
            err =
                dg_fail(DG_EINVAL, "PROMPT %d is empty: must be a text", i + 1);
        for (; !err && *text != '\0'; text++)
            if (*text == '\n' || *text == '\r')
                *text = ' ';
    }
    if (err) {
        dg_prompts_free(&r.list);
        return err;
    }
    tell_misread(&r);
    *out = r.list;
    return DG_OK;
}

int dg_prompts_read(PromptList *out, const char *path)
{
    char *bytes;
    size_t num;
    int err = dg_file_read(path, &bytes, &num);

    if (err)
        return err;
    err = dg_prompts_parse(out, path, bytes, num);
    free(bytes);
    return err;
}

void dg_prompts_free(PromptList *list)
{
    free(list->item);
    free(list->memory);
    memset(list, 0, sizeof *list);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int dg_prompts_digest(char hex[DG_SHA256_HEX], const PromptList *list)
{
    Sha256 sum;
    const int err = dg_sha256_init(&sum);

    for (int32_t i = 0; i < list->num && !err; i++) {
        const Prompt *p = &list->item[i];
        const char *line = p->json != NULL ? p->json : p->text;

        dg_sha256_update(&sum, line, strlen(line) + 1);
    }
    if (!err)
        dg_sha256_final(&sum, hex);
    return err;
}

int dg_prompts_meanings(uint64_t **out, size_t *num, const PromptList *list)
{
    size_t n = 0, kept = 0;
    uint64_t *m = malloc(((size_t)list->num + 1) * sizeof *m);

    if (m == NULL)
        return dg_fail(DG_ENOMEM, "meanings of %d prompts", (int)list->num);
    for (int i = 0; i < list->num; i++)
        if (list->item[i].has_meta)
            m[n++] = dg_world_meaning(&list->item[i].meta);
    qsort(m, n, sizeof *m, by_value);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || m[i] != m[i - 1])
            m[kept++] = m[i];
    if (kept == 0) {
        free(m);
        m = NULL;
    }
    *out = m;
    *num = kept;
    return DG_OK;
}
