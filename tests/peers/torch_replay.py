#!/usr/bin/env python3
"""A whole iteration of `dancegrpo train`, computed again by PyTorch and diffusers.

    python3 tests/peers/torch_replay.py RUN [--iteration K] [--base WHAT]
        [--tensors FILE]

RUN is a folder of `train` with trajectories/iter_K.h5 and checkpoints/iter_K.h5
(checkpoint.every = 1 and trajectory.every = 1 leave both); K is the last such
iteration unless given. Files are read by h5py; formulas are those of
doc/formats.md, "Recomputing an iteration"; networks are diffusers', gradients
PyTorch's, the update torch.optim.AdamW's, all in double. --base: what adapters
belong to, a file of weights or a pipeline's folder, where policy.weights and
policy.path do not say it. --tensors: of a bfloat16 run, where a line goes for each
tensor: name, r.m.s. of what its first moments are off by, and PyTorch's in bfloat16,
both divided by the r.m.s. of the exact ones.

One table: quantity, largest difference (where it is largest in units of its
tolerance), tolerance there, their quotient. Exit code 1 if anything is beyond.
Needs torch, diffusers, h5py, safetensors.
"""
import argparse
import glob
import json
import math
import os
import sys

import h5py
import numpy as np
import torch

import replay_ends as ends
import replay_formulas as formulas
from replay_chain import run_chain
from replay_networks import Network, index_of, quiet
from replay_results import (metrics, moment_of, objective, results, skipped,
                            term_errors)
from replay_rollout import rollout
from replay_table import EPS, ULPS, Table

# What may be off by how many times what PyTorch is off by in the same precision:
# its largest difference; and in bfloat16 its root mean square, which is surer
YARDSTICK = {"float32": 8, "bfloat16": 3}
RMS_YARDSTICK = 1.5

# --- the run ---------------------------------------------------------------------


class Run:
    """An iteration's files, read; and what follows from the configuration."""

    def __init__(self, folder, iteration):
        self.folder, self.k = folder, iteration
        with h5py.File(self.path("trajectories", iteration)) as f:
            a, self.file = f.attrs, {}
            f.visititems(lambda n, o: self.file.update({n: o[()]})
                         if isinstance(o, h5py.Dataset) else None)
            text = a["config"].decode(errors="surrogateescape")
            for name in ("optimizer_step", "window_start", "window_size",
                         "height", "width"):
                setattr(self, name, int(a[name]))
            self.G = int(a["num_generations"])
        self.c = c = formulas.parse_config(text)
        f = self.file
        for name in ("latents", "condition", "uncond", "time", "sigma"):
            setattr(self, name, f.get(name))
        self.weights, self.adam_m, self.adam_v, self.reference = (
            f.get("state/" + x) for x in ("weights", "adam_m", "adam_v",
                                          "reference"))
        self.N, levels, self.D = self.latents.shape
        self.T = levels - 1
        self.after = self.checkpoint(iteration)
        if self.after is None:
            sys.exit(f"{folder}: no checkpoint of iteration {iteration}")
        self.before = self.checkpoint(iteration - 1)
        self.P, self.K = self.N // self.G, f["reward"].shape[1]
        self.num_parts = c["grpo"]["updates_per_iteration"]
        self.all_updates = c["run"]["iterations"] * self.num_parts \
            * c["grpo"]["epochs"]
        self.yardstick = YARDSTICK[c["run"]["dtype"]]
        self.rms_yardstick, self.rounds = RMS_YARDSTICK, \
            c["run"]["dtype"] == "bfloat16"
        self.gradient_limit = 2.0 ** 22 / self.N if c["parallel"]["exact_sum"] \
            else np.finfo(np.float32).max
        s = c["sampler"]
        self.sure, self.tensors = [], []
        self.gaussian = s["sde"] != "cps" or s["cps_gaussian"]
        with open(os.path.join(folder, "metrics.jsonl")) as lines:
            found = [json.loads(x) for x in lines]
        self.metrics = [x for x in found if x["iteration"] == iteration
                        and "held_out" not in x][0]

    def path(self, what, k):
        return os.path.join(self.folder, what, f"iter_{k:06}.h5")

    def checkpoint(self, k):
        if not os.path.exists(self.path("checkpoints", k)):
            return None
        with h5py.File(self.path("checkpoints", k)) as f:
            out = {n: f["arrays"][n][()] for n in f["arrays"]}
            out["index"] = index_of(f)
            out["optimizer_step"] = int(f["counters/optimizer_step"][()])
        return out


