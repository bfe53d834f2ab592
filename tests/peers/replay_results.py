"""What the updates of an iteration gave beside what the run recorded, for
torch_replay.py: terms, gradients, moments, weights, averages, metrics. updates: of the
double chain; others: of the one that says what the run's precision may be off by.
"""
import math

import numpy as np
import torch

from replay_chain import losses
from replay_moments import Moment, decode, signed, whole
from replay_table import EPS, ULPS, flat, keep, picked, rms

# What gradients of a single tensor, and in bfloat16 the median over those of a kind,
# may be off by how many times what PyTorch's are (doc/results.md has what is seen)
TENSOR_YARDSTICK, KIND_YARDSTICK, KIND_LEAST = 8, 2.5, 5

# --- terms -----------------------------------------------------------------------


def off(a, b):
    """Of two tensors; what is not finite is off by anything."""
    return np.nan_to_num((a.double() - b.double()).abs().numpy(), nan=np.inf)


def worst_of_step(run, steps, far):
    """What each term may be off by: the most of its step's, times the yardstick."""
    out = np.zeros(len(steps))
    for t in set(steps):
        out[steps == t] = run.yardstick * far[steps == t].max()
    return out


def term_errors(run, updates, others):
    """What the precision may be off by in each term: log-density, ratio,
    divergence."""
    for u, o in zip(updates, others):
        steps = np.array(u["terms"].step)
        base = run.logp_error[steps]
        u["logp_error"] = np.maximum(base, worst_of_step(run, steps,
                                                         off(u["logp"], o["logp"])))
        u["error"] = base + u["logp_error"]
        if run.c["grpo"]["ratio"] == "guard":
            u["error"] = u["error"] * [run.transition[t].std for t in steps]
        kl = u["kl"].numpy()
        u["kl_error"] = 4 * EPS * kl + run.yardstick * (
            off(u["kl"], o["kl"]).max() if kl.any() else 0)
        u["counts"] = np.array([i not in u["left_out"] for i in u["terms"].item])


def by_recorded(run, u):
    """The objective of a bfloat16 run's terms by the log-densities that the file has:
    so ratios, losses and the clip are as exact as in float32."""
    f, terms = run.file, u["terms"]
    at = tuple(zip(*terms.places))
    plain = f["replayed_log_prob"][at].astype(float) \
        - f["log_prob"][terms.item, terms.step]
    guard = run.c["grpo"]["ratio"] == "guard"  # has the mean's way in it, too
    ratio = torch.tensor(f["ratio"][at].astype(float) if guard else np.exp(plain))
    loss, cut, unclear = losses(run, terms, ratio, f["clipped"], 4 * EPS)
    u["by_torch"] = u["plain"]
    u.update(plain=torch.tensor(plain), ratio=ratio, cut=cut, unclear=unclear,
             loss=(loss + run.c["grpo"]["kl_beta"] * u["kl"]) / terms.num)


def objective(run, updates, others, table):
    """ratio, loss, clip of the last epoch's terms, as recorded."""
    f, worst = run.file, {}
    for u in updates[-run.num_parts:]:
        at = tuple(np.array(x, int) for x in zip(*u["terms"].places))
        if not at:
            continue
        there = ~np.isnan(f["ratio"][at])
        keep(worst, "replayed log-densities", f["replayed_log_prob"][at][there],
             u["logp"].numpy()[there], u["logp_error"][there])
        error = u["error"]
        if run.rounds:
            by_recorded(run, u)
            keep(worst, "their change since the rollout",
                 u["plain"].numpy()[there], u["by_torch"].numpy()[there],
                 error[there])
            error = np.full(len(error), EPS)
        ratio = u["ratio"].numpy()
        # of a ratio of 0 the log-density may be off by anything
        error = np.where(ratio == 0, 0.0, error)
        keep(worst, "ratios", f["ratio"][at][there], ratio[there],
             (error * ratio + EPS * ratio)[there])
        A = np.abs(run.total if run.c["grpo"]["adv_agg"] != "per_reward"
                   else np.abs(run.A) @ np.abs(run.reward_weight))
        A = np.minimum(A, run.c["grpo"]["advantage_clip"]
                       * max(1, np.abs(run.reward_weight).sum()))
        keep(worst, "losses", f["loss"][at][there], u["loss"].numpy()[there],
             ((A[u["terms"].item] * (error * ratio + 4 * EPS)
               * run.step_weight[u["terms"].step]
               + run.c["grpo"]["kl_beta"] * u["kl_error"]) / u["terms"].num)[there])
        sure = ~u["unclear"].numpy() & there
        keep(worst, "where the clip acts", f["clipped"][at][sure],
             u["cut"].numpy()[sure], 0)
    table.add_parts(worst)
    if run.rounds:  # in which rollout and update are off by much the same
        far, may = (torch.cat([x["plain"].double() - u["by_torch"]
                               for x, u in zip(some, updates)]).numpy()
                    for some in (updates, others))
        table.add("their change, r.m.s.", rms(far), 0.0,
                  run.yardstick * rms(may) + max(run.logp_rounding))


