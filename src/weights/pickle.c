#include "pickle_internal.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Protocol 2, as far as weights use it. */
enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_POP = '0',
    OP_BINFLOAT = 'G',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINUNICODE = 'X',
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_EMPTY_TUPLE = ')',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a
};

static int bad(const Pickle *k, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: its pickle is damaged: %s", k->path, what);
}

/* num bytes of the input, or NULL with an error recorded */
static const unsigned char *take(Pickle *k, size_t num)
{
    const unsigned char *p = k->p;

    if (num > (size_t)(k->end - k->p)) {
        bad(k, "it ends early");
        return NULL;
    }
    k->p += num;
    return p;
}

/* A little-endian unsigned number of that many bytes (<= 4); -1: the end. */
static int64_t take_number(Pickle *k, size_t bytes)
{
    const unsigned char *p = take(k, bytes);
    int64_t n = 0;

    if (p == NULL)
        return -1;
    while (bytes-- > 0)
        n = n << 8 | p[bytes];
    return n;
}

/* The stack ------------------------------------------------------------- */

static int *ints(const Grow *g)
{
    return g->items;
}

static int push(Pickle *k, int value)
{
    int *place;

    if (value < 0)
        return dg_last_error()->code;
    place = dg_pickle_grow(k, &k->stack, sizeof *place, PICKLE_MAX_STACK,
                           "values on its stack");
    if (place == NULL)
        return dg_last_error()->code;
    *place = value;
    return DG_OK;
}

/* First place of the stack above the last mark. */
static int floor_of_stack(const Pickle *k)
{
    return k->marks.num > 0 ? ints(&k->marks)[k->marks.num - 1] : 0;
}

/* The value on top, taken; -1 with an error recorded. */
static int pop(Pickle *k)
{
    if (k->stack.num <= floor_of_stack(k)) {
        bad(k, "its stack is empty");
        return -1;
    }
    return ints(&k->stack)[--k->stack.num];
}

static int top(const Pickle *k, ValueKind kind, int *out)
{
    if (k->stack.num <= floor_of_stack(k))
        return bad(k, "its stack is empty");
    *out = ints(&k->stack)[k->stack.num - 1];
    if (dg_pickle_value(k, *out)->kind != kind)
        return bad(k, kind == VALUE_LIST ? "it appends to what is no list"
                                         : "it sets items of what is no dict");
    return DG_OK;
}

static int push_number(Pickle *k, ValueKind kind, int64_t number)
{
    const int v = dg_pickle_new(k, kind);

    if (v >= 0)
        dg_pickle_value(k, v)->number = number;
    return push(k, v);
}

static int set_mark(Pickle *k)
{
    int *place =
        dg_pickle_grow(k, &k->marks, sizeof *place, PICKLE_MAX_STACK, "marks");

    if (place == NULL)
        return dg_last_error()->code;
    *place = k->stack.num;
    return DG_OK;
}

/* Takes all above the last mark off the stack into a container. */
static int collect(Pickle *k, ValueKind kind)
{
    int from, num, to = -1, err = DG_OK;

    if (k->marks.num == 0)
        return bad(k, "a mark is missing");
    from = floor_of_stack(k);
    num = k->stack.num - from;
    k->marks.num--;
    k->stack.num = from;
    if (kind == VALUE_TUPLE) {
        to = dg_pickle_new(k, kind);
        err = to < 0 ? dg_last_error()->code : DG_OK;
    } else {
        err = top(k, kind, &to);
    }
    if (!err && kind == VALUE_DICT && num % 2)
        err = bad(k, "a key without value");
    for (int i = 0; i < num && !err; i++)
        err = dg_pickle_append(k, to, ints(&k->stack)[from + i]);
    if (!err && kind == VALUE_TUPLE)
        err = push(k, to);
    return err;
}

