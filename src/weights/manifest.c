#include "weights/manifest.h"

#include "base/error.h"
#include "weights/remap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 4, KIND_TEXT = 300 };

/* Values of a source tensor that lie together in the buffer too; of a turned
 * one, all of a matrix. */
typedef struct Piece {
    int64_t tensor, from, at, num;
    int64_t turned; /* 0: in the source's order; else the columns it has
                       there, rows here */
} Piece;

struct WeightPlan {
    const WeightSource *source;
    Piece *pieces; /* by place in the buffer */
    int64_t num;
};

/* What is wrong, of one kind: the first names, and how many there are. */
typedef struct Complaint {
    char text[KIND_TEXT];
    int num;
} Complaint;

typedef struct Check {
    const WeightSource *source;
    const ManifestOpts *o;
    const char *prefix; /* before all names of the source */
    WeightPlan *plan;
    int64_t *used; /* [tensors of source] values taken */
    Complaint missing, unexpected, shape;
} Check;

int dg_manifest_of_params(WeightWant **out, int *num, const ParamSet *set,
                          const char *prefix)
{
    const size_t skip = strlen(prefix);
    WeightWant *wants = calloc((size_t)set->num_params + 1, sizeof *wants);
    int n = 0;

    if (wants == NULL)
        return dg_fail(DG_ENOMEM, "manifest of %d parameters", set->num_params);
    for (int i = 0; i < set->num_params; i++) {
        const Param *p = set->params[i];
        WeightWant *w = &wants[n];

        if (strncmp(p->name, prefix, skip) != 0)
            continue;
        w->name = p->name + skip;
        w->num_dims = p->value.num_dims;
        for (int d = 0; d < w->num_dims; d++)
            w->dims[d] = p->value.dims[d];
        w->at = p->value.param_offset;
        n++;
    }
    if (n == 0) {
        free(wants);
        return dg_fail(DG_EINVAL, "no parameter has a name that begins with %s",
                       prefix);
    }
    *out = wants;
    *num = n;
    return DG_OK;
}

int dg_manifest_same_shape(int num_a, const int64_t *a, int num_b,
                           const int64_t *b)
{
    const int most = num_a > num_b ? num_a : num_b;

    for (int i = 0; i < most; i++)
        if ((i < num_a ? a[i] : 1) != (i < num_b ? b[i] : 1))
            return 0;
    return 1;
}

static void complain(Complaint *c, const char *what)
{
    const size_t used = strlen(c->text);

    if (c->num++ < SHOWN)
        snprintf(c->text + used, sizeof c->text - used, "%s%.120s",
                 used ? ", " : "", what);
}

static void format_shape(char *text, size_t room, int num, const int64_t *dims)
{
    size_t used = 1;

    snprintf(text, room, "[");
    for (int i = 0; i < num && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%" PRId64,
                                 i ? ", " : "", dims[i]);
    if (used < room)
        snprintf(text + used, room - used, "]");
}

static void complain_shape(Check *k, const WeightWant *w,
                           const WeightInfo *info)
{
    char is[60], must[60], text[300];

    format_shape(is, sizeof is, info->num_dims, info->dims);
    format_shape(must, sizeof must, w->num_dims, w->dims);
    snprintf(text, sizeof text, "%.60s is %s, must be %s", info->name, is,
             must);
    complain(&k->shape, text);
}

/* Finding ----------------------------------------------------------------- */

/* Place of prefix + name in the source, or -1. */
static int64_t look_up(const Check *k, const char *name)
{
    char whole[DG_REMAP_NAME + 64];
    const int n = snprintf(whole, sizeof whole, "%s%s", k->prefix, name);

    if (n < 0 || (size_t)n >= sizeof whole)
        return -1;
    return dg_source_find(k->source, whole);
}

/* The source tensor of a wanted one, by its own name or a rule. */
static int64_t find(const Check *k, const char *want, const RemapRule **rule)
{
    char name[DG_REMAP_NAME];
    int num;
    const RemapRule *rules = dg_remap_rules(&num);
    int64_t at = look_up(k, want);

    *rule = NULL;
    for (int i = 0; i < num && at < 0; i++)
        if (dg_remap_apply(name, &rules[i], want)) {
            at = look_up(k, name);
            *rule = &rules[i];
        }
    return at;
}

