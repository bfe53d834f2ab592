"""AdamW's moments in 8 bits (doc/formats.md, "Moments in 8 bits") in double, for
torch_replay.py: levels, the choice between two neighbours, blocks' scales; and which
codes numbers that are known up to an error may have.
"""
import math

import numpy as np

BLOCK = 256
TOP = {"m": 127, "v": 255}
FLOOR = {"m": 2.0 ** -100, "v": 2.0 ** -90}
FACTORS = {"m": (0x9E3779B1, 0x91E10DA5), "v": (0xC13FA9A9, 0x9E3779B9)}
SHIFT = 20


def levels(kind, codes):
    """Of whole numbers that a sign may stand before."""
    c, top = np.abs(codes), TOP[kind]
    x = (1 + (c - top) % 8 / 8) * 2.0 ** ((c - top) // 8)
    return np.sign(codes) * np.where(c == 0, 0.0, x)


def signed(kind, stored):
    """Codes as stored, uint8, to whole numbers with a sign."""
    c = stored.astype(np.int64)
    return np.where(c > 128, 128 - c, c) if kind == "m" else c


def spread(scales, num):
    return np.repeat(np.asarray(scales, float), BLOCK)[:num]


def decode(kind, stored, scales):
    """float32 [num], as a trajectory file has it."""
    c = signed(kind, stored)
    return (levels(kind, c) * spread(scales, len(c))).astype(np.float32)


def largest(kind, x):
    """Scale of each block of a flat array."""
    padded = np.zeros(-(-len(x) // BLOCK) * BLOCK)
    padded[:len(x)] = np.abs(x)
    return np.maximum(padded.reshape(-1, BLOCK).max(axis=1), FLOOR[kind])


def dither(kind, num, update):
    a, b = FACTORS[kind]
    i = np.arange(num, dtype=np.uint64)
    return ((i * np.uint64(a) + np.uint64(update * b)) & np.uint64(0xFFFFFFFF)) \
        >> np.uint64(32 - SHIFT)


def encode(kind, x, scales, update):
    """Codes with a sign. x: a flat array, all of it."""
    share = (np.abs(x) / spread(scales, len(x))).astype(np.float32)
    d = dither(kind, len(x), update).astype(np.int64)
    bits = share.view(np.uint32).astype(np.int64)
    c = (bits + d >> SHIFT) - (1016 - TOP[kind])
    if kind == "m":
        least = 1.25 * 2.0 ** -16
        low = share.astype(float) >= (2.0 ** SHIFT - d) * (least * 2.0 ** -SHIFT)
        c = np.where(share < np.float32(least), low.astype(np.int64), c)
    else:
        c = np.where(share > 0, np.maximum(c, 1), 0)
    return np.sign(x).astype(np.int64) * np.minimum(c, TOP[kind])


class Moment:
    """One moment as it is after an update, [num] of the flat buffer: as it came out
    of the update (exact, give or take error), and as it is kept."""

    def __init__(self, kind, exact, error, update):
        self.kind = kind
        self.scales = largest(kind, exact)
        self.scale_error = np.maximum(
            largest(kind, np.abs(exact) + error) - self.scales,
            self.scales - largest(kind, np.maximum(np.abs(exact) - error, 0)))
        self.codes = encode(kind, exact, self.scales, update)
        self.kept = levels(kind, self.codes) * spread(self.scales, len(exact))
        self.exact, self.error, self.update = exact, error, update

    def between(self, scales, off=0.0):
        """Least and greatest code for scales that are off by a part of so much."""
        num = len(self.exact)
        low, high = self.exact - self.error, self.exact + self.error
        if self.kind == "v":
            low = np.maximum(low, 0)
        part = spread(np.broadcast_to(off, len(scales)), num)
        # the further from 0 the larger, and the smaller a scale the larger
        return (encode(self.kind, low * (1 - np.sign(low) * part), scales,
                       self.update),
                encode(self.kind, high * (1 + np.sign(high) * part), scales,
                       self.update))

    def kept_error(self):
        """What the error makes of the moment that is kept, to first order."""
        low, high = self.between(self.scales, self.scale_error / self.scales)
        x, num = levels(self.kind, self.codes), len(self.exact)
        far = np.maximum(np.abs(levels(self.kind, low) - x),
                         np.abs(levels(self.kind, high) - x))
        return far * spread(self.scales, num) \
            + np.abs(x) * spread(self.scale_error, num)


def keep_in_codes(kind, net, tensors, update):
    """Tensors of a moment replaced by what their codes stand for."""
    size = max(at + math.prod(s) for _, at, s in net.index)
    whole = np.zeros(size)
    for (_, at, s), t in zip(net.index, tensors):
        whole[at:at + math.prod(s)] = t.double().numpy().ravel()
    kept = Moment(kind, whole, np.zeros(size), update).kept
    for (_, at, s), t in zip(net.index, tensors):
        t.copy_(t.new_tensor(kept[at:at + math.prod(s)].reshape(s)))


def whole(net, parts, size):
    """A list of tensors' arrays as the flat array that they are of."""
    out = np.zeros(size)
    for (_, at, s), x in zip(net.index, parts):
        out[at:at + math.prod(s)] = np.asarray(x, float).ravel()
    return out
