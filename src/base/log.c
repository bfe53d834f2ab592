#include "base/log.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/legible.h"
#include "base/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 2048 };

static struct {
    pthread_mutex_t lock;
    int silent; /* not rank 0 */
    LogLevel screen;
    FILE *file;
    char path[1024];
    int failed; /* errno of the first failed write */
    long count[3];
} logger = { .lock = PTHREAD_MUTEX_INITIALIZER };

void dg_log_setup(int rank, LogLevel screen)
{
    logger.silent = rank != 0;
    logger.screen = screen;
}

int dg_log_open(const char *path)
{
    if (logger.silent)
        return DG_OK;
    int err = dg_log_close();
    if (err)
        return err;
    FILE *f = fopen(path, "a");
    if (f == NULL)
        return dg_fail(DG_EIO, "%s: cannot be opened for the log: %s", path,
                       strerror(errno));
    snprintf(logger.path, sizeof logger.path, "%s", path);
    logger.failed = 0;
    logger.file = f;
    return DG_OK;
}

int dg_log_close(void)
{
    FILE *f = logger.file;

    logger.file = NULL;
    if (f == NULL)
        return DG_OK;
    if (fclose(f) != 0 && !logger.failed)
        logger.failed = errno;
    if (logger.failed)
        return dg_fail(DG_EIO, "%s: the log could not be written: %s",
                       logger.path, strerror(logger.failed));
    return DG_OK;
}

static void write_file(LogLevel level, const char *text)
{
    static const char *const names[] = { "INFO ", "WARN ", "ERROR" };
    char date[DG_DATE_BYTES];

    if (logger.file == NULL)
        return;
    dg_clock_date(date);
    if ((fprintf(logger.file, "%s %s %s\n", date, names[level], text) < 0 ||
         fflush(logger.file) != 0) &&
        !logger.failed) {
        logger.failed = errno;
        fprintf(stderr, "WARN  %s: the log could not be written: %s\n",
                logger.path, strerror(errno));
        logger.count[DG_LOG_WARN]++;
    }
}

void dg_log(LogLevel level, const char *fmt, ...)
{
    static const char *const marks[] = { "", "WARN  ", "ERROR " };
    char text[LINE_BYTES];
    va_list ap;

    if (logger.silent)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    dg_legible(text);
    pthread_mutex_lock(&logger.lock);
    logger.count[level]++;
    if (level >= logger.screen) {
        dg_progress_hide();
        fprintf(stderr, "%s%s\n", marks[level], text);
    }
    write_file(level, text);
    pthread_mutex_unlock(&logger.lock);
}

void dg_log_last_error(void)
{
    const Error *e = dg_last_error();

    if (e->rank > 0)
        dg_log(DG_LOG_ERROR, "%s (found by rank %d%s%s)", e->text, e->rank,
               e->host[0] != '\0' ? " on " : "", e->host);
    else
        dg_log(DG_LOG_ERROR, "%s", e->text);
}

long dg_log_count(LogLevel level)
{
    return logger.count[level];
}
