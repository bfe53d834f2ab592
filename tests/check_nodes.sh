#!/bin/bash
# Ranks on several hosts, which are namespaces of this machine (nodes_lib.sh):
# what they share, who is missed and what becomes of a job when one is lost.
# tests/long_nodes.sh has more of it.
# shellcheck disable=SC2154
# shellcheck source=tests/nodes_lib.sh
. "$(dirname "$0")/nodes_lib.sh"
hosts ann ben en # names of which one ends another

# --- who shares memory, and who is missed --------------------------------------------
# absent LAYOUT WAIT PATIENCE TEXT: the last rank stays away; this is told first
absent()
{
    expect_code "nodes: $1, the last rank stays away from $2" 1 "$4" across \
        "$1" timeout 50 "$tools/absent" "$2" "$3"
    expect "nodes: $1, it is told first" bash -c \
        "grep -m 1 panic '$work/out' | grep -F 'rank ${4:5:1} of'"
}
waits="waits for the other ranks since"
key="(parallel.host_timeout_seconds)"
absent ann:2,ben:2 node 0.5 "rank 2 of 4 on ben $waits 1 s in a broadcast on a \
node $key; not there: rank 3 (process "
# the host that knows tells before the one that does not
absent ann:1,ben:2 agree 2 "rank 1 of 3 on ben $waits 2 s in an agreement on \
errors $key; not there: rank 2 (process "
absent ann:2,ben:1 sum 0.5 "rank 0 of 3 on ann $waits 1 s in a sum or extremum \
$key; of this host's ranks (2) all wait, those of other hosts and the network \
between are not seen from here"

