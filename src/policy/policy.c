#include "policy/policy.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/piece_digest.h"
#include "family.h"
#include "folder.h"
#include "store/checkpoint.h"
#include "store/h5.h"
#include "store/weights_file.h"
#include "tensor/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Networks and the index of their parameters. */
static int outline(Policy *p, const Config *c, int net_id)
{
    int err = dg_params_init(&p->net, net_id);

    if (!err)
        err = dg_params_init(&p->text, DG_PARAMS_TEXT);
    if (!err)
        err = dg_params_init(&p->adapters, DG_PARAMS_LORA);
    memcpy(p->base_moved, c->lora.base, sizeof p->base_moved);
    if (!err && c->lora.rank > 0) {
        err = dg_lora_init(&p->lora, &p->adapters, c->lora.rank, c->lora.alpha,
                           &c->lora.targets);
        p->net.lora = &p->lora;
    }
    if (!err)
        err = dg_policy_family_of(c->policy.kind)->create(p, c);
    if (!err && c->policy.draw_all)
        dg_params_draw_zeros(&p->net);
    if (!err && c->lora.rank > 0)
        err = dg_lora_check(&p->lora);
    return err;
}

static int64_t num_adapters(const Policy *p)
{
    return (p->adapters.count + DG_PARAM_ALIGN - 1) / DG_PARAM_ALIGN *
           DG_PARAM_ALIGN;
}

/* values  memory to adopt, or NULL */
static int place(Policy *p, float *values)
{
    float *base;
    int err;

    p->owns_values = values == NULL;
    if (values == NULL)
        values = dg_memory_new(sizeof *values * (size_t)p->num_values);
    if (values == NULL)
        return dg_fail(DG_ENOMEM, "policy: %lld parameters",
                       (long long)p->num_values);
    p->values = p->at = values;
    base = values + num_adapters(p);
    err = dg_params_allocate(&p->adapters, values);
    if (!err)
        err = dg_params_allocate(&p->net, base);
    return err ? err : dg_params_allocate(&p->text, base + p->net.count);
}

/* What of it has memory. */
typedef enum Extent { ALL, NOTHING, ENCODERS } Extent;

static int create(Policy **out, const Config *c, int net_id, float *values,
                  Extent extent)
{
    Policy *p = calloc(1, sizeof *p);
    int err;

    if (p == NULL)
        return dg_fail(DG_ENOMEM, "policy");
    p->outline = extent != ALL;
    p->dtype = c->run.dtype == DG_STORE_BFLOAT16 ? DG_BF16 : DG_F32;
    err = outline(p, c, net_id);
    p->num_values = num_adapters(p) + dg_policy_num_base(p);
    if (!err && extent == ALL)
        err = place(p, values);
    else if (!err && extent == ENCODERS)
        err = dg_params_allocate(&p->text, NULL);
    else if (!err) /* what is planned is what will be placed */
        dg_policy_point(p, NULL);
    if (err) {
        dg_policy_destroy(p);
        return err;
    }
    *out = p;
    return DG_OK;
}

int dg_policy_create(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, ALL);
}

int dg_policy_outline(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, NOTHING);
}

int dg_policy_encoders(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, ENCODERS);
}

/* Where kernels read it, as p is placed. */
static int place_reference(Policy **out, const Policy *p)
{
    int err;

    dg_policy_leave_text(*out);
    err = dg_policy_place_as(*out, p);
    if (err) {
        dg_policy_destroy(*out);
        *out = NULL;
    }
    return err;
}

int dg_policy_reference(Policy **out, const Policy *p, const Config *c)
{
    Config base = *c;
    int err;

    base.lora.rank = 0;
    if (p->adapters.num_params > 0) {
        err = create(out, &base, DG_PARAMS_REFERENCE, p->net.values, ALL);
        if (!err) /* p's own copy, if there is one; or somebody lends it */
            dg_policy_point(
                *out,
                p->held ? NULL : dg_policy_at(p, p->net.values - p->values));
        return err;
    }
    err = create(out, &base, DG_PARAMS_REFERENCE, NULL, ALL);
    if (err)
        return err;
    memcpy((*out)->values + p->held_net.first, p->values + p->held_net.first,
           sizeof *p->values *
               (size_t)(p->held ? p->held_net.num : p->num_values));
    return place_reference(out, p);
}

