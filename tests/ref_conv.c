#include "ref_conv.h"

#include <math.h>
#include <string.h>

/* --- convolution, as its definition stands ------------------------------- */

size_t ref_conv_scratch(const ConvArgs *a)
{
    (void)a;
    return 0;
}

size_t ref_group_norm_scratch(int64_t width)
{
    (void)width;
    return 0;
}

/* What one output pixel takes from one tap: offset of its input pixel in x, -1
 * outside. */
static int64_t pixel(const ConvArgs *a, int64_t at, int64_t u, int64_t v)
{
    const int64_t pixels = a->out_h * a->out_w;
    const int64_t i = at % pixels / a->out_w * a->stride + u - a->top;
    const int64_t j = at % a->out_w * a->stride + v - a->left;

    if (i < 0 || i >= a->h * a->zoom - a->cut_h || j < 0 ||
        j >= a->w * a->zoom - a->cut_w)
        return -1;
    return ((at / pixels * a->h + i / a->zoom) * a->w + j / a->zoom) * a->in;
}

typedef void Tap(const ConvArgs *a, double *sum, int64_t x, int64_t y,
                 int64_t weight);

/* Every product of the sum, in order of output pixel, channel, tap, input. */
static void each_product(const ConvArgs *a, Tap *work, double *sum, int64_t at,
                         int64_t o)
{
    for (int64_t u = 0; u < a->kernel_h; ++u)
        for (int64_t v = 0; v < a->kernel_w; ++v) {
            const int64_t from = pixel(a, at, u, v);
            for (int64_t c = 0; from >= 0 && c < a->in; ++c)
                work(a, sum, from + c, at * a->out + o,
                     ((o * a->in + c) * a->kernel_h + u) * a->kernel_w + v);
        }
}

static int64_t outputs(const ConvArgs *a)
{
    return a->batch * a->out_h * a->out_w;
}

static void forward(const ConvArgs *a, double *sum, int64_t x, int64_t y,
                    int64_t weight)
{
    (void)y;
    *sum += (double)a->x[x] * a->weight[weight];
}

void ref_conv(const ConvArgs *a)
{
    for (int64_t at = 0; at < outputs(a); ++at)
        for (int64_t o = 0; o < a->out; ++o) {
            double sum = a->bias != NULL ? a->bias[o] : 0.0;
            each_product(a, forward, &sum, at, o);
            a->y[at * a->out + o] = (float)sum;
        }
}

static void to_input(const ConvArgs *a, double *sum, int64_t x, int64_t y,
                     int64_t weight)
{
    sum[x] += (double)a->dy[y] * a->weight[weight];
}

static void to_weight(const ConvArgs *a, double *sum, int64_t x, int64_t y,
                      int64_t weight)
{
    sum[weight] += (double)a->dy[y] * a->x[x];
}

/* Sums in double, then added to or put into out. */
static void all_products(const ConvArgs *a, Tap *work, float *out,
                         int64_t count, int accumulate)
{
    static double sum[200000];

    memset(sum, 0, (size_t)count * sizeof *sum);
    for (int64_t at = 0; at < outputs(a); ++at)
        for (int64_t o = 0; o < a->out; ++o)
            each_product(a, work, sum, at, o);
    for (int64_t i = 0; i < count; ++i)
        out[i] = (float)((accumulate ? out[i] : 0.0) + sum[i]);
}

void ref_conv_input_grad(const ConvArgs *a)
{
    all_products(a, to_input, a->dx, a->batch * a->h * a->w * a->in,
                 a->accumulate);
}

void ref_conv_weight_grad(const ConvArgs *a)
{
    all_products(a, to_weight, a->dweight,
                 a->out * a->in * a->kernel_h * a->kernel_w, 1);
    for (int64_t o = 0; a->dbias != NULL && o < a->out; ++o) {
        double sum = a->dbias[o];
        for (int64_t at = 0; at < outputs(a); ++at)
            sum += a->dy[at * a->out + o];
        a->dbias[o] = (float)sum;
    }
}

/* --- group norm ----------------------------------------------------------- */

typedef struct Group {
    int64_t first, rows, n, width; /* first element; n channels */
    double mean, rstd;
} Group;

static double element(const Group *g, const float *x, int64_t i)
{
    return x[g->first + i / g->n * g->width + i % g->n];
}

static Group group_of(const GroupNormArgs *a, int64_t at)
{
    Group g = { .rows = a->rows, .n = a->width / a->groups, .width = a->width };
    const int64_t count = g.rows * g.n;
    double square = 0.0;

    g.first = at / a->groups * a->rows * a->width + at % a->groups * g.n;
    for (int64_t i = 0; i < count; ++i)
        g.mean += element(&g, a->x, i) / (double)count;
    for (int64_t i = 0; i < count; ++i)
        square += pow(element(&g, a->x, i) - g.mean, 2);
    g.rstd = 1.0 / sqrt(square / (double)count + a->eps);
    return g;
}

