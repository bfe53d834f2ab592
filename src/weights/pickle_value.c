/* What a pickle of weights may build: see pickle.h. */
#include "pickle_internal.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *module, *name;
    PickleGlobal global;
    WeightType type;
} allowed[] = {
    { "collections", "OrderedDict", GLOBAL_ORDERED_DICT, 0 },
    { "torch._utils", "_rebuild_tensor_v2", GLOBAL_REBUILD_TENSOR, 0 },
    { "torch._utils", "_rebuild_parameter", GLOBAL_REBUILD_PARAMETER, 0 },
    { "torch", "FloatStorage", GLOBAL_STORAGE, DG_WEIGHT_F32 },
    { "torch", "HalfStorage", GLOBAL_STORAGE, DG_WEIGHT_F16 },
    { "torch", "BFloat16Storage", GLOBAL_STORAGE, DG_WEIGHT_BF16 },
    { "torch", "DoubleStorage", GLOBAL_STORAGE, DG_WEIGHT_F64 },
    { "torch", "LongStorage", GLOBAL_STORAGE, DG_WEIGHT_I64 },
    { "torch", "IntStorage", GLOBAL_STORAGE, DG_WEIGHT_I32 },
    { "torch", "ShortStorage", GLOBAL_STORAGE, DG_WEIGHT_I16 },
    { "torch", "CharStorage", GLOBAL_STORAGE, DG_WEIGHT_I8 },
    { "torch", "ByteStorage", GLOBAL_STORAGE, DG_WEIGHT_U8 },
    { "torch", "BoolStorage", GLOBAL_STORAGE, DG_WEIGHT_BOOL },
};

void *dg_pickle_grow(Pickle *k, Grow *g, size_t size, int most,
                     const char *what)
{
    if (g->num == most) {
        dg_fail(DG_EFORMAT, "%s: its pickle has more than %d %s", k->path, most,
                what);
        return NULL;
    }
    if (g->num == g->cap) {
        const int cap = g->cap ? 2 * g->cap : 64;
        void *more = realloc(g->items, (size_t)cap * size);

        if (more == NULL) {
            dg_fail(DG_ENOMEM, "%s: %d %s", k->path, cap, what);
            return NULL;
        }
        g->items = more;
        g->cap = cap;
    }
    return (char *)g->items + (size_t)g->num++ * size;
}

int dg_pickle_new(Pickle *k, ValueKind kind)
{
    Value *v =
        dg_pickle_grow(k, &k->values, sizeof *v, PICKLE_MAX_VALUES, "values");

    if (v == NULL)
        return -1;
    *v = (Value) { .kind = kind, .first = -1, .last = -1 };
    return k->values.num - 1;
}

Value *dg_pickle_value(const Pickle *k, int i)
{
    return (Value *)k->values.items + i;
}

static Cell *cell(const Pickle *k, int i)
{
    return (Cell *)k->cells.items + i;
}

int dg_pickle_append(Pickle *k, int to, int value)
{
    Cell *c = dg_pickle_grow(k, &k->cells, sizeof *c, PICKLE_MAX_VALUES,
                             "entries of lists");
    Value *v = dg_pickle_value(k, to);
    const int at = k->cells.num - 1;

    if (c == NULL)
        return dg_last_error()->code;
    *c = (Cell) { value, -1 };
    if (v->last >= 0)
        cell(k, v->last)->next = at;
    else
        v->first = at;
    v->last = at;
    v->num++;
    return DG_OK;
}

static int same(const char *text, size_t length, const char *want)
{
    return strlen(want) == length && memcmp(text, want, length) == 0;
}

static int shown(size_t length)
{
    return length < 100 ? (int)length : 100;
}

int dg_pickle_global(Pickle *k, const char *module, size_t module_length,
                     const char *name, size_t name_length, int *out)
{
    const size_t num = sizeof allowed / sizeof *allowed;
    size_t i = 0;
    Value *v;

    while (i < num && !(same(module, module_length, allowed[i].module) &&
                        same(name, name_length, allowed[i].name)))
        i++;
    if (i == num)
        return dg_fail(DG_EFORMAT,
                       "%s: its pickle names %.*s.%.*s: not one of the few "
                       "that weights need, so the file is refused unread",
                       k->path, shown(module_length), module,
                       shown(name_length), name);
    *out = dg_pickle_new(k, VALUE_GLOBAL);
    if (*out < 0)
        return dg_last_error()->code;
    v = dg_pickle_value(k, *out);
    v->global = allowed[i].global;
    v->type = allowed[i].type;
    return DG_OK;
}

/* Symbolic calls -------------------------------------------------------- */

