/* Loads, stores, atomics and asynchronous copies: sections "State Spaces",
 * "Addresses as Operands", "ld", "st", "atom", "cp.async". */
#include "ptx.h"

#include <string.h>

#include <algorithm>

namespace ptx
{

uint64_t address_of(Warp &w, const Op &op, int lane, int which)
{
    const uint32_t slot = op.from[which];
    const bool wide = which == 0 ? op.wide : true;

    return (wide ? w.longs(slot)[lane] : w.words(slot)[lane]) +
           (uint64_t)op.offset[which];
}

namespace
{

const char *const space_names[] = { "generic", "global", "shared", "param" };

unsigned char *reach_global(Warp &w, const Op &op, int lane, uint64_t address,
                            uint32_t bytes)
{
    Block &b = *w.block;
    const char *p = (const char *)address;

    if (p >= b.last.from && p + bytes <= b.last.to)
        return (unsigned char *)address;
    const auto at = std::upper_bound(
        b.ranges.begin(), b.ranges.end(), p,
        [](const char *x, const Range &r) { return x < r.from; });
    if (at == b.ranges.begin() || p + bytes > (at - 1)->to)
        fault(w, op, 1u << lane,
              "%u bytes at %p are in no allocation of device memory", bytes,
              (const void *)p);
    b.last = *(at - 1);
    return (unsigned char *)address;
}

unsigned char *reach_shared(Warp &w, const Op &op, int lane, uint64_t address,
                            uint32_t bytes, bool writes)
{
    Block &b = *w.block;
    const uint64_t at = address - SHARED_BASE;

    if (address < SHARED_BASE || at + bytes > b.shared_bytes)
        fault(w, op, 1u << lane,
              "bytes %lld to %lld of shared memory: the block has %u",
              (long long)at, (long long)(at + bytes), b.shared_bytes);
    (writes ? shared_write : shared_read)(w, lane, (uint32_t)at,
                                          op.used != 0 ? op.used : bytes);
    return &b.shared[at];
}

void load_value(const Op &op, const unsigned char *from, uint64_t *value)
{
    uint64_t x = 0;

    memcpy(&x, from, op.bytes);
    if (op.extends) {
        const int up = 64 - 8 * op.bytes;
        x = (uint64_t)((int64_t)(x << up) >> up);
    }
    *value = x;
}

} // namespace

void run_load(Warp &w, const Op &op, uint32_t lanes)
{
    const uint32_t bytes = (uint32_t)op.bytes * op.num_to;
    uint64_t value[MAX_TO][LANES];
    uint32_t low[LANES];

    for (int i = 0; i < LANES; ++i) {
        if (!(lanes >> i & 1))
            continue;
        const unsigned char *from =
            reach(w, op, i, address_of(w, op, i, 0), bytes, op.space, false);
        for (int n = 0; n < op.num_to; ++n)
            load_value(op, from + n * op.bytes, &value[n][i]);
    }
    for (int n = 0; n < op.num_to; ++n) {
        if (op.to_bytes == 8) {
            put_longs(w, op.to[n], value[n], lanes);
            continue;
        }
        for (int i = 0; i < LANES; ++i)
            low[i] = lanes >> i & 1 ? (uint32_t)value[n][i] : 0;
        put_words(w, op.to[n], low, lanes);
    }
}

void run_store(Warp &w, const Op &op, uint32_t lanes)
{
    const int count = op.num_from - 1;
    const uint32_t bytes = op.bytes * (uint32_t)count;

    for (int i = 0; i < LANES; ++i) {
        if (!(lanes >> i & 1))
            continue;
        unsigned char *to =
            reach(w, op, i, address_of(w, op, i, 0), bytes, op.space, true);
        for (int n = 0; n < count; ++n) {
            const uint32_t slot = op.from[1 + n];
            const uint64_t x =
                op.bytes == 8 ? w.longs(slot)[i] : w.words(slot)[i];
            memcpy(to + n * op.bytes, &x, op.bytes);
        }
    }
}

/* atom.global.min.u64: lane after lane */
void run_least(Warp &w, const Op &op, uint32_t lanes)
{
    uint64_t old[LANES] = { 0 };

    for (int i = 0; i < LANES; ++i) {
        if (!(lanes >> i & 1))
            continue;
        uint64_t *to = (uint64_t *)reach(w, op, i, address_of(w, op, i, 0), 8,
                                         op.space, true);
        const uint64_t x = w.longs(op.from[1])[i];
        old[i] = *to;
        *to = x < old[i] ? x : old[i];
    }
    put_longs(w, op.to[0], old, lanes);
}

namespace
{

std::vector<Copy> *copies_of(Warp &w, int lane)
{
    return &w.block->copies[(size_t)w.number * LANES + (size_t)lane];
}

/* "cp.async": src-size bytes are copied, the rest of cp-size is zeros; nobody
 * may look before its thread has waited. */
void begin_copy(Warp &w, const Op &op, int lane)
{
    const uint64_t to = address_of(w, op, lane, 0) - SHARED_BASE;
    const uint64_t from = address_of(w, op, lane, 1);
    const uint32_t bytes = w.words(op.from[2])[lane];
    const uint32_t read = op.num_from > 3 ? w.words(op.from[3])[lane] : bytes;
    Copy c = { (uint32_t)to, bytes, read, from, -1, {} };
    Block &b = *w.block;

    if (to % bytes != 0 || from % bytes != 0)
        fault(w, op, 1u << lane, "%u bytes are not aligned, from %llx to %llx",
              bytes, (unsigned long long)from, (unsigned long long)to);
    if (read > bytes || (op.mode == 16 && bytes != 16))
        fault(w, op, 1u << lane, "%u of %u bytes cannot be copied", read,
              bytes);
    if (to + bytes > b.shared_bytes)
        fault(w, op, 1u << lane, "byte %llu of shared memory: the block has %u",
              (unsigned long long)(to + bytes), b.shared_bytes);
    if (read > 0)
        memcpy(c.early, reach_global(w, op, lane, from, read), read);
    shared_under_way(w, lane, c.to, bytes);
    memset(&b.shared[to], 0xff, bytes);
    copies_of(w, lane)->push_back(c);
}

void end_copy(Warp &w, int lane, const Copy &c)
{
    unsigned char *to = &w.block->shared[c.to];

    memset(to, 0, c.bytes);
    memcpy(to, w.block->early ? c.early : (const unsigned char *)c.from,
           c.read);
    shared_arrived(w, lane, c.to, c.bytes);
}

} // namespace

unsigned char *reach(Warp &w, const Op &op, int lane, uint64_t address,
                     uint32_t bytes, Space space, bool writes)
{
    Block &b = *w.block;

    if (space == GENERIC && address >= SHARED_WINDOW &&
        address < SHARED_WINDOW + ((uint64_t)1 << 32)) {
        space = SHARED;
        address -= SHARED_WINDOW;
    }
    if (address % bytes != 0)
        fault(w, op, 1u << lane, "%u bytes of %s memory at %llx: not aligned",
              bytes, space_names[space], (unsigned long long)address);
    if (space == SHARED)
        return reach_shared(w, op, lane, address, bytes, writes);
    if (space != PARAM)
        return reach_global(w, op, lane, address, bytes);
    if (writes || address < PARAM_BASE ||
        address - PARAM_BASE + bytes > b.kernel->param_bytes)
        fault(w, op, 1u << lane, "outside of the %u bytes of arguments",
              b.kernel->param_bytes);
    return (unsigned char *)b.params + (address - PARAM_BASE);
}

void run_copy(Warp &w, const Op &op, uint32_t lanes)
{
    for (int i = 0; i < LANES; ++i)
        if (lanes >> i & 1)
            begin_copy(w, op, i);
}

/* "cp.async.commit_group": what is in no group becomes one */
void run_commit(Warp &w, const Op &, uint32_t lanes)
{
    for (int i = 0; i < LANES; ++i) {
        if (!(lanes >> i & 1))
            continue;
        const int group =
            w.block->committed[(size_t)w.number * LANES + (size_t)i]++;
        for (Copy &c : *copies_of(w, i))
            c.group = c.group < 0 ? group : c.group;
    }
}

/* "cp.async.wait_group N": until N of the groups or fewer are under way;
 * wait_all commits first, and waits for all */
void run_wait(Warp &w, const Op &op, uint32_t lanes)
{
    const bool all = op.mode != 0;

    if (all)
        run_commit(w, op, lanes);
    for (int i = 0; i < LANES; ++i) {
        if (!(lanes >> i & 1))
            continue;
        std::vector<Copy> *copies = copies_of(w, i);
        const int left =
            w.block->committed[(size_t)w.number * LANES + (size_t)i] -
            (all ? 0 : (int)w.words(op.from[0])[i]);
        size_t kept = 0;
        for (const Copy &c : *copies)
            if (c.group >= 0 && c.group < left)
                end_copy(w, i, c);
            else
                (*copies)[kept++] = c;
        copies->resize(kept);
    }
}

} // namespace ptx
