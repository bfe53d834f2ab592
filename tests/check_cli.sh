#!/bin/bash
# The command line: help, configuration, messages and exit codes.
. "$(dirname "$0")/lib.sh"

expect_code "cli: --version" 0 "dancegrpo 0." "$bin" --version
expect_code "cli: --help lists commands" 0 "  config " "$bin" --help
expect_code "cli: no command is a usage error" 2 "usage:" "$bin"
expect_code "cli: unknown command, did you mean" 2 \
    "unknown command 'confg', did you mean 'config'?" "$bin" confg
expect_code "cli: help of a command lists keys" 0 "grpo.num_generations" \
    "$bin" config --help
for command in $("$bin" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    "$bin" "$command" --help >"$work/out"
    expect "cli: help of $command has no line of more than 80 characters" bash -c \
        "[ -s '$work/out' ] && ! grep -E '.{81}' '$work/out'"
done
expect "cli: which breaks texts at blanks" grep -Pzqo \
    "  rewards\[\]\.name               which reward: shapes, .*\n {31}[a-z0-9]" "$work/out"
expect_code "cli: and names the rewards that a wrong name is told" 1 \
    "must be $(tr -s ' \n' ' ' <"$work/out" |
        sed 's/.*which reward: \(.*imagereward\); or, with command.*/\1/')" "$bin" train \
    configs/tiny.cfg --set run.dir="$work/none" --dry-run \
    --set 'rewards=({ name = "none"; })'
expect_code "cli: unknown option" 2 "unknown option --dry" "$bin" config --dry
expect_code "cli: an option that is the last name of a key" 2 \
    "--iterations; keys are set by --set run.iterations=..." "$bin" train \
    configs/tiny.cfg --iterations 3
expect_code "cli: an option that is near" 2 "did you mean --seeds?" "$bin" \
    sample configs/tiny.cfg --seed 3
expect_code "cli: what begins with - behind --" 1 '-5.h5: cannot open' "$bin" \
    replay -- -5.h5
expect_code "cli: which is told" 2 "unknown option -5.h5 (an argument that" \
    "$bin" replay -5.h5
expect_code "cli: --set without =" 2 "must be key=value" \
    "$bin" config --set grpo
expect_code "cli: --set at the end" 2 "key=value" "$bin" config --set
expect_code "cli: one argument too many" 2 "one argument too many: b" \
    "$bin" config a b

expect_code "cli: a key without --set" 2 "keys are set by --set key=value" \
    "$bin" train configs/tiny.cfg run.seed=3
# shellcheck disable=SC2088 # it is not to be replaced
expect_code "cli: a home folder that no shell has named" 1 \
    'policy.path = "~/FLUX": ~ and $NAME stand for nothing' "$bin" config \
    --set policy.path='~/FLUX'

printf 'grpo: {\n  num_generatons = 4;\n};\n' >"$work/typo.cfg"
expect_code "cli: unknown key names file, line and proposal" 1 \
    "typo.cfg:2: unknown key 'grpo.num_generatons', did you mean" \
    "$bin" config "$work/typo.cfg"
printf 'grpo: {\n  num_generations = 4\n' >"$work/cut.cfg"
expect_code "cli: malformed file" 1 "cut.cfg:3: syntax error" \
    "$bin" config "$work/cut.cfg"
expect_code "cli: missing file" 1 "none.cfg: cannot be read" \
    "$bin" config "$work/none.cfg"
expect_code "cli: a prompt in the place of CONFIG" 1 \
    "a red circle: cannot be read: No such file or directory (the first argument is CONFIG, [PROMPT]... follows)" \
    "$bin" sample "a red circle"
printf '\n@include "none.cfg"\n' >"$work/including.cfg"
expect_code "cli: missing file that another one includes" 1 \
    "none.cfg: cannot be read: No such file or directory (included by $work/including.cfg:2)" \
    "$bin" config "$work/including.cfg"
expect_code "cli: value out of range" 1 "must be an integer in [2, 4096]" \
    "$bin" config --set grpo.num_generations=1
