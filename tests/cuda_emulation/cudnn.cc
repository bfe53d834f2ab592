/* cudnn_backend.h: descriptors, with what the real ones refuse. */
#include "cudnn_graph.h"
#include "cudnn_rules.h"

#include <stdio.h>
#include <stdlib.h>

#include <mutex>
#include <set>
#include <string>

struct cudnnContext {
    cudaStream_t stream;
};

namespace
{

/* attributes that are set, as bytes */
struct Value {
    int64_t count;
    std::string bytes;
};

struct Descriptor {
    cudnnBackendDescriptorType_t type;
    bool done;
    std::map<int, Value> set;
    std::shared_ptr<CudnnGraph> graph; /* of a graph and what comes of it */
    CudnnEngine engine; /* of a configuration, an engine, a plan */
    CudnnTensor tensor;
};

thread_local const char *last = "";
std::set<Descriptor *> *alive; /* never freed: descriptors may outlive it */
std::mutex living;

cudnnStatus_t fails(cudnnStatus_t e, const char *why)
{
    last = why;
    return e;
}

/* ends the program where it is none */
Descriptor *of(cudnnBackendDescriptor_t d)
{
    const std::lock_guard<std::mutex> held(living);
    Descriptor *is = (Descriptor *)d;

    if (alive == nullptr || alive->count(is) == 0) {
        fprintf(stderr, "cuda emulation: no descriptor of cuDNN\n");
        abort();
    }
    return is;
}

size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

template <typename T>
T at(const Descriptor *d, cudnnBackendAttributeName_t name, int64_t i = 0)
{
    T x = {};
    const auto found = d->set.find(name);

    if (found != d->set.end())
        memcpy(&x, found->second.bytes.data() + (size_t)i * sizeof x, sizeof x);
    return x;
}

Descriptor *other(const Descriptor *d, cudnnBackendAttributeName_t name)
{
    return of(at<cudnnBackendDescriptor_t>(d, name));
}

bool finish_tensor(Descriptor *d)
{
    CudnnTensor *t = &d->tensor;

    t->id = at<int64_t>(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    t->type = at<int>(d, CUDNN_ATTR_TENSOR_DATA_TYPE);
    t->align = at<int64_t>(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    t->by_value = at<bool>(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    t->between = at<bool>(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
    for (int i = 0; i < 4; ++i) {
        t->dims[i] = at<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS, i);
        t->strides[i] = at<int64_t>(d, CUDNN_ATTR_TENSOR_STRIDES, i);
        if (t->dims[i] < 1 || t->strides[i] < 1)
            return false;
    }
    return t->align > 0 && (t->align & (t->align - 1)) == 0 &&
           !(t->by_value && t->count() != 1) && !(t->by_value && t->between);
}

const CudnnTensor &tensor_of(const Descriptor *op,
                             cudnnBackendAttributeName_t name)
{
    return other(op, name)->tensor;
}

/* of a convolution; others have none */
void windows_of(CudnnOp *op, const Descriptor *d)
{
    for (const auto name :
         { CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC })
        if (d->set.count(name) > 0)
            for (int i = 0; i < 2; ++i) {
                const Descriptor *w = other(d, name);
                op->step[i] =
                    at<int64_t>(w, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
                op->before[i] =
                    at<int64_t>(w, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
                op->after[i] =
                    at<int64_t>(w, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i);
            }
}

/* what an operation reads and writes */
CudnnOp op_of(const Descriptor *d)
{
    struct Row {
        cudnnBackendDescriptorType_t of;
        cudnnBackendAttributeName_t name;
        bool written;
    };
    static const Row rows[] = {
#define READS(of, name)                                                       \
    { CUDNN_BACKEND_OPERATION_##of##_DESCRIPTOR, CUDNN_ATTR_OPERATION_##name, \
      false }
#define WRITES(of, name)                           \
    {                                              \
        CUDNN_BACKEND_OPERATION_##of##_DESCRIPTOR, \
            CUDNN_ATTR_OPERATION_##name, true      \
    }
        READS(POINTWISE, POINTWISE_XDESC),
        READS(POINTWISE, POINTWISE_BDESC),
        WRITES(POINTWISE, POINTWISE_YDESC),
        READS(MATMUL, MATMUL_ADESC),
        READS(MATMUL, MATMUL_BDESC),
        WRITES(MATMUL, MATMUL_CDESC),
        READS(REDUCTION, REDUCTION_XDESC),
        WRITES(REDUCTION, REDUCTION_YDESC),
        READS(RESHAPE, RESHAPE_XDESC),
        WRITES(RESHAPE, RESHAPE_YDESC),
        READS(SDPA_FWD, SDPA_FWD_QDESC),
        READS(SDPA_FWD, SDPA_FWD_KDESC),
        READS(SDPA_FWD, SDPA_FWD_VDESC),
        READS(SDPA_FWD, SDPA_FWD_SCALEDESC),
        WRITES(SDPA_FWD, SDPA_FWD_ODESC),
        WRITES(SDPA_FWD, SDPA_FWD_STATSDESC),
        READS(CONVOLUTION_FORWARD, CONVOLUTION_FORWARD_X),
        READS(CONVOLUTION_FORWARD, CONVOLUTION_FORWARD_W),
        WRITES(CONVOLUTION_FORWARD, CONVOLUTION_FORWARD_Y),
        READS(CONVOLUTION_BACKWARD_DATA, CONVOLUTION_BWD_DATA_W),
        READS(CONVOLUTION_BACKWARD_DATA, CONVOLUTION_BWD_DATA_DY),
        WRITES(CONVOLUTION_BACKWARD_DATA, CONVOLUTION_BWD_DATA_DX),
        READS(CONVOLUTION_BACKWARD_FILTER, CONVOLUTION_BWD_FILTER_X),
        READS(CONVOLUTION_BACKWARD_FILTER, CONVOLUTION_BWD_FILTER_DY),
        WRITES(CONVOLUTION_BACKWARD_FILTER, CONVOLUTION_BWD_FILTER_DW),
    };
    CudnnOp op = { d->type, 0, {}, {}, {}, {}, {} };

    for (const Row &r : rows)
        if (r.of == d->type && d->set.count(r.name) > 0)
            (r.written ? op.out : op.in).push_back(tensor_of(d, r.name));
    if (d->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
        op.mode =
            at<int>(other(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR),
                    CUDNN_ATTR_POINTWISE_MODE);
    windows_of(&op, d);
    return op;
}

bool finish_graph(Descriptor *d)
{
    const int64_t num = d->set.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).count;

    d->graph = std::make_shared<CudnnGraph>();
    *d->graph = CudnnGraph {};
    for (int64_t i = 0; i < num; ++i)
        d->graph->ops.push_back(op_of(of(at<cudnnBackendDescriptor_t>(
            d, CUDNN_ATTR_OPERATIONGRAPH_OPS, i))));
    return d->graph->close();
}

bool finish_pack(Descriptor *d)
{
    return d->set.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count ==
           d->set.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count;
}

bool is(const char *mode)
{
    const char *text = getenv("CUDA_EMULATION_CUDNN");

    return text != nullptr && std::string(text) == mode;
}

/* That an engine is asked for by its number: one device has one of 5. */
bool finish_config(Descriptor *d)
{
    const Descriptor *engine = other(d, CUDNN_ATTR_ENGINECFG_ENGINE);

    d->graph = other(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH)->graph;
    d->engine = { 5, true, true, true, 1, true };
    return is("blackwell") && d->graph->back &&
           at<int64_t>(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX) == 5;
}

bool finish_plan(Descriptor *d)
{
    const Descriptor *config =
        other(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);

    cuda_emulation_asked();
    d->graph = config->graph;
    d->engine = config->engine;
    return true;
}

/* what is set is complete; then what it means */
bool finish(Descriptor *d)
{
    for (const Rule &r : rules)
        if (r.of == d->type && r.least > 0 && d->set.count(r.name) == 0)
            return false;
    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return finish_tensor(d);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return finish_graph(d);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        cuda_emulation_asked();
        d->graph = other(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)->graph;
        return true;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
        return finish_config(d);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        cuda_emulation_loads();
        return finish_plan(d);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        return finish_pack(d);
    default:
        return true;
    }
}

template <typename T> cudnnStatus_t give(void *values, int64_t *count, T value)
{
    memcpy(values, &value, sizeof value);
    *count = 1;
    return CUDNN_STATUS_SUCCESS;
}

/* The configurations for a graph, into descriptors of the caller's. */
cudnnStatus_t give_configs(const Descriptor *d, int64_t wanted, int64_t *count,
                           void *values)
{
    const std::vector<CudnnEngine> engines = d->graph->engines(
        at<int>(d, CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK);

    *count = 0;
    for (const CudnnEngine &e : engines) {
        if (*count == wanted)
            break;
        Descriptor *to = of(((cudnnBackendDescriptor_t *)values)[(*count)++]);
        to->graph = d->graph;
        to->engine = e;
        to->done = true;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* A configuration's choices: a tile, which says nothing, and the last how a sum
 * is split. */
cudnnStatus_t give_choices(const Descriptor *d, int64_t wanted, int64_t *count,
                           void *values)
{
    const int types[] = { CUDNN_KNOB_TYPE_TILE_M, CUDNN_KNOB_TYPE_SPLIT_K_SLC };
    const int64_t chosen[] = { 3, d->engine.splits };

    if (wanted < 2)
        return fails(CUDNN_STATUS_BAD_PARAM, "number of elements");
    for (int i = 0; i < 2; ++i) {
        Descriptor *to = of(((cudnnBackendDescriptor_t *)values)[i]);
        to->set[CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE] = {
            1, std::string((const char *)&types[i], sizeof types[i])
        };
        to->set[CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE] = {
            1, std::string((const char *)&chosen[i], sizeof chosen[i])
        };
        to->done = true;
    }
    *count = 2;
    return CUDNN_STATUS_SUCCESS;
}

/* an engine's notes */
cudnnStatus_t give_notes(const Descriptor *d, cudnnBackendAttributeName_t name,
                         int64_t *count, void *values)
{
    int *note = (int *)values;

    note[0] = 0;
    *count = 1;
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && !d->engine.ordered)
        note[(*count)++] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    if (name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE && d->engine.graphs &&
        d->engine.told)
        note[(*count)++] = CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API;
    return CUDNN_STATUS_SUCCESS;
}

} // namespace

/* --- the library --------------------------------------------------------- */

void *cuda_emulation_dlopen(const char *name, int)
{
    static int library;

    return is("none") || std::string(name) != "libcudnn.so.9" ? nullptr
                                                              : &library;
}

const char *cuda_emulation_dlerror(void)
{
    return "libcudnn.so.9: cannot open shared object file";
}

void *cuda_emulation_dlsym(void *, const char *name)
{
#define HAS(f)                   \
    if (std::string(name) == #f) \
        return (void *)&f;
    HAS(cudnnGetVersion)
    HAS(cudnnGetErrorString)
    HAS(cudnnGetLastErrorString)
    HAS(cudnnCreate)
    HAS(cudnnDestroy)
    HAS(cudnnSetStream)
    HAS(cudnnBackendCreateDescriptor)
    HAS(cudnnBackendDestroyDescriptor)
    HAS(cudnnBackendSetAttribute)
    HAS(cudnnBackendGetAttribute)
    HAS(cudnnBackendFinalize)
    HAS(cudnnBackendExecute)
    return nullptr;
}

size_t cudnnGetVersion(void)
{
    return is("old") ? 91000 : 91900;
}

const char *cudnnGetErrorString(cudnnStatus_t e)
{
    return e == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS"
           : e == CUDNN_STATUS_EXECUTION_FAILED
               ? "CUDNN_STATUS_EXECUTION_FAILED"
               : "CUDNN_STATUS_BAD_PARAM";
}

void cudnnGetLastErrorString(char *text, size_t bytes)
{
    snprintf(text, bytes, "%s", last);
    last = "";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = new cudnnContext {};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t h)
{
    delete h;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s)
{
    h->stream = s;
    return CUDNN_STATUS_SUCCESS;
}

/* --- descriptors --------------------------------------------------------- */

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *d)
{
    Descriptor *made = new Descriptor {};

    const std::lock_guard<std::mutex> held(living);

    if (alive == nullptr)
        alive = new std::set<Descriptor *>;
    made->type = type;
    alive->insert(made);
    *d = made;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    Descriptor *is = of(d);

    const std::lock_guard<std::mutex> held(living);

    alive->erase(is);
    delete is;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t to,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type,
                                       int64_t count, const void *values)
{
    Descriptor *d = of(to);
    const Rule *rule = nullptr;

    for (const Rule &r : rules)
        if (r.of == d->type && r.name == name)
            rule = &r;
    if (d->done || rule == nullptr)
        return fails(CUDNN_STATUS_BAD_PARAM, "no such attribute, or finalized");
    if (rule->type != type)
        return fails(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute type");
    if (count < 1 || count < rule->least || count > rule->most)
        return fails(CUDNN_STATUS_BAD_PARAM, "number of elements");
    for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; ++i)
        if (!of(((cudnnBackendDescriptor_t *)values)[i])->done)
            return fails(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalized");
    d->set[name] = { count, std::string((const char *)values,
                                        (size_t)count * size_of(type)) };
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t from,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t,
                                       int64_t wanted, int64_t *count,
                                       void *values)
{
    const Descriptor *d = of(from);

    if (!d->done)
        return fails(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalized");
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        return give_configs(d, wanted, count, values);
    case CUDNN_ATTR_ENGINECFG_ENGINE: {
        Descriptor *to = of(*(cudnnBackendDescriptor_t *)values);
        to->engine = d->engine;
        to->done = true;
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
        return give_choices(d, wanted, count, values);
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE:
        return give(values, count, at<int>(d, name));
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE:
        return give(values, count, at<int64_t>(d, name));
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        return give(values, count, d->engine.index);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        return give_notes(d, name, count, values);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        return give(values, count, (int64_t)d->graph->workspace(d->engine));
    default:
        return fails(CUDNN_STATUS_NOT_SUPPORTED, "no such attribute");
    }
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t which)
{
    Descriptor *d = of(which);

    if (d->done || !finish(d))
        return fails(CUDNN_STATUS_BAD_PARAM, "what is set does not fit");
    d->done = true;
    return CUDNN_STATUS_SUCCESS;
}

/* --- execution ----------------------------------------------------------- */

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h,
                                  cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    const Descriptor *p = of(plan), *v = of(pack);
    const int64_t num = v->set.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count;
    void *room = at<void *>(v, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    std::map<int64_t, void *> places;
    std::map<int64_t, float> values;

    if (!p->done || !v->done || cuda_emulation_last() != cudaSuccess)
        return fails(CUDNN_STATUS_EXECUTION_FAILED, "not finalized");
    if (cuda_emulation_captures() && p->graph->conv && is("uncaptured"))
        return fails(CUDNN_STATUS_EXECUTION_FAILED, "captured");
    if (cuda_emulation_captures() && !p->engine.graphs) {
        fprintf(stderr, "cuda emulation: an engine of cuDNN is captured that "
                        "cannot be\n");
        abort();
    }
    if (cuda_emulation_load(p->graph.get(), true) != cudaSuccess)
        return CUDNN_STATUS_EXECUTION_FAILED;
    for (int64_t i = 0; i < num; ++i) {
        const int64_t id =
            at<int64_t>(v, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i);
        void *place = at<void *>(v, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
        const auto t = p->graph->given.find(id);
        if (t != p->graph->given.end() && t->second.by_value)
            values[id] = *(const float *)place; /* read now */
        else
            places[id] = place;
    }
    auto call = [graph = p->graph, engine = p->engine, places, values, room]() {
        const CudaEmulationOpen open;
        return cuda_emulation_cudnn_run(*graph, engine, places, values, room)
                   ? cudaSuccess
                   : cudaErrorInvalidValue;
    };
    if (cuda_emulation_defers(h->stream)) {
        cuda_emulation_keep(call);
        return CUDNN_STATUS_SUCCESS;
    }
    return call() == cudaSuccess ? CUDNN_STATUS_SUCCESS
                                 : CUDNN_STATUS_EXECUTION_FAILED;
}
