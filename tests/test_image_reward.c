/* ImageReward against transformers' BlipVisionModel and BlipTextModel, of
 * minute networks: tests/golden/make_image_reward_fixture.py. */
#include "image_reward_bed.h"

#include "base/log.h"
#include "reward/picture.h"
#include "weights/load.h"

/* --- the networks by themselves ------------------------------------------ */

enum { WIDTH = 48, TEXT_WIDTH = 32, SEEN = 6 * WIDTH };

/* Sizes of the fixture's config.json. */
static const VitConfig vision = { CLIP_SIDE, 8, WIDTH, 96, 2, 3 };
static const BertConfig text = { 2979, TEXT_WIDTH, 64, 2, 2, 40, WIDTH };

typedef struct Net {
    ParamSet set;
    Vit *vision;
    Bert *text;
    Context ctx;
} Net;

static void open_net(Net *n)
{
    static const char *const besides[] = { "blip.vision_proj.*",
                                           "blip.text_proj.*", "mlp.*" };
    const ManifestOpts m = { besides, 3 };
    LoadOpts o = { .path = IR_FILE, .manifest = &m };
    WeightWant *wants;

    MUST(dg_params_init(&n->set, 1));
    MUST(dg_vit_create(&n->vision, &vision, &n->set, "blip.visual_encoder."));
    MUST(dg_bert_create(&n->text, &text, &n->set, "blip.text_encoder."));
    MUST(dg_params_allocate(&n->set, NULL));
    MUST(dg_manifest_of_params(&wants, &o.num_wants, &n->set, ""));
    o.wants = wants;
    MUST(dg_load_values(&tiny_comm, &o, 0, n->set.count, n->set.values));
    free(wants);
    MUST(dg_context_init(&n->ctx, dg_backend_cpu(), (size_t)1 << 22));
}

static void close_net(Net *n)
{
    dg_context_fini(&n->ctx);
    dg_vit_destroy(n->vision);
    dg_bert_destroy(n->text);
    dg_params_fini(&n->set);
}

/* All tokens of the fixture's picture i, [1, 17, WIDTH]. */
static Tensor *see(Net *n, int i)
{
    static const PictureOpts o = { .side = CLIP_SIDE };
    static const int64_t dims[] = { 1, CLIP_SIDE, CLIP_SIDE, 3 };
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    Tensor *t;

    assert_non_null(rgb);
    clip_picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
    dg_context_reset(&n->ctx);
    t = dg_tensor_new(&n->ctx, DG_F32, 4, dims);
    assert_non_null(t);
    MUST(dg_picture_prepare(t->data, &o, rgb, clip_sizes[i][0],
                            clip_sizes[i][1], &n->ctx.arena));
    free(rgb);
    t = dg_vit_forward(n->vision, &n->ctx, t);
    assert_non_null(t);
    return t;
}

static void test_tokens_of_pictures_as_transformers(void **state)
{
    float want[SEEN];
    Net n;

    (void)state;
    open_net(&n);
    for (int i = 0; i < CLIP_SIZES; i++) {
        const Tensor *t = see(&n, i);

        assert_true(t->num_dims == 3 && t->dims[1] == 17);
        clip_golden_of(IR_FOLDER, want, SEEN, "seen", i);
        for (int k = 0; k < 6; k++)
            clip_near("seen", dg_tensor_f32(t) + 3 * k * WIDTH,
                      want + k * WIDTH, WIDTH, 1e-5);
    }
    close_net(&n);
}

/* Ids of prompt p as the fixture has them, pads too; how many are none. */
static int ids_of(int32_t *ids, int p)
{
    float read[IR_TOKENS];
    int used = IR_TOKENS;

    clip_golden_of(IR_FOLDER, read, IR_TOKENS, "ids", p);
    for (int i = 0; i < IR_TOKENS; i++)
        ids[i] = (int32_t)read[i];
    while (ids[used - 1] == 0)
        used--;
    return used;
}

/* Without pads what transformers has with a mask; with pads, and no mask,
 * another. */
