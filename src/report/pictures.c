#include "sections.h"

#include <math.h>

/* Picture i of a strip, as the background of an element. */
static void put_tile(Page *p, const Run *run, int strip, int64_t i)
{
    const Strip *s = &run->strip[strip];
    const int64_t num = s->num;
    const double x = num > 1 ? 100.0 * (double)i / (double)(num - 1) : 0;

    dg_page_put(p,
                "<div class=\"tile%s\" role=\"img\" style=\"background:"
                "var(--s%d) %.6g%% 0/%lld%% 100%%",
                s->height <= 128 ? " pixels" : "", strip, x,
                (long long)(100 * num));
    if (s->width != num * s->height)
        dg_page_put(p, ";height:auto;aspect-ratio:%lld/%lld",
                    (long long)(s->width / num), (long long)s->height);
    dg_page_put(p, "\" aria-label=\"");
    if (i < run->num_captions)
        dg_page_text(p, run->caption[i]);
    dg_page_put(p, ", iteration %lld\"></div>", (long long)s->iteration);
}

static void put_cards(Page *p, const Run *run)
{
    const int last = run->num_strips - 1;
    const Strip *a = &run->strip[0], *b = &run->strip[last];

    dg_page_put(p, "<div class=\"cards\">\n");
    for (int64_t i = 0; i < a->num || i < b->num; i++) {
        dg_page_put(p, "<div><div class=\"pair\">");
        if (i < a->num) {
            dg_page_put(p, "<div>");
            put_tile(p, run, 0, i);
            if (a->iteration == 0)
                dg_page_put(p, "<span>before</span></div>");
            else
                dg_page_put(p, "<span>after %lld</span></div>",
                            (long long)a->iteration);
        }
        if (last > 0 && i < b->num) {
            dg_page_put(p, "<div>");
            put_tile(p, run, last, i);
            dg_page_put(p, "<span>after %lld</span></div>",
                        (long long)b->iteration);
        }
        dg_page_put(p, "</div><p>");
        if (i < run->num_captions)
            dg_page_text(p, run->caption[i]);
        dg_page_put(p, "</p></div>\n");
    }
    dg_page_put(p, "</div>\n");
}

static void put_film(Page *p, const Run *run)
{
    int64_t most = 0;

    dg_page_put(p, "<details open><summary>On the way</summary>\n"
                   "<div class=\"wide\"><table class=\"film\">\n");
    for (int s = 0; s < run->num_strips; s++) {
        const int64_t num = run->strip[s].num;

        dg_page_put(p, "<tr><th>%s%lld</th>", s == 0 ? "iteration " : "",
                    (long long)run->strip[s].iteration);
        for (int64_t i = 0; i < num; i++) {
            dg_page_put(p, "<td>");
            put_tile(p, run, s, i);
            dg_page_put(p, "</td>");
        }
        most = num > most ? num : most;
        dg_page_put(p, "</tr>\n");
    }
    dg_page_put(p, "</table></div></details>\n");
}

void dg_section_pictures(Page *p, const Run *run)
{
    if (run->num_strips == 0)
        return;
    dg_page_put(p,
                "<section>\n<h2>Pictures, %s</h2>\n<p class=\"under\">Fixed "
                "prompts and seeds, sampled without noise between the steps, "
                "so that two pictures of one prompt differ only by the "
                "policy.",
                run->num_strips > 1 ? "before and after" : "so far");
    if (run->all_strips > run->num_strips)
        dg_page_put(p, " %d of the %d saved strips, evenly spread.",
                    run->num_strips, run->all_strips);
    dg_page_put(p, "</p>\n");
    put_cards(p, run);
    if (run->num_strips > 2)
        put_film(p, run);
    dg_page_put(p, "</section>\n");
}
