#!/bin/bash
# parallel.shard and parallel.offload_optimizer: what a rank holds changes, no
# bit does: on one to three ranks, on the CPU and on emulated GPUs, in one run
# and in runs that go on with other levels.
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu about=shard

# the norm is above it in every update, so that all ranks' part of it counts
clip=optim.max_grad_norm=0.005

# --- on the CPU ------------------------------------------------------------------
expect "shard: the run of one rank" tiny 1 1 base $clip
for at in "1 1 optimizer" "2 1 optimizer" "3 2 optimizer" "1 2 gradients apart" \
    "2 2 gradients apart" "3 1 gradients apart" "1 1 gradients together" \
    "1 3 gradients together" "2 2 gradients together" \
    "2 1 gradients together" "3 1 gradients together" "1 2 parameters" \
    "2 1 parameters" "3 1 parameters"; do
    read -r ranks threads level passes <<<"$at"
    run=$level$ranks$threads$passes
    expect "shard: $at" tiny "$ranks" "$threads" "$run" $clip \
        parallel.shard="$level" parallel.passes="${passes:-auto}"
    same_arrays "$at" "$run" base
    expect "shard: $at, memory used is memory planned" equal_bytes "$run" 3
done
same "shard: a norm that is of all ranks" \
    "$(metric gradients31apart grad_norm)" "$(metric base grad_norm)"
for file in optimizer32 gradients31apart gradients22together parameters31; do
    expect "shard: replay of $file on one rank" "$bin" replay \
        "$work/$file/trajectories/iter_000002.h5"
    expect "shard: replay of $file on two" ranks 2 "$bin" replay --threads 2 \
        "$work/$file/trajectories/iter_000003.h5"
done

# --- other levels and rank counts, part by part ----------------------------------
# part RANKS LEVEL RUN ITERATION [SET]...: one more iteration, then a stop
part()
{
    local n=$1 level=$2 run=$3 wanted=$4
    shift 4
    tiny "$n" 1 "$run" parallel.shard="$level" run.max_seconds=1e-3 \
        $clip "$@"
    expect "shard: $level on $n ranks, stopped after $wanted" test \
        "$(last_checkpoint "$run")" = "$wanted"
}
part 3 gradients parts 1 parallel.passes=apart
part 1 none parts 2
expect "shard: continued on two ranks" tiny 2 1 parts $clip \
    parallel.shard=optimizer
same_arrays "three levels in turn" parts base

part 2 gradients others 1 parallel.passes=together
part 3 parameters others 2
expect "shard: continued with weights in other ranges" tiny 2 1 others $clip \
    parallel.shard=parameters
same_arrays "weights in ranges, in turn" others base

# --- weights in ranges: what they are made of, and who has nothing to do -----------
many="flux.num_layers=2 flux.num_single_layers=3 grpo.kl_beta=0.1"
# shellcheck disable=SC2086
{
    tiny 1 1 many $clip $many
    expect "shard: parameters, blocks again, two networks" tiny 3 1 many3 \
        $clip $many parallel.shard=parameters parallel.recompute=true \
        grpo.micro_batch=1
    expect "shard: gradients together, blocks again, two networks" tiny 2 1 \
        many2 $clip $many parallel.shard=gradients parallel.passes=together \
        parallel.recompute=true grpo.micro_batch=1
}
same_arrays "parameters, blocks again, two networks" many3 many
same_arrays "gradients together, blocks again, two networks" many2 many
for run in many3 many2; do
    expect "shard: blocks again, memory used is memory planned" equal_bytes \
        $run 3
done
few="grpo.prompts_per_iteration=1 grpo.num_generations=2 grpo.updates_per_iteration=1"
# shellcheck disable=SC2086
{
    tiny 1 1 few $clip $few
    expect "shard: parameters, a rank without items" tiny 3 1 few3 $clip $few \
        parallel.shard=parameters
    expect "shard: gradients together, a rank without items" tiny 3 2 few2 \
        $clip $few parallel.shard=gradients parallel.passes=together
}
same_arrays "parameters, a rank without items" few3 few
same_arrays "gradients together, a rank without items" few2 few
TINY=configs/tiny_unet.cfg
tiny 1 1 unet $clip run.iterations=2
expect "shard: parameters, a U-Net guided both ways" tiny 3 1 unet3 $clip \
    parallel.shard=parameters run.iterations=2
expect "shard: gradients together, a U-Net guided both ways" tiny 2 1 unet2 \
    $clip parallel.shard=gradients parallel.passes=together run.iterations=2