static void test_states_of_texts_as_transformers(void **state)
{
    float want[TEXT_WIDTH];
    int32_t ids[IR_TOKENS];
    Tensor *t, *seen;
    Net n;

    (void)state;
    open_net(&n);
    for (int p = 0; p < IR_PROMPTS; p++) {
        const int used = ids_of(ids, p);

        seen = see(&n, 0);
        clip_golden_of(IR_FOLDER, want, TEXT_WIDTH, "state", p);
        t = dg_bert_forward(n.text, &n.ctx, ids, 1, used, seen);
        assert_non_null(t);
        clip_near("state", dg_tensor_f32(t), want, TEXT_WIDTH, 1e-5);
        t = dg_bert_forward(n.text, &n.ctx, ids, 1, IR_TOKENS, seen);
        assert_int_equal(fabs((double)dg_tensor_f32(t)[0] - (double)want[0]) <
                             1e-3,
                         used == IR_TOKENS);
    }
    close_net(&n);
}

static void test_what_networks_cannot_take(void **state)
{
    static const int64_t other[] = { 1, CLIP_SIDE, CLIP_SIDE + 1, 3 };
    static const VitConfig bad_vision = { 7, 8, 48, 96, 2, 3 };
    BertConfig bad = text;
    int32_t ids[41] = { 0 };
    Bert *b = NULL;
    Vit *v = NULL;
    ParamSet set;
    Net n;

    (void)state;
    open_net(&n);
    assert_null(dg_vit_forward(n.vision, &n.ctx,
                               dg_tensor_new(&n.ctx, DG_F32, 4, other)));
    assert_int_equal(dg_context_error(&n.ctx), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "must be 34 x 34 x 3"));
    assert_null(dg_bert_forward(n.text, &n.ctx, ids, 1, 41, see(&n, 0)));
    assert_non_null(strstr(dg_last_error()->text, "41 tokens: must be 1..40"));
    ids[3] = 2979;
    assert_null(dg_bert_forward(n.text, &n.ctx, ids, 1, 5, see(&n, 0)));
    assert_non_null(strstr(dg_last_error()->text, "token id 2979"));
    close_net(&n);
    MUST(dg_params_init(&set, 1));
    bad.num_attention_heads = 3;
    assert_int_equal(dg_bert_create(&b, &bad, &set, ""), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "hidden_size = 32"));
    bad.encoder_width = 0;
    assert_int_equal(dg_bert_create(&b, &bad, &set, ""), DG_EINVAL);
    assert_int_equal(dg_vit_create(&v, &bad_vision, &set, ""), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "image_size = 7"));
    assert_true(b == NULL && v == NULL);
    dg_params_fini(&set);
}

/* --- the reward ------------------------------------------------------------ */

static void test_ids_as_transformers(void **state)
{
    float want[IR_TOKENS];
    IrBed b;

    (void)state;
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    for (int p = 0; p < IR_PROMPTS; p++) {
        clip_golden_of(IR_FOLDER, want, IR_TOKENS, "ids", p);
        assert_memory_equal(b.features[p], want, sizeof want);
    }
    ir_close(&b);
}

static void test_scores_as_transformers(void **state)
{
    (void)state;
    ir_check_scores(dg_backend_cpu());
}

/* Prompts of a list are read before; the features are the same. */
static void test_prompts_of_a_list(void **state)
{
    const char *texts[] = { ir_prompts[0], ir_prompts[IR_LONG], "a cat" };
    float features[IR_TOKENS];
    PromptList list;
    long before;
    IrBed b;

    (void)state;
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    MUST(dg_prompts_of(&list, texts, 3));
    before = dg_log_count(DG_LOG_WARN);
    MUST(dg_rewards_read(b.r, 1, &list));
    assert_int_equal(dg_log_count(DG_LOG_WARN) - before, 1);
    for (int i = 0; i < 2; i++) {
        MUST(dg_rewards_encode(b.r, 1, &b.ctx, &list.item[i], features));
        assert_memory_equal(features, b.features[i == 0 ? 0 : IR_LONG],
                            sizeof features);
    }
    dg_prompts_free(&list);
    MUST(dg_prompts_of(&list, texts, 1));
    before = dg_log_count(DG_LOG_WARN);
    MUST(dg_rewards_read(b.r, 1, &list));
    assert_int_equal(dg_log_count(DG_LOG_WARN) - before, 0);
    list.item[0].text = "ok \xFF";
    assert_int_equal(dg_rewards_read(b.r, 1, &list), DG_EINVAL);
    assert_non_null(
        strstr(dg_last_error()->text, "reward imagereward, prompt 1: "));
    dg_prompts_free(&list);
    ir_close(&b);
}

