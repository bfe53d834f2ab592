#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "config/config.h"
#include "config/option.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char folder[] = "/tmp/dg_config_XXXXXX";

static const char *write_file(const char *name, const char *text)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static void expect_error(int err, int code, const char *part)
{
    const char *text = dg_last_error()->text;

    if (err != code || strstr(text, part) == NULL)
        fail_msg("code %d, '%s' lacks '%s'", err, text, part);
}

/* The text must be refused with that message and leave c alone. */
static void refuse(const char *text, int code, const char *part)
{
    Config c, before;

    dg_config_defaults(&c);
    before = c;
    dg_clear_error();
    expect_error(dg_config_parse(&c, text, "x.cfg"), code, part);
    assert_memory_equal(&c, &before, sizeof c);
}

static void refuse_set(const char *assignment, int code, const char *part)
{
    Config c, before;

    dg_config_defaults(&c);
    before = c;
    dg_clear_error();
    expect_error(dg_config_set(&c, assignment), code, part);
    assert_memory_equal(&c, &before, sizeof c);
}

static void test_defaults_are_those_of_the_paper(void **state)
{
    Config c;
    (void)state;

    dg_config_defaults(&c);
    assert_int_equal(c.grpo.num_generations, 12);
    assert_true(c.grpo.clip_range == 1e-4);
    assert_true(c.grpo.timestep_fraction == 0.6);
    assert_true(c.optim.lr == 1e-5);
    assert_true(c.sampler.eta == 0.3);
    assert_int_equal(c.sampler.sde, DG_SDE_DANCE);
    assert_int_equal(c.num_rewards, 0);
    assert_int_equal(dg_config_check(&c), DG_OK);
}

static void test_table_is_consistent(void **state)
{
    int num;
    const Option *rows = dg_option_table(&num);
    (void)state;

    for (int i = 0; i < num; i++) {
        assert_ptr_equal(dg_option_find(rows[i].key), &rows[i]);
        assert_true(rows[i].at + (rows[i].size ? 1 : 0) < sizeof(Config));
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(rows[i].key, rows[j].key);
            assert_true(rows[i].at != rows[j].at);
        }
    }
}

static void test_parse_reads_every_type(void **state)
{
    Config c;
    (void)state;

    dg_config_defaults(&c);
    assert_int_equal(
        dg_config_parse(&c,
                        "run = { dir = \"a \\\"b\\\" \xc3\xa9\"; "
                        "seed = 12345678901; };\n"
                        "sampler: { sde = \"cps\"; eta = 1; shift = 2.5e0; }\n"
                        "parallel: { exact_sum = false; };\n"
                        "flux: { axes_dims = [4, 14, 14]; };\n"
                        "rewards = ( { name = \"shapes\"; weight = 2; },\n"
                        " { name = \"b\"; threshold = 0.5; } );\n",
                        "x.cfg"),
        DG_OK);
    assert_string_equal(c.run.dir, "a \"b\" \xc3\xa9");
    assert_int_equal(c.run.seed, 12345678901);
    assert_int_equal(c.sampler.sde, DG_SDE_CPS);
    assert_true(c.sampler.eta == 1 && c.sampler.shift == 2.5);
    assert_false(c.parallel.exact_sum);
    assert_int_equal(c.flux.axes_dims[0], 4);
    assert_int_equal(c.num_rewards, 2);
    assert_true(c.rewards[0].weight == 2 && isnan(c.rewards[0].threshold));
    assert_true(c.rewards[1].weight == 1 && c.rewards[1].threshold == 0.5);
    assert_int_equal(c.grpo.num_generations, 12);
}

