#!/bin/bash
# parallel.overlap with the GPU emulated: sums that leave while backward still
# runs, scores beside the rollout. Streams do what is queued when somebody waits
# for it, or, all but the first, at once (CUDA_EMULATION_STREAMS): the bits are
# those of a run without.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

short="sampler.steps=3 grpo.prompts_per_iteration=3 report.prompts=1 trajectory.every=0 run.iterations=2"
buckets="parallel.bucket_size=1000"
# without RUN: its metrics, but for what is of the clock and of the overlap
without()
{
    sed 's/"seconds":{[^}]*},//; s/"gflops":[^,]*,//; s/"early_sums":[0-9]*,//' \
        "$work/$1/metrics.jsonl"
}
same_metrics() { [ -n "$(without "$1")" ] && [ "$(without "$1")" = "$(without "$2")" ]; }
# early RUN: sums left early in the last iteration, the first has to be seen
early() { [ "$(metric "$1" early_sums | tail -n 1)" -gt 0 ]; }

# --- sums ------------------------------------------------------------------------
# shellcheck disable=SC2086
expect "overlap: a run without" on_gpu 1 off $short parallel.overlap=false
want=$(digest off 2)
for streams in late early; do
    export CUDA_EMULATION_STREAMS=$streams
    # shellcheck disable=SC2086
    on_gpu 1 one$streams $short
    same_digest "overlap: one rank, streams $streams" one$streams "$want" 2
    expect "overlap: one rank, streams $streams, the same metrics" \
        same_metrics one$streams off
    for level in none optimizer gradients; do
        run=$streams$level
        # shellcheck disable=SC2086
        on_gpu 2 "$run" $short $buckets parallel.shard=$level
        same_digest "overlap: two ranks, $level, streams $streams" "$run" \
            "$want" 2
        expect "overlap: two ranks, $level, streams $streams, sums leave early" \
            early "$run"
    done
done
export CUDA_EMULATION_STREAMS=early
# more ranks than a third of the items, blocks again, adapters
# shellcheck disable=SC2086
on_gpu 3 three $short $buckets parallel.recompute=true parallel.shard=gradients
same_digest "overlap: three ranks, recomputation" three "$want" 2
# updates of one sample: its rank waits for its sums where it meets new products,
# and the others have none to come by
one="sampler.steps=3 grpo.prompts_per_iteration=2 grpo.num_generations=3 grpo.updates_per_iteration=6 report.prompts=1 run.iterations=2 trajectory.every=0"
# shellcheck disable=SC2086
{
    on_gpu 1 single $one parallel.overlap=false
    on_gpu 3 single3 $one $buckets parallel.timeout_seconds=60
}
same_digest "overlap: three ranks, updates of one sample" single3 \
    "$(digest single 2)" 2
few="sampler.steps=3 grpo.prompts_per_iteration=2 report.prompts=1 run.iterations=2 trajectory.every=0"
# shellcheck disable=SC2086
{
    TINY=configs/tiny_eps.cfg on_gpu 1 eps $few parallel.overlap=false
    TINY=configs/tiny_eps.cfg on_gpu 3 eps3 $few $buckets
}
same_digest "overlap: guidance, two ways back a step" eps3 "$(digest eps 2)" 2
lora="policy.weights=$work/off/checkpoints/iter_000002.h5 lora.rank=2"
# shellcheck disable=SC2086
{
    on_gpu 1 lora $few $lora parallel.overlap=false
    on_gpu 2 lora2 $few $lora parallel.bucket_size=100
}
same_digest "overlap: adapters" lora2 "$(digest lora 2)" 2
expect "overlap: adapters, sums leave early" early lora2
# shellcheck disable=SC2086
on_gpu 2 plain $short $buckets parallel.exact_sum=false
expect "overlap: float32 sums leave at the end" test -z \
    "$(metric plain early_sums)" -a -n "$(metric plain grad_norm)"

# --- sums of the host's --------------------------------------------------------------
# on one GPU: a block's gradients go down while the next one is gone back through
# rooms are used again from the third on
down()
{
    small_on_gpus 1 gradients "$@" parallel.passes=together flux.num_layers=2 \
        flux.num_single_layers=2
}
unset CUDA_EMULATION_STREAMS
down false blocks
for streams in late early; do
    export CUDA_EMULATION_STREAMS=$streams
    for offload in sums true; do
        down $offload down$offload$streams
        same_digest "overlap: offloaded, $offload, streams $streams" \
            down$offload$streams "$(digest blocks 2)" 2
        expect "overlap: offloaded, $offload, streams $streams, blocks leave early" \
            early down$offload$streams
    done
