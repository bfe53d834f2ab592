#include "world/world.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/philox.h"

enum {
    NUM_CORNERS = 4,
    CONTENT_TRIES = 512, /* captions tried before another tag is drawn */
    ROUNDS = 200,        /* rounds of placement ... */
    SIZE_STEPS = 16,     /* ... of which these with ever smaller shapes */
    SPOT_TRIES = 24      /* spots tried for an object in a round */
};

static const double gap = 4.0;    /* least pixels between two shapes */
static const double margin = 2.0; /* least pixels to the picture's rim */

/* A position in one stream of random numbers. */
typedef struct Draw {
    RngKey key;
    int64_t next;
} Draw;

static double draw_uniform(Draw *d, double lo, double hi)
{
    float u;

    dg_rng_uniform(&u, d->next++, 1, &d->key);
    return lo + (hi - lo) * (double)u;
}

static int draw_below(Draw *d, int n)
{
    return (int)dg_rng_below((uint32_t)n, d->next++, &d->key);
}

/* lane 0: tag and caption; lane 1: the picture */
static Draw draw_start(uint64_t seed, uint64_t index, uint32_t lane)
{
    Draw d = { { seed, DG_RNG_WORLD, lane, (uint32_t)index,
                 (uint32_t)(index >> 32) & 0xFFFFFu,
                 (uint32_t)(index >> 52) & 0xFFFu },
               0 };

    return d;
}

/* ---- captions ---------------------------------------------------------- */

static WorldClause clause_of(int shape, int count, int colour)
{
    WorldClause c = { shape, count, colour, DG_REL_NONE, -1 };

    return c;
}

static int other_shape(Draw *d, int shape)
{
    return (shape + 1 + draw_below(d, DG_NUM_SHAPES - 1)) % DG_NUM_SHAPES;
}

static int other_colour(Draw *d, int colour)
{
    return (colour + 1 + draw_below(d, DG_NUM_COLOURS - 1)) % DG_NUM_COLOURS;
}

/* Two counts of at most four together and not both one. */
static void draw_counts(Draw *d, int count[2])
{
    static const int pairs[][2] = {
        { 1, 2 }, { 2, 1 }, { 1, 3 }, { 3, 1 }, { 2, 2 }
    };
    int k = draw_below(d, (int)(sizeof pairs / sizeof *pairs));

    count[0] = pairs[k][0];
    count[1] = pairs[k][1];
}

static void draw_caption(WorldMeta *m, Draw *d)
{
    int s = draw_below(d, DG_NUM_SHAPES), s2 = other_shape(d, s);
    int c = draw_below(d, DG_NUM_COLOURS), c2 = other_colour(d, c);
    int n[2] = { 1, 1 }, kind = draw_below(d, 4);
    WorldClause *clause = m->clause;

    m->num_clauses = 2;
    switch (m->tag) {
    case DG_TAG_SINGLE_OBJECT:
        m->num_clauses = 1;
        clause[0] = clause_of(s, 1, DG_COLOUR_NONE);
        break;
    case DG_TAG_TWO_OBJECT: /* at most one of them coloured */
        clause[0] = clause_of(s, 1, kind == 0 ? c : DG_COLOUR_NONE);
        clause[1] = clause_of(s2, 1, kind == 1 ? c : DG_COLOUR_NONE);
        break;
    case DG_TAG_COUNTING:
        if (kind < 2) {
            m->num_clauses = 1;
            clause[0] = clause_of(s, 2 + draw_below(d, 3), DG_COLOUR_NONE);
            break;
        }
        draw_counts(d, n);
        clause[0] = clause_of(s, n[0], DG_COLOUR_NONE);
        clause[1] = clause_of(s2, n[1], DG_COLOUR_NONE);
        break;
    case DG_TAG_COLORS:
        m->num_clauses = 1;
        clause[0] = clause_of(s, 1, c);
        break;
    case DG_TAG_POSITION:
        if (kind < 2)
            c = c2 = DG_COLOUR_NONE;
        else if (draw_below(d, DG_NUM_COLOURS) == 0)
            c2 = c;
        clause[0] = clause_of(s, 1, c);
        clause[1] = clause_of(s2, 1, c2);
        clause[1].relation = draw_below(d, DG_NUM_RELATIONS);
        clause[1].ref = 0;
        break;
    case DG_TAG_COLOR_ATTR: /* the same shape twice in a third of them */
        clause[0] = clause_of(s, 1, c);
        clause[1] = clause_of(draw_below(d, DG_NUM_SHAPES), 1, c2);
        break;
    default: /* DG_TAG_COUNT_COLOR */
        if (kind == 0) {
            m->num_clauses = 1;
            clause[0] = clause_of(s, 2 + draw_below(d, 3), c);
            break;
        }
        draw_counts(d, n);
        clause[0] = clause_of(s, n[0], c);
        clause[1] = clause_of(draw_below(d, DG_NUM_SHAPES), n[1], c2);
        break;
    }
}

