#ifndef DG_NN_PARAM_H
#define DG_NN_PARAM_H
/*
 * A parameter set: all values of a network in one flat float32 buffer with a
 * name and shape index, so that reduction, AdamW, EMA and checkpoints work on
 * ranges and never on layers. Names are the safetensors keys.
 */
#include "tensor/backend.h"
#include "tensor/tensor.h"

#include <stdint.h>

enum { DG_PARAM_NAME = 128, DG_PARAM_ALIGN = 16 };

/* How a fresh network draws a parameter (pretraining from scratch). */
typedef enum ParamInit {
    DG_INIT_ZERO,
    DG_INIT_ONE,
    DG_INIT_XAVIER,     /* uniform +-sqrt(6/(fan_in+fan_out)) */
    DG_INIT_NORMAL_FAN, /* normal, std 1/sqrt(fan_in) */
    DG_INIT_NORMAL,     /* normal, std = Param.std */
    DG_INIT_UNIFORM_FAN /* uniform +-1/sqrt(fan_in): Kaiming, slope sqrt 5 */
} ParamInit;

typedef struct Param {
    char name[DG_PARAM_NAME];
    Tensor value; /* data set by dg_params_allocate() */
    ParamInit init;
    float std; /* of DG_INIT_NORMAL */
} Param;

/* The parameters of one block of the network, which are needed together: a
 * range of the flat buffer. */
typedef struct ParamGroup {
    int first_param, num_params;
    int64_t first, num; /* elements, with the padding behind them */
    int64_t rest;       /* elements before it that are in no group */
} ParamGroup;

struct Lora;

typedef struct ParamSet {
    int id;         /* 1..DG_MAX_PARAM_SETS, chosen by the owner */
    Param **params; /* stable addresses */
    int num_params, cap_params;
    int64_t count; /* elements of the flat buffer, padding included */
    float *values; /* [count] once allocated; padding is 0 */
    int owns_values;
    int together;       /* a node's ranks have values together: filled once */
    uint64_t digest;    /* of what files gave (base/value_digest.h); 0: none */
    struct Lora *lora;  /* adapts linears that are added; NULL: nothing */
    ParamGroup *groups; /* [num_groups], rising */
    int num_groups, cap_groups;
    int grouping; /* parameters that are added join the last group */
} ParamSet;

int dg_params_init(ParamSet *s, int id);
void dg_params_fini(ParamSet *s);

/** Another id, of its tensors too. */
void dg_params_rename(ParamSet *s, int id);

/**
 * Adds a parameter; its offset is rounded up to DG_PARAM_ALIGN elements.
 * Returns its value tensor (stable), or NULL with an error recorded: name
 * too long or already there, dims < 1, memory.
 */
Tensor *dg_params_add(ParamSet *s, const char *name, ParamInit init,
                      int num_dims, const int64_t *dims);

/** The same with init DG_INIT_NORMAL and its std >= 0. */
Tensor *dg_params_add_normal(ParamSet *s, const char *name, float std,
                             int num_dims, const int64_t *dims);

/** What is added between these two is a group. Errors: DG_ENOMEM. */
int dg_params_group(ParamSet *s);
void dg_params_group_end(ParamSet *s);

/** Elements in no group; and in the largest of the groups. */
int64_t dg_params_rest(const ParamSet *s);
int64_t dg_params_largest(const ParamSet *s);

/** So many elements, up to the next boundary of DG_PARAM_ALIGN. */
int64_t dg_params_aligned(int64_t count);

/** Parameters that lie before others in one buffer: count is rounded up, so that
 *  what follows begins on a boundary of DG_PARAM_ALIGN. The values that are there
 *  behind the last parameter are nobody's, zeros. */
void dg_params_pad(ParamSet *s);

/** Reserves the flat buffer, zeroed (values = NULL) or adopts memory of
 *  s->count floats, as it is, that outlives the set. No parameter can be
 *  added afterwards. Errors: DG_ENOMEM; DG_EINVAL when called twice. */
int dg_params_allocate(ParamSet *s, float *values);

/** Where the tensors' data is from now on, and its type, DG_F32 or DG_BF16:
 *  count values of kernel memory that outlive the set; at NULL: of a set that
 *  has sizes only. s->values stays what it is. */
void dg_params_point(ParamSet *s, void *at, DType dtype);

/** The same of one group alone, 1 .. num_groups: group->num values; or, with 0,
 *  of the parameters in no group: dg_params_rest() values, in order. */
void dg_params_point_group(ParamSet *s, int group, void *at, DType dtype);

/** Where a parameter of no group is among these. */
int64_t dg_params_rest_at(const ParamSet *s, int64_t offset);

/** Copies all values to memory of a backend that is apart, where the tensors'
 *  data is from now on, stored as dtype; *at: that memory, for its give().
 *  Errors: DG_ENOMEM. */
int dg_params_place(void **at, ParamSet *s, const Backend *backend,
                    DType dtype);

/** Values that would begin as zero are drawn too, normal by the inputs' number. */
void dg_params_draw_zeros(ParamSet *s);
/** Draws all values by their init rule from (seed, parameter index), by all of the
 *  process's cores: the same values by any number. */
void dg_params_draw(ParamSet *s, uint64_t seed);
/** The same for adapters, with random numbers of their own purpose. */
void dg_params_draw_lora(ParamSet *s, uint64_t seed);

/**
 * Fills all values by a fixed rule that any language repeats in ten lines, for
 * comparison with other implementations. With h = FNV-1a-64 of the name
 * (without skip_prefix if it starts with it) and splitmix64 of h + i + 1 steps
 * for element i, u = top 24 bits / 2^24 - 1/2 in double; a value is
 * u sqrt(12/fan_in) with >= 2 dims (fan_in = product of dims 1..), 0.2 u for
 * 1-D names ending in ".bias", else 1 + 0.2 u; rounded to float32.
 */
void dg_params_fill_golden(ParamSet *s, const char *skip_prefix);

/** The rule's inputs: u sqrt(12), unit variance. */
void dg_golden_input(float *out, int64_t count, const char *key);

/** The parameter of that name, or NULL. */
Param *dg_params_find(const ParamSet *s, const char *name);

/** Number of values, padding not counted. */
int64_t dg_params_num_values(const ParamSet *s);

#endif
