#!/bin/bash
# More of tests/check_nodes.sh: hosts that lose their wire or their power, ranks
# that are stopped, levels of sharding on shared GPUs, memory of a host's GPU,
# all test programs for several ranks.
# shellcheck disable=SC2154
# shellcheck source=tests/nodes_lib.sh
. "$(dirname "$0")/nodes_lib.sh"
hosts ann ben cat

# --- hosts that are not alike ------------------------------------------------------
# apart RUN ON-BEN... -- SET...: ben's rank is started otherwise, the environment
# or another program
apart()
{
    local run=$1 there=() rest
    shift
    while [ "$1" != -- ]; do
        there+=("$1")
        shift
    done
    shift
    rest=(train configs/tiny.cfg --set run.threads=1
        --set run.dir="$work/$run" "$@")
    on ann mpirun --host ann:1,ben:1 --host ann -n 1 "$bin" "${rest[@]}" \
        : --host ben -n 1 "${there[@]}" "${rest[@]}" >"$work/$run.out" 2>&1
}
expect "nodes: the run of one rank" tiny 1 1 one
one=$(digest one)
commit=$(strings "$bin" | grep -xE '[0-9a-f]{12}(-dirty)?|unknown' | head -n 1)
# its end stays: a text that ends so may be a part of it
sed "s/$commit/xxxxxx${commit:6}/" "$bin" >"$work/other"
chmod +x "$work/other"
expect "nodes: ben has another build" apart build "$work/other" --
expect "nodes: which is said" grep -q \
    "^WARN  rank 1 computes with commit xxxxxx${commit:6}, .*; rank 0 with commit $commit," \
    "$work/build.out"
same_digest "nodes: another build, the same weights" build "$one"
expect "nodes: ben's MPI is to serve one thread" apart threads \
    -x DANCEGRPO_MPI_THREADS=funneled "$bin" --
expect "nodes: so files are written between iterations on ann too" grep -q \
    "between iterations" "$work/threads.out"
same_digest "nodes: one thread on ben, the same weights" threads "$one"

mkdir "$work/files"
cp configs/prompts/shapes_*.jsonl "$work/files"
prompts=(--set prompts.file="$work/files/shapes_train.jsonl"
    --set prompts.eval_file="$work/files/shapes_heldout.jsonl")
expect "nodes: prompts that rank 0's host has alone" hidden "$work/files" \
    ann:1,ben:1 "$bin" train configs/tiny.cfg "${prompts[@]}" \
    --set run.dir="$work/words" --set run.threads=1
same_digest "nodes: prompts of one host, the same weights" words "$one"
expect "nodes: encode on two hosts" across ann:1,ben:1 "$bin" encode \
    configs/tiny.cfg --set prompts.cache="$work/files/cache.h5"
expect_code "nodes: conditions that ben lacks" 1 "cache.h5\": there is no such \
file: \`dancegrpo encode\` with this configuration writes it (found by rank 1 on \
ben)" hidden "$work/files" ann:1,ben:1 \
    "$bin" train configs/tiny.cfg --set run.dir="$work/lacks" \
    --set prompts.cache="$work/files/cache.h5"
expect_code "nodes: a trajectory that ben lacks" 1 "iter_000002.h5: cannot open: \
No such file or directory (found by rank 1 on ben)" hidden "$work/one" \
    ann:1,ben:1 "$bin" replay "$work/one/trajectories/iter_000002.h5"
expect "nodes: one that it has" across ann:1,ben:1 "$bin" replay \
    "$work/one/trajectories/iter_000002.h5"

# --- ranks and hosts that are lost ---------------------------------------------------
waits="waits for the other ranks since [0-9]+ s in .* \(parallel.host_timeout_seconds\)"
unseen="all wait, those of other hosts and the network between are not seen"

# told RUN PATTERN: the first panic of a run
told()
{
    grep -m 1 panic "$work/$1.out" | grep -E "$2" || ! cat "$work/$1.out"
}

expect "nodes: two ranks on ben" long_across ann:1,ben:2 still \
    parallel.host_timeout_seconds=3
victim=$(process_of 2 still)
number=$(sed -n 's/^NSpid:.*\t//p' "/proc/$victim/status")
kill -STOP "$victim"
expect "nodes: one of them stands still, the job ends" ends 60
expect "nodes: it has failed" test "${code:-0}" != 0
expect "nodes: the other one names it, by ben's numbers" told still \
    "rank 1 of 3 on ben $waits; not there: rank 2 \(process $number, stopped, "
