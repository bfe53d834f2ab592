"""Makes tests/golden/flux_tiny; run by hand, from the root of the tree:

    python tests/golden/make_flux_fixture.py

with torch, diffusers, transformers >= 5. Writes

  flux_tiny/             a FluxPipeline of minute random networks in bfloat16
                         and in shards, as its own save_pretrained writes them;
                         its tokenizers are those of sd_tiny and t5_small
  flux_tiny/golden.txt   what that pipeline, in float32, makes of a prompt and
                         a first latent, 4 steps of its scheduler with the
                         shift of the picture's size, guidance 3.5: a line
                         "name count" and the numbers; latents are packed
                         [tokens, features]

The tree's tests/test_flux_snapshot.c compares.
"""
import os
import shutil
import tempfile

import diffusers
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "flux_tiny")
PROMPT = "A red circle, and two blue squares!"
LENGTH = 24
STEPS = 4


def tokenizers(scratch):
    clip = transformers.CLIPTokenizer.from_pretrained(
        HERE + "/sd_tiny/tokenizer")
    # with its character map, which t5_small/tokenizer.json leaves out
    shutil.copy(HERE + "/t5_small/spiece.model", scratch)
    t5 = transformers.T5Tokenizer.from_pretrained(scratch)
    t5.model_max_length = 512
    return clip, t5


def networks(clip_words, t5_words):
    torch.manual_seed(1)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=2,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=24,
        pooled_projection_dim=16, guidance_embeds=True,
        axes_dims_rope=(4, 6, 6))
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, layers_per_block=1,
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, use_quant_conv=False,
        use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159)
    clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=clip_words, hidden_size=16, intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=2, projection_dim=16,
        max_position_embeddings=77, bos_token_id=clip_words - 2,
        eos_token_id=clip_words - 1, pad_token_id=clip_words - 1))
    t5 = transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=t5_words, d_model=24, d_kv=8, d_ff=40, num_layers=2,
        num_heads=3, feed_forward_proj="gated-gelu", dropout_rate=0.1,
        tie_word_embeddings=False))
    for net in transformer, vae, clip, t5:  # fresh biases, norms say nothing
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.data += 0.1 * torch.randn_like(p)
            elif "embedding" in name:
                p.data += 0.5 * torch.randn_like(p)
            elif "norm" in name or name.startswith("proj_out"):
                p.data += 0.1 * torch.randn_like(p)
        net.eval()
    vae.decoder.conv_out.weight.data *= 4
    return transformer, vae, clip, t5


def put(f, name, values):
    values = values.flatten().tolist()
    f.write("%s %d\n" % (name, len(values)))
    f.write("\n".join("%.9g" % v for v in values) + "\n")


def write_folder(words, nets):
    transformer, vae, clip, t5 = nets
    for net in nets:
        net.to(torch.bfloat16)
    pipe = diffusers.FluxPipeline(
        transformer=transformer, vae=vae, text_encoder=clip,
        text_encoder_2=t5, tokenizer=words[0], tokenizer_2=words[1],
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5,
            max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096))
    shutil.rmtree(OUT, ignore_errors=True)
    pipe.save_pretrained(OUT, max_shard_size="150KB")
    # save_pretrained() of FluxPipeline shards the transformer alone
    t5.save_pretrained(OUT + "/text_encoder_2", max_shard_size="50KB")
    left = OUT + "/text_encoder_2/model.safetensors"
    if os.path.exists(OUT + "/text_encoder_2/model.safetensors.index.json") \
            and os.path.exists(left):
        os.remove(left)
    for net in nets:
        net.to(torch.float32)
    return pipe


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        words = tokenizers(scratch)
    nets = networks(len(words[0]), len(words[1]))
    pipe = write_folder(words, nets)
    pipe.set_progress_bar_config(disable=True)
    z = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    first = pipe._pack_latents(z, 1, 16, 8, 8)
    path = []

    def keep(pipe, i, t, got):
        path.append(got["latents"].clone())
        return {}

    run = dict(prompt=PROMPT, latents=first, num_inference_steps=STEPS,
               guidance_scale=3.5, max_sequence_length=LENGTH, height=64,
               width=64)
    pipe(output_type="latent", callback_on_step_end=keep, **run)
    picture = pipe(output_type="np", **run).images
    states, pooled, text_ids = pipe.encode_prompt(
        PROMPT, PROMPT, max_sequence_length=LENGTH)
    image_ids = pipe._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)

    def predict(t, guidance):
        return nets[0](
            hidden_states=first, timestep=torch.tensor([t]),
            guidance=torch.tensor([guidance]), pooled_projections=pooled,
            encoder_hidden_states=states, txt_ids=text_ids, img_ids=image_ids,
            return_dict=False)[0]

    with open(OUT + "/golden.txt", "w", encoding="utf-8") as f:
        f.write(PROMPT + "\n")
        put(f, "clip_ids", words[0](
            PROMPT, padding="max_length", max_length=77, truncation=True,
            return_tensors="pt").input_ids)
        put(f, "t5_ids", words[1](
            PROMPT, padding="max_length", max_length=LENGTH, truncation=True,
            return_tensors="pt").input_ids)
        put(f, "states", states)
        put(f, "pooled", pooled)
        put(f, "sigmas", pipe.scheduler.sigmas)
        put(f, "first", first)
        put(f, "velocity", predict(0.978, 3.5))
        # what 0.978 and 3.5 become in bfloat16, times 1000 in bfloat16
        put(f, "velocity_bf16", predict(0.976, 3.504))
        for i, latents in enumerate(path):
            put(f, "latent_%d" % (i + 1), latents)
        # every fifth pixel of every seventh row says enough
        put(f, "picture", torch.from_numpy(picture)[:, 3::7, 2::5])
    print("latent", path[-1].std().item(), "picture", picture.min(),
          picture.max(), picture.std(), "sigmas", pipe.scheduler.sigmas)


main()
