#include "h5_internal.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 16 };

/* Names are collected first, so that a visitor may open what it likes. */
typedef struct Names {
    char **name;
    size_t num, room;
    int failed;
} Names;

static void keep_name(Names *n, const char *name)
{
    if (n->num == n->room) {
        const size_t room = n->room ? 2 * n->room : 64;
        char **more = realloc(n->name, room * sizeof *more);

        if (more == NULL) {
            n->failed = 1;
            return;
        }
        n->name = more;
        n->room = room;
    }
    n->name[n->num] = strdup(name);
    if (n->name[n->num] == NULL)
        n->failed = 1;
    else
        n->num++;
}

static void free_names(Names *n)
{
    for (size_t i = 0; i < n->num; i++)
        free(n->name[i]);
    free(n->name);
}

/* A group's end comes before all that a name may go on with. */
static int rank_of(char c)
{
    return c == '\0' ? 0 : c == '/' ? 1 : 2 + (unsigned char)c;
}

/* By name, group by group: what is in "a" before "a-b". */
static int by_name(const void *a, const void *b)
{
    const char *p = *(const char *const *)a, *q = *(const char *const *)b;

    while (*p != '\0' && *p == *q)
        p++, q++;
    return rank_of(*p) - rank_of(*q);
}

/* HDF5 is asked for its own order: where it sorts, a damaged group's list that
 * it could not fill makes it free what it never had (1.10.8). */
static void sort_names(Names *n)
{
    if (n->num > 1)
        qsort(n->name, n->num, sizeof *n->name, by_name);
}

/* Names of a group's links; where they lead by name is not followed. */
static herr_t collect_link(hid_t id, const char *name, const H5L_info_t *info,
                           void *names)
{
    (void)id;
    if (info->type == H5L_TYPE_HARD)
        keep_name(names, name);
    return 0;
}

static herr_t collect_key(hid_t id, const char *name, const H5A_info_t *info,
                          void *names)
{
    (void)id;
    (void)info;
    keep_name(names, name);
    return 0;
}

/* Groups within groups, on their way to a list of datasets. */
typedef struct Walk {
    H5File *f;
    Names sets;
    int64_t links; /* so many more may be met */
} Walk;

static int walk_group(Walk *w, const char *group, int depth);

/* What a link of the group at path leads to; path has room for its name. */
static int walk_link(Walk *w, char path[DG_H5_NAME], const char *name,
                     int depth)
{
    const size_t used = strlen(path);
    H5O_info_t info;

    if (used + strlen(name) + 2 > DG_H5_NAME)
        return dg_fail(DG_EFORMAT,
                       "%s: %.60s/%.60s...: a name of more than %d "
                       "bytes",
                       w->f->path, path, name, DG_H5_NAME - 1);
    snprintf(path + used, DG_H5_NAME - used, "%s%s", used ? "/" : "", name);
    dg_h5_enter(w->f->path);
    if (dg_h5_leave(H5Oget_info_by_name2(w->f->id, path, &info, H5O_INFO_BASIC,
                                         H5P_DEFAULT)) < 0)
        return dg_h5_fail(DG_EFORMAT, w->f, path, "cannot be read");
    if (info.type == H5O_TYPE_DATASET)
        keep_name(&w->sets, path);
    return info.type == H5O_TYPE_GROUP ? walk_group(w, path, depth + 1) : DG_OK;
}

/*
 * HDF5's own way through a file takes time by the cube of its depth, and the
 * stack; ours is of few groups, and links that meet again end somewhere.
 */
static int walk_group(Walk *w, const char *group, int depth)
{
    char path[DG_H5_NAME];
    Names links = { 0 };
    int err = DG_OK;

    if (depth > MOST_DEPTH)
        return dg_fail(DG_EFORMAT,
                       "%s: %s: more than %d groups within each "
                       "other",
                       w->f->path, group, MOST_DEPTH);
    dg_h5_enter(w->f->path);
    if (dg_h5_leave(H5Literate_by_name(w->f->id, group[0] ? group : "/",
                                       H5_INDEX_NAME, H5_ITER_NATIVE, NULL,
                                       collect_link, &links, H5P_DEFAULT)) < 0)
        err = dg_h5_fail(DG_EFORMAT, w->f, group[0] ? group : NULL,
                         "cannot list the datasets");
    else if (links.failed)
        err = dg_fail(DG_ENOMEM, "%s: names of datasets", w->f->path);
    w->links -= (int64_t)links.num;
    if (!err && w->links < 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: %s: more links than the file has room "
                      "for",
                      w->f->path, group);
    for (size_t i = 0; i < links.num && !err; i++) {
        snprintf(path, sizeof path, "%s", group);
        err = walk_link(w, path, links.name[i], depth);
    }
    free_names(&links);
    return err;
}

int dg_h5_visit(H5File *f, H5Visit *visit, void *user)
{
    /* a link has an address of eight bytes at least */
    Walk w = { .f = f, .links = dg_h5_file_bytes(f) / 8 };
    int err = walk_group(&w, "", 0);

    if (!err && w.sets.failed)
        err = dg_fail(DG_ENOMEM, "%s: names of datasets", f->path);
    sort_names(&w.sets);
    for (size_t i = 0; i < w.sets.num && !err; i++)
        err = visit(f, w.sets.name[i], user);
    free_names(&w.sets);
    return err;
}

static int number_text(H5File *f, const char *object, const char *key,
                       char text[48])
{
    int64_t whole;
    double real;

    if (dg_h5_get_i64(f, object, key, &whole) == DG_OK)
        snprintf(text, 48, "%" PRId64, whole);
    else if (dg_h5_get_f64(f, object, key, &real) == DG_OK)
        snprintf(text, 48, "%.17g", real);
    else
        return dg_last_error()->code;
    return DG_OK;
}

static int visit_key(H5File *f, const char *object, const char *key,
                     H5VisitKey *visit, void *user)
{
    char number[48], *text = NULL;
    int err = number_text(f, object, key, number);

    if (!err)
        return visit(key, number, user);
    err = dg_h5_get_text(f, object, key, &text);
    if (!err)
        err = visit(key, text, user);
    free(text);
    return err;
}

int dg_h5_visit_keys(H5File *f, const char *object, H5VisitKey *visit,
                     void *user)
{
    Names names = { 0 };
    hsize_t at = 0;
    int err = DG_OK;

    dg_h5_enter(f->path);
    if (dg_h5_leave(H5Aiterate_by_name(f->id, object ? object : "/",
                                       H5_INDEX_NAME, H5_ITER_NATIVE, &at,
                                       collect_key, &names, H5P_DEFAULT)) < 0)
        err = dg_h5_fail(DG_EFORMAT, f, object, "cannot list the attributes");
    else if (names.failed)
        err = dg_fail(DG_ENOMEM, "%s: names of attributes", f->path);
    sort_names(&names);
    for (size_t i = 0; i < names.num && !err; i++)
        err = visit_key(f, object, names.name[i], visit, user);
    free_names(&names);
    return err;
}
