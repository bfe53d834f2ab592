"""Makes tests/golden/head_tiny.pth; run by hand, from the root of the tree,
after make_clip_fixture.py:

    python tests/golden/make_head_fixture.py

with torch and numpy. Writes

  head_tiny.pth  layers of the names of sac+logos+ava1-l14-linearMSE.pth, of
                 minute widths, the first that of clip_tiny's features, as
                 torch.save writes them
  head_tiny.txt  what they say, layer by layer in float64, of the features that
                 clip_tiny/golden.txt has of its pictures ("u8_image"), made
                 length 1: a line each

The tree's tests/test_aesthetic.c compares.
"""
import os

import numpy
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTHS = (24, 20, 12, 7, 5, 1)
NUMBERS = (0, 2, 4, 6, 7)  # those between are dropouts'


def features():
    words = open(HERE + "/clip_tiny/golden.txt", encoding="utf-8").read().split()
    at, out = 0, []
    while at < len(words):
        name, num = words[at], int(words[at + 1])
        if name.startswith("u8_image"):
            v = numpy.array(words[at + 2:at + 2 + num], dtype=numpy.float64)
            out.append(v / numpy.sqrt((v * v).sum()))
        at += 2 + num
    return out


def main():
    torch.manual_seed(5)
    state = {}
    for n, (i, o) in zip(NUMBERS, zip(WIDTHS, WIDTHS[1:])):
        state[f"layers.{n}.weight"] = torch.randn(o, i) * (2 / i) ** 0.5
        state[f"layers.{n}.bias"] = torch.randn(o) * 0.3
    state["layers.7.bias"] += 5
    torch.save(state, HERE + "/head_tiny.pth")
    with open(HERE + "/head_tiny.txt", "w", encoding="utf-8") as f:
        for v in features():
            for n in NUMBERS:
                w = state[f"layers.{n}.weight"].numpy().astype(numpy.float64)
                v = w @ v + state[f"layers.{n}.bias"].numpy()
            f.write("%.12g\n" % v[0])


main()
