#!/bin/bash
# run.device = "cuda" with the GPU emulated: the whole program, on one and
# more ranks, each with a GPU of its own, against the CPU's run. Emulated
# device memory ends the program when the host looks into it.
. "$(dirname "$0")/cuda_lib.sh"

# --- against the CPU, and on one, two and three ranks --------------------------
expect "cuda: the CPU's run" on_cpu host trajectory.every=0
expect "cuda: the tiny run ends on an emulated GPU" on_gpu 1 one
one=$(digest one)
expect "cuda: its ratio is exactly 1" ratio_is_one one 3
expect "cuda: its memory used is memory planned" equal_bytes one 3
expect "cuda: its weights are the CPU's within 1e-5" near one host 3
expect "cuda: and not the CPU's bits" test "$one" != "$(digest host)"
expect "cuda: its weights move" test "$(digest one 1)" != "$one"
expect "cuda: two ranks" on_gpu 2 two trajectory.every=0
same_digest "cuda: two ranks, same weights" two "$one"
expect "cuda: three ranks, other batches" on_gpu 3 three trajectory.every=0 \
    grpo.micro_batch=3
same_digest "cuda: three ranks, same weights" three "$one"
expect "cuda: three ranks, ratio 1" ratio_is_one three 3
for run in two three; do
    same "cuda: $run ranks, same numbers" \
        "$(numbers one | sed 's/"early_sums":[0-9]*,//')" \
        "$(numbers $run | sed 's/"early_sums":[0-9]*,//')"
done

expect "cuda: a run without graphs" on_gpu 1 plain trajectory.every=0 \
    parallel.graphs=false
same_digest "cuda: without graphs, same weights" plain "$one"
no_warning "cuda: ranks with a GPU each do not go through the host" "$work/two.out"
export CUDA_EMULATION_DEVICES=1
expect "cuda: two ranks on one GPU" on_gpu 2 shared trajectory.every=0 \
    run.iterations=1
unset CUDA_EMULATION_DEVICES
same_digest "cuda: two ranks on one GPU, same weights" shared \
    "$(digest one 1)" 1
expect "cuda: two ranks on one GPU are told" grep -q \
    "^WARN  2 ranks share a GPU: " "$work/shared.out"

# as a scheduler hands GPUs out: each rank sees one, under the number 0
cat >"$work/see" <<END
#!/bin/bash
export CUDA_VISIBLE_DEVICES=\${GPUS_OF_RANKS:OMPI_COMM_WORLD_LOCAL_RANK * 4:3}
exec "$gpu" "\$@"
END
chmod +x "$work/see"
# gpus_of LIST RUN: two ranks, of which each sees its own of a list
gpus_of()
{
    GPUS_OF_RANKS=$1 bin=$work/see on_gpu 2 "$2" trajectory.every=0 \
        run.iterations=1
}
expect "cuda: ranks that see a GPU each" gpus_of "2   5" own
no_warning "cuda: ranks that see a GPU each do not share one" "$work/own.out"
same_digest "cuda: ranks that see a GPU each, same weights" own \
    "$(digest one 1)" 1
for gpus in "2   2" "2:0 2:1"; do
    expect "cuda: ranks that see the same GPU, $gpus" gpus_of "$gpus" same
    expect "cuda: ranks that see the same GPU are told, $gpus" grep -q \
        "^WARN  2 ranks share a GPU: " "$work/same.out"
    rm -rf "$work/same"
done

# --- stopped, resumed, replayed ------------------------------------------------
on_gpu 2 late run.max_seconds=1e-3 trajectory.every=0
expect "cuda: a stopped run ends with exit code 75" test $? = 75
expect "cuda: one rank ends it" on_gpu 1 late trajectory.every=0 \
    parallel.recompute=true
same_digest "cuda: stopped and resumed, the same weights" late "$one"
CUDA_EMULATION_NAME="another GPU" on_gpu 1 late trajectory.every=0 \
    run.iterations=4
expect "cuda: another model of GPU is told" grep -q \
    "^WARN  [^ ]*3.h5 was computed with GPU: emulated GPU, .*here it is GPU: another GPU" \
    "$work/late.out"
expect "cuda: an iteration's file is replayed" "$gpu" replay \
    "$work/one/trajectories/iter_000002.h5"

