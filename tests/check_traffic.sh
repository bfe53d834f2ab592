#!/bin/bash
# What goes between ranks: metrics count it, and plans reckon the same to the byte,
# at every level of sharding; and who is told that ranks wait for each other.
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu

# the two numbers of an iteration that no witness is in, as "sums,weights"
moved() { tail -n 1 "$work/$1/metrics.jsonl" |
    sed -n 's/.*"traffic":{"sums":\([0-9]*\),"weights":\([0-9]*\)}.*/\1,\2/p'; }

# plan RANKS [SET]...: of a run, or on GPUs ($gpu_row: a part of its line) of those
planned()
{
    local n=$1 set sets=()
    shift
    for set in "$@"; do sets+=(--set "$set"); done
    # shellcheck disable=SC2086
    "$cpu" plan "${TINY:-configs/tiny.cfg}" --ranks "$n" --json "$work/plan.json" \
        ${gpu_row:+--gpus "$n"} "${sets[@]}" >"$work/plan.txt" || return
    if [ -n "$gpu_row" ]; then
        tr '{' '\n' <"$work/plan.json" | grep "^\"ranks\":$n,$gpu_row" |
            sed 's/.*"traffic_sums":\([0-9]*\),"traffic_weights":\([0-9]*\)}.*/\1,\2/'
    else
        sed 's/.*"traffic_bytes":{"sums":\([0-9]*\),"weights":\([0-9]*\)}.*/\1,\2/' \
            "$work/plan.json"
    fi
}

# every step has a gradient, so that it is gone back through
open="grpo.clip_range=0.9 run.iterations=2 trajectory.every=0 report.prompts=1
    evaluate.steps=1"

# as_planned RANKS THREADS [SET]...
as_planned()
{
    local n=$1 threads=$2 got
    shift 2
    rm -rf "$work/run"
    # shellcheck disable=SC2086
    tiny "$n" "$threads" run $open "$@" || tail -n 3 "$work/run.out"
    got=$(moved run)
    # shellcheck disable=SC2086
    same "traffic of $n ranks of $threads: $*" "$got" \
        "$(planned "$n" run.threads="$threads" $open "$@")"
}

# --- on the CPU ------------------------------------------------------------------
# 70320 values, of 12 samples 4 on a rank, 2 of each of 2 updates
as_planned 3 1
same "traffic: two sums of 8 bytes a value" "$(moved run)" $((2 * 8 * 70320)),0
as_planned 3 1 parallel.shard=optimizer
same "traffic: and as many times all weights" "$(moved run)" \
    $((2 * 8 * 70320)),$((2 * 4 * 70320))
as_planned 2 2 parallel.shard=gradients parallel.exact_sum=false
same "traffic: a sum of each round, 2 of 6 samples' 3 for an update" \
    "$(moved run)" $((2 * 2 * 4 * 70320)),$((2 * 4 * 70320))
as_planned 3 1 parallel.shard=gradients grpo.updates_per_iteration=3 grpo.epochs=2
as_planned 2 2 parallel.shard=gradients parallel.passes=together
as_planned 3 1 parallel.shard=parameters grpo.kl_beta=0.1
as_planned 3 1 parallel.shard=parameters grpo.micro_batch=1 sampler.window_size=2 \
    grpo.timestep_mode=window
TINY=configs/tiny_sd.cfg as_planned 2 1 parallel.shard=parameters
tiny 1 1 alone $open
expect "traffic: none of one rank" test -z "$(moved alone)"

# --- on emulated GPUs --------------------------------------------------------------
gpu_row='"shard":"parameters","offload_optimizer":false,"offload_sums":false'
deep="flux.num_layers=3 flux.num_single_layers=4 run.device=cuda
    parallel.shard=parameters"
few="grpo.num_generations=2 sampler.steps=3"
bin=$gpu
# shellcheck disable=SC2086
as_planned 2 1 $deep $few parallel.ahead=false run.dtype=bfloat16
# blocks that come ahead of their use are guessed where the ways turn round
# shellcheck disable=SC2086
{
    tiny 2 1 ahead $open $deep
    least=$(planned 2 run.threads=1 $open $deep)
}
got=$(moved ahead)
expect "traffic: ahead of their use a twentieth more at most" test \
    "${got%,*}" = "${least%,*}" -a "${got#*,}" -ge "${least#*,}" -a \
    $((20 * ${got#*,})) -le $((21 * ${least#*,}))
gpu_row='"shard":"optimizer","offload_optimizer":false,"offload_sums":false'
# shellcheck disable=SC2086
as_planned 2 1 $few run.device=cuda run.dtype=bfloat16 parallel.shard=optimizer
same "traffic: weights between GPUs are bfloat16" "$(moved run)" \
    $((2 * 8 * 70320)),$((2 * 2 * 70320))
gpu_row= bin=$cpu

without() { test -s "$2" && ! grep -q "$1" "$2"; }

# --- ranks that wait -----------------------------------------------------------------
waits="grpo.prompts_per_iteration=4 grpo.updates_per_iteration=4"
# shellcheck disable=SC2086
{
    tiny 4 1 waits $open $waits
    planned 4 run.threads=1 $open $waits >"$work/unused"
}
expect "traffic: a run says that ranks wait for whole groups" \
    grep -q "WARN.* A pass takes as long as 16 samples, where each has 4 or fewer;" \
    "$work/waits.out"
expect "traffic: so does its plan" grep -q "as long as 16 samples, where" \
    <(tr '\n' ' ' <"$work/plan.txt")
# shellcheck disable=SC2086
{
    tiny 4 1 shares $open $waits grpo.update_split=samples
    planned 4 run.threads=1 $open $waits grpo.update_split=samples >"$work/unused"
}
expect "traffic: nobody waits where groups are shared out" \
    without "anks wait for each other" "$work/shares.out"
expect "traffic: nor by its plan" without "anks wait for each other" "$work/plan.txt"
