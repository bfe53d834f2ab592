/* Memory and errors of cuda_runtime.h. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <unordered_set>
#include <vector>

enum {
    GUARD = 256,
    PAGE = 4096,
    POISON_BYTES = 1 << 20,
    MAX_KERNELS = 64,
    CODE_BYTES = 256 << 10, /* of a kernel, on the device */
    DEVICES = 8,
    RUNTIME = CUDART_VERSION
};

namespace
{

const unsigned char guard_byte = 0xA5;

/* begins the page before each allocation; a guard ends it */
struct Head {
    size_t bytes, mapped;
    Head *next;
};

Head *heads; /* of all that live */
std::mutex lock;

/* memory of the host that copies reach when the stream gets there */
struct Pinned {
    char *at;
    size_t bytes;
    Pinned *next;
} * pinned;

bool is_pinned(const void *p)
{
    const std::lock_guard<std::mutex> held(lock);
    const char *at = (const char *)p;

    for (const Pinned *i = pinned; i != nullptr; i = i->next)
        if (at >= i->at && at < i->at + i->bytes)
            return true;
    return false;
}

Head *head_of(void *p)
{
    return (Head *)((char *)p - PAGE);
}

/* NaN wherever it is read before it is written. Large ranges show pages of one
 * file until then: most of them are hardly touched. p is a page's first byte */
void poison(char *p, size_t bytes)
{
    static const int file = [] {
        const std::vector<char> nan(POISON_BYTES, (char)0xff);
        const int f = memfd_create("poison", MFD_CLOEXEC);
        return f >= 0 && write(f, nan.data(), nan.size()) == (ssize_t)nan.size()
                   ? f
                   : -1;
    }();

    for (; bytes >= POISON_BYTES; p += POISON_BYTES, bytes -= POISON_BYTES)
        if (file < 0 || mmap(p, POISON_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_FIXED, file, 0) == MAP_FAILED)
            memset(p, 0xff, POISON_BYTES);
    memset(p, 0xff, bytes);
}

/* --- who may look ------------------------------------------------------- */

int key = -2; /* of device memory; -1: this processor has none */
thread_local int depth, current_device;

void key_make()
{
    if (key == -2)
        key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
}

/* Which GPU has this number, and which part of it, as CUDA_VISIBLE_DEVICES has
 * them: "2,3:1"; false where there is none. CUDA_EMULATION_DEVICES in the
 * environment says how many there are. */
bool which_device(int device, int *gpu, int *part)
{
    const char *text = getenv("CUDA_EMULATION_DEVICES");
    const int num = text != nullptr ? atoi(text) : DEVICES;
    const char *at = getenv("CUDA_VISIBLE_DEVICES");

    *gpu = device;
    *part = 0;
    if (at != nullptr) {
        for (int i = 0; i < device && at != nullptr; ++i) {
            at = strchr(at, ',');
            at = at != nullptr ? at + 1 : nullptr;
        }
        if (at == nullptr || sscanf(at, "%d:%d", gpu, part) < 1)
            return false;
    }
    return *gpu >= 0 && *gpu < num;
}

int num_devices()
{
    int num = 0, gpu, part;

    while (which_device(num, &gpu, &part))
        ++num;
    return num;
}

/* CUDA_EMULATION_DRIVER the newest CUDA its driver knows, 12040 is 12.4 */
int driver_version()
{
    const char *text = getenv("CUDA_EMULATION_DRIVER");

    return text != nullptr ? atoi(text) : RUNTIME;
}

/* and CUDA_EMULATION_MEMORY how many bytes each has */
size_t memory_bytes()
{
    const char *text = getenv("CUDA_EMULATION_MEMORY");

    return text != nullptr ? strtoull(text, nullptr, 10) : (size_t)1 << 36;
}

size_t used_bytes()
{
    size_t bytes = 0;

    for (const Head *h = heads; h != nullptr; h = h->next)
        bytes += h->bytes;
    return bytes;
}

int64_t own; /* bytes that the driver has taken for itself */

size_t free_bytes()
{
    const size_t used = used_bytes() + (size_t)own;

    return memory_bytes() > used ? memory_bytes() - used : 0;
}

int failed;
long launches;

/* CUDA_EMULATION_TELL: at the end, to standard error */
struct Teller {
    size_t most = 0;

    ~Teller()
    {
        if (getenv("CUDA_EMULATION_TELL") != nullptr)
            fprintf(stderr,
                    "cuda emulation: %zu bytes of memory at most\n"
                    "cuda emulation: %ld launches on device %d\n",
                    most, launches, current_device);
    }
} teller;

thread_local cudaError_t last;

bool is_device(const void *p)
{
    for (const Head *h = heads; h != nullptr; h = h->next)
        if ((const char *)p >= (const char *)h &&
            (const char *)p < (const char *)h + h->mapped)
            return true;
    return false;
}

void check_side(const void *p, bool device, const char *what)
{
    if (is_device(p) == device)
        return;
    fprintf(stderr, "cuda emulation: %s is %s memory\n", what,
            device ? "not device" : "device");
    abort();
}

cudaError_t told()
{
    return failed ? cudaErrorLaunchFailure : cudaSuccess;
}

struct Limit {
    const void *kernel;
    size_t limit;
} limits[MAX_KERNELS];

} // namespace

