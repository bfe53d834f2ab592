#ifndef DG_CUDA_CUDNN_PLAN_H
#define DG_CUDA_CUDNN_PLAN_H
/*
 * The one place that speaks with cuDNN: its library, opened by name when a run
 * asks for it, and plans for the attention or a convolution of ONE sample, forward
 * and backward, of values stored as bfloat16. Nothing here needs a GPU: a plan can
 * also be made for one that is only described. Internal to cuda.
 *
 * Attention's tensors are [heads, s, d] of one sample as they lie in [s, all heads, d]:
 * d apart from head to head, all_heads d from row to row.
 *
 * DG_CUDNN 0, or not defined: built without cuDNN's header, and nothing of this
 * is there.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The oldest version that is taken; older ones were never asked. */
enum { DG_CUDNN_LEAST = 91900 };

/** What the call of attention's plan is given, by these numbers. */
enum {
    DG_CUDNN_Q = 1,
    DG_CUDNN_K,
    DG_CUDNN_V,
    DG_CUDNN_O,
    DG_CUDNN_LSE, /* [heads, sq] float32, log sum exp, as AttentionArgs has it */
    DG_CUDNN_SCALE, /* a float of the host */
    DG_CUDNN_DO,
    DG_CUDNN_DQ,
    DG_CUDNN_DK,
    DG_CUDNN_DV,
    DG_CUDNN_DELTA, /* [heads, sq] float32: room for sums of o d_o */
    DG_CUDNN_ONE,   /* 1.0f of the host */
    DG_CUDNN_GIVEN
};

/** One sample's attention, of so many of its heads in a call. */
typedef struct CudnnShape {
    int64_t heads, all_heads, d, sq, sk;
} CudnnShape;

/** What a convolution's is: which of them is written the way says. */
enum {
    DG_CUDNN_X = 1, /* [h, w, in] bfloat16, or its gradient */
    DG_CUDNN_W,    /* [out, kernel_h, kernel_w, in] bfloat16, or its gradient */
    DG_CUDNN_BIAS, /* [out] bfloat16 */
    DG_CUDNN_Y,    /* [out_h, out_w, out] bfloat16, or its gradient */
    DG_CUDNN_CONV_GIVEN
};

/** One sample's convolution: ConvArgs of a map as windows see it. Zeros reach as
 *  far as out_h and out_w do. */
typedef struct CudnnConv {
    int64_t h, w, in, out_h, out_w, out;
    int64_t kernel_h, kernel_w, stride, top, left;
} CudnnConv;

/** What is asked of it. Sums are float32 in all of them. */
typedef enum CudnnWay {
    DG_CUDNN_BIASED,  /* y = conv(x, w) + bias, rounded once */
    DG_CUDNN_BARE,    /* y = conv(x, w) */
    DG_CUDNN_DX,      /* the map's gradient */
    DG_CUDNN_DX_SUMS, /* the same, X being float32 */
    DG_CUDNN_DW_SUMS, /* the weights' gradient, W being float32 */
    DG_CUDNN_WAYS
} CudnnWay;

struct CudnnLibrary;
struct CudnnPlan;

/**
 * Opens libcudnn.so.9. key: what asks for it, run.attention or another.
 * Errors: DG_EDEVICE where there is none, or one too old.
 */
int dg_cudnn_open(struct CudnnLibrary **out, const char *key);
/** NULL is allowed. The library itself stays in memory. */
void dg_cudnn_close(struct CudnnLibrary *l);
/** "9.19.0"; a pointer into l. */
const char *dg_cudnn_version(const struct CudnnLibrary *l);

/**
 * Plans are for the current device from now on, and run on that stream
 * (cudaStream_t). Errors: DG_EDEVICE.
 */
int dg_cudnn_use(struct CudnnLibrary *l, void *stream);
/** Or for a device that a text of JSON describes; they cannot run.
 *  Errors: DG_EDEVICE. */
int dg_cudnn_describe(struct CudnnLibrary *l, const char *json);

/**
 * The first of the library's configurations that sums in an order of its own,
 * can be captured in a graph, and wants at most 'most' bytes of workspace.
 * *out is NULL, and why [bytes] says it, where there is none: no error.
 */
void dg_cudnn_forward(struct CudnnPlan **out, const struct CudnnLibrary *l,
                      const CudnnShape *s, size_t most, char *why,
                      size_t bytes);
void dg_cudnn_backward(struct CudnnPlan **out, const struct CudnnLibrary *l,
                       const CudnnShape *s, size_t most, char *why,
                       size_t bytes);
/**
 * Of a convolution the first that sums in an order of its own, splits no sum
 * between blocks, keeps sums in float32 and wants at most 'most' bytes. Whether it
 * can be captured no note says of the library's fastest engines: the caller tries
 * it. As above where there is none.
 */
void dg_cudnn_conv(struct CudnnPlan **out, const struct CudnnLibrary *l,
                   const CudnnConv *s, CudnnWay way, size_t most, char *why,
                   size_t bytes);
/** NULL is allowed. */
void dg_cudnn_plan_free(struct CudnnPlan *p);
int64_t dg_cudnn_engine(const struct CudnnPlan *p);
size_t dg_cudnn_workspace(const struct CudnnPlan *p);
/** The plan as the library writes it, compiled code too; freed by the caller,
 *  NULL where it does not. */
char *dg_cudnn_text(const struct CudnnPlan *p);

/** Queues it; given by DG_CUDNN_Q, or DG_CUDNN_X, and so on, what is not wanted
 *  being NULL.
 *  Returns NULL, or what the library says. */
const char *dg_cudnn_run(const struct CudnnPlan *p, void *const *given,
                         void *workspace);

#ifdef __cplusplus
}
#endif

#endif
