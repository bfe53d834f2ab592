#!/bin/bash
# convert from the command line: folders that the program itself reads again,
# files of adapters, whole pipelines, and what is refused.
# shellcheck source=tests/train_lib.sh
. "$(dirname "$0")/train_lib.sh"

convert() { "$bin" convert "$@"; }
# listed FILE-OR-FOLDER LINE: inspect shows it
listed() { "$bin" inspect "$1" | grep -q "$2"; }
weights_digest() { "$bin" inspect --digest "$1" | cut -c 1-64; }

# --- Stable Diffusion: the folder that is written is a policy again ------------
export TINY=configs/tiny_sd.cfg
folder=tests/golden/sd_tiny
tiny 1 1 sd optim.ema_decay=0.5 optim.lr=1e-3 run.iterations=1 trajectory.every=0
full=$work/sd/checkpoints/iter_000001.h5
evaluate() { "$bin" evaluate "$TINY" --set run.threads=1 "$@" >/dev/null; }
evaluate --set policy.weights="$full" --json "$work/raw.json"
evaluate --set policy.weights="$full" --ema --json "$work/ema.json"
expect "convert: a whole pipeline" convert "$full" --to "$work/pipe" \
    --pipeline copy
expect "convert: which is a policy" evaluate --json "$work/again.json" \
    --set policy.path="$work/pipe"
expect "convert: of the checkpoint's very pictures" cmp "$work/raw.json" \
    "$work/again.json"
expect "convert: the same linked, averaged, in shards" convert "$full" --to \
    "$work/linked" --pipeline link --weights ema --shard-size 300KB
expect "convert: its shards" listed "$work/linked/unet" \
    "diffusion_pytorch_model-00005-of-00005.safetensors: safetensors"
expect "convert: which is a policy too" evaluate --json "$work/again.json" \
    --set policy.path="$work/linked"
expect "convert: of the averaged weights' pictures" cmp "$work/ema.json" \
    "$work/again.json"
expect_code "evaluate: a folder has no averaged weights" 1 "--ema: policy.weights" \
    "$bin" evaluate "$TINY" --ema
differ "convert: raw and averaged differ" "$work/raw.json" "$work/ema.json"
expect "convert: nothing unfinished is left" test -s "$work/ema.json" -a -z \
    "$(find "$work" -name '*.tmp*')"
expect "convert: float16" convert "$full" --to "$work/half" --dtype float16
expect "convert: float16 is there" listed "$work/half" "(F16)"
expect "convert: bfloat16" convert "$full" --to "$work/brain" --dtype=bfloat16
expect "convert: bfloat16 is there" listed "$work/brain" "(BF16)"

# --- FLUX: a weights file, adapters on it, both forms ----------------------------
TINY=configs/tiny.cfg
launch pretrain 1 1 base pretrain.steps=20 pretrain.batch=8 \
    pretrain.item_size=4 pretrain.eval_every=0 optim.lr=1e-2
wait "$pid"
base=$work/base/weights.h5
tiny 1 1 lora policy.weights="$base" lora.rank=4 lora.alpha=8 optim.lr=1e-2 \
    run.iterations=1
trajectory=$work/lora/trajectories/iter_000001.h5
adapters=$work/lora/checkpoints/iter_000001.h5
expect "convert: a weights file" convert "$base" --to "$work/flux"
expect "convert: its config.json" grep -q FluxTransformer2DModel \
    "$work/flux/config.json"
expect "convert: adapters" convert "$adapters" --to "$work/adapters"
lora=$work/adapters/pytorch_lora_weights.safetensors
expect "convert: adapters, their A" listed "$lora" \
    "^transformer.transformer_blocks.0.attn.to_q.lora_A.weight: F32 \[4, 32\]"
expect "convert: adapters, their B" listed "$lora" \
    "^transformer.transformer_blocks.0.attn.to_q.lora_B.weight: F32 \[32, 4\]"
expect_code "convert: a folder of adapters, what inspect proposes" 1 \
    "but pytorch_lora_weights.safetensors: which one" "$bin" inspect \
    "$work/adapters"
expect "convert: adapters merged" convert "$adapters" --to "$work/merged" --merge
same "convert: adapters merged, the network's tensors" \
    "$("$bin" inspect "$work/merged" | grep -o '[^ ]*weight')" \
    "$("$bin" inspect "$work/flux" | grep -o '[^ ]*weight')"
expect "convert: adapters merged, other values" test \
    "$(weights_digest "$work/merged")" != "$(weights_digest "$work/flux")"
mv "$base" "$work/moved.h5"
expect_code "convert: the base is gone" 1 "base/weights.h5" convert \
    "$adapters" --to "$work/never" --merge
expect "convert: --base finds it" convert "$adapters" --to "$work/moved" \
    --merge --base "$work/moved.h5"
same "convert: with the same values" \
    "$(weights_digest "$work/moved")" "$(weights_digest "$work/merged")"
launch pretrain 1 1 theta pretrain.steps=0 pretrain.eval_every=0 \
    flux.rope_theta=100
wait "$pid"
expect_code "convert: what diffusers has no key for is said" 0 "pos_embed.theta" \
    convert "$work/theta/weights.h5" --to "$work/theta_out"

