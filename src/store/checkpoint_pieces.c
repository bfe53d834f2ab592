/* Digests of a checkpoint's arrays, of which each rank takes some pieces. */
#include "base/error.h"
#include "checkpoint_array.h"

#include <stdlib.h>
#include <string.h>

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t begun(int64_t elements, int64_t size)
{
    return (elements + size - 1) / size;
}

void dg_checkpoint_pieces(CheckpointPieces *p, const CheckpointArray *a,
                          int rank, int size)
{
    p->size = DG_PIECE_BYTES / (int64_t)dg_checkpoint_array_size(a);
    p->all = begun(a->num, p->size);
    if (!a->shared) {
        dg_share_range(p->all, rank, size, &p->first, &p->num);
        return;
    }
    /* those that begin in its range: each begins in one */
    p->first = begun(a->first, p->size);
    p->num = begun(a->first + a->held, p->size) - p->first;
}

PieceSum *dg_checkpoint_new_sums(const CheckpointPieces *p)
{
    PieceSum *sums = calloc((size_t)p->all + 1, sizeof *sums);

    if (sums == NULL)
        dg_fail(DG_ENOMEM, "SHA-256 of %lld pieces", (long long)p->all);
    return sums;
}

/* mine [2] to all [2 size] of them */
static int64_t *gather_pairs(const Comm *c, int64_t a, int64_t b)
{
    const int64_t mine[] = { a, b };
    int64_t *all = malloc((size_t)c->size * sizeof mine);
    const int err = dg_agree(
        c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "ranges of ranks"));

    if (err) {
        free(all);
        return NULL;
    }
    dg_comm_allgather(c, all, mine, sizeof mine);
    return all;
}

int dg_checkpoint_join(char hex[DG_SHA256_HEX], const Comm *c,
                       const CheckpointPieces *p, PieceSum *sums)
{
    int64_t *place = gather_pairs(c, p->first, p->num);
    int err = DG_OK;

    if (place == NULL)
        return dg_last_error()->code;
    for (int r = 0; r < c->size; r++)
        dg_comm_bcast(c, sums + place[2 * r],
                      (size_t)place[2 * r + 1] * sizeof *sums, r);
    free(place);
    if (c->rank == 0)
        err = dg_piece_join(hex, sums, p->all);
    return dg_agree(c, err);
}

/* writing ---------------------------------------------------------------- */

/* Sums of whole pieces, or the array's last, from element 'at' of what is held
 * here. */
static int sum_held(PieceSum *sums, const CheckpointArray *a, int64_t size,
                    int64_t at, int64_t num)
{
    const size_t element = dg_checkpoint_array_size(a);
    void *room;
    int err = DG_OK;

    if (num <= 0)
        return DG_OK;
    if (a->data != NULL)
        return dg_piece_sums(sums, (char *)a->data + element * (size_t)at,
                             element * (size_t)num);
    room = malloc(DG_PIECE_BYTES);
    if (room == NULL)
        return dg_fail(DG_ENOMEM, "%s", a->name);
    for (int64_t i = 0; i < num && !err; i += size) {
        const int64_t n = least(size, num - i);

        err = a->get(a->user, room, at + i, n);
        if (!err)
            err = dg_piece_sums(sums++, room, element * (size_t)n);
    }
    free(room);
    return err;
}

/* A piece that begins in a rank's range and goes on in others'. */
typedef struct Tail {
    const Comm *c;
    const CheckpointArray *a;
    const int64_t *range; /* [2 c->size] first and held of each rank */
    int64_t start, stop;  /* its elements */
    char *room;           /* for it */
} Tail;

/* Rank q's part of it to rank r, which may be q itself. What cannot be fetched
 * goes as it is: an error ends no round. */
