#!/bin/bash
# Bad input: one clear message that names file or key, exit code 1 on every
# rank, nothing lost, nothing half-written.
. "$(dirname "$0")/train_lib.sh"

# each rank tells its exit code
cat >"$work/each" <<'END'
#!/bin/bash
"$@"
echo "code $?"
END
chmod +x "$work/each"

# refused NAME TEXT command...: on one rank stderr ends with one ERROR line
# with TEXT, exit code 1; on two ranks the same, from one of them
refused()
{
    local name=$1 text=$2 rc
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    rc=$?
    expect "bad input: $name" bash -c "cat '$work/out' '$work/err'
        [ $rc = 1 ] && [ \$(grep -c '^ERROR ' '$work/err') = 1 ] &&
        tail -n 1 '$work/err' | grep -F -- $(printf %q "$text") |
        grep -q '^ERROR '"
    ranks 2 "$work/each" "$@" >"$work/out" 2>&1
    expect "bad input: $name, two ranks" bash -c "cat '$work/out'
        [ \$(grep -c '^ERROR ' '$work/out') = 1 ] &&
        [ \$(grep -c '^code 1\$' '$work/out') = 2 ]"
}

# refused_run NAME TEXT SET...: train; no run folder or no file half-written
refused_run()
{
    local name=$1 text=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    refused "$name" "$text" "$bin" train configs/tiny.cfg \
        --set run.dir="$work/never" --set run.threads=1 "${sets[@]}"
    expect "bad input: $name, nothing half-written" bash -c \
        "[ ! -e '$work/never' ] || [ -z \"\$(find '$work/never' -name '*.tmp' \
            -o -name '*.h5')\" ]"
    rm -rf "$work/never"
}

# --- configuration --------------------------------------------------------
refused "missing configuration" "none.cfg: cannot be read" \
    "$bin" train "$work/none.cfg"
printf 'grpo: {\n  num_generations = 4\n' >"$work/cut.cfg"
refused "malformed configuration" "cut.cfg:3: syntax error" \
    "$bin" train "$work/cut.cfg"
refused_run "unknown key" "unknown key 'sampler.step', did you mean" \
    sampler.step=4
refused_run "value out of range" "must be an integer in [2, 1000]" sampler.steps=1
refused_run "no rewards" "rewards" "rewards=()"
refused_run "unknown reward" "brightness" 'rewards=({name="beauty";})'
refused_run "sampler without noise" "sampler.sde" sampler.sde=ode
refused_run "DDIM without noise prediction" \
    "must be dance, flow_sde or cps, since the policy predicts velocity" \
    sampler.sde=ddim
refused_run "noise prediction without DDIM" \
    "must be ddim, since the policy predicts epsilon" policy.prediction=epsilon
refused_run "too large a batch" "grpo.micro_batch = 65: at most 64" \
    grpo.micro_batch=65
refused_run "window beyond the steps" "sampler.window_start" \
    sampler.window_size=2 sampler.window_start=4
# not after the iterations before it
refused "window that moves to where no step is trained" \
    "leaves none of 1 steps, must be >= 1, in iteration 4" "$bin" train \
    configs/tiny.cfg --set run.dir="$work/none" --dry-run --set sampler.window_size=2 \
    --set sampler.window_every=1 --set run.iterations=4
refused "noise that DDIM does not have" \
    "sampler.eta = 2: too large for ddim at step 0" "$bin" train \
    configs/tiny_eps.cfg --dry-run --set sampler.eta=2
refused_run "sizes that do not fit" "flux.in_channels" flux.in_channels=64

# --- prompts -----------------------------------------------------------------
prompts() { printf "$2" >"$work/$1"; }
prompts empty.jsonl ''
prompts bytes.jsonl '{"prompt": "a red \377\376 circle"}\n'
prompts torn.jsonl '{"prompt": "a red circle"}\n{"prompt": "a \n'
prompts other.jsonl '{"prompt": "a red circle"}\n{"text": "a red circle"}\n'
prompts word.jsonl '{"prompt": "a red circle"}\n{"prompt": "a red dragon"}\n'
prompts long.txt "a red circle$(printf ' and a red circle%.0s' 1 2 3 4 5 6)\n"
prompts name.csv 'a red circle\n'
refused_run "prompts missing" "none.jsonl" prompts.file="$work/none.jsonl"
refused_run "prompts empty" "empty.jsonl" prompts.file="$work/empty.jsonl"
refused_run "prompts not UTF-8" "bytes.jsonl, line 1: not UTF-8" \
    prompts.file="$work/bytes.jsonl"
refused_run "prompts torn" "torn.jsonl, line 2" prompts.file="$work/torn.jsonl"
refused_run "prompts without prompt" "other.jsonl, line 2" \
    prompts.file="$work/other.jsonl"
