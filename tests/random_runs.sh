# What a configuration drawn at random is held to: source it after cuda_lib.sh
# and random_draw.sh, then check_runs SEED. A run of one rank is what all others
# must give, whatever is free of that: ranks, threads, batches, levels, kills.
# shellcheck disable=SC2154
limit=${LIMIT:-300}

# fault WHAT [FILE]: told with the command that repeats it
fault()
{
    echo "not ok - random: seed $seed, $1"
    [ -z "${2:-}" ] || tail -n "${3:-8}" "$2" | sed 's/^/    /'
    faults=$((faults + 1)) bad=1
}

# tell_free RUN RANKS: after a fault
tell_free()
{
    [ "$faults" = 0 ] ||
        echo "    $1: $2 ranks of $threads threads, ${env[*]} ${free[*]}"
}

# command_of KIND RANKS RUN SETS...: an array of that name
command_of()
{
    local kind=$1 n=$2 run=$3 set
    shift 3
    command=(timeout -k 5 "$limit" "${env[@]}")
    [ "$n" = 1 ] || command+=(mpirun --oversubscribe -n "$n")
    command+=("$bin" "$kind" "$TINY" --set run.dir="$work/$run"
        --set run.threads="$threads")
    for set in "$@"; do command+=(--set "$set"); done
}

# go KIND RANKS RUN [FLAG]...: all that is drawn; output in RUN.out
go()
{
    local kind=$1 n=$2 run=$3
    shift 3
    command_of "$kind" "$n" "$run" "${sets[@]}" "${free[@]}"
    printf '%q ' "${command[@]}" "$@" >"$work/$run.line"
    "${command[@]}" "$@" >"$work/$run.out" 2>&1
}

# one message and exit code 1, the message without folder and rank in $told
one_message()
{
    local run=$1 rc=$2
    told=$(grep -a '^ERROR' "$work/$run.out" |
        sed "s|$work/[^ :]*|FILE|; s/ (found by rank [0-9]*)//; s/rank [0-9]*/rank/")
    [ "$rc" = 1 ] && [ "$(grep -ac '^ERROR' "$work/$run.out")" = 1 ] &&
        ! grep -aqE 'Sanitizer|runtime error:|\*\*\* Process|signal|panic' \
            "$work/$run.out" && no_remains "$run"
}

no_remains() { [ ! -e "$work/$1" ] || no_unfinished "$1"; }

# all numbers of metrics.jsonl that are not of time, memory or overlap
counted()
{
    sed 's/"early_sums":[0-9]*,//; s/"seconds".*//' "$work/$1/metrics.jsonl"
}

# never more memory than is planned; less where nothing is left to train
within_plan()
{
    paste <(metric "$1" peak_bytes) <(metric "$1" plan_bytes) |
        awk '!($1 > 0 && $1 <= $2) { bad = 1 } END { exit bad || NR == 0 }'
}

# held_to RUN: what each run is held to by itself
held_to()
{
    local run=$1
    if [ "$kind" = train ]; then
        ratio_is_one "$run" "$iterations" || fault "$run: ratio" "$work/$run.out"
        within_plan "$run" || fault "$run: planned, used: $(
            metric "$run" plan_bytes | head -n 1) $(metric "$run" peak_bytes)"
    fi
    no_unfinished "$run" || fault "$run: a file half-written"
    grep -v '"held_out":' "$work/$run/metrics.jsonl" >"$work/lines"
    "$tools/json_lines" "$work/lines" "$iterations" \
        >"$work/json" || fault "$run: metrics.jsonl" "$work/json"
}

inexact() { [[ " ${sets[*]} " == *"exact_sum=false"* ]]; }

