#!/bin/bash
# Looks for every library and tool; installs what is missing with apt-get, or
# says what to install. Usage: ./deps.sh [build|check]
# build: what `make` and `make demo` need; check: what the tests need besides.
set -u
goal=${1:-build}
compiler=${CC:-gcc}

# how to look | name to look for | Debian package
rows='tool make make
tool pkg-config pkg-config
tool ar binutils
header stdlib.h libc6-dev
pc libconfig libconfig-dev
pc libpng libpng-dev
pc libcjson libcjson-dev
pc libutf8proc libutf8proc-dev
pc libcrypto libssl-dev
header jpeglib.h libjpeg-dev
header dnnl.h libdnnl-dev'

rows_check='header cmocka.h libcmocka-dev
tool g++ g++
tool git git
wish clang-format clang-format
wish cppcheck cppcheck
wish ctags universal-ctags
wish h5dump hdf5-tools
wish valgrind valgrind
wish ip iproute2'

# make's MPI_PC and HDF5_PC; "" where the compiler knows it
[ "${MPI_PC-ompi-c}" != ompi-c ] || rows="$rows
tool mpirun openmpi-bin"
add_mpi()
{
    local package=$1
    case $1 in
    '') return ;;
    ompi-c) package=libopenmpi-dev ;;
    hdf5-mpi) package=libhdf5-openmpi-dev ;;
    mpich) package=libmpich-dev ;;
    hdf5-mpich) package=libhdf5-mpich-dev ;;
    esac
    rows="$rows
pc $1 $package"
}
add_mpi "${MPI_PC-ompi-c}"
add_mpi "${HDF5_PC-hdf5-mpi}"

present()
{
    case $1 in
    tool | wish) command -v "$2" >/dev/null ;;
    pc) pkg-config --exists "$2" 2>/dev/null ;;
    header)
        # cmocka and jpeglib want others included first
        printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdio.h>
#include <setjmp.h>\n#include <stdint.h>\n#include <%s>\n' "$2" |
            "$compiler" -E -x c - >/dev/null 2>&1
        ;;
    esac
}

# fills missing (packages), names (for people), needed (without the wishes)
look()
{
    missing= names= needed=
    while read -r how name package; do
        present "$how" "$name" && continue
        missing="$missing $package"
        names="$names $name"
        [ "$how" = wish ] || needed="$needed $name"
    done <<< "$rows"
}

give_advice()
{
    echo "deps: missing:$needed" >&2
    echo "deps: install them, or load them as modules, for instance" >&2
    echo "  module load gcc openmpi hdf5 onednn" >&2
    echo "  (Debian's names:$missing)" >&2
    exit 1
}

rows="tool $compiler gcc
$rows"
[ "$goal" = check ] && rows="$rows
$rows_check"

look
[ -z "$missing" ] && exit 0
if command -v apt-get >/dev/null; then
    become=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || give_advice
        become="sudo"
    fi
    echo "deps: installing$missing"
    $become apt-get update -q </dev/null
    # shellcheck disable=SC2086
    $become env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing </dev/null
    look
fi
[ -z "$needed" ] || give_advice
[ -z "$names" ] || echo "deps: without$names some checks are left out" >&2
exit 0
