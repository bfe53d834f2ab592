#!/bin/bash
# Gradients to sums of the host's (parallel.offload_sums) on several ranks, with
# the GPU emulated: a block's sum goes between ranks and down while the block
# before is gone back through. The bits of sums that stay on the GPU.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

# rooms are used again from the third block on
together=(parallel.passes=together flux.num_layers=2 flux.num_single_layers=2)
down() { small_on_gpus "$@" "${together[@]}"; }
early() { [ "$(metric "$1" early_sums | tail -n 1)" -gt 0 ]; }

down 1 gradients false one
want=$(digest one 2)
for at in "2 gradients sums late" "3 parameters sums early" \
    "2 parameters true late" "3 gradients true early"; do
    read -r ranks level offload streams <<<"$at"
    run=$level$ranks$offload
    CUDA_EMULATION_STREAMS=$streams down "$ranks" "$level" "$offload" "$run"
    same_digest "down: $at" "$run" "$want" 2
    expect "down: $at, blocks leave early" early "$run"
done
# of ranks that share a GPU by a thread, from host to host
export CUDA_EMULATION_DEVICES=1
for at in "2 gradients sums early" "3 parameters sums late"; do
    read -r ranks level offload streams <<<"$at"
    run=shared$level
    CUDA_EMULATION_STREAMS=$streams down "$ranks" "$level" "$offload" "$run"
    same_digest "down: one GPU, $at" "$run" "$want" 2
    expect "down: one GPU, $at, blocks leave early" early "$run"
done
DANCEGRPO_MPI_THREADS=funneled down 2 gradients sums funneled
same_digest "down: one GPU, where MPI serves one thread" funneled "$want" 2
expect "down: one GPU, where MPI serves one thread: it is told" grep -q \
    "gradients go to the host between blocks: MPI serves" "$work/funneled.out"
unset CUDA_EMULATION_DEVICES
down 2 gradients sums waits parallel.overlap=false
same_digest "down: waited for" waits "$want" 2
expect "down: waited for, nothing leaves early" test -z \
    "$(metric waits early_sums)"

# a gradient that no sum can take, in some updates: of one rank, told alike
without()
{
    sed 's/"seconds":{[^}]*},//; s/"gflops":[^,]*,//; s/"early_sums":[0-9]*,//
        s/"traffic":{[^}]*},//; s/"plan_bytes":[0-9]*,//; s/"peak_bytes":[0-9]*,//; s/"ranks":[0-9]*,//' \
        "$work/$1/metrics.jsonl"
}
wild=(run.iterations=8 optim.lr=1 optim.weight_decay=10)
down 1 gradients false wild1 "${wild[@]}"
down 2 gradients sums wild2 "${wild[@]}"
CUDA_EMULATION_DEVICES=1 down 2 gradients sums wild3 "${wild[@]}"
expect "down: some gradients are none" grep -q '"skipped_updates":1' \
    "$work/wild1/metrics.jsonl"
expect "down: NaN is set aside as ever" test -n "$(without wild1)" -a \
    "$(without wild1)" = "$(without wild2)" -a "$(without wild1)" = \
    "$(without wild3)"

# a GPU that fails on the way back, while others wait for its sums
launches=$(CUDA_EMULATION_TELL=1 down 3 gradients sums tells && sed -n \
    's/.*: \([0-9]*\) launches on device 1$/\1/p' "$work/tells.out")
for at in 40 60 90; do
    CUDA_EMULATION_FAIL=1:$((launches * at / 100)) down 3 gradients sums fails
    expect "down: a GPU fails at $at %: exit code 1" test $? = 1
    expect "down: a GPU fails at $at %: one message" test \
        "$(grep -c '^ERROR CUDA.*launch failure' "$work/fails.out")" = 1
    rm -rf "$work/fails"
done
CUDA_EMULATION_DEVICES=1 CUDA_EMULATION_FAIL=0:$((launches * 6 / 10)) \
    down 2 gradients sums fails
expect "down: a GPU that ranks share fails: exit code 1" test $? = 1
expect "down: a GPU that ranks share fails: one message" test \
    "$(grep -c '^ERROR CUDA.*launch failure' "$work/fails.out")" = 1

# a GPU of what is planned, where a stream has taken something, and a worker's
# numbers are not counted
taken=$(CUDA_EMULATION_MEMORY=1000000000 CUDA_EMULATION_TELL=1 "$gpu" bench \
    configs/tiny.cfg --repeats 1 --product 16 --dry-run --set run.device=cuda \
    --set run.threads=1 2>&1 |
    sed -n 's/^cuda emulation: \([0-9]*\) bytes of memory at most/\1/p')
numbers=1792
planned()
{
    local sets=() x
    for x in sampler.steps=3 grpo.num_generations=2 grpo.micro_batch=2 \
        grpo.prompts_per_iteration=2 report.prompts=1 evaluate.steps=1 \
        trajectory.every=0 run.device=cuda "${together[@]}"; do
        sets+=(--set "$x")
    done
    "$gpu" plan configs/tiny.cfg --gpus "$1" --json "$work/plan.json" \
        "${sets[@]}" >/dev/null
    tr '{' '\n' <"$work/plan.json" |
        sed -n "s/.*\"shard\":\"$2\",\"offload_optimizer\":false,\"offload_sums\":true,.*\"gpu\":\([0-9]*\).*/\1/p"
}
for at in "2 gradients" "3 parameters"; do
    read -r ranks level <<<"$at"
    needs=$(planned "$ranks" "$level")
    CUDA_EMULATION_TELL=1 CUDA_EMULATION_MEMORY=$((taken + later + ${needs:-0} + 80000)) \
        down "$ranks" "$level" sums tight
    expect "down: $at: a GPU of what is planned is large enough" test $? = 0
    most=$(sed -n 's/^cuda emulation: \([0-9]*\) bytes of memory at most/\1/p' \
        "$work/tight.out" | sort -n | tail -n 1)
    expect "down: $at: what is planned is what it takes" awk \
        "BEGIN { d = ${needs:-0} - (${most:-0} - $taken - $numbers)
                 exit !(-1 <= d && d <= 0) }"
    rm -rf "$work/tight"
done
exit $bad
