#ifndef DG_TENSOR_MIRROR_H
#define DG_TENSOR_MIRROR_H
/*
 * A buffer in kernel memory and its place on the host. Where the backend's
 * memory is the host's own both are one, and copies between them nothing:
 * code that moves what it needs in time is right for every backend.
 */
#include "tensor/backend.h"

#include <stddef.h>

typedef struct Mirror {
    const Backend *backend; /* borrowed */
    void *host;
    void *at; /* kernel memory */
    size_t bytes;
} Mirror;

/** Reserves both sides, zeroed; 0 bytes are allowed.
 *  backend  NULL: the host's memory
 *  what  for the message. Errors: DG_ENOMEM; *m is then empty. */
int dg_mirror_new(Mirror *m, const Backend *backend, size_t bytes,
                  const char *what);
/** NULL sides are allowed. */
void dg_mirror_free(Mirror *m);

/** Host to kernel memory; the host's side may be written again at once. */
void dg_mirror_up(const Mirror *m);
/** Kernel memory to host, waiting. Errors: DG_EDEVICE, of this or of what was
 *  queued before. */
int dg_mirror_down(const Mirror *m);

/** The host's side changes place with *host, dg_memory_new()'s of m->bytes: what
 *  is in the mirror now stays there. Kernel memory that is apart stays. */
void dg_mirror_swap(Mirror *m, void **host);

/** The same without a mirror: bytes of kernel memory, zeroed. backend NULL:
 *  the host's. */
int dg_kernel_memory_new(void **out, const Backend *backend, size_t bytes);
void dg_kernel_memory_free(const Backend *backend, void *p);

/** num floats, kernel memory to kernel memory. */
void dg_kernel_copy(const Backend *backend, float *to, const float *from,
                    int64_t num);

/** bytes from the host to kernel memory, and back; as the mirror's. */
void dg_kernel_upload(const Backend *backend, void *to, const void *host,
                      size_t bytes);
int dg_kernel_download(const Backend *backend, void *host, const void *from,
                       size_t bytes);

#endif
