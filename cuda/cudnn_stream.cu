#include "cudnn_stream.h"

extern "C" {
#include "cuda/cudnn_room.h"
}

#include <stdlib.h>

#if DG_CUDNN
static int open(struct StreamCudnn *c, const CudaStream *s, const char *key)
{
    int err = dg_cudnn_open(&c->library, key);

    if (!err)
        err = dg_cudnn_use(c->library, s->stream);
    if (err)
        return err;

    const cudaError_t e = cudaDeviceGetAttribute(
        &c->major, cudaDevAttrComputeCapabilityMajor, s->device);
    return e == cudaSuccess
               ? DG_OK
               : dg_fail(DG_EDEVICE, "CUDA: asking which GPU it is: %s",
                         cudaGetErrorString(e));
}

static int open_first(CudaStream *s, const char *key)
{
    struct StreamCudnn *c = (struct StreamCudnn *)calloc(1, sizeof *c);

    if (c == NULL)
        return dg_fail(DG_ENOMEM, "cuDNN");

    const int err = open(c, s, key);
    if (err)
        dg_cuda_cudnn_close(c);
    else
        s->cudnn = c;
    return err;
}

int dg_cuda_cudnn_open(CudaStream *s, const char *key, int room)
{
    const int err = s->cudnn == NULL ? open_first(s, key) : DG_OK;

    if (err || !room || s->cudnn->room != NULL)
        return err;

    const cudaError_t e = cudaMalloc((void **)&s->cudnn->room, DG_CUDNN_ROOM);
    if (e == cudaSuccess)
        return DG_OK;
    cudaGetLastError();
    s->cudnn->room = NULL;
    return dg_fail(DG_ENOMEM, "CUDA: %zu bytes for cuDNN (%s): %s",
                   DG_CUDNN_ROOM, key, cudaGetErrorString(e));
}

void dg_cuda_cudnn_close(struct StreamCudnn *c)
{
    if (c == NULL)
        return;
    dg_cudnn_close(c->library);
    cudaFree(c->room);
    free(c);
}
#else
int dg_cuda_cudnn_open(CudaStream *s, const char *key, int room)
{
    (void)s, (void)room;
    return dg_fail(DG_EDEVICE,
                   "%s = \"cudnn\": this program was built without cuDNN's "
                   "header (make CUDA=1 CUDNN_HOME=...); use \"own\"",
                   key);
}

void dg_cuda_cudnn_close(struct StreamCudnn *c)
{
    (void)c;
}
#endif
