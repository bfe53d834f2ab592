/* A policy whose values the ranks of a node have together until each has its own
 * on an emulated GPU: what is there, and how often. */
#include "mpi_test.h"

#include "../src/train/trainer.h"
#include "base/error.h"
#include "cuda/cuda.h"
#include "node_file.h"
#include "train/learner.h"
#include "train/setup.h"

enum { PAGE = 4096, SEED = 3 };

static Config config(const char *const *sets)
{
    Config c;

    dg_config_defaults(&c);
    EXPECT(dg_config_load(&c, "configs/tiny.cfg") == DG_OK);
    for (; sets != NULL && *sets != NULL; sets++)
        EXPECT(dg_config_set(&c, *sets) == DG_OK);
    dg_config_settle(&c);
    return c;
}

/* a stream of this rank's device */
static int open_device(void **state)
{
    CudaStream *s = NULL;

    (void)state;
    EXPECT(dg_cuda_stream_create(&s, comm.rank) == DG_OK);
    dg_cuda_use(s);
    return 0;
}

/* as dg_setup_policy() does, on a GPU of each rank */
static Policy *placed(const Config *c)
{
    Policy *p = NULL;

    EXPECT(dg_policy_create_on_node(&p, c, &comm) == DG_OK);
    if (dg_policy_fills(p))
        dg_policy_draw(p, SEED);
    EXPECT(dg_policy_publish(p, &comm) == DG_OK);
    EXPECT(dg_policy_place(p, dg_backend_cuda()) == DG_OK);
    return p;
}

/* values first .. first + num - 1 are those of a policy of this rank alone */
static void expect_values(const Policy *p, const Config *c, int64_t first,
                          int64_t num)
{
    float *got = malloc(sizeof *got * (size_t)num + 1);
    Policy *want;

    EXPECT(dg_policy_create(&want, c) == DG_OK);
    dg_policy_draw(want, SEED);
    EXPECT(dg_policy_get(p, got, first, num) == DG_OK);
    EXPECT(memcmp(got, want->values + first, sizeof *got * (size_t)num) == 0);
    dg_policy_destroy(want);
    free(got);
}

/* Once in all, of so many values; boundaries lie in pages, of two networks. */
static void expect_bytes(int64_t values)
{
    const long long bytes = (long long)sizeof(float) * values;
    long long there;

    dg_comm_barrier(&comm); /* the first rank gives back for all */
    there = node_file_bytes();
    dg_comm_barrier(&comm);
    if (!node_file_is_shared())
        EXPECT(there == -1);
    else
        EXPECT(there >= bytes && there <= bytes + 4 * PAGE);
}

static const char *const bf16[] = { "run.dtype=bfloat16", NULL };

/* What files want stays on the node, once: text encoders that GPUs have rounded;
 * masters are the GPUs'. */
static void test_text_encoders_stay_once(void **state)
{
    const Config c = config(bf16);
    Policy *p = placed(&c);
    const int64_t net = p->net.count, text = p->text.count;
    float *again = malloc(sizeof *again * (size_t)text);

    (void)state;
    expect_bytes(net + text);
    EXPECT(dg_policy_masters(p, 0, net) == DG_OK);
    dg_policy_drop(p, 1);
    EXPECT(dg_policy_settle(p, &comm) == DG_OK);
    expect_bytes(text);
    expect_values(p, &c, 0, net + text);
    /* as a checkpoint does that is resumed: the same values */
    EXPECT(dg_policy_get(p, again, net, text) == DG_OK);
    dg_policy_put(p, again, net, text);
    expect_bytes(text);
    if (node_file_is_shared())
        EXPECT(node_file_own_bytes(&p->text.values[text / 2]) == 0);
    /* and one that differs is this rank's alone */
    again[5] = (float)comm.rank + 0.5f;
    dg_policy_put(p, again, net, text);
    dg_comm_barrier(&comm);
    EXPECT(p->text.values[5] == (float)comm.rank + 0.5f);
    if (node_file_is_shared())
        EXPECT(node_file_own_bytes(&p->text.values[text / 2]) > 0);
    expect_values(p, &c, net + 6, text - 6);
    free(again);
    dg_policy_destroy(p);
    EXPECT(node_file_bytes() == -1);
    VERDICT();
}

