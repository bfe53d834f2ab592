#!/bin/bash
# Runs lint, every test program and every check script, and ends with one
# line "N passed, N failed". Usage: tests/run.sh BUILD
# NP    rank counts of tests/test_mpi_*.c ("1 2 3")
# LONG  1: tests/long_*.sh too, and the check scripts may take long
# ONLY  pattern: only tests whose name matches
# JOBS  so many tests at a time (half more than there are processors: a third of
#       their time they wait, for MPI's start and end, disks, time-outs)
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
export DG_BIN=${DG_BIN:-bin/dancegrpo}
export NP=${NP:-1 2 3} LONG=${LONG:-0} DG_BUILD=$build
logs=$build/logs
jobs=${JOBS:-$((($(nproc) * 3 + 1) / 2))}

# ranks: more of them than cores, also for root, without binding or ssh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_base_warn_component_unused=0
# a start asks for no network that is not here
export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1}
# nor reads what is on its PCI buses
export HWLOC_COMPONENTS=${HWLOC_COMPONENTS:--pci}
# threads that wait sleep, since ranks share cores here
export OMP_WAIT_POLICY=passive
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
# MPI and libraries below keep memory until the end of the process
export LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0"
# libraries without frame pointers are unwound slowly, but to the name
export ASAN_OPTIONS="fast_unwind_on_malloc=0"
export UBSAN_OPTIONS="print_stacktrace=1"
# what libraries do among themselves is theirs
export TSAN_OPTIONS="ignore_noninstrumented_modules=1:history_size=4"

rm -rf "$logs"
mkdir -p "$logs"

# name, seconds it may take, command...: one test, its output kept in a log
run()
{
    local name=$1 limit=$2 log told report passed failed rc began=$SECONDS
    local TIMEFORMAT='%U %S' took
    shift 2
    log=$logs/${name//[ \/]/_}.log
    [ "${SAN:-0}" = 0 ] || limit=$((4 * limit)) # they are slow
    # a sanitizer's report ends up in no output that a script keeps to itself
    told=log_path=$PWD/${log%.log}.report
    took=${log%.log}.processor
    {
        time ASAN_OPTIONS=$ASAN_OPTIONS:$told LSAN_OPTIONS=$LSAN_OPTIONS:$told \
            UBSAN_OPTIONS=$UBSAN_OPTIONS:$told TSAN_OPTIONS=$TSAN_OPTIONS:$told \
            timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
    } 2>"$took"
    rc=$?
    passed=$(grep -cE '^(\[       OK \] |ok - )' "$log")
    failed=$(grep -cE '^(\[  FAILED  \] test_.*|not ok - .*)$' "$log")
    # cmocka names a failed test once where it fails and once at the end
    if grep -q '^\[==========\]' "$log"; then
        failed=$(grep -E '^\[  FAILED  \] test_' "$log" | sort -u | wc -l)
    fi
    for report in "${log%.log}".report.*; do
        [ -e "$report" ] || continue
        failed=$((failed + 1))
        head -n 40 "$report" >>"$log"
    done
    if [ $rc -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
        echo "$name: ended with exit code $rc" >>"$log"
    fi
    if [ $rc -eq 0 ] && [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
        echo "$name: no test reported anything" >>"$log"
    fi
    echo "$passed $failed" >>"$logs/counts"
    # in one piece, since others report too
    printf '%-36s %4d passed %3d failed %5d s %5d s of processors\n%s' "$name" \
        "$passed" "$failed" $((SECONDS - began)) \
        "$(awk 'END { printf "%d", $1 + $2 + 0.5 }' "$took")" \
        "$([ "$failed" -eq 0 ] || { tail -n 40 "$log" | sed 's/^/    /'; echo .; })" |
        sed '$s/^\.$//'
}

# the same test on several numbers of ranks, one after the other
run_ranks()
{
    local name=$1 n
    for n in $NP; do
        run "$name ranks $n" 600 mpirun -n "$n" "$build/tests/$name"
    done
}

# a test of this name, by the rest of the line, when a job has ended
start()
{
    local name=$1
    shift
    [[ $name == ${ONLY:-*} ]] || return 0
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n
    done
    "$@" &
}

# the long ones first, so that no core is idle at the end
: >"$logs/counts"
began=$SECONDS
[ "${SAN:-0}" != 0 ] || start lint run lint 300 tests/lint.sh
scripts="tests/check_*.sh"
[ "$LONG" = 1 ] && scripts="$scripts tests/long_*.sh"
for script in $scripts; do
    limit=1200
    [ "$LONG" = 1 ] && limit=14400
    name=$(basename "$script" .sh)
    start "$name" run "$name" $limit bash "$script"
done
for source in tests/test_*.c; do
    name=$(basename "$source" .c)
    # it replaces the allocator, which sanitizers do too
    [ "$name" = test_allocation ] && [ "${SAN:-0}" != 0 ] && continue
    case $name in
    test_mpi_*) start "$name" run_ranks "$name" ;;
    *) start "$name" run "$name" 600 "$build/tests/$name" ;;
    esac
done
wait

echo "all tests in $((SECONDS - began)) s"
awk '{ passed += $1; failed += $2 }
END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 }' \
    "$logs/counts"
