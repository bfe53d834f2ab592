/* Blocks and fibres of cuda_runtime.h: scheduler, barriers, shuffles. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

enum {
    WARP = 32,
    MAX_THREADS = 1024,
    STACK_BYTES = 65536 + 320, /* no power of two: tops share no cache lines */
    SHARED_BYTES = 163 * 1024, /* of a block on sm_80 */
    SHARED_PLAIN = 48 * 1024   /* without asking for more */
};

thread_local uint3 threadIdx, blockIdx;
thread_local int cuda_emulation_current;
thread_local dim3 blockDim, gridDim;
alignas(256) thread_local float dg_cuda_shared[SHARED_BYTES / sizeof(float)];

namespace
{

enum State { AT_WARP, AT_BLOCK };

struct Fibre {
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    bool begun;
};

struct Thread {
    int fibre; /* -1: not begun, or done */
    unsigned parity;
};

/* How far the scheduler is: the warps in their turn, the lanes of one in
 * theirs, and how many wait. All of a warp go on, or none, and so do all of a
 * block: who is next needs no more than that. */
struct Turn {
    int warp, lane;
    int at_warp, at_block;
};

struct Machine {
    Fibre main, fibre[MAX_THREADS];
    char *stacks;
    int free[MAX_THREADS], num_free;
    Thread thread[MAX_THREADS];
    uint3 index[MAX_THREADS]; /* of blocks of the size dim */
    dim3 dim;
    Turn turn;
    int num_threads;
    uint64_t slots[MAX_THREADS / WARP][2][WARP];
    size_t shared;
    void (*call)(void *);
    void *user;
};

/* What runs a thread's kernels ends with that thread. */
struct Owner {
    ~Owner();
    bool owns;
};

thread_local Machine *machine;
thread_local Owner owner;
int reversed;

Owner::~Owner()
{
    if (!owns)
        return;
    munmap(machine->stacks, (size_t)MAX_THREADS * STACK_BYTES);
    delete machine;
    machine = nullptr;
}

[[noreturn]] void fault(const char *what)
{
    fprintf(stderr, "cuda emulation: %s (block %u %u %u, thread %u %u %u)\n",
            what, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
            threadIdx.z);
    abort();
}

/* --- fibres -------------------------------------------------------------- */

void fibre_main();

#if defined(__x86_64__)
extern "C" void cuda_emulation_switch(void **save, void *to);
/* registers a call preserves go to the stack, the stacks change places */
asm(".text\n"
    ".type cuda_emulation_switch, @function\n"
    "cuda_emulation_switch:\n"
    "pushq %rbp\n pushq %rbx\n pushq %r12\n"
    "pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\n popq %r14\n popq %r13\n"
    "popq %r12\n popq %rbx\n popq %rbp\n"
    "ret\n"
    ".size cuda_emulation_switch, . - cuda_emulation_switch\n");

void fibre_switch(Fibre *from, Fibre *to)
{
    cuda_emulation_switch(&from->sp, to->sp);
}

void fibre_begin(Fibre *f, char *stack)
{
    void **top = (void **)(stack + STACK_BYTES) - 2;

    *top = (void *)fibre_main; /* where the first switch returns to */
    f->sp = top - 6;
}
#else
void fibre_switch(Fibre *from, Fibre *to)
{
    swapcontext(&from->context, &to->context);
}

void fibre_begin(Fibre *f, char *stack)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fibre_main, 0);
}
#endif

/* --- scheduler: part of whoever waits or ends ---------------------------- */

/* The warp whose turn it is, from its first lane on; false: the block is done. */
bool next_warp(Machine *m)
{
    Turn *t = &m->turn;

    t->lane = 0;
    if (t->at_warp > 0) {
        if (t->at_warp < WARP)
            fault("some threads of a warp miss its barrier");
        t->at_warp = 0;
        return true;
    }
    if (++t->warp < m->num_threads / WARP)
        return true;
    if (t->at_block == 0 && cuda_emulation_copies_left())
        fault("a thread ends before its copies to shared memory");
    if (t->at_block == 0)
        return false;
    if (t->at_block < m->num_threads)
        fault("some threads of a block miss __syncthreads()");
    *t = Turn {};
    return true;
}

/* The thread whose turn it is; -1: the block is done. A warp goes on until all
 * of it waits for the block or is done, then the next one has its turn. */
inline int next_thread(Machine *m)
{
    Turn *t = &m->turn;

    if (t->lane == WARP && !next_warp(m))
        return -1;
    const int i = t->warp * WARP + t->lane++;
    return reversed ? m->num_threads - 1 - i : i;
}

inline void set_current(Machine *m, int i)
{
    cuda_emulation_current = i;
    threadIdx = m->index[i];
}

/* from here to thread i, on a fibre of its own */
inline void go(Machine *m, Fibre *from, int i)
{
    Thread *t = &m->thread[i];

    if (t->fibre < 0) {
        t->fibre = m->free[--m->num_free];
        if (!m->fibre[t->fibre].begun) {
            m->fibre[t->fibre].begun = true;
            fibre_begin(&m->fibre[t->fibre],
                        m->stacks + (size_t)t->fibre * STACK_BYTES);
        }
    }
    set_current(m, i);
    fibre_switch(from, &m->fibre[t->fibre]);
}

