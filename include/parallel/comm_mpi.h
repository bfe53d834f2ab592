#ifndef DG_PARALLEL_COMM_MPI_H
#define DG_PARALLEL_COMM_MPI_H
/*
 * MPI's handles, for parallel HDF5 alone (src/store/h5.c): it must be given
 * a communicator. Nothing else includes this.
 */
#include "parallel/comm.h"

#include <mpi.h>

/** The communicator of c. Not collective. */
MPI_Comm dg_comm_mpi(const Comm *c);

/** File hints of c. Not collective. */
MPI_Info dg_comm_info(const Comm *c);

#endif
