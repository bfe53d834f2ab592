#!/bin/bash
# jobs/train.slurm under a real Slurm of one node, started here by hand: a
# job preempted by signal, one that meets its time limit again and again, and
# an array end in the weights of a run that nobody disturbed.
# shellcheck disable=SC2154,SC2317
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

install_slurm()
{
    local need=
    command -v sbatch >/dev/null && command -v slurmctld >/dev/null &&
        command -v slurmd >/dev/null || need=slurm-wlm
    command -v munged >/dev/null || need="$need munge"
    [ -n "$need" ] || return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get update -q </dev/null
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends $need </dev/null
}

PATH=$PATH:/usr/sbin:/sbin
if ! install_slurm >"$work/apt.log" 2>&1; then
    tail -n 5 "$work/apt.log"
    echo "not ok - slurm: slurm-wlm and munge are missing, and so is the right" \
        "to install them"
    exit 1
fi

# --- a cluster of one node, all of it below $work ---------------------------
host=$(hostname -s)
export SLURM_CONF=$work/slurm.conf
pids=

stop_slurm()
{
    scancel --user="$(id -un)" --quiet 2>/dev/null
    sleep 2
    # shellcheck disable=SC2086
    kill $pids 2>/dev/null
    # shellcheck disable=SC2086
    wait $pids 2>/dev/null
    rm -rf "$work"
}
trap stop_slurm EXIT

start()
{
    "$@" >>"$work/daemons.log" 2>&1 </dev/null &
    pids="$! $pids"
}

start_slurm()
{
    local port=$((20000 + $$ % 20000))
    mkdir -p "$work/state" "$work/spool"
    chmod 755 "$work"
    dd if=/dev/urandom of="$work/munge.key" bs=1024 count=1 2>/dev/null
    chmod 600 "$work/munge.key"
    # jobs are put back at once, not after the two minutes of the default
    cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=10
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    start munged --foreground --key-file="$work/munge.key" \
        --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
        --seed-file="$work/munge.seed" --log-file="$work/munge.log" --force
    for _ in $(seq 50); do
        [ -S "$work/munge.socket" ] && break
        sleep 0.2
    done
    start slurmctld -D -c
    start slurmd -D -N "$host"
    for _ in $(seq 100); do
        sinfo --noheader --format=%T 2>/dev/null | grep -qx idle && return 0
        sleep 0.3
    done
    return 1
}

expect "slurm: a cluster of one node starts" start_slurm
if [ "$bad" != 0 ]; then
    tail -n 20 "$work/daemons.log"
    exit 1
fi

# --- jobs ------------------------------------------------------------------
iterations=6
last=checkpoints/iter_00000$iterations.h5
# long enough for a signal to come between, where the machine is idle
keys=(--set run.iterations="$iterations" --set trajectory.every=0
    --set grpo.num_generations=32)
export DANCEGRPO=$bin
unset OMP_NUM_THREADS # it is the job's affair

# submit NAME SBATCH-OPTION... : the job's number into $job
submit()
{
    local name=$1
    shift
    job=$(sbatch --parsable --output="$work/$name-%j.log" "$@" \
        jobs/train.slurm configs/tiny.cfg "${keys[@]}" \
        --set run.dir="$work/$name")
}

field() # of $job
{
    scontrol show job "$job" 2>/dev/null | tr ' ' '\n' |
        sed -n "s/^$1=//p" | head -n 1
}

# until SECONDS command...
until_true()
{
    local n=$1
    shift
    for _ in $(seq $((4 * n))); do
        "$@" && return 0
        is JobState FAILED && break
        sleep 0.25
    done
    echo "not within $n s: $*"
    scontrol show job "$job"
    tail -n 20 "$work"/*-*.log
    return 1
}

has_begun() { [ -s "$work/$1/log.txt" ]; }
is() { [ "$(field "$1")" = "$2" ]; }
digest() { "$bin" inspect --digest "$1" | cut -d' ' -f1; }
same_weights() { [ "$(digest "$1")" = "$reference" ]; }
log_has() { grep -q "$2" "$work/$1"-*.log; }
all_lines()
{
    [ "$(grep -c . "$work/$1/metrics.jsonl")" = "$iterations" ]
}

"$bin" train configs/tiny.cfg "${keys[@]}" --set run.dir="$work/alone" \
    >"$work/out" 2>&1
reference=$(digest "$work/alone/$last")
expect "slurm: the undisturbed run has a digest" test ${#reference} = 64

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
