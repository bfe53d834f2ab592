"""FLUX's transformer and Stable Diffusion's U-Net in plain PyTorch, attention by
scaled_dot_product_attention, with diffusers' names of parameters: what a user of
PyTorch runs, on machines without diffusers. torch_gpu.py times them, and its
--check compares them with diffusers' own classes.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def sinusoid(t, width):
    """cos first, then sin; frequencies 10000^(-i / (width / 2))"""
    half = width // 2
    at = torch.arange(half, device=t.device, dtype=torch.float32)
    angle = t.float()[:, None] * torch.exp(-math.log(10000.0) * at / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TwoLinears(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Modulation(nn.Module):
    """parts vectors of a width from the embedding"""

    def __init__(self, dim, parts):
        super().__init__()
        self.linear = nn.Linear(dim, parts * dim)
        self.parts = parts

    def forward(self, embedding):
        y = self.linear(F.silu(embedding))
        return [p[:, None] for p in y.chunk(self.parts, dim=-1)]


def modulate(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Feed(nn.Module):
    """diffusers' FeedForward: net.0.proj, net.2"""

    def __init__(self, dim, hidden, gated):
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(dim, hidden * (2 if gated else 1))
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(hidden, dim)])
        self.gated = gated

    def forward(self, x):
        x = self.net[0].proj(x)
        if self.gated:
            x, gate = x.chunk(2, dim=-1)
            return self.net[2](x * F.gelu(gate))
        return self.net[2](F.gelu(x, approximate="tanh"))


# --- FLUX ------------------------------------------------------------------------

FLUX_DEV = dict(in_channels=64, num_layers=19, num_single_layers=38,
                attention_head_dim=128, num_attention_heads=24,
                joint_attention_dim=4096, pooled_projection_dim=768,
                guidance_embeds=True, axes_dims_rope=(16, 56, 56))


def rotations(ids, axes):
    """cos and sin [tokens, head]: pairs of neighbours turn together"""
    cos, sin = [], []
    for i, width in enumerate(axes):
        at = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device)
        angle = torch.outer(ids[:, i].double(), 1.0 / 10000 ** (at / width))
        cos.append(angle.cos().repeat_interleave(2, dim=1).float())
        sin.append(angle.sin().repeat_interleave(2, dim=1).float())
    return torch.cat(cos, dim=-1), torch.cat(sin, dim=-1)


def turn(x, rotation):
    cos, sin = rotation
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    crossed = torch.stack([-b, a], dim=-1).flatten(-2)
    return (x.float() * cos + crossed * sin).to(x.dtype)


class FluxAttention(nn.Module):
    def __init__(self, heads, head, joint):
        super().__init__()
        dim = heads * head
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.norm_q = nn.RMSNorm(head, eps=1e-6)
        self.norm_k = nn.RMSNorm(head, eps=1e-6)
        if joint:
            self.add_q_proj, self.add_k_proj, self.add_v_proj, self.to_add_out = (
                nn.Linear(dim, dim) for _ in range(4))
            self.norm_added_q = nn.RMSNorm(head, eps=1e-6)
            self.norm_added_k = nn.RMSNorm(head, eps=1e-6)
            self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, rotation, text=None):
        q = self.norm_q(self.split(self.to_q(x)))
        k = self.norm_k(self.split(self.to_k(x)))
        v = self.split(self.to_v(x))
        if text is not None:
            q = torch.cat([self.norm_added_q(self.split(self.add_q_proj(text))), q], 2)
            k = torch.cat([self.norm_added_k(self.split(self.add_k_proj(text))), k], 2)
            v = torch.cat([self.split(self.add_v_proj(text)), v], 2)
        y = F.scaled_dot_product_attention(turn(q, rotation), turn(k, rotation), v)
        y = y.transpose(1, 2).flatten(2)
        if text is None:
            return y
        n = text.shape[1]
        return self.to_out[0](y[:, n:]), self.to_add_out(y[:, :n])


class FluxDouble(nn.Module):
    def __init__(self, heads, head):
        super().__init__()
        dim = heads * head
        self.norm1 = Modulation(dim, 6)
        self.norm1_context = Modulation(dim, 6)
        self.attn = FluxAttention(heads, head, True)
        self.ff = Feed(dim, 4 * dim, False)
        self.ff_context = Feed(dim, 4 * dim, False)

    def forward(self, x, text, embedding, rotation):
        a = self.norm1(embedding)
        b = self.norm1_context(embedding)
        y, z = self.attn(modulate(x, a[0], a[1]), rotation,
                         modulate(text, b[0], b[1]))
        x = x + a[2] * y
        text = text + b[2] * z
        x = x + a[5] * self.ff(modulate(x, a[3], a[4]))
        text = text + b[5] * self.ff_context(modulate(text, b[3], b[4]))
        return x, text


