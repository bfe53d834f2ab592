/* What the program's networks need, against the public files' lists of
 * tensors; and files whose content does not fit. */
#include "weights_golden.h"
#include "manifest_golden.h"

#include "models/clip_model.h"
#include "models/flux_transformer.h"
#include "models/image_reward.h"
#include "models/t5.h"
#include "models/unet.h"
#include "models/vae.h"
#include "weights/remap.h"
#include "weights/safetensors.h"
#include "weights/snapshot.h"

#include <math.h>

static void test_flux_dev_is_the_public_one(void **state)
{
    const FluxConfig c = { .in_channels = 64,
                           .num_layers = 19,
                           .num_single_layers = 38,
                           .attention_head_dim = 128,
                           .num_attention_heads = 24,
                           .joint_attention_dim = 4096,
                           .pooled_projection_dim = 768,
                           .guidance_embeds = 1,
                           .axes_dims_rope = { 16, 56, 56 } };
    FluxTransformer *m;
    ParamSet set;

    (void)state;
    dg_params_init(&set, 1);
    assert_int_equal(dg_flux_create(&m, &c, &set, "transformer."), DG_OK);
    manifest_compare("flux_dev", &set, "transformer.", 1160, 11901408320);
    dg_flux_destroy(m);
    dg_params_fini(&set);
}

static void test_text_encoders_are_the_public_ones(void **state)
{
    const ClipTextConfig clip = { .vocab_size = 49408,
                                  .hidden_size = 768,
                                  .intermediate_size = 3072,
                                  .num_hidden_layers = 12,
                                  .num_attention_heads = 12,
                                  .max_position_embeddings = 77 };
    const T5Config t5 = { .vocab_size = 32128,
                          .d_model = 4096,
                          .d_kv = 64,
                          .d_ff = 10240,
                          .num_layers = 24,
                          .num_heads = 64,
                          .relative_attention_num_buckets = 32,
                          .relative_attention_max_distance = 128 };
    ClipText *m;
    T5Encoder *t;
    ParamSet set;

    (void)state;
    dg_params_init(&set, 1);
    assert_int_equal(dg_clip_create(&m, &clip, &set, "text_encoder."), DG_OK);
    assert_int_equal(dg_t5_create(&t, &t5, &set, "text_encoder_2."), DG_OK);
    manifest_compare("clip_l_text", &set, "text_encoder.", 196, 123060480);
    manifest_compare("t5_xxl_encoder", &set, "text_encoder_2.", 219,
                     4762310656);
    dg_clip_destroy(m);
    dg_t5_destroy(t);
    dg_params_fini(&set);
}

static void test_unet_is_the_public_one(void **state)
{
    const UnetConfig c = dg_unet_sd1();
    Unet *m;
    ParamSet set;

    (void)state;
    dg_params_init(&set, 1);
    assert_int_equal(dg_unet_create(&m, &c, &set, "unet."), DG_OK);
    manifest_compare("sd14_unet", &set, "unet.", 686, 859520964);
    dg_unet_destroy(m);
    dg_params_fini(&set);
}

static void compare_vae(const char *network, const VaeConfig *c,
                        int num_tensors, int64_t num_values)
{
    Vae *m;
    ParamSet set;

    dg_params_init(&set, 1);
    assert_int_equal(dg_vae_create(&m, c, DG_VAE_BOTH, &set, "vae."), DG_OK);
    manifest_compare(network, &set, "vae.", num_tensors, num_values);
    dg_vae_destroy(m);
    dg_params_fini(&set);
}

static void test_autoencoders_are_the_public_ones(void **state)
{
    const VaeConfig sd = dg_vae_sd1(), flux = dg_vae_flux();

    (void)state;
    compare_vae("vae_4ch", &sd, 248, 83653863);
    compare_vae("vae_16ch", &flux, 244, 83819683);
}

/* A safetensors file of a list's tensors, of real size but with nothing in it:
 * the file system keeps no room for what was never written. */
static void make_hollow(const char *path, const ManifestRow *rows, int num)
{
    FILE *f = fopen(path, "w+");
    uint64_t length;
    int64_t at = 0;

    assert_non_null(f);
    fseek(f, 8, SEEK_SET);
    for (int i = 0; i < num; i++) {
        int64_t bytes = 2;

        fprintf(f, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[", i ? "," : "{",
                rows[i].name);
        for (int d = 0; d < rows[i].num_dims; d++) {
            fprintf(f, "%s%lld", d ? "," : "", (long long)rows[i].dims[d]);
            bytes *= rows[i].dims[d];
        }
        fprintf(f, "],\"data_offsets\":[%lld,%lld]}", (long long)at,
                (long long)(at + bytes));
        at += bytes;
    }
    fprintf(f, "}");
    length = (uint64_t)ftell(f) - 8;
    rewind(f);
    fwrite(&length, sizeof length, 1, f);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)(8 + length) + at), 0);
    fclose(f);
}