expect "nodes: no rank is left" gone still

expect "nodes: one rank on each" long_across ann:1,ben:1 alone \
    parallel.host_timeout_seconds=3
kill -STOP "$(process_of 1 alone)"
expect "nodes: ben's stands still, the job ends" ends 60
expect "nodes: it is said what is not known" told alone \
    "rank 0 of 2 on ann $waits; of this host's ranks \(1\) $unseen"
expect "nodes: no rank is left either" gone alone

# mpirun looks after its daemons' wires: by itself only after some minutes
export OMPI_MCA_oob_tcp_keepalive_time=3 OMPI_MCA_oob_tcp_keepalive_intvl=1
export OMPI_MCA_oob_tcp_keepalive_probes=3
expect "nodes: before the wire is cut" long_across ann:2,ben:2 cut \
    parallel.host_timeout_seconds=3
unplug 2
expect "nodes: ben's wire is cut, the job ends" ends 60
expect "nodes: it has failed too" test "${code:-0}" != 0
expect "nodes: and says what is not known" told cut \
    "rank [01] of 4 on ann $waits; of this host's ranks \(2\) $unseen"
expect "nodes: no rank is left, on ben neither" within 20 gone cut
plug 2
expect "nodes: with the wire it goes on" long_across ann:1,ben:1 cut

# nobody is patient here: mpirun alone ends the job
kill -9 "${node_pid[ben]}"
expect "nodes: ben's power is gone, the job ends" ends 60
expect "nodes: and has failed" test "${code:-0}" != 0
expect "nodes: no rank is left on ann" gone cut
unset OMPI_MCA_oob_tcp_keepalive_time OMPI_MCA_oob_tcp_keepalive_intvl
unset OMPI_MCA_oob_tcp_keepalive_probes
expect "nodes: it goes on without ben" long_across ann:1,cat:1 cut
kill -TERM "$(mpirun_of cut)"
expect "nodes: TERM to mpirun, the job ends" ends 60
expect "nodes: the ranks wrote a checkpoint" grep -q \
    "^stopped early" "$work/cut.out"
stopped=$(last_checkpoint cut)
expect "nodes: the run that nobody disturbs" tiny 1 1 whole trajectory.every=0 \
    run.iterations="$stopped"
same_digest "nodes: the same weights after all that" cut \
    "$(digest whole "$stopped")" "$stopped"

# --- GPUs ----------------------------------------------------------------------------
expect "nodes: an emulated GPU" gpus_across ann:1 gpu
weights=$(digest gpu 2)
for level in optimizer gradients parameters; do
    expect "nodes: $level" gpus_across ann:1,cat:1 $level parallel.shard=$level
    no_warning "nodes: $level, by NCCL" "$work/$level.out"
    same_digest "nodes: $level, the same weights" $level "$weights" 2
    CUDA_EMULATION_DEVICES=1 expect "nodes: $level, on shared GPUs" \
        gpus_across ann:2,cat:2 shared$level parallel.shard=$level
    expect "nodes: $level, with a warning" grep -q \
        "^WARN  2 ranks share a GPU" "$work/shared$level.out"
    same_digest "nodes: $level, on shared GPUs, the same weights" \
        shared$level "$weights" 2
done

# room for one rank on a GPU, not for two: the driver's 512 MB are of each
export CUDA_EMULATION_DEVICES=1 CUDA_EMULATION_MEMORY=$((800 << 20))
expect "nodes: one rank has room on each host" gpus_across ann:1,cat:1 room
gpus_across ann:2,cat:1 full
expect "nodes: two on a host have not, and one host is named" grep -E \
    "^ERROR the plan takes .* of this GPU \(ranks on it: 2\), .*fewer ranks on a GPU" \
    "$work/full.out"
unset CUDA_EMULATION_DEVICES CUDA_EMULATION_MEMORY

# --- the test programs -----------------------------------------------------------------
for program in "${DG_BUILD:-build}"/tests/test_mpi_*; do
    case $program in *.*) continue ;; esac
    expect "nodes: $(basename "$program")" across ann:2,cat:1 timeout 900 \
        "$program"
done
exit "$bad"
