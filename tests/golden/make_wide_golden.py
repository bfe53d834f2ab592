"""What diffusers makes of pictures that are not square, from the folders
flux_tiny and sd_tiny; run by hand, from the root of the tree:

    python tests/golden/make_wide_golden.py

with torch, diffusers, transformers >= 5. Writes golden_wide.txt into both: a
line "name count" and the numbers, in the order of golden.txt's, sizes of which
only every third or fifth value is kept.

FLUX paints 80 x 112 pixels (high, wide), 35 tokens; Stable Diffusion 72 x 104,
a latent of 9 x 13, whose sides do not halve evenly. Each has

    first        the first latent of a trajectory of the pipeline
    predictions  of a batch of three, with times of their own and guidance 1;
                 sample b has the first latent turned by 17 b values
    final        the trajectory's end, guidance 1
    picture      every 7th row from the 3rd, every 5th column from the 2nd
"""
import os

import diffusers
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = "A red circle, and two blue squares!"
LENGTH = 24  # T5's tokens
TURN = 17


def put(f, name, values):
    values = values.flatten().tolist()
    f.write("%s %d\n" % (name, len(values)))
    f.write("\n".join("%.9g" % v for v in values) + "\n")


def batch(first):
    """Three first latents of one, in the order of memory that is kept."""
    flat = first.flatten()
    return torch.stack([torch.roll(flat, -TURN * b) for b in range(3)])


def write(folder, first, predictions, final, picture, extra=()):
    with open(HERE + folder + "/golden_wide.txt", "w", encoding="utf-8") as f:
        for name, values in extra:
            put(f, name, values)
        put(f, "first", first)
        put(f, "predictions", predictions.flatten()[::3])
        put(f, "final", final.flatten()[::3])
        put(f, "picture", picture[:, 3::7, 2::5])
    print(folder, "final", final.std().item(), "picture", picture.std().item())


def flux():
    pipe = diffusers.FluxPipeline.from_pretrained(HERE + "/flux_tiny",
                                                  torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    z = torch.randn(1, 16, 10, 14, generator=torch.Generator().manual_seed(7))
    first = pipe._pack_latents(z, 1, 16, 10, 14)
    run = dict(prompt=PROMPT, latents=first, num_inference_steps=3,
               guidance_scale=1.0, max_sequence_length=LENGTH, height=80,
               width=112)
    final = pipe(output_type="latent", **run).images
    picture = pipe(output_type="np", **run).images
    sigmas = pipe.scheduler.sigmas
    states, pooled, text_ids = pipe.encode_prompt(
        PROMPT, PROMPT, max_sequence_length=LENGTH)
    ids = pipe._prepare_latent_image_ids(1, 5, 7, "cpu", torch.float32)
    u = pipe.transformer(
        hidden_states=batch(first).reshape(3, 35, 64),
        timestep=torch.tensor([0.978, 0.5, 0.125]),
        guidance=torch.ones(3), pooled_projections=pooled.repeat(3, 1),
        encoder_hidden_states=states.repeat(3, 1, 1), txt_ids=text_ids,
        img_ids=ids, return_dict=False)[0]
    write("/flux_tiny", first, u, final, torch.from_numpy(picture),
          [("sigmas", sigmas)])


def sd():
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        HERE + "/sd_tiny", safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    z = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(7))
    first = z.permute(0, 2, 3, 1)
    run = dict(prompt=PROMPT, latents=z, num_inference_steps=3, eta=0.0,
               guidance_scale=1.0, height=72, width=104)
    final = pipe(output_type="latent", **run).images.permute(0, 2, 3, 1)
    picture = pipe(output_type="np", **run).images
    states = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0]
    u = pipe.unet(batch(first).reshape(3, 9, 13, 4).permute(0, 3, 1, 2),
                  torch.tensor([981, 500, 3]),
                  states.repeat(3, 1, 1)).sample.permute(0, 2, 3, 1)
    write("/sd_tiny", first, u, final, torch.from_numpy(picture))


torch.set_num_threads(1)
with torch.no_grad():
    flux()
    sd()
