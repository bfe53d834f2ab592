#include "net.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "tensor/ops.h"
#include "weights/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- creation --------------------------------------------------------------- */

int dg_net_init(Net *n, const RewardConfig *c, int64_t index,
                void (*destroy)(void *model))
{
    n->c = *c;
    n->index = index;
    n->tower = calloc(1, sizeof *n->tower);
    if (n->tower == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    *n->tower = (Tower) { .users = 1, .destroy = destroy };
    return dg_params_init(&n->tower->params, DG_PARAMS_REWARD);
}

static void leave(Tower *t)
{
    if (t == NULL || --t->users > 0)
        return;
    if (t->model != NULL)
        t->destroy(t->model);
    if (t->on != NULL)
        t->on->give(t->at);
    dg_params_fini(&t->params);
    free(t);
}

void dg_net_fini(Net *n)
{
    leave(n->tower);
}

/* A plan's files need not be there: then their names decide. */
int dg_net_same_path(const Net *n, const Net *other)
{
    char *a = realpath(n->c.path, NULL), *b = realpath(other->c.path, NULL);
    const int same = a != NULL && b != NULL
                         ? strcmp(a, b) == 0
                         : strcmp(n->c.path, other->c.path) == 0;

    free(a);
    free(b);
    return same;
}

void dg_net_join(void *net, void *host)
{
    Net *n = net;

    leave(n->tower);
    n->tower = ((Net *)host)->tower;
    n->tower->users++;
    n->guest = 1;
}

int dg_net_created(const Net *n, int err)
{
    char reason[512];

    if (err != DG_EINVAL)
        return err;
    snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
    return dg_fail(DG_EFORMAT, "rewards[%lld], %s: %s", (long long)n->index,
                   n->c.path, reason);
}

/* --- weights -------------------------------------------------------------- */

void dg_net_folder(char out[DG_NET_PATH], const char *path)
{
    struct stat s;
    char *slash;

    snprintf(out, DG_NET_PATH, "%s", path);
    if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
        return;
    slash = strrchr(out, '/');
    if (slash == NULL)
        snprintf(out, DG_NET_PATH, ".");
    else
        slash[slash == out] = '\0';
}

int dg_net_find(const Net *n)
{
    if (access(n->c.path, F_OK) != 0)
        return dg_fail(DG_EIO, "rewards[%lld].path = \"%s\": %s",
                       (long long)n->index, n->c.path, strerror(errno));
    return DG_OK;
}

uint64_t dg_net_digest(const void *net)
{
    return ((const Net *)net)->tower->params.digest;
}

/* Of the whole network; list: the files' lists of tensors alone, which are
 * checked before gigabytes are reserved. */
static int read_files(Net *n, const ManifestOpts *m, const Comm *comm, int list)
{
    ParamSet *params = &n->tower->params;
    WeightWant *wants = NULL;
    LoadOpts o = { .path = n->c.path,
                   .manifest = m,
                   .digest = &params->digest };
    int err =
        dg_agree(comm, dg_manifest_of_params(&wants, &o.num_wants, params, ""));

    o.wants = wants;
    if (!err)
        err = dg_load_values(comm, &o, 0, list ? 0 : params->count,
                             params->values);
    free(wants);
    return err;
}

int dg_net_prepare(Net *n, const ManifestOpts *m, const Comm *comm, int err)
{
    err = dg_agree(comm, err);
    return err || n->guest ? err : read_files(n, m, comm, 1);
}

int dg_net_load(Net *n, const ManifestOpts *m, const Comm *comm)
{
    const int64_t side = n->picture.side;
    ParamSet *params = &n->tower->params;
    int err;

    if (n->guest) {
        dg_info("reward %s: %s, the network that is there already", n->c.name,
                n->c.path);
        return DG_OK;
    }
    err = dg_agree(comm, dg_params_allocate(params, NULL));
    if (!err)
        err = read_files(n, m, comm, 0);
    if (!err)
        dg_info("reward %s: %s, %lld parameters, pictures of %lld x %lld",
                n->c.name, n->c.path, (long long)dg_params_num_values(params),
                (long long)side, (long long)side);
    return err;
}

int dg_net_place(void *net, const Backend *backend)
{
    const Net *n = net;
    Tower *t = n->tower;
    int err;

    if (n->guest)
        return DG_OK;
    err = dg_params_place(&t->at, &t->params, backend, DG_F32);
    if (err)
        return err;
    t->on = backend;
    dg_memory_drop(t->params.values,
                   sizeof *t->params.values * (size_t)t->params.count);
    return DG_OK;
}

int64_t dg_net_num_values(const void *net)
{
    const Net *n = net;

    return n->guest ? 0 : n->tower->params.count;
}

/* --- words ------------------------------------------------------------------ */

void dg_net_words(char out[DG_NET_PATH], const Net *n)
{
    if (n->c.tokenizer[0] != '\0')
        snprintf(out, DG_NET_PATH, "%s", n->c.tokenizer);
    else
        dg_net_folder(out, n->c.path);
}

int dg_net_tokenizer(Tokenizer **out, const Net *n, TokenizerKind kind)
{
    static const char *const kinds[] = {
        [DG_TOKENIZER_CLIP] = "CLIP",
        [DG_TOKENIZER_T5] = "T5",
        [DG_TOKENIZER_WORDPIECE] = "BERT",
    };
    char folder[DG_NET_PATH], reason[512];
    int err;

    dg_net_words(folder, n);
    err = dg_tokenizer_open(out, folder);
    if (err) {
        snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
        return dg_fail(err, "rewards[%lld].tokenizer = \"%s\": %s",
                       (long long)n->index, n->c.tokenizer, reason);
    }
    if (dg_tokenizer_info(*out)->kind != kind)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: not a %s tokenizer",
                       (long long)n->index, folder, kinds[kind]);
    return DG_OK;
}

