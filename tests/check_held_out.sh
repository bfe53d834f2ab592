#!/bin/bash
# Held-out prompts while a run goes on (evaluate.every): no bit of training
# knows of it, what it says is what evaluate says of that iteration's checkpoint,
# on any ranks, levels and devices, and a run that is killed or stopped anywhere
# tells the same.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu
slow_disk=$PWD/${DG_BUILD:-build}/tests/slow_disk.so
# the sanitizer's library is not the first then
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0
every=(evaluate.every=2 evaluate.num_prompts=5 evaluate.seeds=3
    evaluate.steps=3)

# lines RUN: metrics but times, memory and what goes between ranks
lines()
{
    sed -E 's/,"(seconds|traffic)":\{[^}]*\}//g; s/,"(gflops|peak_bytes|plan_bytes)":[^,}]*//g
        s/,"early_sums":[^,}]*//' "$work/$1/metrics.jsonl"
}
same_lines_of() { same "held-out: $1" "$(lines "$2")" "$(lines "$3")"; }

# told RUN ITERATION: what its line says of each reward
told()
{
    sed -n 's/^{"iteration":'"$2"',"held_out":\(.*\)/\1/p' "$work/$1/metrics.jsonl" |
        sed 's/"ema":.*//' | scores_of
}
# the same of the averaged weights
told_ema()
{
    sed -n 's/^{"iteration":'"$2"',"held_out":.*"ema":\(.*\)/\1/p' \
        "$work/$1/metrics.jsonl" | scores_of
}
scores_of()
{
    grep -oE '"[a-z0-9]*":\{"mean":[^}]*\}' |
        sed -E 's/"([a-z0-9]*)":\{("mean":[^,]*,"low":[^,]*,"high":[^,]*),(.*,)?("missing":[0-9]*)\}/\1 \4 \2/'
}

# evaluated RUN ITERATION [ARGUMENT]...: what evaluate says of the checkpoint;
# the configuration is $TINY with $sets
evaluated()
{
    local file set of=()
    file=$work/$1/checkpoints/iter_$(printf %06d "$2").h5
    shift 2
    for set in "${sets[@]}" "${every[@]}"; do of+=(--set "$set"); done
    "$bin" evaluate "${TINY:-configs/tiny.cfg}" "${of[@]}" --set run.threads=2 \
        --set policy.weights="$file" --json "$work/evaluated.json" "$@" >/dev/null
    grep -oE '"name":"[a-z0-9]*","missing":[0-9]*,"reward":\{[^}]*\}' \
        "$work/evaluated.json" |
        sed -E 's/"name":"([a-z0-9]*)",("missing":[0-9]*),"reward":\{(.*)\}/\1 \2 \3/'
}

# --- beside training ---------------------------------------------------------
sets=()
tiny 1 1 without checkpoint.keep=0
expect "held-out: a run with evaluations" tiny 1 1 with checkpoint.keep=0 "${every[@]}"
expect "held-out: at the beginning, every two iterations and at the end" test \
    "$(sed -n 's/^{"iteration":\([0-9]*\),"held_out".*/\1/p' \
        "$work/with/metrics.jsonl" | tr '\n' ' ')" = "0 2 3 "
expect "held-out: behind their iterations" test "$(metric with iteration |
    tr '\n' ' ')" = "0 1 2 2 3 3 "
same "held-out: all else that metrics say is the same" "$(lines without)" \
    "$(lines with | grep -v held_out)"
for i in 1 2 3; do
    expect "held-out: iteration $i, the same arrays" "$tools/same_arrays" \
        "$work/without/checkpoints/iter_00000$i.h5" \
        "$work/with/checkpoints/iter_00000$i.h5"
    expect "held-out: iteration $i, the same trajectory" "$tools/same_data" \
        "$work/without/trajectories/iter_00000$i.h5" \
        "$work/with/trajectories/iter_00000$i.h5"
done
expect "held-out: memory used is memory planned" test \
    "$(metric with peak_bytes)" = "$(metric without plan_bytes)"
# operations of each iteration
flops()
{
    paste <(metric "$1" gflops) <(metric "$1" total) |
        awk '{ printf "%.6e\n", $1 * $2 }'
}
same "held-out: its operations are no iteration's" "$(flops without)" "$(flops with)"
expect "held-out: its time is told" test "$(grep -cE \
    '"held_out":.*"seconds":\{"evaluate":[0-9.e-]+\}\}$' \
    "$work/with/metrics.jsonl")" = 3