static void test_same_bits_whatever_was_before(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), first;
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    first = ir_score(&b, rgb, 0, 1).value;
    assert_true(ir_score(&b, rgb, 0, IR_LONG).value != first);
    clip_picture(rgb, 35, 90);
    assert_true(ir_score(&b, rgb, 3, 1).value != first);
    clip_picture(rgb, 64, 64);
    assert_true(ir_score(&b, rgb, 0, 1).value == first);
    b.r[0].threshold = (double)first - 1;
    assert_true(ir_score(&b, rgb, 0, 1).value == 1);
    free(rgb);
    ir_close(&b);
}

/* Score of reward k of two, of a square picture and the features of both. */
static float score_of_two(IrBed *b, int k, const float *rgb,
                          const float *features)
{
    const RewardInput in = { .rgb = rgb,
                             .height = 64,
                             .width = 64,
                             .features = features,
                             .ctx = &b->ctx,
                             .scratch = b->scratch };
    RewardScore s;

    dg_reward_score(&b->r[k], &in, &s);
    assert_int_equal(s.missing, 0);
    return s.value;
}

/* Two of one file have its weights once, and each what it would have alone. */
static void test_two_of_one_file_have_one_network(void **state)
{
    static const char two[] =
        "rewards=({name=\"imagereward\";" IR_KEYS
        "},{name=\"imagereward\";" IR_KEYS "quantize=\"trunc\";})";
    const Prompt prompt = { .text = (char *)ir_prompts[0] };
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), features[2 * IR_TOKENS];
    float rounded, cut;
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] = ((float)(i * 37 % 200) + 0.75f) / 255;
    ir_open(&b, dg_backend_cpu(), IR_KEYS "quantize=\"trunc\";");
    cut = ir_score(&b, rgb, 0, 0).value;
    ir_close(&b);
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    rounded = ir_score(&b, rgb, 0, 0).value;
    dg_rewards_close(b.r, 1);
    assert_true(rounded != cut);
    MUST(dg_config_set(&b.config, two));
    MUST(dg_rewards_init(b.r, &b.config));
    MUST(dg_rewards_open(b.r, &b.config, 2, &tiny_comm));
    assert_true(b.r[0].network == 0 && b.r[1].network == 0);
    assert_int_equal(dg_rewards_num_values(b.r, 2),
                     dg_rewards_num_values(b.r, 1));
    assert_int_equal(dg_rewards_num_features(b.r, 2), 2 * IR_TOKENS);
    MUST(dg_rewards_encode(b.r, 2, &b.ctx, &prompt, features));
    assert_true(score_of_two(&b, 0, rgb, features) == rounded);
    assert_true(score_of_two(&b, 1, rgb, features) == cut);
    assert_true(score_of_two(&b, 0, rgb, features) == rounded);
    dg_context_fini(&b.ctx);
    dg_rewards_close(b.r, 2);
    free(b.scratch);
    free(rgb);
}

/* The prompt of most tokens needs what was planned, others less. */
static void test_plan_is_what_is_used(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    assert_int_equal(b.plan.encode_flops, 0);
    b.ctx.flops = 0;
    assert_int_equal(ir_score(&b, rgb, 0, 0).missing, 0);
    assert_true(b.ctx.flops > 0 && b.ctx.flops < b.plan.score_flops);
    assert_true(b.ctx.arena.peak <= b.plan.bytes);
    b.ctx.flops = 0;
    assert_int_equal(ir_score(&b, rgb, 0, IR_LONG).missing, 0);
    assert_int_equal(b.ctx.flops, b.plan.score_flops);
    assert_int_equal(b.ctx.arena.peak, b.plan.bytes);
    free(rgb);
    ir_close(&b);
}

