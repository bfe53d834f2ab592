#!/bin/bash
# Promises 1, 2 and 4: the ratio is exactly 1, neither ranks nor threads nor
# batches change a bit, and a trajectory file is enough.
. "$(dirname "$0")/train_lib.sh"

# --- one rank, one thread: what all others must give --------------------
expect "promises: the tiny run ends" tiny 1 1 base report.every=1
base=$(digest base)
expect "promises: its ratio is exactly 1" ratio_is_one base 3
expect "promises: its weights move" bash -c \
    "[ $(digest base 1) != $(digest base 2) ] && [ '$base' != $(digest base 2) ]"
tiny 1 1 other run.seed=12 trajectory.every=0
expect "promises: another seed gives other weights" \
    test "$(digest other)" != "$base"

# --- ranks, threads, batches, recomputation ------------------------------
small="trajectory.every=0 checkpoint.every=0"
for at in "1 2" "2 1" "2 2" "3 1" "3 2" "4 1" "4 2"; do
    run=r${at/ /t}
    # shellcheck disable=SC2086
    tiny ${at/ / } "$run" $small
    same_digest "promises: ranks and threads $at, same weights" "$run" "$base"
    expect "promises: ranks and threads $at, ratio 1" ratio_is_one "$run" 3
    same_numbers "promises: ranks and threads $at, same numbers" base "$run"
done
for batch in 1 2 5; do
    # shellcheck disable=SC2086
    tiny 1 1 "batch$batch" grpo.micro_batch=$batch $small
    same_digest "promises: micro_batch $batch" "batch$batch" "$base"
    expect "promises: micro_batch $batch, ratio 1" ratio_is_one "batch$batch" 3
    same_numbers "promises: micro_batch $batch, same numbers" base "batch$batch"
done
# shellcheck disable=SC2086
tiny 2 2 again parallel.recompute=true $small
same_digest "promises: recomputation" again "$base"
expect "promises: recomputation, ratio 1" ratio_is_one again 3
# shellcheck disable=SC2086
tiny 14 1 many $small
same_digest "promises: more ranks than work items" many "$base"
expect "promises: more ranks than work items, told" \
    grep -q "^WARN  14 ranks for 12 work items: 2 ranks are idle" "$work/many.out"

# ranks that have fewer items than a batch: uneven shares, a way back that takes
# less than a rollout
few="grpo.micro_batch=24 grpo.num_generations=8 grpo.timestep_fraction=0.25 $small"
# shellcheck disable=SC2086
{
    tiny 1 1 few1 $few
    tiny 5 1 few5 $few
}
same_digest "promises: fewer items than micro_batch" few5 "$(digest few1)"
for run in few1 few5; do
    expect "promises: memory used is memory planned, $run" equal_bytes $run
done
expect "promises: fewer items take less memory" test \
    "$(metric few5 plan_bytes | head -n 1)" -lt \
    "$(metric few1 plan_bytes | head -n 1)"

# --- memory and metrics ----------------------------------------------------
for run in base batch1 again; do
    expect "promises: memory used is memory planned, $run" equal_bytes $run
done
expect "promises: recomputation needs less memory" test \
    "$(metric again peak_bytes | head -n 1)" -lt \
    "$(metric base peak_bytes | head -n 1)"

# --- one object a line, with every key of the contract -----------------------
for key in iteration reward_mean reward_std zero_std_groups strict_mean \
    diversity ratio_max_deviation clip_fraction clip_fraction_low \
    clip_fraction_high approx_kl ratio_min ratio_max grad_norm lr samples gflops \
    rollout reward update io total; do
    expect "metrics: $key in every line" test \
        "$(metric base "$key" | grep -cE '^-?[0-9][0-9.e+-]*$')" = 3
