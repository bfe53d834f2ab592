#ifndef DG_TRAIN_PICTURES_H
#define DG_TRAIN_PICTURES_H
/*
 * Pictures of a trajectory file's items, as its rewards saw them: the stored
 * latents, decoded again.
 */
#include "train/session.h"

enum { DG_PICTURES_MOST = 256, DG_PICTURES = 16 };

typedef struct PicturesOpts {
    const char *out; /* PNG to write */
    int num;         /* items, 1 to DG_PICTURES_MOST */
    int worst;       /* 1: those of the least reward, not of the greatest */
} PicturesOpts;

/**
 * A grid of the items of the greatest weighted reward, that first, with their
 * numbers, rewards and prompts. The session's configuration is the file's; of
 * policy.path the decoder alone is read. Collective; rank 0 paints.
 * Errors, agreed: DG_EIO, DG_EFORMAT naming file and dataset; DG_EINVAL where no
 * item has all rewards; those of the folder; DG_ENOMEM.
 */
int dg_pictures(const Session *s, const char *path, const PicturesOpts *o);

#endif
