#include "text/words.h"

#include <string.h>

#include "base/error.h"
#include "world/meta.h"

static int find(const Words *w, const char *word)
{
    for (int i = 0; i < w->num; i++)
        if (strcmp(w->word[i], word) == 0)
            return i;
    return -1;
}

static int add(Words *w, const char *word, size_t len)
{
    char *slot;

    if (w->num == DG_WORDS_MAX)
        return dg_fail(DG_EFORMAT, "vocabulary: more than %d entries",
                       DG_WORDS_MAX);
    if (len < 1 || len >= DG_WORDS_BYTES || memchr(word, '\n', len) != NULL)
        return dg_fail(DG_EFORMAT,
                       "vocabulary: entry %d must have 1 to %d bytes on one "
                       "line",
                       w->num, DG_WORDS_BYTES - 1);
    slot = w->word[w->num];
    memset(slot, 0, DG_WORDS_BYTES);
    memcpy(slot, word, len);
    if (find(w, slot) >= 0)
        return dg_fail(DG_EFORMAT, "vocabulary: \"%s\" is there twice", slot);
    w->num++;
    return DG_OK;
}

static int finish(Words *w)
{
    w->pad = find(w, DG_WORDS_PAD);
    w->eos = find(w, DG_WORDS_EOS);
    w->unk = find(w, DG_WORDS_UNK);
    if (w->pad != 0 || w->eos < 0 || w->unk < 0)
        return dg_fail(DG_EFORMAT,
                       "vocabulary: needs " DG_WORDS_PAD " as entry 0, "
                       "and " DG_WORDS_EOS " and " DG_WORDS_UNK);
    return DG_OK;
}

int dg_words_init(Words *out, const char *const *entries, int num)
{
    Words w;
    int err = DG_OK;

    memset(&w, 0, sizeof w);
    for (int i = 0; i < num && !err; i++)
        err = add(&w, entries[i], strlen(entries[i]));
    if (!err)
        err = finish(&w);
    if (!err)
        *out = w;
    return err;
}

void dg_words_world(Words *out, WordsOrder order)
{
    const char *entries[DG_WORDS_MAX];
    int num_words, num = 0;
    const char *const *words = dg_world_words(&num_words);

    entries[num++] = DG_WORDS_PAD;
    if (order == DG_WORDS_EOS_FIRST)
        entries[num++] = DG_WORDS_EOS;
    entries[num++] = DG_WORDS_UNK;
    for (int i = 0; i < num_words && num < DG_WORDS_MAX; i++)
        entries[num++] = words[i];
    if (order == DG_WORDS_EOS_LAST && num < DG_WORDS_MAX)
        entries[num++] = DG_WORDS_EOS;
    if (dg_words_init(out, entries, num) != DG_OK)
        dg_panic("%s", dg_last_error()->text);
}

static const char separators[] = " \t\r\n,.";

static int look_up(const Words *w, const char *word, size_t len, int allow_unk,
                   int32_t *id)
{
    char lower[DG_WORDS_BYTES] = "";

    *id = w->unk;
    if (len < sizeof lower) {
        for (size_t i = 0; i < len; i++) {
            char c = word[i];

            lower[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        }
        if (find(w, lower) >= 0) {
            *id = find(w, lower);
            return DG_OK;
        }
    }
    if (allow_unk)
        return DG_OK;
    return dg_fail(DG_EINVAL,
                   "word \"%.*s\" is not in the vocabulary of this policy "
                   "(%d words of the shapes world)",
                   (int)(len < 60 ? len : 60), word, w->num - 3);
}

int dg_words_encode(const Words *w, int32_t *ids, int32_t *num_used,
                    const char *text, int length, int allow_unk)
{
    const char *p = text;
    int num = 0;

    while (*(p += strspn(p, separators)) != '\0') {
        size_t len = strcspn(p, separators);
        int32_t id;
        int err = look_up(w, p, len, allow_unk, &id);

        if (err)
            return err;
        if (num < length)
            ids[num] = id;
        num++;
        p += len;
    }
    if (num + 1 > length)
        return dg_fail(DG_EINVAL,
                       "prompt \"%.80s\" has %d words: the text encoder takes "
                       "%d and the end mark",
                       text, num, length - 1);
    ids[num++] = w->eos;
    if (num_used != NULL)
        *num_used = num;
    while (num < length)
        ids[num++] = w->pad;
    return DG_OK;
}
