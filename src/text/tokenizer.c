#include "text/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "buffer.h"
#include "json_text.h"
#include "text/clip_bpe.h"
#include "text/t5_unigram.h"

struct Tokenizer {
    ClipBpe *clip; /* one of the two */
    T5Unigram *t5;
};

static int there(const char *folder, const char *name, int *found)
{
    char path[1024];
    Bytes file;
    int err = dg_bytes_read_in(&file, path, sizeof path, folder, name, 0);

    *found = file.at != NULL;
    dg_bytes_free(&file);
    return err;
}

/* 1: the folder's tokenizer.json has a Unigram model; 0: another one, or
 * there is no such file. */
static int is_unigram(const char *folder, int *unigram, int *found)
{
    char path[1024];
    Bytes file;
    cJSON *json = NULL;
    const char *type;
    int err =
        dg_bytes_read_in(&file, path, sizeof path, folder, "tokenizer.json", 0);

    *unigram = 0;
    *found = file.at != NULL;
    if (!err && file.at != NULL)
        err = dg_json_parse(&json, path, file.at, file.used);
    type = dg_json_string(dg_json_get(json, "model"), "type");
    if (!err && type != NULL)
        *unigram = strcmp(type, "Unigram") == 0;
    cJSON_Delete(json);
    dg_bytes_free(&file);
    return err;
}

static int choose(const char *folder, TokenizerKind *kind)
{
    int unigram, json, merges = 0, spiece = 0;
    int err = is_unigram(folder, &unigram, &json);

    if (!err)
        err = there(folder, "merges.txt", &merges);
    if (!err)
        err = there(folder, "spiece.model", &spiece);
    if (err)
        return err;
    if (!unigram && !merges && !spiece && !json && access(folder, F_OK) != 0)
        return dg_fail(DG_EIO, "tokenizer folder %s: %s", folder,
                       strerror(errno));
    if (!unigram && !merges && !spiece && !json)
        return dg_fail(DG_EIO,
                       "tokenizer folder %s: no tokenizer.json, spiece.model "
                       "(T5) or merges.txt (CLIP) in it",
                       folder);
    *kind = unigram || (spiece && !merges && !json) ? DG_TOKENIZER_T5
                                                    : DG_TOKENIZER_CLIP;
    return DG_OK;
}

static int open_folder(Tokenizer *t, const char *folder)
{
    TokenizerKind kind = DG_TOKENIZER_CLIP;
    const int err = choose(folder, &kind);

    if (err)
        return err;
    return kind == DG_TOKENIZER_CLIP ? dg_clip_bpe_open(&t->clip, folder)
                                     : dg_t5_unigram_open(&t->t5, folder);
}

int dg_tokenizer_open(Tokenizer **out, const char *path)
{
    Tokenizer *t = calloc(1, sizeof *t);
    struct stat s;
    int err;

    if (t == NULL)
        return dg_fail(DG_ENOMEM, "tokenizer %s", path);
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode))
        err = dg_clip_bpe_open_list(&t->clip, path);
    else
        err = open_folder(t, path);
    if (err)
        free(t);
    else
        *out = t;
    return err;
}

const TokenizerInfo *dg_tokenizer_info(const Tokenizer *t)
{
    return t->clip != NULL ? dg_clip_bpe_info(t->clip)
                           : dg_t5_unigram_info(t->t5);
}

int dg_tokenizer_encode(const Tokenizer *t, int32_t *ids, int32_t length,
                        TokenCount *count, const char *text)
{
    return t->clip != NULL
               ? dg_clip_bpe_encode(t->clip, ids, length, count, text)
               : dg_t5_unigram_encode(t->t5, ids, length, count, text);
}

void dg_tokenizer_destroy(Tokenizer *t)
{
    if (t == NULL)
        return;
    dg_clip_bpe_destroy(t->clip);
    dg_t5_unigram_destroy(t->t5);
    free(t);
}