static void test_a_picture_with_nan_is_missing(void **state)
{
    float *rgb = calloc(CLIP_MOST, sizeof *rgb);
    RewardScore s;
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    rgb[5] = NAN;
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    s = ir_score(&b, rgb, 0, 0);
    assert_true(s.missing && isnan(s.value));
    assert_non_null(strstr(dg_last_error()->text, "pixel 1"));
    rgb[5] = 0;
    assert_int_equal(ir_score(&b, rgb, 0, 0).missing, 0);
    free(rgb);
    ir_close(&b);
}

/* Half a level above whole ones: rounded up they are another picture. */
static void test_eight_bits_are_a_choice(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), cut, whole;
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    ir_open(&b, dg_backend_cpu(), IR_KEYS "quantize=\"trunc\";");
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] = ((float)(i * 37 % 200) + 0.25f) / 255;
    whole = ir_score(&b, rgb, 0, 0).value;
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] += 0.5f / 255;
    cut = ir_score(&b, rgb, 0, 0).value;
    assert_true(cut == whole);
    ir_close(&b);
    ir_open(&b, dg_backend_cpu(), IR_KEYS);
    assert_true(ir_score(&b, rgb, 0, 0).value != whole);
    ir_close(&b);
    free(rgb);
}

/* Operations as reckoned from the published sizes, without any weights. They
 * do not know of the heads. */
static void test_public_sizes(void **state)
{
    const ImageRewardConfig c = dg_image_reward_v1();
    IrBed b;

    (void)state;
    assert_int_equal(c.vision.num_attention_heads, 16);
    assert_int_equal(c.text.num_attention_heads, 12);
    ir_configure(&b, "path=\"nowhere/at_all.pt\";");
    MUST(dg_rewards_outline(b.r, &b.config, 1));
    ir_count(&b, dg_backend_cpu(), 512);
    assert_true(fabs((double)b.plan.score_flops / (123.1e9 + 14.7e9) - 1) <
                1e-3);
    assert_true(dg_rewards_num_values(b.r, 1) >= 446206689);
    dg_rewards_close(b.r, 1);
}

/* --- what does not serve ----------------------------------------------------- */

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

/* Sizes of a file that is not there from a config.json that is. */
static int outline(IrBed *b, const char *json)
{
    char folder[256], keys[512];
    int err;

    tiny_folder(folder);
    write_text(folder, "config.json", json);
    snprintf(keys, sizeof keys, "path=\"%s/none.pt\";", folder);
    ir_configure(b, keys);
    err = dg_rewards_outline(b->r, &b->config, 1);
    tiny_drop(folder);
    return err;
}

static void refuse_config(const char *json, const char *said)
{
    IrBed b;

    assert_int_equal(outline(&b, json), DG_EFORMAT);
    if (strstr(dg_last_error()->text, said) == NULL ||
        strstr(dg_last_error()->text, "config.json") == NULL)
        fail_msg("\"%s\" lacks \"%s\"", dg_last_error()->text, said);
    dg_rewards_close(b.r, 1);
}

#define SIZES(vision, text)                                          \
    "{\"model_type\":\"blip\",\"vision_config\":{\"image_size\":34," \
    "\"patch_size\":8,\"hidden_size\":48,\"intermediate_size\":96,"  \
    "\"num_hidden_layers\":2,\"num_attention_heads\":3" vision       \
    "},\"text_config\":{\"vocab_size\":2979,\"hidden_size\":32,"     \
    "\"intermediate_size\":64,\"num_hidden_layers\":2,"              \
    "\"num_attention_heads\":2,\"max_position_embeddings\":" text "}}"