done
around_one()
{
    paste <(metric "$1" ratio_min) <(metric "$1" ratio_max) | awk '
        { bad += !(0.9 < $1 && $1 < 1 && 1 < $2 && $2 < 1.1) }
        END { exit bad || NR != 3 }'
}
expect "metrics: ratios after the first update lie around 1" around_one base
expect "metrics: mean, std and missing per reward" test "$(grep -cE \
    '"rewards":\{"shapes":\{"mean":[^,]*,"std":[^,]*,"missing":0\},"brightness":\{"mean":[^,]*,"std":[^,]*,"missing":0\}\}' \
    "$work/base/metrics.jsonl")" = 3
# mean_of RUN REWARD: of every iteration
mean_of() { grep -o "\"$2\":{\"mean\":[^,]*" "$work/$1/metrics.jsonl" | sed 's/.*://'; }
weighs_them()
{
    paste <(metric "$1" reward_mean) <(mean_of "$1" shapes) \
        <(mean_of "$1" brightness) | awk '
        { off = $1 - $2 - 0.5 * $3; bad += off * off > 1e-12 || $3 == 0 }
        END { exit bad || NR != 3 }'
}
expect "metrics: reward_mean is the weighted sum" weighs_them base
# work_of RUN: GFLOP of each iteration but the first, in which ranks compare
# what they compute
work_of()
{
    paste -d' ' <(metric "$1" gflops) <(metric "$1" total) |
        awk 'NR > 1 { printf "%.4g ", $1 * $2 }'
}
same "metrics: gflops are of all ranks" "$(work_of r3t1)" "$(work_of base)"
expect "metrics: and of the iteration alone" test \
    "$(work_of base | tr ' ' '\n' | sort -u | grep -c .)" = 1
expect "metrics: every line is one object" "$tools/json_lines" \
    "$work/base/metrics.jsonl" 3

# --- what sums of integers lose is told ---------------------------------------
# faint RUN WEIGHT [SET]...
faint()
{
    local run=$1 list="({ name = \"brightness\"; weight = $2; })"
    shift 2
    # shellcheck disable=SC2086
    tiny 2 1 "$run" "rewards=$list" $small run.iterations=1 sampler.steps=3 "$@"
}
faint faint 1e-8
expect "promises: a gradient that the sum does not resolve is told, once" test \
    "$(grep -c '^WARN  iteration 1, update 1: the gradient is so small' \
        "$work/faint.out") $(grep -c "gradient is so small" "$work/faint.out")" = "1 1"
faint faint.floats 1e-8 parallel.exact_sum=false
faint faint.less 1e-5
expect "promises: not where it does" test "$(cat "$work/faint.floats.out" \
    "$work/faint.less.out" | grep -c -e "gradient is so small" -e ^ERROR)" = 0
faint faint.none 0
expect "promises: nor where nothing is to be learned" test \
    "$(grep -c "gradient is so small" "$work/faint.none.out") $(metric faint.none grad_norm)" = "0 0"
expect "promises: which the weights of the rewards tell at the start" test \
    "$(cat "$work/faint.none.out" "$work/faint.less.out" | grep -c 'all have weight 0')" = 1

# --- what trajectory files say agrees with itself and with the metrics ---------
shown=configs/prompts/shapes_train.jsonl
# facts NAME RUN ITERATION PROMPTS WEIGHT...
facts()
{
    local name=$1 run=$work/$2 iteration=$3
    shift 3
    expect "trajectories: $name" "$tools/trajectory_facts" \
        "$run/trajectories/iter_00000$iteration.h5" "$run/metrics.jsonl" "$@"
}
for i in 1 2 3; do
    facts "iteration $i" base $i $shown 1 0.5
done
quick="run.iterations=2 checkpoint.every=0 report.prompts=1"
# of a group the best and the worst
# shellcheck disable=SC2086
tiny 3 1 some $quick grpo.best_of_n=true grpo.keep_top=1 grpo.keep_bottom=2
facts "three ranks" some 2 $shown 1 0.5
# a prompt of six is of no world: one of its rewards is missing; and groups
# straddle ranks, of which one writes their conditions
{
    head -n 5 $shown
    echo '{"prompt":"a red circle"}'
} >"$work/gaps.jsonl"
# shellcheck disable=SC2086
tiny 5 1 gaps $quick prompts.file="$work/gaps.jsonl" \
    grpo.prompts_per_iteration=6 grpo.update_split=samples
