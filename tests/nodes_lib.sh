# shellcheck shell=bash disable=SC2154,SC2034
# Several hosts on one machine, for check scripts; source it in place of
# cuda_lib.sh. $bin is the program without its GPU side. A host is a set of Linux
# namespaces: its own network with an address on a common bridge, its own name,
# processes, /dev/shm, /tmp for Open MPI. They share the disk, as a cluster's
# nodes do, and the processor. Open MPI starts its daemons on them as by ssh,
# through $work/rsh, and takes them for what they pretend to be.
#
# The script runs again in a namespace of its own, so nothing has a name outside
# of it, scripts do not meet, and all of it ends with the script, however that
# ends. Where namespaces are not allowed it ends at once, with a word about it.

PATH=$PATH:/usr/sbin:/sbin
nodes_kinds="--net --uts --mount --ipc --pid --fork --kill-child"

# what hosts are made of: tried once, where it is refused in some containers
nodes_trial()
{
    # shellcheck disable=SC2016
    echo 'mount -t proc proc /proc && mount -t tmpfs tmpfs /dev/shm &&
        hostname trial && ip link set lo up && ip link add dg0 type bridge &&
        ip link add dg1 type veth peer name dg2 &&
        nsenter -t $$ -n -u -m -i -p true &&
        unshare '"$nodes_kinds"' true'
}

# Root of the machine, else root of a namespace of users.
if [ -z "${DG_IN_NODES:-}" ]; then
    for nodes_user in "" "--user --map-root-user"; do
        # shellcheck disable=SC2086
        unshare $nodes_user $nodes_kinds bash -c "$(nodes_trial)" \
            >/dev/null 2>&1 || continue
        export DG_IN_NODES=1
        # shellcheck disable=SC2086
        exec setpriv --pdeathsig KILL unshare $nodes_user $nodes_kinds \
            --mount-proc bash "$0" "$@"
    done
    echo "ok - nodes: no network namespaces may be made here (ip, unshare," \
        "root), left out"
    exit 0
fi

. "$(dirname "${BASH_SOURCE[0]}")/cuda_lib.sh"
bin=$cpu
# tcp between hosts and nothing else that may be installed
export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=$work/rsh
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self,vader
export OMPI_MCA_btl_base_warn_component_unused=0
declare -A node_pid=()

# on HOST command...: there, in this folder
on()
{
    local host=$1
    shift
    # shellcheck disable=SC2016
    nsenter -t "${node_pid[$host]}" -n -u -m -i -p -- \
        env TMPDIR="$work/tmp.$host" bash -c 'cd "$0" && exec "$@"' "$PWD" "$@"
}

# the first process of a host, and what it has for sshd: it runs, line by line,
# what comes down a pipe
node_life()
{
    hostname "$1"
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /dev/shm
    mount --bind "$work/hosts" /etc/hosts
    export TMPDIR=$work/tmp.$1
    : >"$work/up.$1"
    while read -r line <&3; do
        bash -c "$line" >>"$work/log.$1" 2>&1 3<&- &
    done 3<>"$work/pipe.$1"
}

# host NUMBER NAME: its wire is node$NUMBER on this side, eth0 on its own; again
# for one that was killed
host()
{
    local n=$1 name=$2 outer i
    rm -rf "$work/tmp.$name" "$work/pipe.$name" "$work/up.$name"
    mkdir "$work/tmp.$name"
    mkfifo "$work/pipe.$name"
    export work
    # shellcheck disable=SC2016,SC2086
    unshare $nodes_kinds bash -c "$(declare -f node_life); node_life $name" 2>>"$work/log.$name" &
    outer=$!
    for i in $(seq 200); do
        [ -e "$work/up.$name" ] && break
        sleep 0.02
    done
    node_pid[$name]=$(pgrep -P $outer)
    ip link add "node$n" type veth peer name eth0 netns "${node_pid[$name]}"
    ip link set "node$n" master dg0 up
    on "$name" ip link set lo up
    on "$name" ip addr add "10.77.0.$n/24" dev eth0
    on "$name" ip link set eth0 up
}

# hosts NAME...: all that there are
hosts()
{
    local name n=0
    ip link set lo up
    ip link add dg0 type bridge
    ip link set dg0 up
    echo "127.0.0.1 localhost" >"$work/hosts"
    for name in "$@"; do
        n=$((n + 1))
        echo "10.77.0.$n $name" >>"$work/hosts"
    done
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nhost=$1\nshift\necho "$*" >"%s/pipe.$host"\n' \
        "$work" >"$work/rsh"
    chmod +x "$work/rsh"
    n=0
    for name in "$@"; do
        n=$((n + 1))
        host $n "$name"
    done
}

# unplug NUMBER, plug NUMBER: the wire of a host
unplug() { ip link set "node$1" down; }
plug() { ip link set "node$1" up; }

# across LAYOUT command...: mpirun on the first host of host:ranks,host:ranks
across()
{
    local layout=$1
    shift
    on "${layout%%:*}" mpirun --host "$layout" "$@"
}

# tiny_across LAYOUT RUN [SET]...: the tiny configuration (or $TINY) in
# $work/RUN, output in $work/RUN.out
tiny_across()
{
    local layout=$1 run=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    across "$layout" "$bin" train "${TINY:-configs/tiny.cfg}" \
        --set run.dir="$work/$run" --set run.threads=1 "${sets[@]}" \
        >"$work/$run.out" 2>&1
}

# process_of RANK RUN: its number, seen from here
process_of()
{
    local p
    for p in $(pgrep -f "run.dir=$work/$2 "); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null |
            grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$p" && return
    done
}

# mpirun_of RUN
mpirun_of() { pgrep -f "^mpirun .*run.dir=$work/$1 "; }

# begins RUN: waits until it has told of an iteration
begins()
{
    local i
    for i in $(seq 400); do
        grep -qs "^it " "$work/$1.out" && return
        sleep 0.05
    done
    cat "$work/$1.out"
    return 1
}

# long_across LAYOUT RUN [SET]...: in the background, process $job, until it begins
long_across()
{
    rm -f "$work/$2.out"
    tiny_across "$@" run.iterations=500 trajectory.every=0 &
    job=$!
    begins "$2"
}

# gone RUN: no rank of it is left on any host
gone() { ! pgrep -f "^[^ ]*dancegrpo .*run.dir=$work/$1 "; }

# within SECONDS command...
within()
{
    local n=$1 i
    shift
    for i in $(seq $((10 * n))); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

# hidden FOLDER LAYOUT command...: across, with another, empty folder there on ben
hidden()
{
    local folder=$1 layout=$2 rc
    shift 2
    mkdir -p "$folder"
    on ben mount -t tmpfs tmpfs "$folder"
    across "$layout" "$@"
    rc=$?
    on ben umount "$folder"
    return $rc
}

# gpus_across LAYOUT RUN [SET]...: two short iterations on emulated GPUs
gpus_across()
{
    bin=$gpu tiny_across "$@" run.device=cuda sampler.steps=3 \
        grpo.num_generations=2 grpo.prompts_per_iteration=2 grpo.micro_batch=2 \
        grpo.update_split=samples report.prompts=1 evaluate.steps=1 run.iterations=2 \
        trajectory.every=0
}
