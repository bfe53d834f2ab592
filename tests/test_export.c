/* Weights out: what is written reads back as what was there, under the names
 * and shapes of diffusers, whole or not at all. */
#include "base/out_folder.h"
#include "policy/export.h"
#include "store/file.h"
#include "tiny_run.h"
#include "weights/half.h"
#include "weights/model_config.h"
#include "weights/snapshot.h"

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define SD_FOLDER "tests/golden/sd_tiny"

static char folder[256], path[290];

static const char *in_folder(const char *name)
{
    snprintf(path, sizeof path, "%.200s/%s", folder, name);
    return path;
}

static int num_entries(void)
{
    DIR *d = opendir(folder);
    int num = -2; /* . and .. */

    assert_non_null(d);
    while (readdir(d) != NULL)
        num++;
    closedir(d);
    return num;
}

static void refused(int err, int code, const char *text)
{
    assert_int_equal(err, code);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, dg_last_error()->text);
}

/* A policy of configs/tiny.cfg, or of the folder, with values everywhere. */
static Policy *make(Config *c, const char *const *sets)
{
    Policy *p;

    dg_config_defaults(c);
    MUST(dg_config_load(c, "configs/tiny.cfg"));
    for (; sets != NULL && *sets != NULL; sets++)
        MUST(dg_config_set(c, *sets));
    MUST(dg_policy_create(&p, c));
    tiny_draw(p, 3);
    for (int i = 1; i < p->adapters.num_params; i += 2) {
        const Tensor *t = &p->adapters.params[i]->value;
        const RngKey key = { .purpose = DG_RNG_TEST, .prompt = (uint32_t)i };

        dg_rng_normal(dg_tensor_f32(t), 0, dg_tensor_count(t), &key);
    }
    return p;
}

static const char *const sd_sets[] = { "policy.kind=sd",
                                       "policy.path=" SD_FOLDER,
                                       "policy.prediction=epsilon",
                                       "pretrain.image_size=64", NULL };
static const char *const lora_sets[] = {
    "lora.rank=4", "lora.alpha=6",
    "lora.targets=[\"to_q\", \"to_out.0\", \"proj_*\", \"ff.net.2\"]", NULL
};

static float *values_of(const WeightSource *s, const char *name, int64_t num)
{
    const int64_t i = dg_source_find(s, name);
    float *values = malloc(sizeof *values * (size_t)num);

    assert_non_null(values);
    if (i < 0)
        fail_msg("%s is not there", name);
    assert_int_equal(dg_source_info(s, i)->count, num);
    MUST(dg_source_read(s, i, 0, num, values));
    return values;
}

/* Largest error of rounding to nearest, as a part of the value, and for
 * numbers below float16's normal ones. */
static void check_value(WeightType type, float x, float there)
{
    const double part = type == DG_WEIGHT_F16 ? 0x1p-11 : 0x1p-8;
    const double tiny = type == DG_WEIGHT_F16 ? 0x1p-25 : 0;

    if (type == DG_WEIGHT_F32)
        assert_memory_equal(&x, &there, sizeof x);
    else
        assert_true(fabs((double)x - (double)there) <=
                    fmax(part * fabs((double)x), tiny));
}

static void check_network(const Policy *p, const WeightSource *s, size_t skip,
                          WeightType type)
{
    assert_int_equal(dg_source_num(s), p->net.num_params);
    for (int i = 0; i < p->net.num_params; i++) {
        const Param *q = p->net.params[i];
        const int64_t at = dg_source_find(s, q->name + skip);
        const int64_t num = dg_tensor_count(&q->value);
        const WeightInfo *info;
        float *there = values_of(s, q->name + skip, num);

        info = dg_source_info(s, at);
        assert_int_equal(info->type, type);
        assert_int_equal(info->num_dims, q->value.num_dims);
        for (int d = 0; d < info->num_dims; d++)
            assert_int_equal(info->dims[d], q->value.dims[d]);
        for (int64_t k = 0; k < num; k++)
            check_value(type, dg_tensor_f32(&q->value)[k], there[k]);
        free(there);
    }
}

