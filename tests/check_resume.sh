#!/bin/bash
# Promise 3: a run stopped anywhere and continued ends with the same bits.
. "$(dirname "$0")/train_lib.sh"
slow_disk=$PWD/${DG_BUILD:-build}/tests/slow_disk.so
# the sanitizer's library is not the first then
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

# --- undisturbed, with all that MPI looks at outside of tests ---------------
HWLOC_COMPONENTS='' \
    expect "resume: undisturbed run" tiny 1 1 whole run.iterations=6 \
    checkpoint.keep=0
whole=$(digest whole 6)

# whole_history RUN N: metrics, trajectories and checkpoints of N iterations
whole_history()
{
    "$tools/json_lines" "$work/$1/metrics.jsonl" "$2" &&
        [ "$(find "$work/$1/trajectories" -name 'iter_*.h5' | wc -l)" = "$2" ] &&
        no_unfinished "$1"
}

# --- SIGKILL, on other ranks and threads each time -----------------------------
sets="run.iterations=6 checkpoint.keep=0"
# shellcheck disable=SC2086
{
    launch train 1 2 killed $sets
    until_or_end has_more_than killed 0
    expect "resume: SIGKILL after a checkpoint" kill_run
    launch train 2 1 killed $sets
    until_or_end has_more_than killed 2
    expect "resume: SIGKILL of two ranks" kill_run
    SLOW_DISK_MS=40 LD_PRELOAD=$slow_disk launch train 1 1 killed $sets
    until_or_end writes_checkpoint killed
    expect "resume: SIGKILL while a checkpoint is written" kill_run
    launch train 1 1 killed $sets
    sleep 0.1
    expect "resume: SIGKILL at the start" kill_run
    expect "resume: three ranks end it" tiny 3 1 killed $sets
}
same_digest "resume: after four SIGKILLs the same weights" killed "$whole" 6
expect "resume: each iteration once, nothing half-written" \
    whole_history killed 6
expect "resume: says where it continues" grep -q "continuing after iteration" \
    "$work/killed.out"
same_numbers "resume: the same numbers in metrics.jsonl" whole killed

# --- asked to stop ----------------------------------------------------------
launch train 1 1 asked run.iterations=6 checkpoint.every=0
until_or_end grep -qs '"iteration":1' "$work/asked/metrics.jsonl"
kill -TERM "$pid"
wait "$pid"
expect "resume: SIGTERM ends with exit code 75" test $? = 75
expect "resume: SIGTERM leaves a checkpoint, the only one" test "$(
    find "$work/asked/checkpoints" -name 'iter_*.h5' | wc -l)" = 1
if command -v script >/dev/null; then # whose end closes the terminal
    script -qc "echo \$\$ >'$work/shell'; exec '$bin' train configs/tiny.cfg --set \
        run.dir='$work/hung' --set run.iterations=500 --set checkpoint.every=0" \
        /dev/null >"$work/hung.out" &
    pid=$!
    until_or_end grep -qs '"iteration":1' "$work/hung/metrics.jsonl"
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    for _ in $(seq 400); do
        kill -0 "$(cat "$work/shell")" 2>/dev/null || break
        sleep 0.05
    done
    expect "resume: a terminal that is closed asks for a stop" bash -c \
        "grep -q 'stopped' '$work/hung/log.txt' && ls '$work/hung/checkpoints/'*.h5"
fi
launch train 2 1 asked run.iterations=6 checkpoint.every=0
# both are there when it says so, with all that is left before them
until_or_end grep -qs "continuing after iteration" "$work/asked.out"
kill -USR1 $(pgrep -P "$pid" | head -n 1)
wait "$pid"
expect "resume: SIGUSR1 to one of two ranks stops both with 75" test $? = 75
expect "resume: continued after signals" tiny 1 1 asked run.iterations=6
same_digest "resume: after signals the same weights" asked "$whole" 6
# Ctrl-C ends what reads the screen too, and first
"$bin" train configs/tiny.cfg --set run.dir="$work/unseen" 2>&1 | true
expect "resume: nobody reads the screen: the run goes on" test \
    "${PIPESTATUS[0]} $(grep -c '"iteration"' "$work/unseen/metrics.jsonl")" = "0 3"
expect "resume: a finished run is begun again" tiny 1 1 asked run.iterations=6
expect "resume: it says that nothing is left, and by which key" \
    grep -q "finished before: iteration 6 of run.iterations = 6" \
    "$work/asked.out"
same_digest "resume: its weights stay" asked "$whole" 6
expect "resume: after signals each iteration once" "$tools/json_lines" \
    "$work/asked/metrics.jsonl" 6
