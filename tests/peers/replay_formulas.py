"""The formulas of an iteration in double precision, written down from the papers and
doc/formats.md ("Recomputing an iteration"), for torch_replay.py. Nothing here knows
of networks; numbers may be numpy's or torch's.
"""
import math
import re

import numpy as np

# --- configuration ---------------------------------------------------------------

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_*][\w*-]*|[-+]?[\d.][\w.+-]*|[^\s]')


def parse_config(text):
    """libconfig's groups, lists and numbers, as the effective configuration has
    them, to dicts and lists."""
    tokens, at = TOKEN.findall(text), 0

    def value():
        nonlocal at
        t = tokens[at]
        at += 1
        if t == "{":
            return group("}")
        if t in "([":
            end, items = ")]"["([".index(t)], []
            while tokens[at] != end:
                items.append(value())
                at += tokens[at] == ","
            at += 1
            return items
        if t[0] == '"':
            return t[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        if t in ("true", "false"):
            return t == "true"
        return float(t) if re.search(r"[.eE]", t) else int(t)

    def group(end):
        nonlocal at
        out = {}
        while at < len(tokens) and tokens[at] != end:
            key = tokens[at]
            at += 2  # and = or :
            out[key] = value()
            if at < len(tokens) and tokens[at] in ";,":
                at += 1
        at += 1
        return out

    return group(None)


# --- random numbers: Philox4x32-10 -----------------------------------------------

(INIT_LATENTS, SDE_NOISE, TIMESTEPS, PROMPT_ORDER) = 1, 2, 3, 4
WINDOW = 18


def philox(seed, purpose, iteration, prompt, sample, step, blocks, first=0):
    """uint64 [blocks, 4]: the stream's words, below 2^32 each."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.arange(first, first + blocks, dtype=np.uint64),
         np.full(blocks, sample << 12 | step, np.uint64),
         np.full(blocks, prompt, np.uint64),
         np.full(blocks, iteration, np.uint64)]
    key = [(seed & 0xFFFFFFFF) ^ purpose, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), p1 & low,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), p0 & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF,
               (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, axis=1)


def normals(num, seed, purpose, iteration, prompt, sample, step=0):
    w = philox(seed, purpose, iteration, prompt, sample, step, -(-num // 4))
    a, v = w[:, 0::2], w[:, 1::2]
    u = ((a >> np.uint64(1)).astype(np.float32) + np.float32(0.5)) \
        * np.float32(2.0 ** -31)  # rounded: near u = 1 it is the radius
    r = np.sqrt(-2 * np.log(u.astype(np.float64)))
    angle = 2 * math.pi * v.astype(np.float64) / 2.0 ** 32
    z = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=2)
    return z.reshape(-1)[:num]


def below(n, element, *stream):
    w = philox(*stream, 0, 1, element // 2)[0]
    at = element % 2 * 2
    return ((int(w[at]) << 32) + int(w[at + 1])) * n >> 64


def permutation(n, *stream):
    out = list(range(n))
    words = philox(*stream, 0, n // 2 + 1).reshape(-1, 2)
    for i in range(n - 1, 0, -1):
        j = ((int(words[i, 0]) << 32) + int(words[i, 1])) * (i + 1) >> 64
        out[i], out[j] = out[j], out[i]
    return out


# --- schedules, windows ----------------------------------------------------------


def line(first, num):
    """num + 1 values from first to 0 in float32, from both ends to the middle."""
    f, i = np.float32, np.arange(num + 1)
    step = f(-first) / f(num)
    l = np.where(i < (num + 1) // 2, f(first) + step * i.astype(f),
                 f(0) - step * (num - i).astype(f)).astype(f)
    return l


def shifted(l, k):
    l = l.astype(np.float64)
    return k * l / (1 + (k - 1) * l)


def flow_times(l, k, compat):
    """What FLUX's network is told, in units of 1: sigma, or in whole thousandths,
    which float32 decides about."""
    if not compat:
        return shifted(l, k)[:-1]
    f = np.float32
    sigma = f(k) * l / (f(1) + f(k - 1) * l)
    return np.trunc(sigma * f(1000))[:-1].astype(np.float64) / 1000


def to_bfloat16(x):
    """Nearest, ties to even."""
    b = np.asarray(x, np.float32).view(np.uint32)
    b = (b + 0x7FFF + (b >> 16 & 1)) & np.uint32(0xFFFF0000)
    return b.view(np.float32).astype(np.float64)


def ddim_levels(T):
    """Times, and alpha_bar before and after each step: float32 as DDIMScheduler's,
    roundings of 1 - beta and all, which are 1e-6 of a std where it is least."""
    f = np.float32
    beta = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000).astype(f) ** 2
    a = np.cumprod((f(1) - beta).astype(np.float64)).astype(f).astype(np.float64)
    t = np.arange(T - 1, -1, -1) * (1000 // T) + 1
    return t, a[t], a[np.clip(t - 1000 // T, 0, 999)]


def window(c, T, iteration):
    """First step and number of stochastic steps; iteration counts from 0."""
    s = c["sampler"]
    if s["window_size"] == 0:
        return 0, T
    end, start = s["window_end"] or T - 1, s["window_start"]
    size, every = s["window_size"], s["window_every"]
    if s["window_move"] == "random" and every:
        start += below(end - size - start + 1, 0, c["run"]["seed"], WINDOW,
                       iteration // every, 0, 0)
    elif every:
        while iteration >= window_stay(s, start, end):
            iteration -= window_stay(s, start, end)
            if start + s["window_stride"] < end:
                start += s["window_stride"]
            elif s["window_wrap"]:
                start = 0
            else:
                break
    return start, min(size, end - start)


def window_stay(s, place, end):
    n = s["window_every"]
    if s["window_decay"] == "linear":
        least = s["window_every_least"]
        n = max(least, math.floor(n * (1 - place / end) + least * place / end))
    elif s["window_decay"] == "exp" and place > s["window_decay_from"]:
        n = math.ceil(n * math.exp(-s["window_decay_rate"]
                                   * (place - s["window_decay_from"])))
    return max(1, n)


# --- transitions -----------------------------------------------------------------


class Step:
    """One transition: mean(z, u), std, x0(z, u). Levels as doubles."""

    def __init__(self, kind, eta, level, after, second=None, before=None):
        self.kind, self.level, self.after, self.before = kind, level, after, before
        if eta == 0 and kind in ("dance", "flow_sde", "cps"):
            self.kind = "ode"
        if self.kind == "flow_sde":
            # at sigma = 1 the next level stands in the denominator
            eta *= math.sqrt(level / (1 - (after if level >= 1 else level)))
        self.eta, self.std = eta, 0.0
        if self.kind in ("dance", "flow_sde"):
            self.std = eta * math.sqrt(level - after)
        elif self.kind == "cps":
            self.std = after * math.sin(eta * math.pi / 2)
        elif self.kind == "ddim":
            self.std = eta * math.sqrt((1 - after) / (1 - level)
                                       * (1 - level / after))

    def x0(self, z, u):
        if self.kind == "ddim":
            return (z - math.sqrt(1 - self.level) * u) / math.sqrt(self.level)
        return z - self.level * u

    def mean(self, z, u, x0_before=None):
        s, n = self.level, self.after
        x0 = self.x0(z, u)
        if self.kind == "ode":
            return z + (n - s) * u
        if self.kind == "cps":
            return (1 - n) * x0 + math.sqrt(n * n - self.std ** 2) \
                * (z + (1 - s) * u)
        if self.kind == "ddim":
            return math.sqrt(n) * x0 + math.sqrt(1 - n - self.std ** 2) * u
        if self.kind == "2m":
            def lam(x):
                return math.log((1 - x) / x)
            c = (lam(n) - lam(s)) / (2 * (lam(s) - lam(self.before)))
            q = n / s
            return q * z + (1 - q) * ((1 + c) * x0 - c * x0_before)
        score = -(z - (1 - s) * x0) / s ** 2
        return z + (n - s) * u - 0.5 * self.eta ** 2 * score * (n - s)


def log_prob(step, z_next, mean, gaussian, average):
    """average: of the D elements of a latent, in whatever library."""
    square = average((z_next - mean) ** 2)
    if not gaussian:
        return -square
    return -square / (2 * step.std ** 2) - math.log(step.std) \
        - 0.5 * math.log(2 * math.pi)


# --- advantages, selection -------------------------------------------------------


def spread(r, ok, global_std):
    """mean and divisor of a group's valid scores; None: nothing to learn."""
    if ok.sum() < 2:
        return None
    mean, std = r[ok].mean(), r[ok].std(ddof=1)
    if global_std is not None:
        std = global_std - 1e-4  # as it is compared, without what is added
    if std < 1e-6 * max(1, abs(mean)):
        return None
    return mean, std + 1e-8 if global_std is None else global_std


def advantages(reward, missing, weight, G, agg, how):
    """Per reward [N, K], total [N]."""
    N, K = reward.shape
    A, ok = np.zeros((N, K)), ~missing & np.isfinite(reward)
    if agg == "reward_sum":
        all_ok = ok[:, weight != 0].all(axis=1)
        total = np.where(ok, reward, 0) @ weight
    for k in range(K):
        valid = all_ok if agg == "reward_sum" else ok[:, k]
        what = total if agg == "reward_sum" else reward[:, k]
        std = what[valid].std() + 1e-4 if how == "global" and valid.any() else None
        for g in range(0, N, G):
            at = slice(g, g + G)
            found = spread(what[at], valid[at], std)
            if found is None:
                continue
            mean, divisor = found
            part = valid[at] & ok[at, k]
            if agg == "reward_sum" and part.any():
                mean = reward[at, k][part].mean()
            A[at, k][part] = (reward[at, k][part] - mean) / divisor
    return A, A @ weight


def best_of_n(total, scored, top, bottom):
    """Members kept of one group, rising."""
    order = sorted(np.flatnonzero(scored), key=lambda i: (-total[i], i))
    kept = list(order) if len(order) <= top + bottom \
        else order[:top] + order[len(order) - bottom:]
    for i in np.flatnonzero(~scored):
        if len(kept) < top + bottom:
            kept.append(i)
    return sorted(int(i) for i in kept)


def num_chosen(g, K, T):
    if g["timestep_mode"] in ("all", "window"):
        return K
    if g["timestep_count"] == "ceil_t":
        return min(K, math.ceil(g["timestep_fraction"] * T - 1e-9))
    return math.floor(g["timestep_fraction"] * K + 1e-9)


def chosen(c, start, K, T, iteration, prompt, sample):
    """Steps trained on; K: stochastic steps but the last of all."""
    g = c["grpo"]
    count = num_chosen(g, K, T)
    steps = list(range(K))
    if g["timestep_mode"] == "random":
        shared = g["timestep_scope"] == "group"
        steps = permutation(K, c["run"]["seed"], TIMESTEPS, iteration, prompt,
                            0 if shared else sample)
    elif g["timestep_mode"] == "last":
        steps = steps[K - count:]
    return [start + s for s in steps[:count]]


def step_weights(how, steps, start, K):
    if how == "none":
        return np.ones(len(steps))
    size = np.array([s.std if how == "std" else 1 / (s.level - s.after)
                     for s in steps])
    return size / size[start:start + K].mean()


def learning_rate(o, n, num_updates):
    """Of update n, counted from 1."""
    if n <= o["warmup"]:
        return o["lr"] * n / o["warmup"]
    if o["schedule"] == "constant":
        return o["lr"]
    p = min(1, (n - o["warmup"]) / (num_updates - o["warmup"]))
    if o["schedule"] == "linear":
        return o["lr"] * (1 - p)
    return o["lr"] * (1 + math.cos(math.pi * p)) / 2
