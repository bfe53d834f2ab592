#!/bin/bash
# What only a GPU can show, by one command, in less than 8 minutes: the kernels'
# tests, the tiny run's promises and its weights beside the CPU's, memory
# checked by compute-sanitizer, speed, PyTorch beside it. Prints one table.
# Runs in the folder that `make gpu-bundle CUDA=1` makes.
#   OUT        folder for table.txt, logs.txt and figures (results); what stood
#              in both before is in before.txt then
#   LIMIT      seconds for everything (460)
#   ONLY       pattern: only steps whose name matches
#   FULL=1     FLUX.1-dev's whole network is measured too (LIMIT=560 ONLY="bench*"),
#              at 1024 x 1024 with blocks run again, which 80 GB have room for
#   STEP=1     one update of a network of its size is made too: on a GPU of 141 GB,
#              with 128 GiB of the host (a LIMIT of 1000, or ONLY="update*" with one
#              of 600); STEP=half: of half its blocks, on one of 80 GB, with 64 GiB;
#              STEP=small tries it with a small one
#   QUICK=1    shorter runs, to try the script itself
#   PATIENCE   times a step's seconds, on a machine that others use too (1)
#   CUDA_HOME  where CUDA's libraries are looked for first
#   PYTHON     one that has PyTorch (python3)
# Exit code: 0 all passed, 1 something failed, 77 no GPU that can be used.
set -u
out=${OUT:-results}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1

# usable FOLDER: has room for runs, and programs may start there
usable()
{
    local left try=$1/dancegrpo.$$
    left=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${left:-0}" -ge 1000000 ] &&
        printf '#!/bin/sh\n' 2>/dev/null >"$try" && chmod +x "$try" && "$try" 2>/dev/null
    left=$?
    rm -f "$try"
    return $left
}
for folder in "${TMPDIR:-/tmp}" /var/tmp /dev/shm; do
    usable "$folder" && export TMPDIR=$folder && break
done
. "$(dirname "$0")/../train_lib.sh"
root=$PWD
ulimit -c 0 # a program's core is as large as what it has mapped of the GPU
limit=${LIMIT:-460}
table=$out/table.txt logs=$out/logs.txt
for file in "$table" "$logs"; do
    [ ! -e "$file" ] || cat "$file" >>"$out/before.txt"
done
rm -f "$table" "$logs"

# --- how the bundle's programs start -------------------------------------------
export OPAL_PREFIX=$root OPAL_BINDIR=$root/bin OPAL_LIBDIR=$root/lib
export OPAL_PKGLIBDIR=$root/mpi/plugins OPAL_PKGDATADIR=$root/mpi/share
export OPAL_DATADIR=$root/mpi/share OPAL_SYSCONFDIR=$root/mpi
export OMPI_MCA_mca_base_component_path=$root/mpi/plugins
# Open MPI asks for a home
export HOME=${HOME:-$work}
# all ranks are on this machine, which may have no ssh, and where a container may
# forbid that one process reads another's memory
export OMPI_MCA_plm=isolated OMPI_MCA_ess_singleton_isolated=1
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_pml=ob1
export PMIX_MCA_pcompress_base_silence_warning=1
export OMPI_MCA_btl_base_warn_component_unused=0
. "$(dirname "$0")/libraries.sh"

# --- steps ----------------------------------------------------------------------
# what_failed NUMBERS: of an output the test that failed first, and the first reason
# given; where there is neither, and no numbers, what it says first.
what_failed()
{
    awk -v none="${1:+1}" '/^\[  FAILED  \] test_/ && name == "" { name = $4 ": " }
        /^ERROR|ERROR   \] ---|error:|error while|cuda emulation:|dumped|Signal|Killed/ &&
            why == "" { why = $0 }
        /[a-zA-Z]/ && any == "" { any = $0 }
        END { all = name why; print all == "" && !none ? any : all }' | sed 's/\[  ERROR   \] --- //' | cut -c 1-150
}

