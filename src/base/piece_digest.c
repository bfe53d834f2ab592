#include "base/piece_digest.h"

#include "base/error.h"

#include <omp.h>
#include <stdlib.h>

int64_t dg_piece_count(size_t bytes)
{
    return (int64_t)((bytes + DG_PIECE_BYTES - 1) / DG_PIECE_BYTES);
}

static int sum_piece(PieceSum *sum, const char *data, size_t bytes, int64_t i)
{
    const size_t at = (size_t)i * DG_PIECE_BYTES, left = bytes - at;

    return dg_sha256_raw(sum->byte, data + at,
                         left < DG_PIECE_BYTES ? left : DG_PIECE_BYTES);
}

int dg_piece_sums(PieceSum *sums, const void *data, size_t bytes)
{
    const int64_t num = dg_piece_count(bytes);
    int failed = 0;

    /* one thread does without OpenMP, which ends the program where it has no
     * memory for its own */
    if (omp_get_max_threads() == 1 || num <= 1) {
        for (int64_t i = 0; i < num && !failed; i++)
            failed = sum_piece(&sums[i], data, bytes, i) != DG_OK;
        return failed ? DG_ENOMEM : DG_OK;
    }
    /* an error is of the thread that meets it: the caller's is made anew */
#pragma omp parallel for reduction(| : failed)
    for (int64_t i = 0; i < num; i++)
        failed |= sum_piece(&sums[i], data, bytes, i) != DG_OK;
    return failed ? dg_fail(DG_ENOMEM, "SHA-256 of %lld pieces", (long long)num)
                  : DG_OK;
}

static PieceSum *new_sums(int64_t num)
{
    PieceSum *sums = malloc((size_t)(num > 0 ? num : 1) * sizeof *sums);

    if (sums == NULL)
        dg_fail(DG_ENOMEM, "SHA-256 of %lld pieces", (long long)num);
    return sums;
}

int dg_piece_add(Sha256 *all, const void *data, size_t bytes)
{
    const int64_t num = dg_piece_count(bytes);
    PieceSum *sums = new_sums(num);
    int err = DG_ENOMEM;

    if (sums != NULL)
        err = dg_piece_sums(sums, data, bytes);
    if (!err)
        dg_sha256_update(all, sums, (size_t)num * sizeof *sums);
    free(sums);
    return err;
}

int dg_piece_join(char hex[DG_SHA256_HEX], const PieceSum *sums, int64_t num)
{
    return dg_sha256_bytes(hex, sums, (size_t)num * sizeof *sums);
}

int dg_piece_digest(char hex[DG_SHA256_HEX], const void *data, size_t bytes)
{
    Sha256 all;
    int err = dg_sha256_init(&all);

    if (err)
        return err;
    err = dg_piece_add(&all, data, bytes);
    if (err)
        dg_sha256_fini(&all);
    else
        dg_sha256_final(&all, hex);
    return err;
}
