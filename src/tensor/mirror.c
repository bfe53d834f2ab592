#include "tensor/mirror.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

int dg_kernel_memory_new(void **out, const Backend *backend, size_t bytes)
{
    if (backend != NULL && backend->apart)
        return backend->take(out, bytes);
    *out = dg_memory_new(bytes);
    return *out != NULL ? DG_OK : dg_fail(DG_ENOMEM, "%zu bytes", bytes);
}

void dg_kernel_memory_free(const Backend *backend, void *p)
{
    if (backend != NULL && backend->apart)
        backend->give(p);
    else
        free(p);
}

int dg_mirror_new(Mirror *m, const Backend *backend, size_t bytes,
                  const char *what)
{
    *m = (Mirror) { .backend = backend, .bytes = bytes };
    m->host = dg_memory_new(bytes);
    if (m->host == NULL)
        return dg_fail(DG_ENOMEM, "%s: %zu bytes", what, bytes);
    m->at = m->host;
    if (backend == NULL || !backend->apart)
        return DG_OK;
    m->at = NULL;
    if (backend->take(&m->at, bytes) == DG_OK)
        return DG_OK;
    dg_mirror_free(m);
    return dg_fail(DG_ENOMEM, "%s: %zu bytes of device memory", what, bytes);
}

void dg_mirror_free(Mirror *m)
{
    if (m->at != m->host)
        m->backend->give(m->at);
    free(m->host);
    *m = (Mirror) { 0 };
}

void dg_mirror_up(const Mirror *m)
{
    if (m->at != m->host)
        m->backend->upload(m->at, m->host, m->bytes);
}

int dg_mirror_down(const Mirror *m)
{
    return m->at != m->host ? m->backend->download(m->host, m->at, m->bytes)
                            : DG_OK;
}

void dg_mirror_swap(Mirror *m, void **host)
{
    void *before = m->host;

    if (m->at == m->host)
        m->at = *host;
    m->host = *host;
    *host = before;
}

void dg_kernel_copy(const Backend *backend, float *to, const float *from,
                    int64_t num)
{
    backend->copy(&(CopyArgs) {
        .blocks = 1, .rows = 1, .width = num, .src = from, .dst = to });
}

void dg_kernel_upload(const Backend *backend, void *to, const void *host,
                      size_t bytes)
{
    if (backend->apart)
        backend->upload(to, host, bytes);
    else
        memcpy(to, host, bytes);
}

int dg_kernel_download(const Backend *backend, void *host, const void *from,
                       size_t bytes)
{
    if (backend->apart)
        return backend->download(host, from, bytes);
    memcpy(host, from, bytes);
    return DG_OK;
}
