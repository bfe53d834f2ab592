/* How programs that score (rewards[].command) start and end: what is wrong is told
 * in one message, several run at once, and none is left behind. */
#include "command_bed.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static void refuse_start(const char *how, const char *more, const char *text)
{
    Bed b;

    set(&b, how, more);
    assert_int_not_equal(dg_rewards_start(&b.r, &b.config, 1, &tiny_comm, NULL),
                         DG_OK);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("'%s' is not in: %s", text, dg_last_error()->text);
    close_bed(&b);
}

/* --- its start ------------------------------------------------------------- */

static int times;

static int asked_later(void)
{
    return ++times > 3;
}

static void test_a_start_that_fails_is_told(void **state)
{
    Bed b;

    (void)state;
    refuse_start("quit", "", "rewards[0].command = \"");
    refuse_start("quit", "",
                 "before it was ready, the program ended with exit code 7; its "
                 "last words on standard error: scorer: no such weights");
    refuse_start("bad-hello", "",
                 "said \"Loading weights ...\" where {\"protocol\": 1} or");
    refuse_start("no-hello", "start_seconds=0.2;",
                 "said nothing for 0.2 s (rewards.start_seconds)");
    set(&b, "no-hello", "");
    times = 0;
    MUST(dg_rewards_start(&b.r, &b.config, 1, &tiny_comm, asked_later));
    assert_int_equal(times, 4);
    close_bed(&b);
}

/* Programs of several rewards, or several of one, the first of which is never
 * ready. */
static void refuse_rewards(const char *rewards, const char *text)
{
    Reward r[2];
    Config config;
    char set[2400];
    int num;

    dg_config_defaults(&config);
    snprintf(set, sizeof set, "rewards=(%s)", rewards);
    MUST(dg_config_set(&config, set));
    num = (int)config.num_rewards;
    MUST(dg_rewards_init(r, &config));
    MUST(dg_rewards_open(r, &config, num, &tiny_comm));
    assert_int_equal(dg_rewards_start(r, &config, num, &tiny_comm, NULL),
                     DG_EIO);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("'%s' is not in: %s", text, dg_last_error()->text);
    dg_rewards_close(r, num);
}

/* Model files of minutes are not waited for in vain. */
static void test_who_ends_early_is_seen_beside_another(void **state)
{
    static const char waits[] = "name=\"waits\"; start_seconds=20; command=";
    const char *build = getenv("DG_BUILD");
    char scorer[256], folder[256], rewards[2000];

    (void)state;
    tiny_folder(folder);
    snprintf(scorer, sizeof scorer, "%s/tests/tools/scorer",
             build != NULL ? build : "build");
    snprintf(rewards, sizeof rewards,
             "{%s\"%s no-hello\";},{name=\"ends\"; command=\"%s quit\";}",
             waits, scorer, scorer);
    refuse_rewards(rewards, "rewards[1].command = \"");
    refuse_rewards(rewards, "before it was ready, the program ended with exit "
                            "code 7; its last words on standard error: scorer: "
                            "no such weights");
    /* of two of one reward the one that comes later */
    snprintf(rewards, sizeof rewards,
             "{processes=2; %s\"mkdir %s/first && exec %s no-hello; "
             "sleep 0.3; exec %s quit\";}",
             waits, folder, scorer, scorer);
    refuse_rewards(rewards, "before it was ready, the program ended with exit "
                            "code 7");
    tiny_drop(folder);
}

/* Time ends for one that fills its standard error without end. */
static void test_a_flood_is_not_listened_to_for_ever(void **state)
{
    (void)state;
    dg_log_setup(0, DG_LOG_WARN);
    MUST(dg_log_open("/dev/null")); /* a line takes time, as in a run */
    refuse_start("flood", "start_seconds=0.5;",
                 "said nothing for 0.5 s (rewards.start_seconds); its last "
                 "words on standard error: xxx");
    MUST(dg_log_close());
    dg_log_setup(0, DG_LOG_INFO);
}

/* What it says it is goes into files and logs. */
static void test_a_version_is_a_line_of_utf8(void **state)
{
    Bed b;

    (void)state;
    open_bed(&b, "version=b\\\\u00f6se\\\\n\\\\u001b \xff", "");
    assert_string_equal(dg_reward_version(&b.r), "b\xc3\xb6se ? ?");
    close_bed(&b);
}

/* As some launchers leave it: the system keeps nothing of who has ended. */
static void test_ends_are_not_made_up(void **state)
{
    Bed b;
    int err;

    (void)state;
    set(&b, "quit", "");
    signal(SIGCHLD, SIG_IGN);
    err = dg_rewards_start(&b.r, &b.config, 1, &tiny_comm, NULL);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(err, DG_EIO);
    assert_non_null(strstr(dg_last_error()->text,
                           "before it was ready, the program ended, how is not "
                           "known: SIGCHLD is ignored, or others have waited "
                           "for it; its last words on standard error: scorer: "
                           "no such weights"));
    close_bed(&b);
}

