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
# their seeds lie at other places each time
few="run.iterations=1 trajectory.every=0 report.prompts=1 evaluate.steps=1
    sampler.steps=3 grpo.timestep_fraction=1 grpo.micro_batch=1
    grpo.prompts_per_iteration=1"
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
expect "graphs: guidance, the second pass is trained" test \
    "$(digest one 1)" != "$(digest plain 1)"
expect "graphs: guidance, its second pass is replayed" test \
    $(($(launches "$work/both.out") - $(launches "$work/one.out"))) = 3

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
for family in tiny_sd tiny_flux; do
    sample $family run false
    expect "graphs: $family, pictures" sample $family replayed true
    expect "graphs: $family, two of three are replayed" test \
        "$(launches "$work/told")" = 2
    expect "graphs: $family, the same pictures" cmp "$work/run.png" \
        "$work/replayed.png"
done
evaluate run false >/dev/null
expect "graphs: a reward's network" evaluate replayed true
expect "graphs: a reward's network, two of three are replayed too" test \
    "$(launches "$work/told")" = 4
expect "graphs: a reward's network, the same scores" cmp "$work/run.json" \
    "$work/replayed.json"
# beside the rollout, on a stream of their own: check_cuda_overlap.sh
exit $bad
