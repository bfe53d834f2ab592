#!/bin/bash
# Rewards with a network keep the promises, from the command line; weights that
# are not there are told before anything is computed.
. "$(dirname "$0")/train_lib.sh"
clip='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
both="rewards=({ name=\"hpsv2\"; weight=0.7; $clip }, { name=\"clip\"; weight=1.4; $clip })"

expect "clip: a run" tiny 1 1 whole "$both"
whole=$(digest whole)
expect "clip: the ratio is 1, exactly, in every iteration" test \
    "$(metric whole ratio_max_deviation | tr '\n' ' ')" = "0 0 0 "
expect "clip: peak_bytes is plan_bytes" equal_bytes whole
expect "clip: scores differ within every group" test \
    "$(metric whole zero_std_groups | tr '\n' ' ')" = "0 0 0 "
expect "clip: scores are cosines, none is missing" test "$(grep -cE \
    '"hpsv2":\{"mean":-?0[^,]*,"std":[^,]*,"missing":0\},"clip":\{"mean":-?0[^,]*,"std":[^,]*,"missing":0\}' \
    "$work/whole/metrics.jsonl")" = 3
tiny 2 1 two "$both"
same_digest "clip: two ranks, the same weights" two "$whole"
tiny 3 2 three "$both" grpo.micro_batch=1
same_digest "clip: three ranks of two threads, the same weights" three "$whole"
tiny 1 1 late "$both" run.max_seconds=1e-3
expect "clip: stopped after one iteration" test "$(last_checkpoint late)" = 1
expect "clip: continued" tiny 1 1 late "$both"
same_digest "clip: continued, the same weights" late "$whole"
cp -r tests/golden/clip_tiny "$work/gone"
expect "clip: a run on a copy" tiny 1 1 moved "${both//tests\/golden\/clip_tiny/$work/gone}"
same_digest "clip: a run on a copy, the same weights" moved "$whole"
rm -r "$work/gone"
expect "clip: replay, without the networks" "$bin" replay \
    "$work/moved/trajectories/iter_000002.h5"
tiny 1 1 other "rewards=({ name=\"pickscore\"; $clip })"
expect "clip: another reward, other weights" test "$(digest other)" != "$whole"

expect_code "clip: evaluate" 0 "all" "$bin" evaluate configs/tiny.cfg \
    --set "$both" --set policy.weights="$work/whole/checkpoints/iter_000003.h5"
expect_code "clip: the plan knows the networks" 0 "weights: rewards" "$bin" \
    plan configs/tiny.cfg --set "$both"

# --- a network that reads no texts, and rewards without one -----------------------
looks="rewards=({ name=\"aesthetic\"; path=\"tests/golden/clip_tiny\"; head=\"tests/golden/head_tiny.pth\"; },
    { name=\"jpeg_size\"; weight=-1.0; quantize=\"trunc\"; }, { name=\"colourfulness\"; },
    { name=\"brightness\"; target=0.5; })"
expect "looks: a run" tiny 1 1 looks "$looks"
expect "looks: the ratio is 1, exactly, in every iteration" test \
    "$(metric looks ratio_max_deviation | tr '\n' ' ')" = "0 0 0 "
expect "looks: peak_bytes is plan_bytes" equal_bytes looks
expect "looks: none is missing" test "$(grep -cE \
    '"aesthetic":\{"mean":[1-9][^,]*,"std":[^,]*,"missing":0\},"jpeg_size":\{"mean":[1-9]\.[^,]*,"std":[^,]*,"missing":0\},"colourfulness":\{"mean":[1-9][^,]*,"std":[^,]*,"missing":0\},"brightness":\{"mean":-0[^,]*,"std":[^,]*,"missing":0\}' \
    "$work/looks/metrics.jsonl")" = 3
# libjpeg's vector code is left alone: the same pictures have the same size
JSIMD_FORCENONE=1 tiny 2 1 looks2 "$looks"
same_digest "looks: two ranks, the same weights" looks2 "$(digest looks)"
tiny 3 2 looks3 "$looks" grpo.micro_batch=1
same_digest "looks: three ranks of two threads, the same weights" looks3 "$(digest looks)"
expect "looks: replay, without the networks" "$bin" replay \
    "$work/looks/trajectories/iter_000002.h5"
expect_code "looks: evaluate" 0 "all" "$bin" evaluate configs/tiny.cfg \
    --set "$looks" --set policy.weights="$work/looks/checkpoints/iter_000003.h5"
expect_code "looks: the plan knows the network" 0 "weights: rewards" "$bin" \
    plan configs/tiny.cfg --set "${looks//head_tiny/none}"

# --- weights that do not serve ------------------------------------------------
# refused NAME TEXT REWARD [ARGUMENT]: exit code 1, one message with the text
refused()
{
    local name=$1 text=$2 reward=$3
    shift 3
    expect_code "clip: $name" 1 "$text" "$bin" train configs/tiny.cfg \
        --set run.dir="$work/refused" --set "rewards=({ $reward })" "$@"
    expect "clip: $name, one message" test "$(grep -c '^ERROR' "$work/out")" = 1
}

words='tokenizer="tests/golden/sd_tiny/tokenizer";'
refused "no path" "rewards[0].path" 'name="hpsv2";'
refused "no such file" "$work/HPS_v2.1_compressed.pt" \
    "name=\"hpsv2\"; path=\"$work/HPS_v2.1_compressed.pt\"; $words"
refused "no such file, dry run" "$work/HPS_v2.1_compressed.pt" \
    "name=\"hpsv2\"; path=\"$work/HPS_v2.1_compressed.pt\"; $words" --dry-run
refused "no such file, nor words" "rewards[0].path" \
    'name="hpsv2"; path="none/HPS.pt"; tokenizer="none/tokenizer";'
# a bit of a value: what only the archive's checksum can tell
cp tests/golden/clip_tiny/{open_clip.pt,config.json} "$work"
printf '\x5a' | dd of="$work/open_clip.pt" bs=1 seek=118000 conv=notrunc status=none
refused "a damaged file" "open_clip.pt: member open_clip/data/41: CRC-32 is" \
    "name=\"hpsv2\"; path=\"$work/open_clip.pt\"; $words"
refused "no folder of words" "tokenizer folder none/tokenizer: No such file" \
    'name="hpsv2"; path="tests/golden/clip_tiny"; tokenizer="none/tokenizer";'
refused "no words" "rewards[0].tokenizer" \
    'name="pickscore"; path="tests/golden/clip_tiny";'
refused "not this network's weights" "clip_tiny" \
    "name=\"hpsv2\"; path=\"tests/golden/clip_tiny\"; model=\"ViT-L-14\"; $words"

looks='name="aesthetic"; path="tests/golden/clip_tiny";'
refused "no head" "rewards[0].head = \"\": must name" "$looks"
refused "no such head, dry run" "rewards[0].head = \"none.pth\": No such file" \
    "$looks head=\"none.pth\";" --dry-run
refused "a head of other features" "layers.0.weight is [20, 24], must be [20, 768]" \
    "$looks model=\"ViT-L-14\"; head=\"tests/golden/head_tiny.pth\";"
refused "a head that is something else" "layers.0.weight" \
    "$looks head=\"tests/golden/clip_tiny/open_clip.pt\";"
refused "a head with words" "rewards[0].tokenizer" \
    "$looks head=\"tests/golden/head_tiny.pth\"; $words"
exit $bad
