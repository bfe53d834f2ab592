/* What the tests of generators from a Hugging Face folder share. The file that
 * includes it defines FOLDER and configure() before. */
#ifndef DG_TESTS_FOLDER_CASE_H
#define DG_TESTS_FOLDER_CASE_H

#include "golden_blocks.h"

/* A copy of FOLDER, changed by a shell command, is refused by a message that
 * names both. */
static void refuse(const char *change, const char *component, const char *name)
{
    char folder[256], command[900];
    Policy *p = NULL;
    Config c;
    int err;

    tiny_folder(folder);
    snprintf(command, sizeof command,
             "cp -r " FOLDER "/. '%s' && cd '%s' && %s", folder, folder,
             change);
    assert_int_equal(system(command), 0);
    configure(&c, folder);
    err = dg_policy_adopt_folder(&c, 0);
    if (!err)
        err = dg_policy_create(&p, &c);
    if (!err)
        err = dg_policy_load_folder(p, &tiny_comm, 1);
    dg_policy_destroy(p);
    tiny_drop(folder);
    if (err != DG_EIO && err != DG_EFORMAT && err != DG_ENUMERIC)
        fail_msg("after %s: code %d", change, err);
    if (strstr(dg_last_error()->text, component) == NULL ||
        strstr(dg_last_error()->text, name) == NULL)
        fail_msg("after %s: %s", change, dg_last_error()->text);
}

#endif
