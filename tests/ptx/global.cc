/*
 * Races in global memory within a launch: blocks run at one time on a device,
 * so none may read or write what another one writes, but by atomics; nor a warp
 * what another warp of its block does since their last barrier, nor a lane what
 * another one does since the warp's.
 */
#include "ptx.h"

namespace ptx
{

namespace
{

enum { UNIT = 2, BLOCKS = 254 };

bool now(const Block &b, uint32_t epoch)
{
    return epoch >= b.launch_epoch;
}

/* something a warp did, and this warp may not have met it; met: the count that
 * t.met is of */
void check(Warp &w, int lane, const Trace &t, uint32_t met, const char *what,
           uint64_t at)
{
    const Block &b = *w.block;
    const uint32_t lanes = lane == MANY ? ALL : 1u << lane;

    if (t.atomic || !now(b, t.epoch))
        return;
    if (t.epoch < b.first_epoch || t.warp == BLOCKS)
        fault(w, *b.op, lanes,
              "a race: global memory at %llx is %s another block",
              (unsigned long long)at, what);
    if (t.epoch == b.epoch && t.warp != w.number)
        fault(w, *b.op, lanes,
              "a race: global memory at %llx is %s another warp (%d) without "
              "a barrier",
              (unsigned long long)at, what, t.warp);
    if (b.strict && t.epoch == b.epoch && t.met == met && t.lane != lane)
        fault(w, *b.op, lanes,
              "a race: global memory at %llx is %s another lane (%d) without "
              "__syncwarp()",
              (unsigned long long)at, what, t.lane);
}

void mark(const Warp &w, int lane, Trace *t, uint32_t met, bool atomic)
{
    t->epoch = w.block->epoch;
    t->met = met;
    t->lane = (uint8_t)lane;
    t->warp = (uint8_t)w.number;
    t->atomic = atomic;
}

/* of readers the worst is kept: two blocks, then two warps since a barrier */
void mark_reader(const Warp &w, int lane, Trace *t)
{
    const Block &b = *w.block;
    const bool many =
        t->epoch == b.epoch && t->met == w.meets && t->lane != lane;

    if (now(b, t->epoch) && (t->epoch < b.first_epoch || t->warp == BLOCKS)) {
        t->epoch = b.epoch;
        t->warp = BLOCKS;
    } else if (t->epoch == b.epoch && t->warp != w.number) {
        t->warp = MANY;
    } else {
        mark(w, many ? MANY : lane, t, w.meets, false);
    }
}

} // namespace

/* traces are a thread's own, and last as long as the memory stays in its place */
void global_begin(Block *b)
{
    std::map<const char *, std::vector<Traces>> kept;

    for (Range &r : b->ranges) {
        std::vector<Traces> *t = &kept[r.from];
        t->swap(b->traces[r.from]);
        t->resize((size_t)(r.to - r.from) / UNIT + 1);
        r.traces = t->data();
    }
    b->traces.swap(kept);
    b->launch_epoch = b->epoch + 1;
}

void global_note(Warp &w, int lane, uint64_t at, uint32_t bytes, Use use)
{
    const Range &r = w.block->last;
    const uint64_t first = at - (uint64_t)r.from;
    Traces *t = r.traces + first / UNIT;

    for (uint32_t i = 0; i < bytes; i += UNIT, ++t) {
        if (use == READS) {
            check(w, lane, t->write, w.fences, "read and is written by",
                  at + i);
            mark_reader(w, lane, &t->read);
        } else if (use == WRITES) {
            check(w, lane, t->write, w.fences, "written, and was written by",
                  at + i);
            check(w, lane, t->read, w.meets, "written, and was read by",
                  at + i);
            mark(w, lane, &t->write, w.fences, false);
        } else {
            mark(w, lane, &t->write, w.fences, true);
        }
    }
}

} // namespace ptx
