#!/bin/bash
# Configurations drawn at random, with mishaps, and input spoiled at random: seeds
# from the clock on for MINUTES (20). SEEDS=a-b, MISHAPS_OF=a-b, SPOILED=a-b repeat
# those of each. NODES=1: ranks are on three hosts (nodes_lib.sh).
if [ -n "${NODES:-}" ]; then
    . "$(dirname "$0")/nodes_lib.sh"
    hosts ada ben cyd
else
    . "$(dirname "$0")/cuda_lib.sh"
fi
. tests/random_draw.sh
. tests/random_runs.sh
. tests/random_spoils.sh
. tests/random_faults.sh
bin=$gpu WIDE=1
[ -z "${KEEP:-}" ] || { trap - EXIT && echo "# $work"; }

# each CHECK A-B: all seeds
each()
{
    local n
    for ((n = ${2%-*}; n <= ${2#*-}; n++)); do "$1" "$n"; done
}

[ -n "${MISHAPS_OF:-}" ] || expect "random: files to be spoiled" spoil_beds
[ -z "${SEEDS:-}" ] || each check_runs "$SEEDS"
[ -z "${SPOILED:-}" ] || each check_spoils "$SPOILED"
[ -z "${MISHAPS_OF:-}" ] || each check_faults "$MISHAPS_OF"
if [ -z "${SEEDS:-}${SPOILED:-}${MISHAPS_OF:-}" ]; then
    until=$((SECONDS + 60 * ${MINUTES:-20}))
    for ((n = $(date +%s); SECONDS < until; n++)); do
        check_runs "$n"
        each check_spoils $((10 * n))-$((10 * n + 5))
        check_faults "$n"
    done
fi
exit $bad
