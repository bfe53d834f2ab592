#!/bin/bash
# Adapters in whole runs: every promise of full fine-tuning holds, files of
# adapters are used with the weights below them or refused.
# shellcheck disable=SC2154
# shellcheck source=tests/train_lib.sh
. "$(dirname "$0")/train_lib.sh"

launch pretrain 1 2 base pretrain.steps=20 pretrain.batch=8 \
    pretrain.item_size=4 pretrain.eval_every=0 optim.lr=1e-2
wait "$pid"
weights=$work/base/weights.h5
sets=(policy.weights="$weights" lora.rank=4 lora.alpha=8 grpo.kl_beta=0.1)

# --- one rank, one thread: what all others must give --------------------------
expect "lora: the tiny run ends" tiny 1 1 one "${sets[@]}"
one=$(digest one)
file=$work/one/checkpoints/iter_000003.h5
expect "lora: its ratio is exactly 1" test \
    "$(metric one ratio_max_deviation | grep -cx 0)" = 3
expect "lora: its adapters move" test "$(digest one 2)" != "$one"
expect "lora: memory used is memory planned" equal_bytes one
expect "lora: full fine-tuning reserves more" bash -c "
    '$bin' train configs/tiny.cfg --set run.dir='$work/never' \
        --set policy.weights='$weights' --set run.threads=1 --dry-run 2>&1 |
        grep -o '[0-9.]* MB reserved' >'$work/full'
    grep -o '[0-9.]* MB reserved' '$work/one.out' | cat - '$work/full' |
        awk 'NR == 1 { mine = \$1 } NR == 2 { more = \$1 > mine + 0.5 }
            END { exit !more }'"
for at in "2 1" "3 2" "14 1"; do
    run=r${at/ /t}
    # shellcheck disable=SC2086
    tiny ${at/ / } "$run" "${sets[@]}" trajectory.every=0 grpo.micro_batch=2
    same_digest "lora: ranks and threads $at, same adapters" "$run" "$one"
done
tiny 1 2 again "${sets[@]}" parallel.recompute=true trajectory.every=0
same_digest "lora: recomputation" again "$one"
expect "lora: recomputation, memory used is memory planned" equal_bytes again
tiny 1 1 all "${sets[@]}" trajectory.every=0 \
    lora.targets=to_q,to_k,to_v,to_out.0,net.0.proj,net.2,proj_mlp,proj_out
expect "lora: other targets, other adapters" test "$(digest all)" != "$one"
for n in 1 2; do
    expect "lora: replay on $n ranks" ranks $n "$bin" replay --threads 1 \
        "$work/one/trajectories/iter_000002.h5"
done

# --- with guidance and other first values: both branches run through them ----------
expect "lora: a guided run ends" tiny 1 1 guided "${sets[@]}" cfg.scale=2 \
    lora.init=normal
guided=$(digest guided)
expect "lora: guided, its ratio is exactly 1" test \
    "$(metric guided ratio_max_deviation | grep -cx 0)" = 3
expect "lora: guided, other adapters" test \
    "${#guided}" = 64 -a "$guided" != "$one"
expect "lora: guided, memory used is memory planned" equal_bytes guided
# each of an item's two steps in a batch of its own
tiny 2 1 guided.two "${sets[@]}" cfg.scale=2 trajectory.every=0 \
    grpo.micro_batch=1 lora.init=normal
same_digest "lora: guided, two ranks, same adapters" guided.two "$guided"
expect "lora: guided, replay on two ranks" ranks 2 "$bin" replay --threads 1 \
    "$work/guided/trajectories/iter_000002.h5"

# --- files of before digests were taken in pieces ----------------------------------
# on a checkpoint, of whose values the base's digest is known
masters=$work/base/checkpoints/iter_000020.h5
old=("${sets[@]}" policy.weights="$masters")
whole=$("$bin" inspect --digest "$masters" | cut -c 1-64)
tiny 1 1 since "${old[@]}"
tiny 1 1 before "${old[@]}" run.max_seconds=1e-3
before=$work/before/checkpoints/iter_000001.h5
expect "lora: a checkpoint of version 1" "$tools/as_version_1" "$before" "$whole"
expect "lora: is what it was" test "$(digest before 1)" = "$(digest since 1)"
cp "$before" "$work/other.h5"
expect "lora: is continued on two ranks" tiny 2 1 before "${old[@]}"
same_digest "lora: to the same adapters" before "$(digest since)"
trajectory=$work/since/trajectories/iter_000002.h5
expect "lora: a trajectory of version 1" "$tools/as_version_1" "$trajectory" \
    "$work/since/trajectories/iter_000003.h5" "$whole"