int dg_policy_reference_placed(Policy **out, const Policy *p, const Config *c)
{
    int err;

    if (p->adapters.num_params > 0 || p->on == NULL)
        return dg_policy_reference(out, p, c);
    err = create(out, c, DG_PARAMS_REFERENCE, p->values, 0);
    return err ? err : place_reference(out, p);
}

void dg_policy_destroy(Policy *p)
{
    if (p == NULL)
        return;
    if (p->impl != NULL)
        p->impl->family->destroy(p);
    dg_params_fini(&p->net);
    dg_params_fini(&p->text);
    dg_params_fini(&p->adapters);
    if (p->owns_values)
        free(p->values);
    if (p->on != NULL) {
        p->on->give(p->at);
        p->on->give(p->stored);
    }
    free(p);
}

const ParamSet *dg_policy_trained(const Policy *p)
{
    return p->adapters.num_params > 0 ? &p->adapters : &p->net;
}

static const Param *find_value(const ParamSet *set, int64_t at)
{
    for (int i = 0; i < set->num_params; i++) {
        const Tensor *t = &set->params[i]->value;

        if (at >= t->param_offset && at < t->param_offset + dg_tensor_count(t))
            return set->params[i];
    }
    return NULL;
}

int dg_policy_name_gradient(const Policy *p, int64_t at, int err)
{
    const ParamSet *set = dg_policy_trained(p);
    const int in_text = set == &p->net && at >= set->count;
    const Param *q =
        in_text ? find_value(&p->text, at - set->count) : find_value(set, at);
    char reason[256];

    if (err != DG_ENUMERIC || q == NULL)
        return err;
    snprintf(reason, sizeof reason, "%.250s", dg_last_error()->text);
    return dg_fail(err, "%s: %s", q->name, reason);
}

void dg_policy_drop_text(Policy *p)
{
    dg_memory_drop(p->text.values, sizeof(float) * (size_t)p->text.count);
    p->text_dropped = 1;
}

void dg_policy_as_teacher(Policy *p)
{
    dg_params_rename(&p->net, DG_PARAMS_TEACHER);
    dg_params_rename(&p->text, DG_PARAMS_TEACHER_TEXT);
}

void dg_policy_leave_text(Policy *p)
{
    p->text_left = 1;
}

int64_t dg_policy_num_base(const Policy *p)
{
    return p->net.count + p->text.count;
}

void dg_policy_draw(Policy *p, uint64_t seed)
{
    dg_params_draw(&p->net, seed);
    /* the text encoders' parameters have indices of their own: another seed
     * keeps equal indices from drawing equal values */
    dg_params_draw(&p->text, seed ^ 0x9E3779B97F4A7C15u);
    dg_policy_draw_adapters(p, seed);
}

void dg_policy_draw_adapters(Policy *p, uint64_t seed)
{
    dg_params_draw_lora(&p->adapters, seed);
}

static int adopt_lora(LoraConfig *to, const LoraConfig *stored,
                      const char *path)
{
    if (to->rank > 0 &&
        (to->rank != stored->rank || to->alpha != stored->alpha))
        return dg_fail(DG_EINVAL,
                       "%s: adapters of lora.rank = %lld, alpha = %g: must be "
                       "those of the configuration, %lld, %g",
                       path, (long long)stored->rank, stored->alpha,
                       (long long)to->rank, to->alpha);
    if (to->rank > 0 &&
        memcmp(&to->targets, &stored->targets, sizeof to->targets) != 0)
        return dg_fail(DG_EINVAL,
                       "%s: its adapters' lora.targets are not those of the "
                       "configuration",
                       path);
    to->rank = stored->rank;
    to->alpha = stored->alpha;
    to->targets = stored->targets;
    return DG_OK;
}

