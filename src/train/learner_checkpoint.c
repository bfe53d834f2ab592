/* A learner's checkpoints: doc/formats.md. */
#include "train/learner.h"

#include "base/error.h"
#include "base/sha256.h"
#include "learner_internal.h"
#include "store/checkpoint.h"
#include "tensor/mirror.h"
#include "train/pool.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_ARRAYS = 6,
    MAX_NOTES = 2 + DG_LEARNER_NOTES,
    MAX_COUNTERS = 1 + DG_CONFIG_REWARDS
};

/* an array of the state that is not the host's, for get() and put() */
typedef struct StateOf {
    const Backend *on;
    char *at;
    size_t size; /* bytes of an element */
} StateOf;

/* the weights from the first that is here */
typedef struct WeightsOf {
    const Policy *policy;
    int64_t first;
} WeightsOf;

typedef struct Content {
    StateOf state[MAX_ARRAYS];
    WeightsOf weights;
    CheckpointArray arrays[MAX_ARRAYS];
    CheckpointCounter counters[MAX_COUNTERS];
    CheckpointNote notes[MAX_NOTES];
    CheckpointParam *params;
    Checkpoint k;
} Content;

static void add_params(CheckpointParam *to, const ParamSet *set, int64_t base)
{
    for (int i = 0; i < set->num_params; i++) {
        const Param *q = set->params[i];

        to[i].name = q->name;
        to[i].offset = base + q->value.param_offset;
        to[i].num_dims = q->value.num_dims;
        for (int k = 0; k < q->value.num_dims; k++)
            to[i].dims[k] = q->value.dims[k];
    }
}

static int new_params(Content *c, int num)
{
    c->k.num_params = num;
    c->params = calloc((size_t)num, sizeof *c->params);
    return c->params != NULL ? DG_OK : dg_fail(DG_ENOMEM, "checkpoint index");
}

static int describe_base(Content *c, const Policy *p)
{
    int err = new_params(c, p->net.num_params + p->text.num_params);

    if (err)
        return err;
    add_params(c->params, &p->net, 0);
    add_params(c->params + p->net.num_params, &p->text, p->net.count);
    return DG_OK;
}

/* The base stays where it is; the file says what it has to be. */
static int describe_adapters(Content *c, const Policy *p)
{
    int err = new_params(c, p->adapters.num_params);

    if (err)
        return err;
    add_params(c->params, &p->adapters, 0);
    c->notes[0] =
        (CheckpointNote) { .key = "base_path", .value = p->base_path };
    c->notes[1] = (CheckpointNote) { .key = "base_sha256_pieces",
                                     .value = p->base_pieces,
                                     .must_match = 1,
                                     .old_key = "base_sha256",
                                     .old_value = p->base_sha256 };
    c->k.num_notes = 2;
    return DG_OK;
}

static int get_state(void *user, void *to, int64_t first, int64_t num)
{
    const StateOf *s = user;

    return dg_kernel_download(s->on, to, s->at + s->size * (size_t)first,
                              s->size * (size_t)num);
}

static int put_state(void *user, const void *from, int64_t first, int64_t num)
{
    const StateOf *s = user;

    dg_kernel_upload(s->on, s->at + s->size * (size_t)first, from,
                     s->size * (size_t)num);
    return DG_OK;
}

/* An array of which each rank has its range, which is the host's, or fetched
 * in pieces; of so many parameters to an element. */
static void add_state(Content *c, const Learner *l, const CheckpointArray *what,
                      int64_t each)
{
    const Shard *s = &l->place.shard;
    const Backend *on = what->data != NULL && what->data == l->ema
                            ? dg_learner_ema_on(l)
                            : dg_learner_on(l);
    CheckpointArray *a = &c->arrays[c->k.num_arrays];
    StateOf *of = &c->state[c->k.num_arrays++];

    *a = *what;
    a->num = (l->num + each - 1) / each;
    a->shared = dg_shard_split(s);
    a->first = (s->first + each - 1) / each;
    a->held = (s->num + each - 1) / each;
    if (on == NULL || !on->apart)
        return;
    *of = (StateOf) { on, a->data, a->coded ? 1 : sizeof(float) };
    a->data = NULL;
    a->get = get_state;
    a->put = put_state;
    a->user = of;
}

static void add_moments(Content *c, const Learner *l)
{
    const CheckpointArray floats[] = {
        { "adam_m", "AdamW first moment", .data = l->m },
        { "adam_v", "AdamW second moment", .data = l->v },
    };
    const CheckpointArray codes[] = {
        { "adam_m_codes", "AdamW first moment, codes", 1, .data = l->codes.m },
        { "adam_v_codes", "AdamW second moment, codes", 1, .data = l->codes.v },
    };
    const CheckpointArray scales[] = {
        { "adam_m_scales", "largest first moment of each 256 elements",
          .data = l->codes.m_scale },
        { "adam_v_scales", "largest second moment of each 256 elements",
          .data = l->codes.v_scale },
    };

    for (int i = 0; i < 2; i++)
        if (l->optim.moments == DG_MOMENTS_FLOAT32) {
            add_state(c, l, &floats[i], 1);
        } else {
            add_state(c, l, &codes[i], 1);
            add_state(c, l, &scales[i], DG_MOMENT_BLOCK);
        }
}

