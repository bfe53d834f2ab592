"""Makes tests/golden/clip_tiny; run by hand, from the root of the tree:

    python tests/golden/make_clip_fixture.py

with torch, pillow, transformers >= 5. Writes

  clip_tiny/             a CLIPModel of minute random networks, as its own
                         save_pretrained writes it; its words are those of
                         sd_tiny/tokenizer
  clip_tiny/open_clip.pt the same values as torch.save writes them, in float16,
                         under OpenCLIP's names and HPS v2's key "state_dict"
  clip_tiny/golden.txt   what that model makes of pictures and prompts: lines
                         "name count" and the numbers

Pictures are made by picture() here and by the test, from whole numbers. Each
goes through transformers' own image processor (Pillow, 8-bit: "u8") and
through torch's antialiased bicubic on floats, the middle as torchvision cuts
it (HPS v2's way: "f32"). The tree's tests/test_clip_reward.c compares.
"""
import os
import shutil

import numpy
import torch
import transformers
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "clip_tiny")
SIDE = 34  # two pixels more than four patches
SIZES = ((64, 64), (50, 37), (24, 61), (35, 90), (34, 34), (38, 37))
PROMPTS = ("A red circle, and two blue squares!", "",
           "3 green triangles left of a cat " * 12)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def picture(height, width):
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width),
                             numpy.arange(3), indexing="ij")
    smooth = 3 * x + 2 * y * (c + 1)
    rough = (x * y * 7 + 13 * c) % 83 + 40 * ((x // 5 + y // 3) % 3)
    return ((smooth + rough) % 256).astype(numpy.uint8)


def network():
    torch.manual_seed(2)
    m = transformers.CLIPModel(transformers.CLIPConfig(
        text_config=dict(
            vocab_size=1214, hidden_size=32, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu",
            max_position_embeddings=77, bos_token_id=1212, eos_token_id=1213,
            pad_token_id=1213),
        vision_config=dict(
            image_size=SIDE, patch_size=8, hidden_size=48,
            intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
            hidden_act="gelu"),
        projection_dim=24))
    for name, p in m.named_parameters():  # fresh biases and norms say nothing
        if p.dim() == 1 and "logit" not in name:
            p.data += 0.1 * torch.randn_like(p)
        elif "embedding" in name:
            p.data += 0.5 * torch.randn_like(p)
        elif p.dim() > 1:
            p.data *= 3
        p.data = p.data.half().float()  # so that float16 holds them
    return m.eval()


def tower(state, before, to, layers):
    def get(name):
        return state[f"{before}{name}"]

    out = {}
    for i in range(layers):
        p, q = f"encoder.layers.{i}.", f"{to}transformer.resblocks.{i}."
        for end in "weight", "bias":
            out[f"{q}attn.in_proj_{end}"] = torch.cat(
                [get(f"{p}self_attn.{x}_proj.{end}") for x in "qkv"])
            for a, b in (("self_attn.out_proj", "attn.out_proj"),
                         ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                         ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                out[f"{q}{b}.{end}"] = get(f"{p}{a}.{end}")
    return out


def open_clip(m):
    s = m.state_dict()
    v, t = "vision_model.", "text_model."
    out = tower(s, v, "visual.", 2) | tower(s, t, "", 2)
    out |= {
        "visual.class_embedding": s[v + "embeddings.class_embedding"],
        "visual.conv1.weight": s[v + "embeddings.patch_embedding.weight"],
        "visual.positional_embedding":
            s[v + "embeddings.position_embedding.weight"],
        "visual.proj": s["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": s[t + "embeddings.token_embedding.weight"],
        "positional_embedding": s[t + "embeddings.position_embedding.weight"],
        "text_projection": s["text_projection.weight"].T.contiguous(),
        "logit_scale": s["logit_scale"]}
    for a, b in ((v + "pre_layrnorm", "visual.ln_pre"), (v + "post_layernorm",
                 "visual.ln_post"), (t + "final_layer_norm", "ln_final")):
        for end in ".weight", ".bias":
            out[b + end] = s[a + end]
    return {k: x.half() for k, x in out.items()}


def sides(height, width):
    if width > height:
        return SIDE, int(SIDE * width / height)
    return int(SIDE * height / width), SIDE


def as_hps(u8):
    x = torch.from_numpy(u8).permute(2, 0, 1)[None].float() / 255
    new = sides(*u8.shape[:2])
    if new != tuple(u8.shape[:2]):
        x = torch.nn.functional.interpolate(
            x, size=new, mode="bicubic", antialias=True, align_corners=False)
    top, left = (int(round((n - SIDE) / 2.0)) for n in new)
    x = x[:, :, top:top + SIDE, left:left + SIDE]
    return (x - torch.tensor(MEAN)[:, None, None]) / \
        torch.tensor(STD)[:, None, None]


def put(f, name, values):
    values = torch.as_tensor(values).flatten().tolist()
    f.write("%s %d\n" % (name, len(values)))
    f.write("\n".join("%.9g" % v for v in values) + "\n")


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    m = network()
    shutil.rmtree(OUT, ignore_errors=True)
    m.save_pretrained(OUT)
    torch.save({"state_dict": open_clip(m)}, OUT + "/open_clip.pt")
    words = transformers.AutoTokenizer.from_pretrained(
        HERE + "/sd_tiny/tokenizer")
    process = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    with open(OUT + "/golden.txt", "w", encoding="utf-8") as f:
        texts = []
        for i, prompt in enumerate(PROMPTS):
            ids = words(prompt, padding="max_length", max_length=77,
                        truncation=True, return_tensors="pt").input_ids
            t = m.get_text_features(ids).pooler_output
            texts.append(t / t.norm(dim=-1, keepdim=True))
            put(f, "text%d" % i, t)
        for i, size in enumerate(SIZES):
            u8 = picture(*size)
            seen = dict(
                u8=process(Image.fromarray(u8),
                           return_tensors="pt").pixel_values,
                f32=as_hps(u8))
            for way, x in seen.items():
                image = m.get_image_features(x).pooler_output
                # every third pixel of every fifth row says enough
                put(f, "%s_pixels%d" % (way, i),
                    x[0].permute(1, 2, 0)[1::5, 2::3])
                put(f, "%s_image%d" % (way, i), image)
                image = image / image.norm(dim=-1, keepdim=True)
                put(f, "%s_cos%d" % (way, i),
                    [(image * t).sum().item() for t in texts])
                print(size, way, [(image * t).sum().item() for t in texts])


main()
