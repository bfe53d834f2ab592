#include "train/setup.h"

#include "base/error.h"
#include "base/log.h"
#include "store/checkpoint.h"
#include "store/file.h"
#include "train/same_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int dg_setup_prompts(const Session *s, const char *path, PromptList *out)
{
    char *text = NULL;
    size_t bytes = 0;
    int err = DG_OK;

    if (s->comm->rank == 0)
        err = dg_file_read(path, &text, &bytes);
    err = dg_agree(s->comm, err);
    if (err)
        return err;
    err = dg_comm_bcast_alloc(s->comm, &text, &bytes, 0);
    if (!err)
        err = dg_agree(s->comm, dg_prompts_parse(out, path, text, bytes));
    free(text);
    return err;
}

int dg_setup_has_weights(const Config *c)
{
    return c->policy.weights[0] != '\0' || c->policy.path[0] != '\0';
}

/* All of the folder, or what no weights file has. */
static int load_folder(Policy *p, const Comm *c, const char *path)
{
    int all = path[0] == '\0', err = DG_OK;

    if (c->rank == 0 && !all)
        err = dg_policy_on_folder(p, path, &all);
    err = dg_agree(c, err);
    if (err)
        return err;
    dg_comm_bcast(c, &all, sizeof all, 0);
    return dg_policy_load_folder(p, c, all);
}

/* Whether the run folder has a checkpoint of before a base had a digest in
 * pieces: it will be compared with the other one. What cannot be read is told
 * where it is resumed from. */
static int has_old_base(const char *run)
{
    char dir[DG_CONFIG_STRING + 16], path[DG_CONFIG_STRING + 64];
    int64_t *list = NULL;
    int num = 0, old = 0;
    H5File *f;

    snprintf(dir, sizeof dir, "%s/checkpoints", run);
    if (dg_checkpoint_list(dir, &list, &num) != DG_OK)
        num = 0;
    for (int i = 0; i < num && !old; i++) {
        dg_checkpoint_path(path, sizeof path, dir, list[i]);
        if (dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT, DG_CHECKPOINT_VERSION) !=
            DG_OK)
            continue;
        old = dg_h5_has_key(f, NULL, "base_sha256");
        dg_h5_close(f);
    }
    free(list);
    dg_clear_error();
    return old;
}

/* What the base is, as files of adapters name it. */
static int note_base(Policy *p, const Session *s)
{
    int err = dg_policy_note_base(p, s->comm);

    /* the first alone reads what files say of it */
    if (!err && s->comm->rank == 0 && has_old_base(s->config->run.dir))
        err = dg_policy_note_old_base(p);
    return dg_agree(s->comm, err);
}

/* policy.weights, by the first rank for all. */
static int load_weights(Policy *p, const Session *s, int ema)
{
    const size_t bytes = sizeof *p->values * (size_t)p->num_values;
    int err = DG_OK;

    if (s->comm->rank == 0)
        err = dg_policy_load(p, s->config->policy.weights, ema);
    err = dg_agree(s->comm, err);
    if (err)
        return err;
    if (p->net.together)
        dg_comm_nodes_bcast(s->comm, p->values, bytes);
    else
        dg_comm_bcast(s->comm, p->values, bytes, 0);
    dg_comm_bcast(s->comm, p->base_path, sizeof p->base_path, 0);
    return DG_OK;
}

/* What stays on the host is each rank's own: kernels walk it in huge pages. */
static int create(Policy **out, const Session *s)
{
    return s->backend->apart
               ? dg_policy_create_on_node(out, s->config, s->comm)
               : dg_agree(s->comm, dg_policy_create(out, s->config));
}

static int build(const Session *s, int ema, int trains_text, Policy **out)
{
    const Config *c = s->config;
    Policy *p = NULL;
    int err = create(&p, s);

    if (!err && trains_text)
        dg_policy_train_text(p);
    if (!err)
        err = dg_same_files(s);
    if (!err && dg_policy_fills(p))
        dg_policy_draw_adapters(p, (uint64_t)c->run.seed);
    if (!err)
        err = load_folder(p, s->comm, c->policy.weights);
    if (!err && c->policy.weights[0] != '\0')
        err = load_weights(p, s, ema);
    if (!err && !dg_setup_has_weights(c) && dg_policy_fills(p))
        dg_policy_draw(p, (uint64_t)c->run.seed);
    if (!err)
        err = dg_policy_publish(p, s->comm);
    if (!err && p->adapters.num_params > 0)
        err = note_base(p, s);
    if (err) {
        dg_policy_destroy(p);
        return err;
    }
    *out = p;
    return DG_OK;
}

