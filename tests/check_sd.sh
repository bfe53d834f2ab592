#!/bin/bash
# Training on a Stable Diffusion folder keeps the promises, from the command
# line; a folder that does not serve is refused by name.
. "$(dirname "$0")/train_lib.sh"
export TINY=configs/tiny_sd.cfg
folder=tests/golden/sd_tiny

keeps_promises sd

# --- without training -------------------------------------------------------
serves_alone sd policy.kind=flux

# --- adapters on the folder's own weights ---------------------------------------
adapters=(lora.rank=4 lora.alpha=8 'lora.targets=["attn2.to_*"]')
expect "sd: adapters" tiny 1 1 adapted "${adapters[@]}"
expect "sd: adapters, the ratio is 1" test \
    "$(metric adapted ratio_max_deviation | tr '\n' ' ')" = "0 0 0 "
tiny 2 1 adapted2 "${adapters[@]}" trajectory.every=0
same_digest "sd: adapters, two ranks" adapted2 "$(digest adapted)"
tiny 1 1 adapted3 "${adapters[@]}" run.max_seconds=1e-3
expect "sd: adapters, continued" tiny 1 1 adapted3 "${adapters[@]}"
same_digest "sd: adapters, continued, the same ones" adapted3 \
    "$(digest adapted)"
expect "sd: adapters, replay" "$bin" replay \
    "$work/adapted/trajectories/iter_000002.h5"
last=$work/adapted/checkpoints/iter_000003.h5
expect_code "sd: evaluate adapters" 0 "all" "$bin" evaluate "$TINY" \
    --set policy.weights="$last" --json "$work/adapted.json"
differ "sd: which change the pictures" "$work/base.json" "$work/adapted.json"
cp -r $folder "$work/other"
printf '\001' | dd of="$work/other/unet/diffusion_pytorch_model.safetensors" \
    bs=1 seek=200000 conv=notrunc 2>/dev/null
expect_code "sd: adapters of another folder" 1 "those of policy.path have" \
    "$bin" evaluate "$TINY" --set policy.weights="$last" \
    --set policy.path="$work/other"

# --- a decoder that overflows: named, and not the reward that would have seen it ---
wild=$work/wild
cp -r $folder "$wild"
printf '\377\377\177\177' | dd bs=1 conv=notrunc seek=19084 2>/dev/null \
    of="$wild/vae/diffusion_pytorch_model.safetensors" # in decoder.conv_out.weight
expect_code "sd: pictures that are not finite end the run" 1 "ERROR iteration 1: none \
of 8 pictures is finite, and no reward has seen one; the first of them, prompt " \
    ranks 2 "$bin" train "$TINY" --set run.dir="$work/refused" \
    --set policy.path="$wild"
expect "sd: in one message, which names the decoder's layer" test "$(grep \
    -c '^ERROR .*, sample 0: its picture is not finite: .* layer decoder.conv_out: ' \
    "$work/out") $(grep -c ^ERROR "$work/out")" = "1 1"
expect_code "sd: evaluate warns of them" 0 "WARN  prompt 0, picture 0: its picture is \
not finite: the latent is, but not what the decoder made of it: layer decoder.conv_out" \
    "$bin" evaluate "$TINY" --set policy.path="$wild"
expect_code "sd: doctor finds them" 1 "network    FAIL  none of 2 pictures is finite" \
    "$bin" doctor "$TINY" --set policy.path="$wild"

# --- folders that do not serve ------------------------------------------------
refused "sd: no folder" "policy.path" policy.path=
refused "sd: folder is not there" "$work/none" policy.path="$work/none"
refused "sd: another kind's folder" "policy.kind must be \"flux\"" \
    policy.path=tests/golden/flux_tiny
cp -r $folder "$work/bad"
rm -r "$work/bad/vae"
refused "sd: no vae" "bad/vae/config.json" policy.path="$work/bad"
cp -r $folder/vae "$work/bad"
truncate -s -100 "$work/bad/unet/diffusion_pytorch_model.safetensors"
refused "sd: cut short" "bad/unet/diffusion_pytorch_model.safetensors" \
    policy.path="$work/bad"
# rules that end early are rules all the same, of other words
cp -r $folder "$work/rules"
rm "$work/rules/tokenizer/tokenizer.json"
head -n 701 tests/golden/clip_small/merges.txt >"$work/rules/tokenizer/merges.txt"
expect_code "sd: a tokenizer of rules" 0 "wrote" "$bin" sample "$TINY" "a" \
    --set policy.path="$work/rules" --out "$work/rules.png"
no_warning "sd: which is no reason to warn" "$work/out"
sed -i '$d' "$work/rules/tokenizer/merges.txt"
expect_code "sd: rules cut off, a warning" 0 \
    "1213 token ids, the text_encoder has 1214" "$bin" sample "$TINY" "a" \
    --set policy.path="$work/rules" --out "$work/rules.png"
