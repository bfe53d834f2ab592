#include "report_bed.h"

#include "store/image.h"

#include <ctype.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static void put_file(const char *name, const char *text)
{
    assert_int_equal(dg_file_write(in_dir(name), text, strlen(text)), DG_OK);
}

/* The page; NULL when there is none. */
static char *read_page(void)
{
    char *text = NULL;
    size_t bytes;

    if (access(in_dir("report.html"), F_OK) != 0)
        return NULL;
    assert_int_equal(dg_file_read(in_dir("report.html"), &text, &bytes), DG_OK);
    assert_int_equal(strlen(text), bytes);
    return text;
}

/* --- a run, right unless told otherwise -------------------------------- */

typedef struct Fault {
    int ratio_at;    /* iteration whose ratio is not 1; 0: none */
    double strict;   /* change of the strict score over the run */
    double reward;   /* the same of the reward */
    double clip;     /* fraction */
    double grow;     /* of the log of the gradient norm over the run */
    int missing;     /* scores in every iteration */
    int declined;    /* of these, that the reward says it has not */
    int zero;        /* groups of equal rewards, of 4 */
    int set_aside;   /* in iteration 7 */
    const char *end; /* text behind the last line */
} Fault;

static const Fault right = { .strict = 0.3, .reward = 0.3, .clip = 0.4 };

/* Noise that a test can repeat: a Weyl sequence in [-1, 1). */
static double noise(int i)
{
    return 2 * fmod(i * 0.6180339887498949, 1) - 1;
}

static void put_run(int n, const Fault *f)
{
    char *text = malloc((size_t)n * 700 + 1000);
    size_t at = 0;

    for (int i = 1; i <= n; i++) {
        const double u = (double)i / n;

        at += (size_t)sprintf(
            text + at,
            "{\"iteration\":%d,\"reward_mean\":%.9g,\"reward_std\":0.1,"
            "\"rewards\":{\"shapes\":{\"mean\":0.5,\"std\":0.1,"
            "\"missing\":%d,\"declined\":%d}},\"strict_mean\":%.9g,\"zero_std_"
            "groups\":%d,"
            "\"skipped_groups\":0,\"ratio_max_deviation\":%s,"
            "\"clip_fraction\":%.9g,\"grad_norm\":%.9g,\"lr\":1e-4,"
            "\"loss\":%.9g,\"samples\":32,\"set_aside\":%d,"
            "\"skipped_updates\":0,\"seconds\":{\"rollout\":0.5,"
            "\"reward\":0.1,\"update\":0.9,\"io\":0.02,\"total\":1.52},"
            "\"gflops\":50,\"peak_bytes\":1000000,\"plan_bytes\":1000000}\n",
            i, 0.5 + f->reward * u + 0.01 * noise(i), f->missing, f->declined,
            0.4 + f->strict * u + 0.02 * noise(3 * i), f->zero,
            i == f->ratio_at ? "2.5e-7" : "0", f->clip,
            exp(f->grow * u) * (1 + 0.1 * noise(i)), 1e-4 * noise(i),
            i == 7 ? f->set_aside : 0);
    }
    strcpy(text + at, f->end != NULL ? f->end : "");
    put_file("metrics.jsonl", text);
    free(text);
    put_file("config.cfg", "run: { iterations = 40; };\n"
                           "grpo: { prompts_per_iteration = 4; };\n");
}

static void put_evaluation(const char *name, double reward, double strict)
{
    char text[2000];
    const char *entry =
        "\"%s\":{\"task\":\"%s\",\"pictures\":210,\"reward\":{\"mean\":%g,"
        "\"low\":%g,\"high\":%g},\"strict\":{\"mean\":%g,\"low\":%g,"
        "\"high\":%g}}";
    size_t at =
        (size_t)sprintf(text, "{\"prompts\":210,\"seeds\":1,\"missing\":0,");

    at += (size_t)sprintf(text + at, entry, "all", "all", reward, reward - 0.03,
                          reward + 0.03, strict, strict - 0.05, strict + 0.05);
    at += (size_t)sprintf(text + at, ",\"tasks\":[{");
    /* a task is the same without its key: take it off again */
    char task[500];
    sprintf(task, entry, "x", "count<ing>", reward, reward - 0.1, reward + 0.1,
            strict, strict - 0.1, strict + 0.1);
    sprintf(text + at - 1, "%s]}", task + strlen("\"x\":"));
    put_file(name, text);
}