static void test_network_reads_back(void **state)
{
    static const WeightType types[] = { DG_WEIGHT_F32, DG_WEIGHT_F16,
                                        DG_WEIGHT_BF16 };
    static const char *const names[] = { "a", "b", "c" };
    WeightSource *s;
    Config c;
    Policy *p = make(&c, NULL);

    (void)state;
    p->net.values[1] = 0x1.002p0f; /* a tie of float16: to the even one */
    p->net.values[2] = 0x1.006p0f;
    p->net.values[3] = 3e-8f;
    for (int i = 0; i < 3; i++) {
        const ExportOpts o = { .folder = in_folder(names[i]),
                               .type = types[i] };

        MUST(dg_policy_export(p, &c, &o));
        MUST(dg_snapshot_open(&s, o.folder, NULL));
        check_network(p, s, strlen("transformer."), types[i]);
        if (types[i] == DG_WEIGHT_F16) {
            float *x = values_of(s, p->net.params[0]->name + 12,
                                 dg_tensor_count(&p->net.params[0]->value));

            assert_true(x[1] == 1.0f && x[2] == 0x1.008p0f);
            free(x);
        }
        dg_source_close(s);
    }
    dg_policy_destroy(p);
}

static void test_shards_hold_the_same(void **state)
{
    char whole[DG_SHA256_HEX], parts[DG_SHA256_HEX];
    WeightSource *s;
    struct stat there;
    Config c;
    Policy *p = make(&c, NULL);
    ExportOpts o = { .folder = in_folder("whole") };

    (void)state;
    MUST(dg_policy_export(p, &c, &o));
    MUST(dg_snapshot_open(&s, o.folder, NULL));
    assert_int_equal(dg_source_num_files(s), 1);
    MUST(dg_source_digest(s, whole));
    dg_source_close(s);
    o.folder = in_folder("parts");
    o.max_shard_bytes = 30000;
    MUST(dg_policy_export(p, &c, &o));
    MUST(dg_snapshot_open(&s, o.folder, NULL));
    assert_true(dg_source_num_files(s) > 3);
    for (int i = 0; i < dg_source_num_files(s); i++) {
        MUST(stat(dg_weight_file_path(dg_source_file(s, i)), &there));
        assert_true(there.st_size < 30000 + 8000); /* and its header */
    }
    MUST(dg_source_digest(s, parts));
    dg_source_close(s);
    assert_string_equal(whole, parts);
    dg_policy_destroy(p);
}

/* config.json has the sizes of the configuration, under diffusers' keys. */
static void test_config_of_flux(void **state)
{
    static const struct {
        const char *key;
        int64_t value;
    } rows[] = {
        { "attention_head_dim", 16 },
        { "num_attention_heads", 2 },
        { "num_layers", 1 },
        { "num_single_layers", 1 },
        { "in_channels", 48 },
        { "joint_attention_dim", 16 },
        { "pooled_projection_dim", 16 },
        { "patch_size", 1 },
    };
    const char *text;
    int64_t value, axes[3];
    int num, on;
    ModelConfig *m;
    Config c;
    Policy *p = make(&c, NULL);
    const ExportOpts o = { .folder = in_folder("net") };

    (void)state;
    MUST(dg_policy_export(p, &c, &o));
    MUST(dg_model_config_open(&m, in_folder("net/config.json")));
    MUST(dg_model_config_text(m, "_class_name", &text));
    assert_string_equal(text, "FluxTransformer2DModel");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        MUST(dg_model_config_int(m, rows[i].key, 0, 1000, &value));
        assert_int_equal(value, rows[i].value);
    }
    MUST(dg_model_config_ints(m, "axes_dims_rope", axes, 3, &num));
    assert_true(num == 3 && axes[0] == 4 && axes[1] == 6 && axes[2] == 6);
    MUST(dg_model_config_bool(m, "guidance_embeds", &on));
    assert_int_equal(on, 0);
    assert_int_equal(dg_model_config_has(m, "out_channels"), 0);
    dg_model_config_close(m);
    dg_policy_destroy(p);
}

static void same_file(const char *a, const char *b)
{
    char *one, *two;
    size_t num_one, num_two;

    MUST(dg_file_read(a, &one, &num_one));
    MUST(dg_file_read(b, &two, &num_two));
    assert_int_equal(num_one, num_two);
    assert_memory_equal(one, two, num_one);
    free(one);
    free(two);
}

