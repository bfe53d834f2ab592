#!/usr/bin/env python3
"""A whole iteration of `dancegrpo train`, computed again by PyTorch and diffusers.

    python3 tests/peers/torch_replay.py RUN [--iteration K] [--base WHAT]

RUN is a folder of `train` with trajectories/iter_K.h5 and checkpoints/iter_K.h5
(checkpoint.every = 1 and trajectory.every = 1 leave both); K is the last such
iteration unless given. Files are read by h5py; formulas are those of
doc/formats.md, "Recomputing an iteration"; networks are diffusers', gradients
PyTorch's, the update torch.optim.AdamW's, all in double. --base: what adapters
belong to, a file of weights or a pipeline's folder, where policy.weights and
policy.path do not say it.

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
from replay_chain import Term, gaussians, guided, rows, run_chain
from replay_networks import Network, index_of, quiet

EPS = 2.0 ** -24   # of a float32, rounded to nearest
YARDSTICK = 8      # times what PyTorch's own float32 is off by
ULPS = 4           # roundings of a formula of a few operations


class Table:
    def __init__(self):
        self.rows, self.bad = [], 0

    def add(self, name, got, want, tolerance):
        """Worst element. tolerance: a number, or one for each element; 0: equal."""
        got, want = np.asarray(got, float), np.asarray(want, float)
        if got.shape != want.shape:
            self.row(name, math.inf, 0.0, False)
            return
        tolerance = np.broadcast_to(tolerance, got.shape).ravel()
        far = np.abs(got - want).ravel()
        far[(np.isnan(got) & np.isnan(want)).ravel()] = 0
        far[np.isnan(far)] = np.inf
        if far.size == 0:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(far == 0, 0.0, far / tolerance)
        i = int(np.argmax(part))
        self.row(name, far[i], tolerance[i], part[i] <= 1)

    def row(self, name, far, tolerance, ok):
        self.rows.append((name, far, tolerance, ok))
        self.bad += not ok

    def show(self, out=sys.stdout):
        print(f"{'quantity':44} {'difference':>10} {'tolerance':>10} "
              f"{'of it':>7}", file=out)
        for name, far, tolerance, ok in self.rows:
            part = far / tolerance if tolerance > 0 else math.inf if far else 0
            share = f"{part:7.2g}" if part < 1e4 else "   much"
            print(f"{name:44} {far:10.2e} {tolerance:10.2e} {share} "
                  f"{'ok' if ok else 'WRONG'}", file=out)


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
        s = c["sampler"]
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


# --- a: the rollout --------------------------------------------------------------


class Everything(Term):
    """All samples at one step."""

    def __init__(self, run, step):
        self.item, self.step = list(range(run.N)), [step] * run.N


def predictions(run, nets):
    """What both networks predict at all steps of all samples, [T, N, D]."""
    out = []
    for net in nets:
        old, u = net.parameters(run.weights), []
        for t in range(run.T):
            z, level, time, condition, _ = rows(run, net.dtype,
                                                Everything(run, t))
            with torch.no_grad():
                u.append(guided(run, net, old, z, level, time,
                                condition).double().numpy())
        out.append(np.stack(u))
    return out


def log_densities(run, step, z, u, after):
    return formulas.log_prob(step, after, step.mean(z, u), run.gaussian,
                             lambda x: x.mean(axis=1))


def rounded_means(run, step, z, u):
    """What roundings of mu do to a log-density: those of D elements are as good as
    independent of each other and of the noise."""
    size = abs(step.mean(1.0, 0.0, 0.0)) * math.sqrt((z ** 2).mean()) \
        + abs(step.mean(0.0, 1.0, 0.0)) * math.sqrt((u ** 2).mean())
    slope = 1 / step.std if run.gaussian else 2 * step.std
    return ULPS * EPS * size * slope / math.sqrt(run.D)


def rollout(run, nets, table):
    """Latents, noise, log-densities, what was decoded."""
    s, seed, k = run.c["sampler"], run.c["run"]["seed"], run.k - 1
    table.add("first noise", run.latents[:, 0], [
        formulas.normals(run.D, seed, formulas.INIT_LATENTS, k, n // run.G,
                         n % run.G if s["init_noise"] == "per_sample" else 0)
        for n in range(run.N)], 8 * EPS * 6.67)
    worst, (u64, u32) = {}, predictions(run, nets)
    run.net_error = YARDSTICK * np.abs(u32 - u64).max()
    run.logp_error = np.zeros(run.T)
    latents, x0 = run.latents.astype(float), None
    for t, step in enumerate(run.transition):
        z, u, after = latents[:, t], u64[t], latents[:, t + 1]
        mean = step.mean(z, u, x0)
        kappa = abs(step.mean(0.0, 1.0, 0.0))
        error = kappa * run.net_error + ULPS * EPS * (
            abs(step.mean(1.0, 0.0, 0.0)) * np.abs(z).max()
            + kappa * np.abs(u).max())
        noise, logp = np.zeros_like(mean), np.zeros(run.N)
        if step.std > 0:
            noise = np.stack([formulas.normals(
                run.D, seed, formulas.SDE_NOISE, k, n // run.G, n % run.G, t)
                for n in range(run.N)])
            logp = log_densities(run, step, z, u, after)
            run.logp_error[t] = YARDSTICK * np.abs(
                log_densities(run, step, z, u32[t], after) - logp).max() \
                + 2 * ULPS * EPS * (1 + np.abs(logp).max()) \
                + rounded_means(run, step, z, u)
        keep(worst, "latents", after, mean + step.std * noise,
             error + 8 * EPS * 6.67 * step.std)
        keep(worst, "log-densities", run.file["log_prob"][:, t], logp,
             run.logp_error[t])
        x0 = step.x0(z, u)
    for name, parts in worst.items():
        table.add(name, *(np.concatenate(x, axis=None) for x in parts))
    decode = s["decode"]
    if decode == "auto":
        decode = "zT" if s["sde"] == "ddim" else "x0"
    if decode == "zT":
        table.add("decoded (last latent)", run.file["decoded"], latents[:, -1], 0)
    else:
        last = abs(step.x0(0.0, 1.0))
        table.add("decoded (x0)", run.file["decoded"], x0, last * run.net_error
                  + 2 * ULPS * EPS * np.abs(x0).max())


def keep(worst, name, got, want, tolerance):
    parts = worst.setdefault(name, ([], [], []))
    for to, what in zip(parts, (got, want, np.broadcast_to(tolerance,
                                                           np.shape(got)))):
        to.append(what)


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


# --- c: the updates --------------------------------------------------------------


def term_errors(run, updates, others):
    """What float32 may be off by in each term: log-density, ratio, divergence."""
    for u, o in zip(updates, others):
        far = (u["logp"] - o["logp"].double()).abs().numpy()
        steps = np.array(u["terms"].step)
        u["logp_error"] = run.logp_error[steps]
        for t in set(steps):
            mine = steps == t
            u["logp_error"][mine] = np.maximum(u["logp_error"][mine],
                                               YARDSTICK * far[mine].max())
        u["error"] = run.logp_error[steps] + u["logp_error"]
        if run.c["grpo"]["ratio"] == "guard":
            u["error"] = u["error"] * [run.transition[t].std for t in steps]
        kl = u["kl"].numpy()
        u["kl_error"] = 4 * EPS * kl + YARDSTICK * (
            np.abs(kl - o["kl"].double().numpy()).max() if kl.any() else 0)


def objective(run, updates, table):
    """ratio, loss, clip of the last epoch's terms, as recorded."""
    f, worst = run.file, {}
    for u in updates[-run.num_parts:]:
        at = tuple(zip(*u["terms"].places))
        ratio, error = u["ratio"].numpy(), u["error"]
        keep(worst, "replayed log-densities", f["replayed_log_prob"][at],
             u["logp"].numpy(), u["logp_error"])
        keep(worst, "ratios", f["ratio"][at], ratio, error * ratio + EPS)
        A = np.abs(run.total if run.c["grpo"]["adv_agg"] != "per_reward"
                   else np.abs(run.A) @ np.abs(run.reward_weight))
        A = np.minimum(A, run.c["grpo"]["advantage_clip"]
                       * max(1, np.abs(run.reward_weight).sum()))
        keep(worst, "losses", f["loss"][at], u["loss"].numpy(),
             (A[u["terms"].item] * (error * ratio + 4 * EPS)
              * run.step_weight[u["terms"].step]
              + run.c["grpo"]["kl_beta"] * u["kl_error"]) / u["terms"].num)
        sure = ~u["unclear"].numpy()
        keep(worst, "where the clip acts", f["clipped"][at][sure],
             u["cut"].numpy()[sure], 0)
    for name, parts in worst.items():
        table.add(name, *(np.concatenate(x, axis=None) for x in parts))


