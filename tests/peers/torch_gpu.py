#!/usr/bin/env python3
"""PyTorch's speed on this GPU, to compare with `dancegrpo bench`: one JSON object
a line, medians of several runs.

  torch_gpu.py [--seconds N] [--only WORD] [--runs N]   on a GPU, bfloat16
  torch_gpu.py --check            on the CPU, tiny: equal to diffusers' classes
  torch_gpu.py --tiny             on the CPU, tiny: every case runs

Cases: gemm (the rate that others are a fraction of), flux_forward at 1024 and
720 pixels, flux_train there (forward and backward, blocks run again), unet_forward
at batch 1 and 8; eager with scaled_dot_product_attention, and by torch.compile (of
FLUX its blocks, which are all alike, so that compiling takes seconds). Weights
are random. FLOPs are those of matrix products, attention and convolutions as
PyTorch counts them; flux_train counts the forward pass three times, what is run
again not. `dancegrpo bench` counts four passes with parallel.recompute: compare
seconds there (flops by flops_per_s). Cases that find no time, or no memory, say
so in "error".
"""
import argparse
import json
import statistics
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import torch_nets as nets

TINY_FLUX = dict(nets.FLUX_DEV, in_channels=16, num_layers=1, num_single_layers=2,
                 attention_head_dim=16, num_attention_heads=2,
                 joint_attention_dim=24, pooled_projection_dim=12,
                 axes_dims_rope=(4, 6, 6))
TINY_UNET = dict(nets.SD14, block_out_channels=(16, 32), layers_per_block=1, heads=2,
                 cross_attention_dim=24, groups=4)


