/* What lies beside a CLIP's weights: sizes, colours, ways to make a picture;
 * and folders that do not serve. */
#include "clip_bed.h"

#include "../src/reward/clip_config.h"

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char dfn[] =
    "{\"model_cfg\": {\"embed_dim\": 1024, \"quick_gelu\": true,"
    " \"vision_cfg\": {\"image_size\": 378, \"layers\": 32, \"width\": 1280,"
    " \"head_width\": 80, \"patch_size\": 14},"
    " \"text_cfg\": {\"context_length\": 77, \"vocab_size\": 49408,"
    " \"width\": 1024, \"heads\": 16, \"layers\": 24}},"
    " \"preprocess_cfg\": {\"resize_mode\": \"squash\"}}";

static void same_sizes(const ClipModelConfig *a, const ClipModelConfig *b)
{
    const ClipTextConfig *t = &a->text, *u = &b->text;
    const ClipVisionConfig *v = &a->vision, *w = &b->vision;

    assert_int_equal(a->projection_dim, b->projection_dim);
    assert_int_equal(t->vocab_size, u->vocab_size);
    assert_int_equal(t->hidden_size, u->hidden_size);
    assert_int_equal(t->intermediate_size, u->intermediate_size);
    assert_int_equal(t->num_hidden_layers, u->num_hidden_layers);
    assert_int_equal(t->num_attention_heads, u->num_attention_heads);
    assert_int_equal(t->max_position_embeddings, u->max_position_embeddings);
    assert_int_equal(t->act, u->act);
    assert_int_equal(v->image_size, w->image_size);
    assert_int_equal(v->patch_size, w->patch_size);
    assert_int_equal(v->hidden_size, w->hidden_size);
    assert_int_equal(v->intermediate_size, w->intermediate_size);
    assert_int_equal(v->num_hidden_layers, w->num_hidden_layers);
    assert_int_equal(v->num_attention_heads, w->num_attention_heads);
    assert_int_equal(v->act, w->act);
}

static void test_open_clip_config(void **state)
{
    ClipModelConfig want;
    ClipFolder got;
    char folder[256];
    int found;

    (void)state;
    tiny_folder(folder);
    MUST(dg_clip_config_read(&got, &found, folder));
    assert_false(found);
    write_text(folder, "config.json", "{\"model_type\": \"clip\"}");
    MUST(dg_clip_config_read(&got, &found, folder));
    /* transformers' standard: ViT-B-32 */
    assert_true(
        found && got.transformers && got.model.vision.patch_size == 32 &&
        got.model.text.hidden_size == 512 && got.model.projection_dim == 512 &&
        got.model.text.act == DG_CLIP_QUICK_GELU);
    write_text(folder, "open_clip_config.json", dfn);
    MUST(dg_clip_config_read(&got, &found, folder));
    MUST(dg_clip_model_named(&want, "ViT-H-14-378-quickgelu"));
    assert_true(found && got.squash && !got.transformers);
    same_sizes(&got.model, &want);
    tiny_drop(folder);
}

static void read_with(ClipFolder *got, const char *folder, const char *file,
                      const char *text)
{
    int found;

    write_text(folder, file, text);
    MUST(dg_clip_config_read(got, &found, folder));
    assert_true(found);
}

/* LAION's ViT-L-14 of 2 B pictures has means and deviations of 1/2, where
 * nearly every other CLIP has OpenAI's: both libraries' files say so. */
static void test_means_are_those_of_the_folder(void **state)
{
    const PictureColours usual = dg_picture_colours_clip();
    static const PictureColours half = { { 0.5f, 0.5f, 0.5f },
                                         { 0.5f, 0.5f, 0.5f } };
    ClipFolder got;
    char folder[256];

    (void)state;
    tiny_folder(folder);
    read_with(&got, folder, "config.json", "{\"model_type\": \"clip\"}");
    assert_memory_equal(&got.colours, &usual, sizeof usual);
    read_with(&got, folder, "preprocessor_config.json",
              "{\"image_mean\": [0.5, 0.5, 0.5], \"resample\": 3,"
              " \"image_std\": [0.5, 0.5, 0.5], \"size\": 224}");
    assert_memory_equal(&got.colours, &half, sizeof half);
    assert_false(got.squash);
    read_with(&got, folder, "preprocessor_config.json",
              "{\"do_center_crop\": false,"
              " \"size\": {\"height\": 224, \"width\": 224}}");
    assert_memory_equal(&got.colours, &usual, sizeof usual);
    assert_true(got.squash);
    read_with(&got, folder, "open_clip_config.json", dfn);
    assert_memory_equal(&got.colours, &usual, sizeof usual);
    read_with(&got, folder, "open_clip_config.json",
              "{\"model_cfg\": {\"embed_dim\": 768, \"vision_cfg\": {},"
              " \"text_cfg\": {}}, \"preprocess_cfg\": {"
              "\"mean\": [0.5, 0.5, 0.5], \"std\": [0.5, 0.5, 0.5],"
              " \"interpolation\": \"bicubic\"}}");
    assert_memory_equal(&got.colours, &half, sizeof half);
    tiny_drop(folder);
}

