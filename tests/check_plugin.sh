#!/bin/bash
# A user's library as a reward keeps the promises, from the command line, also of
# an emulated GPU; one that does not serve is told before anything is computed.
. "$(dirname "$0")/cuda_lib.sh"
plugins=${DG_BUILD:-build}/tests/plugins
bin=$cpu

# mine FILE OPTIONS [MORE]: the rewards of a run, beside shapes
mine()
{
    echo "rewards=({ name = \"shapes\"; }, { name = \"mine\"; plugin = \"$1\"; options = \"$2\"; weight = 0.5; }${3:-})"
}
own='rewards=({ name = "shapes"; }, { name = "brightness"; weight = 0.5; })'
clip=', { name = "clip"; path = "tests/golden/clip_tiny"; tokenizer = "tests/golden/sd_tiny/tokenizer"; }'

# --- the same as a reward of the program's ---------------------------------------
expect "plugin: a run of its twin" tiny 1 1 own "$own"
whole=$(digest own)
expect "plugin: a run" tiny 1 1 mine "$(mine "$plugins/good.so" "")"
same_digest "plugin: the weights of its twin" mine "$whole"
expect "plugin: the ratio is 1, exactly, in every iteration" ratio_is_one mine 3
expect "plugin: peak_bytes is plan_bytes" equal_bytes mine
tiny 3 1 three "$(mine "$plugins/good.so" "")"
same_digest "plugin: three ranks, the same weights" three "$whole"
tiny 1 2 threads "$(mine "$plugins/good.so" "")"
same_digest "plugin: two threads in turns, the same weights" threads "$whole"
tiny 2 2 safe "$(mine "$plugins/threads.so" "")"
same_digest "plugin: two ranks of two threads at once, the same weights" safe "$whole"
tiny 1 2 upward "$(mine "$plugins/upward.so" "upward")"
expect "plugin: rounding of its own changes no network's bits" ratio_is_one upward 3
tiny 1 1 own_clip "${own%)}$clip)"
tiny 2 1 clip "$(mine "$plugins/good.so" "" "$clip")"
same_digest "plugin: beside a network that has features, the same weights" clip \
    "$(digest own_clip)"

# --- scores that cannot be had ----------------------------------------------------
tiny 1 1 missing "$(mine "$plugins/good.so" "missing=4")"
expect "plugin: some scores are missing" bash -c \
    "grep -E '\"mine\":\{\"mean\":0[^,]*,\"std\":[^,]*,\"missing\":[1-9]' '$work/missing/metrics.jsonl'"
expect "plugin: and why" grep -q 'reward mine is missing: not today: "' \
    "$work/missing/log.txt"
expect "plugin: its description is a line" \
    grep -q '^.*reward mine: .*, of the tests, SHA-256 ' "$work/missing/log.txt"
expect "plugin: of how many" grep -q ' (missing of 12: mine [1-9]' "$work/missing/log.txt"
expect "plugin: the report names the reward" bash -c \
    "'$bin' report --text '$work/missing' | tr -s ' \n' '  ' | grep -q '% of those of mine'"
expect "plugin: with missing scores the ratio is 1" ratio_is_one missing 3
tiny 1 1 looked "$(mine "$plugins/good.so" "missing=4")" evaluate.every=3
expect "plugin: on held-out prompts, and whose weights it was" test "$(grep -cE \
    '^WARN  (averaged weights: )?prompt .* mine is missing: not' "$work/looked.out")" = 3 -a \
    "$(grep -c '^WARN  averaged weights: prompt ' "$work/looked.out")" = 1
tiny 3 1 missing3 "$(mine "$plugins/good.so" "missing=4")"
same_digest "plugin: with missing scores, three ranks, the same weights" \
    missing3 "$(digest missing)"
expect "plugin: no score at all counts as none" tiny 1 1 none "$(mine \
    "$plugins/good.so" "silent")"
expect "plugin: a run without it" tiny 1 1 shapes 'rewards=({ name = "shapes"; })'
same_digest "plugin: and changes nothing" none "$(digest shapes)"

# --- stop, resume, replay -----------------------------------------------------------
cp "$plugins/good.so" "$work/lib.so"
late=$(mine "$work/lib.so" "")
tiny 1 1 late "$late" run.max_seconds=1e-3
expect "plugin: stopped after one iteration" test "$(last_checkpoint late)" = 1
expect "plugin: continued" tiny 1 1 late "$late"
same_digest "plugin: continued, the same weights" late "$whole"
no_warning "plugin: continued with the same library, no warning" "$work/late.out"
expect_code "plugin: a checkpoint has the library's digest" 0 \
    "mine: $work/lib.so, SHA-256 $(sha256sum <"$plugins/good.so" | cut -c 1-64)" \
    "$bin" inspect "$work/late/checkpoints/iter_000003.h5"
