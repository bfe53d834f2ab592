#include "nn/lora.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

int dg_lora_init(Lora *l, ParamSet *set, const LoraConfig *c)
{
    memset(l, 0, sizeof *l);
    l->set = set;
    l->rank = c->rank;
    l->scale = (float)(c->alpha / (double)c->rank);
    l->init = c->init;
    l->target = c->targets;
    while (l->num_targets < DG_CONFIG_TEXTS &&
           l->target.text[l->num_targets][0] != '\0')
        l->num_targets++;
    if (l->num_targets == 0)
        return dg_fail(DG_EINVAL, "lora.targets = []: must name linear layers, "
                                  "like [\"to_q\", \"to_out.0\"]");
    for (int i = 0; i < l->num_targets; i++)
        for (int k = 0; k < i; k++)
            if (strcmp(l->target.text[i], l->target.text[k]) == 0)
                return dg_fail(DG_EINVAL,
                               "lora.targets: \"%s\" is listed twice",
                               l->target.text[i]);
    return DG_OK;
}

/* A * takes as little as it can, and one byte more when that fails. */
static int matches(const char *pattern, const char *text)
{
    const char *star = NULL, *from = NULL;

    while (*text != '\0' || *pattern == '*') {
        if (*pattern == '*') {
            star = ++pattern;
            from = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL && *from != '\0') {
            pattern = star;
            text = ++from;
        } else {
            return 0;
        }
    }
    return *pattern == '\0';
}

/* The path's end, from its start or behind one of its dots. */
static int ends_in(const char *path, const char *pattern)
{
    for (const char *at = path; at != NULL;) {
        if (matches(pattern, at))
            return 1;
        at = strchr(at, '.');
        at = at != NULL ? at + 1 : NULL;
    }
    return 0;
}

/* Notes every target that stands for the path; 1 if there is one. */
static int note_targets(Lora *l, const char *path)
{
    int found = 0;

    for (int i = 0; i < l->num_targets; i++)
        if (ends_in(path, l->target.text[i])) {
            l->matched[i]++;
            found = 1;
        }
    return found;
}

/* Each name once, as long as there is room. */
static void note_name(Lora *l, const char *name)
{
    const size_t n = strlen(name), used = strlen(l->names);

    for (const char *at = l->names; (at = strstr(at, name)) != NULL; at += n)
        if ((at == l->names || at[-1] == ' ') &&
            (at[n] == ',' || at[n] == '\0'))
            return;
    if (used + n + 3 < sizeof l->names)
        snprintf(l->names + used, sizeof l->names - used, "%s%s",
                 used > 0 ? ", " : "", name);
}

static Tensor *add_a(Lora *l, const char *key, int64_t in)
{
    const int64_t dims[] = { l->rank, in };

    return l->init == DG_LORA_NORMAL
               ? dg_params_add_normal(l->set, key, 1.0f / (float)l->rank, 2,
                                      dims)
               : dg_params_add(l->set, key, DG_INIT_UNIFORM_FAN, 2, dims);
}

LoraPair dg_lora_adapt(Lora *l, const char *folder, const char *name,
                       int64_t in, int64_t out, int *err)
{
    char path[2 * DG_PARAM_NAME], key[2 * DG_PARAM_NAME + 16];
    LoraPair pair = { .scale = l->scale };

    snprintf(path, sizeof path, "%s%s", folder, name);
    note_name(l, name);
    if (!note_targets(l, path))
        return pair;
    snprintf(key, sizeof key, "%s.lora_A.weight", path);
    pair.a = add_a(l, key, in);
    snprintf(key, sizeof key, "%s.lora_B.weight", path);
    if (pair.a != NULL)
        pair.b = dg_params_add(l->set, key, DG_INIT_ZERO, 2,
                               (int64_t[]) { out, l->rank });
    if (pair.a == NULL || pair.b == NULL) {
        *err = dg_last_error()->code;
        pair.a = NULL;
        return pair;
    }
    return pair;
}

int dg_lora_check(const Lora *l)
{
    for (int i = 0; i < l->num_targets; i++)
        if (l->matched[i] == 0)
            return dg_fail(DG_EINVAL,
                           "lora.targets: no linear layer is called \"%s\"; "
                           "they are called %s",
                           l->target.text[i], l->names);
    return DG_OK;
}

int dg_lora_names(const Lora *l, int target, const char *name)
{
    char path[DG_PARAM_NAME];
    const char *end = strstr(name, ".lora_");
    const size_t n = end != NULL ? (size_t)(end - name) : strlen(name);

    snprintf(path, sizeof path, "%.*s", (int)n, name);
    return ends_in(path, l->target.text[target]);
}