int dg_policy_adopt_sizes(Config *c, const char *path)
{
    char *text = NULL;
    H5File *f;
    Config stored;
    int adapters, err;

    err = dg_h5_open(&f, path, NULL, 0);
    if (err)
        return err;
    adapters = dg_policy_is_adapters(f);
    err = dg_h5_get_text(f, NULL, "config", &text);
    dg_h5_close(f);
    if (err)
        return err;
    dg_config_defaults(&stored);
    err = dg_config_parse(&stored, text, path);
    free(text);
    if (err)
        return err;
    c->policy.kind = stored.policy.kind;
    if (c->policy.path[0] == '\0')
        memcpy(c->policy.path, stored.policy.path, sizeof c->policy.path);
    c->policy.prediction = stored.policy.prediction;
    c->policy.text_length = stored.policy.text_length;
    c->policy.latent_scale = stored.policy.latent_scale;
    c->policy.codec = stored.policy.codec;
    c->flux = stored.flux;
    c->unet = stored.unet;
    c->t5 = stored.t5;
    c->clip = stored.clip;
    c->pretrain.image_size = stored.pretrain.image_size;
    /* networks of a folder paint any size */
    if (c->policy.height == 0)
        c->policy.height = stored.policy.height;
    if (c->policy.width == 0)
        c->policy.width = stored.policy.width;
    return adapters ? adopt_lora(&c->lora, &stored.lora, path) : DG_OK;
}

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
    int64_t num_values;
    int num_params;
} Part;

static Part part_of(Policy *p, int adapters)
{
    if (adapters)
        return (Part) { &p->adapters, NULL, p->adapters.values,
                        p->adapters.count, p->adapters.num_params };
    return (Part) { &p->net, &p->text, p->net.values, dg_policy_num_base(p),
                    p->net.num_params + p->text.num_params };
}

static const Param *param_of(const Part *part, int i, int64_t *at)
{
    const int in_first = i < part->first->num_params;
    const Param *q = in_first
                         ? part->first->params[i]
                         : part->second->params[i - part->first->num_params];

    *at = q->value.param_offset + (in_first ? 0 : part->first->count);
    return q;
}

/* A checkpoint's flat array has this policy's layout if its index of names
 * and offsets is ours: checked name by name. */
static int check_index(H5File *f, const Part *part)
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
        err = dg_fail(DG_EFORMAT, "%s: %lld parameters, the policy has %d",
                      dg_h5_path(f), (long long)num_names, part->num_params);
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
                      "%s: dataset %s: %lld values, the policy has %lld",
                      dg_h5_path(f), name, (long long)shape.num,
                      (long long)part->num_values);
    if (!err)
        err = dg_h5_read(f, name, DG_H5_F32, 1, &shape.num, part->values);
    return err ? err
               : dg_checkpoint_match(f, name, part->values,
                                     sizeof *part->values * (size_t)shape.num);
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
    const Part part = part_of(p, adapters);
    int err = check_index(f, &part);

    if (!err && ema && !dg_h5_has(f, "arrays/ema"))
        err = no_average(dg_h5_path(f));
    if (!err)
        err = read_values(f, "arrays/weights", &part, 1);
    if (!err && ema)
        err = read_values(f, "arrays/ema", &part, 0);
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

int dg_policy_load_folder(Policy *p, const Comm *comm, int all)
{
    const PolicyFamily *family = p->impl->family;

    return family->load != NULL ? family->load(p, comm, all) : DG_OK;
}

int dg_policy_tokenize_cut(const Policy *p, const char *prompt, int32_t *ids_t5,
                           int32_t *ids_clip, int *cut)
{
    *cut = 0;
    return p->impl->family->tokenize(p, prompt, ids_t5, ids_clip, cut);
}

int dg_policy_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                       int32_t *ids_clip)
{
    int cut;

    return dg_policy_tokenize_cut(p, prompt, ids_t5, ids_clip, &cut);
}

int dg_policy_schedule(const Policy *p, Schedule *out, int num_steps,
                       double shift)
{
    if (p->shape.prediction == DG_PREDICT_EPSILON)
        return dg_schedule_init_ddim(out, num_steps);
    return dg_schedule_init_flow(out, num_steps,
                                 shift == 0 ? p->shape.auto_shift : shift);
}

int dg_policy_decode(const Policy *p, Context *ctx, const float *latent,
                     float *rgb)
{
    return p->impl->family->decode(p, ctx, latent, rgb);
}

int dg_policy_codes(const Policy *p)
{
    const PolicyFamily *family = p->impl->family;

    return family->code != NULL && (family->codes == NULL || family->codes(p));
}

void dg_policy_code(const Policy *p, const float *rgb, float *latent)
{
    p->impl->family->code(p, rgb, latent);
}