# same_run RUN: it is the run of one rank, bit for bit
same_run()
{
    local run=$1 file
    held_to "$run"
    ! inexact || return 0
    [ "$(counted "$run")" = "$(counted one)" ] || {
        diff <(counted one) <(counted "$run") >"$work/diff"
        fault "$run: metrics differ" "$work/diff"
    }
    for file in "$work/$run"/{checkpoints,trajectories}/iter_*.h5 \
        "$work/$run"/weights.h5 "$work/$run"/pictures/*; do
        [ -e "$file" ] || continue
        [ -e "$work/one${file#"$work/$run"}" ] || continue
        case $file in
        *.h5) "$tools/same_data" "$file" "$work/one${file#"$work/$run"}" ;;
        *) cmp "$file" "$work/one${file#"$work/$run"}" ;;
        esac >"$work/diff" 2>&1 || fault "$run: ${file#"$work/"}" "$work/diff"
    done
    file=checkpoints/iter_00000$iterations.h5
    [ -e "$work/$run/$file" ] || fault "$run: no $file" "$work/$run.out"
}

# refused_alike: what the run of one rank was refused for
refused_alike()
{
    local first began=0 n
    one_message one "$1" || {
        fault "exit code $1, not one message" "$work/one.out" 20
        return
    }
    first=$told
    [[ $first == "ERROR iteration"* ]] && began=1
    for n in 1 2; do
        go "$kind" "$n" dry --dry-run
        one_message dry $? && [ "$told" = "$first" ] || [ $began = 1 ] ||
            fault "--dry-run on $n ranks, not '$first'" "$work/dry.out" 20
    done
    go "$kind" 2 two
    one_message two $? || fault "refused on two ranks" "$work/two.out" 20
    [ "$told" = "$first" ] || fault "two ranks: '$told', not '$first'"
    echo "# refused: $first"
}

# draw_ranks: n; emulated GPUs are slow
draw_ranks()
{
    one_of 1 2 2 3 3 4 6
    n=$one
    [ "$device" = cpu ] || [ "$n" -le 3 ] || n=2
}

# keeps RUN: no more checkpoints than it may
keeps()
{
    local keep
    keep=$(sed -n 's/^ *keep = \([0-9]*\);/\1/p' "$work/$1/config.cfg")
    [ "$keep" = 0 ] || [ "$(find "$work/$1/checkpoints" -name '*.h5' | wc -l)" -le "$keep" ] ||
        fault "$1: more than $keep checkpoints"
}

# other_runs COUNT: on other ranks, in whatever is free
other_runs()
{
    local i n
    for ((i = 1; i <= $1; i++)); do
        draw_ranks
        draw_free
        if go "$kind" "$n" "other$i"; then
            same_run "other$i"
            keeps "other$i"
            [ -z "${LONG:-}" ] || [ "$i" != 1 ] || planned "$n"
        else
            fault "other$i, $n ranks: exit code $?" "$work/other$i.out" 20
        fi
        tell_free "other$i" "$n"
    done
}

# asleep MS
asleep() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }

# asked_ended RUN: a run that was asked for a stop; what was asked before it
# listened has ended it by the signal
asked_ended()
{
    local rc=$1 run=$2
    case $rc in
    0 | 75)
        no_unfinished "$run" || fault "$run: stopped, half-written" "$work/$run.first"
        ;;
    138 | 143 | 1) [ ! -s "$work/$run/metrics.jsonl" ] || [ "$rc" != 1 ] ||
        fault "$run: stopped, exit code $rc" "$work/$run.first" 20 ;;
    *) fault "$run: stopped, exit code $rc" "$work/$run.first" 20 ;;
    esac
    ! grep -aqE '^ERROR|panic|\*\*\* Process' "$work/$run.first" ||
        fault "$run: stopped, and a fault told" "$work/$run.first" 20
}

# stopped: begun with whatever is free, and stopped: by SIGKILL at any moment or
# while a file is written, asked for it, or by time
stopped()
{
    local n how rc
    draw_ranks
    draw_free
    one_of kill kill writing writing USR1 time
    how=$one
    case $how in
    time)
        one_of 0.001 0.001 0.1 "$((spent_ms / 2000)).$((spent_ms / 2 % 1000))"
        free+=("run.max_seconds=$one")
        go "$kind" "$n" killed
        rc=$?
        cp "$work/killed.out" "$work/killed.first"
        asked_ended $rc killed
        return
        ;;
    writing) env+=(SLOW_DISK_MS=30 LD_PRELOAD="$PWD/${DG_BUILD:-build}/tests/slow_disk.so") ;;
    esac
    draw "$((spent_ms + 400))"
    command_of "$kind" "$n" killed "${sets[@]}" "${free[@]}"
    # the run itself, not the watch over it, is what is stopped
    "${command[@]:4}" >"$work/killed.first" 2>&1 &
    pid=$!
    asleep "$drawn"
    case $how in
    kill) kill_run ;;
    writing)
        until_or_end writes_any killed
        draw 30
        asleep "$drawn"
        kill_run
        ;;
    *)
        kill -s "$how" "$pid" 2>/dev/null
        ended_in "$limit" "$pid" || fault "killed: asked for a stop, no end" "$work/killed.first"
        wait "$pid"
        asked_ended $? killed
        ;;
    esac
}

writes_any() { [ -n "$(find "$work/$1" -name '*.tmp' 2>/dev/null)" ]; }

# ended_in SECONDS PID: else it is killed
ended_in()
{
    local i
    for ((i = 0; i < 20 * $1; i++)); do
        kill -0 "$2" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -9 "$2"
    return 1
}

# killed_run: stopped at random moments, and gone on with by others
killed_run()
{
    local times rc n
    draw 2
    for ((times = drawn + 1; times > 0; times--)); do
        stopped
        [ "$faults" = 0 ] || return
    done
    draw_ranks
    draw_free
    go "$kind" "$n" killed
    rc=$?
    if [ "$rc" = 0 ]; then
        same_run killed
        keeps killed
    else
        fault "killed, then $n ranks: exit code $rc" "$work/killed.out" 20
    fi
    tell_free killed "$n"
}

# served COMMAND FLAG FILE...: by one and by two ranks the same file, or refused
served()
{
    local kind=$1 flag=$2 file=$3 n rc first=
    shift 3
    free=("policy.weights=$work/one/checkpoints/iter_00000$iterations.h5")
    for n in 1 2; do
        draw 2
        threads=$((drawn + 1))
        [ "$n" = 2 ] && vary grpo.micro_batch 1 2 5
        go "$kind" "$n" "$kind$n" "$flag" "$work/$n.$file" "$@"
        rc=$?
        [ "$n" = 1 ] && first=$rc
        [ "$rc" = 0 ] || one_message "$kind$n" "$rc" ||
            fault "$kind: exit code $rc" "$work/$kind$n.out" 20
        [ "$n" = 1 ] && one=$told && [ "$rc" != 0 ] && echo "# $kind: $told"
        [ "$rc" = "$first" ] || fault "$kind: $first, $rc" "$work/$kind$n.out"
        [ "$rc" = 0 ] || continue
        cmp "$work/1.$file" "$work/$n.$file" >"$work/diff" 2>&1 ||
            fault "$kind: $n ranks give another $file" "$work/diff"
    done
}

# near_cpu: what a GPU's first iteration gives is near what the processor gives,
# where no choice hangs on the last bits
near_cpu()
{
    local key
    [ "$device$kind" = cudatrain ] && [[ " ${sets[*]} " != *=bfloat16\ * ]] || return 0
    free=(run.device=cpu checkpoint.every=0)
    go train 1 cpu || {
        fault "on the processor: exit code $?" "$work/cpu.out" 20
        return
    }
    for key in reward_mean diversity; do
        paste <(metric one "$key" | head -n 1) <(metric cpu "$key" | head -n 1) |
            awk '{ d = $1 - $2; if (d < 0) d = -d; m = $2 < 0 ? -$2 : $2
                exit !($1 == $2 || d <= 0.01 * (m + 0.1)) }' ||
            fault "GPU, processor: $key $(metric one "$key" | head -n 1) $(metric cpu "$key" | head -n 1)"
    done
}

# planned: a plan for the ranks and settings of the run "other1" has room for
# what it has taken
planned()
{
    local n=$1
    [ "$kind" = train ] || return 0
    go plan 1 plan --ranks "$n" --json "$work/plan.json" || {
        fault "plan" "$work/plan.out"
        return
    }
    [ "$(sed -n 's/.*"worker_steps":\([0-9]*\).*/\1/p' "$work/plan.json")" -ge \
        $((threads * $(metric "other1" peak_bytes | sort -n | tail -n 1))) ] ||
        fault "plan for $n ranks: $(grep -o '"worker_steps":[0-9]*' "$work/plan.json"), $threads threads, used $(metric other1 peak_bytes | sort -n | tail -n 1)"
}

