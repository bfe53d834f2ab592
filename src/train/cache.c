#include "cache_internal.h"
#include "train/cache.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/progress.h"
#include "room.h"
#include "tensor/mirror.h"
#include "train/same_files.h"
#include "train/setup.h"
#include "train/step_plan.h"
#include "train/team.h"
#include "weights/half.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* of the conditions that a rank has at once, where they are small */
enum { ENCODED_BYTES = 1 << 20 };

/* One prompt on its way into the file. */
typedef struct Entry {
    HexDigest key;
    const char *text;
} Entry;

typedef struct Encode {
    const Session *session;
    PromptList lists[DG_CACHE_FILES];
    Policy *policy;
    HexDigest encoder; /* of its text encoders */
    void *text;        /* their weights on a device, to be given back */
    Team *team;
    Entry *entries; /* [num] rising, each once */
    int64_t num, first, num_local;
    float *rows; /* of the prompts at hand, from this one on; */
    int64_t at;
    float *own;       /* where these are, if the file's are others: */
    uint16_t *stored; /* as there */
    HexDigest *tokens, *condition; /* [num]; local ones first */
} Encode;

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const Entry *)a)->key, ((const Entry *)b)->key);
}

static int open_lists(Encode *e, const Policy *sizes)
{
    const Config *c = e->session->config;
    const char *const path[DG_CACHE_FILES] = { c->prompts.file,
                                               c->prompts.eval_file,
                                               c->evaluate.file };
    int err = DG_OK;

    if (c->prompts.cache[0] == '\0')
        return dg_fail(DG_EINVAL, "prompts.cache = \"\": must name the file "
                                  "to write");
    if (path[0][0] == '\0' && path[1][0] == '\0' && path[2][0] == '\0')
        return dg_fail(DG_EINVAL, "prompts.file, prompts.eval_file and "
                                  "evaluate.file are empty: one must name a "
                                  "prompts file");
    for (int i = 0; i < DG_CACHE_FILES && !err; i++)
        if (path[i][0] != '\0') {
            err = dg_setup_prompts(e->session, path[i], &e->lists[i]);
            if (!err)
                err = dg_setup_check_words(e->session, sizes, &e->lists[i],
                                           path[i]);
        }
    return err;
}

static int set_entry(Entry *to, const char *text)
{
    to->text = text;
    return dg_sha256_bytes(to->key, text, strlen(text));
}

/* All prompts of all lists, and the empty one, which guidance needs: once
 * each, in the order of their digests. */
static int collect(Encode *e)
{
    int64_t most = 1, n = 0;
    int err;

    for (int i = 0; i < DG_CACHE_FILES; i++)
        most += e->lists[i].num;
    e->entries = malloc((size_t)most * sizeof *e->entries);
    if (e->entries == NULL)
        return dg_fail(DG_ENOMEM, "%lld prompts", (long long)most);
    err = set_entry(&e->entries[n++], "");
    for (int i = 0; i < DG_CACHE_FILES; i++)
        for (int32_t k = 0; k < e->lists[i].num && !err; k++)
            err = set_entry(&e->entries[n++], e->lists[i].item[k].text);
    qsort(e->entries, (size_t)n, sizeof *e->entries, compare_entries);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(e->entries[i].key, e->entries[i - 1].key) != 0)
            e->entries[e->num++] = e->entries[i];
    return err;
}

int dg_encode_num(int64_t *num, const PromptList *lists)
{
    Encode e = { .num = 0 };
    int err;

    memcpy(e.lists, lists, sizeof e.lists);
    err = collect(&e);
    *num = e.num;
    free(e.entries);
    return err;
}

/* A folder has the encoders in files of their own. */
int dg_encode_alone(const Config *c)
{
    return c->policy.path[0] != '\0' && c->policy.weights[0] == '\0';
}

static int build(Policy **out, const Session *s)
{
    Policy *p = NULL;
    int err;

    if (!dg_encode_alone(s->config))
        return dg_setup_policy(s, 0, out);
    err = s->backend->apart
              ? dg_policy_encoders_on_node(&p, s->config, s->comm)
              : dg_agree(s->comm, dg_policy_encoders(&p, s->config));
    if (!err)
        err = dg_same_files(s);
    if (!err)
        err = dg_policy_load_folder(p, s->comm, DG_FOLDER_TEXT);
    if (!err)
        err = dg_policy_publish(p, s->comm);
    if (err)
        dg_policy_destroy(p);
    else
        *out = p;
    return err;
}

/* Their digest, and then the encoders go where they run; nothing else of the
 * policy does, and the host has no more use of it. */
