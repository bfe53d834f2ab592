#ifndef DG_BASE_CLOCK_H
#define DG_BASE_CLOCK_H
/*
 * Time: seconds that only go forward, and dates for people.
 */
#include <stddef.h>

enum { DG_DATE_BYTES = 21, DG_DURATION_BYTES = 32 };

/** Seconds since some fixed moment; never goes back. */
double dg_clock_now(void);

/** Seconds of processor time of the calling thread: what others do on the
 *  machine counts only as far as it slows this thread down. */
double dg_clock_thread(void);

/** Present date in UTC, "2025-05-12T09:30:00Z". */
void dg_clock_date(char text[DG_DATE_BYTES]);

/** A duration in s for people: "8.3 s", "4 min 05 s", "2 h 07 min",
 *  "3 d 04 h"; "?" when negative or not finite. */
void dg_clock_duration(char text[DG_DURATION_BYTES], double seconds);

#endif