# converted: to a folder for diffusers; a whole pipeline paints what the
# checkpoint does
converted()
{
    local last=$work/one/checkpoints/iter_00000$iterations.h5 args=() all
    [ "$rank" = 0 ] || ! once_in 2 || args+=(--merge)
    # of adapters alone there is no pipeline
    [ "$family" = "${family%_folder}" ] || [ "$rank${args[*]}" = "$rank" -a "$rank" != 0 ] ||
        args+=(--pipeline link)
    timeout "$limit" "$bin" convert "$last" --to "$work/converted" "${args[@]}" \
        >"$work/convert.out" 2>&1 || {
        one_message convert $? || fault "convert ${args[*]}" "$work/convert.out" 20
        echo "# convert: $told"
        return
    }
    all=$work/converted
    [ ! -e "$all/pytorch_lora_weights.safetensors" ] || all+=/pytorch_lora_weights.safetensors
    timeout "$limit" "$bin" inspect "$all" >"$work/inspect.out" 2>&1 ||
        fault "inspect of a converted folder" "$work/inspect.out"
    [[ $rank = 0 && ${args[*]} == *link* ]] || return 0
    all=("${sets[@]}")
    sets+=("policy.path=$work/converted" "policy.weights=")
    free=()
    go evaluate 1 back --json "$work/back.json" || fault "evaluate of a converted folder" "$work/back.out"
    sets=("${all[@]}")
    free=("policy.weights=$last")
    go evaluate 1 straight --json "$work/straight.json" || fault "evaluate" "$work/straight.out"
    cmp <(sed 's/"weights":"[^"]*"//' "$work/straight.json") \
        <(sed 's/"weights":"[^"]*"//' "$work/back.json") >"$work/diff" 2>&1 ||
        fault "a converted folder paints otherwise" "$work/diff"
}

