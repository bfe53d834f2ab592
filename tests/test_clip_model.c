/* Both towers of CLIP against published numbers of a tiny one, read from a
 * file in OpenCLIP's layout. Its weights follow a rule of ten lines: fill(). */
#include "tiny_run.h"

#include "models/clip_model.h"
#include "weights/load.h"
#include "weights/safetensors.h"

#include <math.h>

enum { TENSORS = 80, SIDE = 32, TOKENS = 16, E = 32 };

static uint32_t crc32_of(const char *text)
{
    uint32_t c = 0xFFFFFFFFu;

    for (; *text; text++) {
        c ^= (unsigned char)*text;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
    }
    return ~c;
}

/* Uniform in [-1/2, 1/2) from a name and an index. */
static double value_of(uint32_t crc, uint32_t j)
{
    uint32_t h = j + crc * 0x9E3779B1u;

    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    return (double)(h >> 8) / (1 << 24) - 0.5;
}

static int ends(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);

    return n >= m && strcmp(name + n - m, end) == 0;
}

/* A file's tensors. */
typedef struct File {
    WeightOut t[TENSORS];
    char names[TENSORS][96];
    int num;
    int64_t values;
} File;

static void fill(float *out, const WeightOut *t, const char *name)
{
    const uint32_t crc = crc32_of(name);
    int64_t count = 1, fan_in = 1;

    for (int i = 0; i < t->num_dims; i++)
        count *= t->dims[i];
    for (int i = 1; i < t->num_dims; i++)
        fan_in *= t->dims[i];
    if (ends(name, "proj") || ends(name, "text_projection"))
        fan_in = t->dims[0];
    for (int64_t j = 0; j < count; j++) {
        const double v = value_of(crc, (uint32_t)j);

        if (t->num_dims == 1)
            out[j] = (float)(ends(name, "weight") ? 1 + 0.2 * v : 0.2 * v);
        else if (ends(name, "token_embedding.weight") ||
                 ends(name, "positional_embedding"))
            out[j] = (float)v;
        else
            out[j] = (float)(v * sqrt(12.0 / (double)fan_in));
    }
}

/* before: what the file's wrapper puts before the name */
static void add(File *f, const char *before, const char *name, int64_t a,
                int64_t b)
{
    WeightOut *t = &f->t[f->num];
    float *data;

    assert_true(f->num < TENSORS);
    snprintf(f->names[f->num], sizeof f->names[0], "%s%s", before, name);
    *t = (WeightOut) { .name = f->names[f->num++],
                       .type = DG_WEIGHT_F32,
                       .num_dims = b > 0   ? 2
                                   : a > 0 ? 1
                                           : 0,
                       .dims = { a, b } };
    if (strcmp(name, "visual.conv1.weight") == 0) {
        t->num_dims = 4;
        t->dims[1] = 3;
        t->dims[2] = t->dims[3] = 8;
        b = 3 * 8 * 8;
    }
    f->values += (a > 0 ? a : 1) * (b > 0 ? b : 1);
    data = malloc(sizeof *data * (size_t)((a > 0 ? a : 1) * (b > 0 ? b : 1)));
    assert_non_null(data);
    fill(data, t, name);
    t->data = data;
}

static void add_blocks(File *f, const char *before, const char *tower,
                       int64_t d)
{
    static const struct {
        const char *name;
        int out, in; /* in units of d; in = 0: a vector */
    } leaves[] = {
        { "ln_1.weight", 1, 0 },          { "ln_1.bias", 1, 0 },
        { "attn.in_proj_weight", 3, 1 },  { "attn.in_proj_bias", 3, 0 },
        { "attn.out_proj.weight", 1, 1 }, { "attn.out_proj.bias", 1, 0 },
        { "ln_2.weight", 1, 0 },          { "ln_2.bias", 1, 0 },
        { "mlp.c_fc.weight", 4, 1 },      { "mlp.c_fc.bias", 4, 0 },
        { "mlp.c_proj.weight", 1, 4 },    { "mlp.c_proj.bias", 1, 0 }
    };

    for (int i = 0; i < 2; i++)
        for (size_t k = 0; k < sizeof leaves / sizeof *leaves; k++) {
            char name[96];

            snprintf(name, sizeof name, "%stransformer.resblocks.%d.%s", tower,
                     i, leaves[k].name);
            add(f, before, name, leaves[k].out * d, leaves[k].in * d);
        }
}

