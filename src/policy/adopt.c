/* What a configuration takes from the folder it names. */
#include "policy/policy.h"

#include "base/error.h"
#include "family.h"
#include "folder.h"

#include <errno.h>
#include <unistd.h>

const PolicyFamily *dg_policy_family_of(PolicyKind kind)
{
    switch (kind) {
    case DG_POLICY_FLUX:
        return &dg_policy_flux;
    case DG_POLICY_SD:
        return &dg_policy_sd;
    }
    dg_panic("policy kind %d is not in the table", (int)kind);
}

int dg_policy_has_folder(const Config *c)
{
    return c->policy.path[0] != '\0' && dg_folder_exists(c->policy.path);
}

int dg_policy_lacks_weights(const Config *c)
{
    return c->policy.weights[0] != '\0' &&
           access(c->policy.weights, F_OK) != 0 &&
           (errno == ENOENT || errno == ENOTDIR);
}

/* Names of kinds as policy.kind has them. */
static int check_family(const Config *c)
{
    static const PolicyKind kinds[] = { DG_POLICY_FLUX, DG_POLICY_SD };
    static const char *const names[] = { "flux", "sd" };
    const int own = kinds[1] == c->policy.kind;

    return dg_folder_check_part(
        c->policy.path, dg_policy_family_of(kinds[own])->component, names[own],
        dg_policy_family_of(kinds[!own])->component, names[!own]);
}

int dg_policy_adopt_folder(Config *c, int outline)
{
    int err = DG_OK;

    if (!outline && c->policy.path[0] != '\0' && !dg_policy_has_folder(c))
        return dg_fail(
            DG_EIO,
            "policy.path = \"%s\": there is no such folder: must be a "
            "whole pipeline as Hugging Face has it",
            c->policy.path);
    if (dg_policy_has_folder(c))
        err = check_family(c);
    return err ? err
               : dg_policy_family_of(c->policy.kind)
                     ->adopt(c, dg_policy_has_folder(c));
}
