#!/bin/bash
# A rank that stands still: with parallel.host_timeout_seconds the others name
# it, and the job ends; one that is only slow is waited for.
# shellcheck disable=SC2154
# shellcheck source=tests/train_lib.sh
. "$(dirname "$0")/train_lib.sh"

sets="sampler.steps=4 grpo.num_generations=2 grpo.micro_batch=2 report.prompts=1
    trajectory.every=0"

# started RUN SECONDS [SET]...: three ranks in the background; $job is mpirun
started()
{
    local run=$1 patience=$2
    shift 2
    # shellcheck disable=SC2086
    tiny 3 1 "$run" $sets parallel.host_timeout_seconds="$patience" "$@" &
    job=$!
}

# process RANK RUN: of the rank of this run that is at work
process()
{
    local p
    for p in $(pgrep -f "run.dir=$work/$2" || true); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null |
            grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$p" && return
    done
}

# iterates RUN: waits until an iteration has been written, or $job has ended
iterates() { pid=$job until_or_end test -s "$work/$1/metrics.jsonl"; }

# ended SECONDS: the job's code in $code; not if it goes on
ended()
{
    ends "$1" && return
    kill -CONT $victim
    kill "$job"
    wait "$job"
    return 1
}

# says PATTERN: a line of $work/still.out; else what it has
says() { grep -E "$1" "$work/still.out" || ! cat "$work/still.out"; }

# --- a rank that stands still ------------------------------------------------------
started still 2 run.iterations=500
expect "watch: a run of three" iterates still
victim=$(process 1 still)
kill -STOP "$victim"
expect "watch: a rank stands still, the job ends" ended 60
expect "watch: it has failed" test "${code:-0}" != 0
expect "watch: one line" test "$(grep -c 'panic' "$work/still.out")" = 1
expect "watch: which says who waits in what, and for whom" says \
    "^dancegrpo: panic: rank [02] of 3 waits for the other ranks since [2-9] s in (an agreement on errors|a broadcast|a sum or extremum|a barrier|a gathering)( of files that are written beside)? \(parallel.host_timeout_seconds\); not there: rank 1 \(process $victim, stopped, (last )?in .*\)$"
expect "watch: no rank is left" test -z "$(pgrep -f "run.dir=$work/still")"

# --- a rank that is busy with something else, in each kind of wait ------------------
# absent WAIT TEXT
absent()
{
    expect_code "watch: a rank stays away from $2" 1 "waits for the other ranks \
since 1 s in $2 (parallel.host_timeout_seconds); not there: rank 2 (process" \
        ranks 3 timeout 50 "$tools/absent" "$1" 1
    expect "watch: $2, where it was last" grep -q ", last in a broadcast)$" \
        "$work/out"
}
absent agree "an agreement on errors"
absent barrier "a barrier"
absent idle "a barrier"
absent bcast "a broadcast"
absent node "a broadcast on a node"
absent gather "a gathering"
absent sum "a sum or extremum"
absent pass "a message"
absent beside "an agreement on errors beside"
# as when the first rank's disk does not answer, while it writes the report
absent end "a barrier"

# --- ranks that lose their patience within milliseconds ------------------------------
for wait in agree sum gather; do
    expect_code "watch: four wait for one, $wait" 1 "; not there: rank 4 (" \
        ranks 5 timeout 50 "$tools/absent" $wait 0.05
    expect "watch: four wait for one, $wait, one line" test \
        "$(grep -c panic "$work/out")" = 1
done

# --- ranks that are busy, or late several times, but never for so long ----------------
expect_code "watch: a busy job, and a rank that is late" 0 "all were there" \
    ranks 3 timeout 50 "$tools/absent" late 3

# --- a rank that is slow -------------------------------------------------------------
started slow 20 run.iterations=6
expect "watch: another run" iterates slow
victim=$(process 2 slow)
kill -STOP "$victim"
sleep 2
kill -CONT "$victim"
expect "watch: a slow rank is waited for" ended 100
expect "watch: to the end" test "${code:-1}" = 0

# --- a job that is suspended as a whole ----------------------------------------------
started all 4 run.iterations=6
expect "watch: a run to suspend" iterates all
victim=$(process 1 all)
others="$(process 0 all) $(process 2 all)"
# shellcheck disable=SC2086
{
    kill -STOP "$victim" # the others wait
    sleep 1
    kill -STOP $others
    sleep 8
    kill -CONT $others
    sleep 1
    kill -CONT "$victim"
}
expect "watch: a suspended job goes on" ended 100
expect "watch: to its end" test "${code:-1}" = 0

# shellcheck disable=SC2086
tiny 1 1 plain $sets run.iterations=6
same_digest "watch: the same weights" slow "$(digest plain 6)" 6
exit $bad