/* all: before every name; text: before those of the text tower */
static void make_file(File *f, const char *all, const char *text)
{
    memset(f, 0, sizeof *f);
    add(f, text, "token_embedding.weight", 100, 48);
    add(f, text, "positional_embedding", TOKENS, 48);
    add_blocks(f, text, "", 48);
    add(f, text, "ln_final.weight", 48, 0);
    add(f, text, "ln_final.bias", 48, 0);
    add(f, text, "text_projection", 48, E);
    add(f, all, "visual.class_embedding", 64, 0);
    add(f, all, "visual.positional_embedding", 17, 64);
    add(f, all, "visual.conv1.weight", 64, 3 * 8 * 8);
    add(f, all, "visual.ln_pre.weight", 64, 0);
    add(f, all, "visual.ln_pre.bias", 64, 0);
    add_blocks(f, all, "visual.", 64);
    add(f, all, "visual.ln_post.weight", 64, 0);
    add(f, all, "visual.ln_post.bias", 64, 0);
    add(f, all, "visual.proj", 64, E);
    add(f, all, "logit_scale", 0, 0);
}

static void drop_file(File *f)
{
    for (int i = 0; i < f->num; i++)
        free((void *)f->t[i].data);
}

static ClipModelConfig tiny_config(ClipAct act)
{
    return (ClipModelConfig) {
        .text = { 100, 48, 192, 2, 3, TOKENS, act },
        .vision = { SIDE, 8, 64, 256, 2, 4, act },
        .projection_dim = E,
    };
}

typedef struct Bed {
    ParamSet set;
    ClipModel *model;
    Context ctx;
} Bed;

static void open_bed(Bed *b, ClipAct act)
{
    const ClipModelConfig c = tiny_config(act);

    MUST(dg_params_init(&b->set, 1));
    MUST(dg_clip_model_create(&b->model, &c, &b->set, ""));
    MUST(dg_params_allocate(&b->set, NULL));
    MUST(dg_context_init(&b->ctx, dg_backend_cpu(), (size_t)1 << 22));
}

static void close_bed(Bed *b)
{
    dg_context_fini(&b->ctx);
    dg_clip_model_destroy(b->model);
    dg_params_fini(&b->set);
}

/* The weights by way of a file with such names. */
static void load(Bed *b, const char *all, const char *text)
{
    WeightWant *wants;
    LoadOpts o = { .path = NULL };
    char folder[256], path[300];
    File f;

    tiny_folder(folder);
    snprintf(path, sizeof path, "%s/w.safetensors", folder);
    make_file(&f, all, text);
    assert_int_equal(f.values, 179457);
    MUST(dg_safetensors_write(path, f.t, f.num, NULL, NULL));
    drop_file(&f);
    MUST(dg_manifest_of_params(&wants, &o.num_wants, &b->set, ""));
    o.path = path;
    o.wants = wants;
    MUST(dg_load_values(&tiny_comm, &o, 0, b->set.count, b->set.values));
    free(wants);
    tiny_drop(folder);
}

/* pixels [n, SIDE, SIDE, 3] of the channels-first input */
static void input(float *pixels)
{
    const uint32_t crc = crc32_of("image");

    for (uint32_t j = 0; j < 2 * 3 * SIDE * SIDE; j++) {
        const uint32_t b = j / (3 * SIDE * SIDE), c = j / (SIDE * SIDE) % 3;

        pixels[(b * SIDE * SIDE + j % (SIDE * SIDE)) * 3 + c] =
            (float)(2 * value_of(crc, j));
    }
}

