#!/bin/bash
# Rewards that are programs of the user's (rewards[].command): whole runs. Their
# bits do not depend on ranks, threads or accidents, what goes wrong is told once,
# and whatever ends a run, no program is left behind.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
bin=$cpu
scorer=$tools/scorer
case $scorer in
/*) ;;
*) scorer=$PWD/$scorer ;;
esac
# a copy, whose name nobody else's processes have
cp "$scorer" "$work/scorer" && scorer=$work/scorer

# by HOW [KEYS]: rewards with such a program; the second is the program's own
by() { echo "rewards=({ name=\"mine\"; weight=0.7; command=\"$scorer '$1'\"; ${2:-} }, { name=\"brightness\"; weight=0.5; })"; }

# left: programs of these runs, and their shells, that are still there
left() { pgrep -f "$scorer '" | wc -l; }
nobody_left()
{
    local i
    for i in $(seq "${1:-20}"); do
        [ "$(left)" = 0 ] && return 0
        sleep 0.1
    done
    pgrep -af "$scorer '"
    return 1
}
missing_of() { sed -n 's/.*"mine":{[^}]*"missing":\([0-9]*\).*/\1/p' "$work/$1/metrics.jsonl" | tr '\n' ' '; }

# --- the same bits -----------------------------------------------------------
expect "command: a run" tiny 1 1 whole "$(by plain)"
whole=$(digest whole)
no_warning "command: without a warning" "$work/whole.out"
expect "command: its program is told of" grep -q \
    "^reward mine: 1 program a rank ready after .* s: $scorer 'plain'" "$work/whole.out"
expect "command: no program is left" nobody_left
expect "command: memory used is memory planned" equal_bytes whole
expect "command: every picture has a score" test "$(missing_of whole)" = "0 0 0 "
# tests/test_command.c has its scores; here that they are what is learned from
tiny 1 1 other 'rewards=({ name="brightness"; weight=0.5; })'
expect "command: it counts" test "$(digest other)" != "$whole"
tiny 3 1 three "$(by plain)"
same_digest "command: three ranks, the same weights" three "$whole"
same_numbers "command: three ranks, the same numbers" whole three
tiny 2 2 two "$(by "plain,slow=0.02" "processes=2;")" grpo.micro_batch=1
same_digest "command: two ranks, threads and programs each, the same weights" \
    two "$whole"
expect "command: replay needs no program" "$bin" replay \
    "$work/whole/trajectories/iter_000002.h5"
expect_code "command: replay, weights beside a file that has them" 2 \
    "--weights other.h5: only for a run that trained adapters (lora.rank > 0)" "$bin" \
    replay "$work/whole/trajectories/iter_000002.h5" --weights other.h5
expect "command: a file of names" grep -q mine <("$bin" inspect \
    "$work/whole/trajectories/iter_000002.h5")
mv "$scorer" "$scorer.away"
expect "command: nor when it is away" "$bin" replay \
    "$work/whole/trajectories/iter_000002.h5"
expect_code "command: a plan needs none" 0 \
    "What rewards of your own take of memory is not counted: mine." "$bin" plan \
    configs/tiny.cfg --set "$(by plain)"
clip='path="tests/golden/clip_tiny"; tokenizer="tests/golden/sd_tiny/tokenizer";'
expect_code "command: a plan names rewards that share a network" 0 \
    "have one network, which is counted once: hpsv2, clip." "$bin" plan \
    configs/tiny.cfg --json "$work/plan.json" --set \
    "$(by plain "}, { name=\"hpsv2\"; $clip }, { name=\"clip\"; $clip")"
expect "command: and so does its JSON" grep -qF \
    '"shared_rewards":[["hpsv2","clip"]],"own_rewards":["mine"]}' "$work/plan.json"
"$bin" plan configs/tiny.cfg --json "$work/none.json" >/dev/null 2>&1
expect "command: where there are none, too" grep -qF \
    '"shared_rewards":[],"own_rewards":[]}' "$work/none.json"
expect_code "command: a dry run looks for it" 1 \
    "rewards[0].command = \"$scorer 'plain'\": there is no program $scorer" \
    "$bin" train configs/tiny.cfg --dry-run --set "$(by plain)"
