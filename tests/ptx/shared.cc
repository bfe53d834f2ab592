/*
 * Races in a block's shared memory. Between two barriers of the block no warp
 * may write what another one reads or writes; between two barriers of a warp no
 * lane what another lane does. What shuffles and votes order are registers, not
 * memory ("Memory Consistency Model"), so they are no barriers for what is
 * written and then read; what was read before one, and went into it, may be
 * overwritten behind it.
 */
#include "ptx.h"

namespace ptx
{

namespace
{

enum { UNIT = 2 };

const char *const names[] = { "written and then read", "read and then written",
                              "written twice" };
enum { READ_LATE, WRITE_LATE, WRITE_TWICE };

[[noreturn]] void race(Warp &w, int lane, uint32_t at, int what, int other_warp,
                       int other_lane)
{
    const Op &op = *w.block->op;
    const uint32_t lanes = lane == MANY ? ALL : 1u << lane;

    if (other_warp != w.number)
        fault(w, op, lanes,
              "a race: byte %u of shared memory is %s by another warp (%d) "
              "without a barrier",
              at, names[what], other_warp);
    fault(w, op, lanes,
          "a race: byte %u of shared memory is %s by another lane (%d) of the "
          "warp without __syncwarp()",
          at, names[what], other_lane);
}

Cell *cells_at(Warp &w, uint32_t at)
{
    return &w.block->cells[at / UNIT];
}

/* someone else than this lane, since the last barrier? */
bool foreign(const Warp &w, int lane, uint32_t epoch, bool met, int other_warp,
             int other_lane)
{
    if (epoch != w.block->epoch)
        return false;
    if (other_warp != w.number)
        return true;
    return w.block->strict && !met && (other_lane != lane || lane == MANY);
}

void check_write(Warp &w, int lane, uint32_t at, const Cell &c)
{
    if (c.under_way)
        fault(w, *w.block->op, 1u << lane,
              "byte %u of shared memory is written while a copy to it is "
              "under way",
              at);
    if (foreign(w, lane, c.write_epoch, c.write_fence != w.fences, c.write_warp,
                c.write_lane))
        race(w, lane, at, WRITE_TWICE, c.write_warp, c.write_lane);
    if (foreign(w, lane, c.read_epoch, c.read_meet != w.meets, c.read_warp,
                c.read_lane))
        race(w, lane, at, WRITE_LATE, c.read_warp, c.read_lane);
}

void mark_written(const Warp &w, int lane, Cell *c)
{
    c->block = w.block->serial;
    c->write_epoch = w.block->epoch;
    c->write_fence = w.fences;
    c->write_warp = (uint8_t)w.number;
    c->write_lane = (uint8_t)lane;
}

void mark_read(const Warp &w, int lane, Cell *c)
{
    if (c->read_epoch != w.block->epoch) {
        c->read_epoch = w.block->epoch;
        c->read_warp = (uint8_t)w.number;
    } else if (c->read_warp != w.number) {
        c->read_warp = MANY;
    } else if (c->read_meet == w.meets) {
        c->read_lane = c->read_lane == lane ? (uint8_t)lane : (uint8_t)MANY;
        return;
    }
    c->read_meet = w.meets;
    c->read_lane = (uint8_t)lane;
}

/* Read before as it is now, by this lane or by so many that one more makes no
 * difference, and not written since the barrier: most reads. */
struct Reader {
    uint32_t epoch, meet, serial;
    uint8_t warp, lane;

    bool knows(const Cell &c) const
    {
        return c.read_epoch == epoch && c.write_epoch != epoch &&
               !c.under_way && (c.block == serial || serial == 0) &&
               (c.read_warp == MANY ||
                (c.read_warp == warp && c.read_meet == meet &&
                 (c.read_lane == lane || c.read_lane == MANY)));
    }
};

void check_read(Warp &w, int lane, uint32_t at, const Cell &c)
{
    const uint32_t lanes = lane == MANY ? ALL : 1u << lane;

    if (c.under_way)
        fault(w, *w.block->op, lanes,
              "byte %u of shared memory is read while a copy to it is under "
              "way",
              at);
    if (w.block->written && c.block != w.block->serial)
        fault(w, *w.block->op, lanes,
              "byte %u of shared memory is read and nobody wrote it", at);
    if (foreign(w, lane, c.write_epoch, c.write_fence != w.fences, c.write_warp,
                c.write_lane))
        race(w, lane, at, READ_LATE, c.write_warp, c.write_lane);
}

} // namespace

void shared_read(Warp &w, int lane, uint32_t at, uint32_t bytes)
{
    const Block &b = *w.block;
    const Reader me = { b.epoch, w.meets, b.written ? b.serial : 0,
                        (uint8_t)w.number, (uint8_t)lane };
    Cell *c = cells_at(w, at);

    for (uint32_t i = 0; i < bytes; i += UNIT, ++c) {
        if (me.knows(*c))
            continue;
        check_read(w, lane, at + i, *c);
        mark_read(w, lane, c);
    }
}

void shared_write(Warp &w, int lane, uint32_t at, uint32_t bytes)
{
    Cell *c = cells_at(w, at);

    for (uint32_t i = 0; i < bytes; i += UNIT, ++c) {
        check_write(w, lane, at + i, *c);
        mark_written(w, lane, c);
    }
}

void shared_under_way(Warp &w, int lane, uint32_t at, uint32_t bytes)
{
    Cell *c = cells_at(w, at);

    for (uint32_t i = 0; i < bytes; i += UNIT, ++c) {
        check_write(w, lane, at + i, *c);
        c->under_way = 1;
    }
}

void shared_arrived(Warp &w, int lane, uint32_t at, uint32_t bytes)
{
    Cell *c = cells_at(w, at);

    for (uint32_t i = 0; i < bytes; i += UNIT, ++c) {
        c->under_way = 0;
        mark_written(w, lane, c);
    }
}

} // namespace ptx
