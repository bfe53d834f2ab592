/* A GPU: the machine's own rates, and a network or blocks against them. */
#include "train/bench_blocks.h"

#include "base/error.h"
#include "base/log.h"
#include "base/text_out.h"
#include "bench_subject.h"
#include "room.h"
#include "train/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the machine ---------------------------------------------------------- */

static int measure_product(double *rate, const Mirror operand[3],
                           const BenchTools *t, const DeviceBenchOpts *o)
{
    const double flops = 2 * pow((double)o->side, 3);
    double all[DG_BENCH_REPEATS];

    for (int i = -2; i < o->repeats; i++) { /* two to warm up */
        double seconds;

        t->start(t->user);
        t->product(t->user, operand[0].at, operand[1].at, operand[2].at,
                   o->side, o->side, o->side);
        seconds = t->stop(t->user);
        if (i >= 0)
            all[i] = flops / seconds;
    }
    *rate = dg_bench_quantile(all, o->repeats, 0.5);
    return isfinite(*rate) ? DG_OK : dg_subject_failed(t->name);
}

static int measure_machine(DeviceBench *out, const Backend *backend,
                           const DeviceBenchOpts *o)
{
    Mirror operand[3] = { { 0 } };
    int err = DG_OK;

    for (int i = 0; i < 3 && !err; i++)
        err = dg_subject_normal(&operand[i], backend, o->side * o->side);
    for (int i = 0; i < o->num_tools && !err; i++) {
        out->tool[i] = o->tools[i].name;
        err = measure_product(&out->product[i], operand, &o->tools[i], o);
        if (!err)
            dg_info("so far: a product of %lld, %.1f GFLOP/s in %s",
                    (long long)o->side, 1e-9 * out->product[i], out->tool[i]);
    }
    for (int i = 0; i < 3; i++)
        dg_mirror_free(&operand[i]);
    return err;
}

/* --- the configuration's network ------------------------------------------ */

static Tensor *network_forward(const Subject *b, Context *ctx)
{
    const PolicyShape *s = &b->policy->shape;
    const float top =
        s->time == DG_TIME_SIGMA || s->time == DG_TIME_UNIT ? 1.0f : 1000.0f;
    const float *in = b->input.at; /* NULL: not yet there, in a plan */
    const float *z[DG_BENCH_BATCH], *condition[DG_BENCH_BATCH];
    float time[DG_BENCH_BATCH];
    const PolicyBatch batch = {
        .num = b->batch, .z = z, .time = time, .condition = condition
    };

    for (int64_t i = 0; i < b->batch; i++) {
        z[i] = in;
        condition[i] = in != NULL ? in + s->elements : NULL;
        time[i] = top * ((float)i + 0.5f) / (float)b->batch;
    }
    return dg_policy_predict(b->policy, ctx, &batch);
}

enum { CHUNK = 1 << 26 }; /* of weights that are drawn */

static int64_t num_weights(const Policy *p)
{
    return p->adapters.count + p->net.count;
}

static int64_t num_input(const Policy *p)
{
    return p->shape.elements + p->shape.condition;
}

/* Weights of standard deviation 0.02, made where they are used: no network is
 * too large for the host. What is computed of them is no matter. */
static int draw_weights(Subject *b, Policy *p)
{
    const Backend *be = b->backend;
    const Engine *engine = dg_engine_of(be);
    const int64_t num = num_weights(p);
    const int64_t size = dg_dtype_bytes(p->dtype);
    float *part = NULL;
    int err = dg_kernel_memory_new(&b->at, be, (size_t)(size * num));

    if (!err && p->dtype == DG_BF16)
        err = dg_kernel_memory_new((void **)&part, be,
                                   sizeof *part *
                                       (size_t)(num < CHUNK ? num : CHUNK));
    if (err)
        return err;
    for (int64_t i = 0; i < num; i += CHUNK) {
        const int64_t n = num - i < CHUNK ? num - i : CHUNK;
        const RngKey key = { .purpose = DG_RNG_TEST,
                             .sample = (uint32_t)(i / CHUNK) };

        float *to = part != NULL ? part : (float *)b->at + i;

        engine->normal(to, n, &key);
        be->scale(to, to, 0.02f, n);
        if (part != NULL)
            be->cast((char *)b->at + i * size, DG_BF16, part, DG_F32, n);
    }
    dg_kernel_memory_free(be, part);
    dg_params_point(&p->adapters, b->at, p->dtype);
    dg_params_point(&p->net, (char *)b->at + p->adapters.count * size,
                    p->dtype);
    return DG_OK;
}

