/*
 * Linked into programs with ThreadSanitizer only: gcc's OpenMP library wakes its
 * threads and waits for them by ways that the sanitizer does not know, so that
 * each parallel region would look like a race. Here it is told what they order.
 * This file itself is built without the sanitizer.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <stddef.h>

void __tsan_acquire(void *at);
void __tsan_release(void *at);

typedef void Body(void *);

/* Others' stacks hold it while they are in the region: one each. */
typedef struct Region {
    Body *body;
    void *user;
    char begun, met, ended; /* of use as addresses alone */
} Region;

static _Thread_local Region *region; /* the one that this thread is in */

void GOMP_parallel(Body *body, void *user, unsigned threads, unsigned flags);
void GOMP_barrier(void);
void GOMP_loop_end(void);
void GOMP_critical_name_start(void **name);
void GOMP_critical_name_end(void **name);

/* *call: the library's function of that name */
static void find(void *call, const char *name)
{
    *(void **)call = dlsym(RTLD_NEXT, name);
}

static void in_thread(void *user)
{
    Region *r = user, *outer = region;

    __tsan_acquire(&r->begun);
    region = r;
    r->body(r->user);
    region = outer;
    __tsan_release(&r->ended);
}

void GOMP_parallel(Body *body, void *user, unsigned threads, unsigned flags)
{
    Region r = { .body = body, .user = user };
    void (*run)(Body *, void *, unsigned, unsigned);

    find(&run, "GOMP_parallel");
    __tsan_release(&r.begun);
    run(in_thread, &r, threads, flags);
    __tsan_acquire(&r.ended);
}

static void meet(const char *name)
{
    void (*wait)(void);

    find(&wait, name);
    if (region != NULL)
        __tsan_release(&region->met);
    wait();
    if (region != NULL)
        __tsan_acquire(&region->met);
}

void GOMP_barrier(void)
{
    meet("GOMP_barrier");
}

void GOMP_loop_end(void)
{
    meet("GOMP_loop_end");
}

void GOMP_critical_name_start(void **name)
{
    void (*start)(void **);

    find(&start, "GOMP_critical_name_start");
    start(name);
    __tsan_acquire(name);
}

void GOMP_critical_name_end(void **name)
{
    void (*end)(void **);

    find(&end, "GOMP_critical_name_end");
    __tsan_release(name);
    end(name);
}
