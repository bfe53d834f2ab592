#!/bin/bash
# optim.moments = "int8": the same bits on any ranks, threads and levels, in one
# run and in parts, from trajectory files and on emulated GPUs, as float32
# moments have them.
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu about=moments
int8=optim.moments=int8

# --- on the CPU ------------------------------------------------------------------
expect "moments: the run of one rank" tiny 1 1 base $int8
for at in "2 1 none" "3 2 optimizer" "2 2 gradients" "3 1 parameters"; do
    read -r ranks threads level <<<"$at"
    run=$level$ranks$threads
    expect "moments: $at" tiny "$ranks" "$threads" "$run" $int8 \
        parallel.shard="$level"
    same_arrays "$at" "$run" base
    expect "moments: $at, memory used is memory planned" equal_bytes "$run" 3
done
for at in "1 base" "2 gradients22"; do
    read -r ranks run <<<"$at"
    expect "moments: replay of $run on $ranks ranks" ranks "$ranks" "$bin" \
        replay --threads 1 "$work/$run/trajectories/iter_000003.h5"
done
"$tools/plant" "$work/none21/trajectories/iter_000003.h5" add state/adam_v 69000
expect_code "moments: replay of a moment that was changed" 1 \
    "must be equal bit for bit" "$bin" replay \
    "$work/none21/trajectories/iter_000003.h5"

# adapters, of which some ranks have no range and the last block is short
lora="policy.weights=$work/base/checkpoints/iter_000003.h5 lora.rank=2 run.iterations=2"
# shellcheck disable=SC2086
{
    tiny 1 1 lora1 $lora $int8
    expect "moments: adapters, ranks without a range" tiny 4 1 lora4 $lora \
        $int8 parallel.shard=gradients
}
same_arrays "adapters" lora4 lora1 2

# --- what is in a file -------------------------------------------------------------
size() { stat -c %s "$work/$1/checkpoints/iter_000003.h5"; }
expect "moments: the run with float32" tiny 1 1 full
expect "moments: a smaller checkpoint" test "$(size base)" -lt "$(size full)"
for name in m_codes v_codes; do
    expect_code "moments: inspect names adam_$name" 0 "arrays/adam_$name: uint8 [" \
        "$bin" inspect "$work/base/checkpoints/iter_000003.h5"
done
expect_code "moments: and the scales" 0 "arrays/adam_v_scales: float32 [" \
    "$bin" inspect "$work/base/checkpoints/iter_000003.h5"
# a first update rounds what it has moved the weights by; later ones begin there
for kind in int8 float32; do
    tiny 1 1 first$kind run.iterations=1 grpo.updates_per_iteration=1 \
        optim.moments=$kind
done
same "moments: the weights of a first update" "$(digest firstint8 1)" \
    "$(digest firstfloat32 1)"
differ "moments: not of a later one" "$work/base/checkpoints/iter_000003.h5" \
    "$work/full/checkpoints/iter_000003.h5"
expect "moments: weights near those of float32" "$tools/close" \
    "$work/base/checkpoints/iter_000003.h5" \
    "$work/full/checkpoints/iter_000003.h5" 1e-3

# --- stopped and continued --------------------------------------------------------
# part RANKS LEVEL RUN ITERATION: one more iteration, then a stop
part()
{
    tiny "$1" 1 "$3" parallel.shard="$2" run.max_seconds=1e-3 $int8
    expect "moments: $2 on $1 ranks, stopped after $4" test \
        "$(last_checkpoint "$3")" = "$4"
}
part 3 gradients parts 1
part 1 none parts 2
expect "moments: continued on two ranks" tiny 2 1 parts $int8 \
    parallel.shard=parameters
same_arrays "three levels in turn" parts base
tiny 2 1 torn parallel.shard=optimizer run.iterations=2 $int8
"$tools/plant" "$work/torn/checkpoints/iter_000002.h5" flip \
    arrays/adam_v_codes 30000
expect "moments: goes on before a damaged moment" tiny 3 1 torn $int8 \
    parallel.shard=gradients