static void test_what_is_not_there_is_told_before_it_starts(void **state)
{
    static const struct {
        const char *command, *word; /* NULL: it may be there */
    } of[] = {
        { "no_such_program --device 0", "there is no program no_such_program" },
        { "./no_such.py", "there is no program ./no_such.py that" },
        { "A=1 B= exec no_such_program",
          "there is no program no_such_program" },
        { "no_such_program; true", "there is no program no_such_program" },
        { "tests/lib.sh", "\": tests/lib.sh may not be executed: chmod +x it, "
                          "or name before " },
        { "tests", "there is no program tests" },
        { "  ", "must name a program" },
        { "sh -c true", NULL },
        { "A='x y' no_such_program", NULL },
        { "cd tests && ./x", NULL },
        { "'no such'", NULL },
        { "exec -a x no_such", NULL },
        { "$HOME/x", NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        char set[200];
        Config c;
        Reward r;
        int err;

        dg_config_defaults(&c);
        snprintf(set, sizeof set, "rewards=({name=\"mine\"; command=\"%s\";})",
                 of[i].command);
        MUST(dg_config_set(&c, set));
        MUST(dg_config_check_names(&c));
        MUST(dg_rewards_init(&r, &c));
        err = dg_rewards_open(&r, &c, 1, &tiny_comm);
        if ((err != DG_OK) != (of[i].word != NULL))
            fail_msg("%s: code %d", of[i].command, err);
        if (err) {
            assert_int_equal(err, DG_EINVAL);
            assert_non_null(
                strstr(dg_last_error()->text, "rewards[0].command = \""));
            assert_non_null(strstr(dg_last_error()->text, of[i].word));
        }
        dg_rewards_close(&r, 1);
    }
}

static void test_names_of_ones_own(void **state)
{
    static const struct {
        const char *reward, *text; /* NULL: it is all right */
    } of[] = {
        { "name=\"geneval-2_a\";", NULL },
        { "name=\"brightness\";", "must be a name of your own" },
        { "name=\"hpsv2\"; path=\"x\";", "must be a name of your own" },
        { "name=\"a b\";", "must be of letters, digits, _ and -" },
        { "name=\"a.b\";", "must be of letters, digits, _ and -" },
        { "name=\"a\"; path=\"x\";", "rewards[0].path = \"x\": must be empty" },
        { "name=\"a\"; tokenizer=\"x\";", "rewards[0].tokenizer = \"x\"" },
        { "name=\"a\"; model=\"x\";", "rewards[0].model = \"x\"" },
        { "name=\"a\"; scale=\"logit\";", "rewards[0].scale: must be cos" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        char set[200];
        Config c;
        Reward r;

        dg_config_defaults(&c);
        snprintf(set, sizeof set, "rewards=({%s command=\"true\";})",
                 of[i].reward);
        MUST(dg_config_set(&c, set));
        assert_int_equal(dg_rewards_init(&r, &c),
                         of[i].text != NULL ? DG_EINVAL : DG_OK);
        if (of[i].text != NULL)
            assert_non_null(strstr(dg_last_error()->text, of[i].text));
    }
}

/* --- several, and what is left of them -------------------------------------- */

static void test_threads_have_a_program_each(void **state)
{
    enum { THREADS = 3, EACH = 8 };
    long pid[THREADS] = { 0 };
    int wrong = 0, num = 0;
    Bed b;

    (void)state;
    open_bed(&b, "slow=0.01", "processes=3;");
#pragma omp parallel for num_threads(THREADS) reduction(+ : wrong)
    for (int i = 0; i < THREADS * EACH; i++) {
        float rgb[VALUES];
        uint8_t scratch[VALUES];
        const RewardInput in = { .rgb = rgb,
                                 .height = SIDE,
                                 .width = SIDE,
                                 .prompt = &plain,
                                 .scratch = scratch };
        RewardScore s;

        draw(rgb, (uint64_t)i);
        wrong += dg_reward_score(&b.r, &in, &s) != DG_OK;
        wrong += s.missing || s.value != mean_byte(rgb, DG_QUANTIZE_RINT);
    }
    assert_int_equal(wrong, 0);
    for (int i = 0; i < THREADS * EACH; i++) {
        int k = 0;

        while (k < num && pid[k] != pid_of(&b, i))
            k++;
        assert_in_range(k, 0, THREADS - 1);
        pid[k] = pid_of(&b, i);
        num += k == num;
    }
    assert_int_equal(num, THREADS);
    close_bed(&b);
    for (int k = 0; k < THREADS; k++)
        assert_true(kill((pid_t)pid[k], 0) != 0 && errno == ESRCH);
}

/* No file, socket or pipe of ours, nor a signal that is this process's. */
static void test_nothing_of_ours_is_in_it(void **state)
{
    char path[64], line[256];
    unsigned long long blocked = 1, ignored = 0;
    int ours[2], num = 0;
    struct dirent *e;
    DIR *d;
    FILE *f;
    Bed b;

    (void)state;
    sigset_t all, before;

    /* to be inherited by all but careful ones */
    assert_int_equal(pipe(ours), 0);
    sigfillset(&all);
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* as threads beside have it */
    open_bed(&b, "plain", "processes=2;");
    score(&b);
    snprintf(path, sizeof path, "/proc/%ld/fd", pid_of(&b, 0));
    d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        num += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(num, 3);
    snprintf(path, sizeof path, "/proc/%ld/status", pid_of(&b, 0));
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        sscanf(line, "SigBlk: %llx", &blocked);
        sscanf(line, "SigIgn: %llx", &ignored);
    }
    fclose(f);
    assert_true(blocked == 0);
    for (int i = 1; i < 32; i++)
        assert_true((ignored >> (i - 1) & 1) ==
                    (i == SIGINT || i == SIGUSR1 || i == SIGUSR2));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    signal(SIGPIPE, SIG_DFL);
    close(ours[0]);
    close(ours[1]);
    close_bed(&b);
}

/* Processes of a group. */
static int group_size(pid_t group)
{
    DIR *d = opendir("/proc");
    struct dirent *e;
    int num = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        const pid_t pid = (pid_t)atol(e->d_name);
        char path[300], line[600] = "", state = ' ';
        const char *at;
        int of = 0;
        FILE *f;

        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        f = pid > 0 ? fopen(path, "r") : NULL;
        if (f == NULL)
            continue;
        if (fgets(line, sizeof line, f) != NULL &&
            (at = strrchr(line, ')')) != NULL &&
            sscanf(at + 1, " %c %*d %d", &state, &of) == 2)
            num += of == (int)group && state != 'Z';
        fclose(f);
    }
    closedir(d);
    return num;
}

