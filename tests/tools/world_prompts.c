/* Writes the prompt lists of configs/prompts again: `make prompts`. */
#include <stdio.h>

#include "base/error.h"
#include "world/lists.h"

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: world_prompts TRAIN.jsonl HELDOUT.jsonl\n");
        return 2;
    }
    if (dg_world_write_prompts(argv[1], argv[2], 30, 2025) != DG_OK) {
        fprintf(stderr, "world_prompts: %s\n", dg_last_error()->text);
        return 1;
    }
    return 0;
}
