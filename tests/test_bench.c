/* The bench's counts agree with the ops' own. Times are never tested. */
#include "mpi_test.h"

#include "cpu/cpu.h"
#include "cpu/sgemm_rate.h"
#include "tensor/ops.h"
#include "tensor/tape.h"
#include "train/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