/* The members of a tuple or list, at most most; their number, or -1. */
static int members(const Pickle *k, int tuple, int *out, int most)
{
    const Value *v = tuple < 0 ? NULL : dg_pickle_value(k, tuple);
    int num = 0;

    if (v == NULL || (v->kind != VALUE_TUPLE && v->kind != VALUE_LIST) ||
        v->num > most)
        return -1;
    for (int c = v->first; c >= 0; c = cell(k, c)->next)
        out[num++] = cell(k, c)->value;
    return num;
}

static int is(const Pickle *k, int i, ValueKind kind)
{
    return dg_pickle_value(k, i)->kind == kind;
}

/* A tuple of sizes, all >= 0; their number, or -1. */
static int sizes(const Pickle *k, int tuple, int64_t out[DG_WEIGHT_MAX_DIMS])
{
    int at[DG_WEIGHT_MAX_DIMS];
    const int num = members(k, tuple, at, DG_WEIGHT_MAX_DIMS);

    for (int i = 0; i < num; i++) {
        out[i] = dg_pickle_value(k, at[i])->number;
        if (!is(k, at[i], VALUE_INT) || out[i] < 0)
            return -1;
    }
    return num;
}

static int bad(const Pickle *k, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: its pickle is damaged: %s", k->path, what);
}

/* _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks
   and, in new files, metadata) */
static int rebuild_tensor(Pickle *k, int args, int *out)
{
    PickleTensor t = { 0 };
    PickleTensor *place;
    const Value *s;
    int at[7];
    const int num = members(k, args, at, 7);

    if (num < 6 || !is(k, at[0], VALUE_STORAGE) || !is(k, at[1], VALUE_INT))
        return bad(k, "a tensor without storage and offset");
    s = dg_pickle_value(k, at[0]);
    t.storage = (PickleStorage) { s->type, s->text, s->length, s->number };
    t.offset = dg_pickle_value(k, at[1])->number;
    t.num_dims = sizes(k, at[2], t.dims);
    if (t.offset < 0 || t.num_dims < 0 ||
        sizes(k, at[3], t.strides) != t.num_dims)
        return bad(k, "a tensor whose offset, shape or strides are none (at "
                      "most 8 dims, nothing negative)");
    place = dg_pickle_grow(k, &k->tensors, sizeof *place, PICKLE_MAX_TENSORS,
                           "tensors");
    if (place == NULL)
        return dg_last_error()->code;
    *place = t;
    *out = dg_pickle_new(k, VALUE_TENSOR);
    if (*out < 0)
        return dg_last_error()->code;
    dg_pickle_value(k, *out)->number = k->tensors.num - 1;
    return DG_OK;
}

int dg_pickle_reduce(Pickle *k, int callable, int args, int *out)
{
    const Value *f = dg_pickle_value(k, callable);
    int at[3];
    const int num = members(k, args, at, 3);

    if (f->kind != VALUE_GLOBAL || f->global == GLOBAL_STORAGE)
        return bad(k, "a call of what cannot be called");
    if (f->global == GLOBAL_REBUILD_TENSOR)
        return rebuild_tensor(k, args, out);
    if (f->global == GLOBAL_REBUILD_PARAMETER) {
        if (num != 3 || !is(k, at[0], VALUE_TENSOR))
            return bad(k, "a parameter without tensor");
        *out = at[0];
        return DG_OK;
    }
    if (num != 0)
        return bad(k, "an OrderedDict with arguments");
    *out = dg_pickle_new(k, VALUE_DICT);
    return *out < 0 ? dg_last_error()->code : DG_OK;
}

/* ("storage", class, key, location, number of values) */
int dg_pickle_storage(Pickle *k, int id, int *out)
{
    const Value *type, *key, *num, *word;
    int at[5];
    Value *v;

    if (members(k, id, at, 5) != 5)
        return bad(k, "a storage is described by five values");
    word = dg_pickle_value(k, at[0]);
    type = dg_pickle_value(k, at[1]);
    key = dg_pickle_value(k, at[2]);
    num = dg_pickle_value(k, at[4]);
    if (word->kind != VALUE_TEXT || !same(word->text, word->length, "storage"))
        return bad(k, "a reference to what is no storage");
    if (type->kind != VALUE_GLOBAL || type->global != GLOBAL_STORAGE ||
        key->kind != VALUE_TEXT || num->kind != VALUE_INT || num->number < 0)
        return bad(k, "a storage without type, key and size");
    *out = dg_pickle_new(k, VALUE_STORAGE);
    if (*out < 0)
        return dg_last_error()->code;
    v = dg_pickle_value(k, *out);
    type = dg_pickle_value(k, at[1]); /* the array may have moved */
    key = dg_pickle_value(k, at[2]);
    v->type = type->type;
    v->text = key->text;
    v->length = key->length;
    v->number = dg_pickle_value(k, at[4])->number;
    return DG_OK;
}
