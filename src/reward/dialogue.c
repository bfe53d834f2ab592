#include "dialogue.h"

#include "base/error.h"
#include "base/json_keys.h"
#include "base/legible.h"
#include "base/text_out.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 80 }; /* characters of a line in a message */

/* Bytes that are counted where there is no room. */
typedef struct Writer {
    char *at;
    size_t room, used;
} Writer;

static void put(Writer *w, const char *text)
{
    const size_t num = strlen(text);

    if (w->used + num <= w->room)
        memcpy(w->at + w->used, text, num);
    w->used += num;
}

static void put_string(Writer *w, const char *text)
{
    char room[DG_JSON_CHAR];

    put(w, "\"");
    while (*text != '\0')
        put(w, dg_json_char(room, &text));
    put(w, "\"");
}

size_t dg_request_write(char *text, size_t room, const Request *r)
{
    Writer w = { text, room, 0 };
    char numbers[160];

    snprintf(numbers, sizeof numbers,
             "{\"id\": %lld, \"prompt\": ", (long long)r->id);
    put(&w, numbers);
    put_string(&w, r->prompt->text);
    if (r->prompt->json != NULL) {
        put(&w, ", \"metadata\": ");
        put(&w, r->prompt->json);
    }
    snprintf(numbers, sizeof numbers,
             ", \"height\": %lld, \"width\": %lld, \"quantize\": \"%s\"}\n",
             (long long)r->height, (long long)r->width,
             r->quantize == DG_QUANTIZE_TRUNC ? "trunc" : "rint");
    put(&w, numbers);
    return w.used;
}

/* --- answers ------------------------------------------------------------- */

/* Python writes NaN and Infinity, which JSON has not: here an empty list, which
 * is no number either. */
static void replace_words(char *json)
{
    static const char *const words[] = { "NaN", "-Infinity", "Infinity" };
    int quoted = 0;

    for (; *json != '\0'; json++) {
        if (quoted && *json == '\\' && json[1] != '\0')
            json++;
        else if (*json == '"')
            quoted = !quoted;
        for (int i = 0; i < 3 && !quoted; i++)
            if (strncmp(json, words[i], strlen(words[i])) == 0) {
                memset(json, ' ', strlen(words[i]));
                memcpy(json, "[]", 2);
            }
    }
}

/* NULL: it is no object of JSON */
static cJSON *parse(const char *line)
{
    char *copy = strdup(line);
    cJSON *o = NULL;

    if (copy == NULL)
        return NULL;
    replace_words(copy);
    o = cJSON_ParseWithOpts(copy, NULL, 1);
    free(copy);
    if (o != NULL && cJSON_IsObject(o) &&
        dg_json_check_keys("line", o) == DG_OK)
        return o;
    cJSON_Delete(o);
    return NULL;
}

static int wanted(const char *what, const char *line)
{
    return dg_fail(DG_EFORMAT, "said \"%.*s%s\" where %s was wanted", SHOWN,
                   line, strlen(line) > SHOWN ? "..." : "", what);
}

static int wanted_answer(const char *line, int64_t id)
{
    char what[128];

    snprintf(what, sizeof what,
             "{\"id\": %lld, \"score\": NUMBER} or {\"id\": %lld, \"missing\": "
             "\"WHY\"}",
             (long long)id, (long long)id);
    return wanted(what, line);
}

/* NAN where there is none; 0: it is neither 0 nor 1 */
static int read_strict(float *strict, const cJSON *v)
{
    if (v == NULL || cJSON_IsNull(v))
        return 1;
    *strict = cJSON_IsTrue(v) || (cJSON_IsNumber(v) && v->valuedouble == 1);
    return *strict > 0 || cJSON_IsFalse(v) ||
           (cJSON_IsNumber(v) && v->valuedouble == 0);
}

static void take_reason(const char *why)
{
    char text[241];

    snprintf(text, sizeof text, "%s", why);
    dg_legible_line(text); /* it stands in logs and in files */
    dg_fail(DG_ENOSCORE, "says: %s", text);
}

static AnswerKind read_object(RewardScore *out, const cJSON *o,
                              const char *line, int64_t id)
{
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(o, "id");
    const cJSON *why = cJSON_GetObjectItemCaseSensitive(o, "missing");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(o, "score");
    const cJSON *strict = cJSON_GetObjectItemCaseSensitive(o, "strict");

    if (!cJSON_IsNumber(own) || own->valuedouble != (double)id) {
        wanted_answer(line, id);
        return DG_ANSWER_BROKEN;
    }
    if (cJSON_IsString(why) && value == NULL) {
        take_reason(why->valuestring);
        return DG_ANSWER_MISSING;
    }
    if (why != NULL || !cJSON_IsNumber(value)) {
        wanted_answer(line, id);
        return DG_ANSWER_MISSING;
    }
    if (!read_strict(&out->strict, strict)) {
        wanted("\"strict\": 0 or 1", line);
        return DG_ANSWER_MISSING;
    }
    out->value = (float)value->valuedouble;
    return DG_ANSWER_SCORE;
}

AnswerKind dg_answer_read(RewardScore *out, const char *line, int64_t id)
{
    cJSON *o = parse(line);
    AnswerKind kind = DG_ANSWER_BROKEN;

    if (o != NULL)
        kind = read_object(out, o, line, id);
    else
        wanted_answer(line, id);
    cJSON_Delete(o);
    return kind;
}

/* Texts are UTF-8 there: a program may say anything, and a long one is cut
 * anywhere. */
static void take_version(char version[DG_VERSION_BYTES], const char *text)
{
    snprintf(version, DG_VERSION_BYTES, "%s", text);
    dg_legible_line(version);
}

int dg_answer_hello(char version[DG_VERSION_BYTES], const char *line)
{
    cJSON *o = parse(line);
    const cJSON *protocol = cJSON_GetObjectItemCaseSensitive(o, "protocol");
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(o, "version");
    int err = DG_OK;

    if (!cJSON_IsNumber(protocol) || protocol->valuedouble != DG_PROTOCOL ||
        (text != NULL && !cJSON_IsString(text)))
        err = wanted("{\"protocol\": 1} or {\"protocol\": 1, \"version\": "
                     "\"TEXT\"} in its first line",
                     line);
    else
        take_version(version, text != NULL ? text->valuestring : "");
    cJSON_Delete(o);
    return err;
}
