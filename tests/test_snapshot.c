/* Hugging Face folders: which files are taken, what is said when some are
 * missing; shards written and read back; config.json. */
#include "weights_golden.h"

#include "weights/model_config.h"
#include "weights/safetensors.h"
#include "weights/snapshot.h"

#include <sys/stat.h>
#include <unistd.h>

static float numbers[64];

static void make_file(const char *name, const char *tensor)
{
    const WeightOut t = { tensor, DG_WEIGHT_F32, 1, { 3 }, numbers };

    assert_int_equal(dg_safetensors_write(in_scratch(name), &t, 1, NULL, NULL),
                     DG_OK);
}

static void make_text(const char *name, const char *text)
{
    spill(in_scratch(name), text, strlen(text));
}

/* The name of the only tensor of what is found under a name of the scratch
 * folder; "" with an error recorded. */
static const char *found(const char *name, const char *variant)
{
    static char tensor[64];
    WeightSource *s;

    tensor[0] = '\0';
    if (dg_snapshot_open(&s, in_scratch(name), variant) == DG_OK) {
        assert_int_equal(dg_source_num(s), 1);
        snprintf(tensor, sizeof tensor, "%s", dg_source_info(s, 0)->name);
        dg_source_close(s);
    }
    return tensor;
}

static void copy_bin(const char *name)
{
    size_t num;
    unsigned char *p = slurp(GOLDEN "module.pt", &num);

    spill(in_scratch(name), p, num);
    free(p);
}

static void test_which_file_is_taken(void **state)
{
    WeightSource *s;

    (void)state;
    mkdir(in_scratch("net"), 0777);
    expect_error(dg_snapshot_open(&s, in_scratch("net"), NULL), DG_EIO,
                 "net: no weights: looked for");
    make_file("net/model.fp16.safetensors", "half");
    assert_string_equal(found("net", NULL), "");
    expect_error(DG_EIO, DG_EIO, "but model.fp16.safetensors");
    assert_string_equal(found("net", "fp16"), "half");
    assert_string_equal(found("net", "ema"), "");
    expect_error(DG_EIO, DG_EIO, "of variant \"ema\"");
    copy_bin("net/pytorch_model.bin");
    assert_int_equal(dg_snapshot_open(&s, in_scratch("net"), NULL), DG_OK);
    assert_int_equal(dg_source_num(s), 4);
    assert_string_equal(dg_weight_file_format(dg_source_file(s, 0)), "PyTorch");
    dg_source_close(s);
    make_file("net/shard.safetensors", "sharded");
    make_text("net/model.safetensors.index.json",
              "{\"weight_map\":{\"sharded\":\"shard.safetensors\"}}");
    assert_string_equal(found("net", NULL), "sharded");
    make_file("net/model.safetensors", "whole");
    assert_string_equal(found("net", NULL), "whole");
    make_file("net/diffusion_pytorch_model.safetensors", "diffusion");
    assert_string_equal(found("net", NULL), "diffusion");
    assert_string_equal(found("net/shard.safetensors", NULL), "sharded");
    assert_string_equal(found("net/model.safetensors.index.json", NULL),
                        "sharded");
    expect_error(dg_snapshot_open(&s, in_scratch("nowhere"), NULL), DG_EIO,
                 "nowhere: cannot open");
}

/* As in a snapshot of a cache of Hugging Face, whole and without its blobs. */
static void test_links_lead_somewhere(void **state)
{
    WeightSource *s;

    (void)state;
    mkdir(in_scratch("cache"), 0777);
    make_file("cache/blob", "linked");
    make_file("cache/pytorch_model.bin", "other");
    assert_int_equal(symlink("blob", in_scratch("cache/model.safetensors")), 0);
    assert_string_equal(found("cache", NULL), "linked");
    unlink(in_scratch("cache/blob"));
    expect_error(dg_snapshot_open(&s, in_scratch("cache"), NULL), DG_EIO,
                 "cache/model.safetensors: a link to what is not there");
}