/* AdamW on the host: each rank moves its own. */
static void test_what_is_trained_on_the_host_is_a_ranks_own(void **state)
{
    const Config c = config(NULL);
    Policy *p = placed(&c);
    const int64_t net = p->net.count, text = p->text.count;

    (void)state;
    EXPECT(dg_policy_settle(p, &comm) == DG_OK);
    expect_bytes(text);
    expect_values(p, &c, 0, net + text);
    for (int64_t i = 0; i < net; i++)
        p->values[i] = (float)comm.rank;
    dg_comm_barrier(&comm);
    EXPECT(p->values[0] == (float)comm.rank);
    EXPECT(p->values[net - 1] == (float)comm.rank);
    expect_values(p, &c, net, text);
    dg_policy_destroy(p);
    VERDICT();
}

/* A run that AdamW's host has the masters of goes on from a checkpoint, which has
 * the text encoders too: none of them is a rank's own for it. */
static void test_a_resume_leaves_text_encoders_once(void **state)
{
    const Config c = config(bf16);
    const LearnerPlace place = { .offload = 1 };
    Session s = { .comm = &comm,
                  .config = &c,
                  .backend = dg_backend_cuda(),
                  .num_threads = 1 };
    Policy *p = placed(&c);
    const int64_t net = p->net.count, text = p->text.count;
    int64_t iteration = 0;
    Learner *l = NULL;
    char folder[256];
    int found = 0;

    (void)state;
    s.info = (FileInfo) {
        .program = "test", .git_commit = "", .command = "", .config = ""
    };
    make_folder(folder);
    EXPECT(!dg_learner_create(&l, p, net, &c.optim, 100, &place));
    EXPECT(!dg_policy_settle(p, &comm));
    EXPECT(!dg_learner_save(l, &s, folder, 7));
    memset(p->values, 0, sizeof *p->values * (size_t)net);
    EXPECT(!dg_learner_resume(l, &s, folder, &iteration, &found));
    EXPECT(found && iteration == 7);
    expect_values(p, &c, 0, net + text);
    expect_bytes(text);
    if (node_file_is_shared())
        EXPECT(node_file_own_bytes(&p->text.values[text / 2]) == 0);
    dg_learner_destroy(l);
    dg_policy_destroy(p);
    drop_folder(folder);
    VERDICT();
}

/* Where nothing is wanted on the host nothing is left of it. */
static void test_a_policy_that_paints_leaves_nothing(void **state)
{
    const Config c = config(bf16);
    Policy *p = placed(&c);

    (void)state;
    dg_policy_drop(p, 0);
    EXPECT(dg_policy_settle(p, &comm) == DG_OK);
    expect_bytes(0);
    dg_policy_destroy(p);
    VERDICT();
}

/* Below adapters the GPU has all. */
static void test_adapters_are_a_ranks_own(void **state)
{
    static const char *const sets[] = { "lora.rank=4", NULL };
    const Config c = config(sets);
    Policy *p = placed(&c);
    const int64_t num = p->adapters.count;
    float *got = malloc(sizeof *got * (size_t)num);

    (void)state;
    EXPECT(dg_policy_settle(p, &comm) == DG_OK);
    expect_bytes(0);
    expect_values(p, &c, 0, num);
    if (node_file_is_shared()) /* nor a copy */
        EXPECT(p->net.values[p->net.count / 2] == 0);
    p->values[1] = (float)comm.rank;
    dg_policy_send(p);
    dg_comm_barrier(&comm);
    EXPECT(dg_policy_fetch(p, num) == DG_OK);
    EXPECT(p->values[1] == (float)comm.rank);
    free(got);
    dg_policy_destroy(p);
    VERDICT();
}