static void put_wide_strip(const char *name, int num, int width, int height)
{
    Image image = { num * width, height,
                    calloc((size_t)(num * width * height), 3) };

    assert_non_null(image.rgb);
    assert_int_equal(dg_image_write_png(in_dir(name), &image, NULL, 0), DG_OK);
    dg_image_free(&image);
}

/* A bit of a file, or back again. */
static void spoil(const char *name, size_t at)
{
    char *bytes;
    size_t num;

    assert_int_equal(dg_file_read(in_dir(name), &bytes, &num), DG_OK);
    bytes[at] ^= 1;
    assert_int_equal(dg_file_write(in_dir(name), bytes, num), DG_OK);
    free(bytes);
}

static void put_strip(const char *name, int num, int size)
{
    put_wide_strip(name, num, size, size);
}

/* Every opened element is closed, in order: what a browser need not mend. */
static void assert_well_formed(const char *html)
{
    static const char *const empty[] = { "meta", "path", "rect", "circle" };
    char open[32][16];
    int depth = 0;

    for (const char *p = strchr(html + 1, '<'); p; p = strchr(p + 1, '<')) {
        const int closing = p[1] == '/';
        const char *name = p + 1 + closing, *stop = strchr(p, '>');
        char tag[16] = "";
        int alone;

        assert_non_null(stop);
        for (int i = 0; i < 15 && isalnum((unsigned char)name[i]); i++)
            tag[i] = name[i], tag[i + 1] = '\0';
        assert_true(*tag != '\0');
        alone = stop[-1] == '/';
        for (int i = 0; i < 4; i++)
            if (strcmp(tag, empty[i]) == 0 && (i == 0 || alone))
                alone = 2;
        if (closing) {
            assert_true(depth > 0);
            assert_string_equal(open[--depth], tag);
        } else if (alone != 2) {
            assert_true(depth < 32);
            strcpy(open[depth++], tag);
        }
    }
    assert_int_equal(depth, 0);
}

/* Writes the report, and checks what every report must be. */
static char *make_page(void)
{
    if (dg_report_write(dir) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    char *page = read_page();
    assert_non_null(page);
    assert_well_formed(page);
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "http"));
    assert_null(strstr(page, "src="));
    /* no coordinate that is no number */
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf "));
    return page;
}

static void assert_says(const char *page, const char *text)
{
    if (strstr(page, text) == NULL)
        fail_msg("the page does not say: %s", text);
}

/* Level of the finding that answers a question. */
static void assert_level(const char *page, const char *question,
                         const char *level)
{
    const char *at = strstr(page, question);
    char class[32];

    assert_non_null(at);
    while (at > page && strncmp(at, "<li>", 4) != 0)
        at--;
    snprintf(class, sizeof class, "badge %s\"", level);
    const char *found = strstr(at, class);
    if (found == NULL || found > strstr(at, question))
        fail_msg("%s: not %s", question, level);
}

/* --- pages ------------------------------------------------------------- */

static void test_right_run_is_called_right(void **state)
{
    (void)state;
    put_run(40, &right);
    put_evaluation("evaluation_before.json", 0.5, 0.45);
    put_evaluation("evaluation_after.json", 0.8, 0.75);
    char *page = make_page();
    assert_says(page, "In 40 iterations (1 min 01 s");
    assert_says(page, "<span class=\"badge good\">\u2713 exactly 1</span>");
    assert_says(page, "\u2713 looks right");
    assert_says(page, "<b>0.450</b> [0.400, 0.500] to <b>0.750</b> [0.700, "
                      "0.800]; <b>+0.300</b>, and the 95\u202f% intervals do "
                      "not overlap.");
    assert_says(page, "count&lt;ing&gt;");
    /* charts are no wider than a narrow screen */
    assert_says(page, "minmax(min(340px,100%),1fr)");
    assert_level(page, "Is the ratio exactly 1", "good");
    assert_level(page, "Does the reward rise?", "good");
    assert_level(page, "Is it better on held-out prompts?", "good");
    assert_level(page, "Is the reward hacked?", "good");
    assert_level(page, "Do the groups teach something?", "good");
    assert_level(page, "Is the clipping in range?", "good");
    assert_level(page, "Is the gradient calm?", "good");
    assert_level(page, "Are all scores there?", "good");
    assert_level(page, "Is the record whole?", "good");
    assert_null(strstr(page, "badge wrong\""));
    assert_null(strstr(page, "Missing scores</b>"));
    free(page);
}

/* The findings as text; NULL when they are refused. */
static char *tell_text(void)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);

    assert_non_null(f);
    const int err = dg_report_tell(f, dir);
    fclose(f);
    if (err == DG_OK)
        return text;
    assert_int_equal(bytes, 0);
    free(text);
    return NULL;
}