mv "$scorer.away" "$scorer"
SCORER_LOG=$work/dry "$bin" train configs/tiny.cfg --dry-run \
    --set run.dir="$work/dryrun" --set "$(by "quit")" >"$work/out" 2>&1
expect "command: and does not start it" test $? = 0 -a ! -e "$work/dry"

# impatient RANKS SECONDS KEYS: warnings of a dry run whose ranks wait so long
impatient()
{
    ranks "$1" "$bin" train configs/tiny.cfg --dry-run --set run.dir="$work/dryrun" \
        --set parallel.host_timeout_seconds="$2" --set "$(by plain "$3")" 2>&1 |
        sed -n 's/: a program of mine .*//; s/^WARN  //p'
}
same "command: ranks that do not wait for a program are told of" \
    "$(impatient 2 100 "start_seconds=100; timeout_seconds=2;")" \
    "parallel.host_timeout_seconds = 100 is not longer than rewards[0].start_seconds = 100"
same "command: nor for a score" "$(impatient 2 9 "start_seconds=5; timeout_seconds=9.5;")" \
    "parallel.host_timeout_seconds = 9 is not longer than rewards[0].timeout_seconds = 9.5"
expect "command: others are not" test -z "$(impatient 2 101 \
    "start_seconds=100; timeout_seconds=2;"; impatient 2 0 ""; impatient 1 9 "")"
# stating VERSION [SET]...: trains on two ranks with a program that states it
printf '#!/bin/sh\nexec %s "plain$(cat %s)"\n' "$scorer" "$work/states" >"$work/stating"
chmod +x "$work/stating"
stating()
{
    echo "${1:+,version=$1}" >"$work/states"
    tiny 2 1 versions "rewards=({ name=\"mine\"; command=\"$work/stating\"; })" "${@:2}"
}
stating abc run.iterations=1
expect "command: its version is told" grep -q "s, of version \"abc\": $work" "$work/versions.out"
expect "command: and in a trajectory file" grep -q '^reward_version: text' <("$bin" inspect \
    "$work/versions/trajectories/iter_000001.h5")

# other VERSION TEXT: the run does not go on with it
other()
{
    stating "$1" run.iterations=2
    expect "command: ${1:-no} version, not that of the checkpoint" test $? = 1 -a \
        "$(last_checkpoint versions)" = 1
    expect "command: ${1:-no} version, one message" test "$(grep -c "^ERROR.*another \
version of the program of rewards\[0\], mine, \"abc\" (attribute reward_version_0); \
this one says $2" "$work/versions.out")" = 1
}
other abd '"abd"'
other "" none
stating abc run.iterations=2
expect "command: the same version goes on" test "$(last_checkpoint versions)" = 2

# --- accidents ---------------------------------------------------------------
tiny 3 1 dies "$(by "die=3,once=$work/once")"
same_digest "command: a program that dies once is not seen in the bits" dies \
    "$whole"
expect "command: but told of, with its last words" grep -q "^WARN  reward mine: \
its program was started anew, since it ended with exit code 5; its last words on standard error: CUDA out \
of memory (1 time on all ranks, the first on rank [012])" "$work/dies.out"
same "command: and counted" "$(grep -o '"restarts":{"mine":[0-9]*}' \
    "$work/dies/metrics.jsonl" | sort | uniq -c | xargs)" \
    '2 restarts:{mine:0} 1 restarts:{mine:1}'
rm -f "$work/once"
launch train 2 1 killed "$(by "slow=0.05")" checkpoint.keep=0
until_or_end has_more_than killed 0
expect "command: SIGKILL of a run" kill_run
expect "command: SIGKILL of a run leaves no program" nobody_left 100
expect "command: continued, with other times and numbers of programs" tiny 1 2 \
    killed "$(by "slow=0.05" "processes=3; timeout_seconds=7; start_seconds=9;")" \
    checkpoint.keep=0