void ref_group_norm(const GroupNormArgs *a)
{
    for (int64_t at = 0; at < a->batch * a->groups; ++at) {
        const Group g = group_of(a, at);
        for (int64_t i = 0; i < g.rows * g.n; ++i) {
            const int64_t c = at % a->groups * g.n + i % g.n;
            const double xhat = (element(&g, a->x, i) - g.mean) * g.rstd;
            const double v = xhat * a->w[c] + a->b[c];
            a->y[g.first + i / g.n * g.width + i % g.n] =
                (float)(a->act == DG_ACT_SILU ? v / (1.0 + exp(-v)) : v);
        }
        a->mean[at] = (float)g.mean;
        a->rstd[at] = (float)g.rstd;
    }
}

/* dy times the derivative of the activation */
static double inner_grad(const GroupNormArgs *a, double dy, double v)
{
    const double s = 1.0 / (1.0 + exp(-v));

    return a->act == DG_ACT_SILU ? dy * s * (1.0 + v * (1.0 - s)) : dy;
}

void ref_group_norm_grad(const GroupNormArgs *a)
{
    static double dw[4096], db[4096];

    memset(dw, 0, sizeof dw);
    memset(db, 0, sizeof db);
    for (int64_t at = 0; at < a->batch * a->groups; ++at) {
        const Group g = group_of(a, at);
        const int64_t count = g.rows * g.n, c0 = at % a->groups * g.n;
        double mean = 0.0, along = 0.0;
        for (int pass = 0; pass < 2; ++pass)
            for (int64_t i = 0; i < count; ++i) {
                const int64_t c = c0 + i % g.n;
                const double xhat = (element(&g, a->x, i) - g.mean) * g.rstd;
                const double d = inner_grad(a, element(&g, a->dy, i),
                                            xhat * a->w[c] + a->b[c]);
                if (pass == 0) {
                    mean += d * a->w[c] / (double)count;
                    along += d * a->w[c] * xhat / (double)count;
                    dw[c] += d * xhat;
                    db[c] += d;
                } else {
                    a->dx[g.first + i / g.n * g.width + i % g.n] =
                        (float)(g.rstd * (d * a->w[c] - mean - xhat * along));
                }
            }
    }
    for (int64_t c = 0; c < a->width; ++c) {
        if (a->dw != NULL)
            a->dw[c] = (float)(a->dw[c] + dw[c]);
        if (a->db != NULL)
            a->db[c] = (float)(a->db[c] + db[c]);
    }
}

/* --- rows ------------------------------------------------------------------ */

void ref_add_rows(const AddRowsArgs *a)
{
    for (int64_t i = 0; i < a->batch * a->rows * a->width; ++i)
        a->y[i] =
            a->x[i] + a->v[i / (a->rows * a->width) * a->width + i % a->width];
}

void ref_add_rows_grad(const AddRowsArgs *a)
{
    for (int64_t i = 0; i < a->batch * a->width; ++i) {
        const int64_t first = i / a->width * a->rows * a->width + i % a->width;
        double sum = a->dv[i];
        for (int64_t r = 0; r < a->rows; ++r)
            sum += a->dy[first + r * a->width];
        a->dv[i] = (float)sum;
    }
}

static const Backend *scratch_for; /* its sizes are the cases' */

void ref_conv_scratch_for(const Backend *be)
{
    scratch_for = be;
}

/* --- cases: convolution: h, w, in, out, kernel, stride + 10 padding -------- */

/* padding 0: none, 1: one zero all around, 2: right and below, 3: two above,
 * 4: as 1, with each pixel four times; 5 to 7: that, without the last row,
 * the last column, both */
static ConvArgs conv_args(const Case *c, int64_t batch)
{
    const int64_t *d = c->dims, zoom = d[5] / 10 >= 4 ? 2 : 1;
    const int64_t cut = zoom == 2 ? d[5] / 10 - 4 : 0;
    const int64_t kind = zoom == 2 ? 1 : d[5] / 10;
    const int64_t tall = kind == 1 ? 2 : kind == 2 ? 1 : kind == 3 ? 2 : 0;
    const int64_t wide = kind == 1 ? 2 : kind == 2 ? 1 : 0;
    ConvArgs a = { .batch = batch, .h = d[0], .w = d[1], .in = d[2] };

    a.out = d[3];
    a.kernel_h = d[4];
    a.kernel_w = d[4] == 4 ? 2 : d[4]; /* 4: a kernel that is not square */
    a.stride = d[5] % 10;
    a.top = kind == 1 ? 1 : kind == 3 ? 2 : 0;
    a.left = kind == 1;
    a.zoom = zoom;
    a.cut_h = cut & 1;
    a.cut_w = cut >> 1;
    a.out_h = (zoom * a.h - a.cut_h + tall - a.kernel_h) / a.stride + 1;
    a.out_w = (zoom * a.w - a.cut_w + wide - a.kernel_w) / a.stride + 1;
    return a;
}

