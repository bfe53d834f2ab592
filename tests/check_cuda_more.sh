#!/bin/bash
# What runs on a GPU besides training's own networks, the GPU emulated: rewards
# with a network, encode, pretrain; against the CPU's and on more ranks.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

# --- a decoder that overflows, by the check of its ops, which no graph has --------
wild=$work/wild
cp -r tests/golden/sd_tiny "$wild"
printf '\377\377\177\177' | dd bs=1 conv=notrunc seek=19084 2>/dev/null \
    of="$wild/vae/diffusion_pytorch_model.safetensors" # in decoder.conv_out.weight
expect_code "cuda: pictures that are not finite end the run" 1 "ERROR iteration 1: none \
of 8 pictures is finite" "$gpu" train configs/tiny_sd.cfg --set run.device=cuda \
    --set run.dir="$work/refused" --set policy.path="$wild" --set prompts.eval_file=
expect "cuda: which names the decoder's layer" grep -q \
    '^ERROR .*, sample 0: its picture is not finite: .* layer decoder.conv_out: ' \
    "$work/out"

# --- rewards with a network ----------------------------------------------------
clip='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
both="rewards=({ name=\"hpsv2\"; weight=0.7; $clip }, { name=\"brightness\"; }, { name=\"clip\"; weight=1.4; $clip }, { name=\"aesthetic\"; path=\"tests/golden/clip_tiny\"; head=\"tests/golden/head_tiny.pth\"; })"
set_rewards=("$both" run.iterations=1 trajectory.every=0)

# means RUN: of all rewards, a line each
means() { grep -o '"mean":[^,]*' "$work/$1/metrics.jsonl" | cut -d: -f2; }

# near_means RUN OTHER: within 1e-5 (one is above 1: relative), and of as many
near_means()
{
    [ "$(means "$1" | wc -l)" = 4 ] && paste <(means "$1") <(means "$2") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if ($2 > 1) d /= $2
               if (!(d <= 1e-5)) bad = 1 }
             END { exit bad || NR != 4 }'
}

on_cpu seen.host "${set_rewards[@]}"
expect "cuda rewards: a run" on_gpu 1 seen "${set_rewards[@]}"
expect "cuda rewards: the ratio is 1" ratio_is_one seen 1
expect "cuda rewards: none is missing" test \
    "$(grep -o '"missing":0' "$work/seen/metrics.jsonl" | wc -l)" = 4
expect "cuda rewards: memory used is memory planned" equal_bytes seen 1
expect "cuda rewards: the CPU's scores within 1e-5" near_means seen seen.host
expect "cuda rewards: the CPU's weights within 1e-5" near seen seen.host 1
for n in 2 3; do
    on_gpu $n seen$n "${set_rewards[@]}" grpo.micro_batch=$n
    same_digest "cuda rewards: $n ranks, the same weights" seen$n \
        "$(digest seen 1)" 1
done
evaluate()
{
    "$1" evaluate configs/tiny.cfg --set "$both" --set run.device="$2" \
        --set evaluate.steps=2 --set evaluate.seeds=1 \
        --set evaluate.num_prompts=4 --json "$work/$2.json" \
        --set policy.weights="$work/seen.host/checkpoints/iter_000001.h5"
}
expect "cuda rewards: evaluate" evaluate "$gpu" cuda
evaluate "$cpu" cpu >/dev/null 2>&1
first() { grep -o '"mean":[^,]*' "$work/$1.json" | head -n 1 | cut -d: -f2; }
expect "cuda rewards: evaluate, the CPU's score within 1e-5" awk \
    -v a="$(first cuda)" -v b="$(first cpu)" \
    'BEGIN { d = a - b; exit !(a != "" && d < 1e-5 && d > -1e-5) }'

# --- encode ----------------------------------------------------------------------
head -n 7 configs/prompts/shapes_train.jsonl >"$work/few.jsonl"
few=(prompts.file="$work/few.jsonl" prompts.eval_file= trajectory.every=0
    run.iterations=1)