/* HPS v2.1's network against both of its public layouts. */
static void test_clip_h_is_the_public_one(void **state)
{
    ClipModelConfig c;
    ClipModel *m;
    ParamSet set;
    WeightWant *wants;
    WeightSource *s;
    WeightPlan *p;
    int num, num_rows;
    ManifestRow *rows = manifest_rows("clip_h_open", &num_rows);

    (void)state;
    assert_int_equal(dg_clip_model_named(&c, "ViT-H-14"), DG_OK);
    dg_params_init(&set, 1);
    assert_int_equal(dg_clip_model_create(&m, &c, &set, ""), DG_OK);
    manifest_compare("clip_h_model", &set, "", 910, 986109441);
    assert_int_equal(dg_manifest_of_params(&wants, &num, &set, ""), DG_OK);
    assert_int_equal(num_rows, 686);
    make_hollow(in_scratch("open.safetensors"), rows, num_rows);
    assert_int_equal(dg_snapshot_open(&s, in_scratch("open.safetensors"), NULL),
                     DG_OK);
    if (dg_manifest_plan(&p, s, wants, num, NULL))
        fail_msg("%s", dg_last_error()->text);
    dg_manifest_free(p);
    dg_source_close(s);
    make_hollow(in_scratch("short.safetensors"), rows, num_rows - 1);
    assert_int_equal(
        dg_snapshot_open(&s, in_scratch("short.safetensors"), NULL), DG_OK);
    expect_error(dg_manifest_plan(&p, s, wants, num, NULL), DG_EFORMAT,
                 "1 missing (vision_model.encoder.layers.9.mlp.fc2.weight)");
    dg_source_close(s);
    free(wants);
    free(rows);
    dg_clip_model_destroy(m);
    dg_params_fini(&set);
}

/* ImageReward.pt's tensors, whose three products of attention are one there,
 * against the network; two projections and position_ids are not needed. */
static void test_image_reward_is_the_public_one(void **state)
{
    static const char *const unused[] = { "blip.vision_proj.*",
                                          "blip.text_proj.*" };
    const ManifestOpts o = { unused, 2 };
    const ImageRewardConfig c = dg_image_reward_v1();
    ImageReward *m;
    ParamSet set;
    WeightWant *wants;
    WeightSource *s;
    WeightPlan *p;
    int num, num_rows;
    ManifestRow *rows = manifest_rows("image_reward", &num_rows);

    (void)state;
    dg_params_init(&set, 1);
    assert_int_equal(dg_image_reward_create(&m, &c, &set), DG_OK);
    assert_int_equal(dg_params_num_values(&set), 446665953 - 459264);
    assert_int_equal(dg_manifest_of_params(&wants, &num, &set, ""), DG_OK);
    assert_int_equal(num_rows, 625);
    make_hollow(in_scratch("open.safetensors"), rows, num_rows);
    assert_int_equal(dg_snapshot_open(&s, in_scratch("open.safetensors"), NULL),
                     DG_OK);
    if (dg_manifest_plan(&p, s, wants, num, &o))
        fail_msg("%s", dg_last_error()->text);
    dg_manifest_free(p);
    expect_error(dg_manifest_plan(&p, s, wants, num, NULL), DG_EFORMAT,
                 "4 unexpected (blip.text_proj.bias");
    dg_source_close(s);
    make_hollow(in_scratch("short.safetensors"), rows, num_rows - 1);
    assert_int_equal(
        dg_snapshot_open(&s, in_scratch("short.safetensors"), NULL), DG_OK);
    expect_error(dg_manifest_plan(&p, s, wants, num, &o), DG_EFORMAT,
                 "1 missing (mlp.layers.7.weight)");
    dg_source_close(s);
    free(wants);
    free(rows);
    dg_image_reward_destroy(m);
    dg_params_fini(&set);
}

/* Every public tensor of FLUX has one rule into the original layout, and the
 * autoencoder's all have. */