expect_code "lora: a trajectory of then is replayed" 0 "agree bit for bit" \
    ranks 2 "$bin" replay --threads 1 "$trajectory"
"$tools/plant" "$masters" flip arrays/weights 77
expect_code "lora: a base with a changed bit is told" 1 "the file is damaged" \
    "$bin" replay --threads 1 "$trajectory"
"$tools/plant" "$masters" flip arrays/weights 77
mv "$masters" "$work/away.h5"
expect_code "lora: no replay on a base that is not where it was" 1 "$masters" \
    "$bin" replay --threads 1 "$trajectory"
expect_code "lora: but where it is" 0 "agree bit for bit" "$bin" replay \
    --threads 1 --weights "$work/away.h5" "$trajectory"
expect_code "lora: nor under a name that is cut" 2 "at most 511 bytes" \
    "$bin" replay --weights "$(printf '%0600d' 0)" "$trajectory"
mv "$work/away.h5" "$masters"
expect_code "lora: adapters of version 1 with their base" 0 "mean of tasks" \
    "$bin" evaluate configs/tiny.cfg --set run.threads=1 \
    --set policy.weights="$work/other.h5"
expect_code "lora: and with another" 1 \
    "its adapters belong to weights of SHA-256 ${whole:0:16}" \
    "$bin" evaluate configs/tiny.cfg --set run.threads=1 \
    --set policy.weights="$work/other.h5" --set lora.base="$weights"

# --- stopped and continued -------------------------------------------------------
tiny 2 1 parts "${sets[@]}" run.max_seconds=1e-3
expect "lora: stopped after an iteration" test $? = 75
expect "lora: continued on other ranks" tiny 1 2 parts "${sets[@]}"
same_digest "lora: continued, the same adapters" parts "$one"

# --- a file of adapters ------------------------------------------------------------
expect "lora: a checkpoint is much smaller than its base" test \
    $((3 * $(stat -c %s "$file"))) -lt "$(stat -c %s \
        "$work/base/checkpoints/iter_000020.h5")"
evaluate()
{
    "$bin" evaluate configs/tiny.cfg --set run.threads=1 \
        --json "$work/figures" --set 'rewards=({name="brightness";})' "$@"
}
expect "lora: evaluate takes the adapters" \
    evaluate --set policy.weights="$file"
mv "$work/figures" "$work/tuned"
evaluate --set policy.weights="$weights" >/dev/null 2>&1
mv "$work/figures" "$work/untuned"
differ "lora: and they change the pictures" "$work/tuned" "$work/untuned"
expect "lora: the averaged ones too" evaluate --ema \
    --set policy.weights="$file"
expect "lora: sample" "$bin" sample configs/tiny.cfg --set run.threads=1 \
    --set policy.weights="$file" --out "$work/grid.png" "a red circle"
expect_code "lora: another rank than the file's" 1 "lora.rank = 4" \
    evaluate --set policy.weights="$file" --set lora.rank=8
expect "lora: adapters go on from adapters" tiny 1 1 further \
    policy.weights="$file" run.iterations=1
expect "lora: which name the base itself" bash -c "
    '$bin' inspect '$work/further/checkpoints/iter_000001.h5' |
        grep -q '^  base_path  *$weights\$'"
mv "$weights" "$work/moved.h5"
expect_code "lora: the base is gone" 1 "weights.h5" \
    evaluate --set policy.weights="$file"
expect_code "lora: lora.base finds it" 0 "mean of tasks" \
    evaluate --set policy.weights="$file" --set lora.base="$work/moved.h5"
expect "lora: with the same pictures" cmp "$work/figures" "$work/tuned"
expect_code "lora: another base is refused" 1 "its adapters belong to" \
    evaluate --set policy.weights="$file" \
    --set lora.base="$work/base/checkpoints/iter_000020.h5"
expect_code "lora: adapters below adapters" 1 "must be the weights below" \
    evaluate --set policy.weights="$file" --set lora.base="$file"
cp "$work/moved.h5" "$weights"

# --- refused ---------------------------------------------------------------------
refused "lora: no weights below" "policy.weights must name" lora.rank=4
refused "lora: a target that is not there" \
    'called "to_z"; they are called x_embedder' "${sets[@]}" \
    lora.targets=to_q,to_z
launch pretrain 1 1 fresh pretrain.steps=0 pretrain.eval_every=0 policy.draw_all=false
wait "$pid"
refused "lora: adapters that change nothing" 'adapters on "to_q" do not change' \
    "${sets[@]}" policy.weights="$work/fresh/weights.h5"
expect_code "lora: pretrain has none" 1 "pretraining trains all" "$bin" \
    pretrain configs/tiny.cfg --set run.dir="$work/never" --set lora.rank=4
exit $bad
