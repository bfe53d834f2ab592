#include "world/meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/error.h"

static const char *const shape_names[DG_NUM_SHAPES] = { "circle", "square",
                                                        "triangle" };

static const struct {
    const char *name;
    unsigned char rgb[3];
} palette[DG_NUM_COLOURS] = {
    { "red", { 220, 40, 40 } },     { "orange", { 245, 140, 20 } },
    { "yellow", { 240, 225, 40 } }, { "green", { 40, 170, 60 } },
    { "blue", { 40, 80, 220 } },    { "purple", { 150, 40, 190 } },
    { "white", { 245, 245, 245 } }, { "black", { 15, 15, 15 } },
};

static const char *const relation_names[DG_NUM_RELATIONS] = {
    "left of", "right of", "above", "below"
};

static const char *const tag_names[DG_NUM_TAGS] = {
    "single_object", "two_object", "counting",   "colors",
    "position",      "color_attr", "count_color"
};

static const char *const words[] = {
    "a",       "an",       "two",       "three", "four",   "and",     "left",
    "right",   "of",       "above",     "below", "circle", "circles", "square",
    "squares", "triangle", "triangles", "red",   "orange", "yellow",  "green",
    "blue",    "purple",   "white",     "black",
};

const char *dg_world_shape_name(int shape)
{
    if (shape == DG_SHAPE_OTHER)
        return "other";
    return shape >= 0 && shape < DG_NUM_SHAPES ? shape_names[shape] : "?";
}

const char *dg_world_colour_name(int colour)
{
    return colour >= 0 && colour < DG_NUM_COLOURS ? palette[colour].name : "?";
}

const char *dg_world_relation_name(int r)
{
    return r >= 0 && r < DG_NUM_RELATIONS ? relation_names[r] : "?";
}

const char *dg_world_tag_name(int tag)
{
    return tag >= 0 && tag < DG_NUM_TAGS ? tag_names[tag] : "?";
}

int dg_world_tag_find(const char *name)
{
    for (int t = 0; t < DG_NUM_TAGS; t++)
        if (strcmp(name, tag_names[t]) == 0)
            return t;
    return DG_TAG_UNKNOWN;
}

void dg_world_colour_rgb(float rgb[3], int colour)
{
    for (int c = 0; c < 3; c++)
        rgb[c] = (float)palette[colour].rgb[c] / 255.0f;
}

const char *const *dg_world_words(int *num)
{
    *num = (int)(sizeof words / sizeof *words);
    return words;
}

/* Appends text to out; 0 when it does not fit. */
static int append(char *out, size_t cap, const char *text)
{
    size_t used = strlen(out), n = strlen(text);

    if (used + n + 1 > cap)
        return 0;
    memcpy(out + used, text, n + 1);
    return 1;
}

/* "a red circle", "an orange square", "three triangles". */
static int append_noun(char *out, size_t cap, const WorldClause *c)
{
    static const char *const numbers[] = { "a ", "two ", "three ", "four " };
    int ok = 1;

    if (c->count > 4)
        return 0;
    if (c->count == 1 && c->colour == DG_COLOUR_ORANGE)
        ok &= append(out, cap, "an ");
    else
        ok &= append(out, cap, numbers[c->count - 1]);
    if (c->colour != DG_COLOUR_NONE) {
        ok &= append(out, cap, palette[c->colour].name);
        ok &= append(out, cap, " ");
    }
    ok &= append(out, cap, shape_names[c->shape]);
    if (c->count > 1)
        ok &= append(out, cap, "s");
    return ok;
}

int dg_world_caption(char *out, size_t cap, const WorldMeta *m)
{
    char text[DG_WORLD_MAX_PROMPT] = "";
    int ok = dg_world_meta_valid(m), positioned = 0;

    for (int i = 0; ok && i < m->num_clauses; i++)
        positioned |= m->clause[i].relation != DG_REL_NONE;
    if (ok && positioned) {
        ok = m->num_clauses == 2 && m->clause[0].relation == DG_REL_NONE;
        ok = ok && append_noun(text, sizeof text, &m->clause[1]) &&
             append(text, sizeof text, " ") &&
             append(text, sizeof text, relation_names[m->clause[1].relation]) &&
             append(text, sizeof text, " ") &&
             append_noun(text, sizeof text, &m->clause[0]);
    } else {
        for (int i = 0; ok && i < m->num_clauses; i++)
            ok = (i == 0 || append(text, sizeof text, " and ")) &&
                 append_noun(text, sizeof text, &m->clause[i]);
    }
    if (!ok || strlen(text) + 1 > cap)
        return dg_fail(DG_EINVAL, "metadata has no caption in the grammar of "
                                  "the shapes world");
    memcpy(out, text, strlen(text) + 1);
    return DG_OK;
}

