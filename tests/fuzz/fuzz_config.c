/*
 * Fuzz target: configurations. The first byte says what the rest is.
 *   'F'  files, a zero byte between them: main.cfg, a.cfg, b.cfg
 *   'S'  a line per --set
 *   'T'  text as it stands in outputs
 *   'N'  a name that is looked for among the keys
 * What is accepted has to be in the table's ranges and to be printed and read
 * again to the same bits. No file is opened but those that @include names in
 * a file; those lie beside it, since the target lets no others be opened.
 */
#define _GNU_SOURCE
#include "config/option.h"

#include "fuzz_folder.h"

#include <dlfcn.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static Config defaults;
static int reading_files; /* else nothing may be opened */

/* In place of the C library's, for libconfig's calls too. */
FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*really)(const char *, const char *);
    const size_t n = strlen(fuzz_folder);

    if (really == NULL)
        *(void **)&really = dlsym(RTLD_NEXT, "fopen");
    if (fuzz_folder[0] == '\0' || *mode == 'w')
        return really(path, mode);
    if (strncmp(path, "/dev/null/", 10) == 0)
        return really(path, mode); /* below a file there is nothing */
    if (!reading_files)
        abort();
    if (strncmp(path, fuzz_folder, n) != 0 || strstr(path, "..") != NULL)
        return NULL;
    return really(path, mode);
}

static void check_ranges(const Config *c)
{
    int num;
    const Option *rows = dg_option_table(&num);

    for (int i = 0; i < num; i++) {
        const Option *o = &rows[i];
        const void *v = dg_option_value(o, c);

        if (o->type == OPT_INT && ((double)*(const int64_t *)v < o->min ||
                                   (double)*(const int64_t *)v > o->max))
            abort();
        if (o->type == OPT_REAL &&
            !(*(const double *)v >= o->min && *(const double *)v <= o->max))
            abort();
        if (o->type == OPT_STRING && strnlen(v, o->size) == o->size)
            abort();
    }
    if (c->num_rewards < 0 || c->num_rewards > DG_CONFIG_REWARDS)
        abort();
}

/* Printed and read again it is the same, bit for bit. */
static void use(Config *c)
{
    char *text = NULL, *again = NULL, *changes = NULL;
    Config read = defaults;

    check_ranges(c);
    dg_config_settle(c);
    (void)dg_config_check_train(c);
    if (dg_config_print(&text, c) != 0 ||
        dg_config_parse(&read, text, "again") != 0 ||
        dg_config_print(&again, &read) != 0 || strcmp(text, again) != 0 ||
        memcmp(c, &read, sizeof read) != 0 ||
        dg_config_compare(&changes, c, &read) != 0 || *changes != '\0')
        abort();
    free(text);
    free(again);
    free(changes);
}

/* The lines of text, one after the other, to do. */
static void each_line(Config *c, char *text, int (*todo)(Config *, char *))
{
    while (text != NULL) {
        char *line = strsep(&text, "\n");

        if (todo(c, line) == 0)
            check_ranges(c);
    }
}

static int set(Config *c, char *line)
{
    /* a value may go over several lines */
    for (char *p = line; *p != '\0'; p++)
        *p = *p == '\r' ? '\n' : *p;
    return dg_config_set(c, line);
}

static int look(Config *c, char *name)
{
    static const char *const names[] = { "train", "pretrain", "" };

    (void)c;
    (void)dg_option_find(name);
    (void)dg_nearest_name(name, names, 3);
    return 0;
}

static int load(Config *c, const char *text, size_t size)
{
    static const char *const names[] = { "main.cfg", "a.cfg", "b.cfg" };
    char path[300];
    int err;

    for (int i = 0; i < 3; i++) {
        const char *zero = memchr(text, '\0', size);
        const size_t n = zero != NULL && i < 2 ? (size_t)(zero - text) : size;

        put_fuzz_file(path, names[i], text, n);
        text += n < size ? n + 1 : n;
        size -= n < size ? n + 1 : n;
    }
    snprintf(path, sizeof path, "%s/main.cfg", fuzz_folder);
    reading_files = 1;
    err = dg_config_load(c, path);
    reading_files = 0;
    return err;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    make_fuzz_folder();
    dg_config_defaults(&defaults);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Config c = defaults;
    char *text;
    int err = 0;

    if (size == 0 || (text = strndup((const char *)data + 1, size - 1)) == NULL)
        return 0;
    switch (data[0]) {
    case 'F':
        err = load(&c, (const char *)data + 1, size - 1);
        break;
    case 'S':
        each_line(&c, text, set);
        break;
    case 'N':
        each_line(&c, text, look);
        break;
    default:
        err = dg_config_parse(&c, text, "text");
    }
    if (err == 0)
        use(&c);
    free(text);
    return 0;
}
