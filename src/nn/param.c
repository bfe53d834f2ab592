#include "nn/param.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int dg_params_init(ParamSet *s, int id)
{
    *s = (ParamSet) { .id = id };
    return DG_OK;
}

void dg_params_fini(ParamSet *s)
{
    for (int i = 0; i < s->num_params; i++)
        free(s->params[i]);
    free(s->params);
    free(s->groups);
    if (s->owns_values)
        free(s->values);
    *s = (ParamSet) { 0 };
}

void dg_params_rename(ParamSet *s, int id)
{
    s->id = id;
    for (int i = 0; i < s->num_params; i++)
        s->params[i]->value.param_set = id;
}

static int grow(ParamSet *s)
{
    const int cap = s->cap_params ? 2 * s->cap_params : 64;
    Param **p;

    if (s->num_params < s->cap_params)
        return DG_OK;
    p = realloc(s->params, (size_t)cap * sizeof *p);
    if (p == NULL)
        return dg_fail(DG_ENOMEM, "parameter index of %d entries", cap);
    s->params = p;
    s->cap_params = cap;
    return DG_OK;
}

int dg_params_group(ParamSet *s)
{
    const int cap = s->cap_groups ? 2 * s->cap_groups : 64;

    if (s->num_groups == s->cap_groups) {
        ParamGroup *more = realloc(s->groups, (size_t)cap * sizeof *more);

        if (more == NULL)
            return dg_fail(DG_ENOMEM, "parameter groups, %d of them", cap);
        s->groups = more;
        s->cap_groups = cap;
    }
    s->groups[s->num_groups++] = (ParamGroup) { .first_param = s->num_params };
    s->grouping = 1;
    return DG_OK;
}

void dg_params_group_end(ParamSet *s)
{
    s->grouping = 0;
}

int64_t dg_params_aligned(int64_t count)
{
    return (count + DG_PARAM_ALIGN - 1) / DG_PARAM_ALIGN * DG_PARAM_ALIGN;
}

/* The parameter just added, into the last group. */
static void join_group(ParamSet *s, Tensor *t)
{
    ParamGroup *g = &s->groups[s->num_groups - 1];

    if (g->num_params++ == 0) {
        g->first = t->param_offset;
        g->rest = dg_params_rest_at(s, t->param_offset);
    }
    g->num = dg_params_aligned(t->param_offset + dg_tensor_count(t)) - g->first;
    t->param_group = s->num_groups;
}

int64_t dg_params_rest_at(const ParamSet *s, int64_t offset)
{
    int64_t at = offset;

    for (int i = 0; i < s->num_groups && s->groups[i].first < offset; i++)
        at -= s->groups[i].num;
    return at;
}

int64_t dg_params_rest(const ParamSet *s)
{
    return dg_params_rest_at(s, dg_params_aligned(s->count));
}

int64_t dg_params_largest(const ParamSet *s)
{
    int64_t most = 0;

    for (int i = 0; i < s->num_groups; i++)
        if (s->groups[i].num > most)
            most = s->groups[i].num;
    return most;
}

static int check_new(const ParamSet *s, const char *name, int num_dims,
                     const int64_t *dims)
{
    if (strlen(name) >= DG_PARAM_NAME)
        return dg_fail(DG_EINVAL, "parameter %s: name of more than %d bytes",
                       name, DG_PARAM_NAME - 1);
    if (dg_params_find(s, name) != NULL)
        return dg_fail(DG_EINVAL, "parameter %s: already there", name);
    if (s->values != NULL)
        return dg_fail(DG_EINVAL, "parameter %s: the set is allocated", name);
    if (num_dims < 1 || num_dims > DG_MAX_DIMS)
        return dg_fail(DG_EINVAL, "parameter %s: %d dims, allowed 1 to %d",
                       name, num_dims, DG_MAX_DIMS);
    for (int i = 0; i < num_dims; i++)
        if (dims[i] < 1)
            return dg_fail(DG_EINVAL, "parameter %s: dim %d is %lld", name, i,
                           (long long)dims[i]);
    return DG_OK;
}

