#ifndef DG_WORLD_META_H
#define DG_WORLD_META_H
/*
 * What a caption of the shapes world asks for: a list of clauses, each a
 * shape with a count and perhaps a colour and a position relative to an
 * earlier clause. The same metadata comes from the generator and from a
 * prompts file in GenEval's JSONL form; scores use it, never the text.
 */
#include <stddef.h>
#include <stdint.h>

enum {
    DG_WORLD_MAX_CLAUSES = 8,
    DG_WORLD_MAX_PROMPT = 192, /* bytes of a caption, with the final NUL */
    DG_WORLD_MAX_COUNT = 99    /* largest count of one clause */
};

typedef enum WorldShape {
    DG_SHAPE_OTHER = -1, /* seen by the detector, never asked for */
    DG_SHAPE_CIRCLE = 0,
    DG_SHAPE_SQUARE,
    DG_SHAPE_TRIANGLE,
    DG_NUM_SHAPES
} WorldShape;

typedef enum WorldColour {
    DG_COLOUR_NONE = -1, /* the clause leaves the colour open */
    DG_COLOUR_RED = 0,
    DG_COLOUR_ORANGE,
    DG_COLOUR_YELLOW,
    DG_COLOUR_GREEN,
    DG_COLOUR_BLUE,
    DG_COLOUR_PURPLE,
    DG_COLOUR_WHITE,
    DG_COLOUR_BLACK,
    DG_NUM_COLOURS
} WorldColour;

typedef enum WorldRelation {
    DG_REL_NONE = -1,
    DG_REL_LEFT = 0,
    DG_REL_RIGHT,
    DG_REL_ABOVE,
    DG_REL_BELOW,
    DG_NUM_RELATIONS
} WorldRelation;

typedef enum WorldTag {
    DG_TAG_UNKNOWN = -1, /* a tag of another benchmark */
    DG_TAG_SINGLE_OBJECT = 0,
    DG_TAG_TWO_OBJECT,
    DG_TAG_COUNTING,
    DG_TAG_COLORS,
    DG_TAG_POSITION,
    DG_TAG_COLOR_ATTR,
    DG_TAG_COUNT_COLOR,
    DG_NUM_TAGS
} WorldTag;

typedef struct WorldClause {
    int32_t shape;    /* WorldShape, >= 0 */
    int32_t count;    /* 1 .. DG_WORLD_MAX_COUNT */
    int32_t colour;   /* WorldColour, or DG_COLOUR_NONE */
    int32_t relation; /* WorldRelation of this clause to clause 'ref' */
    int32_t ref;      /* index of another clause; -1 without a relation */
} WorldClause;

typedef struct WorldMeta {
    int32_t tag;
    int32_t num_clauses;
    WorldClause clause[DG_WORLD_MAX_CLAUSES];
} WorldMeta;

/** Names as they stand in the JSONL files; "?" outside the enum's range. */
const char *dg_world_shape_name(int shape);
const char *dg_world_colour_name(int colour);
const char *dg_world_relation_name(int relation);
const char *dg_world_tag_name(int tag);

/** The tag of a name, DG_TAG_UNKNOWN if it is none of ours. */
int dg_world_tag_find(const char *name);

/** Palette colour, three components in [0, 1]. colour in range. */
void dg_world_colour_rgb(float rgb[3], int colour);

/**
 * Every word of the captions, in a fixed order (an API: weights depend on
 * it). *num receives the count; the strings live as long as the program.
 */
const char *const *dg_world_words(int *num);

/**
 * The caption of a metadata record: "a red circle left of two squares".
 * out has cap bytes. Errors: DG_EINVAL if it does not fit or a clause is
 * outside the grammar (counts above four, a relation not of clause 1 to 0).
 */
int dg_world_caption(char *out, size_t cap, const WorldMeta *m);

/**
 * A 64-bit digest of what the metadata asks for, equal for captions that
 * mean the same: clauses in another order, "A left of B" and "B right of A".
 */
uint64_t dg_world_meaning(const WorldMeta *m);

/** 1 if m is a well-formed record: ranges, refs; 0 otherwise. */
int dg_world_meta_valid(const WorldMeta *m);

/**
 * One JSONL line of GenEval's form, without newline:
 * {"tag":..,"include":[{"class":"circle","count":2,"color":"red",
 * "position":["left of",0]}],"prompt":..}. prompt may be NULL.
 * Errors: DG_EINVAL (invalid record, out too small), DG_ENOMEM.
 */
int dg_world_meta_write(char *out, size_t cap, const WorldMeta *m,
                        const char *prompt);

/**
 * Reads such a line; "exclude" is accepted and not needed, since the score
 * asks for exact counts. A missing count is 1.
 * Errors: DG_EFORMAT if json is not such an object; DG_EINVAL if it is one
 * but names a class or colour that is not of this world. out is untouched.
 */
int dg_world_meta_read(WorldMeta *out, const char *json);

#endif