def gradient_errors(updates, others, num_terms):
    """Of each update and tensor: what float32 may be off by, for each element the
    same; and of the norm."""
    out = []
    for u, o in zip(updates, others):
        tensors = [YARDSTICK * float((a - b.double()).abs().max())
                   + ULPS * EPS * float(a.abs().max()) + num_terms * 1e-12
                   for a, b in zip(u["grad"], o["grad"])]
        off = math.sqrt(sum(float(((a - b.double()) ** 2).sum())
                            for a, b in zip(u["grad"], o["grad"])))
        out.append((tensors, YARDSTICK * off + ULPS * EPS * u["norm"]))
    return out


def adam_errors(run, updates, errors):
    """What errors of gradients make of moments and weights, to first order;
    lists of tensors' arrays."""
    o = run.c["optim"]
    b1, b2 = o["beta1"], o["beta2"]
    dm = [np.zeros(p.shape) for p in updates[0]["w"]]
    dv, dw = [x.copy() for x in dm], [x.copy() for x in dm]
    for n, (u, (tensors, norm_error)) in enumerate(zip(updates, errors), 1):
        step = run.optimizer_step + n
        c1, c2 = 1 - b1 ** step, 1 - b2 ** step
        scale_error = 0.0
        if o["max_grad_norm"] > 0 and u["norm"] + norm_error > o["max_grad_norm"]:
            scale_error = u["scale"] * norm_error / u["norm"]
        for i, dg in enumerate(tensors):
            g = np.abs(u["grad"][i].numpy())
            m, v = np.abs(u["m"][i].numpy()), u["v"][i].numpy()
            e = u["scale"] * dg + scale_error * g
            g = u["scale"] * g
            dm[i] = b1 * dm[i] + (1 - b1) * e + 2 * EPS * m
            dv[i] = b2 * dv[i] + (1 - b2) * (2 * g * e + e * e) + 3 * EPS * v
            root = np.sqrt(v / c2)
            droot = np.minimum(dv[i] / c2 / (2 * root + 1e-300),
                               np.sqrt(dv[i] / c2))
            low = np.maximum(root - droot, 0) + o["eps"]
            dw[i] = dw[i] + u["lr"] * (dm[i] / c1 / low + m / c1 * droot / low ** 2
                                       + 2 * ULPS * EPS * m / c1 / low) \
                + 2 * EPS * np.abs(u["w"][i].numpy())
    return dm, dv, dw


