#ifndef DG_BASE_PIECE_DIGEST_H
#define DG_BASE_PIECE_DIGEST_H
/*
 * The digest of an array that is too long for one to read: SHA-256 over the
 * SHA-256, 32 bytes each, of its pieces of 1 MiB in their order. The last piece
 * is what is left; no bytes have no piece. Ranks and threads take pieces each,
 * and who took which does not show.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"

enum { DG_PIECE_BYTES = 1 << 20 };

typedef struct PieceSum {
    unsigned char byte[32];
} PieceSum;

/** Pieces of so many bytes. */
int64_t dg_piece_count(size_t bytes);

/** Sums of the pieces of data, which begins with one; sums [count] out. By the
 *  threads that OpenMP has. Errors: DG_ENOMEM. */
int dg_piece_sums(PieceSum *sums, const void *data, size_t bytes);

/** Adds the pieces' sums to that of all, which is begun and ended elsewhere.
 *  Errors: DG_ENOMEM. */
int dg_piece_add(Sha256 *all, const void *data, size_t bytes);

/** The digest, of all pieces' sums. Errors: DG_ENOMEM. */
int dg_piece_join(char hex[DG_SHA256_HEX], const PieceSum *sums, int64_t num);

/** The digest, of one piece of memory. Errors: DG_ENOMEM. */
int dg_piece_digest(char hex[DG_SHA256_HEX], const void *data, size_t bytes);

#endif