static int tuple(Pickle *k, int num)
{
    const int to = dg_pickle_new(k, VALUE_TUPLE);
    int err = to < 0 ? dg_last_error()->code : DG_OK;

    if (!err && k->stack.num - floor_of_stack(k) < num)
        err = bad(k, "its stack is empty");
    if (err)
        return err;
    k->stack.num -= num;
    for (int i = 0; i < num && !err; i++)
        err = dg_pickle_append(k, to, ints(&k->stack)[k->stack.num + i]);
    return err ? err : push(k, to);
}

/* The top num values into the container below them. */
static int put(Pickle *k, ValueKind kind, int num)
{
    int to, err = DG_OK;

    if (k->stack.num - floor_of_stack(k) < num)
        return bad(k, "its stack is empty");
    k->stack.num -= num;
    err = top(k, kind, &to);
    for (int i = 0; i < num && !err; i++)
        err = dg_pickle_append(k, to, ints(&k->stack)[k->stack.num + i]);
    return err;
}

/* The memo -------------------------------------------------------------- */

static int memo_put(Pickle *k, int64_t at)
{
    if (at < 0)
        return DG_EFORMAT;
    if (at >= PICKLE_MAX_STACK)
        return bad(k, "a memo beyond 1000000");
    if (k->stack.num <= floor_of_stack(k))
        return bad(k, "its stack is empty");
    while (k->memo.num <= at) {
        int *place = dg_pickle_grow(k, &k->memo, sizeof *place,
                                    PICKLE_MAX_STACK, "memos");

        if (place == NULL)
            return dg_last_error()->code;
        *place = -1;
    }
    ints(&k->memo)[at] = ints(&k->stack)[k->stack.num - 1];
    return DG_OK;
}

static int memo_get(Pickle *k, int64_t at)
{
    if (at < 0)
        return DG_EFORMAT;
    if (at >= k->memo.num || ints(&k->memo)[at] < 0)
        return bad(k, "a memo that was never set");
    return push(k, ints(&k->memo)[at]);
}

/* Opcodes --------------------------------------------------------------- */

static int op_text(Pickle *k)
{
    const int64_t length = take_number(k, 4);
    const unsigned char *p;
    int v;

    if (length < 0)
        return DG_EFORMAT;
    if (length > PICKLE_MAX_TEXT)
        return bad(k, "a text of more than a mebibyte");
    p = take(k, (size_t)length);
    if (p == NULL)
        return DG_EFORMAT;
    v = dg_pickle_new(k, VALUE_TEXT);
    if (v < 0)
        return dg_last_error()->code;
    dg_pickle_value(k, v)->text = (const char *)p;
    dg_pickle_value(k, v)->length = (size_t)length;
    return push(k, v);
}

static int op_long(Pickle *k)
{
    const int64_t bytes = take_number(k, 1);
    const unsigned char *p;
    uint64_t n = 0;

    if (bytes < 0)
        return DG_EFORMAT;
    if (bytes > 8)
        return bad(k, "a number of more than 64 bits");
    p = take(k, (size_t)bytes);
    if (p == NULL)
        return DG_EFORMAT;
    if (bytes > 0 && p[bytes - 1] & 0x80)
        n = ~(uint64_t)0;
    for (int64_t i = bytes; i-- > 0;)
        n = n << 8 | p[i];
    return push_number(k, VALUE_INT, (int64_t)n);
}

/* Text up to the next newline, which is taken too; NULL: the end. */
static const char *take_line(Pickle *k, size_t *length)
{
    const unsigned char *p = k->p;
    const unsigned char *end = memchr(p, '\n', (size_t)(k->end - p));

    if (end == NULL) {
        bad(k, "it ends early");
        return NULL;
    }
    *length = (size_t)(end - p);
    k->p = end + 1;
    return (const char *)p;
}

static int op_global(Pickle *k)
{
    size_t module_length, name_length;
    const char *module = take_line(k, &module_length), *name;
    int v, err;

    if (module == NULL)
        return DG_EFORMAT;
    name = take_line(k, &name_length);
    if (name == NULL)
        return DG_EFORMAT;
    err = dg_pickle_global(k, module, module_length, name, name_length, &v);
    return err ? err : push(k, v);
}

