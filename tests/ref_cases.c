#include "kernel_case.h"

#include "cpu/cpu.h"
#include "ref_conv.h"

#include <string.h>

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* --- gemm: rows, n, k, trans_a, trans_b, accumulate ---------------------- */

static void gemm_run(const Backend *be, const Case *c, int64_t batch, float **p)
{
    const int64_t *d = c->dims;
    const int64_t m = d[0] * batch;

    be->gemm(&(GemmArgs) { .trans_b = (int)d[3],
                           .m = m,
                           .n = d[1],
                           .k = d[2],
                           .lda = d[2],
                           .ldb = d[3] ? d[2] + 1 : d[1] + 1,
                           .ldc = d[1],
                           .rows_per_sample = d[0],
                           .beta = (float)d[4],
                           .a = p[0],
                           .b = p[1],
                           .c = p[2] });
}

static void gemm_case(Case *c)
{
    const int64_t *d = c->dims;

    c->name = "gemm";
    c->run = gemm_run;
    case_slot(c, SLOT_IN, d[0] * d[2], 0);
    case_slot(c, SLOT_SHARED, d[3] ? d[1] * (d[2] + 1) : d[2] * (d[1] + 1), 0);
    case_slot(c, d[4] ? SLOT_ADD : SLOT_OUT, d[0] * d[1], 0);
    c->y = -1;
    c->terms = d[2];
}

/* --- linear: rows, in, in2, out, act ------------------------------------ */

static void linear_run(const Backend *be, const Case *c, int64_t batch,
                       float **p)
{
    const int64_t *d = c->dims;
    const int64_t ldw = d[1] + d[2];
    LinearGradArgs g = {
        batch, d[0], d[1], d[3], ldw, p[0], p[7], p[9], p[10]
    };

    be->linear(&(LinearArgs) { batch * d[0], d[1], d[2], d[3], ldw, d[0], p[0],
                               d[2] ? p[1] : NULL, p[2], p[3], p[4], p[5],
                               (Act)d[4] });
    be->act_grad(
        &(ActArgs) { (Act)d[4], batch * d[0] * d[3], p[5], p[6], p[7], 0 });
    be->gemm(&(GemmArgs) { .m = batch * d[0],
                           .n = d[1],
                           .k = d[3],
                           .lda = d[3],
                           .ldb = ldw,
                           .ldc = d[1],
                           .rows_per_sample = d[0],
                           .a = p[7],
                           .b = p[2],
                           .c = p[8] });
    be->linear_grad(&g);
    if (d[2]) {
        g.in = d[2];
        g.x = p[1];
        g.dw += d[1];
        g.dbias = NULL;
        be->linear_grad(&g);
    }
}

static void linear_case(Case *c)
{
    const int64_t *d = c->dims;

    c->name = "linear";
    c->run = linear_run;
    case_slot(c, SLOT_IN, d[0] * d[1], 0);
    case_slot(c, SLOT_IN, d[0] * d[2], 0);
    case_slot(c, SLOT_SHARED, d[3] * (d[1] + d[2]), 0);
    case_slot(c, SLOT_SHARED, d[3], 0);
    case_slot(c, SLOT_OUT, d[0] * d[3], 0); /* 4: y */
    case_slot(c, SLOT_OUT, d[0] * d[3], 0); /* pre */
    case_slot(c, SLOT_IN, d[0] * d[3], 0);  /* 6: dy */
    case_slot(c, SLOT_OUT, d[0] * d[3], 0); /* d pre */
    case_slot(c, SLOT_OUT, d[0] * d[1], 1);
    case_slot(c, SLOT_SHARED_ADD, d[3] * (d[1] + d[2]), 3);
    case_slot(c, SLOT_SHARED_ADD, d[3], 4);
    c->y = 4;
    c->dy = 6;
    c->terms = most(most(d[0] * 8, d[3]), d[1] + d[2]);
    c->wide = 1u << 9 | 1u << 10;
}