static void test_rules_cover_the_original_layout(void **state)
{
    static const char *const networks[] = { "flux_dev", "vae_16ch" };
    int num_rules;
    const RemapRule *rules = dg_remap_rules(&num_rules);

    (void)state;
    for (int n = 0; n < 2; n++) {
        int num;
        ManifestRow *rows = manifest_rows(networks[n], &num);

        for (int r = 0; r < num; r++) {
            char to[DG_REMAP_NAME];
            int hits = 0, same = strstr(rows[r].name, ".conv_") != NULL;

            for (int k = 0; k < num_rules; k++)
                hits += dg_remap_apply(to, &rules[k], rows[r].name);
            if (!same && hits == 0)
                print_error("%s has no rule\n", rows[r].name);
            assert_true(same || hits > 0);
        }
        free(rows);
    }
}

static void test_patterns(void **state)
{
    static const RemapRule up = { "a.#.b.#.*", "x.~.y.#.*", DG_TAKE_ALL, 0 };
    static const RemapRule any = { "p.*", "*", DG_TAKE_ALL, 0 };
    char to[DG_REMAP_NAME], name[300];

    (void)state;
    assert_true(dg_remap_apply(to, &up, "a.1.b.12.w.bias"));
    assert_string_equal(to, "x.2.y.12.w.bias");
    assert_false(dg_remap_apply(to, &up, "a.4.b.1.w"));
    assert_false(dg_remap_apply(to, &up, "a.x.b.1.w"));
    assert_false(dg_remap_apply(to, &up, "a.1.b..w"));
    memset(name, 'x', sizeof name);
    memcpy(name, "p.", 2);
    name[2 + DG_REMAP_NAME - 1] = '\0';
    assert_true(dg_remap_apply(to, &any, name));
    name[2 + DG_REMAP_NAME - 1] = 'x';
    name[2 + DG_REMAP_NAME] = '\0';
    assert_false(dg_remap_apply(to, &any, name));
    assert_true(dg_remap_matches("*.position_ids", "a.b.position_ids"));
    assert_false(dg_remap_matches("*.position_ids", "position_id"));
    assert_true(dg_remap_ignored("text_model.embeddings.position_ids"));
    assert_false(dg_remap_ignored("shared.weight"));
}

/* Wants as the rows of a golden file say, each with padding behind it. */
static WeightWant *wants_of(const GoldenRow *rows, int num, int64_t *total)
{
    WeightWant *w = calloc((size_t)num, sizeof *w);

    assert_non_null(w);
    *total = 0;
    for (int i = 0; i < num; i++) {
        w[i].name = rows[i].name;
        w[i].num_dims = rows[i].num_dims;
        memcpy(w[i].dims, rows[i].dims, sizeof w[i].dims);
        w[i].at = *total;
        *total = (*total + rows[i].count + 15) / 16 * 16 + 16;
    }
    return w;
}

/* A golden file, filled whole and in ranges of an odd length. */
static void fill_golden(const char *rows_of, const char *path,
                        const char *label)
{
    int num;
    GoldenRow *rows = golden_rows(rows_of, &num);
    int64_t total;
    WeightWant *wants = wants_of(rows, num, &total);
    float *all = malloc((size_t)total * sizeof *all);
    float *parts = malloc((size_t)total * sizeof *parts);
    WeightSource *s;
    WeightPlan *p;
    int err;

    assert_true(all != NULL && parts != NULL);
    assert_int_equal(dg_snapshot_open(&s, path, NULL), DG_OK);
    err = dg_manifest_plan(&p, s, wants, num, NULL);
    if (err)
        print_error("%s\n", dg_last_error()->text);
    assert_int_equal(err, DG_OK);
    memset(all, 0xff, (size_t)total * sizeof *all);
    memset(parts, 0xff, (size_t)total * sizeof *parts);
    assert_int_equal(dg_manifest_fill(p, 0, total, all), DG_OK);
    for (int64_t at = 0; at < total; at += 997)
        assert_int_equal(dg_manifest_fill(p, at,
                                          total - at < 997 ? total - at : 997,
                                          parts + at),
                         DG_OK);
    assert_memory_equal(all, parts, (size_t)total * sizeof *all);
    for (int i = 0; i < num; i++) {
        const int64_t end = wants[i].at + rows[i].count;

        golden_check(&rows[i], all + wants[i].at);
        for (int64_t k = end; k < (i + 1 < num ? wants[i + 1].at : total); k++)
            assert_true(all[k] == 0);
    }
    print_message("%s: %d tensors as in the reference\n", label, num);
    dg_manifest_free(p);
    dg_source_close(s);
    free(all);
    free(parts);
    free(wants);
    free(rows);
}

