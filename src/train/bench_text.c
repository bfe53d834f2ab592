/* What the bench found, for people and for programs. */
#include "train/bench.h"

#include "base/error.h"
#include "base/text_out.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* --- text -------------------------------------------------------------- */

static void pass_text(FILE *f, const char *name, const BenchPass *p,
                      double goal)
{
    fprintf(f,
            "  %-18s %7.1f GFLOP/s   bare %7.1f   ratio %.3f [%.3f, %.3f]"
            "   goal %.2f %s\n",
            name, 1e-9 * p->rate, 1e-9 * p->bare, p->ratio, p->low, p->high,
            goal, p->ratio >= goal ? "reached" : "missed");
    fprintf(f,
            "  %-18s %7s           bare %7.1f   ratio %.3f"
            "   (linear layers' sizes alone)\n",
            "", "", 1e-9 * p->bare_linear, p->ratio_linear);
}

static void shares_text(FILE *f, const char *name, const BenchPass *p)
{
    fprintf(f, "\n%-20s %6s %10s %10s %6s\n", name, "time %", "GFLOP/s", "bare",
            "ratio");
    for (int i = 0; i < DG_METER_KINDS; i++) {
        if (p->share[i] == 0)
            continue;
        fprintf(f, "  %-18s %6.1f", dg_meter_name((MeterKind)i),
                100 * p->share[i]);
        if (i < DG_METER_PRODUCT_KINDS)
            fprintf(f, " %10.1f %10.1f %6.3f", 1e-9 * p->kind_rate[i],
                    1e-9 * p->kind_bare[i], p->kind_rate[i] / p->kind_bare[i]);
        fprintf(f, "\n");
    }
    fprintf(f, "  %-18s %6.1f\n", "outside kernels", 100 * p->outside);
}

static void part(FILE *f, const char *name, double seconds, double total)
{
    if (seconds != 0)
        fprintf(f, "  %-18s %8.3f s %6.1f %%\n", name, seconds,
                100 * seconds / total);
}

static void iteration_text(FILE *f, const BenchIteration *it)
{
    fprintf(f,
            "\nOne iteration on one rank and thread: %lld samples of %lld "
            "steps, %lld steps replayed\n",
            (long long)it->items, (long long)it->steps, (long long)it->terms);
    part(f, "rollout", it->rollout, it->total);
    part(f, "reward", it->reward, it->total);
    part(f, "update", it->update, it->total);
    part(f, "total", it->total, it->total);
    part(f, "processor time", it->cpu, it->total);
    fprintf(f, "of the processor time\n");
    for (int i = 0; i < DG_METER_KINDS; i++)
        part(f, dg_meter_name((MeterKind)i), it->kind[i], it->cpu);
    part(f, "exact sum", it->exact, it->cpu);
    part(f, "adamw", it->adamw, it->cpu);
    part(f, "rewards", it->rewards, it->cpu);
    part(f, "rest", it->outside, it->cpu);
    fprintf(f, "\nRates\n");
    fprintf(f, "  rollout            %10.1f sampling steps/s\n",
            it->rollout_rate);
    fprintf(f, "  reward scoring     %10.1f pictures/s\n", it->reward_rate);
    fprintf(f, "  exact sum          %10.1f million values/s\n",
            1e-6 * it->exact_rate);
    fprintf(f, "  AdamW              %10.1f million values/s\n",
            1e-6 * it->adamw_rate);
}

static void memory_text(FILE *f, const char *what, size_t plan, size_t peak)
{
    fprintf(f, "  %-18s plan %zu bytes, peak %zu bytes: %s\n", what, plan, peak,
            plan == peak ? "equal" : "differ");
}

static void ranks_text(FILE *f, const BenchRanks *r)
{
    fprintf(f,
            "\n%d ranks against one, a thread each, %lld samples\n"
            "  iteration          %.3f s and %.3f s: %.2f times as fast"
            "   goal on 2 cores 1.80\n"
            "  update alone       %.3f s and %.3f s: %.2f times as fast\n",
            r->ranks, (long long)r->items, r->one_s, r->all_s, r->speedup,
            r->one_update_s, r->all_update_s, r->update_speedup);
}

int dg_bench_text(char **text, const Bench *b)
{
    TextOut out;
    const int err = dg_text_open(&out, "bench");
    FILE *f = out.file;

    if (err)
        return err;
    fprintf(f,
            "Network of %lld parameters, batch %lld, one thread, against bare "
            "product of the library at the same sizes\n",
            (long long)b->network.parameters,
            (long long)b->network.forward.batch);
    pass_text(f, "forward", &b->network.forward, 0.75);
    pass_text(f, "forward+backward", &b->network.both, 0.65);
    shares_text(f, "Forward", &b->network.forward);
    shares_text(f, "Forward+backward", &b->network.both);
    if (b->iterated)
        iteration_text(f, &b->iteration);
    if (b->ranks.ranks > 1)
        ranks_text(f, &b->ranks);
    fprintf(f, "\nMemory\n");
    memory_text(f, "network", b->network.plan_bytes, b->network.peak_bytes);
    if (b->iterated) {
        memory_text(f, "iteration", b->iteration.plan_bytes,
                    b->iteration.peak_bytes);
        fprintf(f, "  reserved by one trainer %.1f MB\n",
                1e-6 * (double)b->iteration.reserved_bytes);
    }
    if (b->peak_resident_bytes > 0)
        fprintf(f, "  process (VmHWM)    %.1f MB\n",
                1e-6 * (double)b->peak_resident_bytes);
    return dg_text_close(&out, text);
}

