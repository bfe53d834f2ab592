#include "parallel/exact_sum.h"

#include "base/error.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Elements that stay in the first-level cache between check and add. */
enum { BLOCK = 4096 };

size_t dg_exact_bytes(int64_t num, int exact)
{
    return (size_t)num * (exact ? sizeof(int64_t) : sizeof(float));
}

int dg_exact_init(ExactSum *s, void *buffer, int64_t num, int exact,
                  int scale_bits, int64_t max_items)
{
    if (num < 0 || scale_bits < 0 || scale_bits > 60 || max_items < 1)
        return dg_fail(DG_EINVAL,
                       "exact sum of %lld elements, %d bits, %lld items: "
                       "0 .. 60 bits and at least 1 item are allowed",
                       (long long)num, scale_bits, (long long)max_items);
    *s = (ExactSum) { .num = num,
                      .max_items = max_items,
                      .scale_bits = scale_bits,
                      .limit = FLT_MAX };
    if (exact) {
        const double most = ldexp(1.0 / (double)max_items, 62 - scale_bits);

        s->fixed = buffer;
        s->limit = (float)most;
        if ((double)s->limit > most) /* rounded up: one step down again */
            s->limit = nextafterf(s->limit, 0.0F);
    } else {
        s->plain = buffer;
    }
    dg_exact_clear(s);
    return DG_OK;
}

void dg_exact_clear(ExactSum *s)
{
    s->items = 0;
    if (s->fixed != NULL)
        memset(s->fixed, 0, (size_t)s->num * sizeof *s->fixed);
    else
        memset(s->plain, 0, (size_t)s->num * sizeof *s->plain);
}

/* One comparison finds large values, Inf and NaN: without its sign a float
   orders as its bits do, and NaN lies above everything. */
static int block_is_bad(const float *g, int64_t n, float limit)
{
    uint32_t top, bad = 0;

    memcpy(&top, &limit, sizeof top);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, g + i, sizeof bits);
        bad |= (bits & 0x7fffffffU) > top;
    }
    return bad != 0;
}

static int64_t first_bad(const ExactSum *s, const float *g)
{
    int64_t at = s->num;

#pragma omp parallel for schedule(static) reduction(min : at)
    for (int64_t b = 0; b < s->num; b += BLOCK) {
        const int64_t n = s->num - b < BLOCK ? s->num - b : BLOCK;

        if (b > at || !block_is_bad(g + b, n, s->limit))
            continue;
        for (int64_t i = b; i < b + n; i++)
            if (block_is_bad(g + i, 1, s->limit)) {
                at = i < at ? i : at;
                break;
            }
    }
    return at < s->num ? at : -1;
}

/* rint and the conversion of an integral double are single instructions that
   gcc vectorises (vrndscalepd, vcvttpd2qq); llrint() is not. */
static void add_fixed(int64_t *restrict sum, const float *restrict g,
                      int64_t num, double scale)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < num; i++)
        sum[i] += (int64_t)__builtin_rint((double)g[i] * scale);
}

static void add_plain(float *restrict sum, const float *restrict g, int64_t num)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < num; i++)
        sum[i] += g[i];
}

static void add_int64(int64_t *restrict sum, const int64_t *restrict more,
                      int64_t num)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < num; i++)
        sum[i] += more[i];
}

static int too_many(int64_t items, int64_t max_items)
{
    return dg_fail(DG_EINVAL,
                   "gradient sum: %lld items, at most %lld were announced",
                   (long long)items, (long long)max_items);
}

int dg_exact_check(const ExactSum *s, const float *g, int64_t *bad)
{
    const int64_t at = first_bad(s, g);

    if (bad != NULL)
        *bad = at;
    if (at >= 0)
        return dg_fail(DG_ENUMERIC,
                       "gradient element %lld is %g: finite values up to %g "
                       "in size are allowed",
                       (long long)at, (double)g[at], (double)s->limit);
    return DG_OK;
}

ExactSum dg_exact_part(const ExactSum *s, int64_t first, int64_t num)
{
    ExactSum part = *s;

    part.fixed = s->fixed != NULL ? s->fixed + first : NULL;
    part.plain = s->plain != NULL ? s->plain + first : NULL;
    part.num = num;
    part.items = 0;
    return part;
}

int dg_exact_add(ExactSum *s, const float *g, int64_t *bad)
{
    const int err = dg_exact_check(s, g, bad);

    if (err)
        return err;
    if (s->items >= s->max_items)
        return too_many(s->items + 1, s->max_items);
    if (s->fixed != NULL)
        add_fixed(s->fixed, g, s->num, ldexp(1.0, s->scale_bits));
    else
        add_plain(s->plain, g, s->num);
    s->items++;
    return DG_OK;
}

int dg_exact_merge(ExactSum *into, const ExactSum *from)
{
    if (into->num != from->num || into->scale_bits != from->scale_bits ||
        (into->fixed == NULL) != (from->fixed == NULL))
        return dg_fail(DG_EINVAL, "gradient sums of different kinds");
    if (into->items + from->items > into->max_items)
        return too_many(into->items + from->items, into->max_items);
    if (into->fixed != NULL)
        add_int64(into->fixed, from->fixed, into->num);
    else
        add_plain(into->plain, from->plain, into->num);
    into->items += from->items;
    return DG_OK;
}

int dg_exact_count(const Comm *c, ExactSum *s)
{
    int64_t items = s->items;

    dg_comm_sum_i64(c, &items, 1);
    if (items > s->max_items)
        return too_many(items, s->max_items);
    s->items = items;
    return DG_OK;
}

int dg_exact_allreduce(const Comm *c, ExactSum *s)
{
    const int err = dg_exact_count(c, s);

    if (err)
        return err;
    if (s->fixed != NULL)
        dg_comm_sum_i64(c, s->fixed, s->num);
    else
        dg_comm_sum_f32(c, s->plain, s->num);
    return DG_OK;
}

void dg_exact_sum_to(const Comm *c, ExactSum *s, int root)
{
    if (s->fixed != NULL)
        dg_comm_sum_i64_to(c, s->fixed, s->num, root);
    else
        dg_comm_sum_f32_to(c, s->plain, s->num, root);
}

void dg_exact_read(const ExactSum *s, float *restrict out, double divisor)
{
    const int64_t *restrict fixed = s->fixed;
    const float *restrict plain = s->plain;
    const double unit = ldexp(1.0, -s->scale_bits);

    if (fixed != NULL) {
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < s->num; i++)
            out[i] = (float)((double)fixed[i] * unit / divisor);
    } else {
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < s->num; i++)
            out[i] = (float)((double)plain[i] / divisor);
    }
}
