#ifndef DG_BASE_SHA256_H
#define DG_BASE_SHA256_H
/*
 * SHA-256, incremental: init, update any number of times, then final or fini.
 */
#include <stddef.h>

enum { DG_SHA256_HEX = 65 }; /* 64 lower-case digits and '\0' */

typedef struct Sha256 {
    void *state; /* the library's; NULL: not in use */
} Sha256;

/** Errors: DG_ENOMEM. */
int dg_sha256_init(Sha256 *s);

/** Adds bytes. size 0 is allowed. */
void dg_sha256_update(Sha256 *s, const void *data, size_t size);

/** Writes the digest and ends s. */
void dg_sha256_final(Sha256 *s, char hex[DG_SHA256_HEX]);

/** Ends s without a digest; allowed on an ended one. */
void dg_sha256_fini(Sha256 *s);

/** Digest of one piece of memory. Errors: DG_ENOMEM. */
int dg_sha256_bytes(char hex[DG_SHA256_HEX], const void *data, size_t size);

/** The same as its 32 bytes. Errors: DG_ENOMEM. */
int dg_sha256_raw(unsigned char digest[32], const void *data, size_t size);

#endif
