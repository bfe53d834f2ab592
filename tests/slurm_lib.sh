# shellcheck shell=bash disable=SC2154,SC2317,SC2034
# A real Slurm, started by hand below $work, for the scripts that submit jobs to
# it; source it after lib.sh. Commands of Slurm run by `at`, which a script with
# hosts of its own says anew; $about is what the script is about.
at() { "$@"; }

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
    echo "not ok - $about: slurm-wlm and munge are missing, and so is the right" \
        "to install them"
    exit 1
fi

export SLURM_CONF=$work/slurm.conf
pids=

stop_slurm()
{
    at scancel --user="$(id -un)" --quiet 2>/dev/null
    sleep 2
    # shellcheck disable=SC2086
    kill $pids 2>/dev/null
    # shellcheck disable=SC2086
    wait $pids 2>/dev/null
    rm -rf "$work"
}
trap stop_slurm EXIT

# start command...: a daemon
start()
{
    "$@" >>"$work/daemons.log" 2>&1 </dev/null &
    pids="$! $pids"
}

# configure CONTROLLER PORT NODES: its host, the first of two ports, and what
# there is to compute on
configure()
{
    mkdir -p "$work/state"
    chmod 755 "$work"
    dd if=/dev/urandom of="$work/munge.key" bs=1024 count=1 2>/dev/null
    chmod 600 "$work/munge.key"
    # jobs are put back at once, not after the two minutes of the default
    cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$1
SlurmctldPort=$2
SlurmdPort=$(($2 + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool.%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.%n.pid
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
TmpFS=$work/tmp.%n
$3
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

start_munge()
{
    local i
    start munged --foreground --key-file="$work/munge.key" \
        --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
        --seed-file="$work/munge.seed" --log-file="$work/munge.log" --force
    for i in $(seq 50); do
        [ -S "$work/munge.socket" ] && return
        sleep 0.2
    done
    return 1
}

# idle N: waits until so many nodes are
idle()
{
    local i
    for i in $(seq 100); do
        at sinfo --noheader --format="%T %D" 2>/dev/null | grep -qx "idle $1" &&
            return
        sleep 0.3
    done
    tail -n 20 "$work/daemons.log"
    return 1
}

# --- jobs ------------------------------------------------------------------
iterations=6
last=checkpoints/iter_00000$iterations.h5
# long enough for a signal to come between, where the machine is idle
keys=(--set run.iterations="$iterations" --set trajectory.every=0
    --set grpo.num_generations=32)
export DANCEGRPO=$bin
unset OMP_NUM_THREADS # it is the job's affair

# submit NAME SBATCH-OPTION...: of $script, or what is shipped; the job's number
# into $job
submit()
{
    local name=$1
    shift
    job=$(at sbatch --parsable --output="$work/$name-%j.log" "$@" \
        "${script:-jobs/train.slurm}" configs/tiny.cfg "${keys[@]}" \
        --set run.dir="$work/$name")
}

field() # of $job
{
    at scontrol show job "$job" 2>/dev/null | tr ' ' '\n' |
        sed -n "s/^$1=//p" | head -n 1
}

# until SECONDS command...
until_true()
{
    local n=$1 i
    shift
    for i in $(seq $((4 * n))); do
        "$@" && return 0
        is JobState FAILED && break
        sleep 0.25
    done
    echo "not within $n s: $*"
    at scontrol show job "$job"
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

# undisturbed: the run to compare with
undisturbed()
{
    "$bin" train configs/tiny.cfg "${keys[@]}" --set run.dir="$work/alone" \
        >"$work/out" 2>&1
    reference=$(digest "$work/alone/$last")
    expect "$about: the undisturbed run has a digest" test ${#reference} = 64
}
