#ifndef DG_TESTS_REPORT_BED_H
#define DG_TESTS_REPORT_BED_H
/* A folder for runs that a report is to be made of. */
#include "base/error.h"
#include "report/report.h"
#include "store/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char dir[64];

static int start(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/dg_report_XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int end(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) != 0;
}

/* Good for some more calls. */
static inline const char *in_dir(const char *name)
{
    static char path[16][256];
    static int next;
    char *p = path[next++ % 16];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

#endif