refused_run "prompts with an unknown word" \
    'word.jsonl: prompt 2, "a red dragon": word "dragon"' \
    prompts.file="$work/word.jsonl"
prompts bare.txt 'a red circle\ntwo blue squares\n'
refused_run "prompts that no reward can be told from" \
    'rewards[0].name = "shapes": none of the 2 prompts has' \
    prompts.file="$work/bare.txt"
refused "pictures that the world does not paint" \
    "pictures of 24 pixels a side: must be 32 to 128" "$bin" pretrain \
    configs/tiny.cfg --set run.dir="$work/none" --dry-run --set pretrain.image_size=24
refused "pictures that a reward does not score" "it scores pictures of 32 to 128" \
    "$bin" train configs/tiny.cfg --set run.dir="$work/none" --dry-run --set pretrain.image_size=24
refused_run "prompts too long" "long.txt: prompt 1" \
    prompts.file="$work/long.txt"
refused_run "prompts of an unknown kind" "name.csv" \
    prompts.file="$work/name.csv"
refused_run "prompts are a folder" "$work" prompts.file="$work"
refused_run "prompts file not named" "prompts.file" prompts.file=
refused_run "held-out prompts with an unknown word" "word.jsonl: prompt 2" \
    prompts.eval_file="$work/word.jsonl"

# --- weights and checkpoints ----------------------------------------------------
launch pretrain 1 2 base pretrain.steps=2 pretrain.batch=4 \
    pretrain.item_size=2 pretrain.eval_every=0
wait "$pid"
weights=$work/base/weights.h5
checkpoint=$work/base/checkpoints/iter_000002.h5
expect "bad input: weights and checkpoint to be harmed" \
    test -s "$weights" -a -s "$checkpoint"
expect "bad input: good weights are taken" tiny 1 2 good \
    policy.weights="$weights" run.iterations=1
# harmed FILE HOW...: a copy of it, changed
harmed()
{
    local from=$1 to=$work/harmed.h5
    shift
    cp "$from" "$to"
    case $1 in
    cut) truncate -s "-$2" "$to" ;;
    *) "$tools/plant" "$to" "$@" ;;
    esac
}
refused_run "weights missing" "none.h5" policy.weights="$work/none.h5"
refused_run "weights are a text" "is not an HDF5 file" \
    policy.weights="$PWD/configs/tiny.cfg"
for file in "$weights" "$checkpoint"; do
    kind=$(basename "$file")
    harmed "$file" cut 4000
    refused_run "$kind cut short" "harmed.h5" policy.weights="$work/harmed.h5"
    harmed "$file" attribute format_version 99
    refused_run "$kind of another version" "version 99" \
        policy.weights="$work/harmed.h5"
    harmed "$file" attribute complete 0
    refused_run "$kind not complete" "was not written to its end" \
        policy.weights="$work/harmed.h5"
    harmed "$file" config "num_single_layers = 1" "num_single_layers = 2"
    refused_run "$kind with parameters missing" "harmed.h5" \
        policy.weights="$work/harmed.h5"
    harmed "$file" config "d_ff = 32" "d_ff = 64"
    refused_run "$kind of another shape" "harmed.h5" \
        policy.weights="$work/harmed.h5"
done
harmed "$checkpoint" flip arrays/weights 5
refused_run "checkpoint with a bit changed" "arrays/weights: SHA-256" \
    policy.weights="$work/harmed.h5"
harmed "$weights" flip weights/transformer.proj_out.weight 5
refused_run "weights with a bit changed" "proj_out.weight: SHA-256" \
    policy.weights="$work/harmed.h5"
refused_run "trajectory as weights" "iter_000001.h5" \
    policy.weights="$work/good/trajectories/iter_000001.h5"
cp "$work/good/trajectories/iter_000001.h5" "$work/replayed.h5"
harmed "$work/replayed.h5" cut 3000
refused "replay of a file cut short" "harmed.h5" \
    "$bin" replay "$work/harmed.h5"
harmed "$work/replayed.h5" attribute format_version 99
refused "replay of another version" "version 99" "$bin" replay \
    "$work/harmed.h5"
for n in 0 -7 4294967296; do
    harmed "$work/replayed.h5" attribute iteration $n
    refused "replay of iteration $n" "iteration = $n: must be 1 to" "$bin" replay \
        "$work/harmed.h5"
done
refused "replay of a checkpoint" "dancegrpo checkpoint" "$bin" replay \
    "$checkpoint"
refused "inspect of a text" "is not an HDF5 file" "$bin" inspect \
    configs/tiny.cfg
refused "evaluate without weights" "policy.weights" "$bin" evaluate \
    configs/tiny.cfg
refused "sample with an unknown word" "dragon" "$bin" sample \
    configs/tiny.cfg --set policy.weights="$weights" \
    --out "$work/never.png" "a red dragon"