static void test_bad_sizes_are_named(void **state)
{
    (void)state;
    refuse_config("{\"model_type\":\"clip\"}", "model_type is \"clip\"");
    refuse_config("{}", "model_type");
    refuse_config("{\"model_type\":\"blip\"}", "vision_config.image_size");
    refuse_config(SIZES(",\"hidden_act\":\"quick_gelu\"", "40"),
                  "vision_config.hidden_act is \"quick_gelu\": must be gelu");
    refuse_config(SIZES(",\"layer_norm_eps\":1e-5", "40"),
                  "vision_config.layer_norm_eps is 1e-05: must be 1e-06");
    refuse_config(SIZES("", "40,\"layer_norm_eps\":1e-6"),
                  "text_config.layer_norm_eps is 1e-06: must be 1e-12");
}

/* A network that knows fewer places reads fewer tokens. */
static void test_few_places(void **state)
{
    IrBed b;

    (void)state;
    MUST(outline(&b, SIZES("", "20")));
    assert_int_equal(dg_rewards_num_features(b.r, 1), 20);
    ir_count(&b, dg_backend_cpu(), 64);
    dg_rewards_close(b.r, 1);
    MUST(outline(&b, SIZES("", "36")));
    assert_int_equal(dg_rewards_num_features(b.r, 1), IR_TOKENS);
    dg_rewards_close(b.r, 1);
}

static void refuse(const char *keys, int code, const char *said)
{
    IrBed b;
    int err;

    ir_configure(&b, keys);
    err = dg_rewards_open(b.r, &b.config, 1, &tiny_comm);
    assert_int_equal(err, code);
    if (strstr(dg_last_error()->text, said) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", dg_last_error()->text, said);
    dg_rewards_close(b.r, 1);
}

/* The fixture's vocabulary with a token more than the network has. */
static void refuse_more_words(void)
{
    char folder[256], command[600], keys[700];

    tiny_folder(folder);
    snprintf(command, sizeof command, "cp " IR_WORDS "/vocab.txt '%s'", folder);
    assert_int_equal(system(command), 0);
    write_text(folder, "added_tokens.json", "{\"[X]\":2979}");
    snprintf(keys, sizeof keys, "path=\"" IR_FILE "\";tokenizer=\"%s\";",
             folder);
    refuse(keys, DG_EFORMAT, "2980 ids, and the network has 2979");
    tiny_drop(folder);
}

static void test_what_does_not_serve_is_named(void **state)
{
    (void)state;
    refuse_more_words();
    refuse("path=\"nowhere/x.pt\";", DG_EIO, "rewards[0].path = \"nowhere/");
    refuse("path=\"" IR_FILE "\";", DG_EIO, "rewards[0].tokenizer = \"\": ");
    refuse("path=\"" IR_FILE "\";tokenizer=\"" CLIP_WORDS "\";", DG_EFORMAT,
           CLIP_WORDS ": not a BERT tokenizer");
    refuse("path=\"" CLIP_FOLDER "/open_clip.pt\";tokenizer=\"" IR_WORDS "\";",
           DG_EFORMAT, CLIP_FOLDER "/config.json: model_type is \"clip\"");
    refuse("path=\"tests/golden/weights/torch.bin\";tokenizer=\"" IR_WORDS
           "\";",
           DG_EFORMAT, "missing (blip.visual_encoder.cls_token");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_tokens_of_pictures_as_transformers),
    cmocka_unit_test(test_states_of_texts_as_transformers),
    cmocka_unit_test(test_what_networks_cannot_take),
    cmocka_unit_test(test_ids_as_transformers),
    cmocka_unit_test(test_scores_as_transformers),
    cmocka_unit_test(test_prompts_of_a_list),
    cmocka_unit_test(test_same_bits_whatever_was_before),
    cmocka_unit_test(test_two_of_one_file_have_one_network),
    cmocka_unit_test(test_plan_is_what_is_used),
    cmocka_unit_test(test_a_picture_with_nan_is_missing),
    cmocka_unit_test(test_eight_bits_are_a_choice),
    cmocka_unit_test(test_public_sizes),
    cmocka_unit_test(test_bad_sizes_are_named),
    cmocka_unit_test(test_few_places),
    cmocka_unit_test(test_what_does_not_serve_is_named),
};

TINY_MAIN(tests)