static void test_parse_names_file_line_and_range(void **state)
{
    (void)state;
    refuse("run: {\n  seed = 1;\n  threads = -1;\n};", DG_EINVAL,
           "x.cfg:3: run.threads = -1: must be an integer in [0, 4096]");
    refuse("sampler: { eta = 2.1; };", DG_EINVAL,
           "sampler.eta = 2.1: must be a number in [0, 2]");
    refuse("sampler: { eta = -0.1; };", DG_EINVAL, "eta = -0.1: must be");
    refuse("sampler: { sde = \"dancing\"; };", DG_EINVAL,
           "must be one of ode | dance | flow_sde | cps | ddim");
    refuse("sampler: { sde = \"dan\"; };", DG_EINVAL, "= \"dan\": must be");
    refuse("sampler: { steps = 2.5; };", DG_EINVAL, "must be an integer");
    refuse("sampler: { steps = \"16\"; };", DG_EINVAL, "= \"16\": must be");
    refuse("parallel: { exact_sum = 1; };", DG_EINVAL, "true or false");
    refuse("flux: { axes_dims = [4, 4]; };", DG_EINVAL, "must be 3 integers");
    refuse("flux: { axes_dims = [4, 4, -4]; };", DG_EINVAL, "must be 3");
    refuse("unet: { block_out_channels = [1,1,1,1,1,1,1,1,1]; };", DG_EINVAL,
           "must be at most 8 integers");
    refuse("unet: { block_out_channels = [8, 0]; };", DG_EINVAL, "must be at");
    refuse("run: { dir = 5; };", DG_EINVAL, "must be a text");
    refuse("run: { seed = 99999999999999999999; };", DG_EINVAL,
           "run.seed = 1e+20: must be an integer");
    refuse("rewards = 3;", DG_EINVAL, "must be a list");
    refuse("t5: { num_layers = 0; };", DG_EINVAL, "integer in [1, 200]");
    refuse("clip: { layers = 0; };", DG_EINVAL, "integer in [1, 200]");
    refuse("rewards = (3);", DG_EINVAL, "must be a group");
    refuse("rewards = ( {\nnmae = \"a\";\n} );", DG_EINVAL, "'nmae'");
    refuse("rewards = (\n{ weight = \"x\"; });", DG_EINVAL, "x.cfg:2");
}

static void test_set_takes_every_type(void **state)
{
    Config c;
    (void)state;

    dg_config_defaults(&c);
    assert_int_equal(dg_config_set(&c, "run.dir=runs/a=b c"), DG_OK);
    assert_string_equal(c.run.dir, "runs/a=b c");
    assert_int_equal(dg_config_set(&c, "run.dir=\"q\""), DG_OK);
    assert_string_equal(c.run.dir, "q");
    assert_int_equal(dg_config_set(&c, "run.dir="), DG_OK);
    assert_string_equal(c.run.dir, "");
    assert_int_equal(dg_config_set(&c, "run.seed=9007199254740"), DG_OK);
    assert_int_equal(c.run.seed, 9007199254740);
    assert_int_equal(dg_config_set(&c, "optim.lr = 3e-4"), DG_OK);
    assert_true(c.optim.lr == 3e-4);
    assert_int_equal(dg_config_set(&c, "sampler.sde=flow_sde"), DG_OK);
    assert_int_equal(c.sampler.sde, DG_SDE_FLOW_SDE);
    assert_int_equal(dg_config_set(&c, "grpo.best_of_n=true"), DG_OK);
    assert_true(c.grpo.best_of_n);
    assert_int_equal(dg_config_set(&c, "flux.axes_dims=[2,15,15]"), DG_OK);
    assert_int_equal(c.flux.axes_dims[2], 15);
    assert_int_equal(c.unet.num_levels, 0);
    assert_int_equal(dg_config_set(&c, "unet.block_out_channels=[8,16,32]"),
                     DG_OK);
    assert_int_equal(dg_config_set(&c, "unet.block_out_channels=[24,48]"),
                     DG_OK);
    assert_int_equal(c.unet.num_levels, 2);
    assert_int_equal(c.unet.block_out_channels[1], 48);
    assert_int_equal(c.unet.block_out_channels[2], 0);
    assert_int_equal(
        dg_config_set(&c, "rewards=({name=\"shapes\"; weight=0.5;})"), DG_OK);
    assert_int_equal(c.num_rewards, 1);
    assert_int_equal(dg_config_set(&c, "rewards=()"), DG_OK);
    assert_int_equal(c.num_rewards, 0);
}

/* libconfig cuts what goes beyond 32 bits, and hexadecimal beyond 64. */
static void test_no_number_is_cut(void **state)
{
    Config c;

    (void)state;
    dg_config_defaults(&c);
    assert_int_equal(dg_config_set(&c, "run.seed=0x100000005"), DG_OK);
    assert_true(c.run.seed == 0x100000005);
    assert_int_equal(dg_config_set(&c, "run.seed=0XfFFFffffL"), DG_OK);
    assert_true(c.run.seed == 0xFFFFFFFF);
    assert_int_equal(dg_config_set(&c, "run.seed=4294967301"), DG_OK);
    assert_true(c.run.seed == 4294967301);
    refuse_set("run.seed=0x10000000000000005", DG_EINVAL, "e+19: must be");
    refuse_set("run.seed=0x10000000000000005L", DG_EINVAL, "e+19: must be");
    refuse_set("run.seed=18446744073709551621", DG_EINVAL, "e+19: must be");
}

