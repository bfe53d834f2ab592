#include "assign.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void write_real(FILE *out, double x)
{
    char text[40];

    /* fewer digits than 6 would have 600 be 6e+02 */
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    /* libconfig takes digits alone for an integer */
    fprintf(out, "%s%s", text, strpbrk(text, ".en") ? "" : ".0");
}

static void write_integer(FILE *out, int64_t i)
{
    fprintf(out, "%lld%s", (long long)i,
            i > INT32_MAX || i < INT32_MIN ? "L" : "");
}

static void write_string(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        const unsigned char c = (unsigned char)*s;

        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\x%02X", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void write_setting(FILE *out, const config_setting_t *s)
{
    switch (config_setting_type(s)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        fprintf(out, "%lld", (long long)config_setting_get_int64(s));
        break;
    case CONFIG_TYPE_FLOAT:
        write_real(out, config_setting_get_float(s));
        break;
    case CONFIG_TYPE_BOOL:
        fputs(config_setting_get_bool(s) ? "true" : "false", out);
        break;
    case CONFIG_TYPE_STRING:
        write_string(out, config_setting_get_string(s));
        break;
    case CONFIG_TYPE_GROUP:
        fputs("{...}", out);
        break;
    default:
        fputs("(...)", out);
    }
}

void dg_assign_place(char *text, size_t size, const config_setting_t *s,
                     const char *name)
{
    if (*name == '-')
        snprintf(text, size, "%s", name);
    else
        snprintf(text, size, "%s:%d", name, config_setting_source_line(s));
}

static int refuse(const Option *o, const config_setting_t *s, const char *name)
{
    char allowed[192], value[256] = "", place[512];
    FILE *f = fmemopen(value, sizeof value, "w");

    dg_option_wanted(allowed, sizeof allowed, o);
    if (f != NULL) {
        write_setting(f, s);
        fclose(f);
        value[sizeof value - 1] = '\0';
    }
    dg_assign_place(place, sizeof place, s, name);
    return dg_fail(DG_EINVAL, "%s: %s = %s: must be %s", place, o->key, value,
                   allowed);
}

static int is_integer(const config_setting_t *s)
{
    const int type = config_setting_type(s);

    return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

static int integer_fits(const Option *o, const config_setting_t *s)
{
    if (!is_integer(s))
        return 0;
    const double i = (double)config_setting_get_int64(s);
    return i >= o->min && i <= o->max;
}

static int assign_integers(const Option *o, char *base,
                           const config_setting_t *s, const char *name)
{
    int64_t *field = dg_option_field(o, base);
    const int any = o->at_count != 0, most = (int)o->size;
    int num;

    if (!config_setting_is_aggregate(s) || config_setting_is_group(s))
        return refuse(o, s, name);
    num = config_setting_length(s);
    if (num > most || (!any && num < most))
        return refuse(o, s, name);
    for (int i = 0; i < num; i++)
        if (!integer_fits(o, config_setting_get_elem(s, (unsigned)i)))
            return refuse(o, s, name);
    for (int i = 0; i < most; i++)
        field[i] = i < num ? config_setting_get_int64_elem(s, i) : 0;
    if (any)
        *(int64_t *)(void *)(base + o->at_count) = num;
    return DG_OK;
}

static int assign_real(const Option *o, double *field,
                       const config_setting_t *s, const char *name)
{
    double x;

    if (is_integer(s))
        x = (double)config_setting_get_int64(s);
    else if (config_setting_type(s) == CONFIG_TYPE_FLOAT)
        x = config_setting_get_float(s);
    else
        return refuse(o, s, name);
    if (!(x >= o->min && x <= o->max))
        return refuse(o, s, name);
    *field = x;
    return DG_OK;
}

static int assign_choice(const Option *o, int *field, const config_setting_t *s,
                         const char *name)
{
    const char *value = config_setting_get_string(s);

    if (value == NULL)
        return refuse(o, s, name);
    const size_t length = strlen(value);
    const char *at = o->choices;

    for (int i = 0; at != NULL; i++) {
        if (strncmp(at, value, length) == 0 &&
            (at[length] == '|' || at[length] == '\0')) {
            *field = i;
            return DG_OK;
        }
        at = strchr(at, '|');
        at = at != NULL ? at + 1 : NULL;
    }
    return refuse(o, s, name);
}

static int assign_string(const Option *o, char *field,
                         const config_setting_t *s, const char *name)
{
    const char *value = config_setting_get_string(s);

    if (value == NULL || strlen(value) >= o->size)
        return refuse(o, s, name);
    memset(field, 0, o->size); /* equal strings, equal bytes */
    memcpy(field, value, strlen(value));
    return DG_OK;
}

static int add_text(const Option *o, char *texts, int *num, const char *from,
                    size_t length)
{
    if (length == 0 || length >= o->stride || *num >= (int)o->size)
        return 0;
    memcpy(texts + (size_t)*num * o->stride, from, length);
    ++*num;
    return 1;
}

/* "a,b" */
static int add_parts(const Option *o, char *texts, int *num, const char *value)
{
    static const char separators[] = ", \t";
    int ok = 1;

    for (value += strspn(value, separators); *value != '\0' && ok;
         value += strspn(value, separators)) {
        const size_t length = strcspn(value, separators);

        ok = add_text(o, texts, num, value, length);
        value += length;
    }
    return ok;
}

/* An array or a list; or one text, as files of an older version have it. */
static int assign_texts(const Option *o, char *field, const config_setting_t *s,
                        const char *name)
{
    const char *value = config_setting_get_string(s);
    char *texts = calloc(o->size, o->stride);
    int num = 0, ok = 1;

    if (texts == NULL)
        return dg_fail(DG_ENOMEM, "%s: no memory for %s", name, o->key);
    if (value != NULL) {
        ok = add_parts(o, texts, &num, value);
    } else {
        ok = config_setting_is_array(s) || config_setting_is_list(s);
        for (int i = 0; ok && i < config_setting_length(s); i++) {
            value = config_setting_get_string_elem(s, i);
            ok =
                value != NULL && add_text(o, texts, &num, value, strlen(value));
        }
    }
    if (ok && num > 0)
        memcpy(field, texts, o->size * o->stride);
    free(texts);
    return ok && num > 0 ? DG_OK : refuse(o, s, name);
}

static int assign_default(const Option *o, void *base)
{
    if (o->type == OPT_REAL && strcmp(o->standard, "nan") == 0) {
        *(double *)dg_option_field(o, base) = NAN; /* has no notation */
        return DG_OK;
    }
    return dg_assign_text(o, base, o->standard, "--default");
}

static const Option *find_member(const Option *o, const char *key)
{
    for (int i = 0; key != NULL && i < o->num_sub; i++)
        if (strcmp(o->sub[i].key, key) == 0)
            return &o->sub[i];
    return NULL;
}

static int assign_element(const Option *o, char *element,
                          const config_setting_t *s, const char *name)
{
    char place[512];

    dg_assign_place(place, sizeof place, s, name);
    if (!config_setting_is_group(s))
        return dg_fail(DG_EINVAL,
                       "%s: %s: each element must be a group, "
                       "{ name = \"...\"; weight = 1.0; }",
                       place, o->key);
    for (int i = 0; i < o->num_sub; i++) {
        int err = assign_default(&o->sub[i], element);

        if (err)
            return err;
    }
    for (int i = 0; i < config_setting_length(s); i++) {
        const config_setting_t *m = config_setting_get_elem(s, (unsigned)i);
        const Option *row = find_member(o, config_setting_name(m));

        dg_assign_place(place, sizeof place, m, name);
        if (row == NULL)
            return dg_option_unknown_member(o, config_setting_name(m), place);
        int err = dg_assign_setting(row, element, m, name);

        if (err)
            return err;
    }
    return DG_OK;
}

static int assign_list(const Option *o, char *base, const config_setting_t *s,
                       const char *name)
{
    const int num = config_setting_length(s);

    if (!config_setting_is_list(s) || num > (int)o->size)
        return refuse(o, s, name);
    memset(base + o->at, 0, o->size * o->stride);
    for (int i = 0; i < num; i++) {
        int err = assign_element(o, base + o->at + (size_t)i * o->stride,
                                 config_setting_get_elem(s, (unsigned)i), name);

        if (err)
            return err;
    }
    *(int64_t *)(void *)(base + o->at_count) = num;
    return DG_OK;
}

int dg_assign_setting(const Option *o, void *base, const config_setting_t *s,
                      const char *name)
{
    void *field = dg_option_field(o, base);

    switch (o->type) {
    case OPT_INT:
        if (!integer_fits(o, s))
            return refuse(o, s, name);
        *(int64_t *)field = config_setting_get_int64(s);
        return DG_OK;
    case OPT_REAL:
        return assign_real(o, field, s, name);
    case OPT_BOOL:
        if (config_setting_type(s) != CONFIG_TYPE_BOOL)
            return refuse(o, s, name);
        *(int *)field = config_setting_get_bool(s);
        return DG_OK;
    case OPT_STRING:
        return assign_string(o, field, s, name);
    case OPT_ENUM:
        return assign_choice(o, field, s, name);
    case OPT_INTS:
        return assign_integers(o, base, s, name);
    case OPT_TEXTS:
        return assign_texts(o, field, s, name);
    case OPT_LIST:
        return assign_list(o, base, s, name);
    }
    return DG_OK;
}

static int is_name_byte(char c)
{
    return c == '_' || c == '-' || c == '*' || c == '.' ||
           (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z');
}

const char *dg_assign_skip(const char *s)
{
    const char *end;

    if (*s == '#' || (s[0] == '/' && s[1] == '/'))
        return s + strcspn(s, "\n");
    if (s[0] == '/' && s[1] == '*') {
        end = strstr(s + 2, "*/");
        return end != NULL ? end + 2 : s + strlen(s);
    }
    if (*s != '"')
        return s;
    for (s++; *s && *s != '"'; s++)
        if (*s == '\\' && s[1])
            s++;
    return *s ? s + 1 : s;
}

static const char hex_digits[] = "0123456789abcdefABCDEF";

static void write_hex(FILE *out, const char *word)
{
    const double x = strtod(word, NULL);

    if (x < (double)INT64_MAX)
        fprintf(out, "%lldL", strtoll(word, NULL, 16));
    else
        write_real(out, x);
}

/*
 * A number so that libconfig does not cut it to 32 bits, or a hexadecimal one
 * to 64. Beyond 64 bits it becomes a real, which is refused by its value.
 */
static void write_number(FILE *out, const char *word, size_t length)
{
    const int hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
    const size_t digits =
        hex ? 2 + strspn(word + 2, hex_digits) : strspn(word, "0123456789");
    const size_t suffix = strspn(word + digits, "L");

    if (!hex && digits == length && digits >= 10)
        fprintf(out, "%.*s%s", (int)length, word,
                digits > 18                           ? ".0"
                : strtoll(word, NULL, 10) > INT32_MAX ? "L"
                                                      : "");
    else if (hex && digits > 9 && digits + suffix == length && suffix <= 2)
        write_hex(out, word);
    else
        fprintf(out, "%.*s", (int)length, word);
}

static void write_widened(FILE *out, const char *s)
{
    while (*s) {
        const char *behind = dg_assign_skip(s), *word = s;

        if (behind == s && is_name_byte(*s)) {
            word += *s == '-';
            for (behind = word; is_name_byte(*behind);)
                behind++;
            fprintf(out, "%.*s", (int)(word - s), s);
            write_number(out, word, (size_t)(behind - word));
        } else {
            behind += behind == s;
            fprintf(out, "%.*s", (int)(behind - s), s);
        }
        s = behind;
    }
}

/*
 * libconfig follows @include by itself, wherever the text comes from: from a
 * --set, from a file of weights. Here it finds none; dg_config_load() follows
 * those of files.
 */
#if LIBCONFIG_VER_MAJOR > 1 || LIBCONFIG_VER_MINOR >= 7
static const char **find_nothing(config_t *tree, const char *folder,
                                 const char *path, const char **error)
{
    (void)tree;
    (void)folder;
    (void)path;
    *error = "cannot open include file";
    return NULL;
}

static void follow_nothing(config_t *tree)
{
    config_set_include_func(tree, find_nothing);
}
#else
static void follow_nothing(config_t *tree)
{
    config_set_include_dir(tree, "/dev/null"); /* no folder, so has no files */
}
#endif

int dg_assign_read_tree(config_t *tree, const char *text)
{
    char *wide = NULL;
    size_t size;
    FILE *f = open_memstream(&wide, &size);

    if (f == NULL)
        return CONFIG_FALSE;
    follow_nothing(tree);
    write_widened(f, text);
    const int ok = fclose(f) == 0 && wide != NULL
                       ? config_read_string(tree, wide)
                       : CONFIG_FALSE;
    free(wide);
    return ok;
}

/* 1 where a text on the command line may do without its quotes. */
static int is_bare(const Option *o, const char *text)
{
    if (o->type == OPT_TEXTS)
        return strchr("\"[(", *text) == NULL;
    return (o->type == OPT_STRING || o->type == OPT_ENUM) && *text != '"';
}

/* "v = text", where a bare word of a string gets its quotes. */
static char *as_setting(const Option *o, const char *text)
{
    char *line = NULL;
    size_t size;
    FILE *f = open_memstream(&line, &size);

    if (f == NULL)
        return NULL;
    fputs("v = ", f);
    if (is_bare(o, text))
        write_string(f, text);
    else
        fputs(text, f);
    if (fclose(f) != 0) {
        free(line);
        return NULL;
    }
    return line;
}

int dg_assign_text(const Option *o, void *base, const char *text,
                   const char *name)
{
    char allowed[192];
    config_t tree;
    char *line = as_setting(o, text);
    int err;

    if (line == NULL)
        return dg_fail(DG_ENOMEM, "%s: no memory for %s", name, o->key);
    config_init(&tree);
    if (dg_assign_read_tree(&tree, line) == CONFIG_TRUE &&
        config_setting_length(config_root_setting(&tree)) == 1) {
        err = dg_assign_setting(o, base, config_lookup(&tree, "v"), name);
    } else {
        dg_option_wanted(allowed, sizeof allowed, o);
        err = dg_fail(DG_EINVAL, "%s: %s = %s: must be %s", name, o->key, text,
                      allowed);
    }
    config_destroy(&tree);
    free(line);
    return err;
}

static void write_choice(FILE *out, const char *choices, int chosen)
{
    for (; chosen > 0; chosen--)
        choices = strchr(choices, '|') + 1;
    fprintf(out, "\"%.*s\"", (int)strcspn(choices, "|"), choices);
}

static void write_texts(FILE *out, const Option *o, const char *texts)
{
    fputs("[", out);
    for (size_t i = 0; i < o->size && texts[i * o->stride] != '\0'; i++) {
        fputs(i ? ", " : "", out);
        write_string(out, texts + i * o->stride);
    }
    fputs("]", out);
}

static void write_list(FILE *out, const Option *o, const char *base)
{
    const int64_t num = *(const int64_t *)(const void *)(base + o->at_count);

    fputs("(", out);
    for (int64_t i = 0; i < num; i++) {
        const char *element = base + o->at + (size_t)i * o->stride;

        /* a line each in the configuration that is printed */
        fputs(i ? ",\n            { " : " { ", out);
        for (int j = 0; j < o->num_sub; j++) {
            const Option *m = &o->sub[j];

            if (m->type == OPT_REAL &&
                isnan(*(const double *)dg_option_value(m, element)))
                continue;
            fprintf(out, "%s = ", m->key);
            dg_assign_write(out, m, element);
            fputs("; ", out);
        }
        fputs("}", out);
    }
    fputs(num ? " )" : ")", out);
}

static void write_integers(FILE *out, const Option *o, const char *base)
{
    const int64_t *list = dg_option_value(o, base);
    const int64_t num =
        o->at_count != 0 ? *(const int64_t *)(const void *)(base + o->at_count)
                         : (int64_t)o->size;

    fputs("[", out);
    for (int64_t i = 0; i < num; i++) {
        fputs(i ? ", " : "", out);
        write_integer(out, list[i]);
    }
    fputs("]", out);
}

void dg_assign_write(FILE *out, const Option *o, const void *base)
{
    const void *field = dg_option_value(o, base);

    switch (o->type) {
    case OPT_INT:
        write_integer(out, *(const int64_t *)field);
        break;
    case OPT_REAL:
        write_real(out, *(const double *)field);
        break;
    case OPT_BOOL:
        fputs(*(const int *)field ? "true" : "false", out);
        break;
    case OPT_STRING:
        write_string(out, field);
        break;
    case OPT_ENUM:
        write_choice(out, o->choices, *(const int *)field);
        break;
    case OPT_INTS:
        write_integers(out, o, base);
        break;
    case OPT_TEXTS:
        write_texts(out, o, field);
        break;
    case OPT_LIST:
        write_list(out, o, base);
        break;
    }
}