expect_code "cli: keys that contradict each other" 1 "their sum is" \
    "$bin" config --set flux.head_dim=64

"$bin" config --set sampler.eta=0.123456789 --set run.seed=7 >"$work/a.cfg"
"$bin" config "$work/a.cfg" >"$work/b.cfg"
same_lines "cli: effective configuration parses back" "$work/a.cfg" "$work/b.cfg"
expect "cli: the later --set wins" bash -c \
    "'$bin' config --set run.seed=1 --set=run.seed=5 | grep -q 'seed = 5;'"
printf '@include "a.cfg"\nrun: { seed = 8; };\n' >"$work/c.cfg"
expect "cli: --print-config of an including file" bash -c \
    "'$bin' config '$work/c.cfg' --print-config >'$work/d' &&
     grep -q 'seed = 8;' '$work/d' && grep -q 0.123456789 '$work/d'"

ranks 3 "$bin" config "$work/none.cfg" >"$work/out" 2>&1
rc=$?
expect "cli: three ranks, one message, exit code 1" bash -c \
    "[ $rc = 1 ] && [ \$(grep -c 'cannot be read' '$work/out') = 1 ]"
ranks 3 "$bin" config "$work/a.cfg" >"$work/e.cfg" 2>/dev/null
same_lines "cli: three ranks, one output" "$work/a.cfg" "$work/e.cfg"
if [ -w /dev/full ]; then
    for what in config "config configs/tiny.cfg" --help --version; do
        expect_code "cli: full disk behind $what" 1 "could not be written" \
            bash -c "'$bin' $what >/dev/full"
    done
fi

# what failed before it began must not bind the folder to its configuration
once=(train configs/tiny.cfg --set "run.dir=$work/once" --set run.iterations=1)
expect_code "cli: a missing prompts file is named" 1 "nope.jsonl: cannot open" \
    "$bin" "${once[@]}" --set prompts.file=nope.jsonl
if command -v script >/dev/null; then # on a terminal
    expect_code "cli: the corrected command runs in the same folder" 0 "it    1/1" \
        script -qec "'$bin' ${once[*]}" /dev/null
    line='[a-z]+ +\[=*>? *\] +[0-9]+%  [0-9]+/[0-9]+  ETA [0-9.]+ s'
    expect "cli: its progress goes round in one line, which each message finds empty" \
        grep -aPq "^\r(rollout|evaluate) .*\r\x1b\[K\r*it    1/1 \|[^\r\[]*\r$" "$work/out"
    expect "cli: with how far it is" grep -aPq "\r\x1b?(\[K)?\r?$line\x1b\[K" "$work/out"
else
    expect_code "cli: the corrected command runs in the same folder" 0 "it    1/1" \
        "$bin" "${once[@]}"
fi
expect "cli: a file gets no bar" bash -c "
    ! '$bin' ${once[*]} --set run.iterations=2 2>&1 | grep -a \$'\r'"
expect_code "cli: a folder with a run refuses another configuration" 1 \
    "optim.lr: 0.001 -> 0.5" "$bin" "${once[@]}" --set optim.lr=0.5
expect_code "cli: replay tells of another build only then" 0 "agree bit for bit" \
    "$bin" replay "$work/once/trajectories/iter_000001.h5"
expect "cli: and this is the same build" \
    bash -c "[ -s '$work/out' ] && ! grep -q 'kernels changed' '$work/out'"
expect_code "cli: replay of a run's folder names the file that it wants" 1 \
    "$work/once/trajectories/iter_....h5" "$bin" replay "$work/once"

# what is printed would go to whatever has the number of a closed descriptor
"$bin" train configs/tiny.cfg --set run.dir="$work/closed" \
    --set run.iterations=100000 <&- >&- 2>&- &
job=$!
for _ in $(seq 300); do
    [ -s "$work/closed/metrics.jsonl" ] && break
    sleep 0.1
