# Shared by the check scripts that train; source it in place of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=${DG_BUILD:-build}/tests/tools
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1
export OMP_WAIT_POLICY=passive

# tiny RANKS THREADS RUN [SET]...: the tiny configuration (or $TINY) in
# $work/RUN, output in $work/RUN.out; one rank without mpirun
tiny()
{
    local n=$1 threads=$2 run=$3 set sets=()
    shift 3
    for set in "$@"; do sets+=(--set "$set"); done
    local command=("$bin" train "${TINY:-configs/tiny.cfg}" --set run.dir="$work/$run"
        --set run.threads="$threads" "${sets[@]}")
    if [ "$n" = 1 ]; then
        "${command[@]}" >"$work/$run.out" 2>&1
    else
        ranks "$n" "${command[@]}" >"$work/$run.out" 2>&1
    fi
}

# digest RUN [ITERATION]: SHA-256 of the weights of a checkpoint
digest()
{
    "$bin" inspect --digest \
        "$work/$1/checkpoints/iter_$(printf %06d "${2:-3}").h5" | cut -c 1-64
}

# same_digest NAME RUN WANTED [ITERATION]: on failure, whether there is no digest,
# or one of other bits, and from which iteration on metrics have others, too
same_digest()
{
    local got
    got=$(digest "$2" "${4:-3}" 2>&1)
    expect "$1" test "${#3}" = 64 -a "$got" = "$3"
    [ "$got" != "$3" ] || return 0
    if [[ $got =~ ^[0-9a-f]{64}$ ]]; then
        echo "    other bits: $got, not $3; reward_mean, grad_norm, loss:"
        paste <(metric "$2" reward_mean) <(metric "$2" grad_norm) \
            <(metric "$2" loss) | sed 's/^/    /'
    else
        echo "    no digest: $got"
    fi
    [ ! -e "$work/$2.out" ] || tail -n 5 "$work/$2.out"
}

# metric RUN KEY: its values, one a line, of every iteration
metric()
{
    sed -n 's/.*"'"$2"'":\([^,}]*\).*/\1/p' "$work/$1/metrics.jsonl"
}

# numbers RUN: what metrics say of each iteration but times and memory
numbers()
{
    grep -o '"reward_mean.*"set_aside' "$work/$1/metrics.jsonl"
}

# same_numbers NAME RUN RUN
same_numbers() { same "$1" "$(numbers "$2")" "$(numbers "$3")"; }

# ratio_is_one RUN ITERATIONS: in every iteration, exactly; null where no sample was
# trained
ratio_is_one()
{
    metric "$1" ratio_max_deviation | grep -qx 0 &&
        [ "$(metric "$1" ratio_max_deviation | grep -cxE '0|null')" = "$2" ] &&
        [ "$(metric "$1" grad_norm | wc -l)" = "$2" ]
}

# equal_bytes RUN [ITERATIONS]: memory used is memory planned
equal_bytes()
{
    [ "$(metric "$1" peak_bytes)" = "$(metric "$1" plan_bytes)" ] &&
        [ "$(metric "$1" peak_bytes | grep -c '^[1-9]')" = "${2:-3}" ]
}

# launch COMMAND RANKS THREADS RUN [SET]...: the same in the background, of
# train or pretrain; its process is $pid
launch()
{
    local kind=$1 n=$2 threads=$3 run=$4 set sets=() front=()
    shift 4
    for set in "$@"; do sets+=(--set "$set"); done
    [ "$n" = 1 ] || front=(mpirun --oversubscribe -n "$n")
    "${front[@]}" "$bin" "$kind" "${TINY:-configs/tiny.cfg}" \
        --set run.dir="$work/$run" --set run.threads="$threads" \
        "${sets[@]}" >>"$work/$run.out" 2>&1 &
    pid=$!
}

# SIGKILL to all ranks of $pid at once; nonzero when it had ended before
kill_run()
{
    local ranks there=1
    # mpirun is held, so that it neither starts nor stops a rank meanwhile
    kill -STOP "$pid" 2>/dev/null && there=0
    ranks=$(pgrep -P "$pid")
    # shellcheck disable=SC2086
    kill -9 $ranks "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    return $there
}

