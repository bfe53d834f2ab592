"""diffusers' networks over the flat arrays of this program's files, for
torch_replay.py: FluxTransformer2DModel and UNet2DConditionModel, with or without
adapters, in float32 or double. Of a run in bfloat16 what they are given, weights and
inputs, is rounded to it; the double network then is exact, and in place of the float32
one stands PyTorch's own in bfloat16.
"""
import json
import math
import os

import diffusers
import h5py
import numpy as np
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import replay_formulas as formulas


class ExactTimes(nn.Module):
    """diffusers' Timesteps, which are float32 whatever the network is, in double:
    times up to 1000 leave float32 with 1e-5 of an angle. given: what they are, in
    the order in which they are asked for, where the network in bfloat16 would have
    rounded them."""

    def __init__(self, like):
        super().__init__()
        self.like, self.given = like, []

    def forward(self, t):
        t = self.given.pop(0) if self.given else t
        half = self.like.num_channels // 2
        at = torch.arange(half, dtype=torch.float64)
        w = torch.exp(-math.log(10000.0) * at
                      / (half - self.like.downscale_freq_shift))
        x = t.double()[:, None] * w
        parts = [torch.cos(x), torch.sin(x)]
        if not self.like.flip_sin_to_cos:
            parts.reverse()
        return torch.cat(parts, dim=-1)


class Adapted(nn.Linear):
    """A linear layer and its adapter, as PEFT computes it."""

    def __init__(self, like, rank, scale):
        super().__init__(like.in_features, like.out_features,
                         like.bias is not None)
        self.lora_A = nn.Linear(like.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, like.out_features, bias=False)
        self.scale = scale

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) \
            + self.scale * self.lora_B(self.lora_A(x))


class Rounded(torch.autograd.Function):
    """To bfloat16, by the nearest, ties to even; as a variable the number itself."""

    @staticmethod
    def forward(ctx, x):
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def flux_config(c):
    f = c["flux"]
    return dict(patch_size=1, in_channels=f["in_channels"],
                num_layers=f["num_layers"],
                num_single_layers=f["num_single_layers"],
                attention_head_dim=f["head_dim"],
                num_attention_heads=f["num_heads"],
                joint_attention_dim=f["joint_attention_dim"],
                pooled_projection_dim=f["pooled_dim"],
                guidance_embeds=f["guidance_embeds"],
                axes_dims_rope=tuple(f["axes_dims"]))


def unet_config(c):
    u = c["unet"]

    def words(text):
        return tuple(x.strip() for x in text.split(","))
    return dict(in_channels=u["in_channels"], out_channels=u["in_channels"],
                block_out_channels=tuple(u["block_out_channels"]),
                down_block_types=words(u["down_block_types"]),
                up_block_types=words(u["up_block_types"]),
                layers_per_block=u["layers_per_block"],
                attention_head_dim=u["attention_head_dim"],
                cross_attention_dim=u["cross_attention_dim"],
                norm_num_groups=u["norm_num_groups"])


def build(c, folder):
    """The network that a configuration has, weights yet to come."""
    flux = c["policy"]["kind"] == "flux"
    if folder:
        with open(os.path.join(folder, "transformer" if flux else "unet",
                               "config.json")) as f:
            sizes = {k: v for k, v in json.load(f).items() if k[0] != "_"}
    else:
        sizes = flux_config(c) if flux else unet_config(c)
    net = (FluxTransformer2DModel if flux else UNet2DConditionModel)(**sizes)
    if flux:
        net.pos_embed.theta = c["flux"]["rope_theta"]
    return net.eval().requires_grad_(False)


def read_base(c, base, prefix):
    """Frozen weights under adapters: NAME -> array, without the network's prefix.
    base: a file of this program, or a pipeline's folder."""
    if os.path.isdir(base):
        from safetensors.torch import load_file
        sub = os.path.join(base, prefix[:-1])
        return {k: v.float().numpy() for name in sorted(os.listdir(sub))
                if name.endswith(".safetensors")
                for k, v in load_file(os.path.join(sub, name)).items()}
    with h5py.File(base) as f:
        if "weights" in f:
            found = {}
            f["weights"].visititems(
                lambda n, o: found.update({n: o[()]})
                if isinstance(o, h5py.Dataset) else None)
        else:
            found = slices(index_of(f), f["arrays/weights"][()])
    return {k[len(prefix):]: np.asarray(v, np.float32)
            for k, v in found.items() if k.startswith(prefix)}


def index_of(f):
    """[(name, first element, shape)] of a checkpoint."""
    p = f["parameters"]
    return [(n.decode(), int(at), tuple(int(x) for x in s[:d]))
            for n, at, d, s in zip(p["name"], p["offset"], p["num_dims"],
                                   p["shape"])]


def slices(index, flat):
    return {n: flat[at:at + math.prod(s)].reshape(s) for n, at, s in index}