/* Only files of configurations include files. */
static void test_text_includes_no_file(void **state)
{
    const char *path = write_file("element.cfg", "{ name = \"x\"; }\n");
    char text[600];
    Config c;

    (void)state;
    dg_config_defaults(&c);
    snprintf(text, sizeof text, "rewards=(\n@include \"%s\"\n)", path);
    refuse_set(text, DG_EINVAL, "must be a list");
    snprintf(text, sizeof text, "rewards = (\n@include \"%s\"\n);", path);
    assert_int_equal(dg_config_parse(&c, text, "text"), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "text:2: "));
    assert_int_equal(c.num_rewards, 0);
}

static void test_set_refuses_what_it_cannot_take(void **state)
{
    (void)state;
    refuse_set("run.seed", DG_EUSAGE, "must be key=value");
    refuse_set("=3", DG_EUSAGE, "must be key=value");
    refuse_set("run.seed=1; run.threads=2", DG_EINVAL, "must be an integer");
    refuse_set("run.seed=1; x=2", DG_EINVAL, "must be an integer");
    refuse_set("run.seed=abc", DG_EINVAL, "run.seed = abc: must be an integer");
    refuse_set("run.seed=", DG_EINVAL, "must be an integer");
    refuse_set("optim.lr=nan", DG_EINVAL, "must be a number");
    refuse_set("optim.lr=1e999", DG_EINVAL, "must be a number");
    refuse_set("sampler.steps=1", DG_EINVAL, "[2, 1000]");
    refuse_set("rewards=({name=\"a\")", DG_EINVAL, "must be a list");
}

static void test_print_parses_back_to_the_same_bits(void **state)
{
    Config a, b;
    char *first, *second;
    (void)state;

    dg_config_defaults(&a);
    a.optim.lr = 1.0 / 3;
    a.optim.eps = 5e-20;
    a.sampler.shift = nextafter(3, 4);
    a.run.seed = 9000000000000000;
    a.run.max_seconds = 1e9;
    strcpy(a.run.dir, "tab\t quote\" back\\slash nl\n \x01 \xc3\xa9");
    a.num_rewards = 2;
    strcpy(a.rewards[0].name, "shapes");
    a.rewards[0].weight = -0.1;
    a.rewards[0].threshold = NAN;
    strcpy(a.rewards[1].name, "b");
    a.rewards[1].threshold = 0.25;
    for (int i = 0; i < 2; i++) {
        a.rewards[i].processes = 2;
        a.rewards[i].timeout_seconds = a.rewards[i].start_seconds = 0.5;
    }
    assert_int_equal(dg_config_print(&first, &a), DG_OK);
    dg_config_defaults(&b);
    assert_non_null(strstr(first, "timeout_seconds = 600.0;"));
    assert_int_equal(dg_config_parse(&b, first, "print"), DG_OK);
    assert_int_equal(dg_config_print(&second, &b), DG_OK);
    assert_string_equal(first, second);
    assert_true(a.optim.lr == b.optim.lr && a.optim.eps == b.optim.eps);
    assert_true(a.sampler.shift == b.sampler.shift);
    assert_int_equal(a.run.seed, b.run.seed);
    assert_string_equal(a.run.dir, b.run.dir);
    assert_true(isnan(b.rewards[0].threshold));
    assert_true(b.rewards[0].weight == -0.1);
    free(first);
    free(second);
}

static void test_compare_lists_differing_keys(void **state)
{
    Config a, b;
    char *text;
    (void)state;

    dg_config_defaults(&a);
    b = a;
    b.run.iterations = 7;
    b.run.threads = 3;
    b.checkpoint.every = 99;
    assert_int_equal(dg_config_compare(&text, &a, &b), DG_OK);
    assert_string_equal(text, "");
    free(text);
    b.sampler.eta = 0.5;
    assert_int_equal(dg_config_set(&b, "rewards=({name=\"shapes\";weight=2;})"),
                     DG_OK);
    assert_int_equal(dg_config_compare(&text, &a, &b), DG_OK);
    assert_string_equal(text,
                        "sampler.eta: 0.3 -> 0.5\n"
                        "rewards: () -> ( { name = \"shapes\"; weight = 2.0; "
                        "} )\n");
    free(text);
    /* keys of a list's groups that may change, and one that may not */
    a = b;
    b.rewards[0].processes = 3;
    b.rewards[0].timeout_seconds = b.rewards[0].start_seconds = 2;
    assert_int_equal(dg_config_compare(&text, &a, &b), DG_OK);
    assert_string_equal(text, "");
    free(text);
    b.rewards[0].weight = 3;
    b.rewards[0].target = 0.5;
    assert_int_equal(dg_config_compare(&text, &a, &b), DG_OK);
    assert_string_equal(text, "rewards[0].weight: 2.0 -> 3.0\n"
                              "rewards[0].target: unset -> 0.5\n");
    free(text);
    dg_config_defaults(&a);
    /* a decaying learning rate depends on the number of iterations */
    b = a;
    b.run.iterations = 7;
    a.optim.schedule = b.optim.schedule = DG_LR_COSINE;
    assert_int_equal(dg_config_compare(&text, &a, &b), DG_OK);
    assert_string_equal(text, "run.iterations: 100 -> 7\n");
    free(text);
}

