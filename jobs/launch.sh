# shellcheck shell=bash disable=SC2034,SC2154
# Shared by the batch scripts; not run by itself. They source it after setting
#   launch   the program that starts ranks and how many, an array
#   threads  cores of one rank
# and then call `train CONFIG [--set key=value]...`. rc is its exit code:
#   0   the run is done
#   1   an error: look at the log, a restart would meet it again
#   2   the command line was not understood
#   75  stopped early by a signal or by time, with a checkpoint, or a host was
#       lost, or another job still writes in the run's folder: run again

# built here, or installed
dancegrpo=${DANCEGRPO:-bin/dancegrpo}
[ -n "${DANCEGRPO:-}" ] || [ -x "$dancegrpo" ] || dancegrpo=dancegrpo

# A job before this one may still be writing its last checkpoint: so many seconds
# are less than coming back through the queue.
wait_s=${wait_s:-600}

# Root may start ranks only when told so (containers, test machines).
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# The value of run.dir that a configuration and its --set lead to, asked as the
# ranks are started, but of one: elsewhere MPI might not begin. Nothing, and a
# code, where the program refuses them.
run_dir()
{
    local one=("${launch[@]}") i text
    for i in "${!one[@]}"; do
        [ "${one[i]}" != -n ] || one[i + 1]=1
    done
    text=$("${one[@]}" "$dancegrpo" config "$@") || return
    sed -n 's/^ *dir = "\(.*\)";$/\1/p' <<<"$text" | head -n 1
}

# Whatever the scheduler sends, the ranks get USR1: at TERM mpirun would kill
# them, while at USR1 they end the iteration, write a checkpoint and leave with
# 75. A signal that comes before they are there counts as well.
stopped=0 child=
on_signal()
{
    stopped=1
    [ -z "$child" ] || kill -s USR1 "$child" 2>/dev/null
}
trap on_signal USR1 USR2 TERM

# Runs the ranks behind this shell, so that it can take signals meanwhile.
train()
{
    rc=75
    [ $stopped = 0 ] || return
    "${launch[@]}" "$dancegrpo" train --set run.wait_seconds="$wait_s" "$@" \
        --set run.threads="$threads" &
    child=$!
    [ $stopped = 0 ] || on_signal # it came just now
    stopped=1
    while [ $stopped = 1 ]; do # a signal ends `wait`, not the ranks
        stopped=0
        wait "$child"
        rc=$?
    done
    # 128 + USR1: it found a rank that had not begun to listen
    [ "$rc" -ne 138 ] || rc=75
    # mpirun of Open MPI 4 has lost its daemon on another host, and so the host
    if [ "$rc" -eq 205 ]; then
        echo "a host was lost: to be continued from the newest checkpoint"
        rc=75
    fi
}