/* Names, shapes and config.json are those of the folder diffusers wrote. */
static void test_unet_is_as_diffusers_has_it(void **state)
{
    WeightSource *s, *theirs;
    Config c;
    Policy *p = make(&c, sd_sets);
    const ExportOpts o = { .folder = in_folder("unet") };

    (void)state;
    MUST(dg_policy_export(p, &c, &o));
    MUST(dg_snapshot_open(&s, in_folder("unet"), NULL));
    MUST(dg_snapshot_open(&theirs, SD_FOLDER "/unet", NULL));
    check_network(p, s, strlen("unet."), DG_WEIGHT_F32);
    assert_int_equal(dg_source_num(s), dg_source_num(theirs));
    for (int64_t i = 0; i < dg_source_num(s); i++) {
        const WeightInfo *a = dg_source_info(s, i);
        const WeightInfo *b = dg_source_info(theirs, i);

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->num_dims, b->num_dims);
        for (int d = 0; d < a->num_dims; d++)
            assert_int_equal(a->dims[d], b->dims[d]);
    }
    same_file(in_folder("unet/config.json"), SD_FOLDER "/unet/config.json");
    dg_source_close(s);
    dg_source_close(theirs);
    dg_policy_destroy(p);
}

static void test_pipeline_is_whole(void **state)
{
    static const char *const files[] = {
        "model_index.json",         "scheduler/scheduler_config.json",
        "text_encoder/config.json", "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json", "vae/diffusion_pytorch_model.safetensors",
    };
    struct stat there;
    char from[256];
    Config c;
    Policy *p = make(&c, sd_sets);
    ExportOpts o = { .folder = in_folder("pipe"), .rest = DG_EXPORT_COPY };

    (void)state;
    for (int link = 0; link < 2; link++) {
        o.folder = in_folder("pipe");
        o.rest = link ? DG_EXPORT_LINK : DG_EXPORT_COPY;
        MUST(dg_policy_export(p, &c, &o));
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            char to[512];

            snprintf(to, sizeof to, "%s/pipe/%s", folder, files[i]);
            snprintf(from, sizeof from, SD_FOLDER "/%s", files[i]);
            same_file(to, from);
        }
        MUST(lstat(in_folder("pipe/vae"), &there));
        assert_int_equal(S_ISLNK(there.st_mode), link);
        MUST(lstat(in_folder("pipe/unet"), &there));
        assert_int_equal(S_ISLNK(there.st_mode), 0);
        tiny_drop(in_folder("pipe"));
    }
    dg_policy_destroy(p);
}

static void test_adapters_read_back(void **state)
{
    WeightSource *s;
    Config c;
    Policy *p = make(&c, lora_sets);
    const ExportOpts o = { .folder = in_folder("lora"), .adapters = 1 };

    (void)state;
    MUST(dg_policy_export(p, &c, &o));
    assert_int_equal(access(in_folder("lora/config.json"), F_OK), -1);
    MUST(dg_snapshot_open(
        &s, in_folder("lora/pytorch_lora_weights.safetensors"), NULL));
    assert_int_equal(dg_source_num(s), p->adapters.num_params);
    /* a double block, a single one, and the way out */
    assert_int_equal(dg_source_num(s), 2 * (3 + 3 + 1));
    assert_true(dg_source_find(s,
                               "transformer.transformer_blocks.0.attn.to_out.0."
                               "lora_A.weight") >= 0);
    assert_true(dg_source_find(s, "transformer.proj_out.lora_B.weight") >= 0);
    for (int i = 0; i < p->adapters.num_params; i++) {
        const Tensor *t = &p->adapters.params[i]->value;
        const WeightInfo *info;
        float *there =
            values_of(s, p->adapters.params[i]->name, dg_tensor_count(t));

        info =
            dg_source_info(s, dg_source_find(s, p->adapters.params[i]->name));
        assert_int_equal(info->dims[i % 2], 4);
        assert_int_equal(info->dims[1 - i % 2], t->dims[1 - i % 2]);
        for (int64_t k = 0; k < dg_tensor_count(t); k++)
            assert_true(there[k] ==
                        dg_tensor_f32(t)[k] * (i % 2 == 0 ? 1.0f : 1.5f));
        free(there);
    }
    dg_source_close(s);
    dg_policy_destroy(p);
}

