#include "world/lists.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "world/world.h"

enum {
    POOL = 400,       /* captions kept per tag */
    LOOKED_AT = 20000 /* scenes of a tag looked at for them */
};

/* Lines of the train list per tag; they sum to DG_WORLD_TRAIN_LINES. */
static const int train_lines[DG_NUM_TAGS] = { 20, 100, 120, 60, 140, 130, 130 };

/* Distinct captions of one tag in the order in which the stream shows
 * them, and the distinct meanings they have. */
typedef struct Pool {
    WorldScene scene[POOL];
    int num;
    uint64_t meaning[POOL];
    int num_meanings;
} Pool;

static int has_meaning(const uint64_t *list, int num, uint64_t meaning)
{
    for (int i = 0; i < num; i++)
        if (list[i] == meaning)
            return 1;
    return 0;
}

static int has_prompt(const Pool *p, const char *prompt)
{
    for (int i = 0; i < p->num; i++)
        if (strcmp(p->scene[i].prompt, prompt) == 0)
            return 1;
    return 0;
}

static int fill_pool(Pool *p, int tag, uint64_t seed)
{
    WorldStream stream = { .seed = seed + (uint64_t)tag, .side = 64 };

    stream.weight[tag] = 1.0f;
    p->num = p->num_meanings = 0;
    for (uint64_t i = 0; i < LOOKED_AT && p->num < POOL; i++) {
        WorldScene *s = &p->scene[p->num];
        uint64_t meaning;
        int err = dg_world_stream_scene(s, &stream, i);

        if (err)
            return err;
        if (has_prompt(p, s->prompt))
            continue;
        p->num++;
        meaning = dg_world_meaning(&s->meta);
        if (!has_meaning(p->meaning, p->num_meanings, meaning))
            p->meaning[p->num_meanings++] = meaning;
    }
    return DG_OK;
}

/* Meanings held out: the first ones, at most 30 % of those there are. */
static int num_held(const Pool *p, int lines)
{
    int most = p->num_meanings * 3 / 10;

    most = most > 0 ? most : 1;
    return lines < most ? lines : most;
}

/* The n-th line of a tag's share, going round where captions are few.
 * With 'held' the held-out meanings, one caption each; else all others. */
static const WorldScene *pick(const Pool *p, int held, int lines, int n)
{
    const WorldScene *list[POOL] = { NULL };
    uint64_t seen[POOL];
    int num = 0, num_out = num_held(p, lines);

    for (int i = 0; i < p->num; i++) {
        uint64_t m = dg_world_meaning(&p->scene[i].meta);

        if (has_meaning(p->meaning, num_out, m) != held)
            continue;
        if (held && has_meaning(seen, num, m))
            continue;
        seen[num] = m;
        list[num++] = &p->scene[i];
    }
    return list[n % num];
}

static int write_line(FILE *f, const WorldScene *s)
{
    char line[1024];
    int err = dg_world_meta_write(line, sizeof line, &s->meta, s->prompt);

    if (err)
        return err;
    fprintf(f, "%s\n", line);
    return DG_OK;
}

/* Lines spread evenly over the file, whatever the share of their tag. */
static int write_list(FILE *f, const Pool *pool, int held,
                      const int lines[DG_NUM_TAGS], int num_heldout)
{
    int written[DG_NUM_TAGS] = { 0 }, total = 0, err = DG_OK;

    for (int t = 0; t < DG_NUM_TAGS; t++)
        total += lines[t];
    for (int i = 0; i < total && !err; i++) {
        double most = -1e9;
        int tag = 0;

        for (int t = 0; t < DG_NUM_TAGS; t++) {
            double behind = (double)lines[t] * (i + 1) / total - written[t];

            if (written[t] < lines[t] && behind > most) {
                most = behind;
                tag = t;
            }
        }
        err = write_line(f, pick(&pool[tag], held, num_heldout, written[tag]));
        written[tag]++;
    }
    return err;
}

static int write_file(const char *path, const Pool *pool, int held,
                      int num_heldout)
{
    int lines[DG_NUM_TAGS], err, bad;
    FILE *f = fopen(path, "w");

    if (f == NULL)
        return dg_fail(DG_EIO, "%s: %s", path, strerror(errno));
    for (int t = 0; t < DG_NUM_TAGS; t++)
        lines[t] = held ? num_heldout : train_lines[t];
    err = write_list(f, pool, held, lines, num_heldout);
    bad = ferror(f);
    if ((fclose(f) != 0 || bad) && !err)
        err = dg_fail(DG_EIO, "%s: %s", path, strerror(errno));
    return err;
}

int dg_world_write_prompts(const char *train, const char *heldout,
                           int num_heldout, uint64_t seed)
{
    Pool *pool;
    int err = DG_OK;

    if (num_heldout < 1 || num_heldout > 1000)
        return dg_fail(DG_EINVAL,
                       "held-out prompts per tag = %d: must be 1 to 1000",
                       num_heldout);
    pool = malloc(DG_NUM_TAGS * sizeof *pool);
    if (pool == NULL)
        return dg_fail(DG_ENOMEM, "prompt lists");
    for (int t = 0; t < DG_NUM_TAGS && !err; t++)
        err = fill_pool(&pool[t], t, seed);
    if (!err)
        err = write_file(train, pool, 0, num_heldout);
    if (!err)
        err = write_file(heldout, pool, 1, num_heldout);
    free(pool);
    return err;
}