Tensor *dg_params_add(ParamSet *s, const char *name, ParamInit init,
                      int num_dims, const int64_t *dims)
{
    const int64_t at = dg_params_aligned(s->count);
    Param *p;

    if (check_new(s, name, num_dims, dims) || grow(s))
        return NULL;
    p = calloc(1, sizeof *p);
    if (p == NULL) {
        dg_fail(DG_ENOMEM, "parameter %s", name);
        return NULL;
    }
    memcpy(p->name, name, strlen(name) + 1);
    p->init = init;
    p->value.dtype = DG_F32;
    p->value.num_dims = num_dims;
    memcpy(p->value.dims, dims, (size_t)num_dims * sizeof *dims);
    p->value.param_set = s->id;
    p->value.param_offset = at;
    s->params[s->num_params++] = p;
    s->count = at + dg_tensor_count(&p->value);
    if (s->grouping)
        join_group(s, &p->value);
    return &p->value;
}

Tensor *dg_params_add_normal(ParamSet *s, const char *name, float std,
                             int num_dims, const int64_t *dims)
{
    Tensor *t = dg_params_add(s, name, DG_INIT_NORMAL, num_dims, dims);

    if (t != NULL)
        s->params[s->num_params - 1]->std = std;
    return t;
}

void dg_params_pad(ParamSet *s)
{
    s->count = dg_params_aligned(s->count);
}

int dg_params_allocate(ParamSet *s, float *values)
{
    const size_t bytes = (size_t)(s->count ? s->count : 1) * sizeof(float);

    if (s->values != NULL)
        return dg_fail(DG_EINVAL, "parameter set %d: allocated twice", s->id);
    s->owns_values = values == NULL;
    if (values == NULL) {
        values = dg_memory_new(bytes);
        if (values == NULL)
            return dg_fail(DG_ENOMEM, "parameter set %d: %zu bytes", s->id,
                           bytes);
    }
    s->values = values;
    dg_params_point(s, values, DG_F32);
    return DG_OK;
}

void dg_params_point(ParamSet *s, void *at, DType dtype)
{
    for (int i = 0; i < s->num_params; i++) {
        Tensor *t = &s->params[i]->value;

        t->dtype = dtype;
        t->data = at != NULL
                      ? (char *)at + t->param_offset * dg_dtype_bytes(dtype)
                      : NULL;
    }
}

void dg_params_point_group(ParamSet *s, int group, void *at, DType dtype)
{
    for (int i = 0; i < s->num_params; i++) {
        Tensor *t = &s->params[i]->value;
        const int64_t place = group > 0
                                  ? t->param_offset - s->groups[group - 1].first
                                  : dg_params_rest_at(s, t->param_offset);

        if (t->param_group != group)
            continue;
        t->dtype = dtype;
        t->data =
            at != NULL ? (char *)at + place * dg_dtype_bytes(dtype) : NULL;
    }
}

/* values to bfloat16 of kernel memory, by way of a small part of it */
static int upload_narrowed(void *at, const ParamSet *s, const Backend *backend)
{
    enum { PART = 1 << 20 };
    void *part;
    int err = backend->take(&part, PART * sizeof *s->values);

    if (err)
        return err;
    for (int64_t i = 0; i < s->count; i += PART) {
        const int64_t n = s->count - i < PART ? s->count - i : PART;

        backend->upload(part, s->values + i, sizeof *s->values * (size_t)n);
        backend->cast((char *)at + i * dg_dtype_bytes(DG_BF16), DG_BF16, part,
                      DG_F32, n);
    }
    backend->give(part);
    return DG_OK;
}

int dg_params_place(void **at, ParamSet *s, const Backend *backend, DType dtype)
{
    void *to;
    int err = backend->take(&to, (size_t)(dg_dtype_bytes(dtype) * s->count));

    if (err)
        return err;
    if (dtype == DG_BF16)
        err = upload_narrowed(to, s, backend);
    else
        backend->upload(to, s->values, sizeof *s->values * (size_t)s->count);
    if (err) {
        backend->give(to);
        return err;
    }
    dg_params_point(s, to, dtype);
    *at = to;
    return DG_OK;
}

static int64_t fan_in(const Tensor *t)
{
    return t->num_dims > 1 ? dg_tensor_count(t) / t->dims[0] : t->dims[0];
}

/* Elements that a thread draws at once: 12 billion are a minute's work of one. */
enum { DRAWN = 1 << 16 };

static void draw_normal(float *out, int64_t n, const RngKey *k, double std)
{
#pragma omp parallel for schedule(static) if (n > DRAWN)
    for (int64_t at = 0; at < n; at += DRAWN) {
        const int64_t end = n - at < DRAWN ? n : at + DRAWN;

        dg_rng_normal(out + at, at, end - at, k);
        for (int64_t i = at; i < end; i++)
            out[i] = (float)(std * out[i]);
    }
}

