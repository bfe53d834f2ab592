#include "json_text.h"

#include <string.h>

#include "base/error.h"
#include "base/json_keys.h"
#include "unicode.h"

int dg_json_parse(cJSON **out, const char *name, const char *data, size_t size)
{
    const char *end = data;
    cJSON *parsed = cJSON_ParseWithLengthOpts(data, size, &end, 0);
    size_t at = (size_t)(end - data);
    int err;

    if (parsed == NULL)
        return dg_fail(DG_EFORMAT, "%s: malformed JSON near byte %zu of %zu",
                       name, at, size);
    while (at < size && strchr(" \t\r\n", data[at]) != NULL)
        at++;
    if (at < size) {
        cJSON_Delete(parsed);
        return dg_fail(DG_EFORMAT, "%s: more behind the JSON, at byte %zu",
                       name, at);
    }
    err = dg_json_check_keys(name, parsed);
    if (err)
        cJSON_Delete(parsed);
    else
        *out = parsed;
    return err;
}

const cJSON *dg_json_get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

const char *dg_json_string(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(dg_json_get(object, key));
}

int dg_json_flag(const cJSON *object, const char *key, int otherwise)
{
    const cJSON *flag = dg_json_get(object, key);

    return cJSON_IsBool(flag) ? cJSON_IsTrue(flag) : otherwise;
}

int dg_json_index(int32_t *out, const cJSON *item, int32_t limit)
{
    const double value = cJSON_IsNumber(item) ? item->valuedouble : -1;

    if (!(value >= 0 && value < limit) || value != (int32_t)value)
        return 0;
    *out = (int32_t)value;
    return 1;
}

const char *dg_json_token_text(const cJSON *token)
{
    if (cJSON_IsObject(token))
        return dg_json_string(token, "content");
    return cJSON_GetStringValue(token);
}

void dg_json_token_flags(AddedToken *out, const cJSON *token)
{
    out->single_word = dg_json_flag(token, "single_word", 0);
    out->lstrip = dg_json_flag(token, "lstrip", 0);
    out->rstrip = dg_json_flag(token, "rstrip", 0);
    out->normalized = dg_json_flag(token, "normalized", 0);
}

int dg_json_check_token(const char *name, const char *what, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return dg_fail(DG_EFORMAT, "%s: %s has no text", name, what);
    if (dg_unicode_valid(text, strlen(text)) != strlen(text))
        return dg_fail(DG_EFORMAT, "%s: %s is not UTF-8 (byte %zu of it)", name,
                       what, dg_unicode_valid(text, strlen(text)));
    return DG_OK;
}