class FluxSingle(nn.Module):
    def __init__(self, heads, head):
        super().__init__()
        dim = heads * head
        self.norm = Modulation(dim, 3)
        self.proj_mlp = nn.Linear(dim, 4 * dim)
        self.attn = FluxAttention(heads, head, False)
        self.proj_out = nn.Linear(5 * dim, dim)

    def forward(self, x, embedding, rotation):
        shift, scale, gate = self.norm(embedding)
        y = modulate(x, shift, scale)
        wide = F.gelu(self.proj_mlp(y), approximate="tanh")
        return x + gate * self.proj_out(torch.cat([self.attn(y, rotation), wide], -1))


class Flux(nn.Module):
    def __init__(self, c):
        super().__init__()
        heads, head = c["num_attention_heads"], c["attention_head_dim"]
        dim = heads * head
        self.axes = c["axes_dims_rope"]
        self.recompute = False
        self.x_embedder = nn.Linear(c["in_channels"], dim)
        self.context_embedder = nn.Linear(c["joint_attention_dim"], dim)
        embed = nn.Module()
        embed.timestep_embedder = TwoLinears(256, dim)
        if c["guidance_embeds"]:
            embed.guidance_embedder = TwoLinears(256, dim)
        embed.text_embedder = TwoLinears(c["pooled_projection_dim"], dim)
        self.time_text_embed = embed
        self.transformer_blocks = nn.ModuleList(
            FluxDouble(heads, head) for _ in range(c["num_layers"]))
        self.single_transformer_blocks = nn.ModuleList(
            FluxSingle(heads, head) for _ in range(c["num_single_layers"]))
        self.norm_out = Modulation(dim, 2)
        self.proj_out = nn.Linear(dim, c["in_channels"])

    def run(self, block, *x):
        if self.recompute and self.training:
            return checkpoint(block, *x, use_reentrant=False)
        return block(*x)

    def forward(self, hidden_states, encoder_hidden_states, pooled_projections,
                timestep, img_ids, txt_ids, guidance=None):
        x = self.x_embedder(hidden_states)
        text = self.context_embedder(encoder_hidden_states)
        embed = self.time_text_embed
        e = embed.timestep_embedder(sinusoid(timestep * 1000, 256).to(x.dtype))
        if guidance is not None:
            e = e + embed.guidance_embedder(sinusoid(guidance * 1000, 256).to(x.dtype))
        e = e + embed.text_embedder(pooled_projections)
        rotation = rotations(torch.cat([txt_ids, img_ids]), self.axes)
        for block in self.transformer_blocks:
            x, text = self.run(block, x, text, e, rotation)
        x = torch.cat([text, x], dim=1)
        for block in self.single_transformer_blocks:
            x = self.run(block, x, e, rotation)
        scale, shift = self.norm_out(e)
        return self.proj_out(modulate(x[:, text.shape[1]:], shift, scale))


def flux_inputs(c, size, text, batch, device, dtype):
    """size: of the picture, in pixels; a token is 16 x 16 of them"""
    side = size // 16
    ids = torch.zeros(side, side, 3, device=device)
    ids[..., 1] = torch.arange(side, device=device)[:, None]
    ids[..., 2] = torch.arange(side, device=device)[None]
    like = dict(device=device, dtype=dtype)
    x = dict(
        hidden_states=torch.randn(batch, side * side, c["in_channels"], **like),
        encoder_hidden_states=torch.randn(batch, text, c["joint_attention_dim"], **like),
        pooled_projections=torch.randn(batch, c["pooled_projection_dim"], **like),
        timestep=torch.full((batch,), 0.5, **like),
        img_ids=ids.reshape(-1, 3), txt_ids=torch.zeros(text, 3, device=device))
    if c["guidance_embeds"]:
        x["guidance"] = torch.full((batch,), 3.5, **like)
    return x


# --- Stable Diffusion's U-Net ----------------------------------------------------

SD14 = dict(in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2, heads=8, cross_attention_dim=768, groups=32)