static const char tiny_open_clip[] =
    "{\"model_cfg\": {\"embed_dim\": 24, \"vision_cfg\": {\"image_size\": 34,"
    " \"layers\": 2, \"width\": 48, \"head_width\": 16, \"mlp_ratio\": 2.0,"
    " \"patch_size\": 8}, \"text_cfg\": {\"context_length\": 77,"
    " \"vocab_size\": 1214, \"width\": 32, \"heads\": 2, \"layers\": 2,"
    " \"mlp_ratio\": 2.0}}}";

/* OpenCLIP's texts are cleaned, those of transformers are not; else the same
 * weights give the same bits, in PyTorch's file with OpenCLIP's names too. */
static void test_open_clip_s_way(void **state)
{
    static const Prompt plain = { .text = "a cat & a 'dog'" };
    static const Prompt encoded = { .text =
                                        "a cat &amp;amp; a \u2018dog&#39;" };
    char folder[256], command[600], rewards[600];
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), value;
    float ours[CLIP_WIDTH], same[CLIP_WIDTH], theirs[CLIP_WIDTH];
    ClipBed b;

    (void)state;
    tiny_folder(folder);
    snprintf(command, sizeof command, "cp " CLIP_FOLDER "/open_clip.pt %s",
             folder);
    assert_int_equal(system(command), 0);
    write_text(folder, "open_clip_config.json", tiny_open_clip);
    snprintf(rewards, sizeof rewards,
             "rewards=({name=\"clip\";path=\"%s/"
             "open_clip.pt\";tokenizer=\"" CLIP_WORDS "\";})",
             folder);
    clip_open(&b, dg_backend_cpu(), rewards);
    MUST(dg_rewards_encode(b.r, 1, &b.ctx, &plain, ours));
    MUST(dg_rewards_encode(b.r, 1, &b.ctx, &encoded, same));
    assert_memory_equal(ours, same, sizeof ours);
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    value = clip_score(&b, 0, rgb, 64, 0).value;
    clip_close(&b);
    clip_open(&b, dg_backend_cpu(), "rewards=({name=\"clip\";" CLIP_KEYS "})");
    MUST(dg_rewards_encode(b.r, 1, &b.ctx, &plain, theirs));
    assert_memory_equal(ours, theirs, sizeof ours);
    assert_true(clip_score(&b, 0, rgb, 64, 0).value == value);
    MUST(dg_rewards_encode(b.r, 1, &b.ctx, &encoded, theirs));
    assert_memory_not_equal(ours, theirs, sizeof ours);
    clip_close(&b);
    /* another mean, another picture */
    snprintf(command, sizeof command,
             "sed -i 's/}$/, \"preprocess_cfg\": {\"mean\": [0, 0, 0]}}/' "
             "%s/open_clip_config.json",
             folder);
    assert_int_equal(system(command), 0);
    clip_open(&b, dg_backend_cpu(), rewards);
    assert_true(clip_score(&b, 0, rgb, 64, 0).value != value);
    clip_close(&b);
    free(rgb);
    tiny_drop(folder);
}

static void refuse(const char *keys, int code, const char *what)
{
    char rewards[900];
    ClipBed b;
    int err;

    snprintf(rewards, sizeof rewards, "rewards=({name=\"clip\";%s})", keys);
    clip_configure(&b, rewards);
    err = dg_rewards_open(b.r, &b.config, 1, &tiny_comm);
    dg_rewards_close(b.r, 1);
    if (err != code || strstr(dg_last_error()->text, what) == NULL)
        fail_msg("%s: code %d, \"%s\", wanted \"%s\"", keys, err,
                 dg_last_error()->text, what);
}

static void refuse_changed(const char *change, int code, const char *what)
{
    char folder[256], command[900], keys[500];

    tiny_folder(folder);
    snprintf(command, sizeof command, "cp " CLIP_FOLDER "/* %s && cd %s && %s",
             folder, folder, change);
    assert_int_equal(system(command), 0);
    snprintf(keys, sizeof keys, "path=\"%s\";tokenizer=\"" CLIP_WORDS "\";",
             folder);
    refuse(keys, code, what);
    tiny_drop(folder);
}

