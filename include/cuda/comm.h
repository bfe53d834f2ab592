#ifndef DG_CUDA_COMM_H
#define DG_CUDA_COMM_H
/*
 * Sums over the GPUs of all ranks, by NCCL. Each rank has a GPU of its own;
 * NCCL refuses two ranks on one.
 */
#include "parallel/comm.h"
#include "parallel/exact_sum.h"

/** 1 if the program was built with NCCL. */
int dg_cuda_comm_built(void);

/**
 * Joins the current streams of all ranks; the stream leaves when it is
 * destroyed.
 * patience_s  a rank that waits so long for the others in a sum takes the job
 *             down
 * Collective. Errors, agreed: DG_EDEVICE.
 */
int dg_cuda_comm_join(const Comm *c, double patience_s);

/** 1 if the current stream was joined to those of all ranks of c. */
int dg_cuda_comm_joined(const Comm *c);

/**
 * In place, element by element, on all ranks. Waits. A rank that has lost its
 * patience names itself and the sum, and takes the job down.
 * v      [num] device; i64 where whole is 1, else f32
 * Collective. Errors, agreed: DG_EDEVICE.
 */
int dg_cuda_comm_sum(const Comm *c, void *v, int64_t num, int whole);

/** The same on root's GPU alone; elsewhere v stays what it was. */
int dg_cuda_comm_sum_to(const Comm *c, void *v, int64_t num, int whole,
                        int root);

/** root's bytes at v, device, to all GPUs; in the same way. */
int dg_cuda_comm_bcast(const Comm *c, void *v, size_t bytes, int root);

/*
 * The same beside the kernels, on a stream of the link's own.
 */
enum { DG_COMM_SLOTS = 8 };

/** Sums v over all ranks, to root or with -1 to all, once all that was queued
 *  is done. v is not to be touched before dg_cuda_comm_sent(). All ranks send
 *  the same in the same order. Errors: DG_EDEVICE. */
int dg_cuda_comm_send(void *v, int64_t num, int whole, int root);
/** Reserves what the next one takes. Errors: DG_ENOMEM, DG_EDEVICE. */
int dg_cuda_comm_descends(void);
/** x->part, whose sum was sent to this rank last, comes down to the host and is
 *  added to x->into by x->take. Nobody waits. Errors: DG_EDEVICE. */
int dg_cuda_comm_descend(const ExactSend *x);
/** Kernels queued from now on follow the sums, on the link's stream; the
 *  second time, they are on the current stream again. */
void dg_cuda_comm_turn(void);
/** What was sent so far leaves a slot free; kernels queued from now on come
 *  after that. 0 <= slot < DG_COMM_SLOTS. */
void dg_cuda_comm_leaves(int slot);
void dg_cuda_comm_slot(int slot);
/** Fetches values of their owners once all that was queued is done; dg_cuda_comm_slot() waits for it.
 *  All ranks fetch the same in the same order. Errors: DG_EDEVICE. */
int dg_cuda_comm_fetch(const Comm *c, const CommFetch *f);
/** The link's stream comes after all that was queued, before
 *  dg_cuda_comm_turn(). */
void dg_cuda_comm_beside(void);
/**
 * Waits until what had been queued when it was called last is done, so that a
 * rank is never far ahead of its device, and learns of its failure.
 * From the first fetch, or what was sent first, to dg_cuda_comm_sent() waits of
 * the current stream also end where another rank has failed (dg_comm_alarm()),
 * or this one's patience is at its end.
 * Errors: DG_EDEVICE.
 */
int dg_cuda_comm_pace(void);
/** For ranks that wait for others: what is under way gets on. */
void dg_cuda_comm_nudge(void);
/**
 * Agrees on err. With none, waits until all that was sent has arrived (wait
 * = 1), as dg_cuda_comm_sum() does; with one the link is given up, so that no
 * rank waits for a part that does not come, and alarms end. Collective.
 * Errors, agreed: err; DG_EDEVICE.
 */
int dg_cuda_comm_sent(const Comm *c, int err, int wait);

#endif
