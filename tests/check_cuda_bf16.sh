#!/bin/bash
# run.dtype = "bfloat16" with the GPU emulated: weights and activations of the
# networks in bfloat16, masters and all else float32; ranks, micro-batches,
# recomputation and resuming keep the bits, as in float32.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
dtype=bfloat16 # of on_gpu

# less_memory RUN OTHER: activations of RUN are at most 3/4 of OTHER's:
# statistics, positions and what enters and leaves the network stay as wide
less_memory()
{
    [ $((4 * $(metric "$1" peak_bytes | head -n 1))) -le \
        $((3 * $(metric "$2" peak_bytes | head -n 1))) ]
}

# --- training: masters, one to three ranks ----------------------------------------
expect "bfloat16: the tiny run ends on an emulated GPU" on_gpu 1 one
one=$(digest one)
expect "bfloat16: its ratio is exactly 1" ratio_is_one one 3
expect "bfloat16: its memory used is memory planned" equal_bytes one 3
expect "bfloat16: its weights move" test "$(digest one 1)" != "$one"
expect "bfloat16: two ranks" on_gpu 2 two trajectory.every=0
same_digest "bfloat16: two ranks, same weights" two "$one"
expect "bfloat16: three ranks, other batches, recomputed" on_gpu 3 three \
    trajectory.every=0 grpo.micro_batch=3 parallel.recompute=true
same_digest "bfloat16: three ranks, same weights" three "$one"
expect "bfloat16: three ranks, ratio 1" ratio_is_one three 3

# the masters: no step of AdamW is lost to rounding, so that they are not
# float32's weights, nor those of bfloat16 alone, which tests/tools/close would
# find in places of 2^-8
# shellcheck disable=SC2086
expect "bfloat16: the same in float32" tiny 1 1 wide run.device=cuda $small \
    run.iterations=1 trajectory.every=0
expect "bfloat16: not float32's bits" test "$(digest one 1)" != \
    "$(digest wide 1)"
expect "bfloat16: weights as far from float32's as AdamW steps" \
    "$tools/close" "$work/one/checkpoints/iter_000001.h5" \
    "$work/wide/checkpoints/iter_000001.h5" 4e-3
expect "bfloat16: activations take less" less_memory one wide

# --- stopped, resumed, replayed -----------------------------------------------------
on_gpu 2 late run.max_seconds=1e-3 trajectory.every=0
expect "bfloat16: a stopped run ends with exit code 75" test $? = 75
expect "bfloat16: one rank ends it" on_gpu 1 late trajectory.every=0
same_digest "bfloat16: stopped and resumed, the same weights" late "$one"
expect "bfloat16: an iteration's file is replayed" "$gpu" replay \
    "$work/one/trajectories/iter_000002.h5"
expect_code "bfloat16: its pictures, without a GPU" 0 "wrote" "$cpu" inspect \
    --pictures "$work/best.png" "$work/one/trajectories/iter_000002.h5"
expect_code "bfloat16: a run does not go on in another type" 1 "run.dtype" \
    "$gpu" train configs/tiny.cfg --set run.dir="$work/one" \
    --set run.iterations=4 --set run.device=cuda --set run.dtype=float32 \
    --set sampler.steps=4 --set grpo.num_generations=2 \
    --set grpo.micro_batch=2 --set report.prompts=2

# --- guidance, KL; adapters; folders --------------------------------------------------
TINY=configs/tiny_eps.cfg on_gpu 2 eps grpo.kl_beta=0.1 run.iterations=1
expect "bfloat16: guidance, noise and KL, ratio 1" ratio_is_one eps 1
expect "bfloat16: guidance, noise and KL, memory planned" equal_bytes eps 1
lora="policy.weights=$work/one/checkpoints/iter_000003.h5 lora.rank=2 run.iterations=1"
# shellcheck disable=SC2086
{
    on_gpu 1 lora $lora grpo.kl_beta=0.1
    on_gpu 2 lora.two $lora grpo.kl_beta=0.1
}
expect "bfloat16: adapters, ratio 1" ratio_is_one lora 1
same_digest "bfloat16: adapters, two ranks, same weights" lora.two \
    "$(digest lora 1)" 1
few="sampler.steps=3 run.iterations=1 grpo.prompts_per_iteration=1 evaluate.steps=1"
for family in sd unet flux; do
    # shellcheck disable=SC2086
    TINY=configs/tiny_$family.cfg on_gpu 1 $family $few report.prompts=1
    expect "bfloat16: tiny_$family, ratio 1" ratio_is_one $family 1
    expect "bfloat16: tiny_$family, memory planned" equal_bytes $family 1
done

# --- without training ------------------------------------------------------------------
expect_code "bfloat16: a picture is sampled" 0 "wrote" "$gpu" sample \
    configs/tiny.cfg "a red circle" --seeds 1 --out "$work/sample.png" \
    --set run.device=cuda --set run.dtype=bfloat16 --set evaluate.steps=1 \
    --set policy.weights="$work/one/checkpoints/iter_000003.h5"

# --- conditions from a file ------------------------------------------------------------
# encoded PROGRAM FILE [SET]...
encoded()
{
    local program=$1 file=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    "$program" encode configs/tiny.cfg --set run.threads=1 \
        --set prompts.cache="$work/$file.h5" "${sets[@]}" >"$work/out" 2>&1
}
encoded "$gpu" own run.device=cuda run.dtype=bfloat16
expect "bfloat16: encode stores what it encodes in bfloat16" grep -q \
    "values in bfloat16$" "$work/out"
encoded "$gpu" wide_own run.device=cuda run.dtype=bfloat16 \
    prompts.cache_dtype=float32
encoded "$cpu" of_cpu
encoded "$cpu" half_of_cpu prompts.cache_dtype=bfloat16
for file in own wide_own of_cpu half_of_cpu; do
    on_gpu 1 from_$file prompts.cache="$work/$file.h5" trajectory.every=0
done
# what bfloat16 encoders put out are bfloat16's values, and float32's are rounded
# to them before use
same_digest "bfloat16: conditions of a file, the same weights" from_own "$one"
same_digest "bfloat16: ... in float32 too" from_wide_own "$one"
same_digest "bfloat16: conditions of the CPU, the same in either type" \
    from_half_of_cpu "$(digest from_of_cpu)"
expect "bfloat16: ... which were encoded in float32" test \
    "$(digest from_of_cpu)" != "$one"

# --- the plan ----------------------------------------------------------------------------
# planned KEY DTYPE: bytes of a line of the plan's memory
planned()
{
    "$cpu" plan configs/tiny.cfg --json "$work/plan.json" \
        --set run.device=cuda --set run.dtype="$2" >/dev/null &&
        sed -n 's/.*"memory_bytes":{\([^}]*\)}.*/\1/p' "$work/plan.json" |
        tr , '\n' | sed -n 's/^"'"$1"'"://p'
}
expect "bfloat16: the plan halves the network" test \
    $((2 * $(planned network bfloat16))) = "$(planned network float32)"
same "bfloat16: the plan counts float32 masters" \
    "$(planned masters bfloat16)" "$(planned network float32)"

# --- what cannot be ------------------------------------------------------------------------
expect_code "bfloat16: the CPU has float32 only" 1 \
    'run.dtype = "bfloat16": only with run.device = "cuda"' ranks 2 "$cpu" \
    train configs/tiny.cfg --set run.dtype=bfloat16 --set run.dir="$work/none"
expect "bfloat16: the CPU has float32 only, one message" test \
    "$(grep -c '^ERROR' "$work/out")" = 1
exit $bad
