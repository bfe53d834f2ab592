"""The rollout of an iteration for torch_replay.py: noise, latents, log-densities, and
what the networks must have answered. Since the noise of each step is known, a run's
latents give its own predictions up to float32's roundings, however exact its networks
are: by these, log-densities and what was decoded are as exact in bfloat16 runs as in
float32 ones.
"""
import math

import numpy as np
import torch

import replay_formulas as formulas
from replay_chain import Term, guided, rows
from replay_table import EPS, ULPS, keep, rms

NOISE = 8 * EPS * 6.67  # of the program's normal numbers, the largest is 6.67


class Everything(Term):
    """All samples at one step."""

    def __init__(self, run, step):
        self.item, self.step = list(range(run.N)), [step] * run.N


def predictions(run, net, weights):
    """What a network predicts at all steps of all samples, [T, N, D]."""
    old, u = net.parameters(weights), []
    for t in range(run.T):
        z, level, time, condition, _ = rows(run, net.dtype, Everything(run, t))
        with torch.no_grad():
            u.append(guided(run, net, old, z, level, time,
                            condition).double().numpy())
    return np.stack(u)


def log_densities(run, step, after, mean):
    return formulas.log_prob(step, after, mean, run.gaussian,
                             lambda x: x.mean(axis=1))


def rounded_means(run, step, z, u):
    """What roundings of mu do to a log-density: those of D elements are as good as
    independent of each other and of the noise."""
    size = abs(step.mean(1.0, 0.0, 0.0)) * math.sqrt((z ** 2).mean()) \
        + abs(step.mean(0.0, 1.0, 0.0)) * math.sqrt((u ** 2).mean())
    slope = 1 / step.std if run.gaussian else 2 * step.std
    return ULPS * EPS * size * slope / math.sqrt(run.D)


def noise_of(run, t):
    """Times the step's standard deviation, [N, D]."""
    step = run.transition[t]
    if step.std == 0:
        return np.zeros((run.N, run.D))
    return step.std * np.stack([formulas.normals(
        run.D, run.c["run"]["seed"], formulas.SDE_NOISE, run.k - 1, n // run.G,
        n % run.G, t) for n in range(run.N)])


def first_noise(run, table):
    per_sample = run.c["sampler"]["init_noise"] == "per_sample"
    table.add("first noise", run.latents[:, 0], [
        formulas.normals(run.D, run.c["run"]["seed"], formulas.INIT_LATENTS,
                         run.k - 1, n // run.G, n % run.G if per_sample else 0)
        for n in range(run.N)], NOISE)


def rollout(run, nets, table):
    """Latents, noise, log-densities, what was decoded."""
    first_noise(run, table)
    worst, (u64, near) = {}, (predictions(run, n, run.weights) for n in nets)
    run.net_error = run.yardstick * np.abs(near - u64).max()
    run.logp_error, run.logp_rounding = np.zeros(run.T), np.zeros(run.T)
    own, own_error = np.zeros_like(u64), np.zeros(run.T)  # the run's predictions
    latents, x0, own_x0 = run.latents.astype(float), None, None
    for t, step in enumerate(run.transition):
        z, u, after = latents[:, t], u64[t], latents[:, t + 1]
        noise, kappa = noise_of(run, t), step.mean(0.0, 1.0, 0.0)
        error = ULPS * EPS * (abs(step.mean(1.0, 0.0, 0.0)) * np.abs(z).max()
                              + abs(kappa) * np.abs(u).max()) + NOISE * step.std
        keep(worst, "latents", after, step.mean(z, u, x0) + noise,
             abs(kappa) * run.net_error + error)
        own[t] = (after - noise - step.mean(z, 0.0 * u, own_x0)) / kappa
        own_error[t] = error / abs(kappa)
        logp = by_noise = np.zeros(run.N)
        if step.std > 0:
            logp = log_densities(run, step, after, step.mean(z, u))
            by_noise = log_densities(run, step, after, after - noise)
            run.logp_rounding[t] = rounded_means(run, step, z, u) \
                + 2 * ULPS * EPS * (1 + np.abs(logp).max())
            run.logp_error[t] = run.logp_rounding[t] + run.yardstick * np.abs(
                log_densities(run, step, after, step.mean(z, near[t])) - logp).max()
        got = run.file["log_prob"][:, t]
        keep(worst, "log-densities", got, logp, run.logp_error[t])
        keep(worst, "log-densities by the noise alone", got, by_noise,
             run.logp_rounding[t])
        x0, own_x0 = step.x0(z, u), step.x0(z, own[t])
    table.add_parts(worst)
    if run.rounds:
        as_torch_does(run, nets[0], u64, near, own, own_error, table)
    decoded(run, x0, own_x0, own_error[-1], table)


def decoded(run, x0, own_x0, own_error, table):
    decode, step = run.c["sampler"]["decode"], run.transition[-1]
    if decode == "auto":
        decode = "zT" if run.c["sampler"]["sde"] == "ddim" else "x0"
    if decode == "zT":
        table.add("decoded (last latent)", run.file["decoded"], run.latents[:, -1],
                  0)
        return
    last = abs(step.x0(0.0, 1.0))
    rounding = 2 * ULPS * EPS * np.abs(x0).max()
    table.add("decoded (x0)", run.file["decoded"], x0,
              last * run.net_error + rounding)
    table.add("decoded, by the last latent", run.file["decoded"], own_x0,
              last * own_error + rounding)


def cut_off(weights):
    """To bfloat16 towards 0."""
    bits = np.asarray(weights, np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def as_torch_does(run, net, u64, near, own, own_error, table):
    """In bfloat16: the run's predictions are no further from the exact ones than
    PyTorch's own, and its weights are rounded to the nearest: of the way from there
    to weights that are cut off, its predictions have gone nothing."""
    far = [rms(own[t] - u64[t]) for t in range(run.T)]
    theirs = np.array([rms(near[t] - u64[t]) for t in range(run.T)])
    run.of_torch = np.max(far / theirs)
    table.add("predictions, r.m.s. of a step", far, np.zeros(run.T),
              run.rms_yardstick * theirs + own_error)
    way = predictions(run, net, cut_off(run.weights)) - u64
    # else it drowns: adapters, or masters that are bfloat16's numbers still
    if rms(way) > 0.2 * rms(own - u64):
        table.add("weights cut off, not rounded", ((own - u64) * way).sum()
                  / (way * way).sum(), 0.0, 0.5)
