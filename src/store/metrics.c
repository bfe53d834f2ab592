#include "store/metrics.h"

#include "base/error.h"
#include "base/text_out.h"
#include "store/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct Metrics {
    int fd;
    int failed; /* memory ran out within the line */
    int comma;  /* the next member needs one */
    char *path;
    char *line;
    size_t used, room;
};

/* Opening --------------------------------------------------------------- */

/* The iteration of a whole line as this module writes it, or -1. */
static int64_t iteration_of(const char *line, size_t bytes)
{
    char head[48] = ""; /* sscanf() measures all that it is given */
    int64_t iteration = -1;
    int used = 0;

    if (bytes < 2 || line[bytes - 1] != '\n' || line[bytes - 2] != '}')
        return -1;
    memcpy(head, line, bytes < sizeof head ? bytes : sizeof head - 1);
    if (sscanf(head, "{\"iteration\":%" SCNd64 "%n", &iteration, &used) != 1 ||
        (head[used] != ',' && head[used] != '}'))
        return -1;
    return iteration;
}

/* Where the next line begins, and the iteration of this one. */
static size_t next_line(const char *text, size_t bytes, size_t at,
                        int64_t *iteration)
{
    const char *end = memchr(text + at, '\n', bytes - at);
    const size_t next = end ? (size_t)(end - text) + 1 : bytes;

    *iteration = iteration_of(text + at, next - at);
    return next;
}

/* Length of the part to keep: lines in order up to the last iteration. Behind
 * it there may be later ones, or half of one; lines of before would be lost for
 * one that is damaged. */
static int find_end(size_t *keep, const char *path, const char *text,
                    size_t bytes, int64_t last_iteration)
{
    long line = 1;
    int64_t iteration;

    for (*keep = 0; *keep < bytes; line++) {
        const size_t next = next_line(text, bytes, *keep, &iteration);

        if (iteration < 0 || iteration > last_iteration)
            break;
        *keep = next;
    }
    for (size_t at = *keep; at < bytes;) {
        at = next_line(text, bytes, at, &iteration);
        if (iteration >= 0 && iteration <= last_iteration)
            return dg_fail(DG_EFORMAT,
                           "%s, line %ld: damaged, or out of order, and a line "
                           "of iteration %lld follows, which would be cut off "
                           "with it: mend it, or take it out",
                           path, line, (long long)iteration);
    }
    return DG_OK;
}

/* text: NULL where there is no file. */
static int read_all(const char *path, char **text, size_t *bytes)
{
    *text = NULL;
    return access(path, F_OK) != 0 ? DG_OK : dg_file_read(path, text, bytes);
}

static int cut(const char *path, int64_t last_iteration)
{
    char *text;
    size_t bytes, keep;
    int err = read_all(path, &text, &bytes);

    if (err || text == NULL)
        return err;
    err = find_end(&keep, path, text, bytes, last_iteration);
    free(text);
    if (!err && keep < bytes && truncate(path, (off_t)keep) != 0)
        err = dg_fail(DG_EIO, "%s: cannot cut to the checkpoint: %s", path,
                      strerror(errno));
    return err;
}