# encode PROGRAM DEVICE RANKS FILE [SET]...
encode()
{
    local program=$1 device=$2 n=$3 file=$4 set sets=()
    shift 4
    for set in "$@"; do sets+=(--set "$set"); done
    ranks "$n" "$program" encode configs/tiny.cfg --set run.device="$device" \
        --set run.threads=1 --set prompts.file="$work/few.jsonl" \
        --set prompts.eval_file= --set prompts.cache="$work/$file" "${sets[@]}"
}
cache_digest() { "$cpu" inspect --digest "$work/$1" | cut -c 1-64; }
expect "cuda encode: a cache" encode "$gpu" cuda 1 one.h5
one=$(cache_digest one.h5)
for n in 2 3; do
    encode "$gpu" cuda $n $n.h5 >/dev/null 2>&1
    expect "cuda encode: $n ranks, the same bits" test "${#one}" = 64 -a \
        "$(cache_digest $n.h5)" = "$one"
done
on_gpu 1 plain "${few[@]}"
on_gpu 2 cached "${few[@]}" prompts.cache="$work/2.h5"
same_digest "cuda encode: trained from it, the same weights" cached \
    "$(digest plain 1)" 1
# behind a network of whose last layer there are three
odd=(unet.in_channels=3 'unet.block_out_channels=[8]' unet.down_block_types=DownBlock2D
    unet.up_block_types=UpBlock2D clip.intermediate=2 clip.layers=1
    pretrain.image_size=16 'rewards=({ name="brightness"; })' sampler.steps=2
    grpo.timestep_fraction=1 grpo.prompts_per_iteration=1)
TINY=configs/tiny_unet.cfg on_gpu 1 odd "${few[@]}" "${odd[@]}"
TINY=configs/tiny_unet.cfg on_gpu 2 lent "${few[@]}" "${odd[@]}" \
    parallel.shard=parameters
same_digest "cuda encode: by encoders that are lent, the same weights" lent \
    "$(digest odd 1)" 1
expect "cuda encode: behind an odd network, peak_bytes is plan_bytes" \
    equal_bytes odd 1
encode "$cpu" cpu 1 host.h5 >/dev/null 2>&1
expect "cuda encode: not the CPU's bits" test "$(cache_digest host.h5)" != "$one"

# --- pretrain ----------------------------------------------------------------------
# pretrain PROGRAM DEVICE RANKS RUN [SET]...
pretrain()
{
    local program=$1 device=$2 n=$3 run=$4 set sets=()
    shift 4
    for set in "$@"; do sets+=(--set "$set"); done
    ranks "$n" "$program" pretrain "${TINY:-configs/tiny.cfg}" \
        --set run.device="$device" --set run.threads=1 \
        --set run.dir="$work/$run" --set pretrain.steps=3 \
        --set policy.draw_all=false --set pretrain.batch=6 --set pretrain.item_size=2 \
        --set pretrain.eval_every=0 --set evaluate.num_prompts=2 \
        --set evaluate.seeds=1 --set evaluate.steps=2 \
        --set optim.ema_decay=0.5 "${sets[@]}" >"$work/$run.out" 2>&1
}
losses() { metric "$1" loss; }
near_losses()
{
    paste <(losses "$1") <(losses "$2") | awk \
        '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= 1e-5 * $2)) bad = 1 }
         END { exit bad || NR != 3 }'
}
pretrain "$cpu" cpu 1 base.host
expect "cuda pretrain: a run" pretrain "$gpu" cuda 1 base
expect "cuda pretrain: the CPU's losses within 1e-5" near_losses base base.host
expect "cuda pretrain: the CPU's weights within 1e-5" near base base.host 3
expect "cuda pretrain: not the CPU's bits" test "$(digest base)" != \
    "$(digest base.host)"
for n in 2 3; do
    pretrain "$gpu" cuda $n base$n
    same_digest "cuda pretrain: $n ranks, the same weights" base$n \
        "$(digest base)"
done
same "cuda pretrain: $n ranks, the same file of weights" "$(
    "$cpu" inspect --digest "$work/base/weights.h5" | cut -c 1-64)" "$(
    "$cpu" inspect --digest "$work/base3/weights.h5" | cut -c 1-64)"
