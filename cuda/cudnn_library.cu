#include "cudnn_calls.h"

extern "C" {
#include "base/error.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DG_CUDNN
#include <dlfcn.h>

template <typename F>
static int find(const CudnnLibrary *l, const char *key, F *function,
                const char *name)
{
    *function = (F)dlsym(l->file, name);
    return *function != NULL
               ? DG_OK
               : dg_fail(DG_EDEVICE, "%s = \"cudnn\": the library has no %s",
                         key, name);
}

static int find_all(CudnnLibrary *l, const char *key)
{
    int err = DG_OK;

#define FIND(name) err = err ? err : find(l, key, &l->name, #name);
    FUNCTIONS(FIND)
    return err;
}

int dg_cudnn_open(struct CudnnLibrary **out, const char *key)
{
    CudnnLibrary *l = (CudnnLibrary *)calloc(1, sizeof *l);
    int err;

    if (l == NULL)
        return dg_fail(DG_ENOMEM, "cuDNN");
    l->file = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    err = l->file != NULL
              ? find_all(l, key)
              : dg_fail(DG_EDEVICE,
                        "%s = \"cudnn\": no cuDNN 9 on this machine "
                        "(%s); use \"own\"",
                        key, dlerror());
    const size_t v = err ? 0 : l->cudnnGetVersion();
    l->number = v;
    snprintf(l->version, sizeof l->version, "%zu.%zu.%zu", v / 10000,
             v / 100 % 100, v % 100);
    if (!err && v < DG_CUDNN_LEAST)
        err = dg_fail(DG_EDEVICE,
                      "%s = \"cudnn\": this machine's cuDNN is %s; %d.%d or "
                      "later is needed, or use \"own\"",
                      key, l->version, DG_CUDNN_LEAST / 10000,
                      DG_CUDNN_LEAST / 100 % 100);
    if (err)
        free(l);
    else
        *out = l;
    return err;
}

/* The library keeps threads and kernels of its own: it is never unloaded. */
void dg_cudnn_close(struct CudnnLibrary *l)
{
    if (l == NULL)
        return;
    if (l->device != NULL)
        l->cudnnBackendDestroyDescriptor(l->device);
    if (l->handle != NULL)
        l->cudnnDestroy(l->handle);
    free(l);
}

const char *dg_cudnn_version(const struct CudnnLibrary *l)
{
    return l->version;
}

void dg_cudnn_said(const CudnnLibrary *l, cudnnStatus_t e, char *text,
                   size_t bytes)
{
    char more[256] = "";

    l->cudnnGetLastErrorString(more, sizeof more);
    snprintf(text, bytes, "%s%s%s", l->cudnnGetErrorString(e),
             more[0] != '\0' ? ": " : "", more);
}

static int device_error(const CudnnLibrary *l, cudnnStatus_t e)
{
    char text[400];

    dg_cudnn_said(l, e, text, sizeof text);
    return dg_fail(DG_EDEVICE, "cuDNN %s: %s", l->version, text);
}

int dg_cudnn_use(struct CudnnLibrary *l, void *stream)
{
    cudnnStatus_t e = l->cudnnCreate(&l->handle);

    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnSetStream(l->handle, (cudaStream_t)stream);
    return e == CUDNN_STATUS_SUCCESS ? DG_OK : device_error(l, e);
}

int dg_cudnn_describe(struct CudnnLibrary *l, const char *json)
{
    cudnnStatus_t e;

    if (l->device != NULL)
        l->cudnnBackendDestroyDescriptor(l->device);
    l->device = NULL;
    e = l->cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
                                        &l->device);

    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendSetAttribute(
            l->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
            CUDNN_TYPE_CHAR, (int64_t)strlen(json), json);
    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendFinalize(l->device);
    return e == CUDNN_STATUS_SUCCESS ? DG_OK : device_error(l, e);
}

const char *dg_cudnn_run(const struct CudnnPlan *p, void *const *given,
                         void *workspace)
{
    const CudnnLibrary *l = p->l;
    const int64_t num = p->num_given;
    void *at[DG_CUDNN_GIVEN];
    Desc pack = NULL;

    for (int i = 0; i < p->num_given; ++i)
        at[i] = given[p->given[i]];
    cudnnStatus_t e = l->cudnnBackendCreateDescriptor(
        CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendSetAttribute(pack,
                                        CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                        CUDNN_TYPE_INT64, num, p->given);
    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendSetAttribute(pack,
                                        CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                        CUDNN_TYPE_VOID_PTR, num, at);
    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                        CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendFinalize(pack);
    if (e == CUDNN_STATUS_SUCCESS)
        e = l->cudnnBackendExecute(l->handle, p->plan, pack);
    if (pack != NULL)
        l->cudnnBackendDestroyDescriptor(pack);
    return e == CUDNN_STATUS_SUCCESS ? NULL : l->cudnnGetErrorString(e);
}
#endif
