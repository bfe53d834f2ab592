/* Streams and events of cuda_runtime.h. */
#include "cuda_runtime.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <deque>
#include <mutex>

struct CUstream_st {
    std::deque<std::function<cudaError_t()>> queue;
    uint64_t queued, done; /* calls so far */
    bool early, running;
    bool captured; /* its thread alone may queue something */
    bool random;
    pthread_t owner; /* who made it */
    int device;
    CUstream_st *next;
};

struct CUevent_st {
    cudaStream_t stream; /* of the last record; NULL: none */
    uint64_t at;         /* done once the stream has done so many */
    timespec time;
};

namespace
{

/* A call that is not ready, since other devices are not, comes again. */
const long PAUSE_NS = 20000, EARLY = 1000, FOR_EVER = LONG_MAX;

std::recursive_mutex lock;
CUstream_st *streams;
cudaError_t fault; /* the first of a call that was queued */
thread_local int runs;
thread_local bool hosts;         /* a function of the host's is called */
thread_local cudaStream_t asked; /* about last */
bool stuck;

bool lives(const CUstream_st *s)
{
    const CUstream_st *at = streams;

    while (at != nullptr && at != s)
        at = at->next;
    return at != nullptr;
}

/* until the stream has done so many; false if it has to wait for others, and
 * that for longer than pauses */
bool drain(CUstream_st *s, uint64_t until, long pauses)
{
    const timespec pause = { 0, PAUSE_NS };

    while (s->done < until && !s->queue.empty()) {
        if (s->running) {
            fprintf(stderr, "cuda emulation: a stream waits for itself\n");
            abort();
        }
        s->running = true;
        ++runs;
        const cudaError_t e = s->queue.front()();
        --runs;
        s->running = false;
        if (e == cudaErrorNotReady) {
            if (pauses-- <= 0)
                return false;
            nanosleep(&pause, nullptr);
            continue;
        }
        s->queue.pop_front();
        ++s->done;
        if (e != cudaSuccess && fault == cudaSuccess)
            fault = e;
    }
    return true;
}

/* what whoever waits is told */
cudaError_t told()
{
    const cudaError_t e = fault;

    fault = cudaSuccess;
    return cuda_emulation_failed() ? cudaErrorLaunchFailure : e;
}

/* Whether it has done so many: what was the case when the question came. A
 * device that has failed answers that at once. */
cudaError_t asked_of(CUstream_st *s, uint64_t many)
{
    if (cuda_emulation_failed())
        return told();

    const bool busy = s != nullptr && s->done < many;

    if (busy && !stuck)
        drain(s, many, 0);
    return busy || stuck ? cuda_emulation_says(cudaErrorNotReady) : told();
}

/* With CUDA_EMULATION_STREAMS=random streams go on now and then, as far as it comes:
 * those of the thread that queues something, since others' calls are theirs. */
void go_on_somewhere()
{
    static uint32_t drawn = 1;
    const auto draw = [](uint32_t n) {
        drawn = drawn * 1664525u + 1013904223u;
        return (drawn >> 16) % n;
    };

    for (CUstream_st *s = streams; s != nullptr; s = s->next)
        if (draw(3) == 0 && !s->running &&
            pthread_equal(s->owner, pthread_self()))
            drain(s, s->done + draw(12), 0);
}

bool is(const char *text)
{
    const char *streams_are = getenv("CUDA_EMULATION_STREAMS");

    return streams_are != nullptr && strcmp(streams_are, text) == 0;
}

} // namespace

void cuda_emulation_stick(void)
{
    stuck = true;
}

/* With CUDA_LAUNCH_BLOCKING=1 in the environment nothing is queued, as on a
 * device: the launch that fails says so itself. */
int cuda_emulation_defers(cudaStream_t s)
{
    const char *text = getenv("CUDA_LAUNCH_BLOCKING");

    if (hosts) {
        fprintf(stderr, "cuda emulation: a stream's host function queues\n");
        abort();
    }
    asked = s;
    if (s != nullptr && runs == 0 && s->device != cuda_emulation_device()) {
        fprintf(stderr,
                "cuda emulation: a stream of device %d, while the "
                "thread's is %d\n",
                s->device, cuda_emulation_device());
        abort(); /* a thread begins on device 0 */
    }
    if (cuda_emulation_captures() || runs != 0 || s == nullptr)
        return cuda_emulation_captures();
    if (text == nullptr || atoi(text) == 0)
        return 1;
    cuda_emulation_drain(s);
    return 0;
}