/* --- act and gated: count, act ------------------------------------------ */

static void act_run(const Backend *be, const Case *c, int64_t batch, float **p)
{
    const int64_t n = c->dims[0] * batch;
    const Act act = (Act)c->dims[1];

    be->act(&(ActArgs) { act, n, p[0], NULL, p[1], 0 });
    be->act_grad(&(ActArgs) { act, n, p[0], p[2], p[3], 1 });
}

static void act_case(Case *c)
{
    const int64_t n = c->dims[0];

    c->name = "act";
    c->run = act_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_ADD, n, 1);
    c->y = 1;
    c->dy = 2;
    c->terms = 1;
}

static void gated_run(const Backend *be, const Case *c, int64_t batch,
                      float **p)
{
    GatedArgs a = { (Act)c->dims[1],
                    c->dims[0] * batch,
                    p[0],
                    p[1],
                    p[3],
                    p[2],
                    p[4],
                    p[5],
                    1,
                    0 };

    be->gated(&a);
    be->gated_grad(&a);
}

static void gated_case(Case *c)
{
    const int64_t n = c->dims[0];

    c->name = "gated";
    c->run = gated_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, n, 1);
    case_slot(c, SLOT_OUT, n, 2);
    c->y = 2;
    c->dy = 3;
    c->terms = 1;
}

/* --- norm: rows, width, rms, modulated, accumulate ----------------------- */

static void norm_run(const Backend *be, const Case *c, int64_t batch, float **p)
{
    const int64_t *d = c->dims;
    NormArgs a = { .kind = d[2] ? DG_NORM_RMS : DG_NORM_LAYER,
                   .batch = batch,
                   .rows = d[0],
                   .width = d[1],
                   .eps = 1e-5f,
                   .x = p[0],
                   .y = p[3],
                   .mean = d[2] ? NULL : p[4],
                   .rstd = p[5],
                   .dy = p[6],
                   .dx = p[7],
                   .accumulate = (int)d[4],
                   .ld_mod = 2 * d[1] };

    if (d[3]) {
        a.shift = p[1];
        a.scale = case_past(c, p[1], d[1]);
        a.dshift = p[8];
        a.dscale = case_past(c, p[8], d[1]);
    } else {
        a.w = p[2];
        a.b = case_past(c, p[2], d[1]);
        a.dw = p[9];
        a.db = p[9] + d[1];
    }
    be->norm(&a);
    be->norm_grad(&a);
}

static void norm_case(Case *c)
{
    const int64_t *d = c->dims, n = d[0] * d[1];

    c->name = "norm";
    c->run = norm_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_IN, d[3] ? 2 * d[1] : 0, 0); /* shift, scale */
    case_slot(c, SLOT_SHARED, d[3] ? 0 : 2 * d[1], 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_OUT, d[2] ? 0 : d[0], 0);
    case_slot(c, SLOT_OUT, d[0], 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, d[4] ? SLOT_ADD : SLOT_OUT, n, 1);
    case_slot(c, SLOT_ADD, d[3] ? 2 * d[1] : 0, 2);
    case_slot(c, SLOT_SHARED_ADD, d[3] ? 0 : 2 * d[1], 3);
    c->y = 3;
    c->dy = 6;
    c->terms = most(8 * d[0], d[1]);
    c->wide = 1u << 4 | 1u << 5 | 1u << 9;
}

/* --- qk: heads, d, tokens0, tokens1, weighted, rotated ------------------- */

static void qk_run(const Backend *be, const Case *c, int64_t batch, float **p)
{
    const int64_t *d = c->dims;
    QkArgs a = { .batch = batch,
                 .heads = d[0],
                 .d = d[1],
                 .eps = 1e-6f,
                 .tokens = { d[2], d[3] },
                 .x = { p[0], p[1] },
                 .w = { d[4] ? p[2] : NULL,
                        d[4] ? case_past(c, p[2], d[1]) : NULL },
                 .cosines = d[5] ? p[3] : NULL,
                 .sines = d[5] ? p[3] + (d[2] + d[3]) * (d[1] / 2) : NULL,
                 .y = p[4],
                 .rstd = p[5],
                 .dy = p[6],
                 .dx = { p[7], p[8] },
                 .dw = { p[9], p[9] + d[1] } };

    be->qk(&a);
    be->qk_grad(&a);
}