def schedule(run, start, size):
    """Kinds and levels of all steps by the configuration: sigma, times, and what a
    level is off by where float32 rounds it."""
    c, s = run.c, run.c["sampler"]
    if s["sde"] == "ddim":
        times, a, a_next = formulas.ddim_levels(s["steps"])
        sigma = np.sqrt(1 - np.append(a, a_next[-1]))
        return sigma, times, list(zip(a, a_next)), 2 * EPS * (
            1 + (1 - sigma ** 2) / (2 * sigma))
    l, end = formulas.line(1, s["steps"]), start + size
    if s["window_solver"] == "dpmpp_2m" and end < s["steps"]:
        num = max(1, math.floor((s["steps"] - end) * s["window_compress"]))
        l = np.append(l[:end], formulas.line(l[end], num))
    k = s["shift"] or shift_of(run)
    compat = c["policy"]["kind"] == "flux" and c["policy"]["bf16_compat"]
    # levels are float32 by definition: steps go from one rounded one to the next
    rounded = run.sigma.astype(float)
    return (formulas.shifted(l, k), formulas.flow_times(l, k, compat),
            list(zip(rounded[:-1], rounded[1:])), ULPS * EPS)


def levels_of(run, table):
    """Schedule and transitions from the configuration; against what is recorded."""
    c, s = run.c, run.c["sampler"]
    start, size = formulas.window(c, s["steps"], run.k - 1)
    table.add("window", [run.window_start, run.window_size], [start, size], 0)
    sigma, times, levels, error = schedule(run, start, size)
    table.add("noise levels", run.sigma, sigma, error)
    table.add("network's times", run.time, times, ULPS * EPS * times)
    if len(levels) != run.T:
        sys.exit(f"{run.T} steps where the configuration has {len(levels)}")
    t = run.transition = []
    for i, (at, to) in enumerate(levels):
        inside = start <= i < start + size
        kind, before = s["sde"] if inside else "ode", None
        if s["sde"] == "ddim":
            kind = "ddim"
        elif (s["window_solver"] == "dpmpp_2m" and i > start + size
              and 0 < to and levels[i - 1][0] < 1):
            kind, before = "2m", levels[i - 1][0]
        t.append(formulas.Step(kind, s["eta"] if inside else 0, at, to,
                               before=before))
    for name, args in (("mean_z", (1.0, 0.0, 0.0)), ("mean_u", (0.0, 1.0, 0.0)),
                       ("mean_x0", (0.0, 0.0, 1.0))):
        want = np.array([x.mean(*args) for x in t])
        table.add(name, run.file[name], want,
                  2 * ULPS * EPS * np.maximum(1, np.abs(want)))
    std = np.array([x.std for x in t])
    table.add("std", run.file["std"], std, ULPS * EPS * std)
    run.first, run.K_steps = start, min(start + size, run.T - 1) - start
    run.step_weight = formulas.step_weights(c["grpo"]["timestep_weight"], t, start,
                                            run.K_steps)


def shift_of(run):
    """sampler.shift = 0: the folder's scheduler."""
    path = os.path.join(run.c["policy"]["path"], "scheduler",
                        "scheduler_config.json")
    with open(path) as f:
        s = json.load(f)
    if not s.get("use_dynamic_shifting"):
        return s["shift"]
    tokens = run.D // run.c["flux"]["in_channels"]
    slope = (s["max_shift"] - s["base_shift"]) \
        / (s["max_image_seq_len"] - s["base_image_seq_len"])
    return math.exp(s["base_shift"]
                    + slope * (tokens - s["base_image_seq_len"]))


# --- b: advantages, selection ----------------------------------------------------


