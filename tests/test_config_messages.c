#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "config/config.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>

/* What is told of a key or a text that is none; the configuration stays. */
static void expect(int err, int code, const char *part, const Config *c)
{
    Config before;

    dg_config_defaults(&before);
    assert_int_equal(err, code);
    if (strstr(dg_last_error()->text, part) == NULL)
        fail_msg("'%s' is not in: %s", part, dg_last_error()->text);
    assert_memory_equal(c, &before, sizeof before);
}

static void refuse(const char *text, int code, const char *part)
{
    Config c;

    dg_config_defaults(&c);
    dg_clear_error();
    const int err = dg_config_parse(&c, text, "x.cfg");
    expect(err, code, part, &c);
}

static void refuse_set(const char *assignment, int code, const char *part)
{
    Config c;

    dg_config_defaults(&c);
    dg_clear_error();
    const int err = dg_config_set(&c, assignment);
    expect(err, code, part, &c);
}

static void test_parse_reports_syntax(void **state)
{
    (void)state;
    refuse("run: {\n  seed = ;\n};", DG_EFORMAT, "x.cfg:2: syntax error");
    refuse("run: {\n  seed = 1;\n  seed = 2;\n};", DG_EFORMAT, "x.cfg:3");
    refuse("run: { seed = 1;", DG_EFORMAT, "x.cfg:1");
    refuse("run: { seed = 1;\n", DG_EFORMAT,
           "x.cfg:2: syntax error at the end");
    refuse("run: { seed = 1; };\n  log.level = \"info\";\n", DG_EFORMAT,
           "x.cfg:2: syntax error at \"log.level = \"info\";\"; in a file keys "
           "stand in groups: log: { level = ...; };");
    refuse("run: { seed = 1; };\nno.key = 1;", DG_EFORMAT,
           "x.cfg:2: syntax error at \"no.key = 1;\"; a group is name: {");
}

static void test_unknown_key_is_met_with_a_proposal(void **state)
{
    (void)state;
    refuse("grpo: { num_generation = 8; };", DG_EINVAL,
           "x.cfg:1: unknown key 'grpo.num_generation', did you mean "
           "'grpo.num_generations'?");
    refuse("smapler: { eta = 1; };", DG_EINVAL, "mean 'sampler.eta'");
    refuse("grpo: { eta = 1; };", DG_EINVAL, "mean 'sampler.eta'");
    refuse("reward = ();", DG_EINVAL, "mean 'rewards'");
    refuse("rewards = ({ nme = \"shapes\"; });", DG_EINVAL,
           "rewards: unknown key 'nme': must be one of name, weight, "
           "threshold, target, path,");
    refuse("zzzzzzzzzzzz = 1;", DG_EINVAL, "unknown key 'zzzzzzzzzzzz'");
    refuse("zzzz: { };", DG_EINVAL, "unknown key 'zzzz'");
    refuse("run: { deep: { seed = 1; }; };", DG_EINVAL, "run.deep");
    refuse("run = 3;", DG_EINVAL, "'run' is a group");
    refuse_set("grpo.clip=1", DG_EINVAL, "did you mean 'grpo.clip_range'?");
    refuse_set("grpo.clip_range_low=1.1", DG_EINVAL,
               "grpo.clip_range_low = 1.1: must be a number in [0, 1]");
    refuse_set("optim.l=1", DG_EINVAL, "did you mean 'optim.lr'?");
    refuse_set(
        "checkpoint.everything=1", DG_EINVAL,
        "unknown key 'checkpoint.everything'; checkpoint has every, keep");
    refuse_set("learning_rate=1", DG_EINVAL,
               "unknown key 'learning_rate'; groups of keys are run, policy, "
               "lora, flux,");
    refuse_set("rewards[0].weight=2", DG_EINVAL,
               "'rewards[0].weight': rewards are set as a whole");
    refuse_set("rewards.weight=2", DG_EINVAL, "rewards are set as a whole");
}

/* A folder named ~ is what nobody wants. */
static void test_a_shell_s_names_are_refused(void **state)
{
    static const char *const bad[] = { "~/x", "~", "$HOME/x",
                                       "/scratch/$USER/x", "/a/${B}" };
    static const char *const good[] = { "runs/~", "a~/b", "cost$", "/a$/b",
                                        "$1" };
    Config c;
    char set[96];

    (void)state;
    dg_config_defaults(&c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(set, sizeof set, "run.dir=%s", good[i]);
        assert_int_equal(dg_config_set(&c, set), DG_OK);
        assert_int_equal(dg_config_check_names(&c), DG_OK);
        snprintf(set, sizeof set, "run.dir=%s", bad[i]);
        assert_int_equal(dg_config_set(&c, set), DG_OK);
        assert_int_equal(dg_config_check_names(&c), DG_EINVAL);
        snprintf(set, sizeof set, "run.dir = \"%s\": ~ and $NAME", bad[i]);
        assert_non_null(strstr(dg_last_error()->text, set));
    }
    dg_config_defaults(&c);
    assert_int_equal(dg_config_set(&c, "rewards=({name=\"shapes\";}, "
                                       "{name=\"hpsv2\"; path=\"~/h.pt\";})"),
                     DG_OK);
    assert_int_equal(dg_config_check_names(&c), DG_EINVAL);
    assert_non_null(
        strstr(dg_last_error()->text, "rewards[1].path = \"~/h.pt\""));
    assert_int_equal(dg_config_set(&c, "rewards=({name=\"mine\"; "
                                       "command=\"~/x $HOME\";})"),
                     DG_OK); /* which a shell reads */
    assert_int_equal(dg_config_check_names(&c), DG_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_reports_syntax),
        cmocka_unit_test(test_unknown_key_is_met_with_a_proposal),
        cmocka_unit_test(test_a_shell_s_names_are_refused),
    };

    return cmocka_run_group_tests_name("config messages", tests, NULL, NULL);
}
