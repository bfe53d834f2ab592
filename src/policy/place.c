/* A policy's parameters where kernels read them. */
#include "family.h"

#include "base/error.h"
#include "base/memory.h"

void dg_policy_point(Policy *p, float *at)
{
    float *base = at + (p->net.values - p->values);

    p->at = at;
    dg_params_point(&p->adapters, at);
    dg_params_point(&p->net, base);
    dg_params_point(&p->text, base + p->net.count);
}

int dg_policy_place(Policy *p, const Backend *backend)
{
    const size_t size = sizeof *p->values;
    const int64_t text = p->text_dropped ? p->text.count : 0;
    const PolicyFamily *family = p->impl->family;
    void *at;
    int err;

    if (!backend->apart || p->on != NULL)
        return DG_OK;
    err = backend->take(&at, size * (size_t)p->num_values);
    if (err)
        return err;
    p->on = backend;
    backend->upload(at, p->values, size * (size_t)(p->num_values - text));
    dg_policy_point(p, at);
    if (p->adapters.num_params > 0)
        dg_memory_drop(p->net.values, size * (size_t)dg_policy_num_base(p));
    return family->place != NULL ? family->place(p, backend) : DG_OK;
}

int dg_policy_fetch(const Policy *p, int64_t num)
{
    const size_t bytes = sizeof *p->values * (size_t)num;

    return p->on != NULL ? p->on->download(p->values, p->at, bytes) : DG_OK;
}

void dg_policy_send(const Policy *p)
{
    const int64_t text = p->text_dropped ? p->text.count : 0;
    const int64_t num =
        p->adapters.num_params > 0 ? p->adapters.count : p->num_values - text;

    if (p->on != NULL)
        p->on->upload(p->at, p->values, sizeof *p->values * (size_t)num);
}
