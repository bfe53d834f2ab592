#include "config/config.h"

#include "assign.h"
#include "base/error.h"
#include "base/text_out.h"
#include "base/wrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Everything that is written from the table: the effective configuration, a
 * comparison, the help and the documentation.
 */

static const struct {
    const char *group, *about;
} groups[] = {
    { "run", "The run: its folder, length, seed, device and limits" },
    { "policy", "The generator that is trained" },
    { "lora", "Adapters (LoRA), which are trained in place of all weights" },
    { "flux", "Sizes of a FLUX transformer that starts from random weights" },
    { "unet", "Sizes of a Stable Diffusion U-Net that starts from random "
              "weights" },
    { "t5", "Sizes of FLUX's T5 text encoder that starts from random weights" },
    { "clip", "Sizes of the CLIP text encoder, of FLUX or Stable Diffusion" },
    { "prompts", "Where prompts come from" },
    { "sampler", "How the pictures of a rollout are sampled" },
    { "cfg", "Classifier-free guidance" },
    { "grpo", "Groups, advantages and the clipped objective" },
    { "rewards", "The rewards, a list of groups" },
    { "optim", "AdamW, gradient clipping, averaged weights" },
    { "pretrain", "Pretraining by flow matching on the procedural world" },
    { "evaluate", "Evaluation on held-out prompts with fixed seeds, by the ODE "
                  "sampler" },
    { "checkpoint", "Checkpoints" },
    { "trajectory", "Trajectory files" },
    { "report", "Picture strips of the report" },
    { "parallel", "Ranks and memory" },
    { "log", "What is shown on the screen" },
};

static int group_length(const char *key)
{
    return (int)strcspn(key, ".");
}

static int same_group(const char *a, const char *b)
{
    const int n = group_length(a);

    return n == group_length(b) && strncmp(a, b, (size_t)n) == 0;
}

static const char *about_group(const char *key)
{
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (same_group(groups[i].group, key))
            return groups[i].about;
    return "";
}

int dg_config_print(char **text, const Config *c)
{
    int num;
    const Option *rows = dg_option_table(&num);
    TextOut out;
    const int err = dg_text_open(&out, "configuration");
    FILE *f = out.file;

    for (int i = 0; !err && i < num; i++) {
        const char *key = rows[i].key;
        const int n = group_length(key), in_group = key[n] == '.';

        if (in_group && (i == 0 || !same_group(key, rows[i - 1].key)))
            fprintf(f, "%.*s: {\n", n, key);
        fprintf(f, "%s%s = ", in_group ? "    " : "",
                in_group ? key + n + 1 : key);
        dg_assign_write(f, &rows[i], c);
        fputs(";\n", f);
        if (in_group && (i + 1 == num || !same_group(key, rows[i + 1].key)))
            fputs("};\n", f);
    }
    return err ? err : dg_text_close(&out, text);
}

static int is_unset(const Option *o, const void *base)
{
    return o->type == OPT_REAL &&
           isnan(*(const double *)dg_option_value(o, base));
}

static char *value_text(const Option *o, const void *base);

/* Groups of a list without what is as it would be by itself: their rows are
 * many, and a reward has few of them. */
static void write_groups(TextOut *out, const Option *o, const char *base)
{
    const int64_t num = *(const int64_t *)(const void *)(base + o->at_count);

    fputs("(", out->file);
    for (int64_t i = 0; i < num && !out->failed; i++) {
        const char *group = base + o->at + (size_t)i * o->stride;

        fputs(i > 0 ? ", {" : " {", out->file);
        for (int j = 0; j < o->num_sub; j++) {
            const Option *m = &o->sub[j];
            char *text = value_text(m, group);
            const int same =
                text != NULL &&
                (is_unset(m, group) || strcmp(text, m->standard) == 0 ||
                 (m->type == OPT_REAL &&
                  strtod(text, NULL) == strtod(m->standard, NULL)));

            out->failed |= text == NULL;
            if (text != NULL && !same)
                fprintf(out->file, " %s = %s;", m->key, text);
            free(text);
        }
        fputs(" }", out->file);
    }
    fputs(num > 0 ? " )" : ")", out->file);
}

/* A key may stay the same in bits of text only: that is what is stored. */
static char *value_text(const Option *o, const void *base)
{
    char *text = NULL;
    TextOut out;

    if (dg_text_open(&out, o->key) != DG_OK)
        return NULL;
    if (o->type == OPT_LIST)
        write_groups(&out, o, base);
    else
        dg_assign_write(out.file, o, base);
    return dg_text_close(&out, &text) == DG_OK ? text : NULL;
}