/* Sets the prefix under which the first wanted tensor is found. */
static void choose_prefix(Check *k, const WeightWant *wants, int num)
{
    const RemapRule *rule;

    k->prefix = "";
    for (int w = 0; w < num && w < SHOWN; w++)
        for (int i = 0; dg_remap_prefix(i) != NULL; i++) {
            k->prefix = dg_remap_prefix(i);
            if (find(k, wants[w].name, &rule) >= 0)
                return;
        }
    k->prefix = "";
}

/* Planning ---------------------------------------------------------------- */

static void add_piece(Check *k, int64_t tensor, int64_t from, int64_t at,
                      int64_t num)
{
    WeightPlan *p = k->plan;

    /* twice the wants have room: no tensor has more than two pieces */
    p->pieces[p->num++] = (Piece) { tensor, from, at, num, 0 };
    k->used[tensor] += num;
}

/* Rows of the source tensor that are wanted: all dims but the first agree.
 * The first wanted row, or -1 if the shapes do not fit. */
static int64_t first_row(const WeightWant *w, const WeightInfo *info,
                         const RemapRule *rule)
{
    int64_t dims[DG_WEIGHT_MAX_DIMS] = { 0 };
    int64_t rows, first;

    if (rule != NULL && rule->take == DG_TAKE_TURNED)
        return w->num_dims == 2 && info->num_dims == 2 &&
                       w->dims[0] == info->dims[1] &&
                       w->dims[1] == info->dims[0]
                   ? 0
                   : -1;
    if (rule == NULL || rule->take == DG_TAKE_ALL ||
        rule->take == DG_TAKE_SWAPPED)
        return dg_manifest_same_shape(w->num_dims, w->dims, info->num_dims,
                                      info->dims)
                   ? 0
                   : -1;
    if (w->num_dims < 1 || info->num_dims < 1)
        return -1;
    memcpy(dims, info->dims, sizeof info->dims);
    rows = dims[0];
    dims[0] = w->dims[0];
    first = rule->take == DG_TAKE_TAIL ? rows - w->dims[0]
                                       : rule->part * w->dims[0];
    if (first < 0 || first > rows - w->dims[0] ||
        !dg_manifest_same_shape(w->num_dims, w->dims, info->num_dims, dims))
        return -1;
    return first;
}

static void plan_tensor(Check *k, const WeightWant *w)
{
    const RemapRule *rule;
    const int64_t tensor = find(k, w->name, &rule);
    const WeightInfo *info;
    int64_t row, count = 1;

    if (tensor < 0) {
        complain(&k->missing, w->name);
        return;
    }
    info = dg_source_info(k->source, tensor);
    row = first_row(w, info, rule);
    for (int i = 0; i < w->num_dims; i++)
        count *= w->dims[i];
    if (row < 0 || (rule != NULL && rule->take == DG_TAKE_SWAPPED &&
                    w->dims[0] % 2 != 0)) {
        complain_shape(k, w, info);
        k->used[tensor] = info->count; /* complained about once */
    } else if (rule != NULL && rule->take == DG_TAKE_SWAPPED) {
        add_piece(k, tensor, count / 2, w->at, count / 2);
        add_piece(k, tensor, 0, w->at + count / 2, count / 2);
    } else if (rule != NULL && rule->take == DG_TAKE_TURNED) {
        add_piece(k, tensor, 0, w->at, count);
        k->plan->pieces[k->plan->num - 1].turned = w->dims[0];
    } else {
        add_piece(k, tensor, w->num_dims ? row * (count / w->dims[0]) : 0,
                  w->at, count);
    }
}

static int is_ignored(const Check *k, const char *name)
{
    if (dg_remap_ignored(name))
        return 1;
    for (int i = 0; k->o != NULL && i < k->o->num_ignore; i++)
        if (dg_remap_matches(k->o->ignore[i], name))
            return 1;
    return 0;
}

/* What of the source nobody wants. */
static void find_unused(Check *k)
{
    const size_t skip = strlen(k->prefix);

    for (int64_t i = 0; i < dg_source_num(k->source); i++) {
        const WeightInfo *info = dg_source_info(k->source, i);
        char text[200];

        if (strncmp(info->name, k->prefix, skip) != 0 ||
            is_ignored(k, info->name + skip))
            continue;
        if (k->used[i] == 0 && info->count > 0) {
            complain(&k->unexpected, info->name);
        } else if (k->used[i] != info->count) {
            snprintf(text, sizeof text,
                     "%.100s: %" PRId64 " of %" PRId64 " values are used",
                     info->name, k->used[i], info->count);
            complain(&k->shape, text);
        }
    }
}

