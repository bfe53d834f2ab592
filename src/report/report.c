#include "report/report.h"

#include "base/error.h"
#include "base/legible.h"
#include "base/wrap.h"
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

static void tell(FILE *out, const Health *h)
{
    static const char *const word[] = { "good", "?", "look", "WRONG" };
    int order[DG_FINDINGS] = { 0 };

    dg_health_order(order, h);
    fprintf(out, "%s\n", dg_health_verdict(h));
    for (int i = 0; i < h->num; i++) {
        const Finding *f = &h->finding[order[i]];
        char text[2 * DG_FINDING_BYTES];

        snprintf(text, sizeof text, "%s %s", f->question, f->answer);
        dg_legible(text);
        fprintf(out, "%-5s  ", word[f->level]);
        dg_wrap(out, 7, 7, text);
        if (*f->advice) {
            fprintf(out, "%7s", "");
            dg_wrap(out, 7, 7, f->advice);
        }
    }
}

int dg_report_tell(FILE *out, const char *run_dir)
{
    Health *h = calloc(1, sizeof *h);
    Run *run = calloc(1, sizeof *run);
    int err = h == NULL || run == NULL
                  ? dg_fail(DG_ENOMEM, "report of %s", run_dir)
                  : dg_run_read(run, run_dir);

    if (!err) {
        dg_health_find(h, run);
        err = h->failed ? dg_fail(DG_ENOMEM, "report of %s", run_dir) : DG_OK;
    }
    if (!err)
        tell(out, h);
    if (run != NULL)
        dg_run_release(run);
    free(run);
    free(h);
    return err;
}