static void test_text_tells_what_the_page_does(void **state)
{
    const Fault f = { .ratio_at = 17, .reward = 0.3, .strict = 0.3, .clip = 0 };

    (void)state;
    assert_null(tell_text()); /* no run yet */
    put_run(40, &right);
    char *text = tell_text();
    assert_ptr_equal(strstr(text, "No problem was found.\ngood "), text);
    assert_null(strstr(text, "\nWRONG"));
    assert_says(text, "\ngood   Does the reward rise? Yes: ");
    free(text);
    put_run(40, &f);
    text = tell_text();
    assert_ptr_equal(strstr(text,
                            "Something is wrong; the problems come first.\n"
                            "WRONG  Is the ratio exactly 1 at first? "
                            "No: it first differed in iteration 17"),
                     text);
    assert_says(text, "\n       The update does not see the policy that made");
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        assert_in_range(strcspn(line, "\n"), 1, 80 + 8); /* bytes of UTF-8 */
    assert_null(strstr(text, "<"));
    assert_null(read_page());
    free(text);
}

/* Short runs have no quarters; what the numbers are of is said as it is. */
static void test_short_runs_are_told_as_such(void **state)
{
    static const Fault flat = { .ratio_at = 0 };
    static const Fault few = { .missing = 4, .declined = 3 }; /* of 32 */
    static const struct {
        int n;
        const Fault *fault;
        const char *says;
    } runs[] = {
        { 1, &right, "first update of the one iteration the" },
        { 1, &right, "of the groups in all iterations had" },
        { 19, &flat, "; the reward did not rise." },
        { 19, &right, "terms were clipped in the last 5 iterations (" },
        { 20, &right, "terms were clipped in the last quarter (" },
        { 19, &few, "look   Are all scores there? No: 76 are missing, 12" },
        { 19, &few, "; 57 because the reward says that it has none" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        put_run(runs[i].n, runs[i].fault);
        char *text = tell_text(), *end = text;
        for (; (end = strstr(end, "\n       ")) != NULL; *end = ' ')
            memmove(end + 1, end + 8, strlen(end + 8) + 1);
        assert_says(text, runs[i].says);
        free(text);
    }
}

static void test_wrong_run_is_called_wrong(void **state)
{
    const Fault f = { .ratio_at = 17,
                      .reward = 0.3,
                      .strict = -0.2,
                      .clip = 0.995,
                      .grow = 6,
                      .missing = 4,
                      .zero = 4,
                      .set_aside = 2 };

    (void)state;
    put_run(40, &f);
    char *page = make_page();
    assert_says(page, "\u2717 not 1 in iteration 17");
    assert_level(page, "Is the ratio exactly 1", "wrong");
    assert_level(page, "Does the reward rise?", "good");
    assert_level(page, "Is the reward hacked?", "wrong");
    assert_level(page, "Do the groups teach something?", "wrong");
    assert_level(page, "Is the clipping in range?", "wrong");
    assert_level(page, "Is the gradient calm?", "wrong");
    assert_level(page, "Are all scores there?", "wrong");
    assert_level(page, "Are all numbers finite?", "look");
    assert_says(page, "first in iteration 7");
    assert_says(page, "Missing scores</b>");
    assert_says(page, "Groups without a gradient</b>");
    free(page);
}

static void test_flat_and_falling_rewards_are_told_apart(void **state)
{
    Fault f = right;

    (void)state;
    f.reward = 0;
    put_run(40, &f);
    char *page = make_page();
    assert_level(page, "Does the reward rise?", "look");
    free(page);
    f.reward = -0.2;
    put_run(40, &f);
    page = make_page();
    assert_level(page, "Does the reward rise?", "wrong");
    free(page);
    put_run(7, &right); /* too few to tell */
    page = make_page();
    assert_level(page, "Does the reward rise?", "unknown");
    assert_says(page, "? too early");
    assert_null(strstr(page, "looks right"));
    assert_level(page, "Is the record whole?", "unknown");
    free(page);
}

static void test_held_out_loss_is_seen(void **state)
{
    (void)state;
    put_run(40, &right);
    put_evaluation("evaluation_before.json", 0.5, 0.75);
    put_evaluation("evaluation_after.json", 0.8, 0.45);
    char *page = make_page();
    assert_level(page, "Is it better on held-out prompts?", "wrong");
    assert_level(page, "Is the reward hacked?", "wrong");
    free(page);
    put_evaluation("evaluation_after.json", 0.8, 0.77);
    page = make_page();
    assert_level(page, "Is it better on held-out prompts?", "look");
    free(page);
    unlink(in_dir("evaluation_before.json"));
    page = make_page(); /* one of the two is enough for a table */
    assert_says(page, "Held-out prompts</h2>");
    free(page);
}

static void test_pretraining_has_its_page(void **state)
{
    char text[8000];
    size_t at = 0;

    (void)state;
    for (int i = 1; i <= 40; i++) {
        at += (size_t)sprintf(
            text + at,
            "{\"iteration\":%d,\"loss\":%g,\"grad_norm\":0.4,\"lr\":1e-3,"
            "\"samples\":48,\"seconds\":1.25,\"gflops\":21.2}\n",
            i, 1.0 / i);
        if (i % 20 == 0)
            at += (size_t)sprintf(
                text + at,
                "{\"iteration\":%d,\"evaluation\":{\"all\":{\"task\":\"all\","
                "\"strict\":{\"mean\":0.%d,\"low\":0.1,\"high\":0.5}}}}\n",
                i, i);
    }
    put_file("metrics.jsonl", text);
    char *page = make_page();
    assert_says(page, "pretraining");
    assert_says(page, "In 40 iterations (50.0 s, 1\u202f920 pictures) the "
                      "loss went from");
    assert_level(page, "Does the loss fall?", "good");
    assert_null(strstr(page, "Ratio"));
    assert_says(page, "error of the prediction."); /* of what it is not known */
    free(page);
    put_file("config.cfg", "policy: { prediction = \"epsilon\"; };\n"
                           "pretrain: { loss_power = 0.5; };\n");
    page = make_page();
    assert_says(page, "error of the noise, weighted by noise level.");
    free(page);
    put_file("config.cfg", "policy: { prediction = \"data\"; };\n");
    page = make_page();
    assert_says(page, "error of the velocity.");
    free(page);
}

static void test_strangers_text_stays_text(void **state)
{
    (void)state;
    put_run(12, &right);
    put_file("config.cfg", "</pre><script>alert(1)</script>\xff");
    mkdir(in_dir("pictures"), 0777);
    put_strip("pictures/iter_000000.png", 3, 8);
    put_strip("pictures/iter_000012.png", 3, 8);
    put_file("pictures/prompts.json",
             "{\"prompts\":[\"a\\\"><script>x</script>\",\"b\"],\"size\":8}");
    char *page = make_page();
    assert_says(page, "&lt;script&gt;alert(1)");
    assert_says(page, "a&quot;&gt;&lt;script&gt;x");
    assert_says(page, "--s1:url(data:image/png;base64,iVBORw0KGgo");
    assert_says(page, "after 12</span>");
    free(page);
}

static void test_nulls_and_single_lines_are_drawn(void **state)
{
    (void)state;
    put_file("metrics.jsonl", "{\"iteration\":1,\"reward_mean\":null,"
                              "\"reward_std\":null,\"grad_norm\":null,"
                              "\"clip_fraction\":0,\"seconds\":{\"rollout\":1,"
                              "\"total\":1}}\n\n");
    free(make_page());
    put_file("metrics.jsonl", "{\"iteration\":0,\"reward_mean\":1e300,"
                              "\"grad_norm\":1e-300,\"loss\":-1e300}\n"
                              "{\"iteration\":5,\"reward_mean\":-1e300,"
                              "\"grad_norm\":1e300,\"loss\":1e300}\n");
    char *page = make_page();
    assert_level(page, "Is the record whole?", "look");
    free(page);
}

static void test_long_runs_stay_small(void **state)
{
    struct stat st;

    (void)state;
    put_run(5000, &right);
    free(make_page());
    assert_int_equal(stat(in_dir("report.html"), &st), 0);
    assert_true(st.st_size < 600000);
}

static void test_torn_last_line_is_said(void **state)
{
    Fault f = right;

    (void)state;
    f.end = "{\"iteration\":41,\"rewa";
    put_run(40, &f);
    char *page = make_page();
    assert_level(page, "Is the record whole?", "look");
    assert_says(page, "In 40 iterations");
    free(page);
}

/* Values that no drawing can hold are as good as none. */
static void test_extreme_values_are_not_drawn(void **state)
{
    static const char lines[] =
        "{\"iteration\":1,\"reward_mean\":1.7e308,\"grad_norm\":1e308,"
        "\"loss\":-1.7e308,\"lr\":4e-320,\"clip_fraction\":1e300}\n"
        "{\"iteration\":2,\"reward_mean\":-1.7e308,\"grad_norm\":5e-324,"
        "\"loss\":1e99,\"lr\":0,\"clip_fraction\":-1e300}\n"
        "{\"iteration\":1000000000000000,\"reward_mean\":-1e99,"
        "\"loss\":1e-99,\"grad_norm\":1e-99,\"seconds\":1e99}\n";

    (void)state;
    put_file("metrics.jsonl", lines);
    char *page = make_page();
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf\""));
    free(page);
}

