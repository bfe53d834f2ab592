#include "base/json_keys.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static int by_key(const void *a, const void *b)
{
    const cJSON *v = *(const cJSON *const *)a, *w = *(const cJSON *const *)b;

    return strcmp(v->string, w->string);
}

static int same_value(const cJSON *v, const cJSON *w);

/* Whether what v has, w has too; keys may stand there twice, with equal values.
 * deep: and it is the same. */
static int has_all(const cJSON *v, const cJSON *w, int deep)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, v)
    {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(w, item->string);

        if (other == NULL || (deep && !same_value(item, other)))
            return 0;
    }
    return 1;
}

/* As cJSON_Compare() has it, which looks at what is in an object twice, and so
 * 2^n times at what is n deep: a line of 600 bytes could be compared for ever. */
static int same_value(const cJSON *v, const cJSON *w)
{
    if (cJSON_IsObject(v) && cJSON_IsObject(w))
        return has_all(v, w, 1) && has_all(w, v, 0);
    if (!cJSON_IsArray(v) || !cJSON_IsArray(w))
        return cJSON_Compare(v, w, 1);
    for (v = v->child, w = w->child; v != NULL && w != NULL;
         v = v->next, w = w->next)
        if (!same_value(v, w))
            return 0;
    return v == w; /* both ended */
}

static int check_object(const char *path, const cJSON *object)
{
    const size_t num = (size_t)cJSON_GetArraySize(object);
    const cJSON **sorted = malloc((num + 1) * sizeof *sorted), *v;
    size_t n = 0;
    int err = DG_OK;

    if (sorted == NULL)
        return dg_fail(DG_ENOMEM, "%s: %zu keys", path, num);
    cJSON_ArrayForEach(v, object)
    {
        sorted[n++] = v;
    }
    qsort(sorted, num, sizeof *sorted, by_key);
    for (size_t i = 1; i < num && !err; i++)
        if (by_key(&sorted[i - 1], &sorted[i]) == 0 &&
            !same_value(sorted[i - 1], sorted[i]))
            err = dg_fail(DG_EFORMAT,
                          "%s: key %.200s is there twice, with two values",
                          path, sorted[i]->string);
    free(sorted);
    return err;
}

int dg_json_check_keys(const char *path, const cJSON *v)
{
    const cJSON *inner;
    int err = DG_OK;

    if (!cJSON_IsObject(v) && !cJSON_IsArray(v))
        return DG_OK;
    cJSON_ArrayForEach(inner, v)
    {
        if (!err)
            err = dg_json_check_keys(path, inner);
    }
    if (!err && cJSON_IsObject(v) && v->child != NULL && v->child->next != NULL)
        err = check_object(path, v); /* what is in it has been looked through */
    return err;
}