unset TINY
for run in unet3 unet2; do
    same_arrays "$run, a U-Net guided both ways" $run unet 2
    expect "shard: guided both ways, memory used is memory planned" \
        equal_bytes $run 2
done
wild="optim.lr=1 optim.weight_decay=10 run.iterations=4"
# shellcheck disable=SC2086
{
    tiny 1 1 wild $wild
    tiny 3 1 wild3 $wild parallel.shard=parameters
    tiny 2 2 wild2 $wild parallel.shard=gradients parallel.passes=together
}
for run in wild3 wild2; do
    same_digest "shard: $run, NaN: all ranks go the same way" $run \
        "$(digest wild 4)" 4
    expect "shard: $run, NaN names sample, rank and layer" grep -qE \
        "^WARN  iteration [0-9]+, .*sample [0-9]+.*, rank [0-9]: layer .* not finite" \
        "$work/$run.out"
done

# --- a rank that has less memory than the others: all end, whoever was to meet -------
# of the emulated GPU's program: a real one's libraries alone take more
cat >"$work/poor" <<END
#!/bin/bash
[ "\$OMPI_COMM_WORLD_RANK" != 1 ] || ulimit -v \$most_kib -c 0
exec "$gpu" "\$@"
END
chmod +x "$work/poor"
# ends_poor KIB LEVEL: with so much address space for the second of two ranks
ends_poor()
{
    most_kib=$1 timeout -k 2 60 mpirun --oversubscribe -x most_kib -n 2 \
        "$work/poor" train configs/tiny.cfg --dry-run --set run.threads=1 \
        --set run.dir="$work/poor.run" --set parallel.shard="$2" \
        --set parallel.passes=together --set flux.num_heads=16 \
        --set flux.head_dim=32 --set flux.axes_dims='[8, 12, 12]' \
        --set flux.num_single_layers=3 >"$work/poor.out" 2>&1
    [ $? = 1 ] && [ "$(grep -c '^ERROR .*: out of memory (found by rank 1)' "$work/poor.out")" = 1 ]
}
# not where it starts with more than that, as under a sanitizer
if (ulimit -v 350000 && ASAN_OPTIONS='' LSAN_OPTIONS='' TSAN_OPTIONS='' \
    "$gpu" --version >/dev/null 2>&1); then
    expect "shard: a rank without memory for its state" ends_poor 450000 gradients
    expect "shard: a rank without memory for a gradient" ends_poor 650000 gradients
fi

# --- a damaged checkpoint is passed over by all ranks ------------------------------
tiny 2 1 torn $clip parallel.shard=optimizer run.iterations=2
"$tools/plant" "$work/torn/checkpoints/iter_000002.h5" flip arrays/adam_v 60000
expect "shard: goes on before a damaged moment" tiny 3 1 torn $clip \
    parallel.shard=gradients run.iterations=2
expect "shard: the damaged one is named" grep -q \
    "^WARN .*iter_000002.h5: dataset arrays/adam_v: SHA-256" "$work/torn.out"
same_arrays "after a damaged moment" torn base 2

# --- fewer blocks than ranks, floats, pretraining ----------------------------------
lora="policy.weights=$work/base/checkpoints/iter_000003.h5 lora.rank=2 run.iterations=2"
# shellcheck disable=SC2086
{
    tiny 1 1 lora1 $lora
    expect "shard: adapters, ranks without a range" tiny 4 1 lora4 $lora \
        parallel.shard=gradients
    expect "shard: adapters over weights in ranges" tiny 3 1 lora3 $lora \
        parallel.shard=parameters
}
same_arrays "adapters" lora4 lora1 2
same_arrays "adapters over weights in ranges" lora3 lora1 2
for passes in apart together; do
    tiny 2 1 inexact$passes $clip parallel.exact_sum=false \
        parallel.shard=gradients parallel.passes=$passes run.iterations=1
    expect "shard: float sums, $passes, near the exact ones" "$tools/close" \
        "$work/inexact$passes/checkpoints/iter_000001.h5" \
        "$work/base/checkpoints/iter_000001.h5" 1e-4
done
sets=(pretrain.steps=3 pretrain.batch=8 pretrain.item_size=2
    pretrain.eval_every=2 evaluate.num_prompts=2 evaluate.steps=2)
