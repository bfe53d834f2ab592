#include "text/t5_unigram.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "t5.h"
#include "unicode.h"

/* Protocol buffers: a message is a row of fields, number and wire type. */
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct Proto {
    const unsigned char *at, *end;
} Proto;

typedef struct Field {
    uint32_t number, wire;
    uint64_t value; /* varint, or the bits of a fixed one */
    Proto bytes;
} Field;

/* sentencepiece_model.proto */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_TYPE = 3, TRAINER_SUFFIX = 24, TRAINER_BYTES = 35 };
enum {
    NORMALIZER_MAP = 2,
    NORMALIZER_PREFIX = 3,
    NORMALIZER_EXTRA = 4,
    NORMALIZER_ESCAPE = 5
};
enum {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER = 4,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6
};

typedef struct Loader {
    T5Unigram *u;
    const char *name;
    const unsigned char *begin;
    int32_t num; /* pieces so far */
    int normalizer;
    size_t score_room, user_room;
    Trie all; /* pieces of every type */
    double min_score;
} Loader;

static int broken(const Loader *l, const Proto *p, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: %s at byte %zu", l->name, what,
                   (size_t)(p->at - l->begin));
}

static int read_varint(const Loader *l, Proto *p, uint64_t *out)
{
    uint64_t value = 0;

    for (int shift = 0; shift < 64; shift += 7) {
        unsigned char byte;

        if (p->at == p->end)
            return broken(l, p, "protobuf cut off");
        byte = *p->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *out = value;
            return DG_OK;
        }
    }
    return broken(l, p, "protobuf number of more than 10 bytes");
}

static int read_fixed(const Loader *l, Proto *p, size_t size, uint64_t *out)
{
    uint64_t value = 0;

    if ((size_t)(p->end - p->at) < size)
        return broken(l, p, "protobuf cut off");
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)p->at[i] << (8 * i);
    p->at += size;
    *out = value;
    return DG_OK;
}

/* The next field of a message that has bytes left. */
static int read_field(const Loader *l, Proto *p, Field *f)
{
    uint64_t tag = 0;
    int err = read_varint(l, p, &tag);

    if (err)
        return err;
    f->number = (uint32_t)(tag >> 3);
    f->wire = tag & 7;
    if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF)
        return broken(l, p, "protobuf field number out of range");
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(l, p, &f->value);
    case WIRE_64:
        return read_fixed(l, p, 8, &f->value);
    case WIRE_32:
        return read_fixed(l, p, 4, &f->value);
    case WIRE_BYTES:
        err = read_varint(l, p, &f->value);
        if (err)
            return err;
        if (f->value > (uint64_t)(p->end - p->at))
            return broken(l, p, "protobuf field longer than its message");
        f->bytes = (Proto) { p->at, p->at + f->value };
        p->at += f->value;
        return DG_OK;
    default:
        return broken(l, p, "protobuf wire type that is not used");
    }
}

/* A field that is known must be written as its type is. */
static int wants(const Loader *l, const Proto *p, const Field *f, uint32_t wire)
{
    return f->wire == wire ? DG_OK
                           : broken(l, p, "protobuf field of a wrong type");
}

