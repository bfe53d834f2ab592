#!/bin/bash
# The cache of encoded prompts: the same bits as encoding on the way, on any
# number of ranks, or a refusal.
# shellcheck disable=SC2154
# shellcheck source=tests/train_lib.sh
. "$(dirname "$0")/train_lib.sh"
cache=$work/cache.h5

# encode RANKS FILE [SET]...
encode()
{
    local n=$1 file=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    ranks "$n" "$bin" encode configs/tiny.cfg --set run.threads=1 \
        --set prompts.cache="$file" "${sets[@]}"
}

expect "encode: one rank" encode 1 "$cache"
one=$("$bin" inspect --digest "$cache" | cut -c 1-64)
for n in 2 3; do
    encode $n "$work/ranks$n.h5" >/dev/null 2>&1
    expect "encode: $n ranks, the same data" test "${#one}" = 64 -a "$(
        "$bin" inspect --digest "$work/ranks$n.h5" | cut -c 1-64)" = "$one"
done
# of so long conditions a rank has a few at once
"$bin" plan configs/tiny.cfg --command encode --set run.threads=1 \
    --set policy.text_length=512 --json "$work/plan" >/dev/null 2>&1
expect "encode: a megabyte of conditions at once, by the plan" test \
    "$(sed -n 's/.*"encoded": *\([0-9]*\).*/\1/p' "$work/plan")" = 1017792
"$bin" plan configs/tiny.cfg --command encode --set run.threads=1 \
    --set policy.text_length=512 --set prompts.cache_dtype=bfloat16 \
    --json "$work/plan" >/dev/null 2>&1
expect "encode: in bfloat16 these and what they are rounded to" test \
    "$(sed -n 's/.*"encoded": *\([0-9]*\).*/\1/p' "$work/plan")" = 1526688
for n in 1 3; do
    encode $n "$work/long$n.h5" policy.text_length=512 >/dev/null 2>&1
done
expect "encode: in many pieces, on 1 and 3 ranks, the same data" test "$(
    "$bin" inspect --digest "$work/long3.h5" | cut -c 1-64)" = "$(
    "$bin" inspect --digest "$work/long1.h5" | cut -c 1-64)"
rm -f "$work/long1.h5" "$work/long3.h5"
all=$(cat configs/prompts/shapes_train.jsonl configs/prompts/shapes_heldout.jsonl |
    sed 's/.*"prompt":"\([^"]*\)".*/\1/' | sort -u | wc -l)
all=$((all + 1)) # the empty one
expect "encode: each prompt once, and the empty one" bash -c \
    "'$bin' inspect '$cache' | grep -q '^condition: float32 \[$all, '"

# two that encode into one file, as tasks of an array may: the second leaves the
# first one's unfinished file alone
echo half >"$work/shared.h5.tmp"
flock -o "$work/shared.h5.lock" sleep 100 &
holder=$!
until [ -e "$work/shared.h5.lock" ]; do sleep 0.05; done
expect_code "encode: another process encodes into the file" 75 \
    'shared.h5": another process encodes into it' encode 2 "$work/shared.h5"
same "encode: whose half is left alone" "$(cat "$work/shared.h5.tmp")" half
kill $holder
wait $holder 2>/dev/null
expect "encode: when it was killed, its remains are taken" encode 1 \
    "$work/shared.h5"
expect "encode: and nothing else is left" bash -c \
    "[ -s '$work/shared.h5' ] && ! ls '$work'/shared.h5.*"

# half the size
half=prompts.cache_dtype=bfloat16
for n in 1 3; do
    encode $n "$work/half$n.h5" $half >"$work/out" 2>&1
    expect "encode: in bfloat16, $n ranks, is told" grep -q \
        "values in bfloat16$" "$work/out"
done
expect "encode: in bfloat16, so inspect says" bash -c \
    "'$bin' inspect '$work/half1.h5' | grep -q '^condition: bfloat16 \[$all, '"
expect "encode: in bfloat16, one and three ranks" "$tools/same_data" \
    "$work/half1.h5" "$work/half3.h5"
# a float32 of 4 bytes in 2; the texts and digests of a row stay
expect "encode: in bfloat16, 544 bytes less a row" test $(($(stat -c %s "$cache") - \
    $(stat -c %s "$work/half1.h5"))) -ge $((540 * all))

