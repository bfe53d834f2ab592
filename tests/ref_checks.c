#include "ref_checks.h"

#include "ref_conv.h"
#include "ref_kernels.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = KERNEL_GUARD };

static uint64_t state;
static const KernelsUnderTest *under_test;

void kernel_checks_use(const KernelsUnderTest *k)
{
    under_test = k;
    ref_conv_scratch_for(k->backend);
}

void kernel_draws_from(uint64_t seed)
{
    state = seed;
}

/* uniform in -2..2 */
float kernel_draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) * 0x1p-30f;
}

static int per_sample(const Slot *s)
{
    return s->kind == SLOT_IN || s->kind == SLOT_OUT || s->kind == SLOT_ADD;
}

static int is_output(const Slot *s)
{
    return s->kind == SLOT_OUT || s->kind == SLOT_ADD ||
           s->kind == SLOT_SHARED_ADD;
}

static int64_t slot_count(const Slot *s, int64_t batch)
{
    return per_sample(s) ? s->size * batch : s->size;
}

/* Buffers of a run, between guards; a kernel's alignment is not promised. */
typedef struct Buffers {
    const Case *c;
    int64_t batch;
    float *raw[CASE_SLOTS], *p[CASE_SLOTS];
} Buffers;

static const float guard_value = -123.5f; /* a bfloat16 too */

static void buffers_make(Buffers *b, const Case *c, int64_t batch)
{
    b->c = c;
    b->batch = batch;
    for (int s = 0; s < c->num_slots; ++s) {
        const int64_t n = slot_count(&c->slots[s], batch);
        const size_t bytes = (size_t)(n + 2 * GUARD) * sizeof(float);
        b->raw[s] = aligned_alloc(256, (bytes + 255) / 256 * 256);
        assert_non_null(b->raw[s]);
        b->p[s] = b->raw[s] + GUARD;
        for (int64_t i = 0; i < GUARD; ++i)
            b->raw[s][i] = b->p[s][n + i] = guard_value;
        for (int64_t i = 0; i < n; ++i)
            b->p[s][i] = kernel_draw();
    }
}

static void buffers_check_guards(const Buffers *b)
{
    for (int s = 0; s < b->c->num_slots; ++s) {
        const int64_t n = slot_count(&b->c->slots[s], b->batch);
        for (int64_t i = 0; i < GUARD; ++i)
            if (b->raw[s][i] != guard_value || b->p[s][n + i] != guard_value)
                fail_msg("%s slot %d: written outside", b->c->name, s);
    }
}

static void buffers_free(Buffers *b)
{
    for (int s = 0; s < b->c->num_slots; ++s)
        free(b->raw[s]);
}

/* samples first .. of src become samples 0 .. of dst; shared slots too */
static void buffers_take(Buffers *dst, const Buffers *src, int64_t first)
{
    for (int s = 0; s < dst->c->num_slots; ++s) {
        const Slot *slot = &dst->c->slots[s];
        const int64_t n = slot_count(slot, dst->batch);
        const int64_t at = per_sample(slot) ? first * slot->size : 0;
        if (slot->kind != SLOT_SCRATCH)
            memcpy(dst->p[s], src->p[s] + at, (size_t)n * sizeof(float));
    }
}

static void run_plain(const Backend *be, Buffers *b)
{
    b->c->run(be, b->c, b->batch, b->p);
    buffers_check_guards(b);
}

static void run(Buffers *b)
{
    int64_t counts[CASE_SLOTS];

    if (under_test->run == NULL) {
        run_plain(under_test->backend, b);
        return;
    }
    for (int s = 0; s < b->c->num_slots; ++s)
        counts[s] = slot_count(&b->c->slots[s], b->batch) + 2 * GUARD;
    under_test->run(b->c, b->batch, b->raw, counts);
    buffers_check_guards(b);
}

static void say_case(const Case *c, char *text, size_t size)
{
    int at = snprintf(text, size, "%s", c->name);

    for (int i = 0; i < CASE_DIMS; ++i)
        at += snprintf(text + at, size - (size_t)at, " %lld",
                       (long long)c->dims[i]);
}

/* Rounding grows as sqrt(terms) eps times the size of what is summed. The
 * factor 16 covers inputs of up to 2 and the chain of kernels in a case. */
static void compare(const Case *c, int s, const float *x, const float *y,
                    int64_t n)
{
    double size = 1.0, worst = 0.0;
    int64_t where = 0;
    char text[128];

    for (int64_t i = 0; i < n; ++i)
        size = fmax(size, fabs(y[i]));
    for (int64_t i = 0; i < n; ++i)
        if (!(fabs((double)x[i] - y[i]) <= worst)) {
            worst = fabs((double)x[i] - y[i]);
            where = i;
        }
    say_case(c, text, sizeof text);
    if (!(worst <= 16.0 * FLT_EPSILON * sqrt((double)c->terms) * size))
        fail_msg("%s slot %d at %lld: %.9g is not %.9g", text, s,
                 (long long)where, x[where], y[where]);
}

