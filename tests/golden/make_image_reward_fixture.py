"""Makes tests/golden/image_reward_tiny; run by hand, from the root of the tree:

    python tests/golden/make_image_reward_fixture.py

with torch, pillow, transformers 4, after make_wordpiece.py. Writes

  image_reward_tiny/ImageReward.pt  minute random networks as torch.save writes
                     them, in float16, under the names of THUDM's file, with
                     what that has besides: position_ids, two projections
  image_reward_tiny/config.json     their sizes
  image_reward_tiny/golden.txt      what transformers' BlipVisionModel and
                     BlipTextModel, which are the same networks, and the linear
                     layers make of pictures and prompts: lines "name count"
                     and the numbers

Texts are padded to 35 ids with a mask, as ImageReward does, which the program
cuts them for. Pictures are those of make_clip_fixture.py, resized by Pillow
and cut as torchvision does. tests/test_image_reward.c compares.
"""
import json
import os
import shutil

import numpy
import torch
import transformers
from PIL import Image
from transformers.models.blip import modeling_blip, modeling_blip_text

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "image_reward_tiny")
SIDE, TOKENS = 34, 35  # two pixels more than four patches
SIZES = ((64, 64), (50, 37), (24, 61), (35, 90), (34, 34), (38, 37))
PROMPTS = ("A red circle, and two blue squares!", "",
           "3 green triangles left of a cat " * 12,
           "Crème brûlée 龍 [SEP] déjà-vu")
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
COLOURS = ((0.48145466, 0.4578275, 0.40821073),
           (0.26862954, 0.26130258, 0.27577711))
VISION = dict(image_size=SIDE, patch_size=8, hidden_size=48,
              intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
              hidden_act="gelu", layer_norm_eps=1e-6)
TEXT = dict(vocab_size=2979, hidden_size=32, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu",
            max_position_embeddings=40, layer_norm_eps=1e-12)


def picture(height, width):
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width),
                             numpy.arange(3), indexing="ij")
    smooth = 3 * x + 2 * y * (c + 1)
    rough = (x * y * 7 + 13 * c) % 83 + 40 * ((x // 5 + y // 3) % 3)
    return ((smooth + rough) % 256).astype(numpy.uint8)


def as_torchvision(u8):
    height, width = u8.shape[:2]
    short, long = min(height, width), max(height, width)
    new = {short: SIDE, long: int(SIDE * long / short)}
    image = Image.fromarray(u8).resize((new[width], new[height]),
                                       Image.BICUBIC)
    left, top = (int(round((n - SIDE) / 2.0)) for n in image.size)
    image = image.crop((left, top, left + SIDE, top + SIDE))
    x = torch.from_numpy(numpy.asarray(image).copy()).permute(2, 0, 1) / 255
    mean, deviation = (torch.tensor(c)[:, None, None] for c in COLOURS)
    return ((x - mean) / deviation)[None]


class Mlp(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        linear, none = torch.nn.Linear, torch.nn.Identity
        self.layers = torch.nn.Sequential(
            linear(width, 1024), none(), linear(1024, 128), none(),
            linear(128, 64), none(), linear(64, 16), linear(16, 1))


def networks():
    torch.manual_seed(4)
    vision = modeling_blip.BlipVisionModel(
        transformers.BlipVisionConfig(**VISION)).eval()
    text = modeling_blip_text.BlipTextModel(
        transformers.BlipTextConfig(
            encoder_hidden_size=VISION["hidden_size"], pad_token_id=0, **TEXT),
        add_pooling_layer=False).eval()
    mlp = Mlp(TEXT["hidden_size"]).eval()
    for m in vision, text, mlp:
        for name, p in m.named_parameters():  # fresh biases and norms say nothing
            if p.dim() == 1:
                p.data += 0.1 * torch.randn_like(p)
            elif "embedding" in name:
                p.data += 0.5 * torch.randn_like(p)
            else:
                p.data = torch.randn_like(p) * 1.2 / p[0].numel() ** 0.5
            p.data = p.data.half().float()  # so that float16 holds them
    return vision, text, mlp


def state_of(vision, text, mlp):
    out = {}
    v = vision.state_dict()
    for a, b in (("embeddings.class_embedding", "cls_token"),
                 ("embeddings.position_embedding", "pos_embed"),
                 ("embeddings.patch_embedding.weight", "patch_embed.proj.weight"),
                 ("embeddings.patch_embedding.bias", "patch_embed.proj.bias"),
                 ("post_layernorm.weight", "norm.weight"),
                 ("post_layernorm.bias", "norm.bias")):
        out["blip.visual_encoder." + b] = v.pop(a)
    for i in range(VISION["num_hidden_layers"]):
        for end in "weight", "bias":
            for a, b in (("self_attn.qkv", "attn.qkv"),
                         ("self_attn.projection", "attn.proj"),
                         ("layer_norm1", "norm1"), ("layer_norm2", "norm2"),
                         ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
                out[f"blip.visual_encoder.blocks.{i}.{b}.{end}"] = \
                    v.pop(f"encoder.layers.{i}.{a}.{end}")
    assert not v, v.keys()
    for name, t in text.state_dict().items():
        if "position_ids" not in name:
            out["blip.text_encoder." + name] = t
    for name, t in mlp.state_dict().items():
        out["mlp." + name] = t
    for name, width in (("vision_proj", VISION["hidden_size"]),
                        ("text_proj", TEXT["hidden_size"])):
        out[f"blip.{name}.weight"] = torch.randn(4, width)
        out[f"blip.{name}.bias"] = torch.randn(4)
    out = {k: x.half().contiguous() for k, x in out.items()}
    out["blip.text_encoder.embeddings.position_ids"] = \
        torch.arange(TEXT["max_position_embeddings"])[None]
    return out


def put(f, name, values):
    values = torch.as_tensor(values).flatten().tolist()
    f.write("%s %d\n" % (name, len(values)))
    f.write("\n".join("%.9g" % v for v in values) + "\n")


def write_config():
    with open(OUT + "/config.json", "w", encoding="ascii") as f:
        json.dump(dict(model_type="blip", text_config=TEXT,
                       vision_config=VISION), f, indent=1)
        f.write("\n")


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    vision, text, mlp = networks()
    words = transformers.BertTokenizer(HERE + "/bert_small/vocab.txt")
    words.add_special_tokens({"bos_token": "[DEC]"})
    words.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    assert len(words) == TEXT["vocab_size"]
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    write_config()
    torch.save(state_of(vision, text, mlp), OUT + "/ImageReward.pt")
    with open(OUT + "/golden.txt", "w", encoding="ascii") as f:
        read = [words(p, padding="max_length", truncation=True,
                      max_length=TOKENS, return_tensors="pt") for p in PROMPTS]
        for p, r in enumerate(read):
            put(f, "ids%d" % p, r.input_ids)
        for i, size in enumerate(SIZES):
            seen = vision(pixel_values=as_torchvision(
                picture(*size))).last_hidden_state
            # every third token says enough
            put(f, "seen%d" % i, seen[0, ::3])
            scores = []
            for p, r in enumerate(read):
                state = text(
                    input_ids=r.input_ids, attention_mask=r.attention_mask,
                    encoder_hidden_states=seen,
                    encoder_attention_mask=torch.ones(seen.shape[:2]).long(),
                    is_decoder=False).last_hidden_state[:, 0]
                if i == 0:
                    put(f, "state%d" % p, state)
                scores.append((mlp.layers(state).item() - MEAN) / DEVIATION)
            put(f, "score%d" % i, scores)
            print(size, scores)


main()
