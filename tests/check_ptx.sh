#!/bin/bash
# The kernels' test programs on the PTX that nvcc makes of cuda/, run by
# tests/ptx in place of the C++; and faults in that PTX, which have to be told.
# LONG=1: all of the programs, and with products and powers as coarse as a
# device's. Without nvcc nothing is done.
# shellcheck disable=SC2154
. "$(dirname "$0")/lib.sh"
build=${DG_BUILD:-build}
ulimit -c 0

if ! ls "$build"/ptx/*.ptx >/dev/null 2>&1; then
    echo "ok - ptx: no nvcc is here, left out"
    exit 0
fi

# on_ptx FOLDER PROGRAM
on_ptx() { CUDA_EMULATION_PTX=$1 "$build/tests/test_cuda_$2"; }

# told NAME TEXT FILE PROGRAM SED: the program with that file changed ends
# with that message, or (TEXT "") with failed tests
told()
{
    local name=$1 text=$2 file=$3 program=$4 rc

    mkdir -p "$work/ptx"
    rm -f "$work"/ptx/*.ptx
    cp "$build"/ptx/*.ptx "$work/ptx"
    sed -E "$5" "$build/ptx/$file.ptx" >"$work/ptx/$file.ptx"
    on_ptx "$work/ptx" "$program" >"$work/told" 2>&1
    rc=$?
    expect "ptx: $name is told" test $rc -ne 0 -a \
        "$(grep -c "${text:-^.  FAILED  . test_}" "$work/told")" -gt 0
}

programs="attention_mma conv conv_cudnn gemm_own memory graph learner products beside training rewards networks"
[ "${LONG:-0}" = 1 ] && programs="$programs bench kernels bf16"
export CUDA_EMULATION_PTX_GLOBAL=1
for p in $programs; do
    expect "ptx: test_cuda_$p" on_ptx "$build/ptx" "$p"
done
unset CUDA_EMULATION_PTX_GLOBAL
CUDA_EMULATION_PTX_EARLY=1 expect "ptx: copies to shared memory that come early" \
    on_ptx "$build/ptx" attention_mma
if [ "${LONG:-0}" = 1 ]; then
    CUDA_EMULATION_NO_PRODUCT=all expect "ptx: networks without the library" \
        on_ptx "$build/ptx" networks
    export CUDA_EMULATION_PTX_ROUGH=1
    for p in attention_mma conv networks rewards bf16; do
        expect "ptx: rough products, test_cuda_$p" on_ptx "$build/ptx" "$p"
    done
    unset CUDA_EMULATION_PTX_ROUGH
fi

# --- faults ---------------------------------------------------------------------
told "a barrier that is missing" "a race: byte .* of shared memory" \
    attention_mma attention_mma 's/bar\.sync.*//'
told "a copy that nobody waits for" "while a copy to it is under way" \
    attention_mma attention_mma 's/cp\.async\.wait_all;//'
told "a barrier of lanes that is missing" "without __syncwarp" \
    attention_mma attention_mma 's/bar\.warp\.sync.*//'
told "a fragment in another's place" "" attention_mma attention_mma \
    's/(mma\.sync.*\}, \{%r[0-9]+),(%r[0-9]+),(%r[0-9]+)/\1,\3,\2/'
told "a tile that is not transposed" "" attention_mma attention_mma \
    's/x4\.trans/x4/'
told "an address that is not aligned" "not aligned" elementwise learner \
    's/ld\.global\.v4(.*)\]/ld.global.v4\1+4]/'
told "memory that is nobody's" "in no allocation" elementwise memory \
    's/(st\.global\.f32.*)\]/\1+1048576]/'
told "a register that nobody wrote" "a register that nobody wrote" \
    attention_mma attention_mma 's/mov\.u32.*%tid\.x.*//'
CUDA_EMULATION_PTX_GLOBAL=1 told "a race between blocks" \
    "a race: global memory .* another block" norm networks \
    's/(mov\.u32.*)%ctaid\.x/\10/'

# a kernel of so many registers, as ptxas would say it
grep -ho '\.entry [A-Za-z0-9_]*' "$build"/ptx/attention_mma.ptx |
    while read -r _ kernel; do
        printf "ptxas info : Compiling entry function '%s' for 'sm_90'\n" "$kernel"
        printf "ptxas info : Used 600 registers, used 1 barriers, 16 bytes smem\n"
    done >"$work/many.needs"
mkdir -p "$work/ptx"
mv "$work/many.needs" "$work/ptx"
told "a block of too many registers" "sm_90: .* registers are too many" \
    attention_mma attention_mma ''
exit $bad
