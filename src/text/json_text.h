#ifndef DG_SRC_TEXT_JSON_TEXT_H
#define DG_SRC_TEXT_JSON_TEXT_H
/*
 * The JSON files of a tokenizer folder, with messages that name them.
 */
#include <cjson/cJSON.h>

#include "added.h"

/** Parses a whole file; cJSON_Delete() it. Errors: DG_EFORMAT. */
int dg_json_parse(cJSON **out, const char *name, const char *data, size_t size);

/** A member, or NULL; case matters. object may be NULL. */
const cJSON *dg_json_get(const cJSON *object, const char *key);

/** The text of a string member, or NULL. */
const char *dg_json_string(const cJSON *object, const char *key);

/** A boolean member; missing: otherwise. */
int dg_json_flag(const cJSON *object, const char *key, int otherwise);

/** 1 and *out if item is an integer of [0, limit). */
int dg_json_index(int32_t *out, const cJSON *item, int32_t limit);

/** A token's string: itself, or the "content" of an object; else NULL. */
const char *dg_json_token_text(const cJSON *token);

/** The flags of a token object; those of a string are all 0. */
void dg_json_token_flags(AddedToken *out, const cJSON *token);

/** Fails unless text is UTF-8 and not empty: what names the token. */
int dg_json_check_token(const char *name, const char *what, const char *text);

#endif
