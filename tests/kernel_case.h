#ifndef KERNEL_CASE_H
#define KERNEL_CASE_H
/*
 * A kernel, forward and backward together, with its buffers described, so
 * that every check of test_cpu_kernels.c is written once for all kernels.
 */
#include "tensor/backend.h"

typedef enum SlotKind {
    SLOT_IN,         /* per sample, read */
    SLOT_SHARED,     /* one for all samples, read */
    SLOT_OUT,        /* per sample, overwritten */
    SLOT_ADD,        /* per sample, accumulated */
    SLOT_SHARED_ADD, /* one for all samples, accumulated */
    SLOT_SCRATCH     /* one for all samples, contents free */
} SlotKind;

typedef struct Slot {
    SlotKind kind;
    int64_t size; /* floats (of one sample where per sample) */
    int grad_of;  /* 1 + the input whose gradient this is; 0: none */
} Slot;

enum { CASE_SLOTS = 20, CASE_DIMS = 6 };

typedef struct Case Case;
struct Case {
    const char *name;
    void (*run)(const Backend *be, const Case *c, int64_t batch, float **p);
    int64_t dims[CASE_DIMS];
    int num_slots;
    Slot slots[CASE_SLOTS];
    int y, dy;     /* slots of the output and its gradient; y < 0: none */
    int64_t terms; /* of the longest sum over one sample */
    /* bit s: slot s is float32 also where values are stored as bfloat16 */
    uint32_t wide;
    int64_t bytes; /* of a stored value, 4 or 2 */
};

/** Adds the next slot: the i-th one added gets the number i. */
static inline void case_slot(Case *c, SlotKind kind, int64_t size, int grad_of)
{
    c->slots[c->num_slots++] = (Slot) { kind, size, grad_of };
}

/** Element n of what is stored at p. */
static inline float *case_past(const Case *c, float *p, int64_t n)
{
    return (float *)((char *)p + n * c->bytes);
}

/** Number of cases, and the i-th one. */
int case_count(void);
void case_get(int i, Case *out);

/** Number of kinds of cases, and one of the i-th kind whose sizes are drawn:
 *  draw(n) gives 0..n-1. */
int case_kinds(void);
void case_draw(int i, int64_t (*draw)(int64_t n), Case *out);

#endif