/* The end of a decaying learning rate is part of what is computed. */
static int may_change(const Option *o, const Config *a, const Config *b)
{
    const int decays = a->optim.schedule != DG_LR_CONSTANT ||
                       b->optim.schedule != DG_LR_CONSTANT;

    if (decays && (strcmp(o->key, "run.iterations") == 0 ||
                   strcmp(o->key, "pretrain.steps") == 0))
        return 0;
    return (o->flags & OPT_MAY_CHANGE) != 0;
}

static size_t field_bytes(const Option *o)
{
    return o->type == OPT_STRING ? o->size
           : o->type == OPT_INT  ? sizeof(int64_t)
           : o->type == OPT_REAL ? sizeof(double)
                                 : sizeof(int);
}

/* Of the groups of a list, what may change becomes what it is in b. */
static void take_free(Config *a, const Option *o, const Config *b)
{
    for (int i = 0; i < o->num_sub * (int)o->size; i++) {
        const Option *sub = &o->sub[i % o->num_sub];
        const size_t at = o->at + (size_t)(i / o->num_sub) * o->stride;

        if (sub->flags & OPT_MAY_CHANGE)
            memcpy(dg_option_field(sub, (char *)a + at),
                   dg_option_value(sub, (const char *)b + at),
                   field_bytes(sub));
    }
}

/* One key, of a list's i-th group if list is not NULL. */
static void compare_value(TextOut *out, const Option *o, const void *a,
                          const void *b, const char *list, int64_t i)
{
    char *old = value_text(o, a), *new = value_text(o, b), where[80] = "";

    out->failed |= old == NULL || new == NULL;
    if (list != NULL)
        snprintf(where, sizeof where, "%.50s[%lld].", list, (long long)i);
    if (!out->failed && strcmp(old, new) != 0)
        fprintf(out->file, "%s%s: %s -> %s\n", where, o->key,
                is_unset(o, a) ? "unset" : old, is_unset(o, b) ? "unset" : new);
    free(old);
    free(new);
}

/* Of as many groups, key by key. */
static void compare_groups(TextOut *out, const Option *o, const char *a,
                           const char *b)
{
    const int64_t num = *(const int64_t *)(const void *)(a + o->at_count);

    if (num != *(const int64_t *)(const void *)(b + o->at_count)) {
        compare_value(out, o, a, b, NULL, 0);
        return;
    }
    for (int64_t i = 0; i < num; i++)
        for (int j = 0; j < o->num_sub && !out->failed; j++)
            compare_value(out, &o->sub[j], a + o->at + (size_t)i * o->stride,
                          b + o->at + (size_t)i * o->stride, o->key, i);
}

int dg_config_compare(char **text, const Config *before, const Config *b)
{
    int num;
    const Option *rows = dg_option_table(&num);
    Config made = *before;
    const Config *a = &made;
    TextOut out;
    const int err = dg_text_open(&out, "comparison of configurations");

    for (int i = 0; !err && !out.failed && i < num; i++) {
        take_free(&made, &rows[i], b);
        if (may_change(&rows[i], a, b))
            continue;
        if (rows[i].type == OPT_LIST)
            compare_groups(&out, &rows[i], (const char *)a, (const char *)b);
        else
            compare_value(&out, &rows[i], a, b, NULL, 0);
    }
    return err ? err : dg_text_close(&out, text);
}

/* One key's values, those that are the same together. */
static void write_values(FILE *out, char *const *value, const int *number,
                         int num)
{
    const char *comma = "";

    for (int i = 0; i < num; i++) {
        int seen = 0;

        for (int k = 0; k < i; k++)
            seen |= strcmp(value[k], value[i]) == 0;
        if (seen)
            continue;
        fprintf(out, "%s %s (%d", comma, value[i], number[i]);
        for (int k = i + 1; k < num; k++)
            if (strcmp(value[k], value[i]) == 0)
                fprintf(out, ", %d", number[k]);
        fputc(')', out);
        comma = ",";
    }
    fputc('\n', out);
}

