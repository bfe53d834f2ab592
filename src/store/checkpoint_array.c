#include "checkpoint_array.h"

#include "base/error.h"
#include "base/sha256.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* elements that are looked at, or fetched, at once */
enum { PIECE = 1 << 18 };

static int64_t held(const CheckpointArray *a)
{
    return a->shared ? a->held : a->num;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

size_t dg_checkpoint_array_size(const CheckpointArray *a)
{
    return a->coded ? sizeof(uint8_t) : sizeof(float);
}

static size_t bytes_of(const CheckpointArray *a, int64_t num)
{
    return dg_checkpoint_array_size(a) * (size_t)num;
}

static H5Type type_of(const CheckpointArray *a)
{
    return a->coded ? DG_H5_U8 : DG_H5_F32;
}

/* element i of what is held, where it is the host's */
static void *element(const CheckpointArray *a, int64_t i)
{
    return (char *)a->data + bytes_of(a, i);
}

static void *new_room(const CheckpointArray *a, int *err)
{
    void *room = malloc(bytes_of(a, PIECE));

    *err = room != NULL ? DG_OK : dg_fail(DG_ENOMEM, "%s", a->name);
    return room;
}

/* Elements of what this rank holds: where they are, or fetched into room. */
static int look(const void **out, const CheckpointArray *a, void *room,
                int64_t at, int64_t num)
{
    *out = room;
    if (num > 0 && a->data == NULL)
        return a->get(a->user, room, at, num);
    if (num > 0)
        *out = element(a, at);
    return DG_OK;
}

/* writing ---------------------------------------------------------------- */

static int all_finite(const CheckpointArray *a, int64_t iteration,
                      const float *x, int64_t at, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        if (!isfinite(x[i]))
            return dg_fail(DG_ENUMERIC,
                           "checkpoint of iteration %lld: %s[%lld] is %g",
                           (long long)iteration, a->name,
                           (long long)(a->first + at + i), (double)x[i]);
    return DG_OK;
}

int dg_checkpoint_array_finite(const CheckpointArray *a, int64_t iteration)
{
    const void *x;
    void *room;
    int err;

    if (a->coded) /* all codes are */
        return DG_OK;
    room = new_room(a, &err);
    for (int64_t at = 0; at < held(a) && !err; at += PIECE) {
        const int64_t n = least(PIECE, held(a) - at);

        err = look(&x, a, room, at, n);
        if (!err)
            err = all_finite(a, iteration, x, at, n);
    }
    free(room);
    return err;
}

/* The digest of a shared array, on rank 0: every rank's range comes by in
 * its turn, piece after piece. An error on one rank ends no round. */
static int shared_digest(Sha256 *sum, const Comm *c, const CheckpointArray *a,
                         void *piece)
{
    int err = DG_OK;

    for (int r = 0; r < c->size; r++) {
        int64_t left = a->held;

        dg_comm_bcast(c, &left, sizeof left, r);
        for (int64_t at = 0; at < left; at += PIECE) {
            const int64_t n = least(PIECE, left - at);
            const size_t bytes = bytes_of(a, n);
            const void *x = piece;

            if (c->rank == r && !err)
                err = look(&x, a, piece, at, n);
            if (x != piece)
                memcpy(piece, x, bytes);
            dg_comm_pass(c, piece, bytes, r, 0);
            if (c->rank == 0)
                dg_sha256_update(sum, piece, bytes);
        }
    }
    return err;
}

/* of an array that each rank has, on rank 0 */
static int own_digest(Sha256 *sum, const CheckpointArray *a, void *room)
{
    const void *x;
    int err = DG_OK;

    for (int64_t at = 0; at < a->num && !err; at += PIECE) {
        const int64_t n = least(PIECE, a->num - at);

        err = look(&x, a, room, at, n);
        if (!err)
            dg_sha256_update(sum, x, bytes_of(a, n));
    }
    return err;
}

int dg_checkpoint_digest(char *digest, const Comm *c, const CheckpointArray *a)
{
    Sha256 sum = { NULL };
    int err;
    void *room = new_room(a, &err);

    if (!err && c->rank == 0)
        err = dg_sha256_init(&sum);
    err = dg_agree(c, err);
    if (!err && a->shared)
        err = shared_digest(&sum, c, a, room);
    else if (!err && c->rank == 0)
        err = own_digest(&sum, a, room);
    err = dg_agree(c, err);
    if (!err && c->rank == 0)
        dg_sha256_final(&sum, digest);
    dg_sha256_fini(&sum);
    free(room);
    return err;
}

/* rows of the whole array, for the file */
static int fetch(void *user, void *to, int64_t first, int64_t num)
{
    const CheckpointArray *a = user;

    return a->get(a->user, to, first - (a->shared ? a->first : 0), num);
}

int dg_checkpoint_array_write(H5File *f, const Comm *c,
                              const CheckpointArray *a)
{
    CheckpointArray self = *a;
    char name[DG_H5_NAME], digest[DG_SHA256_HEX] = "";
    const H5Item item = { .name = name,
                          .type = type_of(a),
                          .num_dims = 1,
                          .dims = { a->num },
                          .shared = a->shared,
                          .first = a->first,
                          .num = a->held,
                          .data = a->data,
                          .fetch = a->get != NULL ? fetch : NULL,
                          .user = &self,
                          .units = "1",
                          .long_name = a->long_name,
                          .axes = "element" };
    int err = dg_checkpoint_digest_pieces(digest, c, a);

    snprintf(name, sizeof name, "arrays/%s", a->name);
    if (!err)
        err = dg_h5_write(f, &item);
    return err ? err : dg_h5_put_text(f, name, DG_CHECKPOINT_PIECES, digest);
}

/* reading ---------------------------------------------------------------- */

static void array_path(char name[DG_H5_NAME], const CheckpointArray *a)
{
    snprintf(name, DG_H5_NAME, "arrays/%s", a->name);
}

/* Elements of the file from 'at' on, of which those that are held here go to
 * their place. */
static int keep(const CheckpointArray *a, int64_t at, int64_t num,
                const void *room)
{
    const int64_t first = a->shared ? a->first : 0;
    const int64_t from = at > first ? at : first;
    const int64_t end = least(at + num, first + held(a));
    int err = DG_OK;

    for (int64_t i = from; i < end && !err; i += PIECE) {
        const int64_t n = least(PIECE, end - i);
        const char *x = (const char *)room + bytes_of(a, i - at);

        if (a->data == NULL)
            err = a->put(a->user, x, i - first, n);
        else
            memcpy(element(a, i - first), x, bytes_of(a, n));
    }
    return err;
}

/* Elements first .. first + num - 1 of the file, in pieces: into the sum, which
 * may be NULL, and what is held here to its place. */
static int read_pieces(H5File *f, const CheckpointArray *a, int64_t first,
                       int64_t num, Sha256 *sum)
{
    char name[DG_H5_NAME];
    int err;
    void *room = new_room(a, &err);

    array_path(name, a);
    for (int64_t at = first; at < first + num && !err; at += PIECE) {
        const int64_t n = least(PIECE, first + num - at);

        err = dg_h5_read_rows(f, name, type_of(a), 1, &a->num, at, n, room);
        if (!err && sum != NULL)
            dg_sha256_update(sum, room, bytes_of(a, n));
        if (!err)
            err = keep(a, at, n, room);
    }
    free(room);
    return err;
}

/* What this rank holds of the file up to its element 'end'. */
static int read_held(H5File *f, const CheckpointArray *a, int64_t end)
{
    const int64_t first = a->shared ? a->first : 0;
    const int64_t num = least(end - first, held(a));
    char name[DG_H5_NAME];

    array_path(name, a);
    if (num <= 0)
        return DG_OK;
    return a->data != NULL ? dg_h5_read_rows(f, name, type_of(a), 1, &a->num,
                                             first, num, a->data)
                           : read_pieces(f, a, first, num, NULL);
}

/* The whole array in the file against its one digest, as those of version 1
 * have it. */
static int check_whole(H5File *f, const CheckpointArray *a)
{
    char name[DG_H5_NAME], digest[DG_SHA256_HEX];
    Sha256 sum = { NULL };
    int err = dg_sha256_init(&sum);

    if (!err)
        err = read_pieces(f, a, 0, a->num, &sum);
    if (!err)
        dg_sha256_final(&sum, digest);
    dg_sha256_fini(&sum);
    array_path(name, a);
    return err ? err : dg_h5_match_digest(f, name, 0, "sha256", digest);
}

/* This rank's pieces: their sums, and what it holds of them to its place. */
static int read_share(H5File *f, const CheckpointArray *a,
                      const CheckpointPieces *p, PieceSum *sums)
{
    const int64_t most = least(omp_get_max_threads(), p->num); /* one each */
    char name[DG_H5_NAME];
    char *room = malloc((size_t)(most > 0 ? most : 1) * DG_PIECE_BYTES);
    int err = room != NULL ? DG_OK : dg_fail(DG_ENOMEM, "%s", a->name);

    array_path(name, a);
    for (int64_t i = 0; i < p->num && !err; i += most) {
        const int64_t at = (p->first + i) * p->size;
        const int64_t n = least(least(most, p->num - i) * p->size, a->num - at);

        err = dg_h5_read_rows(f, name, type_of(a), 1, &a->num, at, n, room);
        if (!err)
            err = dg_piece_sums(sums + p->first + i, room, bytes_of(a, n));
        if (!err)
            err = keep(a, at, n, room);
    }
    free(room);
    return err;
}

/* Each rank reads its pieces, and of a shared array what else it holds. */
static int check_pieces(H5File *f, const Comm *c, const CheckpointArray *a)
{
    char name[DG_H5_NAME], digest[DG_SHA256_HEX];
    CheckpointPieces p;
    PieceSum *sums;
    int err;

    dg_checkpoint_pieces(&p, a, c->rank, c->size);
    sums = dg_checkpoint_new_sums(&p);
    err = sums != NULL ? read_share(f, a, &p, sums) : DG_ENOMEM;
    if (!err && a->shared) /* of a piece that another has read */
        err = read_held(f, a, p.first * p.size);
    err = dg_agree(c, err);
    if (!err)
        err = dg_checkpoint_join(digest, c, &p, sums);
    array_path(name, a);
    if (!err && c->rank == 0)
        err = dg_h5_match_digest(f, name, 0, DG_CHECKPOINT_PIECES, digest);
    free(sums);
    return dg_agree(c, err);
}

/* Elements first .. first + num - 1 that root has, to all. */
static int hand_out(const Comm *c, const CheckpointArray *a, int root,
                    int64_t first, int64_t num)
{
    void *room;
    int err = DG_OK;

    if (a->data != NULL) {
        dg_comm_bcast(c, element(a, first), bytes_of(a, num), root);
        return DG_OK;
    }
    room = new_room(a, &err);
    err = dg_agree(c, err);
    for (int64_t at = first; at < first + num && !err; at += PIECE) {
        const int64_t n = least(PIECE, first + num - at);

        if (c->rank == root)
            err = a->get(a->user, room, at, n);
        err = dg_agree(c, err);
        if (err)
            break;
        dg_comm_bcast(c, room, bytes_of(a, n), root);
        if (c->rank != root)
            err = a->put(a->user, room, at, n);
        err = dg_agree(c, err);
    }
    free(room);
    return err;
}

/* What every rank is to have whole, of which rank 0 has read all, or each its
 * pieces. */
static int share_out(const Comm *c, const CheckpointArray *a, int in_pieces)
{
    int err = DG_OK;

    if (c->size == 1)
        return DG_OK;
    if (!in_pieces)
        return hand_out(c, a, 0, 0, a->num);
    for (int r = 0; r < c->size && !err; r++) {
        CheckpointPieces p;

        dg_checkpoint_pieces(&p, a, r, c->size);
        err = hand_out(c, a, r, least(a->num, p.first * p.size),
                       least(a->num, (p.first + p.num) * p.size) -
                           least(a->num, p.first * p.size));
    }
    return err;
}

int dg_checkpoint_array_read(H5File *f, const Comm *c, const CheckpointArray *a)
{
    char name[DG_H5_NAME];
    int in_pieces, err = DG_OK;

    array_path(name, a);
    in_pieces = dg_checkpoint_has_pieces(f, name);
    dg_comm_bcast(c, &in_pieces, sizeof in_pieces, 0);
    if (in_pieces)
        err = check_pieces(f, c, a);
    else
        err = dg_agree(c, c->rank == 0 ? check_whole(f, a) : DG_OK);
    if (!err && !in_pieces && a->shared)
        err = dg_agree(c, c->rank != 0 ? read_held(f, a, a->num) : DG_OK);
    return err || a->shared ? err : share_out(c, a, in_pieces);
}