static void qk_case(Case *c)
{
    const int64_t *d = c->dims, wide = d[0] * d[1], all = d[2] + d[3];

    c->name = "qk";
    c->run = qk_run;
    case_slot(c, SLOT_IN, d[2] * wide, 0);
    case_slot(c, SLOT_IN, d[3] * wide, 0);
    case_slot(c, SLOT_SHARED, 2 * d[1], 0);
    case_slot(c, SLOT_SHARED, all * d[1], 0); /* any numbers turn alike */
    case_slot(c, SLOT_OUT, all * wide, 0);
    case_slot(c, SLOT_OUT, all * d[0], 0);
    case_slot(c, SLOT_IN, all * wide, 0);
    case_slot(c, SLOT_OUT, d[2] * wide, 1);
    case_slot(c, SLOT_OUT, d[3] * wide, 2);
    case_slot(c, SLOT_SHARED_ADD, 2 * d[1], d[4] ? 3 : 0);
    c->y = 4;
    c->dy = 6;
    c->terms = 8 * all * d[0];
    c->wide = 1u << 3 | 1u << 5 | 1u << 9;
}

/* --- attention: heads, d, sq, sk, causal, biased ------------------------- */

static void attention_run(const Backend *be, const Case *c, int64_t batch,
                          float **p)
{
    const int64_t *d = c->dims;
    AttentionArgs a = { .batch = batch,
                        .heads = d[0],
                        .d = d[1],
                        .sq = d[2],
                        .sk = d[3],
                        .scale = 0.6f,
                        .causal = (int)d[4],
                        .bias = d[5] ? p[3] : NULL,
                        .q = p[0],
                        .k = p[1],
                        .v = p[2],
                        .o = p[4],
                        .lse = p[5],
                        .d_o = p[6],
                        .dq = p[7],
                        .dk = p[8],
                        .dv = p[9],
                        .dbias = d[5] ? p[10] : NULL,
                        .scratch = p[11] };

    be->attention(&a);
    a.scratch = p[12];
    be->attention_grad(&a);
}

static void attention_case(Case *c)
{
    const int64_t *d = c->dims, q = d[2] * d[0] * d[1], k = d[3] * d[0] * d[1];
    const int64_t bias = d[5] ? d[0] * d[2] * d[3] : 0;
    const Backend *cpu = dg_backend_cpu();

    c->name = "attention";
    c->run = attention_run;
    case_slot(c, SLOT_IN, q, 0);
    case_slot(c, SLOT_IN, k, 0);
    case_slot(c, SLOT_IN, k, 0);
    case_slot(c, SLOT_SHARED, bias, 0);
    case_slot(c, SLOT_OUT, q, 0);
    case_slot(c, SLOT_OUT, d[0] * d[2], 0);
    case_slot(c, SLOT_IN, q, 0);
    case_slot(c, SLOT_OUT, q, 1);
    case_slot(c, SLOT_OUT, k, 2);
    case_slot(c, SLOT_OUT, k, 3);
    case_slot(c, SLOT_SHARED_ADD, bias, 4);
    case_slot(c, SLOT_SCRATCH,
              (int64_t)cpu->attention_scratch(d[2], d[3], d[1], 0) / 4, 0);
    case_slot(c, SLOT_SCRATCH,
              (int64_t)cpu->attention_scratch(d[2], d[3], d[1], 1) / 4, 0);
    c->y = 4;
    c->dy = 6;
    c->terms = 4 * most(d[1], d[3]);
    c->wide = 1u << 3 | 1u << 5 | 1u << 10 | 1u << 11 | 1u << 12;
}

