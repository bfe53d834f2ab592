#!/bin/bash
# parallel.graphs with the GPU emulated: the bits are those of a run without,
# and so many passes are replayed as are alike: all but the first of a kind.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

# launches FILE: of graphs, as told there
launches()
{
    sed -n 's/^cuda emulation: \([0-9]*\) launches of graphs/\1/p' "$1"
}

# --- the empty prompt's second pass ---------------------------------------------
# 2 samples of 2 trained steps are 4 passes, which detach_uncond does without;
# their seeds lie at other places each time. Without pictures of held-out prompts,
# whose steps are replayed as well
few="run.iterations=1 trajectory.every=0 prompts.eval_file= sampler.steps=3
    grpo.timestep_fraction=1 grpo.micro_batch=1 grpo.prompts_per_iteration=1"
export CUDA_EMULATION_TELL=1
# shellcheck disable=SC2086
{
    TINY=configs/tiny_eps.cfg on_gpu 1 plain $few parallel.graphs=false
    TINY=configs/tiny_eps.cfg on_gpu 1 both $few
    TINY=configs/tiny_eps.cfg on_gpu 1 one $few cfg.grad=detach_uncond
}
unset CUDA_EMULATION_TELL
expect "graphs: guidance, nothing is replayed without" test \
    "$(launches "$work/plain.out")" = 0
same_digest "graphs: guidance, the same weights" both "$(digest plain 1)" 1
expect "graphs: guidance, the second pass is trained" test -n "$(digest one 1)" -a \
    "$(digest one 1)" != "$(digest plain 1)"
expect "graphs: guidance, its second pass is replayed" test \
    $(($(launches "$work/both.out") - $(launches "$work/one.out"))) = 3

# --- prompts ---------------------------------------------------------------------
# 16 passes of a prompt's samples, of which all prompts' first ones alone are run
more="run.iterations=1 trajectory.every=0 prompts.eval_file= sampler.steps=3
    grpo.timestep_fraction=1 grpo.micro_batch=1 grpo.num_generations=2
    grpo.updates_per_iteration=1"
# shellcheck disable=SC2086
{
    TINY=configs/tiny_flux.cfg on_gpu 1 four $more grpo.prompts_per_iteration=4 \
        parallel.graphs=false
    export CUDA_EMULATION_TELL=1
    TINY=configs/tiny_flux.cfg on_gpu 1 alone $more grpo.prompts_per_iteration=1
    TINY=configs/tiny_flux.cfg on_gpu 1 share $more grpo.prompts_per_iteration=4
    unset CUDA_EMULATION_TELL
}
same_digest "graphs: four prompts, the same weights" share "$(digest four 1)" 1
same "graphs: four prompts have those of one" \
    $(($(launches "$work/share.out") - $(launches "$work/alone.out"))) $((3 * 16))

# --- decoding, and rewards' networks ----------------------------------------------
clip='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
net="rewards=({ name=\"hpsv2\"; weight=0.7; $clip }, { name=\"brightness\"; })"
common=(--set run.device=cuda --set run.threads=1 --set evaluate.steps=1)
sample()
{
    CUDA_EMULATION_TELL=1 "$gpu" sample "configs/$1.cfg" "a red circle" --seeds 3 --out \
        "$work/$2.png" "${common[@]}" --set parallel.graphs="$3" 2>"$work/told"
}
evaluate()
{
    CUDA_EMULATION_TELL=1 "$gpu" evaluate configs/tiny_sd.cfg "${common[@]}" \
        --set evaluate.seeds=3 --set evaluate.num_prompts=1 --set "$net" --json "$work/$1.json" \
        --set parallel.graphs="$2" 2>"$work/told"
}
# of tiny_sd, which is guided, the empty prompt's encoding too
for at in "tiny_sd 3" "tiny_flux 2"; do
    read -r family replays <<<"$at"
    sample "$family" run false
    expect "graphs: $family, pictures" sample "$family" replayed true
    expect "graphs: $family, two of three are replayed" test \
        "$(launches "$work/told")" = "$replays"
    expect "graphs: $family, the same pictures" cmp "$work/run.png" \
        "$work/replayed.png"
done
evaluate run false >/dev/null
expect "graphs: a reward's network" evaluate replayed true
expect "graphs: a reward's network, two of three are replayed too" test \
    "$(launches "$work/told")" = 5
expect "graphs: a reward's network, the same scores" cmp "$work/run.json" \
    "$work/replayed.json"

# --- text encoders ---------------------------------------------------------------
head -n 7 configs/prompts/shapes_train.jsonl >"$work/few.jsonl"
# encode FILE GRAPHS [SET]...: seven prompts and the empty one
encode()
{
    local file=$1 graphs=$2 config=$3
    CUDA_EMULATION_TELL=1 "$gpu" encode "configs/$config.cfg" \
        --set run.device=cuda --set run.threads=1 \
        --set prompts.file="$work/few.jsonl" --set prompts.eval_file= \
        --set prompts.cache="$work/$file" --set parallel.graphs="$graphs" \
        2>"$work/told"
}
cache_digest() { "$cpu" inspect --digest "$work/$1" | cut -c 1-64; }
for config in tiny tiny_sd; do
    encode run.h5 false $config >/dev/null
    expect "graphs: $config, encode" encode replayed.h5 true $config
    expect "graphs: $config, encode, all but the first are replayed" test \
        "$(launches "$work/told")" = 7
    same "graphs: $config, encode, the same conditions" \
        "$(cache_digest run.h5)" "$(cache_digest replayed.h5)"
done

# --- pretraining -------------------------------------------------------------------
# pretrain RUN GRAPHS [SET]...: six items of two steps, each forward and back
pretrain()
{
    local run=$1 graphs=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    CUDA_EMULATION_TELL=1 "$gpu" pretrain "${TINY:-configs/tiny.cfg}" \
        --set run.device=cuda --set run.threads=1 \
        --set run.dir="$work/$run" --set pretrain.steps=2 \
        --set pretrain.batch=6 --set pretrain.item_size=2 \
        --set prompts.eval_file= --set parallel.graphs="$graphs" \
        "${sets[@]}" >"$work/$run.out" 2>&1
}
# replayed NAME WANTED [SET]...: launches of graphs, and the bits without
replayed()
{
    local name=$1 wanted=$2
    shift 2
    rm -rf "$work/slow" "$work/fast"
    pretrain slow false "$@"
    pretrain fast true "$@"
    expect "graphs: pretrain, $name, nothing is replayed without" test \
        "$(launches "$work/slow.out")" = 0
    expect "graphs: pretrain, $name, all but the first are replayed" test \
        "$(launches "$work/fast.out")" = "$wanted"
    same_digest "graphs: pretrain, $name, the same weights" fast \
        "$(digest slow 2)" 2
}
replayed velocity 10
replayed "blocks again" 10 parallel.recompute=true
# times are data of a step, whatever is made of them
replayed data 10 policy.prediction=data
mv "$work/fast/weights.h5" "$work/base.h5"
replayed "a teacher" 21 policy.weights="$work/base.h5" \
    pretrain.distill_cfg=2 policy.prediction=data run.dtype=bfloat16
TINY=configs/tiny_unet.cfg replayed "a U-Net" 10
# beside the rollout, on a stream of their own: check_cuda_overlap.sh
exit $bad
