#!/bin/bash
# parallel.write_beside: files that are written while the next iteration rolls
# out are those that would be written between iterations, on a disk so slow that
# a wait which is missing shows, and whatever happens meanwhile.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu
slow_disk=$PWD/${DG_BUILD:-build}/tests/slow_disk.so
# the sanitizer's library is not the first then
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

# slowly COMMAND...: each sync of a file takes so many milliseconds longer
slowly() { SLOW_DISK_MS=40 LD_PRELOAD=$slow_disk "$@"; }

# same_files RUN WANTED [ITERATIONS]: all trajectories and checkpoints of these
same_files()
{
    local i file
    for i in $(seq "${3:-3}"); do
        for file in "$work/$2"/*/"iter_00000$i.h5"; do
            "$tools/same_data" "$file" "$work/$1/${file#"$work/$2/"}" ||
                ! tail -n 5 "$work/$1.out" || return 1
        done
    done
    no_unfinished "$1" &&
        "$tools/json_lines" "$work/$1/metrics.jsonl" "${3:-3}"
}

# beside RUN: the rollout ran while files were written, and not only after
beside() { grep -q "^slow disk: others compute meanwhile" "$work/$1.out"; }

# --- on the CPU ------------------------------------------------------------------
expect "files: written between iterations" tiny 1 2 off \
    parallel.write_beside=false
expect "files: then nobody waits for them" test -z "$(metric off waiting)"
for at in "1 2 none" "3 1 parameters"; do
    read -r n threads level <<<"$at"
    slowly tiny "$n" "$threads" "on$n" parallel.shard="$level"
    expect "files: $at, the same" same_files "on$n" off
    expect "files: $at, memory used is memory planned" equal_bytes "on$n"
done
ONE_THREAD_MPI=1 LD_PRELOAD=$slow_disk tiny 2 1 single
expect "files: MPI for one thread alone, told once" test "$(grep -c \
    '^files are written between iterations: MPI' "$work/single.out")" = 1
expect "files: MPI for one thread alone, the same" same_files single off
# asked for by the environment, which need not be the same for all ranks
DANCEGRPO_MPI_THREADS=funneled tiny 1 1 funneled
expect "files: MPI asked for one thread alone, told once" test "$(grep -c \
    '^files are written between iterations: MPI' "$work/funneled.out")" = 1
mpirun --oversubscribe -n 1 "$bin" config : -n 1 -x DANCEGRPO_MPI_THREADS=many \
    "$bin" config >"$work/out" 2>&1
expect "files: MPI asked for something else, one message" test "$? $(grep -c \
    'DANCEGRPO_MPI_THREADS = many .* multiple or funneled' "$work/out")" = "1 1"

# HDF5 serves one thread at a time: the other reads conditions while files begin
sets=(prompts.cache="$work/cache.h5" run.iterations=10 sampler.steps=2
    grpo.prompts_per_iteration=48 grpo.num_generations=2
    grpo.updates_per_iteration=1 grpo.timestep_mode=all report.prompts=1)
"$bin" encode configs/tiny.cfg --set prompts.cache="$work/cache.h5" \
    >"$work/out" 2>&1
expect "files: conditions are read meanwhile" tiny 1 1 cached "${sets[@]}"

# --- on emulated GPUs --------------------------------------------------------------
bin=$gpu
few="sampler.steps=3 grpo.prompts_per_iteration=2 report.prompts=1
    run.iterations=2 trajectory.every=2"
# shellcheck disable=SC2086
{
    expect "files: one GPU, between iterations" on_gpu 1 gpu $few \
        parallel.write_beside=false
    for at in "1 none true early" "2 parameters false late"; do
        read -r n level offload streams <<<"$at"
        # now and then a busy machine lets the writer begin when the others wait
        # for it already; what does not run beside never does
        for _ in 1 2 3; do
            rm -rf "$work/gpu$n"
            BUSY_DISK=1 LD_PRELOAD=$slow_disk CUDA_EMULATION_STREAMS=$streams \
                on_gpu "$n" "gpu$n" $few \
                parallel.shard="$level" parallel.offload_optimizer="$offload"
            beside "gpu$n" && break
        done
        expect "files: GPUs, $at, the same" same_files "gpu$n" gpu 2
        expect "files: GPUs, $at, beside the rollout" beside "gpu$n"
    done
    dtype=bfloat16
    on_gpu 1 half $few parallel.write_beside=false
    CUDA_EMULATION_STREAMS=early on_gpu 2 half2 $few parallel.shard=optimizer
    dtype=
}
expect "files: GPUs, rounded weights, the same" same_files half2 half 2
bin=$cpu

# --- what happens meanwhile -----------------------------------------------------------
# writes KIND RUN N: its file of iteration N is being written
writes() { [ -e "$work/$2/$1/iter_00000$3.h5.tmp" ]; }
# killed KIND: while that file of the second iteration is written
killed()
{
    slowly launch train 2 1 "killed_$1"
    until_or_end writes "$1" "killed_$1" 2
    expect "files: SIGKILL within $1" kill_run
    expect "files: SIGKILL within $1, a checkpoint is there" test \
        "$(last_checkpoint "killed_$1")" -ge 1
    tiny 1 1 "killed_$1"
    expect "files: SIGKILL within $1, continued to the same" same_files \
        "killed_$1" off
}
killed trajectories
killed checkpoints
slowly tiny 2 1 late run.max_seconds=1e-3
expect "files: a stop waits for them, exit code 75" test $? = 75
expect "files: a stop waits for them" same_files late off 1

# a disk that takes checkpoints and not a trajectory, which is larger; MPI wants
# 4 MB itself
large="trajectory.every=2 grpo.num_generations=16 run.iterations=3"
(
    trap '' XFSZ
    ulimit -f 4200
    # shellcheck disable=SC2086
    slowly tiny 1 2 full $large
)
expect "files: a full disk, exit code 1" test $? = 1
expect "files: a full disk, one message that names the file" test "$(grep -c \
    '^ERROR' "$work/full.out") $(grep -c \
    '^ERROR .*trajectories/iter_000002.h5.tmp: cannot' "$work/full.out")" = "1 1"
expect "files: a full disk, the checkpoint before is the last" test \
    "$(last_checkpoint full)" = 1
expect "files: a full disk, nothing half-written" no_unfinished full
# shellcheck disable=SC2086
expect "files: room again, continued" tiny 1 2 full $large
expect "files: room again, each iteration once" "$tools/json_lines" \
    "$work/full/metrics.jsonl" 3
expect "files: room again, replayed" "$bin" replay \
    "$work/full/trajectories/iter_000002.h5"

# a file that could not be begun is not left there; a sanitizer has the allocator
if [ "${SAN:-0}" = 0 ]; then
    expect_code "files: a broken disk, one message" 1 \
        "painted.png: cannot create: Input/output error" env FAIL_AT=room:1 \
        FAIL_HOW=EIO FAIL_FOLDER="$work" LD_PRELOAD="${slow_disk%/*}/fail_calls.so" \
        "$bin" inspect --pictures "$work/painted.png" \
        "$work/full/trajectories/iter_000002.h5"
    expect "files: a broken disk, nothing left" test ! -e "$work/painted.png.tmp"
fi
exit $bad
