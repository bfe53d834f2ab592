#ifndef DG_TESTS_COMMAND_BED_H
#define DG_TESTS_COMMAND_BED_H
/*
 * A reward that is a program, tests/tools/scorer.c, without a run around it.
 */
#include "base/error.h"
#include "reward/picture.h"
#include "reward/reward.h"
#include "tiny_run.h"

#include <math.h>
#include <unistd.h>

enum { SIDE = 24, VALUES = 3 * SIDE * SIDE };

typedef struct Bed {
    Config config;
    Reward r;
    char folder[256], log[300], once[300];
    float rgb[VALUES];
    uint8_t scratch[VALUES];
} Bed;

/* for which scorer.c does what at=bad is told to */
static const Prompt bad = { .text = "bad" };
static const Prompt plain = { .text = "a \"red\" c\xc3\xb6w\t\x01" };

/* A picture of nothing in particular, beyond [0, 1] too. */
static inline void draw(float *rgb, uint64_t seed)
{
    const RngKey key = { .seed = seed, .purpose = DG_RNG_INIT_LATENTS };

    dg_rng_normal(rgb, 0, VALUES, &key);
    for (int i = 0; i < VALUES; i++)
        rgb[i] = 0.5f + 0.4f * rgb[i];
}

/* how: of tests/tools/scorer.c, %s is a file of the bed's; behind a "!" the shell
 * becomes the program */
static inline void set(Bed *b, const char *how, const char *more)
{
    const char *build = getenv("DG_BUILD");
    char word[512], rewards[1200];

    memset(b, 0, sizeof *b);
    tiny_folder(b->folder);
    snprintf(b->log, sizeof b->log, "%s/log", b->folder);
    snprintf(b->once, sizeof b->once, "%s/once", b->folder);
    setenv("SCORER_LOG", b->log, 1);
    snprintf(word, sizeof word, how + (how[0] == '!'), b->once);
    snprintf(
        rewards, sizeof rewards,
        "rewards=({name=\"mine\"; command=\"%s%s/tests/tools/scorer '%s'\"; "
        "%s})",
        how[0] == '!' ? "exec " : "", build != NULL ? build : "build", word,
        more);
    dg_config_defaults(&b->config);
    MUST(dg_config_set(&b->config, rewards));
    MUST(dg_rewards_init(&b->r, &b->config));
    MUST(dg_rewards_open(&b->r, &b->config, 1, &tiny_comm));
    assert_int_equal(dg_rewards_scratch(&b->r, 1, SIDE, SIDE), VALUES);
    assert_int_equal(dg_rewards_num_features(&b->r, 1), 0);
    draw(b->rgb, 1);
}

static inline void open_bed(Bed *b, const char *how, const char *more)
{
    set(b, how, more);
    MUST(dg_rewards_start(&b->r, &b->config, 1, &tiny_comm, NULL));
}

static inline void close_bed(Bed *b)
{
    dg_rewards_close(&b->r, 1);
    tiny_drop(b->folder);
}

static inline int ask(Bed *b, const Prompt *prompt, RewardScore *s)
{
    const RewardInput in = { .rgb = b->rgb,
                             .height = SIDE,
                             .width = SIDE,
                             .prompt = prompt,
                             .scratch = b->scratch };

    dg_clear_error();
    return dg_reward_score(&b->r, &in, s);
}

static inline RewardScore score(Bed *b)
{
    RewardScore s;

    MUST(ask(b, &plain, &s));
    return s;
}

/* What the program is to say. */
static inline float mean_byte(const float *rgb, Quantize how)
{
    uint8_t bytes[VALUES];
    double sum = 0;

    MUST(dg_picture_quantize(bytes, rgb, VALUES, how));
    for (int i = 0; i < VALUES; i++)
        sum += bytes[i];
    return (float)(sum / (255.0 * VALUES));
}

/* The log's line number n from 0; "" where there are not so many. */
static inline void logged(const Bed *b, int n, char line[2048])
{
    FILE *f = fopen(b->log, "r");

    line[0] = '\0';
    for (int i = 0; i <= n && f != NULL; i++)
        if (fgets(line, 2048, f) == NULL)
            line[0] = '\0';
    if (f != NULL)
        fclose(f);
}

static inline long pid_of(const Bed *b, int n)
{
    char line[2048];
    const char *at;

    logged(b, n, line);
    at = strstr(line, "pid ");
    return at != NULL ? atol(at + 4) : 0;
}

/** Starts MPI with one rank. */
static inline int bed_main(int argc, char **argv)
{
    if (dg_comm_init(&tiny_comm, &argc, &argv) != DG_OK)
        return 1;
    setenv("OMPI_COMM_WORLD_RANK", "0", 1); /* is not to be seen below */
    return 0;
}

#endif