launch pretrain 1 1 first "${sets[@]}"
wait "$pid"
launch pretrain 3 1 first.three "${sets[@]}" parallel.shard=gradients
wait "$pid"
same_digest "shard: pretraining" first.three "$(digest first)"
# file_weights RUN: of the weights that pretraining ends with, averaged ones
file_weights()
{
    [ -e "$work/$1/weights.h5" ] || tail -n 5 "$work/$1.out"
    "$bin" inspect --digest "$work/$1/weights.h5" | cut -c 1-64
}
expect "shard: pretraining, the same averaged weights" test \
    "$(file_weights first)" = "$(file_weights first.three)"

# --- on emulated GPUs ----------------------------------------------------------------
bin=$gpu
# on_gpus RANKS LEVEL OFFLOAD RUN [SET]...
on_gpus() { small_on_gpus "${@:1:4}" $clip "${@:5}"; }
expect "shard: one GPU" on_gpus 1 none false gpu trajectory.every=1
for at in "2 optimizer false" "3 gradients false" "1 none true" \
    "2 optimizer true" "3 gradients true apart" "1 gradients true together" \
    "2 gradients false together" "3 gradients true together" \
    "2 parameters false" "3 parameters true" "1 none sums" \
    "2 optimizer sums" "3 gradients sums apart" "3 gradients sums together" \
    "2 parameters sums"; do
    read -r ranks level offload passes <<<"$at"
    run=gpu$level$ranks$offload$passes
    expect "shard: GPUs, $at" on_gpus "$ranks" "$level" "$offload" "$run" \
        parallel.passes="${passes:-auto}"
    same_arrays "GPUs, $at" "$run" gpu 2
done
for at in "1 none false" "1 gradients sums" "2 optimizer sums" "2 parameters false"; do
    read -r ranks level offload <<<"$at"
    run=ema$level$ranks$offload
    on_gpus "$ranks" "$level" "$offload" "$run" parallel.offload_ema=true
    same_arrays "GPUs, EMA on the host, $at" "$run" gpu 2
done
# two whole groups keep three ranks waiting, which is told
sed -i '/^WARN .*ranks wait for each other in updates/d' "$work/gpugradients3false.out"
no_warning "shard: GPUs, sums and weights from GPU to GPU" \
    "$work/gpugradients3false.out"
export CUDA_EMULATION_DEVICES=1
for level in optimizer gradients parameters; do
    on_gpus 2 $level false shared$level
    same_arrays "two ranks on one GPU, $level" shared$level gpu 2
done
on_gpus 2 gradients false sharedblocks parallel.passes=together
same_arrays "two ranks on one GPU, gradients together" sharedblocks gpu 2
unset CUDA_EMULATION_DEVICES
on_gpus 2 gradients true late run.max_seconds=1e-3
expect "shard: GPUs, stopped after one iteration" test \
    "$(last_checkpoint late)" = 1
on_gpus 1 none false late
same_arrays "GPUs, offloaded, stopped, continued as it is" late gpu 2
expect "shard: GPUs, replay" "$gpu" replay \
    "$work/gpu/trajectories/iter_000002.h5"

# float32 masters of bfloat16 weights: a rank's range of them, or the host's
b16=run.dtype=bfloat16
on_gpus 1 none false b16 $b16
for at in "2 optimizer false" "3 gradients true" "2 gradients false together" \
    "2 parameters false" "1 none sums" "2 gradients sums"; do
    read -r ranks level offload passes <<<"$at"
    run=b16$level$ranks$offload$passes
    on_gpus "$ranks" "$level" "$offload" "$run" $b16 trajectory.every=2 \
        parallel.passes="${passes:-auto}"
    same_arrays "GPUs, bfloat16, $at" "$run" b16 2
done
export CUDA_EMULATION_DEVICES=1
on_gpus 2 gradients false b16shared $b16
unset CUDA_EMULATION_DEVICES
same_arrays "two ranks on one GPU, bfloat16" b16shared b16 2
expect "shard: replay of bfloat16 in ranges" "$gpu" replay \
    "$work/b16gradients3true/trajectories/iter_000002.h5"

# with conditions that are read the text encoders stay on the host
"$gpu" encode configs/tiny.cfg --set run.threads=1 \
    --set prompts.cache="$work/cache.h5" >/dev/null 2>&1
cached=prompts.cache=$work/cache.h5
on_gpus 1 none false cached "$cached" grpo.kl_beta=0.1
expect "shard: GPUs, conditions that are read" on_gpus 2 gradients true \
    cached2 "$cached" grpo.kl_beta=0.1
same_arrays "GPUs, conditions that are read" cached2 cached 2

expect "shard: GPUs, conditions that are read, weights in ranges" on_gpus 3 \
    parameters false cached3 "$cached" grpo.kl_beta=0.1
