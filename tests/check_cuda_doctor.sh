#!/bin/bash
# dancegrpo doctor on GPUs, emulated: right ones, and ones that are wrong in the
# last bit (CUDA_EMULATION_WRONG).
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
export CUDA_EMULATION_DEVICES=2
here=$(hostname)

# wrong NAME WHAT TEXT command...: a device that is wrong in that is told so
wrong()
{
    local name=$1 what=$2 text=$3
    shift 3
    export CUDA_EMULATION_WRONG=$what
    expect_code "cuda doctor: $name" 1 "$text" "$@" --set run.device=cuda
    unset CUDA_EMULATION_WRONG
}

expect_code "cuda doctor: ratio 1, the same weights alone and together" 0 \
    " 0 failed" ranks 2 "$gpu" doctor configs/tiny_unet.cfg \
    --set run.device=cuda --set parallel.shard=gradients
expect "cuda doctor: the program has its GPU side" grep -q \
    "^program .*, with its GPU side" "$work/out"
expect "cuda doctor: a GPU for each rank" grep -q \
    "^gpu  *ok  *one for each rank; 68.6 of 68.7 GB free" "$work/out"
expect "cuda doctor: sums by their link" grep -q \
    "^sums  *ok .* by the GPUs' link: .* 34 MB " "$work/out"
expect "cuda doctor: the configuration's network in all ways" grep -q \
    "^network *ok .* 1, 2, 3, with and without recomputation, with and without \
graphs; by each rank the same samples (" "$work/out"

# --- a wrong one ---------------------------------------------------------------------
wrong "a GPU with other bits" 1:product \
    "promises   FAIL  rank 1 on $here by itself ends with other weights" \
    ranks 2 "$gpu" doctor configs/tiny.cfg
expect "cuda doctor: by the configuration's network too" grep -q \
    "^network *FAIL *rank 1 on $here by itself ends with other" "$work/out"
wrong "a GPU whose part of sums is lost" 1:sum \
    "what rank 1 on $here gives does not arrive" \
    ranks 2 "$gpu" doctor configs/tiny.cfg --quick
# a prompt's first steps are in other batches than the update's: the ratio sees it;
# where all batches are alike, doctor's other micro_batch
wrong "samples that depend on their neighbours" 0:batch \
    " before the first update: must be exactly 1" \
    "$gpu" doctor configs/tiny.cfg
wrong "samples that depend on their neighbours, in batches alike" 0:batch \
    "network    FAIL  rank 0 on $here: with grpo.micro_batch = 1 " \
    "$gpu" doctor configs/tiny.cfg --set sampler.init_noise=per_sample
wrong "graphs that are not what was captured" 0:graph \
    "promises   FAIL" "$gpu" doctor configs/tiny.cfg --quick

# --- no room ----------------------------------------------------------------------------
expect_code "cuda doctor: a network that has no room" 1 \
    "room       FAIL  the plan takes " "$gpu" doctor \
    configs/sizes_flux_dev.cfg --set run.device=cuda \
    --set 'rewards=({name="brightness";})' \
    --set prompts.file=configs/prompts/shapes_train.jsonl
expect "cuda doctor: nothing of it is tried" grep -q \
    "^network *WARN *not tried, the small one is: there is no room" "$work/out"
exit $bad
