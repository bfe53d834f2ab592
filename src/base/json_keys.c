#include "base/json_keys.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static int by_key(const void *a, const void *b)
{
    const cJSON *v = *(const cJSON *const *)a, *w = *(const cJSON *const *)b;

    return strcmp(v->string, w->string);
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
            !cJSON_Compare(sorted[i - 1], sorted[i], 1))
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

    if (cJSON_IsObject(v) && v->child != NULL && v->child->next != NULL)
        err = check_object(path, v);
    if (!cJSON_IsObject(v) && !cJSON_IsArray(v))
        return DG_OK;
    cJSON_ArrayForEach(inner, v)
    {
        if (!err)
            err = dg_json_check_keys(path, inner);
    }
    return err;
}
