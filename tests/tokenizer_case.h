#ifndef DG_TESTS_TOKENIZER_CASE_H
#define DG_TESTS_TOKENIZER_CASE_H
/*
 * Shared by the tests of the tokenizers: files, the goldens of
 * tests/golden/tokenizers.jsonl, small spiece.model files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "base/error.h"
#include "store/file.h"
#include "text/tokenizer.h"

#define GOLDEN "tests/golden/"

enum { CASE_MOST_IDS = 512 };

typedef int CaseEncode(const void *tokenizer, int32_t *ids, int32_t length,
                       TokenCount *count, const char *text);

static inline int case_same(const cJSON *want, const int32_t *ids, int32_t used)
{
    int i = 0;
    const cJSON *id;

    if (cJSON_GetArraySize(want) != used)
        return 0;
    cJSON_ArrayForEach(id, want)
    {
        if ((int32_t)id->valuedouble != ids[i++])
            return 0;
    }
    return 1;
}

/* Ids, their number, whether they were cut, and the pads behind them. */
static inline int case_line(const cJSON *line, const char *key,
                            const char *otherwise, int32_t length,
                            CaseEncode *encode, const void *tokenizer)
{
    const char *text =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "text"));
    const cJSON *want = cJSON_GetObjectItemCaseSensitive(line, key);
    int32_t ids[CASE_MOST_IDS + 1];
    TokenCount count;
    char cut[32];
    int ok;

    snprintf(cut, sizeof cut, "%s_n", want != NULL ? key : otherwise);
    if (want == NULL)
        want = cJSON_GetObjectItemCaseSensitive(line, otherwise);
    assert_true(text != NULL && cJSON_IsArray(want));
    ids[length] = -77;
    assert_int_equal(encode(tokenizer, ids, length, &count, text), DG_OK);
    ok = case_same(want, ids, count.used) && ids[length] == -77 &&
         count.truncated ==
             (cJSON_GetObjectItemCaseSensitive(line, cut) != NULL);
    for (int i = count.used + 1; i < length; i++)
        ok &= ids[i] == ids[count.used];
    if (!ok)
        print_error("%s: other ids for \"%.80s\" (%d, first %d %d %d)\n", key,
                    text, count.used, ids[0], ids[1], ids[2]);
    return ok;
}

/* Runs all texts; key's ids, or otherwise's where a line has no key. */
static inline void case_goldens(const char *key, const char *otherwise,
                                int32_t length, CaseEncode *encode,
                                const void *tokenizer)
{
    char *text, *at;
    size_t bytes;
    int lines = 0, bad = 0;

    assert_int_equal(dg_file_read(GOLDEN "tokenizers.jsonl", &text, &bytes),
                     DG_OK);
    for (at = text; *at != '\0';) {
        const char *end = NULL;
        cJSON *line = cJSON_ParseWithOpts(at, &end, 0);

        assert_non_null(line);
        bad += !case_line(line, key, otherwise, length, encode, tokenizer);
        cJSON_Delete(line);
        lines++;
        at += end - at + (*end == '\n');
    }
    free(text);
    assert_true(lines >= 500);
    assert_int_equal(bad, 0);
}

static inline void case_expect(const int32_t *want, int32_t num,
                               CaseEncode *encode, const void *tokenizer,
                               const char *text)
{
    int32_t ids[CASE_MOST_IDS];
    TokenCount count;

    assert_int_equal(encode(tokenizer, ids, CASE_MOST_IDS, &count, text),
                     DG_OK);
    assert_int_equal(count.used, num);
    assert_memory_equal(ids, want, (size_t)num * sizeof *ids);
}

/* The last error's text has part in it. */
static inline void case_said(const char *part)
{
    if (strstr(dg_last_error()->text, part) == NULL)
        print_error("\"%s\" lacks \"%s\"\n", dg_last_error()->text, part);
    assert_non_null(strstr(dg_last_error()->text, part));
}

/* A folder of its own for a test, and files in it. */
static inline void case_folder(char path[256])
{
    const char *tmp = getenv("TMPDIR");

    snprintf(path, 256, "%.200s/dancegrpo.XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(path));
}

static inline void case_write(const char *folder, const char *name,
                              const void *data, size_t size)
{
    char path[512];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(dg_file_write(path, data, size), DG_OK);
}

static inline void case_remove(const char *folder)
{
    char command[600];

    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* A protobuf message in the making. */
typedef struct Message {
    unsigned char at[8192];
    size_t used;
} Message;

static inline void case_varint(Message *m, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        m->at[m->used++] = (unsigned char)(v | 0x80);
    m->at[m->used++] = (unsigned char)v;
}

static inline void case_bytes(Message *m, int field, const void *data,
                              size_t size)
{
    case_varint(m, (uint64_t)field << 3 | 2);
    case_varint(m, size);
    memcpy(m->at + m->used, data, size);
    m->used += size;
}

static inline void case_number(Message *m, int field, uint64_t v)
{
    case_varint(m, (uint64_t)field << 3);
    case_varint(m, v);
}

static inline void case_piece(Message *m, const char *text, float score,
                              int type)
{
    Message p = { .used = 0 };

    case_bytes(&p, 1, text, strlen(text));
    case_varint(&p, 2 << 3 | 5);
    memcpy(p.at + p.used, &score, sizeof score);
    p.used += sizeof score;
    case_number(&p, 3, (uint64_t)type);
    case_bytes(m, 1, p.at, p.used);
}

/* <pad>, </s>, <unk> as T5 has them. */
static inline void case_marks(Message *m)
{
    m->used = 0;
    case_piece(m, "<pad>", 0, 3);
    case_piece(m, "</s>", 0, 3);
    case_piece(m, "<unk>", 0, 2);
    case_bytes(m, 3, "", 0); /* a normalizer of defaults */
}

#endif
