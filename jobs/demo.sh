#!/bin/bash
# The main job in small: scores the shipped base on held-out prompts, tunes it
# by its rewards, scores the result, writes the report. Called by `make demo`;
# a run that was stopped is continued.
set -eu
cd "$(dirname "$0")/.."
bin=${DG_BIN:-bin/dancegrpo}
config=configs/demo.cfg
run=runs/demo
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ranks=$(($(nproc) < 2 ? 1 : 2))

dancegrpo()
{
    mpirun --oversubscribe -n "$ranks" "$bin" "$@"
}

mkdir -p "$run"
if [ ! -f "$run/evaluation_before.json" ]; then
    echo "--- the base, on held-out prompts"
    dancegrpo evaluate "$config" --json "$run/evaluation_before.json"
fi
echo "--- DanceGRPO"
dancegrpo train "$config" "$@"
echo "--- the tuned policy, on the same prompts and seeds"
last=$(ls "$run"/checkpoints/iter_*.h5 | tail -n 1)
dancegrpo evaluate "$config" --set "policy.weights=$last" \
    --json "$run/evaluation_after.json"
"$bin" report "$run"
