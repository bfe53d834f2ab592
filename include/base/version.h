#ifndef DG_BASE_VERSION_H
#define DG_BASE_VERSION_H
/*
 * What this program is: its version and the git commit it was built from.
 */

#define DG_VERSION "0.1.0"

/** Version, "0.1.0". */
const char *dg_version(void);

/** Commit of the sources, 12 digits, "-dirty" behind them when files were
 *  changed; "unknown" when built outside git. */
const char *dg_git_commit(void);

/** Name and version of the compiler. */
const char *dg_compiler(void);

#endif
