/*
 * A thread beside the workers: it sees what was queued before it was given
 * its items, and nothing is queued there in vain.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "tensor/mirror.h"
#include "train/beside.h"

#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { ITEMS = 9, NUM = 1000, NOBODY = -1 };

typedef struct Work {
    float *values; /* [ITEMS, NUM] device, made by the caller's stream */
    float *twice;  /* [ITEMS, NUM] device, made beside */
    float got[ITEMS];
    int64_t order[ITEMS], num, fails;
} Work;

static int see_one(Worker *w, int64_t i, void *user)
{
    Work *k = user;
    const Backend *be = w->ctx.backend;
    float got[NUM];
    int err;

    k->order[k->num++] = i;
    if (i == k->fails)
        return dg_fail(DG_ENUMERIC, "item %lld", (long long)i);
    be->add(k->twice + i * NUM, k->values + i * NUM, k->values + i * NUM, NUM);
    err = be->download(got, k->twice + i * NUM, sizeof got);
    k->got[i] = got[NUM - 1];
    for (int j = 0; j < NUM; j++)
        if (got[j] != got[0])
            k->got[i] = -1;
    return err;
}

static Beside *new_beside(void)
{
    const TeamOpts o = { .backend = dg_backend_cuda(),
                         .num_threads = 1,
                         .step_bytes = 1 << 16,
                         .scratch_bytes = 64 };
    Beside *b = NULL;

    if (dg_beside_create(&b, &o) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    return b;
}

static void take_work(Work *k)
{
    void *p;

    *k = (Work) { .fails = NOBODY };
    assert_int_equal(dg_cuda_take(&p, sizeof(float) * ITEMS * NUM), DG_OK);
    k->values = p;
    assert_int_equal(dg_cuda_take(&p, sizeof(float) * ITEMS * NUM), DG_OK);
    k->twice = p;
    assert_int_equal(dg_cuda_wait(), DG_OK);
}

static void give_work(Work *k)
{
    dg_cuda_free(k->values);
    dg_cuda_free(k->twice);
}

/* items in turns of so many, each made just before it is given */
static int rounds(Beside *b, Work *k, int64_t turn, float base)
{
    k->num = 0;
    dg_beside_start(b, see_one, k);
    dg_beside_give(b, 0);
    for (int64_t i = 0; i < ITEMS; i += turn) {
        const int64_t n = ITEMS - i < turn ? ITEMS - i : turn;

        for (int64_t j = i; j < i + n; j++)
            dg_backend_cuda()->fill(k->values + j * NUM, base + (float)j, NUM);
        dg_beside_give(b, n);
    }
    return dg_beside_finish(b);
}

static void check_streams(const char *streams)
{
    CudaStream *s;
    Beside *b;
    Work k;

    setenv("CUDA_EMULATION_STREAMS", streams, 1);
    if (dg_cuda_stream_create(&s, 0) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_cuda_use(s);
    b = new_beside();
    take_work(&k);
    for (int64_t turn = 1; turn <= ITEMS; turn += 4) {
        assert_int_equal(rounds(b, &k, turn, 10 * (float)turn), DG_OK);
        assert_int_equal(k.num, ITEMS);
        for (int64_t i = 0; i < ITEMS; i++) {
            assert_int_equal(k.order[i], i);
            assert_true(k.got[i] == 2 * (10 * (float)turn + (float)i));
        }
    }
    give_work(&k);
    dg_beside_destroy(b);
    dg_cuda_stream_destroy(s);
    unsetenv("CUDA_EMULATION_STREAMS");
}

static void test_it_sees_what_was_made_before(void **unused)
{
    (void)unused;
    check_streams("late");
    check_streams("early");
    check_streams("random");
}

static void test_a_failure_is_the_callers(void **unused)
{
    CudaStream *s;
    Beside *b;
    Work k;

    (void)unused;
    if (dg_cuda_stream_create(&s, 0) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_cuda_use(s);
    b = new_beside();
    take_work(&k);
    k.fails = 4;
    assert_int_equal(rounds(b, &k, 2, 1), DG_ENUMERIC);
    assert_string_equal(dg_last_error()->text, "item 4");
    assert_int_equal(k.num, 5); /* no other was started */
    k.fails = NOBODY;
    assert_int_equal(rounds(b, &k, 2, 1), DG_OK);
    assert_int_equal(k.num, ITEMS);
    give_work(&k);
    dg_beside_destroy(b);
    dg_cuda_stream_destroy(s);
}

/* fails while it is asked for: both threads are at work then */
static int fail_when_asked(Worker *w, int64_t i, void *user)
{
    enum { TIMES = 20 };
    atomic_long *asked = user;
    const long before = atomic_load(asked);

    (void)w;
    while (atomic_load(asked) < before + TIMES)
        sched_yield();
    return dg_fail(DG_ENUMERIC, "item %lld", (long long)i);
}

/* Who asks while there is more to do sees a failure with its text or not at
 * all. One that asks all the time has the lock so often that in some of the
 * rounds the thread has to wait for it when its item has failed. */
static void test_a_failure_has_its_text_at_once(void **unused)
{
    enum { ROUNDS = 60, MANY = 2 };
    atomic_long asked = 0;
    CudaStream *s;
    Beside *b;

    (void)unused;
    if (dg_cuda_stream_create(&s, 0) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_cuda_use(s);
    b = new_beside();
    for (int i = 0; i < ROUNDS; i++) {
        dg_clear_error();
        dg_beside_start(b, fail_when_asked, &asked);
        dg_beside_give(b, MANY);
        while (dg_beside_settle(b, MANY) == DG_OK)
            atomic_fetch_add(&asked, 1);
        assert_int_equal(dg_last_error()->code, DG_ENUMERIC);
        assert_string_equal(dg_last_error()->text, "item 0");
        dg_beside_finish(b);
    }
    dg_beside_destroy(b);
    dg_cuda_stream_destroy(s);
}

/* --- replayed there -------------------------------------------------------- */

/* The second time that its work comes it is captured, which takes a while:
 * what is given meanwhile must wait for that. */
typedef struct Slow {
    float *x, *y; /* [NUM] device */
    float got[3];
    atomic_int calls, captured; /* of the step; somebody may give now */
} Slow;

/* of a thread's work, as often as it is walked, run and captured */
static void slow_step(void *user)
{
    enum { CAPTURE = 4, PAUSE_NS = 50000000 }; /* walk, run, walk, capture */
    Slow *k = user;

    dg_backend_cuda()->add(k->y, k->x, k->x, NUM);
    if (atomic_fetch_add(&k->calls, 1) + 1 != CAPTURE)
        return;
    atomic_store(&k->captured, 1);
    nanosleep(&(struct timespec) { .tv_nsec = PAUSE_NS }, NULL);
}

static int see_slowly(Worker *w, int64_t i, void *user)
{
    Slow *k = user;
    float got[NUM];
    int err;

    dg_context_replay(&w->ctx, slow_step, k, NULL, 0);
    err = w->ctx.backend->download(got, k->y, sizeof got);
    k->got[i] = got[NUM - 1];
    return err;
}

long cuda_emulation_graphs(void) __attribute__((weak));

static void test_giving_waits_for_a_capture(void **unused)
{
    const long before =
        cuda_emulation_graphs != NULL ? cuda_emulation_graphs() : 0;
    CudaStream *s;
    Beside *b;
    Slow k = { .calls = 0 };
    void *p;

    (void)unused;
    if (dg_cuda_stream_create(&s, 0) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_cuda_use(s);
    assert_int_equal(dg_cuda_replays(s), DG_OK);
    b = new_beside();
    assert_int_equal(dg_cuda_take(&p, sizeof(float) * NUM), DG_OK);
    k.x = p;
    assert_int_equal(dg_cuda_take(&p, sizeof(float) * NUM), DG_OK);
    k.y = p;
    dg_backend_cuda()->fill(k.x, 3, NUM);
    dg_beside_start(b, see_slowly, &k);
    dg_beside_give(b, 2);
    while (!atomic_load(&k.captured))
        sched_yield();
    dg_beside_give(b, 1);
    assert_int_equal(dg_beside_finish(b), DG_OK);
    for (int i = 0; i < 3; i++)
        assert_true(k.got[i] == 6);
    if (cuda_emulation_graphs != NULL)
        assert_int_equal(cuda_emulation_graphs() - before, 2);
    dg_cuda_free(k.x);
    dg_cuda_free(k.y);
    dg_beside_destroy(b);
    dg_cuda_stream_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_sees_what_was_made_before),
        cmocka_unit_test(test_a_failure_is_the_callers),
        cmocka_unit_test(test_a_failure_has_its_text_at_once),
        cmocka_unit_test(test_giving_waits_for_a_capture),
    };

    return cmocka_run_group_tests_name("cuda_beside", tests, NULL, NULL);
}
