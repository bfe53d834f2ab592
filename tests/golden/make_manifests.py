#!/usr/bin/env python3
"""Names, shapes and types of the tensors of the real networks.

Run by hand, from the repository's root, with torch, diffusers and transformers
installed (no weights are needed: modules are made on the meta device):

    python3 tests/golden/make_manifests.py

Writes tests/golden/manifests/*.tsv: name, shape, dtype of the public files.
Configurations are those of the public checkpoints. transformers 5 leaves the
prefix "text_model." of CLIP out of its modules; the public files have it.
"""
import math
import os

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers import UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel
from transformers import CLIPTextConfig, CLIPTextModel
from transformers import T5Config, T5EncoderModel

OUT = "tests/golden/manifests"
VAE = dict(in_channels=3, out_channels=3, layers_per_block=2,
           block_out_channels=(128, 256, 512, 512),
           down_block_types=("DownEncoderBlock2D",) * 4,
           up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=32)
FLUX = dict(patch_size=1, in_channels=64, num_layers=19, num_single_layers=38,
            attention_head_dim=128, num_attention_heads=24,
            joint_attention_dim=4096, pooled_projection_dim=768,
            axes_dims_rope=(16, 56, 56))
T5 = dict(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24,
          num_heads=64, feed_forward_proj="gated-gelu")
CLIP = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072,
            num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=77)
# OpenCLIP's ViT-H-14: HPS v2.1, PickScore, LAION's
CLIP_H = dict(
    projection_dim=1024,
    text_config=dict(hidden_size=1024, intermediate_size=4096,
                     num_hidden_layers=24, num_attention_heads=16),
    vision_config=dict(hidden_size=1280, intermediate_size=5120, patch_size=14,
                       num_hidden_layers=32, num_attention_heads=16))
# file, module, dtype of the public files, tensors and parameters that there
# must be
NETWORKS = (
    ("sd14_unet", lambda: UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8), "F32",
     686, 859520964),
    ("clip_l_text", lambda: CLIPTextModel(CLIPTextConfig(**CLIP)), "F32", 196,
     123060480),
    ("clip_h_model", lambda: CLIPModel(CLIPConfig(**CLIP_H)), "F32", 910,
     986109441),
    ("vae_4ch", lambda: AutoencoderKL(latent_channels=4, **VAE), "F32", 248,
     83653863),
    ("vae_16ch", lambda: AutoencoderKL(
        latent_channels=16, use_quant_conv=False, use_post_quant_conv=False,
        **VAE), "BF16", 244, 83819683),
    ("flux_dev", lambda: FluxTransformer2DModel(guidance_embeds=True, **FLUX),
     "BF16", 1160, 11901408320),
    ("t5_xxl_encoder", lambda: T5EncoderModel(T5Config(**T5)), "BF16", 219,
     4762310656),
)


def open_clip_h():
    """The same network in OpenCLIP's layout, from its published description
    (the package is not needed): names and shapes."""
    def tower(before, width, layers):
        for i in range(layers):
            p = f"{before}transformer.resblocks.{i}."
            yield p + "attn.in_proj_weight", (3 * width, width)
            yield p + "attn.in_proj_bias", (3 * width,)
            yield p + "attn.out_proj.weight", (width, width)
            yield p + "attn.out_proj.bias", (width,)
            yield p + "mlp.c_fc.weight", (4 * width, width)
            yield p + "mlp.c_fc.bias", (4 * width,)
            yield p + "mlp.c_proj.weight", (width, 4 * width)
            yield p + "mlp.c_proj.bias", (width,)
            for norm in "ln_1", "ln_2":
                yield p + norm + ".weight", (width,)
                yield p + norm + ".bias", (width,)

    yield "positional_embedding", (77, 1024)
    yield "text_projection", (1024, 1024)
    yield "logit_scale", ()
    yield "token_embedding.weight", (49408, 1024)
    yield "visual.class_embedding", (1280,)
    yield "visual.positional_embedding", (257, 1280)
    yield "visual.conv1.weight", (1280, 3, 14, 14)
    yield "visual.proj", (1280, 1024)
    for norm, width in (("ln_final", 1024), ("visual.ln_pre", 1280),
                        ("visual.ln_post", 1280)):
        yield norm + ".weight", (width,)
        yield norm + ".bias", (width,)
    yield from tower("", 1024, 24)
    yield from tower("visual.", 1280, 32)