void test_kernels_agree_with_double_loops(void **unused)
{
    (void)unused;
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        Buffers mine, ref;
        case_get(i, &c);
        state = (uint64_t)i;
        buffers_make(&mine, &c, 3);
        buffers_make(&ref, &c, 3);
        buffers_take(&ref, &mine, 0);
        run(&mine);
        run_plain(ref_backend(), &ref);
        for (int s = 0; s < c.num_slots; ++s)
            if (is_output(&c.slots[s]))
                compare(&c, s, mine.p[s], ref.p[s], slot_count(&c.slots[s], 3));
        buffers_free(&mine);
        buffers_free(&ref);
    }
}

/* per-sample outputs of sample i of a against sample j of b, bit for bit */
static void same_sample(const Buffers *a, int64_t i, const Buffers *b,
                        int64_t j)
{
    char text[128];

    say_case(a->c, text, sizeof text);
    for (int s = 0; s < a->c->num_slots; ++s) {
        const Slot *slot = &a->c->slots[s];
        if (!per_sample(slot) || !is_output(slot))
            continue;
        if (memcmp(a->p[s] + i * slot->size, b->p[s] + j * slot->size,
                   (size_t)slot->size * sizeof(float)))
            fail_msg("%s slot %d: batch of %lld differs from batch of %lld",
                     text, s, (long long)a->batch, (long long)b->batch);
    }
}

static void invariance(const Case *c)
{
    Buffers all, in, some;

    buffers_make(&all, c, under_test->most_samples);
    buffers_make(&in, c, under_test->most_samples);
    buffers_take(&in, &all, 0);
    run(&all);
    for (int64_t batch = 1; batch <= 3; batch += 2)
        for (int64_t first = 0; first + batch <= under_test->most_samples;
             ++first) {
            buffers_make(&some, c, batch);
            buffers_take(&some, &in, first);
            run(&some);
            for (int64_t j = 0; j < batch; ++j)
                same_sample(&all, first + j, &some, j);
            buffers_free(&some);
        }
    buffers_free(&all);
    buffers_free(&in);
}

void test_samples_do_not_depend_on_neighbours(void **unused)
{
    (void)unused;
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        case_get(i, &c);
        state = 1000u + (uint64_t)i;
        invariance(&c);
    }
}

/* A batch of 4 against 1 + 3 into the same shared buffers. */
void test_shared_sums_run_in_order(void **unused)
{
    (void)unused;
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        Buffers four, in, part;
        case_get(i, &c);
        state = 2000u + (uint64_t)i;
        buffers_make(&four, &c, 4);
        buffers_make(&in, &c, 4);
        buffers_take(&in, &four, 0);
        run(&four);
        for (int64_t first = 0; first < 4; first += first ? 3 : 1) {
            buffers_make(&part, &c, first ? 3 : 1);
            buffers_take(&part, &in, first);
            run(&part);
            for (int s = 0; s < c.num_slots; ++s)
                if (c.slots[s].kind == SLOT_SHARED_ADD)
                    memcpy(in.p[s], part.p[s],
                           (size_t)c.slots[s].size * sizeof(float));
            buffers_free(&part);
        }
        for (int s = 0; s < c.num_slots; ++s)
            if (c.slots[s].kind == SLOT_SHARED_ADD &&
                memcmp(four.p[s], in.p[s],
                       (size_t)c.slots[s].size * sizeof(float)))
                fail_msg("%s %d slot %d: batch of 4 is not 1 + 3", c.name, i,
                         s);
        buffers_free(&four);
        buffers_free(&in);
    }
}

static double loss(const Buffers *b)
{
    const Case *c = b->c;
    double sum = 0.0;

    for (int64_t i = 0; i < slot_count(&c->slots[c->y], b->batch); ++i)
        sum += (double)b->p[c->y][i] * b->p[c->dy][i];
    return sum;
}

static double moved_loss(const Case *c, const Buffers *in, int s,
                         const float *way, double h)
{
    Buffers b;
    double result;

    buffers_make(&b, c, in->batch);
    buffers_take(&b, in, 0);
    for (int64_t i = 0; i < slot_count(&c->slots[s], b.batch); ++i)
        b.p[s][i] = (float)(in->p[s][i] + h * way[i]);
    run_plain(ref_backend(), &b);
    result = loss(&b);
    buffers_free(&b);
    return result;
}

/* eps / 2 |y| |dy| per element, as a random walk */
static double loss_noise(const Buffers *b)
{
    const Case *c = b->c;
    double sum = 0.0;

    for (int64_t i = 0; i < slot_count(&c->slots[c->y], b->batch); ++i)
        sum += pow((double)b->p[c->y][i] * b->p[c->dy][i], 2);
    return 0.5 * FLT_EPSILON * sqrt(sum);
}

/* <gradient, way> against the central difference of the plain loops' loss,
 * with step h and 2h, so that h^4 remains. What is left is the rounding of
 * the moved inputs and of y, divided by h. */