/* The gradients may be more than there is room for. */
static int measure_both(Subject *b, BlockRate *out, int repeats, char note[256])
{
    const size_t bytes =
        sizeof(float) * (size_t)dg_policy_trained(b->policy)->count;
    const RoomKey key = { 1, "smaller pictures or networks" };
    uint64_t needs; /* besides what is there */
    int err = dg_subject_bytes(b, 0, 0, 1, &needs);

    if (!err)
        err = dg_room_alone(b->backend, needs, &key, 1);
    if (!err)
        err = dg_kernel_memory_new((void **)&b->grads, b->backend, bytes);
    if (!err)
        err = dg_subject_measure(b, 1, repeats, out);
    if (err != DG_ENOMEM)
        return err;
    snprintf(note, 256, "forward and backward: %.200s", dg_last_error()->text);
    *out = (BlockRate) { NAN, NAN, NAN, NAN };
    return DG_OK;
}

/* Its sizes alone. */
static int outline_network(Subject *b, Policy **p, const Session *s,
                           const DeviceBenchOpts *o)
{
    const Config *c = s->config;
    const int64_t batch = c->grpo.micro_batch;
    int err = dg_policy_outline(p, c);

    if (err)
        return err;
    b->backend = s->backend;
    b->tools = &o->tools[o->used];
    b->policy = *p;
    b->trained = dg_policy_trained(*p)->id;
    b->recompute = c->parallel.recompute;
    b->batch = batch < DG_BENCH_BATCH ? batch : DG_BENCH_BATCH;
    b->forward = network_forward;
    b->bare_pass = dg_subject_products;
    return DG_OK;
}

static int measure_network(DeviceBench *out, Subject *b, Policy *p, int repeats)
{
    BenchBlock *block = &out->block[0];
    int err = draw_weights(b, p);

    block->name = b->name = "network";
    out->num = 1;
    if (!err)
        err = dg_subject_normal(&b->input, b->backend, num_input(p));
    if (!err)
        err = dg_subject_measure(b, 0, repeats, &block->forward);
    return err ? err : measure_both(b, &block->both, repeats, out->note);
}

/* --- room ------------------------------------------------------------------ */

/* The network forward; back it goes where there is room. Its weights are drawn
 * by way of a part of them in float32. */
static int network_bytes(uint64_t *bytes, Subject *b, const Policy *p)
{
    const int64_t num = num_weights(p);
    const uint64_t weights = (uint64_t)(dg_dtype_bytes(p->dtype) * num);
    const uint64_t drawn =
        weights + sizeof(float) * (uint64_t)(num < CHUNK ? num : CHUNK);
    const int err = dg_subject_bytes(b, weights, num_input(p), 0, bytes);

    if (!err && p->dtype == DG_BF16 && drawn > *bytes)
        *bytes = drawn;
    return err;
}

/* Before anything is placed. p: NULL where blocks are measured, which look for
 * their room themselves. */
static int check_room(const Session *s, Subject *b, const Policy *p,
                      const DeviceBenchOpts *o)
{
    const Config *c = s->config;
    const uint64_t machine =
        3 * sizeof(float) * (uint64_t)o->side * (uint64_t)o->side;
    uint64_t network = 0;
    const int err = p != NULL ? network_bytes(&network, b, p) : DG_OK;
    const RoomKey keys[] = {
        { machine >= network, "a smaller --product" },
        { machine < network && c->grpo.micro_batch > 1,
          "a smaller grpo.micro_batch" },
        { machine < network && c->run.dtype == DG_STORE_FLOAT32,
          "run.dtype = bfloat16" },
        { machine < network, "smaller pictures or networks" },
    };

    return err ? err
               : dg_room_alone(s->backend,
                               machine > network ? machine : network, keys,
                               sizeof keys / sizeof *keys);
}

static int measure_all(DeviceBench *out, Subject *b, Policy **p,
                       const Session *s, const DeviceBenchOpts *o)
{
    int err = o->blocks ? DG_OK : outline_network(b, p, s, o);

    if (!err)
        err = check_room(s, b, *p, o);
    if (!err)
        err = measure_machine(out, s->backend, o);
    if (err)
        return err;
    return o->blocks
               ? dg_bench_blocks(out->block, &out->num, s->backend, &o->sizes,
                                 &o->tools[o->used], o->repeats)
               : measure_network(out, b, *p, o->repeats);
}