refused "sd: size that does not fit" "pretrain.image_size" pretrain.image_size=44
expect_code "sd: pretraining of a folder" 1 "policy.kind" "$bin" pretrain "$TINY" \
    --set run.dir="$work/refused"
cp -r $folder "$work/sizes"
find "$work/sizes" -name '*.safetensors' -delete
rm -rf "$work/refused"
expect_code "sd: before any weights are read" 1 "must be empty for pretraining" \
    ranks 2 "$bin" pretrain "$TINY" --set run.dir="$work/refused" \
    --set policy.path="$work/sizes"

# --- frozen weights that change while a run is away ---------------------------
cp -r $folder "$work/own"
cp -r tests/golden/clip_tiny "$work/own/clip"
frozen=(policy.path="$work/own" trajectory.every=0 run.iterations=2 "rewards=({
    name=\"clip\";path=\"$work/own/clip\";tokenizer=\"$folder/tokenizer\";})")
tiny 1 2 frozen.whole "${frozen[@]}"
tiny 1 2 frozen "${frozen[@]}" run.max_seconds=1e-3
expect "sd: frozen weights, stopped after one iteration" test \
    "$(last_checkpoint frozen)" = 1
# another FILE: the lowest bits of its first value are others
another()
{
    cp "$1" "$work/kept"
    printf '\x12' | dd of="$1" bs=1 conv=notrunc status=none \
        seek=$(($(od -An -tu8 -N8 "$1") + 9))
}
for of in "vae/diffusion_pytorch_model:the decoder of pictures" \
    "clip/model:rewards[0], clip"; do
    file=$work/own/${of%%:*}.safetensors
    another "$file"
    tiny 2 1 frozen "${frozen[@]}"
    expect "sd: a run does not go on with other weights of ${of#*:}" grep -qF \
        "its run had other weights of ${of#*:}, of digest" "$work/frozen.out"
    expect "sd: and is left as it was" test "$(last_checkpoint frozen)" = 1
    cp "$work/kept" "$file"
done
tiny 2 1 frozen "${frozen[@]}"
same_digest "sd: it does with those that it began with" frozen \
    "$(digest frozen.whole 2)" 2

# --- sizes of its own: pretrained, sampled, tuned -----------------------------
export TINY=configs/tiny_unet.cfg
sets=(pretrain.steps=3 pretrain.batch=8 pretrain.item_size=2
    pretrain.eval_every=0)
launch pretrain 1 2 base "${sets[@]}"
expect "sd sizes: pretraining" wait "$pid"
launch pretrain 2 1 base.late run.max_seconds=1e-3 "${sets[@]}"
wait "$pid"
expect "sd sizes: pretraining stopped after one step" test \
    "$(last_checkpoint base.late)" = 1
launch pretrain 2 1 base.late "${sets[@]}"
wait "$pid"
same_digest "sd sizes: pretraining continued, two ranks, same weights" \
    base.late "$(digest base)"
launch pretrain 1 1 unjudged "${sets[@]}" "rewards=()"
expect "sd sizes: pretraining without a reward" wait "$pid"
expect "sd sizes: which evaluates nothing" grep -q "(not evaluated)" \
    "$work/unjudged.out"
same_digest "sd sizes: and gives the same weights" unjudged "$(digest base)"
weights=policy.weights=$work/base/weights.h5
expect "sd sizes: a run" tiny 1 1 small "$weights"
expect "sd sizes: the ratio is 1, exactly, in every iteration" test \
    "$(metric small ratio_max_deviation | tr '\n' ' ')" = "0 0 0 "
expect "sd sizes: peak_bytes is plan_bytes" equal_bytes small
tiny 3 1 small.three "$weights" grpo.micro_batch=2 parallel.recompute=true
same_digest "sd sizes: three ranks, other batches, same weights" small.three \
    "$(digest small)"
tiny 1 2 small.late "$weights" run.max_seconds=1e-3
expect "sd sizes: stopped after one iteration" test \
    "$(last_checkpoint small.late)" = 1
expect "sd sizes: continued on two ranks" tiny 2 1 small.late "$weights"
same_digest "sd sizes: continued, the same weights" small.late "$(digest small)"
expect "sd sizes: replay" "$bin" replay \
    "$work/small/trajectories/iter_000002.h5"
expect "sd sizes: weights know their sizes" "$bin" sample configs/tiny.cfg \
    --set "$weights" --set cfg.scale=2 --out "$work/small.png" "a red circle"
tiny 1 1 lora "$weights" lora.rank=2 lora.alpha=4 run.iterations=1
expect "sd sizes: adapters, ratio 1" test \
    "$(metric lora ratio_max_deviation)" = 0
refused "sd: no sizes" "unet.block_out_channels" "unet.block_out_channels=[]"
refused "sd: picture that does not fit" "pretrain.image_size" \
    pretrain.image_size=38
refused "sd: other block types" "unet.up_block_types" \
    unet.up_block_types=UpBlock2D,SkipUpBlock2D
exit $bad