static int pass_part(const Tail *t, int q, int r)
{
    const int64_t first =
        t->range[2 * q] > t->start ? t->range[2 * q] : t->start;
    const int64_t num =
        least(t->range[2 * q] + t->range[2 * q + 1], t->stop) - first;
    const size_t element = dg_checkpoint_array_size(t->a);
    char *to = t->room;
    int err = DG_OK;

    if (num <= 0)
        return DG_OK;
    if (t->c->rank == r)
        to += element * (size_t)(first - t->start);
    if (t->c->rank == q && t->a->data != NULL)
        memcpy(to, (char *)t->a->data + element * (size_t)(first - t->a->first),
               element * (size_t)num);
    else if (t->c->rank == q)
        err = t->a->get(t->a->user, to, first - t->a->first, num);
    dg_comm_pass(t->c, to, element * (size_t)num, q, r);
    return err;
}

/* The ranks whose last piece goes on beyond their range get what is missing,
 * one after the other. taken: 1 where it is this one's, of which *sum is then. */
static int sum_tails(PieceSum *sum, int *taken, const Comm *c,
                     const CheckpointArray *a, int64_t size,
                     const int64_t *range)
{
    char *room = malloc(DG_PIECE_BYTES);
    int err =
        dg_agree(c, room != NULL ? DG_OK : dg_fail(DG_ENOMEM, "%s", a->name));

    *taken = 0;
    for (int r = 0; r < c->size && !err; r++) {
        const int64_t end = range[2 * r] + range[2 * r + 1];
        Tail t = { c, a, range, (begun(end, size) - 1) * size, 0, room };

        t.stop = least(t.start + size, a->num);
        if (t.start < range[2 * r] || t.stop == end || range[2 * r + 1] == 0)
            continue; /* another's, or whole */
        for (int q = r; q < c->size; q++) {
            const int bad = pass_part(&t, q, r);

            err = err ? err : bad;
        }
        if (c->rank == r && !err)
            err = dg_sha256_raw(sum->byte, room,
                                dg_checkpoint_array_size(a) *
                                    (size_t)(t.stop - t.start));
        *taken |= c->rank == r;
        err = dg_agree(c, err);
    }
    free(room);
    return err;
}

static int sum_shared(PieceSum *sums, const Comm *c, const CheckpointArray *a,
                      const CheckpointPieces *p)
{
    int64_t *range = gather_pairs(c, a->first, a->held);
    int64_t at = p->first * p->size, num;
    int taken, err;

    if (range == NULL)
        return dg_last_error()->code;
    err = sum_tails(&sums[p->first + p->num - (p->num > 0)], &taken, c, a,
                    p->size, range);
    free(range);
    num = least(a->num, (p->first + p->num - taken) * p->size) - at;
    return err ? err
               : sum_held(sums + p->first, a, p->size, at - a->first, num);
}

int dg_checkpoint_digest_pieces(char *digest, const Comm *c,
                                const CheckpointArray *a)
{
    CheckpointPieces p;
    PieceSum *sums;
    int err;

    /* What one rank writes of an array that all have, the rank before it looks
     * at: a copy that differs is found when the file is read. */
    dg_checkpoint_pieces(&p, a, (c->rank + 1) % c->size, c->size);
    sums = dg_checkpoint_new_sums(&p);
    err = dg_agree(c, sums != NULL ? DG_OK : DG_ENOMEM);
    if (!err && a->shared)
        err = sum_shared(sums, c, a, &p);
    else if (!err)
        err = sum_held(sums + p.first, a, p.size, p.first * p.size,
                       least(a->num, (p.first + p.num) * p.size) -
                           p.first * p.size);
    err = dg_agree(c, err);
    if (!err)
        err = dg_checkpoint_join(digest, c, &p, sums);
    free(sums);
    return err;
}

/* reading ---------------------------------------------------------------- */

int dg_checkpoint_has_pieces(const H5File *f, const char *name)
{
    return dg_h5_has_key(f, name, DG_CHECKPOINT_PIECES);
}

int dg_checkpoint_match(H5File *f, const char *name, const void *data,
                        size_t bytes)
{
    const int pieces = dg_checkpoint_has_pieces(f, name);
    char hex[DG_SHA256_HEX];
    const int err = pieces ? dg_piece_digest(hex, data, bytes)
                           : dg_sha256_bytes(hex, data, bytes);

    return err ? err
               : dg_h5_match_digest(
                     f, name, 0, pieces ? DG_CHECKPOINT_PIECES : "sha256", hex);
}
