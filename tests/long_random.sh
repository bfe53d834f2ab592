#!/bin/bash
# Configurations drawn at random, input spoiled at random, and runs in which a call
# fails at random: seeds from the clock on for MINUTES (20). SEEDS=a-b, SPOILED=a-b,
# FAULTS=a-b repeat those of each; TELL=1 says how each fault ended.
. "$(dirname "$0")/cuda_lib.sh"
. tests/random_draw.sh
. tests/random_runs.sh
. tests/random_spoils.sh
. tests/random_faults.sh
LONG=1
bin=$gpu
[ -z "${KEEP:-}" ] || { trap - EXIT && echo "# $work"; }

# each CHECK A-B: all seeds
each()
{
    local n
    for ((n = ${2%-*}; n <= ${2#*-}; n++)); do "$1" "$n"; done
}

expect "random: files to be spoiled" spoil_beds
[ -z "${SEEDS:-}" ] || each check_runs "$SEEDS"
[ -z "${SPOILED:-}" ] || each check_spoils "$SPOILED"
[ -z "${FAULTS:-}" ] || each check_faults "$FAULTS"
if [ -z "${SEEDS:-}${SPOILED:-}${FAULTS:-}" ]; then
    until=$((SECONDS + 60 * ${MINUTES:-20}))
    for ((n = $(date +%s); SECONDS < until; n++)); do
        check_runs "$n"
        each check_spoils $((10 * n))-$((10 * n + 5))
        check_faults "$n"
    done
fi
exit $bad
