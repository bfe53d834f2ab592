#include "train/convert.h"

#include "base/error.h"
#include "base/log.h"
#include "base/out_folder.h"
#include "base/piece_digest.h"

#include <stdio.h>
#include <string.h>

/* diffusers' save_pretrained() */
static const int64_t shard_bytes = 10000000000;

static int check_adapters(const ConvertOpts *o)
{
    if (o->merge)
        return DG_OK;
    if (o->rest != DG_EXPORT_ALONE)
        return dg_fail(DG_EINVAL,
                       "--pipeline: %s holds adapters, which are loaded into "
                       "any pipeline of their base; with --merge a whole one "
                       "can be written",
                       o->checkpoint);
    if (o->max_shard_bytes > 0)
        return dg_fail(DG_EINVAL,
                       "--shard-size: %s holds adapters, which are one file",
                       o->checkpoint);
    return DG_OK;
}

static int check_opts(const ConvertOpts *o, const ExportSource *source)
{
    if (o->ema && !source->ema)
        return dg_fail(
            DG_EINVAL,
            "--weights ema: %s holds no averaged weights: its run had "
            "optim.ema_decay = 0",
            o->checkpoint);
    if (source->adapters)
        return check_adapters(o);
    if (o->merge)
        return dg_fail(DG_EINVAL, "--merge: %s holds no adapters",
                       o->checkpoint);
    if (o->base != NULL)
        return dg_fail(DG_EINVAL, "--base: %s holds no adapters",
                       o->checkpoint);
    return DG_OK;
}

static int set_text(char *field, const char *flag, const char *text)
{
    if (text == NULL)
        return DG_OK;
    if (strlen(text) >= DG_CONFIG_STRING)
        return dg_fail(DG_EINVAL, "%s %.60s...: at most %d bytes", flag, text,
                       DG_CONFIG_STRING - 1);
    snprintf(field, DG_CONFIG_STRING, "%s", text);
    return DG_OK;
}

static int read_config(Config *c, const ConvertOpts *o)
{
    int err;

    dg_config_defaults(c);
    err = dg_policy_adopt_sizes(c, o->checkpoint);
    if (!err && c->policy.path[0] == '\0' &&
        (o->rest != DG_EXPORT_ALONE || o->folder != NULL))
        err = dg_fail(DG_EINVAL, "%s: %s comes from no folder (policy.path)",
                      o->folder != NULL ? "--folder" : "--pipeline",
                      o->checkpoint);
    if (!err)
        err = set_text(c->policy.path, "--folder", o->folder);
    return err ? err : set_text(c->lora.base, "--base", o->base);
}

/* Frozen encoders are taken from the folder: they have to be the same. */
static int check_text(const Policy *p, const char *folder_sha256,
                      const ConvertOpts *o)
{
    char own[DG_SHA256_HEX];
    int err = dg_piece_digest(own, p->text.values,
                              sizeof(float) * (size_t)p->text.count);

    if (!err && strcmp(own, folder_sha256) != 0)
        err = dg_fail(DG_EFORMAT,
                      "--pipeline: the text encoders of %s are not those of "
                      "its folder",
                      o->checkpoint);
    return err;
}

static int load(Policy *p, const Comm *self, const ConvertOpts *o)
{
    const int whole = o->rest != DG_EXPORT_ALONE;
    char text[DG_SHA256_HEX] = "";
    int on_folder;
    int err = dg_policy_on_folder(p, o->checkpoint, &on_folder);

    if (!err && (on_folder || whole))
        err = dg_policy_load_folder(p, self, 1);
    if (!err && whole)
        err = dg_piece_digest(text, p->text.values,
                              sizeof(float) * (size_t)p->text.count);
    if (!err)
        err = dg_policy_load(p, o->checkpoint, o->ema);
    return err || !whole ? err : check_text(p, text, o);
}

/* What diffusers has no key for. */
static void warn(const Config *c, const ExportOpts *e)
{
    if (c->policy.kind != DG_POLICY_FLUX)
        return;
    if (c->policy.prediction != DG_PREDICT_VELOCITY)
        dg_warn("%s: the network does not put out the velocity that diffusers' "
                "FLUX pipelines take (policy.prediction)",
                e->folder);
    if (c->policy.path[0] == '\0' && c->flux.rope_theta != 10000)
        dg_warn("%s: flux.rope_theta = %g: diffusers takes 10000; after "
                "loading set pos_embed.theta",
                e->folder, c->flux.rope_theta);
}

static int convert(const Comm *self, const ConvertOpts *o)
{
    ExportOpts e = { .folder = o->to,
                     .type = o->type,
                     .max_shard_bytes = o->max_shard_bytes,
                     .rest = o->rest };
    ExportSource source = { 0 };
    Policy *p = NULL;
    Config config;
    int err = dg_out_folder_check(o->to);

    if (!err)
        err = dg_export_look(&source, o->checkpoint);
    if (!err)
        err = check_opts(o, &source);
    if (!err)
        err = read_config(&config, o);
    if (!err)
        err = dg_policy_create(&p, &config);
    if (!err)
        err = load(p, self, o);
    if (!err && o->merge)
        dg_policy_merge(p);
    e.adapters = source.adapters && !o->merge;
    if (e.max_shard_bytes == 0)
        e.max_shard_bytes = e.adapters ? INT64_MAX : shard_bytes;
    if (!err)
        err = dg_policy_export(p, &config, &e);
    if (!err) {
        warn(&config, &e);
        dg_info("wrote %s: %s %s of %s", o->to, o->ema ? "averaged" : "raw",
                e.adapters ? "adapters" : "weights", o->checkpoint);
    }
    dg_policy_destroy(p);
    return err;
}

int dg_convert(const Comm *c, const ConvertOpts *o)
{
    Comm self;
    int err = DG_OK;

    if (c->rank == 0) {
        err = dg_comm_self(&self);
        if (!err) {
            err = convert(&self, o);
            dg_comm_self_free(&self);
        }
    }
    return dg_agree(c, err);
}
