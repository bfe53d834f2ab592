#ifndef DG_WEIGHTS_MODEL_CONFIG_H
#define DG_WEIGHTS_MODEL_CONFIG_H
/*
 * config.json of a network in a Hugging Face folder, and JSON files like it.
 * A key may have dots: "text_config.hidden_size". A value of null counts as
 * missing. Not collective.
 *
 * Errors of every reader: DG_EFORMAT naming file and key, and what the value
 * must be; the output is then untouched.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct ModelConfig ModelConfig;

/** Errors: DG_EIO; DG_EFORMAT no JSON object, a key with two values; DG_ENOMEM. */
int dg_model_config_open(ModelConfig **out, const char *path);
/** The same of a text; path only for messages. */
int dg_model_config_parse(ModelConfig **out, const char *path, const char *text,
                          size_t bytes);
/** NULL is allowed. */
void dg_model_config_close(ModelConfig *c);

/** Key i of the outermost object, in the file's order, belonging to c; NULL
 *  beyond the last. */
const char *dg_model_config_key(const ModelConfig *c, int i);

/** 1 if the key is there and not null. */
int dg_model_config_has(const ModelConfig *c, const char *key);

/** A whole number in [least, most], both within +-2^53. */
int dg_model_config_int(const ModelConfig *c, const char *key, int64_t least,
                        int64_t most, int64_t *out);
int dg_model_config_real(const ModelConfig *c, const char *key, double *out);
int dg_model_config_bool(const ModelConfig *c, const char *key, int *out);
/** Belongs to c. */
int dg_model_config_text(const ModelConfig *c, const char *key,
                         const char **out);

/** A list of whole numbers; at most most of them, *num set. */
int dg_model_config_ints(const ModelConfig *c, const char *key, int64_t *out,
                         int most, int *num);
/** A list of just num numbers. */
int dg_model_config_reals(const ModelConfig *c, const char *key, double *out,
                          int num);
/** A list of texts: their number, and one of them (belongs to c). */
int dg_model_config_num_texts(const ModelConfig *c, const char *key, int *num);
int dg_model_config_text_at(const ModelConfig *c, const char *key, int i,
                            const char **out);

#endif
