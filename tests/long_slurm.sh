#!/bin/bash
# jobs/train.slurm under a real Slurm of one node, started here by hand: a
# job preempted by signal, one that meets its time limit again and again, and
# an array end in the weights of a run that nobody disturbed.
# shellcheck disable=SC2154,SC2317
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
about=slurm
# shellcheck source=tests/slurm_lib.sh
. "$(dirname "$0")/slurm_lib.sh"

start_slurm()
{
    local host
    host=$(hostname -s)
    mkdir "$work/tmp.$host"
    configure "$host(127.0.0.1)" $((20000 + $$ % 20000)) \
        "NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN"
    start_munge || return 1
    start slurmctld -D -c
    start slurmd -D -N "$host"
    idle 1
}

expect "slurm: a cluster of one node starts" start_slurm
[ "$bad" = 0 ] || exit 1
undisturbed

# preempted by a signal, on two ranks
submit preempted --ntasks=2 --ntasks-per-node=2 --cpus-per-task=2
expect "slurm: a job begins" until_true 120 has_begun preempted
scancel --signal=USR1 --batch "$job"
expect "slurm: preempted, it is put back into the queue" \
    until_true 300 is Restarts 1
expect "slurm: requeued, it completes" until_true 900 is JobState COMPLETED
expect "slurm: it stopped with 75" log_has preempted "exit code 75"
expect "slurm: it continued" log_has preempted "continuing after iteration"
expect "slurm: weights as undisturbed" same_weights "$work/preempted/$last"
expect "slurm: metrics of every iteration, once" all_lines preempted

# The warning before the time limit comes within half a minute of the start;
# until then the ranks are held, so that it finds them at work.
ranks_of() # run
{
    local p
    for p in /proc/[0-9]*; do
        tr '\0' ' ' 2>/dev/null <"$p/cmdline" |
            grep -q "^$bin train .*run.dir=$work/$1 " && echo "${p#/proc/}"
    done
}
submit limited --ntasks=3 --ntasks-per-node=3 --cpus-per-task=1 --time=2 \
    --signal=B:USR1@115
until_true 120 has_begun limited
held=$(ranks_of limited)
# shellcheck disable=SC2086
kill -STOP $held
expect "slurm: Slurm warns before the time limit" \
    until_true 120 log_has limited "Forwarding signal"
# shellcheck disable=SC2086
kill -CONT $held
expect "slurm: three ranks against their time limit complete" \
    until_true 900 is JobState COMPLETED
expect "slurm: the time limit was met" log_has limited "exit code 75"
expect "slurm: other rank count, time limit: weights as undisturbed" \
    same_weights "$work/limited/$last"

# an array: each task has its own seed and folder
submit array --array=11-12 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=2
array_done() { [ -z "$(squeue --noheader --jobs="$job" 2>/dev/null)" ]; }
expect "slurm: an array completes" until_true 900 array_done
expect "slurm: array task 11 is seed 11" same_weights "$work/array-seed11/$last"
expect "slurm: array task 12 is another run" bash -c \
    "[ -e '$work/array-seed12/$last' ] &&
     [ \"\$('$bin' inspect --digest '$work/array-seed12/$last' |
            cut -d' ' -f1)\" != $reference ]"

job=$(sbatch --parsable --output="$work/empty-%j.log" --ntasks=1 \
    --ntasks-per-node=1 --cpus-per-task=1 jobs/train.slurm)
expect "slurm: a job without configuration fails" \
    until_true 60 is ExitCode 2:0
expect "slurm: and says what is missing" log_has empty "usage: sbatch"
exit "$bad"
