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
beside check_runs 1
beside check_runs 5
beside check_runs 8
beside check_spoils 1 2 3 10 11 14
for job in $(jobs -p); do wait "$job" || bad=1; done
exit $bad
