#include "train/pictures.h"

#include "base/error.h"
#include "base/log.h"
#include "base/plural.h"
#include "policy/policy.h"
#include "store/image.h"
#include "store/trajectory.h"
#include "train/step_plan.h"
#include "train/team.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 8, CAPTION = 160, SMALL = 256 };

/* One that has a picture. */
typedef struct Item {
    int64_t at;
    double reward; /* weighted */
} Item;

typedef struct Pictures {
    const Session *session;
    H5File *file;
    Policy *policy;
    Team *team;
    int64_t N, K, P;
    char **prompts;
    Item *items; /* [num] those that are shown */
    int64_t num;
    float *latents;       /* [num, elements] */
    unsigned char *tiles; /* [num, height, width, 3] */
} Pictures;

static size_t tile_bytes(const Policy *p)
{
    return 3 * (size_t)(p->shape.height * p->shape.width);
}

/* Which are shown ------------------------------------------------------- */

static int greatest_first(const void *a, const void *b)
{
    const Item *x = a, *y = b;

    if (x->reward != y->reward)
        return x->reward < y->reward ? 1 : -1;
    return (x->at > y->at) - (x->at < y->at);
}

static int least_first(const void *a, const void *b)
{
    const Item *x = a, *y = b;

    if (x->reward != y->reward)
        return x->reward > y->reward ? 1 : -1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Items of which a reward is missing have no place in an order. */
static int choose(Pictures *x, const float *reward, const PicturesOpts *o)
{
    const RewardConfig *rewards = x->session->config->rewards;

    for (int64_t i = 0; i < x->N; i++) {
        double sum = 0;

        for (int64_t k = 0; k < x->K; k++)
            sum += rewards[k].weight * (double)reward[i * x->K + k];
        if (!isnan(sum))
            x->items[x->num++] = (Item) { i, sum };
    }
    if (x->num == 0)
        return dg_fail(DG_EINVAL, "%s: no item has all its rewards",
                       dg_h5_path(x->file));
    qsort(x->items, (size_t)x->num, sizeof *x->items,
          o->worst ? least_first : greatest_first);
    x->num = x->num < o->num ? x->num : o->num;
    return DG_OK;
}

static int read_sizes(Pictures *x)
{
    const int64_t K = x->session->config->num_rewards;
    H5Shape reward, prompts;
    int err = dg_h5_shape(x->file, "reward", &reward);

    if (!err)
        err = dg_h5_read_texts(x->file, "prompt", &x->prompts, &x->P);
    if (!err)
        err = dg_h5_shape(x->file, "prompt_index", &prompts);
    if (err)
        return err;
    x->N = reward.dims[0];
    x->K = reward.dims[1];
    if (reward.num_dims != 2 || x->K != K || prompts.num != x->P || x->P < 1 ||
        x->N % x->P != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: datasets reward and prompt are not of the "
                       "configuration that is stored with them",
                       dg_h5_path(x->file));
    return DG_OK;
}

static int read_items(Pictures *x, const PicturesOpts *o)
{
    const int64_t D = x->policy->shape.elements;
    const int64_t rewards[] = { x->N, x->K }, decoded[] = { x->N, D };
    float *reward = malloc(sizeof *reward * (size_t)(x->N * x->K + 1));
    int err = DG_OK;

    x->items = malloc(sizeof *x->items * (size_t)(x->N + 1));
    if (reward == NULL || x->items == NULL)
        err = dg_fail(DG_ENOMEM, "%s: its rewards", dg_h5_path(x->file));
    if (!err)
        err = dg_h5_read(x->file, "reward", DG_H5_F32, 2, rewards, reward);
    if (!err)
        err = choose(x, reward, o);
    free(reward);
    if (err)
        return err;
    x->latents = malloc(sizeof *x->latents * (size_t)(x->num * D));
    x->tiles = malloc((size_t)x->num * tile_bytes(x->policy));
    if (x->latents == NULL || x->tiles == NULL)
        return dg_fail(DG_ENOMEM, "%lld pictures", (long long)x->num);
    for (int64_t i = 0; i < x->num && !err; i++)
        err = dg_h5_read_rows(x->file, "decoded", DG_H5_F32, 2, decoded,
                              x->items[i].at, 1, x->latents + i * D);
    return err;
}

/* Painting -------------------------------------------------------------- */

static int open_team(Pictures *x)
{
    const Session *s = x->session;
    const size_t pixels = sizeof(float) * tile_bytes(x->policy);
    StepPlan step;
    int err = dg_step_plan(&step, x->policy, s->backend,
                           &(StepPlanOpts) { .batch = 1 });

    if (err)
        return err;
    return dg_team_create(&x->team,
                          &(TeamOpts) { .backend = s->backend,
                                        .num_threads = s->num_threads < x->num
                                                           ? s->num_threads
                                                           : (int)x->num,
                                        .step_bytes = step.decode_bytes,
                                        .scratch_bytes = pixels,
                                        .exact = 1,
                                        .max_items = 1 });
}

static int paint_one(Worker *w, int64_t i, void *user)
{
    const Pictures *x = user;
    const Policy *p = x->policy;
    const size_t bytes = tile_bytes(p);
    const int err = dg_policy_decode(
        p, &w->ctx, x->latents + i * p->shape.elements, w->scratch);

    if (!err)
        dg_image_quantise(x->tiles + (size_t)i * bytes, w->scratch, bytes);
    return err;
}

static int write_grid(const Pictures *x, const PicturesOpts *o)
{
    const PolicyShape *shape = &x->policy->shape;
    const int64_t G = x->N / x->P;
    char text[DG_PICTURES_MOST][CAPTION];
    const char *captions[DG_PICTURES_MOST];
    const ImageGrid grid = {
        .num = (int32_t)x->num,
        .width = (int32_t)shape->width,
        .height = (int32_t)shape->height,
        .columns = x->num < COLUMNS ? (int32_t)x->num : COLUMNS,
        .scale = shape->width < SMALL ? 3 : 1,
        .padding = 4,
        .captions = captions,
    };
    const ImageText origin = { "trajectory", dg_h5_path(x->file) };
    Image image;
    int err;

    for (int64_t i = 0; i < x->num; i++) {
        const Item *item = &x->items[i];

        snprintf(text[i], CAPTION, "%lld: %.4g %s", (long long)item->at,
                 item->reward, x->prompts[item->at / G]);
        captions[i] = text[i];
    }
    err = dg_image_grid(&image, x->tiles, &grid);
    if (err)
        return err;
    err = dg_image_write_png(o->out, &image, &origin, 1);
    dg_image_free(&image);
    if (!err)
        dg_info("wrote %s: %lld of %lld item%s, of the %s reward first", o->out,
                (long long)x->num, (long long)x->N, dg_plural(x->N),
                o->worst ? "least" : "greatest");
    return err;
}

static int paint(Pictures *x, const PicturesOpts *o)
{
    int err = read_sizes(x);

    if (!err)
        err = read_items(x, o);
    if (!err)
        err = open_team(x);
    if (!err)
        err = dg_team_run(x->team, x->num, paint_one, x);
    return err ? err : write_grid(x, o);
}

int dg_pictures(const Session *s, const char *path, const PicturesOpts *o)
{
    Pictures x = { .session = s };
    int err = dg_agree(s->comm, dg_policy_decoder(&x.policy, s->config));

    if (!err)
        err = dg_policy_load_folder(x.policy, s->comm, DG_FOLDER_CODEC);
    if (!err)
        err = dg_agree(s->comm, dg_trajectory_open(&x.file, path));
    if (!err)
        err = dg_agree(s->comm, s->comm->rank == 0 ? paint(&x, o) : DG_OK);
    dg_team_destroy(x.team);
    dg_h5_close(x.file);
    dg_policy_destroy(x.policy);
    dg_h5_free_texts(x.prompts);
    free(x.items);
    free(x.latents);
    free(x.tiles);
    return err;
}