expect "resume: after signals the same pictures" diff -r "$work/whole/pictures" \
    "$work/asked/pictures"

# while ranks still come together, which with large networks takes long
cat >"$work/slow" <<END
#!/bin/bash
[ "\$OMPI_COMM_WORLD_RANK" != 1 ] || until [ -e "$work/go" ]; do sleep 0.02; done
exec "$bin" "\$@"
END
chmod +x "$work/slow"
listens() { # 0x200: USR1
    first=$(pgrep -P "$pid" -f "$bin" | head -n 1)
    local caught
    caught=$(sed -n 's/^SigCgt:\s*//p' "/proc/${first:-0}/status" 2>/dev/null)
    [ $((0x${caught:-0} & 0x200)) != 0 ]
}
# asks_at_start COMMAND RUN [SET]...: exit code of a start that USR1 finds so
asks_at_start()
{
    local kind=$1 run=$2 program=$bin
    shift 2
    rm -f "$work/go"
    bin=$work/slow
    launch "$kind" 2 1 "$run" "$@"
    bin=$program
    until_or_end listens && kill -USR1 "$first"
    touch "$work/go"
    wait "$pid"
}
asks_at_start train early run.iterations=6
expect "resume: asked to stop while it starts, exit code 75" test $? = 75
expect "resume: nothing is begun then" test ! -s "$work/early/metrics.jsonl" \
    -a ! -e "$work/early/pictures"
no_warning "resume: and nothing to warn of" "$work/early.out"
tiny 1 1 early run.max_seconds=1e-3
asks_at_start train early run.iterations=6
expect "resume: asked to stop while it starts again" test $? = 75 -a \
    "$(last_checkpoint early)" = 1
expect "resume: continued after both" tiny 1 1 early run.iterations=6
same_digest "resume: after both the same weights" early "$whole" 6
asks_at_start pretrain early.base pretrain.steps=3
expect "resume: pretraining, asked to stop while it starts" test $? = 75 -a ! -s \
    "$work/early.base/metrics.jsonl"

tiny 2 1 late run.max_seconds=1e-3 checkpoint.every=0
expect "resume: run.max_seconds ends with exit code 75" test $? = 75
expect "resume: run.max_seconds, one iteration is kept" test \
    "$(last_checkpoint late)" = 1
tiny 1 1 late run.max_seconds=1e-3 checkpoint.every=0
expect "resume: run.max_seconds again, one more" test $? = 75 -a \
    "$(last_checkpoint late)" = 2
expect "resume: without run.max_seconds to the end" tiny 1 1 late \
    run.iterations=6
same_digest "resume: after max_seconds the same weights" late "$whole" 6
expect "resume: a finished run has nothing to do" tiny 1 1 late \
    run.iterations=6
same_digest "resume: a finished run stays as it is" late "$whole" 6

# --- noise prediction and guidance have no state of their own ------------------
export TINY=configs/tiny_eps.cfg
tiny 1 1 eps
tiny 1 2 eps.late run.max_seconds=1e-3
expect "resume: a guided run stopped after one iteration" test \
    "$(last_checkpoint eps.late)" = 1
expect "resume: a guided run continued on two ranks" tiny 2 1 eps.late \
    grpo.micro_batch=1
same_digest "resume: a guided run, the same weights" eps.late "$(digest eps)"
unset TINY

# --- damaged checkpoints -----------------------------------------------------
cp -r "$work/whole" "$work/hurt"
"$tools/plant" "$work/hurt/checkpoints/iter_000006.h5" flip arrays/weights 777
truncate -s -5000 "$work/hurt/checkpoints/iter_000005.h5"
expect "resume: damaged checkpoints are passed over" tiny 2 1 hurt \
    run.iterations=6 checkpoint.keep=0
expect "resume: a WARN for each of them" test "$(grep -c \
    '^WARN  checkpoint passed over: .*iter_00000[56].h5' "$work/hurt.out")" = 2
expect "resume: continued from the older one" grep -q \
    "continuing after iteration 4" "$work/hurt.out"
same_digest "resume: and the same weights" hurt "$whole" 6
expect "resume: and each iteration once" whole_history hurt 6
# other ranks find the file by the number that the first one has read in it
cp -r "$work/whole" "$work/renamed"
mv "$work/renamed/checkpoints/iter_000006.h5" \
    "$work/renamed/checkpoints/iter_000009.h5"
mv "$work/renamed/checkpoints/iter_000003.h5" \
    "$work/renamed/checkpoints/iter_000006.h5"