def image_reward():
    """ImageReward.pt, from the published modules' description: names and
    shapes of what is float32."""
    def linear(name, rows, width):
        yield name + ".weight", (rows, width)
        yield name + ".bias", (rows,)

    def norm(name, width):
        yield name + ".weight", (width,)
        yield name + ".bias", (width,)

    v, t = "blip.visual_encoder.", "blip.text_encoder."
    yield v + "cls_token", (1, 1, 1024)
    yield v + "pos_embed", (1, 197, 1024)
    yield v + "patch_embed.proj.weight", (1024, 3, 16, 16)
    yield v + "patch_embed.proj.bias", (1024,)
    for i in range(24):
        p = f"{v}blocks.{i}."
        yield from norm(p + "norm1", 1024)
        yield from linear(p + "attn.qkv", 3072, 1024)
        yield from linear(p + "attn.proj", 1024, 1024)
        yield from norm(p + "norm2", 1024)
        yield from linear(p + "mlp.fc1", 4096, 1024)
        yield from linear(p + "mlp.fc2", 1024, 4096)
    yield from norm(v + "norm", 1024)
    yield t + "embeddings.word_embeddings.weight", (30524, 768)
    yield t + "embeddings.position_embeddings.weight", (512, 768)
    yield from norm(t + "embeddings.LayerNorm", 768)
    for i in range(12):
        p = f"{t}encoder.layer.{i}."
        for attention, width in ("attention", 768), ("crossattention", 1024):
            a = p + attention
            yield from linear(a + ".self.query", 768, 768)
            yield from linear(a + ".self.key", 768, width)
            yield from linear(a + ".self.value", 768, width)
            yield from linear(a + ".output.dense", 768, 768)
            yield from norm(a + ".output.LayerNorm", 768)
        yield from linear(p + "intermediate.dense", 3072, 768)
        yield from linear(p + "output.dense", 768, 3072)
        yield from norm(p + "output.LayerNorm", 768)
    yield from linear("blip.vision_proj", 256, 1024)
    yield from linear("blip.text_proj", 256, 768)
    sizes = (768, 1024, 128, 64, 16, 1)
    for k, i in enumerate((0, 2, 4, 6, 7)):
        yield from linear(f"mlp.layers.{i}", sizes[k + 1], sizes[k])


def write(file, rows, dtype):
    with open(f"{OUT}/{file}.tsv", "w", encoding="utf-8") as f:
        for name, shape in sorted(rows):
            of = "I64" if name.endswith("position_ids") else dtype
            f.write(f"{name}\t{','.join(map(str, shape))}\t{of}\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    for file, make, dtype, num, count in NETWORKS:
        with torch.device("meta"):
            state = make().state_dict()
        state.pop("encoder.embed_tokens.weight", None)  # alias of shared
        if file == "clip_l_text":
            state = {k if k.startswith("text_model.") else f"text_model.{k}": v
                     for k, v in state.items() if "position_ids" not in k}
        assert len(state) == num, (file, len(state))
        assert sum(t.numel() for t in state.values()) == count, file
        write(file, [(k, tuple(t.shape)) for k, t in state.items()], dtype)
    rows = list(open_clip_h())
    assert sum(math.prod(shape) for _, shape in rows) == 986109441
    write("clip_h_open", rows, "F16")
    rows = list(image_reward())
    assert sum(math.prod(shape) for _, shape in rows) == 446665953
    rows += [("blip.text_encoder.embeddings.position_ids", (1, 512))]
    write("image_reward", rows, "F32")


main()
