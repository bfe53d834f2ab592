#ifndef DG_CUDA_CUDNN_CALLS_H
#define DG_CUDA_CUDNN_CALLS_H
/*
 * What the files of cuDNN share. Internal to cuda/cudnn_*.
 */
#include "cudnn_plan.h"

#if DG_CUDNN
#include <cudnn_backend.h>

enum { MOST_MADE = 200 }; /* descriptors of a plan */

typedef cudnnBackendDescriptor_t Desc;

/* what is called, by the names of the library */
#define FUNCTIONS(F)                 \
    F(cudnnGetVersion)               \
    F(cudnnGetErrorString)           \
    F(cudnnGetLastErrorString)       \
    F(cudnnCreate)                   \
    F(cudnnDestroy)                  \
    F(cudnnSetStream)                \
    F(cudnnBackendCreateDescriptor)  \
    F(cudnnBackendDestroyDescriptor) \
    F(cudnnBackendSetAttribute)      \
    F(cudnnBackendGetAttribute)      \
    F(cudnnBackendFinalize)          \
    F(cudnnBackendExecute)
#define MEMBER(name) decltype(&::name) name;

struct CudnnLibrary {
    void *file;
    FUNCTIONS(MEMBER)
    size_t number; /* of its version, */
    char version[32];
    cudnnHandle_t handle; /* of a device that is here, */
    Desc device;          /* or the description of one */
};

struct CudnnPlan {
    const CudnnLibrary *l;
    Desc made[MOST_MADE]; /* all that it stands on */
    int num;
    Desc plan;
    int64_t engine;
    size_t workspace;
    int64_t given[DG_CUDNN_GIVEN]; /* numbers of its tensors */
    int num_given;
};

/** What the library says of a call that failed. text [bytes] out. */
void dg_cudnn_said(const CudnnLibrary *l, cudnnStatus_t e, char *text,
                   size_t bytes);
#endif

#endif