static void conv_run(const Backend *be, const Case *c, int64_t batch, float **p)
{
    ConvArgs a = conv_args(c, batch);

    a.x = p[0];
    a.weight = p[1];
    a.bias = c->slots[2].size ? p[2] : NULL;
    a.y = p[3];
    a.dy = p[4];
    a.dx = p[5];
    a.dweight = p[6];
    a.dbias = c->slots[2].size ? p[7] : NULL;
    a.scratch = p[8];
    a.accumulate = c->slots[5].kind == SLOT_ADD;
    be->conv(&a);
    be->conv_input_grad(&a);
    be->conv_weight_grad(&a);
}

void ref_conv_case(Case *c)
{
    const ConvArgs a = conv_args(c, 1);
    const int64_t x = a.h * a.w * a.in, y = a.out_h * a.out_w * a.out;
    const int64_t w = a.out * a.in * a.kernel_h * a.kernel_w;
    const int odd = (int)(a.out & 1); /* with bias, dx overwritten, or not */

    c->name = "conv";
    c->run = conv_run;
    case_slot(c, SLOT_IN, x, 0);
    case_slot(c, SLOT_SHARED, w, 0);
    case_slot(c, SLOT_SHARED, odd ? a.out : 0, 0);
    case_slot(c, SLOT_OUT, y, 0); /* 3: y */
    case_slot(c, SLOT_IN, y, 0);  /* 4: dy */
    case_slot(c, odd ? SLOT_OUT : SLOT_ADD, x, 1);
    case_slot(c, SLOT_SHARED_ADD, w, 2);
    case_slot(c, SLOT_SHARED_ADD, odd ? a.out : 0, 3);
    case_slot(c, SLOT_SCRATCH, (int64_t)scratch_for->conv_scratch(&a) / 4, 0);
    c->y = 3;
    c->dy = 4;
    c->terms = a.kernel_h * a.kernel_w * (a.in > a.out ? a.in : a.out);
    c->wide = 1u << 6 | 1u << 7 | 1u << 8;
    if (c->terms < 3 * a.out_h * a.out_w)
        c->terms = 3 * a.out_h * a.out_w;
}

/* --- group norm: rows, width, groups, silu --------------------------------- */

static void group_norm_run(const Backend *be, const Case *c, int64_t batch,
                           float **p)
{
    const int64_t *d = c->dims;
    GroupNormArgs a = { .batch = batch,
                        .rows = d[0],
                        .width = d[1],
                        .groups = d[2],
                        .eps = 1e-5f,
                        .act = d[3] ? DG_ACT_SILU : DG_ACT_NONE,
                        .x = p[0],
                        .w = p[1],
                        .b = case_past(c, p[1], d[1]),
                        .y = p[2],
                        .mean = p[3],
                        .rstd = p[4],
                        .dy = p[5],
                        .dx = p[6],
                        .dw = p[7],
                        .db = p[7] + d[1],
                        .scratch = p[8] };

    be->group_norm(&a);
    be->group_norm_grad(&a);
}

void ref_group_norm_case(Case *c)
{
    const int64_t *d = c->dims, n = d[0] * d[1];

    c->name = "group norm";
    c->run = group_norm_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_SHARED, 2 * d[1], 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_OUT, d[2], 0);
    case_slot(c, SLOT_OUT, d[2], 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, n, 1);
    case_slot(c, SLOT_SHARED_ADD, 2 * d[1], 2);
    case_slot(c, SLOT_SCRATCH,
              (int64_t)scratch_for->group_norm_scratch(d[1]) / 4 + 1, 0);
    c->y = 2;
    c->dy = 5;
    c->terms = 8 * d[0];
    c->wide = 1u << 3 | 1u << 4 | 1u << 7 | 1u << 8;
}

/* --- a vector to all rows: rows, width -------------------------------------- */

static void add_rows_run(const Backend *be, const Case *c, int64_t batch,
                         float **p)
{
    const AddRowsArgs a = { batch, c->dims[0], c->dims[1], p[0],
                            p[1],  p[2],       p[3],       p[4] };

    be->add_rows(&a);
    be->add_rows_grad(&a);
}

void ref_add_rows_case(Case *c)
{
    const int64_t n = c->dims[0] * c->dims[1];

    c->name = "add rows";
    c->run = add_rows_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_IN, c->dims[1], 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_ADD, c->dims[1], 2);
    c->y = 2;
    c->dy = 3;
    c->terms = c->dims[0];
}

/* --- gated halves: rows, width, act ------------------------------------------ */

static void halves_run(const Backend *be, const Case *c, int64_t batch,
                       float **p)
{
    const int64_t n = c->dims[1];
    const GatedArgs a = { .act = (Act)c->dims[2],
                          .count = n,
                          .a = p[0],
                          .g = case_past(c, p[0], n),
                          .dy = p[2],
                          .y = p[1],
                          .da = p[3],
                          .dg = case_past(c, p[3], n),
                          .rows = batch * c->dims[0],
                          .ld = 2 * n };

    be->gated(&a);
    be->gated_grad(&a);
}

void ref_halves_case(Case *c)
{
    const int64_t n = c->dims[0] * c->dims[1];

    c->name = "gated halves";
    c->run = halves_run;
    case_slot(c, SLOT_IN, 2 * n, 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, 2 * n, 1);
    c->y = 1;
    c->dy = 2;
    c->terms = 1;
}
