/* Rewards that are programs of the user's (rewards[].command): their scores are
 * those of a plain computation, and whatever goes wrong with one is told.
 * tests/check_command.sh has whole runs. */
#include "command_bed.h"

#include <sys/resource.h>

/* --- scores ---------------------------------------------------------------- */

static void test_scores_are_those_of_a_plain_computation(void **state)
{
    Bed b;

    (void)state;
    for (int how = 0; how < 2; how++) {
        open_bed(&b, "plain", how == 0 ? "" : "quantize=\"trunc\";");
        for (uint64_t i = 0; i < 20; i++) {
            RewardScore s;

            draw(b.rgb, i);
            s = score(&b);
            assert_true(!s.missing && isnan(s.strict));
            assert_true(s.value == mean_byte(b.rgb, (Quantize)how));
        }
        assert_true(mean_byte(b.rgb, DG_QUANTIZE_RINT) !=
                    mean_byte(b.rgb, DG_QUANTIZE_TRUNC));
        close_bed(&b);
    }
    open_bed(&b, "strict", "threshold=0.9;");
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < VALUES; k++)
            b.rgb[k] = i == 0 ? 0.25f : 0.75f;
        const RewardScore s = score(&b);

        assert_true(!s.missing && s.strict == (float)i && s.value == 0);
    }
    close_bed(&b);
}

static void test_it_is_told_prompt_metadata_and_place(void **state)
{
    const Prompt meta = { .text = "two cats",
                          .json = "{\"prompt\": \"two cats\", \"n\": [1]}" };
    char line[2048];
    RewardScore s;
    Bed b;

    (void)state;
    setenv("DANCEGRPO_RANKS", "77", 1); /* another one's around this */
    open_bed(&b, "plain", "");
    score(&b);
    MUST(ask(&b, &meta, &s));
    logged(&b, 0, line);
    assert_non_null(strstr(line, "mine 0/1 0/1 cpu pid "));
    assert_non_null(strstr(line, ": {\"id\": 1, \"prompt\": \"a \\\"red\\\" "
                                 "c\xc3\xb6w\\u0009\\u0001\", \"height\": 24, "
                                 "\"width\": 24, \"quantize\": \"rint\"}\n"));
    logged(&b, 1, line);
    assert_non_null(
        strstr(line, ": {\"id\": 2, \"prompt\": \"two cats\", \"metadata\": "
                     "{\"prompt\": \"two cats\", \"n\": [1]}, \"height\": "));
    close_bed(&b);
}

/* A prompt's line may be longer than all before. */
static void test_long_prompts(void **state)
{
    static char text[30000], line[200000];
    const Prompt prompt = { .text = text };
    const PromptList list = { .item = (Prompt *)&prompt, .num = 1 };
    RewardScore s;
    Bed b;

    (void)state;
    memset(text, '\\', sizeof text - 1);
    for (int i = 0; i < 2; i++) {
        FILE *f;

        open_bed(&b, "plain", "");
        if (i == 1)
            MUST(dg_rewards_read(&b.r, 1, &list));
        MUST(ask(&b, &prompt, &s));
        assert_true(s.value == mean_byte(b.rgb, DG_QUANTIZE_RINT));
        f = fopen(b.log, "r");
        assert_non_null(f);
        assert_non_null(fgets(line, sizeof line, f));
        assert_true(strlen(line) > 2 * sizeof text);
        fclose(f);
        close_bed(&b);
    }
}

static void test_a_plan_asks_nobody(void **state)
{
    Context ctx;
    RewardPlan plan;
    Backend counts;
    Bed b;

    (void)state;
    set(&b, "plain", "");
    dg_backend_plan(&counts, dg_backend_cpu());
    MUST(dg_context_init(&ctx, &counts, 0));
    MUST(dg_rewards_plan(&plan, &b.r, 1, &ctx, 4096, 4096));
    assert_true(plan.bytes == 0 && plan.score_flops == 0);
    dg_context_fini(&ctx);
    assert_int_not_equal(access(b.log, F_OK), 0);
    close_bed(&b);
}

static void test_what_is_not_finite_has_no_score(void **state)
{
    Bed b;

    (void)state;
    open_bed(&b, "plain", "");
    b.rgb[7] = NAN;
    assert_true(score(&b).missing);
    b.rgb[7] = 0;
    assert_true(!score(&b).missing);
    close_bed(&b);
}

/* --- faults ---------------------------------------------------------------- */

