#!/bin/bash
# pretrain on several ranks, on the CPU and on emulated GPUs: weights of which
# each rank keeps a range, checkpoints that are written beside the next step.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

slow_disk=$PWD/${DG_BUILD:-build}/tests/slow_disk.so
# the sanitizer's library is not the first then
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

# slowly COMMAND...: each sync of a file takes so many milliseconds longer
slowly() { SLOW_DISK_MS=40 LD_PRELOAD=$slow_disk "$@"; }

common=(pretrain.steps=3 pretrain.batch=6 pretrain.item_size=2
    pretrain.eval_every=2 evaluate.num_prompts=2 evaluate.seeds=1
    evaluate.steps=2 optim.ema_decay=0.5 optim.max_grad_norm=0.005
    checkpoint.every=1)

# pretrain PROGRAM RANKS RUN [SET]...: three steps
pretrain()
{
    local program=$1 n=$2 run=$3 set sets=()
    shift 3
    for set in "${common[@]}" "$@"; do sets+=(--set "$set"); done
    ranks "$n" "$program" pretrain "${TINY:-configs/tiny.cfg}" \
        --set run.threads=1 --set run.dir="$work/$run" "${sets[@]}" \
        >"$work/$run.out" 2>&1
}
on_host() { pretrain "$cpu" "$@"; }
on_gpus()
{
    local n=$1 run=$2
    shift 2
    # shellcheck disable=SC2086
    pretrain "$gpu" "$n" "$run" run.device=cuda ${dtype:+run.dtype=$dtype} "$@"
}

# weights RUN: SHA-256 of the file of weights that it ended with
weights() { "$cpu" inspect --digest "$work/$1/weights.h5" | cut -c 1-64; }

# same_end NAME RUN WANTED: the last checkpoint's arrays, the file of weights,
# and what the metrics say but for times
same_end()
{
    local file=checkpoints/iter_000003.h5
    expect "pretrain: $1, the same arrays" "$tools/same_arrays" \
        "$work/$2/$file" "$work/$3/$file"
    same_rest "$@"
}
same_rest()
{
    same "pretrain: $1, the same file of weights" "$(weights "$2")" \
        "$(weights "$3")"
    same "pretrain: $1, the same losses" "$(metric "$2" loss)" \
        "$(metric "$3" loss)"
    [ -e "$work/$2/weights.h5" ] || tail -n 5 "$work/$2.out"
}

ranges=parallel.shard=parameters

# --- weights in ranges, on the CPU -------------------------------------------------
expect "pretrain: the run of one rank" on_host 1 base
expect "pretrain: it is evaluated" test -n "$(grep 'held-out' "$work/base.out")"
on_host 1 alone $ranges
same_end "ranges on one rank" alone base
on_host 2 base2 $ranges
same_end "ranges on two ranks" base2 base
on_host 3 base3 $ranges parallel.recompute=true
same_end "ranges on three ranks, blocks again" base3 base
on_host 1 few pretrain.batch=2
on_host 3 few3 $ranges pretrain.batch=2
same_end "ranges, ranks without items" few3 few
on_host 3 parts $ranges run.max_seconds=1e-3
on_host 1 parts run.max_seconds=1e-3
expect "pretrain: stopped after two steps" test "$(last_checkpoint parts)" = 2
on_host 2 parts $ranges
same_end "other levels and rank counts in turn" parts base
# work RUN: GFLOP of its first step, of all ranks
work_of()
{
    paste -d' ' <(metric "$1" gflops) <(metric "$1" seconds) |
        awk 'NR == 1 { printf "%.5g", $1 * $2 }'
}
same "pretrain: gflops are of all ranks" "$(work_of base2)" "$(work_of base)"
on_host 1 seldom optim.ema_every=2 pretrain.steps=2
on_host 1 never optim.ema_every=9 pretrain.steps=1
# averaged RUN STEP: digest of the averaged weights of a checkpoint
averaged()
{
    "$cpu" convert "$work/$1/checkpoints/iter_00000$2.h5" --weights ema \
        --to "$work/$1.ema$2" >/dev/null 2>&1 &&
        "$cpu" inspect --digest "$work/$1.ema$2" | cut -c 1-64
}
untouched=$(averaged never 1)
same "pretrain: an average of every second update begins with the second" \
    "$(averaged seldom 1)" "$untouched"
expect "pretrain: it moves then, and without ema_every at once" bash -c \
    "[ $(averaged seldom 2) != $untouched ] && [ $(averaged base 1) != $untouched ]"
