#include "nn/lora.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

static const char separators[] = ", \t";

static int add_target(Lora *l, const char *from, size_t length)
{
    if (length >= DG_LORA_TARGET)
        return dg_fail(DG_EINVAL, "lora.targets: %.80s...: at most %d bytes",
                       from, DG_LORA_TARGET - 1);
    if (l->num_targets == DG_LORA_TARGETS)
        return dg_fail(DG_EINVAL, "lora.targets: more than %d names",
                       DG_LORA_TARGETS);
    memcpy(l->target[l->num_targets], from, length);
    for (int i = 0; i < l->num_targets; i++)
        if (strcmp(l->target[i], l->target[l->num_targets]) == 0)
            return dg_fail(DG_EINVAL, "lora.targets: \"%s\" stands there twice",
                           l->target[i]);
    l->num_targets++;
    return DG_OK;
}

int dg_lora_init(Lora *l, ParamSet *set, int64_t rank, double alpha,
                 const char *targets)
{
    int err = DG_OK;

    memset(l, 0, sizeof *l);
    l->set = set;
    l->rank = rank;
    l->scale = (float)(alpha / (double)rank);
    for (targets += strspn(targets, separators); *targets != '\0' && !err;
         targets += strspn(targets, separators)) {
        const size_t length = strcspn(targets, separators);

        err = add_target(l, targets, length);
        targets += length;
    }
    if (!err && l->num_targets == 0)
        err = dg_fail(DG_EINVAL, "lora.targets = \"\": must name linear "
                                 "layers, like \"to_q,to_k,to_v,to_out.0\"");
    return err;
}

static int ends_in(const char *path, const char *name)
{
    const size_t n = strlen(path), m = strlen(name);

    return n >= m && strcmp(path + n - m, name) == 0 &&
           (n == m || path[n - m - 1] == '.');
}

static int find_target(const Lora *l, const char *path)
{
    for (int i = 0; i < l->num_targets; i++)
        if (ends_in(path, l->target[i]))
            return i;
    return -1;
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

LoraPair dg_lora_adapt(Lora *l, const char *folder, const char *name,
                       int64_t in, int64_t out, int *err)
{
    char path[2 * DG_PARAM_NAME], key[2 * DG_PARAM_NAME + 16];
    LoraPair pair = { .scale = l->scale };
    int target;

    snprintf(path, sizeof path, "%s%s", folder, name);
    target = find_target(l, path);
    note_name(l, name);
    if (target < 0)
        return pair;
    snprintf(key, sizeof key, "%s.lora_A.weight", path);
    pair.a = dg_params_add(l->set, key, DG_INIT_UNIFORM_FAN, 2,
                           (int64_t[]) { l->rank, in });
    snprintf(key, sizeof key, "%s.lora_B.weight", path);
    if (pair.a != NULL)
        pair.b = dg_params_add(l->set, key, DG_INIT_ZERO, 2,
                               (int64_t[]) { out, l->rank });
    if (pair.a == NULL || pair.b == NULL) {
        *err = dg_last_error()->code;
        pair.a = NULL;
        return pair;
    }
    l->matched[target]++;
    return pair;
}

int dg_lora_check(const Lora *l)
{
    for (int i = 0; i < l->num_targets; i++)
        if (l->matched[i] == 0)
            return dg_fail(DG_EINVAL,
                           "lora.targets: no linear layer is called \"%s\"; "
                           "they are called %s",
                           l->target[i], l->names);
    return DG_OK;
}

int dg_lora_target_of(const Lora *l, const char *name)
{
    char path[DG_PARAM_NAME];
    const char *end = strstr(name, ".lora_");
    const size_t n = end != NULL ? (size_t)(end - name) : strlen(name);

    snprintf(path, sizeof path, "%.*s", (int)n, name);
    return find_target(l, path);
}
