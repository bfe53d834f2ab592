#!/bin/bash
# The main job in small: tunes the shipped base by its rewards, then writes
# the report. Called by `make demo`; continues a run that was stopped.
set -eu
cd "$(dirname "$0")/.."
bin=${DG_BIN:-bin/dancegrpo}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ranks=$(($(nproc) < 2 ? 1 : 2))

mpirun --oversubscribe -n "$ranks" "$bin" train configs/demo.cfg "$@"
"$bin" report runs/demo