# --- used -----------------------------------------------------------------------
tiny 1 1 without
want=$(digest without)
tiny 1 1 with prompts.cache="$cache"
same_digest "encode: training from the cache, the same weights" with "$want"
tiny 2 1 two prompts.cache="$work/ranks3.h5" trajectory.every=0
same_digest "encode: on two ranks too" two "$want"
expect "encode: memory used is memory planned" equal_bytes with
expect "encode: the same trajectories, pictures and numbers" bash -c "
    '$bin' replay '$work/with/trajectories/iter_000002.h5' &&
    cmp '$work/without/pictures/iter_000003.png' \
        '$work/with/pictures/iter_000003.png' &&
    diff <(grep -o '\"reward_mean.*\"set_aside' '$work/without/metrics.jsonl') \
         <(grep -o '\"reward_mean.*\"set_aside' '$work/with/metrics.jsonl')"
# the run's text encoders are in its checkpoints, those behind a cache may be others
tiny 1 1 other run.seed=12 run.iterations=1
begun=(policy.weights="$work/start.h5" prompts.cache="$work/start.cache")
# start RUN: begin with its weights
start()
{
    cp "$work/$1/checkpoints/iter_000001.h5" "$work/start.h5"
    encode 1 "$work/start.cache" policy.weights="$work/start.h5" >/dev/null 2>&1
}
start without
tiny 1 1 begun "${begun[@]}" run.iterations=1
start other
tiny 2 1 begun "${begun[@]}" run.iterations=2 parallel.shard=parameters
expect "encode: a run does not go on with a cache of other text encoders" grep -q \
    '^ERROR prompts.cache = .*: it was made by other text encoders than the run has' \
    "$work/begun.out"
start without
tiny 2 1 begun "${begun[@]}" run.iterations=2 parallel.shard=parameters
tiny 1 1 through "${begun[@]}" run.iterations=2
same_digest "encode: it does with its own" begun "$(digest through 2)" 2
cp "$cache" "$work/old.h5"
"$tools/plant" "$work/old.h5" attribute format_version 1
tiny 1 1 old prompts.cache="$work/old.h5" run.iterations=1
same_digest "encode: from a file of version 1, the same weights" old \
    "$(digest without 1)" 1
tiny 1 1 half prompts.cache="$work/half1.h5" $half
expect "encode: rounded conditions make other weights" test \
    "$(digest half)" != "$want"
tiny 2 1 half2 prompts.cache="$work/half3.h5" $half
same_digest "encode: rounded, on two ranks the same" half2 "$(digest half)"
expect "encode: rounded, replayed" "$bin" replay \
    "$work/half2/trajectories/iter_000002.h5"
evaluate()
{
    "$bin" evaluate configs/tiny.cfg --set run.threads=1 \
        --set 'rewards=({name="brightness";})' \
        --set policy.weights="$work/without/checkpoints/iter_000003.h5" "$@"
}
evaluate --json "$work/a" >/dev/null 2>&1
expect "encode: evaluate from the cache" evaluate --json "$work/b" \
    --set prompts.cache="$cache"
expect "encode: the same figures" cmp "$work/a" "$work/b"
printf 'black black black\n' >"$work/own.txt"
encode 1 "$work/own.h5" evaluate.file="$work/own.txt" >/dev/null 2>&1
expect "encode: evaluate from the cache, prompts of its own" evaluate \
    --set evaluate.file="$work/own.txt" --set prompts.cache="$work/own.h5"
expect "encode: sample needs no cache for its own prompts" "$bin" sample \
    configs/tiny.cfg --set run.threads=1 --set prompts.cache="$cache" \
    --set policy.weights="$work/without/checkpoints/iter_000003.h5" \
    --out "$work/grid.png" "a red circle"

# --- adapters, whose runs give the encoders' memory back ----------------------------
launch pretrain 1 2 base pretrain.steps=20 pretrain.batch=8 \
    pretrain.item_size=4 pretrain.eval_every=0 optim.lr=1e-2
wait "$pid"
sets=(policy.weights="$work/base/weights.h5" lora.rank=4 trajectory.every=0)
encode 2 "$work/lora.h5" "${sets[@]}" >/dev/null 2>&1
tiny 1 1 plain "${sets[@]}"
tiny 2 1 lora "${sets[@]}" prompts.cache="$work/lora.h5"
same_digest "encode: adapters from the cache" lora "$(digest plain)"

# guidance, whose empty prompt is in the cache
tiny 1 1 guided.plain "${sets[@]}" cfg.scale=2
tiny 2 1 guided.lora "${sets[@]}" cfg.scale=2 prompts.cache="$work/lora.h5"
same_digest "encode: guided adapters from the cache" guided.lora \
    "$(digest guided.plain)"
expect "encode: guided, memory used is memory planned" equal_bytes guided.lora
mv "$work/a" "$work/unguided"
guided=(--set cfg.scale=2 --set evaluate.num_prompts=8)
evaluate "${guided[@]}" --json "$work/a" >/dev/null 2>&1
expect "encode: guided evaluation from the cache" evaluate "${guided[@]}" \
    --json "$work/b" --set prompts.cache="$cache"