/* the running thread waits in the given state */
inline void wait(State state)
{
    Machine *m = machine;
    Thread *t = &m->thread[cuda_emulation_current];

    ++*(state == AT_WARP ? &m->turn.at_warp : &m->turn.at_block);
    go(m, &m->fibre[t->fibre], next_thread(m));
}

/* A fibre runs one thread after the other: at the end of one that which is
 * next, unless it has begun on another fibre. */
void fibre_main()
{
    Machine *m = machine;

    for (;;) {
        Thread *t = &m->thread[cuda_emulation_current];
        const int mine = t->fibre;

        m->call(m->user);
        t->fibre = -1;
        const int next = next_thread(m);
        if (next >= 0 && m->thread[next].fibre < 0) {
            m->thread[next].fibre = mine;
            set_current(m, next);
            continue;
        }
        m->free[m->num_free++] = mine;
        if (next >= 0)
            go(m, &m->fibre[mine], next);
        else
            fibre_switch(&m->fibre[mine], &m->main);
    }
}

void run_block(Machine *m)
{
    for (int i = 0; i < m->num_threads; ++i)
        m->thread[i] = Thread { -1, 0 };
    memset(dg_cuda_shared, 0xff, m->shared);
    m->turn = Turn {};
    go(m, &m->main, next_thread(m));
}

void set_size(Machine *m, dim3 block)
{
    m->num_threads = (int)(block.x * block.y * block.z);
    if (memcmp(&m->dim, &block, sizeof block) == 0)
        return;
    m->dim = block;
    for (unsigned i = 0; i < (unsigned)m->num_threads; ++i)
        m->index[i] =
            uint3 { i % block.x, i / block.x % block.y, i / block.x / block.y };
}

Machine *machine_get()
{
    if (machine != nullptr)
        return machine;
    machine = new Machine();
    machine->stacks = (char *)mmap(
        nullptr, (size_t)MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (machine->stacks == (char *)MAP_FAILED)
        abort();
    for (int i = 0; i < MAX_THREADS; ++i)
        machine->free[machine->num_free++] = MAX_THREADS - 1 - i;
    owner.owns = true;
    return machine;
}

} // namespace

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int)
{
    const char *text = getenv(which == cudaDevAttrComputeCapabilityMajor
                                  ? "CUDA_EMULATION_MAJOR"
                                  : "CUDA_EMULATION_SHARED");

    if (which == cudaDevAttrComputeCapabilityMajor) {
        *value = text != nullptr ? atoi(text) : 8;
        return cudaSuccess;
    }
    *value = text != nullptr ? atoi(text) : SHARED_BYTES;
    return *value <= SHARED_BYTES ? cudaSuccess : cudaErrorInvalidValue;
}

extern "C" void cuda_emulation_order(int last_first)
{
    cuda_emulation_drain_all();
    reversed = last_first;
}

cudaError_t cuda_emulation_check(dim3 grid, dim3 block, size_t shared,
                                 size_t shared_limit)
{
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    int shared_most;

    cudaDeviceGetAttribute(&shared_most,
                           cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || threads == 0 || threads > MAX_THREADS ||
        threads % WARP || block.z > 64 || shared > (size_t)shared_most ||
        (shared > SHARED_PLAIN && shared > shared_limit))
        return cudaErrorInvalidConfiguration;
    return cudaSuccess;
}

cudaError_t cuda_emulation_launch(dim3 grid, dim3 block, size_t shared,
                                  void (*call)(void *), void *user,
                                  const CudaEmulationKernel &kernel)
{
    const size_t shared_limit = cuda_emulation_shared_limit(kernel.kernel, -1);
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;

    if (cuda_emulation_check(grid, block, shared, shared_limit))
        return cudaErrorInvalidConfiguration;
    if (cuda_emulation_count_launch()) /* who waits is told, or nobody has to */
        return getenv("CUDA_LAUNCH_BLOCKING") != nullptr
                   ? cudaErrorLaunchFailure
                   : cudaSuccess;
    const CudaEmulationOpen open;
    if (cuda_emulation_ptx(kernel, grid, block, shared, shared_limit, reversed))
        return cudaSuccess;
    Machine *m = machine_get();
    m->call = call;
    m->user = user;
    m->shared = shared;
    set_size(m, block);
    blockDim = block;
    gridDim = grid;
    for (uint64_t n = 0; n < blocks; ++n) {
        const uint64_t b = reversed ? blocks - 1 - n : n;
        blockIdx.x = (unsigned)(b % grid.x);
        blockIdx.y = (unsigned)(b / grid.x % grid.y);
        blockIdx.z = (unsigned)(b / grid.x / grid.y);
        run_block(m);
    }
    return cudaSuccess;
}

void __syncthreads(void)
{
    wait(AT_BLOCK);
}

void cuda_emulation_not_aligned(void)
{
    fault("16 bytes at once, at an address that is no multiple of 16");
}

/* Two sets of slots in turn: nobody reaches the next but one exchange before
 * all have left this one. */
const uint64_t *cuda_emulation_exchange(unsigned mask, uint64_t bits)
{
    Machine *m = machine;
    Thread *t = &m->thread[cuda_emulation_current];
    uint64_t *slots = m->slots[cuda_emulation_current / WARP][t->parity++ % 2];

    if (mask != 0xffffffffu)
        fault("a shuffle without the whole warp");
    slots[cuda_emulation_current % WARP] = bits;
    wait(AT_WARP);
    return slots;
}