static void test_what_does_not_serve_is_named(void **state)
{
    (void)state;
    refuse("path=\"nowhere/hps.pt\";", DG_EINVAL, "rewards[0].model");
    refuse("path=\"nowhere/hps.pt\";model=\"ViT-H\";", DG_EINVAL,
           "\"ViT-H\": must be ViT-L-14");
    refuse("path=\"nowhere/hps.pt\";model=\"ViT-H-14\";", DG_EIO,
           "rewards[0].path = \"nowhere/hps.pt\"");
    refuse("path=\"" CLIP_FOLDER "\";", DG_EIO, "rewards[0].tokenizer");
    refuse("path=\"" CLIP_FOLDER "\";tokenizer=\"tests/golden/clip_small\";",
           DG_EFORMAT, "the network has 1214");
    refuse("path=\"" CLIP_FOLDER "\";tokenizer=\"tests/golden/bert_small\";",
           DG_EFORMAT, "tests/golden/bert_small: not a CLIP tokenizer");
    refuse("path=\"" CLIP_FOLDER "/none.pt\";tokenizer=\"" CLIP_WORDS "\";",
           DG_EIO, "none.pt");
    refuse_changed("rm model.safetensors", DG_EIO, "model.safetensors");
    refuse_changed("truncate -s -40 model.safetensors", DG_EFORMAT,
                   "model.safetensors");
    refuse_changed("sed -i 's/\"gelu\"/\"relu\"/' config.json", DG_EFORMAT,
                   "hidden_act");
    refuse_changed("sed -i 's/\"patch_size\": 8/\"patch_size\": 7/' "
                   "config.json",
                   DG_EFORMAT, "patch_embedding");
    refuse_changed("sed -i 's/\"num_attention_heads\": 3/"
                   "\"num_attention_heads\": 5/' config.json",
                   DG_EFORMAT, "num_attention_heads");
    refuse_changed("sed -i 's/\"clip\"/\"siglip\"/' config.json", DG_EFORMAT,
                   "siglip");
    refuse_changed("echo '{\"model_cfg\": {}}' >open_clip_config.json",
                   DG_EFORMAT, "embed_dim");
}

/* Of a folder of transformers, with one more file; and OpenCLIP's with one
 * more key of the three parts it has. */
static void refuse_preprocessor(const char *keys, const char *what)
{
    char change[300];

    snprintf(change, sizeof change, "echo '{%s}' >preprocessor_config.json",
             keys);
    refuse_changed(change, DG_EFORMAT, what);
}

static void refuse_open_clip(const char *part, const char *key,
                             const char *what)
{
    char change[400];

    snprintf(change, sizeof change,
             "echo '{\"model_cfg\": {\"embed_dim\": 24, \"text_cfg\": {%s},"
             " \"vision_cfg\": {%s}}, \"preprocess_cfg\": {%s}}' "
             ">open_clip_config.json",
             part[0] == 't' ? key : "", part[0] == 'v' ? key : "",
             part[0] == 'p' ? key : "");
    refuse_changed(change, DG_EFORMAT, what);
}

/* Keys with which the same weights would give other scores. */
static void test_other_ways_to_score_are_refused(void **state)
{
    (void)state;
    refuse_preprocessor("\"resample\": 2", "resample = 2");
    refuse_preprocessor("\"size\": 32", "size = 32");
    refuse_preprocessor("\"size\": {\"shortest_edge\": 32}",
                        "size.shortest_edge = 32");
    refuse_preprocessor("\"do_center_crop\": false", "do_center_crop");
    refuse_preprocessor("\"image_mean\": [0.5]", "image_mean");
    refuse_preprocessor("\"image_std\": [1, 1, 0]", "image_std");
    refuse_open_clip("text", "\"no_causal_mask\": true", "no_causal_mask");
    refuse_open_clip("text", "\"pool_type\": \"last\"", "must be \"argmax\"");
    refuse_open_clip("vision", "\"pool_type\": \"avg\"", "must be \"tok\"");
    refuse_open_clip("vision", "\"norm_kwargs\": {\"eps\": 1e-6}",
                     "norm_kwargs");
    refuse_open_clip("preprocess", "\"interpolation\": \"bilinear\"",
                     "must be \"bicubic\"");
    refuse_open_clip("preprocess", "\"mean\": [\"a\", 0, 0]",
                     "list of 3 numbers");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_open_clip_config),
    cmocka_unit_test(test_means_are_those_of_the_folder),
    cmocka_unit_test(test_open_clip_s_way),
    cmocka_unit_test(test_what_does_not_serve_is_named),
    cmocka_unit_test(test_other_ways_to_score_are_refused),
};

TINY_MAIN(tests)