static void test_components(void **state)
{
    WeightSource *s;
    char **names;
    int num;

    (void)state;
    assert_int_equal(dg_snapshot_components(GOLDEN "snapshot", &names, &num),
                     DG_OK);
    assert_int_equal(num, 3);
    assert_string_equal(names[0], "text_encoder");
    assert_string_equal(names[1], "text_encoder_2");
    assert_string_equal(names[2], "transformer");
    for (int i = 0; i < num; i++)
        free(names[i]);
    free(names);
    assert_int_equal(
        dg_snapshot_open_component(&s, GOLDEN "snapshot", "transformer", NULL),
        DG_OK);
    assert_int_equal(dg_source_num_files(s), 5);
    assert_int_equal(dg_source_num(s), 80);
    dg_source_close(s);
    expect_error(dg_snapshot_open_component(&s, GOLDEN "snapshot", "vae", NULL),
                 DG_EIO,
                 "no component vae: it has text_encoder, text_encoder_2, "
                 "transformer");
}

static void test_bad_shards_are_named(void **state)
{
    WeightSource *s;
    ShardIndex x;
    static const char *const bad[] = {
        "",
        "[]",
        "{\"weight_map\":3}",
        "{\"weight_map\":{}}",
        "{\"weight_map\":{\"a\":3}}",
        "{\"weight_map\":{\"a\":\"../x\"}}",
        "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"\"}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_error(
            dg_snapshot_parse_index(&x, "x.index.json", bad[i], strlen(bad[i])),
            DG_EFORMAT, "x.index.json: ");
    mkdir(in_scratch("cut"), 0777);
    make_file("cut/s1.safetensors", "a");
    make_text("cut/model.safetensors.index.json",
              "{\"weight_map\":{\"b\":\"s2.safetensors\","
              "\"a\":\"s1.safetensors\"}}");
    expect_error(dg_snapshot_open(&s, in_scratch("cut"), NULL), DG_EIO,
                 "cut/s2.safetensors: cannot open");
    make_file("cut/s2.safetensors", "c");
    expect_error(dg_snapshot_open(&s, in_scratch("cut"), NULL), DG_EFORMAT,
                 "tensor b is not in");
    make_file("cut/s2.safetensors", "a");
    expect_error(dg_snapshot_open(&s, in_scratch("cut"), NULL), DG_EFORMAT,
                 "tensor a is both in");
    make_file("cut/s2.safetensors", "b");
    assert_int_equal(dg_snapshot_open(&s, in_scratch("cut"), NULL), DG_OK);
    assert_int_equal(dg_source_num(s), 2);
    dg_source_close(s);
}

/* Shards of at most 100 bytes come back whole, and the one-file form does not
 * stay beside them. */
static void test_shards_come_back(void **state)
{
    WeightOut t[8];
    char names[8][8], *index;
    SafetensorsOpts o = { .folder = in_scratch("saved"),
                          .stem = "model",
                          .note_key = "format",
                          .note = "pt" };
    char folder[160];
    WeightSource *s;
    float v[16];
    size_t num;

    (void)state;
    snprintf(folder, sizeof folder, "%s", o.folder);
    o.folder = folder;
    mkdir(folder, 0777);
    for (int i = 0; i < 64; i++)
        numbers[i] = (float)i;
    for (int i = 0; i < 8; i++) {
        snprintf(names[i], sizeof names[i], "t%d", 7 - i);
        t[i] = (WeightOut) {
            names[i], DG_WEIGHT_BF16, 2, { 4, 4 }, numbers + 2 * i
        };
    }
    assert_int_equal(dg_safetensors_save(&o, t, 8), DG_OK);
    assert_int_equal(access(in_scratch("saved/model.safetensors"), F_OK), 0);
    o.max_shard_bytes = 100; /* three tensors of 32 bytes */
    assert_int_equal(dg_safetensors_save(&o, t, 8), DG_OK);
    assert_int_not_equal(access(in_scratch("saved/model.safetensors"), F_OK),
                         0);
    assert_int_equal(dg_snapshot_open(&s, folder, NULL), DG_OK);
    assert_int_equal(dg_source_num_files(s), 3);
    assert_int_equal(dg_source_num(s), 8);
    for (int i = 0; i < 8; i++) {
        const int64_t at = dg_source_find(s, names[i]);

        assert_int_equal(dg_source_read(s, at, 0, 16, v), DG_OK);
        assert_memory_equal(v, numbers + 2 * i, sizeof v);
    }
    dg_source_close(s);
    index =
        (char *)slurp(in_scratch("saved/model.safetensors.index.json"), &num);
    index[num] = '\0';
    assert_non_null(strstr(index, "{\n  \"metadata\": {\n    \"total_size\": "
                                  "256\n  },\n  \"weight_map\": {\n    \"t0\": "
                                  "\"model-00001-of-00003.safetensors\",\n"));
    free(index);
    o.max_shard_bytes = 0;
    assert_int_equal(dg_safetensors_save(&o, t, 8), DG_OK);
    assert_int_not_equal(
        access(in_scratch("saved/model.safetensors.index.json"), F_OK), 0);
}

