#ifndef TESTS_PTX_H
#define TESTS_PTX_H
/*
 * The PTX that nvcc makes of cuda/, run on the host, in place of the C++ that
 * tests/cuda_emulation runs: what the compiler made of templates, of inline
 * assembly and of the layout of arguments is then what is tested. Written from
 * NVIDIA's "Parallel Thread Execution ISA" (its sections are named where they
 * count), and not from the emulation or cuda/mma.h, so that it is a second
 * opinion on both.
 *
 * An instruction is done for the 32 lanes of a warp at once. Lanes that branch
 * elsewhere go on as a group of their own, the group at the lowest instruction
 * first, and join again where they meet. What is undefined on a device ends the
 * program and names kernel, line of the PTX, block, warp and lanes.
 */
#include <stddef.h>
#include <stdint.h>

#include <map>
#include <string>
#include <vector>

namespace ptx
{

enum {
    LANES = 32,
    MAX_TO = 4,
    MAX_FROM = 10,
    PARAM_BASE = 4096,  /* of addresses of arguments, */
    SHARED_BASE = 1024, /* of shared memory */
    LOCAL_BASE = 8192,  /* and of a thread's own: 0 is nowhere */
    MANY = 255,
    ANY = 255, /* bytes of an operand: its register says */
    WORD = 254 /* 2 or 4: wider than what is stored */
};
const uint32_t ALL = 0xffffffffu;
/* where shared memory stands among generic addresses; no host memory does */
const uint64_t SHARED_WINDOW = 0x00ff000000000000;

struct Op;
struct Warp;
struct Block;

/* does an instruction for some lanes */
using Run = void (*)(Warp &w, const Op &op, uint32_t lanes);

enum Kind : uint8_t {
    PLAIN,
    SPREADS,  /* a move: what is unknown may be moved */
    TOGETHER, /* of the lanes that a mask names, at one time */
    BARRIER,
    BRANCH,
    EXIT
};
enum Space : uint8_t { GENERIC, GLOBAL, SHARED, PARAM, LOCAL };

/* Bytes of an operand: 2, 4, 8; 1 is a predicate. A register is a slot of 32
 * words, of 8 bytes two slots. */
struct Shape {
    Run run;
    Kind kind;
    uint8_t to[MAX_TO], from[MAX_FROM];
};

struct Op {
    Run run;
    Kind kind;
    bool unless;  /* the guard is to be false */
    bool aligned; /* all lanes of the warp have to be there */
    bool extends; /* the sign of what is loaded */
    bool wide;    /* an address of 8 bytes */
    Space space;
    uint8_t mode, bytes, num_to, num_from;
    uint8_t to_bytes; /* of the first register that is written */
    uint8_t used;     /* bytes of what is loaded that count; 0: all */
    int32_t guard;    /* slot of a predicate, or -1 */
    int32_t target;   /* of a branch */
    int32_t line;     /* in the file */
    int32_t source_file, source_line;
    int64_t offset[2]; /* of addresses */
    uint32_t to[MAX_TO], from[MAX_FROM];
};

struct Constant {
    uint32_t slot;
    uint8_t bytes;
    uint64_t value;
};

/* %tid.x and the like */
enum SpecialName : uint8_t { TID, CTAID, NTID, NCTAID, LANEID };
struct Special {
    uint32_t slot;
    SpecialName name;
    uint8_t axis;
};

struct Param {
    uint32_t at, bytes;
};

/* a variable of shared memory, at.. from its beginning */
struct Variable {
    uint32_t bytes, align, at;
    bool dynamic, placed;
};

struct Module {
    std::string path, text;
    std::map<std::string, Variable> shared; /* outside of kernels */
};

/* of the compiled kernel, for one sm; threads 0: nobody has asked ptxas */
struct Needs {
    int sm, registers, shared;
};

struct Kernel {
    std::string name; /* mangled */
    const Module *module;
    size_t begin; /* of ".entry" in the module's text */
    bool parsed;
    std::vector<Op> ops;
    std::vector<Param> params;
    uint32_t param_bytes, num_slots, static_shared, local_bytes;
    std::vector<Constant> constants;
    std::vector<Special> specials;
    unsigned most_threads; /* .maxntid; 0: not said */
    std::vector<Needs> needs;
};

/* Lanes at one instruction. */
struct Group {
    int32_t pc;
    uint32_t lanes;
    bool waits; /* for others, at an instruction of TOGETHER or BARRIER */
};

struct Warp {
    uint32_t (*slot)[LANES];
    uint32_t *known; /* lanes that have written a slot */
    Block *block;
    int number;
    uint32_t gone;   /* lanes that have ended */
    uint32_t fences; /* barriers so far, */
    uint32_t meets;  /* and all that its lanes have done together */
    Group group[LANES];
    int num_groups;
    bool at_barrier;

