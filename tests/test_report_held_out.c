/* What the report makes of evaluations on held-out prompts during training. */
#include "report_bed.h"

#include "../src/report/health.h"

#include <math.h>

enum { LOOKS = 3 };

/* Scores after iterations 0, 20 and 40. */
static const double rising[LOOKS] = { 0.4, 0.5, 0.6 };
static const double peaking[LOOKS] = { 0.4, 0.7, 0.55 };
static const double falling[LOOKS] = { 0.4, 0.35, 0.2 };
static const double level[LOOKS] = { 0.4, 0.41, 0.4 };
static const double drifting[LOOKS] = { 0.4, 0.4, 0.401 };

static size_t put_look(char *to, int i, const double *reward,
                       const double *strict)
{
    char gold[120] = "";

    if (strict != NULL)
        sprintf(gold,
                "\"strict_mean\":%g,\"strict_low\":%g,\"strict_high\":%g,",
                strict[i], strict[i] - 0.05, strict[i] + 0.05);
    return (size_t)sprintf(
        to,
        "{\"iteration\":%d,\"held_out\":{\"prompts\":70,\"pictures\":210,"
        "\"reward_mean\":%g,\"reward_low\":%g,\"reward_high\":%g,"
        "\"rewards\":{\"dull\":{\"mean\":0.1,\"low\":0,\"high\":0.2,"
        "\"missing\":2},\"shapes\":{\"mean\":0.5,\"low\":0.4,\"high\":0.6,"
        "%s\"missing\":1}}},\"seconds\":{\"evaluate\":30}}\n",
        20 * i, reward[i], reward[i] - 0.03, reward[i] + 0.03, gold);
}

/* A run whose reward changes by so much over 40 iterations, with looks from the
 * first-th on. */
static void put_run(double change, int first, const double *reward,
                    const double *strict)
{
    static char text[20000];
    size_t at = 0;

    for (int i = 0; i <= 40; i++) {
        if (i > 0)
            at += (size_t)sprintf(
                text + at,
                "{\"iteration\":%d,\"reward_mean\":%.9g,\"reward_std\":0.1,"
                "\"strict_mean\":0.4,\"ratio_max_deviation\":0,"
                "\"grad_norm\":1,\"samples\":32,"
                "\"seconds\":{\"total\":1.52}}\n",
                i, 0.5 + change * i / 40 + 0.01 * sin(7 * i));
        if (i % 20 == 0 && i / 20 >= first)
            at += put_look(text + at, i / 20, reward, strict);
    }
    assert_int_equal(dg_file_write(in_dir("metrics.jsonl"), text, at), DG_OK);
}

static const char hacked[] = "Is the reward hacked?";
static const char better[] = "Is it better on held-out prompts?";