/* One entry of the vocabulary, of any type. */
static int keep_piece(Loader *l, const char *text, size_t size, float score,
                      int type)
{
    T5Unigram *u = l->u;
    void *scores = u->score, *user = u->user;
    int err;

    if (size == 0 || memchr(text, '\0', size) != NULL ||
        dg_unicode_valid(text, size) != size)
        return dg_fail(DG_EFORMAT, "%s: piece %d is empty or not UTF-8",
                       l->name, l->num);
    if (!isfinite(score) || type < TYPE_NORMAL || type > TYPE_UNUSED)
        return dg_fail(DG_EFORMAT,
                       "%s: piece %d \"%.*s\" has score %g and type %d; "
                       "scores are finite, types %d to %d",
                       l->name, l->num, (int)(size < 60 ? size : 60), text,
                       score, type, TYPE_NORMAL, TYPE_UNUSED);
    if (dg_trie_find(&l->all, text, size) >= 0)
        return dg_fail(DG_EFORMAT, "%s: piece %d \"%.*s\" is there twice",
                       l->name, l->num, (int)(size < 60 ? size : 60), text);
    if (l->num >= T5_MOST_PIECES)
        return dg_fail(DG_EFORMAT, "%s: more than %d pieces", l->name,
                       T5_MOST_PIECES);
    err = dg_buffer_reserve(&scores, &l->score_room, (size_t)l->num + 1,
                            sizeof *u->score);
    u->score = scores;
    if (!err)
        err = dg_buffer_reserve(&user, &l->user_room, (size_t)l->num + 1, 1);
    u->user = user;
    if (!err)
        err = dg_trie_add(&l->all, text, size, l->num);
    if (err)
        return err;
    u->score[l->num] = score;
    u->user[l->num] = type == TYPE_USER;
    if (type == TYPE_NORMAL || type == TYPE_USER)
        err = dg_trie_add(&u->piece, text, size, l->num);
    if (!err && type == TYPE_USER)
        err = dg_trie_add(&u->user_text, text, size, l->num);
    return err;
}

static int add_piece(Loader *l, Proto p)
{
    Proto text = { p.at, p.at };
    float score = 0;
    int64_t type = TYPE_NORMAL;
    int err;

    while (p.at < p.end) {
        Field f;

        err = read_field(l, &p, &f);
        if (!err && f.number <= PIECE_TYPE)
            err = wants(l, &p, &f,
                        f.number == PIECE_TEXT    ? WIRE_BYTES
                        : f.number == PIECE_SCORE ? WIRE_32
                                                  : WIRE_VARINT);
        if (err)
            return err;
        if (f.number == PIECE_TEXT)
            text = f.bytes;
        else if (f.number == PIECE_SCORE)
            memcpy(&score, &(uint32_t) { (uint32_t)f.value }, sizeof score);
        else if (f.number == PIECE_TYPE)
            type = f.value <= TYPE_BYTE ? (int64_t)f.value : -1;
    }
    if (type == TYPE_UNKNOWN && l->u->info.unk >= 0)
        return dg_fail(DG_EFORMAT, "%s: pieces %d and %d are both unknown",
                       l->name, l->u->info.unk, l->num);
    err = keep_piece(l, (const char *)text.at, (size_t)(text.end - text.at),
                     score, (int)type);
    if (err)
        return err;
    if (type == TYPE_UNKNOWN)
        l->u->info.unk = l->num;
    if (type == TYPE_NORMAL) {
        l->min_score = fmin(l->min_score, score);
        l->u->max_score = fmax(l->u->max_score, score);
    }
    l->num++;
    return DG_OK;
}

static int read_trainer(Loader *l, Proto p)
{
    while (p.at < p.end) {
        Field f;
        int err = read_field(l, &p, &f);

        if (err)
            return err;
        if (f.number == TRAINER_TYPE && f.value != 1)
            return dg_fail(DG_EFORMAT,
                           "%s: model type %llu, T5's is 1 (unigram)", l->name,
                           (unsigned long long)f.value);
        if (f.number == TRAINER_SUFFIX && f.value != 0)
            return dg_fail(DG_EFORMAT,
                           "%s: treat_whitespace_as_suffix is not T5's",
                           l->name);
        if (f.number == TRAINER_BYTES && f.value != 0)
            return dg_fail(DG_EFORMAT, "%s: byte_fallback is not T5's",
                           l->name);
    }
    return DG_OK;
}

static int read_normalizer(Loader *l, Proto p)
{
    T5Unigram *u = l->u;

    l->normalizer = 1;
    while (p.at < p.end) {
        Field f;
        int err = read_field(l, &p, &f);

        if (!err && f.number >= NORMALIZER_MAP && f.number <= NORMALIZER_ESCAPE)
            err = wants(l, &p, &f,
                        f.number == NORMALIZER_MAP ? WIRE_BYTES : WIRE_VARINT);
        if (err)
            return err;
        if (f.number == NORMALIZER_MAP && f.value > 0) {
            dg_charsmap_free(&u->map);
            err = dg_charsmap_create(&u->map, l->name, (const char *)f.bytes.at,
                                     f.value);
            if (err)
                return err;
        }
        if (f.number == NORMALIZER_PREFIX)
            u->add_dummy_prefix = f.value != 0;
        if (f.number == NORMALIZER_EXTRA)
            u->remove_extra_spaces = f.value != 0;
        if (f.number == NORMALIZER_ESCAPE)
            u->escape_spaces = f.value != 0;
    }
    return DG_OK;
}

