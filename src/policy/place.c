/* A policy's parameters where kernels read them. */
#include "family.h"

#include "base/error.h"
#include "base/memory.h"
#include "weights/half.h"

#include <string.h>

int64_t dg_policy_gap(const Policy *p)
{
    return p->text.count == 0 ? 0
                              : dg_params_aligned(p->net.count) - p->net.count;
}

/* Of values first .. first + num - 1, how many lie before the text encoders. */
static int64_t before_text(const Policy *p, int64_t first, int64_t num)
{
    const int64_t left = p->net.values - p->values + p->net.count - first;

    return left <= 0 ? 0 : left < num ? left : num;
}

void dg_policy_point(Policy *p, void *at, int apart)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    const int64_t net = p->net.values - p->values;
    const int64_t text = net + p->net.count + (apart ? dg_policy_gap(p) : 0);
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

/* Where value i is in kernel memory. */
static int64_t place_of(const Policy *p, int64_t i)
{
    const int64_t net = p->net.values - p->values, text = net + p->net.count;

    /* the host's memory stays one, with all places in it */
    if (p->on == NULL || i < net)
        return i;
    if (!p->held)
        return i < text ? i : i + dg_policy_gap(p);
    return i < text ? i - p->held_net.first
                    : net + p->held_net.num + i - text - p->held_text.first;
}

void *dg_policy_at(const Policy *p, int64_t i)
{
    const int64_t k = place_of(p, i);

    return p->stored != NULL
               ? (void *)((char *)p->stored + k * dg_dtype_bytes(p->dtype))
               : p->at + k;
}

