/* The list of findings: what joins it, its order, and what it comes to. */
#include "health.h"

#include <stdarg.h>
#include <stdio.h>

void dg_health_say(Health *h, Level level, const char *question,
                   const char *advice, const char *fmt, ...)
{
    va_list ap;

    if (h->num == DG_FINDINGS)
        return;
    Finding *f = &h->finding[h->num++];
    f->level = level;
    f->question = question;
    f->advice = level == LEVEL_GOOD ? "" : advice;
    va_start(ap, fmt);
    vsnprintf(f->answer, sizeof f->answer, fmt, ap);
    va_end(ap);
    h->count[level]++;
}

void dg_health_order(int order[DG_FINDINGS], const Health *h)
{
    static const Level levels[] = { LEVEL_WRONG, LEVEL_LOOK, LEVEL_GOOD,
                                    LEVEL_UNKNOWN };
    int num = 0;

    for (int k = 0; k < 4; k++)
        for (int i = 0; i < h->num; i++)
            if (h->finding[i].level == levels[k])
                order[num++] = i;
}

const char *dg_health_verdict(const Health *h)
{
    if (h->count[LEVEL_WRONG] > 0)
        return "Something is wrong; the problems come first.";
    if (h->count[LEVEL_LOOK] > 0)
        return "Nothing is clearly wrong; what to look at comes first.";
    if (h->early)
        return "No problem so far, but it is too early to tell.";
    return "No problem was found.";
}