expect "trajectories: scores are missing" test \
    "$(grep -c '"missing":4' "$work/gaps/metrics.jsonl")" = 2
# shellcheck disable=SC2086
tiny 1 1 gaps1 $quick prompts.file="$work/gaps.jsonl" \
    grpo.prompts_per_iteration=6 grpo.update_split=samples
same "trajectories: scores that are missing, told by whichever rank" \
    "$(grep ^WARN "$work/gaps.out")" "$(grep ^WARN "$work/gaps1.out")"
facts "scores that are missing" gaps 2 "$work/gaps.jsonl" 1 0.5
expect "trajectories: scores that are missing, replayed" "$bin" replay \
    "$work/gaps/trajectories/iter_000002.h5"
# pictures of which some are right, by one of two rewards
TINY=configs/demo.cfg tiny 1 1 shipped run.iterations=2 trajectory.every=2 \
    report.prompts=1 grpo.prompts_per_iteration=3 grpo.num_generations=4 \
    sampler.steps=6 \
    'rewards=({name="shapes"; weight=1.0;},{name="brightness"; weight=0.5;})'
expect "trajectories: some pictures are right" test \
    "$(metric shipped strict_mean | grep -c '^0\.[0-9]')" = 2
facts "strict scores" shipped 2 $shown 1 0.5
# more moments than are read at once
expect "trajectories: a larger network, replayed" "$bin" replay \
    "$work/shipped/trajectories/iter_000002.h5"

# --- pictures of held-out prompts, from before the first iteration on -------------
captions=$(head -n 4 configs/prompts/shapes_heldout.jsonl |
    sed 's/.*"prompt":\("[^"]*"\).*/\1/' | paste -sd,)
same "pictures: their captions" "$(cat "$work/base/pictures/prompts.json")" \
    "{\"prompts\":[$captions],\"height\":32,\"width\":32}"
same "pictures: after each iteration, as asked" \
    "$(cd "$work/base/pictures" && echo *)" \
    "iter_000000.png iter_000001.png iter_000002.png iter_000003.png prompts.json"

# --- an average takes its part every so many iterations -----------------------
# averaged RUN ITERATION: digest of the averaged weights of a checkpoint
averaged()
{
    "$bin" convert "$work/$1/checkpoints/iter_00000$2.h5" --weights ema \
        --to "$work/$1.ema$2" >/dev/null 2>&1 &&
        "$bin" inspect --digest "$work/$1.ema$2" | cut -c 1-64
}
# shellcheck disable=SC2086
tiny 1 1 seldom $small checkpoint.every=1 optim.ema_every=2 run.iterations=2 \
    optim.schedule=linear
# shellcheck disable=SC2086
tiny 1 1 never $small optim.ema_every=9 run.iterations=1
untouched=$(averaged never 1)
same "promises: an average of every second iteration begins with the second" \
    "$(averaged seldom 1)" "$untouched"
expect "promises: it moves then, and without ema_every at once" bash -c \
    "[ $(averaged seldom 2) != $untouched ] && [ $(averaged base 1) != $untouched ]"
# shellcheck disable=SC2086
{
    tiny 1 1 fast $small optim.ema_ramp=true run.iterations=3 checkpoint.every=0
    tiny 1 1 stopped $small optim.ema_ramp=true run.iterations=1
    tiny 2 1 stopped $small optim.ema_ramp=true run.iterations=3 checkpoint.every=0
}
fast=$(averaged fast 3)
same "promises: an average that begins fast, stopped and resumed on two ranks" \
    "$(averaged stopped 3)" "$fast"
expect "promises: one that does not is another" bash -c \
    "[ $(averaged base 3) != $fast ]"