# --- the same numbers on any hosts ---------------------------------------------------
tiny 1 1 one
one=$(digest one)
for layout in ann:1,ben:1 ann:1,ben:1,en:1; do
    run=${layout//:/}
    expect "nodes: $layout" tiny_across $layout "$run"
    same_digest "nodes: $layout, the same weights" "$run" "$one"
    same_numbers "nodes: $layout, the same metrics" "$run" one
    no_warning "nodes: $layout, nothing to warn of" "$work/$run.out"
done
expect "nodes: a trajectory of three hosts is replayed by one" "$bin" replay \
    "$work/ann1,ben1,en1/trajectories/iter_000002.h5"
expect "nodes: ranks that take hosts in turn" across ann:2,ben:2 --map-by node \
    "$bin" train configs/tiny.cfg --set run.dir="$work/turn" \
    --set run.threads=1
same_digest "nodes: ranks that take hosts in turn, the same weights" turn "$one"
expect "nodes: a file names its hosts, each once" bash -c \
    "'$bin' inspect '$work/turn/checkpoints/iter_000003.h5' |
     grep -q '^  hosts  *ann,ben\$'"

# --- hosts that are not alike --------------------------------------------------------
train=("$bin" train configs/tiny.cfg --set run.threads=1 --set run.iterations=1
    --set run.dir="$work/old")
expect_code "nodes: ben has an older library" 0 "WARN  rank 1 computes with" \
    across ann:1,ben:1 --host ann -n 1 "${train[@]}" : --host ben -n 1 \
    -x ONEDNN_MAX_CPU_ISA=SSE41 "${train[@]}"
expect "nodes: and both are named" grep -q \
    "rank 1 computes with .*SSE4.1.*; rank 0 with .*: the last bits depend on" "$work/out"

expect_code "nodes: a run folder that is not shared" 1 "ERROR $work/apart: a file \
that rank 0 has made there cannot be opened here (No such file or directory): \
run.dir has to be on a file system that all hosts share (found by rank 2 on ben)" \
    hidden "$work/apart" ann:2,ben:2 "${train[@]}" --set run.dir="$work/apart"
expect "nodes: said once, and no file is left" test \
    "$(grep -c ERROR "$work/out") $(find "$work/apart" -type f)" = "1 "
cp -R tests/golden/sd_tiny "$work/sd"
expect_code "nodes: weights that ben lacks" 1 "ERROR $work/sd/unet/config.json: \
cannot open: No such file or directory (found by rank 1 on ben)" \
    hidden "$work/sd" ann:1,ben:1 "$bin" train configs/tiny_sd.cfg \
    --set policy.path="$work/sd" --set run.dir="$work/lacks"
# a disk of its own on ben that was half updated: files of the same names and lists
# replaced FILE LAYOUT TEXT [SET]...: its first value is another on ben
replaced()
{
    local file=$1 layout=$2 text=$3 first set sets=()
    shift 3
    for set in "$@"; do sets+=(--set "$set"); done
    rm -rf "$work/other" "$work/mixed"
    cp -R "$work/sd" "$work/other"
    first=$(($(od -An -tu8 -N8 "$work/other/$file") + 8))
    printf '\x12' | dd of="$work/other/$file" bs=1 conv=notrunc status=none \
        seek=$((first + 1))
    on ben mount --bind "$work/other" "$work/sd"
    expect_code "nodes: another $file on ben, $layout" 1 \
        "ERROR $work/sd/$text" across "$layout" "$bin" train configs/tiny_sd.cfg \
        --set policy.path="$work/sd" --set run.threads=1 \
        --set run.dir="$work/mixed" "${sets[@]}"
    on ben umount "$work/sd"
    expect "nodes: said once, nothing is trained" bash -c \
        "[ \$(grep -c '^ERROR' '$work/out') = 1 ] && ! grep '^it ' '$work/out'"
}
cp -R tests/golden/clip_tiny "$work/sd/clip"
others="other weights on ben (rank 1) than on ann (rank 0): must be the same files"
replaced unet/diffusion_pytorch_model.safetensors ann:1,ben:1 "unet: $others"
replaced text_encoder/model.safetensors ann:2,ben:2 \
    "text_encoder: ${others/rank 1/rank 2}"
replaced vae/diffusion_pytorch_model.safetensors ann:1,ben:2 "vae: $others"
replaced clip/model.safetensors en:2,ann:1,ben:1 "clip: other weights on ben (rank 3) \
than on en (rank 0)" "rewards=({name=\"clip\";path=\"$work/sd/clip\";tokenizer=\"$work/sd/tokenizer\";})"
rm -r "$work/sd/clip"

# --- what the doctor says of the network between them ---------------------------------
expect_code "nodes: the doctor on three hosts" 0 " 0 failed" across \
    ann:2,ben:1,en:1 "$bin" doctor configs/tiny.cfg --set run.dir="$work/none"
expect "nodes: it measures within hosts and between them" bash -c \
    "grep -q '^messages .* within nodes' '$work/out' &&
        grep -q '^messages .* between nodes' '$work/out' &&
        grep -q '^ranks  *ok *4 on 3 nodes: ann,ben,en' '$work/out'"

# --- small files that a host has of its own ---------------------------------------------
# differs FILE [COMMAND]: one byte more on ben, which half of an update has reached
differs()
{
    local command=${2:-train}
    rm -rf "$work/updated"
    cp -R "$work/sd" "$work/updated"
    echo >>"$work/updated/$1"
    on ben mount --bind "$work/updated" "$work/sd"
    expect_code "nodes: $command, another $1 on ben" 1 "ERROR $work/sd/$1: is another file \
here than on ann (rank 0): must be the same on all hosts (found by rank 2 on ben)" \
        across ann:2,ben:2 "$bin" "$command" configs/tiny_sd.cfg --set run.threads=1 \
        --set policy.path="$work/sd" --set run.dir="$work/mixture" --set "$reward" \
        --set prompts.cache="${2:+$work/mixture.h5}"
    on ben umount "$work/sd"
    expect "nodes: it is said once" test "$(grep -c '^ERROR' "$work/out")" = 1
}
reward='rewards=({name="brightness";})'
cp -R tests/golden/clip_tiny "$work/sd/of_reward"
cp -R tests/golden/sd_tiny/tokenizer "$work/sd/words"
differs tokenizer/tokenizer.json
differs tokenizer/tokenizer_config.json encode
differs vae/config.json
reward="rewards=({name=\"clip\"; path=\"$work/sd/of_reward\"; tokenizer=\"$work/sd/words\";})"
differs of_reward/config.json
differs words/tokenizer.json

# --- ends and new beginnings ---------------------------------------------------------
expect "nodes: a run of three hosts" long_across ann:1,ben:1,en:1 lost
within 20 has_more_than lost 0
kill -9 "$(process_of 1 lost)"
expect "nodes: a rank is killed on ben, the job ends" ends 30
expect "nodes: it has failed" test "${code:-0}" != 0
expect "nodes: no rank is left anywhere" gone lost
expect "nodes: with checkpoints" test "$(last_checkpoint lost)" -gt 0
expect "nodes: it goes on elsewhere" long_across en:1,ann:2 lost
kill -USR1 "$(mpirun_of lost)"
expect "nodes: USR1 to mpirun, the job ends" ends 30
expect "nodes: as one that goes on" test "${code:-0}" = 75
stopped=$(last_checkpoint lost)
tiny 1 1 whole trajectory.every=0 run.iterations="$stopped"
same_digest "nodes: the weights of one that was never disturbed" lost \
    "$(digest whole "$stopped")" "$stopped"

# --- GPUs: number 0 of one host is not number 0 of another ---------------------------
expect "nodes: an emulated GPU" gpus_across ann:1 gpu
gpu_weights=$(digest gpu 2)
export CUDA_EMULATION_DEVICES=1
expect "nodes: one on each of two hosts" gpus_across ann:1,ben:1 gpus
no_warning "nodes: they are two, sums go by NCCL" "$work/gpus.out"
expect "nodes: two ranks share each" gpus_across ann:2,ben:2 shared
expect "nodes: sums go through the host then, with a warning" grep -q \
    "^WARN  2 ranks share a GPU: gradients are summed through the host" \
    "$work/shared.out"
same_digest "nodes: GPUs, the same weights" gpus "$gpu_weights" 2
same_digest "nodes: shared GPUs, the same weights" shared "$gpu_weights" 2
# of a host's ranks one has what comes over the wire, and all have it together
start=policy.weights="$work/gpu/checkpoints/iter_000002.h5"
expect "nodes: GPUs, from a file of weights" gpus_across ann:1 fed "$start"
expect "nodes: GPUs, two ranks on each of two hosts, from it" gpus_across \
    ann:2,ben:2 fed2 "$start"
same_digest "nodes: GPUs, from it, the same weights" fed2 "$(digest fed 2)" 2
expect "nodes: GPUs, nobody has to hold all of it" bash -c \
    "! grep -q 'each rank holds all weights' '$work/fed2.out'"
exit "$bad"
