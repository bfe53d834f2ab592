#!/bin/bash
# A few configurations drawn at random, and a few inputs spoiled at random; more
# of both in long_random.sh.
. "$(dirname "$0")/cuda_lib.sh"
. tests/random_draw.sh
. tests/random_runs.sh
. tests/random_spoils.sh
bin=$gpu

expect "random: files to be spoiled" spoil_beds
DEVICE=cpu check_runs 1
exit $bad
