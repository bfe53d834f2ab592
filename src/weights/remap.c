#include "weights/remap.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL     DG_TAKE_ALL, 0
#define PART(k) DG_TAKE_PART, k
#define TAIL    DG_TAKE_TAIL, 0
#define SWAPPED DG_TAKE_SWAPPED, 0
#define TURNED  DG_TAKE_TURNED, 0

static const RemapRule rules[] = {
    /* Text encoders: newer transformers leave the prefix out; older T5 files
       have the tied table under its other name. */
    { "text_model.*", "*", ALL },
    { "shared.weight", "encoder.embed_tokens.weight", ALL },

    /* AutoencoderKL before diffusers 0.17 */
    { "*.attentions.0.to_q.*", "*.attentions.0.query.*", ALL },
    { "*.attentions.0.to_k.*", "*.attentions.0.key.*", ALL },
    { "*.attentions.0.to_v.*", "*.attentions.0.value.*", ALL },
    { "*.attentions.0.to_out.0.*", "*.attentions.0.proj_attn.*", ALL },

    /* FLUX.1, the authors' layout */
    { "x_embedder.*", "img_in.*", ALL },
    { "context_embedder.*", "txt_in.*", ALL },
    { "time_text_embed.timestep_embedder.linear_1.*", "time_in.in_layer.*",
      ALL },
    { "time_text_embed.timestep_embedder.linear_2.*", "time_in.out_layer.*",
      ALL },
    { "time_text_embed.guidance_embedder.linear_1.*", "guidance_in.in_layer.*",
      ALL },
    { "time_text_embed.guidance_embedder.linear_2.*", "guidance_in.out_layer.*",
      ALL },
    { "time_text_embed.text_embedder.linear_1.*", "vector_in.in_layer.*", ALL },
    { "time_text_embed.text_embedder.linear_2.*", "vector_in.out_layer.*",
      ALL },
    { "transformer_blocks.#.norm1.linear.*", "double_blocks.#.img_mod.lin.*",
      ALL },
    { "transformer_blocks.#.norm1_context.linear.*",
      "double_blocks.#.txt_mod.lin.*", ALL },
    { "transformer_blocks.#.attn.to_q.*", "double_blocks.#.img_attn.qkv.*",
      PART(0) },
    { "transformer_blocks.#.attn.to_k.*", "double_blocks.#.img_attn.qkv.*",
      PART(1) },
    { "transformer_blocks.#.attn.to_v.*", "double_blocks.#.img_attn.qkv.*",
      PART(2) },
    { "transformer_blocks.#.attn.add_q_proj.*",
      "double_blocks.#.txt_attn.qkv.*", PART(0) },
    { "transformer_blocks.#.attn.add_k_proj.*",
      "double_blocks.#.txt_attn.qkv.*", PART(1) },
    { "transformer_blocks.#.attn.add_v_proj.*",
      "double_blocks.#.txt_attn.qkv.*", PART(2) },
    { "transformer_blocks.#.attn.norm_q.weight",
      "double_blocks.#.img_attn.norm.query_norm.scale", ALL },
    { "transformer_blocks.#.attn.norm_k.weight",
      "double_blocks.#.img_attn.norm.key_norm.scale", ALL },
    { "transformer_blocks.#.attn.norm_added_q.weight",
      "double_blocks.#.txt_attn.norm.query_norm.scale", ALL },
    { "transformer_blocks.#.attn.norm_added_k.weight",
      "double_blocks.#.txt_attn.norm.key_norm.scale", ALL },
    { "transformer_blocks.#.attn.to_out.0.*", "double_blocks.#.img_attn.proj.*",
      ALL },
    { "transformer_blocks.#.attn.to_add_out.*",
      "double_blocks.#.txt_attn.proj.*", ALL },
    { "transformer_blocks.#.ff.net.0.proj.*", "double_blocks.#.img_mlp.0.*",
      ALL },
    { "transformer_blocks.#.ff.net.2.*", "double_blocks.#.img_mlp.2.*", ALL },
    { "transformer_blocks.#.ff_context.net.0.proj.*",
      "double_blocks.#.txt_mlp.0.*", ALL },
    { "transformer_blocks.#.ff_context.net.2.*", "double_blocks.#.txt_mlp.2.*",
      ALL },
    { "single_transformer_blocks.#.norm.linear.*",
      "single_blocks.#.modulation.lin.*", ALL },
    { "single_transformer_blocks.#.attn.to_q.*", "single_blocks.#.linear1.*",
      PART(0) },
    { "single_transformer_blocks.#.attn.to_k.*", "single_blocks.#.linear1.*",
      PART(1) },
    { "single_transformer_blocks.#.attn.to_v.*", "single_blocks.#.linear1.*",
      PART(2) },
    { "single_transformer_blocks.#.proj_mlp.*", "single_blocks.#.linear1.*",
      TAIL },
    { "single_transformer_blocks.#.proj_out.*", "single_blocks.#.linear2.*",
      ALL },
    { "single_transformer_blocks.#.attn.norm_q.weight",
      "single_blocks.#.norm.query_norm.scale", ALL },
    { "single_transformer_blocks.#.attn.norm_k.weight",
      "single_blocks.#.norm.key_norm.scale", ALL },
    { "norm_out.linear.*", "final_layer.adaLN_modulation.1.*", SWAPPED },
    { "proj_out.*", "final_layer.linear.*", ALL },

    /* its autoencoder: up levels counted from the pictures' side */
    { "*coder.mid_block.attentions.0.group_norm.*", "*coder.mid.attn_1.norm.*",
      ALL },
    { "*coder.mid_block.attentions.0.to_q.*", "*coder.mid.attn_1.q.*", ALL },
    { "*coder.mid_block.attentions.0.to_k.*", "*coder.mid.attn_1.k.*", ALL },
    { "*coder.mid_block.attentions.0.to_v.*", "*coder.mid.attn_1.v.*", ALL },
    { "*coder.mid_block.attentions.0.to_out.0.*",
      "*coder.mid.attn_1.proj_out.*", ALL },
    { "*coder.mid_block.resnets.0.*", "*coder.mid.block_1.*", ALL },
    { "*coder.mid_block.resnets.1.*", "*coder.mid.block_2.*", ALL },
    { "encoder.down_blocks.#.resnets.#.conv_shortcut.*",
      "encoder.down.#.block.#.nin_shortcut.*", ALL },
    { "encoder.down_blocks.#.resnets.#.*", "encoder.down.#.block.#.*", ALL },
    { "encoder.down_blocks.#.downsamplers.0.conv.*",
      "encoder.down.#.downsample.conv.*", ALL },
    { "decoder.up_blocks.#.resnets.#.conv_shortcut.*",
      "decoder.up.~.block.#.nin_shortcut.*", ALL },
    { "decoder.up_blocks.#.resnets.#.*", "decoder.up.~.block.#.*", ALL },
    { "decoder.up_blocks.#.upsamplers.0.conv.*", "decoder.up.~.upsample.conv.*",
      ALL },
    { "*coder.conv_norm_out.*", "*coder.norm_out.*", ALL },

    /* CLIP, OpenCLIP's layout; newer files have "text." before the text
       tower's names */
    { "visual_projection.weight", "visual.proj", TURNED },
    { "vision_model.embeddings.class_embedding", "visual.class_embedding",
      ALL },
    { "vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight",
      ALL },
    { "vision_model.embeddings.position_embedding.weight",
      "visual.positional_embedding", ALL },
    { "vision_model.pre_layrnorm.*", "visual.ln_pre.*", ALL },
    { "vision_model.post_layernorm.*", "visual.ln_post.*", ALL },
    { "vision_model.encoder.layers.#.self_attn.q_proj.*",
      "visual.transformer.resblocks.#.attn.in_proj_*", PART(0) },
    { "vision_model.encoder.layers.#.self_attn.k_proj.*",
      "visual.transformer.resblocks.#.attn.in_proj_*", PART(1) },
    { "vision_model.encoder.layers.#.self_attn.v_proj.*",
      "visual.transformer.resblocks.#.attn.in_proj_*", PART(2) },
    { "vision_model.encoder.layers.#.self_attn.out_proj.*",
      "visual.transformer.resblocks.#.attn.out_proj.*", ALL },
    { "vision_model.encoder.layers.#.layer_norm1.*",
      "visual.transformer.resblocks.#.ln_1.*", ALL },
    { "vision_model.encoder.layers.#.layer_norm2.*",
      "visual.transformer.resblocks.#.ln_2.*", ALL },
    { "vision_model.encoder.layers.#.mlp.fc1.*",
      "visual.transformer.resblocks.#.mlp.c_fc.*", ALL },
    { "vision_model.encoder.layers.#.mlp.fc2.*",
      "visual.transformer.resblocks.#.mlp.c_proj.*", ALL },
    { "text_projection.weight", "text_projection", TURNED },
    { "text_model.embeddings.token_embedding.weight", "token_embedding.weight",
      ALL },
    { "text_model.embeddings.position_embedding.weight", "positional_embedding",
      ALL },
    { "text_model.final_layer_norm.*", "ln_final.*", ALL },
    { "text_model.encoder.layers.#.self_attn.q_proj.*",
      "transformer.resblocks.#.attn.in_proj_*", PART(0) },
    { "text_model.encoder.layers.#.self_attn.k_proj.*",
      "transformer.resblocks.#.attn.in_proj_*", PART(1) },
    { "text_model.encoder.layers.#.self_attn.v_proj.*",
      "transformer.resblocks.#.attn.in_proj_*", PART(2) },
    { "text_model.encoder.layers.#.self_attn.out_proj.*",
      "transformer.resblocks.#.attn.out_proj.*", ALL },
    { "text_model.encoder.layers.#.layer_norm1.*",
      "transformer.resblocks.#.ln_1.*", ALL },
    { "text_model.encoder.layers.#.layer_norm2.*",
      "transformer.resblocks.#.ln_2.*", ALL },
    { "text_model.encoder.layers.#.mlp.fc1.*",
      "transformer.resblocks.#.mlp.c_fc.*", ALL },
    { "text_model.encoder.layers.#.mlp.fc2.*",
      "transformer.resblocks.#.mlp.c_proj.*", ALL },
    { "text_projection.weight", "text.text_projection", TURNED },
    { "text_model.embeddings.token_embedding.weight",
      "text.token_embedding.weight", ALL },
    { "text_model.embeddings.position_embedding.weight",
      "text.positional_embedding", ALL },
    { "text_model.final_layer_norm.*", "text.ln_final.*", ALL },
    { "text_model.encoder.layers.#.self_attn.q_proj.*",
      "text.transformer.resblocks.#.attn.in_proj_*", PART(0) },
    { "text_model.encoder.layers.#.self_attn.k_proj.*",
      "text.transformer.resblocks.#.attn.in_proj_*", PART(1) },
    { "text_model.encoder.layers.#.self_attn.v_proj.*",
      "text.transformer.resblocks.#.attn.in_proj_*", PART(2) },
    { "text_model.encoder.layers.#.self_attn.out_proj.*",
      "text.transformer.resblocks.#.attn.out_proj.*", ALL },
    { "text_model.encoder.layers.#.layer_norm1.*",
      "text.transformer.resblocks.#.ln_1.*", ALL },
    { "text_model.encoder.layers.#.layer_norm2.*",
      "text.transformer.resblocks.#.ln_2.*", ALL },
    { "text_model.encoder.layers.#.mlp.fc1.*",
      "text.transformer.resblocks.#.mlp.c_fc.*", ALL },
    { "text_model.encoder.layers.#.mlp.fc2.*",
      "text.transformer.resblocks.#.mlp.c_proj.*", ALL },

    /* timm's vision transformers, as BLIP has them: one product for three */
    { "*visual_encoder.blocks.#.attn.q.*",
      "*visual_encoder.blocks.#.attn.qkv.*", PART(0) },
    { "*visual_encoder.blocks.#.attn.k.*",
      "*visual_encoder.blocks.#.attn.qkv.*", PART(1) },
    { "*visual_encoder.blocks.#.attn.v.*",
      "*visual_encoder.blocks.#.attn.qkv.*", PART(2) },
};