int dg_config_differences(char **text, const Config *const *c,
                          const int *number, int num)
{
    int num_rows;
    const Option *rows = dg_option_table(&num_rows);
    char **value = calloc((size_t)num + 1, sizeof *value);
    TextOut out;
    const int err = dg_text_open(&out, "comparison of configurations");

    out.failed |= value == NULL;
    for (int r = 0; !err && !out.failed && r < num_rows; r++) {
        int differ = 0;

        for (int i = 0; i < num; i++) {
            value[i] = value_text(&rows[r], c[i]);
            out.failed |= value[i] == NULL;
            differ |= !out.failed && strcmp(value[i], value[0]) != 0;
        }
        if (!out.failed && differ && strcmp(rows[r].key, "run.dir") != 0) {
            fprintf(out.file, "  %s =", rows[r].key);
            write_values(out.file, value, number, num);
        }
        for (int i = 0; i < num; i++)
            free(value[i]);
    }
    free(value);
    return err ? err : dg_text_close(&out, text);
}

static const char *standard_of(const Option *o)
{
    return strcmp(o->standard, "nan") == 0 ? "unset" : o->standard;
}

static void help_key(FILE *out, const char *key, const Option *o)
{
    char allowed[192], line[512];

    dg_option_allowed(allowed, sizeof allowed, o);
    snprintf(line, sizeof line, "%s; default %s", allowed, standard_of(o));
    fprintf(out, "  %-28s ", key);
    dg_wrap(out, 31, 31, o->help);
    fprintf(out, "%33s", "");
    dg_wrap(out, 33, 33, line);
}

/* A key of the groups of a list, as rewards[].name. */
static void sub_key(char key[64], const Option *o, int j)
{
    snprintf(key, 64, "%s[].%s", o->key, o->sub[j].key);
}

void dg_option_help(FILE *out)
{
    int num;
    const Option *rows = dg_option_table(&num);

    for (int i = 0; i < num; i++) {
        const Option *o = &rows[i];

        if (i == 0 || !same_group(o->key, rows[i - 1].key))
            fprintf(out, "\n%.*s: %s\n", group_length(o->key), o->key,
                    about_group(o->key));
        help_key(out, o->key, o);
        for (int j = 0; j < o->num_sub; j++) {
            char key[64];

            sub_key(key, o, j);
            help_key(out, key, &o->sub[j]);
        }
    }
}

static void write_cell(FILE *out, const char *text)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
}

static void write_row(FILE *out, const char *key, const Option *o)
{
    char allowed[192];

    dg_option_allowed(allowed, sizeof allowed, o);
    fprintf(out, "| `%s` | `%s` | ", key, standard_of(o));
    write_cell(out, allowed);
    fprintf(out, " | ");
    write_cell(out, o->help);
    fprintf(out, " | %s |\n", o->flags & OPT_MAY_CHANGE ? "yes" : "");
}

static void write_intro(FILE *out)
{
    fputs("# Configuration\n\n"
          "This page is written by `make doc` from the table of options in\n"
          "`src/config/table.c`; do not edit it.\n\n"
          "A configuration is a [libconfig](https://hyperrealm.github.io/"
          "libconfig/) file. Keys not in it keep\ntheir default. `@include "
          "\"other.cfg\"` outside of all groups reads the other\nfile first "
          "(its path is relative to the including file), and the including "
          "file\nwins key by key. `--set key=value` on the command line comes "
          "last and may be\nrepeated:\n\n"
          "```\n"
          "dancegrpo train demo.cfg --set sampler.eta=0.5 "
          "--set 'rewards=({name=\"shapes\"; weight=1.0;})'\n"
          "dancegrpo train demo.cfg --print-config   # the effective "
          "configuration\n"
          "dancegrpo train demo.cfg --dry-run        # check all, compute "
          "nothing\n"
          "```\n\n"
          "A run folder is continued only with the configuration it was "
          "started with;\nkeys marked *may change* are free.\n",
          out);
}

void dg_option_markdown(FILE *out)
{
    int num;
    const Option *rows = dg_option_table(&num);

    write_intro(out);
    for (int i = 0; i < num; i++) {
        const Option *o = &rows[i];

        if (i == 0 || !same_group(o->key, rows[i - 1].key))
            fprintf(out,
                    "\n## %.*s\n%s.\n\n"
                    "| key | default | allowed | meaning | may change |\n"
                    "| --- | --- | --- | --- | --- |\n",
                    group_length(o->key), o->key, about_group(o->key));
        write_row(out, o->key, o);
        for (int j = 0; j < o->num_sub; j++) {
            char key[64];

            sub_key(key, o, j);
            write_row(out, key, &o->sub[j]);
        }
    }
}
