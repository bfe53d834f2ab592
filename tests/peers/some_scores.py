#!/usr/bin/env python3
"""A reward program for replay_cases.py that leaves a third of the pictures without a
score: by their own first bytes, so that it does not matter in which order they come.
"""
import json
import sys

print(json.dumps({"protocol": 1}), flush=True)
for line in sys.stdin.buffer:
    ask = json.loads(line)
    rgb = sys.stdin.buffer.read(3 * ask["height"] * ask["width"])
    answer = {"id": ask["id"], "score": sum(rgb) / len(rgb) / 255}
    if sum(rgb[:30]) % 3 == 0:
        answer = {"id": ask["id"], "missing": "sums of three"}
    print(json.dumps(answer), flush=True)