static int op_reduce(Pickle *k)
{
    const int args = pop(k), callable = args < 0 ? -1 : pop(k);
    int v, err;

    if (callable < 0)
        return DG_EFORMAT;
    err = dg_pickle_reduce(k, callable, args, &v);
    return err ? err : push(k, v);
}

static int op_persistent(Pickle *k)
{
    const int id = pop(k);
    int v, err;

    if (id < 0)
        return DG_EFORMAT;
    err = dg_pickle_storage(k, id, &v);
    return err ? err : push(k, v);
}

/* State of an OrderedDict (module versions): not needed. */
static int op_build(Pickle *k)
{
    const int state = pop(k);
    int to;

    if (state < 0)
        return DG_EFORMAT;
    return top(k, VALUE_DICT, &to);
}

static int op_number(Pickle *k, int op)
{
    const size_t bytes = op == OP_BININT ? 4 : op == OP_BININT2 ? 2 : 1;
    int64_t n = take_number(k, bytes);

    if (n < 0)
        return DG_EFORMAT;
    if (op == OP_BININT)
        n = (int32_t)(uint32_t)n;
    return push_number(k, VALUE_INT, n);
}

static int op_protocol(Pickle *k)
{
    const int64_t version = take_number(k, 1);

    if (version < 0)
        return DG_EFORMAT;
    if (version != 2)
        return dg_fail(DG_EFORMAT,
                       "%s: its pickle has protocol %" PRId64
                       ": only 2 is known, torch.save()'s own",
                       k->path, version);
    return DG_OK;
}

/* Opcodes that make or move single values. */
static int run_simple(Pickle *k, int op)
{
    switch (op) {
    case OP_PROTO:
        return op_protocol(k);
    case OP_MARK:
        return set_mark(k);
    case OP_POP:
        return pop(k) < 0 ? DG_EFORMAT : DG_OK;
    case OP_NONE:
        return push_number(k, VALUE_OTHER, 0);
    case OP_BINFLOAT:
        return take(k, 8) == NULL ? DG_EFORMAT : push_number(k, VALUE_OTHER, 0);
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push_number(k, VALUE_BOOL, op == OP_NEWTRUE);
    case OP_BININT:
    case OP_BININT1:
    case OP_BININT2:
        return op_number(k, op);
    case OP_LONG1:
        return op_long(k);
    case OP_BINUNICODE:
        return op_text(k);
    case OP_BINPUT:
        return memo_put(k, take_number(k, 1));
    case OP_LONG_BINPUT:
        return memo_put(k, take_number(k, 4));
    case OP_BINGET:
        return memo_get(k, take_number(k, 1));
    case OP_LONG_BINGET:
        return memo_get(k, take_number(k, 4));
    default:
        return dg_fail(DG_EFORMAT,
                       "%s: its pickle has opcode 0x%02x: not one of those "
                       "that weights need",
                       k->path, (unsigned)op);
    }
}

static int run(Pickle *k, int op)
{
    switch (op) {
    case OP_GLOBAL:
        return op_global(k);
    case OP_REDUCE:
        return op_reduce(k);
    case OP_BINPERSID:
        return op_persistent(k);
    case OP_BUILD:
        return op_build(k);
    case OP_EMPTY_TUPLE:
        return push(k, dg_pickle_new(k, VALUE_TUPLE));
    case OP_EMPTY_LIST:
        return push(k, dg_pickle_new(k, VALUE_LIST));
    case OP_EMPTY_DICT:
        return push(k, dg_pickle_new(k, VALUE_DICT));
    case OP_TUPLE:
        return collect(k, VALUE_TUPLE);
    case OP_APPENDS:
        return collect(k, VALUE_LIST);
    case OP_SETITEMS:
        return collect(k, VALUE_DICT);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return tuple(k, op - OP_TUPLE1 + 1);
    case OP_APPEND:
        return put(k, VALUE_LIST, 1);
    case OP_SETITEM:
        return put(k, VALUE_DICT, 2);
    default:
        return run_simple(k, op);
    }
}

