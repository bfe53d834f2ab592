/* A policy's values from a weights file or a checkpoint. */
#include "policy/policy.h"

#include "base/error.h"
#include "base/piece_digest.h"
#include "store/checkpoint.h"
#include "store/h5.h"
#include "store/weights_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int list_tensors(const Policy *p, WeightTensor **out)
{
    const int num = p->net.num_params + p->text.num_params;
    WeightTensor *list = calloc((size_t)num, sizeof *list);

    if (list == NULL)
        return dg_fail(DG_ENOMEM, "policy: list of %d tensors", num);
    for (int i = 0; i < num; i++) {
        const int in_net = i < p->net.num_params;
        const Param *q =
            in_net ? p->net.params[i] : p->text.params[i - p->net.num_params];

        list[i].name = q->name;
        list[i].num_dims = q->value.num_dims;
        for (int k = 0; k < q->value.num_dims; k++)
            list[i].dims[k] = q->value.dims[k];
        list[i].data = q->value.data;
    }
    *out = list;
    return DG_OK;
}

/* The part of a policy that a checkpoint holds: the base, or the adapters. */
typedef struct Part {
    const ParamSet *first, *second; /* second: behind first, or NULL */
    float *values;
    int64_t num_values; /* in the file */
    int64_t behind;     /* in the file, elements before those of second */
    int num_params;
} Part;

static Part part_of(Policy *p, int adapters)
{
    if (adapters)
        return (Part) { &p->adapters,       NULL,
                        p->adapters.values, p->adapters.count,
                        p->adapters.count,  p->adapters.num_params };
    return (Part) { &p->net,       &p->text,
                    p->net.values, dg_policy_num_base(p),
                    p->net.count,  p->net.num_params + p->text.num_params };
}

/* Text encoders that are trained lie behind padding, others do not; a policy of
 * either kind may read what the other wrote. */
static void find_second(Part *part, const int64_t *offsets)
{
    const int first = part->first->num_params;
    const ParamSet *second = part->second;
    int64_t least, behind;

    if (second == NULL || second->num_params == 0 || first == 0)
        return;
    least = part->first->params[first - 1]->value.param_offset +
            dg_tensor_count(&part->first->params[first - 1]->value);
    behind = offsets[first] - second->params[0]->value.param_offset;
    if (behind == least || behind == dg_params_aligned(least)) {
        part->num_values += behind - part->behind;
        part->behind = behind;
    }
}

static const Param *param_of(const Part *part, int i, int64_t *at)
{
    const int in_first = i < part->first->num_params;
    const Param *q = in_first
                         ? part->first->params[i]
                         : part->second->params[i - part->first->num_params];

    *at = q->value.param_offset + (in_first ? 0 : part->behind);
    return q;
}

/* A checkpoint's flat array has this policy's layout if its index of names
 * and offsets is ours: checked name by name. */
static int check_index(H5File *f, Part *part)
{
    const int64_t any = -1;
    char **names;
    int64_t num_names, *offsets;
    int err = dg_h5_read_texts(f, "parameters/name", &names, &num_names);

    if (err)
        return err;
    offsets = calloc((size_t)num_names + 1, sizeof *offsets);
    if (offsets == NULL)
        err = dg_fail(DG_ENOMEM, "parameter index");
    if (!err)
        err = dg_h5_read(f, "parameters/offset", DG_H5_I64, 1, &any, offsets);
    if (!err && num_names != part->num_params)
        err = dg_fail(
            DG_EFORMAT,
            "%s: holds %lld parameters, the configuration's network has %d",
            dg_h5_path(f), (long long)num_names, part->num_params);
    if (!err)
        find_second(part, offsets);
    for (int i = 0; i < part->num_params && !err; i++) {
        int64_t at;
        const Param *q = param_of(part, i, &at);

        if (strcmp(names[i], q->name) != 0 || offsets[i] != at)
            err = dg_fail(DG_EFORMAT,
                          "%s: parameter %d is %s at %lld, the policy has "
                          "%s at %lld",
                          dg_h5_path(f), i, names[i], (long long)offsets[i],
                          q->name, (long long)at);
    }
    free(offsets);
    dg_h5_free_texts(names);
    return err;
}

/* The first num of an array's values are the part's, in a file of which
 * nothing but its index is known: as many as expected, or any part, whole
 * and unharmed. */