static void assert_refused(int code, const char *text)
{
    put_file("report.html", "old");
    assert_int_equal(dg_report_write(dir), code);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", dg_last_error()->text, text);
    char *page = read_page();
    assert_string_equal(page, "old");
    free(page);
}

static void test_bad_input_is_named(void **state)
{
    static const struct {
        const char *line, *message;
    } bad[] = {
        { "{\"iteration\":41,\"rewa\n", "metrics.jsonl:41: not JSON" },
        { "[1]\n", "metrics.jsonl:41: not a JSON object" },
        { "{\"loss\":1}\n", "metrics.jsonl:41: no number \"iteration\"" },
        { "{\"iteration\":1e300}\n",
          "metrics.jsonl:41: no number \"iteration\"" },
        { "{\"iteration\":41.5}\n",
          "metrics.jsonl:41: no number \"iteration\"" },
        { "{\"iteration\":41,\"lr\":\"x\"}\n",
          "metrics.jsonl:41: not a number: lr" },
        { "{\"iteration\":41} {}\n", "metrics.jsonl:41: not JSON" },
    };

    (void)state;
    assert_refused(DG_EIO, "metrics.jsonl: no such file");
    put_file("metrics.jsonl", "\n");
    assert_refused(DG_EFORMAT, "no iteration in it yet");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Fault f = right;

        f.end = bad[i].line;
        put_run(40, &f);
        assert_refused(DG_EFORMAT, bad[i].message);
    }
    put_run(40, &right);
    put_file("evaluation_after.json", "{\"all\":");
    assert_refused(DG_EFORMAT, "evaluation_after.json: not a JSON object");
    unlink(in_dir("evaluation_after.json"));
    mkdir(in_dir("pictures"), 0777);
    put_file("pictures/iter_000000.png", "\x89PNG");
    assert_refused(DG_EFORMAT, "iter_000000.png: not a whole PNG file");
    put_strip("pictures/iter_000000.png", 1, 8);
    for (size_t at = 8; at < 60; at += 3) {
        spoil("pictures/iter_000000.png", at);
        assert_refused(DG_EFORMAT, "iter_000000.png: not a whole PNG file");
        spoil("pictures/iter_000000.png", at);
    }
    put_file("pictures/prompts.json", "[]");
    assert_refused(DG_EFORMAT, "prompts.json: not a JSON object");
    assert_int_equal(dg_report_write("/nowhere/run"), DG_EIO);
    assert_non_null(strstr(dg_last_error()->text, "/nowhere/run"));
}