def flat(tensors):
    return np.concatenate([np.asarray(t, float).ravel() for t in tensors])


def picked(run, net, array):
    """A flat array without the room between parameters."""
    return np.concatenate([np.asarray(array[at:at + math.prod(s)], float)
                           for _, at, s in net.index])


def results(run, net, updates, others, table):
    errors = gradient_errors(updates, others, run.N * len(run.steps[0]))
    norms = [u["norm"] for u in updates]
    table.add("grad_norm (metrics)", run.metrics["grad_norm"], max(norms),
              max(e for _, e in errors) + 1e-9 * max(norms))
    table.add("lr (metrics)", run.metrics["lr"], updates[-1]["lr"],
              1e-8 * updates[-1]["lr"])
    dm, dv, dw = adam_errors(run, updates, errors)
    after, last = run.after, updates[-1]
    size = len(run.weights)
    table.add("first moments", picked(run, net, after["adam_m"]),
              flat(last["m"]), flat(dm))
    table.add("second moments", picked(run, net, after["adam_v"]),
              flat(last["v"]), flat(dv))
    table.add("weights", picked(run, net, after["weights"][:size]),
              flat(last["w"]), flat(dw))
    sharp = flat(dw) < 0.01 * last["lr"]
    run.sharp = sharp.mean()
    if len(updates) == 1:
        adamw_alone(run, net, last["lr"], table)
    table.add("optimizer_step", after["optimizer_step"],
              run.optimizer_step + len(updates), 0)
    average(run, net, last, dw, table)


def adamw_alone(run, net, lr, table):
    """The weights that the recorded moments make: nothing of a gradient in it."""
    o, n = run.c["optim"], run.optimizer_step + 1
    w, m, v, got = (picked(run, net, x) for x in (
        run.weights, run.after["adam_m"], run.after["adam_v"],
        run.after["weights"]))
    move = lr * m / (1 - o["beta1"] ** n) / (
        np.sqrt(v / (1 - o["beta2"] ** n)) + o["eps"])
    table.add("weights by the recorded moments", got,
              w * (1 - lr * o["weight_decay"]) - move,
              2 * EPS * np.abs(w) + 2 * ULPS * EPS * np.abs(move))


def average(run, net, last, dw, table):
    """EMA: of the recorded weights, so that it is exact to roundings."""
    o = run.c["optim"]
    if o["ema_decay"] == 0:
        return
    if run.k == 1:
        e = picked(run, net, run.weights)
    elif run.before is None:
        return
    else:
        e = picked(run, net, run.before["ema"])
    way = np.zeros_like(e)
    if run.k % o["ema_every"] == 0:
        d, n = o["ema_decay"], run.after["optimizer_step"]
        if o["ema_ramp"]:
            d = min(d, (1 + n) / (10 + n))
        way = picked(run, net, run.after["weights"]) - e
        e = e + (1 - d) * way
    table.add("EMA", picked(run, net, run.after["ema"]), e,
              ULPS * EPS * (np.abs(e) + np.abs(way)))


