#include "run.h"

#include "base/crc32.h"
#include "base/error.h"
#include "store/file.h"
#include "store/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cjson/cJSON.h>

enum { PATH = DG_RUNDIR_PATH + 64 };

/* Beyond these no value is a measurement, and drawing would overflow. */
static const double largest = 1e100, least = 1e-100;

double dg_json_value(const cJSON *v)
{
    const double x = cJSON_IsNumber(v) ? v->valuedouble : NAN;

    if (!(fabs(x) <= largest))
        return NAN;
    return fabs(x) < least ? 0 : x;
}

double dg_json_number(const cJSON *object, const char *key)
{
    return dg_json_value(cJSON_GetObjectItemCaseSensitive(object, key));
}

Span dg_json_span(const cJSON *object, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);

    if (cJSON_IsNumber(v))
        return (Span) { dg_json_value(v), NAN, NAN };
    return (Span) { dg_json_number(v, "mean"), dg_json_number(v, "low"),
                    dg_json_number(v, "high") };
}

static EvalRow eval_row(const cJSON *object)
{
    const cJSON *task = cJSON_GetObjectItemCaseSensitive(object, "task");
    EvalRow row = {
        .pictures = dg_json_number(object, "pictures"),
        .reward = dg_json_span(object, "reward"),
        .strict = dg_json_span(object, "strict"),
    };

    snprintf(row.task, sizeof row.task, "%s",
             cJSON_IsString(task) ? task->valuestring : "?");
    return row;
}

static int missing(const char *path)
{
    return access(path, F_OK) != 0 && errno == ENOENT;
}

/* *out NULL: there is no such file. */
static int read_json(cJSON **out, const char *path)
{
    char *text;
    size_t bytes;
    int err;

    *out = NULL;
    if (missing(path))
        return DG_OK;
    err = dg_file_read(path, &text, &bytes);
    if (err)
        return err;
    *out = strlen(text) == bytes ? cJSON_ParseWithOpts(text, NULL, 1) : NULL;
    free(text);
    if (!cJSON_IsObject(*out)) {
        cJSON_Delete(*out);
        return dg_fail(DG_EFORMAT, "%s: not a JSON object", path);
    }
    return DG_OK;
}

int dg_run_read_evaluation(EvalFile *out, const char *path)
{
    cJSON *root;
    const cJSON *all, *task;
    int err = read_json(&root, path);

    if (err || root == NULL)
        return err;
    all = cJSON_GetObjectItemCaseSensitive(root, "all");
    if (!cJSON_IsObject(all)) {
        err = dg_fail(DG_EFORMAT, "%s: no object \"all\"", path);
        goto delete_root;
    }
    out->present = 1;
    out->prompts = dg_json_number(root, "prompts");
    out->seeds = dg_json_number(root, "seeds");
    out->missing = dg_json_number(root, "missing");
    out->all = eval_row(all);
    out->sum = dg_json_span(root, "sum");
    out->mean_of_tasks =
        eval_row(cJSON_GetObjectItemCaseSensitive(root, "mean_of_tasks"));
    cJSON_ArrayForEach(task, cJSON_GetObjectItemCaseSensitive(root, "tasks"))
    {
        if (out->num_tasks < DG_RUN_TASKS)
            out->task[out->num_tasks++] = eval_row(task);
    }
delete_root:
    cJSON_Delete(root);
    return err;
}

/* --- pictures ---------------------------------------------------------- */

static int strip_number(const char *name, int64_t *iteration)
{
    long long value;
    int end = 0;

    if (sscanf(name, "iter_%lld.png%n", &value, &end) != 1 || end == 0 ||
        name[end] != '\0')
        return 0;
    *iteration = value;
    return 1;
}