static void test_load_lets_the_including_file_win(void **state)
{
    Config c;
    char sub[64];
    (void)state;

    snprintf(sub, sizeof sub, "%s/sub", folder);
    mkdir(sub, 0700);
    write_file("sub/base.cfg", "\xEF\xBB\xBF@include \"deep.cfg\"\r\n"
                               "optim: { lr = 0.5; beta1 = 0.1; };\n");
    write_file("sub/deep.cfg", "optim: { lr = 0.7; beta2 = 0.2; };\n"
                               "run: { seed = 9; };");
    const char *path =
        write_file("main.cfg", "# @include \"absent\"\n"
                               "/* @include \"absent\" { */\n"
                               "run: { dir = \"@include { \\\" \"; };\n"
                               "  @include \"sub/base.cfg\"\n"
                               "optim: { beta1 = 0.25; };\n"
                               "sampler: { eta = 0.9; };\n");
    dg_config_defaults(&c);
    assert_int_equal(dg_config_load(&c, path), DG_OK);
    assert_true(c.optim.lr == 0.5 && c.optim.beta1 == 0.25);
    assert_true(c.optim.beta2 == 0.2 && c.sampler.eta == 0.9);
    assert_int_equal(c.run.seed, 9);
    assert_string_equal(c.run.dir, "@include { \" ");
}

static void refuse_file(const char *path, int code, const char *part)
{
    Config c;

    dg_config_defaults(&c);
    dg_clear_error();
    expect_error(dg_config_load(&c, path), code, part);
    assert_int_equal(c.run.seed, 42);
}

static void test_load_names_the_place(void **state)
{
    char text[64];
    (void)state;

    refuse_file("/nonexistent.cfg", DG_EIO, "/nonexistent.cfg: cannot be");
    refuse_file(folder, DG_EIO, "cannot be read: Is a directory");
    refuse_file(write_file("a.cfg", "run: { seed = 1; };\n\n@include \"no\"\n"),
                DG_EIO, "/no: cannot be read");
    refuse_file(write_file("b.cfg", "run: { seed = 1; };\n@include no\n"),
                DG_EFORMAT, "b.cfg:2: @include needs");
    write_file("bad.cfg", "\n\nrun: { sed = 1; };");
    refuse_file(write_file("c.cfg", "@include \"bad.cfg\"\n"), DG_EINVAL,
                "bad.cfg:3: unknown key 'run.sed'");
    refuse_file(write_file("d.cfg", "sampler: {\n@include \"bad.cfg\"\n};"),
                DG_EFORMAT, "d.cfg:2: @include must stand outside");
    refuse_file(write_file("e.cfg", "run: { seed = 1; };\n"
                                    "@include \"e.cfg\"\n"),
                DG_EFORMAT, "nested deeper than 8");
    refuse_file(write_file("f.cfg", "run: { seed = 1; };\nx = {{;\n"),
                DG_EFORMAT, "f.cfg:2");
    snprintf(text, sizeof text, "%s/zero.cfg", folder);
    FILE *f = fopen(text, "w");
    fwrite("run: {\0};", 1, 9, f);
    fclose(f);
    refuse_file(text, DG_EFORMAT, "zero bytes");
    refuse_file("/dev/zero", DG_EFORMAT, "more than 16777216 bytes");
    char *wide = malloc(1200);
    snprintf(wide, 1200, "@include \"%01100d\"\n", 0);
    refuse_file(write_file("g.cfg", wide), DG_EFORMAT, "more than 1023 bytes");
    free(wide);
}

