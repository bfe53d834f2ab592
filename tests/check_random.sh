#!/bin/bash
# A few configurations drawn at random, a few mishaps and inputs spoiled at random;
# more of all in long_random.sh.
. "$(dirname "$0")/cuda_lib.sh"
. tests/random_draw.sh
. tests/random_runs.sh
. tests/random_spoils.sh
. tests/random_faults.sh
bin=$gpu all=$work

# beside CHECK SEED...: in the background, in a folder of its own; most of a
# run's time is the start and the end of MPI
beside()
{
    local check=$1
    shift
    (
        work=$all/$check$1 bad=0
        mkdir "$work"
        for n in "$@"; do $check "$n"; done
        exit $bad
    ) &
}

expect "random: files to be spoiled" spoil_beds
DEVICE=cpu
for seed in 1 5; do beside check_runs $seed; done
# a sanitizer has the calls that fail
[ "${SAN:-0}" != 0 ] || MISHAPS=2 beside check_faults 20032
DEVICE=cuda
beside check_runs 11
beside check_spoils {1..8}
for job in $(jobs -p); do wait "$job" || bad=1; done
exit $bad
