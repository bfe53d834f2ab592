#!/bin/bash
# ImageReward keeps the promises, from the command line and on an emulated GPU;
# files that do not serve are told before anything is computed.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu
file='path="tests/golden/image_reward_tiny/ImageReward.pt";'
words='tokenizer="tests/golden/bert_small";'
both="rewards=({ name=\"imagereward\"; weight=0.5; $file $words }, { name=\"brightness\"; })"

expect "imagereward: a run" tiny 1 1 whole "$both"
whole=$(digest whole)
expect "imagereward: the ratio is 1, exactly, in every iteration" test \
    "$(metric whole ratio_max_deviation | tr '\n' ' ')" = "0 0 0 "
expect "imagereward: peak_bytes is plan_bytes" equal_bytes whole
expect "imagereward: scores differ within every group" test \
    "$(metric whole zero_std_groups | tr '\n' ' ')" = "0 0 0 "
expect "imagereward: none is missing" test "$(grep -cE \
    '"imagereward":\{"mean":-?[0-9][^,]*,"std":[^,]*,"missing":0\}' \
    "$work/whole/metrics.jsonl")" = 3
tiny 3 2 three "$both" grpo.micro_batch=1
same_digest "imagereward: three ranks of two threads, the same weights" three "$whole"
tiny 1 1 late "$both" run.max_seconds=1e-3
expect "imagereward: stopped after one iteration" test "$(last_checkpoint late)" = 1
expect "imagereward: continued" tiny 2 1 late "$both"
same_digest "imagereward: continued on two ranks, the same weights" late "$whole"
expect "imagereward: replay, without the networks" "$bin" replay \
    "$work/whole/trajectories/iter_000002.h5"
tiny 1 1 other "${both/$words/tokenizer=\"tests/golden/bert_small/vocab.txt\";}"
same_digest "imagereward: a vocabulary alone, the same weights" other "$whole"
expect_code "imagereward: evaluate" 0 "all" "$bin" evaluate configs/tiny.cfg \
    --set "$both" --set policy.weights="$work/whole/checkpoints/iter_000003.h5"
expect_code "imagereward: the plan knows the networks" 0 "weights: rewards" "$bin" \
    plan configs/tiny.cfg --set "$both"
# sizes alone, of the public file: 446.2 million values of 4 bytes
expect_code "imagereward: the plan of the public one, before it is there" 0 \
    "1784826756" "$bin" plan configs/tiny.cfg --set \
    'rewards=({ name="imagereward"; path="none/ImageReward.pt"; })'

# --- an emulated GPU ------------------------------------------------------------
bin=$gpu
few=("$both" run.iterations=1 trajectory.every=0)
on_cpu seen.host "${few[@]}"
expect "imagereward: a run on a GPU" on_gpu 1 seen "${few[@]}"
expect "imagereward: on a GPU, the ratio is 1" ratio_is_one seen 1
expect "imagereward: on a GPU, memory used is memory planned" equal_bytes seen 1
expect "imagereward: on a GPU, the CPU's weights within 1e-5" near seen seen.host 1
on_gpu 2 seen2 "${few[@]}" grpo.micro_batch=1
same_digest "imagereward: on two GPUs, the same weights" seen2 "$(digest seen 1)" 1
dtype=bfloat16 on_gpu 1 half "${few[@]}"
expect "imagereward: in bfloat16, the ratio is 1" ratio_is_one half 1
bin=$cpu

# --- files that do not serve ------------------------------------------------------
# refused NAME TEXT REWARD [ARGUMENT]: exit code 1, one message with the text
refused()
{
    local name=$1 text=$2 reward=$3
    shift 3
    expect_code "imagereward: $name" 1 "$text" "$bin" train configs/tiny.cfg \
        --set run.dir="$work/refused" \
        --set "rewards=({ name=\"imagereward\"; $reward })" "$@"
    expect "imagereward: $name, one message" test \
        "$(grep -c '^ERROR' "$work/out")" = 1
}

refused "no path" "rewards[0].path" "$words"
refused "no such file, dry run" "none.pt\": No such file" \
    "path=\"none.pt\"; $words" --dry-run
refused "a model by name" "rewards[0].model" "$file $words model=\"ViT-L-14\";"
refused "a scale" "rewards[0].scale" "$file $words scale=\"logit\";"
refused "no words" "rewards[0].tokenizer = \"\": tokenizer folder tests/golden" "$file"
refused "CLIP's words" "sd_tiny/tokenizer: not a BERT tokenizer" \
    "$file tokenizer=\"tests/golden/sd_tiny/tokenizer\";"
cp tests/golden/image_reward_tiny/* "$work"
printf '\x5a' | dd of="$work/ImageReward.pt" bs=1 seek=318000 conv=notrunc status=none
refused "a damaged file" "ImageReward.pt: member ImageReward/data/" \
    "path=\"$work/ImageReward.pt\"; $words"
rm "$work/config.json"
refused "a file of other sizes than the public one's" \
    "another shape (blip.visual_encoder.cls_token is [1, 1, 48], must be" \
    "path=\"$work/ImageReward.pt\"; $words"
exit $bad
