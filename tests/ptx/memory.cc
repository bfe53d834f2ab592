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

const char *const space_names[] = { "generic", "global", "shared", "param",
                                    "local" };

/* What the lanes of a warp reach at once. */
struct Access {
    uint64_t at[LANES]; /* those of lanes that do not: another lane's */
    unsigned char *place[LANES];
    uint32_t lanes, bytes;
    bool same; /* all at one address */
    Use use;
};

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

void reach_shared(Warp &w, const Op &op, int lane, const Access &a, int i)
{
    Block &b = *w.block;
    const uint64_t at = a.at[i] - SHARED_BASE;
    const uint32_t bytes = op.used != 0 ? op.used : a.bytes;

    if (a.at[i] < SHARED_BASE || at + a.bytes > b.shared_bytes)
        fault(w, op, 1u << i,
              "bytes %lld to %lld of shared memory: the block has %u",
              (long long)at, (long long)(at + a.bytes), b.shared_bytes);
    if (a.bytes == 1)
        return; /* races are looked for in units of two bytes */
    if (a.use != READS)
        shared_write(w, lane, (uint32_t)at, bytes);
    else
        shared_read(w, lane, (uint32_t)at, bytes);
}

void reach_param(Warp &w, const Op &op, Access *a, int i)
{
    const uint32_t all = w.block->kernel->param_bytes;

    if (a->use != READS || a->at[i] < PARAM_BASE ||
        a->at[i] - PARAM_BASE + a->bytes > all)
        fault(w, op, 1u << i, "outside of the %u bytes of arguments", all);
    a->place[i] = (unsigned char *)w.block->params + (a->at[i] - PARAM_BASE);
}

void reach_local(Warp &w, const Op &op, Access *a, int i)
{
    const uint32_t all = w.block->kernel->local_bytes;
    const size_t thread = (size_t)w.number * LANES + (size_t)i;

    if (a->at[i] < LOCAL_BASE || a->at[i] - LOCAL_BASE + a->bytes > all)
        fault(w, op, 1u << i, "outside of the %u bytes of a thread", all);
    a->place[i] = &w.block->local[thread * all + (a->at[i] - LOCAL_BASE)];
}

/* of the first operand; what is not a lane's is the first lane's */
void addresses(Warp &w, const Op &op, Access *a)
{
    const int first = __builtin_ctz(a->lanes);
    uint64_t differ = 0;

    if (op.wide)
        for (int i = 0; i < LANES; ++i)
            a->at[i] = w.longs(op.from[0])[i] + (uint64_t)op.offset[0];
    else
        for (int i = 0; i < LANES; ++i)
            a->at[i] = w.words(op.from[0])[i] + (uint64_t)op.offset[0];
    const uint64_t one = a->at[first];
    if (a->lanes != ALL)
        for (int i = 0; i < LANES; ++i)
            a->at[i] = a->lanes >> i & 1 ? a->at[i] : one;
    for (int i = 0; i < LANES; ++i)
        differ |= a->at[i] ^ one;
    a->same = differ == 0;
    if (((differ | one) & (a->bytes - 1)) == 0)
        return;
    for (int i = first; i < LANES; ++i)
        if ((a->at[i] & (a->bytes - 1)) != 0)
            fault(w, op, 1u << i, "%u bytes of %s memory at %llx: not aligned",
                  a->bytes, space_names[op.space],
                  (unsigned long long)a->at[i]);
}

/* generic addresses: all of one window */
Space space_of(Warp &w, const Op &op, Access *a)
{
    const int first = __builtin_ctz(a->lanes);
    const bool shared = a->at[first] >= SHARED_WINDOW;

    if (op.space != GENERIC)
        return op.space;
    for (int i = first; i < LANES; ++i)
        if ((a->at[i] >= SHARED_WINDOW) != shared)
            fault(w, op, a->lanes, "generic addresses of two kinds of memory");
    for (int i = 0; shared && i < LANES; ++i)
        a->at[i] -= SHARED_WINDOW;
    return shared ? SHARED : GLOBAL;
}

