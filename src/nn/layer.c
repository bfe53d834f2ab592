#include "nn/layer.h"

#include "base/error.h"
#include "nn/lora.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void dg_path_init(LayerPath *p, ParamSet *set, const char *prefix)
{
    *p = (LayerPath) { .set = set };
    if (strlen(prefix) >= sizeof p->text)
        p->err = dg_fail(DG_EINVAL, "parameter prefix %s: too long", prefix);
    else
        memcpy(p->text, prefix, strlen(prefix) + 1);
}

size_t dg_path_enter(LayerPath *p, const char *fmt, ...)
{
    const size_t mark = strlen(p->text), room = sizeof p->text - mark;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(p->text + mark, room, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n + 2 > room) {
        p->text[mark] = '\0';
        if (!p->err)
            p->err = dg_fail(DG_EINVAL, "parameter path %s: too long", p->text);
        return mark;
    }
    memcpy(p->text + mark + n, ".", 2);
    return mark;
}

void dg_path_leave(LayerPath *p, size_t mark)
{
    p->text[mark] = '\0';
}

void dg_path_group(LayerPath *p)
{
    if (!p->err)
        p->err = dg_params_group(p->set);
}

void dg_path_group_end(LayerPath *p)
{
    dg_params_group_end(p->set);
}

/* path + name + end; std is looked at for DG_INIT_NORMAL only */
static const Tensor *add(LayerPath *p, const char *name, const char *end,
                         ParamInit init, double std, const int64_t dims[2])
{
    const int num_dims = dims[1] ? 2 : 1;
    char key[2 * DG_PARAM_NAME];
    const Tensor *t;

    if (p->err)
        return NULL;
    snprintf(key, sizeof key, "%s%s%s", p->text, name, end);
    t = init == DG_INIT_NORMAL
            ? dg_params_add_normal(p->set, key, (float)std, num_dims, dims)
            : dg_params_add(p->set, key, init, num_dims, dims);
    if (t == NULL)
        p->err = dg_last_error()->code;
    return t;
}

/* after weight and bias */
static LoraPair adapt(LayerPath *p, const char *name, const int64_t dims[2])
{
    if (p->err || p->set->lora == NULL)
        return (LoraPair) { 0 };
    return dg_lora_adapt(p->set->lora, p->text, name, dims[1], dims[0],
                         &p->err);
}

static Linear add_linear(LayerPath *p, const char *name, ParamInit init,
                         double std, const int64_t dims[2], int bias)
{
    const int64_t bias_dims[2] = { dims[0], 0 };
    Linear l = { 0 };

    l.w = add(p, name, ".weight", init, std, dims);
    if (bias)
        l.b = add(p, name, ".bias", DG_INIT_ZERO, 0, bias_dims);
    l.lora = adapt(p, name, dims);
    return l;
}

Linear dg_layer_linear(LayerPath *p, const char *name, int64_t in, int64_t out,
                       int bias, ParamInit init)
{
    return add_linear(p, name, init, 0, (int64_t[2]) { out, in }, bias);
}

Linear dg_layer_linear_normal(LayerPath *p, const char *name, int64_t in,
                              int64_t out, int bias, double std)
{
    return add_linear(p, name, DG_INIT_NORMAL, std, (int64_t[2]) { out, in },
                      bias);
}

Norm dg_layer_rms_norm(LayerPath *p, const char *name, int64_t width)
{
    const int64_t dims[2] = { width, 0 };

    return (Norm) { .w = add(p, name, ".weight", DG_INIT_ONE, 0, dims) };
}

Norm dg_layer_layer_norm(LayerPath *p, const char *name, int64_t width)
{
    const int64_t dims[2] = { width, 0 };
    Norm n = { 0 };

    n.w = add(p, name, ".weight", DG_INIT_ONE, 0, dims);
    n.b = add(p, name, ".bias", DG_INIT_ZERO, 0, dims);
    return n;
}

const Tensor *dg_layer_table(LayerPath *p, const char *name, int64_t rows,
                             int64_t width, double std)
{
    const int64_t dims[2] = { rows, width };

    return add(p, name, ".weight", DG_INIT_NORMAL, std, dims);
}

const Tensor *dg_layer_tensor(LayerPath *p, const char *name, ParamInit init,
                              int num_dims, const int64_t *dims)
{
    char key[2 * DG_PARAM_NAME];
    const Tensor *t;

    if (p->err)
        return NULL;
    snprintf(key, sizeof key, "%s%s", p->text, name);
    t = dg_params_add(p->set, key, init, num_dims, dims);
    if (t == NULL)
        p->err = dg_last_error()->code;
    return t;
}

Mlp2 dg_layer_mlp2(LayerPath *p, const char *name, int64_t in, int64_t width,
                   ParamInit init)
{
    const size_t mark = dg_path_enter(p, "%s", name);
    Mlp2 m;

    m.linear_1 = dg_layer_linear(p, "linear_1", in, width, DG_WITH_BIAS, init);
    m.linear_2 =
        dg_layer_linear(p, "linear_2", width, width, DG_WITH_BIAS, init);
    dg_path_leave(p, mark);
    return m;
}

Tensor *dg_linear(Context *ctx, Tensor *x, const Linear *l, Act act)
{
    Tensor *y;

    if (l->lora.a == NULL)
        return dg_op_linear(ctx, x, l->w, l->b, act);
    y = dg_op_linear(ctx, x, l->w, l->b, DG_ACT_NONE);
    y = dg_op_lora(ctx, y, x, NULL, &l->lora);
    return act != DG_ACT_NONE ? dg_op_act(ctx, y, act) : y;
}

Tensor *dg_linear_in(Context *ctx, Tensor *x, const Linear *l, Act act)
{
    return dg_linear(ctx, dg_op_cast(ctx, x, l->w->dtype), l, act);
}

Tensor *dg_linear2(Context *ctx, Tensor *x, Tensor *x2, const Linear *l)
{
    Tensor *y = dg_op_linear2(ctx, x, x2, l->w, l->b);

    return l->lora.a != NULL ? dg_op_lora(ctx, y, x, x2, &l->lora) : y;
}

Tensor *dg_mlp2(Context *ctx, Tensor *x, const Mlp2 *m)
{
    return dg_linear(ctx, dg_linear_in(ctx, x, &m->linear_1, DG_ACT_SILU),
                     &m->linear_2, DG_ACT_NONE);
}
