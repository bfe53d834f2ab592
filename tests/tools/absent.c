/*
 * mpirun -n RANKS absent WAIT PATIENCE: the last rank meets the others in one
 * broadcast, then sleeps for a minute at something of its own, while they WAIT:
 * agree, barrier, idle, bcast, node, gather, sum, pass (the first two ranks
 * of which then send and receive), end, which is the end of all, or beside, on
 * another communicator. With
 * late instead, none of them waits longer than PATIENCE at a time: first all
 * are busy for twice as long, and then the last rank is late three times.
 */
#include "parallel/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void wait_in(const Comm *c, const char *what)
{
    int64_t v = 1;
    int64_t *all = calloc((size_t)c->size, sizeof *all);

    if (strcmp(what, "agree") == 0 || strcmp(what, "late") == 0)
        dg_agree(c, 0);
    else if (strcmp(what, "barrier") == 0)
        dg_comm_barrier(c);
    else if (strcmp(what, "idle") == 0)
        dg_comm_barrier_idle(c);
    else if (strcmp(what, "bcast") == 0)
        dg_comm_bcast(c, &v, sizeof v, c->size - 1);
    else if (strcmp(what, "node") == 0)
        dg_comm_node_bcast(c, &v, sizeof v, c->node_size - 1);
    else if (strcmp(what, "gather") == 0)
        dg_comm_allgather(c, all, &v, sizeof v);
    else if (strcmp(what, "sum") == 0)
        dg_comm_sum_i64(c, &v, 1);
    else
        dg_comm_pass(c, &v, sizeof v, c->size - 1, 0);
    free(all);
}

/* The same on another communicator, of which the first one's waits do not
 * count. */
static int wait_beside(Comm *c)
{
    int64_t v = 0;
    Comm other;

    if (dg_comm_beside(&other, c, " beside") != 0)
        return 2;
    dg_comm_bcast(&other, &v, sizeof v, 0);
    if (c->rank == c->size - 1)
        sleep(60);
    wait_in(&other, "agree");
    dg_comm_beside_free(&other);
    return 0;
}

static void nap(double seconds)
{
    const time_t whole = (time_t)seconds;
    const long rest = (long)(1e9 * (seconds - (double)whole));

    nanosleep(&(struct timespec) { whole, rest }, NULL);
}

static void be_late(const Comm *c, double patience)
{
    nap(2 * patience);
    for (int i = 0; i < 3; i++) {
        wait_in(c, "late");
        if (c->rank == c->size - 1)
            nap(0.6 * patience);
    }
}

int main(int argc, char **argv)
{
    int64_t v = 0;
    Comm c;

    if (argc != 3 || dg_comm_init(&c, &argc, &argv) != 0 ||
        dg_comm_watch(&c, atof(argv[2])) != 0)
        return 2;
    dg_comm_bcast(&c, &v, sizeof v, 0);
    if (strcmp(argv[1], "beside") == 0)
        return wait_beside(&c);
    if (strcmp(argv[1], "late") == 0)
        be_late(&c, atof(argv[2]));
    else if (c.rank == c.size - 1)
        sleep(60);
    if (strcmp(argv[1], "end") != 0)
        wait_in(&c, argv[1]);
    dg_comm_fini(&c);
    puts("all were there");
    return 0;
}
