/* A policy's weights as folders that diffusers loads. */
#define _GNU_SOURCE /* asprintf */
#include "policy/export.h"

#include "base/error.h"
#include "base/out_folder.h"
#include "family.h"
#include "store/checkpoint.h"
#include "store/file.h"
#include "store/h5.h"
#include "store/weights_file.h"
#include "weights/model_config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char index_name[] = "model_index.json";

int dg_export_look(ExportSource *out, const char *path)
{
    char *format = NULL;
    H5File *f;
    int err = dg_h5_open(&f, path, NULL, 0);

    if (err)
        return err;
    err = dg_h5_get_text(f, NULL, "format", &format);
    if (!err && strcmp(format, DG_CHECKPOINT_FORMAT) != 0 &&
        strcmp(format, DG_WEIGHTS_FORMAT) != 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: a \"%s\" file: must be a checkpoint or weights",
                      path, format);
    if (!err)
        *out = (ExportSource) { dg_policy_is_adapters(f),
                                dg_h5_has(f, "arrays/ema") };
    free(format);
    dg_h5_close(f);
    return err;
}

/* Tensors --------------------------------------------------------------- */

/* The tensors of a set without the first bytes of their names; to free. */
static int list_tensors(WeightOut **out, const ParamSet *set, WeightType type,
                        size_t skip)
{
    WeightOut *list = calloc((size_t)set->num_params, sizeof *list);

    if (list == NULL)
        return dg_fail(DG_ENOMEM, "export: list of %d tensors",
                       set->num_params);
    for (int i = 0; i < set->num_params; i++) {
        const Param *q = set->params[i];

        list[i] = (WeightOut) { .name = q->name + skip,
                                .type = type,
                                .num_dims = q->value.num_dims,
                                .data = q->value.data };
        memcpy(list[i].dims, q->value.dims, sizeof q->value.dims);
    }
    *out = list;
    return DG_OK;
}

static int save(const char *folder, const char *stem, const ExportOpts *o,
                const WeightOut *list, int num)
{
    const SafetensorsOpts s = { .folder = folder,
                                .stem = stem,
                                .max_shard_bytes = o->max_shard_bytes,
                                .note_key = "format",
                                .note = "pt" };

    return dg_safetensors_save(&s, list, num);
}

/* A as it is, B times the scale, for readers whose scale is 1. */
static int write_adapters(const Policy *p, const ExportOpts *o,
                          const char *folder)
{
    const ParamSet *set = &p->adapters;
    float *values = malloc(sizeof *values * (size_t)set->count);
    WeightOut *list = NULL;
    int err = values != NULL
                  ? list_tensors(&list, set, o->type, 0)
                  : dg_fail(DG_ENOMEM, "export: %lld values of adapters",
                            (long long)set->count);

    for (int i = 0; i < set->num_params && !err; i++) {
        const Tensor *t = &set->params[i]->value;
        float *to = values + t->param_offset;
        const float scale = i % 2 == 0 ? 1 : p->lora.scale;

        for (int64_t k = 0; k < dg_tensor_count(t); k++)
            to[k] = scale * dg_tensor_f32(t)[k];
        list[i].data = to;
    }
    if (!err)
        err = save(folder, "pytorch_lora_weights", o, list, set->num_params);
    free(list);
    free(values);
    return err;
}

/* The network's folder --------------------------------------------------- */

static int join(char **out, const char *folder, const char *name)
{
    if (asprintf(out, "%s/%s", folder, name) >= 0)
        return DG_OK;
    *out = NULL;
    return dg_fail(DG_ENOMEM, "%s/%s: its name", folder, name);
}

/* The file that a folder of weights came with, or else one of its own. */
static int write_config(const Policy *p, const Config *c, const char *folder)
{
    const PolicyFamily *family = p->impl->family;
    char *to = NULL, *from = NULL, *text = NULL;
    size_t bytes;
    FILE *out;
    int err = join(&to, folder, "config.json");

    if (!err && c->policy.path[0] != '\0') {
        if (asprintf(&from, "%s/%s/config.json", c->policy.path,
                     family->component) < 0)
            err = dg_fail(DG_ENOMEM, "%s: its name", to);
        else
            err = dg_out_copy_file(from, to);
    } else if (!err) {
        out = open_memstream(&text, &bytes);
        if (out != NULL)
            family->describe(c, out);
        if (out == NULL || fclose(out) != 0)
            err = dg_fail(DG_ENOMEM, "%s: its text", to);
        else
            err = dg_file_write(to, text, bytes);
    }
    free(text);
    free(from);
    free(to);
    return err;
}

