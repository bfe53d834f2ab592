#define _GNU_SOURCE /* asprintf */
#include "weights/snapshot.h"

#include "base/error.h"
#include "base/in_file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char index_end[] = ".index.json";

/* Names a folder's weights may have, in the order in which they are looked
 * for; VARIANT is put in where the libraries put it. */
static const struct {
    const char *stem, *type;
    int index;
} candidates[] = {
    { "diffusion_pytorch_model", "safetensors", 0 },
    { "model", "safetensors", 0 },
    { "diffusion_pytorch_model", "safetensors", 1 },
    { "model", "safetensors", 1 },
    { "diffusion_pytorch_model", "bin", 0 },
    { "pytorch_model", "bin", 0 },
    { "diffusion_pytorch_model", "bin", 1 },
    { "pytorch_model", "bin", 1 },
};
enum { NUM_CANDIDATES = sizeof candidates / sizeof *candidates };

static int ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);

    return n > m && strcmp(text + n - m, end) == 0;
}

static int is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* "folder/" and candidate c's name, to free. */
static char *candidate_path(const char *folder, int c, const char *variant)
{
    char *path = NULL;
    const char *dot = variant != NULL ? "." : "";
    const char *word = variant != NULL ? variant : "";
    int n;

    if (candidates[c].index)
        n = asprintf(&path, "%s/%s.%s.index%s%s.json", folder,
                     candidates[c].stem, candidates[c].type, dot, word);
    else
        n = asprintf(&path, "%s/%s%s%s.%s", folder, candidates[c].stem, dot,
                     word, candidates[c].type);
    return n < 0 ? NULL : path;
}

/* Shards -------------------------------------------------------------- */

static int check_shards(const char *path, const ShardIndex *x)
{
    for (int i = 0; i < x->num_files; i++)
        if (access(x->paths[i], R_OK) != 0)
            return dg_fail(DG_EIO, "%s: shard %s: cannot open: %s", path,
                           x->paths[i], strerror(errno));
    return DG_OK;
}

/* Every tensor is where the index says. */
static int check_places(const char *path, const ShardIndex *x,
                        const WeightSource *s)
{
    for (int64_t i = 0; i < x->num; i++)
        if (dg_weight_file_find(dg_source_file(s, x->files[i]), x->names[i]) <
            0)
            return dg_fail(DG_EFORMAT, "%s: tensor %s is not in %s", path,
                           x->names[i], x->paths[x->files[i]]);
    return DG_OK;
}

static int open_index(WeightSource **out, const char *label, const char *path)
{
    WeightSource *s = NULL;
    ShardIndex x;
    char *text;
    size_t num;
    int err = dg_in_read(path, &text, &num);

    if (err)
        return err;
    err = dg_snapshot_parse_index(&x, path, text, num);
    free(text);
    if (err)
        return err;
    err = check_shards(path, &x);
    if (!err)
        err = dg_source_open(&s, label, (const char *const *)x.paths,
                             x.num_files);
    if (!err) {
        err = check_places(path, &x, s);
        if (err)
            dg_source_close(s);
        else
            *out = s;
    }
    dg_snapshot_free_index(&x);
    return err;
}

/* Folders ------------------------------------------------------------- */

/* Weights of any variant in a folder: its first name, to free; else NULL. */
static char *any_weights(const char *folder)
{
    DIR *d = opendir(folder);
    char *found = NULL;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        /* adapters alone are no weights, but may be what is meant */
        int known = strncmp(e->d_name, "pytorch_lora_weights", 20) == 0 ||
                    strncmp(e->d_name, "adapter_model", 13) == 0;

        for (int c = 0; c < NUM_CANDIDATES; c++)
            known |= strncmp(e->d_name, candidates[c].stem,
                             strlen(candidates[c].stem)) == 0;
        if (!known || !(ends_with(e->d_name, ".safetensors") ||
                        ends_with(e->d_name, ".bin") ||
                        (strstr(e->d_name, ".index.") != NULL &&
                         ends_with(e->d_name, ".json"))))
            continue;
        if (found == NULL || strcmp(e->d_name, found) < 0) {
            free(found);
            found = strdup(e->d_name);
        }
    }
    if (d != NULL)
        closedir(d);
    return found;
}

static int no_weights(const char *folder, const char *variant)
{
    char *other = any_weights(folder);
    int err;

    if (other != NULL)
        err = dg_fail(DG_EIO,
                      "%s: no weights%s%s%s, but %s: which one to take must be "
                      "said (a variant, or the file itself)",
                      folder, variant ? " of variant \"" : " without a variant",
                      variant ? variant : "", variant ? "\"" : "", other);
    else
        err = dg_fail(DG_EIO,
                      "%s: no weights: looked for "
                      "diffusion_pytorch_model.safetensors, "
                      "model.safetensors, their .index.json, and .bin files",
                      folder);
    free(other);
    return err;
}