class Resnet(nn.Module):
    def __init__(self, width, out, embedding, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width, eps=1e-5)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, out)
        self.norm2 = nn.GroupNorm(groups, out, eps=1e-5)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width, out, 1) if width != out else None

    def forward(self, x, embedding):
        y = self.conv1(F.silu(self.norm1(x)))
        y = y + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class CrossAttention(nn.Module):
    def __init__(self, dim, other, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(other, dim, bias=False)
        self.to_v = nn.Linear(other, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])

    def forward(self, x, other):
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for p in (self.to_q(x), self.to_k(other), self.to_v(other)))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class TextBlock(nn.Module):
    def __init__(self, dim, text, heads):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.attn1 = CrossAttention(dim, dim, heads)
        self.attn2 = CrossAttention(dim, text, heads)
        self.ff = Feed(dim, 4 * dim, True)

    def forward(self, x, text):
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff(self.norm3(x))


class Spatial(nn.Module):
    def __init__(self, dim, text, heads, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([TextBlock(dim, text, heads)])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x, text):
        _, _, h, w = x.shape
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.transformer_blocks[0](y, text)
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, (h, w)))


class Level(nn.Module):
    """resnets, attentions, one convolution that changes the size"""

    def __init__(self, widths, out, c, attends, change):
        super().__init__()
        embedding = 4 * c["block_out_channels"][0]
        self.resnets = nn.ModuleList(
            Resnet(w, out, embedding, c["groups"]) for w in widths)
        self.attentions = nn.ModuleList(
            Spatial(out, c["cross_attention_dim"], c["heads"], c["groups"])
            for _ in range(attends))
        if change is not None:
            one = nn.Module()
            one.conv = nn.Conv2d(out, out, 3, padding=1,
                                 stride=2 if change == "downsamplers" else 1)
            setattr(self, change, nn.ModuleList([one]))

    def layer(self, i, x, embedding, text):
        x = self.resnets[i](x, embedding)
        return self.attentions[i](x, text) if i < len(self.attentions) else x


class Unet(nn.Module):
    def __init__(self, c):
        super().__init__()
        outs, layers = c["block_out_channels"], c["layers_per_block"]
        last = len(outs) - 1
        self.width = outs[0]
        self.conv_in = nn.Conv2d(c["in_channels"], outs[0], 3, padding=1)
        self.time_embedding = TwoLinears(outs[0], 4 * outs[0])
        self.down_blocks = nn.ModuleList()
        kept = [outs[0]]
        for i, out in enumerate(outs):
            before = outs[max(i - 1, 0)]
            self.down_blocks.append(Level(
                [before] + [out] * (layers - 1), out, c, layers if i < last else 0,
                "downsamplers" if i < last else None))
            kept += [out] * (layers + (i < last))
        self.mid_block = Level([outs[-1]] * 2, outs[-1], c, 1, None)
        self.up_blocks = nn.ModuleList()
        width = outs[-1]
        for i, out in enumerate(reversed(outs)):
            widths = []
            for _ in range(layers + 1):
                widths.append(width + kept.pop())
                width = out
            self.up_blocks.append(Level(
                widths, out, c, layers + 1 if i > 0 else 0,
                "upsamplers" if i < last else None))
        self.conv_norm_out = nn.GroupNorm(c["groups"], outs[0], eps=1e-5)
        self.conv_out = nn.Conv2d(outs[0], c["out_channels"], 3, padding=1)

    def forward(self, sample, timestep, encoder_hidden_states):
        text = encoder_hidden_states
        e = self.time_embedding(sinusoid(timestep, self.width).to(sample.dtype))
        x = self.conv_in(sample)
        kept = [x]
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                x = level.layer(i, x, e, text)
                kept.append(x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0].conv(x)
                kept.append(x)
        x = self.mid_block.resnets[0](x, e)
        x = self.mid_block.attentions[0](x, text)
        x = self.mid_block.resnets[1](x, e)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                x = level.layer(i, torch.cat([x, kept.pop()], dim=1), e, text)
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0].conv(F.interpolate(x, scale_factor=2.0))
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def unet_inputs(c, size, text, batch, device, dtype):
    """size: of the latent"""
    like = dict(device=device, dtype=dtype)
    return dict(
        sample=torch.randn(batch, c["in_channels"], size, size, **like).to(
            memory_format=torch.channels_last),
        timestep=torch.full((batch,), 500, device=device),
        encoder_hidden_states=torch.randn(batch, text, c["cross_attention_dim"], **like))
