#!/bin/bash
# Gathers into one folder what tests/gpu/run.sh needs on a machine with a GPU,
# the CUDA runtime and little else: the program, the GPU's test programs, the
# libraries they were linked with, Open MPI with its plugins, configurations.
# The driver's libraries stay out, and CUDA's own unless BUNDLE_CUDA=1 asks for
# them; cuDNN, which is opened by name, always does. The folder is laid out as the
# source tree is.
# Usage: tests/gpu/bundle.sh FOLDER PROGRAM CLOSE [TEST]...
set -u
cd "$(dirname "$0")/../.." || exit 1
[ $# -ge 3 ] || { sed -n '2,9s/^# *//p' "$0" >&2; exit 2; }
to=$1 program=$2 close=$3
shift 3

die()
{
    echo "gpu-bundle: $*" >&2
    exit 1
}

outside='/lib(cuda|nvidia-[a-z-]*)\.so'
[ "${BUNDLE_CUDA:-0}" = 1 ] ||
    outside="$outside|/lib(cudart|cublas|cublasLt|nccl|cudnn[a-z_]*)\.so"
# what belongs to the C library goes apart: it may only be taken as a whole
libc='/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|anl))\.so'

# Plugins for networks and batch systems need libraries of their own, and one
# machine needs no network.
plugins()
{
    local f
    for f in "$1"/*.so; do
        ldd "$f" 2>/dev/null |
            grep -qE 'not found|fabric|psm|uc[pmst]\.|ibverbs|rdmacm|slurm|flux' ||
            echo "$f"
    done
}

# needs FILE...: absolute names of all libraries, theirs included
needs()
{
    ldd "$@" 2>/dev/null | sed -nE 's/^\s+(\S+ => )?(\/\S+) \(.*/\2/p' | sort -u
}

rm -rf "$to"
mkdir -p "$to"/{bin,gpu,lib/libc,mpi/plugins,tests/gpu,tests/tools,tests/golden} ||
    die "cannot make $to"
cp "$program" "$to/bin/dancegrpo" && cp "$close" "$to/tests/tools/close" ||
    die "no $program or $close"
[ $# = 0 ] || cp "$@" "$to/gpu/" || die "a test program is missing"
cp tests/lib.sh tests/train_lib.sh "$to/tests/" &&
    cp tests/gpu/{run,libraries}.sh "$to/tests/gpu/" || die "scripts are missing"
mkdir -p "$to/tests/peers" && cp tests/peers/torch_*.py "$to/tests/peers/" ||
    die "scripts are missing"
cp -R configs "$to/" && cp -R tests/golden/*_tiny{,.pth} tests/golden/bert_small "$to/tests/golden/" ||
    die "configurations are missing"
grep -aoh 'tests/golden/[[:alnum:]_./]*' "$to"/gpu/* 2>/dev/null | sort -u |
    while read -r file; do
        [ -e "$to/$file" ] || die "a test program reads $file"
    done || exit 1
rm -rf "$to/configs/weights" # nothing here begins from them

command -v ompi_info >/dev/null || die "no ompi_info: only Open MPI can be taken along"
mpi_path() { ompi_info --path "$1" --parsable | sed 's/.*://'; }
# shellcheck disable=SC2046
cp $(plugins "$(mpi_path pkglibdir)") "$to/mpi/plugins/" || die "no plugins of Open MPI"
mkdir -p "$to/mpi/share"
cp "$(mpi_path pkgdatadir)"/help-*.txt "$to/mpi/share/" 2>/dev/null
for tool in mpirun orted; do
    cp -L "$(command -v $tool)" "$to/bin/$tool" || die "no $tool"
done

# In place of a NCCL that is not there, so that the programs start: they call none
# of it with one GPU.
without_nccl()
{
    local names
    names=$(nm -D --undefined-only "$to"/bin/dancegrpo "$to"/gpu/* 2>/dev/null |
        sed -n 's/.* U \(nccl[A-Za-z0-9]*\).*/\1/p' | sort -u)
    [ -n "$names" ] || return 0
    mkdir -p "$to/lib/without"
    for name in $names; do
        case $name in
        *String | *LastError) echo "const char *$name(int e) { return e ? \"no NCCL\" : \"\"; }" ;;
        *) echo "int $name(void) { return 3; }" ;;
        esac
    done | gcc -shared -fPIC -x c -Wl,-soname,libnccl.so.2 \
        -o "$to/lib/without/libnccl.so.2" -
}

without_nccl || die "no place for NCCL"

needs "$to"/bin/* "$to"/gpu/* "$to/tests/tools/close" "$to"/mpi/plugins/*.so |
    grep -vE "$outside" |
    while read -r library; do
        if [[ $library =~ $libc ]]; then
            cp -L "$library" "$to/lib/libc/"
        else
            cp -L "$library" "$to/lib/"
        fi || exit 1
    done || die "a library cannot be copied"
[ -n "$(ls "$to/lib/libc")" ] || die "ldd tells nothing of $program"
