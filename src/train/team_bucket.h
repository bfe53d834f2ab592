#ifndef DG_SRC_TRAIN_TEAM_BUCKET_H
#define DG_SRC_TRAIN_TEAM_BUCKET_H
/* Sums that leave while the way back still runs: team_bucket.c. Not public.
 * NULL is allowed for all: nothing leaves early. */
#include "train/team.h"

typedef struct Buckets Buckets;

/** Buckets of size elements of the gradient of t (borrowed). Errors:
 *  DG_ENOMEM. */
int dg_buckets_create(Buckets **out, Team *t, int64_t size);
void dg_buckets_destroy(Buckets *b);

/** Before the items of a sum: 1 if they leave early, on all ranks or none. */
int dg_buckets_open(Buckets *b, const Comm *c);

/** dg_team_run(), the last item's gradient leaving early; in the end all
 *  buckets have left. Errors: fn's; DG_EDEVICE of sending. */
int dg_buckets_run(Buckets *b, int64_t num, TeamFn fn, void *user);

/** 1 while an item is in work whose gradient leaves early; */
int dg_buckets_sending(const Buckets *b);
/** dg_team_add() is then this. */
int dg_buckets_add(Buckets *b, int64_t *bad);

/** After a sum: what the first rank has seen of ways back becomes known to
 *  all. Collective, until then. */
void dg_buckets_learn(Buckets *b, const Comm *c);

#endif