static void test_layouts_give_the_same_values(void **state)
{
    (void)state;
    fill_golden("snapshot/text_encoder", GOLDEN "snapshot/text_encoder",
                "CLIP");
    fill_golden("snapshot/text_encoder_2", GOLDEN "snapshot/text_encoder_2",
                "T5, shards");
    fill_golden("snapshot/transformer", GOLDEN "snapshot/transformer",
                "FLUX, shards");
    fill_golden("flux_bfl.safetensors", GOLDEN "flux_bfl.safetensors",
                "FLUX, original layout");
    fill_golden("vae_bfl.safetensors", GOLDEN "vae_bfl.safetensors",
                "autoencoder, original layout");
}

/* The snapshot's folders fit the program's own networks: the public names,
 * with which older versions of the libraries wrote, are read as well. */
static void test_own_networks_fit_the_snapshot(void **state)
{
    const ClipTextConfig c = { .vocab_size = 40,
                               .hidden_size = 16,
                               .intermediate_size = 24,
                               .num_hidden_layers = 2,
                               .num_attention_heads = 2,
                               .max_position_embeddings = 12 };
    WeightSource *s;
    WeightPlan *p;
    WeightWant *w;
    ClipText *m;
    ParamSet set;
    int num, num_rows;
    GoldenRow *rows = golden_rows("snapshot/text_encoder", &num_rows);

    (void)state;
    dg_params_init(&set, 1);
    assert_int_equal(dg_clip_create(&m, &c, &set, "text_encoder."), DG_OK);
    assert_int_equal(dg_params_allocate(&set, NULL), DG_OK);
    assert_int_equal(dg_manifest_of_params(&w, &num, &set, "text_encoder."),
                     DG_OK);
    assert_int_equal(num, num_rows);
    assert_int_equal(
        dg_snapshot_open_component(&s, GOLDEN "snapshot", "text_encoder", NULL),
        DG_OK);
    assert_int_equal(dg_manifest_plan(&p, s, w, num, NULL), DG_OK);
    assert_int_equal(dg_manifest_fill(p, 0, set.count, set.values), DG_OK);
    for (int i = 0; i < num; i++) {
        char name[160];

        snprintf(name, sizeof name, "text_encoder.text_model.%s", rows[i].name);
        golden_check(&rows[i], dg_params_find(&set, name)->value.data);
    }
    expect_error(dg_manifest_of_params(&w, &num, &set, "vae."), DG_EINVAL,
                 "vae.");
    dg_manifest_free(p);
    dg_source_close(s);
    free(w);
    free(rows);
    dg_clip_destroy(m);
    dg_params_fini(&set);
}

/* Files of our own -------------------------------------------------------- */

static float numbers[64];

static void make_file(const char *name, const WeightOut *t, int num)
{
    for (int i = 0; i < 64; i++)
        numbers[i] = (float)i;
    assert_int_equal(dg_safetensors_write(in_scratch(name), t, num, NULL, NULL),
                     DG_OK);
}

static int plan_file(WeightPlan **p, WeightSource **s, const char *name,
                     const WeightWant *w, int num, const ManifestOpts *o)
{
    assert_int_equal(dg_snapshot_open(s, in_scratch(name), NULL), DG_OK);
    return dg_manifest_plan(p, *s, w, num, o);
}

static void test_what_does_not_fit_is_named(void **state)
{
    const WeightOut t[] = { { "a", DG_WEIGHT_F32, 2, { 2, 3 }, numbers },
                            { "b", DG_WEIGHT_F32, 1, { 4 }, numbers },
                            { "vision.x", DG_WEIGHT_F32, 1, { 4 }, numbers },
                            { "vision.y", DG_WEIGHT_F32, 1, { 4 }, numbers } };
    const WeightWant w[] = { { "a", 2, { 3, 2 }, 0 },
                             { "b", 2, { 4, 1 }, 6 },
                             { "c", 1, { 1 }, 10 } };
    const char *const ignore[] = { "vision.*" };
    const ManifestOpts o = { ignore, 1 };
    WeightSource *s;
    WeightPlan *p;

    (void)state;
    make_file("fit", t, 4);
    expect_error(plan_file(&p, &s, "fit", w, 3, NULL), DG_EFORMAT,
                 "fit: not this network's weights: 1 missing (c); 2 unexpected "
                 "(vision.x, vision.y); 1 of another shape (a is [2, 3], must "
                 "be [3, 2])");
    dg_source_close(s);
    expect_error(plan_file(&p, &s, "fit", w + 1, 1, &o), DG_EFORMAT,
                 "weights: 1 unexpected (a)");
    dg_source_close(s);
}