def skipped(run, updates, others, table):
    """Updates that are not applied, and why: their number, and their samples."""
    table.add("updates not applied", run.metrics["skipped_updates"],
              sum(not u["applied"] for u in updates), 0)
    table.add("samples set aside", run.metrics["set_aside"],
              sum(len(u["left_out"]) for u in updates)
              + run.c["grpo"]["epochs"] * sum(not run.scored[n] for n in run.kept),
              0)
    for u, o in zip(updates, others):
        lost = [i for i, p in enumerate(u["terms"].places)
                if u["left_out"] and np.isnan(run.file["ratio"][p])]
        items = sorted({u["terms"].item[i] for i in lost})
        if items:
            bad = [any(not torch.isfinite(o["u"][i]).all() for i in lost
                       if u["terms"].item[i] == n) for n in items]
            table.add("what is not finite in PyTorch's float32", bad,
                      [True] * len(bad), 0)


# --- gradients, moments, weights -------------------------------------------------


def largest_errors(run, u, o):
    """Of each tensor: what an element of PyTorch's gradient is off by at most. In
    bfloat16 a small tensor's error may by chance be a tenth of its usual one: so not
    less than what is usual for tensors, beside their size."""
    far = np.array([float((a - b.double()).abs().max())
                    for a, b in zip(u["grad"], o["grad"])])
    if run.rounds:
        size = np.array([rms(a) for a in u["grad"]])
        some = size > 0
        if some.any():
            far = np.maximum(far, np.median(far[some] / size[some]) * size)
    return far


def gradient_errors(run, updates, others, num_terms):
    """Of each update and tensor: what the precision may be off by, for each element
    the same; and of the norm."""
    out = []
    for u, o in zip(updates, others):
        tensors = [TENSOR_YARDSTICK * far + ULPS * EPS * float(a.abs().max())
                   + num_terms * 1e-12
                   for a, far in zip(u["grad"], largest_errors(run, u, o))]
        far = math.sqrt(sum(float(((a - b.double()) ** 2).sum())
                            for a, b in zip(u["grad"], o["grad"])))
        out.append((tensors, run.yardstick * far + ULPS * EPS * u["norm"]))
    return out


def moved(run, net, u, dm, dv, step):
    """Errors of moments after an update to those of what is kept of them."""
    if run.c["optim"]["moments"] != "int8":
        return dm, dv
    size, out = len(run.adam_m), []
    for kind, d in (("m", dm), ("v", dv)):
        u[kind + "8"] = Moment(kind, whole(net, u[kind], size),
                               whole(net, d, size), step)
        kept = u[kind + "8"].kept_error()
        out.append([kept[at:at + math.prod(s)].reshape(s)
                    for _, at, s in net.index])
    return out


def adam_errors(run, net, updates, errors):
    """What errors of gradients make of moments and weights, to first order;
    lists of tensors' arrays."""
    o = run.c["optim"]
    b1, b2 = o["beta1"], o["beta2"]
    dm = [np.zeros(s) for _, _, s in net.index]
    dv, dw = [x.copy() for x in dm], [x.copy() for x in dm]
    for n, (u, (tensors, norm_error)) in enumerate(zip(updates, errors), 1):
        step = run.optimizer_step + n
        c1, c2 = 1 - b1 ** step, 1 - b2 ** step
        decay = abs(1 - u["lr"] * o["weight_decay"])
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
            move = dm[i] / c1 / low + m / c1 * droot / low ** 2 \
                + 2 * ULPS * EPS * m / c1 / low
            dw[i] = decay * dw[i] + u["lr"] * move \
                + 2 * EPS * np.abs(u["w"][i].numpy())
        dm, dv = moved(run, net, u, dm, dv, step)
    return dm, dv, dw


