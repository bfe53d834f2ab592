#!/bin/bash
# Commands that place networks on a GPU which is too small for them: refused
# before anything is placed, with what helps; and what they say they need is
# enough. The GPU is emulated.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

clip='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
# shellcheck disable=SC2086
on_cpu base $small run.iterations=1 trajectory.every=0
head -n 7 configs/prompts/shapes_train.jsonl >"$work/few.jsonl"
common=(--set run.device=cuda --set run.threads=1 --set evaluate.steps=1
    --set evaluate.seeds=1 --set evaluate.num_prompts=2)
weights=(--set policy.weights="$work/base/checkpoints/iter_000001.h5")

iteration=(--set grpo.num_generations=2 --set grpo.prompts_per_iteration=1
    --set sampler.steps=3 --set report.prompts=1)
judged=(--set "rewards=({ name=\"hpsv2\"; weight=0.7; $clip })")
steps=(--set pretrain.steps=1 --set pretrain.batch=2 --set pretrain.item_size=2
    --set pretrain.eval_every=1 --set optim.ema_decay=0.5)
prompts=(--set prompts.file="$work/few.jsonl" --set prompts.eval_file=)

# the commands, with sets of the caller's; each writes where it did before
train()
{
    rm -rf "$work/train"
    "$gpu" train configs/tiny.cfg "${common[@]}" --set run.dir="$work/train" \
        --set run.iterations=1 "${iteration[@]}" "$@"
}
# as many pictures as are planned
sample()
{
    "$gpu" sample configs/tiny.cfg --out "$work/sample.png" "${common[@]}" "${weights[@]}" "$@"
}
evaluate()
{
    "$gpu" evaluate configs/tiny.cfg "${common[@]}" "${weights[@]}" \
        "${judged[@]}" "$@"
}
pretrain()
{
    rm -rf "$work/pretrain"
    "$gpu" pretrain configs/tiny.cfg "${common[@]}" \
        --set run.dir="$work/pretrain" "${steps[@]}" "$@"
}
encode()
{
    "$gpu" encode configs/tiny.cfg "${common[@]}" \
        "${prompts[@]}" --set prompts.cache="$work/cache.h5" "$@"
}

# of an iteration that train wrote
replay() { "$gpu" replay "$work/train/trajectories/iter_000001.h5"; }
bench()
{
    "$gpu" bench configs/tiny.cfg "${common[@]}" --repeats 1 --product 16 "$@"
}

# with_memory BYTES command...: in $work/told how much it took at most
with_memory()
{
    local bytes=$1
    shift
    CUDA_EMULATION_TELL=1 CUDA_EMULATION_MEMORY=$bytes "$@" 2>&1 |
        tee "$work/told"
    return "${PIPESTATUS[0]}"
}
most()
{
    sed -n 's/^cuda emulation: \([0-9]*\) bytes of memory at most/\1/p' \
        "$work/told"
}

# MB that a refused command says it needs
figure()
{
    sed -n 's/^ERROR the plan takes \([0-9.]*\) MB of this GPU.*/\1/p' "$work/out"
}

# what the stream takes before anything is placed
with_memory 1000000000 bench --dry-run >/dev/null 2>&1
taken=$(most)
expect "room: a stream takes something" test "${taken:-0}" -gt 0

# room COMMAND ADVICE [SET]...
room()
{
    local name=$1 advice=$2
    shift 2
    expect_code "room: $name on a full GPU" 1 "less is needed with $advice" \
        with_memory $((taken + 10000)) "$name" "$@"
    expect "room: $name, one message" test "$(grep -c '^ERROR' "$work/out")" = 1
    expect "room: $name, nothing was placed" test "$taken" -gt 0 -a \
        "$(most)" = "$taken"
    needs=$(figure)
    expect "room: $name has room where it says so" with_memory "$(awk \
        "BEGIN { print int($taken + $later + 1e6 * (${needs:-0} + 0.08)) }")" "$name" "$@"
    expect "room: $name takes what it said" awk \
        "BEGIN { d = ($(most) - $taken) / 1e6 - ${needs:-0}
                 exit !(-0.08 < d && d < 0.08) }"
}

