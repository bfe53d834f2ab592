#ifndef DG_CUDA_CUDNN_STREAM_H
#define DG_CUDA_CUDNN_STREAM_H
/* What attention and convolutions by cuDNN share of a stream: the library with a
 * handle of its own, and room. Internal to cuda. */
#include "cudnn_plan.h"
#include "stream.h"

struct StreamCudnn {
    struct CudnnLibrary *library;
    char *room; /* [DG_CUDNN_ROOM], of a call; or NULL */
    int major;  /* of the device's compute capability */
};

/**
 * The stream's, opened where it is not yet; room: with room. key: what asks.
 * Errors: DG_EDEVICE without the library, or without its header when this was
 * built; DG_ENOMEM.
 */
int dg_cuda_cudnn_open(CudaStream *s, const char *key, int room);

#endif