CudaEmulationOpen::CudaEmulationOpen()
{
    key_make();
    if (depth++ == 0 && key >= 0)
        pkey_set(key, 0);
}

CudaEmulationOpen::~CudaEmulationOpen()
{
    if (--depth == 0 && key >= 0)
        pkey_set(key, PKEY_DISABLE_ACCESS);
}

size_t cuda_emulation_shared_limit(const void *kernel, int64_t limit)
{
    const std::lock_guard<std::mutex> held(lock);
    int i = 0;

    while (i < MAX_KERNELS - 1 && limits[i].kernel != nullptr &&
           limits[i].kernel != kernel)
        ++i;
    if (limit >= 0)
        limits[i] = Limit { kernel, (size_t)limit };
    return limits[i].kernel == kernel ? limits[i].limit : 0;
}

void cuda_emulation_each_memory(void (*f)(void *user, const void *p,
                                          size_t bytes),
                                void *user)
{
    const std::lock_guard<std::mutex> held(lock);

    for (const Head *h = heads; h != nullptr; h = h->next)
        f(user, (const char *)h + PAGE, h->bytes);
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    default:
        return "invalid argument";
    }
}

cudaError_t cuda_emulation_says(cudaError_t e)
{
    if (e != cudaSuccess)
        last = e;
    return e;
}