/* Tensors and their names ----------------------------------------------- */

typedef struct Walk {
    const Pickle *k;
    PickleFn *fn;
    void *user;
    int64_t steps; /* values that share others are walked more than once */
    char name[PICKLE_MAX_NAME];
} Walk;

/* ".key" behind the name's first length bytes; the new length, or 0. */
static size_t extend(Walk *w, size_t length, const Value *key, int64_t index)
{
    const size_t room = sizeof w->name - length;
    const char *dot = length ? "." : "";
    int n;

    if (key != NULL && key->kind == VALUE_TEXT &&
        memchr(key->text, '\0', key->length) != NULL)
        return 0;
    if (key != NULL && key->kind == VALUE_TEXT)
        n = snprintf(w->name + length, room, "%s%.*s", dot, (int)key->length,
                     key->text);
    else
        n = snprintf(w->name + length, room, "%s%" PRId64, dot, index);
    return n > 0 && (size_t)n < room ? length + (size_t)n : 0;
}

static int walk(Walk *w, int value, size_t length, int depth);

static int walk_members(Walk *w, const Value *v, size_t length, int depth)
{
    const Cell *cells = w->k->cells.items;
    int64_t index = 0;
    int err = DG_OK;

    for (int c = v->first; c >= 0 && !err; c = cells[c].next, index++) {
        const Value *key = NULL;
        size_t longer;

        if (v->kind == VALUE_DICT) {
            key = dg_pickle_value(w->k, cells[c].value);
            c = cells[c].next;
            index = key->number;
            if (key->kind != VALUE_TEXT && key->kind != VALUE_INT)
                return bad(w->k, "a dict's key is neither text nor number");
        }
        longer = extend(w, length, key, index);
        if (longer == 0)
            return bad(w->k, "a key that is empty, too long or no text");
        err = walk(w, cells[c].value, longer, depth + 1);
    }
    return err;
}

static int walk(Walk *w, int value, size_t length, int depth)
{
    const Value *v = dg_pickle_value(w->k, value);

    if (depth > PICKLE_MAX_DEPTH)
        return bad(w->k, "lists in lists in lists");
    if (++w->steps > PICKLE_MAX_VALUES)
        return bad(w->k, "too many values");
    w->name[length] = '\0';
    if (v->kind == VALUE_TENSOR)
        return w->fn(w->user, w->name,
                     (const PickleTensor *)w->k->tensors.items + v->number);
    if (v->kind == VALUE_DICT || v->kind == VALUE_LIST ||
        v->kind == VALUE_TUPLE)
        return walk_members(w, v, length, depth);
    return DG_OK;
}

int dg_pickle_read(const char *path, const unsigned char *bytes,
                   size_t num_bytes, PickleFn *fn, void *user)
{
    Pickle k = { .path = path, .p = bytes, .end = bytes + num_bytes };
    Walk w = { .k = &k, .fn = fn, .user = user };
    const unsigned char *op;
    int err = DG_OK, root = -1;

    do {
        op = take(&k, 1);
        if (op == NULL)
            err = DG_EFORMAT;
        else if (*op != OP_STOP)
            err = run(&k, *op);
    } while (!err && *op != OP_STOP);
    if (!err && (k.stack.num != 1 || k.marks.num != 0))
        err = bad(&k, "it ends with other than one value");
    if (!err)
        root = pop(&k);
    if (!err)
        err = walk(&w, root, 0, 0);
    free(k.values.items);
    free(k.cells.items);
    free(k.tensors.items);
    free(k.stack.items);
    free(k.marks.items);
    free(k.memo.items);
    return err;
}