static int place_encoders(Encode *e)
{
    const Backend *be = e->session->backend;
    Policy *p = e->policy;
    int err = dg_cache_encoders(e->encoder, p);

    if (err || !be->apart)
        return err;
    err = dg_params_place(&e->text, &p->text, be, p->dtype);
    if (!err && p->values != NULL)
        dg_memory_drop(p->values, sizeof *p->values * (size_t)p->num_values);
    else if (!err) /* of dg_policy_encoders() */
        dg_memory_drop(p->text.values, sizeof(float) * (size_t)p->text.count);
    return err;
}

/* A worker's scratch: token ids, then a condition. */
static size_t condition_at(const Policy *p)
{
    return (dg_cache_ids_bytes(p) + 255) & ~(size_t)255;
}

/* Prompts that a rank encodes, then writes: a few for each worker, since not all
 * take as long, and small ones enough to be worth a write. */
static int64_t at_once(const Session *s, uint64_t row_bytes)
{
    const int64_t few = ENCODED_BYTES / (int64_t)row_bytes;
    const int64_t most = 4 * (int64_t)s->num_threads;

    return few > most ? few : most;
}

static uint64_t row_bytes(const Policy *p)
{
    return sizeof(float) * (uint64_t)p->shape.condition;
}

/* Of one prompt on its way into the file: as encoded, and as stored if that is
 * something else. */
static uint64_t way_bytes(const Policy *p, const Config *c)
{
    const H5Type type = dg_cache_type(c);

    return row_bytes(p) + (type != DG_H5_F32 ? dg_h5_type_bytes(type) : 0) *
                              (uint64_t)p->shape.condition;
}

/* The text encoders alone, and a worker. */
int dg_encode_parts(RoomParts *out, const Session *s, const Policy *p,
                    int64_t num_prompts)
{
    const uint64_t row = row_bytes(p);
    const int64_t most = at_once(s, row);
    int64_t first;
    int err;

    *out = (RoomParts) { .team = { .backend = s->backend,
                                   .num_threads = s->num_threads,
                                   .scratch_bytes = condition_at(p) + row,
                                   .exact = 1,
                                   .max_items = 1 } };
    dg_room_networks(out, p, NULL, 0);
    out->network = out->codec = 0;    /* nothing else is placed */
    if (dg_encode_alone(s->config)) { /* nor loaded */
        out->loaded = sizeof(float) * (uint64_t)p->text.count;
        out->together = out->loaded;
    }
    dg_share_range(num_prompts, s->comm->rank, s->comm->size, &first,
                   &out->items);
    out->host = way_bytes(p, s->config) *
                (uint64_t)(out->items < most ? out->items : most);
    err =
        dg_step_plan(&out->step, p, s->backend, &(StepPlanOpts) { .batch = 1 });
    out->team.step_bytes = out->step.encode_bytes;
    return err;
}

/* Before anything is placed. */
static int check_room(const Session *s, const RoomParts *parts)
{
    GpuPlan plan;

    dg_room_count(&plan, parts);
    return dg_room_check(s, plan.gpu, NULL, 0);
}

/* Counts, and places what has room. Collective. */
static int reserve(Encode *e)
{
    const size_t num = (size_t)e->num + 1;
    Policy *sizes = NULL;
    RoomParts parts;
    int err = DG_OK;

    dg_share_range(e->num, e->session->comm->rank, e->session->comm->size,
                   &e->first, &e->num_local);
    e->tokens = calloc(num, sizeof *e->tokens);
    e->condition = calloc(num, sizeof *e->condition);
    if (e->tokens == NULL || e->condition == NULL)
        err = dg_fail(DG_ENOMEM, "digests of %lld prompts", (long long)e->num);
    if (!err)
        err = dg_policy_outline(&sizes, e->session->config);
    if (!err)
        err = dg_encode_parts(&parts, e->session, sizes, e->num);
    dg_policy_destroy(sizes);
    err = dg_agree(e->session->comm, err);
    if (!err)
        err = check_room(e->session, &parts);
    if (err)
        return err;
    err = place_encoders(e);
    if (!err)
        err = dg_team_create(&e->team, &parts.team);
    err = dg_agree(e->session->comm, err);
    if (!err && e->text != NULL && e->policy->together != NULL)
        err = dg_node_memory_settle(e->policy->together, e->session->comm, NULL,
                                    0, NULL, 0);
    return err;
}

static int encode_one(Worker *w, int64_t i, void *user)
{
    const Encode *e = user;
    const PolicyShape *shape = &e->policy->shape;
    int32_t *ids = w->scratch;
    const PromptTokens tokens = { ids, ids + shape->text_tokens };
    const int64_t n = e->at + i;
    const size_t bytes = sizeof(float) * (size_t)shape->condition;
    float *row = e->rows + i * shape->condition;
    float *made = (void *)((char *)w->room + condition_at(e->policy));
    uint16_t *stored =
        e->stored != NULL ? e->stored + i * shape->condition : NULL;
    int err =
        dg_cache_tokenize(e->policy, e->entries[n].text, ids, e->tokens[n]);

    if (!err)
        err = dg_policy_encode(e->policy, &w->ctx, &tokens, made);
    if (!err)
        err = dg_kernel_download(w->ctx.backend, row, made, bytes);
    if (!err && stored != NULL) {
        dg_bfloat_narrow(stored, row, shape->condition);
        err = dg_sha256_bytes(e->condition[n], stored,
                              sizeof *stored * (size_t)shape->condition);
    } else if (!err) {
        err = dg_sha256_bytes(e->condition[n], row, bytes);
    }
    dg_progress_add(1);
    return err;
}

