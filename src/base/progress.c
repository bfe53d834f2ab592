#include "base/progress.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { TEXT_BYTES = 160, BAR_WIDTH = 28 };

static struct {
    pthread_mutex_t lock;
    int enabled;
    const char *what; /* NULL: no bar */
    int64_t total;
    _Atomic int64_t done;
    double start, drawn; /* moments, s */
    int visible;
} bar = { .lock = PTHREAD_MUTEX_INITIALIZER };

void dg_progress_enable(int wanted)
{
    bar.enabled = wanted && isatty(STDERR_FILENO);
}

void dg_progress_start(const char *what, int64_t total)
{
    bar.what = what;
    bar.total = total;
    bar.start = dg_clock_now();
    bar.drawn = 0;
    atomic_store(&bar.done, 0);
}

void dg_progress_text(char *text, int size, const char *what, int64_t done,
                      int64_t total, double seconds)
{
    char line[BAR_WIDTH + 1], eta[DG_DURATION_BYTES];
    const double part = total > 0 ? (double)done / (double)total : 1;
    const int full = (int)(part * BAR_WIDTH);

    for (int i = 0; i < BAR_WIDTH; i++)
        line[i] = i < full ? '=' : i == full ? '>' : ' ';
    line[BAR_WIDTH] = '\0';
    dg_clock_duration(eta, done > 0 ? seconds * (1 - part) / part : -1);
    snprintf(text, (size_t)size, "%-8s [%s] %3d%%  %lld/%lld  ETA %s", what,
             line, (int)(100 * part), (long long)done, (long long)total, eta);
}

void dg_progress_add(int64_t num)
{
    const int64_t done = atomic_fetch_add(&bar.done, num) + num;

    if (!bar.enabled || bar.what == NULL)
        return;
    /* whoever is busy drawing will do: nobody waits for a picture */
    if (pthread_mutex_trylock(&bar.lock) != 0)
        return;
    const double now = dg_clock_now();

    if (now - bar.drawn >= 0.1) {
        char text[TEXT_BYTES];

        dg_progress_text(text, sizeof text, bar.what, done, bar.total,
                         now - bar.start);
        fprintf(stderr, "\r%s\033[K", text);
        fflush(stderr);
        bar.drawn = now;
        bar.visible = 1;
    }
    pthread_mutex_unlock(&bar.lock);
}

void dg_progress_hide(void)
{
    pthread_mutex_lock(&bar.lock);
    if (bar.visible) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        bar.visible = 0;
    }
    pthread_mutex_unlock(&bar.lock);
}

void dg_progress_end(void)
{
    dg_progress_hide();
    bar.what = NULL;
}
