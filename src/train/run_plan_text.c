/* A plan, for people and for programs. */
#include "train/run_plan.h"

#include "base/error.h"
#include "base/plural.h"
#include "base/text_out.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

static const char *const levels[] = { "none", "optimizer", "gradients",
                                      "parameters" };

/* Bytes of a GPU's memory in its maker's words; CUDA and the driver have what
 * it has beyond. */
static const uint64_t gpu_sizes[] = { 80000000000, 141000000000 };
enum { NUM_SIZES = 2 };

/* of the table, and as keys say it */
static const char *offloaded(const GpuPlan *g)
{
    return g->offload ? "all" : g->offload_sums ? "sums" : "-";
}
static const char *offload_key(const GpuPlan *g)
{
    return g->offload        ? "offload_optimizer = true"
           : g->offload_sums ? "offload_sums = true"
                             : "offload_optimizer = false";
}

/* Of a node of eight, or of all ranks where they are fewer. */
static int on_a_node(const GpuPlan *g)
{
    return g->ranks < DG_PLAN_NODE ? g->ranks : DG_PLAN_NODE;
}
static uint64_t node_of(const GpuPlan *g)
{
    return dg_gpu_plan_node(g, on_a_node(g));
}
static uint64_t node_start_of(const GpuPlan *g)
{
    return dg_gpu_plan_node_start(g, on_a_node(g));
}

static void gpu_row(FILE *f, const GpuPlan *g)
{
    const uint64_t values[] = { g->weights,     g->masters, g->gradient,
                                g->sums,        g->moments, g->ema,
                                g->activations, g->rest,    g->gpu,
                                g->host,        node_of(g), node_start_of(g) };

    fprintf(f, "  %5d  %-10s  %-7s", g->ranks, levels[g->level], offloaded(g));
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        fprintf(f, " %8.1f", 1e-9 * (double)values[i]);
    if (g->moves)
        fprintf(f, " %8.1f",
                1e-9 * (double)(g->traffic.sums + g->traffic.weights));
    else
        fprintf(f, " %8s", "-");
    for (int i = 0; i < NUM_SIZES; i++)
        fprintf(f, " %6s", g->gpu <= gpu_sizes[i] ? "fits" : "-");
    fprintf(f, "\n");
}

/* Of what has no levels: by how much there is room, or none. */
static void gpu_room(FILE *f, const GpuPlan *g, uint64_t bytes)
{
    const double GB = 1e-9;
    const int fits = g->gpu <= bytes;

    fprintf(f, "  %d of %.0f GB: %s, %.1f GB %s\n", g->ranks,
            GB * (double)bytes, fits ? "fits" : "does not fit",
            GB * (double)(fits ? bytes - g->gpu : g->gpu - bytes),
            fits ? "left" : "too many");
}

/* What is the first to fit, or how much is too much; 1 if that has all on GPUs. */
static int gpu_verdict(FILE *f, const GpuPlans *p, int ranks, uint64_t bytes)
{
    const GpuPlan *least;
    const GpuPlan *g = dg_gpu_plan_fits(p, ranks, bytes, &least);

    fprintf(f, "  %d of %.0f GB: ", ranks, 1e-9 * (double)bytes);
    if (g == NULL)
        fprintf(f,
                "none fits; %.1f GB too many with parallel.shard = \"%s\", "
                "%s\n",
                1e-9 * (double)(least->gpu - bytes), levels[least->level],
                offload_key(least));
    else
        fprintf(f,
                "parallel.shard = \"%s\", %s fits, %.1f GB left; the host of a "
                "node of %d needs %.1f GB, %.1f at the start\n",
                levels[g->level], offload_key(g),
                1e-9 * (double)(bytes - g->gpu), on_a_node(g),
                1e-9 * (double)node_of(g), 1e-9 * (double)node_start_of(g));
    return g != NULL && !g->offload && !g->offload_sums;
}

