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
    char text[DG_VALUE_BYTES], part[DG_VALUE_BYTES], of[DG_RUN_NAME + 16];
    double most;

    if (!dg_run_has(run, COL_MISSING) || !(all > 0))
        return;
    dg_count_text(text, lost > 0 ? lost : all);
    most = worst_reward(of, sizeof of, run, samples, lost / all);
    dg_percent_text(part, most);
    if (lost == 0)
        dg_health_say(h, LEVEL_GOOD, question, advice, "Yes, all %s.", text);
    else
        dg_health_say(
            h, most <= 0.05 ? LEVEL_LOOK : LEVEL_WRONG, question, advice,
            "No: %s %s missing, %s of %s (above 5\u202f%% is wrong).", text,
            lost == 1 ? "is" : "are", part, of[0] != '\0' ? of : "all");
}