int dg_bench_device(DeviceBench *out, const Session *s,
                    const DeviceBenchOpts *o)
{
    DeviceBench b = { .num_tools = o->num_tools,
                      .used = o->used,
                      .side = o->side };
    Subject *subject;
    Policy *p = NULL;
    int err;

    if (o->repeats < 1 || o->repeats > DG_BENCH_REPEATS)
        return dg_fail(DG_EINVAL, "bench: %d repeats: 1 to %d", o->repeats,
                       DG_BENCH_REPEATS);
    if (o->side < 1)
        return dg_fail(DG_EINVAL, "bench: a product of side %lld: at least 1",
                       (long long)o->side);
    subject = calloc(1, sizeof *subject);
    if (subject == NULL)
        return dg_fail(DG_ENOMEM, "bench");
    err = measure_all(&b, subject, &p, s, o);
    dg_subject_close(subject);
    dg_policy_destroy(p);
    free(subject);
    if (!err)
        *out = b;
    return err;
}

/* --- telling --------------------------------------------------------------- */

static void rate_text(FILE *f, const char *pass, const BlockRate *r,
                      double goal)
{
    fprintf(f,
            "  %-20s %9.1f GFLOP %7.1f GFLOP/s   bare %7.1f   ratio %.3f"
            "   goal %.2f %s\n",
            pass, 1e-9 * r->flops, 1e-9 * r->rate, 1e-9 * r->bare, r->ratio,
            goal, r->ratio >= goal ? "reached" : "missed");
}

void dg_bench_blocks_text(FILE *f, const BenchBlock *blocks, int num)
{
    for (int i = 0; i < num; i++) {
        fprintf(f, "%s\n", blocks[i].name);
        rate_text(f, "forward", &blocks[i].forward, blocks[i].goal);
        rate_text(f, "forward and backward", &blocks[i].both, blocks[i].goal);
    }
}

static void pass_text(FILE *f, const char *pass, const BlockRate *r,
                      double machine)
{
    if (isnan(r->ratio))
        return;
    fprintf(f,
            "  %-20s %9.4g GFLOP %9.4g GFLOP/s: %.3f of the machine's rate, "
            "%.3f of the bare products' %.4g\n",
            pass, 1e-9 * r->flops, 1e-9 * r->rate, r->rate / machine, r->ratio,
            1e-9 * r->bare);
}

int dg_device_bench_text(char **text, const DeviceBench *b)
{
    TextOut out;
    const int err = dg_text_open(&out, "bench");

    if (err)
        return err;
    fprintf(out.file, "bare product of %lld:", (long long)b->side);
    for (int i = 0; i < b->num_tools; i++)
        fprintf(out.file, "%s %.1f GFLOP/s in %s", i > 0 ? "," : "",
                1e-9 * b->product[i], b->tool[i]);
    fprintf(out.file, "; below in %s\n", b->tool[b->used]);
    for (int i = 0; i < b->num; i++) {
        fprintf(out.file, "%s\n", b->block[i].name);
        pass_text(out.file, "forward", &b->block[i].forward,
                  b->product[b->used]);
        pass_text(out.file, "forward and backward", &b->block[i].both,
                  b->product[b->used]);
    }
    if (b->note[0] != '\0')
        fprintf(out.file, "%s\n", b->note);
    return dg_text_close(&out, text);
}

static void pass_json(FILE *f, const char *name, const BlockRate *r,
                      double machine)
{
    if (isnan(r->ratio))
        fprintf(f, ",\"%s\":null", name);
    else
        fprintf(f,
                ",\"%s\":{\"flops\":%.9g,\"flops_per_s\":%.9g,"
                "\"bare_flops_per_s\":%.9g,\"ratio\":%.9g,"
                "\"of_machine\":%.9g}",
                name, r->flops, r->rate, r->bare, r->ratio, r->rate / machine);
}

int dg_device_bench_json(char **text, const DeviceBench *b)
{
    const double machine = b->product[b->used];
    TextOut out;
    const int err = dg_text_open(&out, "bench");

    if (err)
        return err;
    fprintf(out.file, "{\"side\":%lld,\"product_flops_per_s\":{",
            (long long)b->side);
    for (int i = 0; i < b->num_tools; i++)
        fprintf(out.file, "%s\"%s\":%.9g", i > 0 ? "," : "", b->tool[i],
                b->product[i]);
    fprintf(out.file, "},\"arithmetic\":\"%s\",\"parts\":[", b->tool[b->used]);
    for (int i = 0; i < b->num; i++) {
        fprintf(out.file, "%s{\"name\":\"%s\"", i > 0 ? "," : "",
                b->block[i].name);
        pass_json(out.file, "forward", &b->block[i].forward, machine);
        pass_json(out.file, "forward_backward", &b->block[i].both, machine);
        fprintf(out.file, "}");
    }
    fprintf(out.file, "]}\n");
    return dg_text_close(&out, text);
}