int dg_setup_policy(const Session *s, int ema, Policy **out)
{
    return build(s, ema, 0, out);
}

int dg_setup_trained_whole(const Session *s, Policy **out)
{
    return build(s, 0, 1, out);
}

/* Of the same network; only one of them may be padded. */
static void copy_set(ParamSet *to, const ParamSet *from)
{
    const int64_t num = to->count < from->count ? to->count : from->count;

    memcpy(to->values, from->values, sizeof *to->values * (size_t)num);
}

int dg_setup_copy(const Session *s, const Policy *of, Policy **out)
{
    Policy *p = NULL;
    int err = create(&p, s);

    if (!err && dg_policy_fills(p)) {
        copy_set(&p->adapters, &of->adapters);
        copy_set(&p->net, &of->net);
        copy_set(&p->text, &of->text);
    }
    if (!err)
        err = dg_policy_publish(p, s->comm);
    if (err)
        dg_policy_destroy(p);
    else
        *out = p;
    return err;
}

int dg_setup_sizes(const Session *s, Policy **out)
{
    Policy *p = NULL;
    const int err = dg_agree(s->comm, dg_policy_sizes(&p, s->config));

    if (err)
        dg_policy_destroy(p);
    else
        *out = p;
    return err;
}

int dg_setup_find_weights(const Session *s, Policy *sizes)
{
    return load_folder(sizes, s->comm, s->config->policy.weights);
}

static int check_words(const Policy *p, const PromptList *list,
                       const char *path)
{
    const int64_t num = p->shape.text_tokens + p->shape.clip_tokens;
    int32_t *ids = malloc(sizeof *ids * (size_t)num);
    int err = ids != NULL ? DG_OK : dg_fail(DG_ENOMEM, "token ids");
    int32_t num_cut = 0;

    for (int32_t i = 0; i < list->num && !err; i++) {
        const char *text = list->item[i].text;
        char reason[512];
        int cut;

        err = dg_policy_tokenize_cut(p, text, ids, ids + p->shape.text_tokens,
                                     &cut);
        num_cut += cut;
        if (!err)
            continue;
        snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
        dg_fail(err, "%s: prompt %d, \"%.100s\": %s", path, i + 1, text,
                reason);
    }
    free(ids);
    if (!err && num_cut > 0)
        dg_warn("%s: %d of %d prompts are longer than the %lld tokens that the "
                "text encoder reads: their ends have no effect",
                path, num_cut, list->num,
                (long long)(p->shape.text_tokens > 0 ? p->shape.text_tokens
                                                     : p->shape.clip_tokens));
    return err;
}

int dg_setup_check_words(const Session *s, const Policy *p,
                         const PromptList *list, const char *path)
{
    return dg_agree(s->comm,
                    s->comm->rank == 0 ? check_words(p, list, path) : DG_OK);
}

/* Refuses a folder that another configuration began. */
static int compare(const Config *now, const char *stored, const char *name)
{
    Config before;
    char *differing = NULL;
    int err;

    dg_config_defaults(&before);
    err = dg_config_parse(&before, stored, name);
    if (!err)
        err = dg_config_compare(&differing, &before, now);
    if (!err && differing[0] != '\0') {
        differing[strlen(differing) - 1] = '\0'; /* the last line's end */
        err = dg_fail(DG_EINVAL,
                      "%s was begun with another configuration; choose "
                      "another run.dir or undo:\n%.800s",
                      name, differing);
    }
    free(differing);
    return err;
}

/* Whether there is anything that another configuration would spoil. A start
 * that failed on its input leaves a folder, but nothing in it. */
static int has_begun(int *begun, const RunDir *dir)
{
    int64_t *list = NULL;
    struct stat metrics;
    int num = 0;
    int err = dg_checkpoint_list(dir->checkpoints, &list, &num);

    free(list);
    *begun =
        num > 0 || (stat(dir->metrics, &metrics) == 0 && metrics.st_size > 0);
    return err;
}

