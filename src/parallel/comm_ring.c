#include "comm_internal.h"

enum { PIECE = 1 << 30, RING_TAG = 2 };

static int piece(size_t left)
{
    return left < (size_t)PIECE ? (int)left : PIECE;
}

void dg_comm_ring(const Comm *c, const void *to_next, size_t to,
                  void *from_before, size_t from)
{
    const int next = (c->rank + 1) % c->size;
    const int before = (c->rank + c->size - 1) % c->size;
    const char *out = to_next;
    char *in = from_before;

    dg_comm_enter(c, "a ring", 1);
    while (to > 0 || from > 0) {
        const int n = piece(to), m = piece(from);

        MPI_Sendrecv(out, n, MPI_BYTE, n > 0 ? next : MPI_PROC_NULL, RING_TAG,
                     in, m, MPI_BYTE, m > 0 ? before : MPI_PROC_NULL, RING_TAG,
                     c->impl->mpi, MPI_STATUS_IGNORE);
        out += n;
        in += m;
        to -= (size_t)n;
        from -= (size_t)m;
    }
    dg_comm_leave(c);
}
