/* NAME.index.json: in which of several files a tensor is. */
#include "weights/snapshot.h"

#include "base/error.h"
#include "mapped.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

/* A file of the index's own folder, nothing else. */
static int plain(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strlen(name) < 256;
}

static char *beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    const size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    char *both = malloc(folder + strlen(name) + 1);

    if (both != NULL) {
        memcpy(both, path, folder);
        memcpy(both + folder, name, strlen(name) + 1);
    }
    return both;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Paths of all entries, sorted, each once. */
static int list_files(ShardIndex *x, const char *path, const cJSON *map)
{
    const cJSON *v;
    int64_t num = 0, last = 0;

    cJSON_ArrayForEach(v, map)
    {
        x->paths[num] = beside(path, v->valuestring);
        if (x->paths[num++] == NULL)
            return dg_fail(DG_ENOMEM, "%s: names of files", path);
    }
    if (num > 1)
        qsort(x->paths, (size_t)num, sizeof *x->paths, by_text);
    for (int64_t i = 1; i < num; i++) {
        char *p = x->paths[i];

        x->paths[i] = NULL;
        if (strcmp(x->paths[last], p) == 0)
            free(p);
        else
            x->paths[++last] = p;
    }
    x->num_files = num > 0 ? (int)last + 1 : 0;
    return DG_OK;
}

static int list_names(ShardIndex *x, const char *path, const cJSON *map)
{
    const cJSON *v;

    cJSON_ArrayForEach(v, map)
    {
        char *file = beside(path, v->valuestring), **at = NULL;

        if (file != NULL)
            at = bsearch(&file, x->paths, (size_t)x->num_files,
                         sizeof *x->paths, by_text);
        free(file);
        x->names[x->num] = strdup(v->string);
        if (at == NULL || x->names[x->num] == NULL)
            return dg_fail(DG_ENOMEM, "%s: names of tensors", path);
        x->files[x->num++] = (int)(at - x->paths);
    }
    return DG_OK;
}

static int read_map(ShardIndex *x, const char *path, const cJSON *map)
{
    const cJSON *v;
    size_t room;
    int err;

    if (!cJSON_IsObject(map) || map->child == NULL)
        return dg_fail(DG_EFORMAT, "%s: not an index of shards: no weight_map",
                       path);
    cJSON_ArrayForEach(v, map)
    {
        if (!cJSON_IsString(v) || !plain(v->valuestring))
            return dg_fail(DG_EFORMAT,
                           "%s: weight_map: tensor %.200s: must name a file of "
                           "the folder",
                           path, v->string);
    }
    room = (size_t)cJSON_GetArraySize(map) + 1;
    x->names = calloc(room, sizeof *x->names);
    x->files = calloc(room, sizeof *x->files);
    x->paths = calloc(room, sizeof *x->paths);
    if (x->names == NULL || x->files == NULL || x->paths == NULL)
        return dg_fail(DG_ENOMEM, "%s: %zu entries", path, room);
    err = list_files(x, path, map);
    return err ? err : list_names(x, path, map);
}

int dg_snapshot_parse_index(ShardIndex *out, const char *path, const char *text,
                            size_t bytes)
{
    ShardIndex x = { 0 };
    cJSON *json = bytes > 0 ? cJSON_ParseWithLength(text, bytes) : NULL;
    int err = DG_OK;

    if (!cJSON_IsObject(json))
        err = dg_fail(DG_EFORMAT, "%s: not an index of shards: no JSON", path);
    else
        err = read_map(&x, path,
                       cJSON_GetObjectItemCaseSensitive(json, "weight_map"));
    cJSON_Delete(json);
    if (err)
        dg_snapshot_free_index(&x);
    else
        *out = x;
    return err;
}

void dg_snapshot_free_index(ShardIndex *x)
{
    for (int64_t i = 0; x->names != NULL && i < x->num; i++)
        free(x->names[i]);
    for (int64_t i = 0; x->paths != NULL && x->paths[i] != NULL; i++)
        free(x->paths[i]);
    free(x->names);
    free(x->files);
    free(x->paths);
    *x = (ShardIndex) { 0 };
}