static void gpu_rows(FILE *f, const GpuPlans *p)
{
    fprintf(f,
            "\nWith a GPU for each rank, GB of memory of a GPU (\"GPU\" is "
            "their sum), of one rank's host, and of\nthe host of a node of %d "
            "ranks (of all, if fewer), during the run and at its start, when "
            "the weights\nare loaded there as float32. Files of weights are "
            "mapped besides; the system drops their pages where\nmemory is "
            "short. \"Moved\" are GB of sums and weights that go between "
            "ranks in an iteration, of each of them.\n"
            "   GPUs  shard       offload  weights  masters gradient     sums  "
            "moments      EMA   active     rest      GPU     host     node    "
            "start    moved   80 GB 141 GB\n",
            (int)DG_PLAN_NODE);
    for (int i = 0; i < p->num; i++)
        gpu_row(f, &p->plan[i]);
    fprintf(f, "\n");
}

static void gpu_rooms(FILE *f, const GpuPlans *p)
{
    gpu_rows(f, p);
    for (int i = 0; i < p->num; i++)
        for (int k = 0; k < NUM_SIZES; k++)
            gpu_room(f, &p->plan[i], gpu_sizes[k]);
}

static void gpu_table(FILE *f, const GpuPlans *p)
{
    int short_of = 0, all_there = 1;

    gpu_rows(f, p);
    for (int i = 0; i < p->num; i++) {
        const GpuPlan *least;

        if (i > 0 && p->plan[i].ranks == p->plan[i - 1].ranks)
            continue;
        for (int k = 0; k < NUM_SIZES; k++) {
            all_there &= gpu_verdict(f, p, p->plan[i].ranks, gpu_sizes[k]);
            short_of |= dg_gpu_plan_fits(p, p->plan[i].ranks, gpu_sizes[k],
                                         &least) == NULL;
        }
    }
    if (!all_there && p->moments == DG_MOMENTS_FLOAT32)
        fprintf(f, "With optim.moments = \"int8\" the moments take a quarter "
                   "of this.\n");
    if (short_of)
        fprintf(f,
                "Where nothing fits: with parallel.shard = \"parameters\" each "
                "of several GPUs needs\nless; adapters (lora.rank) need "
                "much less.\n");
}

/* What there is to do, of the fullest rank. */
static const char *items_of(const RunPlan *p)
{
    static const char *const items[DG_PLAN_COMMANDS][2] = {
        [DG_PLAN_TRAIN] = { "samples per iteration", "sample per iteration" },
        [DG_PLAN_PRETRAIN] = { "work items per step", "work item per step" },
        [DG_PLAN_SAMPLE] = { "pictures", "picture" },
        [DG_PLAN_EVALUATE] = { "pictures", "picture" },
        [DG_PLAN_ENCODE] = { "prompts", "prompt" },
        [DG_PLAN_REPLAY] = { "samples of the iteration",
                             "sample of the iteration" },
    };

    return items[p->command][p->items == 1];
}

static void activations_title(char *title, size_t size, const RunPlan *p)
{
    const long long batch = (long long)p->batch,
                    train_batch = (long long)p->train_batch;
    const size_t used =
        (size_t)snprintf(title, size, "Activations of one worker, ");

    if (p->command == DG_PLAN_ENCODE)
        snprintf(title + used, size - used, "a prompt at a time");
    else if (p->command == DG_PLAN_PRETRAIN)
        snprintf(title + used, size - used, "%lld picture%s in an item",
                 train_batch, dg_plural(train_batch));
    else if (p->command == DG_PLAN_TRAIN || p->command == DG_PLAN_REPLAY)
        snprintf(title + used, size - used,
                 "%lld sample%s in a rollout's batch, %lld in an update's",
                 batch, dg_plural(batch), train_batch);
    else
        snprintf(title + used, size - used, "%lld picture%s in a batch", batch,
                 dg_plural(batch));
}

/* by levels of sharding, with moments */
static int trains(const RunPlan *p)
{
    return p->command == DG_PLAN_TRAIN || p->command == DG_PLAN_PRETRAIN ||
           p->command == DG_PLAN_REPLAY;
}

/* How a list is written. */
typedef struct Marks {
    const char *quote, *open, *between, *close, *next;
} Marks;

