# Shared by tests/check_*.sh: source it, then use expect, expect_code, ranks.
# Every check prints one line, "ok - name" or "not ok - name".
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
bin=${DG_BIN:-bin/dancegrpo}
case $bin in
/*) ;;
*) bin=$PWD/$bin ;;
esac
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1}
export HWLOC_COMPONENTS=${HWLOC_COMPONENTS:--pci}
work=$(mktemp -d "${TMPDIR:-/tmp}/dancegrpo.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
bad=0

# expect NAME command...: ok when the command succeeds; output on failure
expect()
{
    local name=$1
    shift
    if "$@" >"$work/expect.out" 2>&1; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        tail -n 20 "$work/expect.out" | sed 's/^/    /'
        bad=1
    fi
}

# expect_code NAME CODE TEXT command...: exit code and a part of its output;
# the output stays in $work/out
expect_code()
{
    local name=$1 code=$2 text=$3 rc
    shift 3
    "$@" >"$work/out" 2>&1
    rc=$?
    if [ $rc -eq "$code" ] && grep -qF -- "$text" "$work/out"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        echo "    exit code $rc, wanted $code and '$text' in:"
        head -n 20 "$work/out" | sed 's/^/    /'
        bad=1
    fi
}

# same NAME TEXT TEXT: equal, and there
same() { expect "$1" test -n "$2" -a "$2" = "$3"; }

# same_lines NAME FILE FILE, differ NAME FILE FILE: of files that are there
same_lines() { expect "$1" bash -c '[ -s "$1" ] && diff "$1" "$2"' - "$2" "$3"; }
differ()
{
    expect "$1" bash -c '[ -s "$1" ] && [ -s "$2" ] && ! cmp -s "$1" "$2"' - \
        "$2" "$3"
}

# no_warning NAME FILE: an output, without a warning
no_warning()
{
    expect "$1" bash -c '[ -s "$1" ] && ! grep "^WARN" "$1"' - "$2"
}

# ranks N command...: under mpirun, more ranks than cores allowed
ranks()
{
    local n=$1
    shift
    mpirun --oversubscribe -n "$n" "$@"
}

# ends SECONDS: the job of process $job ends in that time; its code in $code
ends()
{
    local i
    for i in $(seq $(($1 * 10))); do
        if ! kill -0 "$job" 2>/dev/null; then
            wait "$job"
            code=$?
            return 0
        fi
        sleep 0.1
    done
    return 1
}