tiny 1 1 other "$late" run.max_seconds=1e-3
echo another >>"$work/lib.so"
expect "plugin: continued with another library" tiny 1 1 other "$late"
expect "plugin: which is told, once" test "$(grep -c \
    "^WARN.*iter_000001.h5 has scores of mine: $work/lib.so, SHA-256 .*; now it is mine: $work/lib.so, SHA-256 $(sha256sum <"$work/lib.so" | cut -c 1-64)" \
    "$work/other.out")" = 1
same_digest "plugin: scores alike, the same weights" other "$whole"
expect_code "plugin: another file is another configuration" 1 \
    "was begun with another configuration" "$bin" train configs/tiny.cfg \
    --set run.dir="$work/late" --set "$(mine "$plugins/good.so" "")"
rm "$work/lib.so"
expect_code "plugin: a replay needs no library" 0 "agree bit for bit" "$bin" \
    replay "$work/late/trajectories/iter_000002.h5"

# --- other commands --------------------------------------------------------------------
set_mine=$(mine "$plugins/good.so" "strict=1")
expect_code "plugin: evaluate" 0 "all" "$bin" evaluate configs/tiny.cfg --set \
    "$set_mine" --set policy.weights="$work/mine/checkpoints/iter_000003.h5"
expect "plugin: evaluate names it" grep -q mine "$work/out"
long=a_name_of_more_than_thirty_one_letters
expect_code "plugin: evaluate, a score that is missing" 0 \
    "prompt 0, picture 0: reward ${long}_2 is missing: its library gave no reason" ranks 2 \
    "$bin" evaluate configs/tiny.cfg --json "$work/long.json" \
    --set policy.weights="$work/mine/checkpoints/iter_000003.h5" --set \
    "rewards=({ name = \"${long}_1\"; plugin = \"$plugins/good.so\"; },
        { name = \"${long}_2\"; plugin = \"$plugins/good.so\"; options = \"silent\"; })"
expect "plugin: evaluate has whole names" bash -c \
    "grep -o '\"name\":\"${long}_[12]\"' '$work/long.json' | wc -l | grep -qx 2"
expect_code "plugin: evaluate, it cannot go on" 1 "the model is gone" "$bin" \
    evaluate configs/tiny.cfg --set "$(mine "$plugins/good.so" fatal)" \
    --set policy.weights="$work/mine/checkpoints/iter_000003.h5"
expect_code "plugin: doctor" 0 "network    ok " ranks 2 "$bin" doctor \
    configs/tiny.cfg --set run.dir="$work/doctor" --set "$(mine "$plugins/good.so" "")"
expect_code "plugin: doctor names a rank whose library scores otherwise" 1 \
    "rank 1" ranks 3 "$bin" doctor configs/tiny.cfg --set run.dir="$work/doctor" \
    --set "$(mine "$plugins/good.so" by_rank)"
expect "plugin: by its scores, and which reward's" grep -q \
    "^network *FAIL.*other scores of reward mine " "$work/out"
expect_code "plugin: config" 0 "plugin = \"$plugins/good.so\";" "$bin" config \
    configs/tiny.cfg --set "$set_mine"
expect_code "plugin: plan opens nothing" 0 "scratch" "$bin" plan \
    configs/tiny.cfg --set "$(mine "$plugins/good.so" "refuse")"
expect "plugin: and says what it does not know" grep -q \
    "your own take of memory is not counted: mine.$" "$work/out"
expect_code "plugin: dry run" 0 "all checks passed" "$bin" train \
    configs/tiny.cfg --dry-run --set run.dir="$work/dry" --set "$set_mine"
expect_code "plugin: dry run opens it" 1 'refuses to open: no model for "mine"' \
    "$bin" train configs/tiny.cfg --dry-run --set run.dir="$work/dry" \
    --set "$(mine "$plugins/good.so" "refuse")"

# --- what does not serve ------------------------------------------------------------
key='rewards[1].plugin = "'
refused "plugin: no such file" "${key}nowhere.so\": nowhere.so: cannot open" \
    "$(mine nowhere.so "")"
refused "plugin: not a library" "${key}README.md\": ./README.md: " \
    "$(mine README.md "")"
head -c 3000 "$plugins/good.so" >"$work/cut.so"
refused "plugin: one that is cut short" \
    "is cut short: it has 3000 bytes, and at least $(wc -c <"$plugins/good.so") by" \
    "$(mine "$work/cut.so" "")"
head -c 500 "$plugins/good.so" >"$work/cut.so"
refused "plugin: or shorter" "cut.so\": " "$(mine "$work/cut.so" "")"
refused "plugin: another version" "this program has version 1" \
    "$(mine "$plugins/abi.so" "")"
refused "plugin: no such function" "has no function dg_reward_plugin()" \
    "$(mine "$plugins/symbol.so" "")"
refused "plugin: it cannot go on" "cannot go on: the model is gone" \
    "$(mine "$plugins/good.so" "fatal")"
expect_code "plugin: it cannot go on, three ranks" 1 "the model is gone" ranks 3 \
    "$bin" train configs/tiny.cfg --set run.dir="$work/fatal" --set \
    "$(mine "$plugins/good.so" "fatal")"
expect "plugin: it cannot go on, three ranks, one message" test \
    "$(grep -c '^ERROR' "$work/out")" = 1
expect_code "plugin: it learns its rank" 1 \
    "mine rank 0 of 2, of its node 0 of 2, device -1" ranks 2 "$bin" train \
    configs/tiny.cfg --set run.dir="$work/seat" --set \
    "$(mine "$plugins/good.so" seat)"
mkdir "$work/a" "$work/b"
cp "$plugins/good.so" "$work/a/mine.so"
cp "$plugins/threads.so" "$work/b/mine.so"
differ_on=("$bin" train "$PWD/configs/tiny.cfg" --set run.dir="$work/differ"
    --set prompts.file="$PWD/configs/prompts/shapes_train.jsonl"
    --set prompts.eval_file="$PWD/configs/prompts/shapes_heldout.jsonl"
    --set "$(mine mine.so "")")
expect_code "plugin: ranks with libraries that differ" 1 \
    "must be the same library on all ranks" mpirun --oversubscribe \
    -n 1 -wdir "$work/a" "${differ_on[@]}" : -n 1 -wdir "$work/b" "${differ_on[@]}"

# --- the example and the header --------------------------------------------------------
command=$(sed -n 's/^ *\(cc .*-shared.*\)$/\1/p' doc/howto.md | head -n 1)
expect "plugin: the example, by the line of howto.md" bash -c \
    "${command/-o /-std=c99 -Wall -Wextra -Wpedantic -Werror -o $work/}"
colours=$(mine "$work/libnamed_colours.so" "enough=0.2")
expect "plugin: a run with the example" tiny 1 1 colours "$colours" run.iterations=1
expect "plugin: every prompt of the list names a colour" grep -qE \
    '"mine":\{"mean":0\.[0-9.]*,"std":[^,]*,"missing":0\}' "$work/colours/metrics.jsonl"
printf 'a big cat\nTwo RED circles\nan infrared redhead\n' >"$work/three.txt"
TINY=configs/tiny_flux.cfg # whose words are all there are
expect "plugin: a run with prompts of which one names a colour" tiny 1 1 \
    three_prompts prompts.file="$work/three.txt" prompts.eval_file= \
    run.iterations=1 grpo.prompts_per_iteration=3 \
    "rewards=({ name = \"mine\"; plugin = \"$work/libnamed_colours.so\"; })"
expect "plugin: the others have no score" grep -qE '"missing":8[,}]' \
    "$work/three_prompts/metrics.jsonl"
expect "plugin: and it is said why" grep -q \
    "reward mine is missing: the prompt names no colour" "$work/three_prompts.out"
TINY=configs/tiny.cfg
refused "plugin: the example tells a wrong option" \
    'refuses to open: options = "enough=3": must be enough=SHARE, above 0 and at' \
    "$(mine "$work/libnamed_colours.so" "enough=3")"
echo '#include "dancegrpo/reward_plugin.h"' >"$work/header.cc"
expect "plugin: the header is C++ too" c++ -std=c++98 -Wall -Wextra -Werror \
    -Iinclude -fsyntax-only "$work/header.cc"

# --- beside an emulated GPU -------------------------------------------------------------
bin=$gpu
on_gpu 1 gpu_own "$own"
on_gpu 1 gpu_mine "$(mine "$plugins/good.so" "")"
same_digest "plugin: on a GPU, the weights of its twin" gpu_mine \
    "$(digest gpu_own)"
on_gpu 2 gpu_two "$(mine "$plugins/threads.so" "" "")" parallel.overlap=false
same_digest "plugin: on two GPUs, after the rollout, the same weights" gpu_two \
    "$(digest gpu_own)"
refused "plugin: it learns which GPU" "rank 0 of 1, of its node 0 of 1, device 0" \
    "$(mine "$plugins/good.so" "seat")" run.device=cuda
exit $bad
