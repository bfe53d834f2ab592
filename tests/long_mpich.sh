#!/bin/bash
# Another MPI: the program built with MPICH, whose descendants many clusters have,
# and the HDF5 that goes with it. The same weights as by Open MPI on any number
# of ranks at any level, signals, and the tests of what ranks do together. Only
# where Debian's MPICH is there (mpich, libmpich-dev, libhdf5-mpich-dev).
# shellcheck disable=SC2154
# shellcheck source=tests/train_lib.sh
. "$(dirname "$0")/train_lib.sh"

for need in mpiexec.hydra mpicc.mpich; do
    if ! command -v "$need" >/dev/null; then
        echo "ok - mpich: not where there is no $need"
        exit 0
    fi
done
if ! pkg-config --exists hdf5-mpich; then
    echo "ok - mpich: not where there is no HDF5 for it"
    exit 0
fi

# its hooks would be in the way of those by which tests make calls fail
export UCX_MEM_MMAP_HOOK_MODE=none UCX_WARN_UNUSED_ENV_VARS=n
built=$PWD/${DG_BUILD:-build}/mpich
names=(comm exact_sum team_sum shard update checkpoint pool trajectory)
programs=()
for name in "${names[@]}"; do programs+=("$built/tests/test_mpi_$name"); done
expect "mpich: builds" make -j2 NVCC=/none CUDA=0 BUILD="$built" \
    BINARY="$built/bin/dancegrpo" MPI_PC=mpich HDF5_PC=hdf5-mpich all \
    "${programs[@]}"
expect "mpich: without a warning" bash -c "! grep -i 'warning:' '$work/expect.out'"
expect "mpich: is what it is built with" bash -c \
    "ldd '$built/bin/dancegrpo' | grep -q libmpich && ! ldd '$built/bin/dancegrpo' | grep -q openmpi"

tiny 2 1 open
want=$(digest open)
expect "mpich: weights of Open MPI" test "${#want}" = 64

# by_mpich RANKS RUN [SET]...
by_mpich()
{
    local n=$1 run=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    mpiexec.hydra --bind-to none -n "$n" "$built/bin/dancegrpo" train \
        configs/tiny.cfg --set run.dir="$work/$run" --set run.threads=1 \
        "${sets[@]}" >"$work/$run.out" 2>&1
}

for n in 1 2 3; do
    for level in none optimizer gradients parameters; do
        by_mpich "$n" "$level$n" parallel.shard=$level
        same_digest "mpich: $level on $n ranks, Open MPI's weights" "$level$n" \
            "$want"
        no_warning "mpich: $level on $n ranks, nothing to warn of" \
            "$work/$level$n.out"
    done
    for name in "${names[@]}"; do
        expect "mpich: test_mpi_$name on $n ranks" mpiexec.hydra -n "$n" \
            "$built/tests/test_mpi_$name"
    done
done

# a run by the one goes on by the other
tiny 2 1 moved run.iterations=1
by_mpich 3 moved
same_digest "mpich: goes on with Open MPI's run" moved "$want"

# the launcher passes USR1 on to all; that of 4.0.2 then ends with 0 as often as
# with the ranks' 75
by_mpich 2 told run.iterations=5000 &
job=$!
for _ in $(seq 600); do
    grep -qs '^it *2/' "$work/told.out" && break
    sleep 0.1
done
kill -s USR1 "$(pgrep -f "mpiexec.hydra .*run.dir=$work/told ")"
expect "mpich: USR1, the run ends" ends 60
expect "mpich: USR1, which says that it goes on" grep -q "^stopped early" \
    "$work/told.out"

expect_code "mpich: doctor finds nothing wrong" 0 ", 0 failed" mpiexec.hydra -n 2 \
    "$built/bin/dancegrpo" doctor configs/tiny.cfg --set run.dir="$work/doctor"
expect_code "mpich: bad input on two ranks, one message" 1 \
    "must be an integer in [2, 4096]" mpiexec.hydra -n 2 "$built/bin/dancegrpo" \
    train configs/tiny.cfg --set grpo.num_generations=1 --set run.dir="$work/bad"
expect "mpich: once" test "$(grep -c '^ERROR' "$work/out")" = 1
exit $bad
