#include "net.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "clip_config.h"
#include "weights/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- weights -------------------------------------------------------------- */

int dg_net_find(const RewardConfig *c, int64_t index)
{
    if (access(c->path, F_OK) != 0)
        return dg_fail(DG_EIO, "rewards[%lld].path = \"%s\": %s",
                       (long long)index, c->path, strerror(errno));
    return DG_OK;
}

int dg_net_load(NetWeights *w, const RewardConfig *c, const ManifestOpts *m,
                const Comm *comm, int err)
{
    WeightWant *wants = NULL;
    LoadOpts o = { .path = c->path, .manifest = m };

    if (!err)
        err = dg_manifest_of_params(&wants, &o.num_wants, &w->params, "");
    err = dg_agree(comm, err);
    o.wants = wants;
    if (!err) /* the files are checked before gigabytes are reserved */
        err = dg_load_values(comm, &o, 0, 0, NULL);
    if (!err)
        err = dg_agree(comm, dg_params_allocate(&w->params, NULL));
    if (!err)
        err = dg_load_values(comm, &o, 0, w->params.count, w->params.values);
    free(wants);
    return err;
}

int dg_net_place(NetWeights *w, const Backend *backend)
{
    const int err = dg_params_place(&w->at, &w->params, backend, DG_F32);

    if (err)
        return err;
    w->on = backend;
    dg_memory_drop(w->params.values,
                   sizeof *w->params.values * (size_t)w->params.count);
    return DG_OK;
}

void dg_net_fini(NetWeights *w)
{
    if (w->on != NULL)
        w->on->give(w->at);
    dg_params_fini(&w->params);
}

/* --- words ------------------------------------------------------------------ */

int dg_net_tokenizer(Tokenizer **out, const RewardConfig *c, int64_t index,
                     TokenizerKind kind)
{
    static const char *const kinds[] = {
        [DG_TOKENIZER_CLIP] = "CLIP",
        [DG_TOKENIZER_T5] = "T5",
        [DG_TOKENIZER_WORDPIECE] = "BERT",
    };
    char folder[DG_CLIP_PATH], reason[512];
    int err;

    if (c->tokenizer[0] != '\0')
        snprintf(folder, sizeof folder, "%s", c->tokenizer);
    else
        dg_clip_folder(folder, c->path);
    err = dg_tokenizer_open(out, folder);
    if (err) {
        snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
        return dg_fail(err, "rewards[%lld].tokenizer = \"%s\": %s",
                       (long long)index, c->tokenizer, reason);
    }
    if (dg_tokenizer_info(*out)->kind != kind)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: not a %s tokenizer",
                       (long long)index, folder, kinds[kind]);
    return DG_OK;
}

int dg_net_read(NetPrompts *p, const PromptList *list, const char *name,
                NetRead *read, const void *net)
{
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

const float *dg_net_picture(const PictureOpts *o, const float *rgb,
                            int64_t height, int64_t width, Arena *a, int *err)
{
    float *pixels =
        dg_arena_take(a, sizeof *pixels * (size_t)(3 * o->side * o->side));

    *err = dg_picture_prepare(pixels, o, rgb, height, width, a);
    return pixels;
}

size_t dg_net_picture_bytes(const PictureOpts *o, int64_t height, int64_t width)
{
    Arena a;
    int err;

    dg_arena_init_count(&a, "picture");
    dg_net_picture(o, NULL, height, width, &a, &err);
    return a.peak;
}