# planned OFFLOAD SET...: of `plan --gpus 1` the parts of a GPU added up, what it
# says they are together, in MB; OFFLOAD is none, sums or all; at $level
level=none
planned()
{
    local offload='"offload_optimizer":false,"offload_sums":false'
    [ "$1" = sums ] && offload=${offload/%false/true}
    [ "$1" = all ] && offload=${offload/false/true}
    shift
    "$cpu" plan configs/tiny.cfg --gpus 1 --json "$work/plan.json" \
        --set run.device=cuda "${iteration[@]}" "$@" >/dev/null &&
        tr '{' '\n' <"$work/plan.json" |
        grep "\"shard\":\"$level\",$offload" | tr -d '"}]' | tr ',' '\n' |
            awk -F: '/^(weights|masters|gradient|sums|moments|ema|activations|rest):/ { sum += $2; n++ }
                     /^gpu:/ { gpu = $2 }
                     /^activations:/ { step = $2 }
                     END { if (n == 8) print sum / 1e6, gpu / 1e6, step / 1e6 }'
}

# foretold COMMAND OFFLOAD SET...: the bytes that `plan --command` says it takes
# of a GPU are those that it took at last, but for a worker's numbers, and for a
# byte wherever there is nothing, as for what a replay's learner lacks
numbers=1792
foretold()
{
    local command=$1 offload='"offload_optimizer":false,"offload_sums":false' gpu_bytes nothing
    [ "$2" = sums ] && offload=${offload/%false/true}
    [ "$2" = all ] && offload=${offload/false/true}
    shift 2
    "$gpu" plan configs/tiny.cfg --command "$command" --gpus 1 \
        --json "$work/plan.json" "${common[@]}" "$@" >/dev/null
    gpu_bytes=$(tr '{' '\n' <"$work/plan.json" |
        grep "\"shard\":\"none\",$offload" | sed -n 's/.*"gpu":\([0-9]*\).*/\1/p')
    nothing=1
    [ "$command" = replay ] && nothing=16
    expect "room: plan --command $command is what it takes" awk \
        "BEGIN { d = ${gpu_bytes:-0} - ($(most) - $taken - $numbers)
                 exit !(-$nothing <= d && d <= 0) }"
}

# trained OFFLOAD SET...: train's room, and that of `plan --gpus`, but for a
# step's, where the CPU's kernels, for which that counts, want other scratch.
helps="a smaller grpo.micro_batch, parallel.recompute = true"
trained()
{
    local offload=$1 sum whole step own
    shift
    room train "$helps" "$@"
    read -r sum whole step <<<"$(planned "$offload" "$@")"
    expect "room: plan --gpus, the parts are the whole" \
        awk "BEGIN { exit !(${sum:-0} > 0 && ${sum:-0} == ${whole:-1}) }"
    own=$(metric train plan_bytes)
    expect "room: plan --gpus is what train takes" \
        awk "BEGIN { d = ($(most) - $taken - ${own:-0}) / 1e6 - (${whole:-0} - ${step:-0})
                     exit !(-0.03 < d && d < 0.03) }"
}
trained none --set grpo.kl_beta=0.1
room replay "a larger GPU"
foretold replay none "${iteration[@]}" --set grpo.kl_beta=0.1
trained none --set run.dtype=bfloat16
trained none --set evaluate.every=1 --set evaluate.num_prompts=120
trained none --set optim.moments=int8
trained none --set parallel.offload_ema=true
trained sums --set parallel.offload_sums=true
trained sums --set parallel.offload_sums=true --set run.dtype=bfloat16 \
    --set optim.moments=int8
room train "a smaller grpo.micro_batch, parallel.recompute = true" \
    --set parallel.shard=gradients --set parallel.passes=together \
    --set parallel.offload_sums=true --set optim.moments=int8
trained all --set parallel.offload_optimizer=true
trained all --set parallel.offload_optimizer=true --set run.dtype=bfloat16 \
    --set optim.ema_decay=0

# a sample's gradient, whole, and block by block: by as much as it is less, but
# for blocks' inputs
level=gradients
helps="a smaller grpo.micro_batch"
blocks=(--set parallel.shard=gradients --set flux.num_single_layers=8
    --set parallel.recompute=true)
for offload in none sums all; do
    offloads=(--set parallel.offload_sums=false)
    [ $offload = sums ] && offloads=(--set parallel.offload_sums=true)
    [ $offload = all ] && offloads=(--set parallel.offload_optimizer=true)
    trained $offload "${blocks[@]}" "${offloads[@]}" \
        --set parallel.passes=apart
    apart=$(most)
    trained $offload "${blocks[@]}" "${offloads[@]}" \
        --set parallel.passes=together
    expect "room: a gradient that is never whole takes less" test \
        "$(most)" -lt $((apart - 200000))
    trained $offload "${blocks[@]}" "${offloads[@]}"
    together=$(most)
    expect "room: and is chosen" test "$together" -lt $((apart - 200000))