static int by_iteration(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Numbers of the strips in a folder, sorted; none when there is no folder. */
static int list_strips(const char *folder, int64_t **out, size_t *num)
{
    DIR *dir = opendir(folder);
    const struct dirent *e;
    int64_t *list = NULL, iteration;
    size_t n = 0, cap = 0;

    *out = NULL;
    *num = 0;
    if (dir == NULL)
        return errno == ENOENT
                   ? DG_OK
                   : dg_fail(DG_EIO, "%s: %s", folder, strerror(errno));
    while ((e = readdir(dir)) != NULL) {
        if (!strip_number(e->d_name, &iteration))
            continue;
        if (n == cap) {
            cap = cap > 0 ? 2 * cap : 64;
            int64_t *more = realloc(list, cap * sizeof *list);
            if (more == NULL) {
                free(list);
                closedir(dir);
                return dg_fail(DG_ENOMEM, "%s: list of pictures", folder);
            }
            list = more;
        }
        list[n++] = iteration;
    }
    closedir(dir);
    if (n > 0)
        qsort(list, n, sizeof *list, by_iteration);
    *out = list;
    *num = n;
    return DG_OK;
}

static int64_t big_endian(const char *at)
{
    const unsigned char *b = (const unsigned char *)at;

    return (int64_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

/* Chunks to its end, each with its length, name and checksum: a page that shows
 * a damaged picture says nothing of it. */
static int whole_png(const char *png, size_t bytes)
{
    size_t at = 8, length = 0;

    while (bytes - at >= 12) {
        length = (size_t)big_endian(png + at);
        if (length > bytes - at - 12 ||
            dg_crc32(0, png + at + 4, length + 4) !=
                (uint32_t)big_endian(png + at + 8 + length))
            return 0;
        at += length + 12;
    }
    return at == bytes && memcmp(png + at - length - 8, "IEND", 4) == 0;
}

static int read_strip(Strip *s, const char *path, const Run *run)
{
    static const char magic[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const int err = dg_file_read(path, &s->png, &s->bytes);
    int64_t tile;

    if (err)
        return err;
    if (s->bytes < 45 || memcmp(s->png, magic, 16) != 0 ||
        !whole_png(s->png, s->bytes))
        return dg_fail(DG_EFORMAT, "%s: not a whole PNG file", path);
    s->width = big_endian(s->png + 16);
    s->height = big_endian(s->png + 20);
    tile = s->height;
    if (run->tile_height > 0 && s->height == run->tile_height)
        tile = run->tile_width;
    if (s->height < 1 || s->width < tile || s->width % tile != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: %lld x %lld pixels: must be a row of pictures of "
                       "%lld x %lld",
                       path, (long long)s->width, (long long)s->height,
                       (long long)tile, (long long)s->height);
    s->num = s->width / tile;
    return DG_OK;
}

/* A whole number of pixels; 0: not there, or not one. */
static int64_t read_side(const cJSON *root, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(root, key);

    return cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= 16384
               ? (int64_t)v->valuedouble
               : 0;
}

static int read_captions(Run *run, const char *path)
{
    cJSON *root;
    const cJSON *prompts, *one;
    int err = read_json(&root, path);

    if (err || root == NULL)
        return err;
    run->tile_width = read_side(root, "width");
    run->tile_height = read_side(root, "height");
    if (run->tile_width == 0)
        run->tile_height = 0;
    prompts = cJSON_GetObjectItemCaseSensitive(root, "prompts");
    run->caption =
        calloc((size_t)cJSON_GetArraySize(prompts) + 1, sizeof *run->caption);
    if (run->caption == NULL)
        err = dg_fail(DG_ENOMEM, "captions of the pictures");
    cJSON_ArrayForEach(one, prompts)
    {
        if (err)
            break;
        char *text = strdup(cJSON_IsString(one) ? one->valuestring : "");
        if (text == NULL)
            err = dg_fail(DG_ENOMEM, "captions of the pictures");
        else
            run->caption[run->num_captions++] = text;
    }
    cJSON_Delete(root);
    return err;
}

/* The first, the last, and others evenly between. */
static int read_pictures(Run *run)
{
    char folder[PATH], path[PATH + 32];
    int64_t *list;
    size_t num;
    int err;

    snprintf(folder, sizeof folder, "%s/pictures", run->dir);
    snprintf(path, sizeof path, "%s/prompts.json", folder);
    err = read_captions(run, path);
    if (!err)
        err = list_strips(folder, &list, &num);
    if (err)
        return err;
    const size_t keep = num < DG_RUN_STRIPS ? num : DG_RUN_STRIPS;
    run->all_strips = (int)num;
    for (size_t i = 0; i < keep && !err; i++) {
        const size_t at = keep > 1 ? i * (num - 1) / (keep - 1) : 0;
        Strip *s = &run->strip[run->num_strips++];

        s->iteration = list[at];
        snprintf(path, sizeof path, "%s/iter_%06lld.png", folder,
                 (long long)list[at]);
        err = read_strip(s, path, run);
    }
    free(list);
    return err;
}

/* --- the folder -------------------------------------------------------- */

static int read_config(Run *run, const char *path)
{
    size_t bytes;
    int err;

    if (missing(path))
        return DG_OK;
    err = dg_file_read(path, &run->config_text, &bytes);
    if (err)
        return err;
    /* Another version's keys are no reason to refuse a report. */
    dg_config_defaults(&run->config);
    run->config_known =
        dg_config_parse(&run->config, run->config_text, path) == DG_OK;
    if (!run->config_known)
        dg_clear_error();
    return DG_OK;
}

int dg_run_has(const Run *run, Column c)
{
    for (int64_t i = 0; i < run->n; i++)
        if (isfinite(run->col[c][i]))
            return 1;
    return 0;
}

static int check_folder(const char *dir)
{
    struct stat st;

    if (strlen(dir) >= DG_RUNDIR_PATH)
        return dg_fail(DG_EINVAL, "run folder: a name of %zu bytes: at most %d",
                       strlen(dir), DG_RUNDIR_PATH - 1);
    if (stat(dir, &st) != 0)
        return dg_fail(DG_EIO, "run folder %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return dg_fail(DG_EIO, "run folder %s: not a folder", dir);
    return DG_OK;
}

static void take_point(EvalFile *out, const EvalPoint *p)
{
    *out = (EvalFile) { .present = 1,
                        .prompts = p->prompts,
                        .seeds = p->pictures / p->prompts,
                        .missing = p->missing,
                        .sum = p->reward,
                        .all = { .pictures = p->pictures,
                                 .reward = p->reward,
                                 .strict = p->strict } };
    out->mean_of_tasks.reward.mean = out->mean_of_tasks.strict.mean = NAN;
}

/* Files from before evaluations told the sum have the first reward alone: then
 * both are told by it. */
static void settle_sums(Run *run)
{
    const int lacks = (run->before.present && isnan(run->before.sum.mean)) ||
                      (run->after.present && isnan(run->after.sum.mean));

    if (!lacks)
        return;
    run->before.sum = run->before.all.reward;
    run->after.sum = run->after.all.reward;
}

/* Where nobody evaluated by hand: the first of those that training made, if that
 * is the base, and the last. */
static void take_ends(Run *run)
{
    const int64_t last = run->num_points - 1;

    if (!run->tuned || last < 0 || run->before.present || run->after.present)
        return;
    take_point(&run->after, &run->point[last]);
    if (last > 0 && run->point[0].iteration == 0)
        take_point(&run->before, &run->point[0]);
}

int dg_run_read(Run *run, const char *dir)
{
    char path[PATH];
    int err;

    memset(run, 0, sizeof *run);
    run->dir = dir;
    err = check_folder(dir);
    if (err)
        return err;
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    if (missing(path))
        return dg_fail(DG_EIO, "%s: no such file: is this the folder of a run?",
                       path);
    err = dg_run_read_metrics(run, path);
    if (!err && run->n == 0)
        err = dg_fail(DG_EFORMAT, "%s: no iteration in it yet", path);
    snprintf(path, sizeof path, "%s/config.cfg", dir);
    if (!err)
        err = read_config(run, path);
    snprintf(path, sizeof path, "%s/evaluation_before.json", dir);
    if (!err)
        err = dg_run_read_evaluation(&run->before, path);
    snprintf(path, sizeof path, "%s/evaluation_after.json", dir);
    if (!err)
        err = dg_run_read_evaluation(&run->after, path);
    settle_sums(run);
    if (!err)
        take_ends(run);
    return err ? err : read_pictures(run);
}

void dg_run_release(Run *run)
{
    for (int k = 0; k < NUM_COLUMNS; k++)
        free(run->col[k]);
    for (int k = 0; k < DG_RUN_REWARDS; k++)
        free(run->reward[k]);
    for (int i = 0; i < run->num_strips; i++)
        free(run->strip[i].png);
    for (int i = 0; i < run->num_captions; i++)
        free(run->caption[i]);
    free(run->caption);
    free(run->point);
    free(run->config_text);
}