def results(run, net, updates, others, table):
    """Of the updates that are applied."""
    after, size = run.after, len(run.weights)
    both = [(u, o) for u, o in zip(updates, others) if u["applied"]]
    table.add("optimizer_step", after["optimizer_step"],
              run.optimizer_step + len(both), 0)
    if not both:
        nothing_done(run, table)
        average(run, net, table)
        return
    updates, others = zip(*both)
    errors = gradient_errors(run, updates, others, run.N * len(run.steps[0]))
    norms, last = [u["norm"] for u in updates], updates[-1]
    table.add("grad_norm (metrics)", run.metrics["grad_norm"], max(norms),
              max(e for _, e in errors) + 1e-9 * max(norms))
    table.add("lr (metrics)", run.metrics["lr"], last["lr"], 1e-8 * last["lr"])
    dm, dv, dw = adam_errors(run, net, updates, errors)
    if run.c["optim"]["moments"] == "int8":
        codes(run, last, table)
    else:
        table.add("first moments", picked(net.index, after["adam_m"]),
                  flat(last["m"]), flat(dm))
        table.add("second moments", picked(net.index, after["adam_v"]),
                  flat(last["v"]), flat(dv))
    table.add("weights", picked(net.index, after["weights"][:size]),
              flat(last["w"]), flat(dw))
    run.sharp = [(flat(dw) < part * last["lr"]).mean() for part in (0.01, 0.1)]
    if run.rounds:
        as_torch_does(run, net, last, others[-1], table)
    if len(updates) == 1 and run.c["optim"]["moments"] == "float32":
        adamw_alone(run, net, last, table)
    average(run, net, table)


def nothing_done(run, table):
    """An iteration none of whose updates is applied."""
    run.sharp = [1.0, 1.0]
    for key in ("grad_norm", "lr"):
        table.add(f"{key} (metrics)", run.metrics[key], 0, 0)
    for name in ("weights", "adam_m", "adam_v"):
        after = moment_of(run.after, name) if name != "weights" \
            else run.after["weights"][:len(run.weights)]
        table.add(f"{name} as before", after, getattr(run, name), 0)


def codes(run, last, table):
    """Codes and scales as stored, against those that the errors leave."""
    for kind, name in (("m", "first"), ("v", "second")):
        x = last[kind + "8"]
        scales = run.after[f"adam_{kind}_scales"].astype(float)
        table.add(f"scales of {name} moments", scales, x.scales,
                  x.scale_error + EPS * x.scales)
        low, high = x.between(scales, 2 * EPS)
        got = signed(kind, run.after[f"adam_{kind}_codes"])
        table.add(f"codes of {name} moments", got, np.clip(got, low, high), 0)
        run.sure.append((low == high).mean())


def kinds_of(net):
    """Tensors that have one place in blocks of one kind: a list of their indices of
    each kind."""
    out = {}
    for i, (name, _, _) in enumerate(net.index):
        words = [x for x in name.split(".") if not x.isdigit()
                 and x not in ("down_blocks", "up_blocks", "mid_block")]
        out.setdefault(".".join(words), []).append(i)
    return list(out.values())


def as_torch_does(run, net, last, other, table):
    """Root mean squares of the differences in each tensor, by the tensor's own, beside
    those that PyTorch's bfloat16 has. What a single tensor has is chance: so the
    median of the quotients; of first moments also that of the worst kind of tensors and,
    with room, the worst tensor. In second moments few elements have most of a mean
    square, and in weights one gradient that is mere rounding moves as far as any.
    Tensors that PyTorch has half wrong (a key's bias has no gradient) say nothing."""
    names = {"w": ("weights", "weights")}
    if run.c["optim"]["moments"] == "float32":
        names.update(m=("first moments", "adam_m"), v=("second moments", "adam_v"))
    for key, (name, array) in names.items():
        got, at, far, theirs = picked(net.index, run.after[array]), 0, [], []
        for a, b in zip(last[key], other[key]):
            a, b = a.double().numpy().ravel(), b.double().numpy().ravel()
            far.append(rms(got[at:at + a.size] - a) / rms(a))
            theirs.append(rms(b - a) / rms(a))
            at += a.size
        far, theirs = np.array(far), np.array(theirs)
        clear = theirs < 0.5
        table.add(f"{name}, of PyTorch's error (median)",
                  np.median((far / theirs)[clear]), 0.0, run.rms_yardstick)
        if key == "m":
            run.tensors = [(n, *x) for (n, _, _), *x in zip(net.index, far, theirs)]
            kinds = [[i for i in kind if clear[i]] for kind in kinds_of(net)]
            of = [np.median(far[k] / theirs[k]) for k in kinds if len(k) >= KIND_LEAST]
            table.add(f"{name}, the same of a kind of tensors", of,
                      np.zeros(len(of)), KIND_YARDSTICK)
            far, theirs = far[clear], theirs[clear]
            table.add(f"{name}, r.m.s. of a tensor", far, np.zeros(len(far)),
                      TENSOR_YARDSTICK * np.maximum(theirs, np.median(theirs)))