/* all checks; place[] of the lanes, or of the first one where they are same */
void reach(Warp &w, const Op &op, Access *a)
{
    const int first = __builtin_ctz(a->lanes);

    addresses(w, op, a);
    const Space space = space_of(w, op, a);
    const bool once = a->same && a->use == READS && space != LOCAL;
    const bool many = once && (a->lanes & (a->lanes - 1)) != 0;
    for (int i = first; i < (once ? first + 1 : LANES); ++i) {
        if (!(a->lanes >> i & 1))
            continue;
        if (space == SHARED) {
            reach_shared(w, op, many ? MANY : i, *a, i);
            a->place[i] = &w.block->shared[a->at[i] - SHARED_BASE];
        } else if (space == PARAM) {
            reach_param(w, op, a, i);
        } else if (space == LOCAL) {
            reach_local(w, op, a, i);
        } else {
            a->place[i] = reach_global(w, op, i, a->at[i], a->bytes);
            if (w.block->global && a->bytes > 1)
                global_note(w, many ? MANY : i, a->at[i], a->bytes, a->use);
        }
    }
}

/* values of type T to registers of type R */
template <typename T, typename R>
void load_all(Warp &w, const Op &op, const Access &a)
{
    const int first = __builtin_ctz(a.lanes);
    R d[LANES] = {};

    for (int n = 0; n < op.num_to; ++n) {
        T x;
        memcpy(&x, a.place[first] + (size_t)n * sizeof x, sizeof x);
        if (a.same && op.space != LOCAL)
            for (int i = 0; i < LANES; ++i)
                d[i] = (R)x;
        else
            for (int i = first; i < LANES; ++i)
                if (a.lanes >> i & 1) {
                    memcpy(&x, a.place[i] + (size_t)n * sizeof x, sizeof x);
                    d[i] = (R)x;
                }
        put_lanes(w, op.to[n], d, a.lanes);
    }
}

template <typename T> void store_all(Warp &w, const Op &op, const Access &a)
{
    for (int n = 1; n < op.num_from; ++n)
        for (int i = 0; i < LANES; ++i)
            if (a.lanes >> i & 1) {
                const T x = (T)(sizeof x == 8 ? w.longs(op.from[n])[i]
                                              : w.words(op.from[n])[i]);
                memcpy(a.place[i] + (size_t)(n - 1) * sizeof x, &x, sizeof x);
            }
}

} // namespace

void run_load(Warp &w, const Op &op, uint32_t lanes)
{
    Access a;

    if (lanes == 0)
        return;
    a.lanes = lanes;
    a.bytes = (uint32_t)op.bytes * op.num_to;
    a.use = READS;
    reach(w, op, &a);
    switch (op.bytes + (op.extends ? 16 : 0) + (op.to_bytes == 8 ? 32 : 0)) {
    case 1:
        return load_all<uint8_t, uint32_t>(w, op, a);
    case 17:
        return load_all<int8_t, uint32_t>(w, op, a);
    case 2:
        return load_all<uint16_t, uint32_t>(w, op, a);
    case 4:
    case 20:
        return load_all<uint32_t, uint32_t>(w, op, a);
    case 18:
        return load_all<int16_t, uint32_t>(w, op, a);
    case 34:
        return load_all<uint16_t, uint64_t>(w, op, a);
    case 36:
        return load_all<uint32_t, uint64_t>(w, op, a);
    case 40:
    case 56:
        return load_all<uint64_t, uint64_t>(w, op, a);
    case 52:
        return load_all<int32_t, uint64_t>(w, op, a);
    default:
        fault(w, op, lanes, "a load of %d bytes: no row in tests/ptx",
              op.bytes);
    }
}

void run_store(Warp &w, const Op &op, uint32_t lanes)
{
    Access a;

    if (lanes == 0)
        return;
    a.lanes = lanes;
    a.bytes = op.bytes * (op.num_from - 1u);
    a.use = WRITES;
    reach(w, op, &a);
    switch (op.bytes) {
    case 1:
        return store_all<uint8_t>(w, op, a);
    case 2:
        return store_all<uint16_t>(w, op, a);
    case 4:
        return store_all<uint32_t>(w, op, a);
    case 8:
        return store_all<uint64_t>(w, op, a);
    default:
        fault(w, op, lanes, "a store of %d bytes: no row in tests/ptx",
              op.bytes);
    }
}

/* atom.global.min.u64: lane after lane */
void run_least(Warp &w, const Op &op, uint32_t lanes)
{
    uint64_t old[LANES] = { 0 };
    Access a;

    if (lanes == 0)
        return;
    a.lanes = lanes;
    a.bytes = 8;
    a.use = ATOMIC;
    reach(w, op, &a);
    for (int i = 0; i < LANES; ++i) {
        if (!(lanes >> i & 1))
            continue;
        uint64_t *to = (uint64_t *)a.place[i];
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
    if (read > 0 && b.global)
        global_note(w, lane, from, read, READS);
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