expect "promises: the rate falls to nothing by the last of all updates" test \
    "$(metric seldom lr | tr '\n' ' ')" = "0.0005 0 "

# --- every way to sample and to weigh, on one and on two ranks ----------------
# variant NAME SET...
variant()
{
    local name=$1
    shift
    tiny 1 2 "$name" run.iterations=2 checkpoint.every=0 "$@"
    tiny 2 1 "$name.two" run.iterations=2 checkpoint.every=0 \
        trajectory.every=0 grpo.micro_batch=1 "$@"
    expect "promises: $name, ratio 1" ratio_is_one "$name" 2
    expect "promises: $name, there is a gradient" test \
        "$(metric "$name" grad_norm | grep -c '[1-9]')" = 2
    same_digest "promises: $name, two ranks" "$name.two" "$(digest "$name" 2)" 2
    expect "promises: $name, replayed" "$bin" replay \
        "$work/$name/trajectories/iter_000002.h5"
    expect "promises: $name, other weights than the base" test \
        "$(digest "$name" 2)" != "$(digest base 2)"
}
variant flow_sde sampler.sde=flow_sde
variant cps sampler.sde=cps
variant cps_squared sampler.sde=cps sampler.cps_gaussian=false
variant window sampler.window_size=2 sampler.window_start=1 \
    sampler.window_every=1 grpo.timestep_mode=window
facts "steps of a window, behind it an ODE's" window 2 $shown
variant window_drawn sampler.window_size=1 sampler.window_move=random \
    sampler.window_every=1 sampler.window_end=3 grpo.timestep_mode=window
variant window_decay sampler.steps=6 sampler.window_size=2 \
    sampler.window_start=1 sampler.window_every=2 sampler.window_stride=2 \
    sampler.window_decay=exp sampler.window_decay_from=0 \
    sampler.window_decay_rate=1 grpo.timestep_mode=window
variant flash sampler.steps=8 sampler.window_size=2 sampler.window_start=1 \
    sampler.window_every=1 sampler.window_solver=dpmpp_2m \
    sampler.window_compress=0.8 grpo.timestep_mode=window run.witness_every=1
facts "fewer steps behind a window, of second order" flash 2 $shown
expect_code "trajectories: of second order is one of them" 0 \
    "1 steps of second order" "$tools/trajectory_facts" \
    "$work/flash/trajectories/iter_000002.h5" "$work/flash/metrics.jsonl" $shown
# of other times than the next one's, during which it was written
expect "promises: flash, an iteration before the window moved, replayed" \
    "$bin" replay "$work/flash/trajectories/iter_000001.h5"
variant per_sample sampler.init_noise=per_sample sampler.decode=zT
facts "the last latent is decoded" per_sample 2 $shown
variant best_of_n grpo.best_of_n=true grpo.keep_top=1 grpo.keep_bottom=2
# from where a first network has gone a little way: it begins at grey
launch pretrain 1 2 start policy.prediction=data pretrain.steps=3 \
    pretrain.batch=8 pretrain.item_size=2 pretrain.eval_every=0
wait "$pid"
variant data policy.prediction=data policy.weights="$work/start/weights.h5"
variant kl grpo.kl_beta=0.1
variant per_reward grpo.adv_agg=per_reward grpo.advantage_clip=0.4
variant reward_sum grpo.adv_agg=reward_sum
variant group_scope grpo.timestep_scope=group grpo.timestep_count=ceil_t \
    grpo.timestep_weight=std grpo.update_split=samples
variant global_std grpo.adv_std=global optim.ema_every=2 optim.warmup=3 \
    optim.schedule=cosine optim.ema_ramp=true
expect "promises: the rate rises to its third update, falls to the last" test \
    "$(metric global_std lr | tr '\n' ' ')" = "0.000666666667 0 "
