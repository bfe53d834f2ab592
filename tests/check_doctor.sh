#!/bin/bash
# dancegrpo doctor: what it finds right, and what it must find wrong.
. "$(dirname "$0")/lib.sh"
cfg=$work/a.cfg
cp configs/tiny.cfg "$cfg"
printf 'run: { dir = "%s/runs/there"; };\n' "$work" >"$work/dir.cfg"

# digest FILE: of the small network's weights
digest() { sed -n 's/^promises.*by all (\([0-9a-f]*\)).*/\1/p' "$1"; }
row() { grep "^$1 " "$work/out"; }

expect_code "doctor: one rank, nothing wrong" 0 " 0 failed" "$bin" doctor
cp "$work/out" "$work/one"
expect "doctor: a row of each kind" bash -c 'for r in program mpi ranks cores \
    memory numbers sums arithmetic files promises; do
        grep -q "^$r  *\(ok\|WARN\) " "$1" || { echo "$r"; exit 1; }; done' - \
    "$work/one"
expect_code "doctor: three ranks" 0 "3 on 1 node" ranks 3 "$bin" doctor \
    "$work/dir.cfg"
cp "$work/out" "$work/three"
same "doctor: the same weights by one rank and by three" \
    "$(digest "$work/one")" "$(digest "$work/three")"
expect "doctor: too many threads are told" \
    bash -c "[ \$(nproc) -ge 3 ] || grep -q '^cores *WARN' '$work/three'"
expect "doctor: files are tried above a folder that is not there" \
    grep -q "^files *ok *$work: 3 MB written by all" "$work/three"
expect "doctor: nothing is left behind" \
    bash -c "! ls '$work' . | grep -q doctor- && [ ! -e '$work/runs' ]"
expect_code "doctor: levels of sharding, threads" 0 "$(digest "$work/one")" \
    ranks 2 "$bin" doctor --set parallel.shard=parameters --set run.threads=1
expect_code "doctor: a U-Net" 0 "ratio exactly 1" "$bin" doctor \
    configs/tiny_unet.cfg

# a processor of another kind among them
expect_code "doctor: a rank with other bits is named" 1 \
    "FAIL  rank 1 on $(hostname) by itself ends with other weights" mpirun \
    --oversubscribe -n 1 "$bin" doctor : \
    -n 1 -x ONEDNN_MAX_CPU_ISA=SSE41 "$bin" doctor
expect "doctor: and so is what differs" \
    grep -q "^arithmetic WARN  rank 1 computes otherwise" "$work/out"
expect_code "doctor: a folder that cannot be written" 1 "files      FAIL" \
    "$bin" doctor --set run.dir=/proc/runs
expect "doctor: the other trials go on" grep -q "^promises *ok" "$work/out"
expect_code "doctor: no GPU side, or no GPU" 1 "device     FAIL" \
    "$bin" doctor --set run.device=cuda
expect_code "doctor: an unknown key" 1 "did you mean" \
    "$bin" doctor --set run.device_=cpu
exit $bad