# halves FILE [OPTION]...: digest of its network in 16 bits
halves()
{
    rm -rf "$work/halves"
    "$cpu" convert "$@" --dtype float16 --to "$work/halves" >/dev/null 2>&1 &&
        "$cpu" inspect --digest "$work/halves" | cut -c 1-64
}
same "pretrain: the file of weights has the averaged ones" \
    "$(halves "$work/base/weights.h5")" \
    "$(halves "$work/base/checkpoints/iter_000003.h5" --weights ema)"
expect "pretrain: which are not the last ones" test "$(halves \
    "$work/base/checkpoints/iter_000003.h5")" != \
    "$(halves "$work/base/weights.h5")"
# what it says of the weights it ends with, by a reward without a strict score
by_reward=('rewards=({name="brightness";})' optim.lr=0.05 optim.ema_decay=0.9)
on_host 1 bright "${by_reward[@]}"
# mean_of FILE: of the pictures of these weights, to four digits
mean_of()
{
    local set sets=()
    for set in "${common[@]}" "${by_reward[@]}"; do sets+=(--set "$set"); done
    "$cpu" evaluate configs/tiny.cfg "${sets[@]}" --set run.threads=1 \
        --set policy.weights="$work/bright/$1" --json "$work/bright.json" \
        >/dev/null 2>&1
    sed 's/.*"reward":{"mean":\([^,]*\),.*/\1/; q' "$work/bright.json" |
        awk '{ printf "%.4f", $1 }'
}
expect "pretrain: the score is told of the averaged weights" awk -v \
    a="$(sed -n 's/^wrote.*(held-out reward \([0-9.]*\) .*/\1/p' \
        "$work/bright.out")" -v b="$(mean_of weights.h5)" \
    -v raw="$(mean_of checkpoints/iter_000003.h5)" \
    'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-6 && (a - raw) ^ 2 > 1e-4) }'
taught=(policy.weights="$work/base/weights.h5" pretrain.distill_cfg=2)
on_host 1 taught "${taught[@]}"
on_host 3 taught3 $ranges "${taught[@]}"
same_end "ranges, a teacher" taught3 taught
expect "pretrain: a teacher is not the pictures" test "$(digest taught)" != \
    "$(digest base)"
cp "$work/base/weights.h5" "$work/teacher.h5"
left=("${taught[@]}" policy.weights="$work/teacher.h5")
on_host 1 left "${left[@]}" run.max_seconds=1e-3
cp "$work/taught/weights.h5" "$work/teacher.h5"
on_host 2 left "${left[@]}"
expect "pretrain: a run does not go on with another teacher" grep -q \
    "iter_000001.h5: its run had other weights of the teacher, of" "$work/left.out"
cp "$work/base/weights.h5" "$work/teacher.h5"
on_host 2 left "${left[@]}"
same_end "with its own teacher" left taught
TINY=configs/tiny_unet.cfg on_host 1 unet
TINY=configs/tiny_unet.cfg on_host 3 unet3 $ranges
same_end "ranges, a U-Net" unet3 unet
# of gradients alone, which leave block by block
blocks="parallel.shard=gradients parallel.passes=together"
# shellcheck disable=SC2086
{
    on_host 1 blocks1 $blocks
    on_host 3 blocks3 $blocks parallel.recompute=true
    on_host 2 blocks2 $blocks run.threads=2
    on_host 3 fewblocks $blocks pretrain.batch=2
    on_host 2 whole2 parallel.shard=gradients parallel.passes=apart
}
same_end "gradients block by block, on one rank" blocks1 base
same_end "gradients block by block, on three, blocks again" blocks3 base
same_end "gradients block by block, of two workers each" blocks2 base
same_end "gradients block by block, ranks without items" fewblocks few
same_end "gradients whole" whole2 base
expect_code "pretrain: weights in ranges want one worker a rank" 1 \
    'parallel.shard = "parameters": run.threads = 2: must be 1' \
    mpirun --oversubscribe -n 2 "$cpu" pretrain configs/tiny.cfg \
    --set run.threads=2 --set run.dir="$work/threads" --set $ranges

