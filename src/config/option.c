#include "config/option.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 64 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b. */
static int edit_distance(const char *a, const char *b)
{
    const int n = (int)strlen(a), m = (int)strlen(b);
    int d[KEY_BYTES + 1][KEY_BYTES + 1];

    if (n > KEY_BYTES || m > KEY_BYTES)
        return KEY_BYTES;
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            const int same = a[i - 1] == b[j - 1];

            d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1,
                            d[i - 1][j - 1] + !same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[n][m];
}

const char *dg_nearest_name(const char *name, const char *const *names, int num)
{
    const char *best = NULL;
    int best_distance = least((int)strlen(name) / 3 + 2, 4);

    for (int i = 0; i < num; i++) {
        const int distance = edit_distance(name, names[i]);

        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

static const char *last_name(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot != NULL ? dot + 1 : key;
}

const char *dg_option_nearest(const char *key)
{
    const char *best = NULL;
    int num, best_distance = least((int)strlen(key) / 3 + 1, 5) * 2;
    const Option *rows = dg_option_table(&num);

    for (int i = 0; i < num; i++) {
        const char *row_name = last_name(rows[i].key);
        /* part of the right name: clip for clip_range */
        const int part =
            strncmp(row_name, last_name(key), strlen(last_name(key))) == 0
                ? 6
                : 2 * KEY_BYTES;
        /* the right name in the wrong group costs a typing error and a half */
        const int whole = 2 * edit_distance(key, rows[i].key);
        const int name = 2 * edit_distance(last_name(key), row_name) + 3;
        const int distance = least(part, least(whole, name));

        if (distance < best_distance) {
            best_distance = distance;
            best = rows[i].key;
        }
    }
    return best;
}

int dg_option_is_group(const char *key)
{
    const size_t length = strlen(key);
    int num;
    const Option *rows = dg_option_table(&num);

    for (int i = 0; i < num; i++)
        if (strncmp(rows[i].key, key, length) == 0 &&
            rows[i].key[length] == '.')
            return 1;
    return 0;
}

const Option *dg_option_lookup(const char *key)
{
    int num;
    const Option *rows = dg_option_table(&num);

    for (int i = 0; i < num; i++)
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

/* What there is instead: the keys of its group, or else the groups. */
static void fail_unknown(const char *key)
{
    const int length = (int)strcspn(key, ".["), sub = key[length] != '\0';
    char list[768] = "", group[KEY_BYTES] = "";
    size_t at = 0;
    int num, known;
    const Option *rows = dg_option_table(&num);

    snprintf(group, sizeof group, "%.*s", length, key);
    known = sub && dg_option_is_group(group);
    for (int i = 0; i < num && at < sizeof list; i++) {
        const int n = (int)strcspn(rows[i].key, ".");
        const int same = n == length && strncmp(rows[i].key, key, n) == 0;

        if (known && same)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s",
                                   at > 0 ? ", " : "", rows[i].key + n + 1);
        else if (!known &&
                 (i == 0 || strncmp(rows[i].key, rows[i - 1].key, n + 1) != 0))
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%.*s",
                                   at > 0 ? ", " : "", n, rows[i].key);
    }
    if (known)
        dg_fail(DG_EINVAL, "unknown key '%s'; %s has %s", key, group, list);
    else
        dg_fail(DG_EINVAL, "unknown key '%s'; groups of keys are %s", key,
                list);
}

/* rewards[0].weight, rewards.weight: a list has no keys of its own. */
static int is_inside_list(const char *key)
{
    char name[KEY_BYTES];
    const Option *o;
    const size_t length = strcspn(key, ".[");

    if (key[length] == '\0' || length >= sizeof name)
        return 0;
    memcpy(name, key, length);
    name[length] = '\0';
    o = dg_option_lookup(name);
    if (o == NULL || o->type != OPT_LIST)
        return 0;
    dg_fail(DG_EINVAL,
            "'%s': %s are set as a whole, like '%s=({ name = \"shapes\"; "
            "weight = 0.5; })'",
            key, name, name);
    return 1;
}

const Option *dg_option_find(const char *key)
{
    const Option *found = dg_option_lookup(key);

    if (found != NULL)
        return found;
    if (dg_option_is_group(key)) {
        dg_fail(DG_EINVAL, "'%s' is a group of keys, not a key", key);
        return NULL;
    }
    if (is_inside_list(key))
        return NULL;
    const char *near = dg_option_nearest(key);

    if (near != NULL)
        dg_fail(DG_EINVAL, "unknown key '%s', did you mean '%s'?", key, near);
    else
        fail_unknown(key);
    return NULL;
}

void *dg_option_field(const Option *o, void *base)
{
    return (char *)base + o->at;
}

const void *dg_option_value(const Option *o, const void *base)
{
    return (const char *)base + o->at;
}

static void write_choices(char *text, size_t size, const char *choices)
{
    size_t at = 0;

    for (; *choices && at + 4 < size; choices++) {
        if (*choices == '|') {
            memcpy(text + at, " | ", 3);
            at += 3;
        } else {
            text[at++] = *choices;
        }
    }
    text[at] = '\0';
}

void dg_option_allowed(char *text, size_t size, const Option *o)
{
    char choices[128];

    switch (o->type) {
    case OPT_INT:
        snprintf(text, size, "integer in [%.16g, %.16g]", o->min, o->max);
        break;
    case OPT_REAL:
        snprintf(text, size, "number in [%.16g, %.16g]", o->min, o->max);
        break;
    case OPT_BOOL:
        snprintf(text, size, "true or false");
        break;
    case OPT_STRING:
        snprintf(text, size, "text of at most %zu bytes", o->size - 1);
        break;
    case OPT_ENUM:
        write_choices(choices, sizeof choices, o->choices);
        snprintf(text, size, "one of %s", choices);
        break;
    case OPT_INTS:
        snprintf(text, size, "%s%zu integers in [%.16g, %.16g]",
                 o->at_count != 0 ? "at most " : "", o->size, o->min, o->max);
        break;
    case OPT_TEXTS:
        snprintf(text, size, "list of 1 to %zu texts of at most %zu bytes",
                 o->size, o->stride - 1);
        break;
    case OPT_LIST:
        snprintf(text, size, "list of at most %zu groups", o->size);
        break;
    }
}

void dg_option_wanted(char *text, size_t size, const Option *o)
{
    const char *article = o->type == OPT_INT ? "an "
                          : o->type == OPT_REAL || o->type == OPT_STRING ||
                                  o->type == OPT_TEXTS || o->type == OPT_LIST
                              ? "a "
                              : "";
    const size_t n = strlen(article);

    memcpy(text, article, n + 1);
    dg_option_allowed(text + n, size - n, o);
}

int dg_option_unknown_member(const Option *o, const char *key,
                             const char *place)
{
    char keys[256] = "";
    size_t at = 0;

    for (int i = 0; i < o->num_sub && at < sizeof keys; i++)
        at += (size_t)snprintf(keys + at, sizeof keys - at, "%s%s",
                               i > 0 ? ", " : "", o->sub[i].key);
    return dg_fail(DG_EINVAL, "%s: %s: unknown key '%s': must be one of %s",
                   place, o->key, key, keys);
}
