#!/bin/bash
# Training on a FLUX.1 folder keeps the promises, from the command line; so
# does it with adapters and cached conditions; a folder that does not serve is
# refused by name.
. "$(dirname "$0")/train_lib.sh"
export TINY=configs/tiny_flux.cfg
folder=tests/golden/flux_tiny

keeps_promises flux
tiny 3 1 three
same_digest "flux: three ranks, the same weights" three "$whole"
tiny 1 1 exact policy.bf16_compat=false run.iterations=1
expect "flux: bf16_compat matters" test "$(digest exact 1)" != \
    "$(digest whole 1)"
tiny 1 1 sized sampler.shift=0 run.iterations=1
expect "flux: shift 0 is the picture's, not 3" test "$(digest sized 1)" != \
    "$(digest whole 1)"

# --- cached conditions, adapters --------------------------------------------
expect "flux: encode" "$bin" encode "$TINY" --set \
    prompts.cache="$work/prompts.h5" --set run.dir="$work/encode"
tiny 1 1 cached prompts.cache="$work/prompts.h5"
same_digest "flux: conditions from the cache, the same weights" cached "$whole"
lora=(lora.rank=2 lora.alpha=4)
expect "flux: adapters" tiny 1 1 lora "${lora[@]}"
tiny 2 1 lora2 "${lora[@]}" prompts.cache="$work/prompts.h5"
same_digest "flux: adapters, two ranks, the cache, the same weights" lora2 \
    "$(digest lora)"
expect "flux: adapters, replay" "$bin" replay \
    "$work/lora/trajectories/iter_000003.h5"
# pictures of what was decoded want the folder's decoder alone, wherever it is
shown() { "$bin" inspect --pictures "$work/$1.png" "${@:2}" >"$work/out" 2>&1; }
file=$work/lora/trajectories/iter_000003.h5
expect "flux: pictures of a trajectory" shown one "$file"
cp -r $folder "$work/decoder"
rm -r "$work"/decoder/transformer/*.safetensors "$work"/decoder/text_encoder*/*.safetensors
expect "flux: with the decoder alone" shown two --folder "$work/decoder" "$file"
expect "flux: the same pictures" cmp "$work/one.png" "$work/two.png"
expect_code "flux: of a folder that is not there" 1 "$work/none" \
    "$bin" inspect --pictures "$work/three.png" --folder "$work/none" "$file"
tiny 1 1 lora3 "${lora[@]}" run.max_seconds=1e-3
expect "flux: adapters, continued" tiny 1 1 lora3 "${lora[@]}"
same_digest "flux: adapters, continued, the same weights" lora3 "$(digest lora)"
adapters=$work/lora/checkpoints/iter_000003.h5
expect_code "flux: evaluate adapters on their folder" 0 "all" "$bin" evaluate \
    "$TINY" --set policy.path= --set policy.weights="$adapters" \
    --json "$work/lora.json"
cp -r $folder "$work/moved"
expect_code "flux: and on the folder moved" 0 "all" "$bin" evaluate "$TINY" \
    --set policy.path="$work/moved" --set policy.weights="$adapters" \
    --json "$work/lora2.json"
expect "flux: the same pictures" cmp "$work/lora.json" "$work/lora2.json"
again=("$bin" replay --folder "$work/moved" "$work/lora/trajectories/iter_000003.h5")
expect "flux: adapters, replay with the folder moved" "${again[@]}"
# another base: one weight of the transformer turned about
vec=$work/moved/transformer/diffusion_pytorch_model-00002-of-00002.safetensors
printf '\x12' | dd of="$vec" bs=1 conv=notrunc status=none \
    seek=$(($(stat -c %s "$vec") - 2))
expect_code "flux: on another base no replay" 1 "SHA-256" "${again[@]}"
expect_code "flux: on another base they are refused" 1 "SHA-256" "$bin" \
    evaluate "$TINY" --set policy.path="$work/moved" \
    --set policy.weights="$adapters"

# --- without training -------------------------------------------------------
serves_alone flux

# --- pictures that are not square --------------------------------------------
wide=(policy.height=80 policy.width=112 run.iterations=2)
expect "flux: a run of wide pictures" tiny 1 1 wide "${wide[@]}"
expect "flux: wide pictures, ratio 1" test \
    "$(metric wide ratio_max_deviation | tr '\n' ' ')" = "0 0 "
expect "flux: wide pictures, peak_bytes is plan_bytes" equal_bytes wide 2
tiny 2 1 wide2 "${wide[@]}" grpo.micro_batch=1
same_digest "flux: wide pictures, two ranks, the same weights" wide2 \
    "$(digest wide 2)" 2
expect "flux: wide pictures, replay" "$bin" replay \
    "$work/wide/trajectories/iter_000002.h5"
expect "flux: wide pictures, report" "$bin" report "$work/wide"
expect_code "flux: its findings as text" 0 "good   Is the ratio exactly 1 at first? Yes" \
    "$bin" report --text "$work/wide"
sample=("$bin" sample "$TINY" "a red cat" --seeds 1
    --set policy.weights="$work/wide/checkpoints/iter_000002.h5")
expect "flux: wide pictures, sample" "${sample[@]}" --out "$work/known.png"
"${sample[@]}" --set policy.height=80 --set policy.width=112 \
    --out "$work/wide.png" >"$work/out" 2>&1
expect "flux: wide pictures, a checkpoint knows their size" cmp \
    "$work/known.png" "$work/wide.png"
"${sample[@]}" --set policy.height=64 --set policy.width=64 \
    --out "$work/square.png" >"$work/out" 2>&1
"$bin" sample "$TINY" "a red cat" --seeds 1 --out "$work/base.png" \
    >"$work/out" 2>&1
# the header of a PNG ends with the sides
expect "flux: which is another where keys are set" cmp -n 24 \
    "$work/square.png" "$work/base.png"
expect_code "flux: plan counts the decoder" 0 "iteration: decode" "$bin" plan \
    "$TINY"

# --- folders that do not serve ----------------------------------------------
refused "flux: folder is not there" "$work/none\": there is no such folder" \
    policy.path="$work/none"
refused "flux: another kind's folder" \
    "sd_tiny\": a folder with unet and without transformer: policy.kind must be \"sd\"" \
    policy.path=tests/golden/sd_tiny
refused "flux: the network's own folder" "no folder transformer in it" \
    policy.path=$folder/transformer
cp -r $folder "$work/bad"
rm -r "$work/bad/tokenizer_2"
refused "flux: no tokenizer_2" "bad/tokenizer_2" policy.path="$work/bad"
cp -r $folder/tokenizer_2 "$work/bad"
cut=diffusion_pytorch_model-00002-of-00002.safetensors
truncate -s -100 "$work/bad/transformer/$cut"
refused "flux: cut short" "bad/transformer/$cut" policy.path="$work/bad"
refused "flux: size that does not fit" "pretrain.image_size" \
    pretrain.image_size=40
refused "flux: height that does not fit" "policy.height = 72" policy.height=72
refused "flux: width that does not fit" "policy.width = 120" policy.width=120
refused "flux: a reward of squares" "rewards[0].name = \"shapes\"" \
    policy.width=112 'rewards=({name="shapes";})'
refused "flux: a VAE without a folder" \
    "policy.codec = \"vae\": needs policy.path" policy.path= policy.codec=vae
rm -rf "$work/refused"
find "$work/bad" -name '*.safetensors*' -delete
expect_code "flux: pretraining, before any weights are read" 1 \
    "must be empty for pretraining" "$bin" pretrain "$TINY" \
    --set run.dir="$work/refused" --set policy.path="$work/bad"
exit $bad