/* *there: whether a file has that name. A name that leads nowhere, as in a
 * snapshot that was copied out of its cache without what its links point to, is
 * an error: another file must not be taken in its place. */
static int look_for(int *there, const char *path)
{
    struct stat link;
    int why;

    *there = access(path, F_OK) == 0;
    if (*there)
        return DG_OK;
    why = errno;
    if (lstat(path, &link) != 0)
        return why == ENOENT ? DG_OK
                             : dg_fail(DG_EIO, "%s: cannot look for it: %s",
                                       path, strerror(why));
    return dg_fail(DG_EIO,
                   "%s: a link to what is not there (%s): a snapshot of a "
                   "cache is copied with its blobs, or with cp -L",
                   path, strerror(why));
}

static int open_folder(WeightSource **out, const char *folder,
                       const char *variant)
{
    for (int c = 0; c < NUM_CANDIDATES; c++) {
        char *path = candidate_path(folder, c, variant);
        const char *one = path;
        int err, there;

        if (path == NULL)
            return dg_fail(DG_ENOMEM, "%s: name of a file", folder);
        err = look_for(&there, path);
        if (!err && there)
            err = candidates[c].index ? open_index(out, folder, path)
                                      : dg_source_open(out, path, &one, 1);
        free(path);
        if (err || there)
            return err;
    }
    return no_weights(folder, variant);
}

int dg_snapshot_open(WeightSource **out, const char *path, const char *variant)
{
    if (is_folder(path))
        return open_folder(out, path, variant);
    if (ends_with(path, index_end) ||
        (strstr(path, ".index.") != NULL && ends_with(path, ".json")))
        return open_index(out, path, path);
    return dg_source_open(out, path, &path, 1);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(char ***names, int *num, const char *name)
{
    char **more = realloc(*names, (size_t)(*num + 1) * sizeof *more);

    if (more == NULL)
        return dg_fail(DG_ENOMEM, "names of components");
    *names = more;
    more[*num] = strdup(name);
    if (more[*num] == NULL)
        return dg_fail(DG_ENOMEM, "names of components");
    ++*num;
    return DG_OK;
}

int dg_snapshot_components(const char *folder, char ***names, int *num)
{
    DIR *d = opendir(folder);
    char **list = NULL;
    int n = 0, err = DG_OK;

    if (d == NULL)
        return dg_fail(DG_EIO, "%s: cannot open: %s", folder, strerror(errno));
    for (struct dirent *e; !err && (e = readdir(d)) != NULL;) {
        char *path = NULL, *weights = NULL;

        if (e->d_name[0] == '.')
            continue;
        if (asprintf(&path, "%s/%s", folder, e->d_name) < 0) {
            err = dg_fail(DG_ENOMEM, "%s: name of a component", folder);
            continue;
        }
        weights = is_folder(path) ? any_weights(path) : NULL;
        if (weights != NULL)
            err = add_name(&list, &n, e->d_name);
        free(weights);
        free(path);
    }
    closedir(d);
    if (err) {
        while (n > 0)
            free(list[--n]);
        free(list);
        return err;
    }
    if (n > 1)
        qsort(list, (size_t)n, sizeof *list, by_text);
    *names = list;
    *num = n;
    return DG_OK;
}

/* folder has no such component: says which it has. */
static int no_component(const char *folder, const char *component)
{
    char **names, text[256] = "";
    int num;
    int err = dg_snapshot_components(folder, &names, &num);

    if (err)
        return err;
    for (int i = 0; i < num; i++) {
        const size_t used = strlen(text);

        snprintf(text + used, sizeof text - used, "%s%s", i ? ", " : "",
                 names[i]);
        free(names[i]);
    }
    free(names);
    return dg_fail(DG_EIO, "%s: no component %s: it has %s", folder, component,
                   num ? text : "none with weights");
}

int dg_snapshot_open_component(WeightSource **out, const char *folder,
                               const char *component, const char *variant)
{
    char *path = NULL;
    int err;

    if (asprintf(&path, "%s/%s", folder, component) < 0)
        return dg_fail(DG_ENOMEM, "%s: name of a component", folder);
    if (is_folder(path))
        err = open_folder(out, path, variant);
    else
        err = no_component(folder, component);
    free(path);
    return err;
}
