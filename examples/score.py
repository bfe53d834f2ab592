#!/usr/bin/env python3
"""A reward of your own for dancegrpo, by Python's standard library alone:

    rewards = ({ name = "colourful"; command = "python3 examples/score.py"; });

Each rank starts it once and asks it for one picture at a time. It scores how
colourful a picture is (Hasler and Suesstrunk 2003). Where a network goes is said
below; doc/howto.md has the protocol, "A reward of your own: an external program".
"""
import json
import os
import signal
import statistics
import sys
import traceback

# Standard output is for answers alone. What libraries print there goes to
# standard error, and so to the run's log.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

# A batch system that stops a job may send this to all of its processes, but the
# run still needs scores. This program ends when its standard input does.
signal.signal(signal.SIGTERM, signal.SIG_IGN)


def load():
    """Whatever takes long; the run waits for it (start_seconds).

    For a network on a GPU, one for each rank of a node:
        rank = int(os.environ["DANCEGRPO_LOCAL_RANK"])
        device = f"cuda:{rank % torch.cuda.device_count()}"
        torch.use_deterministic_algorithms(True)
        return Network.from_pretrained("...").to(device).eval()
    """
    return None


def score(network, request, rgb):
    """A number for a picture: rgb has height * width * 3 bytes.

    For a network:
        picture = PIL.Image.frombytes("RGB", (width, height), rgb)
        with torch.inference_mode():
            return network(picture, request["prompt"]).item()
    It must depend on picture and prompt alone: no batches, no random crops.
    request["metadata"] is the prompt's line of a .jsonl file. None: no score.
    """
    step = 3 * max(1, len(rgb) // 3 // 4096)  # some 4096 pixels will do
    red, green, blue = rgb[0::step], rgb[1::step], rgb[2::step]
    rg = [r - g for r, g in zip(red, green)]
    yb = [(r + g) / 2 - b for r, g, b in zip(red, green, blue)]
    spread = (statistics.pvariance(rg) + statistics.pvariance(yb)) ** 0.5
    centre = (statistics.fmean(rg) ** 2 + statistics.fmean(yb) ** 2) ** 0.5
    return (spread + 0.3 * centre) / 100


def say(what):
    answers.write(json.dumps(what) + "\n")
    answers.flush()


network = load()
# version: what scores depend on, such as a digest of the weights; all ranks must
# say the same, and a run is continued only by a program that does
say({"protocol": 1, "version": "colourfulness 1"})
for line in iter(sys.stdin.buffer.readline, b""):
    request = json.loads(line)
    rgb = sys.stdin.buffer.read(3 * request["height"] * request["width"])
    try:
        value = score(network, request, rgb)
        answer = {"score": value} if value is not None else {"missing": "none"}
    except Exception as error:  # this picture has no score; the run goes on
        traceback.print_exc()
        answer = {"missing": repr(error)}
    say({"id": request["id"], **answer})