static int get_weights(void *user, void *to, int64_t first, int64_t num)
{
    const WeightsOf *w = user;

    return dg_policy_get(w->policy, to, w->first + first, num);
}

static int put_weights(void *user, const void *from, int64_t first, int64_t num)
{
    const WeightsOf *w = user;

    if (w->policy->dropped > 0)
        dg_policy_put(w->policy, from, w->first + first, num);
    else /* sent once all is there */
        dg_policy_set(w->policy, from, w->first + first, num);
    return DG_OK;
}

/* num of them, or of those in ranges this rank's: the last one's ends with the
 * text encoders, which are behind the network. They are the host's, or
 * fetched in pieces; and taken in pieces where others of the node have some of
 * them too, so that what is the same is not written. */
static void weights_array(CheckpointArray *a, WeightsOf *of, const Learner *l,
                          int64_t num)
{
    const Policy *p = l->policy;
    const Shard *s = &l->place.shard;
    const int apart =
        p->dropped > 0 || (p->adapters.num_params == 0 && p->together != NULL &&
                           dg_node_memory_together(p->together));

    *of = (WeightsOf) { p, dg_learner_in_ranges(l) ? s->first : 0 };
    *a = (CheckpointArray) { .name = "weights",
                             .long_name = "master weights",
                             .data = apart ? NULL : p->values + of->first,
                             .num = num,
                             .shared = dg_learner_in_ranges(l),
                             .first = of->first,
                             .held = s->num,
                             .get = apart ? get_weights : NULL,
                             .put = apart ? put_weights : NULL,
                             .user = of };
    if (s->rank == s->size - 1)
        a->held += num - s->total;
}

static int describe(Content *c, const Learner *l)
{
    const Policy *p = l->policy;
    int err;

    memset(c, 0, sizeof *c);
    err = p->adapters.num_params > 0 ? describe_adapters(c, p)
                                     : describe_base(c, p);
    if (err)
        return err;
    c->k.arrays = c->arrays;
    weights_array(&c->arrays[c->k.num_arrays++], &c->weights, l,
                  p->adapters.num_params > 0 ? p->adapters.count
                                             : p->num_values);
    add_moments(c, l);
    if (l->ema != NULL)
        add_state(c, l,
                  &(CheckpointArray) {
                      "ema", "exponential moving average of the weights",
                      .data = l->ema },
                  1);
    c->counters[0] =
        (CheckpointCounter) { .name = "optimizer_step", .value = l->updates };
    for (int i = 0; i < l->num_more; i++)
        c->counters[1 + i] = l->more[i];
    for (int i = 0; i < l->num_notes; i++)
        c->notes[c->k.num_notes++] = l->notes[i];
    c->k.notes = c->notes;
    c->k.params = c->params;
    c->k.counters = c->counters;
    c->k.num_counters = 1 + l->num_more;
    return DG_OK;
}

int dg_learner_digest_whole(const Learner *l, const Comm *c, char hex[65])
{
    CheckpointArray a;
    WeightsOf of;
    int err;

    weights_array(&a, &of, l, l->num);
    if (a.data != NULL && !a.shared)
        return dg_agree(
            c, dg_sha256_bytes(hex, a.data, sizeof(float) * (size_t)a.num));
    err = dg_checkpoint_digest(hex, c, &a);
    dg_comm_bcast(c, hex, DG_SHA256_HEX, 0);
    return dg_agree(c, err);
}

int dg_learner_digest(const Learner *l, const Session *s, char hex[65])
{
    CheckpointArray a;
    WeightsOf of;
    int err;

    weights_array(&a, &of, l, l->num);
    dg_session_digests_begin(s);
    err = dg_checkpoint_digest_pieces(hex, s->comm, &a);
    dg_session_digests_end();
    if (!err)
        dg_comm_bcast(s->comm, hex, DG_SHA256_HEX, 0);
    return err;
}

int dg_learner_save(const Learner *l, const Session *s, const char *dir,
                    int64_t iteration)
{
    Content c;
    int err = dg_agree(s->comm, describe(&c, l));

    if (!err)
        err = dg_agree(s->comm, dg_learner_fetch(l, s->comm));
    if (err) {
        free(c.params);
        return err;
    }
    c.k.iteration = iteration;
    dg_session_digests_begin(s);
    err = dg_checkpoint_write(s->comm, dir, &c.k, &s->info,
                              s->config->checkpoint.keep);
    dg_session_digests_end();
    free(c.params);
    return err;
}

int dg_learner_resume(Learner *l, const Session *s, const char *dir,
                      int64_t *iteration, int *found)
{
    Content c;
    int err = dg_agree(s->comm, describe(&c, l));

    if (err)
        return err;
    dg_session_digests_begin(s);
    err = dg_checkpoint_resume(s->comm, dir, &c.k, &s->info, found);
    dg_session_digests_end();
    if (!err && *found) {
        *iteration = c.k.iteration;
        l->updates = c.counters[0].value;
        for (int i = 0; i < l->num_more; i++)
            l->more[i].value = c.counters[1 + i].value;
        if (l->policy->dropped > 0 && !dg_learner_in_ranges(l)) {
            dg_policy_round(l->policy); /* masters are where they have to be */
        } else if (l->policy->dropped > 0) {
            err = dg_learner_spread(l);
        } else {
            dg_learner_send(l);
            if (l->pool != NULL)
                err = dg_pool_refresh(l->pool);
        }
    }
    free(c.params);
    return err;
}