/* at the second picture of three; 'ends': another program then goes on */
static void test_faults_make_a_score_missing(void **state)
{
    static const struct {
        const char *how, *text;
        int ends;
    } fault[] = {
        { "missing", "its program says: no ?face at all", 0 },
        { "nan",
          "its program said \"{\"id\": 2, \"score\": NaN}\" where {\"id\": 2, "
          "\"score\": NUMBER} or {\"id\": 2, \"missing\": \"WHY\"} was wanted",
          0 },
        { "text", "said \"{\"id\": 2, \"score\": \"0.5\"}\" where", 0 },
        { "huge", "its score is inf", 0 },
        { "stricter", "\"strict\": 2}\" where \"strict\": 0 or 1 was wanted",
          0 },
        { "exit",
          "ended with exit code 3; its last words on standard error: "
          "ValueError: picture 3",
          1 },
        { "!kill", "was ended by signal 11", 1 },
        { "kill", "ended with exit code 139, by signal 11", 1 },
        { "hang", "said nothing for 1 s (rewards.timeout_seconds)", 1 },
        { "!shut", "closed its standard output", 1 },
        { "child", "ended with exit code 4", 1 },
        { "nonsense",
          "said \"?[1mepoch 3: 0.7 of \"all\"?[0m, and a lot of other things "
          "that are said in so man...\" where {\"id\": 3,",
          1 },
        { "other", "said \"{\"id\": 4, \"score\": 0.5}\" where {\"id\": 3,",
          1 },
        { "zero", "said \"{\"id\": 3, \"score\": 1}? nan\" where", 1 },
        { "long", "said a line of more than 8192 bytes", 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof fault / sizeof *fault; i++) {
        char how[64], note[640];
        RewardScore s[3];
        Bed b;

        snprintf(how, sizeof how, "%s,at=bad", fault[i].how);
        open_bed(&b, how,
                 strcmp(fault[i].how, "hang") == 0 ? "timeout_seconds=1;" : "");
        s[0] = score(&b);
        MUST(ask(&b, &bad, &s[1]));
        if (!s[1].missing)
            fail_msg("%s: there is a score", fault[i].how);
        if (strstr(dg_last_error()->text, fault[i].text) == NULL)
            fail_msg("%s: '%s' is not in: %s", fault[i].how, fault[i].text,
                     dg_last_error()->text);
        assert_true(isnan(s[1].value) && isnan(s[1].strict));
        s[2] = score(&b);
        assert_true(!s[0].missing && !s[2].missing);
        assert_true(s[2].value == s[0].value);
        assert_int_equal(b.r.kind->net->take_note(b.r.net, note, sizeof note),
                         fault[i].ends * 2);
        close_bed(&b);
    }
}

/* Whatever ended a program once is not to be seen in the scores. */
static void test_a_picture_is_shown_again(void **state)
{
    char note[640];
    Bed b;

    (void)state;
    open_bed(&b, "die=3,once=%s", "");
    for (uint64_t i = 0; i < 5; i++) {
        draw(b.rgb, i);
        const RewardScore s = score(&b);

        assert_true(!s.missing);
        assert_true(s.value == mean_byte(b.rgb, DG_QUANTIZE_RINT));
    }
    assert_true(pid_of(&b, 0) == pid_of(&b, 1));
    assert_true(pid_of(&b, 1) != pid_of(&b, 2));
    assert_int_equal(b.r.kind->net->take_note(b.r.net, note, sizeof note), 1);
    assert_string_equal(note,
                        "reward mine: its program was started anew, since "
                        "it ended with exit code 5; its last words on "
                        "standard error: CUDA out of memory");
    assert_int_equal(b.r.kind->net->take_note(b.r.net, note, sizeof note), 0);
    close_bed(&b);
}

/* The first answer has the patience of a start, of one that follows too. */
static void test_the_first_answer_may_take_long(void **state)
{
    char note[640];
    Bed b;

    (void)state;
    open_bed(&b, "lazy=1.5,die=2,once=%s", "timeout_seconds=0.5;");
    for (int i = 0; i < 2; i++)
        assert_true(!score(&b).missing);
    assert_true(pid_of(&b, 0) != pid_of(&b, 1));
    assert_int_equal(b.r.kind->net->take_note(b.r.net, note, sizeof note), 1);
    close_bed(&b);
}

static void test_one_that_always_fails_ends_the_run(void **state)
{
    RewardScore s;
    Bed b;

    (void)state;
    open_bed(&b, "exit,at=bad", "");
    for (int i = 0; i < 2; i++) { /* an answer between, and all is well */
        MUST(ask(&b, &bad, &s));
        assert_true(s.missing);
        assert_true(!score(&b).missing);
    }
    MUST(ask(&b, &bad, &s));
    assert_int_equal(ask(&b, &bad, &s), DG_EREWARD);
    assert_true(s.missing);
    assert_non_null(strstr(dg_last_error()->text,
                           "rewards[0].command: the program of mine failed 4 "
                           "times in a row; the last time it ended with exit "
                           "code 3; its last words on standard error: "
                           "ValueError: picture "));
    assert_int_equal(ask(&b, &plain, &s), DG_EREWARD); /* nor ever again */
    assert_true(s.missing);
    assert_non_null(strstr(dg_last_error()->text, "4 times in a row"));
    close_bed(&b);
}

/* One that the system does not start again says why. */
static void test_why_it_cannot_be_started_again(void **state)
{
    struct rlimit before, none;
    RewardScore s;
    int err;
    Bed b;

    (void)state;
    open_bed(&b, "exit,at=bad", "");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    err = ask(&b, &bad, &s);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(err == DG_OK && s.missing);
    assert_non_null(strstr(dg_last_error()->text,
                           "its program could not be started again: mine: no "
                           "program can be started: Too many open files"));
    assert_true(!score(&b).missing);
    close_bed(&b);
}

/* Answers that nobody asked for are not taken for the next picture's. */
static void test_two_answers_to_one_picture(void **state)
{
    RewardScore s;
    Bed b;

    (void)state;
    open_bed(&b, "twice,at=bad", "");
    MUST(ask(&b, &bad, &s));
    assert_true(!s.missing);
    draw(b.rgb, 5);
    s = score(&b);
    assert_true(!s.missing && s.value == mean_byte(b.rgb, DG_QUANTIZE_RINT));
    /* the first may have seen the second picture before it was ended */
    assert_true(pid_of(&b, 0) != pid_of(&b, pid_of(&b, 2) != 0 ? 2 : 1));
    close_bed(&b);
}

/* More on its standard error than a pipe holds, before and after. */
static void test_much_on_standard_error(void **state)
{
    RewardScore s;
    Bed b;

    (void)state;
    open_bed(&b, "noise,at=bad", "");
    for (int i = 0; i < 3; i++) {
        MUST(ask(&b, &bad, &s));
        assert_true(!s.missing);
    }
    assert_true(pid_of(&b, 0) == pid_of(&b, 2));
    close_bed(&b);
}

/* A pipe that nobody reads is no signal, and time ends. */
static void test_one_that_does_not_read(void **state)
{
    static float rgb[3 * 256 * 256];
    static uint8_t scratch[3 * 256 * 256];
    const RewardInput in = { .rgb = rgb,
                             .height = 256,
                             .width = 256,
                             .prompt = &plain,
                             .scratch = scratch };
    RewardScore s;
    Bed b;

    (void)state;
    open_bed(&b, "deaf", "timeout_seconds=1; start_seconds=1;");
    MUST(dg_reward_score(&b.r, &in, &s));
    assert_true(!s.missing && s.value == 0.5f);
    MUST(dg_reward_score(&b.r, &in, &s)); /* by a new one, as the first */
    assert_true(!s.missing && s.value == 0.5f);
    close_bed(&b);
    open_bed(&b, "die=1,once=%s", "");
    MUST(dg_reward_score(&b.r, &in, &s)); /* it ends while this is sent */
    assert_true(!s.missing && s.value == 0);
    close_bed(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_are_those_of_a_plain_computation),
        cmocka_unit_test(test_it_is_told_prompt_metadata_and_place),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_a_plan_asks_nobody),
        cmocka_unit_test(test_what_is_not_finite_has_no_score),
        cmocka_unit_test(test_faults_make_a_score_missing),
        cmocka_unit_test(test_a_picture_is_shown_again),
        cmocka_unit_test(test_the_first_answer_may_take_long),
        cmocka_unit_test(test_one_that_always_fails_ends_the_run),
        cmocka_unit_test(test_why_it_cannot_be_started_again),
        cmocka_unit_test(test_two_answers_to_one_picture),
        cmocka_unit_test(test_much_on_standard_error),
        cmocka_unit_test(test_one_that_does_not_read),
    };
    int failed;

    if (bed_main(argc, argv))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    dg_comm_fini(&tiny_comm);
    return failed;
}