# --- guidance, KL, noise ---------------------------------------------------------
TINY=configs/tiny_eps.cfg on_cpu eps.host grpo.kl_beta=0.1 run.iterations=1
TINY=configs/tiny_eps.cfg on_gpu 2 eps grpo.kl_beta=0.1 run.iterations=1
expect "cuda: guidance, noise and KL, ratio 1" ratio_is_one eps 1
expect "cuda: guidance, noise and KL, the CPU's weights" near eps eps.host 1

# a reference whose copy on the host nobody wants is made of the policy's, which
# goes on to change there, or goes
kl="grpo.kl_beta=1000 sampler.steps=3"
# shellcheck disable=SC2086
on_gpu 1 kl.own $kl
kl="$kl trajectory.every=0"
# shellcheck disable=SC2086
{
    on_gpu 1 kl.lent $kl parallel.offload_optimizer=true
    on_gpu 1 kl.parts $kl run.max_seconds=1e-3
    on_gpu 2 kl.parts $kl parallel.shard=parameters
}
own=$(digest kl.own)
same_digest "cuda: KL's reference without a copy" kl.lent "$own"
same_digest "cuda: the same, stopped and continued in ranges" kl.parts "$own"

# from where a first network has gone a little way: it begins at grey
bin=$cpu launch pretrain 1 1 start policy.prediction=data pretrain.steps=3 \
    pretrain.batch=8 pretrain.item_size=2 pretrain.eval_every=0
wait "$pid"
data="policy.prediction=data policy.weights=$work/start/weights.h5 run.iterations=1
    sampler.steps=6 sampler.window_size=2 sampler.window_solver=dpmpp_2m
    sampler.window_compress=1 grpo.timestep_mode=window"
# shellcheck disable=SC2086
on_cpu data.host $data
# shellcheck disable=SC2086
on_gpu 1 data $data
expect "cuda: data predicted, second order behind a window, ratio 1" ratio_is_one data 1
expect "cuda: data predicted, second order behind a window, there is a gradient" \
    grep -q '"grad_norm":0\.0*[1-9]' "$work/data/metrics.jsonl"
expect "cuda: data predicted, second order behind a window, the CPU's weights" near data data.host 1

# --- adapters on the CPU's weights -------------------------------------------------
lora="policy.weights=$work/host/checkpoints/iter_000003.h5 lora.rank=2 run.iterations=1"
# shellcheck disable=SC2086
{
    on_cpu lora.host $lora
    on_gpu 2 lora $lora
}
expect "cuda: adapters, ratio 1" ratio_is_one lora 1
expect "cuda: adapters, the CPU's weights" near lora lora.host 1

# --- folders with a learned decoder, a U-Net of own sizes ---------------------------
# an update moves all weights alike, also where a gradient is rounding and no more
few="sampler.steps=3 run.iterations=1 grpo.prompts_per_iteration=1 evaluate.steps=1
    policy.draw_all=false"
# family NAME CONFIG WHAT
family()
{
    # shellcheck disable=SC2086
    {
        TINY=configs/$2.cfg on_cpu "$1.host" $few report.prompts=1
        TINY=configs/$2.cfg on_gpu 1 "$1" $few report.prompts=1
    }
    expect "cuda: $3, ratio 1" ratio_is_one "$1" 1
    expect "cuda: $3, memory used is memory planned" equal_bytes "$1" 1
    expect "cuda: $3, the CPU's weights" near "$1" "$1.host" 1
}
family sd tiny_sd "a Stable Diffusion folder"
family unet tiny_unet "a Stable Diffusion of own sizes"
family flux tiny_flux "a FLUX folder"

# --- what cannot be ----------------------------------------------------------------
# one_error NAME TEXT command...: exit code 1 and one message with the text
one_error()
{
    local name=$1 text=$2
    shift 2
    expect_code "cuda: $name" 1 "$text" "$@" train configs/tiny.cfg \
        --set run.device=cuda --set run.dir="$work/none"
    expect "cuda: $name, one message" test "$(grep -c '^ERROR' "$work/out")" = 1
}

grep -q "DG_CUDA 1" "${DG_BUILD:-build}/generated/features.h" ||
    one_error "a program without its GPU side" "built without its GPU side" \
        "$cpu"
one_error "no GPU" "no CUDA-capable device" env CUDA_EMULATION_DEVICES=0 "$gpu"
one_error "no GPU for two ranks" "no CUDA-capable device" \
    ranks 2 env CUDA_EMULATION_DEVICES=0 "$gpu"
