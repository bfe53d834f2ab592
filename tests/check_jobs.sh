#!/bin/bash
# The batch scripts with what PBS and LSF send and expect, without them:
# signals, time, exit codes. tests/long_slurm.sh has a real Slurm.
# shellcheck disable=SC2154
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
export DANCEGRPO=$bin
export OMPI_MCA_rmaps_base_oversubscribe=1
last=checkpoints/iter_000005.h5
# long enough for a signal to come between, where the machine is idle
set_keys="run.iterations=5 trajectory.every=0 grpo.num_generations=16"
digest() { "$bin" inspect --digest "$1" | cut -d' ' -f1; }

for script in jobs/*.sh jobs/train.*; do
    expect "jobs: $script parses" bash -n "$script"
done

"$bin" train configs/tiny.cfg --set run.dir="$work/alone" \
    --set run.iterations=5 --set trajectory.every=0 \
    --set grpo.num_generations=16 >"$work/out" 2>&1
reference=$(digest "$work/alone/$last")
expect "jobs: the undisturbed run has a digest" test ${#reference} = 64

# --- LSF: warns by USR1, runs the job again at 75 ---------------------------
export CONFIG=configs/tiny.cfg LSB_DJOB_NUMPROC=2
SET="run.dir=$work/lsf $set_keys" bash jobs/train.lsf >"$work/lsf.1" 2>&1 &
job=$!
for _ in $(seq 600); do
    [ -s "$work/lsf/metrics.jsonl" ] && break
    sleep 0.05
done
kill -USR1 $job
wait $job
expect "jobs: LSF's warning ends in exit code 75" test $? = 75
expect "jobs: and in a checkpoint before the end" bash -c \
    "[ -n \"\$(ls '$work'/lsf/checkpoints)\" ] && [ ! -e '$work/lsf/$last' ]"
SET="run.dir=$work/lsf $set_keys" expect_code "jobs: LSF's second run ends" 0 \
    "continuing after iteration" bash jobs/train.lsf
expect "jobs: with the weights of the undisturbed run" \
    test "$(digest "$work/lsf/$last")" = "$reference"

# --- the job before still writes: waited for, then to be tried again later -----
mkdir "$work/busy"
flock -o "$work/busy/log.txt" sleep 100 &
holder=$!
busy="run.dir=$work/busy run.iterations=1 trajectory.every=0"
wait_s=1 SET=$busy expect_code "jobs: the folder is another job's" 75 \
    "busy: another run writes there (a process has" bash jobs/train.lsf
SET=$busy bash jobs/train.lsf >"$work/lsf.3" 2>&1 &
job=$!
for _ in $(seq 600); do
    grep -q "another run writes there: waiting up to 600 s" "$work/lsf.3" && break
    sleep 0.05
done
kill -USR1 $job
ends 30
expect "jobs: a signal ends the waiting, in exit code 75" test "$code" = 75
SET=$busy bash jobs/train.lsf >"$work/lsf.4" 2>&1 &
job=$!
sleep 3
kill $holder
ends 60
expect "jobs: the other one's end, too, and the job runs" bash -c \
    "cat '$work/lsf.4'; [ '$code' = 0 ] && grep -q 'it *1/1' '$work/lsf.4'"
expect "jobs: which its user may have shorter" bash -c ". jobs/launch.sh
    launch=(echo) dancegrpo= threads=1; train a.cfg --set run.wait_seconds=5 |
        grep -qx ' *train --set run.wait_seconds=600 a.cfg --set run.wait_seconds=5.*'"

# an early signal, while nothing is there to hear it
bash -c '. jobs/launch.sh; threads=1; launch=(false); kill -USR1 $$
         train configs/tiny.cfg; exit $rc' >"$work/out" 2>&1
expect "jobs: a signal before the ranks counts" test $? = 75

bash -c '. jobs/launch.sh; threads=1; lost() { return 205; }; launch=(lost)
         train configs/tiny.cfg; exit $rc' >"$work/out" 2>&1
expect "jobs: a host that mpirun has lost counts" test $? = 75

# --- PBS: the run watches the clock and submits its continuation ------------
mkdir "$work/bin"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$2" >"%s/submitted"\n' "$work" >"$work/bin/qsub"
chmod +x "$work/bin/qsub"
# shellcheck disable=SC2016
sed 's/=$((walltime - margin))/=0.2/' jobs/train.pbs >"$work/train.pbs"
export PBS_NODEFILE=$work/nodes OMP_NUM_THREADS=1
printf 'a\na\na\n' >"$PBS_NODEFILE"

# one job, the settings being those of qsub -v
pbs()
{
    (
        IFS=,
        for setting in $1; do
            export "${setting?}"
        done
        IFS=$' \t\n'
        PATH=$work/bin:$PATH exec bash "$work/train.pbs"
    ) >>"$work/pbs.log" 2>&1
}

settings="CONFIG=configs/tiny.cfg,SET=run.dir=$work/pbs $set_keys"
for _ in 1 2 3 4 5 6 7; do
    rm -f "$work/submitted"
    pbs "$settings" || break
    [ -e "$work/submitted" ] || break
    settings=$(cat "$work/submitted")
done
expect "jobs: PBS submits its continuations" grep -q "start 1: 3 ranks" \
    "$work/pbs.log"
expect "jobs: the last one ends, with the undisturbed weights" \
    test "$(digest "$work/pbs/$last")" = "$reference"
# --- arrays: a run for each task, asked for by the launcher's own options ------
cat >"$work/bin/srun" <<'END'
#!/bin/bash
echo "srun $*" >>"$SRUN_LOG"
while [ "${1#-}" != "$1" ]; do
    [ "$1" != -n ] || shift
    shift
done
exec "$@"
END
chmod +x "$work/bin/srun"
export SRUN_LOG=$work/srun.log
sed 's/^# *\(launch=(srun .*\)/\1/; /^launch=(mpirun/d' jobs/train.slurm \
    >"$work/train.slurm"
array()
{
    PATH=$work/bin:$PATH SLURM_ARRAY_TASK_ID=7 SLURM_NTASKS=2 \
        SLURM_CPUS_PER_TASK=1 bash "$work/train.slurm" configs/tiny.cfg "$@"
}
expect_code "jobs: a task of an array by srun" 0 "exit code 0" array \
    --set run.dir="$work/array" --set run.iterations=0
expect "jobs: is a run of its own seed" grep -q "seed = 7;" \
    "$work/array-seed7/config.cfg"
expect "jobs: whose name was asked for by one rank, as ranks are started" \
    grep -q -- "^srun --mpi=pmix --cpus-per-task=1 -n 1 .* config " "$SRUN_LOG"
expect_code "jobs: a key that is none ends the task" 1 "unknown key" array \
    --set run.dri="$work/typo"
expect "jobs: before a run begins" test ! -e "-seed7" -a \
    "$(grep -c ' train ' "$SRUN_LOG")" = 1

expect_code "jobs: PBS without CONFIG" 2 "usage: qsub -v CONFIG=" \
    env -u CONFIG bash jobs/train.pbs
exit "$bad"
