#!/bin/bash
# What can be refused without weights is refused before they are read, which may
# take minutes: beside each fault the weights are spoilt too, and the fault is told.
. "$(dirname "$0")/train_lib.sh"

# spoil FOLDER: the last values of every file there are NaN, lists of tensors good
spoil()
{
    local file
    find "$1" -name '*.safetensors' | while read -r file; do
        printf '\xff\xff\xff\xff\xff\xff\xff\xff' | dd of="$file" bs=1 \
            conv=notrunc status=none seek=$(($(stat -c %s "$file") - 8))
    done
}

# told NAME TEXT COMMAND...: and nothing else is; told2: by one of two ranks
told()
{
    local name=$1 text=$2
    shift 2
    $launcher "$bin" "$@" >"$work/out" 2>&1
    expect "early: $name" bash -c "cat '$work/out'
        [ \$(grep -c '^ERROR ' '$work/out') = 1 ] &&
        grep '^ERROR ' '$work/out' | grep -qF -- $(printf %q "$text")"
}

told2() { launcher="ranks 2" told "$@"; }
launcher=

for kind in flux sd; do
    cp -r tests/golden/${kind}_tiny "$work/$kind"
    spoil "$work/$kind"
done
cp -r tests/golden/clip_tiny "$work/clip"
spoil "$work/clip"
printf 'a red circle\n' >"$work/bare.txt"
printf '{"prompt": "a red dragon"}\n' >"$work/dragon.jsonl"
cp configs/prompts/shapes_heldout.jsonl "$work/good.jsonl"
clip="name=\"clip\";path=\"$work/clip\";tokenizer=\"tests/golden/sd_tiny/tokenizer\";"

# --- train --------------------------------------------------------------------
for kind in flux sd; do
    run=(train configs/tiny_$kind.cfg --set policy.path="$work/$kind"
        --set run.dir="$work/run" --set run.threads=1)
    told "$kind: of good keys the weights" "weights must be finite" "${run[@]}"
    told2 "$kind: pictures that a reward does not score" "it scores pictures of 32" \
        "${run[@]}" --set 'rewards=({name="shapes";})' --set policy.height=16 \
        --set policy.width=16
    told "$kind: prompts without what a reward scores by" "none of the 1 prompts" \
        "${run[@]}" --set 'rewards=({name="shapes";})' \
        --set prompts.file="$work/bare.txt"
    told "$kind: held-out prompts without it" "none of the 1 prompts" \
        "${run[@]}" --set 'rewards=({name="shapes";})' --set evaluate.every=1 \
        --set evaluate.file="$work/bare.txt"
done
run=(train configs/tiny_flux.cfg --set policy.path="$work/flux"
    --set run.dir="$work/run" --set run.threads=1)
told2 "a window without steps" "leaves none of 1 steps" "${run[@]}" \
    --set sampler.window_size=2 --set sampler.window_every=1 \
    --set run.iterations=4
told "more updates than samples" "grpo.updates_per_iteration = 9" "${run[@]}" \
    --set grpo.updates_per_iteration=9
told "a step's noise" "sampler.eta = 2" train configs/tiny_sd.cfg \
    --set policy.path="$work/sd" --set run.dir="$work/run" --set sampler.eta=2
export OMP_THREAD_LIMIT=2
told "threads that are not there" "OMP_THREAD_LIMIT" "${run[@]}" \
    --set run.threads=4
unset OMP_THREAD_LIMIT
told2 "conditions that are not there" "there is no such file" "${run[@]}" \
    --set prompts.cache="$work/none.h5"
expect "early: encode" "$bin" encode configs/tiny_flux.cfg --set \
    prompts.cache="$work/prompts.h5" --set prompts.file="$work/good.jsonl"
told "prompts that a file of conditions lacks" "is not in it" "${run[@]}" \
    --set prompts.cache="$work/prompts.h5"
told2 "a program that is not there, behind a network" "rewards[1].command" \
    "${run[@]}" --set "rewards=({$clip},
        {name=\"mine\";command=\"$work/none\";})"
told "weights that are not there, behind a network" "rewards[1].path" \
    "${run[@]}" --set "rewards=({$clip},
        {name=\"pickscore\";path=\"$work/none\";})"
rm "$work"/flux/transformer/*-00002-*
told2 "the policy's, behind rewards'" "cannot open" "${run[@]}" \
    --set "rewards=({$clip})"
rm "$work"/flux/*/*.safetensors
told "a fault before weights that are not there" "none of the 1 prompts" \
    "${run[@]}" --set 'rewards=({name="shapes";})' \
    --set prompts.file="$work/bare.txt"

# --- words, beside weights of a file --------------------------------------------
"$bin" pretrain configs/tiny.cfg --set run.dir="$work/base" \
    --set pretrain.steps=1 --set pretrain.batch=4 --set pretrain.item_size=2 \
    --set pretrain.eval_every=0 >"$work/base.out" 2>&1
weights=$work/base/checkpoints/iter_000001.h5
"$tools/plant" "$weights" flip arrays/weights 5
weights=(--set policy.weights="$weights")
run=(configs/tiny.cfg --set run.dir="$work/run" --set run.threads=1 "${weights[@]}")
words='dragon.jsonl: prompt 1, "a red dragon": word "dragon"'
told "of good words the weights" "arrays/weights" train "${run[@]}"
told2 "words of prompts" "$words" train "${run[@]}" \
    --set prompts.file="$work/dragon.jsonl"
told "words of held-out prompts" "$words" train "${run[@]}" \
    --set prompts.eval_file="$work/dragon.jsonl"
told "words that are evaluated" "$words" evaluate "${run[@]}" \
    --set prompts.eval_file="$work/dragon.jsonl"
told2 "words that are painted" 'prompt 1, "a red dragon"' sample "${run[@]}" \
    "a red dragon" --out "$work/p.png"
told "words that are encoded" "$words" encode "${run[@]}" \
    --set prompts.file="$work/dragon.jsonl" --set prompts.cache="$work/c.h5"
told "words of pretraining's held-out prompts" "dragon" pretrain "${run[@]}" \
    --set evaluate.file="$work/dragon.jsonl"
exit $bad
