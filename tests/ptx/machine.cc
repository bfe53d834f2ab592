/*
 * Groups of lanes, warps and blocks: sections "Independent Thread Scheduling",
 * "Control Flow Instructions" and "barrier, bar".
 */
#include "ptx.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace ptx
{

/* --- messages ---------------------------------------------------------------- */

void fault_text(const std::string &where, const char *form, ...)
{
    va_list args;

    fprintf(stderr, "ptx: %s: ", where.c_str());
    va_start(args, form);
    vfprintf(stderr, form, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void fault(const Warp &w, const Op &op, uint32_t lanes, const char *form, ...)
{
    const Block &b = *w.block;
    va_list args;

    fprintf(stderr, "ptx: %s%s\nptx: block %u %u %u, warp %d, lanes %08x: ",
            source_of(*b.kernel, op).c_str(),
            place_of(*b.kernel, op.line).c_str(), b.index[0], b.index[1],
            b.index[2], w.number, lanes);
    va_start(args, form);
    vfprintf(stderr, form, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

namespace
{

/* --- a group of lanes --------------------------------------------------------- */

uint32_t where_true(const Warp &w, uint32_t slot)
{
    const uint32_t *p = w.words(slot);
    uint32_t lanes = 0;

    for (int i = 0; i < LANES; ++i)
        lanes |= (p[i] & 1) << i;
    return lanes;
}

void check_known(const Warp &w, const Op &op, uint32_t lanes)
{
    for (int n = 0; n < op.num_from; ++n) {
        const uint32_t unknown = lanes & ~w.known[op.from[n]];
        if (unknown != 0)
            fault(w, op, unknown, "reads a register that nobody wrote (%d)", n);
    }
}

/* what a move leaves known: what it takes, of a choice what is chosen */
void spread_known(Warp &w, const Op &op, uint32_t lanes)
{
    uint32_t from = w.known[op.from[0]];

    if (op.num_from > 1) {
        const uint32_t first = where_true(w, op.from[2]);
        from = (first & from) | (~first & w.known[op.from[1]]);
        from &= w.known[op.from[2]];
    }
    op.run(w, op, lanes);
    w.known[op.to[0]] &= ~lanes | from;
}

/* The lanes that have to be at an instruction together. */
uint32_t members(const Warp &w, const Op &op, uint32_t lanes)
{
    uint32_t mask = 0;

    if (op.aligned)
        return ALL;
    const uint32_t *m = w.words(op.from[op.num_from - 1]);
    for (int i = 0; i < LANES; ++i)
        if (lanes >> i & 1) {
            if (mask != 0 && m[i] != mask)
                fault(w, op, lanes, "lanes name other members, %08x and %08x",
                      mask, m[i]);
            mask = m[i];
        }
    if ((lanes & ~mask) != 0)
        fault(w, op, lanes, "is not among the members %08x", mask);
    return mask;
}

void check_copies(const Warp &w, const Op &op, uint32_t lanes)
{
    for (int i = 0; i < LANES; ++i)
        if ((lanes >> i & 1) &&
            !w.block->copies[(size_t)w.number * LANES + (size_t)i].empty())
            fault(w, op, 1u << i, "ends before its copies to shared memory");
}

/* Both ways of a branch; true: the group is two now, or elsewhere. */
bool branch(Warp &w, int g, const Op &op, uint32_t taken, int32_t *pc)
{
    const uint32_t rest = w.group[g].lanes & ~taken;

    if (taken != 0 && rest != 0) {
        w.group[w.num_groups++] = Group { op.target, taken, false };
        w.group[g].lanes = rest;
        ++*pc;
        return true;
    }
    *pc = taken != 0 ? op.target : *pc + 1;
    return w.num_groups > 1;
}

/* the next instruction at which another group stands */
int32_t next_meeting(const Warp &w, int g)
{
    int32_t next = INT_MAX;

    for (int i = 0; i < w.num_groups; ++i)
        if (i != g && w.group[i].pc > w.group[g].pc && w.group[i].pc < next)
            next = w.group[i].pc;
    return next;
}

/* ends lanes; true: none is left of the group */
bool leave(Warp &w, int g, const Op &op, uint32_t lanes)
{
    check_copies(w, op, lanes);
    w.gone |= lanes;
    w.group[g].lanes &= ~lanes;
    if (w.group[g].lanes != 0)
        return false;
    w.group[g] = w.group[--w.num_groups];
    return true;
}

/* an instruction that lanes do together; false: others are missing */
bool together(Warp &w, int g, const Op &op, uint32_t lanes)
{
    if (lanes != w.group[g].lanes)
        fault(w, op, lanes, "a guard before what lanes do together");
    if (lanes != members(w, op, lanes)) {
        w.group[g].waits = true;
        return false;
    }
    check_known(w, op, lanes);
    op.run(w, op, lanes);
    w.meets += lanes == ALL;
    w.at_barrier = op.kind == BARRIER;
    return true;
}

/* until it waits, ends, parts, or meets another one */
void run_group(Warp &w, int g)
{
    const Op *ops = w.block->kernel->ops.data();
    const int32_t stop = next_meeting(w, g);
    int32_t pc = w.group[g].pc;

    do {
        const Op &op = ops[pc];
        uint32_t lanes = w.group[g].lanes;
        bool ends = false;
        if (op.guard >= 0) {
            const uint32_t unknown = lanes & ~w.known[op.guard];
            if (unknown != 0)
                fault(w, op, unknown, "a guard that nobody wrote");
            const uint32_t p = where_true(w, (uint32_t)op.guard);
            lanes &= op.unless ? ~p : p;
        }
        w.block->op = &op;
        switch (op.kind) {
        case PLAIN:
            check_known(w, op, lanes);
            op.run(w, op, lanes);
            ++pc;
            break;
        case SPREADS:
            spread_known(w, op, lanes);
            ++pc;
            break;
        case BRANCH:
            ends = branch(w, g, op, lanes, &pc);
            break;
        case EXIT:
            if (leave(w, g, op, lanes))
                return;
            ++pc;
            break;
        default:
            ends = !together(w, g, op, lanes);
            pc += !ends;
            ends = ends || w.at_barrier;
        }
        w.group[g].pc = pc;
        if (ends)
            return;
    } while (pc < stop);
}

/* --- a warp --------------------------------------------------------------------- */

/* groups at one instruction become one */
void join(Warp &w)
{
    for (int i = 0; i < w.num_groups; ++i)
        for (int j = w.num_groups - 1; j > i; --j)
            if (w.group[j].pc == w.group[i].pc) {
                w.group[i].lanes |= w.group[j].lanes;
                w.group[i].waits = false;
                w.group[j] = w.group[--w.num_groups];
            }
}

int lowest(const Warp &w)
{
    int best = -1;

    for (int i = 0; i < w.num_groups; ++i)
        if (!w.group[i].waits && (best < 0 || w.group[i].pc < w.group[best].pc))
            best = i;
    return best;
}

[[noreturn]] void stuck(const Warp &w)
{
    const std::vector<Op> &ops = w.block->kernel->ops;

    for (int i = 0; i < w.num_groups; ++i)
        fprintf(stderr, "ptx: lanes %08x wait at %s\n", w.group[i].lanes,
                place_of(*w.block->kernel, ops[(size_t)w.group[i].pc].line)
                    .c_str());
    fault(w, ops[(size_t)w.group[0].pc], w.group[0].lanes,
          "lanes of the warp that are to come never will (%08x have ended)",
          w.gone);
}

/* until all of it is at a barrier of the block, or has ended */
void run_warp(Warp &w)
{
    w.at_barrier = false;
    while (w.num_groups > 0 && !w.at_barrier) {
        join(w);
        const int g = lowest(w);
        if (g < 0)
            stuck(w);
        run_group(w, g);
    }
}

/* --- a block -------------------------------------------------------------------- */

void fill(Warp &w, uint32_t slot, uint8_t bytes, uint64_t value)
{
    for (int i = 0; i < LANES; ++i)
        if (bytes == 8)
            w.longs(slot)[i] = value;
        else
            w.words(slot)[i] = (uint32_t)value;
}

unsigned thread_place(const Block &b, int thread, int axis)
{
    const unsigned t = (unsigned)thread;

    return axis == 0   ? t % b.threads[0]
           : axis == 1 ? t / b.threads[0] % b.threads[1]
                       : t / b.threads[0] / b.threads[1];
}

void fill_special(const Block &b, Warp &w, const Special &s)
{
    const unsigned all[] = { 0, b.index[s.axis], b.threads[s.axis],
                             b.grid[s.axis], 0 };

    for (int i = 0; i < LANES; ++i)
        w.words(s.slot)[i] = s.name == TID
                                 ? thread_place(b, w.number * LANES + i, s.axis)
                             : s.name == LANEID ? (uint32_t)i
                                                : all[s.name];
}

void begin_block(Block &b)
{
    const Kernel &k = *b.kernel;

    ++b.serial;
    b.first_epoch = ++b.epoch;
    memset(b.shared.data(), 0xff, b.shared_bytes);
    b.local.assign(b.copies.size() * k.local_bytes, 0xff);
    for (Warp &w : b.warps) {
        memset(w.known, 0, k.num_slots * sizeof *w.known);
        for (const Constant &c : k.constants)
            w.known[c.slot] = ALL;
        for (const Special &s : k.specials) {
            w.known[s.slot] = ALL;
            if (s.name == CTAID)
                fill_special(b, w, s);
        }
        w.group[0] = Group { 0, ALL, false };
        w.num_groups = 1;
        w.gone = 0;
    }
}

} // namespace

void block_prepare(Block &b, const Kernel *k, uint32_t shared)
{
    const size_t threads = (size_t)b.threads[0] * b.threads[1] * b.threads[2];
    const size_t warps = threads / LANES;

    b.kernel = k;
    b.shared_bytes = k->static_shared;
    if (shared > 0)
        b.shared_bytes = (k->static_shared + 15) / 16 * 16 + shared;
    b.warps.resize(warps);
    b.copies.resize(threads);
    b.committed.assign(threads, 0);
    if (b.file.size() < (warps * k->num_slots + 1) * LANES)
        b.file.resize((warps * k->num_slots + 1) * LANES);
    if (b.known.size() < warps * k->num_slots)
        b.known.resize(warps * k->num_slots);
    if (b.shared.size() < b.shared_bytes + LANES) {
        b.shared.resize(b.shared_bytes + LANES);
        b.cells.resize((b.shared_bytes + LANES) / 2);
    }
    for (size_t i = 0; i < warps; ++i) {
        Warp &w = b.warps[i];
        w = Warp {};
        w.block = &b;
        w.number = (int)i;
        w.slot = (uint32_t(*)[LANES])b.file.data() + i * k->num_slots;
        w.known = b.known.data() + i * k->num_slots;
        for (const Constant &c : k->constants)
            fill(w, c.slot, c.bytes, c.value);
        for (const Special &s : k->specials)
            fill_special(b, w, s);
    }
}

void run_block(Block &b, bool reversed)
{
    const size_t warps = b.warps.size();
    size_t waiting;

    begin_block(b);
    do {
        waiting = 0;
        for (size_t n = 0; n < warps; ++n) {
            Warp &w = b.warps[reversed ? warps - 1 - n : n];
            run_warp(w);
            waiting += w.at_barrier;
        }
        if (waiting != 0 && waiting < warps)
            fault(b.warps[0], *b.op, ALL, "%zu of %zu warps miss the barrier",
                  warps - waiting, warps);
        ++b.epoch;
    } while (waiting != 0);
}

} // namespace ptx