/* One element of the merged weight by its formula. */
static float merged(const Param *w, const Param *a, const Param *b, int64_t o,
                    int64_t i, double scale)
{
    const int64_t in = a->value.dims[1], rank = a->value.dims[0];
    double sum = 0;

    for (int64_t r = 0; r < rank; r++)
        sum += (double)dg_tensor_f32(&b->value)[o * rank + r] *
               (double)dg_tensor_f32(&a->value)[r * in + i];
    return (float)((double)dg_tensor_f32(&w->value)[o * in + i] + scale * sum);
}

static void test_merged_weights_are_the_formula(void **state)
{
    Config c;
    Policy *p = make(&c, lora_sets), *before = make(&c, lora_sets);

    (void)state;
    dg_policy_merge(p);
    for (int k = 0; k < p->net.num_params; k++) {
        const Param *w = before->net.params[k];
        const float *now = dg_tensor_f32(&p->net.params[k]->value);
        const float *old = dg_tensor_f32(&w->value);
        char name[DG_PARAM_NAME + 16];
        const Param *a = NULL, *b = NULL;

        snprintf(name, sizeof name, "%.*s.lora_A.weight",
                 (int)strlen(w->name) - 7, w->name);
        if (strcmp(w->name + strlen(w->name) - 7, ".weight") == 0)
            a = dg_params_find(&before->adapters, name);
        *strstr(name, ".lora_A") = '\0';
        strcat(name, ".lora_B.weight");
        if (a != NULL)
            b = dg_params_find(&before->adapters, name);
        for (int64_t i = 0; i < dg_tensor_count(&w->value); i++) {
            const int64_t in = a != NULL ? a->value.dims[1] : 1;
            const float want =
                a != NULL ? merged(w, a, b, i / in, i % in, 1.5) : old[i];

            assert_memory_equal(&now[i], &want, sizeof want);
        }
    }
    for (int i = 1; i < p->adapters.num_params; i += 2)
        for (int64_t k = 0; k < dg_tensor_count(&p->adapters.params[i]->value);
             k++)
            assert_true(dg_tensor_f32(&p->adapters.params[i]->value)[k] == 0);
    dg_policy_destroy(p);
    dg_policy_destroy(before);
}

static void test_whole_or_not_at_all(void **state)
{
    Config c;
    Policy *p = make(&c, NULL);
    ExportOpts o = { .max_shard_bytes = 30000 };
    char to[300];
    int before = num_entries();

    (void)state;
    snprintf(to, sizeof to, "%s/never", folder);
    o.folder = to;
    p->net.values[p->net.count - 1] = NAN;
    refused(dg_policy_export(p, &c, &o), DG_ENUMERIC, "must be finite");
    assert_int_equal(num_entries(), before);
    p->net.values[p->net.count - 1] = 1e6f;
    o.type = DG_WEIGHT_F16;
    refused(dg_policy_export(p, &c, &o), DG_EINVAL, "F16 ends at 65504");
    assert_int_equal(num_entries(), before);
    o.type = DG_WEIGHT_BF16;
    MUST(dg_policy_export(p, &c, &o));
    assert_int_equal(num_entries(), before + 1);
    refused(dg_policy_export(p, &c, &o), DG_EINVAL, "never: is there already");
    o.folder = "/nowhere/net";
    refused(dg_policy_export(p, &c, &o), DG_EIO, "/nowhere/net.tmp-");
    o.adapters = 1;
    refused(dg_policy_export(p, &c, &o), DG_EINVAL, "no adapters");
    o = (ExportOpts) { .folder = "x", .rest = DG_EXPORT_COPY };
    refused(dg_policy_export(p, &c, &o), DG_EINVAL, "policy.path");
    dg_policy_destroy(p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_reads_back),
        cmocka_unit_test(test_shards_hold_the_same),
        cmocka_unit_test(test_config_of_flux),
        cmocka_unit_test(test_unet_is_as_diffusers_has_it),
        cmocka_unit_test(test_pipeline_is_whole),
        cmocka_unit_test(test_adapters_read_back),
        cmocka_unit_test(test_merged_weights_are_the_formula),
        cmocka_unit_test(test_whole_or_not_at_all),
    };
    int failed;

    if (dg_comm_init(&tiny_comm, &argc, &argv) != DG_OK)
        return 1;
    tiny_folder(folder);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    tiny_drop(folder);
    dg_comm_fini(&tiny_comm);
    return failed;
}
