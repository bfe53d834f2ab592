#!/usr/bin/env python3
"""Small files of weights, written by the libraries whose formats they have.

Run by hand, from the repository's root, with torch, safetensors, diffusers and
transformers installed:

    python3 tests/golden/make_weights_fixtures.py

Writes tests/golden/weights/ and, in digests.tsv, what a reader must find: for
each file and tensor its type, shape, sum, and the start of the SHA-256 of its
values as little-endian float32, row-major.
"""
import collections
import hashlib
import inspect
import os
import shutil

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel
from transformers import T5Config, T5EncoderModel

OUT = "tests/golden/weights"
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
         torch.int64: "I64", torch.float64: "F64"}
FLUX = dict(patch_size=1, in_channels=8, num_layers=1, num_single_layers=2,
            attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=12, pooled_projection_dim=6,
            guidance_embeds=True, axes_dims_rope=(2, 2, 4))
VAE = dict(in_channels=3, out_channels=3, latent_channels=4,
           block_out_channels=(4, 4, 8, 8), layers_per_block=1,
           down_block_types=("DownEncoderBlock2D",) * 4,
           up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4)
rows = []


def note(file, tensors):
    """Rows of digests.tsv for a file's tensors."""
    for name, t in sorted(tensors.items()):
        v = t.detach().to(torch.float32).contiguous().numpy().astype("<f4")
        rows.append((file, name, NAMES[t.dtype],
                     ",".join(str(d) for d in t.shape) or "-",
                     repr(float(v.astype(np.float64).sum())),
                     hashlib.sha256(v.tobytes()).hexdigest()[:16]))