/* Those that have a network together, as "a, b; c, d"; how many such lists. */
static int list_shared(FILE *f, const RunPlan *p, const Marks *m)
{
    int lists = 0;

    for (int k = 0; k < p->num_rewards; k++) {
        int users = 0;

        for (int j = k + 1; j < p->num_rewards; j++) {
            if (p->rewards[j].network != k)
                continue;
            if (f != NULL && users == 0)
                fprintf(f, "%s%s%s%s%s", lists > 0 ? m->next : "", m->open,
                        m->quote, p->rewards[k].name, m->quote);
            if (f != NULL)
                fprintf(f, "%s%s%s%s", m->between, m->quote, p->rewards[j].name,
                        m->quote);
            users++;
        }
        if (f != NULL && users > 0)
            fprintf(f, "%s", m->close);
        lists += users > 0;
    }
    return lists;
}

/* The user's own; how many. */
static int list_own(FILE *f, const RunPlan *p, const Marks *m)
{
    int num = 0;

    for (int k = 0; k < p->num_rewards; k++) {
        if (!p->rewards[k].own)
            continue;
        if (f != NULL)
            fprintf(f, "%s%s%s%s", num > 0 ? m->between : "", m->quote,
                    p->rewards[k].name, m->quote);
        num++;
    }
    return num;
}

static void tell_rewards(FILE *f, const RunPlan *p)
{
    static const Marks words = { "", "", ", ", "", "; " };

    if (list_shared(NULL, p, &words) > 0) {
        fprintf(f, "\nRewards of the same weights have one network, which is "
                   "counted once: ");
        list_shared(f, p, &words);
        fprintf(f, ".\n");
    }
    if (list_own(NULL, p, &words) > 0) {
        fprintf(f, "\nWhat rewards of your own take of memory is not "
                   "counted: ");
        list_own(f, p, &words);
        fprintf(f, ".\n");
    }
}

/* The same, as lists that may be empty. */
static void put_rewards(FILE *f, const RunPlan *p)
{
    static const Marks json = { "\"", "[", ",", "]", "," };

    fprintf(f, ",\"shared_rewards\":[");
    list_shared(f, p, &json);
    fprintf(f, "],\"own_rewards\":[");
    list_own(f, p, &json);
    fprintf(f, "]");
}

/* A sentence, in lines of a table's width. */
static void tell_uneven(FILE *f, const char *text)
{
    enum { WIDTH = 88 };
    size_t at = 0;

    while (text[at] != '\0') {
        size_t end = at + strlen(text + at);

        if (end - at > WIDTH)
            for (end = at + WIDTH; text[end] != ' ';)
                end--;
        fprintf(f, at == 0 ? "\n%c%.*s" : "%c%.*s",
                at == 0 ? toupper((unsigned char)text[0]) : text[at],
                (int)(end - at) - 1, text + at + 1);
        fprintf(f, text[end] == '\0' ? ".\n" : "\n");
        at = end + (text[end] == ' ');
    }
}

/* What could not be read. */
static void tell_absent(FILE *f, const RunPlan *p)
{
    if (p->no_folder[0] != '\0')
        fprintf(f,
                "\npolicy.path = \"%s\" is not there: sizes are those of the "
                "configuration (flux)\nor of Stable Diffusion 1.4 (sd).\n",
                p->no_folder);
    if (p->no_weights[0] != '\0')
        fprintf(f,
                "\npolicy.weights = \"%s\" is not there: sizes are those of "
                "the\nconfiguration, and all this is right where the file has "
                "the same.\n",
                p->no_weights);
    if (p->no_prompts[0] != '\0' && p->command != DG_PLAN_TRAIN &&
        p->command != DG_PLAN_REPLAY)
        fprintf(f,
                "\nPrompts of \"%s\", which is not there, are not "
                "counted.\n",
                p->no_prompts);
    else if (p->no_prompts[0] != '\0')
        fprintf(f,
                "\nprompts.file = \"%s\" is not there: its index is not "
                "counted, 4 bytes a prompt.\n",
                p->no_prompts);
    if (p->no_held_out[0] != '\0')
        fprintf(f,
                "\nHeld-out prompts of \"%s\", which is not there, are not "
                "counted\n(evaluate.every).\n",
                p->no_held_out);
}

