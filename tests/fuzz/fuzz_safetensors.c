/* Any bytes as a safetensors file: refused, or every tensor can be read. */
#include "weights/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    WeightFile *f;

    if (dg_safetensors_parse(&f, "fuzz", data, size) != 0)
        return 0;
    for (int64_t i = 0; i < dg_weight_file_num(f); i++) {
        const WeightInfo *info = dg_weight_file_info(f, i);
        float *v = malloc((size_t)info->count * sizeof *v + 1);
        void *raw = malloc((size_t)info->bytes + 1);

        if (v == NULL || raw == NULL || info->bytes > (int64_t)size ||
            dg_weight_file_find(f, info->name) != i)
            abort();
        (void)dg_weight_file_read(f, i, 0, info->count, v);
        if (dg_weight_file_read_raw(f, i, raw) != 0)
            abort();
        free(v);
        free(raw);
    }
    dg_weight_file_close(f);
    return 0;
}