expect "held-out: and its result, on the screen" test "$(grep -cE \
    '^it +[023]/3 \| held-out prompts: reward 0\.[0-9]* \[0.*averaged weights 0\.' \
    "$work/with.out")" = 3
no_warning "held-out: nothing to warn of" "$work/with.out"
for i in 2 3; do
    same "held-out: iteration $i, what evaluate says of its checkpoint" \
        "$(told with $i)" "$(evaluated with $i)"
    same "held-out: iteration $i, and of its averaged weights" \
        "$(told_ema with $i)" "$(evaluated with $i --ema)"
done
expect "held-out: which are other numbers" test "$(told with 2)" != \
    "$(told_ema with 2)" -a "$(told with 2)" != "$(told with 3)"
same "held-out: weights and average begin as one" "$(told with 0)" \
    "$(told_ema with 0)"
sum_of() # its reward is the weighted sum of its rewards
{
    paste <(sed -n 's/.*"held_out":{[^{]*"reward_mean":\([^,]*\).*/\1/p' \
        "$work/$1/metrics.jsonl") <(for i in 0 2 3; do
        told "$1" $i | sed -n 's/brightness.*"mean":\([^,]*\).*/\1/p'
    done) | awk '{ d = $1 - 0.5 * $2; bad += d > 1e-8 || d < -1e-8 }
        END { exit NR != 3 || bad }'
}
expect "held-out: rewards are weighed" sum_of with

# --- while files are written ---------------------------------------------------
# averaged weights change places with those that a checkpoint is written from: it
# begins, behind a trajectory file of three waits, while these would be in use
many=(evaluate.every=1 evaluate.num_prompts=30 evaluate.seeds=3 evaluate.steps=3)
tiny 1 1 quick checkpoint.keep=0 "${many[@]}"
wait_ms=$(sed -n 's/^{"iteration":0.*"evaluate":\([^}]*\).*/\1/p' "$work/quick/metrics.jsonl" |
    awk '{ print int(1000 * $1 * 1.5 / 3) }')
SLOW_DISK_MS=$wait_ms LD_PRELOAD=$slow_disk tiny 1 1 slow checkpoint.keep=0 "${many[@]}"
same_lines_of "on a slow disk, the same lines" quick slow
for i in 1 2 3; do
    expect "held-out: on a slow disk, iteration $i, the same arrays" "$tools/same_arrays" \
        "$work/without/checkpoints/iter_00000$i.h5" \
        "$work/slow/checkpoints/iter_00000$i.h5"
done

# --- ranks, threads, batches, levels ---------------------------------------------
for at in "1 2 none 2" "2 1 none 1" "3 2 optimizer 3" "2 1 parameters 2" \
    "17 1 none 3"; do
    read -r n threads level batch <<<"$at"
    run=at$n$threads$level
    tiny "$n" "$threads" "$run" parallel.shard="$level" checkpoint.keep=0 \
        grpo.micro_batch="$batch" trajectory.every=0 run.witness_every=1 \
        parallel.host_timeout_seconds=20 "${every[@]}"
    same_lines_of "ranks, threads, level, batch $at: the same lines" with "$run"
done

# --- adapters, guidance, a cache, prompts of its own ------------------------------
expect "held-out: the base of adapters" cp "$work/with/checkpoints/iter_000002.h5" \
    "$work/base.h5"
sets=(policy.weights="$work/base.h5" lora.rank=2 lora.alpha=8)
tiny 1 1 lora "${sets[@]}" checkpoint.keep=0 "${every[@]}"
tiny 2 1 lora2 "${sets[@]}" checkpoint.keep=0 parallel.shard=gradients "${every[@]}"
same_lines_of "adapters on two ranks" lora lora2
sets=()
same "held-out: adapters, what evaluate says" "$(told lora 2)" "$(evaluated lora 2)"
expect "held-out: adapters begin as their base" test "$(told lora 0)" = "$(told with 2)"

export TINY=configs/tiny_eps.cfg
tiny 1 2 eps checkpoint.keep=0 "${every[@]}"
same "held-out: noise predicted and guided, what evaluate says" \
    "$(told eps 2)" "$(evaluated eps 2)"
expect "held-out: of something" test -n "$(told eps 2)"
unset TINY