int dg_run_plan_text(char **text, const RunPlan *p)
{
    char title[128];
    TextOut out;
    const int err = dg_text_open(&out, "plan");
    FILE *f = out.file;

    if (err)
        return err;
    fprintf(f, "%s%s%lld rank%s x %lld thread%s; %s computes %lld %s\n",
            p->command != DG_PLAN_TRAIN ? dg_plan_command_name(p->command) : "",
            p->command != DG_PLAN_TRAIN ? ": " : "", (long long)p->ranks,
            dg_plural(p->ranks), (long long)p->threads, dg_plural(p->threads),
            p->ranks == 1 ? "it" : "the fullest rank", (long long)p->items,
            items_of(p));
    table(f, "Parameters", &p->parameters, "");
    table(f, "Memory of the fullest rank", &p->memory, "B");
    activations_title(title, sizeof title, p);
    table(f, title, &p->activations, "B");
    table(f, "Arithmetic", &p->flops, "FLOP");
    if (p->traffic.num > 0)
        table(f, "Between ranks, of each in an iteration", &p->traffic, "B");
    if (p->gpus.num > 0 && trains(p))
        gpu_table(f, &p->gpus);
    else if (p->gpus.num > 0)
        gpu_rooms(f, &p->gpus);
    tell_rewards(f, p);
    tell_uneven(f, p->uneven);
    if (p->borrowed_threads)
        fprintf(f,
                "\nThreads of a rank are as many as here (run.threads = 0): "
                "set run.threads to what each\nrank of the run will have.\n");
    tell_absent(f, p);
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

static void gpu_object(FILE *f, const GpuPlan *g)
{
    fprintf(
        f,
        "{\"ranks\":%d,\"shard\":\"%s\",\"offload_optimizer\":%s,"
        "\"offload_sums\":%s,"
        "\"weights\":%" PRIu64 ",\"masters\":%" PRIu64 ",\"gradient\":%" PRIu64
        ",\"sums\":%" PRIu64 ",\"moments\":%" PRIu64 ",\"ema\":%" PRIu64
        ",\"activations\":%" PRIu64 ",\"rest\":%" PRIu64 ",\"gpu\":%" PRIu64
        ",\"host\":%" PRIu64 ",\"host_start\":%" PRIu64
        ",\"node_ranks\":%d,\"node\":%" PRIu64 ",\"node_start\":%" PRIu64,
        g->ranks, levels[g->level], g->offload ? "true" : "false",
        g->offload_sums ? "true" : "false", g->weights, g->masters, g->gradient,
        g->sums, g->moments, g->ema, g->activations, g->rest, g->gpu, g->host,
        g->host_start, on_a_node(g), node_of(g), node_start_of(g));
    if (g->moves)
        fprintf(f, ",\"traffic_sums\":%" PRIu64 ",\"traffic_weights\":%" PRIu64,
                g->traffic.sums, g->traffic.weights);
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
            "{\"command\":\"%s\",\"ranks\":%lld,\"threads\":%lld,\"items\":%"
            "lld,\"batch\":%lld,"
            "\"train_batch\":%lld,\"policy_path_read\":%s,"
            "\"policy_weights_read\":%s",
            dg_plan_command_name(p->command), (long long)p->ranks,
            (long long)p->threads, (long long)p->items, (long long)p->batch,
            (long long)p->train_batch,
            p->no_folder[0] == '\0' ? "true" : "false",
            p->no_weights[0] == '\0' ? "true" : "false");
    object(f, "parameters", &p->parameters);
    object(f, "memory_bytes", &p->memory);
    object(f, "activation_bytes", &p->activations);
    object(f, "flops", &p->flops);
    if (p->traffic.num > 0)
        object(f, "traffic_bytes", &p->traffic);
    for (int i = 0; i < p->gpus.num; i++) {
        fprintf(f, i > 0 ? "," : ",\"gpus\":[");
        gpu_object(f, &p->gpus.plan[i]);
    }
    if (p->gpus.num > 0)
        fprintf(f, "]");
    put_rewards(f, p);
    fprintf(f, "}\n");
    return dg_text_close(&out, text);
}
