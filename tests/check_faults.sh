#!/bin/bash
# One call of the program's fails, on one rank (tests/faulty.c): all ranks end
# together, with one message, and nothing is left half-written. Here those that
# were found to fail otherwise; others are drawn (random_faults.sh).
# shellcheck disable=SC2154
. "$(dirname "$0")/train_lib.sh"
faulty=$PWD/${DG_BUILD:-build}/tests/faulty.so
# the sanitizer's library is not the first then
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

# part FUNCTION: where it lies in the program, for FAULTY_IN
part() { nm -S "$bin" | sed -n "s/^\([0-9a-f]*\) \([0-9a-f]*\) [Tt] $1\$/\1+\2/p"; }

# fails FUNCTION FAULT RANKS RUN [SET]...: its exit code in $rc
fails()
{
    local in=$1 fault=$2 n=$3 run=$4
    shift 4
    FAULTY=$fault FAULTY_IN=$(part "$in") FAULTY_DIR=$work/$run FAULTY_TOLD=$work/told \
        LD_PRELOAD=$faulty timeout -k 5 60 mpirun --oversubscribe -n "$n" "$bin" train \
        configs/tiny.cfg --set run.dir="$work/$run" --set run.threads=1 \
        --set run.iterations=1 "$@" >"$work/$run.out" 2>&1
    rc=$?
}

# told NAME RUN TEXT: one message with the text, and the end
told()
{
    expect "faults: $1, it was met" test -s "$work/told"
    expect "faults: $1, all end" test $rc = 1
    expect "faults: $1, one message" test "$(grep -c '^ERROR' "$work/$2.out")" = 1
    expect "faults: $1, what is wrong" grep -q "^ERROR.*$3" "$work/$2.out"
    expect "faults: $1, nothing half-written" test -z "$(
        find "$work/$2" -name '*.tmp*' 2>/dev/null)"
    rm -f "$work/told"
}

# a rank without memory for what it needs of MPI
fails dg_comm_init memory:1:1 2 comm
told "no memory for a communicator on one rank" comm "communicator: out of memory"
# the plan of passes that go back together: that of each by itself asks first, twice
# three times
fails dg_step_plan memory:1:7 2 plan
told "no memory for a plan on one rank" plan "out of memory (found by rank 1)"
fails dg_bootstrap memory:1:1 2 bootstrap
told "no memory for the intervals of an evaluation" bootstrap \
    "evaluation: 1000 resamplings: out of memory"
fails dg_out_open disk:0:1 1 config
told "a disk that fills while a file is made" config \
    ": cannot create: No space left on device"
exit $bad
