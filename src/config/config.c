#include "config/config.h"

#include "assign.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    INCLUDE_DEPTH = 8,
    PATH_BYTES = 1024,
    KEY_BYTES = 256,
    TEXT_BYTES = 1 << 24 /* most of a file; a device may have no end */
};

void dg_config_defaults(Config *c)
{
    int num;
    const Option *rows = dg_option_table(&num);

    memset(c, 0, sizeof *c);
    for (int i = 0; i < num; i++)
        if (dg_assign_text(&rows[i], c, rows[i].standard, "--default"))
            dg_panic("option table: %s", dg_last_error()->text);
}

static int assign_at(Config *c, const char *key, const config_setting_t *s,
                     const char *name)
{
    char place[PATH_BYTES], text[PATH_BYTES];
    const Option *o = dg_option_find(key);

    if (o != NULL)
        return dg_assign_setting(o, c, s, name);
    dg_assign_place(place, sizeof place, s, name);
    snprintf(text, sizeof text, "%s", dg_last_error()->text);
    return dg_fail(DG_EINVAL, "%s: %s", place, text);
}

/* Groups are walked down; what is not a group must be a key. */
static int walk(Config *c, const config_setting_t *group, const char *prefix,
                const char *name)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *s = config_setting_get_elem(group, (unsigned)i);
        const int is_group = config_setting_is_group(s);
        char key[KEY_BYTES];
        int err = DG_OK;

        snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "",
                 config_setting_name(s));
        if (is_group && config_setting_length(s) > 0 &&
            dg_option_lookup(key) == NULL)
            err = walk(c, s, key, name);
        else if (!is_group || !dg_option_is_group(key))
            err = assign_at(c, key, s, name);
        if (err)
            return err;
    }
    return DG_OK;
}

/* With the line itself; a key as --set has it is a usual mistake there. */
static int fail_syntax(const char *text, const char *name, int line,
                       const char *what)
{
    char word[KEY_BYTES], hint[KEY_BYTES + 96] = "";
    const char *at = text;
    int length;

    for (int i = 1; i < line && *at; i++)
        at += strcspn(at, "\n") + (strchr(at, '\n') != NULL);
    at += strspn(at, " \t");
    length = (int)strcspn(at, "\r\n");
    if (length == 0)
        return dg_fail(DG_EFORMAT, "%s:%d: %s%s", name, line, what,
                       *at ? "" : " at the end: is a } or a \" missing?");
    snprintf(word, sizeof word, "%.*s", (int)strcspn(at, " \t=:"), at);
    if (dg_option_lookup(word) != NULL && strchr(word, '.') != NULL)
        snprintf(hint, sizeof hint,
                 "; in a file keys stand in groups: %.*s: { %s = ...; };",
                 (int)strcspn(word, "."), word, strchr(word, '.') + 1);
    else if (strcmp(what, "syntax error") == 0)
        snprintf(hint, sizeof hint,
                 "; a group is name: { key = value; }; texts stand in quotes");
    return dg_fail(DG_EFORMAT, "%s:%d: %s at \"%.*s%s\"%s", name, line, what,
                   length < 60 ? length : 60, at, length < 60 ? "" : "...",
                   hint);
}

int dg_config_parse(Config *c, const char *text, const char *name)
{
    Config made = *c;
    config_t tree;
    int err;

    config_init(&tree);
    if (dg_assign_read_tree(&tree, text) == CONFIG_TRUE)
        err = walk(&made, config_root_setting(&tree), "", name);
    else if (config_error_text(&tree) == NULL)
        err = dg_fail(DG_ENOMEM, "%s: no memory for its text", name);
    else
        err = fail_syntax(text, name, config_error_line(&tree),
                          config_error_text(&tree));
    config_destroy(&tree);
    if (!err)
        *c = made;
    return err;
}

static int read_text(char **text, const char *path)
{
    FILE *f = fopen(path, "rb");
    char *bytes = NULL, part[4096];
    size_t size = 0, got;

    if (f == NULL)
        return dg_fail(DG_EIO, "%s: cannot be read: %s", path, strerror(errno));
    FILE *out = open_memstream(&bytes, &size);
    for (long all = 0; out != NULL && all <= TEXT_BYTES &&
                       (got = fread(part, 1, sizeof part, f)) > 0;
         all += (long)got)
        fwrite(part, 1, got, out);
    const int failed = ferror(f) ? errno : 0;
    const int full = out == NULL || fclose(out) != 0;
    fclose(f);
    if (!failed && !full && size <= TEXT_BYTES &&
        memchr(bytes, '\0', size) == NULL) {
        if (strncmp(bytes, "\xEF\xBB\xBF", 3) == 0)
            memset(bytes, ' ', 3); /* a byte order mark, which editors put */
        *text = bytes;
        return DG_OK;
    }
    free(bytes);
    if (failed)
        return dg_fail(DG_EIO, "%s: cannot be read: %s", path,
                       strerror(failed));
    if (full)
        return dg_fail(DG_ENOMEM, "%s: no memory for its text", path);
    if (size > TEXT_BYTES)
        return dg_fail(DG_EFORMAT, "%s: has more than %d bytes", path,
                       TEXT_BYTES);
    return dg_fail(DG_EFORMAT, "%s: holds zero bytes, must be text", path);
}

