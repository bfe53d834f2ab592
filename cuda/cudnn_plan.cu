#include "cudnn_making.h"

#include <stdio.h>
#include <stdlib.h>

#if DG_CUDNN
/*
 * What all plans have in common: a graph, the library's lists of configurations
 * for it, which of them may be taken.
 */
enum { MOST_NOTES = 16, MOST_CONFIGS = 16, MOST_KNOBS = 24 };

Making dg_cudnn_begin(struct CudnnPlan **out, const struct CudnnLibrary *l,
                      char *why, size_t bytes)
{
    CudnnPlan *p = (CudnnPlan *)calloc(1, sizeof *p);
    Making m = { p, l, {}, false, {}, 0, FIRST_BETWEEN, p == NULL, why, bytes };

    *out = p;
    snprintf(why, bytes, "%s", p == NULL ? "no memory" : "");
    if (p != NULL)
        p->l = l;
    return m;
}

/* --- plans --------------------------------------------------------------- */

Desc dg_cudnn_graph(Making *m)
{
    Desc g = make(m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);

    set(m, g, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
        m->num_ops, m->op);
    if (m->l->handle != NULL)
        set(m, g, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
            &m->l->handle);
    finish(m, g);
    return g;
}

/* What the library would take, best first; it may give fewer than it counts. */
static int64_t configs_of(Making *m, Desc *config, Desc graph,
                          cudnnBackendHeurMode_t mode)
{
    Desc h = make(m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    int64_t num = 0;

    set_desc(m, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(m, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (m->l->device != NULL)
        set_desc(m, h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, m->l->device);
    finish(m, h);
    for (int i = 0; i < MOST_CONFIGS; ++i)
        config[i] = make(m, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (m->failed || !good(m, m->l->cudnnBackendGetAttribute(
                                  h, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_CONFIGS,
                                  &num, config)))
        return 0;
    return num < MOST_CONFIGS ? num : (int64_t)MOST_CONFIGS;
}

/* What the library notes of an engine, as bits of their numbers. */
typedef struct Notes {
    unsigned numbers, behaviour;
} Notes;

static bool notes_of(Making *m, Desc engine, Notes *out)
{
    cudnnBackendNumericalNote_t note[MOST_NOTES];
    cudnnBackendBehaviorNote_t behaves[MOST_NOTES];
    int64_t num = 0, num_behaves = 0;

    if (!good(m, m->l->cudnnBackendGetAttribute(
                     engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                     CUDNN_TYPE_NUMERICAL_NOTE, MOST_NOTES, &num, note)) ||
        !good(m,
              m->l->cudnnBackendGetAttribute(
                  engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                  CUDNN_TYPE_BEHAVIOR_NOTE, MOST_NOTES, &num_behaves, behaves)))
        return false;
    *out = Notes { 0, 0 };
    for (int i = 0; i < num && i < MOST_NOTES; ++i)
        out->numbers |= 1u << note[i];
    for (int i = 0; i < num_behaves && i < MOST_NOTES; ++i)
        out->behaviour |= 1u << behaves[i];
    return true;
}

/* NULL: none of them is against it */
static const char *notes_against(const Making *m, const Notes *n)
{
    const unsigned narrower =
        1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS |
        1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION |
        1u << CUDNN_NUMERICAL_NOTE_FFT | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD;

    if (n->numbers & 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
        return "sums in any order";
    if (m->whole)
        return n->numbers & narrower ? "has sums of its own kind" : NULL;
    return n->behaviour &
                   1u << CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API
               ? NULL
               : "cannot be captured";
}

/* A choice by which several blocks have parts of one sum: added by atomics, or
 * from a workspace, and no note says which. */
static bool splits(cudnnBackendKnobType_t type, int64_t value)
{
    switch (type) {
    case CUDNN_KNOB_TYPE_SPLIT_K:
    case CUDNN_KNOB_TYPE_SPLIT_K_SLC:
    case CUDNN_KNOB_TYPE_SPLIT_P_SLC:
    case CUDNN_KNOB_TYPE_SPLIT_RS:
    case CUDNN_KNOB_TYPE_SPLIT_H:
    case CUDNN_KNOB_TYPE_SPLIT_COLS:
        return value > 1;
    case CUDNN_KNOB_TYPE_CTA_SPLIT_K_MODE:
    case CUDNN_KNOB_TYPE_STREAM_K:
        return value > 0;
    default:
        return false;
    }
}

static bool choice_splits(Making *m, Desc choice)
{
    cudnnBackendKnobType_t type;
    int64_t value = 0, one;

    return good(m, m->l->cudnnBackendGetAttribute(
                       choice, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                       CUDNN_TYPE_KNOB_TYPE, 1, &one, &type)) &&
           good(m, m->l->cudnnBackendGetAttribute(
                       choice, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                       CUDNN_TYPE_INT64, 1, &one, &value)) &&
           splits(type, value);
}

/* of a configuration's choices; descriptors are for this look only */
static bool any_splits(Making *m, Desc config)
{
    Desc choice[MOST_KNOBS] = {};
    int64_t num = 0;
    bool found = false;

    for (int i = 0; i < MOST_KNOBS; ++i)
        if (!m->failed)
            good(m, m->l->cudnnBackendCreateDescriptor(
                        CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &choice[i]));
    if (!m->failed)
        good(m, m->l->cudnnBackendGetAttribute(
                    config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                    CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_KNOBS, &num, choice));
    for (int i = 0; i < num && i < MOST_KNOBS && !m->failed; ++i)
        found |= choice_splits(m, choice[i]);
    for (int i = 0; i < MOST_KNOBS; ++i)
        if (choice[i] != NULL)
            m->l->cudnnBackendDestroyDescriptor(choice[i]);
    return found || num > MOST_KNOBS;
}

bool dg_cudnn_may(Making *m, Desc config)
{
    int64_t one;
    Notes notes;
    Desc engine = make(m, CUDNN_BACKEND_ENGINE_DESCRIPTOR);

    if (m->failed ||
        !good(m, m->l->cudnnBackendGetAttribute(
                     config, CUDNN_ATTR_ENGINECFG_ENGINE,
                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one, &engine)) ||
        !good(m, m->l->cudnnBackendGetAttribute(
                     engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64,
                     1, &one, &m->p->engine)) ||
        !notes_of(m, engine, &notes))
        return false;

    const char *no = notes_against(m, &notes);

    if (no == NULL && m->whole && any_splits(m, config))
        no = "splits its sums";
    if (no != NULL && !m->failed)
        snprintf(m->why, m->bytes, "engine %lld %s", (long long)m->p->engine,
                 no);
    return no == NULL && !m->failed;
}

bool dg_cudnn_plan(Making *m, Desc config, size_t most)
{
    int64_t bytes = 0, one;
    Desc plan = make(m, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);

    set_desc(m, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (m->l->handle != NULL)
        set(m, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
            &m->l->handle);
    if (m->l->device != NULL)
        set_desc(m, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, m->l->device);
    finish(m, plan);
    if (m->failed ||
        !good(m, m->l->cudnnBackendGetAttribute(
                     plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                     CUDNN_TYPE_INT64, 1, &one, &bytes)))
        return false;
    m->p->plan = plan;
    m->p->workspace = (size_t)bytes;
    if ((size_t)bytes > most)
        snprintf(m->why, m->bytes, "its workspace of %lld MB is more than %zu",
                 (long long)(bytes >> 20), most >> 20);
    return (size_t)bytes <= most;
}

/* Of one list of the library's; a configuration that fails is passed over. */
static bool choose(Making *m, Desc graph, cudnnBackendHeurMode_t mode,
                   size_t most)
{
    Desc config[MOST_CONFIGS];
    const int64_t num = configs_of(m, config, graph, mode);

    if (num == 0 && !m->failed && m->why[0] == '\0')
        snprintf(m->why, m->bytes, "it has no engine");
    m->failed = 0;
    for (int64_t i = 0; i < num; ++i) {
        if (dg_cudnn_may(m, config[i]) && dg_cudnn_plan(m, config[i], most))
            return true;
        m->failed = 0;
    }
    return false;
}
void dg_cudnn_choose(struct CudnnPlan **out, Making *m, Desc graph, size_t most)
{
    if (!m->failed && (choose(m, graph, CUDNN_HEUR_MODE_A, most) ||
                       choose(m, graph, CUDNN_HEUR_MODE_FALLBACK, most)))
        return;
    dg_cudnn_plan_free(*out);
    *out = NULL;
}

void dg_cudnn_plan_free(struct CudnnPlan *p)
{
    if (p == NULL)
        return;
    while (p->num > 0)
        p->l->cudnnBackendDestroyDescriptor(p->made[--p->num]);
    free(p);
}

int64_t dg_cudnn_engine(const struct CudnnPlan *p)
{
    return p->engine;
}

size_t dg_cudnn_workspace(const struct CudnnPlan *p)
{
    return p->workspace;
}

char *dg_cudnn_text(const struct CudnnPlan *p)
{
    const cudnnBackendAttributeName_t name =
        CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
    int64_t bytes = 0;
    char *text = NULL;

    if (p->l->cudnnBackendGetAttribute(p->plan, name, CUDNN_TYPE_CHAR, 0,
                                       &bytes, NULL) == CUDNN_STATUS_SUCCESS)
        text = (char *)calloc(1, (size_t)bytes + 1);
    if (text != NULL &&
        p->l->cudnnBackendGetAttribute(p->plan, name, CUDNN_TYPE_CHAR, bytes,
                                       &bytes, text) != CUDNN_STATUS_SUCCESS) {
        free(text);
        text = NULL;
    }
    return text;
}

#endif
