/*
 * Fuzz target: JSON that the program reads. The first byte says what the
 * rest is.
 *   'P' 'T'  prompts, .jsonl or .txt
 *   'M'      metadata of a caption
 *   'R'      files of a run folder, a zero byte between them: metrics.jsonl,
 *            evaluation_before.json, pictures/prompts.json; their report
 *   'K'      metrics.jsonl, to be cut for a resume
 * What is accepted has to be whole: texts with an end, metadata in range and
 * the same after it was written and read; a report without "nan" in a place.
 */
#include "base/error.h"
#include "report/report.h"
#include "store/file.h"
#include "store/metrics.h"
#include "store/prompts.h"

#include "fuzz_folder.h"

#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void use_meta(const WorldMeta *m)
{
    char text[4096], caption[DG_WORLD_MAX_PROMPT];
    WorldMeta again;

    if (!dg_world_meta_valid(m) || m->tag < DG_TAG_UNKNOWN ||
        m->tag >= DG_NUM_TAGS)
        abort();
    (void)dg_world_caption(caption, sizeof caption, m);
    if (dg_world_meta_write(text, sizeof text, m, "p") != 0 ||
        dg_world_meta_read(&again, text) != 0 ||
        memcmp(m, &again, sizeof again) != 0 ||
        dg_world_meaning(m) != dg_world_meaning(&again))
        abort();
}

static void prompts(const char *name, const char *text, size_t size)
{
    PromptList list;
    uint64_t *meanings;
    size_t num;

    if (dg_prompts_parse(&list, name, text, size) != 0)
        return;
    if (list.num < 1 || dg_prompts_meanings(&meanings, &num, &list) != 0)
        abort();
    for (int i = 0; i < list.num; i++) {
        const Prompt *p = &list.item[i];

        if (strlen(p->text) == 0 || strlen(p->text) > size ||
            strlen(p->tag) > size ||
            (p->json != NULL && strlen(p->json) > size))
            abort();
        if (p->has_meta)
            use_meta(&p->meta);
    }
    free(meanings);
    dg_prompts_free(&list);
}

static void meta(const char *text, size_t size)
{
    char *line = strndup(text, size);
    WorldMeta m;

    if (line == NULL)
        abort();
    if (dg_world_meta_read(&m, line) == 0)
        use_meta(&m);
    free(line);
}

/* No place in a drawing is "nan" or "inf"; texts have their quotes masked. */
static void check_page(void)
{
    static const char *const attributes[] = { " d=\"", "x=\"", "y=\"",
                                              "width=\"", "height=\"" };
    char path[300], *page;
    size_t bytes;

    snprintf(path, sizeof path, "%s/report.html", fuzz_folder);
    if (dg_file_read(path, &page, &bytes) != 0)
        abort();
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
        const char *at = page;

        while ((at = strstr(at, attributes[i])) != NULL) {
            at += strlen(attributes[i]);
            if (memchr(at, 'n', strcspn(at, "\"")) != NULL)
                abort();
        }
    }
    free(page);
}

static void report(const char *text, size_t size)
{
    static const char *const names[] = { "metrics.jsonl",
                                         "evaluation_before.json",
                                         "pictures/prompts.json" };
    char path[300];

    for (int i = 0; i < 3; i++) {
        const char *zero = memchr(text, '\0', size);
        const size_t n = zero != NULL && i < 2 ? (size_t)(zero - text) : size;

        put_fuzz_file(path, names[i], text, n);
        if (n == 0 && i > 0)
            (void)unlink(path);
        text += n < size ? n + 1 : n;
        size -= n < size ? n + 1 : n;
    }
    if (dg_report_write(fuzz_folder) == 0)
        check_page();
}

/* After the cut there are whole lines up to iteration 2; where it would take
 * such a line with it, the file is as it was. */
static void resume(const char *text, size_t size)
{
    char path[300], *left;
    size_t bytes;
    Metrics *m;

    put_fuzz_file(path, "metrics.jsonl", text, size);
    if (dg_metrics_open(&m, path, 2) != 0) {
        if (dg_last_error()->code != DG_EFORMAT ||
            dg_file_read(path, &left, &bytes) != 0 || bytes != size ||
            memcmp(left, text, size) != 0)
            abort();
        free(left);
        return;
    }
    dg_metrics_begin(m, 3);
    if (dg_metrics_commit(m) != 0 || dg_file_read(path, &left, &bytes) != 0 ||
        bytes < 16 || strcmp(left + bytes - 16, "{\"iteration\":3}\n") != 0 ||
        memcmp(left, text, bytes - 16) != 0 ||
        (bytes > 16 && left[bytes - 17] != '\n'))
        abort();
    free(left);
    dg_metrics_close(m);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char pictures[300];

    (void)argc;
    (void)argv;
    make_fuzz_folder();
    snprintf(pictures, sizeof pictures, "%s/pictures", fuzz_folder);
    return mkdir(pictures, 0777);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;

    if (size == 0)
        return 0;
    switch (data[0]) {
    case 'P':
        prompts("x.jsonl", text, size - 1);
        break;
    case 'T':
        prompts("x.txt", text, size - 1);
        break;
    case 'M':
        meta(text, size - 1);
        break;
    case 'R':
        report(text, size - 1);
        break;
    default:
        resume(text, size - 1);
    }
    return 0;
}