done
open=$(readlink "/proc/$job/fd/0" "/proc/$job/fd/1" "/proc/$job/fd/2" | sort -u)
kill -KILL $job
wait $job 2>/dev/null
same "cli: a run without the three standard files has stand-ins" "$open" /dev/null

# Open MPI's buffer for a path ends at 256 bytes
long=$work/$(printf '%0210d/%0150d' 1 2)
mkdir -p "$long"
expect_code "cli: a run folder with a long name" 0 "it    1/1" "$bin" \
    train configs/tiny.cfg --set run.dir="$long" --set run.iterations=1

# help needs no MPI, which on a login node may not begin, and comes once
expect "cli: help without MPI" env OMPI_MCA_pml=none "$bin" train --help
expect_code "cli: where a run would not begin" 1 "" env OMPI_MCA_pml=none \
    "$bin" train configs/tiny.cfg --dry-run
ranks 2 "$bin" report --help >"$work/out" 2>&1
expect "cli: help of two ranks, once" test "$(grep -c usage: "$work/out")" = 1
expect_code "cli: help as an option's value is none" 1 "policy.weights" "$bin" \
    sample configs/tiny.cfg --out --help.png
expect_code "cli: pictures are PNG files" 2 "--out red.jpg: must end in .png" \
    "$bin" sample configs/tiny.cfg --out red.jpg
expect_code "cli: help that cannot be written" 1 "could not be written" \
    bash -c "'$bin' train --help >/dev/full"

# completed WORD... PART: what bash proposes for the last of a command line's words
completed()
{
    bash -c '. src/cli/completion.bash
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _dancegrpo
        echo "${COMPREPLY[@]}"' - "$bin" "$@"
}
same "cli: completion of a command" "$(completed pre)" pretrain
same "cli: of an option" "$(completed plan configs/tiny.cfg --g)" --gpus
same "cli: of a key" "$(completed train --set grpo.num)" "grpo.num_generations="
same "cli: of a value" "$(completed train --set sampler.sde = fl)" flow_sde
same "cli: of an option's choice" "$(completed convert a.h5 --pipeline '')" "copy link"
same "cli: of any value" "$(completed train --set lora.rank = '') $(
    completed train --set grpo.best_of_n =)" " true false"
same "cli: of a file, bash's own" "x$(completed train conf)" x

# runs beside each other; a folder needs no more than this
for lr in 0.001 0.002; do
    mkdir "$work/lr$lr"
    printf '{"iteration":1,"reward_mean":0.5,"grad_norm":1}\n' \
        >"$work/lr$lr/metrics.jsonl"
    echo "optim: { lr = $lr; };" >"$work/lr$lr/config.cfg"
done
expect_code "cli: report of two runs" 0 "  optim.lr = 0.001 (1), 0.002 (2)" \
    "$bin" report "$work/lr0.001" "$work/lr0.002" --out "$work/both.html"
expect "cli: and a page of both" grep -q "<b>Reward</b>" "$work/both.html"
expect "cli: nothing is written into their folders" bash -c \
    "[ ! -e '$work/lr0.001/report.html' ] && [ ! -e '$work/lr0.002/report.html' ]"
expect_code "cli: a page of one has its name" 2 "--out is for several" \
    "$bin" report "$work/lr0.001" --out "$work/one.html"
expect_code "cli: a run that is none, beside one" 1 "none: No such file" \
    "$bin" report "$work/lr0.001" "$work/none"

# plans: no weights, no memory, any size
expect_code "cli: plan of FLUX.1-dev" 0 "11901408320" "$bin" plan \
    configs/sizes_flux_dev.cfg --ranks 16 --json "$work/plan.json"
expect "cli: plan as JSON" bash -c "grep -q '\"moments\":95211266560' \
    '$work/plan.json' && grep -q '\"ranks\":16' '$work/plan.json'"
expect_code "cli: plan for GPUs" 0 \
    '1 of 141 GB: parallel.shard = "none", offload_optimizer = true fits' \
    "$bin" plan configs/flux_hps.cfg --gpus 1,8 --json "$work/gpus.json"