static const char *const ignored[] = {
    "*embeddings.position_ids",
    "encoder.embed_tokens.weight",
    /* OpenCLIP's; values, not weights */
    "attn_mask",
    "text.attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
};

static const char *const prefixes[] = { "", "state_dict.", "module.",
                                        "state_dict.module.",
                                        "model.diffusion_model." };

const RemapRule *dg_remap_rules(int *num)
{
    *num = sizeof rules / sizeof *rules;
    return rules;
}

const char *dg_remap_prefix(int i)
{
    const int num = sizeof prefixes / sizeof *prefixes;

    return i >= 0 && i < num ? prefixes[i] : NULL;
}

/* Texts that # and * stand for, in order. */
enum { MAX_HOLES = 4 };
typedef struct Holes {
    const char *text[MAX_HOLES];
    size_t length[MAX_HOLES];
    int num;
} Holes;

/* Shortest text first, so that numbers and words are whole between dots; the
 * patterns are short and have at most MAX_HOLES holes. */
static int match(const char *pattern, const char *text, Holes *h)
{
    size_t n, most;

    while (*pattern != '#' && *pattern != '*') {
        if (*pattern != *text)
            return 0;
        if (*pattern == '\0')
            return 1;
        pattern++;
        text++;
    }
    if (h->num == MAX_HOLES)
        return 0;
    n = *pattern == '#';
    most = *pattern == '#' ? strspn(text, "0123456789") : strlen(text);
    for (; n <= most; n++) {
        const int at = h->num;

        h->text[at] = text;
        h->length[at] = n;
        h->num = at + 1;
        if (match(pattern + 1, text + n, h))
            return 1;
        h->num = at;
    }
    return 0;
}