variant cfg cfg.scale=2 cfg.grad=detach_uncond
variant guard grpo.ratio=guard cfg.scale=2 grpo.kl_beta=0.05
variant epochs grpo.epochs=2 optim.schedule=linear
expect "promises: with two passes the rate falls to the last update, too" test \
    "$(metric epochs lr | tr '\n' ' ')" = "0.0005 0 "
TINY=configs/tiny_eps.cfg variant eps grpo.kl_beta=0.01 grpo.micro_batch=2 \
    parallel.recompute=true
for run in kl kl.two cfg cfg.two guard guard.two eps eps.two; do
    expect "promises: memory used is memory planned, $run" equal_bytes $run 2
done
none_after_the_first() { ! grep -qE '_kl"|ratio_m(in|ax)"|_(low|high)"' "$1"; }
expect "metrics: one update has none after it" none_after_the_first \
    "$work/eps/metrics.jsonl"
expect "promises: guidance with two updates is warned of" \
    grep -q "^WARN .*updates_per_iteration = 2 with cfg.scale = 2" "$work/cfg.out"
no_warning "promises: guidance with one update is not" "$work/eps.out"
tiny 2 1 inexact parallel.exact_sum=false run.iterations=2 trajectory.every=0
expect "promises: float sums, ratio 1" ratio_is_one inexact 2
tiny 2 1 floats parallel.exact_sum=false run.iterations=1
file=$work/floats/trajectories/iter_000001.h5
expect "replay: float sums, as many ranks" ranks 2 "$bin" replay --threads 1 "$file"
expect_code "replay: float sums, other ranks: why they differ" 1 \
    "as many ranks of one thread each" ranks 3 "$bin" replay --threads 1 "$file"

# --- a reward that does not tell samples apart teaches nothing -----------------
tiny 1 1 still 'rewards=({name="shapes"; weight=1.0;})' optim.weight_decay=0
same_digest "promises: equal rewards leave the weights alone" still \
    "$(digest still 1)"
expect "promises: equal rewards, all groups without spread" test \
    "$(metric still zero_std_groups | grep -cx 3)" = 3
# note RUN ITERATION NAME: an attribute of its trajectory file
note()
{
    "$bin" inspect "$work/$1/trajectories/iter_00000$2.h5" |
        awk -v name="$3" '$1 == name { print $2 }'
}
same "promises: equal rewards, still the weights of the start" \
    "$(note still 1 weights_before_sha256_pieces)" \
    "$(note still 3 weights_after_sha256_pieces)"
expect "promises: the tiny run leaves its start" test \
    "$(note base 1 weights_before_sha256_pieces)" != \
    "$(note base 3 weights_after_sha256_pieces)"

# --- as a table ----------------------------------------------------------------
table() { "$bin" inspect --csv "$@" 2>"$work/err"; }
table "$work/base" >"$work/base.csv"
expect "table: a row for each item of a run" test \
    "$(wc -l <"$work/base.csv")" = 37
same "table: its names" "$(head -n 1 "$work/base.csv")" \
    "iteration,item,prompt_index,sample,shapes,shapes_strict,shapes_advantage,brightness,brightness_strict,brightness_advantage,total_advantage,update,ratio_min,ratio_max,clipped,prompt"
same "table: rewards are those of the metrics" \
    "$(awk -F, 'NR > 1 { sum[$1] += $5 + 0.5 * $8 }
        END { for (i = 1; i <= 3; i++) printf "%.5f ", sum[i] / 12 }' \
        "$work/base.csv")" "$(metric base reward_mean | xargs printf '%.5f ')"
same "table: clipped terms are those of the metrics" \
    "$(awk -F, 'NR > 1 { sum[$1] += $15 }
        END { for (i = 1; i <= 3; i++) printf "%.5f ", sum[i] / 24 }' \
        "$work/base.csv")" "$(metric base clip_fraction | xargs printf '%.5f ')"