expect "moments: the damaged one is named" grep -q \
    "^WARN .*iter_000002.h5: dataset arrays/adam_v_codes: SHA-256" \
    "$work/torn.out"
same_arrays "after a damaged moment" torn base
for run in parts full; do
    kind=$([ $run = full ] && echo int8 || echo float32)
    expect_code "moments: $run does not go on with $kind" 1 "optim.moments: " \
        "$bin" train configs/tiny.cfg --set run.dir="$work/$run" \
        --set optim.moments=$kind --set run.iterations=4
done

# --- pretraining -------------------------------------------------------------------
sets=(pretrain.steps=3 pretrain.batch=8 pretrain.item_size=2
    pretrain.eval_every=2 $int8)
for n in 1 3; do
    launch pretrain $n 1 first$n "${sets[@]}" parallel.shard=optimizer
    wait "$pid"
done
same_arrays "pretraining" first3 first1

# --- on emulated GPUs --------------------------------------------------------------
bin=$gpu
# on_gpus RANKS LEVEL OFFLOAD RUN [SET]...
on_gpus() { small_on_gpus "${@:1:4}" $int8 "${@:5}"; }
expect "moments: one GPU" on_gpus 1 none false gpu trajectory.every=1
for at in "1 none true" "2 optimizer false" "2 gradients true" \
    "2 parameters false" "1 none sums" "2 gradients sums" "3 parameters sums"; do
    read -r ranks level offload <<<"$at"
    run=gpu$level$ranks$offload
    expect "moments: GPUs, $at" on_gpus "$ranks" "$level" "$offload" "$run"
    same_arrays "GPUs, $at" "$run" gpu 2
done
# the way of all of FLUX on one GPU: a sample's gradient block by block to sums of
# the host's, from there piece by piece to AdamW
for n in 1 2; do
    expect "moments: $n GPU, nothing of a gradient whole" on_gpus $n gradients \
        sums blocks$n parallel.passes=together parallel.recompute=true
    same_arrays "$n GPU, nothing of a gradient whole" blocks$n gpu 2
done
# that recipe's keys with a network of no size; in full it fits one GPU of 141 GB
expect "moments: configs/flux_step.cfg in small" "$gpu" train \
    configs/flux_step.cfg --set run.dir="$work/step" --set flux.num_layers=2 \
    --set flux.num_single_layers=1 --set flux.num_heads=2 \
    --set flux.head_dim=16 --set "flux.axes_dims=[4, 6, 6]" \
    --set flux.joint_attention_dim=16 --set flux.pooled_dim=16 \
    --set t5.d_model=16 --set t5.d_kv=8 --set clip.hidden=16 \
    --set clip.heads=2 --set pretrain.image_size=32
expect "moments: it made an update" awk \
    "BEGIN { exit !($(metric step grad_norm) > 0) }"
# codes of 0 are moments of 0: of a network that began with gates of 0 nearly all
expect "moments: of all of the network" bash -c "'$gpu' inspect \
    '$work/step/checkpoints/iter_000001.h5' | grep -A 2 '^arrays/adam_v_codes:' |
    grep -q 'least [1-9]'"
expect_code "moments: configs/flux_step.cfg fits a GPU of 141 GB" 0 \
    '1 of 141 GB: parallel.shard = "gradients", offload_sums = true fits' \
    "$cpu" plan configs/flux_step.cfg --gpus 1
on_gpus 1 none false b16 run.dtype=bfloat16
expect "moments: the same in bfloat16" on_gpus 1 gradients sums b16blocks \
    run.dtype=bfloat16 parallel.passes=together parallel.recompute=true
same_arrays "the same in bfloat16" b16blocks b16 2
on_gpus 2 gradients false late run.max_seconds=1e-3
expect "moments: GPUs, stopped after one iteration" test \
    "$(last_checkpoint late)" = 1
on_gpus 1 none sums late
same_arrays "GPUs, stopped, continued offloaded" late gpu 2
expect "moments: GPUs, replay" "$gpu" replay \
    "$work/gpu/trajectories/iter_000002.h5"
exit $bad