expect "resume: checkpoints of other names are passed over" tiny 2 1 renamed \
    run.iterations=6 checkpoint.keep=0 parallel.shard=optimizer
expect "resume: a WARN for each, with both numbers" test "$(grep -cE \
    '^WARN  checkpoint passed over: .*(9.h5: .* = 6: .*, 9|6.h5: .* = 3: .*, 6)$' \
    "$work/renamed.out")" = 2
same_digest "resume: and the same weights after them" renamed "$whole" 6
for file in "$work"/hurt/checkpoints/*.h5; do
    truncate -s 3000 "$file"
done
tiny 2 1 hurt run.iterations=6
expect "resume: no valid checkpoint is an error, not a new start" test $? = 1
expect "resume: no valid checkpoint, one message" test \
    "$(grep -c '^ERROR .*none of 6 checkpoints can be used' \
        "$work/hurt.out")" = 1

# --- another configuration ----------------------------------------------------
tiny 2 1 whole run.iterations=6 optim.lr=2e-3 grpo.num_generations=6
expect "resume: another configuration is refused" test $? = 1
expect "resume: the differing keys are named" bash -c \
    "grep -q '^ERROR .*another configuration' '$work/whole.out' &&
     grep -q 'optim.lr' '$work/whole.out' &&
     grep -q 'grpo.num_generations' '$work/whole.out' &&
     ! grep -q 'run.iterations' '$work/whole.out'"
same_digest "resume: the refused folder is untouched" whole "$whole" 6
expect "resume: keys without influence may differ" tiny 1 2 whole \
    run.iterations=6 grpo.micro_batch=1 parallel.recompute=true

# --- another machine -----------------------------------------------------------
# told REGEX RUN: in one line that begins with WARN
told()
{
    test "$(grep -cE "^WARN  $1" "$work/$2.out")" = 1
}
oldest="ONEDNN_MAX_CPU_ISA=SSE41" # the library as on an older processor
tiny 1 1 moved run.max_seconds=1e-3
env "$oldest" "$bin" train configs/tiny.cfg --set run.dir="$work/moved" \
    --set run.threads=1 >"$work/moved.out" 2>&1
expect "resume: another machine is told, and which kernels there were" told \
    "[^ ]*iter_000001.h5 was computed with CPU: .*; here it is CPU: .*SSE4.1" moved
expect "resume: for its bits are others" test "$(digest moved)" != "$(digest whole)"
env "$oldest" "$bin" replay "$work/whole/trajectories/iter_000002.h5" \
    >"$work/replay.out" 2>&1
expect "resume: replay tells that too" told \
    "[^ ]*iter_000002.h5 was computed with CPU: " replay
no_warning "resume: the same machine is not told" "$work/late.out"

# --- what no checkpoint has, and the run goes by ------------------------------
short="sampler.steps=3 grpo.num_generations=2 grpo.prompts_per_iteration=2
    report.prompts=1 evaluate.steps=1 run.iterations=2"
started=("policy.weights=$work/start.h5" grpo.kl_beta=10 "prompts.file=$work/list.jsonl")
# start N, list N: the weights that the run starts from, its prompts
start() { cp "$work/whole/checkpoints/iter_00000$1.h5" "$work/start.h5"; }
list() { tail -n "$1" configs/prompts/shapes_train.jsonl >"$work/list.jsonl"; }
# refused WHAT: the run does not go on with others
refused()
{
    # shellcheck disable=SC2086
    tiny 2 1 begun $short "${started[@]}"
    expect "resume: other $1 are not gone on with" grep -qE \
        "^ERROR .*iter_000001.h5: its run had other $1, of digest" "$work/begun.out"
}
start 2
list 4
# shellcheck disable=SC2086
{
    tiny 1 1 through $short "${started[@]}"
    tiny 1 1 begun $short "${started[@]}" run.max_seconds=1e-3
    start 3
    refused "weights of KL's reference"
    start 2
    list 5
    refused "prompts in prompts.file"
    list 4
    tiny 2 1 begun $short "${started[@]}" parallel.shard=parameters
}
same_digest "resume: those that the run began with are" begun \
    "$(digest through 2)" 2

# a job's ranks are not on machines of one kind
cat >"$work/mixed" <<END
#!/bin/bash
[ "\$OMPI_COMM_WORLD_RANK" != 1 ] || export $oldest
exec "$bin" "\$@"
END
chmod +x "$work/mixed"
bin=$work/mixed tiny 2 1 mixed run.iterations=1
expect "resume: ranks on unlike machines are told" told \
    "rank 1 computes with commit .*, CPU: .*SSE4.1.*; rank 0 with commit .*, CPU: " mixed
exit $bad