# --- on emulated GPUs ----------------------------------------------------------------
on_gpus 1 gpu
CUDA_EMULATION_STREAMS=late on_gpus 2 gpu2 $ranges
same_end "GPUs, ranges ahead" gpu2 gpu
CUDA_EMULATION_STREAMS=early on_gpus 3 gpu3 $ranges parallel.recompute=true
same_end "GPUs, ranges ahead, blocks again" gpu3 gpu
no_warning "pretrain: GPUs, weights from GPU to GPU" "$work/gpu3.out"
on_gpus 2 behind $ranges parallel.ahead=false
same_end "GPUs, ranges when they are asked for" behind gpu
on_gpus 3 offload $ranges parallel.offload_optimizer=true
same_end "GPUs, ranges, offloaded" offload gpu
# shellcheck disable=SC2086
{
    CUDA_EMULATION_STREAMS=late on_gpus 2 gpublocks $blocks
    on_gpus 1 offblocks $blocks parallel.offload_optimizer=true
}
same_end "GPUs, gradients leave behind their blocks" gpublocks gpu
same_end "one GPU, gradients to the host block by block" offblocks gpu
CUDA_EMULATION_DEVICES=1 on_gpus 2 shared $ranges
same_end "ranges, two ranks on one GPU" shared gpu
dtype=bfloat16
on_gpus 1 half "${taught[@]}"
on_gpus 2 half2 $ranges "${taught[@]}" run.max_seconds=1e-3
on_gpus 3 half2 $ranges "${taught[@]}"
same_end "bfloat16, a teacher, stopped and continued on three" half2 half
on_gpus 2 split parallel.shard=optimizer "${taught[@]}"
same_end "bfloat16, a teacher, masters in ranges" split half
dtype=
# --- text encoders behind a network that ends on no boundary -----------------------------
odd=(unet.in_channels=3 'unet.block_out_channels=[8]' unet.down_block_types=DownBlock2D
    unet.up_block_types=UpBlock2D clip.intermediate=2 clip.layers=1
    pretrain.image_size=32 'rewards=({ name="brightness"; })' prompts.eval_file=)
short=(pretrain.steps=1 pretrain.batch=2 pretrain.item_size=1)
TINY=configs/tiny_unet.cfg
on_gpus 1 odd "${odd[@]}" "${short[@]}"
on_gpus 2 odd.lent "${odd[@]}" "${short[@]}" $ranges
same_digest "pretrain: GPUs, behind an odd network, the same weights, lent" \
    odd.lent "$(digest odd 1)" 1
# train's checkpoints have no padding before them: each reads the other's
on_host 1 file "${odd[@]}" "${short[@]}"
short+=(optim.lr=0)
# still NAME FILE: train from it, moving nothing
still()
{
    bin=$cpu tiny 1 1 "$1" "${odd[@]}" sampler.steps=2 grpo.num_generations=2 \
        grpo.prompts_per_iteration=1 grpo.timestep_fraction=1 run.iterations=1 \
        trajectory.every=0 optim.lr=0 policy.weights="$2"
}
still short "$work/file/weights.h5"
on_host 1 by.name "${odd[@]}" "${short[@]}" policy.weights="$work/file/weights.h5"
on_host 1 by.place "${odd[@]}" "${short[@]}" \
    policy.weights="$work/short/checkpoints/iter_000001.h5"
same_digest "pretrain: from a checkpoint of train, behind an odd network, the same" \
    by.place "$(digest by.name 1)" 1
still again "$work/by.place/checkpoints/iter_000001.h5"
same_numbers "pretrain: its checkpoint in train, behind an odd network, the same" \
    again short
TINY=
CUDA_EMULATION_FAIL=1:600 on_gpus 3 broken $ranges
expect "pretrain: a GPU fails: exit code 1" test $? = 1
expect "pretrain: a GPU fails: one message" test "$(grep -c \
    '^ERROR CUDA.*launch failure (found by rank 1)' "$work/broken.out")" = 1

# --- checkpoints beside the next step ---------------------------------------------------
# same_files NAME RUN WANTED: all checkpoints, and how it ended
same_files()
{
    local i
    for i in 1 2 3; do
        expect "pretrain: $1, the same checkpoint $i" "$tools/same_data" \
            "$work/$3/checkpoints/iter_00000$i.h5" \
            "$work/$2/checkpoints/iter_00000$i.h5"
    done
    same_rest "$@"
    expect "pretrain: $1, nothing half-written" no_unfinished "$2"
}
# beside RUN: the next step ran while a checkpoint was written
beside() { grep -q "^slow disk: others compute meanwhile" "$work/$1.out"; }
on_host 1 off parallel.write_beside=false
same_end "checkpoints between steps" off base
expect "pretrain: then nobody waits for them" test -z "$(metric off waiting)"
slowly on_host 1 slow
same_files "a slow disk" slow off
BUSY_DISK=1 LD_PRELOAD=$slow_disk on_host 1 busy pretrain.steps=2 \
    pretrain.batch=400