done
CUDA_EMULATION_STREAMS="all early" CUDA_EMULATION_SLOW=20 down sums slow
same_digest "overlap: offloaded, copies that are slow" slow "$(digest blocks 2)" 2
down sums waits parallel.overlap=false
same_digest "overlap: offloaded and waited for" waits "$(digest blocks 2)" 2
expect "overlap: offloaded and waited for, the same metrics" same_metrics \
    downsumslate waits
# a gradient that no sum can take, in some updates
wild="run.iterations=8 optim.lr=1 optim.weight_decay=10"
# shellcheck disable=SC2086
{
    down sums wild $wild
    down false wild0 $wild parallel.overlap=false
}
expect "overlap: offloaded, NaN is set aside as ever" same_metrics wild wild0
# a GPU that fails on the way back
launches=$(CUDA_EMULATION_TELL=1 down sums tells && sed -n \
    's/.*: \([0-9]*\) launches on device 0$/\1/p' "$work/tells.out")
for at in 40 45 90; do
    CUDA_EMULATION_FAIL=0:$((launches * at / 100)) down sums fails$at
    expect "overlap: offloaded, a GPU fails at $at %: exit code 1" test $? = 1
    expect "overlap: offloaded, a GPU fails at $at %: one message" test \
        "$(grep -c '^ERROR CUDA.*launch failure' "$work/fails$at.out")" = 1
done
unset CUDA_EMULATION_STREAMS

# --- scores ------------------------------------------------------------------------
export CUDA_EMULATION_STREAMS=late
clip='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
net="rewards=({ name=\"hpsv2\"; weight=0.7; $clip }, { name=\"brightness\"; })"
# shellcheck disable=SC2086
{
    TINY=configs/tiny_sd.cfg on_gpu 1 seen.off $few "$net" grpo.micro_batch=1 \
        run.iterations=1 parallel.overlap=false
    TINY=configs/tiny_sd.cfg on_gpu 1 seen $few "$net" grpo.micro_batch=1 \
        run.iterations=1 trajectory.every=1
}
expect "overlap: a decoder and a reward's network, the same metrics" \
    same_metrics seen seen.off
same_digest "overlap: a decoder and a reward's network" seen \
    "$(digest seen.off 1)" 1
expect "overlap: memory used is memory planned" equal_bytes seen 1
# what was brought to the host beside the rollout is whole
expect "overlap: the iteration's file is replayed" "$gpu" replay \
    "$work/seen/trajectories/iter_000001.h5"
# a device with room for the plan, and no more
export CUDA_EMULATION_MEMORY=$((40000000 + later))
# shellcheck disable=SC2086
on_gpu 1 tight $short
unset CUDA_EMULATION_MEMORY
expect "overlap: without room, rewards follow the rollout" grep -q \
    "rewards follow the rollout: no room for" "$work/tight.out"
same_digest "overlap: without room, the same weights" tight "$want" 2
# a GPU that fails where both threads are at work
export CUDA_EMULATION_FAIL=1:${FAIL_AT:-900}
# shellcheck disable=SC2086
on_gpu 2 broken $short $buckets
code=$?
unset CUDA_EMULATION_FAIL
expect "overlap: a GPU fails in a rollout: exit code 1" test $code = 1
expect "overlap: a GPU fails in a rollout: one message" test \
    "$(grep -c '^ERROR' "$work/broken.out")" = 1
expect "overlap: a GPU fails in a rollout: it says whose" grep -q \
    '^ERROR CUDA.*launch failure (found by rank 1)' "$work/broken.out"
# a GPU that fails where another's kernels wait for its sums: who waits hears of it,
# also where the driver takes so many calls ahead and no more
sums="$short $buckets parallel.shard=gradients parallel.passes=apart parallel.host_timeout_seconds=30"
# shellcheck disable=SC2086
launches=$(CUDA_EMULATION_TELL=1 CUDA_EMULATION_QUEUE=160 on_gpu 2 tells $sums &&
    sed -n 's/.*: \([0-9]*\) launches on device 1$/\1/p' "$work/tells.out")
for at in "72 0" "80 0" "72 160" "80 160"; do
    read -r percent queue <<<"$at"
    export CUDA_EMULATION_QUEUE=$queue
    # shellcheck disable=SC2086
    CUDA_EMULATION_FAIL=1:$((launches * percent / 100)) on_gpu 2 hears $sums
    expect "overlap: a GPU fails at $percent %, queue $queue, others wait: exit code 1" \
        test $? = 1
    expect "overlap: a GPU fails at $percent %, queue $queue, others wait: one message" \
        test "$(grep -c '^ERROR CUDA.*launch failure (found by rank 1)' \
            "$work/hears.out")" = 1
    rm -rf "$work/hears"
done
unset CUDA_EMULATION_QUEUE
exit $bad
