#include "sd_config.h"

#include "base/error.h"

#include <inttypes.h>
#include <string.h>

/* Which levels have attention: those of type 'with', not 'plain'. Names stand
 * by commas, spaces around them do not count. */
static int level_types(int *out, int num_levels, const char *key,
                       const char *list, const char *with, const char *plain)
{
    int num = 0;

    for (const char *p = list; *(p += strspn(p, ", ")) != '\0'; num++) {
        const size_t n = strcspn(p, ", ");
        const int attends = n == strlen(with) && strncmp(p, with, n) == 0;

        if (!attends && (n != strlen(plain) || strncmp(p, plain, n) != 0))
            return dg_fail(DG_EINVAL, "%s: \"%.*s\": must be %s or %s", key,
                           (int)(n < 60 ? n : 60), p, with, plain);
        if (num < num_levels)
            out[num] = attends;
        p += n;
    }
    if (num != num_levels)
        return dg_fail(DG_EINVAL,
                       "%s has %d entr%s: must have %d, as "
                       "unet.block_out_channels",
                       key, num, num == 1 ? "y" : "ies", num_levels);
    return DG_OK;
}

int dg_sd_config_sizes(SdConfig *out, const Config *c)
{
    const UnetSizes *u = &c->unet;
    SdConfig s = { .unet = { .in_channels = u->in_channels,
                             .out_channels = u->in_channels,
                             .num_levels = (int)u->num_levels,
                             .layers_per_block = (int)u->layers_per_block,
                             .attention_head_dim = u->attention_head_dim,
                             .cross_attention_dim = u->cross_attention_dim,
                             .norm_num_groups = u->norm_num_groups },
                   .clip = { .hidden_size = c->clip.hidden,
                             .intermediate_size = c->clip.intermediate,
                             .num_hidden_layers = (int)c->clip.layers,
                             .num_attention_heads = c->clip.heads,
                             .max_position_embeddings =
                                 c->clip.positions > 0
                                     ? c->clip.positions
                                     : c->policy.text_length } };
    int err;

    for (int64_t i = 0; i < u->num_levels; i++)
        s.unet.block_out_channels[i] = u->block_out_channels[i];
    err = level_types(s.unet.down_attention, s.unet.num_levels,
                      "unet.down_block_types", u->down_block_types,
                      "CrossAttnDownBlock2D", "DownBlock2D");
    if (!err)
        err = level_types(s.unet.up_attention, s.unet.num_levels,
                          "unet.up_block_types", u->up_block_types,
                          "CrossAttnUpBlock2D", "UpBlock2D");
    if (!err)
        *out = s;
    return err;
}

/* "a, b" as "a", "b" on lines of their own */
static void write_names(FILE *out, const char *key, const char *list)
{
    const char *between = "";

    fprintf(out, "  \"%s\": [", key);
    for (const char *p = list; *(p += strspn(p, ", ")) != '\0';) {
        const size_t n = strcspn(p, ", ");

        fprintf(out, "%s\n    \"%.*s\"", between, (int)n, p);
        between = ",";
        p += n;
    }
    fputs("\n  ],\n", out);
}

void dg_sd_describe(const Config *c, FILE *out)
{
    const UnetSizes *u = &c->unet;

    fprintf(out,
            "{\n"
            "  \"_class_name\": \"UNet2DConditionModel\",\n"
            "  \"attention_head_dim\": %" PRId64 ",\n"
            "  \"block_out_channels\": [",
            u->attention_head_dim);
    for (int64_t i = 0; i < u->num_levels; i++)
        fprintf(out, "%s\n    %" PRId64, i ? "," : "",
                u->block_out_channels[i]);
    fprintf(out, "\n  ],\n  \"cross_attention_dim\": %" PRId64 ",\n",
            u->cross_attention_dim);
    write_names(out, "down_block_types", u->down_block_types);
    fprintf(out,
            "  \"flip_sin_to_cos\": true,\n"
            "  \"freq_shift\": 0,\n"
            "  \"in_channels\": %" PRId64 ",\n"
            "  \"layers_per_block\": %" PRId64 ",\n"
            "  \"norm_num_groups\": %" PRId64 ",\n"
            "  \"out_channels\": %" PRId64 ",\n",
            u->in_channels, u->layers_per_block, u->norm_num_groups,
            u->in_channels);
    write_names(out, "up_block_types", u->up_block_types);
    /* a sample has height / cell x width / cell pixels, 3 cell^2 channels */
    fprintf(out, "  \"sample_size\": null\n}\n");
}
