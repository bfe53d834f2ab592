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

void dg_policy_upload(const Policy *p, int64_t first, int64_t num)
{
    enum { BLOCK = 8192 };
    uint16_t block[BLOCK];

    if (num > 0 && p->dtype != DG_BF16) {
        p->on->upload(p->at + first, p->values + first,
                      sizeof *p->values * (size_t)num);
        return;
    }
    for (int64_t i = first; i < first + num; i += BLOCK) {
        const int64_t left = first + num - i;
        const int64_t n = left < BLOCK ? left : BLOCK;

        dg_bfloat_narrow(block, p->values + i, n);
        p->on->upload(dg_policy_at(p, i), block, sizeof *block * (size_t)n);
    }
}

/* The text encoders lie behind all others. */
static int64_t num_placed(const Policy *p)
{
    return p->num_values -
           (p->text_dropped || p->text_left ? p->text.count : 0);
}

uint64_t dg_policy_placed_bytes(const Policy *p)
{
    const int64_t codec = p->codec != NULL ? p->codec->count : 0;

    return (uint64_t)(dg_dtype_bytes(p->dtype) * num_placed(p)) +
           sizeof(float) * (uint64_t)codec;
}

int dg_policy_place(Policy *p, const Backend *backend)
{
    const PolicyFamily *family = p->impl->family;
    void *at;
    int err;

    if (!backend->apart || p->on != NULL)
        return DG_OK;
    err =
        backend->take(&at, (size_t)(dg_dtype_bytes(p->dtype) * num_placed(p)));
    if (err)
        return err;
    p->on = backend;
    dg_policy_point(p, at);
    dg_policy_upload(p, 0, num_placed(p));
    if (p->adapters.num_params > 0)
        dg_memory_drop(p->net.values,
                       sizeof *p->values * (size_t)dg_policy_num_base(p));
    return family->place != NULL ? family->place(p, backend) : DG_OK;
}

static size_t master_bytes(const Policy *p)
{
    return sizeof *p->values * (size_t)p->num_masters;
}

int dg_policy_masters(Policy *p, int64_t first, int64_t num)
{
    void *at;
    int err;

    if (p->stored == NULL || p->on == NULL || p->at != NULL || num == 0)
        return DG_OK;
    err = p->on->take(&at, sizeof *p->values * (size_t)num);
    if (err)
        return err;
    p->at = at;
    p->first_master = first;
    p->num_masters = num;
    p->on->upload(p->at, p->values + first, master_bytes(p));
    return DG_OK;
}

float *dg_policy_master(const Policy *p, int64_t i)
{
    return p->at != NULL ? p->at + (i - p->first_master) : NULL;
}

void dg_policy_round(const Policy *p)
{
    if (p->stored != NULL && p->at != NULL)
        p->on->cast(dg_policy_at(p, p->first_master), DG_BF16, p->at, DG_F32,
                    p->num_masters);
}

int dg_policy_fetch(const Policy *p, int64_t num)
{
    const size_t bytes =
        p->stored != NULL ? master_bytes(p) : sizeof *p->values * (size_t)num;

    return p->on != NULL && bytes > 0
               ? p->on->download(p->values + p->first_master, p->at, bytes)
               : DG_OK;
}

void dg_policy_send(const Policy *p)
{
    const int64_t num =
        p->adapters.num_params > 0 ? p->adapters.count : num_placed(p);

    if (p->on == NULL)
        return;
    dg_policy_upload(p, 0, num);
    if (p->num_masters > 0)
        p->on->upload(p->at, p->values + p->first_master, master_bytes(p));
}
