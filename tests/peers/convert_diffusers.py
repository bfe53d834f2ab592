#!/usr/bin/env python3
"""What `dancegrpo convert` writes, loaded by diffusers: the networks' outputs
against the program's own.

Run by hand, from the top of the tree, after `make bin/dancegrpo
build/tests/tools/net_output`, with torch, diffusers, transformers, peft and
safetensors:

    python3 tests/peers/convert_diffusers.py [--work FOLDER]

Tiny runs are trained; net_output writes inputs and outputs of their networks;
convert writes folders; diffusers loads them and computes the same outputs.
One line per case; exit code 1 when a difference exceeds 1e-5, or 1e-5 of the
largest output where that is above 1.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import diffusers
import torch
import transformers
from diffusers import (DiffusionPipeline, FluxPipeline,
                       FluxTransformer2DModel, StableDiffusionPipeline,
                       UNet2DConditionModel)
from safetensors.torch import load_file

BIN, TOOL = "bin/dancegrpo", "build/tests/tools/net_output"
SD_FOLDER, GUIDANCE, LIMIT = "tests/golden/sd_tiny", 3.5, 1e-5
COMMON = ["run.threads=1", "trajectory.every=0", "optim.ema_decay=0.5",
          "optim.lr=1e-2"]
bad = 0


def call(*command):
    """A command that has to succeed, quietly."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def train(work, run, config, *sets, command="train"):
    """A tiny run; its last checkpoint."""
    args = [BIN, command, config]
    for s in (f"run.dir={work}/{run}", *COMMON, *sets):
        args += ["--set", s]
    call(*args)
    folder = f"{work}/{run}/checkpoints"
    return f"{folder}/{sorted(os.listdir(folder))[-1]}"


def output(work, checkpoint, weights):
    """Inputs and outputs of the program's network."""
    path = f"{work}/output.safetensors"
    call(TOOL, checkpoint, path, weights)
    return load_file(path)


def convert(work, name, checkpoint, *flags):
    call(BIN, "convert", checkpoint, "--to", f"{work}/{name}", *flags)
    return f"{work}/{name}"


def unet_output(unet, x):
    """Rows of z are pixels of a map, channels last."""
    n, tokens, channels = x["z"].shape
    side = int(tokens ** 0.5)
    z = x["z"].reshape(n, side, side, channels).permute(0, 3, 1, 2)
    states = x["condition"].reshape(n, -1, unet.config.cross_attention_dim)
    with torch.no_grad():
        u = unet(z, x["time"], encoder_hidden_states=states).sample
    return u.permute(0, 2, 3, 1).reshape(n, tokens, channels)


def flux_output(net, x):
    """The condition is T5's states, then CLIP's pooled state."""
    n, tokens, _ = x["z"].shape
    side, width = int(tokens ** 0.5), net.config.pooled_projection_dim
    states = x["condition"][:, :-width]
    states = states.reshape(n, -1, net.config.joint_attention_dim)
    places = torch.zeros(side, side, 3)
    places[..., 1] = torch.arange(side)[:, None]
    places[..., 2] = torch.arange(side)[None, :]
    guidance = None
    if net.config.guidance_embeds:
        guidance = torch.full([n], GUIDANCE)
    with torch.no_grad():
        return net(hidden_states=x["z"], timestep=x["time"],
                   encoder_hidden_states=states,
                   pooled_projections=x["condition"][:, -width:],
                   img_ids=places.reshape(-1, 3),
                   txt_ids=torch.zeros(states.shape[1], 3),
                   guidance=guidance).sample


def compare(name, got, x, base=None):
    """One line. base: the untuned network's output, which must be another."""
    global bad
    difference = (got - x["u"]).abs().max().item()
    largest = x["u"].abs().max().item()
    line = f"{name:34} difference {difference:.2e}"
    line += f", largest output {largest:.3f}"
    if base is not None:
        moved = (base - x["u"]).abs().max().item()
        line += f", training moved it by {moved:.2e}"
        bad += not moved > 100 * LIMIT
    print(line)
    bad += not difference <= LIMIT * max(1.0, largest)


def flux_pipeline(net):
    return FluxPipeline(scheduler=None, vae=None, text_encoder=None,
                        tokenizer=None, text_encoder_2=None, tokenizer_2=None,
                        transformer=net)