head -n 6 configs/prompts/shapes_train.jsonl >"$work/own.jsonl"
sets=(evaluate.file="$work/own.jsonl")
for set in "${sets[@]}"; do of=(--set "$set"); done
expect "held-out: prompts are encoded" "$bin" encode configs/tiny.cfg "${of[@]}" \
    --set prompts.cache="$work/cache.h5"
tiny 1 1 own "${sets[@]}" checkpoint.keep=0 "${every[@]}"
tiny 2 1 cached "${sets[@]}" checkpoint.keep=0 prompts.cache="$work/cache.h5" "${every[@]}"
same_lines_of "from a cache" own cached
same "held-out: a file of its own, what evaluate says" "$(told own 2)" \
    "$(evaluated own 2)"
expect "held-out: which are other prompts" test "$(told own 2)" != "$(told with 2)"

# --- on emulated GPUs ---------------------------------------------------------------
bin=$gpu
sets=(run.device=cuda)
few=(sampler.steps=3 grpo.num_generations=2 grpo.prompts_per_iteration=2
    report.prompts=1 trajectory.every=0 run.iterations=2 checkpoint.keep=0)
every=(evaluate.every=1 evaluate.num_prompts=2 evaluate.seeds=1 evaluate.steps=2)
tiny 1 1 gpu.plain run.device=cuda "${few[@]}"
tiny 1 1 gpu run.device=cuda "${few[@]}" "${every[@]}"
same "held-out: on a GPU, all else is the same" "$(lines gpu.plain)" \
    "$(lines gpu | grep -v held_out)"
expect "held-out: on a GPU, the same arrays" "$tools/same_arrays" \
    "$work/gpu.plain/checkpoints/iter_000002.h5" "$work/gpu/checkpoints/iter_000002.h5"
same "held-out: on a GPU, what evaluate says" "$(told gpu 1)" "$(evaluated gpu 1)"
same "held-out: on a GPU, of averaged weights" "$(told_ema gpu 1)" \
    "$(evaluated gpu 1 --ema)"
for more in "parallel.shard=parameters" \
    "parallel.shard=gradients parallel.offload_optimizer=true" \
    "parallel.offload_sums=true parallel.offload_ema=true"; do
    # shellcheck disable=SC2086
    tiny 2 1 "gpus" run.device=cuda "${few[@]}" "${every[@]}" $more
    same_lines_of "two GPUs with $more" gpu gpus
    rm -rf "$work/gpus"
done
bin=$cpu
sets=()

# --- killed, asked to stop -------------------------------------------------------------
every=(evaluate.every=2 evaluate.num_prompts=5 evaluate.seeds=3
    evaluate.steps=3 run.iterations=4 checkpoint.every=3)
long=(evaluate.every=2 evaluate.num_prompts=0 evaluate.seeds=4000 run.iterations=4
    checkpoint.every=0 evaluate.steps=3)
tiny 1 1 whole "${every[@]}"
launch train 1 1 killed "${every[@]}"
until_or_end grep -qs '"iteration":2,"held' "$work/killed/metrics.jsonl"
kill_run
expect "held-out: killed, and continued" tiny 2 1 killed "${every[@]}"
same_lines_of "killed and continued, the same lines" whole killed

# stops SIGNAL PROCESS: the run of $pid, asked so, soon and to go on later
stops()
{
    job=$pid
    kill "-$1" "$2"
    ends 30 && [ "$code" = 75 ]
}
goes_on() { [ "$(grep -c "continuing after iteration" "$work/asked.out")" = "$1" ]; }
# SIGTERM while the base is evaluated: nothing has begun
launch train 1 2 asked "${long[@]}"
until_or_end grep -qs "MB reserved" "$work/asked.out"
until_or_end compgen -G "$work/asked/pictures/iter_000000.png" >/dev/null
expect "held-out: asked to stop at the beginning" stops TERM "$pid"
expect "held-out: nothing is told then" test ! -s "$work/asked/metrics.jsonl"
tiny 1 1 asked "${every[@]}" run.max_seconds=1e-3
expect "held-out: each start gets on by one, and evaluates first" test \
    "$(lines asked)" = "$(lines whole | head -n 2)"
# while iteration 2 is evaluated, on two ranks: its checkpoint is written
launch train 2 1 asked "${long[@]}"
until_or_end grep -qs '"iteration":2' "$work/asked/metrics.jsonl"
sleep 0.2
expect "held-out: asked to stop in an evaluation, one of two ranks" stops USR1 \
    "$(pgrep -P "$pid" | head -n 1)"
