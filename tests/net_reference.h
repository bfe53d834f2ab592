#ifndef DG_TESTS_NET_REFERENCE_H
#define DG_TESTS_NET_REFERENCE_H
/* The networks of tiny_nets.h against values of other programs. Included
 * behind cmocka. */
#include "cpu/cpu.h"
#include "ref_kernels.h"
#include "tiny_nets.h"

#include <math.h>

static inline void close_to(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.9g, expected %.9g +- %.2g", got, want, tolerance);
}

/* Of one sample of a text encoder: the formulas in an independent program,
 * float32, weights by the fill rule. */
typedef struct NetReference {
    NetKind kind;
    int64_t num_params;
    int num; /* values of y */
    double sum, squares, first[4], last;
    double pooled[2]; /* of CLIP, the first two */
} NetReference;

/* Given to 1e-6; some twenty layers of rounding. */
static inline void net_matches(const NetReference *want)
{
    const Backend *backends[2] = { ref_backend(), dg_backend_cpu() };

    for (int k = 0; k < 2; k++) {
        const RunOpts o = { .backend = backends[k], .count = 1 };
        double sum = 0, squares = 0;
        Net n;
        Run *r;

        assert_int_equal(net_create(&n, want->kind), DG_OK);
        assert_int_equal(dg_params_num_values(&n.set), want->num_params);
        dg_params_fill_golden(&n.set, net_prefix(&n));
        r = run_create(&n);
        assert_int_equal(net_run(&n, &o, r), DG_OK);
        for (int i = 0; i < want->num; i++) {
            sum += r->y[i];
            squares += (double)r->y[i] * r->y[i];
        }
        close_to(sum, want->sum, want->num * 1e-6);
        close_to(squares, want->squares, want->squares * 1e-5);
        for (int i = 0; i < 4; i++)
            close_to(r->y[i], want->first[i], 1e-5);
        close_to(r->y[want->num - 1], want->last, 1e-5);
        for (int i = 0; i < 2 && want->kind == NET_CLIP; i++)
            close_to(r->pooled[i], want->pooled[i], 1e-5);
        run_destroy(r);
        net_destroy(&n);
    }
}

#endif
