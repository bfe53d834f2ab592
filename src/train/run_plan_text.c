/* A plan, for people and for programs. */
#include "train/run_plan.h"

#include "base/error.h"
#include "base/text_out.h"

#include <inttypes.h>
#include <stdio.h>

/* 47.6 G: three digits and the unit's prefix, decimal */
static void short_number(char text[24], uint64_t value)
{
    static const char prefix[] = " kMGTPE";
    double x = (double)value;
    int i = 0;

    while (x >= 999.5 && prefix[i + 1] != '\0') {
        x /= 1000;
        i++;
    }
    snprintf(text, 24, "%.*f %c",
             i == 0 || x >= 99.95 ? 0
             : x >= 9.995         ? 1
                                  : 2,
             x, prefix[i]);
}

static void table(FILE *f, const char *title, const PlanTable *t,
                  const char *unit)
{
    char text[24];

    fprintf(f, "\n%s\n", title);
    for (int i = 0; i < t->num; i++) {
        short_number(text, t->line[i].value);
        fprintf(f, "  %-36s %8s%-5s %22" PRIu64 "\n", t->line[i].text, text,
                unit, t->line[i].value);
    }
}

int dg_run_plan_text(char **text, const RunPlan *p)
{
    char title[128];
    TextOut out;
    const int err = dg_text_open(&out, "plan");
    FILE *f = out.file;

    if (err)
        return err;
    fprintf(f,
            "%lld ranks x %lld threads; the fullest rank has %lld samples of "
            "an iteration\n",
            (long long)p->ranks, (long long)p->threads, (long long)p->items);
    table(f, "Parameters", &p->parameters, "");
    table(f, "Memory of the fullest rank", &p->memory, "B");
    snprintf(title, sizeof title,
             "Activations of one worker, %lld samples in a rollout's batch, "
             "%lld in an update's",
             (long long)p->batch, (long long)p->train_batch);
    table(f, title, &p->activations, "B");
    table(f, "Arithmetic", &p->flops, "FLOP");
    if (p->no_folder[0] != '\0')
        fprintf(f,
                "\npolicy.path = \"%s\" is not there: sizes are those of the "
                "configuration (flux)\nor of Stable Diffusion 1.4 (sd).\n",
                p->no_folder);
    if (p->no_prompts[0] != '\0')
        fprintf(f,
                "\nprompts.file = \"%s\" is not there: its index is not "
                "counted, 4 bytes a prompt.\n",
                p->no_prompts);
    return dg_text_close(&out, text);
}

static void object(FILE *f, const char *name, const PlanTable *t)
{
    fprintf(f, ",\"%s\":{", name);
    for (int i = 0; i < t->num; i++)
        fprintf(f, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", t->line[i].key,
                t->line[i].value);
    fprintf(f, "}");
}

int dg_run_plan_json(char **text, const RunPlan *p)
{
    TextOut out;
    const int err = dg_text_open(&out, "plan");
    FILE *f = out.file;

    if (err)
        return err;
    fprintf(f,
            "{\"ranks\":%lld,\"threads\":%lld,\"items\":%lld,\"batch\":%lld,"
            "\"train_batch\":%lld,\"policy_path_read\":%s",
            (long long)p->ranks, (long long)p->threads, (long long)p->items,
            (long long)p->batch, (long long)p->train_batch,
            p->no_folder[0] == '\0' ? "true" : "false");
    object(f, "parameters", &p->parameters);
    object(f, "memory_bytes", &p->memory);
    object(f, "activation_bytes", &p->activations);
    object(f, "flops", &p->flops);
    fprintf(f, "}\n");
    return dg_text_close(&out, text);
}