for at in "true false" "false true" "false false"; do
    read -r all sums <<<"$at"
    expect "cli: plan for GPUs as JSON, $at" grep -q \
        "\"shard\":\"gradients\",\"offload_optimizer\":$all,\"offload_sums\":$sums,\"weights\":" \
        "$work/gpus.json"
done
expect_code "cli: plan for GPUs, moments in 8 bits are named" 0 \
    'With optim.moments = "int8" the moments take a quarter of this.' \
    "$bin" plan configs/flux_hps.cfg --gpus 1
expect_code "cli: and planned with less of the host" 0 \
    '1 of 141 GB: parallel.shard = "gradients", offload_sums = true fits, ' \
    "$bin" plan configs/flux_hps.cfg --gpus 1 --set optim.moments=int8 \
    --set run.device=cuda --set run.dtype=bfloat16
# pretrain moves the text encoders too, sample nothing
for at in "pretrain trained 76400" "sample batch 16" \
    "encode items 639" "replay trained 70320" "evaluate threads 2"; do
    read -r command key value <<<"$at"
    expect "cli: plan of $command" "$bin" plan configs/tiny.cfg \
        --command "$command" --gpus 1,2 --set run.threads=2 \
        --json "$work/plan.json"
    expect "cli: plan of $command as JSON" grep -q \
        "^{\"command\":\"$command\",.*\"$key\":$value[,}]" "$work/plan.json"
done
expect_code "cli: plan of a command that is none" 2 \
    "--command trian: must be train, pretrain," "$bin" plan configs/tiny.cfg \
    --command trian
expect_code "cli: plan of sample, what it takes of a GPU" 0 \
    "1 of 80 GB: fits, " "$bin" plan configs/sizes_flux_dev.cfg \
    --command sample --gpus 1 --set run.device=cuda --set run.dtype=bfloat16
expect_code "cli: plan for a number of GPUs that is none" 2 \
    "--gpus eight: must be" "$bin" plan configs/tiny.cfg --gpus 1,eight
# not the first digits of it
expect_code "cli: plan for a number of GPUs of many digits" 0 \
    "  8 of 80 GB" "$bin" plan configs/tiny.cfg --gpus 00000000000000008
# numbers of options: wrong usage, told without reading a file
for at in 0 -1 1.5 3x 0x10 nan 99999999999999999999; do
    expect_code "cli: plan --ranks $at" 2 \
        "--ranks $at: must be 1 to 1000000" "$bin" plan none.cfg --ranks "$at"
done
for at in "sample --seeds 0" "sample --num -4" "bench --repeats 1001" \
    "bench --product 65537" "replay --threads -1" "replay --threads 4097"; do
    read -r command flag value <<<"$at"
    expect_code "cli: $at" 2 "$flag $value: must be" "$bin" "$command" none \
        "$flag=$value"
done
# on a login node, before the weights are where they will be
expect "cli: plan of stated sizes" "$bin" plan configs/tiny.cfg \
    --json "$work/with.json"
expect_code "cli: plan without the weights" 0 \
    'policy.weights = "nope.h5" is not there: sizes' "$bin" plan \
    configs/tiny.cfg --set policy.weights=nope.h5 --json "$work/without.json"
expect "cli: plan without the weights, which its JSON says" grep -q \
    '"policy_weights_read":false' "$work/without.json"
sed -i 's/_weights_read":false/_weights_read":true/' "$work/without.json"
same_lines "cli: plan without the weights, the same numbers" "$work/with.json" \
    "$work/without.json"
expect_code "cli: config without them" 0 \
    'policy.weights = "nope.h5" is not here: sizes' "$bin" config \
    configs/demo.cfg --set policy.weights=nope.h5
expect_code "cli: doctor without them" 0 \
    "not tried, the small one is: policy.weights = nope.h5 is not there" "$bin" \
    doctor configs/tiny.cfg --set policy.weights=nope.h5
