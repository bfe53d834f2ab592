#!/usr/bin/env python3
"""Tiny runs of many kinds, each of whose iterations torch_replay.py computes again.

Run by hand, from the top of the tree, after `make bin/dancegrpo` (and, for the cases
in bfloat16, `make CUDA=1 build/emulated/dancegrpo`), with what torch_replay.py needs:

    python3 tests/peers/replay_cases.py [--work FOLDER] [--bin PROGRAM] [CASE...]

A line per case: how many quantities, and the two that come nearest to their
tolerance, or those beyond it. Exit code 1 if there are any.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

from replay_networks import quiet
from torch_replay import last_iteration, replay

LORA = ["lora.rank=4", "lora.alpha=6", "optim.lr=1e-2"]
TWO = ['rewards=({name="brightness";weight=1.0;},'
       '{name="colourfulness";weight=-0.7;})']
SEVERAL = ["grpo.updates_per_iteration=4", "grpo.prompts_per_iteration=4"]
FLUX, SMALL, SD = "tiny_flux", "tiny", "tiny_sd"
INT8 = ["optim.moments=int8"]
BF16 = ["run.device=cuda", "run.dtype=bfloat16"]
# one group of iteration 3 has a spread in a reward whose weight makes gradients
# larger than their sum may be
SKIPS = ["grpo.advantage_clip=1e9", "optim.ema_decay=0.9", *SEVERAL]
FROM = 'rewards=({name="brightness";weight=1.0;},' \
    '{name="colourfulness";weight=1e6;threshold=%s;})'
ONE_OF_FOUR = [*SKIPS, FROM % 174.44, "sampler.eta=0.005"]
WINDOW = ["sampler.steps=8", "sampler.window_size=3", "sampler.window_every=1",
          "sampler.window_stride=2", "grpo.timestep_mode=window",
          "grpo.timestep_fraction=1"]
# name: configuration, settings
CASES = {
    "flux dance": (FLUX, []),
    "flux dance, exact times": (FLUX, ["policy.bf16_compat=false",
                                       "sampler.eta=0.7", *SEVERAL]),
    "flux flow_sde": (FLUX, ["sampler.sde=flow_sde", "sampler.eta=0.7",
                             *SEVERAL, "grpo.update_split=samples"]),
    "flux cps": (FLUX, ["sampler.sde=cps", "sampler.eta=0.8", "optim.lr=1e-3"]),
    "flux cps, square": (FLUX, ["sampler.sde=cps", "sampler.eta=0.8",
                                "sampler.cps_gaussian=false",
                                "grpo.clip_range=1e-6"]),
    "flux KL": (FLUX, ["grpo.kl_beta=0.5", "optim.lr=1e-3", "run.iterations=4"]),
    "flux window": (FLUX, [*WINDOW, "sampler.sde=flow_sde"]),
    "flux window, 2m": (FLUX, [*WINDOW, "sampler.window_solver=dpmpp_2m",
                               "sampler.window_compress=0.7",
                               "run.iterations=2"]),
    "flux window, drawn": (FLUX, [*WINDOW, "sampler.window_move=random",
                                  "sampler.init_noise=per_sample"]),
    "flux two rewards, sum": (FLUX, TWO + SEVERAL),
    "flux two rewards, per_reward": (FLUX, [*TWO, *SEVERAL,
                                            "grpo.adv_agg=per_reward",
                                            "grpo.advantage_clip=0.8"]),
    "flux two rewards, reward_sum": (FLUX, [*TWO, "grpo.adv_agg=reward_sum"]),
    "flux global std": (FLUX, [*TWO, "grpo.adv_std=global"]),
    "flux best of n": (FLUX, ["grpo.num_generations=8", "grpo.best_of_n=true",
                              "grpo.keep_top=3", "grpo.keep_bottom=2",
                              "grpo.updates_per_iteration=5"]),
    "flux epochs, clip by sides": (FLUX, [
        "grpo.epochs=2", "grpo.clip_range_low=5e-5", "grpo.clip_range_high=3e-4",
        "optim.lr=1e-3"]),
    "flux guard, length": (FLUX, [
        "grpo.ratio=guard", "grpo.timestep_weight=length",
        "grpo.clip_range=2e-6", "optim.lr=1e-3", *SEVERAL]),
    "flux AdamW": (FLUX, [
        "optim.max_grad_norm=0.01", "optim.weight_decay=0.5", "optim.beta1=0.8",
        "optim.beta2=0.9", "optim.eps=1e-6", "optim.warmup=9",
        "optim.schedule=cosine", "optim.ema_decay=0.9", "optim.ema_ramp=true",
        "optim.lr=1e-3", "run.iterations=6", "optim.ema_every=5",
        "grpo.timestep_weight=std"]),
    "flux steps ceil_t, group": (FLUX, ["grpo.timestep_count=ceil_t",
                                        "grpo.timestep_scope=group"]),
    "flux steps first": (FLUX, ["grpo.timestep_mode=first", "sampler.eta=0.9"]),
    "flux steps last": (FLUX, ["grpo.timestep_mode=last", "sampler.steps=12"]),
    "flux threshold": (FLUX, [
        'rewards=({name="brightness";weight=1.0;threshold=0.515;})']),
    "flux adapters": (FLUX, [*LORA, "optim.ema_decay=0.5"]),
    "flux adapters, KL": (FLUX, [*LORA, "grpo.kl_beta=0.5", *SEVERAL]),
    "small flux": (SMALL, []),
    "small flux, data": (SMALL, ["policy.prediction=data"]),
    "sd ddim, guidance": (SD, []),
    "sd detached": (SD, ["cfg.grad=detach_uncond", "sampler.eta=0.6",
                         "grpo.updates_per_iteration=2", "optim.lr=3e-5"]),
    "sd no guidance, KL": (SD, ["cfg.scale=1", "grpo.kl_beta=0.1",
                                "grpo.updates_per_iteration=2"]),
    "sd adapters": (SD, [*LORA, 'lora.targets=["to_q","to_k","to_v","to_out.0"]',
                         "grpo.updates_per_iteration=2",
                         "sampler.decode=x0"]),
    "sd sizes of its own": ("tiny_unet", ["grpo.updates_per_iteration=3"]),
    "wide pictures": (FLUX, ["policy.height=48", "policy.width=80"]),
    "three ranks": (FLUX, []),
    "the demo, smaller groups": ("demo", [
        "run.iterations=2", "grpo.prompts_per_iteration=2", "grpo.num_generations=6",
        "optim.warmup=1", "checkpoint.every=1", "trajectory.every=1",
        "evaluate.num_prompts=1"]),
    "missing scores": (FLUX, [
        'rewards=({name="some";command="python3 tests/peers/some_scores.py";})',
        "grpo.kl_beta=0.1", "grpo.num_generations=6"]),
    "int8 dance": (FLUX, INT8),
    "int8, one update": (FLUX, [*INT8, "grpo.updates_per_iteration=1"]),
    "int8, AdamW": (FLUX, [
        *INT8, "optim.max_grad_norm=0.01", "optim.weight_decay=0.5",
        "optim.beta1=0.8", "optim.beta2=0.9", "optim.eps=1e-6", "optim.warmup=9",
        "optim.lr=1e-3", "run.iterations=6"]),
    "int8, adapters": (FLUX, [*INT8, *LORA]),
    "int8, sd": (SD, [*INT8, "grpo.updates_per_iteration=2"]),
    "skipped, one of four": (FLUX, ONE_OF_FOUR),
    "skipped, int8": (FLUX, [*ONE_OF_FOUR, *INT8]),
    "skipped, the only one": (FLUX, [*SKIPS, "grpo.updates_per_iteration=1",
                                     FROM % 174.41, "sampler.eta=0.001"]),
    "skipped, not finite": (FLUX, [
        "optim.lr=1", "optim.weight_decay=10", "run.iterations=1",
        "grpo.prompts_per_iteration=7", "grpo.updates_per_iteration=7"]),
    "bfloat16 dance": (FLUX, BF16),
    "bfloat16, one update": (FLUX, [*BF16, "grpo.updates_per_iteration=1"]),
    "bfloat16, exact times": (FLUX, [*BF16, "policy.bf16_compat=false",
                                     "sampler.eta=0.7", "optim.ema_decay=0.9"]),
    "bfloat16, flow_sde, KL": (FLUX, [*BF16, "sampler.sde=flow_sde",
                                      "grpo.kl_beta=0.5", "optim.lr=1e-3"]),
    "bfloat16, adapters": (FLUX, [*BF16, *LORA]),
    "bfloat16, int8": (FLUX, [*BF16, *INT8]),
    "bfloat16, small flux": (SMALL, BF16),
    "bfloat16, sd": (SD, [*BF16, "grpo.updates_per_iteration=2",
                          "run.iterations=2"]),
    "bfloat16, sd, one update": (SD, [*BF16, "grpo.updates_per_iteration=1",
                                      "run.iterations=2", "cfg.scale=1"]),
    "bfloat16, skipped": (FLUX, [*BF16, *ONE_OF_FOUR]),
}
ITERATION = {"flux AdamW": 5}  # warm-up ends within it, and EMA's turn is then


def train(program, folder, config, sets, ranks):
    args = ["mpirun", "-n", str(ranks), program] if ranks > 1 else [program]
    args += ["train", f"configs/{config}.cfg"]
    for s in (f"run.dir={folder}", "checkpoint.keep=3", "run.threads=1",
              "report.prompts=1", *sets):
        args += ["--set", s]
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}:\n{done.stdout}{done.stderr}")


def show(name, run, table):
    """One line, and what is beyond."""
    beyond = [r for r in table.rows if not r[3]]
    nearest = sorted((r for r in table.rows if r[3] and r[2] > 0),
                     key=lambda r: -r[1] / r[2])[:2]
    tell = "; ".join(f"{n} {far / t:.2f}" for n, far, t, _ in nearest)
    ratios = run.file["ratio"]
    if run.rounds:
        tell = f"predictions {run.of_torch:.2f} of PyTorch's error; " + tell
    print(f"{name:30} {len(table.rows):3} quantities, {len(beyond)} wrong | "
          f"ratio {np.nanmin(ratios):.6f} to {np.nanmax(ratios):.6f}, clip "
          f"{run.metrics['clip_fraction']:.2f} | nearest: {tell}", flush=True)
    for n, far, t, _ in beyond:
        print(f"    WRONG {n}: {far:.3e}, tolerance {t:.1e}", flush=True)
    return len(beyond)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", help="folder for the runs")
    parser.add_argument("--bin", default="bin/dancegrpo")
    parser.add_argument("--gpu-bin", default="build/emulated/dancegrpo",
                        help="of the bfloat16 cases: with a GPU or one emulated")
    parser.add_argument("case", nargs="*", help="beginnings of names; all if none")
    args = parser.parse_args()
    quiet()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (config, sets) in CASES.items():
            if args.case and name not in args.case and not any(
                    c not in CASES and name.startswith(c) for c in args.case):
                continue
            run = os.path.join(args.work or folder,
                               name.replace(",", "").replace(" ", "_"))
            if not os.path.exists(run):
                train(args.gpu_bin if "run.device=cuda" in sets else args.bin, run,
                      config, sets, 3 if "ranks" in name else 1)
            bad += show(name, *replay(
                run, ITERATION.get(name) or last_iteration(run), None))
    print("all agree" if not bad else f"{bad} do not agree")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
