#include "checkpoint_array.h"

#include "base/error.h"
#include "base/sha256.h"

#include <math.h>
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
    int err = dg_checkpoint_digest(digest, c, a);

    snprintf(name, sizeof name, "arrays/%s", a->name);
    if (!err)
        err = dg_h5_write(f, &item);
    return err ? err : dg_h5_put_text(f, name, "sha256", digest);
}

/* reading ---------------------------------------------------------------- */

static void array_path(char name[DG_H5_NAME], const CheckpointArray *a)
{
    snprintf(name, DG_H5_NAME, "arrays/%s", a->name);
}

/* Elements first .. first + num - 1 of the file, of which the first is element
 * 'to' of what is held; to < 0: digested only. sum may be NULL. */
static int read_pieces(H5File *f, const CheckpointArray *a, int64_t first,
                       int64_t num, int64_t to, Sha256 *sum)
{
    char name[DG_H5_NAME];
    int err;
    void *room = new_room(a, &err);

    array_path(name, a);
    for (int64_t at = 0; at < num && !err; at += PIECE) {
        const int64_t n = least(PIECE, num - at);

        err = dg_h5_read_rows(f, name, type_of(a), 1, &a->num, first + at, n,
                              room);
        if (!err && sum != NULL)
            dg_sha256_update(sum, room, bytes_of(a, n));
        if (err || to < 0)
            continue;
        if (a->data == NULL)
            err = a->put(a->user, room, to + at, n);
        else
            memcpy(element(a, to + at), room, bytes_of(a, n));
    }
    free(room);
    return err;
}

int dg_checkpoint_array_read_held(H5File *f, const CheckpointArray *a)
{
    char name[DG_H5_NAME];
    const int64_t first = a->shared ? a->first : 0;

    array_path(name, a);
    if (held(a) == 0)
        return DG_OK;
    return a->data != NULL ? dg_h5_read_rows(f, name, type_of(a), 1, &a->num,
                                             first, held(a), a->data)
                           : read_pieces(f, a, first, held(a), 0, NULL);
}

/* The digest of the whole array in the file. What is read on the way is kept
 * where all of it is this rank's. */
static int read_digest(char digest[DG_SHA256_HEX], H5File *f,
                       const CheckpointArray *a)
{
    Sha256 sum = { NULL };
    int err = dg_sha256_init(&sum);

    if (!err)
        err = read_pieces(f, a, 0, a->num, a->shared ? -1 : 0, &sum);
    if (!err)
        dg_sha256_final(&sum, digest);
    dg_sha256_fini(&sum);
    return err;
}

int dg_checkpoint_array_read(H5File *f, const CheckpointArray *a)
{
    char name[DG_H5_NAME], digest[DG_SHA256_HEX], *stored = NULL;
    int err = read_digest(digest, f, a);

    if (!err && a->shared)
        err = dg_checkpoint_array_read_held(f, a);
    array_path(name, a);
    if (!err)
        err = dg_h5_get_text(f, name, "sha256", &stored);
    if (!err && strcmp(digest, stored) != 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: dataset %s: SHA-256 is %.16s..., stored is "
                      "%.16s...: the file is damaged",
                      dg_h5_path(f), name, digest, stored);
    free(stored);
    return err;
}

int dg_checkpoint_array_hand_out(const Comm *c, const CheckpointArray *a)
{
    int err = DG_OK;
    void *room = NULL;

    if (a->data != NULL) {
        dg_comm_bcast(c, a->data, bytes_of(a, a->num), 0);
        return DG_OK;
    }
    room = new_room(a, &err);
    err = dg_agree(c, err);
    for (int64_t at = 0; at < a->num && room != NULL && !err; at += PIECE) {
        const int64_t n = least(PIECE, a->num - at);

        if (c->rank == 0)
            err = a->get(a->user, room, at, n);
        err = dg_agree(c, err);
        if (err)
            break;
        dg_comm_bcast(c, room, bytes_of(a, n), 0);
        if (c->rank != 0)
            err = a->put(a->user, room, at, n);
        err = dg_agree(c, err);
    }
    free(room);
    return err;
}