def drawn(model, seed):
    """All parameters normal, so that none is 0 or 1."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.5)
    return model


def snapshot():
    clip = drawn(CLIPTextModel(CLIPTextConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=12, projection_dim=16)), 1)
    clip.save_pretrained(f"{OUT}/snapshot/text_encoder")
    note("snapshot/text_encoder", clip.state_dict())
    t5 = drawn(T5EncoderModel(T5Config(
        vocab_size=30, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu")), 2).to(torch.bfloat16)
    t5.save_pretrained(f"{OUT}/snapshot/text_encoder_2",
                       max_shard_size="2KB")
    note("snapshot/text_encoder_2",
         {k: v for k, v in t5.state_dict().items()
          if k != "encoder.embed_tokens.weight"})
    flux = drawn(FluxTransformer2DModel(**FLUX), 3).to(torch.bfloat16)
    flux.save_pretrained(f"{OUT}/snapshot/transformer", max_shard_size="16KB")
    note("snapshot/transformer", flux.state_dict())


def torch_files():
    g = torch.Generator().manual_seed(4)
    base = torch.randn(6, 5, generator=g)
    tensors = collections.OrderedDict(
        f32=base, f16=(base * 3).half(), bf16=(base * 7).bfloat16(),
        f64=base.double() / 3, tied=base, transposed=base.t(),
        part=base[1:5, 2:4], every_second=base.view(-1)[1::2],
        expanded=torch.tensor([[1.5], [2.5]]).expand(2, 3),
        parameter=torch.nn.Parameter(base[2] * 2), scalar=torch.tensor(0.75),
        none=torch.zeros(0, 3), position_ids=torch.arange(7)[None])
    torch.save({"state_dict": tensors, "epoch": 3, "lr": 0.1,
                "betas": (0.9, 0.99), "name": "x", "nothing": None,
                "optimizer": {"state": {0: {"step": torch.tensor(2.0)}},
                              "param_groups": [{"params": [0, 1]}]}},
               f"{OUT}/torch.bin")
    note("torch.bin", {f"state_dict.{k}": v for k, v in tensors.items()} |
         {"optimizer.state.0.step": torch.tensor(2.0)})
    module = torch.nn.Sequential(torch.nn.Linear(3, 2),
                                 torch.nn.LayerNorm(2)).half()
    torch.save(module.state_dict(), f"{OUT}/module.pt")
    note("module.pt", module.state_dict())

    class Forbidden:
        def __reduce__(self):
            return os.getenv, ("HOME",)

    torch.save({"w": base, "x": Forbidden()}, f"{OUT}/forbidden.pt")
    torch.save({"w": base}, f"{OUT}/old.pt",
               _use_new_zipfile_serialization=False)


def safetensors_files():
    g = torch.Generator().manual_seed(5)
    tensors = {"b.weight": torch.randn(3, 5, generator=g),
               "a.weight": torch.randn(7, generator=g).half(),
               "c": torch.randn((), generator=g),
               "a.bias": torch.randn(2, 2, 1, generator=g).bfloat16(),
               "B \"x\" \\ /": torch.randn(2, generator=g),
               "empty": torch.zeros(0, 4)}
    save_file(tensors, f"{OUT}/mixed.safetensors", {"format": "pt"})
    note("mixed.safetensors", tensors)


def bfl_flux():
    """The original layout, and what diffusers' own conversion makes of it."""
    D, H, T, P, C = 16, 64, 12, 6, 8
    shapes = {"img_in.weight": (D, C), "img_in.bias": (D,),
              "txt_in.weight": (D, T), "txt_in.bias": (D,)}
    for n, width in (("time_in", 256), ("guidance_in", 256), ("vector_in", P)):
        shapes |= {f"{n}.in_layer.weight": (D, width),
                   f"{n}.in_layer.bias": (D,),
                   f"{n}.out_layer.weight": (D, D),
                   f"{n}.out_layer.bias": (D,)}
    for s in ("img", "txt"):
        b = "double_blocks.0."
        shapes |= {f"{b}{s}_mod.lin.weight": (6 * D, D),
                   f"{b}{s}_mod.lin.bias": (6 * D,),
                   f"{b}{s}_attn.qkv.weight": (3 * D, D),
                   f"{b}{s}_attn.qkv.bias": (3 * D,),
                   f"{b}{s}_attn.norm.query_norm.scale": (8,),
                   f"{b}{s}_attn.norm.key_norm.scale": (8,),
                   f"{b}{s}_attn.proj.weight": (D, D),
                   f"{b}{s}_attn.proj.bias": (D,),
                   f"{b}{s}_mlp.0.weight": (H, D), f"{b}{s}_mlp.0.bias": (H,),
                   f"{b}{s}_mlp.2.weight": (D, H), f"{b}{s}_mlp.2.bias": (D,)}
    for i in range(2):
        b = f"single_blocks.{i}."
        shapes |= {f"{b}modulation.lin.weight": (3 * D, D),
                   f"{b}modulation.lin.bias": (3 * D,),
                   f"{b}linear1.weight": (3 * D + H, D),
                   f"{b}linear1.bias": (3 * D + H,),
                   f"{b}linear2.weight": (D, D + H), f"{b}linear2.bias": (D,),
                   f"{b}norm.query_norm.scale": (8,),
                   f"{b}norm.key_norm.scale": (8,)}
    shapes |= {"final_layer.linear.weight": (C, D),
               "final_layer.linear.bias": (C,),
               "final_layer.adaLN_modulation.1.weight": (2 * D, D),
               "final_layer.adaLN_modulation.1.bias": (2 * D,)}
    g = torch.Generator().manual_seed(6)
    old = {k: torch.randn(s, generator=g).bfloat16()
           for k, s in shapes.items()}
    save_file(old, f"{OUT}/flux_bfl.safetensors")
    source = inspect.getsource(
        single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert "inner_dim = 3072" in source
    scope = vars(single_file_utils).copy()
    exec(source.replace("inner_dim = 3072", f"inner_dim = {D}"), scope)
    new = scope["convert_flux_transformer_checkpoint_to_diffusers"](dict(old))
    FluxTransformer2DModel(**FLUX).load_state_dict(new)
    note("flux_bfl.safetensors", new)


def bfl_name(name):
    """AutoencoderKL's name in the original layout, of four levels."""
    p = name.split(".")
    if p[1] == "mid_block" and p[2] == "resnets":
        p[1:4] = ["mid", f"block_{int(p[3]) + 1}"]
    elif p[1] == "mid_block":
        p[1:4] = ["mid", "attn_1"]
        if p[3] == "to_out":
            p[3:5] = ["proj_out"]
        p[3] = {"group_norm": "norm", "to_q": "q", "to_k": "k",
                "to_v": "v"}.get(p[3], p[3])
    elif p[1] in ("down_blocks", "up_blocks"):
        up = p[1] == "up_blocks"
        p[1] = "up" if up else "down"
        p[2] = str(3 - int(p[2])) if up else p[2]
        if p[3] == "resnets":
            p[3] = "block"
        else:
            p[3:5] = ["upsample" if up else "downsample"]
    p = [{"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"}
         .get(x, x) for x in p]
    return ".".join(p)


def bfl_vae():
    vae = drawn(AutoencoderKL(**VAE, use_quant_conv=False,
                              use_post_quant_conv=False), 7)
    new = {k: v.bfloat16() for k, v in vae.state_dict().items()}
    old = {}
    for k, v in new.items():
        square = ".attentions.0.to_" in k and k.endswith("weight")
        old[bfl_name(k)] = (v[:, :, None, None] if square else v).contiguous()
    back = single_file_utils.convert_ldm_vae_checkpoint(dict(old), vae.config)
    assert sorted(back) == sorted(new)
    assert all(torch.equal(back[k].squeeze(), new[k].squeeze()) for k in new)
    save_file(old, f"{OUT}/vae_bfl.safetensors")
    note("vae_bfl.safetensors", new)


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    snapshot()
    torch_files()
    safetensors_files()
    bfl_flux()
    bfl_vae()
    with open(f"{OUT}/digests.tsv", "w", encoding="utf-8") as f:
        for row in rows:
            f.write("\t".join(row) + "\n")


main()
