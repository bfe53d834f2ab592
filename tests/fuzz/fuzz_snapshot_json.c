/* Any bytes as a shard index and as a network's config.json. */
#include "weights/model_config.h"
#include "weights/snapshot.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_config(const ModelConfig *c)
{
    static const char *const keys[] = {
        "a", "a.b", "num_layers", "layers", "text_config.hidden_size", ""
    };
    int64_t ints[4], n;
    const char *text;
    double x;
    int i;

    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        const int has = dg_model_config_has(c, keys[k]);
        const int err = dg_model_config_int(c, keys[k], -5, 5, &n);

        if ((!err && !has) || (!err && (n < -5 || n > 5)))
            abort();
        (void)dg_model_config_real(c, keys[k], &x);
        (void)dg_model_config_bool(c, keys[k], &i);
        (void)dg_model_config_text(c, keys[k], &text);
        (void)dg_model_config_ints(c, keys[k], ints, 4, &i);
        (void)dg_model_config_text_at(c, keys[k], 0, &text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    ModelConfig *c;
    ShardIndex x;

    if (dg_snapshot_parse_index(&x, "/folder/x.index.json", text, size) == 0) {
        for (int64_t i = 0; i < x.num; i++)
            if (x.files[i] < 0 || x.files[i] >= x.num_files ||
                strncmp(x.paths[x.files[i]], "/folder/", 8) != 0 ||
                strchr(x.paths[x.files[i]] + 8, '/') != NULL)
                abort();
        dg_snapshot_free_index(&x);
    }
    if (dg_model_config_parse(&c, "config.json", text, size) == 0) {
        use_config(c);
        dg_model_config_close(c);
    }
    return 0;
}
