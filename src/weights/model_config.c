#include "weights/model_config.h"

#include "base/error.h"
#include "base/in_file.h"
#include "base/json_keys.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

struct ModelConfig {
    char *path;
    cJSON *root;
};

/* Doubles hold integers exactly up to here. */
#define MOST 0x1p53

int dg_model_config_parse(ModelConfig **out, const char *path, const char *text,
                          size_t bytes)
{
    ModelConfig *c = calloc(1, sizeof *c);
    const char *end = NULL;
    int err = DG_OK;

    if (c == NULL)
        return dg_fail(DG_ENOMEM, "%s: its content", path);
    c->path = strdup(path);
    if (c->path == NULL)
        err = dg_fail(DG_ENOMEM, "%s: its content", path);
    else if (bytes > 0)
        c->root = cJSON_ParseWithLengthOpts(text, bytes, &end, 0);
    while (c->root != NULL && end < text + bytes &&
           strchr(" \t\r\n", *end) != NULL && *end != '\0')
        end++;
    if (!err && (!cJSON_IsObject(c->root) || end != text + bytes))
        err = dg_fail(DG_EFORMAT, "%s: not a JSON object", path);
    if (!err)
        err = dg_json_check_keys(path, c->root);
    if (err)
        dg_model_config_close(c);
    else
        *out = c;
    return err;
}

int dg_model_config_open(ModelConfig **out, const char *path)
{
    char *text;
    size_t num;
    int err = dg_in_read(path, &text, &num);

    if (err)
        return err;
    err = dg_model_config_parse(out, path, text, num);
    free(text);
    return err;
}

void dg_model_config_close(ModelConfig *c)
{
    if (c == NULL)
        return;
    cJSON_Delete(c->root);
    free(c->path);
    free(c);
}

const char *dg_model_config_key(const ModelConfig *c, int i)
{
    const cJSON *entry = cJSON_GetArrayItem(c->root, i);

    return entry != NULL ? entry->string : NULL;
}

/* The key itself, or the path its dots mean; NULL if missing. */
static const cJSON *find(const ModelConfig *c, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(c->root, key);
    const cJSON *at = c->root;
    char part[128];

    while (v == NULL && at != NULL && *key != '\0') {
        const size_t n = strcspn(key, ".");

        if (n >= sizeof part)
            return NULL;
        memcpy(part, key, n);
        part[n] = '\0';
        at = cJSON_GetObjectItemCaseSensitive(at, part);
        key += n + (key[n] == '.');
    }
    v = v != NULL ? v : at;
    return cJSON_IsNull(v) ? NULL : v;
}

int dg_model_config_has(const ModelConfig *c, const char *key)
{
    return find(c, key) != NULL;
}

/* The value of a key that must be there. */
static int need(const ModelConfig *c, const char *key, const cJSON **out)
{
    *out = find(c, key);
    if (*out == NULL)
        return dg_fail(DG_EFORMAT, "%s: key %s is missing", c->path, key);
    return DG_OK;
}

static int bad(const ModelConfig *c, const char *key, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: %s: must be %s", c->path, key, what);
}

static int whole(const cJSON *v)
{
    return cJSON_IsNumber(v) && fabs(v->valuedouble) <= MOST &&
           v->valuedouble == floor(v->valuedouble);
}

int dg_model_config_int(const ModelConfig *c, const char *key, int64_t least,
                        int64_t most, int64_t *out)
{
    const cJSON *v;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!whole(v))
        return bad(c, key, "a whole number");
    if (v->valuedouble < (double)least || v->valuedouble > (double)most)
        return dg_fail(DG_EFORMAT,
                       "%s: %s = %.0f: must be in [%" PRId64 ", %" PRId64 "]",
                       c->path, key, v->valuedouble, least, most);
    *out = (int64_t)v->valuedouble;
    return DG_OK;
}

int dg_model_config_real(const ModelConfig *c, const char *key, double *out)
{
    const cJSON *v;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return bad(c, key, "a number");
    *out = v->valuedouble;
    return DG_OK;
}

int dg_model_config_bool(const ModelConfig *c, const char *key, int *out)
{
    const cJSON *v;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!cJSON_IsBool(v))
        return bad(c, key, "true or false");
    *out = cJSON_IsTrue(v);
    return DG_OK;
}

int dg_model_config_text(const ModelConfig *c, const char *key,
                         const char **out)
{
    const cJSON *v;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!cJSON_IsString(v))
        return bad(c, key, "a text");
    *out = v->valuestring;
    return DG_OK;
}

int dg_model_config_ints(const ModelConfig *c, const char *key, int64_t *out,
                         int most, int *num)
{
    const cJSON *v, *item;
    int n = 0;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!cJSON_IsArray(v))
        return bad(c, key, "a list of whole numbers");
    if (cJSON_GetArraySize(v) > most)
        return dg_fail(DG_EFORMAT, "%s: %s: has %d numbers, at most %d",
                       c->path, key, cJSON_GetArraySize(v), most);
    cJSON_ArrayForEach(item, v)
    {
        if (!whole(item))
            return bad(c, key, "a list of whole numbers");
    }
    cJSON_ArrayForEach(item, v)
    {
        out[n++] = (int64_t)item->valuedouble;
    }
    *num = n;
    return DG_OK;
}

int dg_model_config_reals(const ModelConfig *c, const char *key, double *out,
                          int num)
{
    const cJSON *v, *item;
    int n = 0;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != num)
        return dg_fail(DG_EFORMAT, "%s: %s: must be a list of %d numbers",
                       c->path, key, num);
    cJSON_ArrayForEach(item, v)
    {
        if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
            return dg_fail(DG_EFORMAT, "%s: %s: must be a list of %d numbers",
                           c->path, key, num);
    }
    cJSON_ArrayForEach(item, v)
    {
        out[n++] = item->valuedouble;
    }
    return DG_OK;
}

int dg_model_config_num_texts(const ModelConfig *c, const char *key, int *num)
{
    const cJSON *v, *item;
    const int err = need(c, key, &v);

    if (err)
        return err;
    if (!cJSON_IsArray(v))
        return bad(c, key, "a list of texts");
    cJSON_ArrayForEach(item, v)
    {
        if (!cJSON_IsString(item))
            return bad(c, key, "a list of texts");
    }
    *num = cJSON_GetArraySize(v);
    return DG_OK;
}

int dg_model_config_text_at(const ModelConfig *c, const char *key, int i,
                            const char **out)
{
    const cJSON *v;
    int num = 0;
    int err = dg_model_config_num_texts(c, key, &num);

    if (!err)
        err = need(c, key, &v);
    if (!err && (i < 0 || i >= num))
        err =
            dg_fail(DG_EFORMAT, "%s: %s: text %d of %d", c->path, key, i, num);
    if (!err)
        *out = cJSON_GetArrayItem(v, i)->valuestring;
    return err;
}
