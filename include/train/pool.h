#ifndef DG_TRAIN_POOL_H
#define DG_TRAIN_POOL_H
/*
 * Weights of which each rank keeps a range (parallel.shard = "parameters"):
 * the lender of tensor/lender.h. A group of parameters, a block of the
 * network, comes from its owners into one room for weights when the block
 * runs; its gradients go to their owners behind its way back. Parameters in
 * no group are on all ranks.
 *
 * Ranks do not walk in step: they have other numbers of items, and an item may
 * end early. So they meet each time that one of them wants something: all say
 * what they want, the least of it is done by all, and whoever wanted something
 * else asks again. A rank that has nothing left to do serves the others until
 * none wants anything (dg_pool_leave()). Ranks that do the same work want the
 * same at the same time, and it is done once for all of them.
 *
 * One worker a rank: the meetings are its thread's.
 *
 * Where all ranks have all weights and sums alone are in ranges
 * (parallel.passes), a pool has nothing to lend but room for gradients, and
 * ranks meet in dg_team_sum() only. On the CPU a rank may then have several
 * workers, each with room of its own: the first one meets the others for all,
 * and what they give together travels once. Their sums are to be exact.
 */
#include "tensor/lender.h"
#include "train/learner.h"
#include "train/team.h"

typedef struct WeightPool WeightPool;

/**
 * Bytes of kernel memory for the weights of a policy, and KL's reference or
 * NULL, on a rank: its ranges, what is in no group, the room for a group, and
 * adapters. Both may be outlines.
 * apart  kernel memory is not the host's; then text = 1: prompts are encoded.
 *        Text encoders that are trained are counted in any case
 * rooms  dg_pool_rooms()
 */
uint64_t dg_pool_weight_bytes(const Policy *p, const Policy *reference,
                              const Shard *like, int apart, int text,
                              int rooms);

/** Groups that are here at once: 2 where the next one's weights come while one
 *  runs (parallel.ahead), in kernel memory that is apart. */
int dg_pool_rooms(const Config *c, int apart);

/** The same of the host, beside a GPU: what travels. */
size_t dg_pool_stage_bytes(const Shard *shard);

/** Groups of which gradients are here at once: 2 where they leave while the
 *  next one is gone back through. s, offload: of the team. */
int dg_pool_grad_rooms(const Config *c, const Shard *s, int apart, int offload);

/** 1 if gradients of a team that has such a pool, and so many rooms for them, go
 *  from GPU to GPU and their sums come down to the host's behind:
 *  TeamOpts.sends. */
int dg_pool_descends(const TeamOpts *o, const Policy *p, int rooms);

/** Elements of a worker's gradient: of trained parameters in no group, and so
 *  often of the largest group; below adapters, theirs. */
int64_t dg_pool_room(const Policy *p, int rooms);

/** In place of dg_policy_place(): this rank's ranges. Errors: DG_ENOMEM. */
int dg_pool_hold(const Session *s, Policy *p);

/**
 * Of a policy, and KL's reference, pretraining's teacher
 * (dg_policy_as_teacher()) or NULL, that are held; the team, of one worker, has
 * it from then on, and the worker's context borrows from it. Of one that was
 * placed, whole, of its gradients alone, and of all workers.
 * Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE.
 */
int dg_pool_create(WeightPool **out, const Session *s, Team *team,
                   Policy *policy, Policy *reference);
void dg_pool_destroy(WeightPool *p);

/**
 * Once all else is reserved: where gradients have two rooms and go to sums of
 * the host's, on one rank or on several whose devices have no way of their own,
 * they do so from now on while the next group is gone back through, by a thread
 * and a stream of their own, if there is room for one and MPI serves it. The
 * same bits. Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE.
 */
int dg_pool_beside(WeightPool *p, const Session *s);

/** 1 if what it lends is trained: not below adapters. */
int dg_pool_trains(const WeightPool *p);

/** 0: all weights are here. */
int dg_pool_lends(const WeightPool *p);

/** The trained weights of all ranks' ranges have changed. Collective. Errors,
 *  agreed: DG_EDEVICE. */
int dg_pool_refresh(WeightPool *p);

/** The same of all weights, the reference's and text encoders' too. */
int dg_pool_reload(WeightPool *p);

/** A round of an item for each of the first num workers, which they all begin
 *  and end (dg_pool_end()). */
void dg_pool_round(WeightPool *p, int64_t num);

/** A worker's item begins: gradients are zero. */
void dg_pool_begin(WeightPool *p, Worker *w);

/** It ends: gives the gradients of parameters in no group. Other ranks may be
 *  waited for. Errors: DG_ENUMERIC naming the parameter; agreed ones. */
int dg_pool_give_rest(WeightPool *p, Worker *w);

/** The worker gives nothing more in this round, with or without an error. The
 *  first one serves the others until that is true of all. */
void dg_pool_end(WeightPool *p, const Worker *w);

/** Groups whose weights had come ahead, since the last call. */
int64_t dg_pool_take_ahead(WeightPool *p);

/** err  this rank's code at the end of its work; the others' wishes are
 *  served until all have ended. Collective. Returns the agreed code. */
int dg_pool_leave(WeightPool *p, int err);

#endif
