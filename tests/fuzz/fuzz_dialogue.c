/*
 * Fuzz target: what a user's program that scores says, and what it is sent. The
 * first byte says what the rest is.
 *   'A'      its answer to picture 7, a line
 *   'H'      its first line
 *   'O' 'E'  all that it writes on its standard output, or error
 *   'Q' 'T'  prompts, .jsonl or .txt, that it is sent
 * A score has the picture's id, and no score a reason of one line; lines are those
 * that the bytes have, to the last whole one; a request is one line of JSON with
 * the prompt's text.
 */
#define _GNU_SOURCE /* pipe2, memmem */
#include "../../src/reward/dialogue.h"
#include "../../src/reward/program.h"

#include "base/error.h"
#include "base/legible.h"
#include "base/log.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ID = 7, PIPE_BYTES = 60000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void must(int holds)
{
    if (!holds)
        abort();
}

/* UTF-8 that steers nothing, and stays in its line */
static void check_line(const char *text)
{
    for (; *text != '\0'; text += dg_utf8_bytes(text)) {
        must(dg_utf8_bytes(text) > 0);
        must((unsigned char)*text >= ' ' || *text == '\t');
    }
}

static void answer(const char *line)
{
    RewardScore s = { .value = NAN, .strict = NAN };
    const AnswerKind kind = dg_answer_read(&s, line, ID);

    if (kind == DG_ANSWER_SCORE) {
        must(!isnan(s.value));
        must(isnan(s.strict) || s.strict == 0 || s.strict == 1);
        must(strstr(line, "7") != NULL || strchr(line, '.') != NULL);
        must(strchr(line, '{') != NULL && strchr(line, '}') != NULL);
        return;
    }
    must(isnan(s.value));
    must(kind == DG_ANSWER_MISSING || kind == DG_ANSWER_BROKEN);
    must(dg_last_error()->text[0] != '\0');
    check_line(dg_last_error()->text);
}

static void hello(const char *line)
{
    char version[DG_VERSION_BYTES];

    memset(version, 'x', sizeof version);
    if (dg_answer_hello(version, line) == DG_OK) {
        must(memchr(version, '\0', sizeof version) != NULL);
        check_line(version);
    } else {
        check_line(dg_last_error()->text);
    }
}

/* A program that has ended, as far as is seen of it, and has said this. */
static void open_said(Program *p, int *fd, const uint8_t *data, size_t size)
{
    int ends[2], other[2];

    *p = (Program) { .name = "x", .in = -1, .out = -1, .err = -1, .leash = -1 };
    must(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    must(pipe2(other, O_CLOEXEC | O_NONBLOCK) == 0);
    must(write(ends[1], data, size) == (ssize_t)size);
    must(close(ends[1]) == 0 && close(other[1]) == 0);
    p->out = fd == &p->out ? ends[0] : other[0];
    p->err = fd == &p->out ? other[0] : ends[0];
}

static void close_said(Program *p)
{
    close(p->out);
    if (p->err >= 0)
        close(p->err);
}

/* A line is that which the bytes have next, without its end. */
static void output(const uint8_t *data, size_t size)
{
    static const ProgramBytes nothing[2] = { { NULL, 0 }, { NULL, 0 } };
    const ProgramPatience patience = { 60, NULL };
    const char *line;
    ProgramEnd end;
    Program p;

    if (size > PIPE_BYTES)
        return;
    open_said(&p, &p.out, data, size);
    while ((end = dg_program_ask(&p, nothing, &patience, &line)) ==
           DG_PROGRAM_LINE_THERE) {
        const uint8_t *stop = memchr(data, '\n', size);
        size_t num;

        must(stop != NULL);
        num = (size_t)(stop - data);
        size -= num + 1;
        num -= num > 0 && data[num - 1] == '\r';
        must(strlen(line) == num && num < DG_PROGRAM_LINE);
        for (size_t i = 0; i < num; i++)
            must((uint8_t)line[i] == data[i] || data[i] == '\0');
        data = stop + 1;
        answer(line);
    }
    must(end == DG_PROGRAM_LONG
             ? size >= DG_PROGRAM_LINE &&
                   memchr(data, '\n', DG_PROGRAM_LINE) == NULL
             : end == DG_PROGRAM_ENDED && memchr(data, '\n', size) == NULL);
    close_said(&p);
}

static void error(const uint8_t *data, size_t size)
{
    static const ProgramBytes nothing[2] = { { NULL, 0 }, { NULL, 0 } };
    const ProgramPatience patience = { 60, NULL };
    const char *line;
    Program p;

    if (size > PIPE_BYTES)
        return;
    open_said(&p, &p.err, data, size);
    must(dg_program_ask(&p, nothing, &patience, &line) == DG_PROGRAM_ENDED);
    must(memchr(p.said, '\0', sizeof p.said) != NULL);
    must(strchr(p.said, '\n') == NULL && strchr(p.said, '\r') == NULL);
    must(memmem(data, size, p.said, strlen(p.said)) != NULL ||
         memchr(data, '\0', size) != NULL);
    close_said(&p);
}

static void request(const Prompt *prompt)
{
    const Request r = { .id = ID,
                        .prompt = prompt,
                        .height = 64,
                        .width = 48,
                        .quantize = DG_QUANTIZE_TRUNC };
    const size_t bytes = dg_request_write(NULL, 0, &r);
    char *text = malloc(bytes + 1);
    cJSON *o;

    must(text != NULL);
    text[bytes] = '\0';
    must(dg_request_write(text, bytes, &r) == bytes && strlen(text) == bytes);
    must(strchr(text, '\n') == text + bytes - 1);
    o = cJSON_ParseWithOpts(text, NULL, 1);
    must(o != NULL);
    must(strcmp(cJSON_GetObjectItem(o, "prompt")->valuestring, prompt->text) ==
         0);
    must(cJSON_GetObjectItem(o, "id")->valueint == ID);
    must(cJSON_HasObjectItem(o, "metadata") == (prompt->json != NULL));
    must(cJSON_GetObjectItem(o, "height")->valueint == 64);
    cJSON_Delete(o);
    free(text);
}

static void prompts(const char *name, const char *text, size_t size)
{
    PromptList list;

    if (dg_prompts_parse(&list, name, text, size) != DG_OK)
        return;
    for (int32_t i = 0; i < list.num; i++)
        request(&list.item[i]);
    dg_prompts_free(&list);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    dg_log_setup(0, DG_LOG_ERROR);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *line;

    if (size == 0)
        return 0;
    line = strndup((const char *)data + 1, size - 1);
    must(line != NULL);
    line[strcspn(line, "\n")] = '\0';
    switch (data[0]) {
    case 'A':
        answer(line);
        break;
    case 'H':
        hello(line);
        break;
    case 'O':
        output(data + 1, size - 1);
        break;
    case 'E':
        error(data + 1, size - 1);
        break;
    case 'Q':
    case 'T':
        prompts(data[0] == 'Q' ? "x.jsonl" : "x.txt", (const char *)data + 1,
                size - 1);
        break;
    default:
        break;
    }
    free(line);
    return 0;
}
