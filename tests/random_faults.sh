# Mishaps at random: source it after cuda_lib.sh, random_draw.sh and
# random_runs.sh, then check_faults SEED. A call of the system fails in one rank
# or in all of them; a rank dies, stands still or is told to stop there
# (fail_calls.c); an emulated GPU or the link between two fails. The run ends in
# time, with one message and nothing half-written, or it goes on; and without the
# mishap it comes to the bits it always has.
# shellcheck disable=SC2154,SC2034
fail_calls=$(realpath "${DG_BUILD:-build}/tests/fail_calls.so")

# seconds that ranks wait for one that stands still, and that a run may take in all
stands_still=6
mishap_limit=${MISHAP_LIMIT:-90}

# calls_of RUN: lines "CALL N" of those that it made at all; an emulated GPU's memory
# is the program's too, which a real one's is not
calls_of()
{
    awk -v device="$device" '$2 > 0 && !($1 == "memory" && device == "cuda")' \
        "$work/$1.calls"
}

# emulated WHAT: of the run of one rank, as its GPU has told
emulated()
{
    sed -n "s/^cuda emulation: \([0-9]*\) $1.*/\1/p" "$work/one.out" |
        sort -n | tail -n 1
}

# draw_device RANKS: what may happen to an emulated GPU, or between two
draw_device()
{
    local launches most
    launches=$(emulated launches)
    most=$(emulated bytes)
    one_of fails fails fails link stuck memory
    [ "$1" != 1 ] || one=fails
    case $one in
    fails)
        draw $((launches + launches / 8))
        mishap=("CUDA_EMULATION_FAIL=$((drawn + 1))")
        draw "$1"
        mishap=("${mishap[0]/=/=$drawn:}" how=ENODEV)
        ;;
    link | stuck)
        draw 60
        mishap=("CUDA_EMULATION_${one^^}=$((drawn + 1))" how=stuck)
        free+=("parallel.timeout_seconds=$stands_still"
            "parallel.host_timeout_seconds=$((3 * stands_still))")
        ;;
    memory)
        draw $((most / 1000 + 1))
        mishap=("CUDA_EMULATION_MEMORY=$((later + drawn * 1200))" how=ENOMEM)
        ;;
    esac
    what="${mishap[0]}"
}

# draw_mishap RANKS: the variables of fail_calls.c in mishap, its words in what
draw_mishap()
{
    local n=$1 lines call most how
    [ "$device" = cuda ] && once_in 2 && {
        draw_device "$n"
        return
    }
    mapfile -t lines < <(calls_of one)
    draw ${#lines[@]}
    read -r call most <<<"${lines[drawn]}"
    draw $((most + most / 4 + 1))
    mishap=("FAIL_AT=$call:$((drawn + 1))")
    case $call in
    memory | map) one_of ENOMEM ENOMEM ENOMEM kill ;;
    thread) one_of ENOMEM ;;
    # what cannot be removed stays
    remove) one_of kill term stop ;;
    *) one_of ENOSPC ENOSPC EIO kill term stop ;;
    esac
    how=$one
    # nobody is left to see it
    [ "$how$n" != stop1 ] || how="kill"
    mishap+=("FAIL_HOW=$how")
    case $how in
    E*) once_in 2 && mishap+=(FAIL_ON=from) ;;
    stop) free+=("parallel.host_timeout_seconds=$stands_still") ;;
    esac
    draw "$n"
    if [ "$how" = stop ] || once_in 2; then
        mishap+=("FAIL_RANK=$drawn")
    fi
    what="${mishap[*]}"
}

# tell_stacks RUN: where its ranks are, of a run that does not end
tell_stacks()
{
    local p
    [ -n "$(command -v gdb)" ] || return 0
    for p in $(pgrep -f "^[^ ]*dancegrpo [a-z]* .*run.dir=$work/$1 "); do
        gdb -p "$p" -batch -ex "thread apply all bt 14" 2>/dev/null |
            grep -E '^(#|Thread)' >"$work/$1.stack.$p"
    done
    [ -z "${STACKS:-}" ] || cp "$work/$1".stack.* "$STACKS"
}