static int write_network(const Policy *p, const Config *c, const ExportOpts *o,
                         const char *folder)
{
    const size_t skip = strlen(p->impl->family->component) + 1;
    WeightOut *list = NULL;
    int err = list_tensors(&list, &p->net, o->type, skip);

    if (err)
        return err;
    err = write_config(p, c, folder);
    if (!err)
        err =
            save(folder, "diffusion_pytorch_model", o, list, p->net.num_params);
    free(list);
    return err;
}

/* The pipeline's --------------------------------------------------------- */

static int add_part(const char *pipeline, const char *part, const char *folder,
                    ExportRest how)
{
    char *from = NULL, *to = NULL, *whole;
    int err = join(&from, pipeline, part);

    if (!err)
        err = join(&to, folder, part);
    if (!err && how == DG_EXPORT_COPY) {
        err = dg_out_copy_folder(from, to);
    } else if (!err) {
        whole = realpath(from, NULL);
        if (whole == NULL)
            err = dg_fail(DG_EIO, "%s: cannot find: %s", from, strerror(errno));
        else if (symlink(whole, to) != 0)
            err = dg_fail(DG_EIO, "%s: cannot link: %s", to, strerror(errno));
        free(whole);
    }
    free(from);
    free(to);
    return err;
}

/* 1 for "NAME": ["library", "class"]; null for both says there is none. */
static int is_part(const ModelConfig *index, const char *name)
{
    const char *text;
    int num;
    const int is = dg_model_config_num_texts(index, name, &num) == DG_OK &&
                   num == 2 &&
                   dg_model_config_text_at(index, name, 0, &text) == DG_OK;

    dg_clear_error();
    return is;
}

static int add_parts(const Policy *p, const char *pipeline, const char *folder,
                     ExportRest how)
{
    const char *own = p->impl->family->component, *name;
    char *from = NULL, *to = NULL;
    ModelConfig *index = NULL;
    int err = join(&from, pipeline, index_name), there = 0;

    if (!err)
        err = join(&to, folder, index_name);
    if (!err)
        err = dg_model_config_open(&index, from);
    for (int i = 0; !err && (name = dg_model_config_key(index, i)) != NULL;
         i++) {
        if (!is_part(index, name))
            continue;
        there |= strcmp(name, own) == 0;
        if (strcmp(name, own) != 0)
            err = add_part(pipeline, name, folder, how);
    }
    if (!err && !there)
        err = dg_fail(DG_EFORMAT, "%s: names no %s", from, own);
    if (!err)
        err = dg_out_copy_file(from, to);
    dg_model_config_close(index);
    free(from);
    free(to);
    return err;
}

static int write_pipeline(const Policy *p, const Config *c, const ExportOpts *o,
                          const char *folder)
{
    char *own;
    int err = join(&own, folder, p->impl->family->component);

    if (err)
        return err;
    if (mkdir(own, 0777) != 0)
        err = dg_fail(DG_EIO, "%s: cannot create: %s", own, strerror(errno));
    if (!err)
        err = write_network(p, c, o, own);
    if (!err)
        err = add_parts(p, c->policy.path, folder, o->rest);
    free(own);
    return err;
}

int dg_policy_export(const Policy *p, const Config *c, const ExportOpts *o)
{
    OutFolder *f;
    int err;

    if (o->adapters && p->adapters.num_params == 0)
        return dg_fail(DG_EINVAL, "export: the policy has no adapters");
    if (o->rest != DG_EXPORT_ALONE &&
        (o->adapters || c->policy.path[0] == '\0'))
        return dg_fail(DG_EINVAL, "export: a whole pipeline needs a network "
                                  "that came from one (policy.path)");
    err = dg_out_folder_open(&f, o->folder);
    if (err)
        return err;
    if (o->adapters)
        err = write_adapters(p, o, dg_out_folder_path(f));
    else if (o->rest == DG_EXPORT_ALONE)
        err = write_network(p, c, o, dg_out_folder_path(f));
    else
        err = write_pipeline(p, c, o, dg_out_folder_path(f));
    if (err)
        dg_out_folder_abandon(f);
    else
        err = dg_out_folder_commit(f);
    return err;
}
