/* What the network of a checkpoint gives for fixed random inputs, for
 * tests/peers: net_output CHECKPOINT OUT.safetensors raw|ema */
#include "base/error.h"
#include "base/philox.h"
#include "cpu/cpu.h"
#include "policy/policy.h"
#include "weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 3 };

typedef struct Probe {
    float *z, *condition, *u; /* [BATCH] of each */
    float time[BATCH];
} Probe;

static int load(Policy **p, const Comm *self, const char *path, int ema)
{
    Config c;
    int err;

    dg_config_defaults(&c);
    err = dg_policy_adopt_sizes(&c, path);
    if (!err)
        err = dg_policy_create(p, &c);
    if (!err)
        err = dg_policy_load_folder(*p, self, 1);
    return err ? err : dg_policy_load(*p, path, ema);
}

static float *draw(int64_t num, uint32_t which)
{
    const RngKey key = { .purpose = DG_RNG_TEST, .prompt = which };
    float *x = malloc(sizeof *x * (size_t)num);

    if (x == NULL)
        dg_panic("no memory for %lld values", (long long)num);
    dg_rng_normal(x, 0, num, &key);
    return x;
}

static int predict(const Policy *p, Probe *x)
{
    static const float integers[BATCH] = { 999, 500, 1 };
    static const float units[BATCH] = { 1.0f, 0.5f, 0.0625f };
    const PolicyShape *s = &p->shape;
    const float *z[BATCH], *condition[BATCH];
    const PolicyBatch b = {
        .num = BATCH, .z = z, .time = x->time, .condition = condition
    };
    const Tensor *u;
    Context ctx;
    int err = dg_context_init(&ctx, dg_backend_cpu(), (size_t)1 << 30);

    if (err)
        return err;
    for (int i = 0; i < BATCH; i++) {
        x->time[i] = s->time == DG_TIME_INTEGER ? integers[i] : units[i];
        z[i] = x->z + i * s->elements;
        condition[i] = x->condition + i * s->condition;
    }
    u = dg_policy_predict(p, &ctx, &b);
    if (u != NULL)
        memcpy(x->u, u->data, sizeof(float) * (size_t)(BATCH * s->elements));
    err = dg_context_error(&ctx);
    dg_context_fini(&ctx);
    return err;
}

static int write(const Policy *p, const Probe *x, const char *path)
{
    const PolicyShape *s = &p->shape;
    const WeightOut list[] = {
        { "z", DG_WEIGHT_F32, 3, { BATCH, s->tokens, s->features }, x->z },
        { "condition",
          DG_WEIGHT_F32,
          2,
          { BATCH, s->condition },
          x->condition },
        { "time", DG_WEIGHT_F32, 1, { BATCH }, x->time },
        { "u", DG_WEIGHT_F32, 3, { BATCH, s->tokens, s->features }, x->u },
    };

    return dg_safetensors_write(path, list, 4, NULL, NULL);
}

static int work(const Comm *self, char **argv)
{
    Probe x = { .z = NULL };
    Policy *p = NULL;
    int err = load(&p, self, argv[1], strcmp(argv[3], "ema") == 0);

    if (!err) {
        x.z = draw(BATCH * p->shape.elements, 0);
        x.condition = draw(BATCH * p->shape.condition, 1);
        x.u = draw(BATCH * p->shape.elements, 2);
        err = predict(p, &x);
    }
    if (!err)
        err = write(p, &x, argv[2]);
    free(x.z);
    free(x.condition);
    free(x.u);
    dg_policy_destroy(p);
    return err;
}

int main(int argc, char **argv)
{
    Comm all, self;
    int err;

    if (argc != 4) {
        fprintf(stderr,
                "usage: net_output CHECKPOINT OUT.safetensors raw|ema\n");
        return 2;
    }
    err = dg_comm_init(&all, &argc, &argv);
    if (!err)
        err = dg_comm_self(&self);
    if (!err) {
        err = work(&self, argv);
        dg_comm_self_free(&self);
    }
    if (err)
        fprintf(stderr, "%s\n", dg_last_error()->text);
    dg_comm_fini(&all);
    return err != DG_OK;
}