void cuda_emulation_keep(std::function<cudaError_t()> call)
{
    if (!cuda_emulation_keeps(&call))
        cuda_emulation_queue(asked, std::move(call));
}

void cuda_emulation_capture(cudaStream_t s, int on)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    s->captured = on;
}

/* What the thread that captures queues is kept, and does not come here. */
static void not_captured(const CUstream_st *s, const char *what)
{
    if (!s->captured)
        return;
    fprintf(stderr, "cuda emulation: %s of a stream that is captured\n", what);
    abort();
}

/* With CUDA_EMULATION_QUEUE="N" in the environment a stream takes N calls ahead;
 * with one more whoever queues it waits, as for a driver's launches. */
static void wait_for_room(CUstream_st *s)
{
    static const char *text = getenv("CUDA_EMULATION_QUEUE");
    const uint64_t most = text != nullptr ? strtoull(text, nullptr, 10) : 0;

    if (most > 0 && s->queued - s->done > most && !s->running)
        drain(s, s->queued - most, FOR_EVER);
}

void cuda_emulation_queue(cudaStream_t s, std::function<cudaError_t()> call)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    not_captured(s, "use");
    s->queue.push_back(std::move(call));
    ++s->queued;
    if (s->early)
        drain(s, s->queued, EARLY);
    else if (s->random)
        go_on_somewhere();
    wait_for_room(s);
}

void cuda_emulation_drain_all(void)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    for (CUstream_st *s = streams; s != nullptr; s = s->next)
        if (!s->running)
            drain(s, s->queued, FOR_EVER);
}

void cuda_emulation_loads(void)
{
    const char *text = getenv("CUDA_EMULATION_LOAD");

    if (text != nullptr && strcmp(text, "waits") == 0)
        cuda_emulation_drain_all();
}

void cuda_emulation_drain(cudaStream_t s)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    if (s != nullptr)
        drain(s, s->queued, FOR_EVER);
}

void cuda_emulation_forget(cudaStream_t s)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    s->queue.clear();
    s->done = s->queued;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *user)
{
    const auto call = [fn, user] {
        if (cuda_emulation_failed())
            return cudaErrorLaunchFailure;
        hosts = true;
        fn(user);
        hosts = false;
        return cudaSuccess;
    };

    cuda_emulation_not_captured("a host function");
    if (!cuda_emulation_defers(s))
        return call();
    cuda_emulation_keep(call);
    return told();
}

/* --- streams --------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    const std::lock_guard<std::recursive_mutex> held(lock);
    CUstream_st *s = new CUstream_st {};

    s->device = cuda_emulation_device();
    s->early = is("all early") || (is("early") && streams != nullptr);
    s->random = is("random");
    s->owner = pthread_self();
    s->next = streams;
    streams = s;
    *out = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    const std::lock_guard<std::recursive_mutex> held(lock);
    CUstream_st **link = &streams;

    drain(s, s->queued, FOR_EVER);
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    cuda_emulation_not_captured("a wait");
    not_captured(s, "a wait");
    cuda_emulation_drain(s);
    return told();
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    return asked_of(s, s != nullptr ? s->queued : 0);
}

/* --- events ---------------------------------------------------------------- */

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = (cudaEvent_t)calloc(1, sizeof **e);
    return *e != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    return cudaEventCreate(e);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    cuda_emulation_not_captured("an event");
    e->stream = s;
    e->at = s->queued + 1;
    cuda_emulation_queue(s, [e] {
        clock_gettime(CLOCK_MONOTONIC, &e->time);
        return cudaSuccess;
    });
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    const std::lock_guard<std::recursive_mutex> held(lock);
    const cudaStream_t other = e->stream;
    const uint64_t at = e->at;

    cuda_emulation_not_captured("a wait for an event");
    if (other != nullptr && other != s)
        cuda_emulation_queue(s, [other, at] {
            return !lives(other) || drain(other, at, 0) ? cudaSuccess
                                                        : cudaErrorNotReady;
        });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    cuda_emulation_not_captured("a wait");
    if (e->stream != nullptr && lives(e->stream))
        drain(e->stream, e->at, FOR_EVER);
    return told();
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    const std::lock_guard<std::recursive_mutex> held(lock);

    cuda_emulation_not_captured("a question");
    return asked_of(lives(e->stream) ? e->stream : nullptr, e->at);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from,
                                 cudaEvent_t to)
{
    *milliseconds =
        (float)(1e3 * (double)(to->time.tv_sec - from->time.tv_sec) +
                1e-6 * (double)(to->time.tv_nsec - from->time.tv_nsec));
    return cudaSuccess;
}