int dg_metrics_open(Metrics **out, const char *path, int64_t last_iteration)
{
    Metrics *m = calloc(1, sizeof *m);
    int err = DG_OK;

    if (m == NULL)
        return dg_fail(DG_ENOMEM, "%s: metrics", path);
    m->fd = -1;
    m->path = strdup(path);
    if (m->path == NULL)
        err = dg_fail(DG_ENOMEM, "%s: metrics", path);
    if (!err)
        err = cut(path, last_iteration);
    if (!err) {
        m->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (m->fd < 0)
            err = dg_fail(DG_EIO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (err) {
        dg_metrics_close(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

int dg_metrics_end_with(int *yes, const char *path, int64_t iteration,
                        const char *key)
{
    char *text, head[96];
    size_t bytes, last;
    const int err = read_all(path, &text, &bytes);

    *yes = 0;
    if (err || text == NULL)
        return err;
    last = bytes > 0 ? bytes - 1 : 0; /* its end */
    while (last > 0 && text[last - 1] != '\n')
        last--;
    snprintf(head, sizeof head, "{\"iteration\":%" PRId64 ",\"%s\":", iteration,
             key);
    *yes = bytes - last > strlen(head) &&
           memcmp(text + last, head, strlen(head)) == 0;
    free(text);
    return DG_OK;
}

void dg_metrics_close(Metrics *m)
{
    if (m == NULL)
        return;
    if (m->fd >= 0)
        close(m->fd);
    free(m->path);
    free(m->line);
    free(m);
}

/* A line ---------------------------------------------------------------- */

static void append(Metrics *m, const char *text, size_t bytes)
{
    if (m->used + bytes > m->room) {
        const size_t room = 2 * (m->used + bytes) + 1024;
        char *more = realloc(m->line, room);

        if (more == NULL) {
            m->failed = 1;
            return;
        }
        m->line = more;
        m->room = room;
    }
    memcpy(m->line + m->used, text, bytes);
    m->used += bytes;
}

static void append_string(Metrics *m, const char *text)
{
    char room[DG_JSON_CHAR];

    append(m, "\"", 1);
    while (*text != '\0') {
        const char *code = dg_json_char(room, &text);

        append(m, code, strlen(code));
    }
    append(m, "\"", 1);
}

/* JSON knows neither NaN nor infinities. */
static void append_real(Metrics *m, double value)
{
    char text[32];

    if (isfinite(value))
        append(m, text, (size_t)snprintf(text, sizeof text, "%.9g", value));
    else
        append(m, "null", 4);
}

static void member(Metrics *m, const char *key)
{
    if (m->comma)
        append(m, ",", 1);
    append_string(m, key);
    append(m, ":", 1);
    m->comma = 1;
}

void dg_metrics_begin(Metrics *m, int64_t iteration)
{
    m->used = 0;
    m->failed = m->comma = 0;
    append(m, "{", 1);
    dg_metrics_int(m, "iteration", iteration);
}

void dg_metrics_real(Metrics *m, const char *key, double value)
{
    member(m, key);
    append_real(m, value);
}

void dg_metrics_int(Metrics *m, const char *key, int64_t value)
{
    char text[24];

    member(m, key);
    append(m, text, (size_t)snprintf(text, sizeof text, "%" PRId64, value));
}

void dg_metrics_text(Metrics *m, const char *key, const char *value)
{
    member(m, key);
    append_string(m, value);
}

void dg_metrics_reals(Metrics *m, const char *key, const double *values,
                      int64_t num)
{
    member(m, key);
    append(m, "[", 1);
    for (int64_t i = 0; i < num; i++) {
        if (i > 0)
            append(m, ",", 1);
        append_real(m, values[i]);
    }
    append(m, "]", 1);
}

void dg_metrics_enter(Metrics *m, const char *key)
{
    member(m, key);
    append(m, "{", 1);
    m->comma = 0;
}

void dg_metrics_leave(Metrics *m)
{
    append(m, "}", 1);
    m->comma = 1;
}

int dg_metrics_commit(Metrics *m)
{
    off_t before;
    ssize_t written;
    int err = DG_OK;

    append(m, "}\n", 2);
    if (m->failed)
        return dg_fail(DG_ENOMEM, "%s: a line", m->path);
    before = lseek(m->fd, 0, SEEK_END);
    do
        written = write(m->fd, m->line, m->used);
    while (written < 0 && errno == EINTR);
    if (written != (ssize_t)m->used) {
        err = dg_fail(DG_EIO, "%s: cannot write: %s", m->path,
                      written < 0 ? strerror(errno) : "disk full");
        if (written > 0 && ftruncate(m->fd, before) != 0)
            err = dg_fail(DG_EIO, "%s: half a line was written", m->path);
    }
    return err;
}

int dg_metrics_sync(Metrics *m)
{
    if (fdatasync(m->fd) != 0)
        return dg_fail(DG_EIO, "%s: cannot write: %s", m->path,
                       strerror(errno));
    return DG_OK;
}