static void test_digest_sees_names_and_values(void **state)
{
    char hex[3][DG_SHA256_HEX];
    const char *const names[] = { "a", "a", "b" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *path = in_scratch("digest.safetensors");
        WeightSource *s;

        numbers[0] = i == 1 ? 0.5F : 0.25F;
        make_file("digest.safetensors", names[i]);
        assert_int_equal(dg_source_open(&s, "x", &path, 1), DG_OK);
        assert_int_equal(dg_source_digest(s, hex[i]), DG_OK);
        dg_source_close(s);
    }
    assert_string_not_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
}

static void test_config_values(void **state)
{
    ModelConfig *c;
    int64_t n = 7, axes[4];
    double x;
    int num, yes = 7;
    const char *text;

    (void)state;
    assert_int_equal(
        dg_model_config_open(&c, GOLDEN "snapshot/transformer/config.json"),
        DG_OK);
    assert_int_equal(dg_model_config_int(c, "in_channels", 1, 64, &n), DG_OK);
    assert_int_equal(n, 8);
    assert_int_equal(dg_model_config_bool(c, "guidance_embeds", &yes), DG_OK);
    assert_int_equal(yes, 1);
    assert_int_equal(dg_model_config_text(c, "_class_name", &text), DG_OK);
    assert_string_equal(text, "FluxTransformer2DModel");
    assert_int_equal(dg_model_config_ints(c, "axes_dims_rope", axes, 4, &num),
                     DG_OK);
    assert_true(num == 3 && axes[0] == 2 && axes[1] == 2 && axes[2] == 4);
    expect_error(dg_model_config_ints(c, "axes_dims_rope", axes, 2, &num),
                 DG_EFORMAT, "axes_dims_rope: has 3 numbers");
    assert_true(dg_model_config_has(c, "patch_size"));
    assert_false(dg_model_config_has(c, "out_channels")); /* null */
    expect_error(dg_model_config_int(c, "out_channels", 0, 9, &n), DG_EFORMAT,
                 "config.json: key out_channels is missing");
    expect_error(dg_model_config_int(c, "num_layers", 2, 9, &n), DG_EFORMAT,
                 "num_layers = 1: must be in [2, 9]");
    expect_error(dg_model_config_bool(c, "num_layers", &yes), DG_EFORMAT,
                 "num_layers: must be true or false");
    expect_error(dg_model_config_int(c, "_class_name", 0, 1, &n), DG_EFORMAT,
                 "_class_name: must be a whole number");
    assert_true(n == 8 && yes == 1);
    dg_model_config_close(c);
    text = "{\"a\":{\"b\":2.5,\"c\":[\"x\",\"y\"]},\"d.e\":3}\n";
    assert_int_equal(dg_model_config_parse(&c, "y.json", text, strlen(text)),
                     DG_OK);
    assert_int_equal(dg_model_config_real(c, "a.b", &x), DG_OK);
    assert_true(x == 2.5);
    assert_int_equal(dg_model_config_real(c, "d.e", &x), DG_OK);
    assert_true(x == 3);
    expect_error(dg_model_config_int(c, "a.b", 0, 9, &n), DG_EFORMAT, "a.b");
    assert_int_equal(dg_model_config_text_at(c, "a.c", 1, &text), DG_OK);
    assert_string_equal(text, "y");
    expect_error(dg_model_config_text_at(c, "a.c", 2, &text), DG_EFORMAT,
                 "text 2 of 2");
    expect_error(dg_model_config_real(c, "a.b.c", &x), DG_EFORMAT, "a.b.c");
    dg_model_config_close(c);
    expect_error(dg_model_config_parse(&c, "y.json", "{} x", 4), DG_EFORMAT,
                 "y.json: not a JSON object");
    expect_error(dg_model_config_parse(&c, "y.json", "", 0), DG_EFORMAT,
                 "y.json: not a JSON object");
}

