#!/bin/bash
# The kernels' test programs as a GPU has them: the limits from which on maps,
# planes, attention and products come in parts or in larger tiles are the
# kernels' own, not the small ones of the emulation, and what tests ask of a
# GPU alone is asked here too. What fails here would fail there.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

for program in "${DG_BUILD:-build}"/tests/as_gpu/test_cuda_*; do
    case $program in
    *.o) continue ;;
    esac
    expect "as on a GPU: ${program##*/}" "$program"
done
exit $bad
