#include "world/verify.h"

#include <math.h>

int dg_world_related(const int32_t a[4], const int32_t b[4], int relation)
{
    double o[2], r[2], norm;

    for (int k = 0; k < 2; k++) {
        double dims = (a[k + 2] - a[k]) + (b[k + 2] - b[k]);

        o[k] = 0.5 * (a[k] + a[k + 2] - b[k] - b[k + 2]);
        r[k] = copysign(fmax(fabs(o[k]) - 0.1 * dims, 0.0), o[k]);
    }
    if (fabs(r[0]) < 1e-3 && fabs(r[1]) < 1e-3)
        return 0;
    norm = hypot(o[0], o[1]);
    switch (relation) {
    case DG_REL_LEFT:
        return r[0] < -0.5 * norm;
    case DG_REL_RIGHT:
        return r[0] > 0.5 * norm;
    case DG_REL_ABOVE:
        return r[1] < -0.5 * norm;
    case DG_REL_BELOW:
        return r[1] > 0.5 * norm;
    default:
        return 0;
    }
}

static int matches(const WorldSeen *o, const WorldClause *c)
{
    return o->shape == c->shape &&
           (c->colour == DG_COLOUR_NONE || o->colour == c->colour);
}

/* What was seen and wanted of one clause. */
typedef struct Tally {
    int seen_shape, wanted_shape; /* n1, N */
    int seen_colour;              /* n2 */
    int met;                      /* counts exactly as asked */
} Tally;

static Tally tally(const WorldDetection *d, const WorldMeta *m, int i)
{
    const WorldClause *c = &m->clause[i];
    Tally t = { 0, 0, 0, 0 };

    for (int k = 0; k < m->num_clauses; k++)
        if (m->clause[k].shape == c->shape)
            t.wanted_shape += m->clause[k].count;
    for (int k = 0; k < d->num_objects; k++) {
        t.seen_shape += d->object[k].shape == c->shape;
        t.seen_colour += matches(&d->object[k], c);
    }
    t.met = t.seen_shape == t.wanted_shape &&
            (c->colour == DG_COLOUR_NONE || t.seen_colour == c->count);
    return t;
}

static int all_related(const WorldDetection *d, const WorldClause *a,
                       const WorldClause *b)
{
    for (int i = 0; i < d->num_objects; i++) {
        if (!matches(&d->object[i], a))
            continue;
        for (int j = 0; j < d->num_objects; j++)
            if (j != i && matches(&d->object[j], b) &&
                !dg_world_related(d->object[i].box, d->object[j].box,
                                  a->relation))
                return 0;
    }
    return 1;
}

static float closeness(int seen, int wanted)
{
    float off = fabsf((float)(seen - wanted)) / (float)wanted;

    return off < 1.0f ? 1.0f - off : 0.0f;
}

static float colour_fit(const WorldDetection *d)
{
    float sum = 0.0f;

    for (int i = 0; i < d->num_objects; i++) {
        float ink[3], e = 0.0f;

        dg_world_colour_rgb(ink, d->object[i].colour);
        for (int c = 0; c < 3; c++) {
            float r = d->object[i].rgb[c] - ink[c];

            e += r * r;
        }
        sum += fmaxf(0.0f, 1.0f - sqrtf(e) / 0.3f);
    }
    return d->num_objects ? sum / (float)d->num_objects : 0.0f;
}

void dg_world_score(WorldScore *out, const WorldDetection *d,
                    const WorldMeta *m, int tie_break)
{
    int wanted = 0, perfect = 1;
    float sum = 0.0f, dirt = (d->clutter - 0.02f) / 0.10f;

    out->num_parts = 0;
    for (int i = 0; i < m->num_clauses; i++) {
        const WorldClause *c = &m->clause[i];
        Tally t = tally(d, m, i);
        float *part = out->part;

        wanted += c->count;
        part[out->num_parts++] = closeness(t.seen_shape, t.wanted_shape);
        if (c->colour != DG_COLOUR_NONE)
            part[out->num_parts++] = closeness(t.seen_colour, c->count);
        if (c->relation != DG_REL_NONE) {
            const WorldClause *ref = &m->clause[c->ref];

            part[out->num_parts++] = (float)(t.met && tally(d, m, c->ref).met &&
                                             all_related(d, c, ref));
        }
    }
    for (int i = 0; i < out->num_parts; i++) {
        sum += out->part[i];
        perfect &= out->part[i] == 1.0f;
    }
    out->extra = d->num_objects > wanted ? d->num_objects - wanted : 0;
    out->strict = perfect && out->extra == 0 && d->clutter < 0.06f;
    out->colour_fit = colour_fit(d);
    dirt = dirt < 0.0f ? 0.0f : dirt > 1.0f ? 1.0f : dirt;
    out->graded =
        sum / (float)out->num_parts / (float)(1 + out->extra) * (1.0f - dirt);
    if (tie_break)
        out->graded *= 1.0f + 0.1f * out->colour_fit;
}