def selection(run, table):
    g, f = run.c["grpo"], run.file
    run.reward_weight = np.array([r["weight"] for r in run.c["rewards"]], float)
    missing = f["missing"] != 0
    run.A, run.total = formulas.advantages(
        f["reward"].astype(float), missing, run.reward_weight, run.G,
        g["adv_agg"], g["adv_std"])
    table.add("advantages of each reward", f["advantage"], run.A,
              2 * EPS * np.maximum(1, np.abs(run.A)))
    table.add("total advantages", f["total_advantage"], run.total,
              2 * EPS * np.maximum(1, np.abs(run.A) @ np.abs(run.reward_weight)))
    needed = run.reward_weight != 0
    if g["adv_agg"] == "reward_sum":
        scored = ~missing[:, needed].any(axis=1)
    else:
        scored = ~missing.all(axis=1)
    run.scored = scored
    top, bottom = (g["keep_top"], g["keep_bottom"]) if g["best_of_n"] \
        else (run.G, 0)
    kept = [p * run.G + i for p in range(run.P) for i in formulas.best_of_n(
        f["total_advantage"][p * run.G:(p + 1) * run.G],
        scored[p * run.G:(p + 1) * run.G], top, bottom)]
    table.add("samples kept", f["kept"], kept, 0)
    per_group = len(kept) // run.P
    groups = g["update_split"] == "groups" or (
        g["update_split"] == "auto" and run.P % run.num_parts == 0)
    run.kept = kept
    run.belongs = [(i // per_group if groups else i) % run.num_parts
                   for i in range(len(kept))]
    table.add("update of each sample", f["update"], run.belongs, 0)
    run.steps = [formulas.chosen(run.c, run.first, run.K_steps, run.T, run.k - 1,
                                 n // run.G, n % run.G) for n in kept]
    table.add("steps trained on", f["timestep"], run.steps, 0)


def state(run, table):
    """What a trajectory began with is what the checkpoint before it holds."""
    if run.before is None:
        return
    size = len(run.weights)
    table.add("state: weights of the checkpoint before", run.weights,
              run.before["weights"][:size], 0)
    for name in ("adam_m", "adam_v"):
        table.add(f"state: {name} of the checkpoint before",
                  run.file["state/" + name], moment_of(run.before, name), 0)


def replay(folder, iteration, base):
    """The table of one iteration."""
    run, table = Run(folder, iteration), Table()
    if run.c["grpo"]["epochs"] > 1:  # the file has the last one's terms alone
        for what, there in (("bfloat16", run.rounds), (
                "updates that were skipped", run.metrics["skipped_updates"] > 0)):
            if there:
                sys.exit(f"grpo.epochs > 1 and {what}: what the clip and the sums "
                         "did before the last epoch is not in the file")
    base = base or run.c["policy"]["weights"] or run.c["policy"]["path"]
    nets = [Network(run.c, run.after["index"], len(run.weights), base, run.height,
                    run.width, d) for d in (torch.float64, torch.float32)]
    state(run, table)
    ends.check_prompts(run, table)
    ends.check_conditions(run, table, run.yardstick, ULPS * EPS)
    levels_of(run, table)
    rollout(run, nets, table)
    ends.check_rewards(run, table, run.yardstick, ULPS * EPS)
    selection(run, table)
    doubt = 4 * run.logp_error.max()
    run.large_gradients = np.abs(run.A @ np.abs(run.reward_weight)).max() > 100
    updates = run_chain(run, nets[0], doubt)
    others = run_chain(run, nets[1], doubt, updates)
    term_errors(run, updates, others)
    objective(run, updates, others, table)
    skipped(run, updates, others, table)
    results(run, nets[0], updates, others, table)
    metrics(run, updates, table)
    return run, table


def last_iteration(folder):
    both = [{int(p[-9:-3]) for p in glob.glob(f"{glob.escape(folder)}/{x}/*.h5")}
            for x in ("trajectories", "checkpoints")]
    if not both[0] & both[1]:
        sys.exit(f"{folder}: no iteration with a trajectory file and a "
                 "checkpoint (checkpoint.every = 1, trajectory.every = 1)")
    return max(both[0] & both[1])


def tell(run):
    """How much the table says."""
    if run.rounds:
        print(f"predictions are off by {run.of_torch:.2f} of what PyTorch's own are "
              "off by in bfloat16 (r.m.s. of a step, at most)")
    if run.sure:
        print(f"{100 * run.sure[0]:.1f} % of the first moments' codes and "
              f"{100 * run.sure[1]:.1f} % of the second ones' are certain; others "
              "may be one of a few")
    print(f"{100 * run.sharp[0]:.0f} % of the weights are compared to 1 % of an "
          f"update or better, {100 * run.sharp[1]:.0f} % to 10 %")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--iteration", type=int)
    parser.add_argument("--base", help="what adapters belong to")
    parser.add_argument("--tensors", help="a file for each tensor's errors")
    args = parser.parse_args()
    quiet()
    k = args.iteration or last_iteration(args.run)
    run, table = replay(args.run, k, args.base)
    print(f"{args.run}, iteration {k}: {run.P} prompts x {run.G} samples, "
          f"{run.T} steps, {run.D} elements; PyTorch's network in "
          f"{run.c['run']['dtype']} off by at most "
          f"{run.net_error / run.yardstick:.1e}")
    table.show()
    tell(run)
    if args.tensors and not run.tensors:
        print(f"{args.tensors}: of runs in bfloat16 with moments in float32 alone")
    elif args.tensors:
        with open(args.tensors, "w") as f:
            f.writelines(f"{n} {far:.4g} {theirs:.4g}\n"
                         for n, far, theirs in run.tensors)
    print("all agree" if not table.bad else f"{table.bad} do not agree")
    return table.bad != 0


if __name__ == "__main__":
    sys.exit(main())
