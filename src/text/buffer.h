#ifndef DG_SRC_TEXT_BUFFER_H
#define DG_SRC_TEXT_BUFFER_H
/*
 * Growing buffers of the tokenizers, and whole files as bytes.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct Bytes {
    char *at;
    size_t used, room;
} Bytes;

typedef struct Ids {
    int32_t *at;
    size_t used, room;
} Ids;

/** Appends. Errors: DG_ENOMEM; the buffer is then as it was. */
int dg_bytes_add(Bytes *b, const void *data, size_t size);
int dg_ids_add(Ids *ids, int32_t id);

void dg_bytes_free(Bytes *b);
void dg_ids_free(Ids *ids);

/**
 * Room for num elements of size bytes behind *at, which may move.
 * Errors: DG_ENOMEM, also when the product does not fit.
 */
int dg_buffer_reserve(void **at, size_t *room, size_t num, size_t size);

/**
 * A regular file of at most 256 MiB with a zero byte behind it.
 * must   0: a file that is not there gives DG_OK and no bytes (at NULL)
 * Errors: DG_EIO naming the file, DG_EFORMAT if it is too large, DG_ENOMEM.
 */
int dg_bytes_read(Bytes *b, const char *path, int must);

/** folder/name as bytes, as dg_bytes_read(). path is set to its name. */
int dg_bytes_read_in(Bytes *b, char *path, size_t path_room, const char *folder,
                     const char *name, int must);

#endif
