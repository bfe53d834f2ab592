/* An update of several ranks: what one rank's samples gave is known to all, and
 * all apply or skip the same. The tiny run of the trainer, on each rank. */
#include "mpi_test.h"

#include "tiny_run.h"

#include <math.h>

static int open_run(TinyRun *t, const char *const *sets)
{
    const Rollout *r;

    tiny_comm = comm;
    tiny_open(t, 1, sets);
    tiny_experience(t, 0);
    r = t->rollout;
    for (int64_t i = 0; i < r->N * r->K; i++)
        r->scores[i] =
            (RewardScore) { (float)sin(1.7 * (double)(i * i + 1)), NAN, 0 };
    return dg_update_prepare(t->update, &t->session, t->rollout);
}

static int is_here(const TinyRun *t, int64_t item)
{
    const Rollout *r = t->rollout;

    return item >= r->first && item < r->first + r->num;
}

/* On the rank that has it: its first trained step is not finite. */
static void spoil(const TinyRun *t, int64_t item)
{
    const Update *u = t->update;

    if (is_here(t, item))
        dg_rollout_latent(t->rollout, item,
                          u->steps[(item - u->first_kept) * t->rollout->T])[0] =
            NAN;
}

/* All ranks' bytes are the first one's. */
static int same_everywhere(const void *here, size_t bytes)
{
    void *first = malloc(bytes);
    int same;

    memcpy(first, here, bytes);
    dg_comm_bcast(&comm, first, bytes, 0);
    same = memcmp(first, here, bytes) == 0;
    free(first);
    return same;
}

static void check_shared(const TinyRun *t, int64_t failed)
{
    const Update *u = t->update;

    for (int64_t k = 0; k < u->num_kept; k++) {
        EXPECT(u->set_aside[k] ==
               (k == failed ? DG_ASIDE_FAILED : DG_ASIDE_NOT));
        for (int j = 0; j < u->steps_per_item && k != failed; j++)
            EXPECT(isfinite(u->result[k * u->steps_per_item + j].ratio));
    }
    EXPECT(same_everywhere(u->result,
                           sizeof *u->result *
                               (size_t)(u->num_kept * u->steps_per_item)));
    EXPECT(same_everywhere(t->policy->values,
                           sizeof(float) * (size_t)t->policy->num_values));
}

/* Each item in turn: of a rank's several, of a rank's only one. */
static void test_all_skip_what_one_could_not_do(void **state)
{
    (void)state;
    for (int64_t item = -1; item < 12; item += 3) {
        TinyRun t;
        UpdateStats stats;

        EXPECT(open_run(&t, NULL) == DG_OK);
        if (item >= 0)
            spoil(&t, item);
        EXPECT(tiny_update(&t, 0, &stats) == DG_OK);
        EXPECT(stats.skipped_updates == (item >= 0));
        EXPECT(stats.set_aside == (item >= 0));
        EXPECT(t.learner->updates == 2 - (item >= 0));
        EXPECT((t.update->note[0] != '\0') == (item >= 0 && is_here(&t, item)));
        EXPECT(same_everywhere(&stats, sizeof stats));
        check_shared(&t, item);
        tiny_close(&t);
    }
    VERDICT();
}

/* A gradient that no sum can take is told by its parameter's name. */
static void test_too_large_a_gradient_is_named(void **state)
{
    static const char *const sets[] = { "grpo.advantage_clip=1e9", NULL };

    (void)state;
    for (int64_t item = 0; item < 12; item += 5) {
        TinyRun t;
        UpdateStats stats;

        EXPECT(open_run(&t, sets) == DG_OK);
        t.update->total[item] = 1e9f;
        EXPECT(tiny_update(&t, 0, &stats) == DG_OK);
        EXPECT(stats.skipped_updates == 1 && stats.set_aside == 1);
        check_shared(&t, item);
        EXPECT(!is_here(&t, item) ||
               strstr(t.update->note, ".weight: gradient element ") != NULL);
        tiny_close(&t);
    }
    VERDICT();
}

/* A ratio of one rank that is not 1 stops them all, with one text. */
static void test_all_stop_at_a_broken_ratio(void **state)
{
    static const char *const sets[] = { "grpo.updates_per_iteration=1", NULL };

    (void)state;
    for (int64_t item = 0; item < 12; item += 5) {
        TinyRun t;
        UpdateStats stats;
        char text[64];

        EXPECT(open_run(&t, sets) == DG_OK);
        if (is_here(&t, item))
            for (int i = 0; i < t.rollout->T; i++) {
                float *p =
                    &t.rollout
                         ->log_prob[(item - t.rollout->first) * t.rollout->T +
                                    i];

                *p = nextafterf(*p, 2);
            }
        EXPECT(tiny_update(&t, 0, &stats) == DG_EPROMISE);
        snprintf(text, sizeof text, "sample %lld, timestep",
                 (long long)(item % 4));
        EXPECT(strstr(dg_last_error()->text, text) != NULL);
        EXPECT(same_everywhere(dg_last_error()->text, 100));
        EXPECT(t.learner->updates == 0);
        tiny_close(&t);
    }
    VERDICT();
}

/* Pictures of a group lie on several ranks: their sums are those of a rank that
 * has them all, on each. */
static void test_pictures_of_all_ranks_are_one_group(void **state)
{
    TinyRun t, alone;
    Comm self;
    size_t bytes;

    (void)state;
    EXPECT(open_run(&t, NULL) == DG_OK);
    dg_rollout_share(t.rollout, &comm);
    bytes = sizeof *t.rollout->pictures * (size_t)t.rollout->P;
    EXPECT(same_everywhere(t.rollout->pictures, bytes));
    EXPECT(dg_comm_self(&self) == DG_OK);
    tiny_comm = self;
    tiny_open(&alone, 1, NULL);
    tiny_experience(&alone, 0);
    EXPECT(alone.rollout->num == 12 && alone.rollout->pictures[2].num == 4);
    EXPECT(memcmp(alone.rollout->pictures, t.rollout->pictures, bytes) == 0);
    tiny_close(&alone);
    dg_comm_self_free(&self);
    tiny_comm = comm;
    tiny_close(&t);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_pictures_of_all_ranks_are_one_group),
    cmocka_unit_test(test_all_skip_what_one_could_not_do),
    cmocka_unit_test(test_too_large_a_gradient_is_named),
    cmocka_unit_test(test_all_stop_at_a_broken_ratio),
};

MPI_MAIN(mpi_update, tests)