/* Python would take the last one. */
static void test_config_keys_have_one_value(void **state)
{
    const char *text;
    ModelConfig *c;

    (void)state;
    text = "{\"a\":{\"n\":16,\"b\":[{\"n\":1},2],\"m\":4,\"n\":32}}";
    expect_error(dg_model_config_parse(&c, "y.json", text, strlen(text)),
                 DG_EFORMAT, "y.json: key n is there twice, with two values");
    text = "{\"a\":1,\"b\":[{\"n\":1},{\"n\":2}],\"a\":1}";
    assert_int_equal(dg_model_config_parse(&c, "y.json", text, strlen(text)),
                     DG_OK);
    dg_model_config_close(c);
}

/* What is compared is looked at once: twice a level would be for ever here. */
static void test_config_keys_are_compared_in_time(void **state)
{
    enum { DEEP = 300 };
    char inner[7 * DEEP + 8] = "", text[2 * sizeof inner + 64];
    ModelConfig *c;

    (void)state;
    for (int i = 0; i < DEEP; i++)
        strcat(inner, "{\"a\":");
    strcat(inner, "[1]");
    for (int i = 0; i < DEEP; i++)
        strcat(inner, "}");
    snprintf(text, sizeof text, "{\"a\":%s,\"a\":%s}", inner, inner);
    assert_int_equal(dg_model_config_parse(&c, "y.json", text, strlen(text)),
                     DG_OK);
    dg_model_config_close(c);
    *strrchr(text, '1') = '2';
    expect_error(dg_model_config_parse(&c, "y.json", text, strlen(text)),
                 DG_EFORMAT, "y.json: key a is there twice, with two values");
}

/* Keys that one has and the other has not, in objects of as many members. */
static void test_config_objects_are_compared_whole(void **state)
{
    static const struct {
        const char *text;
        int err;
    } pair[] = {
        { "{\"a\":{\"x\":1,\"y\":2},\"a\":{\"y\":2,\"x\":1}}", DG_OK },
        { "{\"a\":{\"x\":1,\"x\":1},\"a\":{\"x\":1,\"y\":2}}", DG_EFORMAT },
        { "{\"a\":{\"x\":1,\"y\":2},\"a\":{\"x\":1,\"x\":1}}", DG_EFORMAT },
        { "{\"a\":{},\"a\":[]}", DG_EFORMAT },
        { "{\"a\":[1,{}],\"a\":[1,{}]}", DG_OK },
        { "{\"a\":[1,2],\"a\":[1]}", DG_EFORMAT },
        { "{\"a\":[1],\"a\":[1,2]}", DG_EFORMAT },
        { "{\"a\":{\"b\":[{\"c\":\"d\"}]},\"a\":{\"b\":[{\"c\":\"e\"}]}}",
          DG_EFORMAT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        ModelConfig *c;

        assert_int_equal(dg_model_config_parse(&c, "y.json", pair[i].text,
                                               strlen(pair[i].text)),
                         pair[i].err);
        if (!pair[i].err)
            dg_model_config_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_file_is_taken),
        cmocka_unit_test(test_links_lead_somewhere),
        cmocka_unit_test(test_components),
        cmocka_unit_test(test_bad_shards_are_named),
        cmocka_unit_test(test_shards_come_back),
        cmocka_unit_test(test_digest_sees_names_and_values),
        cmocka_unit_test(test_config_values),
        cmocka_unit_test(test_config_keys_have_one_value),
        cmocka_unit_test(test_config_keys_are_compared_in_time),
        cmocka_unit_test(test_config_objects_are_compared_whole),
    };

    return cmocka_run_group_tests_name("snapshot", tests, scratch_make,
                                       scratch_drop);
}