int dg_remap_matches(const char *pattern, const char *text)
{
    Holes h = { .num = 0 };

    return match(pattern, text, &h);
}

/* Writes one hole's text; its length, or -1: no level of that number. */
static int fill_hole(char *out, size_t room, char kind, const Holes *h, int at)
{
    const int length = (int)h->length[at];

    if (kind != '~')
        return snprintf(out, room, "%.*s", length, h->text[at]);
    if (length != 1 || h->text[at][0] > '3')
        return -1;
    return snprintf(out, room, "%d", '3' - h->text[at][0]);
}

int dg_remap_apply(char out[DG_REMAP_NAME], const RemapRule *r,
                   const char *want)
{
    Holes h = { .num = 0 };
    size_t used = 0;
    int at = 0;

    if (!match(r->want, want, &h))
        return 0;
    for (const char *p = r->source; *p != '\0'; p++) {
        const size_t room = DG_REMAP_NAME - used;
        int n = 1;

        if (room < 2)
            return 0;
        if (*p == '#' || *p == '*' || *p == '~')
            n = fill_hole(out + used, room, *p, &h, at++);
        else
            out[used] = *p;
        if (n < 0 || (size_t)n >= room)
            return 0;
        used += (size_t)n;
    }
    out[used] = '\0';
    return 1;
}

int dg_remap_ignored(const char *source)
{
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        if (dg_remap_matches(ignored[i], source))
            return 1;
    return 0;
}