/* Values that lie there as here, in one piece. */
static void upload_piece(const Policy *p, int64_t first, int64_t num)
{
    enum { BLOCK = 8192 };
    uint16_t block[BLOCK];

    if (num > 0 && p->dtype != DG_BF16) {
        p->on->upload(dg_policy_at(p, first), p->values + first,
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

void dg_policy_upload(const Policy *p, int64_t first, int64_t num)
{
    const int64_t part = before_text(p, first, num);

    upload_piece(p, first, part);
    upload_piece(p, first + part, num - part);
}

/* The text encoders lie behind all others. */
static int64_t num_placed(const Policy *p)
{
    return p->num_values -
           (p->text_dropped || p->text_left ? p->text.count : 0);
}

/* of these, with the gap before text encoders */
static size_t placed_bytes(const Policy *p)
{
    const int64_t gap = num_placed(p) == p->num_values ? dg_policy_gap(p) : 0;

    return (size_t)(dg_dtype_bytes(p->dtype) * (num_placed(p) + gap));
}

uint64_t dg_policy_placed_bytes(const Policy *p)
{
    const int64_t codec = p->codec != NULL ? p->codec->count : 0;

    return placed_bytes(p) + sizeof(float) * (uint64_t)codec;
}

int dg_policy_place(Policy *p, const Backend *backend)
{
    const PolicyFamily *family = p->impl->family;
    void *at;
    int err;

    if (!backend->apart || p->on != NULL)
        return DG_OK;
    err = backend->take(&at, placed_bytes(p));
    if (err)
        return err;
    p->on = backend;
    dg_policy_point(p, at, 1);
    dg_policy_upload(p, 0, num_placed(p));
    if (p->adapters.num_params > 0)
        dg_memory_drop(p->net.values,
                       sizeof *p->values * (size_t)dg_policy_num_base(p));
    return family->place != NULL ? family->place(p, backend) : DG_OK;
}

/* Of what is held, and of adapters, the values that training moves: of network
 * and text encoders together they are one range. */
static ShardRange trained_of(const Policy *p)
{
    const ShardRange net = p->held_net, text = p->held_text;

    if (p->net.values != p->values)
        return (ShardRange) { 0, p->adapters.count };
    if (!p->trains_text)
        return net;
    return (ShardRange) { net.num > 0 ? net.first : p->net.count + text.first,
                          net.num + text.num };
}

/* Kernel memory for adapters and what is held. */
static int place_held(Policy *p, const Backend *backend)
{
    const PolicyFamily *family = p->impl->family;
    const int64_t net = p->net.values - p->values, text = net + p->net.count;
    const int64_t num = net + p->held_net.num + p->held_text.num;
    void *at;
    int err = backend->take(&at, (size_t)(dg_dtype_bytes(p->dtype) * num));

    if (err)
        return err;
    p->on = backend;
    if (p->dtype == DG_BF16) {
        p->stored = at;
        p->at = NULL;
    } else {
        p->at = at;
        p->first_master = trained_of(p).first;
        p->num_masters = trained_of(p).num;
    }
    dg_params_point(&p->adapters, at, p->dtype);
    dg_params_point(&p->text, NULL, p->dtype);
    dg_policy_upload(p, 0, net);
    dg_policy_upload(p, net + p->held_net.first, p->held_net.num);
    dg_policy_upload(p, text + p->held_text.first, p->held_text.num);
    if (net > 0)
        dg_memory_drop(p->net.values,
                       sizeof *p->values * (size_t)dg_policy_num_base(p));
    return family->place != NULL ? family->place(p, backend) : DG_OK;
}

/* Of a set's values on the host this range alone is kept; somebody lends what
 * its tensors are. */
static void keep_range(ParamSet *s, const ShardRange *of, DType dtype)
{
    const int64_t end = of->first + of->num;

    dg_params_point(s, NULL, dtype);
    dg_memory_drop(s->values, sizeof *s->values * (size_t)of->first);
    dg_memory_drop(s->values + end,
                   sizeof *s->values * (size_t)(s->count - end));
}

int dg_policy_hold(Policy *p, const Backend *backend, const ShardRange *net,
                   const ShardRange *text)
{
    int err = DG_OK;

    p->held = 1;
    p->held_net = *net;
    p->held_text = text != NULL ? *text : (ShardRange) { 0, 0 };
    if (backend != NULL && backend->apart)
        err = place_held(p, backend);
    if (err)
        return err;
    keep_range(&p->net, &p->held_net, p->dtype);
    if (p->trains_text)
        keep_range(&p->text, &p->held_text, p->dtype);
    return DG_OK;
}

int dg_policy_place_as(Policy *p, const Policy *other)
{
    if (other->held)
        return dg_policy_hold(p, other->on, &other->held_net, NULL);
    return other->on != NULL ? dg_policy_place(p, other->on) : DG_OK;
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

void dg_policy_drop(Policy *p, int float32s)
{
    const int64_t placed =
        p->held && !p->trains_text ? p->net.count : num_placed(p);
    int64_t num = float32s ? placed : p->num_values;

    if (p->on == NULL || p->adapters.num_params > 0)
        return;
    if (float32s && p->stored != NULL && !p->trains_text)
        num = p->net.count;
    dg_memory_drop(p->values, sizeof *p->values * (size_t)num);
    p->dropped = num;
}

/* Of a range of values, bytes that are still there. */
static NodeRange there(const Policy *p, int64_t first, int64_t num)
{
    const int64_t from = first > p->dropped ? first : p->dropped;
    const int64_t left = first + num - from;

    return (NodeRange) { sizeof *p->values * (size_t)from,
                         left > 0 ? sizeof *p->values * (size_t)left : 0 };
}

int dg_policy_settle(Policy *p, const Comm *comm)
{
    const int64_t text = p->num_values - p->text.count;
    const int adapts = p->adapters.num_params > 0;
    ShardRange net = { 0, p->trains_text ? p->num_values : text };
    NodeRange own, kept[2] = { { 0, 0 }, { 0, 0 } };

    if (p->together == NULL || p->on == NULL)
        return DG_OK;
    if (adapts || p->held)
        net = trained_of(p);
    own = there(p, net.first, net.num);
    if (!adapts && !p->trains_text && !p->text_dropped)
        kept[0] = there(p, text, p->text.count);
    if (p->frozen)
        kept[1] = own;
    return dg_node_memory_settle(p->together, comm, &own, p->frozen ? 0 : 1,
                                 kept, 2);
}

/* Where the float32 of a value is that the host no longer has. */
static float *float_at(const Policy *p, int64_t i)
{
    return p->stored != NULL ? dg_policy_master(p, i) : dg_policy_at(p, i);
}

/* Of these values, how many the host has no copy of. */
static int64_t gone(const Policy *p, int64_t first, int64_t num)
{
    const int64_t left = p->dropped - first;

    return left <= 0 ? 0 : left < num ? left : num;
}

static int get_piece(const Policy *p, float *to, int64_t first, int64_t num)
{
    const int64_t away = gone(p, first, num);
    int err = DG_OK;

    if (away > 0)
        err =
            p->on->download(to, float_at(p, first), sizeof *to * (size_t)away);
    if (num > away)
        memcpy(to + away, p->values + first + away,
               sizeof *to * (size_t)(num - away));
    return err;
}

int dg_policy_get(const Policy *p, float *to, int64_t first, int64_t num)
{
    const int64_t part = before_text(p, first, num);
    const int err = get_piece(p, to, first, part);

    return err ? err : get_piece(p, to + part, first + part, num - part);
}

/* What is the same already is not written: pages that the ranks of a node have
 * together stay so. */
static void copy_changed(float *to, const float *from, int64_t num)
{
    enum { PART = 1024 };

    for (int64_t i = 0; i < num; i += PART) {
        const size_t bytes =
            sizeof *to * (size_t)(num - i < PART ? num - i : PART);

        if (memcmp(to + i, from + i, bytes) != 0)
            memcpy(to + i, from + i, bytes);
    }
}

void dg_policy_set(const Policy *p, const float *from, int64_t first,
                   int64_t num)
{
    copy_changed(p->values + first, from, num);
}

static void put_piece(const Policy *p, const float *from, int64_t first,
                      int64_t num)
{
    const int64_t away = gone(p, first, num), rest = first + away;
    const int64_t end = first + num;

    if (away > 0)
        p->on->upload(float_at(p, first), from, sizeof *from * (size_t)away);
    if (num == away)
        return;
    dg_policy_set(p, from + away, rest, num - away);
    /* what has no masters is where the networks read it as it is stored */
    if (p->on != NULL && !p->held && rest < num_placed(p))
        dg_policy_upload(p, rest,
                         (end < num_placed(p) ? end : num_placed(p)) - rest);
}

void dg_policy_put(const Policy *p, const float *from, int64_t first,
                   int64_t num)
{
    const int64_t part = before_text(p, first, num);

    put_piece(p, from, first, part);
    put_piece(p, from + part, first + part, num - part);
}

int dg_policy_fetch(const Policy *p, int64_t num)
{
    const size_t bytes = p->stored != NULL || p->held
                             ? master_bytes(p)
                             : sizeof *p->values * (size_t)num;

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
    if (p->held && p->adapters.num_params == 0)
        dg_policy_upload(p, trained_of(p).first, trained_of(p).num);
    else
        dg_policy_upload(p, 0, num);
    if (p->stored != NULL && p->num_masters > 0)
        p->on->upload(p->at, p->values + p->first_master, master_bytes(p));
}