class Bench:
    def __init__(self, o):
        self.o = o
        self.cuda = not o.tiny
        self.device = "cuda" if self.cuda else "cpu"
        self.dtype = torch.bfloat16
        self.end = time.monotonic() + o.seconds
        self.rate = None
        self.failed = 0

    def say(self, **line):
        print(json.dumps(line), flush=True)

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def median(self, fn):
        """seconds of one run; three first, which compile and choose"""
        for _ in range(3 if self.cuda else 1):
            fn()
        seconds = []
        for _ in range(self.o.runs):
            self.wait()
            began = time.perf_counter()
            fn()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    def case(self, name, mode, run, **about):
        """run(): (function to time, FLOPs of one call)"""
        if self.o.only not in f"{name} {mode}":
            return
        line = dict(case=name, mode=mode, **about)
        if time.monotonic() > self.end:
            self.say(**line, error="no time left")
            return
        try:
            if self.cuda:
                torch.cuda.reset_peak_memory_stats()
            fn, flops = run()
            s = self.median(fn)
            line.update(ms=round(1e3 * s, 3), tflops=round(flops / s / 1e12, 3))
            if self.rate:
                line["of_gemm"] = round(flops / s / self.rate, 4)
            if self.cuda:
                line["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            if name == "gemm":
                self.rate = flops / s
            self.say(**line)
        except torch.cuda.OutOfMemoryError:
            self.say(**line, error="out of memory")
        except Exception as e:  # the other cases still count
            self.failed = 1
            self.say(**line, error=f"{type(e).__name__}: {str(e)[:200]}")
        if self.cuda:
            torch.cuda.empty_cache()


def random_net(make, device, dtype):
    """12 billion weights drawn where they lie"""
    with torch.device("meta"):
        net = make()
    net = net.to(dtype).to_empty(device=device)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() > 1:
                p.normal_(0, 0.02)
            else:
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return net


def flops_of(make, inputs):
    with torch.device("meta"):
        net = make()
    meta = {k: v.to("meta") for k, v in inputs.items()}
    net = net.to(next(v.dtype for v in inputs.values() if v.dtype == torch.bfloat16))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(**meta)
    return counter.get_total_flops()


def forward(net, inputs, flops):
    def fn():
        with torch.no_grad():
            net(**inputs)
    return fn, flops


def train(net, inputs, flops):
    def fn():
        net.zero_grad(set_to_none=True)
        net(**inputs).float().square().mean().backward()
    return fn, 3 * flops


def gemm(b, n):
    def run():
        x = torch.randn(n, n, device=b.device, dtype=b.dtype)
        y = torch.randn(n, n, device=b.device, dtype=b.dtype)
        return lambda: x @ y, 2 * n ** 3
    b.case("gemm", "eager", run, size=n)


def flux(b, mode):
    c = TINY_FLUX if b.o.tiny else nets.FLUX_DEV
    sizes, text = ((64, 32), 8) if b.o.tiny else ((1024, 720), 512)
    make = lambda: nets.Flux(c)
    if not any(b.o.only in f"{w} {mode}" for w in ("flux_forward", "flux_train")):
        return
    try:
        net = random_net(make, b.device, b.dtype)
    except torch.cuda.OutOfMemoryError:
        b.say(case="flux", mode=mode, error="out of memory")
        return
    if mode == "compile":
        for block in [*net.transformer_blocks, *net.single_transformer_blocks]:
            block.compile()
    for size in sizes:
        x = nets.flux_inputs(c, size, text, 1, b.device, b.dtype)
        net.eval()
        b.case("flux_forward", mode, lambda: forward(net, x, flops_of(make, x)),
               size=size, batch=1)
    net.train()
    net.recompute = True
    for size in sizes:
        x = nets.flux_inputs(c, size, text, 1, b.device, b.dtype)
        b.case("flux_train", mode, lambda: train(net, x, flops_of(make, x)),
               size=size, batch=1)


def unet(b, mode):
    c = TINY_UNET if b.o.tiny else nets.SD14
    size, text = (8, 5) if b.o.tiny else (64, 77)
    make = lambda: nets.Unet(c)
    if b.o.only not in f"unet_forward {mode}":
        return
    net = random_net(make, b.device, b.dtype).to(memory_format=torch.channels_last)
    net.eval()
    run = torch.compile(net) if mode == "compile" else net
    for batch in (1, 8):
        x = nets.unet_inputs(c, size, text, batch, b.device, b.dtype)
        b.case("unet_forward", mode, lambda: forward(run, x, flops_of(make, x)),
               size=8 * size, batch=batch)


def check():
    """our nets beside diffusers', the same weights and inputs, float32"""
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bad = 0
    theirs = FluxTransformer2DModel(
        patch_size=1, **{k: v for k, v in TINY_FLUX.items()}).eval()
    c = TINY_UNET
    levels = len(c["block_out_channels"])
    other = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4,
        layers_per_block=c["layers_per_block"],
        block_out_channels=c["block_out_channels"],
        down_block_types=["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1),
        cross_attention_dim=c["cross_attention_dim"], norm_num_groups=c["groups"],
        attention_head_dim=c["heads"]).eval()
    for name, net, ref, x in (
            ("flux", nets.Flux(TINY_FLUX), theirs,
             nets.flux_inputs(TINY_FLUX, 64, 8, 2, "cpu", torch.float32)),
            ("unet", nets.Unet(c), other,
             nets.unet_inputs(c, 8, 5, 2, "cpu", torch.float32))):
        with torch.no_grad():
            for p in ref.parameters():
                p.add_(0.02 * torch.randn_like(p))
            net.load_state_dict(ref.state_dict())
            got, want = net.eval()(**x), ref(**x, return_dict=False)[0]
        off = ((got - want).abs().max() / want.abs().max()).item()
        bad |= not off < 1e-5
        print(json.dumps(dict(check=name, apart=off, ok=off < 1e-5)))
    return bad


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=1e9)
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--only", default="")
    p.add_argument("--check", action="store_true")
    p.add_argument("--tiny", action="store_true")
    o = p.parse_args()
    if o.check:
        return check()
    if not o.tiny and not torch.cuda.is_available():
        print("torch_gpu.py: PyTorch sees no GPU", file=sys.stderr)
        return 77
    b = Bench(o)
    if o.tiny:
        torch.set_num_threads(1)
    else:
        b.say(case="machine", device=torch.cuda.get_device_name(0),
              torch=torch.__version__, cuda=torch.version.cuda)
    gemm(b, 64 if o.tiny else 8192)
    for mode in ("eager", "compile"):
        unet(b, mode)
        flux(b, mode)
    return b.failed


if __name__ == "__main__":
    sys.exit(main())