static int read_values(H5File *f, const char *name, const Part *part, int whole)
{
    H5Shape shape;
    int err = dg_h5_shape(f, name, &shape);

    if (!err && (shape.num > part->num_values ||
                 (whole && shape.num < part->num_values)))
        err = dg_fail(DG_EFORMAT,
                      "%s: dataset %s: holds %lld values, the configuration's "
                      "network has %lld",
                      dg_h5_path(f), name, (long long)shape.num,
                      (long long)part->num_values);
    if (!err)
        err = dg_h5_read(f, name, DG_H5_F32, 1, &shape.num, part->values);
    return err ? err
               : dg_checkpoint_match(f, name, part->values,
                                     sizeof *part->values * (size_t)shape.num);
}

/* From where the file has them to where this policy has them. */
static void move_second(const Part *part)
{
    const int64_t here = part->first->count, text = part->second->count;

    memmove(part->values + here, part->values + part->behind,
            sizeof *part->values * (size_t)text);
    if (here > part->behind)
        memset(part->values + part->behind, 0,
               sizeof *part->values * (size_t)(here - part->behind));
}

/* Others must not stand for what was asked for. */
static int no_average(const char *path)
{
    return dg_fail(DG_EINVAL,
                   "%s: --ema: holds no averaged weights (optim.ema_decay): "
                   "must be taken without",
                   path);
}

static int read_part(Policy *p, H5File *f, int adapters, int ema)
{
    Part part = part_of(p, adapters);
    int err = check_index(f, &part);

    if (!err && ema && !dg_h5_has(f, "arrays/ema"))
        err = no_average(dg_h5_path(f));
    if (!err)
        err = read_values(f, "arrays/weights", &part, 1);
    if (!err && ema)
        err = read_values(f, "arrays/ema", &part, 0);
    if (!err && part.second != NULL && part.behind != part.first->count)
        move_second(&part);
    return err;
}

/* Adapters do not stand on adapters. */
static int check_base(const char *path)
{
    H5File *f;
    int err = dg_h5_open(&f, path, NULL, 0);

    if (err)
        return err;
    if (dg_policy_is_adapters(f))
        err =
            dg_fail(DG_EFORMAT,
                    "%s: holds adapters: must be the weights below them", path);
    dg_h5_close(f);
    return err;
}

/* The weights below a checkpoint's adapters, which must be those they were
 * trained on. Without a path they are those of the folder, there already. */
static int load_base(Policy *p, H5File *of, const char *path)
{
    int err = DG_OK;

    if (p->base_moved[0] != '\0')
        path = p->base_moved;
    p->base_path[0] = '\0';
    if (path[0] != '\0') {
        err = check_base(path);
        if (!err)
            err = dg_policy_load(p, path, 0);
    }
    if (!err)
        err =
            dg_piece_digest(p->base_pieces, p->net.values,
                            sizeof *p->values * (size_t)dg_policy_num_base(p));
    return err ? err
               : dg_policy_match_base(p, of,
                                      path[0] != '\0' ? path : "policy.path");
}

static int load_adapters(Policy *p, H5File *f, int ema)
{
    char *path = NULL;
    int err = dg_h5_get_text(f, NULL, "base_path", &path);

    if (!err && p->adapters.num_params == 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: holds adapters: needs the lora.rank of its run",
                      dg_h5_path(f));
    if (!err)
        err = read_part(p, f, 1, ema);
    if (!err)
        err = load_base(p, f, path);
    free(path);
    return err;
}

static int load_checkpoint(Policy *p, const char *path, int ema)
{
    H5File *f;
    int err = dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT, DG_CHECKPOINT_VERSION);

    if (err)
        return err;
    if (dg_policy_is_adapters(f))
        err = load_adapters(p, f, ema);
    else
        err = read_part(p, f, 0, ema);
    dg_h5_close(f);
    return err;
}

int dg_policy_load(Policy *p, const char *path, int ema)
{
    WeightTensor *list = NULL;
    H5File *f;
    char *format = NULL;
    int err = dg_h5_open(&f, path, NULL, 0);

    if (err)
        return err;
    err = dg_h5_get_text(f, NULL, "format", &format);
    dg_h5_close(f);
    if (err)
        return err;
    snprintf(p->base_path, sizeof p->base_path, "%s", path);
    if (strcmp(format, DG_CHECKPOINT_FORMAT) == 0) {
        free(format);
        return load_checkpoint(p, path, ema);
    }
    free(format);
    err = ema ? no_average(path) : list_tensors(p, &list);
    if (err)
        return err;
    err =
        dg_weights_read(path, "", list, p->net.num_params + p->text.num_params);
    free(list);
    return err;
}