/* Five pictures 12 wide and 8 high in a strip of 60, each in its own form. */
static void test_pictures_need_not_be_square(void **state)
{
    (void)state;
    put_run(12, &right);
    mkdir(in_dir("pictures"), 0777);
    put_wide_strip("pictures/iter_000000.png", 5, 12, 8);
    put_file("pictures/prompts.json",
             "{\"prompts\":[\"a\",\"b\",\"c\",\"d\",\"e\"],"
             "\"height\":8,\"width\":12}");
    char *page = make_page();
    assert_says(page, "var(--s0) 100% 0/500% 100%;height:auto;"
                      "aspect-ratio:12/8\" aria-label=\"e, iteration 0");
    free(page);
    put_wide_strip("pictures/iter_000000.png", 5, 10, 8);
    assert_refused(DG_EFORMAT, "must be a row of pictures of 12 x 8");
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_right_run_is_called_right),
        IN_FOLDER(test_wrong_run_is_called_wrong),
        IN_FOLDER(test_text_tells_what_the_page_does),
        IN_FOLDER(test_short_runs_are_told_as_such),
        IN_FOLDER(test_flat_and_falling_rewards_are_told_apart),
        IN_FOLDER(test_held_out_loss_is_seen),
        IN_FOLDER(test_pretraining_has_its_page),
        IN_FOLDER(test_strangers_text_stays_text),
        IN_FOLDER(test_pictures_need_not_be_square),
        IN_FOLDER(test_nulls_and_single_lines_are_drawn),
        IN_FOLDER(test_long_runs_stay_small),
        IN_FOLDER(test_extreme_values_are_not_drawn),
        IN_FOLDER(test_torn_last_line_is_said),
        IN_FOLDER(test_bad_input_is_named),
    };

    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
