#!/bin/bash
# dancegrpo doctor: what it finds right, and what it must find wrong.
. "$(dirname "$0")/lib.sh"
cfg=$work/a.cfg
cp configs/tiny.cfg "$cfg"
printf 'run: { dir = "%s/runs/there"; };\n' "$work" >"$work/dir.cfg"

# digest FILE: of the small network's weights; own FILE: of the samples that
# each rank computes by the configuration's own network
digest() { sed -n 's/^promises.*by all (\([0-9a-f]*\)).*/\1/p' "$1"; }
own() { sed -n 's/^network .* the same samples[^(]*(\([0-9a-f]*\)).*/\1/p' "$1"; }
# row NAME TEXT: of the last output
row() { grep "^$1 " "$work/out" | grep -qF -- "$2"; }
# number FILE KEY: of the JSON
number() { grep -o "\"$2\":[^,}]*" "$1" | head -n 1 | cut -d: -f2; }

expect_code "doctor: one rank, nothing wrong" 0 " 0 failed" "$bin" doctor
cp "$work/out" "$work/one"
expect "doctor: a row of each kind" bash -c 'for r in program mpi ranks cores \
    memory numbers sums arithmetic files promises; do
        grep -q "^$r  *\(ok\|WARN\) " "$1" || { echo "$r"; exit 1; }; done' - \
    "$work/one"
expect_code "doctor: three ranks" 0 "3 on 1 node" ranks 3 "$bin" doctor \
    "$work/dir.cfg"
cp "$work/out" "$work/three"
same "doctor: the same weights by one rank and by three" \
    "$(digest "$work/one")" "$(digest "$work/three")"
expect "doctor: too many threads are told" \
    bash -c "[ \$(nproc) -ge 3 ] || grep -q '^cores *WARN' '$work/three'"
expect "doctor: files are tried above a folder that is not there" \
    grep -q "^files *ok *$work: 13 MB written by all" "$work/three"
expect "doctor: messages and sums of ranks are measured" bash -c \
    "grep -q '^messages  *\(ok\|slow\)  *within nodes' '$work/three' &&
        grep -q '^sums  *ok .* 8 MB .* GB/s' '$work/three'"
expect "doctor: of what does not train the small network alone is tried" \
    grep -q "^network *WARN *not tried, the small one is: rewards" "$work/three"
expect "doctor: nothing is left behind" \
    bash -c "! ls '$work' . | grep -q doctor- && [ ! -e '$work/runs' ]"
expect_code "doctor: levels of sharding, threads" 0 "$(digest "$work/one")" \
    ranks 2 "$bin" doctor --set parallel.shard=parameters --set run.threads=1
expect_code "doctor: a U-Net" 0 "ratio exactly 1" "$bin" doctor \
    configs/tiny_unet.cfg

# --- the configuration's own network ---------------------------------------------------
expect_code "doctor: its own network" 0 " 0 failed" "$bin" doctor "$cfg" \
    --set run.dir="$work/runs/tiny" --json "$work/one.json"
cp "$work/out" "$work/own"
expect "doctor: in all ways" row network "the same bits by micro-batch 1, 2, \
3, with and without recomputation"
expect "doctor: the JSON has the rows" bash -c \
    "[ \$(grep -c '^{\"row\":' '$work/one.json') = \$(grep -c '^[a-z]* *\(ok\|WARN\) ' \
        '$work/own') ] && grep -q '\"failed\":0' '$work/one.json'"
# what a doctor that was killed left goes, what one is just trying stays
(
    mkdir "$work/killed" && cd "$work/killed" || exit
    for who in dead alive; do
        touch "doctor-$who-1.h5" "doctor-$who-1.h5.tmp" "doctor-$who-1.h5.lock"
    done
    touch doctor-other.h5 doctor-.h5.tmp
)
flock -o "$work/killed/doctor-alive-1.h5.lock" sleep 100 &
holder=$!
expect "doctor: files of others" "$bin" doctor "$cfg" --quick \
    --set run.dir="$work/killed"
same "doctor: remains are removed, and no more" "$(cd "$work/killed" && echo *)" \
    "doctor-.h5.tmp doctor-alive-1.h5 doctor-alive-1.h5.lock \
doctor-alive-1.h5.tmp doctor-other.h5"
kill $holder

strange=$work/strange$(printf '\377\033[2J')
mkdir "$strange"
"$bin" doctor "$cfg" --quick --set run.dir="$strange" \
    --json "$work/bytes.json" >"$work/bytes" 2>&1
for file in bytes bytes.json; do
    expect "doctor: a folder whose name is no UTF-8, $file" bash -c \
        "iconv -f UTF-8 '$work/$file' >/dev/null && ! grep -q \$'\033' '$work/$file' &&
            grep -q 'files.*/strange' '$work/$file'"
done
for n in 2 3; do
    expect_code "doctor: its own network, $n ranks" 0 "samples and gradients" \
        ranks $n "$bin" doctor "$cfg"
    same "doctor: $n ranks, the same samples" "$(own "$work/out")" \
        "$(own "$work/own")"
done
expect_code "doctor: its own network in ranges" 0 "with recomputation" \
    ranks 2 "$bin" doctor "$cfg" --set parallel.shard=parameters \
    --set run.threads=1 --set parallel.recompute=true --json "$work/ranges.json"
same "doctor: in ranges, the same samples" "$(own "$work/out")" \
    "$(own "$work/own")"