pretrain "$gpu" cuda 1 late run.max_seconds=1e-3
expect "cuda pretrain: stopped after one step" test "$(last_checkpoint late)" = 1
expect "cuda pretrain: continued" pretrain "$gpu" cuda 2 late
same_digest "cuda pretrain: continued, the same weights" late "$(digest base)"
TINY=configs/tiny_eps.cfg pretrain "$cpu" cpu 1 eps.host
TINY=configs/tiny_eps.cfg pretrain "$gpu" cuda 1 eps parallel.recompute=true
expect "cuda pretrain: noise, the CPU's weights" near eps eps.host 3
# --- adapters with KL to what is below them -----------------------------------------
# its gradient is 0 at first and small after an update: a large weight shows it
lora=(policy.weights="$work/base.host/checkpoints/iter_000003.h5" lora.rank=2
    grpo.kl_beta=1000 run.iterations=2 trajectory.every=0)
on_cpu kl.host "${lora[@]}"
on_gpu 2 kl "${lora[@]}"
expect "cuda KL: adapters, ratio 1" ratio_is_one kl 2
expect "cuda KL: adapters, it is there" test "$(metric kl kl | grep -c '^[1-9]')" -ge 1
expect "cuda KL: adapters, the CPU's weights within 1e-5" near kl kl.host 2

# --- the same in bfloat16 --------------------------------------------------------------
half="run.dtype=bfloat16"
on_gpu 1 seen16 "${set_rewards[@]}" $half
on_gpu 2 seen16.2 "${set_rewards[@]}" $half grpo.micro_batch=1
expect "cuda bfloat16: rewards, the ratio is 1" ratio_is_one seen16 1
same_digest "cuda bfloat16: rewards, two ranks, the same weights" seen16.2 \
    "$(digest seen16 1)" 1
encode "$gpu" cuda 2 half.h5 $half >/dev/null 2>&1
expect "cuda bfloat16: encode, other bits" test "$(cache_digest half.h5)" != "$one"
on_gpu 1 plain16 "${few[@]}" $half
on_gpu 1 cached16 "${few[@]}" $half prompts.cache="$work/half.h5"
same_digest "cuda bfloat16: encode, trained from it, the same weights" cached16 \
    "$(digest plain16 1)" 1
pretrain "$gpu" cuda 1 base16 $half
pretrain "$gpu" cuda 3 base16.3 $half
same_digest "cuda bfloat16: pretrain, three ranks, the same weights" base16.3 \
    "$(digest base16)"
expect "cuda bfloat16: pretrain, masters are float32's within 1e-2" \
    "$tools/close" "$work/base16/checkpoints/iter_000003.h5" \
    "$work/base/checkpoints/iter_000003.h5" 1e-2

# --- bench ---------------------------------------------------------------------------
expect "cuda bench: the network" "$gpu" bench configs/tiny.cfg \
    --set run.device=cuda --set grpo.micro_batch=1 --repeats 1 --product 48 \
    --json "$work/bench.json"
expect "cuda bench: finite ratios on the screen" test "$(grep -cE \
    '^  forward( and backward)? .*: [0-9.e+-]+ of the machine.s rate, [0-9.e+-]+ of the bare' \
    "$work/expect.out")" = 2
expect "cuda bench: finite ratios" test "$(grep -oE \
    '"(ratio|of_machine|float32|TF32|bfloat16)":[0-9.e+-]+[,}]' \
    "$work/bench.json" | grep -vc ':0[,}]')" = 7
expect_code "cuda bench: what was measured before a GPU failed" 1 \
    "so far: network, forward: " env CUDA_EMULATION_FAIL=0:450 "$gpu" bench \
    configs/tiny.cfg --set run.device=cuda --set grpo.micro_batch=1 --repeats 1 \
    --product 48
expect_code "cuda bench: a network of any size, on too small a GPU" 1 \
    "less is needed with run.dtype = bfloat16, smaller" env \
    CUDA_EMULATION_MEMORY=40000000000 "$gpu" bench configs/sizes_flux_dev.cfg \
    --network --set run.device=cuda --repeats 1 --product 16

exit $bad
