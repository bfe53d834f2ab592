#!/bin/bash
# A ladder of memory: a run that goes on from a checkpoint under limits of its
# address space, from what the libraries need to more than is planned. At each
# it ends well, or with one message that says so; never by a signal, never
# waiting, and the checkpoint that was there goes on to the same weights. Of one
# rank: between ranks MPI takes memory for what is summed, and where it has none
# it ends the job with a message of its own. Of the emulated GPU's program, on the
# CPU: a real one's libraries alone take more than the lower limits.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"

# with twenty million parameters, of which most have moments and sums
sets=(flux.num_heads=16 flux.head_dim=32 'flux.axes_dims=[8, 12, 12]'
    flux.num_single_layers=3 sampler.steps=3 report.prompts=1
    grpo.num_generations=2 grpo.prompts_per_iteration=1 run.iterations=2)
configuration=(configs/tiny.cfg)
for set in "${sets[@]}"; do configuration+=(--set "$set"); done

# without a limit that a sanitizer's shadow is above
if ! (ulimit -v 400000 && ASAN_OPTIONS='' LSAN_OPTIONS='' TSAN_OPTIONS='' \
    "$bin" --version >/dev/null 2>&1); then
    echo "ok - memory: not where the program starts with more than a limit"
    exit 0
fi

# what a process has before it reserves anything, and what is planned then, in MiB
"$bin" plan "${configuration[@]}" --set run.threads=1 --json "$work/plan" \
    >"$work/out" 2>&1
planned=$(sed -n 's/.*"memory_bytes":{[^}]*"total":\([0-9]*\).*/\1/p' "$work/plan")
planned=$((${planned:-0} >> 20))
expect "memory: a plan of some size" test "$planned" -gt 500

tiny 1 1 whole "${sets[@]}"
want=$(digest whole 2)
tiny 1 1 half "${sets[@]}" run.max_seconds=1e-3
expect "memory: stopped after an iteration" test $? = 75

# rung MIB: goes on in a copy of the stopped run; $end is how it ended
rung()
{
    rm -rf "$work/rung"
    cp -r "$work/half" "$work/rung"
    (
        ulimit -c 0 -v $(($1 * 1024))
        exec timeout -k 5 240 "$bin" train "${configuration[@]}" \
            --set run.threads=1 --set run.dir="$work/rung" >"$work/rung.out" 2>&1
    )
    end=$?
}

# ends_well: or with one message about memory, all else as it was
ends_well()
{
    [ $end = 0 ] && [ "$(digest rung 2)" = "$want" ] && return
    [ $end = 1 ] && [ "$(grep -c '^ERROR' "$work/rung.out")" = 1 ] &&
        grep -qE '^ERROR .*(memory|reserve)' "$work/rung.out" &&
        [ "$(digest rung 1)" = "$(digest half 1)" ] &&
        ! ls "$work"/rung/checkpoints/*.tmp >/dev/null 2>&1
}

ran=0
failed=0
for ((most = 400; most < planned + 1100; most += 60)); do
    rung $most
    expect "memory: $most MiB: exit code $end" ends_well
    [ $end = 0 ] && [ $ran = 0 ] && ran=$most
    [ $end = 1 ] && failed=$most
    [ $end = 1 ] && ((most % 300 == 100)) && tiny 1 1 rung "${sets[@]}" &&
        same_digest "memory: goes on where there is more" rung "$want" 2
done
expect "memory: less than is planned does not do" test "$failed" -gt 0
# libraries, stacks and buffers besides
expect "memory: what is planned and 1 GiB does, and all above" test \
    "$ran" -gt "$failed" -a "$failed" -lt $((planned + 1024))
exit $bad
