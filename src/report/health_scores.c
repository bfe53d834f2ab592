#include "health.h"

#include "page.h"

#include <math.h>
#include <stdio.h>

static double sum(const double *v, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += isfinite(v[i]) ? v[i] : 0;
    return s;
}

/* The reward that lacks most, and which part of its scores that is: beside
 * others, half of one reward's may be a small part of all. */
static double worst_reward(char *of, size_t bytes, const Run *run,
                           double samples, double part)
{
    int worst = 0;

    of[0] = '\0';
    for (int k = 1; k < run->num_rewards; k++)
        if (run->missing[k] > run->missing[worst])
            worst = k;
    if (run->num_rewards < 2 || !(run->missing[worst] > 0))
        return part;
    snprintf(of, bytes, "those of %s", run->reward_name[worst]);
    return run->missing[worst] / samples;
}

/* More than 5 % failed of one reward's scores, or it never had any. What it
 * says itself that it has not, for such prompts, is no failure. */
static int is_wrong(const Run *run, double samples, double failed_part)
{
    int wrong = failed_part > 0.05;

    for (int k = 0; k < run->num_rewards; k++)
        wrong |= run->missing[k] - run->declined[k] > 0.05 * samples ||
                 run->missing[k] >= samples;
    return wrong;
}

void dg_health_scores(Health *h, const Run *run)
{
    static const char question[] = "Are all scores there?";
    static const char advice[] =
        "Missing scores are left out, never counted as 0. See log.txt for "
        "why the reward failed.";
    const int rewards = run->num_rewards > 0 ? run->num_rewards : 1;
    const double samples = sum(run->col[COL_SAMPLES], run->n);
    const double all = samples * rewards;
    const double lost = sum(run->col[COL_MISSING], run->n);
    const double none = sum(run->declined, run->num_rewards);
    char text[DG_VALUE_BYTES], part[DG_VALUE_BYTES], of[DG_RUN_NAME + 16];
    char declined[DG_VALUE_BYTES + 64] = "", count[DG_VALUE_BYTES];
    double most;

    if (!dg_run_has(run, COL_MISSING) || !(all > 0))
        return;
    dg_count_text(text, lost > 0 ? lost : all);
    dg_count_text(count, none);
    most = worst_reward(of, sizeof of, run, samples, lost / all);
    dg_percent_text(part, most);
    if (none > 0)
        snprintf(declined, sizeof declined,
                 "; %s because the reward says that it has none", count);
    if (lost == 0)
        dg_health_say(h, LEVEL_GOOD, question, advice, "Yes, all %s.", text);
    else
        dg_health_say(h,
                      is_wrong(run, samples, (lost - none) / all) ? LEVEL_WRONG
                                                                  : LEVEL_LOOK,
                      question, advice,
                      "No: %s %s missing, %s of %s%s (above 5\u202f%% of a "
                      "reward's that fail is wrong).",
                      text, lost == 1 ? "is" : "are", part,
                      of[0] != '\0' ? of : "all", declined);
}
