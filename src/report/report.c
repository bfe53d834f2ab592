#include "report/report.h"

#include "base/error.h"
#include "sections.h"
#include "store/file.h"
#include "store/rundir.h"

#include <stdio.h>
#include <stdlib.h>

/* One page; its memory belongs to the caller, in any case. */
static int make_page(Page *p, const Run *run)
{
    Health *h = malloc(sizeof *h);

    if (h == NULL)
        return dg_fail(DG_ENOMEM, "report of %s", run->dir);
    dg_health_find(h, run);
    dg_section_head(p, run);
    dg_section_summary(p, run, h);
    dg_section_health(p, h);
    dg_section_curves(p, run);
    dg_section_pictures(p, run);
    dg_section_evaluation(p, run);
    dg_section_end(p, run);
    const int failed = h->failed || p->failed;
    free(h);
    return failed ? dg_fail(DG_ENOMEM, "report of %s", run->dir) : DG_OK;
}

int dg_report_write(const char *run_dir)
{
    Run *run = malloc(sizeof *run);
    char path[DG_RUNDIR_PATH + 16];
    Page page = { 0 };
    int err;

    if (run == NULL)
        return dg_fail(DG_ENOMEM, "report of %s", run_dir);
    err = dg_run_read(run, run_dir);
    if (!err)
        err = make_page(&page, run);
    if (!err) {
        snprintf(path, sizeof path, "%s/report.html", run_dir);
        err = dg_file_write(path, page.bytes, page.used);
    }
    dg_page_free(&page);
    dg_run_release(run);
    free(run);
    return err;
}
