#ifndef DG_BASE_LOG_H
#define DG_BASE_LOG_H
/*
 * The log: lines on stderr and, once a run folder exists, in its log.txt.
 * One log per program; every rank may call it, only rank 0 writes.
 * A clean run prints no WARN.
 */

typedef enum LogLevel { DG_LOG_INFO, DG_LOG_WARN, DG_LOG_ERROR } LogLevel;

/** Who writes, and from which level on the screen shows lines (the file
 *  holds all). Before this call every process counts as rank 0, INFO. */
void dg_log_setup(int rank, LogLevel screen);

/**
 * Appends to a file from now on; other ranks than 0 do nothing.
 * Errors: DG_EIO naming the file.
 */
int dg_log_open(const char *path);

/** Closes the file; a write that failed (disk full) is reported here and,
 *  once, on stderr when it happens. */
int dg_log_close(void);

/** One line, without newline at its end. INFO lines stand on the screen as
 *  they are; others are preceded by their level. In the file every line has
 *  date and level. Thread-safe. */
void dg_log(LogLevel level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define dg_info(...) dg_log(DG_LOG_INFO, __VA_ARGS__)
#define dg_warn(...) dg_log(DG_LOG_WARN, __VA_ARGS__)

/** The last error of this thread as an ERROR line, with its rank. */
void dg_log_last_error(void);

/** Lines of a level written since the start of the program. */
long dg_log_count(LogLevel level);

#endif