same "table: advantages of a group sum to nothing" "$(awk -F, 'NR > 1 {
    sum[$1, $3] += $11 } END { for (g in sum) bad += sum[g]^2 > 1e-10
    print bad + 0 }' "$work/base.csv")" 0
same "table: what is missing, or not trained on, has no number" \
    "$(table "$work/gaps/trajectories/iter_000002.h5" |
        awk -F, '$16 == "\"a red circle\"" { n += $5 $6 == "" && $8 != "" }
            END { print n }') $(table "$work/some/trajectories/iter_000002.h5" |
        awk -F, 'NR > 1 { n += $12 $13 $14 $15 == "" } END { print n }')" "4 3"
expect_code "table: files of other rewards" 1 "its rewards are others than" \
    "$bin" inspect --csv "$work/base" "$work/still"
expect_code "table: a run without trajectories" 1 "trajectory.every > 0" \
    "$bin" inspect --csv "$work/inexact"
expect_code "table: of another file" 1 'a "dancegrpo trajectory" file is wanted' \
    "$bin" inspect --csv "$work/base/checkpoints/iter_000003.h5"
expect_code "table: of trajectories alone" 2 "at a time" \
    "$bin" inspect --csv --digest "$work/base"
file=$work/shipped/trajectories/iter_000002.h5
# pictures A.png OPTION...: of the best or worst
pictures() { "$bin" inspect --pictures "$work/$1" "${@:2}" "$file"; }
expect_code "pictures: of the greatest reward first" 0 \
    "5 of 12 items, of the greatest reward first" pictures best.png --num 5
expect "pictures: on two ranks" ranks 2 "$bin" inspect --num 5 \
    --pictures "$work/again.png" "$file"
expect "pictures: the same" cmp "$work/best.png" "$work/again.png"
expect_code "pictures: of the least reward first" 0 \
    "5 of 12 items, of the least reward first" pictures worst.png --num 5 --worst
differ "pictures: others" "$work/best.png" "$work/worst.png"
file=$work/gaps/trajectories/iter_000002.h5
expect_code "pictures: none of an item that lacks a reward" 0 "20 of 24 items" \
    pictures gaps.png --num 256
file=$work/base/checkpoints/iter_000003.h5
expect_code "pictures: of a trajectory alone" 1 'a "dancegrpo trajectory" file is wanted' \
    pictures none.png
expect_code "pictures: or something else" 2 "at a time" pictures none.png --csv
expect_code "pictures: how many, of none" 2 "say which --pictures" "$bin" \
    inspect --num 5 "$file"
expect_code "inspect: one file at a time" 2 "one argument too many" \
    "$bin" inspect "$work/base.csv" "$work/base.csv"

# --- replay, and what it must notice -------------------------------------------
for i in 1 2 3; do
    file=$work/base/trajectories/iter_00000$i.h5
    expect "replay: iteration $i" "$bin" replay "$file"
    expect "replay: iteration $i on three ranks" ranks 3 "$bin" replay \
        --threads 1 "$file"
done
# noticed NAME TEXT HOW DATASET INDEX [RUN]
noticed()
{
    cp "$work/${6:-base}/trajectories/iter_000002.h5" "$work/planted.h5"
    "$tools/plant" "$work/planted.h5" "$3" "$4" "$5" || return 1
    expect_code "replay: notices a changed $1" 1 "$2" "$bin" replay \
        "$work/planted.h5"
}
noticed log_prob "log_prob[7]" flip log_prob 7
noticed latent "log_prob[" add latents 30000
noticed "last latent" "log_prob[4]" add latents 18431
noticed "decoded latent" "decoded[3077]" flip decoded 3077
noticed condition "log_prob[" add condition 5
noticed weight "log_prob[" add state/weights 40000
noticed "weight's last bit" "weights after the iteration" flip state/weights 40000
noticed moment "replayed_log_prob[" add state/adam_m 69000
noticed reward "advantage[" flip reward 3
noticed advantage "advantage[" flip advantage 5
noticed ratio "ratio[" flip ratio 20
noticed "sum of advantages" "total_advantage[5]" flip total_advantage 5
noticed selection "kept[1]" flip kept 1
noticed "item's update" "update[2]" flip update 2
noticed "choice of steps" "timestep[3]" flip timestep 3
noticed clip "clipped[4]" flip clipped 4
noticed loss "loss[5]" flip loss 5
noticed "noise level" "sigma[1]" flip sigma 1
noticed time "time[2]" flip time 2
noticed "empty prompt" "in the replay" add uncond 5 eps
# digests of weights, and files of before they were taken in pieces
file=$work/base/trajectories/iter_000002.h5
same "trajectories: weights after an iteration are those before the next" \
    "$(note base 2 weights_after_sha256_pieces)" \
    "$(note base 3 weights_before_sha256_pieces)"