def adamw_alone(run, net, last, table):
    """What the recorded moments make: nothing of a network in it. The first moments
    give the gradient, and it the second ones and its norm."""
    o, n = run.c["optim"], run.optimizer_step + 1
    w, m0, v0, m, v, got = (picked(net.index, x) for x in (
        run.weights, run.adam_m, run.adam_v, run.after["adam_m"],
        run.after["adam_v"], run.after["weights"]))
    b1, b2 = o["beta1"], o["beta2"]
    g = (m - b1 * m0) / (1 - b1)
    dg = 3 * EPS * (np.abs(m) + np.abs(m0)) / (1 - b1)
    table.add("second moments by the recorded first", v, b2 * v0 + (1 - b2) * g ** 2,
              (1 - b2) * (2 * np.abs(g) * dg + dg ** 2)
              + 2 * ULPS * EPS * (v0 + (1 - b2) * g ** 2))
    norm = run.metrics["grad_norm"]
    scale = min(1, o["max_grad_norm"] / (norm + 1e-6)) \
        if o["max_grad_norm"] > 0 else 1
    table.add("grad_norm by the recorded moments", norm * scale,
              math.sqrt((g ** 2).sum()), math.sqrt((dg ** 2).sum()) + 1e-8 * norm)
    lr = last["lr"]
    move = lr * m / (1 - b1 ** n) / (np.sqrt(v / (1 - b2 ** n)) + o["eps"])
    table.add("weights by the recorded moments", got,
              w * (1 - lr * o["weight_decay"]) - move,
              2 * EPS * np.maximum(np.abs(w), np.abs(got))
              + 2 * ULPS * EPS * np.abs(move))


def average(run, net, table):
    """EMA: of the recorded weights, so that it is exact to roundings."""
    o = run.c["optim"]
    if o["ema_decay"] == 0:
        return
    if run.k == 1:
        e = picked(net.index, run.weights)
    elif run.before is None:
        return
    else:
        e = picked(net.index, run.before["ema"])
    way = np.zeros_like(e)
    if run.k % o["ema_every"] == 0:
        d, n = o["ema_decay"], run.after["optimizer_step"]
        if o["ema_ramp"]:
            d = min(d, (1 + n) / (10 + n))
        way = picked(net.index, run.after["weights"]) - e
        e = e + (1 - d) * way
    table.add("EMA", picked(net.index, run.after["ema"]), e,
              ULPS * EPS * (np.abs(e) + np.abs(way)))


# --- metrics ---------------------------------------------------------------------


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
    error = EPS if run.rounds else max(
        u["error"][u["counts"] & (u["ratio"].numpy() != 0)].max(initial=0)
        for u in updates)

    def of(key, some):
        return [u[key].numpy()[u["counts"]].astype(float) for u in some]
    loss = [x.sum() for x in of("loss", updates)]
    most = np.mean([np.abs(x).sum() for x in of("loss", updates)])
    kl_error = [u["kl_error"][u["counts"]] for u in updates]
    table.add("loss", m["loss"], np.mean(loss), most * (error + 4 * EPS)
              + run.c["grpo"]["kl_beta"] * max(x.max(initial=0) for x in kl_error))
    num = sum(u["terms"].num for u in updates)  # those set aside, too
    cut = sum(x.sum() for x in of("cut", updates))
    unclear = sum(x.sum() for x in of("unclear", updates))
    table.add("clip_fraction", m["clip_fraction"], cut / num,
              unclear / num + 1e-9)
    ratio, x = (np.concatenate(of(key, updates[1:]) + [np.zeros(0)])
                for key in ("ratio", "plain"))
    if len(ratio):
        table.add("ratio_min", m["ratio_min"], ratio.min(), error + 2e-9)
        table.add("ratio_max", m["ratio_max"], ratio.max(), error + 2e-9)
        table.add("approx_kl", m["approx_kl"], np.mean(np.expm1(x) - x),
                  np.mean(np.abs(x) * error + error ** 2) + 1e-9 * np.mean(x * x))
    if run.c["grpo"]["kl_beta"] > 0:
        kl = sum(x.sum() for x in of("kl", updates)) / num
        each = sum(x.sum() for x in kl_error) / num
        table.add("kl", m["kl"], kl, each + 1e-9 * kl)


def moment_of(checkpoint, name):
    """float32 as a trajectory file has it, whichever way it is kept."""
    if name in checkpoint:
        return checkpoint[name]
    return decode(name[-1], checkpoint[name + "_codes"], checkpoint[name + "_scales"])
