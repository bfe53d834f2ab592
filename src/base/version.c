#include "base/version.h"

#include "generated/commit.h" /* written by the Makefile */

const char *dg_version(void)
{
    return DG_VERSION;
}

const char *dg_git_commit(void)
{
    return DG_GIT_COMMIT;
}

const char *dg_compiler(void)
{
#ifdef __clang__
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}