static void check_slope(const Case *c, const Buffers *in, const Buffers *out,
                        int s)
{
    const int input = c->slots[s].grad_of - 1;
    const int64_t n = slot_count(&c->slots[input], in->batch);
    const double h = 1.0 / 64;
    float *way = malloc((size_t)n * sizeof *way);
    const double noise = 8.0 * loss_noise(out) / h;
    double slope = 0.0, size = 0.0, near, far;
    char text[128];

    for (int64_t i = 0; i < n; ++i) {
        way[i] = kernel_draw() / sqrtf((float)n) * 2.0f;
        slope += (double)way[i] * out->p[s][i];
        size += (double)out->p[s][i] * out->p[s][i];
    }
    near =
        (moved_loss(c, in, input, way, h) - moved_loss(c, in, input, way, -h)) /
        (2 * h);
    far = (moved_loss(c, in, input, way, 2 * h) -
           moved_loss(c, in, input, way, -2 * h)) /
          (4 * h);
    near = (4 * near - far) / 3; /* Richardson: h^4 remains */
    say_case(c, text, sizeof text);
    if (!(fabs(near - slope) <= 1e-3 * sqrt(size / (double)n) + noise))
        fail_msg("%s slot %d: slope %.9g, finite difference %.9g", text, s,
                 slope, near);
    free(way);
}

void test_gradients_agree_with_finite_differences(void **unused)
{
    (void)unused;
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        Buffers in, out;
        case_get(i, &c);
        state = 3000u + (uint64_t)i;
        if (c.y < 0 || c.terms > 1000)
            continue;
        buffers_make(&in, &c, 2);
        for (int s = 0; s < c.num_slots; ++s)
            if (is_output(&c.slots[s]))
                memset(in.p[s], 0, (size_t)slot_count(&c.slots[s], 2) * 4);
        buffers_make(&out, &c, 2);
        buffers_take(&out, &in, 0);
        run(&out);
        for (int s = 0; s < c.num_slots; ++s)
            if (c.slots[s].grad_of && c.slots[s].size)
                check_slope(&c, &in, &out, s);
        buffers_free(&in);
        buffers_free(&out);
    }
}

/* NaN in one element of sample 1: its output shows it, its neighbours' bits
 * stay. */
static void nan_stays(const Case *c, int input)
{
    Buffers good, bad;
    int64_t seen = 0;
    char text[128];

    buffers_make(&good, c, 3);
    buffers_make(&bad, c, 3);
    buffers_take(&bad, &good, 0);
    bad.p[input][c->slots[input].size + c->slots[input].size / 2] = NAN;
    run(&good);
    run(&bad);
    same_sample(&good, 0, &bad, 0);
    same_sample(&good, 2, &bad, 2);
    say_case(c, text, sizeof text);
    for (int s = 0; s < c->num_slots; ++s) {
        const Slot *slot = &c->slots[s];
        /* what goes into y shows in y; only dy's NaN shows elsewhere */
        const int looked_at = c->y >= 0 && input != c->dy
                                  ? s == c->y
                                  : per_sample(slot) && is_output(slot);
        for (int64_t i = 0; looked_at && i < slot->size; ++i)
            seen += isnan(bad.p[s][slot->size + i]) != 0;
    }
    if (seen == 0)
        fail_msg("%s: NaN in slot %d disappears", text, input);
    buffers_free(&good);
    buffers_free(&bad);
}

void test_nan_is_kept_and_stays_in_its_sample(void **unused)
{
    (void)unused;
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        case_get(i, &c);
        state = 4000u + (uint64_t)i;
        for (int s = 0; s < c.num_slots; ++s)
            if (c.slots[s].kind == SLOT_IN && c.slots[s].size &&
                strcmp(c.name, "plain") && strcmp(c.name, "gate"))
                nan_stays(&c, s);
    }
}

/* The library may choose a product's algorithm by addresses. */
static int has_products(const Case *c)
{
    static const char *const names[] = { "gemm", "linear", "attention",
                                         "conv" };

    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (strcmp(c->name, names[i]) == 0)
            return 1;
    return 0;
}

void kernel_check_change(void (*change)(int changed), const char *what,
                         int products)
{
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        Buffers one, other;
        case_get(i, &c);
        if (!products && has_products(&c))
            continue;
        state = 5000u + (uint64_t)i;
        buffers_make(&one, &c, 2);
        buffers_make(&other, &c, 2);
        buffers_take(&other, &one, 0);
        run(&one);
        change(1);
        run(&other);
        change(0);
        for (int s = 0; s < c.num_slots; ++s)
            if (is_output(&c.slots[s]) &&
                memcmp(one.p[s], other.p[s],
                       (size_t)slot_count(&c.slots[s], 2) * sizeof(float)))
                fail_msg("%s %d slot %d: bits depend on %s", c.name, i, s,
                         what);
        buffers_free(&one);
        buffers_free(&other);
    }
}

/* 1: slots lie an element further; 2: every other one does */
static int shifted;

int kernel_shift(int s)
{
    return shifted == 1 || (shifted == 2 && s % 2);
}

static void shift(int changed)
{
    shifted = changed;
}

static void shift_some(int changed)
{
    shifted = 2 * changed;
}

void test_addresses_do_not_matter(void **unused)
{
    (void)unused;
    kernel_check_change(shift, "addresses", 0);
    kernel_check_change(shift_some, "some addresses", 0);
}
