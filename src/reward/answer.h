#ifndef DG_SRC_REWARD_ANSWER_H
#define DG_SRC_REWARD_ANSWER_H
/*
 * What a program that scores says, a line of JSON each:
 *   {"protocol": 1, "version": "text"}          first, that it is ready
 *   {"id": 7, "score": 0.5, "strict": 1}        to picture 7, or
 *   {"id": 7, "missing": "why there is none"}
 * version and strict may be left out, other members are passed over.
 */
#include "reward/reward.h"

enum { DG_PROTOCOL = 1, DG_VERSION_BYTES = 200 };

typedef enum AnswerKind {
    DG_ANSWER_SCORE,
    DG_ANSWER_MISSING, /* of this picture; what follows may be all right */
    DG_ANSWER_BROKEN /* none to this picture: who says so has lost the place */
} AnswerKind;

/** The answer to picture id; out->value and strict are set with a score, else
 *  the reason is in dg_last_error(), behind "its program ". */
AnswerKind dg_answer_read(RewardScore *out, const char *line, int64_t id);

/** Its first line. version out, "" where it has none. Errors: DG_EFORMAT, behind
 *  "its program ". */
int dg_answer_hello(char version[DG_VERSION_BYTES], const char *line);

#endif