/* Old names, a prefix, position_ids and an alias beside the table. */
static void test_old_names_and_prefixes(void **state)
{
    const WeightOut t[] = {
        { "state_dict.shared.weight", DG_WEIGHT_F32, 1, { 2 }, numbers + 1 },
        { "state_dict.encoder.embed_tokens.weight",
          DG_WEIGHT_F32,
          1,
          { 2 },
          numbers },
        { "state_dict.embeddings.position_ids",
          DG_WEIGHT_F32,
          1,
          { 2 },
          numbers },
        { "state_dict.d.attentions.0.query.weight",
          DG_WEIGHT_F32,
          2,
          { 2, 2 },
          numbers + 2 },
        { "state_dict.d.attentions.0.proj_attn.bias",
          DG_WEIGHT_F32,
          1,
          { 2 },
          numbers + 9 },
        { "optimizer.x", DG_WEIGHT_F32, 1, { 2 }, numbers },
    };
    const WeightWant w[] = {
        { "shared.weight", 1, { 2 }, 0 },
        { "d.attentions.0.to_q.weight", 4, { 2, 2, 1, 1 }, 2 },
        { "d.attentions.0.to_out.0.bias", 1, { 2 }, 6 }
    };
    static const float want[] = { 1, 2, 2, 3, 4, 5, 9, 10 };
    float got[8];
    WeightSource *s;
    WeightPlan *p;

    (void)state;
    make_file("old", t, 6);
    assert_int_equal(plan_file(&p, &s, "old", w, 3, NULL), DG_OK);
    assert_int_equal(dg_manifest_fill(p, 0, 8, got), DG_OK);
    assert_memory_equal(got, want, sizeof want);
    dg_manifest_free(p);
    dg_source_close(s);
}

/* Rows of a fused tensor that nobody wants, or that are wanted twice. */
static void test_fused_tensors_are_used_up(void **state)
{
    WeightOut t = {
        "single_blocks.0.linear1.bias", DG_WEIGHT_F32, 1, { 14 }, numbers
    };
    WeightWant w[] = {
        { "single_transformer_blocks.0.attn.to_q.bias", 1, { 2 }, 0 },
        { "single_transformer_blocks.0.attn.to_k.bias", 1, { 2 }, 2 },
        { "single_transformer_blocks.0.attn.to_v.bias", 1, { 2 }, 4 },
        { "single_transformer_blocks.0.proj_mlp.bias", 1, { 8 }, 6 }
    };
    float got[14];
    WeightSource *s;
    WeightPlan *p;

    (void)state;
    make_file("fused", &t, 1);
    assert_int_equal(plan_file(&p, &s, "fused", w, 4, NULL), DG_OK);
    assert_int_equal(dg_manifest_fill(p, 0, 14, got), DG_OK);
    assert_memory_equal(got, numbers, sizeof got);
    dg_manifest_free(p);
    dg_source_close(s);
    t.dims[0] = 15;
    make_file("fused", &t, 1);
    expect_error(plan_file(&p, &s, "fused", w, 4, NULL), DG_EFORMAT,
                 "14 of 15 values");
    dg_source_close(s);
    t.dims[0] = 13;
    make_file("fused", &t, 1);
    expect_error(plan_file(&p, &s, "fused", w, 4, NULL), DG_EFORMAT,
                 "14 of 13 values");
    dg_source_close(s);
    w[3].dims[0] = 16;
    expect_error(plan_file(&p, &s, "fused", w, 4, NULL), DG_EFORMAT,
                 "is [13], must be [16]");
    dg_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flux_dev_is_the_public_one),
        cmocka_unit_test(test_text_encoders_are_the_public_ones),
        cmocka_unit_test(test_unet_is_the_public_one),
        cmocka_unit_test(test_autoencoders_are_the_public_ones),
        cmocka_unit_test(test_clip_h_is_the_public_one),
        cmocka_unit_test(test_image_reward_is_the_public_one),
        cmocka_unit_test(test_rules_cover_the_original_layout),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_layouts_give_the_same_values),
        cmocka_unit_test(test_own_networks_fit_the_snapshot),
        cmocka_unit_test(test_what_does_not_fit_is_named),
        cmocka_unit_test(test_old_names_and_prefixes),
        cmocka_unit_test(test_fused_tensors_are_used_up),
    };

    return cmocka_run_group_tests_name("manifest", tests, scratch_make,
                                       scratch_drop);
}