/* Prompts of this rank, on their way into the file. */
static int encode_some(void *user, void *to, int64_t first, int64_t num)
{
    Encode *e = user;

    e->rows = e->own != NULL ? e->own : to;
    e->stored = e->own != NULL ? to : NULL;
    e->at = first;
    return dg_team_run(e->team, num, encode_one, e);
}

static void share_digests(void *user)
{
    const Encode *e = user;
    const Comm *c = e->session->comm;

    dg_comm_share_items(c, e->tokens, e->num, sizeof *e->tokens);
    dg_comm_share_items(c, e->condition, e->num, sizeof *e->condition);
}

/* Texts and keys of all prompts, for the file, and room for what the file has in
 * another type. */
static int make_room(Encode *e, const char ***prompts, HexDigest **keys,
                     int64_t most)
{
    const Session *s = e->session;
    const int other = dg_cache_type(s->config) != DG_H5_F32;

    *prompts = malloc(sizeof **prompts * ((size_t)e->num + 1));
    *keys = malloc(sizeof **keys * ((size_t)e->num + 1));
    if (other)
        e->own = malloc((size_t)row_bytes(e->policy) * (size_t)most + 1);
    if (*prompts == NULL || *keys == NULL || (other && e->own == NULL))
        return dg_fail(DG_ENOMEM, "%lld prompts", (long long)e->num);
    for (int64_t i = 0; i < e->num; i++) {
        (*prompts)[i] = e->entries[i].text;
        memcpy((*keys)[i], e->entries[i].key, sizeof **keys);
    }
    return DG_OK;
}

/* No more than a few prompts are in memory at once: of all of them, conditions
 * of FLUX take 8 MB each, in the file perhaps half. */
static int write_file(Encode *e)
{
    const Session *s = e->session;
    const int64_t few = at_once(s, row_bytes(e->policy));
    const int64_t most = e->num_local < few ? e->num_local : few;
    const char **prompts;
    HexDigest *keys;
    int err = dg_agree(s->comm, make_room(e, &prompts, &keys, most));
    const ConditionsContent k = {
        .num = e->num,
        .width = e->policy->shape.condition,
        .prompt = prompts,
        .key = (const HexDigest *)keys,
        .tokens = (const HexDigest *)e->tokens,
        .condition = (const HexDigest *)e->condition,
        .encoder = e->encoder,
        .first = e->first,
        .num_local = e->num_local,
        .type = dg_cache_type(s->config),
        .fetch = encode_some,
        .at_once = most,
        .fetched = share_digests,
        .user = e,
    };

    if (!err)
        err = dg_conditions_write(s->comm, s->config->prompts.cache, &k,
                                  &s->info);
    free(prompts);
    free(keys);
    free(e->own);
    e->own = NULL;
    return err;
}

/* What is refused before weights are read. */
static int check(Encode *e)
{
    Policy *sizes = NULL;
    int err = dg_setup_sizes(e->session, &sizes);

    if (!err)
        err = open_lists(e, sizes);
    dg_policy_destroy(sizes);
    return err;
}

static int run(Encode *e, int dry)
{
    const Session *s = e->session;
    int err = check(e);

    if (!err)
        err = build(&e->policy, s);
    if (!err)
        err = dg_agree(s->comm, collect(e));
    if (!err)
        err = reserve(e);
    if (err || dry)
        return err;
    dg_progress_start("encode", e->num_local);
    err = write_file(e);
    dg_progress_end();
    return err;
}

int dg_encode(const Session *s, int dry)
{
    Encode e = { .session = s };
    int err = run(&e, dry);

    if (!err && !dry)
        dg_info("wrote %s: %lld prompt%s of %lld values in %s",
                s->config->prompts.cache, (long long)e.num, dg_plural(e.num),
                (long long)e.policy->shape.condition,
                dg_h5_type_name(dg_cache_type(s->config)));
    dg_team_destroy(e.team);
    dg_kernel_memory_free(s->backend, e.text);
    dg_policy_destroy(e.policy);
    for (int i = 0; i < DG_CACHE_FILES; i++)
        dg_prompts_free(&e.lists[i]);
    free(e.entries);
    free(e.tokens);
    free(e.condition);
    return err;
}