# --- FLUX.1's folder: all of the network, and adapters in it, as policies again --
TINY=configs/tiny_flux.cfg
tiny 1 1 folder run.iterations=1 trajectory.every=0 optim.lr=1e-3
tiny 1 1 thin run.iterations=1 trajectory.every=0 optim.lr=1e-2 lora.rank=4
for run in folder thin; do
    tuned=$work/$run/checkpoints/iter_000001.h5
    merge=$([ $run = folder ] || echo --merge)
    # shellcheck disable=SC2086 # no flag, or one
    expect "convert: FLUX.1, $run, a whole pipeline" convert "$tuned" \
        --to "$work/flux_$run" --pipeline copy $merge
    evaluate --set policy.weights="$tuned" --json "$work/$run.json"
    expect "convert: FLUX.1, $run, which is a policy" evaluate \
        --set policy.path="$work/flux_$run" --json "$work/$run.again.json"
done
expect "convert: FLUX.1, of the checkpoint's very pictures" cmp \
    "$work/folder.json" "$work/folder.again.json"
differ "convert: FLUX.1, two policies" "$work/folder.json" "$work/thin.json"

# --- refused ---------------------------------------------------------------------
# refused NAME TEXT ARGUMENT...: exit code 1, or $wrong, one message, no folder
refused()
{
    local name=$1 text=$2
    shift 2
    expect_code "convert: $name" "${wrong:-1}" "$text" convert "$@" \
        --to "$work/never"
    expect "convert: $name, one message" test \
        "$(grep -c '^ERROR' "$work/out")" = 1
    expect "convert: $name, no folder" test -z \
        "$(find "$work" -name 'never*')"
}
refused "no file" "none.h5" "$work/none.h5"
refused "not a checkpoint" "README.md" README.md
refused "another file" "must be a checkpoint or weights" "$trajectory"
cp "$full" "$work/damaged.h5"
"$tools/plant" "$work/damaged.h5" flip arrays/weights 5
refused "damaged" "the file is damaged" "$work/damaged.h5"
refused "merging without adapters" "--merge: $full holds no adapters" "$full" \
    --merge
refused "a base without adapters" "--base: $full holds no" "$full" \
    --base "$full"
refused "a pipeline of adapters" "with --merge" "$adapters" --pipeline copy
refused "shards of adapters" "which are one file" "$adapters" --shard-size 1GB
refused "a pipeline without a folder" "comes from no folder" "$work/moved.h5" \
    --pipeline copy
refused "another folder where there is none" "--folder: $work/moved.h5 comes" \
    "$work/moved.h5" --folder $folder
refused "no averaged weights" "--weights ema: $work/moved.h5 holds no averaged weights: its run had optim.ema_decay = 0" \
    "$work/moved.h5" --weights ema
wrong=2
refused "another type" "float32 | float16 | bfloat16" "$full" --dtype int8
refused "other weights" "raw | ema" "$full" --weights best
refused "no size" "like 500MB" "$full" --shard-size big
refused "another way" "copy | link" "$full" --pipeline move
wrong=
cp -r $folder "$work/other"
printf '\001' | dd of="$work/other/text_encoder/model.safetensors" bs=1 \
    seek=10000 conv=notrunc 2>/dev/null
refused "another text encoder" "text encoders of $full are not" "$full" \
    --folder "$work/other" --pipeline copy
rm -r "$work/other/vae"
refused "a folder without a part" "other/vae" "$full" --folder "$work/other" \
    --pipeline link

# --- a U-Net of the configuration's sizes has its config.json written ----------
TINY=configs/tiny_unet.cfg
tiny 1 1 unet run.iterations=1 trajectory.every=0
expect "convert: own sizes" convert "$work/unet/checkpoints/iter_000001.h5" \
    --to "$work/unet_out"
expect "convert: own sizes, config.json" test "$(tr -d ' \n' \
    <"$work/unet_out/config.json")" = "{\"_class_name\":\
\"UNet2DConditionModel\",\"attention_head_dim\":2,\
\"block_out_channels\":[8,16],\"cross_attention_dim\":16,\
\"down_block_types\":[\"DownBlock2D\",\"CrossAttnDownBlock2D\"],\
\"flip_sin_to_cos\":true,\"freq_shift\":0,\"in_channels\":48,\
\"layers_per_block\":1,\"norm_num_groups\":4,\"out_channels\":48,\
\"up_block_types\":[\"CrossAttnUpBlock2D\",\"UpBlock2D\"],\
\"sample_size\":null}"
TINY=configs/tiny_sd.cfg

expect_code "convert: the folder is there" 1 "pipe: is there already" convert \
    "$full" --to "$work/pipe"
expect_code "convert: no --to" 2 "--to FOLDER" convert "$full"
ranks 2 "$bin" convert "$full" --to "$work/pipe" >"$work/out" 2>&1
rc=$?
expect "convert: two ranks, one message, exit code 1" bash -c \
    "[ $rc = 1 ] && [ \$(grep -c '^ERROR ' '$work/out') = 1 ]"
expect "convert: two ranks" ranks 2 "$bin" convert "$full" --to "$work/two"
expect_code "help convert" 0 "--shard-size SIZE" "$bin" help convert
exit $bad
