/*
 * Fuzz target: files of a tokenizer folder. The first byte says which file
 * the rest is; what opens has to encode without a fault.
 *   '0' vocab.json, a zero byte, merges.txt, a zero byte, tokenizer_config.json
 *   '1' merges.txt alone
 *   '2' tokenizer.json as CLIP's
 *   '3' spiece.model
 *   '4' tokenizer.json as T5's
 *   '5' a character map as it stands in spiece.model, then the text of a prompt
 *   '6' a prompt, for the cleaning of OpenCLIP's texts
 *   '7' vocab.txt of BERT, a zero byte, added_tokens.json
 *   '8' tokenizer.json as BERT's
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/clip_bpe.h"
#include "text/clip_clean.h"
#include "text/t5_unigram.h"
#include "text/wordpiece.h"

static const char *const prompts[] = {
    "",
    "a photo of a cat, it's 42!",
    "\xEF\xBC\xA1 e\xCC\x81 \xE2\x91\xA0\xCC\x81 \xF0\x9F\x98\x80 \t <pad>",
    "<|endoftext|> <|ENDOFTEXT|> \xE2\x96\x81</s><extra_id_7> \xC4\xB0",
};

/* An id that is out of range would read outside an embedding table. */
static void check(const TokenizerInfo *info, const int32_t *ids, int32_t num,
                  const TokenCount *count)
{
    if (count->used < 1 || count->used > num)
        abort();
    for (int32_t i = 0; i < num; i++)
        if (ids[i] < 0 || ids[i] >= info->num_ids)
            abort();
}

static void use_clip(const ClipFiles *f, const char *prompt)
{
    ClipBpe *b = NULL;
    int32_t ids[77];
    TokenCount count;

    if (dg_clip_bpe_create(&b, f) != DG_OK)
        return;
    for (int i = -1; i < 4; i++)
        if (dg_clip_bpe_encode(b, ids, 77, &count,
                               i < 0 ? prompt : prompts[i]) == DG_OK)
            check(dg_clip_bpe_info(b), ids, 77, &count);
    dg_clip_bpe_destroy(b);
}

static void use_t5(T5Unigram *u, const char *prompt)
{
    int32_t ids[512];
    TokenCount count;

    for (int i = -1; i < 4; i++)
        if (dg_t5_unigram_encode(u, ids, 512, &count,
                                 i < 0 ? prompt : prompts[i]) == DG_OK)
            check(dg_t5_unigram_info(u), ids, 512, &count);
    dg_t5_unigram_destroy(u);
}

static void use_wordpiece(WordPiece *w, const char *prompt)
{
    int32_t ids[35];
    TokenCount count;

    for (int i = -1; i < 4; i++)
        if (dg_wordpiece_encode(w, ids, 35, &count,
                                i < 0 ? prompt : prompts[i]) == DG_OK)
            check(dg_wordpiece_info(w), ids, 35, &count);
    dg_wordpiece_destroy(w);
}

/* s up to a zero byte; *left is what stands behind it. */
static size_t part(const char *s, size_t size, const char **left)
{
    const char *zero = memchr(s, '\0', size);
    size_t n = zero != NULL ? (size_t)(zero - s) : size;

    *left = zero != NULL ? zero + 1 : s + size;
    return n;
}

static void clip_of_files(const char *s, size_t size, const char *prompt)
{
    const char *merges, *config, *end;
    ClipFiles f = { .vocab = s, .folder = "" };

    f.vocab_bytes = part(s, size, &merges);
    f.merges = merges;
    f.merges_bytes = part(merges, size - (size_t)(merges - s), &config);
    if (config < s + size) {
        f.config = config;
        f.config_bytes = part(config, size - (size_t)(config - s), &end);
    }
    use_clip(&f, prompt);
}

static void wordpiece_of_vocab(const char *s, size_t size, const char *prompt)
{
    const char *added;
    const size_t n = part(s, size, &added);
    WordPiece *w = NULL;

    if (dg_wordpiece_from_vocab(&w, "vocab.txt", s, n,
                                added < s + size ? added : NULL,
                                size - (size_t)(added - s)) == DG_OK)
        use_wordpiece(w, prompt);
}

/* A model of three pieces around the given map, as protobuf. */
static void t5_of_map(const char *s, size_t size, const char *prompt)
{
    static const char pieces[] = "\x0a\x09\x0a\x05<pad>\x18\x03"
                                 "\x0a\x08\x0a\x04</s>\x18\x03"
                                 "\x0a\x09\x0a\x05<unk>\x18\x02"
                                 "\x0a\x05\x0a\x03\xE2\x96\x81";
    const size_t head = sizeof pieces - 1;
    char *m;
    size_t at = head, inner = size + 5;
    T5Unigram *u = NULL;

    if (size >= (size_t)1 << 20 || (m = malloc(head + size + 16)) == NULL)
        return;
    memcpy(m, pieces, head);
    m[at++] = 0x1a;
    for (int i = 0; i < 4; i++, inner >>= 7)
        m[at++] = (char)((inner & 0x7F) | (i < 3 ? 0x80 : 0));
    m[at++] = 0x12;
    for (int i = 0, n = (int)size; i < 4; i++, n >>= 7)
        m[at++] = (char)((n & 0x7F) | (i < 3 ? 0x80 : 0));
    memcpy(m + at, s, size);
    if (dg_t5_unigram_from_spiece(&u, "map", m, at + size) == DG_OK)
        use_t5(u, prompt);
    free(m);
}

static void clean(const char *s, size_t size)
{
    char *text = malloc(size + 1), *out;

    if (text == NULL)
        return;
    memcpy(text, s, size);
    text[size] = '\0';
    if (dg_clip_clean(&out, text) == DG_OK)
        free(out);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data + 1;
    const size_t n = size > 0 ? size - 1 : 0;
    char prompt[65] = "";
    T5Unigram *u = NULL;
    WordPiece *w = NULL;

    if (n == 0)
        return 0;
    memcpy(prompt, s + (n > 64 ? n - 64 : 0), n > 64 ? 64 : n);
    switch (data[0]) {
    case '0':
        clip_of_files(s, n, prompt);
        break;
    case '1':
        use_clip(&(ClipFiles) { .merges = s, .merges_bytes = n, .folder = "" },
                 prompt);
        break;
    case '2':
        use_clip(
            &(ClipFiles) { .tokenizer = s, .tokenizer_bytes = n, .folder = "" },
            prompt);
        break;
    case '3':
        if (dg_t5_unigram_from_spiece(&u, "spiece.model", s, n) == DG_OK)
            use_t5(u, prompt);
        break;
    case '4':
        if (dg_t5_unigram_from_json(&u, "tokenizer.json", s, n) == DG_OK)
            use_t5(u, prompt);
        break;
    case '6':
        clean(s, n);
        break;
    case '7':
        wordpiece_of_vocab(s, n, prompt);
        break;
    case '8':
        if (dg_wordpiece_from_json(&w, "tokenizer.json", s, n) == DG_OK)
            use_wordpiece(w, prompt);
        break;
    default:
        t5_of_map(s, n, prompt);
    }
    return 0;
}