/* --- gate: rows, width ---------------------------------------------------- */

static void gate_run(const Backend *be, const Case *c, int64_t batch, float **p)
{
    const int64_t *d = c->dims;
    GateArgs a = { .batch = batch,
                   .rows = d[0],
                   .width = d[1],
                   .ld_gate = 3 * d[1],
                   .r = p[0],
                   .f = p[1],
                   .gate = case_past(c, p[2], d[1]),
                   .y = p[3],
                   .dy = p[4],
                   .df = p[5],
                   .dgate = case_past(c, p[6], d[1]) };

    be->gate(&a);
    be->gate_grad(&a);
}

static void gate_case(Case *c)
{
    const int64_t *d = c->dims, n = d[0] * d[1];

    c->name = "gate";
    c->run = gate_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_IN, 3 * d[1], 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, n, 2);
    case_slot(c, SLOT_ADD, 3 * d[1], 3);
    c->y = 3;
    c->dy = 4;
    c->terms = d[0];
}

/* --- copy, add, scale, fill: rows, width, accumulate ---------------------- */

static void plain_run(const Backend *be, const Case *c, int64_t batch,
                      float **p)
{
    const int64_t *d = c->dims, n = d[0] * d[1];

    be->copy(&(CopyArgs) { batch, d[0], d[1] - 1, n, d[1], n, d[1], p[0], p[1],
                           (int)d[2] });
    be->add(p[2], p[0], p[3], batch * n);
    be->add(p[2], p[2], p[0], batch * n);
    be->scale(p[4], p[0], -1.7f, batch * n);
    be->fill(p[5], 2.5f, batch * n);
}

static void plain_case(Case *c)
{
    const int64_t n = c->dims[0] * c->dims[1];

    c->name = "plain";
    c->run = plain_run;
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_ADD, n, 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_IN, n, 0);
    case_slot(c, SLOT_OUT, n, 0);
    case_slot(c, SLOT_OUT, n, 0);
    c->y = -1;
    c->terms = 1;
}

typedef void CaseMaker(Case *c);

