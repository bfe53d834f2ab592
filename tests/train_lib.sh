# Shared by the check scripts that train; source it in place of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=${DG_BUILD:-build}/tests/tools
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1
export OMP_WAIT_POLICY=passive

# tiny RANKS THREADS RUN [SET]...: the tiny configuration in $work/RUN, output
# in $work/RUN.out; one rank without mpirun
tiny()
{
    local n=$1 threads=$2 run=$3 set sets=()
    shift 3
    for set in "$@"; do sets+=(--set "$set"); done
    local command=("$bin" train configs/tiny.cfg --set run.dir="$work/$run"
        --set run.threads="$threads" "${sets[@]}")
    if [ "$n" = 1 ]; then
        "${command[@]}" >"$work/$run.out" 2>&1
    else
        ranks "$n" "${command[@]}" >"$work/$run.out" 2>&1
    fi
}

# digest RUN [ITERATION]: SHA-256 of the weights of a checkpoint
digest()
{
    "$bin" inspect --digest \
        "$work/$1/checkpoints/iter_$(printf %06d "${2:-3}").h5" | cut -c 1-64
}

# same_digest NAME RUN WANTED [ITERATION]
same_digest()
{
    local got
    got=$(digest "$2" "${4:-3}" 2>&1)
    expect "$1" test "${#3}" = 64 -a "$got" = "$3"
    [ "$got" = "$3" ] || { [ -e "$work/$2.out" ] && tail -n 5 "$work/$2.out"; }
}

# metric RUN KEY: its values, one a line, of every iteration
metric()
{
    sed -n 's/.*"'"$2"'":\([^,}]*\).*/\1/p' "$work/$1/metrics.jsonl"
}
