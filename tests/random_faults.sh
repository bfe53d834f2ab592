# A run in which something fails at random: source it after cuda_lib.sh,
# random_draw.sh and random_runs.sh, then check_faults SEED. One call for memory,
# of the disk or for a thread fails on one rank (tests/faulty.c), or all from it
# on; or its GPU. Whatever it is: all ranks end together with one message, or it does
# not matter; nothing is half-written; and the run goes on to the bits of one
# that was never disturbed.
# shellcheck disable=SC2154
faulty=$PWD/${DG_BUILD:-build}/tests/faulty.so
# by then ranks have ended that do not wait for each other for ever
patience_faults=${PATIENCE:-60}

# faulty_run KIND RANKS RUN: as go, with the fault
faulty_run()
{
    local before=("${env[@]}") rc
    env+=(LD_PRELOAD="$faulty" FAULTY_DIR="$work/$3" "${fault_env[@]}")
    limit=$patience_faults go "$@"
    rc=$?
    env=("${before[@]}")
    return $rc
}

# draw_fault RANKS: fault_env, of the places that "counted" has seen
draw_fault()
{
    local kind rank calls how
    draw "$1"
    rank=$drawn
    if [ "$device" = cuda ] && once_in 3; then
        one_of 10 100 1000 10000
        draw "$one"
        fault_env=(CUDA_EMULATION_FAIL="$rank:$drawn")
        what="GPU $rank from its launch $drawn on, of $1 ranks"
        return
    fi
    one_of memory memory memory disk disk read thread
    kind=$one
    # what touches files is the first rank's most often
    [ "$kind" = disk ] && once_in 2 && rank=0
    mapfile -t calls < <(sed -n "s/^$kind \([0-9]*\) .*/\1/p" "$work/counted.count.$rank")
    [ "${#calls[@]}" != 0 ] || {
        kind=memory
        mapfile -t calls < <(sed -n "s/^memory \([0-9]*\) .*/\1/p" "$work/counted.count.$rank")
    }
    one_of "" :on
    how=$one
    one_of "${calls[@]}"
    fault_env=(FAULTY="$kind:$rank:$one$how" FAULTY_TOLD="$work/told")
    what="$kind $one on rank $rank of $1${how:+, and after it}, of ${#calls[@]} places"
}

# where it was, in the program
tell_place()
{
    local place
    [ ! -s "$work/told" ] || for place in $(cat "$work/told"); do
        addr2line -Cfpe "$bin" "$place" | sed 's/^/      /; s|/[^ ]*/src|src|'
    done
}

# end_of_fault RUN RC: how such a run may end
end_of_fault()
{
    local run=$1 rc=$2
    case $rc in
    0) no_unfinished "$run" || fault "$what: a file half-written" ;;
    1)
        # before there is an error to share: the option table's defaults
        one_message "$run" 1 || grep -aq 'panic: .*no memory' "$work/$run.out" ||
            fault "$what: not one message" "$work/$run.out" 20
        ;;
    124 | 137) fault "$what: no end within $patience_faults s" "$work/$run.out" ;;
    *) fault "$what: exit code $rc" "$work/$run.out" 20 ;;
    esac
}

# one_fault RANKS: into a run, which then goes on without it
one_fault()
{
    local n=$1 rc before=$faults
    rm -rf "$work/faulty" "$work/told"
    draw_fault "$n"
    faulty_run "$kind" "$n" faulty
    rc=$? told=
    [ -s "$work/told" ] && struck=$((struck + 1))
    end_of_fault faulty "$rc"
    told=${told:-exit code $rc}
    [ "$faults" != "$before" ] || {
        draw 2
        n=$((drawn + 1))
        draw_free
        if go "$kind" "$n" faulty; then
            same_run faulty
        else
            fault "$what, then $n ranks: exit code $?" "$work/faulty.out" 20
        fi
    }
    [ -z "${TELL:-}" ] || echo "# $what: $told"
    [ "$faults" = "$before" ] || {
        echo "      $what"
        tell_place
        tell_free faulty "$1"
    }
}

check_faults()
{
    [ "${SAN:-0}" = 0 ] || return 0 # it has the allocator
    seed=$1 faults=0
    local rc n i what struck=0 fault_env
    begin_seed "$seed"
    draw_config
    env=(env) threads=1
    basis
    cache
    free=(trajectory.every=1 checkpoint.every=1)
    go "$kind" 1 one
    rc=$?
    if [ "$rc" = 0 ]; then
        draw 3
        n=$((drawn + 1))
        draw_free
        fault_env=(FAULTY_COUNT="$work/counted.count")
        faulty_run "$kind" "$n" counted ||
            fault "counted, $n ranks: exit code $?" "$work/counted.out" 20
        for ((i = 0; i < ${FAULTS_EACH:-8}; i++)); do one_fault "$n"; done
    fi
    if [ "$faults" = 0 ]; then
        echo "ok - random: faults seed $seed, $kind of $family on $device, $struck struck"
    else
        echo "    $TINY ${sets[*]}"
        echo "    again: FAULTS=$seed bash tests/long_random.sh"
    fi
    tidy
}