# log FILE: among the logs, of more than a megabyte what comes first and last: what
# all steps say together has to come back from where the GPU is
log()
{
    if [ "$(wc -c <"$1")" -le 1000000 ]; then
        cat "$1"
    else
        head -c 300000 "$1"
        printf '\n-- and so on, until at last\n'
        tail -c 100000 "$1"
    fi >>"$logs"
}

# A GPU tells late of a kernel that failed, when somebody waits: once more, with
# each launch waited for, so that the one that fails is named.
blames_nobody() { grep -qaE 'CUDA: (waiting|wait |copy)' "$1"; }

# step NAME SECONDS COMMAND...: a row of the table; the command sets $numbers and
# returns 0, or 77 where there is nothing to do. Where three of the kernels' tests
# hang the others are not waited for as long: the rest is to have its time.
step()
{
    local name=$1 most=$2 began=$SECONDS left=$((limit - SECONDS)) rc verdict
    shift 2
    # shellcheck disable=SC2053
    [[ $name == ${ONLY:-*} ]] || return 0
    if [ "$left" -lt 2 ]; then
        bad=1
        printf '%-38s %-6s %5d s  %s\n' "$name" FAILED 0 "no time was left" |
            tee -a "$table"
        return 0
    fi
    [[ $name != kernels:* ]] || [ $late -lt 3 ] || most=10
    most=$((most * ${PATIENCE:-1}))
    [ "$most" -lt $left ] || most=$left
    export STEP_END=$(($(date +%s) + most))
    numbers=
    echo "== $name" >>"$logs"
    "$@" >"$work/step.out" 2>&1
    rc=$?
    log "$work/step.out"
    case $rc in
    0) verdict=ok ;;
    77) verdict=none ;;
    *)
        verdict=FAILED bad=1
        numbers="${numbers:+$numbers; }$(
            what_failed "$numbers" <"$work/step.out")"
        [ "$(date +%s)" -lt "$STEP_END" ] || {
            late=$((late + 1))
            numbers="more than $most s; last: $(grep -aE '\[ RUN |^so far: ' \
                "$work/step.out" | tail -n 1 | sed 's/.*\] //')"
        }
        ;;
    esac
    printf '%-38s %-6s %5d s  %s\n' "$name" $verdict $((SECONDS - began)) \
        "$numbers" | tee -a "$table"
}

# for commands that are not the bundle's
limited()
{
    local left=$((STEP_END - $(date +%s)))
    timeout -k 5 $((left > 1 ? left : 1)) "$@" # 0 would be without end
}

kernels()
{
    local rc
    "$work/bin/$1" >"$work/test.out" 2>&1 </dev/null
    rc=$?
    numbers="$(grep -c '^\[       OK' "$work/test.out") tests$(
        sed -n 's/^speed: /; /p' "$work/test.out" | tr -d '\n')"
    if [ $rc != 0 ] && blames_nobody "$work/test.out"; then
        CUDA_LAUNCH_BLOCKING=1 "$work/bin/$1" 2>&1 </dev/null
        echo "-- the same without CUDA_LAUNCH_BLOCKING=1"
    fi
    cat "$work/test.out"
    return $rc
}

# on DEVICE RUN [SET]...: a run, its output among the logs. Of weights that are
# drawn none is zero, so that all kernels' last bits are seen in the results.
on()
{
    local device=$1 run=$2 rc
    shift 2
    tiny "${num_ranks:-1}" 1 "$run" run.device="$device" trajectory.every=0 \
        policy.draw_all=true checkpoint.keep=1 report.prompts=1 evaluate.num_prompts=2 $brief "$@"
    rc=$?
    cp "$work/$run.out" "$work/first.out"
    if [ $rc != 0 ] && blames_nobody "$work/first.out"; then
        CUDA_LAUNCH_BLOCKING=1 tiny "${num_ranks:-1}" 1 "$run.blocking" \
            run.device="$device" trajectory.every=0 parallel.graphs=false \
            policy.draw_all=true \
            report.prompts=1 evaluate.num_prompts=2 $brief "$@"
        cat "$work/$run.blocking.out"
        echo "-- the same without CUDA_LAUNCH_BLOCKING=1"
    fi
    cat "$work/first.out"
    return $rc
}

