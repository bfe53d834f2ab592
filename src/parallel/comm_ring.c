#include "comm_internal.h"

enum { PIECE = 1 << 30, RING_TAG = 2 };

void dg_comm_ring(const Comm *c, const void *to_next, void *from_before,
                  size_t bytes)
{
    const int next = (c->rank + 1) % c->size;
    const int before = (c->rank + c->size - 1) % c->size;
    const char *from = to_next;
    char *to = from_before;

    dg_comm_enter(c, "a ring", 1);
    while (bytes > 0) {
        const int n = bytes < (size_t)PIECE ? (int)bytes : PIECE;

        MPI_Sendrecv(from, n, MPI_BYTE, next, RING_TAG, to, n, MPI_BYTE, before,
                     RING_TAG, c->impl->mpi, MPI_STATUS_IGNORE);
        from += n;
        to += n;
        bytes -= (size_t)n;
    }
    dg_comm_leave(c);
}
