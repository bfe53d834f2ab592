#!/usr/bin/env python3
"""Values of the diffusers modules for tests/test_golden.c.

    python3 tests/golden/make_golden.py        (torch, diffusers, numpy)

Networks of odd small sizes with weights and inputs by the rule of
dg_params_fill_golden(), so that no weights need be kept: output, and of each
gradient the sum of squares and the first element. Run by hand; the tests read
the files only.
"""
import os

import diffusers
import numpy as np
import torch

torch.set_num_threads(1)
HERE = os.path.dirname(os.path.abspath(__file__))


def uniform(key, count):
    """u in -1/2..1/2 of elements 0.. of the golden rule."""
    h = 0xCBF29CE484222325
    for byte in key.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5


def tensor(values, shape):
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def fill(net):
    for name, p in net.named_parameters():
        u = uniform(name, p.numel())
        if p.dim() > 1:
            u *= np.sqrt(12.0 / (p.numel() // p.shape[0]))
        else:
            u = 0.2 * u + (0 if name.endswith(".bias") else 1)
        p.data = tensor(u, p.shape)


def given(key, *shape):
    x = tensor(uniform(key, int(np.prod(shape))) * np.sqrt(12.0), shape)
    return x.requires_grad_()


def brief(x):
    x = x.detach().double().flatten()
    return "%.8g %.7g" % ((x * x).sum(), x[0])


def write(case, net, sizes, inputs, y):
    """One case: its sizes, then what the network gave."""
    w = tensor(uniform("loss.w", y.numel()) * np.sqrt(12.0), y.shape)
    (y * w).sum().backward()
    out = y.detach().double().flatten()
    with open(os.path.join(HERE, case + ".txt"), "w") as f:
        f.write("# diffusers %s, torch %s, by make_golden.py\n"
                % (diffusers.__version__, torch.__version__.split("+")[0]))
        for key, value in sizes.items():
            value = value if isinstance(value, (list, tuple)) else [value]
            f.write("size %s %s\n" % (key, " ".join("%.9g" % v for v in value)))
        f.write("y %d %.7g %.8g %.7g %.7g\n" % (
            out.numel(), out.sum(), (out * out).sum(), out[0], out[-1]))
        for key, x in inputs.items():
            f.write("input %s %d %s\n" % (key, x.numel(), brief(x.grad)))
        for name, p in net.named_parameters():
            f.write("grad %s %d %s\n" % (name, p.numel(), brief(p.grad)))


def unet(case, batch, h, w, tokens, t, down, up, **config):
    def types(flags, way):
        return tuple(("CrossAttn" if a else "") + way for a in flags)

    net = diffusers.UNet2DConditionModel(
        down_block_types=types(down, "DownBlock2D"),
        up_block_types=types(up, "UpBlock2D"), **config)
    fill(net)
    x = given("input.sample", batch, config["in_channels"], h, w)
    context = given("input.context", batch, tokens,
                    config["cross_attention_dim"])
    y = net(x, torch.tensor(t), context).sample
    write(case, net, dict(batch=batch, h=h, w=w, tokens=tokens, t=t,
                          down_attention=down, up_attention=up, **config),
          {"sample": x, "context": context}, y)


def vae(case, encode, batch, h, w, **config):
    num = len(config["block_out_channels"])
    net = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * num,
        up_block_types=("UpDecoderBlock2D",) * num, **config)
    fill(net)
    if encode:
        x = given("input.image", batch, config["in_channels"], h, w)
        y = net.encoder(x)
        y = net.quant_conv(y) if net.quant_conv is not None else y
        del net.decoder, net.post_quant_conv
    else:
        x = given("input.latent", batch, config["latent_channels"], h, w)
        y = net.decode(x).sample
        del net.encoder, net.quant_conv
    write(case, net, dict(encode=encode, batch=batch, h=h, w=w,
                          **{k: int(v) if isinstance(v, bool) else v
                             for k, v in config.items()}), {"image": x}, y)


def flux(case, batch, h, w, tokens, t, guidance, **config):
    net = diffusers.FluxTransformer2DModel(
        guidance_embeds=bool(guidance), **config)
    fill(net)
    hidden = given("input.hidden", batch, h * w, config["in_channels"])
    context = given("input.context", batch, tokens,
                    config["joint_attention_dim"])
    pooled = given("input.pooled", batch, config["pooled_projection_dim"])
    ids = torch.tensor([(0.0, r, c) for r in range(h) for c in range(w)])
    y = net(hidden_states=hidden, encoder_hidden_states=context,
            pooled_projections=pooled, timestep=torch.tensor(t),
            guidance=torch.tensor(guidance) if guidance else None,
            img_ids=ids, txt_ids=torch.zeros(tokens, 3)).sample
    write(case, net, dict(batch=batch, h=h, w=w, tokens=tokens, t=t,
                          guidance=guidance or [0.0] * batch,
                          guidance_embeds=int(bool(guidance)), **config),
          {"hidden": hidden, "context": context, "pooled": pooled}, y)


unet("unet_wide", 3, 8, 24, 5, [999, 0, 437], [1, 1, 1, 0], [0, 1, 1, 1],
     in_channels=4, out_channels=4, block_out_channels=(24, 40, 56, 72),
     layers_per_block=2, attention_head_dim=4, cross_attention_dim=20,
     norm_num_groups=8)
unet("unet_mixed", 3, 12, 20, 9, [3, 981, 250], [1, 0, 1], [0, 1, 1],
     in_channels=3, out_channels=5, block_out_channels=(20, 30, 50),
     layers_per_block=1, attention_head_dim=5, cross_attention_dim=18,
     norm_num_groups=5)
unet("unet_odd", 3, 9, 13, 7, [20, 999, 501], [0, 1, 1], [1, 1, 0],
     in_channels=4, out_channels=4, block_out_channels=(16, 24, 32),
     layers_per_block=1, attention_head_dim=4, cross_attention_dim=12,
     norm_num_groups=8)
for encode in (0, 1):
    vae("vae_quant_" + ("encode" if encode else "decode"), encode, 3,
        40 if encode else 5, 24 if encode else 3, in_channels=3,
        out_channels=3, block_out_channels=(12, 20, 28, 36),
        layers_per_block=2, latent_channels=6, norm_num_groups=4,
        use_quant_conv=True, use_post_quant_conv=True)
    vae("vae_plain_" + ("encode" if encode else "decode"), encode, 3,
        28 if encode else 7, 52 if encode else 13, in_channels=3,
        out_channels=3, block_out_channels=(18, 12, 24), layers_per_block=1,
        latent_channels=5, norm_num_groups=6, use_quant_conv=False,
        use_post_quant_conv=False)
vae("vae_odd_encode", 1, 3, 45, 27, in_channels=3, out_channels=3,
    block_out_channels=(8, 12, 16), layers_per_block=1, latent_channels=4,
    norm_num_groups=4, use_quant_conv=True, use_post_quant_conv=True)
flux("flux_dev", 3, 5, 3, 7, [0.937, 0.25, 1.0], [3.5, 1.0, 7.0],
     in_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=20,
     num_attention_heads=3, joint_attention_dim=28, pooled_projection_dim=20,
     axes_dims_rope=(4, 10, 6))
flux("flux_schnell", 3, 2, 9, 11, [0.1, 0.5, 0.875], None,
     in_channels=20, num_layers=3, num_single_layers=1, attention_head_dim=24,
     num_attention_heads=2, joint_attention_dim=36, pooled_projection_dim=12,
     axes_dims_rope=(4, 8, 12))
