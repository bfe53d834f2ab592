#include "h5_internal.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static herr_t collect_set(hid_t id, const char *name, const H5O_info_t *info,
                          void *names)
{
    (void)id;
    if (info->type == H5O_TYPE_DATASET)
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

int dg_h5_visit(H5File *f, H5Visit *visit, void *user)
{
    Names names = { 0 };
    int err = DG_OK;

    if (H5Ovisit2(f->id, H5_INDEX_NAME, H5_ITER_NATIVE, collect_set, &names,
                  H5O_INFO_BASIC) < 0)
        err = dg_h5_fail(DG_EFORMAT, f, NULL, "cannot list the datasets");
    else if (names.failed)
        err = dg_fail(DG_ENOMEM, "%s: names of datasets", f->path);
    sort_names(&names);
    for (size_t i = 0; i < names.num && !err; i++)
        err = visit(f, names.name[i], user);
    free_names(&names);
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

    if (H5Aiterate_by_name(f->id, object ? object : "/", H5_INDEX_NAME,
                           H5_ITER_NATIVE, &at, collect_key, &names,
                           H5P_DEFAULT) < 0)
        err = dg_h5_fail(DG_EFORMAT, f, object, "cannot list the attributes");
    else if (names.failed)
        err = dg_fail(DG_ENOMEM, "%s: names of attributes", f->path);
    sort_names(&names);
    for (size_t i = 0; i < names.num && !err; i++)
        err = visit_key(f, object, names.name[i], visit, user);
    free_names(&names);
    return err;
}
