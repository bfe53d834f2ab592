#!/bin/bash
# run.attention and run.convolution = "cudnn" with GPU and library emulated: a run
# keeps its bits whatever ranks, micro-batches, graphs and interruptions are; bits
# are other than own kernels', and theirs again where the library has no engine.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
dtype=bfloat16 # of on_gpu
theirs=run.attention=cudnn

# --- one run --------------------------------------------------------------------
expect "cudnn: the tiny run ends" on_gpu 1 one $theirs
one=$(digest one)
expect "cudnn: its ratio is exactly 1" ratio_is_one one 3
expect "cudnn: its memory used is memory planned" equal_bytes one 3
expect "cudnn: the log says which shapes are cuDNN's, once" test \
    "$(grep -c "queries, [0-9]* keys: cuDNN's engine" "$work/one/log.txt")" = 1
expect "cudnn: and which are not, and why" grep -q \
    "own kernels, not cuDNN's: it is causal" "$work/one/log.txt"
no_warning "cudnn: no warning" "$work/one/log.txt"
expect "cudnn: the same in own kernels" on_gpu 1 own
own=$(digest own)
expect "cudnn: bits of its own" test -n "$own" -a "$own" != "$one"

# --- batches, ranks, graphs, other streams' order --------------------------------
expect "cudnn: two ranks, other batches, recomputed" on_gpu 2 two $theirs \
    trajectory.every=0 grpo.micro_batch=3 parallel.recompute=true
same_digest "cudnn: two ranks, other batches, same weights" two "$one"
expect "cudnn: two ranks, ratio 1" ratio_is_one two 3
expect "cudnn: without graphs" on_gpu 1 walked $theirs trajectory.every=0 \
    parallel.graphs=false
same_digest "cudnn: without graphs, same weights" walked "$one"

# --- stopped, resumed, replayed ----------------------------------------------------
on_gpu 1 late $theirs run.max_seconds=1e-3 trajectory.every=0
expect "cudnn: a stopped run ends with exit code 75" test $? = 75
expect "cudnn: it goes on" on_gpu 1 late $theirs trajectory.every=0
same_digest "cudnn: stopped and resumed, the same weights" late "$one"
expect "cudnn: an iteration's file is replayed" "$gpu" replay \
    "$work/one/trajectories/iter_000002.h5"
on_gpu 1 other $theirs run.max_seconds=1e-3 trajectory.every=0
on_gpu 1 other trajectory.every=0
expect "cudnn: going on with other attention is warned of" grep -q \
    "^WARN.*attention by cuDNN 9.19.0" "$work/other.out"

# --- other networks ----------------------------------------------------------------
few="sampler.steps=3 run.iterations=1 grpo.prompts_per_iteration=1 evaluate.steps=1"
# shellcheck disable=SC2086
TINY=configs/tiny_unet.cfg on_gpu 1 unet $theirs $few report.prompts=1
expect "cudnn: tiny_unet, ratio 1" ratio_is_one unet 1
expect "cudnn: tiny_unet, words beside a map" grep -q \
    "keys: cuDNN's engine" "$work/unet/log.txt"

# --- what the library lacks ----------------------------------------------------------
for lack in nothing unordered forward; do
    CUDA_EMULATION_CUDNN=$lack on_gpu 1 $lack $theirs run.iterations=1 \
        trajectory.every=0
    same_digest "cudnn: a library of \"$lack\", own kernels' weights" $lack \
        "$(digest own 1)" 1
done
expect "cudnn: the log says why" grep -q \
    "own kernels, not cuDNN's: engine 6 sums in any order" \
    "$work/unordered/log.txt"

# --- convolutions ----------------------------------------------------------------------
convs=run.convolution=cudnn

# on_unet RUN [SET]...
on_unet()
{
    local run=$1
    shift
    # shellcheck disable=SC2086
    TINY=configs/tiny_unet.cfg on_gpu "${num_ranks:-1}" "$run" $few report.prompts=1 \
        policy.draw_all=true "$@"
}
expect "cudnn: convolutions, a run ends" on_unet conv $convs
conv=$(digest conv 1)
expect "cudnn: convolutions, ratio 1" ratio_is_one conv 1
expect "cudnn: convolutions, memory used is memory planned" equal_bytes conv 1
expect "cudnn: convolutions, the log says which" test \
    "$(grep -c "3 x 3 taps: cuDNN's engine 41" "$work/conv/log.txt")" -ge 5
expect "cudnn: and what bits depend on" grep -q \
    "convolutions by cuDNN 9.19.0" "$work/conv.out"
no_warning "cudnn: convolutions, no warning" "$work/conv/log.txt"
expect "cudnn: convolutions in own kernels" on_unet conv_own
own=$(digest conv_own 1)
expect "cudnn: convolutions have bits of their own" test -n "$own" -a "$own" != "$conv"
num_ranks=2 on_unet conv_two $convs trajectory.every=0 grpo.micro_batch=1 \
    parallel.recompute=true
same_digest "cudnn: convolutions, two ranks, other batches, same weights" conv_two \
    "$conv" 1
expect "cudnn: convolutions, two ranks, ratio 1" ratio_is_one conv_two 1
on_unet conv_walked $convs trajectory.every=0 parallel.graphs=false
same_digest "cudnn: convolutions without graphs, same weights" conv_walked "$conv" 1
CUDA_EMULATION_CUDNN=splits on_unet conv_lack $convs trajectory.every=0
same_digest "cudnn: a library that splits sums, own kernels' weights" conv_lack \
    "$own" 1
expect "cudnn: the log says which, and why" grep -q \
    "3 x 3 taps: own kernels, not cuDNN's: engine 10 splits its sums" \
    "$work/conv_lack/log.txt"
CUDA_EMULATION_CUDNN=uncaptured on_unet conv_graph $convs trajectory.every=0
expect "cudnn: a call that no graph keeps is told" grep -q \
    '^ERROR.*convolution by cuDNN: .*run.convolution = "own"' "$work/conv_graph.out"
expect "cudnn: both together" on_unet both $convs $theirs
expect "cudnn: both together, ratio 1" ratio_is_one both 1
expect "cudnn: both together have one room" equal_bytes both 1

# --- what cannot be --------------------------------------------------------------------
refuses()
{
    local name=$1 text=$2 key
    shift 2
    for key in $theirs $convs; do
        expect_code "cudnn: $name, ${key%=*}" 1 "${key%=*} = \"cudnn\": $text" \
            ranks 2 "$@" --set $key --set run.dir="$work/none"
        expect "cudnn: $name, ${key%=*}, one message" test \
            "$(grep -c '^ERROR' "$work/out")" = 1
    done
}
refuses "float32 has own kernels only" 'only with run.dtype = "bfloat16"' \
    "$gpu" train configs/tiny.cfg --set run.device=cuda
refuses "the CPU has its own" 'only with run.dtype = "bfloat16"' "$gpu" train \
    configs/tiny.cfg --set run.device=cpu
export CUDA_EMULATION_CUDNN=none
refuses "a machine without it" "no cuDNN 9 on this machine" "$gpu" train \
    configs/tiny.cfg --set run.device=cuda --set run.dtype=bfloat16
export CUDA_EMULATION_CUDNN=old
refuses "one too old" "this machine's cuDNN is 9.10.0; 9.19 or later is needed" \
    "$gpu" train configs/tiny.cfg --set run.device=cuda --set run.dtype=bfloat16
exit $bad