def metrics(run, updates, table):
    m, f = run.metrics, run.file
    w, G = run.reward_weight, run.G
    score = (np.where(f["missing"] != 0, 0, f["reward"].astype(float)) @ w)
    ok = ~(f["missing"] != 0)[:, w != 0].any(axis=1)
    groups = [score[i:i + G][ok[i:i + G]] for i in range(0, run.N, G)]
    groups = [x for x in groups if len(x)]
    table.add("reward_mean", m["reward_mean"], np.mean([x.mean() for x in groups]),
              1e-6 * max(1, np.abs(score).max()))
    table.add("reward_std", m["reward_std"],
              np.mean([x.std(ddof=1) for x in groups if len(x) > 1]),
              1e-6 * max(1, np.abs(score).max()))
    error = max(u["error"].max() for u in updates)
    loss = np.mean([u["loss"].sum() for u in updates])
    most = np.mean([np.abs(u["loss"].numpy()).sum() for u in updates])
    table.add("loss", m["loss"], loss, most * (error + 4 * EPS)
              + run.c["grpo"]["kl_beta"] * max(u["kl_error"].max()
                                               for u in updates))
    num = sum(u["terms"].num for u in updates)  # those set aside, too
    cut = sum(int(u["cut"].sum()) for u in updates)
    unclear = sum(int(u["unclear"].sum()) for u in updates)
    table.add("clip_fraction", m["clip_fraction"], cut / num,
              unclear / num + 1e-9)
    if len(updates) > 1:
        rest = updates[1:]
        ratio = np.concatenate([u["ratio"].numpy() for u in rest])
        table.add("ratio_min", m["ratio_min"], ratio.min(), error + 2e-9)
        table.add("ratio_max", m["ratio_max"], ratio.max(), error + 2e-9)
        x = np.concatenate([u["plain"].numpy() for u in rest])
        table.add("approx_kl", m["approx_kl"], np.mean(np.expm1(x) - x),
                  np.mean(np.abs(x) * error + error ** 2) + 1e-9 * np.mean(x * x))
    if run.c["grpo"]["kl_beta"] > 0:
        kl = sum(u["kl"].numpy().sum() for u in updates) / num
        each = sum(u["kl_error"].sum() for u in updates) / num
        table.add("kl", m["kl"], kl, each + 1e-9 * kl)


def state(run, table):
    """What a trajectory began with is what the checkpoint before it holds."""
    if run.before is None:
        return
    size = len(run.weights)
    table.add("state: weights of the checkpoint before", run.weights,
              run.before["weights"][:size], 0)
    for name in ("adam_m", "adam_v"):
        if name in run.before:
            table.add(f"state: {name} of the checkpoint before",
                      run.file["state/" + name], run.before[name], 0)


def replay(folder, iteration, base):
    """The table of one iteration."""
    run, table = Run(folder, iteration), Table()
    for key, value, why in (
            ("optim.moments", run.c["optim"]["moments"], "rounded to 8 bits"),
            ("run.dtype", run.c["run"]["dtype"], "networks in another precision")):
        if value != "float32":
            sys.exit(f"{key} = {value}: {why}; only float32 is compared")
    if run.metrics["skipped_updates"] > 0:
        sys.exit("an update was skipped: not compared")
    base = base or run.c["policy"]["weights"] or run.c["policy"]["path"]
    nets = [Network(run.c, run.after["index"], len(run.weights), base, run.height,
                    run.width, d) for d in (torch.float64, torch.float32)]
    state(run, table)
    ends.check_prompts(run, table)
    ends.check_conditions(run, table, YARDSTICK, ULPS * EPS)
    levels_of(run, table)
    rollout(run, nets, table)
    ends.check_rewards(run, table, YARDSTICK, ULPS * EPS)
    selection(run, table)
    doubt = 4 * run.logp_error.max()
    updates, others = (run_chain(run, net, net.dtype, doubt) for net in nets)
    term_errors(run, updates, others)
    objective(run, updates, table)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--iteration", type=int)
    parser.add_argument("--base", help="what adapters belong to")
    args = parser.parse_args()
    quiet()
    k = args.iteration or last_iteration(args.run)
    run, table = replay(args.run, k, args.base)
    print(f"{args.run}, iteration {k}: {run.P} prompts x {run.G} samples, "
          f"{run.T} steps, {run.D} elements; network in float32 off by at most "
          f"{run.net_error / YARDSTICK:.1e}")
    table.show()
    print(f"{100 * run.sharp:.0f} % of the weights are compared to 1 % of an "
          "update or better")
    print("all agree" if not table.bad else f"{table.bad} do not agree")
    return table.bad != 0


if __name__ == "__main__":
    sys.exit(main())
