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

# draw_hosts RANKS: in on_hosts, what starts so many on hosts (nodes_lib.sh), of which
# each may have none
draw_hosts()
{
    local left=$1 layout='' host
    for host in ada ben; do
        draw $((left + 1))
        [ "$drawn" = 0 ] || layout+="${layout:+,}$host:$drawn"
        left=$((left - drawn))
    done
    [ "$left" = 0 ] || layout+="${layout:+,}cyd:$left"
    host=${layout%%:*}
    on_hosts=(nsenter -t "${node_pid[$host]}" -n -u -m -i -p --
        env "TMPDIR=$work/tmp.$host" bash -c 'cd "$0" && exec "$@"' "$PWD"
        mpirun --host "$layout")
}

# command_of KIND RANKS RUN SETS...: an array of that name
command_of()
{
    local kind=$1 n=$2 run=$3 set
    shift 3
    command=(timeout -k 5 "$limit" "${env[@]}")
    if [ "$n" != 1 ] && [ -n "${NODES:-}" ]; then
        draw_hosts "$n"
        command+=("${on_hosts[@]}" "${env[@]}")
    elif [ "$n" != 1 ]; then
        command+=(mpirun --oversubscribe -n "$n")
    fi
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
        # of an iteration whose samples are all set aside there is none
        [ "$(metric "$run" ratio_max_deviation | grep -cxE '0|null')" = "$iterations" ] ||
            fault "$run: ratio" "$work/$run.out"
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

# other_runs COUNT: on other ranks, in whatever is free
other_runs()
{
    local i n
    for ((i = 1; i <= $1; i++)); do
        draw_ranks
        n=$ranks
        draw_free
        if go "$kind" "$n" "other$i"; then
            same_run "other$i"
        else
            fault "other$i, $n ranks: exit code $?" "$work/other$i.out" 20
        fi
        tell_free "other$i" "$n"
    done
}

# stop_run: the run in the background, process $pid, ends before its time, in one
# of several ways; what it must not say is told
stop_run()
{
    local some rc
    one_of all all one term told
    [ "${WIDE:-0}" = 1 ] || one=all
    some=$(pgrep -P "$pid" | shuf -n 1 --random-source=<(yes "$seed"))
    [ "$n" != 1 ] || some=$pid
    case $one in
    all) kill_run ;;
    one) kill -9 "${some:-$pid}" ;;
    term) kill -TERM "${some:-$pid}" ;;
    told) kill -TERM "$pid" ;;
    esac 2>/dev/null
    stopped=$one
    for ((i = 0; i < 20 * limit; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    kill -0 "$pid" 2>/dev/null && fault "no end, $stopped" "$work/killed.first" 20
    kill_run
    wait "$pid"
    rc=$?
    # before its first word it has not asked for a word
    [ "$stopped" != term ] || [ ! -s "$work/killed.first" ] ||
        [[ $rc =~ ^(0|75|143)$ ]] ||
        fault "told to stop: exit code $rc" "$work/killed.first" 20
} 2>/dev/null

# killed_run: ended at random moments, and gone on with by others
killed_run()
{
    local kills rc n
    draw 2
    for ((kills = drawn + 1; kills >= 0; kills--)); do
        draw_ranks
        n=$ranks
        draw_free
        if [ "$kills" = 0 ]; then
            go "$kind" "$n" killed
            rc=$?
            break
        fi
        draw "$((spent_ms + 400))"
        # its time is over after whatever it does just then
        once_in 4 && free+=("run.max_seconds=$((drawn / 1000)).$((drawn % 1000 + 1))")
        command_of "$kind" "$n" killed "${sets[@]}" "${free[@]}"
        # the run itself, not the watch over it, is what is ended
        "${command[@]:4}" >"$work/killed.first" 2>&1 &
        pid=$!
        sleep "$((drawn / 1000)).$(printf %03d $((drawn % 1000)))"
        stop_run
    done
    if [ "$rc" = 0 ]; then
        same_run killed
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
    local file ema=()
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
    [[ " ${sets[*]}" != *ema_decay=0.* ]] || ! once_in 2 || ema=(--ema)
    served evaluate --json figures.json "${ema[@]}"
    served sample --out grid.png --seeds 2 --num 2 "${ema[@]}"
    threads=1 free=()
    go plan 1 plan --ranks 2 || fault "plan" "$work/plan.out"
    [ "${WIDE:-0}" = 0 ] || others_serve
}

# answers WHAT COMMAND...: with exit code 0
answers()
{
    local what=$1
    shift
    timeout -k 5 "$limit" "$@" >"$work/answer.out" 2>&1 ||
        fault "$what: exit code $?" "$work/answer.out" 20
}

# others_serve: what else may be made of a run
others_serve()
{
    local last=$work/one/checkpoints/iter_00000$iterations.h5 wanted
    answers "report" "$bin" report "$work/one"
    [ -s "$work/one/report.html" ] || fault "report: no page"
    answers "convert" "$bin" convert "$last" --to "$work/folder" --weights raw
    answers "inspect of a folder" "$bin" inspect --digest \
        "$work/folder$([ "$rank" = 0 ] || echo /pytorch_lora_weights.safetensors)"
    if [ "$kind" = train ]; then
        answers "inspect --csv" "$bin" inspect --csv "$work/one"
        answers "inspect --digest" "$bin" inspect --digest \
            "$work/one/trajectories/iter_000001.h5"
        wanted=$("$bin" inspect --pictures "$work/painted.png" \
            "$work/one/trajectories/iter_000001.h5" 2>&1) ||
            [[ $wanted == *"no item has all"* ]] || fault "inspect --pictures: $wanted"
    fi
    one_of train pretrain sample evaluate encode replay
    go plan 1 plan --command "$one" --gpus 1,3 || one_message plan $? ||
        fault "plan --command $one" "$work/plan.out"
    once_in 3 || return 0
    draw_ranks
    go doctor $((ranks > 3 ? 3 : ranks)) doctor --json "$work/doctor.json" ||
        grep -q "on_nan = .stop" "$work/doctor.out" ||
        fault "doctor, $ranks ranks: exit code $?" "$work/doctor.out" 20
}

# looks RUN: what reads a run's folder while others write it, or there is one message
looks()
{
    local run=$1 rc
    for look in "report --text" "inspect --csv" "report"; do
        # shellcheck disable=SC2086
        timeout -k 5 "$limit" "$bin" $look "$work/$run" >"$work/look.out" 2>&1
        rc=$?
        # from within the folder: what is not there is not yet there
        [ $rc = 0 ] || { [ $rc = 1 ] &&
            [ "$(grep -ac '^ERROR' "$work/look.out")" = 1 ]; } ||
            fault "$look meanwhile: exit code $rc" "$work/look.out" 20
    done
}

# twin_run: two at once in one folder, of which one waits for the other, or does not
twin_run()
{
    local i ends=() pids=() all=()
    for i in 1 2; do
        draw_ranks
        [ "$ranks" -le 3 ] || ranks=3
        draw_free
        all+=("$ranks ranks of $threads threads, ${env[*]} ${free[*]};")
        command_of "$kind" "$ranks" twin "${sets[@]}" "${free[@]}"
        "${command[@]}" >"$work/twin.out$i" 2>&1 &
        pids+=($!)
        draw 400
        sleep "0.$(printf %03d "$drawn")"
    done
    looks twin
    for i in 0 1; do
        wait "${pids[i]}"
        ends[i]=$?
    done
    case "${ends[*]}" in
    "0 0" | "0 75" | "75 0") same_run twin ;;
    *)
        cat "$work"/twin.out[12] >"$work/twin.out"
        fault "two at once: exit codes ${ends[*]}" "$work/twin.out" 20
        ;;
    esac
    [ "$faults" = 0 ] || echo "    twin: ${all[*]}"
}