# newest RUN: its last checkpoint
newest() { compgen -G "$work/$1/checkpoints/iter_*.h5" | sort | tail -n 1; }

# ratio_is_one RUN ITERATIONS
ratio_is_one()
{
    [ "$(metric "$1" ratio_max_deviation | grep -cx 0)" = "$2" ]
}

# beside NAME [SET]...: on the GPU and on the CPU, weights compared
beside()
{
    local name=$1 rc
    shift
    on cuda "$name" "$@" && on cpu "$name.cpu" "$@" || return 1
    numbers=$("$tools/close" "$(newest "$name")" "$(newest "$name.cpu")" 5e-5)
    rc=$?
    numbers="weights apart: ${numbers%%$'\n'*} of the largest"
    ratio_is_one "$name" "$(metric "$name" iteration | wc -l)" ||
        { numbers="$numbers; the ratio is not 1" rc=1; }
    return $rc
}

# ratio_in DTYPE MICRO_BATCH [SET]: is 1 in all iterations; the weights are those
# of the first
ratio_in()
{
    local type=$1 batch=$2 run=${DANCEGRPO_PRODUCTS:-}ratio_$1_$2${3:+_$3}
    shift 2
    on cuda "$run" run.iterations="$iterations" run.dtype="$type" \
        grpo.micro_batch="$batch" "$@" || return 1
    numbers="1 in $(metric "$run" ratio_max_deviation | grep -cx 0) iterations, "
    ratio_is_one "$run" "$iterations" && same_weights "$run"
}

# theirs KEY COMMAND...: with cuDNN's attention or convolutions, run.KEY
theirs()
{
    local rc key=$1
    shift
    [ -n "$cudnn" ] || { numbers="no cuDNN on this machine" && return 77; }
    "$@" "run.$key=cudnn"
    rc=$?
    [ $rc = 0 ] || ! grep -q 'cuDNN is .* or later is needed' "$work/step.out" ||
        { numbers="an older cuDNN" && return 77; }
    return $rc
}

# same_weights RUN: the bits of the first run that asked
same_weights()
{
    local got
    got=$(digest "$1" "$iterations") || return 1
    first=${first:-$got}
    numbers="${numbers}weights ${got:0:12}"
    [ "$got" = "$first" ]
}

# the kernels that stand in where cuBLASLt has none, which have weights of their own
own_products()
{
    local first=
    ratio_in bfloat16 1 && ratio_in bfloat16 12
}

# doctor_in DTYPE: what the program itself finds of this machine
doctor_in()
{
    local rc
    "$bin" doctor configs/tiny.cfg --set run.device=cuda --set run.dtype="$1" \
        --set run.dir="$work/none" >"$work/doctor.out" 2>&1
    rc=$?
    cat "$work/doctor.out"
    numbers=$(grep '^promises' "$work/doctor.out" | cut -c 18-110)
    return $rc
}

# again [SET]...: in a folder of its own each time
again()
{
    num_again=$((num_again + 1))
    on cuda "again$num_again" run.iterations="$iterations" \
        parallel.recompute=true "$@" && same_weights "again$num_again"
}

two_ranks()
{
    if num_ranks=2 on cuda two run.iterations="$iterations"; then
        same_weights two
        return
    fi
    ! grep -q 'busy or unavailable' "$work/two.out" ||
        { numbers="a GPU takes one process (compute mode)" && return 77; }
    ! grep -q ': no NCCL' "$work/two.out" ||
        { numbers="a GPU each, but no NCCL on this machine" && return 77; }
    return 1
}

find_sanitizer()
{
    command -v compute-sanitizer ||
        compgen -G "/usr/local/cuda*/bin/compute-sanitizer" ||
        compgen -G "/opt/*/*/compute-sanitizer/compute-sanitizer"
}