refused "sample of a word that begins with -" "-5" "$bin" sample \
    configs/tiny.cfg --set policy.weights="$weights" \
    --out "$work/never.png" -- "-5 circles"
refused "sample of no words" "PROMPT 2 is empty" "$bin" sample \
    configs/tiny.cfg --set policy.weights="$weights" "a red circle" " "
refused "sample of other bytes" "PROMPT 2: not UTF-8" "$bin" sample \
    configs/tiny.cfg --set policy.weights="$weights" --out "$work/never.png" \
    "a red circle" "$(printf 'red \377')"
refused "a snapshot that is not there" 'policy.path = "none": there is no such' \
    "$bin" train configs/tiny.cfg --set policy.path=none
refused "weights that are a folder" "of others are a whole folder, policy.path" \
    "$bin" evaluate configs/tiny.cfg --set policy.weights="$work"
refused "weights of others" "must be a checkpoint or weights file of this program" \
    "$bin" train configs/tiny.cfg --set policy.weights=lora.safetensors
mkdir "$work/arun" && : >"$work/arun/config.cfg"
refused "inspect of a run" "is a run's folder" "$bin" inspect "$work/arun"
refused "figures with no place" "none/a.json: cannot create" "$bin" plan \
    configs/tiny.cfg --dry-run --json "$work/none/a.json"
refused "conditions with no place" "none/c.h5: cannot create" "$bin" \
    encode configs/tiny.cfg --dry-run --set prompts.cache="$work/none/c.h5"
harmed "$weights" cut 4000
for command in train pretrain evaluate sample encode; do
    refused "$command --dry-run looks into the weights" "harmed.h5" "$bin" \
        "$command" configs/tiny.cfg --dry-run \
        --set policy.weights="$work/harmed.h5" \
        --set prompts.cache="$([ $command != encode ] || echo "$work/c.h5")"
done
refused "evaluate without rewards" "rewards" "$bin" evaluate \
    configs/tiny.cfg --set policy.weights="$weights" --set "rewards=()"

# --- run folder -------------------------------------------------------------------
refused "run folder below a file" "cut.cfg" "$bin" train configs/tiny.cfg \
    --set run.dir="$work/cut.cfg/run"
for command in train pretrain; do
    refused "$command --dry-run looks at the run folder" \
        "cut.cfg/run: Not a directory" "$bin" "$command" configs/tiny.cfg \
        --dry-run --set run.dir="$work/cut.cfg/run"
done
tiny 1 1 begun run.iterations=1 >/dev/null
expect_code "bad input: --dry-run compares configurations" 1 \
    "optim.lr: 0.001 -> 0.0001" "$bin" train configs/tiny.cfg --dry-run \
    --set run.dir="$work/begun" --set optim.lr=1e-4
refused "pretraining in a tuned run's folder" \
    "begun was begun by train: pretrain needs another run.dir" "$bin" pretrain \
    configs/tiny.cfg --set run.dir="$work/begun" --set run.threads=1
"$bin" pretrain configs/tiny.cfg --set run.dir="$work/base" --set run.threads=1 \
    --set pretrain.steps=1 >/dev/null 2>&1
refused "tuning in a pretrained one's" \
    "base was begun by pretrain: train needs another run.dir" "$bin" train \
    configs/tiny.cfg --set run.dir="$work/base" --dry-run
# a run that starts while another one writes there waits for its end
flock "$work/begun/log.txt" sleep 2 &
expect "two runs of a folder: one after the other" bash -c "
    '$bin' train configs/tiny.cfg --set run.dir='$work/begun' \
        --set run.threads=1 --set run.iterations=2 >'$work/out' 2>&1
    cat '$work/out'
    grep -q '^WARN  $work/begun: another run writes there' '$work/out' &&
        grep -q '^it *2/2' '$work/out'"
wait $!
if [ "$(id -u)" != 0 ]; then
    mkdir "$work/closed" && chmod a-w "$work/closed"
    refused "run folder not writable" "closed" "$bin" train configs/tiny.cfg \
        --set run.dir="$work/closed/run"
fi