static void test_check_sees_what_keys_say_together(void **state)
{
    static const struct {
        const char *set[3], *part;
    } rows[] = {
        { { "flux.axes_dims=[8, 8, 8]" }, "their sum is 24" },
        { { "flux.axes_dims=[7, 13, 12]" }, "7: must be even" },
        { { "t5.d_model=64" }, "must be t5.d_model = 64" },
        { { "clip.hidden=64" }, "must be clip.hidden = 64" },
        { { "clip.heads=3" }, "multiple of clip.heads = 3" },
        { { "policy.kind=sd" }, "unet.block_out_channels are empty" },
        { { "policy.kind=sd", "unet.block_out_channels=[8]", "clip.hidden=64" },
          "unet.cross_attention_dim = 128: must be clip.hidden = 64" },
        { { "policy.kind=sd", "unet.block_out_channels=[8]", "clip.heads=3" },
          "multiple of clip.heads = 3" },
        { { "sampler.sde=cps", "sampler.eta=1.5" }, "must be in [0, 1]" },
        { { "sampler.window_size=4", "sampler.window_start=15" },
          "window_start = 15: must be less than sampler.steps - 1 = 15" },
        { { "sampler.window_size=16" }, "sampler.steps - 1 = 15" },
        { { "sampler.window_solver=dpmpp_2m" }, "needs sampler.window_size" },
        { { "sampler.window_solver=dpmpp_2m", "sampler.window_size=2",
            "policy.prediction=epsilon" },
          "window_solver = dpmpp_2m: must be ode with policy.prediction" },
        { { "grpo.best_of_n=true", "grpo.keep_top=9" }, "= 13: must be in" },
        { { "grpo.updates_per_iteration=97" }, "the 96 trained samples" },
        { { "grpo.timestep_mode=window" }, "needs sampler.window_size" },
        { { "rewards=({weight=1.0;})" }, "element 1 has no name" },
        { { "rewards=({name=\"a\";},{name=\"a\";})" }, "'a' is listed twice" },
        { { "run.dir=" }, "run.dir is empty" },
        { { "policy.prediction=epsilon", "sampler.steps=1000" },
          "sampler.steps = 1000: must be at most 999" },
        { { "policy.prediction=epsilon", "evaluate.steps=1000" },
          "evaluate.steps = 1000: must be at most 999" },
        { { "cfg.scale=0", "cfg.grad=detach_uncond" }, "cfg.scale = 0" },
        { { "prompts.world=none" }, "prompts.file is empty" },
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Config c;

        dg_config_defaults(&c);
        for (int j = 0; j < 3 && rows[i].set[j] != NULL; j++)
            assert_int_equal(dg_config_set(&c, rows[i].set[j]), DG_OK);
        dg_clear_error();
        expect_error(dg_config_check(&c), DG_EINVAL, rows[i].part);
    }
}

/* The texts of lora.targets with / between them. */
static const char *targets_of(const Config *c)
{
    static char text[DG_CONFIG_TEXTS * DG_CONFIG_TEXT];
    size_t used = 0;

    text[0] = '\0';
    for (int i = 0; i < DG_CONFIG_TEXTS && c->lora.targets.text[i][0]; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s",
                                 i ? "/" : "", c->lora.targets.text[i]);
    return text;
}

static void test_texts_come_in_every_form(void **state)
{
    static const char *const same[] = {
        "lora: { targets = [\"to_q\", \"*.ff.net.2\"]; };",
        "lora: { targets = (\"to_q\", \"*.ff.net.2\"); };",
        "lora: { targets = \"to_q, *.ff.net.2\"; };", /* of older files */
    };
    char line[160], many[160] = "lora.targets=";
    Config c;
    (void)state;

    snprintf(line, sizeof line, "lora: { targets = \"%096d\"; };", 0);
    dg_config_defaults(&c);
    assert_string_equal(targets_of(&c), "to_q/to_k/to_v/to_out.0");
    for (int i = 0; i < 3; i++) {
        dg_config_defaults(&c);
        assert_int_equal(dg_config_parse(&c, same[i], "x.cfg"), DG_OK);
        assert_string_equal(targets_of(&c), "to_q/*.ff.net.2");
    }
    assert_int_equal(dg_config_set(&c, "lora.targets=to_v,to_out.0"), DG_OK);
    assert_string_equal(targets_of(&c), "to_v/to_out.0");
    assert_int_equal(dg_config_set(&c, "lora.targets=[\"a\"]"), DG_OK);
    assert_string_equal(targets_of(&c), "a");
    refuse("lora: { targets = []; };", DG_EINVAL, "list of 1 to 32 texts");
    refuse("lora: { targets = \" , \"; };", DG_EINVAL, "list of 1 to 32");
    refuse("lora: { targets = [\"a\", \"\"]; };", DG_EINVAL, "list of 1");
    refuse(line, DG_EINVAL, "at most 95 bytes");
    line[18 + 96] = '\0'; /* one byte less */
    strcat(line, "\"; };");
    assert_int_equal(dg_config_parse(&c, line, "x.cfg"), DG_OK);
    assert_int_equal(strlen(c.lora.targets.text[0]), 95);
    for (int i = 0; i < DG_CONFIG_TEXTS; i++)
        strcat(many, "a ");
    assert_int_equal(dg_config_set(&c, many), DG_OK);
    strcat(many, "a");
    expect_error(dg_config_set(&c, many), DG_EINVAL, "list of 1 to 32 texts");
    refuse("lora: { targets = [1, 2]; };", DG_EINVAL, "at most 95 bytes");
    refuse("lora: { targets = 3; };", DG_EINVAL, "x.cfg:1: lora.targets = 3");
}