"$bin" plan "$cfg" --ranks 2 --json "$work/plan.json" >"$work/unused" \
    --set parallel.shard=parameters --set run.threads=1 --set parallel.recompute=true
same "doctor: what goes between ranks is the plan's" \
    "$(number "$work/ranges.json" sum_bytes),$(number "$work/ranges.json" weight_bytes)" \
    "$(sed 's/.*"traffic_bytes":{"sums":\([0-9]*\),"weights":\([0-9]*\)}.*/\1,\2/' \
        "$work/plan.json")"
expect_code "doctor: with --quick it is left out" 0 " 0 failed" "$bin" doctor \
    "$cfg" --quick
expect "doctor: and so is its room" bash -c "! grep '^network\|^room' '$work/out'"
for c in tiny_eps tiny_sd tiny_flux; do
    expect_code "doctor: $c" 0 "network    ok " "$bin" doctor configs/$c.cfg
done
expect_code "doctor: adapters, guidance, KL, a window" 0 "network    ok " \
    ranks 2 "$bin" doctor configs/demo.cfg --set lora.rank=2 \
    --set cfg.scale=2 --set grpo.kl_beta=0.01 --set sampler.window_size=4 \
    --set parallel.exact_sum=false

# what is said of room for files is what a run writes
"$bin" train "$cfg" --set run.dir="$work/run" --set run.iterations=1 \
    >"$work/train.out" 2>&1
"$bin" doctor "$cfg" --set run.iterations=1 --json "$work/room.json" \
    >"$work/out" 2>&1
written=$(cat "$work"/run/checkpoints/* "$work"/run/trajectories/* | wc -c)
told=$(number "$work/room.json" needed_bytes)
expect "doctor: files are as large as told ($told), $written" awk -v a="$told" \
    -v b="$written" 'BEGIN { exit !(a > 0.9 * b && a < 1.1 * b) }'

# --- what has to be told -----------------------------------------------------------------
expect_code "doctor: files that do not all have room" 0 "to look at" "$bin" \
    doctor "$cfg" --set run.iterations=100000000 --set checkpoint.keep=0
expect "doctor: and what helps" row space "(checkpoint.keep, trajectory.every)"
expect_code "doctor: a network that has no room" 1 "room       FAIL" "$bin" \
    doctor configs/sizes_flux_dev.cfg --set 'rewards=({name="brightness";})' \
    --set prompts.file=configs/prompts/shapes_train.jsonl
expect "doctor: nothing of it is tried" row network \
    "not tried, the small one is: there is no room for it"
expect_code "doctor: weights that are not there" 0 \
    "rewards: path = $work/no.pt is not there" "$bin" doctor "$cfg" \
    --set "rewards=({name=\"hpsv2\"; path=\"$work/no.pt\";})"
expect_code "doctor: nor the layers behind them" 0 \
    "rewards: head = $work/no.pth is not there" "$bin" doctor "$cfg" \
    --set "rewards=({name=\"aesthetic\"; path=\"tests/golden/clip_tiny\"; head=\"$work/no.pth\";})"
expect_code "doctor: prompts that are not there" 0 \
    "prompts.file = $work/no.txt is not there" "$bin" doctor "$cfg" \
    --set prompts.file="$work/no.txt"

# a processor of another kind among them
expect_code "doctor: a rank with other bits is named" 1 \
    "FAIL  rank 1 on $(hostname) by itself ends with other weights" mpirun \
    --oversubscribe -n 1 "$bin" doctor : \
    -n 1 -x ONEDNN_MAX_CPU_ISA=SSE41 "$bin" doctor
expect "doctor: and so is what differs" \
    grep -q "^arithmetic WARN  rank 1 computes otherwise" "$work/out"
expect_code "doctor: and what it makes of the configuration's network" 1 \
    "network    FAIL  rank 2 on $(hostname) by itself ends with other" mpirun \
    --oversubscribe -n 2 "$bin" doctor "$cfg" : \
    -n 1 -x ONEDNN_MAX_CPU_ISA=SSE41 "$bin" doctor "$cfg"
expect_code "doctor: a folder that cannot be written" 1 "files      FAIL" \
    "$bin" doctor --set run.dir=/proc/runs
expect "doctor: the other trials go on" grep -q "^promises *ok" "$work/out"
expect_code "doctor: no GPU side, or no GPU" 1 "device     FAIL" \
    "$bin" doctor --set run.device=cuda
expect "doctor: sums and files are tried without it" bash -c \
    "grep -q '^sums *ok' '$work/out' && grep -q '^files *ok' '$work/out'"
expect_code "doctor: an unknown key" 1 "did you mean" \
    "$bin" doctor --set run.device_=cpu
expect_code "doctor: an unknown option" 2 "did you mean --quick" "$bin" \
    doctor --quik
expect_code "doctor: --json without a file" 2 "--json needs a value" "$bin" \
    doctor --json
expect_code "doctor: --json where nothing can be written" 1 "$work/no" \
    "$bin" doctor --json "$work/no/findings.json"
expect "doctor: which is told before anything is tried" bash -c \
    "! grep '^promises' '$work/out'"
expect_code "doctor: a configuration that is not there" 1 "$work/no.cfg" \
    "$bin" doctor "$work/no.cfg"
expect_code "doctor: two configurations" 2 "one argument too many" "$bin" \
    doctor "$cfg" "$cfg"
exit $bad