static const struct {
    CaseMaker *make;
    int64_t dims[CASE_DIMS];
} cases[] = {
    { gemm_case, { 1, 40, 33, 0, 0 } },
    { gemm_case, { 1, 7, 130, 1, 1 } },
    { gemm_case, { 5, 37, 19, 0, 1 } },
    { gemm_case, { 15, 3, 70, 1, 0 } },
    { gemm_case, { 16, 33, 40, 0, 1 } },
    { gemm_case, { 80, 96, 128, 1, 0 } },
    { linear_case, { 1, 24, 0, 72, DG_ACT_SILU } },
    { linear_case, { 1, 256, 0, 33, DG_ACT_NONE } },
    { linear_case, { 3, 19, 11, 21, DG_ACT_GELU_ERF } },
    { linear_case, { 15, 40, 0, 17, DG_ACT_QUICK_GELU } },
    { linear_case, { 16, 33, 0, 40, DG_ACT_GELU_TANH } },
    { linear_case, { 17, 5, 3, 1, DG_ACT_NONE } },
    { linear_case, { 20, 24, 1400, 64, DG_ACT_SILU } },
    { linear_case, { 18, 700, 30, 208, DG_ACT_QUICK_GELU } },
    { linear_case, { 80, 96, 0, 384, DG_ACT_GELU_TANH } },
    { linear_case, { 18, 21, 0, 56, DG_ACT_GELU_TANH } },
    { linear_case, { 80, 128, 512, 128, DG_ACT_NONE } },
    /* where the library's bits depend on the number of rows */
    { linear_case, { 64, 1000, 0, 320, DG_ACT_NONE } },
    { linear_case, { 64, 1030, 0, 70, DG_ACT_NONE } },
    { act_case, { 1003, DG_ACT_NONE } },
    { act_case, { 1003, DG_ACT_SILU } },
    { act_case, { 1003, DG_ACT_GELU_ERF } },
    { act_case, { 1003, DG_ACT_GELU_TANH } },
    { act_case, { 1003, DG_ACT_QUICK_GELU } },
    { gated_case, { 333, DG_ACT_GELU_TANH } },
    { gated_case, { 48, DG_ACT_SILU } },
    { gated_case, { 48, DG_ACT_GELU_ERF } },
    { norm_case, { 3, 33, 0, 0, 0 } },
    { norm_case, { 5, 128, 0, 1, 1 } },
    { norm_case, { 4, 96, 1, 0, 1 } },
    { norm_case, { 2, 7, 1, 1, 0 } },
    { norm_case, { 80, 64, 0, 1, 0 } },
    { qk_case, { 3, 32, 5, 9, 1, 1 } },
    { qk_case, { 2, 24, 0, 4, 1, 1 } },
    { qk_case, { 2, 10, 3, 0, 1, 0 } },
    { qk_case, { 2, 128, 2, 3, 0, 1 } },
    { attention_case, { 4, 32, 80, 80, 0, 0 } },
    { attention_case, { 2, 24, 33, 50, 0, 1 } },
    { attention_case, { 2, 16, 77, 77, 1, 0 } },
    { attention_case, { 3, 64, 1, 17, 0, 0 } },
    { attention_case, { 1, 7, 5, 3, 0, 1 } },
    { attention_case, { 1, 72, 100, 430, 0, 0 } },
    { attention_case, { 1, 32, 410, 410, 1, 1 } },
    { attention_case, { 2, 8, 1, 1, 1, 0 } },
    { gate_case, { 3, 33 } },
    { gate_case, { 80, 96 } },
    { plain_case, { 3, 17, 1 } },
    { plain_case, { 9, 130, 0 } },
    /* h, w, in, out, kernel, stride + 10 (padding) */
    { ref_conv_case, { 5, 7, 3, 5, 3, 11 } },
    { ref_conv_case, { 9, 6, 20, 4, 3, 12 } },
    { ref_conv_case, { 7, 11, 6, 9, 3, 22 } },
    { ref_conv_case, { 8, 4, 33, 16, 3, 22 } },
    { ref_conv_case, { 1, 1, 24, 7, 3, 11 } },
    { ref_conv_case, { 2, 2, 16, 32, 3, 11 } },
    { ref_conv_case, { 6, 5, 7, 3, 4, 31 } },
    { ref_conv_case, { 5, 3, 12, 11, 1, 1 } },
    { ref_conv_case, { 4, 3, 10, 5, 3, 41 } },
    { ref_conv_case, { 3, 5, 5, 12, 3, 42 } },
    { ref_conv_case, { 4, 3, 10, 5, 3, 51 } },
    { ref_conv_case, { 3, 5, 6, 4, 3, 61 } },
    { ref_conv_case, { 2, 3, 17, 7, 3, 71 } },
    { ref_conv_case, { 1, 1, 5, 3, 3, 71 } },
    { ref_conv_case, { 9, 5, 4, 6, 2, 2 } },
    { ref_conv_case, { 6, 4, 600, 5, 3, 11 } },  /* several products deep */
    { ref_conv_case, { 2, 3, 1030, 4, 3, 11 } }, /* one for each tap */
    { ref_conv_case, { 24, 43, 8, 3, 3, 11 } },  /* several tiles */
    { ref_conv_case, { 6, 7, 20, 3, 5, 21 } },   /* more taps than lanes */
    { ref_group_norm_case, { 1, 24, 8, 1 } },
    { ref_group_norm_case, { 35, 30, 6, 1 } },
    { ref_group_norm_case, { 129, 32, 32, 0 } },
    { ref_group_norm_case, { 150, 40, 2, 1 } },
    { ref_add_rows_case, { 35, 21 } },
    { ref_add_rows_case, { 130, 64 } },
    { ref_halves_case, { 5, 33, DG_ACT_GELU_ERF } },
    { attention_case, { 1, 512, 20, 33, 0, 0 } },
    /* rows of one, two, four and eight warps, and longer than these keep */
    { norm_case, { 3, 1024, 0, 0, 0 } },
    { norm_case, { 5, 1536, 1, 0, 1 } },
    { norm_case, { 3, 2052, 0, 1, 1 } },
    { norm_case, { 2, 4104, 0, 1, 0 } },
    { norm_case, { 1, 8200, 0, 0, 1 } },
    /* more sums of parts than a block folds at once, and than there may be */
    { norm_case, { 140, 24, 0, 1, 1 } },
    { norm_case, { 1030, 9, 1, 0, 1 } },
    { gate_case, { 8300, 3 } },
    /* several planes, of rows and of columns */
    { gate_case, { 300, 40 } },
    { plain_case, { 70, 161, 1 } },
    { plain_case, { 3, 1025, 0 } },
    { qk_case, { 8, 8, 2, 140, 1, 1 } },
    { qk_case, { 3, 128, 3, 50, 1, 1 } },
    { qk_case, { 1, 132, 3, 2, 1, 1 } },
    { qk_case, { 1, 264, 0, 3, 1, 1 } },
    { ref_group_norm_case, { 140, 80, 4, 1 } },
    { ref_add_rows_case, { 140, 48 } },
    { ref_halves_case, { 40, 96, DG_ACT_GELU_TANH } },
};