    uint32_t *words(uint32_t s) const
    {
        return slot[s];
    }
    uint64_t *longs(uint32_t s) const
    {
        return (uint64_t *)slot[s];
    }
};

/* Lanes of a result are written, and known. */
template <typename T>
inline void put_lanes(Warp &w, uint32_t slot, const T *value, uint32_t lanes)
{
    T *d = (T *)w.slot[slot];

    if (lanes == ALL)
        for (int i = 0; i < LANES; ++i)
            d[i] = value[i];
    else
        for (int i = 0; i < LANES; ++i)
            d[i] = lanes >> i & 1 ? value[i] : d[i];
    w.known[slot] |= lanes;
}
inline void put_words(Warp &w, uint32_t slot, const uint32_t *value,
                      uint32_t lanes)
{
    put_lanes(w, slot, value, lanes);
}
inline void put_longs(Warp &w, uint32_t slot, const uint64_t *value,
                      uint32_t lanes)
{
    put_lanes(w, slot, value, lanes);
}

/* A copy to shared memory that is under way. */
struct Copy {
    uint32_t to, bytes, read; /* the rest is zeros */
    uint64_t from;
    int group; /* -1: not committed */
    unsigned char early[16];
};

/* What is known of two bytes of shared memory, for races: who wrote and who
 * read them last, since which barrier. */
struct Cell {
    uint32_t block; /* written in this block */
    uint32_t write_epoch, write_fence, read_epoch, read_meet;
    uint8_t write_warp, write_lane, read_warp, read_lane;
    uint8_t under_way;
};

/* The same of global memory: who did it last. */
struct Trace {
    uint32_t epoch, met; /* of a reader Warp.meets, else its fences */
    uint8_t warp, lane;
    bool atomic;
};
struct Traces {
    Trace write, read;
};
enum Use : uint8_t { READS, WRITES, ATOMIC };

struct Range {
    const char *from, *to;
    Traces *traces;
};

struct Block {
    const Kernel *kernel;
    const Op *op; /* being done */
    const unsigned char *params;
    unsigned index[3], grid[3], threads[3];
    std::vector<Warp> warps;
    std::vector<uint32_t> file, known;
    std::vector<unsigned char> shared, local;
    std::vector<Cell> cells;
    uint32_t shared_bytes, serial, epoch;
    std::vector<std::vector<Copy>> copies; /* of each thread */
    std::vector<int> committed;            /* groups, of each thread */
    std::vector<Range> ranges;             /* of global memory */
    Range last;
    std::map<const char *, std::vector<Traces>> traces;
    uint32_t first_epoch, launch_epoch; /* of the block, of the launch */
    bool rough, early, strict, written, global; /* see launch.cc */
};

/* --- text ------------------------------------------------------------------ */

/** The kernels of a file; their instructions are read by kernel_parse(). */
void module_scan(const char *path, std::vector<Kernel> *kernels);
void kernel_parse(Kernel *k);
/** "kernel, file:line: what stands there" */
std::string place_of(const Kernel &k, int line);
/** "file:line: " of the source; "" where nvcc has not said. */
std::string source_of(const Kernel &k, const Op &op);

/** The shape of an opcode of arithmetic; run NULL: there is none. */
Shape table_find(const std::string &opcode);
/** And of the others, from its words; op gets what they say besides. */
Shape form_find(const std::vector<std::string> &words, Op *op);

/* --- memory ---------------------------------------------------------------- */

uint64_t address_of(Warp &w, const Op &op, int lane, int which);
/** Notes what a lane (MANY: all of the warp) does with shared memory. */
void shared_read(Warp &w, int lane, uint32_t at, uint32_t bytes);
void shared_write(Warp &w, int lane, uint32_t at, uint32_t bytes);
void shared_under_way(Warp &w, int lane, uint32_t at, uint32_t bytes);
void shared_arrived(Warp &w, int lane, uint32_t at, uint32_t bytes);
/** The same of global memory that was just reached (Block.last). */
void global_note(Warp &w, int lane, uint64_t at, uint32_t bytes, Use use);
void global_begin(Block *b);
void run_load(Warp &w, const Op &op, uint32_t lanes);
void run_store(Warp &w, const Op &op, uint32_t lanes);
void run_least(Warp &w, const Op &op, uint32_t lanes);
void run_copy(Warp &w, const Op &op, uint32_t lanes);
void run_commit(Warp &w, const Op &op, uint32_t lanes);
void run_wait(Warp &w, const Op &op, uint32_t lanes);

/* --- what a warp does together ------------------------------------------------ */

void run_shuffle(Warp &w, const Op &op, uint32_t lanes);
void run_vote(Warp &w, const Op &op, uint32_t lanes);
void run_fence(Warp &w, const Op &op, uint32_t lanes);
void run_tiles(Warp &w, const Op &op, uint32_t lanes);
void run_product(Warp &w, const Op &op, uint32_t lanes);

/* --- running ---------------------------------------------------------------- */

void run_block(Block &b, bool reversed);
void block_prepare(Block &b, const Kernel *k, uint32_t shared);

/** Ends the program. */
[[noreturn]] void fault(const Warp &w, const Op &op, uint32_t lanes,
                        const char *form, ...)
    __attribute__((format(printf, 4, 5)));
[[noreturn]] void fault_text(const std::string &where, const char *form, ...)
    __attribute__((format(printf, 2, 3)));

} // namespace ptx

#endif