static void test_settle_decides_what_is_decoded(void **state)
{
    Config c;
    (void)state;

    dg_config_defaults(&c);
    dg_config_settle(&c);
    assert_int_equal(c.sampler.decode, DG_DECODE_X0);
    dg_config_defaults(&c);
    assert_int_equal(dg_config_set(&c, "policy.prediction=epsilon"), DG_OK);
    dg_config_settle(&c);
    assert_int_equal(c.sampler.decode, DG_DECODE_ZT);
    assert_int_equal(dg_config_set(&c, "sampler.decode=x0"), DG_OK);
    dg_config_settle(&c);
    assert_int_equal(c.sampler.decode, DG_DECODE_X0);
}

static void test_check_train_wants_rewards_and_noise(void **state)
{
    Config c;
    (void)state;

    dg_config_defaults(&c);
    expect_error(dg_config_check_train(&c), DG_EINVAL, "rewards is empty");
    dg_config_set(&c, "rewards=({name=\"shapes\";})");
    assert_int_equal(dg_config_check_train(&c), DG_OK);
    c.sampler.eta = 0;
    expect_error(dg_config_check_train(&c), DG_EINVAL, "sampler.eta = 0");
    c.sampler.eta = 0.3;
    c.sampler.sde = DG_SDE_ODE;
    expect_error(dg_config_check_train(&c), DG_EINVAL, "sampler.sde = ode");
}

static void test_help_and_markdown_name_every_key(void **state)
{
    int num;
    const Option *rows = dg_option_table(&num);
    char *text[2] = { NULL, NULL };
    (void)state;

    for (int i = 0; i < 2; i++) {
        size_t size;
        FILE *f = open_memstream(&text[i], &size);

        assert_non_null(f);
        (i ? dg_option_markdown : dg_option_help)(f);
        fclose(f);
        for (int j = 0; j < num; j++) {
            assert_non_null(strstr(text[i], rows[j].key));
            assert_non_null(strstr(text[i], rows[j].standard));
        }
    }
    assert_non_null(strstr(text[1], "ode \\| dance"));
    assert_null(strstr(text[0], ": \n"));
    assert_null(strstr(text[1], "\n.\n"));
    free(text[0]);
    free(text[1]);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_the_paper),
        cmocka_unit_test(test_table_is_consistent),
        cmocka_unit_test(test_parse_reads_every_type),
        cmocka_unit_test(test_parse_names_file_line_and_range),
        cmocka_unit_test(test_set_takes_every_type),
        cmocka_unit_test(test_no_number_is_cut),
        cmocka_unit_test(test_text_includes_no_file),
        cmocka_unit_test(test_set_refuses_what_it_cannot_take),
        cmocka_unit_test(test_print_parses_back_to_the_same_bits),
        cmocka_unit_test(test_compare_lists_differing_keys),
        cmocka_unit_test(test_load_lets_the_including_file_win),
        cmocka_unit_test(test_load_names_the_place),
        cmocka_unit_test(test_check_sees_what_keys_say_together),
        cmocka_unit_test(test_texts_come_in_every_form),
        cmocka_unit_test(test_settle_decides_what_is_decoded),
        cmocka_unit_test(test_check_train_wants_rewards_and_noise),
        cmocka_unit_test(test_help_and_markdown_name_every_key),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