# longer_run: begun as a shorter one
longer_run()
{
    case " ${sets[*]} " in
    *optim.schedule=constant*) ;;
    *) return 0 ;;
    esac
    # the last iteration is one that is evaluated, and its pictures are painted
    case " ${sets[*]} " in
    *evaluate.every=2*) return 0 ;;
    esac
    [ "$kind" = train ] || return 0
    local all=("${sets[@]}")
    draw_ranks
    draw_free
    sets+=(run.iterations=1)
    go train "$ranks" longer || fault "shorter: exit code $?" "$work/longer.out" 20
    sets=("${all[@]}")
    draw_ranks
    draw_free
    if go train "$ranks" longer; then
        same_run longer
    else
        fault "longer, $ranks ranks: exit code $?" "$work/longer.out" 20
    fi
    tell_free longer "$ranks"
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

# what a seed left goes, but for the files to be spoiled (random_spoils.sh); with
# KEEP=1 into a folder of its own, with KEEP=faults if something was wrong
tidy()
{
    local left=(find "$work" -mindepth 1 -maxdepth 1 ! -name beds ! -name 'seed*'
        ! -name '*.ada' ! -name '*.ben' ! -name '*.cyd' ! -name hosts ! -name rsh)
    if [ "${KEEP:-}" = 1 ] || [[ "${KEEP:-}$faults" == faults[1-9]* ]]; then
        mkdir -p "$work/seed$seed"
        "${left[@]}" -exec mv {} "$work/seed$seed" \;
    else
        "${left[@]}" -exec rm -rf {} +
    fi
}

# begin_draw: the configuration of $seed, of one rank as it is
begin_draw()
{
    begin_seed "$seed"
    draw_config
    env=(env) threads=1
    basis
    cache
    free=(trajectory.every=1 checkpoint.every=1)
}

check_runs()
{
    seed=$1 faults=0
    local rc began
    begin_draw
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
        # on hosts, whoever is killed is not there at once
        [ -n "${NODES:-}" ] || killed_run
        [ "${WIDE:-0}" = 0 ] || longer_run
        [ "${WIDE:-0}${NODES:-}" != 1 ] || twin_run
    fi
    if [ "$faults" = 0 ]; then
        echo "ok - random: seed $seed, $kind of $family on $device"
    else
        echo "    $TINY ${sets[*]}"
        echo "    again: SEEDS=$seed bash tests/long_random.sh"
    fi
    tidy
}
