/* What a file says of how it was made, against what there is now. */
#include "store/h5.h"

#include "base/error.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* *value stays NULL where there is none */
static int get_if_there(H5File *f, const char *key, char **value)
{
    return dg_h5_has_key(f, NULL, key) ? dg_h5_get_text(f, NULL, key, value)
                                       : DG_OK;
}

/* A line each; the same rewards, since the configuration is the same. */
static void tell_plugins(const H5File *f, const char *then, const char *now)
{
    while (*then != '\0' && *now != '\0') {
        const size_t n = strcspn(then, "\n"), m = strcspn(now, "\n");

        if (n != m || memcmp(then, now, n) != 0)
            dg_warn("%s has scores of %.*s; now it is %.*s: what follows is "
                    "another run than the one that was begun, unless both "
                    "score alike",
                    dg_h5_path(f), (int)n, then, (int)m, now);
        then += n + (then[n] == '\n');
        now += m + (now[m] == '\n');
    }
}

void dg_h5_tell_origin(H5File *f, const FileInfo *now)
{
    char *commit = NULL, *arithmetic = NULL, *plugins = NULL;

    if (get_if_there(f, "git_commit", &commit) ||
        get_if_there(f, "arithmetic", &arithmetic) ||
        get_if_there(f, "reward_plugins", &plugins))
        dg_warn("%s", dg_last_error()->text);
    if (commit != NULL && now->git_commit != NULL &&
        strcmp(commit, now->git_commit) != 0)
        dg_info("%s was written by commit %s, this program is commit %s: last "
                "bits may differ where kernels changed",
                dg_h5_path(f), commit, now->git_commit);
    if (arithmetic != NULL && now->arithmetic != NULL &&
        strcmp(arithmetic, now->arithmetic) != 0)
        dg_warn("%s was computed with %s; here it is %s: results may differ in "
                "their last bits from those of one kind of machine",
                dg_h5_path(f), arithmetic, now->arithmetic);
    if (plugins != NULL && now->plugins != NULL)
        tell_plugins(f, plugins, now->plugins);
    free(commit);
    free(arithmetic);
    free(plugins);
}