static void see(Bed *b, const float *pixels, int64_t num, float *out)
{
    const int64_t dims[4] = { num, SIDE, SIDE, 3 };
    Tensor *t;

    dg_context_reset(&b->ctx);
    t = dg_clip_model_image(b->model, &b->ctx,
                            dg_op_input(&b->ctx, pixels, 4, dims));
    assert_non_null(t);
    memcpy(out, t->data, sizeof *out * (size_t)(num * E));
}

static void read_text(Bed *b, const int32_t *ids, int64_t num, float *out)
{
    Tensor *t;

    dg_context_reset(&b->ctx);
    t = dg_clip_model_text(b->model, &b->ctx, ids, num, TOKENS);
    assert_non_null(t);
    memcpy(out, t->data, sizeof *out * (size_t)(num * E));
}

static const int32_t words[2][TOKENS] = { { 98, 5, 17, 3, 99 },
                                          { 98, 42, 99 } };

static void near(double got, double want, const char *what)
{
    if (!(fabs(got - want) <= 2e-6))
        fail_msg("%s: %.8g, published %.8g", what, got, want);
}

static void test_rule_of_the_weights(void **state)
{
    static const double image[] = { -0.36435819, -0.02246374, 0.33380085,
                                    -0.15944833 };

    (void)state;
    for (uint32_t j = 0; j < 4; j++)
        assert_true(fabs(value_of(crc32_of("image"), j) - image[j]) < 5e-9);
}

/* in every wrapper that public files have */
static void test_published_numbers(void **state)
{
    static const double cosines[2][4] = {
        { -0.2311914, -0.3471240, -0.0857311, -0.1271980 }, /* quick_gelu */
        { -0.2269334, -0.3443123, -0.0845661, -0.1250328 }  /* gelu */
    };
    static const double first[2][3] = { { 0.196415, -0.434331, 0.159393 },
                                        { 0.849929, 0.265528, -0.400103 } };
    static const char *const wrappers[][2] = { { "", "" },
                                               { "state_dict.", "state_dict." },
                                               { "module.", "module." },
                                               { "state_dict.module.",
                                                 "state_dict.module." },
                                               { "", "text." } };
    float pixels[2 * SIDE * SIDE * 3], image[2 * E], text[2 * E];

    (void)state;
    input(pixels);
    for (int w = 0; w < 5; w++)
        for (int act = 0; act < 2; act++) {
            Bed b;

            open_bed(&b, (ClipAct)act);
            load(&b, wrappers[w][0], wrappers[w][1]);
            see(&b, pixels, 2, image);
            read_text(&b, words[0], 2, text);
            for (int k = 0; k < 3 && act == DG_CLIP_GELU; k++) {
                near((double)image[k], first[0][k], "image");
                near((double)text[k], first[1][k], "text");
            }
            for (int k = 0; k < 2; k++) {
                dg_clip_normalize(image + k * E, E);
                dg_clip_normalize(text + k * E, E);
            }
            for (int k = 0; k < 4; k++)
                near(dg_clip_dot(image + k / 2 * E, text + k % 2 * E, E),
                     cosines[act][k], "cosine");
            close_bed(&b);
        }
}

static void test_neighbours_do_not_matter(void **state)
{
    float pixels[2 * SIDE * SIDE * 3], together[2 * E], alone[E];
    Bed b;

    (void)state;
    input(pixels);
    open_bed(&b, DG_CLIP_GELU);
    load(&b, "", "");
    see(&b, pixels, 2, together);
    see(&b, pixels + SIDE * SIDE * 3, 1, alone);
    assert_memory_equal(alone, together + E, sizeof alone);
    read_text(&b, words[0], 2, together);
    read_text(&b, words[1], 1, alone);
    assert_memory_equal(alone, together + E, sizeof alone);
    close_bed(&b);
}