same_digest "command: continued, the same weights" killed "$whole"
expect_code "command: another program is another configuration" 1 "rewards[0].command: " \
    "$bin" train configs/tiny.cfg --set run.dir="$work/whole" \
    --set "$(by "slow=0.05")"

# signals of a launcher to all of a job, as Slurm's
launch train 1 1 asked "$(by "slow=0.05")"
until_or_end grep -qs '"iteration":1' "$work/asked/metrics.jsonl"
kill -USR1 "$pid" $(pgrep -f "$scorer '")
kill -INT $(pgrep -f "$scorer '")
kill -TERM $(pgrep -f "^sh -c.*$scorer '")
wait "$pid"
expect "command: a stop that all processes are asked for" test $? = 75
expect "command: does not end the program" test "$(missing_of asked | wc -w)" -lt 3 \
    -a "$(grep -c WARN "$work/asked.out")" = 0
expect "command: continued after it" tiny 1 1 asked "$(by "slow=0.05")"
same_digest "command: after it the same weights" asked "$whole"
# while it starts
launch train 1 1 early "$(by no-hello)"
until_or_end grep -qs "parameters trained" "$work/early.out"
kill -USR1 "$pid"
wait "$pid"
expect "command: asked for a stop while a program starts" test $? = 75 -a ! -s \
    "$work/early/metrics.jsonl"
expect "command: and none is left" nobody_left

# --- faults --------------------------------------------------------------------
# told NAME RUN TEXT
told() { expect "$1" grep -qF -- "$3" "$work/$2.out"; }
expect "command: one that has no scores goes on" tiny 2 1 none "$(by missing,at=0)"
told "command: and says why" none \
    "sample 0: reward mine is missing: its program says: no ?face"
told "command: and of how many, on all ranks" none " (missing of 12: mine 12)"
expect "command: all are missing" test "$(missing_of none)" = "12 12 12 "
expect "command: and what others score is learned" test -n "$(digest none)" -a \
    "$(digest none)" != "$whole"
same "command: how many it declined, none restarted" "$(grep -c \
    '"missing":12,"declined":12}.*"missing_why":{"mine":"its program says: no .*"restarts":{"mine":0}' \
    "$work/none/metrics.jsonl")" 3
# from its second iteration on each score is NaN, until it is mended
sick=$work/sick
printf '#!/bin/sh\n[ -e %s ] && exec %s plain,nan,at=0\nexec %s plain\n' "$sick" \
    "$scorer" "$scorer" >"$work/doctored" && chmod +x "$work/doctored"
mended="rewards=({ name=\"mine\"; weight=0.7; command=\"$work/doctored\"; }, { name=\"brightness\"; weight=0.5; })"
tiny 1 1 silent "$mended" run.max_seconds=1e-3 checkpoint.every=0
touch "$sick"
expect_code "command: one that fails for all pictures ends the run" 1 \
    "iteration 2: reward mine failed for all 12 pictures; the first of them, prompt " \
    ranks 2 "$bin" train configs/tiny.cfg --set run.dir="$work/silent" --set "$mended" \
    --set checkpoint.every=0
expect "command: in one message" test "$(grep -c '^ERROR' "$work/out")" = 1
expect "command: with the checkpoint before it" test "$(last_checkpoint silent)" = 1
rm "$sick"
tiny 1 1 silent "$mended" checkpoint.every=0
same_digest "command: mended, the weights of a run without the fault" silent "$whole"
refused "command: with run.on_nan = stop it ends" \
    "reward mine is missing: its program says: no ?face" "$(by missing,at=0)" \
    run.on_nan=stop
# one that has no score for any prompt: the same end with stops as without
few=(prompts.file="$work/few.txt" grpo.prompts_per_iteration=2 grpo.num_generations=2
    run.iterations=9 trajectory.every=0 report.every=0)
printf 'a red circle\na blue square\na red square\na green circle\na green triangle\n' >"$work/few.txt"
tiny 1 1 never "$(by missing,at=0)" "${few[@]}"
expect "command: one that never scores ends the run" test $? = 1
end=$(grep '^ERROR' "$work/never.out")
same "command: and when" "${end%%; the first*}" "ERROR iteration 5: reward mine has \
had no score for any picture of 10 prompts in a row"
for i in 1 2 3 4 5; do
    tiny $((i % 2 + 1)) 1 stops "$(by missing,at=0)" "${few[@]}" run.max_seconds=1e-3
    same "command: stopped each time, start $i" "$?" $((i < 5 ? 75 : 1))
