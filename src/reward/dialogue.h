#ifndef DG_SRC_REWARD_DIALOGUE_H
#define DG_SRC_REWARD_DIALOGUE_H
/*
 * What is said to a program that scores, and what it says: a line of JSON each.
 *   {"protocol": 1, "version": "text"}          its first, that it is ready
 *   {"id": 7, "prompt": "text", "metadata": {..}, "height": 64, "width": 64,
 *    "quantize": "rint"}                        and height * width * 3 bytes
 *   {"id": 7, "score": 0.5, "strict": 1}        its answer, or
 *   {"id": 7, "missing": "why there is none"}
 * version, metadata and strict may not be there; what else it says is passed
 * over. doc/howto.md has it for users.
 */
#include "reward/reward.h"

enum { DG_PROTOCOL = 1, DG_VERSION_BYTES = 200 };

typedef struct Request {
    int64_t id;
    const Prompt *prompt; /* its line of a .jsonl file is the metadata */
    int64_t height, width;
    Quantize quantize; /* how the bytes were made */
} Request;

/** Bytes of its line, with the end of it; written to text if room is enough. */
size_t dg_request_write(char *text, size_t room, const Request *r);

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
