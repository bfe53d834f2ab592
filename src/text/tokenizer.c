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
#include "text/wordpiece.h"

struct Tokenizer {
    ClipBpe *clip; /* one of the three */
    T5Unigram *t5;
    WordPiece *wordpiece;
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

/* What a tokenizer.json says of its model; old ones of BERT do not name it. */
typedef enum Model {
    MODEL_NO_FILE,
    MODEL_UNIGRAM,
    MODEL_WORDPIECE,
    MODEL_OTHER
} Model;

static Model model_of(const cJSON *model)
{
    const char *type = dg_json_string(model, "type");

    if (type != NULL && strcmp(type, "Unigram") == 0)
        return MODEL_UNIGRAM;
    if (type != NULL ? strcmp(type, "WordPiece") == 0
                     : dg_json_get(model, "continuing_subword_prefix") != NULL)
        return MODEL_WORDPIECE;
    return MODEL_OTHER;
}

static int read_model(const char *folder, Model *model)
{
    char path[1024];
    Bytes file;
    cJSON *json = NULL;
    int err =
        dg_bytes_read_in(&file, path, sizeof path, folder, "tokenizer.json", 0);

    *model = MODEL_NO_FILE;
    if (!err && file.at != NULL) {
        err = dg_json_parse(&json, path, file.at, file.used);
        *model = model_of(dg_json_get(json, "model"));
    }
    cJSON_Delete(json);
    dg_bytes_free(&file);
    return err;
}

static int choose(const char *folder, TokenizerKind *kind)
{
    Model model = MODEL_NO_FILE;
    int merges = 0, spiece = 0, vocab = 0;
    int err = read_model(folder, &model);

    if (!err)
        err = there(folder, "merges.txt", &merges);
    if (!err)
        err = there(folder, "spiece.model", &spiece);
    if (!err)
        err = there(folder, "vocab.txt", &vocab);
    if (err)
        return err;
    if (model == MODEL_NO_FILE && !merges && !spiece && !vocab &&
        access(folder, F_OK) != 0)
        return dg_fail(DG_EIO, "tokenizer folder %s: %s", folder,
                       strerror(errno));
    if (model == MODEL_NO_FILE && !merges && !spiece && !vocab)
        return dg_fail(DG_EIO,
                       "tokenizer folder %s: no tokenizer.json, spiece.model "
                       "(T5), merges.txt (CLIP) or vocab.txt (BERT) in it",
                       folder);
    *kind = DG_TOKENIZER_CLIP;
    if (model == MODEL_UNIGRAM || (spiece && !merges && model == MODEL_NO_FILE))
        *kind = DG_TOKENIZER_T5;
    else if (!merges &&
             (model == MODEL_WORDPIECE || (vocab && model == MODEL_NO_FILE)))
        *kind = DG_TOKENIZER_WORDPIECE;
    return DG_OK;
}

static int open_folder(Tokenizer *t, const char *folder)
{
    TokenizerKind kind = DG_TOKENIZER_CLIP;
    const int err = choose(folder, &kind);

    if (err)
        return err;
    if (kind == DG_TOKENIZER_WORDPIECE)
        return dg_wordpiece_open(&t->wordpiece, folder);
    return kind == DG_TOKENIZER_CLIP ? dg_clip_bpe_open(&t->clip, folder)
                                     : dg_t5_unigram_open(&t->t5, folder);
}

/* A file by itself: BERT's list of pieces, or CLIP's of rules. */
static int open_file(Tokenizer *t, const char *path)
{
    Bytes file;
    int err = dg_bytes_read(&file, path, 1), pieces;

    if (err)
        return err;
    pieces = dg_wordpiece_is_list(file.at, file.used);
    dg_bytes_free(&file);
    return pieces ? dg_wordpiece_open_list(&t->wordpiece, path)
                  : dg_clip_bpe_open_list(&t->clip, path);
}

int dg_tokenizer_open(Tokenizer **out, const char *path)
{
    Tokenizer *t = calloc(1, sizeof *t);
    struct stat s;
    int err;

    if (t == NULL)
        return dg_fail(DG_ENOMEM, "tokenizer %s", path);
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode))
        err = open_file(t, path);
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
    if (t->wordpiece != NULL)
        return dg_wordpiece_info(t->wordpiece);
    return t->clip != NULL ? dg_clip_bpe_info(t->clip)
                           : dg_t5_unigram_info(t->t5);
}

int dg_tokenizer_encode(const Tokenizer *t, int32_t *ids, int32_t length,
                        TokenCount *count, const char *text)
{
    if (t->wordpiece != NULL)
        return dg_wordpiece_encode(t->wordpiece, ids, length, count, text);
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
    dg_wordpiece_destroy(t->wordpiece);
    free(t);
}
