#include "policy/policy.h"

#include "base/error.h"
#include "base/memory.h"
#include "family.h"
#include "folder.h"
#include "store/h5.h"
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
        err = dg_lora_init(&p->lora, &p->adapters, &c->lora);
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
    return dg_params_aligned(p->adapters.count);
}

/* Values for which there is memory: the network may yet be padded. */
static size_t num_reserved(const Policy *p)
{
    return (size_t)p->num_values + DG_PARAM_ALIGN - 1;
}

/* values  memory to adopt, or NULL */
static int place(Policy *p, float *values)
{
    float *base;
    int err;

    p->owns_values = values == NULL;
    if (values == NULL)
        values = dg_memory_new(sizeof *values * num_reserved(p));
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
typedef enum Extent { ALL, NOTHING, SIZES, ENCODERS, DECODER } Extent;

/* Sizes and names, no memory. */
static int begin(Policy **out, const Config *c, int net_id, Extent extent)
{
    Policy *p = calloc(1, sizeof *p);
    int err;

    if (p == NULL)
        return dg_fail(DG_ENOMEM, "policy");
    p->outline = extent != ALL;
    p->strict = extent == SIZES;
    p->dtype = c->run.dtype == DG_STORE_BFLOAT16 ? DG_BF16 : DG_F32;
    err = outline(p, c, net_id);
    p->num_values = num_adapters(p) + dg_policy_num_base(p);
    if (err) {
        dg_policy_destroy(p);
        return err;
    }
    *out = p;
    return DG_OK;
}

static int create(Policy **out, const Config *c, int net_id, float *values,
                  Extent extent)
{
    Policy *p = NULL;
    int err = begin(&p, c, net_id, extent);

    if (err)
        return err;
    if (extent == ALL)
        err = place(p, values);
    else if (extent == ENCODERS)
        err = dg_params_allocate(&p->text, NULL);
    else /* what is planned is what will be placed */
        dg_policy_point(p, NULL, 1);
    if (!err && extent == DECODER && p->codec != NULL)
        err = dg_params_allocate(p->codec, NULL);
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

static int create_on_node(Policy **out, const Config *c, int net_id,
                          Extent extent, const Comm *comm)
{
    Policy *p = NULL;
    int err = dg_agree(comm, begin(&p, c, net_id, extent));
    void *at;

    if (!err)
        err = dg_node_memory_new(
            &p->together, comm,
            sizeof *p->values *
                (extent == ALL ? num_reserved(p) : (size_t)p->text.count));
    if (!err) {
        at = dg_node_memory_at(p->together);
        err = dg_agree(comm, extent == ALL ? place(p, at)
                                           : dg_params_allocate(&p->text, at));
    }
    if (err) {
        dg_policy_destroy(p);
        return err;
    }
    p->net.together = p->text.together = dg_node_memory_together(p->together);
    *out = p;
    return DG_OK;
}

int dg_policy_create_on_node(Policy **out, const Config *c, const Comm *comm)
{
    return create_on_node(out, c, DG_PARAMS_NET, ALL, comm);
}

int dg_policy_fills(const Policy *p)
{
    return p->together == NULL || dg_node_memory_fills(p->together);
}

int dg_policy_publish(Policy *p, const Comm *comm)
{
    p->net.together = p->text.together = 0;
    return p->together != NULL ? dg_node_memory_publish(p->together, comm)
                               : DG_OK;
}

int dg_policy_outline(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, NOTHING);
}

int dg_policy_sizes(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, SIZES);
}

int dg_policy_encoders(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, ENCODERS);
}

int dg_policy_encoders_on_node(Policy **out, const Config *c, const Comm *comm)
{
    return create_on_node(out, c, DG_PARAMS_NET, ENCODERS, comm);
}

int dg_policy_decoder(Policy **out, const Config *c)
{
    return create(out, c, DG_PARAMS_NET, NULL, DECODER);
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

/* The values that p has on the host. */
static void copy_held(Policy *out, const Policy *p)
{
    memcpy(out->values + p->held_net.first, p->values + p->held_net.first,
           sizeof *p->values *
               (size_t)(p->held ? p->held_net.num : p->num_values));
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
                p->held ? NULL : dg_policy_at(p, p->net.values - p->values),
                p->on != NULL);
        return err;
    }
    err = create(out, &base, DG_PARAMS_REFERENCE, NULL, ALL);
    if (err)
        return err;
    copy_held(*out, p);
    return place_reference(out, p);
}

int dg_policy_reference_on_node(Policy **out, const Policy *p, const Config *c,
                                const Comm *comm)
{
    int err;

    if (p->together == NULL || p->adapters.num_params > 0)
        return dg_agree(comm, dg_policy_reference(out, p, c));
    err = create_on_node(out, c, DG_PARAMS_REFERENCE, ALL, comm);
    if (err)
        return err;
    (*out)->frozen = 1;
    /* what p has dropped reads as before: of all ranges */
    if ((*out)->net.together && dg_policy_fills(*out))
        memcpy((*out)->values, p->values,
               sizeof *p->values * (size_t)p->num_values);
    else if (!(*out)->net.together)
        copy_held(*out, p);
    err = dg_policy_publish(*out, comm);
    if (!err)
        err = dg_agree(comm, place_reference(out, p));
    if (err) {
        dg_policy_destroy(*out);
        *out = NULL;
    }
    return err;
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
    dg_node_memory_free(p->together);
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

void dg_policy_train_text(Policy *p)
{
    p->trains_text = 1;
    dg_params_pad(&p->net);
    p->num_values = num_adapters(p) + dg_policy_num_base(p);
    if (p->values == NULL)
        return;
    p->text.values = p->net.values + p->net.count;
    dg_params_point(&p->text, p->text.values, DG_F32);
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