static int is_excluded(const WorldStream *s, uint64_t meaning)
{
    size_t lo = 0, hi = s->num_excluded;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (s->excluded[mid] == meaning)
            return 1;
        if (s->excluded[mid] < meaning)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

static int draw_tag(const WorldStream *s, double total, Draw *d)
{
    double u = draw_uniform(d, 0.0, total > 0.0 ? total : DG_NUM_TAGS);
    int last = 0;

    for (int t = 0; t < DG_NUM_TAGS; t++) {
        double w = total > 0.0 ? (double)s->weight[t] : 1.0;

        if (w <= 0.0)
            continue;
        last = t;
        if (u < w)
            return t;
        u -= w;
    }
    return last;
}

static int draw_meta(WorldMeta *m, const WorldStream *s, double total, Draw *d)
{
    for (int round = 0; round < 64; round++) {
        memset(m, 0, sizeof *m);
        m->tag = draw_tag(s, total, d);
        for (int try = 0; try < CONTENT_TRIES; try++) {
            draw_caption(m, d);
            if (!is_excluded(s, dg_world_meaning(m)))
                return DG_OK;
        }
    }
    return dg_fail(DG_EINVAL, "every caption of the stream is excluded");
}

/* ---- shapes ------------------------------------------------------------ */

/* A shape's outline: corners of a square or triangle; a circle has none. */
typedef struct Outline {
    int num;
    double xy[NUM_CORNERS][2];
    double cx, cy, radius;
    double box[4]; /* x0 y0 x1 y1 */
} Outline;

static void find_box(Outline *l)
{
    double r = l->num ? 0.0 : l->radius;

    l->box[0] = l->cx - r;
    l->box[1] = l->cy - r;
    l->box[2] = l->cx + r;
    l->box[3] = l->cy + r;
    for (int i = 0; i < l->num; i++) {
        l->box[0] = fmin(l->box[0], l->xy[i][0]);
        l->box[1] = fmin(l->box[1], l->xy[i][1]);
        l->box[2] = fmax(l->box[2], l->xy[i][0]);
        l->box[3] = fmax(l->box[3], l->xy[i][1]);
    }
}

static Outline outline_of(const WorldObject *o)
{
    Outline l = { .cx = (double)o->cx,
                  .cy = (double)o->cy,
                  .radius = (double)o->radius };
    int square = o->shape == DG_SHAPE_SQUARE;
    /* equal areas: side^2 = pi r^2; sqrt(3)/4 side^2 = pi r^2 */
    double reach =
        square ? sqrt(M_PI / 2.0) : sqrt(4.0 * M_PI / (3.0 * sqrt(3.0)));
    double first = square ? -0.75 * M_PI : -0.5 * M_PI;

    if (o->shape != DG_SHAPE_CIRCLE)
        l.num = square ? 4 : 3;
    for (int i = 0; i < l.num; i++) {
        double t = first + 2.0 * M_PI * i / l.num + (double)o->rotation;

        l.xy[i][0] = l.cx + reach * l.radius * cos(t);
        l.xy[i][1] = l.cy + reach * l.radius * sin(t);
    }
    find_box(&l);
    return l;
}

static double segment_distance(double px, double py, const double a[2],
                               const double b[2])
{
    double dx = b[0] - a[0], dy = b[1] - a[1];
    double t = ((px - a[0]) * dx + (py - a[1]) * dy) / (dx * dx + dy * dy);

    t = fmin(1.0, fmax(0.0, t));
    dx = px - a[0] - t * dx;
    dy = py - a[1] - t * dy;
    return sqrt(dx * dx + dy * dy);
}

/* Least distance of the corners (a circle: its centre) of a to edges of b. */
static double corner_distance(const Outline *a, const Outline *b)
{
    const double centre[2] = { a->cx, a->cy };
    double least = INFINITY;

    for (int i = 0; i < (a->num ? a->num : 1); i++) {
        const double *p = a->num ? a->xy[i] : centre;

        for (int j = 0; j < b->num; j++)
            least = fmin(least, segment_distance(p[0], p[1], b->xy[j],
                                                 b->xy[(j + 1) % b->num]));
    }
    return least - (a->num ? 0.0 : a->radius);
}

/* Centres at least radii + gap apart cannot hide one shape in another. */
static int far_enough(const Outline *a, const Outline *b)
{
    double dx = a->cx - b->cx, dy = a->cy - b->cy;
    double least = a->radius + b->radius + gap;

    return dx * dx + dy * dy >= least * least && corner_distance(a, b) >= gap &&
           corner_distance(b, a) >= gap;
}

/* ---- placement --------------------------------------------------------- */

/* Clearly in relation, and clearly in no other: pictures that a reader
 * might take for both are not drawn. Same rule as the verifier's. */
static int in_relation(const Outline *a, const Outline *b, int rel)
{
    const double *p = a->box, *q = b->box;
    double o[2], r[2], norm, along, across;

    for (int k = 0; k < 2; k++) {
        double dims = (p[k + 2] - p[k]) + (q[k + 2] - q[k]);

        o[k] = 0.5 * (p[k] + p[k + 2] - q[k] - q[k + 2]);
        r[k] = copysign(fmax(fabs(o[k]) - 0.1 * dims, 0.0), o[k]);
    }
    norm = sqrt(o[0] * o[0] + o[1] * o[1]);
    along = rel <= DG_REL_RIGHT ? r[0] : r[1];
    across = rel <= DG_REL_RIGHT ? r[1] : r[0];
    if (rel == DG_REL_LEFT || rel == DG_REL_ABOVE)
        along = -along;
    return along > 0.65 * norm && fabs(across) < 0.4 * norm;
}

/* May outline i stand where it is, given those before it? */
static int spot_free(const Outline *l, int i, int rel)
{
    for (int j = 0; j < i; j++)
        if (!far_enough(&l[i], &l[j]))
            return 0;
    return rel == DG_REL_NONE || i == 0 || in_relation(&l[i], &l[0], rel);
}

static void move_to(Outline *l, double x, double y)
{
    double dx = x - l->cx, dy = y - l->cy;

    l->cx = x;
    l->cy = y;
    for (int i = 0; i < l->num; i++) {
        l->xy[i][0] += dx;
        l->xy[i][1] += dy;
    }
    for (int k = 0; k < 4; k++)
        l->box[k] += k % 2 ? dy : dx;
}

/* One attempt with radii between the limits, pixels. */
static int place_round(WorldScene *s, double least, double most, int side,
                       Draw *d)
{
    const WorldClause *last = &s->meta.clause[s->meta.num_clauses - 1];
    Outline l[DG_WORLD_MAX_OBJECTS];

    for (int i = 0; i < s->num_objects; i++) {
        WorldObject *o = &s->object[i];
        double box[4];
        int try;

        o->cx = o->cy = 0.0f;
        o->radius = (float)draw_uniform(d, least, most);
        o->rotation = (float)(draw_uniform(d, -17.0, 17.0) * M_PI / 180.0);
        l[i] = outline_of(o);
        memcpy(box, l[i].box, sizeof box);
        for (try = 0; try < SPOT_TRIES; try++) {
            o->cx =
                (float)draw_uniform(d, margin - box[0], side - margin - box[2]);
            o->cy =
                (float)draw_uniform(d, margin - box[1], side - margin - box[3]);
            move_to(&l[i], (double)o->cx, (double)o->cy);
            if (spot_free(l, i, last->relation))
                break;
        }
        if (try == SPOT_TRIES)
            return 0;
    }
    return 1;
}

static int place(WorldScene *s, int side, Draw *d)
{
    /* At 32 pixels the smallest shapes could not be told apart. */
    double least = (side < 48 ? 0.11 : 0.09) * side, most = 0.18 * side;

    for (int i = 0; i < ROUNDS; i++) {
        double share = i < SIZE_STEPS ? (double)i / SIZE_STEPS : 1.0;

        if (place_round(s, least, most - (most - least) * share, side, d))
            return DG_OK;
    }
    return dg_fail(DG_EINVAL, "%d shapes do not fit into %d x %d pixels",
                   s->num_objects, side, side);
}

static int fill_scene(WorldScene *s, uint64_t seed, uint64_t index, int side)
{
    Draw d = draw_start(seed, index, 1);
    int err = dg_world_caption(s->prompt, sizeof s->prompt, &s->meta);

    if (err)
        return err;
    s->num_objects = 0;
    for (int i = 0; i < s->meta.num_clauses; i++) {
        const WorldClause *c = &s->meta.clause[i];

        for (int k = 0; k < c->count; k++) {
            if (s->num_objects == DG_WORLD_MAX_OBJECTS)
                return dg_fail(DG_EINVAL, "prompt \"%s\": more than %d shapes",
                               s->prompt, DG_WORLD_MAX_OBJECTS);
            s->object[s->num_objects++] = (WorldObject) {
                .shape = c->shape,
                .colour = c->colour != DG_COLOUR_NONE
                              ? c->colour
                              : draw_below(&d, DG_NUM_COLOURS),
            };
        }
    }
    return place(s, side, &d);
}

static int check_side(int side)
{
    if (side < DG_WORLD_MIN_SIDE || side > DG_WORLD_MAX_SIDE)
        return dg_fail(DG_EINVAL,
                       "side of a world picture = %d: must be %d "
                       "to %d",
                       side, DG_WORLD_MIN_SIDE, DG_WORLD_MAX_SIDE);
    return DG_OK;
}

int dg_world_stream_scene(WorldScene *out, const WorldStream *s, uint64_t index)
{
    Draw d = draw_start(s->seed, index, 0);
    double total = 0.0;
    WorldScene scene;
    int err = check_side(s->side);

    if (err)
        return err;
    for (int t = 0; t < DG_NUM_TAGS; t++) {
        if (!(s->weight[t] >= 0.0f && s->weight[t] < 1e6f))
            return dg_fail(DG_EINVAL, "weight of tag %s = %g: must be 0 to 1e6",
                           dg_world_tag_name(t), (double)s->weight[t]);
        total += (double)s->weight[t];
    }
    memset(&scene, 0, sizeof scene);
    err = draw_meta(&scene.meta, s, total, &d);
    if (!err)
        err = fill_scene(&scene, s->seed, index, s->side);
    if (!err)
        *out = scene;
    return err;
}

int dg_world_scene(WorldScene *out, uint64_t seed, uint64_t index, int side)
{
    WorldStream s = { .seed = seed, .side = side };

    return dg_world_stream_scene(out, &s, index);
}

int dg_world_scene_of(WorldScene *out, const WorldMeta *m, uint64_t seed,
                      uint64_t index, int side)
{
    WorldScene scene;
    int err = check_side(side);

    if (err)
        return err;
    memset(&scene, 0, sizeof scene);
    scene.meta = *m;
    err = fill_scene(&scene, seed, index, side);
    if (!err)
        *out = scene;
    return err;
}

/* ---- drawing ----------------------------------------------------------- */

/* Half planes nx x + ny y <= c that bound a square or triangle. */
typedef double Planes[NUM_CORNERS][3];

static void find_planes(Planes plane, const Outline *l)
{
    for (int i = 0; i < l->num; i++) {
        const double *a = l->xy[i], *b = l->xy[(i + 1) % l->num];
        double dx = b[0] - a[0], dy = b[1] - a[1], len = hypot(dx, dy);

        plane[i][0] = dy / len;
        plane[i][1] = -dx / len;
        plane[i][2] = (dy * a[0] - dx * a[1]) / len;
    }
}

/* Below zero inside; its size bounds the distance to the outline. */
static double signed_distance(const Outline *l, Planes plane, double x,
                              double y)
{
    double most = -INFINITY, dx = x - l->cx, dy = y - l->cy;

    if (l->num == 0)
        return sqrt(dx * dx + dy * dy) - l->radius;
    for (int i = 0; i < l->num; i++) {
        double d = plane[i][0] * x + plane[i][1] * y - plane[i][2];

        most = d > most ? d : most;
    }
    return most;
}

/* Share of the pixel at column x, row y that lies inside. */
static double coverage(const Outline *l, Planes plane, int x, int y)
{
    const int n = 8;
    const double half_diagonal = 0.7072;
    double d = signed_distance(l, plane, x + 0.5, y + 0.5);
    int inside = 0;

    if (d < -half_diagonal)
        return 1.0;
    if (d > half_diagonal)
        return 0.0;
    for (int j = 0; j < n; j++)
        for (int i = 0; i < n; i++)
            inside += signed_distance(l, plane, x + (i + 0.5) / n,
                                      y + (j + 0.5) / n) <= 0.0;
    return (double)inside / (n * n);
}

static void draw_object(float *rgb, const WorldObject *o, int side)
{
    Outline l = outline_of(o);
    const double *box = l.box;
    Planes plane;
    float ink[3];

    find_planes(plane, &l);
    dg_world_colour_rgb(ink, o->colour);
    for (int y = (int)fmax(0.0, floor(box[1])); y < side && y < box[3]; y++) {
        for (int x = (int)fmax(0.0, floor(box[0])); x < side && x < box[2];
             x++) {
            float a = (float)coverage(&l, plane, x, y);
            float *p = rgb + 3 * ((size_t)y * (size_t)side + (size_t)x);

            for (int c = 0; c < 3; c++)
                p[c] += a * (ink[c] - p[c]);
        }
    }
}

void dg_world_draw(float *rgb, const WorldScene *s, int side)
{
    const float grey = 128.0f / 255.0f;

    for (size_t i = 0; i < 3 * (size_t)side * (size_t)side; i++)
        rgb[i] = grey;
    for (int i = 0; i < s->num_objects; i++)
        draw_object(rgb, &s->object[i], side);
}