class Network:
    """predict(parameters, z, time, condition) -> u, all [B, D]. parameters: a list
    of tensors in the order of the index, as the flat arrays have them. All these are
    of dtype; the network computes in inner."""

    def __init__(self, c, index, size, base, H, W, dtype):
        self.c, self.dtype = c, dtype
        self.flux = c["policy"]["kind"] == "flux"
        self.prefix = "transformer." if self.flux else "unet."
        self.rounds = c["run"]["dtype"] == "bfloat16"
        self.inner = torch.bfloat16 if self.rounds and dtype == torch.float32 \
            else dtype
        self.net = build(c, c["policy"]["path"])
        self.index = [x for x in index if x[1] < size]
        self.H, self.W, self.base = H, W, None
        if c["lora"]["rank"] > 0:
            self.adapt()
            self.base = {k: self.stored(torch.tensor(v, dtype=dtype)) for k, v
                         in read_base(c, base, self.prefix).items()}
        self.net.to(self.inner)
        if self.inner != torch.float32:
            at = self.net.time_text_embed if self.flux else self.net
            at.time_proj = ExactTimes(at.time_proj)

    def adapt(self):
        """Puts layers with adapters in the place of those that have one."""
        lora = self.c["lora"]
        for name, _, shape in self.index:
            if not name.endswith(".lora_A.weight"):
                continue
            layer = name[len(self.prefix):-len(".lora_A.weight")]
            folder, _, last = layer.rpartition(".")
            setattr(self.net.get_submodule(folder), last, Adapted(
                self.net.get_submodule(layer), shape[0],
                lora["alpha"] / lora["rank"]))

    def parameters(self, flat):
        return [torch.tensor(x, dtype=self.dtype)
                for x in slices(self.index, flat).values()]

    def stored(self, x):
        """Weights and inputs as the network has them."""
        if not self.rounds:
            return x
        return x.to(self.inner) if self.inner == torch.bfloat16 \
            else Rounded.apply(x)

    def weights(self, parameters):
        """The network's own, by name; parameters None: the base alone."""
        out = dict(self.base or {})
        for i, (name, _, shape) in enumerate(self.index):
            value = torch.zeros(shape, dtype=self.dtype) if parameters is None \
                else parameters[i]
            out[name[len(self.prefix):]] = self.stored(value)
        return out

    def predict(self, parameters, z, level, time, condition):
        w = self.weights(parameters)
        out = (self.flux_output if self.flux else self.unet_output)(
            w, self.stored(z), time, self.stored(condition)).to(z.dtype)
        if self.c["policy"]["prediction"] == "data":
            return (z - out) / torch.clamp(level, min=0.05)[:, None]
        return out

    def sides(self, cells):
        """Rows and columns of a grid of so many cells."""
        side = math.sqrt(self.H * self.W / cells)
        return round(self.H / side), round(self.W / side)

    def unet_output(self, w, z, time, condition):
        channels = self.net.config.in_channels
        h, v = self.sides(z.shape[1] // channels)
        maps = z.reshape(len(z), h, v, channels).permute(0, 3, 1, 2)
        states = condition.reshape(len(z), -1,
                                   self.net.config.cross_attention_dim)
        out = functional_call(self.net, w, (maps, time, states)).sample
        return out.permute(0, 2, 3, 1).reshape(z.shape)

    def thousands(self, x):
        """x 1000 as the network sees it, divided by the 1000 that it takes."""
        if not self.c["policy"]["bf16_compat"]:
            return x
        x = formulas.to_bfloat16(x.numpy())
        return torch.tensor(formulas.to_bfloat16(x * 1000) / 1000)

    def flux_output(self, w, z, time, condition):
        cfg = self.net.config
        tokens = z.reshape(len(z), -1, cfg.in_channels)
        h, v = self.sides(tokens.shape[1])
        places = torch.zeros(h, v, 3, dtype=self.inner)
        places[..., 1] = torch.arange(h)[:, None]
        places[..., 2] = torch.arange(v)[None, :]
        pooled = cfg.pooled_projection_dim
        states = condition[:, :-pooled].reshape(len(z), -1,
                                                cfg.joint_attention_dim)
        time, guidance = self.thousands(time.double()), None
        if cfg.guidance_embeds:
            guidance = self.thousands(torch.full(
                [len(z)], self.c["policy"]["guidance"], dtype=torch.float64))
        if self.inner == torch.bfloat16:  # which would round them once more
            self.net.time_text_embed.time_proj.given = [
                1000 * x for x in (time, guidance) if x is not None]
        out = functional_call(self.net, w, (), dict(
            hidden_states=tokens, encoder_hidden_states=states,
            timestep=time.to(self.inner), pooled_projections=condition[:, -pooled:],
            guidance=None if guidance is None else guidance.to(self.inner),
            img_ids=places.reshape(-1, 3),
            txt_ids=torch.zeros(states.shape[1], 3, dtype=self.inner))).sample
        return out.reshape(z.shape)


def quiet():
    """No progress bars; one thread, since these networks are small."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    try:
        import transformers
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    except ImportError:
        pass
    torch.set_num_threads(1)