/* Of num values that all ranks share out, those of this node's. */
static int64_t of_node(int64_t num)
{
    const int first = comm.rank - comm.node_rank;
    int64_t at, n, sum = 0;

    for (int r = first; r < first + comm.node_size; r++) {
        dg_share_range(num, r, comm.size, &at, &n);
        sum += n;
    }
    return sum;
}

/* KL's reference for files: of the first weights, whatever the policy becomes, and
 * each rank's range or all of it. */
static void check_reference(int held)
{
    const Config c = config(bf16);
    Policy *p = NULL, *ref = NULL;
    ShardRange range = { 0, 0 };

    EXPECT(dg_policy_create_on_node(&p, &c, &comm) == DG_OK);
    if (dg_policy_fills(p))
        dg_policy_draw(p, SEED);
    EXPECT(dg_policy_publish(p, &comm) == DG_OK);
    range.num = p->net.count;
    if (held) {
        dg_share_range(p->net.count, comm.rank, comm.size, &range.first,
                       &range.num);
        EXPECT(!dg_policy_hold(p, dg_backend_cuda(), &range, NULL));
    } else {
        EXPECT(!dg_policy_place(p, dg_backend_cuda()));
    }
    EXPECT(!dg_policy_reference_on_node(&ref, p, &c, &comm));
    dg_policy_drop(p, 1);
    dg_policy_drop_text(ref);
    EXPECT(!dg_policy_settle(p, &comm) && !dg_policy_settle(ref, &comm));
    expect_bytes(p->text.count + (held ? of_node(p->net.count) : p->net.count));
    expect_values(ref, &c, range.first, range.num);
    if (node_file_is_shared())
        EXPECT(node_file_own_bytes(ref->values + range.first + range.num / 2) ==
               0);
    dg_policy_destroy(ref);
    dg_policy_destroy(p);
}

static void test_a_reference_is_there_once(void **state)
{
    (void)state;
    check_reference(0);
    check_reference(1);
    VERDICT();
}

/* A run's copies go before its host has reserved the rest, of which there is most
 * where ranks have ranges. */
static void check_run(const char *level)
{
    const char *const sets[] = { "run.dtype=bfloat16", "trajectory.every=0",
                                 "parallel.offload_sums=true", level, NULL };
    const Config c = config(sets);
    const Session s = { .comm = &comm,
                        .config = &c,
                        .backend = dg_backend_cuda(),
                        .num_threads = 1 };
    Trainer t = { .session = &s };

    EXPECT(!dg_rewards_init(t.rewards, &c));
    EXPECT(!dg_rewards_open(t.rewards, &c, c.num_rewards, &comm));
    EXPECT(!dg_setup_prompts(&s, c.prompts.file, &t.prompts));
    EXPECT(!dg_setup_policy(&s, 0, &t.policy));
    EXPECT(!dg_trainer_place(t.policy, &s));
    expect_bytes(t.policy->num_values);
    EXPECT(!dg_trainer_reserve(&t));
    expect_bytes(t.policy->text.count);
    dg_trainer_close(&t);
}

static void test_a_run_gives_copies_back(void **state)
{
    (void)state;
    check_run("parallel.shard=gradients");
    check_run("parallel.shard=parameters");
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup(test_text_encoders_stay_once, open_device),
    cmocka_unit_test(test_what_is_trained_on_the_host_is_a_ranks_own),
    cmocka_unit_test(test_a_resume_leaves_text_encoders_once),
    cmocka_unit_test(test_a_policy_that_paints_leaves_nothing),
    cmocka_unit_test(test_adapters_are_a_ranks_own),
    cmocka_unit_test(test_a_reference_is_there_once),
    cmocka_unit_test(test_a_run_gives_copies_back),
};

MPI_MAIN(cuda_policy, tests)