/* The answer's level and text; -1, "": the question is not asked. */
static int answer(char text[DG_FINDING_BYTES], const char *question)
{
    int found = -1;
    Health h;
    Run run;

    text[0] = '\0';
    if (dg_run_read(&run, dir) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_health_find(&h, &run);
    assert_int_equal(h.failed, 0);
    assert_int_equal(run.n, 40);
    assert_int_equal(run.disorder, 0);
    for (int i = 0; i < h.num; i++)
        if (strcmp(h.finding[i].question, question) == 0) {
            found = (int)h.finding[i].level;
            strcpy(text, h.finding[i].answer);
        }
    dg_run_release(&run);
    return found;
}

static void assert_answer(const char *question, int wanted, const char *part)
{
    char text[DG_FINDING_BYTES];

    assert_int_equal(answer(text, question), wanted);
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
}

static void test_what_rises_there_too_is_not_hacked(void **state)
{
    (void)state;
    put_run(0.3, 0, rising, rising);
    assert_answer(hacked, LEVEL_GOOD,
                  "on held-out prompts the reward changed by +0.200 and the "
                  "strict score by +0.200 (iterations 0 to 40).");
    assert_answer(better, LEVEL_GOOD, "the strict score went from 0.400 to ");
}

/* By its own reward alone: that rises as well where pictures become empty. */
static void test_without_a_strict_score_nobody_knows(void **state)
{
    (void)state;
    put_run(0.3, 0, rising, NULL);
    assert_answer(hacked, LEVEL_UNKNOWN,
                  "changed by +0.200 (iterations 0 to 40), as it does when it "
                  "is hacked too. No reward here has a strict score");
    assert_answer(better, LEVEL_GOOD, "the reward went from 0.400 to ");
    put_run(0, 0, rising, NULL);
    assert_answer(hacked, LEVEL_UNKNOWN, "No reward here has a strict score");
    put_run(0.3, 0, falling, NULL);
    assert_answer(hacked, LEVEL_WRONG, "the reward from 0.400 to 0.200");
    put_run(0, 0, level, NULL);
    assert_answer(hacked, LEVEL_GOOD, "; in training it did not rise.");
}

static void test_what_falls_there_is_hacked(void **state)
{
    (void)state;
    put_run(0.3, 0, rising, falling);
    assert_answer(hacked, LEVEL_WRONG,
                  "on held-out prompts the strict score from 0.400 to 0.200 "
                  "(iterations 0 to 40).");
    assert_answer(better, LEVEL_WRONG, "No, worse");
    put_run(0.3, 0, falling, rising);
    assert_answer(hacked, LEVEL_WRONG,
                  "prompts the reward from 0.400 to 0.200");
    /* and from its best on, or not at all */
    put_run(0.3, 0, peaking, rising);
    assert_answer(hacked, LEVEL_LOOK,
                  "; it was best after iteration 20, 0.700.");
    put_run(0.3, 0, rising, peaking);
    assert_answer(hacked, LEVEL_LOOK, "the strict score from 0.400 to 0.550");
    put_run(0.3, 0, level, rising);
    assert_answer(hacked, LEVEL_LOOK, "the reward from 0.400 to 0.400");
}

/* Where training does not rise either, it is merely not better; but a strict
 * score has to follow the held-out reward all the same. */
static void test_nothing_is_hacked_that_does_not_rise(void **state)
{
    (void)state;
    put_run(0, 0, falling, falling);
    assert_answer(hacked, LEVEL_GOOD, "; in training it did not rise.");
    assert_answer(better, LEVEL_WRONG, "No, worse");
    put_run(0, 0, rising, falling);
    assert_answer(hacked, LEVEL_WRONG, "the strict score from 0.400 to 0.200");
    /* what is within the intervals is no rise */
    put_run(0, 0, drifting, level);
    assert_answer(hacked, LEVEL_GOOD, "; in training it did not rise.");
}

static void test_a_course_has_two_ends(void **state)
{
    (void)state;
    put_run(0.3, 2, rising, rising);
    assert_answer(better, -1, "");
    assert_answer(hacked, LEVEL_LOOK, "of the training pictures");
    put_run(0.3, 1, falling, falling); /* which did not begin at the base */
    assert_answer(better, -1, "");
    assert_answer(hacked, LEVEL_WRONG, "(iterations 20 to 40)");
}

static void put_file(const char *name, double strict)
{
    char text[400];

    snprintf(text, sizeof text,
             "{\"prompts\":9,\"seeds\":1,\"all\":{\"reward\":{\"mean\":0.5},"
             "\"strict\":{\"mean\":%g,\"low\":%g,\"high\":%g}}}",
             strict, strict - 0.01, strict + 0.01);
    assert_int_equal(dg_file_write(in_dir(name), text, strlen(text)), DG_OK);
}

static void test_files_made_by_hand_come_first(void **state)
{
    (void)state;
    put_run(0.3, 0, falling, falling);
    put_file("evaluation_before.json", 0.3);
    put_file("evaluation_after.json", 0.8);
    assert_answer(better, LEVEL_GOOD, "from 0.300 to 0.800");
}

/* A weight below 0 turns the first reward's rise into the sum's fall. */
static void put_sum(const char *name, double first, const char *sum)
{
    char text[400];

    snprintf(text, sizeof text,
             "{\"prompts\":9,\"seeds\":1,\"all\":{\"reward\":{\"mean\":%g,"
             "\"low\":%g,\"high\":%g}},%s\"missing\":0}",
             first, first - 0.01, first + 0.01, sum);
    assert_int_equal(dg_file_write(in_dir(name), text, strlen(text)), DG_OK);
}

static void test_files_are_judged_by_what_was_trained(void **state)
{
    static const char base[] =
        "\"sum\":{\"mean\":-5.0,\"low\":-5.1,\"high\":-4.9},";
    char *page;
    size_t bytes;

    (void)state;
    put_run(0.3, 3, NULL, NULL);
    put_sum("evaluation_before.json", 5, base);
    put_sum("evaluation_after.json", 3,
            "\"sum\":{\"mean\":-3.0,\"low\":-3.1,\"high\":-2.9},");
    assert_answer(better, LEVEL_GOOD, "the reward went from \u22125.00 to");
    assert_int_equal(dg_report_write(dir), DG_OK);
    assert_int_equal(dg_file_read(in_dir("report.html"), &page, &bytes), DG_OK);
    assert_non_null(strstr(page, "First reward, as it scores"));
    assert_non_null(strstr(page, "weighted sum of the rewards"));
    free(page);
    /* of a file from before there is the first reward alone */
    put_sum("evaluation_after.json", 3, "");
    assert_answer(better, LEVEL_WRONG, "the reward went from 5.00 to");
}

static void test_the_page_shows_them(void **state)
{
    static const char *const parts[] = {
        "Points: held-out prompts, painted without noise",
        "Points: held-out prompts, with 95",
        "In 40 iterations (",
        "; evaluations 1 min 30 s",
        "On 70 held-out prompts the strict score went from <b>0.400</b>",
        "70 prompts, 3 seeds each",
        "3 scores are missing",
    };
    char *page;
    size_t bytes;

    (void)state;
    put_run(0.3, 0, rising, rising);
    assert_int_equal(dg_report_write(dir), DG_OK);
    assert_int_equal(dg_file_read(in_dir("report.html"), &page, &bytes), DG_OK);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(page, parts[i]) == NULL)
            fail_msg("the page does not say: %s", parts[i]);
    free(page);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_what_rises_there_too_is_not_hacked),
        IN_FOLDER(test_without_a_strict_score_nobody_knows),
        IN_FOLDER(test_what_falls_there_is_hacked),
        IN_FOLDER(test_nothing_is_hacked_that_does_not_rise),
        IN_FOLDER(test_a_course_has_two_ends),
        IN_FOLDER(test_files_made_by_hand_come_first),
        IN_FOLDER(test_files_are_judged_by_what_was_trained),
        IN_FOLDER(test_the_page_shows_them),
    };

    return cmocka_run_group_tests_name("report_held_out", tests, NULL, NULL);
}
