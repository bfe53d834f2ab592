#include "parallel/shard.h"

#include "base/error.h"

static int64_t num_blocks(const Shard *s)
{
    return (s->total + s->block - 1) / s->block;
}

int dg_shard_split(const Shard *s)
{
    return s->level != DG_SHARD_NONE && s->size > 1;
}

int dg_shard_rounds(const Shard *s)
{
    return s->level >= DG_SHARD_GRADIENTS;
}

int dg_shard_pools(const Shard *s)
{
    return s->level == DG_SHARD_PARAMETERS && s->size > 1;
}

static int64_t up_to(const Shard *s, int64_t blocks)
{
    return blocks * s->block < s->total ? blocks * s->block : s->total;
}

void dg_shard_range(const Shard *s, int rank, int64_t *first, int64_t *num)
{
    int64_t block = 0, blocks = num_blocks(s);

    if (dg_shard_split(s))
        dg_share_range(num_blocks(s), rank, s->size, &block, &blocks);
    *first = up_to(s, block);
    *num = up_to(s, block + blocks) - *first;
}

void dg_shard_overlap(const Shard *s, int rank, const ShardRange *of,
                      int64_t *first, int64_t *num)
{
    int64_t from, end;

    dg_shard_range(s, rank, first, num);
    from = of->first > *first ? of->first : *first;
    end = of->first + of->num < *first + *num ? of->first + of->num
                                              : *first + *num;
    *first = from;
    *num = end > from ? end - from : 0;
}

int dg_shard_owner(const Shard *s, int64_t element)
{
    return dg_shard_split(s)
               ? dg_share_owner(num_blocks(s), s->size, element / s->block)
               : 0;
}

void dg_shard_outline(Shard *s, int rank, int size, ShardLevel level,
                      int64_t total, int64_t block)
{
    *s = (Shard) { .level = level,
                   .rank = rank,
                   .size = size,
                   .total = total,
                   .block = block };
    dg_shard_range(s, rank, &s->first, &s->num);
}

void dg_shard_init(Shard *s, const Comm *c, ShardLevel level, int64_t total,
                   int64_t block)
{
    dg_shard_outline(s, c->rank, c->size, level, total, block);
    s->comm = c;
}

/* One reduction per owner: the ranges are few and long. */
static void sum_to_owners(const Shard *s, const ExactSum *sum)
{
    for (int r = 0; r < s->size; r++) {
        int64_t first, num;
        ExactSum part;

        dg_shard_range(s, r, &first, &num);
        part = dg_exact_part(sum, first, num);
        dg_exact_sum_to(s->comm, &part, r);
    }
}

int dg_shard_sum(const Shard *s, ExactSum *sum)
{
    const int err = dg_shard_split(s) ? dg_exact_count(s->comm, sum)
                                      : dg_exact_allreduce(s->comm, sum);

    if (!err && dg_shard_split(s))
        sum_to_owners(s, sum);
    return err;
}

void dg_shard_gather(const Shard *s, void *values, size_t element_bytes)
{
    if (!dg_shard_split(s))
        return;
    for (int r = 0; r < s->size; r++) {
        int64_t first, num;

        dg_shard_range(s, r, &first, &num);
        dg_comm_bcast(s->comm, (char *)values + (size_t)first * element_bytes,
                      (size_t)num * element_bytes, r);
    }
}

void dg_shard_gather_blocks(const Shard *s, void *values, size_t element_bytes)
{
    if (dg_shard_split(s))
        dg_comm_share_items(s->comm, values, num_blocks(s), element_bytes);
}