# sanitized TOOL COMMAND...
sanitized()
{
    local tool=$1 sanitizer rc
    shift
    [ -z "$loader" ] || { numbers="not with a C library of the bundle" && return 77; }
    sanitizer=$(find_sanitizer | head -n 1)
    [ -n "$sanitizer" ] || { numbers="no compute-sanitizer" && return 77; }
    # calls of CUDA that fail are the program's to tell, or a library's that goes on
    [ "$tool" != memcheck ] || sanitizer="$sanitizer --report-api-errors no"
    # shellcheck disable=SC2086
    limited env LD_LIBRARY_PATH="$path" $sanitizer --tool "$tool" \
        --print-limit 20 --error-exitcode 9 "$@" >"$work/sanitizer.out" 2>&1 </dev/null
    rc=$?
    cat "$work/sanitizer.out"
    ! grep -qa 'Device not supported' "$work/sanitizer.out" ||
        { numbers="compute-sanitizer does not support the device" && return 77; }
    numbers=$(grep -a 'ERROR SUMMARY\|RACECHECK SUMMARY' "$work/sanitizer.out" |
        tail -n 1 | sed 's/^=* *//')
    return $rc
}

sanitized_run()
{
    # shellcheck disable=SC2086
    sanitized "$1" "$root/bin/dancegrpo" train configs/tiny.cfg \
        --set run.device=cuda --set run.dir="$work/sanitized" \
        --set run.iterations=1 --set sampler.steps=3 --set grpo.num_generations=2 \
        --set grpo.prompts_per_iteration=1 --set report.prompts=1 \
        --set evaluate.num_prompts=1
}

# bench NAME ARGUMENT...: figures in NAME.json
bench()
{
    local name=$1
    shift
    rm -f "$out/$name.json"
    "$bin" bench "$@" --set run.device=cuda --json "$out/$name.json" \
        >"$work/bench.out" 2>&1
    local rc=$?
    cat "$work/bench.out"
    if grep -q 'runs on the CPU alone' "$work/bench.out"; then
        numbers="bench has no GPU side"
        return 77
    fi
    numbers=$(grep -a '^bare product' "$work/bench.out" | head -n 1 | cut -c 1-180)
    [ -n "$numbers" ] || numbers=$(grep -a '^so far: ' "$work/bench.out" | tail -n 1)
    return $rc
}

torch()
{
    local python=${PYTHON:-python3} rc
    limited "$python" -c 'import torch; assert torch.cuda.is_available()' ||
        { numbers="no PyTorch that sees a GPU" && return 77; }
    limited "$python" tests/peers/torch_gpu.py \
        --seconds $((STEP_END - $(date +%s) - 5)) >"$out/torch.jsonl"
    rc=$?
    cat "$out/torch.jsonl"
    numbers="$(wc -l <"$out/torch.jsonl") figures in torch.jsonl"
    return $rc
}

# What the table is of; tell: on the screen and in the file.
describe()
{
    local what=name,memory.total,driver_version,compute_mode,mig.mode.current
    echo "dancegrpo on a GPU, $(date -u '+%Y-%m-%d %H:%M') UTC"
    "$bin" --version | head -n 1
    timeout 20 nvidia-smi --format=csv,noheader --query-gpu="$what" 2>/dev/null ||
        head -n 1 /proc/driver/nvidia/version 2>/dev/null
    if [ -n "$cudnn" ]; then
        echo "cuDNN of $cudnn"
    else
        echo "no cuDNN on this machine: own kernels alone"
    fi
    [[ $path != */without* ]] ||
        echo "no NCCL on this machine: one GPU only"
    echo
}

