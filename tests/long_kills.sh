#!/bin/bash
# Promise 3 at length: at least 20 SIGKILLs at random moments, each time
# continued on another number of ranks and threads; the weights at the end are
# those of a run never stopped. SEED=n repeats a choice of moments.
. "$(dirname "$0")/train_lib.sh"
RANDOM=${SEED:-2026}

# one_kill COMMAND RUN SET...: starts, lets it live a random while, kills;
# moments cover the start, an iteration, and a checkpoint being written
one_kill()
{
    local kind=$1 run=$2 before
    shift 2
    before=$(last_checkpoint "$run")
    launch "$kind" $((RANDOM % 4 + 1)) $((RANDOM % 2 + 1)) "$run" "$@"
    case $((RANDOM % 4)) in
    0) sleep 0.$((RANDOM % 10)) ;;
    1) until_or_end writes_checkpoint "$run" ;;
    2)
        until_or_end has_more_than "$run" "$before"
        sleep 0.0$((RANDOM % 10))
        ;;
    3)
        until_or_end has_more_than "$run" "$before"
        until_or_end writes_checkpoint "$run"
        ;;
    esac
    kill_run
}

# kills COMMAND RUN COUNT SET...: the number that found the run alive
kills()
{
    local kind=$1 run=$2 count=$3 done=0 i
    shift 3
    for ((i = 0; i < count; i++)); do
        one_kill "$kind" "$run" "$@" && done=$((done + 1))
    done
    [ "$done" = "$count" ] || echo "only $done kills"
    [ "$done" = "$count" ]
}

sets=(run.iterations=60 checkpoint.keep=5 trajectory.every=7)
expect "kills: train, undisturbed" tiny 1 1 whole "${sets[@]}"
expect "kills: train, 24 SIGKILLs" kills train killed 24 "${sets[@]}"
expect "kills: train, to the end" tiny 2 2 killed "${sets[@]}"
same_digest "kills: train, the same weights" killed "$(digest whole 60)" 60
expect "kills: train, each iteration once" "$tools/json_lines" \
    "$work/killed/metrics.jsonl" 60
expect "kills: train, nothing half-written" no_unfinished killed
expect "kills: train, every trajectory" test "$(
    find "$work/killed/trajectories" -name '*.h5' | wc -l)" = 8
for file in "$work"/killed/trajectories/*.h5; do
    expect "kills: train, replay of $(basename "$file")" "$bin" replay "$file"
done

sets=(pretrain.steps=160 pretrain.batch=8 pretrain.item_size=2
    pretrain.eval_every=0 checkpoint.keep=5)
launch pretrain 1 1 base "${sets[@]}"
wait "$pid"
expect "kills: pretrain, undisturbed" test $? = 0
expect "kills: pretrain, 12 SIGKILLs" kills pretrain hurt 12 "${sets[@]}"
launch pretrain 3 1 hurt "${sets[@]}"
wait "$pid"
expect "kills: pretrain, to the end" test $? = 0
same_digest "kills: pretrain, the same checkpoint" hurt "$(digest base 160)" 160
expect "kills: pretrain, the same weights file" test \
    "$("$bin" inspect --digest "$work/base/weights.h5" | cut -c 1-64)" = \
    "$("$bin" inspect --digest "$work/hurt/weights.h5" | cut -c 1-64)"
expect "kills: pretrain, each step once" "$tools/json_lines" \
    "$work/hurt/metrics.jsonl" 160
expect "kills: pretrain, nothing half-written" no_unfinished hurt
exit $bad
