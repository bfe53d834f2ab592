#!/bin/bash
# jobs/train.slurm under a real Slurm of three hosts, which are namespaces of
# this machine (nodes_lib.sh): by mpirun, as shipped, and by srun; preempted,
# cancelled, with a rank killed and with a host lost, they end in the weights of
# a run that nobody disturbed.
# shellcheck disable=SC2154,SC2317
# shellcheck source=tests/nodes_lib.sh
. "$(dirname "$0")/nodes_lib.sh"
about="slurm nodes"
# shellcheck source=tests/slurm_lib.sh
. "$(dirname "$0")/slurm_lib.sh"
# Slurm tells Open MPI where the hosts are, and starts its daemons
unset OMPI_MCA_plm OMPI_MCA_plm_rsh_agent OMPI_MCA_rmaps_base_oversubscribe
at() { on ann "$@"; }

start_slurm()
{
    configure "ann(10.77.0.1)" 6817 "SlurmdTimeout=10
NodeName=ann NodeAddr=10.77.0.1 CPUs=4 State=UNKNOWN
NodeName=ben NodeAddr=10.77.0.2 CPUs=4 State=UNKNOWN
NodeName=cat NodeAddr=10.77.0.3 CPUs=4 State=UNKNOWN"
    start_munge || return 1
    start on ann slurmctld -D -c
    for host in ann ben cat; do
        start on $host slurmd -D -N $host
    done
    idle 3
}

hosts ann ben cat
expect "slurm nodes: a cluster of three starts" start_slurm
[ "$bad" = 0 ] || exit 1
undisturbed

two="--nodes=2 --ntasks-per-node=2 --cpus-per-task=1"
on_hosts() { "$bin" inspect "$work/$1/$last" | grep -q "^  hosts  *$2\$"; }

# preempted NAME HOSTS SBATCH-OPTION...: by a signal, it is put back and goes on
preempted()
{
    local name=$1 hosts=$2
    shift 2
    submit "$name" "$@"
    expect "slurm nodes: $name begins" until_true 120 has_begun "$name"
    at scancel --signal=USR1 --batch "$job"
    expect "slurm nodes: $name, preempted, is put back into the queue" \
        until_true 300 is Restarts 1
    expect "slurm nodes: $name completes" until_true 900 is JobState COMPLETED
    expect "slurm nodes: $name stopped with 75" log_has "$name" "exit code 75"
    expect "slurm nodes: $name, weights as undisturbed" \
        same_weights "$work/$name/$last"
    expect "slurm nodes: $name ran on $hosts" on_hosts "$name" "$hosts"
    expect "slurm nodes: $name, metrics of every iteration, once" \
        all_lines "$name"
}
# shellcheck disable=SC2086
preempted mpirun ann,ben $two

# what jobs/train.slurm says of sites that want srun
by_srun=$work/srun.slurm
sed -n 's/^# *\(launch=(srun .*\)/\1/p' jobs/train.slurm >"$work/launch"
expect "slurm nodes: the script says how srun starts it" test -s "$work/launch"
sed "s|^launch=(mpirun.*|$(cat "$work/launch")|" jobs/train.slurm >"$by_srun"
script=$by_srun preempted srun ann,ben,cat --nodes=3 --ntasks-per-node=1 \
    --cpus-per-task=2

# a rank is killed on ben: the job ends, another one goes on
# shellcheck disable=SC2086
for way in mpirun srun; do
    script=jobs/train.slurm
    [ $way = mpirun ] || script=$by_srun
    submit killed$way $two
    expect "slurm nodes: $way, a job begins" until_true 120 has_begun killed$way
    until_true 60 test -s "$work/killed$way/metrics.jsonl" >/dev/null
    kill -9 "$(pgrep -f "^$bin train .*run.dir=$work/killed$way " | tail -n 1)"
    expect "slurm nodes: $way, a rank is killed, the job fails" \
        within 60 is JobState FAILED
    expect "slurm nodes: $way, no rank is left" within 20 gone killed$way
    submit killed$way --nodes=3 --ntasks-per-node=1 --cpus-per-task=1
    expect "slurm nodes: $way, another job completes" \
        until_true 300 is JobState COMPLETED
    expect "slurm nodes: $way, weights as undisturbed" \
        same_weights "$work/killed$way/$last"
done
unset script

# cancelled
# shellcheck disable=SC2086
submit cancelled $two
until_true 120 test -s "$work/cancelled/metrics.jsonl"
at scancel "$job"
expect "slurm nodes: a job is cancelled" within 60 is JobState CANCELLED
expect "slurm nodes: and no rank is left" within 30 gone cancelled

# a host is lost: by mpirun's exit code, or found by Slurm, the job is put back
# and goes on elsewhere; then ben is there again
# shellcheck disable=SC2086
for way in mpirun srun; do
    [ $way = mpirun ] || script=$by_srun
    expect "slurm nodes: all hosts are there" idle 3
    submit lost$way $two
    expect "slurm nodes: $way, a job before a host is lost" \
        until_true 120 has_begun lost$way
    within 60 has_more_than lost$way 0
    kill -9 "${node_pid[ben]}"
    expect "slurm nodes: $way, a host is lost, the job is put back" \
        until_true 120 is Restarts 1
    expect "slurm nodes: $way, it completes" until_true 300 is JobState COMPLETED
    expect "slurm nodes: $way, it continued" log_has lost$way \
        "continuing after iteration"
    expect "slurm nodes: $way, a lost host, weights as undisturbed" \
        same_weights "$work/lost$way/$last"
    expect "slurm nodes: $way, on ann and cat" on_hosts lost$way ann,cat
    [ $way = srun ] || { host 2 ben && start on ben slurmd -D -N ben; }
done
exit "$bad"
