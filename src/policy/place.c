/* A policy's parameters where kernels read them. */
#include "family.h"

#include "base/error.h"
#include "base/memory.h"
#include "weights/half.h"

void dg_policy_point(Policy *p, void *at)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    const int64_t net = p->net.values - p->values, text = net + p->net.count;
    char *first = at;

    if (p->dtype == DG_BF16) {
        p->stored = at;
        p->at = NULL;
    } else {
        p->at = at;
    }
    dg_params_point(&p->adapters, first, p->dtype);
    dg_params_point(&p->net, first ? first + net * size : NULL, p->dtype);
    dg_params_point(&p->text, first ? first + text * size : NULL, p->dtype);
}

void *dg_policy_at(const Policy *p, int64_t i)
{
    return p->stored != NULL
               ? (void *)((char *)p->stored + i * dg_dtype_bytes(p->dtype))
               : p->at + i;
}

/* the first num values to the stored weights */
static void upload(const Policy *p, int64_t num)
{
    enum { BLOCK = 8192 };
    uint16_t block[BLOCK];

    if (p->dtype != DG_BF16) {
        p->on->upload(p->at, p->values, sizeof *p->values * (size_t)num);
        return;
    }
    for (int64_t i = 0; i < num; i += BLOCK) {
        const int64_t n = num - i < BLOCK ? num - i : BLOCK;

        dg_bfloat_narrow(block, p->values + i, n);
        p->on->upload(dg_policy_at(p, i), block, sizeof *block * (size_t)n);
    }
}

int dg_policy_place(Policy *p, const Backend *backend)
{
    const int64_t text = p->text_dropped ? p->text.count : 0;
    const PolicyFamily *family = p->impl->family;
    void *at;
    int err;

    if (!backend->apart || p->on != NULL)
        return DG_OK;
    err =
        backend->take(&at, (size_t)(dg_dtype_bytes(p->dtype) * p->num_values));
    if (err)
        return err;
    p->on = backend;
    dg_policy_point(p, at);
    upload(p, p->num_values - text);
    if (p->adapters.num_params > 0)
        dg_memory_drop(p->net.values,
                       sizeof *p->values * (size_t)dg_policy_num_base(p));
    return family->place != NULL ? family->place(p, backend) : DG_OK;
}

static size_t master_bytes(const Policy *p)
{
    return sizeof *p->values * (size_t)p->num_masters;
}

int dg_policy_masters(Policy *p, int64_t num)
{
    void *at;
    int err;

    if (p->stored == NULL || p->on == NULL || p->at != NULL)
        return DG_OK;
    err = p->on->take(&at, sizeof *p->values * (size_t)num);
    if (err)
        return err;
    p->at = at;
    p->num_masters = num;
    p->on->upload(p->at, p->values, master_bytes(p));
    return DG_OK;
}

void dg_policy_round(const Policy *p)
{
    if (p->stored != NULL && p->at != NULL)
        p->on->cast(p->stored, DG_BF16, p->at, DG_F32, p->num_masters);
}

int dg_policy_fetch(const Policy *p, int64_t num)
{
    const size_t bytes =
        p->stored != NULL ? master_bytes(p) : sizeof *p->values * (size_t)num;

    return p->on != NULL ? p->on->download(p->values, p->at, bytes) : DG_OK;
}

void dg_policy_send(const Policy *p)
{
    const int64_t text = p->text_dropped ? p->text.count : 0;
    const int64_t num =
        p->adapters.num_params > 0 ? p->adapters.count : p->num_values - text;

    if (p->on == NULL)
        return;
    upload(p, num);
    if (p->num_masters > 0)
        p->on->upload(p->at, p->values, master_bytes(p));
}