expect "held-out: with a checkpoint" test "$(last_checkpoint asked)" = 2
expect "held-out: which is told without it" test "$(lines asked)" = \
    "$(lines whole | head -n 3)"
# once more, while it is made up for
launch train 1 1 asked "${long[@]}"
until_or_end goes_on 2
sleep 0.2
expect "held-out: asked to stop while that is made up for" stops TERM "$pid"
tiny 1 1 asked "${every[@]}" run.max_seconds=1e-3
expect "held-out: made up for, whatever the time" test "$(lines asked)" = \
    "$(lines whole | head -n 5)"
# the last one
tiny 1 1 asked "${every[@]}" run.max_seconds=1e-3
expect "held-out: without time for the last, exit code 75" test $? = 75 -a \
    "$(last_checkpoint asked)" = 4
expect "held-out: which the next start makes up for" tiny 2 1 asked "${every[@]}"
expect "held-out: and says so" grep -q "continuing after iteration 4" "$work/asked.out"
same_lines_of "stopped four times, the same lines" whole asked
tiny 1 1 asked "${every[@]}"
expect "held-out: then nothing is left" grep -q "nothing is left to do" "$work/asked.out"
same_lines_of "and nothing is told twice" whole asked

# --- without an evaluation before: it may come with a resume ------------------------------
cp -r "$work/without" "$work/later"
expect "held-out: of a finished run, its end" tiny 1 1 later evaluate.every=2 \
    evaluate.num_prompts=5 evaluate.seeds=3 evaluate.steps=3
same "held-out: as if it had been there" "$(told later 3)" "$(told with 3)"

# --- pictures that are not finite ----------------------------------------------------------
every=(evaluate.every=100 evaluate.num_prompts=2 evaluate.seeds=2 evaluate.steps=2)
tiny 1 1 nan "${every[@]}" run.iterations=8 optim.lr=1 optim.weight_decay=10
expect "held-out: a network that gives NaN, the run goes on" test $? = 0
missing='"mean":null,"low":null,"high":null,"missing":4}'
expect "held-out: NaN is missing" grep -q "^{\"iteration\":8,\"held_out\":.*\"reward_mean\":null,.*\"shapes\":{$missing,\"brightness\":{$missing" \
    "$work/nan/metrics.jsonl"
expect "held-out: and told" grep -q "^it    8/8 .* | [0-9]* scores missing" "$work/nan.out"

# --- what is wrong is told before anything is computed --------------------------------------
refused "held-out: no prompts" "evaluate.every = 2: evaluate.file or prompts.eval_file" \
    evaluate.every=2 prompts.eval_file=
refused "held-out: no such file" "$work/nowhere.jsonl" evaluate.every=2 \
    evaluate.file="$work/nowhere.jsonl"
echo "a zebra in a hat" >"$work/zebra.txt"
refused "held-out: a word that nobody knows" "zebra.txt: prompt 1" \
    evaluate.every=2 evaluate.file="$work/zebra.txt" 'rewards=({name="brightness";})'
echo "a red circle" >"$work/plain.txt"
refused "held-out: prompts that cannot be scored" "none of the 1 prompts" \
    evaluate.every=2 evaluate.file="$work/plain.txt"
echo "a circle a circle" >"$work/plain.txt"
refused "held-out: prompts that are not in the cache" "prompt 1 of $work/plain.txt" \
    evaluate.every=2 evaluate.file="$work/plain.txt" prompts.cache="$work/cache.h5" \
    'rewards=({name="brightness";})'
expect "held-out: no folder is begun by any of these" test ! -s \
    "$work/refused/metrics.jsonl"
expect_code "held-out: a dry run reads them" 1 "nowhere.jsonl" "$bin" train \
    configs/tiny.cfg --dry-run --set run.dir="$work/dry" --set evaluate.every=2 \
    --set evaluate.file="$work/nowhere.jsonl"

# --- the report --------------------------------------------------------------------------------
expect_code "held-out: the report tells of it" 0 "Is it better on held-out prompts?" \
    "$bin" report --text "$work/with"
tr -s '\n ' '  ' <"$work/out" >"$work/joined" # lines of 80 columns
expect "held-out: hacking is judged by it" grep -qE \
    "Is the reward hacked\? [^?]*on held-out prompts [^?]*\(iterations 0 to 3\)" "$work/joined"
exit $bad
