#ifndef DG_SRC_TRAIN_CACHE_INTERNAL_H
#define DG_SRC_TRAIN_CACHE_INTERNAL_H
/* Between cache*.c: what a file of encoded prompts is told from. */
#include "store/conditions.h"
#include "policy/policy.h"

/** Of names, shapes and values of the encoders, and the lengths they see.
 *  Errors: DG_ENOMEM. */
int dg_cache_encoders(HexDigest hex, const Policy *p);

/** Of a prompt's ids, [text_tokens + clip_tokens]. */
size_t dg_cache_ids_bytes(const Policy *p);

/** These out, and their digest. Errors: those of dg_policy_tokenize(). */
int dg_cache_tokenize(const Policy *p, const char *prompt, int32_t *ids,
                      HexDigest hex);

#endif
