/* Ranks that look at each other: silence where they compute the same, and who
 * it is where they do not. */
#include "mpi_test.h"
#include "tiny_run.h"
#include "train/witness.h"

#include <math.h>

static const char *const plain[] = { "run.witness_every=1", NULL };
static const char *const guided[] = { "run.witness_every=1", "cfg.scale=3",
                                      "grpo.updates_per_iteration=1", NULL };
static const char *const window[] = { "run.witness_every=1",
                                      "sampler.window_size=2",
                                      "sampler.window_start=1",
                                      "grpo.timestep_mode=window", NULL };
static const char *const flash[] = { "run.witness_every=1",
                                     "sampler.steps=8",
                                     "sampler.window_size=1",
                                     "sampler.window_solver=dpmpp_2m",
                                     "sampler.window_compress=0.8",
                                     "grpo.timestep_mode=window",
                                     NULL };
static const char *const few[] = { "run.witness_every=1",
                                   "grpo.prompts_per_iteration=1",
                                   "grpo.num_generations=2", NULL };

static void open_run(TinyRun *t, const char *const *sets)
{
    tiny_comm = comm;
    tiny_open(t, 1, sets);
}

static int look(TinyRun *t)
{
    return dg_witness_run(t->rollout, &t->session, t->team, t->policy);
}

/* All steps and samples come their turn, those of ranks without any too. */
static void test_ranks_that_are_alike_say_nothing(void **state)
{
    static const char *const *const all[] = { plain, guided, window, few,
                                              flash };

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all && comm.size > 1; i++) {
        TinyRun t;

        open_run(&t, all[i]);
        for (int64_t n = 0; n < 7; n++) {
            tiny_experience(&t, n);
            EXPECT(dg_witness_wanted(&t.session, n));
            EXPECT(look(&t) == DG_OK);
        }
        tiny_close(&t);
    }
    VERDICT();
}

static void test_when_it_is_wanted(void **state)
{
    TinyRun t;

    (void)state;
    open_run(&t, plain);
    t.config.run.witness_every = 10;
    for (int64_t n = 0; n < 40; n++)
        EXPECT(dg_witness_wanted(&t.session, n) ==
               (n % 10 == 0 && comm.size > 1));
    t.session.unlike = 1; /* that is told once, at the start */
    EXPECT(!dg_witness_wanted(&t.session, 10));
    t.session.unlike = 0;
    t.config.run.witness_every = 0;
    EXPECT(!dg_witness_wanted(&t.session, 10));
    tiny_close(&t);
    VERDICT();
}

/* Of more than two ranks the one is named. */
static void expect_named(int culprit, int64_t iteration)
{
    const char *text = dg_last_error()->text;
    char who[80], when[40];

    snprintf(who, sizeof who, "rank %d differs from both its neighbours",
             culprit);
    snprintf(when, sizeof when, "iteration %d: ", (int)iteration + 1);
    EXPECT(strstr(text, when) == text);
    EXPECT(strstr(text, comm.size > 2 ? who : "one of both") != NULL);
    EXPECT(strstr(text, "of the next latent") != NULL);
}

/* One weight of one rank, after a rollout that was right or not. */
static void test_other_weights_are_found(void **state)
{
    (void)state;
    for (int culprit = 0; culprit < comm.size && comm.size > 1; culprit++) {
        TinyRun t;

        open_run(&t, plain);
        tiny_experience(&t, 0);
        EXPECT(look(&t) == DG_OK);
        if (comm.rank == culprit)
            t.policy->net.values[100] *= 1.001f;
        tiny_experience(&t, 1);
        EXPECT(look(&t) == DG_EPROMISE);
        expect_named(culprit, 1);
        tiny_close(&t);
    }
    VERDICT();
}

/* Each look sees, whether its step is stochastic or not. */
static void test_no_turn_is_blind(void **state)
{
    (void)state;
    for (int second = 0; second < 2; second++) {
        TinyRun t;

        open_run(&t, second ? flash : window);
        if (comm.rank == comm.size - 1)
            t.policy->net.values[100] *= 1.001f;
        for (int64_t n = 0; n < 6 && comm.size > 1; n++) {
            tiny_experience(&t, n);
            EXPECT(look(&t) == DG_EPROMISE);
        }
        tiny_close(&t);
    }
    VERDICT();
}

/* What a rank has computed in its rollout is other than what its weights say:
 * the bit that a density ends with. */
static void test_a_density_that_changed_is_found(void **state)
{
    TinyRun t;

    (void)state;
    open_run(&t, plain);
    if (comm.size > 1) {
        const int last = comm.size - 1;

        tiny_experience(&t, 0);
        if (comm.rank == last)
            for (int64_t i = 0; i < t.rollout->num * t.rollout->T; i++)
                t.rollout->log_prob[i] =
                    nextafterf(t.rollout->log_prob[i], 1e9f);
        EXPECT(look(&t) == DG_EPROMISE);
        char who[40];

        /* with their hosts, where these are several */
        snprintf(who, sizeof who, "of rank %d", last);
        EXPECT(strstr(dg_last_error()->text, who) != NULL);
        EXPECT(strstr(dg_last_error()->text, ", seen by rank 0") != NULL);
        EXPECT(strstr(dg_last_error()->text, "the log-density is") != NULL);
        EXPECT(strstr(dg_last_error()->text, "one of both") != NULL);
    }
    tiny_close(&t);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_ranks_that_are_alike_say_nothing),
    cmocka_unit_test(test_when_it_is_wanted),
    cmocka_unit_test(test_other_weights_are_found),
    cmocka_unit_test(test_no_turn_is_blind),
    cmocka_unit_test(test_a_density_that_changed_is_found),
};

MPI_MAIN(mpi_witness, tests)
