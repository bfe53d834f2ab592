#!/bin/bash
# One call of the program's fails, on one rank (tests/faulty.c): all ranks end
# together, with one message, and nothing is left half-written. Here those that
# were found to fail otherwise; others are drawn (random_faults.sh).
# shellcheck disable=SC2154
. "$(dirname "$0")/train_lib.sh"
faulty=$PWD/${DG_BUILD:-build}/tests/faulty.so
[ "${SAN:-0}" = 0 ] || {
    echo "ok - faults: the sanitizer has the allocator, left out"
    exit 0
}

# part FUNCTION: where it lies in the program, for FAULTY_IN
part() { nm -S "$bin" | sed -n "s/^\([0-9a-f]*\) \([0-9a-f]*\) [Tt] $1\$/\1+\2/p"; }

# fails FUNCTION FAULT COMMAND RUN [SET]...: of two ranks; its exit code in $rc
fails()
{
    local in=$1 fault=$2 kind=$3 run=$4
    shift 4
    FAULTY=$fault FAULTY_IN=$(part "$in") FAULTY_DIR=$work/$run FAULTY_TOLD=$work/told \
        LD_PRELOAD=$faulty timeout -k 5 60 mpirun --oversubscribe -n 2 "$bin" "$kind" \
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

# the others waited for it for ever
fails dg_comm_init memory:1:1 train comm
told "no memory for a communicator on one rank" comm "communicator: out of memory"
# the plan of passes that go back together, behind that of each by itself: it chose
# another way than the others
fails dg_step_plan memory:1:7 train plan
told "no memory for a plan on one rank" plan "out of memory (found by rank 1)"
# the others waited for it for ever
fails write_digests memory:0:1 encode encode --set prompts.cache="$work/cache.h5"
told "no memory for digests of conditions on one rank" encode "3[0-9]* digests: out of memory"
# they became NaN
fails dg_bootstrap memory:1:1 train bootstrap
told "no memory for the intervals of an evaluation" bootstrap \
    "evaluation: 1000 resamplings: out of memory"
# its .tmp stayed
fails dg_out_open disk:0:1 train config
told "a disk that fills while a file is made" config \
    ": cannot create: No space left on device"
# it went on without its lock, and another run could have come into the folder
fails dg_file_lock disk:0:1 train lock
told "log.txt that cannot be opened for a moment" lock \
    "log.txt: cannot be locked against other runs in the folder: No space left"
exit $bad