done
same "command: stopped each time, the same end" "$(grep '^ERROR' "$work/stops.out")" \
    "$end"
tiny 1 1 stops "$(by missing,at=0)" "${few[@]}"
same "command: started again, the same end" "$(grep '^ERROR' "$work/stops.out")" \
    "$end"
# three iterations without, one with: it is counted from there
printf '#!/bin/sh\n[ -e %s ] && exec %s missing,at=0\nexec %s plain\n' "$sick" \
    "$scorer" "$scorer" >"$work/doctored"
touch "$sick"
for i in 1 2 3 4; do
    test $i = 4 && rm "$sick"
    tiny 1 1 again "$mended" "${few[@]}" run.max_seconds=1e-3
done
touch "$sick"
tiny 1 1 again "$mended" "${few[@]}"
end=$(grep '^ERROR' "$work/again.out")
same "command: a score in between, counted from there" "${end%%; the first*}" "ERROR \
iteration 9: reward mine has had no score for any picture of 10 prompts in a row"
rm "$sick"
# ends NAME HOW TEXT [KEYS]: one message on three ranks, and no program
ends_with()
{
    expect_code "command: $1" 1 "$3" ranks 3 "$bin" train configs/tiny.cfg \
        --set run.dir="$work/refused" --set "$(by "$2" "${4:-}")"
    expect "command: $1, one message" test "$(grep -c '^ERROR' "$work/out")" = 1
    expect "command: $1, none is left" nobody_left
}
ends_with "dies at each picture" exit,at=0 "ERROR rewards[0].command: the program \
of mine failed 4 times in a row; the last time it ended with exit code 3; its last \
words on standard error: ValueError: picture 4"
ends_with "hangs" hang,at=0 "said nothing for 0.2 s (rewards.timeout_seconds)" \
    "timeout_seconds=0.2; start_seconds=4;" # it waits once so, for its first picture
ends_with "talks nonsense" nonsense,at=0 "said \"?[1mepoch 3: 0.7 of \"all\"?[0m"
ends_with "does not start" quit "ERROR rewards[0].command = \"$scorer 'quit'\": \
before it was ready, the program ended with exit code 7; its last words on standard \
error: scorer: no such weights"
ends_with "never ready" no-hello \
    "the program said nothing for 0.3 s (rewards.start_seconds)" "start_seconds=0.3;"
# minutes, if they waited for each other's program
expect_code "command: a rank whose program fails ends the others' wait for theirs" 1 \
    "ERROR rewards[0].command" timeout 100 mpirun --oversubscribe -n 3 "$bin" train \
    configs/tiny.cfg --set run.dir="$work/refused" --set \
    "rewards=({ name=\"mine\"; start_seconds=600; command=\"[ \$DANCEGRPO_RANK = 1 ] && exec \
$scorer quit; exec $scorer no-hello\"; })"
expect "command: and it is named, in one message" test "$(grep -c '^ERROR' "$work/out") \
$(grep -c 'before it was ready, the program ended with exit code 7; its last words' \
    "$work/out")" = "1 1"
expect_code "command: other weights on another rank" 1 "rewards[0].command: the \
program of rank 1 says that it is \"1\", that of rank 0 \"0\"" ranks 2 "$bin" train \
    configs/tiny.cfg --set run.dir="$work/refused" --set \
    "rewards=({ name=\"mine\"; command=\"$scorer version=\$DANCEGRPO_RANK\"; })"
expect "command: none of them is left" nobody_left

# --- SIGKILL of a rank whose program hears of nothing -----------------------------
launch train 2 1 hung "$(by "hang,at=0")"
both_there() { [ "$(left)" -ge 6 ]; } # with two shells each
until_or_end both_there
sleep 0.3
kill -9 "$(pgrep -P "$pid" | head -n 1)"
wait "$pid" 2>/dev/null
expect "command: SIGKILL of a rank while programs hang leaves none" nobody_left 150