# mishap_run RANKS RUN: code in $rc, 124 if it had to be ended
mishap_run()
{
    local n=$1 run=$2 i
    limit=600 command_of "$kind" "$n" "$run" "${sets[@]}" "${free[@]}"
    printf '%q ' "${command[@]}" >"$work/$run.line"
    # the ranks alone have it, not mpirun
    local words=() word
    for word in "${command[@]:4}"; do
        [ "$word" != "$bin" ] || words+=(env "LD_PRELOAD=$fail_calls"
            "FAIL_FOLDER=$work/$run" "${mishap[@]}")
        words+=("$word")
    done
    "${env[@]}" "${words[@]}" >"$work/$run.out" 2>&1 </dev/null &
    job=$!
    for ((i = 0; i < 20 * mishap_limit; i++)); do
        kill -0 $job 2>/dev/null || break
        sleep 0.05
    done
    if [ "$i" = $((20 * mishap_limit)) ]; then
        tell_stacks "$run"
        pkill -9 -f "run.dir=$work/$run " 2>/dev/null
        wait $job
        rc=124
    else
        wait $job
        rc=$?
    fi
} 2>/dev/null # nor does bash tell of those that are killed

# nobody_left RUN: no process of it
nobody_left()
{
    local i
    for ((i = 0; i < 50; i++)); do
        pgrep -f "run.dir=$work/$1 " >/dev/null || return 0
        sleep 0.1
    done
    return 1
}

# judge_mishap RUN: what came of it
judge_mishap()
{
    local run=$1
    case $rc:${mishap[1]#*=} in
    124:*) fault "$run, $what: no end within $mishap_limit s" "$work/$run.out" ;;
    0:*) ;;
    75:term) no_unfinished "$run" || fault "$run, $what: remains" ;;
    1:E*)
        one_message "$run" 1 ||
            fault "$run, $what: not one message, or remains: $(
                find "$work/$run" -name '*.tmp')" "$work/$run.out" 20
        ;;
    *:kill | *:stop) ;;
    *:stuck)
        grep -aqE 'panic|^ERROR' "$work/$run.out" ||
            fault "$run, $what: exit code $rc, no message" "$work/$run.out"
        ;;
    *) fault "$run, $what: exit code $rc" "$work/$run.out" 20 ;;
    esac
    nobody_left "$run" || {
        fault "$run, $what: a process is left"
        pkill -9 -f "run.dir=$work/$run "
    }
    ! grep -aqE 'Sanitizer|runtime error:|Segmentation|signal 11|signal 6' \
        "$work/$run.out" || fault "$run, $what: crash" "$work/$run.out" 20
}

# after_mishap RUN: it goes on, or begins again, on other ranks
after_mishap()
{
    local run=$1 n
    [ "$rc" != 0 ] || {
        same_run "$run"
        return
    }
    draw_ranks
    n=$ranks
    draw_free
    if go "$kind" "$n" "$run"; then
        same_run "$run"
    else
        fault "$run, $what, then $n ranks: exit code $?" "$work/$run.out" 20
    fi
}

check_faults()
{
    seed=$1 faults=0
    local rc began i n words=() told_of=
    begin_draw
    began=$(date +%s%3N)
    env=(env "LD_PRELOAD=$fail_calls" "FAIL_COUNTS=$work/one.calls" CUDA_EMULATION_TELL=1
        "FAIL_FOLDER=$work/one")
    go "$kind" 1 one
    rc=$?
    env=(env)
    spent_ms=$(($(date +%s%3N) - began))
    if [ "$rc" = 0 ]; then
        for ((i = 1; i <= ${MISHAPS:-5}; i++)); do
            draw_ranks
            n=$ranks
            draw_free
            draw_mishap "$n"
            mishap_run "$n" "mishap$i"
            judge_mishap "mishap$i"
            told_of+=" ${mishap[0]#*=},${mishap[1]#*=}:$rc"
            tell_free "mishap$i ($what)" "$n"
            cp "$work/mishap$i.out" "$work/mishap$i.first"
            after_mishap "mishap$i"
        done
    fi
    if [ "$faults" = 0 ]; then
        echo "ok - random: mishaps of seed $seed, $kind of $family on $device$told_of"
    else
        echo "    $TINY ${sets[*]}"
        echo "    again: MISHAPS_OF=$seed bash tests/long_random.sh"
    fi
    tidy
}
