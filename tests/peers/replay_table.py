"""The table of torch_replay.py, and what numbers of a kind may differ by."""
import math
import sys

import numpy as np

EPS = 2.0 ** -24   # of a float32, rounded to nearest
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
        with np.errstate(invalid="ignore"):
            far = np.abs(got - want).ravel()
        far[((np.isnan(got) & np.isnan(want)) | (got == want)).ravel()] = 0
        far[np.isnan(far)] = np.inf
        if far.size == 0:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(far == 0, 0.0, far / tolerance)
        i = int(np.argmax(part))
        self.row(name, far[i], tolerance[i], part[i] <= 1)

    def add_parts(self, worst):
        """What keep() has gathered."""
        for name, parts in worst.items():
            self.add(name, *(np.concatenate(x, axis=None) for x in parts))

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


def keep(worst, name, got, want, tolerance):
    """Adds elements of a quantity that is one row in the end."""
    parts = worst.setdefault(name, ([], [], []))
    for to, what in zip(parts, (got, want, np.broadcast_to(tolerance,
                                                           np.shape(got)))):
        to.append(what)


def rms(x):
    return math.sqrt(np.mean(np.square(np.asarray(x, float)))) if np.size(x) else 0.0


def flat(tensors):
    return np.concatenate([np.asarray(t, float).ravel() for t in tensors])


def picked(index, array):
    """A flat array without the room between parameters."""
    return np.concatenate([np.asarray(array[at:at + math.prod(s)], float)
                           for _, at, s in index])
