#include "sections.h"

/* In pieces: a compiler need not take longer strings. */
static const char *const style[] = {
    ":root{color-scheme:light dark;"
    "--bg:#fcfcfa;--card:#fff;--ink:#1d2126;--soft:#5d6670;--line:#e3e4e0;"
    "--zero:#b4b8b9;--c0:#1f5fa8;--c1:#0f766e;--c2:#b45309;--c3:#6d4aa8;"
    "--c4:#6b7280;--c5:#b0275a;--good:#13713a;--goodbg:#e4f3e8;"
    "--look:#8a5300;--lookbg:#fbf0d9;--wrong:#b1201f;--wrongbg:#fbe6e4;"
    "--unk:#5d6670;--unkbg:#eeefec}"
    "@media(prefers-color-scheme:dark){:root{"
    "--bg:#14171a;--card:#1b1f23;--ink:#e8e9e6;--soft:#a0a8ae;--line:#30363c;"
    "--zero:#626a71;--c0:#7db4f2;--c1:#54c7b0;--c2:#efa556;--c3:#bda0ee;"
    "--c4:#a0a8ae;--c5:#f08bb0;--good:#7bd69a;--goodbg:#17301f;"
    "--look:#eebc63;--lookbg:#352a14;--wrong:#ff9a92;--wrongbg:#401d1b;"
    "--unk:#a0a8ae;--unkbg:#272c31}}\n",
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 "
    "system-ui,-apple-system,\"Segoe UI\",Inter,Roboto,\"Helvetica Neue\","
    "Arial,sans-serif;font-variant-numeric:tabular-nums}"
    "main{max-width:1240px;margin:0 auto;padding:40px 28px 56px}"
    ".eyebrow{margin:0;color:var(--soft);font-size:14px}"
    "h1{margin:2px 0 12px;font-size:30px;line-height:1.2;font-weight:650;"
    "letter-spacing:-.01em;overflow-wrap:anywhere}"
    "h2{margin:52px 0 4px;font-size:20px;font-weight:650;"
    "letter-spacing:-.005em}"
    "h3{margin:26px 0 10px;font-size:15px;font-weight:600;"
    "color:var(--soft)}"
    ".lead{margin:0 0 4px;font-size:18px;line-height:1.55;max-width:64em}"
    ".under{margin:0 0 16px;color:var(--soft);font-size:14px;"
    "max-width:64em}\n",
    ".tiles{display:grid;gap:12px;margin:24px 0 0;padding:0;"
    "grid-template-columns:repeat(auto-fit,minmax(180px,1fr))}"
    ".tiles div{background:var(--card);border:1px solid var(--line);"
    "border-radius:8px;padding:12px 16px}"
    ".tiles dt{color:var(--soft);font-size:13px}"
    ".tiles dd{margin:2px 0 0;font-size:22px;font-weight:600;"
    "line-height:1.3}"
    ".tiles small{display:block;color:var(--soft);font-size:13px;"
    "font-weight:400}\n",
    ".health{list-style:none;margin:12px 0 0;padding:0;"
    "background:var(--card);border:1px solid var(--line);"
    "border-radius:8px}"
    ".health li{display:grid;grid-template-columns:108px 290px 1fr;gap:4px "
    "16px;padding:9px 16px;border-top:1px solid var(--line);"
    "font-size:15px;align-items:baseline}"
    ".health li:first-child{border-top:0}"
    ".health b{font-weight:600}"
    ".health p{margin:0}.health .advice{color:var(--soft);margin-top:2px}"
    ".badge{display:inline-block;border-radius:99px;padding:1px 10px;"
    "font-size:13px;font-weight:600;white-space:nowrap}"
    ".badge.good{color:var(--good);background:var(--goodbg)}"
    ".badge.look{color:var(--look);background:var(--lookbg)}"
    ".badge.wrong{color:var(--wrong);background:var(--wrongbg)}"
    ".badge.unknown{color:var(--unk);background:var(--unkbg)}\n",
    ".charts{display:grid;gap:14px;"
    "grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr))}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);"
    "border-radius:8px;padding:12px 14px 6px;display:flex;"
    "flex-direction:column}"
    "figcaption{font-size:15px;line-height:1.4;flex:1;margin-bottom:6px}"
    "figcaption b{font-weight:600}"
    "figcaption small{display:block;color:var(--soft);font-size:13px}"
    ".u{color:var(--soft);font-size:13px}"
    "svg{display:block;width:100%;height:auto;overflow:visible}"
    "svg text{font-size:11.5px;fill:var(--soft)}"
    "svg .e{font-weight:600;font-size:12px}"
    ".g,.z,.l,.r{fill:none}.g{stroke:var(--line)}.z{stroke:var(--zero)}"
    ".l{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".r{stroke-width:1;opacity:.3;stroke-linejoin:round}"
    ".b{opacity:.13}.a{opacity:.8}"
    ".p{stroke-width:2}.h{fill:transparent}"
    ".h:hover{fill:var(--ink);fill-opacity:.07}\n",
    ".l.c0,.r.c0,.p.c0{stroke:var(--c0)}.l.c1,.r.c1,.p.c1{stroke:var(--c1)}"
    ".l.c2,.r.c2,.p.c2{stroke:var(--c2)}.l.c3,.r.c3,.p.c3{stroke:var(--c3)}"
    ".l.c4,.r.c4,.p.c4{stroke:var(--c4)}.l.c5,.r.c5,.p.c5{stroke:var(--c5)}"
    ".b.c0,.a.c0,.d.c0,svg .e.c0{fill:var(--c0)}"
    ".b.c1,.a.c1,.d.c1,svg .e.c1{fill:var(--c1)}"
    ".b.c2,.a.c2,.d.c2,svg .e.c2{fill:var(--c2)}"
    ".b.c3,.a.c3,.d.c3,svg .e.c3{fill:var(--c3)}"
    ".b.c4,.a.c4,.d.c4,svg .e.c4{fill:var(--c4)}"
    ".b.c5,.a.c5,.d.c5,svg .e.c5{fill:var(--c5)}"
    "svg .p{fill:var(--card)}\n",
    ".cards{display:grid;gap:18px 20px;margin-top:12px;"
    "grid-template-columns:repeat(auto-fill,minmax(212px,1fr))}"
    ".cards p{margin:6px 0 0;font-size:14px;line-height:1.35}"
    ".pair{display:flex;gap:10px}.pair span{font-size:12.5px;"
    "color:var(--soft)}"
    ".tile{width:100px;height:100px;border-radius:4px;"
    "outline:1px solid var(--line);print-color-adjust:exact;"
    "-webkit-print-color-adjust:exact}"
    ".pixels{image-rendering:pixelated}"
    ".wide{overflow-x:auto}.film{border-collapse:separate;"
    "border-spacing:6px;margin-left:-6px}"
    ".film th{font-weight:400;font-size:13px;color:var(--soft);"
    "text-align:left;vertical-align:top;max-width:100px;line-height:1.3}"
    ".film .tile{width:72px;height:72px}\n",
    ".scores{border-collapse:collapse;font-size:15px;width:100%;"
    "background:var(--card);border:1px solid var(--line)}"
    ".scores th,.scores td{padding:5px 14px;text-align:right;"
    "border-top:1px solid var(--line);white-space:nowrap}"
    ".scores thead th{border-top:0;font-size:13px;font-weight:500;"
    "color:var(--soft)}"
    ".scores td small{color:var(--soft);font-size:13px}"
    ".scores tbody th,.scores thead th:first-child{text-align:left;"
    "font-weight:500}"
    ".scores .sum th,.scores .sum td{font-weight:600}"
    ".scores .up{color:var(--good);font-weight:600}"
    ".scores .down{color:var(--wrong);font-weight:600}"
    ".iv{width:220px;height:24px}.scores td:last-child,.scores "
    "th:last-child{width:248px;padding-top:0;padding-bottom:0}"
    ".scores.runs tr>*{width:auto;padding:5px 8px;font-size:14px}.key{display:"
    "inline-block;width:11px;"
    "height:11px;border-radius:50%;margin:0 3px 0 10px;"
    "border:2px solid var(--c4)}.key.full{background:var(--c0);"
    "border-color:var(--c0)}\n",
    "details{margin-top:14px}summary{cursor:pointer;font-weight:600}"
    "pre{background:var(--card);border:1px solid var(--line);"
    "border-radius:8px;padding:14px 18px;overflow-x:auto;"
    "font:13px/1.5 ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans "
    "Mono\",monospace}"
    "footer{margin-top:56px;padding-top:14px;border-top:1px solid "
    "var(--line);color:var(--soft);font-size:13px}"
    "code{font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans "
    "Mono\",monospace;font-size:.92em}"
    "@media(max-width:820px){main{padding:24px 16px}"
    ".health li{grid-template-columns:auto 1fr}"
    ".health li>div{grid-column:1/-1}}"
    "@media print{main{max-width:none;padding:0}figure,.health li,.cards>div{"
    "break-inside:avoid}}\n",
};

void dg_section_head(Page *p, const Run *run)
{
    dg_page_put(p, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                   "<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, "
                   "initial-scale=1\">\n<title>");
    dg_page_text(p, run->dir);
    dg_page_put(p, " \u00b7 dancegrpo</title>\n<style>\n");
    for (size_t i = 0; i < sizeof style / sizeof *style; i++)
        dg_page_put(p, "%s", style[i]);
    /* every strip is in the file once, and used by many tiles */
    dg_page_put(p, ":root{");
    for (int i = 0; i < run->num_strips; i++) {
        dg_page_put(p, "--s%d:url(data:image/png;base64,", i);
        dg_page_base64(p, run->strip[i].png, run->strip[i].bytes);
        dg_page_put(p, ");");
    }
    dg_page_put(p, "}\n</style>\n</head>\n<body>\n<main>\n");
}
