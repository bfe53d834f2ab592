#!/bin/bash
# The recipes for public weights, which are not here: each is understood,
# stops at the folder that is not there, and can be planned all the same.
. "$(dirname "$0")/lib.sh"

# figure RECIPE TABLE KEY: of the plan
figure()
{
    sed 's/.*"'"$2"'":{\([^}]*\)}.*/\1/' "$work/$1.json" |
        sed 's/.*"'"$3"'":\([0-9]*\).*/\1/'
}

# about NAME VALUE WANTED: within 1 %
about()
{
    expect "$1" awk -v v="$2" -v w="$3" \
        'BEGIN { print v, w; exit !(v > 0.99 * w && v < 1.01 * w) }'
}

# recipe NAME FOLDER RANKS
recipe()
{
    expect_code "recipe $1: names the weights that are not there" 1 \
        "policy.path = \"$2\": there is no such folder" "$bin" train "configs/$1.cfg" --dry-run
    expect "recipe $1: one message" test \
        "$(grep -c '^ERROR' "$work/out")" = 1
    expect_code "recipe $1: config, which says so" 0 \
        "policy.path = \"$2\" is not here" "$bin" config "configs/$1.cfg"
    expect_code "recipe $1: plan, which says so" 0 \
        "policy.path = \"$2\" is not there" "$bin" plan "configs/$1.cfg" \
        --ranks "$3" --json "$work/$1.json"
}

recipe flux_hps /models/FLUX.1-dev 16
recipe flux_8gpu /models/FLUX.1-dev 8
recipe flux_lora /models/FLUX.1-dev 8
recipe sd14_hps /models/stable-diffusion-v1-4 8
recipe flux_flow_fast /models/FLUX.1-dev 32
recipe flux_mix /models/FLUX.1-dev 32

# published sizes and operations
expect "recipe flux_hps: parameters of FLUX.1-dev" test \
    "$(figure flux_hps parameters network)" = 11901408320
expect "recipe flux_hps: parameters of its decoder" test \
    "$(figure flux_hps parameters codec)" = 49545475
about "recipe flux_hps: a forward pass" \
    "$(figure flux_hps flops rollout)" 37.3e12
about "recipe flux_hps: a picture" "$(figure flux_hps flops decode)" 5.04e12
about "recipe flux_hps: rollouts, 16 x 12 samples of 15 steps, 16 first ones" \
    "$(figure flux_hps flops iteration_rollout)" \
    $((16 * (12 * 15 + 1) * 373))e11
about "recipe flux_hps: updates, 9 steps of each, recomputed" \
    "$(figure flux_hps flops iteration_update)" $((16 * 12 * 9 * 1514))e11
# adapters add two small products: 4 of 19 blocks for 2025 image tokens, 3 of
# 38 for 2537
lora=$((2 * 2 * 128 * 3072 * (19 * 4 * 2025 + 38 * 3 * 2537) / 100000000000))
about "recipe flux_lora: rollouts, 11 steps and the first" \
    "$(figure flux_lora flops iteration_rollout)" \
    $((16 * (12 * 11 + 1) * (373 + lora)))e11
about "recipe flux_lora: what adapters add to a step" \
    $(($(figure flux_lora flops rollout) - $(figure flux_hps flops rollout))) \
    $((2 * 2 * 128 * 3072 * (19 * 4 * 2025 + 38 * 3 * 2537)))
expect "recipe flux_lora: parameters of rank 128" test \
    "$(figure flux_lora parameters trained)" = \
    $(((3 * 57 + 19) * 2 * 128 * 3072))
# all products of the double blocks, three of the single ones
expect "recipe flux_flow_fast: parameters of rank 64" test \
    "$(figure flux_flow_fast parameters trained)" = \
    $((64 * 3072 * (19 * (8 * 2 + 4 * 5) + 38 * 3 * 2)))
about "recipe flux_flow_fast: updates, 3 steps of 48 x 24 samples, recomputed" \
    "$(figure flux_flow_fast flops iteration_update)" $((48 * 24 * 3 * 498))e11
about "recipe flux_mix: updates, 4 steps of 32 x 12 samples, recomputed" \
    "$(figure flux_mix flops iteration_update)" $((32 * 12 * 4 * 1514))e11
expect "recipe flux_8gpu: averaged weights" test \
    "$(figure flux_8gpu memory_bytes ema)" = $((4 * 11901408320))
expect "recipe sd14_hps: parameters of the U-Net" test \
    "$(figure sd14_hps parameters network)" = 859520964
expect "recipe sd14_hps: parameters of CLIP" test \
    "$(figure sd14_hps parameters text)" = 123060480
expect "recipe sd14_hps: parameters of its decoder" test \
    "$(figure sd14_hps parameters codec)" = $((49490179 + 20))
about "recipe sd14_hps: two forward passes" \
    "$(figure sd14_hps flops rollout)" 1.606e12
about "recipe sd14_hps: a picture" "$(figure sd14_hps flops decode)" 2.51e12

# a plan without a folder is of the public sizes, a run is not
expect_code "recipe sd14_hps: evaluate needs the folder" 1 \
    "there is no such folder" "$bin" evaluate configs/sd14_hps.cfg

# every configuration can be planned, and begins where its weights are here
for config in configs/*.cfg; do
    command=train
    [[ $config != *pretrain* ]] || command=pretrain
    expect_code "recipe ${config##*/}: plan" 0 "Parameters" "$bin" plan "$config" \
        --command $command
    case $config in
    *pretrain_* | */flux* | */sd14* | */sizes*) continue ;;
    esac
    expect_code "recipe ${config##*/}: $command --dry-run" 0 "nothing was computed" \
        "$bin" $command "$config" --dry-run --set run.dir="$work/run"
done
exit $bad