static int by_place(const void *a, const void *b)
{
    const Piece *p = a, *q = b;

    return (p->at > q->at) - (p->at < q->at);
}

/* One line of what is wrong, if anything is. */
static int verdict(const Check *k)
{
    const struct {
        const Complaint *c;
        const char *what;
    } kinds[] = { { &k->missing, "missing" },
                  { &k->unexpected, "unexpected" },
                  { &k->shape, "of another shape" } };
    char text[3 * (KIND_TEXT + 40)] = "";

    for (int i = 0; i < 3; i++) {
        const size_t used = strlen(text);

        if (kinds[i].c->num > 0)
            snprintf(text + used, sizeof text - used, "%s%d %s (%s%s)",
                     used ? "; " : "", kinds[i].c->num, kinds[i].what,
                     kinds[i].c->text, kinds[i].c->num > SHOWN ? ", ..." : "");
    }
    if (text[0] == '\0')
        return DG_OK;
    return dg_fail(DG_EFORMAT, "%s: not this network's weights: %s",
                   dg_source_label(k->source), text);
}

int dg_manifest_plan(WeightPlan **out, const WeightSource *source,
                     const WeightWant *wants, int num_wants,
                     const ManifestOpts *o)
{
    Check k = { .source = source, .o = o, .plan = calloc(1, sizeof *k.plan) };
    int err = DG_OK;

    k.used = calloc((size_t)dg_source_num(source) + 1, sizeof *k.used);
    if (k.plan != NULL)
        k.plan->pieces = calloc((size_t)num_wants + 1, 2 * sizeof(Piece));
    if (k.used == NULL || k.plan == NULL || k.plan->pieces == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: plan of %d tensors",
                      dg_source_label(source), num_wants);
    } else {
        k.plan->source = source;
        choose_prefix(&k, wants, num_wants);
        for (int i = 0; i < num_wants; i++)
            plan_tensor(&k, &wants[i]);
        find_unused(&k);
        if (k.plan->num > 1)
            qsort(k.plan->pieces, (size_t)k.plan->num, sizeof(Piece), by_place);
        err = verdict(&k);
    }
    free(k.used);
    if (err)
        dg_manifest_free(k.plan);
    else
        *out = k.plan;
    return err;
}

void dg_manifest_free(WeightPlan *p)
{
    if (p == NULL)
        return;
    free(p->pieces);
    free(p);
}

/* Values from .. to of the buffer out of a turned matrix, of each row of the source
 * what is needed: element (c, r) there is (r, c) here. */
static int fill_turned(const WeightSource *source, const Piece *q, int64_t from,
                       int64_t to, float *dst)
{
    const int64_t rows = q->turned, columns = q->num / rows;
    const int64_t r0 = (from - q->at) / columns;
    const int64_t num = (to - 1 - q->at) / columns + 1 - r0;
    float *line = malloc(sizeof *line * (size_t)num);
    int err = DG_OK;

    if (line == NULL)
        return dg_fail(DG_ENOMEM, "%s: a row of %" PRId64 " values",
                       dg_source_label(source), num);
    for (int64_t c = 0; c < columns && !err; c++) {
        err = dg_source_read(source, q->tensor, c * rows + r0, num, line);
        for (int64_t r = 0; r < num && !err; r++) {
            const int64_t place = q->at + (r0 + r) * columns + c;

            if (place >= from && place < to)
                dst[place - from] = line[r];
        }
    }
    free(line);
    return err;
}

int dg_manifest_fill(const WeightPlan *p, int64_t first, int64_t num,
                     float *dst)
{
    const int64_t end = first + num;
    int64_t done = first;
    int err = DG_OK;

    for (int64_t i = 0; i < p->num && !err; i++) {
        const Piece *q = &p->pieces[i];
        const int64_t from = q->at > first ? q->at : first;
        const int64_t to = q->at + q->num < end ? q->at + q->num : end;

        if (from >= to)
            continue;
        if (from > done)
            memset(dst + (done - first), 0,
                   (size_t)(from - done) * sizeof *dst);
        err =
            q->turned
                ? fill_turned(p->source, q, from, to, dst + (from - first))
                : dg_source_read(p->source, q->tensor, q->from + (from - q->at),
                                 to - from, dst + (from - first));
        done = to;
    }
    if (!err && end > done)
        memset(dst + (done - first), 0, (size_t)(end - done) * sizeof *dst);
    return err;
}