done
level=none

room sample "encoded prompts (prompts.cache), run.dtype = bfloat16"
foretold sample none
room sample "encoded prompts (prompts.cache), smaller pictures" \
    --set run.dtype=bfloat16
foretold sample none --set run.dtype=bfloat16
expect "room: sample in bfloat16 takes less for activations too" test \
    $(($(most) - taken)) -lt 3500000
"$cpu" encode configs/tiny.cfg --set run.threads=1 \
    --set prompts.cache="$work/all.h5" >/dev/null 2>&1
room sample "run.dtype = bfloat16, smaller pictures" \
    --set prompts.cache="$work/all.h5"
foretold sample none --set prompts.cache="$work/all.h5"
room evaluate "encoded prompts (prompts.cache), run.dtype = bfloat16"
foretold evaluate none "${judged[@]}"
item="a smaller pretrain.item_size, parallel.recompute = true"
room pretrain "$item"
foretold pretrain none "${steps[@]}"
sets=(--set run.dtype=bfloat16 --set optim.ema_decay=0)
room pretrain "$item" "${sets[@]}"
foretold pretrain none "${steps[@]}" "${sets[@]}"
room pretrain "$item" --set parallel.offload_optimizer=true
foretold pretrain all "${steps[@]}"
sets=(--set parallel.offload_sums=true --set optim.moments=int8)
room pretrain "$item" "${sets[@]}"
foretold pretrain sums "${steps[@]}" "${sets[@]}"
room encode "run.dtype = bfloat16, smaller pictures or networks" \
    --set t5.d_ff=4096
foretold encode none "${prompts[@]}" --set t5.d_ff=4096
room bench "run.dtype = bfloat16, smaller pictures or networks" \
    --set grpo.micro_batch=1
expect_code "room: bench, a product on a full GPU" 1 \
    "less is needed with a smaller --product" with_memory $((taken + 10000)) \
    bench --product 512

# --- ranks that share a GPU, which sees what each of them takes alone ----------------
shared()
{
    rm -rf "$work/shared"
    CUDA_EMULATION_DEVICES=1 CUDA_EMULATION_MEMORY=$1 ranks 2 "$gpu" train \
        configs/tiny.cfg "${common[@]}" --set run.dir="$work/shared" \
        --set run.iterations=1 "${iteration[@]}"
}
expect_code "room: two ranks on a full GPU" 1 "(ranks on it: 2), its driver up to \
$(awk "BEGIN { printf \"%.0f\", 2e-6 * $later }") MB" shared $((taken + 10000))
expect "room: fewer of them would help" grep -q \
    "less is needed with .*, fewer ranks on a GPU, " "$work/out"
needs=$(figure)
# share PART: of what both need, beside what the driver may take
share()
{
    awk "BEGIN { print int($taken + 2 * $later + 1e6 * $1 * (${needs:-0} + 0.08)) }"
}
expect_code "room: two ranks, for one of which there is room" 1 \
    "(ranks on it: 2)" shared "$(share 0.75)"
told() { CUDA_EMULATION_TELL=1 shared "$@" >"$work/told" 2>&1; }
expect "room: two ranks, for both of which there is" told "$(share 1)"
expect "room: which take what was said of both" awk \
    "BEGIN { d = ($(most | awk '{ sum += $1 } END { printf "%d", sum }') - \
                 2 * $taken) / 1e6 - ${needs:-0}
             exit !(-0.16 < d && d < 0.16) }"
# the main table of a plan for a GPU is of its kernels, one worker of them
unet=(configs/tiny_unet.cfg "${common[@]}" "${iteration[@]}" --set run.iterations=1
    --set grpo.updates_per_iteration=1 --set grpo.timestep_fraction=1)
"$gpu" train "${unet[@]}" --set run.dir="$work/unet" >"$work/out" 2>&1
"$gpu" plan "${unet[@]}" --set run.threads=2 --json "$work/plan.json" >>"$work/out" 2>&1
same "room: a plan for a GPU counts what it reserves" "$(metric unet plan_bytes)" \
    "$(sed -n 's/.*"worker_steps":\([0-9]*\).*/\1/p' "$work/plan.json")"
exit $bad
