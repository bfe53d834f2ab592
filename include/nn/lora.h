#ifndef DG_NN_LORA_H
#define DG_NN_LORA_H
/*
 * LoRA: every linear layer whose name is among the targets gets an adapter,
 *
 *   y = x W^T + b + (alpha / rank) (x A^T) B^T,
 *
 * with A [rank, in] drawn uniformly within +-1/sqrt(in), or from a normal
 * distribution of standard deviation 1/rank, and B [out, rank] zero. All A and B
 * lie in a small parameter set of their own, NAME.lora_A.weight and NAME.lora_B.weight, in turn: what training, sums, moments and
 * checkpoints then deal with. Networks do not know of it: they add their
 * linears with dg_layer_linear() and run them with dg_linear().
 * Source: arXiv:2106.09685; names and first values as in PEFT, whose
 * init_lora_weights = True and "gaussian" these are.
 */
#include "config/config.h"
#include "nn/param.h"
#include "tensor/ops.h"

typedef struct Lora {
    ParamSet *set; /* where A and B go */
    int64_t rank;
    float scale; /* alpha / rank */
    LoraInit init;
    int num_targets;
    TextList target;
    int matched[DG_CONFIG_TEXTS]; /* linears that each target found */
    char names[640];              /* of all linears, for a message */
} Lora;

/**
 * targets  patterns, "to_q", "to_out.0", "blocks.1*.to_q": each stands for
 *          the linears whose dotted path is it or ends in it, whole names
 *          counted; a * in it is any text, dots too
 * set      takes the adapters; borrowed, as is l by the set it is hung on
 *          (ParamSet.lora) while a network adds its layers
 * Errors: DG_EINVAL naming lora.targets.
 */
int dg_lora_init(Lora *l, ParamSet *set, const LoraConfig *c);

/** Adapter of the linear called folder + name, "blocks.3.attn." and "to_q",
 *  added to l->set; a = NULL when no target names it, or on an error (*err
 *  set). */
LoraPair dg_lora_adapt(Lora *l, const char *folder, const char *name,
                       int64_t in, int64_t out, int *err);

/** Whether every target found a linear. Errors: DG_EINVAL naming the target
 *  and what the linears are called. */
int dg_lora_check(const Lora *l);

/** 1 if a target stands for the linear of this parameter of l->set. */
int dg_lora_names(const Lora *l, int target, const char *name);

#endif