# --- full disk: what was there stays, and the run goes on later -----------------------
sets=(trajectory.every=0 run.iterations=5 checkpoint.keep=0)
# told_and_kept RUN REASON: one message with file and reason, no remains
told_and_kept()
{
    cat "$work/$1.out"
    [ "$(grep -c '^ERROR ' "$work/$1.out")" = 1 ] && no_unfinished "$1" &&
        grep '^ERROR ' "$work/$1.out" | grep -F "$work/$1" | grep -qF "$2"
}
tiny 1 2 whole "${sets[@]}"
mkdir "$work/disk"
if mount -t tmpfs -o size=4m dg_test "$work/disk" 2>/dev/null; then
    trap 'umount "$work/disk" 2>/dev/null; rm -rf "$work"' EXIT
    ln -s disk "$work/full"
    tiny 2 1 full "${sets[@]}"
    expect "bad input: full disk, exit code 1" test $? = 1
    expect "bad input: full disk, one message, nothing half-written" \
        told_and_kept full "No space left on device"
    expect "bad input: full disk, some checkpoints came before" \
        has_more_than full 1
    for i in $(seq 1 "$(last_checkpoint full)"); do
        same_digest "bad input: full disk, checkpoint $i is whole" full \
            "$(digest whole "$i")" "$i"
    done
    mount -o remount,size=32m "$work/disk"
    expect "bad input: room again, the run goes on" tiny 1 1 full "${sets[@]}"
    same_digest "bad input: room again, the same weights" full \
        "$(digest whole 5)" 5
fi
(
    trap '' XFSZ
    ulimit -f 4200
    tiny 1 1 limit t5.d_ff=32768 "${sets[@]}" run.iterations=1
)
expect "bad input: file size limit, exit code 1" test $? = 1
expect "bad input: file size limit, one message, nothing half-written" \
    told_and_kept limit "iter_000001.h5.tmp"
expect "bad input: file size limit lifted" tiny 1 1 limit t5.d_ff=32768 \
    "${sets[@]}" run.iterations=1

# --- fewer threads than a rank is to have ---------------------------------------------
OMP_THREAD_LIMIT=1 refused_run "OMP_THREAD_LIMIT below run.threads" \
    "run.threads = 2: OpenMP has 1 here" run.threads=2
OMP_THREAD_LIMIT=1 expect "bad input: run.threads = 0 keeps to it" tiny 1 0 few \
    "${sets[@]}" run.iterations=1

# --- numbers that are not finite: named, set aside, or the end ---------------------------
wild=(run.iterations=8 optim.lr=1 optim.weight_decay=10 checkpoint.keep=0)
expect "bad input: NaN in the network, the run goes on" tiny 1 2 wild \
    "${wild[@]}"
expect "bad input: NaN names sample, step and layer" grep -qE \
    "^WARN  iteration [0-9]+, prompt [0-9]+, sample 0, step 0, rank 0: layer .* not finite" \
    "$work/wild.out"
expect "bad input: NaN in an update names the layer" grep -qE \
    "^WARN  iteration [0-9]+, update 2, prompt [0-9]+, sample [0-9]+, rank 0: layer .* not finite" \
    "$work/wild.out"
expect "bad input: NaN, that update is not applied" test \
    "$(metric wild skipped_updates | grep -cx 1)" -ge 1
expect "bad input: NaN, samples without a score are set aside" test \
    "$(metric wild set_aside | tail -n 1)" = 12
expect "bad input: NaN, metrics stay JSON" "$tools/json_lines" \
    "$work/wild/metrics.jsonl" 8
expect_code "bad input: NaN, evaluate names the layer, not a reward" 0 \
    "WARN  prompt 0, picture 0: step 0: layer " "$bin" evaluate configs/tiny.cfg \
    --set policy.weights="$work/wild/checkpoints/iter_000008.h5"
tiny 2 1 wild2 "${wild[@]}"
same_digest "bad input: NaN, two ranks go the same way" wild2 \
    "$(digest wild 8)" 8
expect "bad input: NaN, replay of such an iteration" "$bin" replay \
    "$work/wild/trajectories/iter_000008.h5"
# at some of a sample's steps alone: which of the others were gone through before
# is no matter of how many go at once
for batch in 1 3; do
    TINY=configs/tiny_unet.cfg tiny 1 1 part$batch run.iterations=1 optim.lr=1 \
        optim.weight_decay=9 optim.max_grad_norm=0.005 grpo.epochs=4 \
        grpo.num_generations=2 grpo.prompts_per_iteration=2 sampler.steps=6 \
        grpo.timestep_mode=all report.prompts=1 evaluate.steps=1 \
        grpo.micro_batch=$batch
done
expect "bad input: NaN in an update, micro_batch 1 and 3" "$tools/same_data" \
    "$work/part1/trajectories/iter_000001.h5" \
    "$work/part3/trajectories/iter_000001.h5"
tiny 2 1 strict "${wild[@]}" run.on_nan=stop
expect "bad input: run.on_nan = stop, exit code 1" test $? = 1
expect "bad input: run.on_nan = stop, one message naming the sample" bash -c \
    "[ \$(grep -c '^ERROR ' '$work/strict.out') = 1 ] &&
     grep -qE '^ERROR .*, sample .*run.on_nan = \"stop\"' '$work/strict.out'"
last=$(last_checkpoint strict)
same_digest "bad input: run.on_nan = stop, checkpoints before are whole" \
    strict "$(digest wild "$last")" "$last"
exit $bad