# until_or_end CONDITION...: waits for the condition; 1 when $pid ended first
until_or_end()
{
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.005
    done
}

writes_checkpoint() { compgen -G "$work/$1/checkpoints/*.tmp" >/dev/null; }

# has_more_than RUN N: checkpoints' highest number is above N
has_more_than() { [ "$(last_checkpoint "$1")" -gt "$2" ]; }

last_checkpoint()
{
    local newest
    newest=$(compgen -G "$work/$1/checkpoints/iter_*.h5" | sort | tail -n 1)
    newest=${newest##*_}
    newest=${newest%.h5}
    echo $((10#${newest:-0}))
}

# no_unfinished RUN: no file is half-written there
no_unfinished() { [ -z "$(find "$work/$1" -name '*.tmp')" ]; }

# keeps_promises KIND: of $TINY, the ratio, the plan, ranks, micro-batches, a
# stop and a replay; the run is $work/whole, the digest of its weights $whole
keeps_promises()
{
    expect "$1: a run" tiny 1 1 whole
    whole=$(digest whole)
    expect "$1: the ratio is 1, exactly, in every iteration" test \
        "$(metric whole ratio_max_deviation | tr '\n' ' ')" = "0 0 0 "
    expect "$1: peak_bytes is plan_bytes" equal_bytes whole
    expect "$1: the reward differs among pictures" test \
        "$(metric whole zero_std_groups | tr '\n' ' ')" = "0 0 0 "
    tiny 2 1 two parallel.recompute=true
    same_digest "$1: two ranks, blocks run again, the same weights" two "$whole"
    tiny 1 2 micro grpo.micro_batch=1
    same_digest "$1: micro-batch 1, two threads, the same weights" micro "$whole"
    tiny 1 1 late run.max_seconds=1e-3
    expect "$1: stopped after one iteration" test "$(last_checkpoint late)" = 1
    expect "$1: continued" tiny 1 1 late
    same_digest "$1: continued, the same weights" late "$whole"
    expect "$1: replay" "$bin" replay "$work/whole/trajectories/iter_000002.h5"
    # a reference has no decoder
    expect "$1: with a KL term" tiny 1 1 kl grpo.kl_beta=0.1 run.iterations=1
    expect "$1: with a KL term, peak_bytes is plan_bytes" equal_bytes kl 1
}

# serves_alone KIND [SET]: what $TINY and the checkpoint of $work/whole are good
# for without training; with SET the checkpoint does not depend on that key
serves_alone()
{
    local last=$work/whole/checkpoints/iter_000003.h5
    expect_code "$1: evaluate the folder" 0 "all" "$bin" evaluate "$TINY" \
        --json "$work/base.json"
    expect_code "$1: evaluate a checkpoint with the folder" 0 "all" "$bin" \
        evaluate "$TINY" --set policy.weights="$last" --json "$work/tuned.json"
    differ "$1: training changed the pictures" "$work/base.json" \
        "$work/tuned.json"
    expect_code "$1: a checkpoint knows its folder" 0 "all" "$bin" evaluate \
        "$TINY" ${2:+--set "$2"} --set policy.path= \
        --set policy.weights="$last" --json "$work/again.json"
    expect "$1: and gives the same pictures" cmp "$work/tuned.json" \
        "$work/again.json"
    expect "$1: sample" "$bin" sample "$TINY" "a red cat" --seeds 2 \
        --out "$work/grid.png"
    expect "$1: a run on a checkpoint" tiny 1 1 more policy.weights="$last" \
        run.iterations=1
}

# refused NAME TEXT SET...: training on the tiny configuration (or $TINY) ends
# with exit code 1, one message with the text
refused()
{
    local name=$1 text=$2 set sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    expect_code "$name" 1 "$text" "$bin" train \
        "${TINY:-configs/tiny.cfg}" --set run.dir="$work/refused" "${sets[@]}"
    expect "$name, one message" test "$(grep -c '^ERROR' "$work/out")" = 1
}