static void draw_uniform(float *out, int64_t n, const RngKey *k, double bound)
{
#pragma omp parallel for schedule(static) if (n > DRAWN)
    for (int64_t at = 0; at < n; at += DRAWN) {
        const int64_t end = n - at < DRAWN ? n : at + DRAWN;

        dg_rng_uniform(out + at, at, end - at, k);
        for (int64_t i = at; i < end; i++)
            out[i] = (float)(bound * (2.0 * out[i] - 1.0));
    }
}

static void draw_xavier(Tensor *t, const RngKey *k)
{
    const int64_t n = dg_tensor_count(t), in = fan_in(t);
    const int64_t out = t->num_dims > 1 ? n / t->dims[1] : t->dims[0];

    draw_uniform(t->data, n, k, sqrt(6.0 / (double)(in + out)));
}

static void draw_param(Param *p, const RngKey *k)
{
    const int64_t n = dg_tensor_count(&p->value);
    float *v = p->value.data;

    switch (p->init) {
    case DG_INIT_ZERO:
        memset(v, 0, (size_t)n * sizeof *v);
        break;
    case DG_INIT_ONE:
        for (int64_t i = 0; i < n; i++)
            v[i] = 1.0f;
        break;
    case DG_INIT_XAVIER:
        draw_xavier(&p->value, k);
        break;
    case DG_INIT_NORMAL_FAN:
        draw_normal(v, n, k, 1.0 / sqrt((double)fan_in(&p->value)));
        break;
    case DG_INIT_NORMAL:
        draw_normal(v, n, k, p->std);
        break;
    case DG_INIT_UNIFORM_FAN:
        draw_uniform(v, n, k, 1.0 / sqrt((double)fan_in(&p->value)));
        break;
    }
}

static void draw(ParamSet *s, uint64_t seed, RngPurpose purpose)
{
    for (int i = 0; i < s->num_params; i++) {
        const RngKey k = { .seed = seed,
                           .purpose = purpose,
                           .iteration = (uint32_t)s->id,
                           .prompt = (uint32_t)i };

        draw_param(s->params[i], &k);
    }
}

void dg_params_draw_zeros(ParamSet *s)
{
    for (int i = 0; i < s->num_params; i++)
        if (s->params[i]->init == DG_INIT_ZERO)
            s->params[i]->init = DG_INIT_NORMAL_FAN;
}

void dg_params_draw(ParamSet *s, uint64_t seed)
{
    draw(s, seed, DG_RNG_WEIGHT_INIT);
}

void dg_params_draw_lora(ParamSet *s, uint64_t seed)
{
    draw(s, seed, DG_RNG_LORA_INIT);
}

static uint64_t fnv1a(const char *key)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *key != '\0'; key++)
        h = (h ^ (unsigned char)*key) * 0x100000001b3u;
    return h;
}

/* out = offset + factor u */
static void golden_fill(float *out, int64_t count, const char *key,
                        double factor, double offset)
{
    const uint64_t h = fnv1a(key);

    for (int64_t i = 0; i < count; i++) {
        uint64_t z = h + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;

        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        out[i] = (float)(offset + factor * ((double)(z >> 40) / 0x1p24 - 0.5));
    }
}

static int ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

void dg_params_fill_golden(ParamSet *s, const char *skip_prefix)
{
    const size_t skip = skip_prefix != NULL ? strlen(skip_prefix) : 0;

    for (int i = 0; i < s->num_params; i++) {
        Param *p = s->params[i];
        const int64_t n = dg_tensor_count(&p->value);
        const char *key = p->name;

        if (skip && strncmp(key, skip_prefix, skip) == 0)
            key += skip;
        if (p->value.num_dims > 1)
            golden_fill(p->value.data, n, key,
                        sqrt(12.0 / (double)fan_in(&p->value)), 0);
        else
            golden_fill(p->value.data, n, key, 0.2,
                        ends_with(key, ".bias") ? 0 : 1);
    }
}

void dg_golden_input(float *out, int64_t count, const char *key)
{
    golden_fill(out, count, key, sqrt(12.0), 0);
}

Param *dg_params_find(const ParamSet *s, const char *name)
{
    for (int i = 0; i < s->num_params; i++)
        if (strcmp(s->params[i]->name, name) == 0)
            return s->params[i];
    return NULL;
}

int64_t dg_params_num_values(const ParamSet *s)
{
    int64_t n = 0;

    for (int i = 0; i < s->num_params; i++)
        n += dg_tensor_count(&s->params[i]->value);
    return n;
}
