/* In front of a signal's handler: what is not ours ends as it would have. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "../src/store/h5_internal.h"
#include "base/signal_chain.h"
#include "cpu/cpu.h"
#include "train/beside.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sigaction before;
static volatile sig_atomic_t calls; /* of who was there before */
static void *fault;                 /* a place that may not be touched */
static char told[200];              /* what a process wrote at its end */

static void ours(int signal, siginfo_t *info, void *context)
{
    dg_signal_pass_on(signal, info, context, &before);
}

static void theirs(int signal)
{
    (void)signal;
    calls++;
}

static void theirs_with_place(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    if (context != NULL && info->si_addr == fault)
        calls++;
    /* as who mends it and goes on */
    mprotect(fault, 1, PROT_READ | PROT_WRITE);
}

static void touch(void)
{
    *(volatile char *)fault = 1;
}

static void be_sent(void)
{
    kill(getpid(), SIGSEGV);
}

/* While a file is read. */
static void touch_reading(void)
{
    dg_h5_enter("some.h5");
    touch();
}

static void be_sent_reading(void)
{
    dg_h5_enter("some.h5");
    be_sent();
}

static void touch_after(void)
{
    dg_h5_enter("some.h5");
    dg_h5_enter("another.h5");
    dg_h5_leave(0);
    dg_h5_leave(0);
    touch();
}

static int touch_item(Worker *none, int64_t i, void *user)
{
    (void)none;
    (void)i;
    (void)user;
    touch();
    return 0;
}

/* By the thread that files are written by. */
static void touch_beside(void)
{
    Beside *b;

    if (dg_beside_create(&b, &(TeamOpts) { .backend = dg_backend_cpu() }) != 0)
        _exit(1);
    dg_beside_start(b, touch_item, NULL);
    dg_beside_give(b, 1);
    dg_beside_finish(b);
}

static void be_child(const struct sigaction *action, int signal,
                     void (*work)(void))
{
    const struct rlimit none = { 0, 0 };
    const struct sigaction alarms = { .sa_handler = SIG_DFL };

    setrlimit(RLIMIT_CORE, &none);
    sigaction(SIGALRM, &alarms, NULL);
    alarm(10); /* who comes back for ever */
    sigaction(signal, action, NULL);
    dg_signal_take(signal, ours, &before);
    fault = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    work();
    _exit(10 + calls);
}

/* How a process ends that has action, then ours in front of it, and does this;
 * as wait() has it. Its exit code: calls. */
static int end_of(const struct sigaction *action, int signal,
                  void (*work)(void))
{
    int way[2], status;
    size_t used = 0;
    ssize_t num;
    pid_t child;

    assert_int_equal(pipe(way), 0);
    child = fork();
    if (child == 0) {
        dup2(way[1], STDERR_FILENO);
        be_child(action, signal, work);
    }
    assert_true(child > 0);
    close(way[1]);
    while ((num = read(way[0], told + used, sizeof told - 1 - used)) > 0)
        used += (size_t)num;
    told[used] = '\0';
    close(way[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void expect_signal(int status, int signal)
{
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), signal);
}

static void expect_calls(int status, int num)
{
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 10 + num);
}

static void test_default_ends_the_process(void **state)
{
    const struct sigaction action = { .sa_handler = SIG_DFL };

    (void)state;
    expect_signal(end_of(&action, SIGSEGV, touch), SIGSEGV);
    expect_signal(end_of(&action, SIGSEGV, be_sent), SIGSEGV);
    expect_signal(end_of(&action, SIGABRT, abort), SIGABRT);
}

static void test_ignored_is_ignored(void **state)
{
    const struct sigaction action = { .sa_handler = SIG_IGN };

    (void)state;
    expect_calls(end_of(&action, SIGSEGV, be_sent), 0);
    expect_signal(end_of(&action, SIGSEGV, touch), SIGSEGV);
}

static void test_handlers_are_told(void **state)
{
    struct sigaction action = { .sa_handler = theirs };

    (void)state;
    expect_calls(end_of(&action, SIGSEGV, be_sent), 1);
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = theirs_with_place;
    expect_calls(end_of(&action, SIGSEGV, touch), 1);
    expect_calls(end_of(&action, SIGSEGV, touch_beside), 1);
}

/* That of MPI may be one: it tells where, and what it returns to faults again. */
static void test_handler_of_one_call(void **state)
{
    const struct sigaction action = { .sa_handler = theirs,
                                      .sa_flags = (int)SA_RESETHAND };

    (void)state;
    expect_calls(end_of(&action, SIGSEGV, be_sent), 1);
    expect_signal(end_of(&action, SIGSEGV, touch), SIGSEGV);
}

/* Two of ours, one in front of the other: what HDF5 meets in a file is the
 * file's, what comes from outside or later is not. */
static void test_a_file_is_blamed_for_its_own(void **state)
{
    const struct sigaction action = { .sa_handler = SIG_DFL };
    const int status = end_of(&action, SIGSEGV, touch_reading);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(told, "ERROR some.h5: ended HDF5 by a signal"));
    expect_signal(end_of(&action, SIGSEGV, be_sent_reading), SIGSEGV);
    assert_string_equal(told, "");
    expect_signal(end_of(&action, SIGSEGV, touch_after), SIGSEGV);
    assert_string_equal(told, "");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_default_ends_the_process),
    cmocka_unit_test(test_ignored_is_ignored),
    cmocka_unit_test(test_handlers_are_told),
    cmocka_unit_test(test_handler_of_one_call),
    cmocka_unit_test(test_a_file_is_blamed_for_its_own),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