int dg_net_read(NetPrompts *p, const PromptList *list, NetRead *read,
                const void *net)
{
    const char *name = ((const Net *)net)->c.name;
    int64_t num_cut = 0;
    char reason[512];
    int err = DG_OK;

    p->list = NULL;
    free(p->ids);
    p->ids = malloc(sizeof *p->ids * (size_t)(list->num * p->tokens + 1));
    if (p->ids == NULL)
        return dg_fail(DG_ENOMEM, "token ids of %lld prompts",
                       (long long)list->num);
    for (int64_t i = 0; i < list->num && !err; i++) {
        int cut = 0;

        err = read(net, p->ids + i * p->tokens, list->item[i].text, &cut);
        num_cut += cut;
        if (err) {
            snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
            dg_fail(err, "reward %s, prompt %lld: %s", name, (long long)i + 1,
                    reason);
        }
    }
    if (!err && num_cut > 0)
        dg_warn(
            "reward %s: %lld of %lld prompts are longer than the %lld tokens "
            "that it reads: their ends have no effect",
            name, (long long)num_cut, (long long)list->num,
            (long long)p->tokens);
    if (!err)
        p->list = list;
    return err;
}

int dg_net_ids(const NetPrompts *p, int32_t *ids, const Prompt *prompt,
               NetRead *read, const void *net)
{
    const size_t tokens = (size_t)p->tokens;
    int cut;

    memset(ids, 0, sizeof *ids * tokens);
    if (prompt == NULL)
        return DG_OK;
    if (p->list == NULL || prompt < p->list->item ||
        prompt >= p->list->item + p->list->num)
        return read(net, ids, prompt->text, &cut);
    memcpy(ids, p->ids + (size_t)(prompt - p->list->item) * tokens,
           sizeof *ids * tokens);
    return DG_OK;
}

/* --- pictures --------------------------------------------------------------- */

/* The network's input made of a picture, on the host; a counting arena counts
 * what that takes. */
static const float *prepare(const Net *n, const float *rgb, int64_t height,
                            int64_t width, Arena *a, int *err)
{
    const int64_t side = n->picture.side;
    float *pixels =
        dg_arena_take(a, sizeof *pixels * (size_t)(3 * side * side));

    *err = dg_picture_prepare(pixels, &n->picture, rgb, height, width, a);
    return pixels;
}

size_t dg_net_scratch(const void *net, int64_t height, int64_t width)
{
    Arena a;
    int err;

    dg_arena_init_count(&a, "picture");
    prepare(net, NULL, height, width, &a, &err);
    return a.peak;
}

/* A picture on its way through the network. */
typedef struct Seeing {
    const Net *net;
    NetSee *see;
    Context *ctx;
    const float *pixels; /* as the network takes them, the host's */
    Tensor *seen;
    uint64_t flops; /* counted before */
} Seeing;

static void run(void *user)
{
    Seeing *s = user;
    const int64_t side = s->net->picture.side, dims[4] = { 1, side, side, 3 };

    dg_context_reset(s->ctx);
    s->ctx->flops = s->flops;
    s->seen = s->see(s->net, s->ctx, dg_op_input(s->ctx, s->pixels, 4, dims));
}

Tensor *dg_net_look(const void *net, const RewardInput *in, NetSee *see)
{
    Context *ctx = in->ctx;
    Seeing s = { .net = net, .see = see, .ctx = ctx, .flops = ctx->flops };
    Arena host;
    int err = DG_OK;

    dg_context_reset(ctx);
    if (ctx->backend->computes) {
        dg_arena_init_over(&host, "picture", in->scratch,
                           dg_net_scratch(net, in->height, in->width));
        s.pixels = prepare(net, in->rgb, in->height, in->width, &host, &err);
    }
    if (!err)
        dg_context_replay(ctx, run, &s, NULL, 0);
    else
        ctx->err = err;
    return s.seen;
}
