#ifndef DG_BASE_JSON_KEYS_H
#define DG_BASE_JSON_KEYS_H
/*
 * Keys of JSON objects. Where one is there twice, Python takes the last and
 * cJSON the first: what a file means must not depend on who reads it.
 */
#include <cjson/cJSON.h>

/**
 * Looks through v and all that is in it. Equal values may stand there twice.
 * Errors: DG_EFORMAT naming path and key; DG_ENOMEM.
 */
int dg_json_check_keys(const char *path, const cJSON *v);

#endif
