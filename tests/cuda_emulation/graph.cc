/* Graphs of cuda_runtime.h. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>

#include <atomic>
#include <vector>

/* bytes of the device for a call that is kept: on a launch, or before */
enum { NODE_BYTES = 16 << 10 };

struct CudaGraph {
    std::vector<std::function<cudaError_t()>> calls;
    int64_t own = 0;

    cudaError_t run() const
    {
        const size_t left_out = cuda_emulation_wrong("graph");

        for (size_t i = 0; i + left_out < calls.size(); ++i) {
            const cudaError_t e = calls[i]();
            if (e != cudaSuccess)
                return e;
        }
        return cudaSuccess;
    }
};

namespace
{

thread_local CudaGraph *captured;
std::atomic<long> launches;
std::atomic<int> captures;

/* CUDA_EMULATION_TELL in the environment: at the end, to standard error */
struct Teller {
    ~Teller()
    {
        if (getenv("CUDA_EMULATION_TELL") != nullptr)
            fprintf(stderr, "cuda emulation: %ld launches of graphs\n",
                    launches.load());
    }
} teller;

} // namespace

int cuda_emulation_captures(void)
{
    return captured != nullptr;
}

int cuda_emulation_keeps(std::function<cudaError_t()> *call)
{
    if (captured != nullptr)
        captured->calls.push_back(std::move(*call));
    return captured != nullptr;
}

void cuda_emulation_not_captured(const char *what)
{
    if (captured == nullptr)
        return;
    fprintf(stderr, "cuda emulation: %s while a stream is captured\n", what);
    abort();
}

void cuda_emulation_asked(void)
{
    if (captures == 0)
        return;
    fprintf(stderr, "cuda emulation: a question about algorithms while a "
                    "stream is captured\n");
    abort();
}

extern "C" long cuda_emulation_graphs(void)
{
    return launches;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    cuda_emulation_not_captured("a second capture");
    cuda_emulation_capture(s, 1);
    captured = new CudaGraph;
    ++captures;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    cuda_emulation_capture(s, 0);
    *graph = captured;
    captures -= captured != nullptr;
    captured = nullptr;
    return *graph != nullptr ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long)
{
    *exec = new CudaGraph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t)
{
    const int64_t bytes = (int64_t)exec->calls.size() * NODE_BYTES;
    const cudaError_t e =
        exec->own == 0 ? cuda_emulation_own(bytes) : cudaSuccess;

    if (e == cudaSuccess)
        exec->own = bytes;
    return e;
}

/* a copy: the graph may be gone when the stream gets there */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    const cudaError_t e = cudaGraphUpload(exec, s);

    if (e != cudaSuccess)
        return e;
    ++launches;
    cuda_emulation_queue(s, [graph = *exec] { return graph.run(); });
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    cuda_emulation_own(-exec->own);
    delete exec;
    return cudaSuccess;
}