one_error "a driver that is too old" "it knows CUDA 12.4" \
    ranks 2 env CUDA_EMULATION_DRIVER=12040 "$gpu"
for name in NVIDIA_TF32_OVERRIDE CUBLAS_EMULATE_SINGLE_PRECISION; do
    one_error "other arithmetic, $name" "$name = 1 in the environment" \
        ranks 2 env $name=1 "$gpu"
done
one_error "no driver" "no NVIDIA driver is installed" \
    env CUDA_EMULATION_DRIVER=0 "$gpu"
one_error "NCCL's reason" ": Bootstrap : no socket interface found" \
    ranks 2 env CUDA_EMULATION_NCCL="Bootstrap : no socket interface found" "$gpu"
one_error "a GPU too small for the plan" "0.4 MB of 35.0 MB are free" \
    ranks 2 env CUDA_EMULATION_MEMORY=35000000 "$gpu"
one_error "a GPU without room for the driver" "its driver up to 537 MB" \
    env CUDA_EMULATION_MEMORY=$((40000000 + later / 2)) "$gpu"
expect "cuda: a GPU too small for the plan, what helps" grep -q \
    "a smaller grpo.micro_batch, parallel.recompute = true" "$work/out"
one_error "a GPU too small for a stream" "out of memory" \
    env CUDA_EMULATION_MEMORY=9000000 "$gpu"

# A GPU that fails for good, after 55 and after 62 % of its launches, in the second
# of three iterations: what was written before is whole, and others go
# on from it.
short="sampler.steps=3 grpo.prompts_per_iteration=2 report.prompts=1 trajectory.every=0"
# shellcheck disable=SC2086
CUDA_EMULATION_TELL=1 on_gpu 2 unbroken $short
launches=$(sed -n 's/.*: \([0-9]*\) launches on device 1$/\1/p' "$work/unbroken.out")
for at in 55 62; do
    run=broken$at
    export CUDA_EMULATION_FAIL=1:$((launches * at / 100))
    # shellcheck disable=SC2086
    on_gpu 2 "$run" $short parallel.write_beside=false
    code=$?
    unset CUDA_EMULATION_FAIL
    expect "cuda: a GPU fails at $at %: exit code 1" test $code = 1
    expect "cuda: a GPU fails at $at %: in the second iteration" test \
        "$(metric "$run" iteration)" = 1
    expect "cuda: a GPU fails at $at %: one message" test \
        "$(grep -c '^ERROR' "$work/$run.out")" = 1
    expect "cuda: a GPU fails at $at %: it says whose" grep -q \
        '^ERROR CUDA.*launch failure (found by rank 1)' "$work/$run.out"
    same_digest "cuda: a GPU fails at $at %: a checkpoint stays" "$run" \
        "$(digest unbroken 1)" 1
    # shellcheck disable=SC2086
    on_gpu 1 "$run" $short
    expect "cuda: a GPU fails at $at %: another goes on there" grep -q \
        "continuing after iteration 1$" "$work/$run.out"
    same_digest "cuda: a GPU fails at $at %: another goes on" "$run" \
        "$(digest unbroken)"
done

# Numbers that are not finite: named as on the CPU, in rollout and update.
wild="run.iterations=8 optim.lr=1 optim.weight_decay=10"
# shellcheck disable=SC2086
expect "cuda: NaN in the network, the run goes on" on_gpu 1 wild $short $wild
expect "cuda: NaN names sample, step and layer" grep -qE \
    "^WARN  iteration [0-9]+, prompt [0-9]+, sample 0, step 0, rank 0: layer .* not finite" \
    "$work/wild.out"
expect "cuda: NaN in an update names the layer" grep -qE \
    "^WARN  iteration [0-9]+, update 2, prompt [0-9]+, sample [0-9]+, rank 0: layer .* not finite" \
    "$work/wild.out"
# shellcheck disable=SC2086
on_gpu 2 wild2 $short $wild
same_digest "cuda: NaN, two ranks go the same way" wild2 "$(digest wild 8)" 8

# A rank that stays away from a sum: the others lose their patience.
# shellcheck disable=SC2086
CUDA_EMULATION_STUCK=2 on_gpu 2 stuck $short parallel.timeout_seconds=1
expect "cuda: a sum that waits too long ends the run" test $? = 1
expect "cuda: and names rank and sum" grep -q "panic: rank 0 of 2 waits .* in \
NCCL's sum of gradients, int64 (parallel.timeout_seconds)" "$work/stuck.out"
exit $bad