/* The command whose run the folder has, by its first iteration; NULL: none. */
static const char *owner(const RunDir *dir)
{
    FILE *f = fopen(dir->metrics, "r");
    const char *name = NULL;
    char line[256]; /* the key is the second one, or of held_out, which is */

    if (f == NULL)
        return NULL;
    if (fgets(line, sizeof line, f) != NULL && line[0] == '{')
        name = strstr(line, "\"reward_mean\"") != NULL ||
                       strstr(line, "\"held_out\"") != NULL
                   ? "train"
                   : "pretrain";
    fclose(f);
    return name;
}

static int check_folder(const Config *now, const char *stored,
                        const RunDir *dir, const char *command)
{
    const char *other = owner(dir);
    int begun;
    int err = has_begun(&begun, dir);

    if (err || !begun)
        return err;
    if (other != NULL && strcmp(other, command) != 0)
        return dg_fail(DG_EINVAL,
                       "%s was begun by %s: %s needs another run.dir",
                       dir->root, other, command);
    return compare(now, stored, dir->config);
}

/* The same on all ranks; stored may be NULL, and is freed. */
static int agree_on_folder(const Session *s, char *stored, const RunDir *dir,
                           const char *command)
{
    int err = DG_OK;

    if (s->comm->rank == 0 && stored != NULL)
        err = check_folder(s->config, stored, dir, command);
    free(stored);
    return dg_agree(s->comm, err);
}

/* Not so long that the time is over, or that others think this rank is gone. */
static RunWait wait_of(const Config *c)
{
    const double most[] = { c->run.max_seconds,
                            c->parallel.host_timeout_seconds / 2 };
    RunWait wait = { c->run.wait_seconds, dg_stop_asked };

    for (int i = 0; i < 2; i++)
        if (most[i] > 0 && wait.patience_s > most[i])
            wait.patience_s = most[i];
    return wait;
}

int dg_setup_rundir(const Session *s, RunDir *dir, const char *command)
{
    const RunWait wait = wait_of(s->config);
    char *stored = NULL;
    int err = dg_rundir_open(s->comm, dir, s->config->run.dir, &wait, &stored);

    if (err)
        return err;
    err = agree_on_folder(s, stored, dir, command);
    if (!err)
        err = dg_rundir_write_config(s->comm, dir, s->info.config);
    if (!err)
        err = dg_agree(s->comm, dg_log_open(dir->log));
    if (err)
        dg_rundir_close(dir);
    return err;
}

int dg_setup_look_rundir(const Session *s, const char *command)
{
    char *stored = NULL;
    RunDir dir;
    const int err = dg_rundir_look(s->comm, &dir, s->config->run.dir, &stored);

    return err ? err : agree_on_folder(s, stored, &dir, command);
}

int dg_setup_check_cache(const Config *c)
{
    if (c->prompts.cache[0] != '\0' || c->run.dtype == DG_STORE_BFLOAT16 ||
        c->prompts.cache_dtype != DG_CACHE_BFLOAT16)
        return DG_OK;
    return dg_fail(
        DG_EINVAL,
        "prompts.cache = \"\": prompts.cache_dtype = \"bfloat16\" "
        "with run.dtype = \"float32\" needs the file that `dancegrpo "
        "encode` writes: prompts that are encoded as needed are not "
        "rounded, and give other bits");
}

int dg_setup_check_threads(const Session *s)
{
    const Config *c = s->config;
    const int pools =
        c->parallel.shard == DG_SHARD_PARAMETERS && s->comm->size > 1;
    const int blocks = c->parallel.shard >= DG_SHARD_GRADIENTS &&
                       c->parallel.passes == DG_PASSES_TOGETHER;

    if (s->num_threads > 1 && pools)
        return dg_fail(DG_EINVAL,
                       "parallel.shard = \"parameters\": run.threads = %d: "
                       "must be 1 on the CPU, with more ranks instead",
                       s->num_threads);
    if (s->num_threads > 1 && blocks && !c->parallel.exact_sum)
        return dg_fail(DG_EINVAL,
                       "parallel.passes = \"together\": run.threads = %d: "
                       "must be 1 with parallel.exact_sum = false, with more "
                       "ranks instead",
                       s->num_threads);
    return DG_OK;
}

void dg_setup_tell_resumed(const char *what, const char *key, int64_t done,
                           int64_t all)
{
    if (done < all)
        dg_info("continuing after %s %lld", what, (long long)done);
    else
        dg_info("finished before: %s %lld of %s = %lld; nothing is left to do",
                what, (long long)done, key, (long long)all);
}
