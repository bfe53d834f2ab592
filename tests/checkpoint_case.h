#ifndef DG_TESTS_CHECKPOINT_CASE_H
#define DG_TESTS_CHECKPOINT_CASE_H
/* Two arrays that are saved, forgotten and read again, whole, in ranges, or where
 * only copies reach. */
#include "mpi_test.h"
#include "base/error.h"
#include "base/log.h"
#include "store/checkpoint.h"
#include "store/file.h"

enum { NUM = 700000 }; /* beyond the size that rank 0 writes alone */

static char folder[256], path[300];
static float *weights, *moment;
static const FileInfo info = { .program = "test",
                               .git_commit = "abc",
                               .command = "test",
                               .config = "a = 1;\n",
                               .seed = 1,
                               .arithmetic = "kernels" };
static const CheckpointParam params[] = {
    { "block.0.weight", 0, 2, { 700, 990 } },
    { "block.0.bias", 693008, 1, { 6992 } },
};
static CheckpointArray arrays[2];
static CheckpointCounter counters[2];
static Checkpoint k;

static inline void fill(float *v, int salt)
{
    for (int i = 0; i < NUM; i++)
        v[i] = (float)((i * 31 + salt * 7) % 1000) / 3.0F;
}

static inline int start(void **state)
{
    (void)state;
    dg_log_setup(comm.rank, DG_LOG_ERROR); /* warnings are counted */
    make_folder(folder);
    weights = malloc(NUM * sizeof *weights);
    moment = malloc(NUM * sizeof *moment);
    arrays[0] = (CheckpointArray) { .name = "weights",
                                    .long_name = "master weights",
                                    .data = weights,
                                    .num = NUM };
    arrays[1] = (CheckpointArray) { .name = "adam_m",
                                    .long_name = "first moment",
                                    .data = moment,
                                    .num = NUM };
    counters[0] = (CheckpointCounter) { .name = "optimizer_step" };
    counters[1] = (CheckpointCounter) { .name = "prompt_cursor" };
    k = (Checkpoint) { .arrays = arrays,
                       .num_arrays = 2,
                       .params = params,
                       .num_params = 2,
                       .counters = counters,
                       .num_counters = 2 };
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    drop_folder(folder);
    free(weights);
    free(moment);
    return 0;
}

static inline int save(int64_t iteration, int64_t keep)
{
    fill(weights, (int)iteration);
    fill(moment, -(int)iteration);
    counters[0].value = 10 * iteration;
    counters[1].value = -iteration;
    k.iteration = iteration;
    return dg_checkpoint_write(&comm, folder, &k, &info, keep);
}

static inline void forget(void)
{
    memset(weights, 0, NUM * sizeof *weights);
    memset(moment, 0, NUM * sizeof *moment);
    counters[0].value = counters[1].value = 99;
    k.iteration = 99;
}

/* Content of the iteration, on this rank. */
static inline int holds(int64_t iteration)
{
    float *want = malloc(NUM * sizeof *want);
    int good = k.iteration == iteration &&
               counters[0].value == 10 * iteration &&
               counters[1].value == -iteration;

    fill(want, (int)iteration);
    good = good && memcmp(want, weights, NUM * sizeof *want) == 0;
    fill(want, -(int)iteration);
    good = good && memcmp(want, moment, NUM * sizeof *want) == 0;
    free(want);
    return good;
}

static inline int says(const char *word)
{
    const int yes = strstr(dg_last_error()->text, word) != NULL;

    if (!yes)
        fprintf(stderr, "rank %d said: %s\n", comm.rank, dg_last_error()->text);
    return yes;
}

/* Changes bytes behind the back of HDF5, on rank 0. */
static inline void damage(int64_t iteration, long at, int cut)
{
    char *bytes = NULL;
    size_t num = 0;

    dg_comm_barrier(&comm);
    dg_checkpoint_path(path, sizeof path, folder, iteration);
    if (comm.rank == 0 && dg_file_read(path, &bytes, &num) == DG_OK) {
        bytes[at < 0 ? (long)num + at : at] ^= 1;
        EXPECT(dg_file_write(path, bytes, cut ? num / 2 : num) == DG_OK);
        free(bytes);
    }
    dg_comm_barrier(&comm);
}

/* This rank's rows of the moment, in blocks of unequal length: the last rank
 * may have none. */
static inline void share_moment(int64_t most)
{
    const int64_t first = comm.rank * most < NUM ? comm.rank * most : NUM;
    const int64_t left = NUM - first;

    arrays[1].shared = 1;
    arrays[1].first = first;
    arrays[1].held = left < most && comm.rank < comm.size - 1 ? left
                     : comm.rank < comm.size - 1              ? most
                                                              : left;
    arrays[1].data = moment + first;
}

static inline void stop_sharing(void)
{
    arrays[1].shared = 0;
    arrays[1].first = arrays[1].held = 0;
    arrays[1].data = moment;
}

/* A place that only copies reach: of the range that is held here, at most a
 * few megabytes at once. */
typedef struct Apart {
    float *at; /* the first that is held */
    int64_t held, most;
    int fails;
} Apart;

static inline int get(void *user, void *to, int64_t first, int64_t num)
{
    Apart *a = user;

    EXPECT(first >= 0 && num > 0 && first + num <= a->held);
    a->most = num > a->most ? num : a->most;
    memcpy(to, a->at + first, sizeof *a->at * (size_t)num);
    return a->fails ? dg_fail(DG_EDEVICE, "the place apart") : DG_OK;
}

static inline int put(void *user, const void *from, int64_t first, int64_t num)
{
    Apart *a = user;

    EXPECT(first >= 0 && num > 0 && first + num <= a->held);
    a->most = num > a->most ? num : a->most;
    memcpy(a->at + first, from, sizeof *a->at * (size_t)num);
    return DG_OK;
}

/* the moment, as it is held, to be reached through a */
static inline void keep_apart(Apart *a)
{
    *a = (Apart) { arrays[1].data,
                   arrays[1].shared ? arrays[1].held : arrays[1].num, 0, 0 };
    arrays[1].data = NULL;
    arrays[1].get = get;
    arrays[1].put = put;
    arrays[1].user = a;
}

static inline void bring_back(void)
{
    arrays[1].get = NULL;
    arrays[1].put = NULL;
    stop_sharing();
}

#endif