/* --- JSON -------------------------------------------------------------- */

static void number(FILE *f, const char *name, double v)
{
    if (isfinite(v))
        fprintf(f, "\"%s\":%.9g,", name, v);
    else
        fprintf(f, "\"%s\":null,", name);
}

static void kinds_json(FILE *f, const char *name, const double *value, int num)
{
    fprintf(f, "\"%s\":{", name);
    for (int i = 0; i < num; i++)
        fprintf(f, "%s\"%s\":%.9g", i > 0 ? "," : "",
                dg_meter_name((MeterKind)i), value[i]);
    fprintf(f, "},");
}

static void pass_json(FILE *f, const char *name, const BenchPass *p)
{
    fprintf(f, "\"%s\":{", name);
    number(f, "flops", p->flops);
    number(f, "product_flops", p->product_flops);
    number(f, "flops_per_s", p->rate);
    number(f, "bare_flops_per_s", p->bare);
    number(f, "bare_linear_flops_per_s", p->bare_linear);
    number(f, "ratio_low", p->low);
    number(f, "ratio_high", p->high);
    number(f, "ratio_linear", p->ratio_linear);
    number(f, "share_outside_kernels", p->outside);
    kinds_json(f, "share", p->share, DG_METER_KINDS);
    kinds_json(f, "kernel_flops_per_s", p->kind_rate, DG_METER_PRODUCT_KINDS);
    kinds_json(f, "kernel_bare_flops_per_s", p->kind_bare,
               DG_METER_PRODUCT_KINDS);
    fprintf(f, "\"batch\":%lld,\"sizes\":%d,\"ratio\":%.9g},",
            (long long)p->batch, p->sizes, p->ratio);
}

static void iteration_json(FILE *f, const BenchIteration *it)
{
    fprintf(f, "\"iteration\":{\"items\":%lld,\"steps\":%lld,\"terms\":%lld,",
            (long long)it->items, (long long)it->steps, (long long)it->terms);
    number(f, "total_s", it->total);
    number(f, "rollout_s", it->rollout);
    number(f, "reward_s", it->reward);
    number(f, "update_s", it->update);
    number(f, "cpu_s", it->cpu);
    number(f, "exact_sum_s", it->exact);
    number(f, "adamw_s", it->adamw);
    number(f, "rollout_steps_per_s", it->rollout_rate);
    number(f, "reward_pictures_per_s", it->reward_rate);
    number(f, "exact_sum_values_per_s", it->exact_rate);
    number(f, "adamw_values_per_s", it->adamw_rate);
    number(f, "rest_s", it->outside);
    kinds_json(f, "kernel_s", it->kind, DG_METER_KINDS);
    fprintf(f, "\"plan_bytes\":%zu,\"peak_bytes\":%zu,\"reserved_bytes\":%zu},",
            it->plan_bytes, it->peak_bytes, it->reserved_bytes);
}

int dg_bench_json(char **text, const Bench *b)
{
    const BenchNetwork *n = &b->network;
    const BenchRanks *r = &b->ranks;
    TextOut out;
    const int err = dg_text_open(&out, "bench");
    FILE *f = out.file;

    if (err)
        return err;
    fprintf(f, "{\"network\":{\"parameters\":%lld,", (long long)n->parameters);
    pass_json(f, "forward", &n->forward);
    pass_json(f, "forward_backward", &n->both);
    fprintf(f, "\"plan_bytes\":%zu,\"peak_bytes\":%zu},", n->plan_bytes,
            n->peak_bytes);
    if (b->iterated)
        iteration_json(f, &b->iteration);
    if (r->ranks > 1) {
        fprintf(f, "\"ranks\":{\"ranks\":%d,\"items\":%lld,", r->ranks,
                (long long)r->items);
        number(f, "one_s", r->one_s);
        number(f, "all_s", r->all_s);
        number(f, "one_update_s", r->one_update_s);
        number(f, "all_update_s", r->all_update_s);
        number(f, "update_speedup", r->update_speedup);
        fprintf(f, "\"speedup\":%.9g},", r->speedup);
    }
    fprintf(f, "\"peak_resident_bytes\":%zu}\n", b->peak_resident_bytes);
    return dg_text_close(&out, text);
}