static void wait_for_nobody(pid_t group, double seconds)
{
    for (int i = 0; i < 20 * seconds && group_size(group) > 0; i++)
        nanosleep(&(struct timespec) { 0, 50000000 }, NULL);
    assert_int_equal(group_size(group), 0);
}

static pid_t group_of(const Bed *b)
{
    const pid_t group = getpgid((pid_t)pid_of(b, 0));

    assert_true(group > 1 && group != getpgrp());
    assert_in_range(group_size(group), 2, 3); /* with its guard */
    return group;
}

static void test_it_ends_with_the_run(void **state)
{
    pid_t group;
    Bed b;

    (void)state;
    open_bed(&b, "plain", "");
    score(&b);
    group = group_of(&b);
    close_bed(&b);
    wait_for_nobody(group, 2);
    open_bed(&b, "stays", ""); /* and where it does not, it is ended */
    score(&b);
    group = group_of(&b);
    close_bed(&b);
    wait_for_nobody(group, 2);
}

/* SIGKILL of who uses it, while it hangs and hears of nothing. */
static void test_it_ends_with_a_process_that_is_killed(void **state)
{
    pid_t child, group;
    Bed b;

    (void)state;
    for (int hangs = 0; hangs < 2; hangs++) {
        set(&b, "hang,at=bad", "");
        child = fork();
        if (child == 0) {
            RewardScore s;

            if (dg_rewards_start(&b.r, &b.config, 1, &tiny_comm, NULL) == DG_OK)
                ask(&b, &plain, &s);
            if (hangs)
                ask(&b, &bad, &s);
            pause();
            _exit(1);
        }
        for (int i = 0; i < 200 && pid_of(&b, hangs) == 0; i++)
            nanosleep(&(struct timespec) { 0, 50000000 }, NULL);
        group = group_of(&b);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        wait_for_nobody(group, hangs ? 10 : 6);
        close_bed(&b);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_start_that_fails_is_told),
        cmocka_unit_test(test_who_ends_early_is_seen_beside_another),
        cmocka_unit_test(test_a_flood_is_not_listened_to_for_ever),
        cmocka_unit_test(test_a_version_is_a_line_of_utf8),
        cmocka_unit_test(test_ends_are_not_made_up),
        cmocka_unit_test(test_what_is_not_there_is_told_before_it_starts),
        cmocka_unit_test(test_names_of_ones_own),
        cmocka_unit_test(test_threads_have_a_program_each),
        cmocka_unit_test(test_nothing_of_ours_is_in_it),
        cmocka_unit_test(test_it_ends_with_the_run),
        cmocka_unit_test(test_it_ends_with_a_process_that_is_killed),
    };
    int failed;

    if (bed_main(argc, argv))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    dg_comm_fini(&tiny_comm);
    return failed;
}
