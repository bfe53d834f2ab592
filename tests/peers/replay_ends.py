"""Both ends of an iteration for torch_replay.py: prompts to conditions by the tokenizers
and text encoders of transformers, latents to pictures by diffusers' AutoencoderKL, and
the rewards that are formulas. Of a pipeline's folder; small networks without one
have words and pixels of their own, of which the pixels are here.
"""
import json
import os

import numpy as np
import torch

import replay_formulas as formulas
from replay_table import rms


def prompts_of(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        lines = [x.rstrip("\r\n") for x in f]
    lines = [x for x in lines if x.strip()]
    if path.endswith(".jsonl"):
        return [json.loads(x)["prompt"] for x in lines]
    return lines


def prompt_order(run, num):
    """Places of this iteration's prompts in the file."""
    out = []
    for i in range(run.P):
        k = (run.k - 1) * run.P + i
        place = k % num
        if run.c["prompts"]["shuffle"]:
            order = formulas.permutation(num, run.c["run"]["seed"],
                                         formulas.PROMPT_ORDER, k // num, 0, 0)
            place = order[place]
        out.append(place)
    return out


def check_prompts(run, table):
    path = run.c["prompts"]["file"]
    if not path or not os.path.exists(path):
        return
    prompts = prompts_of(path)
    want = prompt_order(run, len(prompts))
    table.add("prompts drawn", run.file["prompt_index"], want, 0)
    same = [t.rstrip(b"\0").decode() == prompts[i]
            for t, i in zip(run.file["prompt"], want)]
    table.add("their texts", same, [True] * len(want), 0)


class Encoders:
    """Text encoders of a folder, in double, or as near to it as the run's dtype lets
    PyTorch be; of a run in bfloat16 with weights that are rounded to it in both."""

    def __init__(self, run, dtype):
        from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel
        folder = run.c["policy"]["path"]
        self.flux, self.dtype = run.c["policy"]["kind"] == "flux", dtype

        def load(kind, sub):
            net = kind.from_pretrained(os.path.join(folder, sub))
            return (net.to(torch.bfloat16) if run.rounds else net).to(dtype).eval()
        self.words = AutoTokenizer.from_pretrained(os.path.join(folder,
                                                                "tokenizer"))
        self.clip = load(CLIPTextModel, "text_encoder")
        if self.flux:
            self.pieces = AutoTokenizer.from_pretrained(
                os.path.join(folder, "tokenizer_2"))
            self.t5 = load(T5EncoderModel, "text_encoder_2")
            self.length = run.c["policy"]["text_length"] or 512

    def encode(self, texts):
        def ids(tokenizer, length):
            return tokenizer(texts, padding="max_length", max_length=length,
                             truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            out = self.clip(ids(self.words,
                                self.clip.config.max_position_embeddings))
            if not self.flux:
                return out.last_hidden_state.flatten(1).double().numpy()
            states = self.t5(ids(self.pieces, self.length)).last_hidden_state
            return torch.cat([states.flatten(1), out.pooler_output],
                             dim=1).double().numpy()


def check_conditions(run, table, yardstick, least):
    """Conditions that the networks were given; not those of a cache in another
    precision than the run's."""
    if not os.path.isdir(os.path.join(run.c["policy"]["path"], "text_encoder")):
        return
    texts = [t.rstrip(b"\0").decode() for t in run.file["prompt"]]
    got = [run.condition]
    if run.uncond is not None:
        texts.append("")
        got.append(run.uncond[None])
    want, near = (Encoders(run, d).encode(texts)
                  for d in (torch.float64, torch.bfloat16 if run.rounds
                            else torch.float32))
    table.add("conditions", np.concatenate(got), want,
              yardstick * np.abs(near - want).max() + least * np.abs(want).max())
    if run.rounds:
        table.add("conditions, r.m.s.", rms(np.concatenate(got) - want), 0.0,
                  run.rms_yardstick * rms(near - want))


def to_map(run):
    """decoded as [N, C, h, w], for FLUX as a VAE's or as pixels'."""
    if run.c["policy"]["kind"] == "sd":
        channels = run.c["unet"]["in_channels"] \
            if not run.c["policy"]["path"] else 4
        side = round((run.H * run.W * channels / run.D) ** 0.5)
        z = run.file["decoded"].reshape(run.N, run.H // side, run.W // side,
                                        channels)
        return z.transpose(0, 3, 1, 2)
    channels = run.c["flux"]["in_channels"] // 4
    tokens = run.D // (4 * channels)
    side = round((run.H * run.W / tokens) ** 0.5)
    h, w = run.H // side, run.W // side
    z = run.file["decoded"].reshape(run.N, h, w, channels, 2, 2)
    return z.transpose(0, 3, 1, 4, 2, 5).reshape(run.N, channels, 2 * h, 2 * w)


def pictures(run, dtype):
    """[N, H, W, 3] of 0 to 1; None: not known here."""
    z = to_map(run).astype(np.float64)
    p = run.c["policy"]
    if os.path.isdir(os.path.join(p["path"], "vae")) and (
            p["kind"] == "sd" or p["codec"] == "vae"):
        from diffusers import AutoencoderKL
        vae = AutoencoderKL.from_pretrained(os.path.join(p["path"], "vae"))
        vae, cfg = vae.to(dtype).eval(), vae.config
        z = torch.tensor(z / cfg.scaling_factor + (cfg.shift_factor or 0))
        with torch.no_grad():
            rgb = torch.cat([vae.decode(x[None].to(dtype)).sample for x in z])
        rgb = rgb.permute(0, 2, 3, 1).double().numpy()
        return np.clip(rgb / 2 + 0.5, 0, 1)
    if p["path"] or p["kind"] == "sd":
        return None
    n, channels, h, w = z.shape
    cell = round((channels / 3) ** 0.5)
    z = z.reshape(n, 3, cell, cell, h, w).transpose(0, 4, 2, 5, 3, 1)
    return np.clip(z.reshape(n, run.H, run.W, 3) / (2 * p["latent_scale"]) + 0.5,
                   0, 1)


def luma(rgb):
    return rgb @ np.array([0.299, 0.587, 0.114])


def score(reward, rgb):
    """[N], or None where it is no formula."""
    if reward["name"] == "brightness":
        s = luma(rgb).mean(axis=(1, 2))
        if "target" in reward:
            s = -np.abs(s - reward["target"])
    elif reward["name"] == "colourfulness":
        r, g, b = np.moveaxis(255 * rgb, -1, 0)
        both = np.stack([r - g, (r + g) / 2 - b])
        s = np.sqrt(both.var(axis=(2, 3)).sum(axis=0)) \
            + 0.3 * np.sqrt((both.mean(axis=(2, 3)) ** 2).sum(axis=0))
    else:
        return None
    if "threshold" in reward:
        return (s > reward["threshold"]).astype(float)
    return s


def check_rewards(run, table, yardstick, least):
    run.H, run.W = run.height, run.width
    rgb, near = (pictures(run, d) for d in (torch.float64, torch.float32))
    if rgb is None:
        return
    off = yardstick * np.sqrt(((rgb - near) ** 2).mean()) + 4 * least
    for k, reward in enumerate(run.c["rewards"]):
        want = score(reward, rgb)
        if want is None or (run.file["missing"][:, k] != 0).any():
            continue
        size = 255 * 4 if reward["name"] == "colourfulness" else 1
        table.add(f"reward {reward['name']}", run.file["reward"][:, k], want,
                  0 if "threshold" in reward else
                  off * size + least * np.abs(want).max())
    if run.H % 32 or run.W % 32 or (run.file["missing"] != 0).any():
        return
    x = rgb.reshape(run.P, run.G, 32, run.H // 32, 32, run.W // 32, 3)
    x = np.floor(x.mean(axis=(3, 5)) * 4095 + 0.5) / 4095
    variance = x.var(axis=1, ddof=1).mean(axis=(1, 2, 3))
    table.add("diversity", run.metrics["diversity"],
              np.sqrt(variance).mean(), 1e-5)
