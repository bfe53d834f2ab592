#ifndef CUDA_EMULATION_CUDNN_GRAPH_H
#define CUDA_EMULATION_CUDNN_GRAPH_H
/* A graph of operations as the emulated cuDNN keeps and runs it. Internal to
 * tests/cuda_emulation. */
#include "cudnn_backend.h"

#include <map>
#include <memory>
#include <vector>

struct CudnnTensor {
    int64_t id;
    int type; /* cudnnDataType_t */
    int64_t dims[4], strides[4], align;
    bool by_value, between;

    int64_t count() const
    {
        return dims[0] * dims[1] * dims[2] * dims[3];
    }
    int64_t place(int64_t b, int64_t h, int64_t i, int64_t j) const;
    int64_t extent() const;
};

struct CudnnOp {
    cudnnBackendDescriptorType_t type;
    int mode; /* cudnnPointwiseMode_t */
    /* what it reads, what it writes; as the attributes come: q k v scale, o
     * stats of attention; x w, y of a convolution, w y or x y of its gradients */
    std::vector<CudnnTensor> in, out;
    int64_t step[2], before[2], after[2]; /* of a convolution's windows */

    bool convolves() const;
};

struct CudnnEngine {
    int64_t index;
    bool ordered, graphs, bare; /* bare: without a workspace */
    int64_t splits = 1;         /* of a sum, by a knob */
    bool told = true;           /* by a note, that it can be captured */
};

struct CudnnGraph {
    std::vector<CudnnOp> ops;
    std::map<int64_t, CudnnTensor> given; /* by number */
    int64_t heads, sq, sk, d;
    bool back, conv;

    /** False: the operations do not fit together. */
    bool close();
    size_t workspace(const CudnnEngine &e) const;
    /** Its engines by the environment, best first. */
    std::vector<CudnnEngine> engines(bool fallback) const;
};

/** at: places of what is given, by number; what is by value is a float's bits.
 *  False: a place is missing or not aligned. */
bool cuda_emulation_cudnn_run(const CudnnGraph &g, const CudnnEngine &e,
                              const std::map<int64_t, void *> &at,
                              const std::map<int64_t, float> &values,
                              void *workspace);

#endif
