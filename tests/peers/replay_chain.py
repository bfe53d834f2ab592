"""The updates of an iteration by PyTorch's autograd and AdamW, for torch_replay.py:
once in double, the reference, and once in float32, the yardstick of what float32 may
differ by (of a run in bfloat16 with networks in that).
"""
import math

import torch

import replay_formulas as formulas
from replay_moments import keep_in_codes


class Term:
    """The terms of one update: rows are (kept sample, chosen step). num: what the
    loss is divided by; samples without a score count there and have no term."""

    def __init__(self, run, update):
        at = [k for k in range(len(run.kept)) if run.belongs[k] == update]
        self.num = sum(len(run.steps[k]) for k in at)
        at = [k for k in at if run.scored[run.kept[k]]]
        self.places = [(k, j) for k in at for j in range(len(run.steps[k]))]
        self.item = [run.kept[k] for k, _ in self.places]
        self.step = [run.steps[k][j] for k, j in self.places]


def rows(run, dtype, terms):
    """z, level, time, condition, next latent of terms."""
    z = torch.tensor(run.latents[terms.item, terms.step], dtype=dtype)
    after = torch.tensor(run.latents[terms.item,
                                     [t + 1 for t in terms.step]], dtype=dtype)
    group = [i // run.G for i in terms.item]
    condition = torch.tensor(run.condition[group], dtype=dtype)
    level = torch.tensor(run.sigma[terms.step], dtype=dtype)
    time = torch.tensor(run.time[terms.step], dtype=dtype)
    return z, level, time, condition, after


def guided(run, net, parameters, z, level, time, condition):
    """Predictions, with guidance where the run has it."""
    w = run.c["cfg"]["scale"]
    with_prompt = net.predict(parameters, z, level, time, condition)
    if w == 1:
        return with_prompt
    empty = torch.tensor(run.uncond, dtype=z.dtype).expand(len(z), -1)
    if run.c["cfg"]["grad"] == "detach_uncond":
        with torch.no_grad():
            without = net.predict(parameters, z, level, time, empty)
    else:
        without = net.predict(parameters, z, level, time, empty)
    return without + w * (with_prompt - without)


def gaussians(run, terms, z, u, after):
    """Means and log-densities, term by term."""
    mean = torch.stack([run.transition[t].mean(z[i], u[i])
                        for i, t in enumerate(terms.step)])
    logp = torch.stack([
        formulas.log_prob(run.transition[t], after[i], mean[i], run.gaussian,
                          torch.mean) for i, t in enumerate(terms.step)])
    return mean, logp


def std_of(run, terms, dtype):
    return torch.tensor([run.transition[t].std for t in terms.step], dtype=dtype)


def pessimistic(A, ratio, low, high, acts, doubt):
    """max(-A r, -A clamp(r)). Where a ratio is as near to an edge of the clip as the
    precision is exact, what the run did decides: held at the edge it has no
    gradient, on whichever side of it this ratio may be."""
    edge = torch.where(A > 0, 1 + high, 1 - low).to(ratio.dtype)
    plain, cut = -A * ratio, -A * torch.clamp(ratio, 1 - low, 1 + high)
    near = (ratio.detach() - edge).abs() < doubt
    by_run = torch.where(acts, -A * edge, plain)
    return torch.where(near, by_run, torch.maximum(plain, cut))


def losses(run, terms, ratio, recorded, doubt):
    """Each term's loss, before it is divided by their number; whether the clip
    acts on it, and whether float32 can tell."""
    g, dtype = run.c["grpo"], ratio.dtype
    low = g["clip_range_low"] or g["clip_range"]
    high = g["clip_range_high"] or g["clip_range"]
    most = g["advantage_clip"]
    acts = torch.tensor([bool(recorded[p]) for p in terms.places])
    weight = torch.tensor(run.step_weight[terms.step], dtype=dtype)
    parts = [(1.0, run.total)]
    if g["adv_agg"] == "per_reward":
        parts = [(w, run.A[:, k]) for k, w in enumerate(run.reward_weight)]
    total, cut = 0, torch.zeros(len(terms.item), dtype=torch.bool)
    unclear = torch.zeros_like(cut)
    for w, A in parts:
        A = torch.tensor(A[terms.item], dtype=dtype).clamp(-most, most)
        total = total + w * pessimistic(A, ratio, low, high, acts, doubt)
        r = ratio.detach()
        if w != 0:
            cut |= ((A > 0) & (r > 1 + high)) | ((A < 0) & (r < 1 - low))
            unclear |= (A != 0) & ((r - torch.where(A > 0, 1 + high, 1 - low))
                                   .abs() < doubt)
    return total * weight, cut, unclear


class Chain:
    """All updates of an iteration in one precision. first: those of the double chain,
    which decides what is left out and what has a gradient; None: this is it."""

    def __init__(self, run, net, doubt, first):
        self.run, self.net, self.dtype, self.doubt = run, net, net.dtype, doubt
        self.first = first
        self.parameters = [p.requires_grad_() for p in
                           net.parameters(run.weights)]
        o = run.c["optim"]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=o["lr"], betas=(o["beta1"], o["beta2"]),
            eps=o["eps"], weight_decay=o["weight_decay"], foreach=False)
        for p, m, v in zip(self.parameters, net.parameters(run.adam_m),
                           net.parameters(run.adam_v)):
            self.optimizer.state[p] = dict(
                step=torch.tensor(float(run.optimizer_step)), exp_avg=m,
                exp_avg_sq=v)
        self.old = net.parameters(run.weights)
        self.reference = None
        if run.c["grpo"]["kl_beta"] > 0 and net.base is None:
            self.reference = net.parameters(run.reference)
        self.updates = []

    def forward(self, terms, last_epoch):
        """Everything of an update's terms, and their loss."""
        run, dtype = self.run, self.dtype
        z, level, time, condition, after = rows(run, dtype, terms)
        u = guided(run, self.net, self.parameters, z, level, time, condition)
        mean, logp = gaussians(run, terms, z, u, after)
        with torch.no_grad():
            u_old = guided(run, self.net, self.old, z, level, time, condition)
            mean_old, old = gaussians(run, terms, z, u_old, after)
        log_ratio, std = logp - old, std_of(run, terms, dtype)
        plain = log_ratio.detach()
        if run.c["grpo"]["ratio"] == "guard":
            drift = ((mean - mean_old) ** 2).mean(dim=1) / (2 * std ** 2)
            log_ratio = std * (log_ratio + drift)
        ratio = torch.exp(log_ratio)
        # the file has the last epoch's decisions alone
        recorded = run.file["clipped"] if last_epoch \
            else {p: False for p in terms.places}
        loss, cut, unclear = losses(run, terms, ratio, recorded,
                                    self.doubt if last_epoch else 0.0)
        kl = torch.zeros_like(loss)
        if run.c["grpo"]["kl_beta"] > 0:
            with torch.no_grad():
                ref = guided(run, self.net, self.reference, z, level, time,
                             condition)
                mean_ref, _ = gaussians(run, terms, z, ref, after)
            kl = ((mean - mean_ref) ** 2).mean(dim=1) / (2 * std ** 2)
            loss = loss + run.c["grpo"]["kl_beta"] * kl
        return loss / terms.num, dict(
            terms=terms, u=u.detach(), logp=logp.detach(), old=old,
            ratio=ratio.detach(), plain=plain, cut=cut, unclear=unclear,
            loss=loss.detach() / terms.num, kl=kl.detach())

    def too_large(self, terms, loss):
        """Samples whose own gradient no sum takes, or which is not finite."""
        run, out = self.run, set()
        for item in sorted(set(terms.item)):
            mine = [i for i, n in enumerate(terms.item) if n == item]
            grad = torch.autograd.grad(loss[mine].sum(), self.parameters,
                                       retain_graph=True, allow_unused=True)
            most = max(float(g.abs().max()) for g in grad if g is not None)
            if not most <= run.gradient_limit:
                out.add(item)
        return out

    def update(self, number, last_epoch):
        run = self.run
        terms = Term(run, number % run.num_parts)
        loss, done = self.forward(terms, last_epoch)
        if self.first:
            left_out, asks = (self.first[len(self.updates)][key]
                              for key in ("left_out", "asks"))
        else:
            # a ratio of 0 asks nothing of a network that may hardly be finite there
            asks = (done["ratio"] != 0) | (run.c["grpo"]["kl_beta"] > 0)
            left_out = {n for n, p in zip(terms.item, terms.places)
                        if last_epoch and math.isnan(run.file["ratio"][p])}
            if run.metrics["skipped_updates"] > 0 or run.large_gradients:
                left_out |= self.too_large(terms, loss)
        done.update(left_out=left_out, asks=asks, applied=not left_out)
        if done["applied"] and asks.any():
            loss[asks].sum().backward()
        done["grad"] = [torch.zeros_like(p) if p.grad is None else p.grad.clone()
                        for p in self.parameters]
        self.updates.append(done)
        if done["applied"]:
            self.apply(done)
        done["w"] = [p.detach().clone() for p in self.parameters]

    def apply(self, done):
        o = self.run.c["optim"]
        n = self.run.optimizer_step + sum(u["applied"] for u in self.updates)
        done["norm"] = math.sqrt(sum(float((g.double() ** 2).sum())
                                     for g in done["grad"]))
        done["scale"] = 1.0
        if o["max_grad_norm"] > 0:
            done["scale"] = min(1.0, o["max_grad_norm"] / (done["norm"] + 1e-6))
        done["lr"] = formulas.learning_rate(o, n, self.run.all_updates)
        for p, g in zip(self.parameters, done["grad"]):
            p.grad = done["scale"] * g
        for group in self.optimizer.param_groups:
            group["lr"] = done["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        state = [self.optimizer.state[p] for p in self.parameters]
        # as they came out of the update, which has moved weights by them
        done["m"] = [s["exp_avg"].clone() for s in state]
        done["v"] = [s["exp_avg_sq"].clone() for s in state]
        if o["moments"] == "int8":
            for kind, name in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                keep_in_codes(kind, self.net, [s[name] for s in state], n)


def run_chain(run, net, doubt, first=None):
    chain = Chain(run, net, doubt, first)
    for epoch in range(run.c["grpo"]["epochs"]):
        for part in range(run.num_parts):
            chain.update(part, epoch == run.c["grpo"]["epochs"] - 1)
    return chain.updates