expect "pretrain: beside the next step" beside busy
slowly on_host 3 slow3 $ranges optim.ema_decay=0
on_host 1 off0 optim.ema_decay=0 parallel.write_beside=false
same_files "a slow disk, ranges, no average" slow3 off0
BUSY_DISK=1 CUDA_EMULATION_STREAMS=late slowly on_gpus 2 late $ranges
same_files "GPUs, a slow disk, ranges" late gpu
CUDA_EMULATION_STREAMS=early slowly on_gpus 1 early \
    parallel.offload_optimizer=true
same_files "GPUs, a slow disk, offloaded" early gpu
expect "pretrain: GPUs, beside the next step" beside late
DANCEGRPO_MPI_THREADS=funneled on_host 1 funneled
expect "pretrain: MPI asked for one thread alone, told once" test "$(grep -c \
    '^files are written between steps: MPI' "$work/funneled.out")" = 1
same_end "MPI asked for one thread alone" funneled base

# writes RUN N: its checkpoint of step N is being written
writes() { [ -e "$work/$1/checkpoints/iter_00000$2.h5.tmp" ]; }
bin=$cpu
slowly launch pretrain 2 1 killed "${common[@]}"
until_or_end writes killed 2
expect "pretrain: SIGKILL within a checkpoint" kill_run
expect "pretrain: SIGKILL, the one before is there" test \
    "$(last_checkpoint killed)" = 1
on_host 3 killed $ranges
same_files "SIGKILL, continued" killed off
slowly on_host 2 stopped run.max_seconds=1e-3
expect "pretrain: a stop waits for the checkpoint, exit code 75" test $? = 75
expect "pretrain: a stop waits for the checkpoint" "$tools/same_data" \
    "$work/off/checkpoints/iter_000001.h5" \
    "$work/stopped/checkpoints/iter_000001.h5"
# larger than what the disk takes; MPI wants 4 MB itself
large=t5.d_ff=4096
on_host 1 large $large
(
    trap '' XFSZ
    ulimit -f 4200
    slowly on_host 1 full $large
)
expect "pretrain: a full disk, exit code 1" test $? = 1
expect "pretrain: a full disk, one message that names the file" test "$(grep -c \
    '^ERROR' "$work/full.out") $(grep -c \
    '^ERROR .*checkpoints/iter_000001.h5.tmp: cannot' "$work/full.out")" = "1 1"
expect "pretrain: a full disk, nothing half-written" no_unfinished full
on_host 1 full $large
same_files "room again, continued" full large
bin=$gpu

# --- what is planned of a GPU -------------------------------------------------------
# plan_of RUN: MB that a refused run would take of a GPU, and MB that are free
plan_of()
{
    sed -n "s/^ERROR the plan takes \([0-9.]*\) MB of this GPU.* and \([0-9.]*\) MB of 36.0 MB are free;.*/\1 \2/p" "$work/$1.out"
}
# tight NAME RANKS [SET]...: a GPU of the plan's bytes and few more is enough,
# and one of fewer is not, to within a tenth of a megabyte
tight()
{
    local name=$1 n=$2 all unused most
    shift 2
    rm -rf "$work/tight" "$work/told"
    CUDA_EMULATION_MEMORY=36000000 on_gpus "$n" tight "$@"
    read -r all unused <<<"$(plan_of tight)"
    CUDA_EMULATION_TELL=1 CUDA_EMULATION_MEMORY=$(awk \
        "BEGIN { print int($later + 1e6 * (36 - ${unused:-0} + ${all:-0} + 0.1)) }") \
        on_gpus "$n" told "$@"
    expect "pretrain: $name, a GPU of what is planned is large enough" test $? = 0
    most=$(sed -n 's/^cuda emulation: \([0-9]*\) bytes of memory at most/\1/p' \
        "$work/told.out" | sort -n | tail -n 1)
    expect "pretrain: $name, what is planned is taken" awk \
        "BEGIN { d = ${most:-0} / 1e6 - (36 - ${unused:-0} + ${all:-0})
                 exit !(-0.1 < d && d < 0.1) }"
}
tight "ranges ahead" 3 $ranges
# shellcheck disable=SC2086
tight "gradients block by block" 2 $blocks
dtype=bfloat16
tight "bfloat16, ranges, a teacher" 2 $ranges "${taught[@]}" \
    parallel.ahead=false
dtype=
exit $bad