for command in train pretrain evaluate sample; do
    expect_code "cli: $command --dry-run without them" 1 \
        "nope.h5: cannot open" "$bin" "$command" configs/demo.cfg --dry-run \
        --set policy.weights=nope.h5
done
expect_code "cli: what can only be planned is refused" 1 "can be planned" \
    "$bin" train configs/tiny.cfg --set run.dir="$work/vae" \
    --set policy.codec=vae

# the manual page: as man makes text of it, without what it marks
"$bin" --man >"$work/man"
named=$(sed 's/\\f[BRI]//g; s/\\-/-/g' "$work/man")
missing=
for command in $("$bin" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    grep -qx "\.SS $command" <<<"$named" || missing="$missing $command"
    part=$(sed -n "/^\.SS $command\$/,/^\.SS /p; /^\.SH OPTIONS/,\$p" <<<"$named")
    for option in $("$bin" "$command" --help | sed -n 's/^  \(--[a-z-]*\) .*/\1/p'); do
        grep -q -- "^$option\b\|^$option\$" <<<"$part" ||
            missing="$missing $command:$option"
    done
done
expect "cli: manual page has every command and option" bash -c \
    "echo '$missing'; [ -z '$missing' ]"
expect "cli: and every code that the program ends with" bash -c \
    "for code in 0 1 2 75; do grep -qx \"\.B \$code\" '$work/man' || exit 1; done"

root="$work/stage/my tools/dg" # blanks are allowed
expect "make: install with DESTDIR" make -s install DESTDIR="$work/stage" \
    PREFIX="/my tools/dg"
for file in bin/dancegrpo share/man/man1/dancegrpo.1 \
    share/bash-completion/completions/dancegrpo share/dancegrpo/doc/howto.md \
    include/dancegrpo/reward_plugin.h share/dancegrpo/examples/named_colours.c; do
    expect "make: $file is installed" test -s "$root/$file"
done
expect "make: an installed reward of one's own, by the installed header" cc \
    -fPIC -shared -I"$root/include" -o "$work/libcolours.so" \
    "$root/share/dancegrpo/examples/named_colours.c"
mkdir "$work/elsewhere"
for config in tiny tiny_flux tiny_sd; do
    expect_code "make: $config.cfg of an installation" 0 "reserved on rank 0" \
        bash -c "cd '$root/share/dancegrpo' && '$root/bin/dancegrpo' train \
            configs/$config.cfg --dry-run --set run.dir='$work/elsewhere/run'"
done
expect_code "make: from another folder a file is missed, and told where" 1 \
    "shapes_train.jsonl: cannot open: No such file or directory (looked for in \
$work/elsewhere, where" bash -c "cd '$work/elsewhere' && '$root/bin/dancegrpo' \
        train '$root/share/dancegrpo/configs/tiny.cfg' --dry-run"
mkdir "$work/elsewhere/prompts"
head -n 3 configs/prompts/shapes_train.jsonl >"$work/elsewhere/prompts/few.jsonl"
expect_code "make: an installed batch script, from another folder" 0 "it    1/1" \
    bash -c "cd '$work/elsewhere' && unset DANCEGRPO && PATH='$root/bin:$PATH' \
        CONFIG='$root/share/dancegrpo/configs/tiny.cfg' LS_SUBCWD='$work/elsewhere' \
        SET='run.iterations=1 prompts.file=prompts/few.jsonl prompts.eval_file=prompts/few.jsonl' \
        bash '$root/share/dancegrpo/jobs/train.lsf'"
expect "make: uninstall leaves no file" bash -c "
    make -s uninstall DESTDIR='$work/stage' PREFIX='/my tools/dg' &&
    [ -z \"\$(find '$work/stage' -type f)\" ]"
expect_code "make: CUDA=1 without a toolkit tells what is missing" 2 \
    "no nvcc at /nowhere/bin/nvcc: set CUDA_HOME" \
    make CUDA=1 CUDA_HOME=/nowhere BUILD="$work/gpu" all
exit $bad