# reported: the run's own report, and a comparison with another's
reported()
{
    timeout "$limit" "$bin" report "$work/one" --text >"$work/report.out" 2>&1 ||
        fault "report" "$work/report.out"
    timeout "$limit" "$bin" report "$work/one" "$work/other1" --out "$work/both.html" \
        >"$work/report.out" 2>&1 || fault "report of two runs" "$work/report.out"
}

# replayed FILE: on the ranks drawn
replayed()
{
    local file=$1 ranks
    ranks=$((drawn + 1)) threads=$((2 - drawn / 2))
    # sums of floats are those of as many ranks and threads
    ! inexact || ranks=1 threads=1
    timeout -k 5 "$limit" mpirun --oversubscribe -n "$ranks" "$bin" replay \
        --threads "$threads" "$file" >"$work/replay.out" 2>&1 ||
        fault "replay on $ranks ranks" "$work/replay.out" 20
}

# files_serve: inspect, replay, evaluate, sample of what the run left
files_serve()
{
    local file
    draw "$iterations"
    file=$work/one/trajectories/iter_00000$((drawn + 1)).h5
    draw 3
    if [ "$kind" = pretrain ]; then
        file=$work/one/weights.h5
    else
        replayed "$file"
    fi
    for file in "$file" "$work/one/checkpoints/iter_000001.h5"; do
        timeout "$limit" "$bin" inspect "$file" >"$work/inspect.out" 2>&1 ||
            fault "inspect of $file" "$work/inspect.out"
    done
    threads=1 env=(env)
    local ema=()
    [[ " ${sets[*]} " == *" optim.ema_decay=0 "* ]] || { once_in 2 && ema=(--ema); }
    served evaluate --json figures.json "${ema[@]}"
    served sample --out grid.png --seeds 2 --num 2 "${ema[@]}"
    threads=1 free=()
    go plan 1 plan --ranks 2 || fault "plan" "$work/plan.out"
}

# basis: what adapters are put on, or what a student learns from
basis()
{
    local all=("${sets[@]}")
    if [ "$kind$teacher" = pretrain1 ]; then
        free=(checkpoint.every=0)
        go pretrain 1 basis || return 0
        sets+=(pretrain.distill_cfg=2 "policy.weights=$work/basis/weights.h5")
        return
    fi
    [ "$rank" != 0 ] || return 0
    case $family in
    *_folder) once_in 2 && return 0 ;;
    esac
    free=(lora.rank=0 run.iterations=3 optim.lr=1e-2 optim.warmup=0
        optim.schedule=constant optim.weight_decay=0 optim.eps=1e-8
        optim.max_grad_norm=1 run.on_nan=skip checkpoint.every=1)
    go train 1 basis || {
        # it is refused for what the whole run is refused for
        sets=("${all[@]}")
        return 0
    }
    sets=("${all[@]}" "policy.weights=$work/basis/checkpoints/iter_000003.h5")
}

# a cache of conditions, which is as good as encoding
cache()
{
    rm -f "$work/cache.h5"
    once_in 3 || return 0
    free=("prompts.cache=$work/cache.h5")
    go encode $((drawn + 1)) encode
    [ -e "$work/cache.h5" ] || echo "# encode: $(grep ^ERROR "$work/encode.out")"
}

# what a seed left, but for the files to be spoiled (random_spoils.sh)
tidy()
{
    [ -n "${KEEP:-}" ] || find "$work" -mindepth 1 -maxdepth 1 ! -name beds \
        -exec rm -rf {} +
}

check_runs()
{
    seed=$1 faults=0
    local rc began
    begin_seed "$seed"
    draw_config
    env=(env) threads=1
    basis
    cache
    free=(trajectory.every=1 checkpoint.every=1 checkpoint.keep=0)
    vary grpo.micro_batch 1 2 3
    began=$(date +%s%3N)
    go "$kind" 1 one
    rc=$?
    spent_ms=$(($(date +%s%3N) - began))
    if [ "$rc" != 0 ]; then
        refused_alike "$rc"
    else
        held_to one
        draw 2
        go "$kind" $((drawn + 1)) dry --dry-run || fault "--dry-run" "$work/dry.out"
        files_serve
        other_runs 2
        killed_run
        # at the end, so that a seed draws the same without them
        [ -z "${LONG:-}" ] || {
            near_cpu
            converted
            reported
        }
    fi
    if [ "$faults" = 0 ]; then
        echo "ok - random: seed $seed, $kind of $family on $device"
    else
        echo "    $TINY ${sets[*]}"
        echo "    again: SEEDS=$seed bash tests/long_random.sh"
    fi
    tidy
}