def check_sd(work):
    config = "configs/tiny_sd.cfg"
    plain = StableDiffusionPipeline.from_pretrained(SD_FOLDER)
    full = train(work, "sd", config)
    for weights in "raw", "ema":
        x = output(work, full, weights)
        folder = convert(work, f"sd_{weights}", full, "--weights", weights)
        unet = UNet2DConditionModel.from_pretrained(folder)
        compare(f"sd, {weights}", unet_output(unet, x), x,
                unet_output(plain.unet, x))
    folder = convert(work, "sd_shards", full, "--shard-size", "300KB")
    unet = UNet2DConditionModel.from_pretrained(folder)
    x = output(work, full, "raw")
    num = sum(f.endswith(".safetensors") for f in os.listdir(folder))
    compare(f"sd, raw, {num} shards", unet_output(unet, x), x)
    for how in "copy", "link":
        folder = convert(work, f"sd_{how}", full, "--pipeline", how)
        pipe = DiffusionPipeline.from_pretrained(folder)
        compare(f"sd, whole pipeline, {how}", unet_output(pipe.unet, x), x)

    adapters = train(work, "sd_lora", config, "lora.rank=4", "lora.alpha=6",
                     'lora.targets=["to_q", "to_k", "to_v", "to_out.0", '
                     '"ff.net.*"]')
    for weights in "raw", "ema":
        x = output(work, adapters, weights)
        base = unet_output(plain.unet, x)
        folder = convert(work, f"sd_lora_{weights}", adapters, "--weights",
                         weights)
        pipe = StableDiffusionPipeline.from_pretrained(SD_FOLDER)
        pipe.load_lora_weights(folder)
        compare(f"sd, adapters, {weights}", unet_output(pipe.unet, x), x, base)
        folder = convert(work, f"sd_merged_{weights}", adapters, "--merge",
                         "--weights", weights)
        unet = UNet2DConditionModel.from_pretrained(folder)
        compare(f"sd, adapters merged, {weights}", unet_output(unet, x), x,
                base)


def check_flux(work):
    config = "configs/tiny.cfg"
    sets = ["flux.guidance_embeds=true", f"policy.guidance={GUIDANCE}"]
    train(work, "base", config, *sets, "pretrain.steps=20",
          "pretrain.batch=8", "pretrain.item_size=4", "pretrain.eval_every=0",
          command="pretrain")
    start = f"{work}/base/weights.h5"
    folder = convert(work, "flux_base", start)
    plain = FluxTransformer2DModel.from_pretrained(folder)
    full = train(work, "flux", config, f"policy.weights={start}")
    for weights in "raw", "ema":
        x = output(work, full, weights)
        folder = convert(work, f"flux_{weights}", full, "--weights", weights)
        net = FluxTransformer2DModel.from_pretrained(folder)
        compare(f"flux, {weights}", flux_output(net, x), x,
                flux_output(plain, x))

    adapters = train(work, "flux_lora", config, f"policy.weights={start}",
                     "lora.rank=4", "lora.alpha=6",
                     'lora.targets=["to_q", "to_k", "to_v", "to_out.0", '
                     '"transformer_blocks.*.ff.net.*", "proj_mlp", '
                     '"proj_out"]')
    for weights in "raw", "ema":
        x = output(work, adapters, weights)
        base = flux_output(plain, x)
        folder = convert(work, f"flux_lora_{weights}", adapters, "--weights",
                         weights)
        net = FluxTransformer2DModel.from_pretrained(f"{work}/flux_base")
        flux_pipeline(net).load_lora_weights(folder)
        compare(f"flux, adapters, {weights}", flux_output(net, x), x, base)
        folder = convert(work, f"flux_merged_{weights}", adapters, "--merge",
                         "--weights", weights)
        net = FluxTransformer2DModel.from_pretrained(folder)
        compare(f"flux, adapters merged, {weights}", flux_output(net, x), x,
                base)
    shipped = "configs/weights/shapes_flux.h5"
    folder = convert(work, "flux_shipped", shipped)
    net = FluxTransformer2DModel.from_pretrained(folder)
    net.pos_embed.theta = 100.0  # configs/shapes_pretrain.cfg
    x = output(work, shipped, "raw")
    # it predicts clean data, of which the program makes the velocity
    velocity = (x["z"] - flux_output(net, x)) / \
        x["time"].clamp(min=0.05)[:, None, None]
    compare("flux, the demo's base", velocity, x)
    with open(f"{folder}/config.json") as f:
        mine = json.load(f)
    theirs = dict(net.config)
    bad_keys = [k for k in mine if k not in theirs and k[0] != "_"]
    if bad_keys:
        sys.exit(f"config.json: keys that diffusers does not know: {bad_keys}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", help="folder for runs and conversions")
    args = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or folder
        check_sd(work)
        check_flux(work)
    print("all agree" if not bad else f"{bad} do not agree")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
