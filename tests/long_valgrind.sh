#!/bin/bash
# A short run under valgrind's memory checker: no invalid access, no value used
# before it is set, nothing definitely lost by this program. Built for a
# processor that valgrind knows (AVX2); the library is held to it as well.
. "$(dirname "$0")/train_lib.sh"

expect "valgrind: is there" command -v valgrind
[ $bad = 0 ] || exit 1
checked=${DG_BUILD:-build}/valgrind
expect "valgrind: build" make -s BUILD="$checked" CFLAGS="-O1 -g" ARCH=haswell \
    "$checked/dancegrpo" BINARY="$checked/dancegrpo"

# clean NAME WHERE command...: runs it, exit code and report of the checker
clean()
{
    local name=$1 log=$work/$2.valgrind rc
    shift 2
    DNNL_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=2 valgrind --error-exitcode=99 \
        --num-callers=40 --leak-check=full --show-leak-kinds=definite \
        --errors-for-leak-kinds=definite --suppressions=tests/valgrind.supp \
        --log-file="$log" "$@" >"$work/out" 2>&1
    rc=$?
    if [ $rc = 0 ]; then
        echo "ok - valgrind: $name"
    else
        echo "not ok - valgrind: $name, exit code $rc"
        tail -n 5 "$work/out" | sed 's/^/    /'
        grep -A 12 -m 5 -E 'Invalid|uninitialised|definitely lost in' "$log" |
            sed 's/^/    /'
        bad=1
    fi
}

run=("$checked/dancegrpo" train configs/tiny.cfg --set "run.dir=$work/run"
    --set run.threads=2 --set evaluate.num_prompts=2 --set report.prompts=2)
clean "training" train "${run[@]}" --set run.iterations=1
clean "a continued run" resume "${run[@]}" --set run.iterations=2
clean "replay" replay "$checked/dancegrpo" replay \
    "$work/run/trajectories/iter_000001.h5"
clean "printing a configuration" config "$checked/dancegrpo" config \
    configs/tiny.cfg
exit $bad