static int read_model(Loader *l, Proto p)
{
    while (p.at < p.end) {
        Field f;
        int err = read_field(l, &p, &f);

        if (!err && f.number <= MODEL_NORMALIZER)
            err = wants(l, &p, &f, WIRE_BYTES);
        if (!err && f.number == MODEL_PIECES)
            err = add_piece(l, f.bytes);
        if (!err && f.number == MODEL_TRAINER)
            err = read_trainer(l, f.bytes);
        if (!err && f.number == MODEL_NORMALIZER)
            err = read_normalizer(l, f.bytes);
        if (err)
            return err;
    }
    return DG_OK;
}

static int mark_id(const Loader *l, const char *text, int32_t *id)
{
    *id = dg_trie_find(&l->all, text, strlen(text));
    if (*id < 0)
        return dg_fail(DG_EFORMAT, "%s: no piece %s among its %d", l->name,
                       text, l->num);
    return DG_OK;
}

/* <pad>, </s>, <unk> and the extra ids, which are cut out of texts. */
static int add_marks(Loader *l)
{
    TokenizerInfo *info = &l->u->info;
    int32_t next = l->num;
    int err = mark_id(l, T5_PAD, &info->pad);

    if (!err)
        err = mark_id(l, T5_EOS, &info->eos);
    if (!err && info->unk < 0)
        err = dg_fail(DG_EFORMAT, "%s: no piece is unknown", l->name);
    if (!err)
        err = dg_t5_add_mark(l->u, T5_PAD, info->pad);
    if (!err)
        err = dg_t5_add_mark(l->u, T5_EOS, info->eos);
    if (!err)
        err = dg_t5_add_mark(l->u, "<unk>", info->unk);
    for (int k = T5_EXTRA_IDS - 1; k >= 0 && !err; k--) {
        char text[32];
        int32_t id;

        snprintf(text, sizeof text, "<extra_id_%d>", k);
        id = dg_trie_find(&l->all, text, strlen(text));
        err = dg_t5_add_mark(l->u, text, id >= 0 ? id : next++);
    }
    info->num_ids = next;
    return err;
}

int dg_t5_unigram_from_spiece(T5Unigram **out, const char *name,
                              const char *data, size_t size)
{
    const unsigned char *begin = (const unsigned char *)data;
    Loader l = { .u = calloc(1, sizeof(T5Unigram)),
                 .name = name,
                 .begin = begin,
                 .min_score = FLT_MAX };
    int err;

    if (l.u == NULL)
        return dg_fail(DG_ENOMEM, "%s", name);
    l.u->info = (TokenizerInfo) {
        .kind = DG_TOKENIZER_T5, .bos = -1, .unk = -1, .length = 512
    };
    l.u->sentencepiece = 1;
    l.u->remove_extra_spaces = 1;
    l.u->add_dummy_prefix = 1;
    l.u->escape_spaces = 1;
    l.u->max_score = FLT_MIN; /* sentencepiece's own start */
    err = read_model(&l, (Proto) { begin, begin + size });
    if (!err)
        err = add_marks(&l);
    /* it comes last: a file cut off between two pieces ends before */
    if (!err && !l.normalizer)
        err = dg_fail(DG_EFORMAT,
                      "%s: no normalizer behind its %d pieces: not whole", name,
                      l.num);
    l.u->unk_score = (double)((float)l.min_score - 10.0f);
    dg_trie_free(&l.all);
    if (err)
        dg_t5_unigram_destroy(l.u);
    else
        *out = l.u;
    return err;
}
