#!/bin/bash
# A few configurations drawn at random, and a few inputs spoiled at random; more
# of both in long_random.sh.
. "$(dirname "$0")/cuda_lib.sh"
. tests/random_draw.sh
. tests/random_runs.sh
. tests/random_spoils.sh
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
for seed in 1 5 8; do beside check_runs $seed; done
DEVICE=cuda
beside check_runs 7
beside check_spoils {1..8}
for job in $(jobs -p); do wait "$job" || bad=1; done
exit $bad
