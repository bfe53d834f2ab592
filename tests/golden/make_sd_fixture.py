"""Makes tests/golden/sd_tiny; run by hand, from the root of the tree:

    python tests/golden/make_sd_fixture.py

with torch, diffusers, transformers >= 5. Writes

  sd_tiny/             a StableDiffusionPipeline of minute random networks, as
                       its own save_pretrained writes it; its tokenizer has the
                       first rules of clip_small
  sd_tiny/golden.txt   what that pipeline makes of a prompt and a first latent,
                       3 steps of its DDIM scheduler, eta 0, guidance 5: a line
                       "name count" and the numbers; maps are channels-last

The tree's tests/test_sd.c compares.
"""
import json
import os
import shutil
import tempfile

import diffusers
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "sd_tiny")
PROMPT = "A red circle, and two blue squares!"
RULES = 700


def tokenizer(scratch):
    with open(HERE + "/clip_small/merges.txt", encoding="utf-8") as f:
        merges = f.read().split("\n")[1:RULES + 1]
    with open(HERE + "/clip_small/vocab.json", encoding="utf-8") as f:
        vocab = list(json.load(f))[:512 + RULES]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    with open(scratch + "/vocab.json", "w", encoding="utf-8") as f:
        json.dump({t: i for i, t in enumerate(vocab)}, f, ensure_ascii=False)
    with open(scratch + "/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    t = transformers.CLIPTokenizer.from_pretrained(scratch)
    t.model_max_length = 77
    return t, len(vocab)


def networks(words):
    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(16, 16, 16, 32), norm_num_groups=8,
        cross_attention_dim=16, attention_head_dim=2)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, layers_per_block=1,
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4)
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=words, hidden_size=16, intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=2, projection_dim=16,
        max_position_embeddings=77, bos_token_id=words - 2,
        eos_token_id=words - 1, pad_token_id=words - 1))
    for net in unet, vae, text:  # fresh biases and norms say nothing
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.data += 0.1 * torch.randn_like(p)
            elif "embedding" in name:
                p.data += 0.5 * torch.randn_like(p)
    vae.decoder.conv_out.weight.data *= 4
    return unet, vae, text


def put(f, name, values):
    values = values.flatten().tolist()
    f.write("%s %d\n" % (name, len(values)))
    f.write("\n".join("%.9g" % v for v in values) + "\n")


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        words, num = tokenizer(scratch)
        unet, vae, text = networks(num)
        pipe = diffusers.StableDiffusionPipeline(
            vae=vae, text_encoder=text, tokenizer=words, unet=unet,
            scheduler=diffusers.DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, clip_sample=False,
                beta_schedule="scaled_linear", set_alpha_to_one=False,
                steps_offset=1),
            safety_checker=None, feature_extractor=None,
            requires_safety_checker=False)
        shutil.rmtree(OUT, ignore_errors=True)
        pipe.save_pretrained(OUT)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    run = dict(prompt=PROMPT, latents=z, num_inference_steps=3, eta=0.0,
               guidance_scale=5.0)
    final = pipe(output_type="latent", **run).images
    picture = pipe(output_type="np", **run).images
    with open(OUT + "/golden.txt", "w", encoding="utf-8") as f:
        f.write(PROMPT + "\n")
        for name, prompt in ("prompt", PROMPT), ("empty", ""):
            ids = words(prompt, padding="max_length", max_length=77,
                        truncation=True, return_tensors="pt").input_ids
            put(f, name + "_ids", ids)
            put(f, name + "_states", text(ids)[0])
        put(f, "first", z.permute(0, 2, 3, 1))
        put(f, "final", final.permute(0, 2, 3, 1))
        # every fifth pixel of every seventh row says enough
        put(f, "picture", torch.from_numpy(picture)[:, 3::7, 2::5])
    print("latent", final.std().item(), "picture", picture.min(),
          picture.max(), picture.std())


main()