expect "encode: the same guided figures" cmp "$work/a" "$work/b"
expect "encode: others than without guidance" bash -c \
    "! cmp '$work/a' '$work/unguided' >'$work/out' && test -s '$work/a'"

# --- of a folder the text encoders alone are read, and have memory ----------------
cp -r tests/golden/flux_tiny "$work/folder"
folder_cache()
{
    "$bin" encode configs/tiny_flux.cfg --set prompts.cache="$work/$1.h5" \
        --set policy.path="$2" --set run.threads=1 >/dev/null 2>&1 &&
        "$bin" inspect --digest "$work/$1.h5" | cut -c 1-64
}
want=$(folder_cache whole "$work/folder")
rm "$work"/folder/transformer/*.safetensors "$work"/folder/vae/*.safetensors
same "encode: a folder without its network, the same data" \
    "$(folder_cache alone "$work/folder")" "$want"
expect "encode: ranks share it" bash -c "
    mpirun --oversubscribe -n 2 '$bin' encode configs/tiny_flux.cfg --set \
        policy.path='$work/folder' --set prompts.cache='$work/shared.h5' &&
    '$bin' inspect --digest '$work/shared.h5' | grep -q '^$want '"
network='"memory_bytes":{[^}]*"network":'
for at in "tiny 0" "flux_hps 1"; do
    read -r config wanted <<<"$at"
    "$bin" plan "configs/$config.cfg" --command encode --json \
        "$work/plan.json" >/dev/null 2>&1
    grep -q '"memory_bytes":{' "$work/plan.json" &&
        ! grep -q "$network" "$work/plan.json"
    expect "encode: plan of $config" test $((! $?)) = "$wanted"
done

# --- refused -----------------------------------------------------------------------
refused "encode: cache missing, what writes it" 'dancegrpo encode' \
    prompts.cache="$work/none.h5"
expect "encode: which names the file" grep -q "none.h5\": there is no such" \
    "$work/out"
refused "encode: cache of other encoders" "made with text encoders of SHA-256" \
    prompts.cache="$cache" run.seed=12
refused "encode: cache of another width" "again" \
    prompts.cache="$cache" policy.text_length=24
refused "encode: cache in bfloat16 of a float32 run" \
    'or set prompts.cache_dtype = "bfloat16"' \
    prompts.cache="$work/half1.h5"
refused "encode: cache in float32 where bfloat16 is named" \
    'or set prompts.cache_dtype = "float32"' \
    prompts.cache="$cache" $half
# the key of the file may change while a run goes on, the bits may not
refused "encode: no cache of a float32 run where bfloat16 is named" \
    'prompts.cache = "": prompts.cache_dtype = "bfloat16"' $half
expect_code "encode: nor of evaluate" 1 'prompts.cache = "": prompts.cache_dtype' \
    "$bin" evaluate configs/tiny.cfg --set $half \
    --set policy.weights="$work/without/checkpoints/iter_000003.h5"
refused "encode: cache is a checkpoint" "dancegrpo checkpoint" \
    prompts.cache="$work/without/checkpoints/iter_000003.h5"
printf 'a red circle\na red circle and a purple circle\n' >"$work/few.txt"
encode 1 "$work/few.h5" prompts.file="$work/few.txt" prompts.eval_file= \
    >/dev/null 2>&1
refused "encode: a prompt that is not in it" "is not in it: run" \
    prompts.cache="$work/few.h5"
expect "encode: names prompt and file" grep -q \
    'prompt 1 of configs/prompts/shapes_train.jsonl, ".*"' "$work/out"
cp "$cache" "$work/hurt.h5"
"$tools/plant" "$work/hurt.h5" flip condition 7
expect_code "encode: a changed bit is found" 1 "the file is damaged" \
    "$bin" inspect --digest "$work/hurt.h5"
for i in $(seq 0 256 70000); do
    "$tools/plant" "$work/hurt.h5" flip condition "$i" 2>/dev/null || break
done
refused "encode: damaged rows" "the file is damaged" prompts.cache="$work/hurt.h5"
cp "$cache" "$work/retold.h5"
"$tools/plant" "$work/retold.h5" flip tokens_sha256 5
refused "encode: a tokenizer that makes other tokens" \
    "was made into other tokens: run" prompts.cache="$work/retold.h5"
expect_code "encode: no file named" 1 "prompts.cache" "$bin" encode \
    configs/tiny.cfg
ranks 2 "$bin" train configs/tiny.cfg --set run.dir="$work/never" \
    --set prompts.cache="$work/few.h5" >"$work/out" 2>&1
expect "encode: two ranks, one message" test \
    "$(grep -c '^ERROR .*is not in it' "$work/out")" = 1
exit $bad
