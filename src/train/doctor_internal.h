#ifndef DG_SRC_TRAIN_DOCTOR_INTERNAL_H
#define DG_SRC_TRAIN_DOCTOR_INTERNAL_H
/* What doctor*.c share. Not public. */
#include "train/doctor.h"
#include "trainer.h"

/* encoded prompts, trajectories, each reward's scores, gradients */
enum { DG_DOCTOR_HOST = 64, DG_DOCTOR_PARTS = 3 + DG_CONFIG_REWARDS };

/* Where a rank is. */
typedef struct DoctorPlace {
    char host[DG_DOCTOR_HOST];
    int32_t node; /* its first rank */
} DoctorPlace;

/** Of this rank. Not collective. */
void dg_doctor_host(char text[DG_DOCTOR_HOST]);

/** Of all ranks, to free. Collective. Errors, agreed: DG_ENOMEM. */
int dg_doctor_places(DoctorPlace **out, const Comm *c);

/* What a rank made of what all ranks make: digests, "" where there is none. */
typedef struct DoctorFound {
    char digest[DG_DOCTOR_PARTS][65];
    double seconds;
} DoctorFound;

/**
 * All ranks' are to be the same: those that most have are taken for right.
 * all   [size] out
 * part  names each, "weights"; NULL ends them
 * Collective. Errors, agreed: DG_EPROMISE naming the first part that differs,
 * and of those that have another one the first rank and its host.
 */
int dg_doctor_compare(const Comm *c, DoctorFound *all, const DoctorFound *mine,
                      const char *const *part);

/** The ranks' seconds, from what dg_doctor_compare() gave. */
void dg_doctor_pace(DoctorPace *out, const DoctorFound *all, int size);

#endif
