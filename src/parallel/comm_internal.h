#ifndef DG_PARALLEL_COMM_INTERNAL_H
#define DG_PARALLEL_COMM_INTERNAL_H
/* MPI's handles behind a Comm: for the files of this folder alone. */
#include "parallel/comm.h"

#include <mpi.h>

struct CommImpl {
    MPI_Comm mpi;
    MPI_Comm node; /* the ranks of this node, in the same order */
};

#endif
