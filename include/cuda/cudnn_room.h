#ifndef DG_CUDA_CUDNN_ROOM_H
#define DG_CUDA_CUDNN_ROOM_H
#include <stddef.h>

/** Bytes of device memory that a stream takes for calls of cuDNN, attention's and
 *  convolutions' in turn. Its size shows in no bit of attention, whose dS is there
 *  for as many heads at a time as it holds; a convolution that it does not hold
 *  has own kernels. */
#ifndef DG_CUDNN_ROOM
#define DG_CUDNN_ROOM ((size_t)257 << 20)
#endif

#endif
