/* Rewards' networks on several ranks: which of them are one, where a path leads
 * elsewhere for some. */
#include "mpi_test.h"

#include "base/error.h"
#include "base/log.h"
#include "reward/reward.h"

#define MODEL "tests/golden/clip_tiny"
#define WORDS "tests/golden/sd_tiny/tokenizer"

/* Three rewards at three paths; how many networks there are. */
typedef struct Case {
    Config config;
    Reward r[DG_CONFIG_REWARDS];
    long warned;
} Case;

static void open_three(Case *k, const char *a, const char *b, const char *c)
{
    char text[2048];

    snprintf(text, sizeof text,
             "rewards=({name=\"clip\";path=\"%s\";tokenizer=\"" WORDS "\";},"
             "{name=\"hpsv2\";path=\"%s\";tokenizer=\"" WORDS "\";},"
             "{name=\"pickscore\";path=\"%s\";tokenizer=\"" WORDS "\";})",
             a, b, c);
    dg_config_defaults(&k->config);
    EXPECT(dg_config_set(&k->config, text) == DG_OK);
    EXPECT(dg_rewards_init(k->r, &k->config) == DG_OK);
    k->warned = dg_log_count(DG_LOG_WARN);
    EXPECT(dg_rewards_open(k->r, &k->config, 3, &comm) == DG_OK);
    k->warned = dg_log_count(DG_LOG_WARN) - k->warned;
}

/* networks: of how many it has the values; hosts: whose each has */
static void expect_networks(Case *k, int64_t networks, const int *hosts)
{
    const int64_t one = dg_rewards_num_values(k->r, 1);

    EXPECT(one > 0 && dg_rewards_num_values(k->r, 3) == networks * one);
    for (int i = 0; i < 3; i++)
        EXPECT(k->r[i].network == hosts[i]);
    dg_rewards_close(k->r, 3);
}

static void make_copies(char folder[256], char link[300], char copy[300])
{
    char command[900];

    make_folder(folder);
    snprintf(link, 300, "%s/link", folder);
    snprintf(copy, 300, "%s/copy", folder);
    snprintf(command, sizeof command,
             "ln -s \"$PWD/" MODEL "\" '%s' && cp -r " MODEL " '%s'", link,
             copy);
    if (comm.rank == 0)
        EXPECT(system(command) == 0);
    dg_comm_barrier(&comm);
}

static void test_the_same_for_all_is_one(void **state)
{
    char folder[256], link[300], copy[300];
    Case k;

    (void)state;
    make_copies(folder, link, copy);
    open_three(&k, MODEL, copy, link);
    EXPECT(k.warned == 0);
    expect_networks(&k, 2, (const int[]) { 0, 1, 0 });
    drop_folder(folder);
    VERDICT();
}

/* One rank alone has another file there: all have a network more. */
static void test_what_one_rank_sees_elsewhere_is_its_own(void **state)
{
    char folder[256], link[300], copy[300];
    const int several = comm.size > 1;
    Case k;

    (void)state;
    make_copies(folder, link, copy);
    for (int odd = 0; odd < comm.size; odd++) {
        open_three(&k, MODEL, MODEL, comm.rank == odd ? copy : link);
        EXPECT(k.warned == several);
        expect_networks(&k, 2, (const int[]) { 0, 0, 2 });
    }
    drop_folder(folder);
    VERDICT();
}

/* All have an earlier one's, but not the same one's. */
static void test_of_two_hosts_it_has_neither(void **state)
{
    char folder[256], link[300], copy[300];
    const int several = comm.size > 1;
    Case k;

    (void)state;
    make_copies(folder, link, copy);
    open_three(&k, MODEL, copy, comm.rank == comm.size - 1 ? copy : link);
    EXPECT(k.warned == several);
    expect_networks(&k, several ? 3 : 2,
                    (const int[]) { 0, 1, several ? 2 : 1 });
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_the_same_for_all_is_one),
    cmocka_unit_test(test_what_one_rank_sees_elsewhere_is_its_own),
    cmocka_unit_test(test_of_two_hosts_it_has_neither),
};

MPI_MAIN(mpi_rewards, tests)