/* What follows the end mark is not seen; what stands before it is. */
static void test_pads_do_not_matter(void **state)
{
    float plain[E], padded[E];
    int32_t ids[TOKENS];
    Bed b;

    (void)state;
    open_bed(&b, DG_CLIP_GELU);
    load(&b, "", "");
    read_text(&b, words[1], 1, plain);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i < 3 ? words[1][i] : 99;
    read_text(&b, ids, 1, padded);
    assert_memory_equal(plain, padded, sizeof plain);
    ids[1] = 43;
    read_text(&b, ids, 1, padded);
    assert_memory_not_equal(plain, padded, sizeof plain);
    close_bed(&b);
}

/* Any range of the buffer, turned matrices too, as all at once. */
static void test_ranges_of_a_turned_matrix(void **state)
{
    WeightWant *wants;
    LoadOpts o = { .path = NULL };
    char folder[256], path[300];
    float *part;
    File f;
    Bed b;
    const Param *q;

    (void)state;
    open_bed(&b, DG_CLIP_GELU);
    load(&b, "", "");
    tiny_folder(folder);
    snprintf(path, sizeof path, "%s/w.safetensors", folder);
    make_file(&f, "", "");
    MUST(dg_safetensors_write(path, f.t, f.num, NULL, NULL));
    MUST(dg_manifest_of_params(&wants, &o.num_wants, &b.set, ""));
    o.path = path;
    o.wants = wants;
    q = dg_params_find(&b.set, "visual_projection.weight");
    assert_non_null(q);
    part = malloc(sizeof *part * 64 * E);
    assert_non_null(part);
    for (int k = 0; k < 3; k++) {
        const int64_t first = q->value.param_offset + (k == 0 ? 0 : 777 * k);
        const int64_t num = k == 0 ? 64 * E : 100;

        MUST(dg_load_values(&tiny_comm, &o, first, num, part));
        assert_memory_equal(part, b.set.values + first,
                            sizeof *part * (size_t)num);
    }
    assert_string_equal(f.t[f.num - 2].name, "visual.proj");
    assert_true(b.set.values[q->value.param_offset + 3 * 64 + 7] ==
                f.t[f.num - 2].data[7 * E + 3]);
    free(part);
    free(wants);
    drop_file(&f);
    tiny_drop(folder);
    close_bed(&b);
}

static void test_bad_sizes_are_refused(void **state)
{
    ClipModelConfig c = tiny_config(DG_CLIP_GELU);
    ClipModel *m;
    ParamSet set;

    (void)state;
    MUST(dg_params_init(&set, 1));
    c.vision.num_attention_heads = 5;
    assert_int_equal(dg_clip_model_create(&m, &c, &set, "a."), DG_EINVAL);
    c = tiny_config(DG_CLIP_GELU);
    c.vision.image_size = 7;
    assert_int_equal(dg_clip_model_create(&m, &c, &set, "b."), DG_EINVAL);
    c = tiny_config(DG_CLIP_GELU);
    c.projection_dim = 0;
    assert_int_equal(dg_clip_model_create(&m, &c, &set, "c."), DG_EINVAL);
    assert_int_equal(dg_clip_model_named(&c, "ViT-Q-1"), DG_EINVAL);
    dg_params_fini(&set);
}

static void test_a_vector_of_nothing_stays(void **state)
{
    float zero[3] = { 0 }, x[2] = { 3, -4 };

    (void)state;
    dg_clip_normalize(zero, 3);
    assert_true(zero[0] == 0 && zero[2] == 0);
    dg_clip_normalize(x, 2);
    assert_true(x[0] == 0.6f && x[1] == -0.8f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_rule_of_the_weights),
    cmocka_unit_test(test_published_numbers),
    cmocka_unit_test(test_neighbours_do_not_matter),
    cmocka_unit_test(test_pads_do_not_matter),
    cmocka_unit_test(test_ranges_of_a_turned_matrix),
    cmocka_unit_test(test_bad_sizes_are_refused),
    cmocka_unit_test(test_a_vector_of_nothing_stays),
};

TINY_MAIN(tests)