# one update of configs/flux_step.cfg, without the checkpoint of 73 GB at its end
update()
{
    local sizes=() run=$work/step
    case $STEP in
    small) sizes=(--set flux.num_layers=2 --set flux.num_heads=2
        --set flux.num_single_layers=1 --set flux.head_dim=16
        --set "flux.axes_dims=[4, 6, 6]" --set flux.joint_attention_dim=16
        --set flux.pooled_dim=16 --set t5.d_model=16 --set t5.d_kv=8
        --set clip.hidden=16 --set clip.heads=2 --set pretrain.image_size=32) ;;
    half) sizes=(--set flux.num_layers=9 --set flux.num_single_layers=19) ;;
    esac
    (
        trap '' XFSZ
        ulimit -f $([ "$STEP" = small ] && echo 30 || echo 1000000)
        "$bin" train configs/flux_step.cfg --set run.dir="$run" "${sizes[@]}"
    ) >"$work/update.out" 2>&1
    cat "$work/update.out"
    ! grep -q '^ERROR .*the plan takes' "$work/update.out" ||
        { numbers="no room on this GPU: a smaller STEP" && return 77; }
    numbers="rollout $(metric step rollout | cut -c 1-5) s, update $(
        metric step update | cut -c 1-5) s, gradient $(metric step grad_norm)"
    ratio_is_one step 1 && [ "$(metric step skipped_updates)" = 0 ] &&
        awk "BEGIN { exit !($(metric step grad_norm) > 0) }" &&
        [ "$(grep -c '^ERROR' "$work/update.out")" = 1 ] &&
        grep -q '^ERROR .*iter_000001\.h5' "$work/update.out"
}

# Programs of kernels' tests, or with cudnn of what a library compiles kernels for:
# first what all else depends on.
programs()
{
    local name
    if [ "${1:-}" = cudnn ]; then
        compgen -G "$root/gpu/*cudnn" | sort
        return
    fi
    {
        for name in kernels products bf16 attention_mma conv memory graph training; do
            compgen -G "$root/gpu/test_cuda_$name"
        done
        compgen -G "$root/gpu/*" | grep -v cudnn | sort
    } | awk '!seen[$0]++'
}

# A driver that nobody uses shuts the GPU down when a program ends, and takes
# seconds to begin anew for the next: it stays as long as this script has it open.
hold_gpus()
{
    local device file
    for device in /dev/nvidia[0-9]*; do
        [ ! -c "$device" ] || exec {file}<"$device"
    done 2>/dev/null
}

summary()
{
    echo
    echo "$(grep -c ' ok  ' "$table") ok, $(grep -c ' FAILED ' "$table")" \
        "failed, $(grep -c ' none  ' "$table") with nothing to do, $SECONDS s"
}

# --- all of them ----------------------------------------------------------------
hold_gpus
find_libraries
if [ -n "$missing" ]; then
    echo "no GPU: this machine has not$missing: \`BUNDLE_CUDA=1 make gpu-bundle" \
        "CUDA=1\` takes CUDA's libraries along, CUDA_HOME says where they are" |
        tee "$table"
    exit 77
fi
wrap_all
export STEP_END=$(($(date +%s) + 120))
# A driver that is there but fails is a finding: the tests say where.
"$bin" train configs/tiny.cfg --dry-run --set run.device=cuda \
    --set run.dir="$work/none" >"$work/gpu.out" 2>&1
begins=$?
why=$(grep -aE '^ERROR|error' "$work/gpu.out" | head -n 1)
if grep -qE 'no NVIDIA driver|driver is too old|no GPU is vis|looking for GPUs|without its GPU' \
    "$work/gpu.out"; then
    echo "no GPU: $why" | tee "$table"
    exit 77
fi
iterations=10 brief= num_again=0 late=0
[ "${QUICK:-0}" = 0 ] || {
    iterations=2
    brief="sampler.steps=3 grpo.num_generations=2 grpo.prompts_per_iteration=2"
}
describe | tee "$table"
[ $begins = 0 ] || {
    bad=1
    echo "== a run begins, on the GPU" >>"$logs"
    cat "$work/gpu.out" >>"$logs"
    printf '%-38s %-6s %5d s  %s\n' "a run begins" FAILED $SECONDS \
        "${why:-exit code $begins}" | tee -a "$table"
}
for program in $(programs); do
    step "kernels: ${program##*/test_}" 60 kernels "${program##*/}"