cudaError_t cuda_emulation_last(void)
{
    return last;
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last;

    last = cudaSuccess;
    return e;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = num_devices();
    if (driver_version() < RUNTIME)
        return cuda_emulation_says(cudaErrorInsufficientDriver);
    return cuda_emulation_says(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    int gpu, part;

    memset(p, 0, sizeof *p);
    if (device < 0 || !which_device(device, &gpu, &part))
        return cuda_emulation_says(cudaErrorInvalidDevice);
    const char *name = getenv("CUDA_EMULATION_NAME");
    snprintf(p->name, sizeof p->name, "%s", name ? name : "emulated GPU");
    p->major = 8;
    p->multiProcessorCount = 1;
    p->pciBusID = gpu + 1;
    p->uuid.bytes[0] = (char)gpu;
    p->uuid.bytes[1] = (char)part;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = driver_version();
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = RUNTIME;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    const std::lock_guard<std::mutex> held(lock);
    const CudaEmulationOpen open;

    *total = memory_bytes();
    *free = free_bytes();
    return told();
}

cudaError_t cuda_emulation_own(int64_t bytes)
{
    const std::lock_guard<std::mutex> held(lock);
    const CudaEmulationOpen open;

    if (bytes > 0 && (size_t)bytes > free_bytes())
        return cuda_emulation_says(cudaErrorMemoryAllocation);
    own += bytes;
    return cudaSuccess;
}

/* Of what is loaded before it is launched bytes are counted then: CODE_BYTES are
 * many, and most of that is never launched. */
cudaError_t cuda_emulation_load(const void *kernel, bool launched)
{
    static std::unordered_set<const void *> *const loaded =
        new std::unordered_set<const void *>;
    static std::unordered_set<const void *> *const counted =
        new std::unordered_set<const void *>;
    static std::mutex loads;

    loads.lock();
    const bool there = loaded->count(kernel) > 0;
    loads.unlock();
    if (!there) {
        cuda_emulation_not_captured("the first launch of a kernel");
        cuda_emulation_loads(); /* and there others may be launched */
    }
    const std::lock_guard<std::mutex> held(loads);
    loaded->insert(kernel);
    if (!launched || !counted->insert(kernel).second)
        return cudaSuccess;
    const cudaError_t e = cuda_emulation_own(CODE_BYTES);
    if (e != cudaSuccess) {
        loaded->erase(kernel);
        counted->erase(kernel);
    }
    return e;
}

int cuda_emulation_failed(void)
{
    return failed;
}

int cuda_emulation_wrong(const char *what)
{
    const char *text = getenv("CUDA_EMULATION_WRONG");
    char *end;

    return text != nullptr && strtol(text, &end, 10) == current_device &&
           *end == ':' && strcmp(end + 1, what) == 0;
}

int cuda_emulation_count_launch(void)
{
    const char *text = getenv("CUDA_EMULATION_FAIL");
    int device;
    long at;

    ++launches;
    if (text != nullptr && sscanf(text, "%d:%ld", &device, &at) == 2 &&
        device == current_device && launches >= at)
        failed = 1;
    return failed;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= num_devices())
        return cuda_emulation_says(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

int cuda_emulation_device(void)
{
    return current_device;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    cuda_emulation_not_captured("cudaMalloc");
    const std::lock_guard<std::mutex> held(lock);
    const CudaEmulationOpen open;
    const size_t mapped = (2 * PAGE + bytes + GUARD - 1) / PAGE * PAGE;

    if (failed)
        return told();
    if (bytes > free_bytes())
        return cuda_emulation_says(cudaErrorMemoryAllocation);
    char *raw = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (raw == (char *)MAP_FAILED)
        return cudaErrorMemoryAllocation;
    char *p = raw + PAGE;
    poison(p, bytes);
    if (key >= 0)
        pkey_mprotect(raw, mapped, PROT_READ | PROT_WRITE, key);
    *head_of(p) = Head { bytes, mapped, heads };
    heads = head_of(p);
    teller.most = teller.most > used_bytes() ? teller.most : used_bytes();
    memset(p - GUARD, guard_byte, GUARD);
    memset(p + bytes, guard_byte, GUARD);
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (p == nullptr)
        return cudaSuccess;
    cuda_emulation_drain_all();
    const std::lock_guard<std::mutex> held(lock);
    const CudaEmulationOpen open;
    const unsigned char *c = (const unsigned char *)p;
    Head *head = head_of(p), **link = &heads;
    for (int i = 0; i < GUARD; ++i)
        if (c[i - GUARD] != guard_byte ||
            c[head->bytes + (size_t)i] != guard_byte) {
            fprintf(stderr, "cuda emulation: written outside of %zu bytes\n",
                    head->bytes);
            abort();
        }
    while (*link != head)
        link = &(*link)->next;
    *link = head->next;
    munmap(head, head->mapped);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    const std::lock_guard<std::mutex> held(lock);
    Pinned *p = new Pinned { (char *)malloc(bytes), bytes, pinned };

    *out = p->at;
    if (p->at == nullptr) {
        delete p;
        return cudaErrorMemoryAllocation;
    }
    pinned = p;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    if (p == nullptr)
        return cudaSuccess;
    cuda_emulation_drain_all();
    const std::lock_guard<std::mutex> held(lock);
    Pinned **link = &pinned;
    while ((*link)->at != p)
        link = &(*link)->next;
    Pinned *gone = *link;
    *link = gone->next;
    delete gone;
    free(p);
    return cudaSuccess;
}

static cudaError_t copy(void *to, const void *from, size_t bytes,
                        cudaMemcpyKind kind)
{
    const CudaEmulationOpen open;

    {
        const std::lock_guard<std::mutex> held(lock);
        check_side(to, kind != cudaMemcpyDeviceToHost, "where a copy goes");
        check_side(from, kind != cudaMemcpyHostToDevice, "what a copy reads");
    }
    if (!failed)
        memcpy(to, from, bytes);
    return told();
}

[[noreturn]] static void changed(void)
{
    fprintf(stderr, "cuda emulation: memory of the host has changed before a "
                    "copy has read it\n");
    abort();
}

/* CUDA_EMULATION_SLOW=MS in the environment: copies to the host's pinned memory
 * begin so much later, while other threads' streams go on. */
static void hesitate(void)
{
    const char *text = getenv("CUDA_EMULATION_SLOW");
    const long ms = text != nullptr ? atol(text) : 0;
    const struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };

    if (ms > 0)
        nanosleep(&pause, nullptr);
}

/* With CUDA_EMULATION_PAGEABLE in the environment whoever queues a copy to memory
 * of the host that is not pinned waits for it, as on some machines. */
static bool waits_here(const void *to, cudaMemcpyKind kind)
{
    return kind == cudaMemcpyDeviceToHost && !is_pinned(to) &&
           getenv("CUDA_EMULATION_PAGEABLE") != nullptr;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t s)
{
    if (cuda_emulation_captures() && kind != cudaMemcpyDeviceToDevice)
        cuda_emulation_not_captured("a copy from or to the host");
    if (!cuda_emulation_defers(s))
        return copy(to, from, bytes, kind);
    if (kind == cudaMemcpyDeviceToHost && is_pinned(to))
        hesitate();
    if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {
        const char *at = (const char *)from;
        cuda_emulation_keep([=, kept = std::vector<char>(at, at + bytes)] {
            if (memcmp(at, kept.data(), bytes) != 0)
                changed();
            return copy(to, from, bytes, kind);
        });
        return told();
    }
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) {
        {
            const std::lock_guard<std::mutex> held(lock);
            const CudaEmulationOpen open;
            check_side(to, false, "where a copy goes");
        }
        memset(to, 0xff, bytes); /* who reads it now has not waited */
    }
    cuda_emulation_keep([=] { return copy(to, from, bytes, kind); });
    if (waits_here(to, kind))
        cuda_emulation_drain(s);
    return told();
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    if (cuda_emulation_defers(s)) {
        cuda_emulation_keep(
            [=] { return cudaMemsetAsync(p, value, bytes, s); });
        return cudaSuccess;
    }
    const CudaEmulationOpen open;

    {
        const std::lock_guard<std::mutex> held(lock);
        check_side(p, true, "what is set");
    }
    if (failed)
        return told();
    memset(p, value, bytes);
    return cudaSuccess;
}