int dg_world_meta_valid(const WorldMeta *m)
{
    if (m->num_clauses < 1 || m->num_clauses > DG_WORLD_MAX_CLAUSES)
        return 0;
    for (int i = 0; i < m->num_clauses; i++) {
        const WorldClause *c = &m->clause[i];

        if (c->shape < 0 || c->shape >= DG_NUM_SHAPES || c->count < 1 ||
            c->count > DG_WORLD_MAX_COUNT || c->colour < DG_COLOUR_NONE ||
            c->colour >= DG_NUM_COLOURS || c->relation < DG_REL_NONE ||
            c->relation >= DG_NUM_RELATIONS)
            return 0;
        if (c->relation == DG_REL_NONE)
            continue;
        if (c->ref < 0 || c->ref >= m->num_clauses || c->ref == i)
            return 0;
    }
    return 1;
}

static uint64_t clause_key(const WorldClause *c)
{
    return (uint64_t)(c->shape + 1) << 24 | (uint64_t)(c->colour + 1) << 16 |
           (uint64_t)c->count;
}

/* splitmix64's finaliser: spreads every bit over all. */
static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

uint64_t dg_world_meaning(const WorldMeta *m)
{
    uint64_t sum = 0; /* a sum, so that the order of clauses is no matter */

    for (int i = 0; i < m->num_clauses; i++) {
        const WorldClause *c = &m->clause[i];
        uint64_t mine = clause_key(c), other;

        sum += mix(mine);
        if (c->relation == DG_REL_NONE)
            continue;
        other = clause_key(&m->clause[c->ref]);
        if (c->relation == DG_REL_LEFT || c->relation == DG_REL_ABOVE)
            sum += mix(mix(mine + ((uint64_t)c->relation << 40)) ^ other);
        else
            sum += mix(mix(other + ((uint64_t)(c->relation - 1) << 40)) ^ mine);
    }
    return mix(sum + (uint64_t)m->num_clauses);
}

static cJSON *clause_json(const WorldClause *c)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "class", shape_names[c->shape]);
    cJSON_AddNumberToObject(o, "count", c->count);
    if (c->colour != DG_COLOUR_NONE)
        cJSON_AddStringToObject(o, "color", palette[c->colour].name);
    if (c->relation != DG_REL_NONE) {
        cJSON *p = cJSON_AddArrayToObject(o, "position");

        cJSON_AddItemToArray(p,
                             cJSON_CreateString(relation_names[c->relation]));
        cJSON_AddItemToArray(p, cJSON_CreateNumber(c->ref));
    }
    return o;
}

int dg_world_meta_write(char *out, size_t cap, const WorldMeta *m,
                        const char *prompt)
{
    int err = DG_OK;
    cJSON *o, *list;
    char *text;

    if (!dg_world_meta_valid(m))
        return dg_fail(DG_EINVAL, "metadata of a prompt is not valid");
    o = cJSON_CreateObject();
    if (m->tag != DG_TAG_UNKNOWN)
        cJSON_AddStringToObject(o, "tag", dg_world_tag_name(m->tag));
    list = cJSON_AddArrayToObject(o, "include");
    for (int i = 0; i < m->num_clauses; i++)
        cJSON_AddItemToArray(list, clause_json(&m->clause[i]));
    if (prompt != NULL)
        cJSON_AddStringToObject(o, "prompt", prompt);
    text = cJSON_PrintUnformatted(o);
    if (text == NULL)
        err = dg_fail(DG_ENOMEM, "metadata of a prompt");
    else if (strlen(text) + 1 > cap)
        err = dg_fail(DG_EINVAL, "metadata of %zu bytes, buffer of %zu",
                      strlen(text) + 1, cap);
    else
        memcpy(out, text, strlen(text) + 1);
    cJSON_free(text);
    cJSON_Delete(o);
    return err;
}

static int find_name(const char *name, int num, const char *(*get)(int))
{
    for (int i = 0; i < num; i++)
        if (strcmp(name, get(i)) == 0)
            return i;
    return -1;
}

