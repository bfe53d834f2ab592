#include "train/same_files.h"

#include "base/error.h"
#include "base/in_file.h"
#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH = 2 * DG_CONFIG_STRING, HOST = 64, DIGEST = 32 };

/* Parts of pipelines, and what they and rewards' folders have beside weights. The
 * lists of shards (*.index.json) say where weights are, not which. */
static const char *const parts[] = { "unet",         "transformer",
                                     "vae",          "scheduler",
                                     "text_encoder", "text_encoder_2",
                                     "tokenizer",    "tokenizer_2" };
static const char *const names[] = {
    "config.json",
    "scheduler_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "open_clip_config.json",
    "preprocessor_config.json",
};

/* What the files hold, in the order of each(); mine[i] is all 0 where none is. */
typedef struct Files {
    int64_t num;
    unsigned char (*mine)[DIGEST];        /* NULL: they are counted */
    const unsigned char (*first)[DIGEST]; /* rank 0's; NULL: not known yet */
    const char *host;                     /* rank 0's */
} Files;

/* What cannot be read is told by whoever needs it. */
static int digest(unsigned char out[DIGEST], const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    int err = dg_in_read(path, &text, &bytes);

    memset(out, 0, DIGEST);
    if (err == DG_ENOMEM)
        return err;
    if (err)
        dg_clear_error();
    else
        err = dg_sha256_raw(out, text, bytes);
    free(text);
    return err == DG_ENOMEM ? err : DG_OK;
}

static int visit(Files *f, const char *path)
{
    const int64_t i = f->num++;

    if (f->first != NULL && memcmp(f->first[i], f->mine[i], DIGEST) != 0)
        return dg_fail(DG_EINVAL,
                       "%s: is another file here than on %s (rank 0): must be "
                       "the same on all hosts",
                       path, f->host);
    return f->first == NULL && f->mine != NULL ? digest(f->mine[i], path)
                                               : DG_OK;
}

static int visit_folder(Files *f, const char *folder, const char *part)
{
    int err = DG_OK;

    for (size_t i = 0; i < sizeof names / sizeof *names && !err; i++) {
        char path[PATH];

        snprintf(path, sizeof path, "%s%s%s/%s", folder,
                 part[0] != '\0' ? "/" : "", part, names[i]);
        err = visit(f, path);
    }
    return err;
}

/* The folder of weights: path itself, or that of the file. */
static void folder_of(char out[DG_CONFIG_STRING], const char *path)
{
    struct stat s;
    char *slash;

    snprintf(out, DG_CONFIG_STRING, "%s", path);
    slash = strrchr(out, '/');
    if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
        return;
    if (slash == NULL)
        snprintf(out, DG_CONFIG_STRING, ".");
    else
        slash[slash == out] = '\0';
}

static int visit_reward(Files *f, const RewardConfig *r)
{
    char folder[DG_CONFIG_STRING];
    int err = DG_OK;

    if (r->path[0] != '\0') {
        folder_of(folder, r->path);
        err = visit_folder(f, folder, "");
    }
    if (!err && r->tokenizer[0] != '\0')
        err = visit(f, r->tokenizer); /* CLIP's may be a list */
    if (!err && r->tokenizer[0] != '\0')
        err = visit_folder(f, r->tokenizer, "");
    return err;
}

/* As many and in the same order on all ranks. */
static int each(Files *f, const Config *c)
{
    const size_t num =
        c->policy.path[0] != '\0' ? sizeof parts / sizeof *parts : 0;
    int err = DG_OK;

    f->num = 0;
    for (size_t i = 0; i < num && !err; i++)
        err = visit_folder(f, c->policy.path, parts[i]);
    for (int64_t k = 0; k < c->num_rewards && !err; k++)
        err = visit_reward(f, &c->rewards[k]);
    return err;
}

int dg_same_files(const Session *s)
{
    const Comm *c = s->comm;
    char host[HOST] = "";
    unsigned char(*first)[DIGEST] = NULL;
    Files f = { .host = host };
    int err = DG_OK;

    if (c->node_size == c->size)
        return DG_OK;
    each(&f, s->config);
    f.mine = calloc((size_t)f.num + 1, sizeof *f.mine);
    first = calloc((size_t)f.num + 1, sizeof *first);
    if (f.mine == NULL || first == NULL)
        err = dg_fail(DG_ENOMEM, "digests of %lld files", (long long)f.num);
    else if (c->node_rank == 0)
        err = each(&f, s->config);
    err = dg_agree(c, err);
    if (err)
        goto free_digests;
    if (c->rank == 0)
        memcpy(first, f.mine, sizeof *first * (size_t)f.num);
    dg_comm_bcast(c, first, sizeof *first * (size_t)f.num, 0);
    dg_comm_host(c, host, sizeof host);
    dg_comm_bcast(c, host, sizeof host, 0);
    f.first = (const unsigned char(*)[DIGEST])first;
    err = dg_agree(c, c->node_rank == 0 ? each(&f, s->config) : DG_OK);
free_digests:
    free(first);
    free(f.mine);
    return err;
}
