#!/bin/bash
# Products by the project's own kernels, where cuBLASLt has no algorithm: for all
# shapes, or for some of them (CUDA_EMULATION_NO_PRODUCT of the emulated library).
# All promises hold, and the log says which shapes.
# shellcheck disable=SC2154
# shellcheck source=tests/cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
few="sampler.steps=3 run.iterations=1 grpo.prompts_per_iteration=2"

# tests of products and networks where the library has nothing; LONG=1: each
# kernel's in bfloat16 too
programs="products networks"
[ "${LONG:-0}" = 1 ] && programs="$programs bf16"
for p in $programs; do
    CUDA_EMULATION_NO_PRODUCT=all expect "own products: test_cuda_$p" \
        "${DG_BUILD:-build}/tests/test_cuda_$p"
done

# told RUN: some shapes, each once
told()
{
    grep '^WARN  cuBLASLt has no algorithm' "$work/$1.out" >"$work/shapes" &&
        [ "$(sort "$work/shapes" | uniq -d | wc -l)" = 0 ]
}

# shellcheck disable=SC2086
{
    on_cpu host $few trajectory.every=0
    CUDA_EMULATION_NO_PRODUCT=all on_gpu 1 all $few trajectory.every=0
    DANCEGRPO_PRODUCTS=own on_gpu 1 own $few
}
expect "own products: the CPU's weights within 1e-5" near all host 1
expect "own products: shapes are told" told all
same_digest "own products: asked for, the same weights" own "$(digest all 1)" 1
no_warning "own products: asked for, no shape is told" "$work/own.out"
expect "own products: asked for, the run says so" grep -q "but own products" \
    "$work/own.out"

for dtype in float32 bfloat16; do
    for none in some all; do
        export CUDA_EMULATION_NO_PRODUCT=$none
        about=$dtype.$none
        # shellcheck disable=SC2086
        {
            on_gpu 1 "$about" $few
            on_gpu 2 "$about.two" $few trajectory.every=0 grpo.micro_batch=1 \
                parallel.recompute=true parallel.graphs=false
        }
        expect "own products, $about: ratio 1" ratio_is_one "$about" 1
        expect "own products, $about: memory planned" equal_bytes "$about" 1
        expect "own products, $about: shapes are told" told "$about"
        same_digest "own products, $about: two ranks, other batches, no graphs" \
            "$about.two" "$(digest "$about" 1)" 1
        expect "own products, $about: replayed" "$gpu" replay \
            "$work/$about/trajectories/iter_000001.h5"
    done
done
unset CUDA_EMULATION_NO_PRODUCT
# a library with other bits for a batch, of which nothing shows but the time
on_gpu 1 alike grpo.num_generations=4 grpo.micro_batch=4 run.iterations=1 \
    trajectory.every=0
CUDA_EMULATION_PRODUCTS="batch 2" on_gpu 1 batch \
    grpo.num_generations=4 grpo.micro_batch=4 run.iterations=1
expect "products: bits of a batch: the log says which sizes" grep -q \
    "^WARN  cuBLASLt: products .* other bits in a batch of 4: fewer" \
    "$work/batch.out"
expect "products: bits of a batch: ratio 1" ratio_is_one batch 1
same_digest "products: bits of a batch: the same weights" batch \
    "$(digest alike 1)" 1
# one whose bits do not repeat
CUDA_EMULATION_PRODUCTS=vary expect_code "products: bits that vary end the run" 1 \
    "twice has given other bits; DANCEGRPO_PRODUCTS=own" \
    ranks 2 "$gpu" train configs/tiny.cfg --set run.device=cuda \
    --set run.dir="$work/vary"
# a GPU that is wrong in the last bit: nothing shows but to its neighbours
odd=(ranks 3 env CUDA_EMULATION_WRONG=1:product "$gpu" train configs/tiny.cfg
    --set run.device=cuda --set run.iterations=2 --set sampler.steps=3
    --set run.threads=1)
expect "witness: nobody looks, nothing shows" "${odd[@]}" \
    --set run.dir="$work/unseen" --set run.witness_every=0
expect_code "witness: the GPU that differs is named" 1 \
    "rank 1 differs from both its neighbours" "${odd[@]}" \
    --set run.dir="$work/seen" --set run.witness_every=1
expect "witness: one message" test "$(grep -c '^ERROR' "$work/out")" = 1
expect_code "own products: nothing else is understood" 1 "library or own" \
    env DANCEGRPO_PRODUCTS=mine "$gpu" train configs/tiny.cfg \
    --set run.device=cuda --set run.dir="$work/none"
exit $bad