int case_count(void)
{
    return (int)(sizeof cases / sizeof *cases);
}

static void make(Case *out, CaseMaker *maker, const int64_t *dims)
{
    memset(out, 0, sizeof *out);
    out->bytes = sizeof(float);
    memcpy(out->dims, dims, sizeof out->dims);
    maker(out);
}

void case_get(int i, Case *out)
{
    make(out, cases[i].make, cases[i].dims);
}

/* Sizes drawn are least .. most, twice that where the bit of 'even' is set. */
static const struct {
    CaseMaker *make;
    int64_t least[CASE_DIMS], most[CASE_DIMS];
    unsigned even;
} kinds[] = {
    { gemm_case, { 1, 1, 1 }, { 40, 70, 130, 1, 1 }, 0 },
    { linear_case, { 1, 1, 0, 1 }, { 40, 90, 40, 70, DG_ACT_QUICK_GELU }, 0 },
    { act_case, { 1 }, { 1500, DG_ACT_QUICK_GELU }, 0 },
    { gated_case, { 1, 1 }, { 700, DG_ACT_QUICK_GELU }, 0 },
    { norm_case, { 1, 2 }, { 30, 200, 1, 1, 1 }, 0 },
    { qk_case, { 1, 1, 1 }, { 4, 40, 9, 9, 1, 1 }, 2 },
    { attention_case, { 1, 1, 1, 1 }, { 3, 70, 90, 90, 1, 1 }, 0 },
    { gate_case, { 1, 1 }, { 40, 100 }, 0 },
    { plain_case, { 1, 1 }, { 20, 150, 1 }, 0 },
    { ref_conv_case, { 1, 1, 1, 1, 1, 11 }, { 12, 9, 40, 20, 3, 12 }, 0 },
    { ref_group_norm_case, { 2, 1, 1 }, { 150, 30, 2, 1 }, 2 },
    { ref_add_rows_case, { 1, 1 }, { 90, 90 }, 0 },
    { ref_halves_case, { 2, 1, 1 }, { 9, 50, DG_ACT_QUICK_GELU }, 0 },
};

int case_kinds(void)
{
    return (int)(sizeof kinds / sizeof *kinds);
}

void case_draw(int i, int64_t (*draw)(int64_t n), Case *out)
{
    int64_t dims[CASE_DIMS];

    for (int k = 0; k < CASE_DIMS; ++k) {
        dims[k] =
            kinds[i].least[k] + draw(kinds[i].most[k] - kinds[i].least[k] + 1);
        dims[k] *= kinds[i].even >> k & 1 ? 2 : 1;
    }
    make(out, kinds[i].make, dims);
}