# --- other commands -----------------------------------------------------------------
last=$work/whole/checkpoints/iter_000003.h5
expect "command: evaluate" "$bin" evaluate configs/tiny.cfg --set "$(by plain)" \
    --set policy.weights="$last" --set evaluate.num_prompts=3 --json "$work/one"
expect "command: evaluate on two ranks, the same" ranks 2 "$bin" evaluate \
    configs/tiny.cfg --set "$(by plain)" --set policy.weights="$last" \
    --set evaluate.num_prompts=3 --json "$work/two.json"
same_lines "command: evaluate, the same bytes" "$work/one" "$work/two.json"
expect "command: evaluate, a name of its own" grep -q '"name":"mine","missing":0' \
    "$work/one"
expect_code "command: evaluate says why a score is missing" 0 \
    "prompt 0, picture 0: reward mine is missing: its program says: no ?face" \
    "$bin" evaluate configs/tiny.cfg --set "$(by missing,at=0)" --set \
    policy.weights="$last" --set evaluate.num_prompts=3
expect "command: pretrain" "$bin" pretrain configs/tiny.cfg --set \
    run.dir="$work/base" --set pretrain.steps=2 --set pretrain.batch=2 --set \
    pretrain.item_size=1 --set evaluate.num_prompts=2 --set "$(by plain)"
expect "command: doctor" grep -q "^network *ok" <("$bin" doctor configs/tiny.cfg \
    --set run.dir="$work/doctor" --set "$(by plain)" 2>&1)
# diagnose HOW CODE TEXT: what it says of a reward whose every score is missing
diagnose()
{
    expect_code "command: doctor, $1" "$2" "$3" ranks 2 "$bin" doctor configs/tiny.cfg \
        --set run.dir="$work/doctor" --set "$(by "$1")"
}
diagnose nan,at=0 1 "network    FAIL  reward mine failed for all 4 pictures; the first \
of them, prompt "
expect "command: doctor, with the reward's reason" grep -q \
    '^network .*, sample 0: its program said "{"id": 1, "score": NaN}" where' "$work/out"
diagnose missing,at=0 0 "scores     WARN  reward mine has no score for 4 of 4 pictures; \
the first of them, prompt "
expect "command: doctor, with the reward's own words" grep -q \
    '^scores .*: its program says: no ?face' "$work/out"
expect "command: bench" "$bin" bench configs/tiny.cfg --set "$(by plain)" \
    --repeats 1
expect "command: no program of them is left" nobody_left

# the example that users begin with
if command -v python3 >/dev/null; then
    cp examples/score.py "$work"
    example="rewards=({ name=\"colourful\"; command=\"python3 $work/score.py\"; })"
    expect "command: the example" tiny 1 1 example "$example"
    no_warning "command: the example, without a warning" "$work/example.out"
    tiny 2 1 example2 "$example"
    same_digest "command: the example, two ranks" example2 "$(digest example)"
    expect "command: the example ends" bash -c \
        "! pgrep -f '^python3 $work/score.py'"
else
    echo "no python3: examples/score.py is left out"
fi

# beside a GPU's rollout, none of it in a graph
on_cpu host "$(by plain)" run.iterations=1
bin=$gpu
SCORER_LOG=$work/seen on_gpu 2 gpu "$(by plain)" run.iterations=1
expect "command: on GPUs" test "$(missing_of gpu)" = "0 "
expect "command: on GPUs it is asked for every picture" test "$(grep -c \
    '/2 cuda pid' "$work/seen")" = 6
expect "command: on GPUs its ranks are told" test "$(cut -d ' ' -f 2 "$work/seen" |
    sort -u | tr '\n' ' ')" = "0/2 1/2 "
on_gpu 1 gpu1 "$(by plain)" run.iterations=1 parallel.graphs=false parallel.overlap=false
same_digest "command: on GPUs, one without graphs, the same weights" gpu1 \
    "$(digest gpu 1)" 1
expect "command: on GPUs none is left" nobody_left
exit $bad
