#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

double dg_clock_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double dg_clock_thread(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void dg_clock_date(char text[DG_DATE_BYTES])
{
    const time_t now = time(NULL);
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(text, DG_DATE_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

void dg_clock_duration(char text[DG_DURATION_BYTES], double seconds)
{
    const size_t size = DG_DURATION_BYTES;

    if (!isfinite(seconds) || seconds < 0 || seconds > 1e12) {
        snprintf(text, size, "?");
        return;
    }
    if (seconds < 59.95) {
        snprintf(text, size, "%.1f s", seconds);
        return;
    }
    const long long s = llround(seconds);
    const long long min = s / 60, h = min / 60, d = h / 24;

    if (h == 0)
        snprintf(text, size, "%lld min %02lld s", min, s % 60);
    else if (d == 0)
        snprintf(text, size, "%lld h %02lld min", h, min % 60);
    else
        snprintf(text, size, "%lld d %02lld h", d, h % 24);
}