/*
 * The next @include. It is followed here and not by libconfig, which would
 * refuse a key that both files set; so the including file wins. *depth is
 * that of the groups around it.
 */
static char *find_include(char *text, int *depth)
{
    const char *s = text;
    int line_start = 1;

    for (*depth = 0; *s;) {
        const char *behind = dg_assign_skip(s);

        if (behind != s) {
            s = behind;
            line_start = 0;
            continue;
        }
        if (line_start && strncmp(s, "@include", 8) == 0)
            return text + (s - text);
        *depth += strchr("{([", *s) != NULL;
        *depth -= strchr("})]", *s) != NULL;
        line_start = *s == '\n' || (line_start && strchr(" \t", *s));
        s++;
    }
    return NULL;
}

static int line_of(const char *text, const char *at)
{
    int line = 1;

    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

static int load(Config *c, const char *path, const char *by, int depth);

/* Loads the file an @include names and wipes the words from the text. */
static int follow_include(Config *c, char *text, char *at, const char *path,
                          int depth)
{
    char *open = at + 8 + strspn(at + 8, " \t"), target[PATH_BYTES];
    char by[PATH_BYTES + 16];
    const size_t length = *open == '"' ? strcspn(open + 1, "\"\n") : 0;
    const char *slash = strrchr(path, '/');
    const int line = line_of(text, at);

    if (length == 0 || open[1 + length] != '"')
        return dg_fail(DG_EFORMAT, "%s:%d: @include needs a \"file\"", path,
                       line);
    if (depth >= INCLUDE_DEPTH)
        return dg_fail(DG_EFORMAT, "%s:%d: @include nested deeper than %d",
                       path, line, INCLUDE_DEPTH);
    const int folder =
        open[1] == '/' || slash == NULL ? 0 : (int)(slash + 1 - path);
    if (snprintf(target, sizeof target, "%.*s%.*s", folder, path, (int)length,
                 open + 1) >= (int)sizeof target)
        return dg_fail(DG_EFORMAT,
                       "%s:%d: @include: a path of more than %d bytes", path,
                       line, PATH_BYTES - 1);
    memset(at, ' ', (size_t)(open + length + 2 - at));
    snprintf(by, sizeof by, "%s:%d", path, line);
    return load(c, target, by, depth + 1);
}

/* by: which line of which file includes it; NULL: none. */
static int load(Config *c, const char *path, const char *by, int depth)
{
    char *text = NULL, *at;
    int in_groups, err = read_text(&text, path);

    if (err && by != NULL) {
        char why[sizeof dg_last_error()->text];

        memcpy(why, dg_last_error()->text, sizeof why);
        return dg_fail(err, "%.700s (included by %.300s)", why, by);
    }
    if (err)
        return err;
    while (!err && (at = find_include(text, &in_groups)) != NULL)
        err = in_groups ? dg_fail(DG_EFORMAT,
                                  "%s:%d: @include must stand outside of "
                                  "all groups",
                                  path, line_of(text, at))
                        : follow_include(c, text, at, path, depth);
    if (!err)
        err = dg_config_parse(c, text, path);
    free(text);
    return err;
}

int dg_config_load(Config *c, const char *path)
{
    Config made = *c;
    int err = load(&made, path, NULL, 0);

    if (!err)
        *c = made;
    return err;
}

int dg_config_set(Config *c, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    char key[KEY_BYTES], text[PATH_BYTES];
    Config made = *c;

    if (*assignment == '\0')
        return dg_fail(DG_EUSAGE, "--set: key=value must stand behind it");
    if (equals == NULL || equals == assignment)
        return dg_fail(DG_EUSAGE, "--set %s: must be key=value", assignment);
    size_t length = (size_t)(equals - assignment);
    while (length > 0 && assignment[length - 1] == ' ')
        length--;
    snprintf(key, sizeof key, "%.*s", (int)length, assignment);
    const Option *o = dg_option_find(key);
    if (o == NULL) {
        snprintf(text, sizeof text, "%s", dg_last_error()->text);
        return dg_fail(DG_EINVAL, "--set: %s", text);
    }
    equals++;
    int err = dg_assign_text(o, &made, equals + strspn(equals, " "), "--set");
    if (!err)
        *c = made;
    return err;
}