static int read_integer(const cJSON *v, int lo, int hi, int32_t *out)
{
    if (!cJSON_IsNumber(v) || v->valuedouble < lo || v->valuedouble > hi ||
        v->valuedouble != (int)v->valuedouble)
        return 0;
    *out = (int32_t)v->valuedouble;
    return 1;
}

static int read_position(WorldClause *c, const cJSON *v, int num)
{
    const cJSON *rel = cJSON_GetArrayItem(v, 0);

    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != 2 ||
        !cJSON_IsString(rel) ||
        !read_integer(cJSON_GetArrayItem(v, 1), 0, num - 1, &c->ref))
        return dg_fail(DG_EFORMAT, "\"position\" must be [\"left of\", clause] "
                                   "with a clause of this list");
    c->relation =
        find_name(rel->valuestring, DG_NUM_RELATIONS, dg_world_relation_name);
    if (c->relation < 0)
        return dg_fail(DG_EFORMAT,
                       "\"position\" \"%.40s\": must be \"left of\", \"right "
                       "of\", \"above\" or \"below\"",
                       rel->valuestring);
    return DG_OK;
}

static int read_clause(WorldClause *c, const cJSON *v, int num)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(v, "class");
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(v, "count");
    const cJSON *colour = cJSON_GetObjectItemCaseSensitive(v, "color");
    const cJSON *pos = cJSON_GetObjectItemCaseSensitive(v, "position");

    *c = (WorldClause) { DG_SHAPE_OTHER, 1, DG_COLOUR_NONE, DG_REL_NONE, -1 };
    if (!cJSON_IsObject(v) || !cJSON_IsString(name))
        return dg_fail(DG_EFORMAT, "\"include\" must list objects with a "
                                   "\"class\"");
    if (count != NULL && !read_integer(count, 1, DG_WORLD_MAX_COUNT, &c->count))
        return dg_fail(DG_EFORMAT, "\"count\" must be a whole number, 1 to %d",
                       DG_WORLD_MAX_COUNT);
    if (colour != NULL && !cJSON_IsString(colour))
        return dg_fail(DG_EFORMAT, "\"color\" must be a string");
    if (pos != NULL && read_position(c, pos, num) != DG_OK)
        return DG_EFORMAT;
    c->shape = find_name(name->valuestring, DG_NUM_SHAPES, dg_world_shape_name);
    if (c->shape < 0)
        return dg_fail(DG_EINVAL, "class \"%.40s\" is not a shape of the world",
                       name->valuestring);
    if (colour == NULL)
        return DG_OK;
    c->colour =
        find_name(colour->valuestring, DG_NUM_COLOURS, dg_world_colour_name);
    if (c->colour < 0)
        return dg_fail(DG_EINVAL, "color \"%.40s\" is not one of the world",
                       colour->valuestring);
    return DG_OK;
}

static int read_record(WorldMeta *m, const cJSON *o)
{
    const cJSON *tag = cJSON_GetObjectItemCaseSensitive(o, "tag");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "include");
    int num = cJSON_GetArraySize(list), unknown = 0;

    if (!cJSON_IsObject(o))
        return dg_fail(DG_EFORMAT, "not a JSON object");
    if (!cJSON_IsArray(list) || num < 1 || num > DG_WORLD_MAX_CLAUSES)
        return dg_fail(DG_EFORMAT,
                       "\"include\" must be a list of 1 to %d "
                       "clauses",
                       DG_WORLD_MAX_CLAUSES);
    memset(m, 0, sizeof *m);
    m->tag = cJSON_IsString(tag) ? dg_world_tag_find(tag->valuestring)
                                 : DG_TAG_UNKNOWN;
    m->num_clauses = num;
    /* A malformed clause matters more than an unknown class before it. */
    for (int i = 0; i < num; i++) {
        int err = read_clause(&m->clause[i], cJSON_GetArrayItem(list, i), num);

        if (err == DG_EFORMAT)
            return err;
        unknown |= err != DG_OK;
    }
    if (unknown)
        return DG_EINVAL;
    if (!dg_world_meta_valid(m))
        return dg_fail(DG_EFORMAT, "a clause is positioned by itself");
    return DG_OK;
}

int dg_world_meta_read(WorldMeta *out, const char *json)
{
    cJSON *o = cJSON_ParseWithOpts(json, NULL, 1);
    WorldMeta m;
    int err;

    if (o == NULL)
        return dg_fail(DG_EFORMAT, "not JSON");
    err = read_record(&m, o);
    cJSON_Delete(o);
    if (err == DG_OK)
        *out = m;
    return err;
}
