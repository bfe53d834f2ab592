#ifndef DG_CUDA_COMM_H
#define DG_CUDA_COMM_H
/*
 * Sums over the GPUs of all ranks, by NCCL. Each rank has a GPU of its own;
 * NCCL refuses two ranks on one.
 */
#include "parallel/comm.h"

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

#endif