done
step "doctor: float32" 40 doctor_in float32
step "doctor: bfloat16" 40 doctor_in bfloat16
step "ratio, micro-batch 1" 40 ratio_in float32 1
step "ratio, micro-batch 4" 40 ratio_in float32 4
step "ratio, micro-batch 12" 40 ratio_in float32 12
step "recomputation, same weights" 40 again
step "two ranks, same weights" 60 two_ranks
# bfloat16 has weights of its own
first=
step "bfloat16: ratio, micro-batch 1" 40 ratio_in bfloat16 1
step "bfloat16: ratio, micro-batch 12" 40 ratio_in bfloat16 12
step "bfloat16: recomputation, same weights" 40 again run.dtype=bfloat16
step "without graphs, same weights" 40 again run.dtype=bfloat16 parallel.graphs=false
DANCEGRPO_PRODUCTS=own step "own products: bfloat16, ratio" 60 own_products
step "beside the CPU: tiny" 40 beside tiny run.iterations=3
for family in eps sd unet flux; do
    TINY=configs/tiny_$family.cfg step "beside the CPU: tiny_$family" 40 \
        beside "$family" run.iterations=1 grpo.prompts_per_iteration=1
done
step "memcheck: training" 60 sanitized memcheck "$root/gpu/test_cuda_training"
step "bench: blocks, bfloat16" 90 bench bench_blocks configs/tiny.cfg --blocks \
    --set run.dtype=bfloat16
step "bench: tiny, float32" 30 bench bench_tiny configs/tiny.cfg
[ "${FULL:-0}" = 0 ] || step "bench: FLUX.1-dev's sizes" 300 bench bench_flux \
    configs/sizes_flux_dev.cfg --network --set run.dtype=bfloat16 \
    --set parallel.recompute=true --set pretrain.image_size=1024
# What is cuDNN's comes when all of the default has been seen: kernels that the library
# compiles take it a second or two each, in each program anew. Its attention, too, has
# weights of its own,
for program in $(programs cudnn); do
    step "kernels: ${program##*/test_}" 120 kernels "${program##*/}"
done
first=
step "cuDNN: ratio, micro-batch 1" 60 theirs attention ratio_in bfloat16 1
step "cuDNN: ratio, micro-batch 12" 60 theirs attention ratio_in bfloat16 12
step "cuDNN: recomputation, same weights" 60 theirs attention again run.dtype=bfloat16
step "cuDNN: without graphs, same weights" 60 theirs attention again \
    run.dtype=bfloat16 parallel.graphs=false
# and so have its convolutions, of a U-Net
first=
export TINY=configs/tiny_unet.cfg
step "convolutions by cuDNN: micro-batch 1" 60 theirs convolution ratio_in bfloat16 1
step "convolutions by cuDNN: micro-batch 12" 60 theirs convolution ratio_in bfloat16 12
step "convolutions by cuDNN: without graphs" 60 theirs convolution again \
    run.dtype=bfloat16 parallel.graphs=false
unset TINY
step "bench: blocks, cuDNN's attention" 90 theirs attention bench \
    bench_blocks_cudnn configs/tiny.cfg --blocks --set run.dtype=bfloat16 --set
step "bench: blocks, cuDNN's convolutions" 90 theirs convolution bench \
    bench_blocks_conv_cudnn configs/tiny.cfg --blocks --set run.dtype=bfloat16 --set
step "memcheck: a run" 90 sanitized_run memcheck
for program in attention_mma conv; do
    step "memcheck: $program" 60 sanitized memcheck "$root/gpu/test_cuda_$program"
    step "racecheck: $program" 60 sanitized racecheck "$root/gpu/test_cuda_$program"
done
step "racecheck: training" 60 sanitized racecheck "$root/gpu/test_cuda_training"
[ "${STEP:-0}" = 0 ] || step "update: all of FLUX.1-dev's size" 560 update
step "PyTorch" 150 torch
summary >"$work/summary"
tee -a "$table" <"$work/summary"
exit "$bad"
