#include "cli/command.h"

#include "base/error.h"
#include "base/legible.h"
#include "base/log.h"
#include "store/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int dg_cli_ended(RunEnd end)
{
    if (end == DG_RUN_DONE)
        return DG_OK;
    dg_info("stopped early: the same command goes on");
    return DG_ESTOP;
}

int dg_cli_number(int *out, const char *flag, const char *text, int least,
                  int most)
{
    char *end;
    const long value = strtol(text, &end, 10); /* of too many digits: the end */

    if (end == text || *end != '\0' || value < least || value > most)
        return dg_fail(DG_EUSAGE, "%s %s: must be %d to %d", flag, text, least,
                       most);
    *out = (int)value;
    return DG_OK;
}

int dg_cli_tell(const void *figures, CliText *text, CliText *json,
                const char *path)
{
    char *made = NULL;
    int err = text(&made, figures);

    if (err)
        return err;
    dg_legible_put(stdout, made, strlen(made));
    free(made);
    if (path == NULL)
        return DG_OK;
    err = json(&made, figures);
    if (err)
        return err;
    err = dg_file_write(path, made, strlen(made));
    free(made);
    return err;
}