same_arrays "GPUs, weights in ranges" cached3 cached 2

# a GPU that fails while others wait for its weights or want to give it theirs
for at in "350 parameters" "600 parameters" "330 gradients" "375 gradients"; do
    read -r launch level <<<"$at"
    CUDA_EMULATION_FAIL=1:$launch on_gpus 3 "$level" false broken$launch \
        parallel.passes=together
    expect "shard: $level: a GPU fails at launch $launch: exit code 1" test $? = 1
    expect "shard: $level: a GPU fails at launch $launch: one message" test \
        "$(grep -c '^ERROR CUDA.*launch failure (found by rank 1)' \
            "$work/broken$launch.out")" = 1
done

for at in "1 none false" "2 gradients true"; do
    read -r ranks level offload <<<"$at"
    launch pretrain "$ranks" 1 "first.gpu$ranks" "${sets[@]}" run.device=cuda \
        parallel.shard="$level" parallel.offload_optimizer="$offload"
    wait "$pid"
done
expect "shard: pretraining on GPUs, the same averaged weights" test \
    "$(file_weights first.gpu1)" = "$(file_weights first.gpu2)"
same_arrays "pretraining on GPUs" first.gpu2 first.gpu1

# what a GPU has to hold: between the plans with and without the state on it
needs()
{
    CUDA_EMULATION_MEMORY=36000000 on_gpus 1 none "$1" "needs$1"
    sed -n "s/^ERROR the plan takes \([0-9.]*\) MB of this GPU.* and \([0-9.]*\) MB of 36.0 MB are free;.*/\1 \2/p" \
        "$work/needs$1.out"
}
read -r all unused <<<"$(needs false)"
read -r less unused <<<"$(needs true)"
expect "shard: the plan takes less of a GPU when offloaded" \
    awk "BEGIN { exit !($less + 0.5 < $all) }"
between=$(awk "BEGIN { print int($later + 1e6 * (36 - $unused + ($all + $less) / 2)) }")
export CUDA_EMULATION_MEMORY=$between
on_gpus 1 none false small run.iterations=1
expect "shard: a GPU that is too small for the state" grep -q \
    "^ERROR the plan takes $all MB of this GPU" "$work/small.out"
expect "shard: and large enough without" on_gpus 1 none true enough \
    run.iterations=1
unset CUDA_EMULATION_MEMORY

# weights in ranges: a GPU of the plan's bytes and no more than a few spare ones
CUDA_EMULATION_MEMORY=36000000 on_gpus 3 parameters false tight
read -r all unused <<<"$(sed -n "s/^ERROR the plan takes \([0-9.]*\) MB of this GPU.* and \([0-9.]*\) MB of 36.0 MB are free;.*/\1 \2/p" "$work/tight.out")"
CUDA_EMULATION_MEMORY=$(awk "BEGIN { print int($later + 1e6 * (36 - $unused + $all + 0.15)) }")
export CUDA_EMULATION_MEMORY
expect "shard: parameters: a GPU of what is planned is large enough" on_gpus 3 \
    parameters false tight
unset CUDA_EMULATION_MEMORY

# --- what cannot be --------------------------------------------------------------------
bin=$cpu
expect_code "shard: no offloading on the CPU" 1 \
    'parallel.offload_optimizer = true: must be false with run.device = "cpu"' \
    "$cpu" train configs/tiny.cfg --set parallel.offload_optimizer=true
expect_code "shard: nor of the EMA alone" 1 \
    'parallel.offload_ema = true: must be false with run.device = "cpu"' \
    "$cpu" train configs/tiny.cfg --set parallel.offload_ema=true
expect_code "shard: nor of sums alone" 1 \
    'parallel.offload_sums = true: must be false with run.device = "cpu"' \
    "$cpu" train configs/tiny.cfg --set parallel.offload_sums=true
expect_code "shard: weights in ranges want one worker a rank" 1 \
    'parallel.shard = "parameters": run.threads = 2: must be 1' \
    mpirun --oversubscribe -n 2 "$cpu" train configs/tiny.cfg \
    --set run.dir="$work/none" --set run.threads=2 \
    --set parallel.shard=parameters
expect_code "shard: so do float sums of passes that go back together" 1 \
    'parallel.passes = "together": run.threads = 2: must be 1 with' "$cpu" \
    train configs/tiny.cfg --set run.dir="$work/none" --set run.threads=2 \
    --set parallel.shard=gradients --set parallel.passes=together \
    --set parallel.exact_sum=false
exit $bad