expect "trajectories: ... and have a digest" "$bin" inspect --digest "$file"
cp "$file" "$work/planted.h5"
"$tools/plant" "$work/planted.h5" flip state/weights 65000
expect_code "trajectories: which finds a changed bit" 1 \
    "state/weights: SHA-256" "$bin" inspect --digest "$work/planted.h5"
# of every number that a file holds
for at in "latents 30000" "log_prob 7" "reward 3" "kept 2" "state/adam_v 5"; do
    read -r name index <<<"$at"
    cp "$file" "$work/planted.h5"
    "$tools/plant" "$work/planted.h5" flip "$name" "$index"
    expect_code "trajectories: a changed bit of $name" 1 "dataset $name: SHA-256" \
        "$bin" inspect --digest "$work/planted.h5"
done
cp "$file" "$work/old.h5"
expect "trajectories: a file of version 1" "$tools/as_version_1" \
    "$work/old.h5" "$work/base/trajectories/iter_000003.h5"
same "trajectories: of version 1, the same digest" \
    "$("$bin" inspect --digest "$work/old.h5" | cut -c 1-64)" \
    "$("$bin" inspect --digest "$file" | cut -c 1-64)"
same "table: of version 1, rewards have numbers" \
    "$(table "$work/old.h5" | head -n 1 | cut -d, -f 5-10)" \
    "reward_1,reward_1_strict,reward_1_advantage,reward_2,reward_2_strict,reward_2_advantage"
expect "replay: of version 1, on two ranks" ranks 2 "$bin" replay --threads 1 \
    "$work/old.h5"
"$tools/plant" "$work/old.h5" flip state/weights 40000
expect_code "replay: of version 1, a changed weight" 1 \
    "weights after the iteration" "$bin" replay "$work/old.h5"
cp "$work/base/trajectories/iter_000002.h5" "$work/planted.h5"
"$tools/plant" "$work/planted.h5" flip log_prob 59
ranks 3 "$bin" replay "$work/planted.h5" >"$work/out" 2>&1
expect "replay: three ranks, one message" test \
    "$(grep -c '^ERROR .*log_prob' "$work/out")" = 1

# --- a base that predicts noise: pretrained, sampled, tuned ---------------------
sets=(pretrain.steps=3 pretrain.batch=8 pretrain.item_size=2
    pretrain.eval_every=0)
TINY=configs/tiny_eps.cfg launch pretrain 1 2 noise "${sets[@]}"
wait "$pid"
TINY=configs/tiny_eps.cfg launch pretrain 2 1 noise.two "${sets[@]}"
wait "$pid"
same_digest "promises: pretraining of noise, two ranks" noise.two \
    "$(digest noise)"
weights=policy.weights=$work/noise/weights.h5
tiny 1 2 tuned "$weights" sampler.sde=ddim sampler.eta=1 cfg.scale=2 \
    run.iterations=1
expect "promises: weights say that they predict noise" ratio_is_one tuned 1
expect "promises: and are sampled with guidance" "$bin" sample \
    configs/tiny.cfg --set "$weights" --set cfg.scale=2 \
    --out "$work/noise.png" "a red circle"
exit $bad
