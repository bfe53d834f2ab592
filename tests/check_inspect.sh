#!/bin/bash
# inspect of weights that other programs wrote: listed, summed up, refused.
. "$(dirname "$0")/lib.sh"
tools=${DG_BUILD:-build}/tests/tools

golden=tests/golden/weights

expect_code "inspect: safetensors, a tensor" 0 "a.bias: BF16 [2, 2, 1], 8 bytes" \
    "$bin" inspect $golden/mixed.safetensors
expect_code "inspect: safetensors, its sums" 0 \
    "6 tensors, 29 values, 94 bytes (F32, F16, BF16)" \
    "$bin" inspect $golden/mixed.safetensors
expect_code "inspect: safetensors, values" 0 \
    "least 0.901449, greatest 0.901449, mean 0.901449" \
    "$bin" inspect $golden/mixed.safetensors
expect_code "inspect: PyTorch, nested names" 0 \
    "state_dict.expanded: F32 [2, 3], 24 bytes" "$bin" inspect $golden/torch.bin
expect_code "inspect: a snapshot's networks" 0 \
    "FluxTransformer2DModel: 80 tensors, 27976 values, 55952 bytes (BF16)" \
    "$bin" inspect $golden/snapshot
expect "inspect: and their tensors" grep -qxF \
    "embeddings.position_embedding.weight: F32 [12, 16], 768 bytes" "$work/out"
expect_code "inspect: a network's shards" 0 \
    "model-00003-of-00003.safetensors: safetensors" \
    "$bin" inspect $golden/snapshot/text_encoder_2
# of all names and bytes in order, computed in Python from the files
expect_code "inspect: digest over shards" 0 \
    "f62d95c702530b54676373475571a2cce8b4761e3a09dad7d9cdfabfffe323eb" \
    "$bin" inspect --digest $golden/snapshot/transformer
printf '\065\0\0\0\0\0\0\0%s\001' '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' >"$work/one.safetensors"
expect_code "inspect: one of each" 0 "1 tensor, 1 value, 1 byte (U8)" \
    "$bin" inspect "$work/one.safetensors"
expect_code "inspect: a pickle that wants more is refused" 1 "os.getenv" \
    "$bin" inspect $golden/forbidden.pt
expect_code "inspect: a variant that is not there" 1 'of variant "fp16"' \
    "$bin" inspect --variant fp16 $golden/snapshot/text_encoder
mkdir "$work/empty"
expect_code "inspect: a folder without weights" 1 "empty: no weights" \
    "$bin" inspect "$work/empty"
head -c 200 $golden/mixed.safetensors >"$work/cut.safetensors"
expect_code "inspect: a file cut short" 1 "cut.safetensors: not a whole" \
    "$bin" inspect "$work/cut.safetensors"
cp -r $golden/snapshot "$work/torn"
cp $golden/torch.bin "$work/bit.bin"
printf '\1' | dd of="$work/bit.bin" bs=1 seek=1900 conv=notrunc status=none
for how in "" --digest; do
    # shellcheck disable=SC2086
    expect_code "inspect $how: a bit of a value" 1 \
        "bit.bin: member torch/data/0: CRC-32 is" \
        "$bin" inspect $how "$work/bit.bin"
done
rm "$work"/torn/text_encoder_2/model-00002-of-00003.safetensors
expect_code "inspect: a snapshot without a shard" 1 \
    "1 of 3 networks cannot be read" "$bin" inspect "$work/torn"
expect "inspect: which is named" grep -q \
    "text_encoder_2/model-00002-of-00003.safetensors: cannot open" "$work/out"
expect "inspect: and the others are listed" grep -q \
    "FluxTransformer2DModel: 80 tensors" "$work/out"

# HDF5 files that were made to mislead: one message, whatever HDF5 does with them
for how in tree deep loop; do
    cp configs/weights/shapes_flux.h5 "$work/$how.h5"
    expect "inspect: $how, made" "$tools/mislead" "$work/$how.h5" $how
    expect_code "inspect: $how, exit code 1" 1 "ERROR $work/$how.h5: " \
        timeout 60 "$bin" inspect "$work/$how.h5"
    expect "inspect: $how, one message" test "$(grep -c ERROR "$work/out")" = 1
done
expect_code "inspect: so deep a file is told" 1 "groups within each other" \
    "$bin" inspect "$work/deep.h5"
expect_code "inspect: a misleading file as weights" 1 "ERROR $work/tree.h5: " \
    "$bin" sample configs/tiny.cfg --out "$work/x.png" --set \
    policy.weights="$work/tree.h5"
expect "inspect: a misleading file as weights, one message" test \
    "$(grep -c ERROR "$work/out")" = 1
ranks 2 "$bin" inspect $golden/forbidden.pt >"$work/out" 2>&1
rc=$?
expect "inspect: two ranks, one message, exit code 1" bash -c \
    "[ $rc = 1 ] && [ \$(grep -c '^ERROR ' '$work/out') = 1 ]"
exit $bad
