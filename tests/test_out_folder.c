/* A folder that is there whole or not at all, and copies of folders. */
#include "base/clock.h"
#include "base/error.h"
#include "base/out_file.h"
#include "base/out_folder.h"
#include "store/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char top[64];

/* A path below the test's folder; four may be in use at a time. */
static const char *at(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", top, name);
    return path;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(dg_file_write(at(name), text, strlen(text)), DG_OK);
}

static void holds(const char *name, const char *text)
{
    size_t bytes;
    char *found;

    assert_int_equal(dg_file_read(at(name), &found, &bytes), DG_OK);
    assert_string_equal(found, text);
    free(found);
}

static int there(const char *name)
{
    struct stat s;

    return lstat(at(name), &s) == 0;
}

static void refused(int err, int code, const char *text)
{
    assert_int_equal(err, code);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, dg_last_error()->text);
}

static int num_entries(void)
{
    DIR *d = opendir(top);
    int num = -2; /* . and .. */

    while (d != NULL && readdir(d) != NULL)
        num++;
    closedir(d);
    return num;
}

static void fill(const OutFolder *f)
{
    char path[256];

    snprintf(path, sizeof path, "%s/inside", dg_out_folder_path(f));
    assert_int_equal(mkdir(path, 0777), 0);
    strcat(path, "/file");
    assert_int_equal(dg_file_write(path, "text", 4), DG_OK);
}

static void test_committed_folder_is_there(void **state)
{
    OutFolder *f;
    struct stat s;
    const mode_t mask = umask(022);

    (void)state;
    assert_int_equal(dg_out_folder_open(&f, at("new//")), DG_OK);
    fill(f);
    assert_false(there("new"));
    assert_int_equal(dg_out_folder_commit(f), DG_OK);
    holds("new/inside/file", "text");
    assert_int_equal(stat(at("new"), &s), 0);
    assert_int_equal(s.st_mode & 0777, 0755);
    assert_int_equal(num_entries(), 1);
    umask(mask);
}

static void test_abandoned_folder_leaves_nothing(void **state)
{
    const int before = num_entries();
    OutFolder *f;
    char path[256];

    (void)state;
    put("kept", "kept");
    assert_int_equal(dg_out_folder_open(&f, at("gone")), DG_OK);
    fill(f);
    snprintf(path, sizeof path, "%s/link", dg_out_folder_path(f));
    assert_int_equal(symlink(at("kept"), path), 0);
    dg_out_folder_abandon(f);
    dg_out_folder_abandon(NULL);
    assert_false(there("gone"));
    assert_int_equal(num_entries(), before + 1);
    holds("kept", "kept"); /* what a link leads to stays */
}

static void test_taken_names_are_refused(void **state)
{
    const int before = num_entries();
    OutFolder *f;

    (void)state;
    assert_int_equal(symlink("nowhere", at("dangling")), 0);
    refused(dg_out_folder_open(&f, at("new")), DG_EINVAL,
            "new: is there already");
    refused(dg_out_folder_open(&f, at("new/")), DG_EINVAL,
            "new: is there already");
    refused(dg_out_folder_open(&f, at("kept")), DG_EINVAL, "kept: is there");
    refused(dg_out_folder_open(&f, at("dangling")), DG_EINVAL, "is there");
    refused(dg_out_folder_open(&f, at("none/x")), DG_EIO, "none/x.tmp-");
    refused(dg_out_folder_open(&f, at("kept/x")), DG_EIO, "kept/x: cannot");
    /* taken while it was written: an empty folder is not replaced */
    assert_int_equal(dg_out_folder_open(&f, at("late")), DG_OK);
    fill(f);
    assert_int_equal(mkdir(at("late"), 0777), 0);
    refused(dg_out_folder_commit(f), DG_EINVAL, "late: is there already");
    assert_false(there("late/inside"));
    assert_int_equal(num_entries(), before + 2);
}

/* Ends as a process that is killed does, when told so. */
static pid_t start(void work(void), int *go)
{
    int ready[2], stop[2];
    char byte;
    pid_t child;

    assert_true(pipe(ready) == 0 && pipe(stop) == 0);
    child = fork();
    if (child == 0) {
        close(stop[1]);
        work();
        if (write(ready[1], "x", 1) == 1)
            while (read(stop[0], &byte, 1) > 0)
                ;
        usleep(200000); /* it ends a little later */
        _exit(0);
    }
    close(ready[1]);
    close(stop[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    *go = stop[1];
    return child;
}

static void end(pid_t child, int go)
{
    close(go);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void begin_export(void)
{
    OutFolder *f;

    assert_int_equal(dg_out_folder_open(&f, at("export")), DG_OK);
    fill(f);
}

static void test_remains_go_and_others_stay(void **state)
{
    const int before = num_entries();
    OutFolder *f;
    int go;
    const pid_t child = start(begin_export, &go);

    (void)state;
    mkdir(at("export.tmp-older1"), 0777); /* without a lock: not to be judged */
    put("export.tmp-older1/file", "text");
    mkdir(at("export.tmp-empty1"), 0777);
    mkdir(at("export.tmp-another"), 0777); /* no such name */
    mkdir(at("export2.tmp-abcdef"), 0777);
    put("export.tmp-afile1", "text");
    assert_int_equal(num_entries(), before + 6);
    assert_int_equal(dg_out_folder_open(&f, at("export")), DG_OK);
    fill(f); /* the child lives: its folder is beside this one */
    assert_int_equal(num_entries(), before + 6);
    assert_false(there("export.tmp-empty1"));
    dg_out_folder_abandon(f);
    end(child, go);
    assert_int_equal(num_entries(), before + 5); /* what a killed one left */
    assert_int_equal(dg_out_folder_open(&f, at("export/")), DG_OK);
    assert_int_equal(num_entries(), before + 5);
    fill(f);
    assert_int_equal(dg_out_folder_commit(f), DG_OK);
    assert_false(there("export/.dancegrpo-lock"));
    holds("export/inside/file", "text");
    holds("export.tmp-older1/file", "text");
    assert_true(there("export.tmp-another") && there("export2.tmp-abcdef") &&
                there("export.tmp-afile1"));
    assert_int_equal(num_entries(), before + 5);
}

static void begin_file(void)
{
    OutFile *f;

    assert_int_equal(dg_out_open(&f, at("shared.json")), DG_OK);
    assert_int_equal(dg_out_write(f, "half", 4), DG_OK);
}

/* Two who write one name: neither takes the other's half for its own. */
static void test_a_file_has_one_writer(void **state)
{
    pid_t child;
    int go;

    (void)state;
    child = start(begin_file, &go);
    end(child, go);
    assert_true(there("shared.json.tmp"));
    put("shared.json", "whole"); /* what a killed one left is taken */
    assert_false(there("shared.json.tmp"));
    child = start(begin_file, &go);
    close(go);
    const double began = dg_clock_now();
    put("shared.json", "again"); /* one that lives is waited for */
    assert_true(dg_clock_now() - began > 0.1);
    assert_int_equal(waitpid(child, NULL, 0), child);
    holds("shared.json", "again");
}

static void test_copies_are_whole(void **state)
{
    char *big = malloc(3000000);

    (void)state;
    assert_non_null(big);
    memset(big, 'x', 2999999);
    big[2999999] = '\0';
    mkdir(at("from"), 0777);
    mkdir(at("from/deep"), 0777);
    put("from/deep/big", big);
    put("from/empty", "");
    put("from/.hidden", "hidden");
    put("target", "target");
    assert_int_equal(symlink("../target", at("from/link")), 0);
    assert_int_equal(dg_out_copy_folder(at("from"), at("to")), DG_OK);
    holds("to/deep/big", big);
    holds("to/empty", "");
    assert_int_equal(unlink(at("target")), 0);
    holds("to/link", "target"); /* a file now */
    assert_false(there("to/.hidden"));
    refused(dg_out_copy_folder(at("from"), at("to")), DG_EIO,
            "to: cannot create");
    refused(dg_out_copy_folder(at("from"), at("to2")), DG_EIO,
            "from/link: cannot look at");
    refused(dg_out_copy_folder(at("none"), at("to3")), DG_EIO,
            "none: cannot list");
    refused(dg_out_copy_file(at("none"), at("to3")), DG_EIO,
            "none: cannot open");
    free(big);
}

static void test_a_place_for_a_file_is_tried(void **state)
{
    (void)state;
    assert_int_equal(dg_out_try(at("fresh.json")), DG_OK);
    assert_false(there("fresh.json") || there("fresh.json.tmp"));
    put("figures", "kept");
    assert_int_equal(dg_out_try(at("figures")), DG_OK);
    holds("figures", "kept");
    refused(dg_out_try(at("nowhere/a.json")), DG_EIO,
            "nowhere/a.json: cannot create");
    refused(dg_out_try(top), DG_EIO, "a folder has that name");
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    assert_int_equal(symlink("pipe", at("link_to_pipe")), 0);
    refused(dg_out_try(at("pipe")), DG_EIO, "a device, pipe or socket has");
    refused(dg_out_try(at("link_to_pipe")), DG_EIO, "a device, pipe or socket");
    assert_false(there("pipe.tmp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_committed_folder_is_there),
        cmocka_unit_test(test_abandoned_folder_leaves_nothing),
        cmocka_unit_test(test_taken_names_are_refused),
        cmocka_unit_test(test_remains_go_and_others_stay),
        cmocka_unit_test(test_a_file_has_one_writer),
        cmocka_unit_test(test_copies_are_whole),
        cmocka_unit_test(test_a_place_for_a_file_is_tried),
    };
    char command[128];
    int failed;

    snprintf(top, sizeof top, "/tmp/dg_test_XXXXXX");
    if (mkdtemp(top) == NULL)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    return system(command) != 0 || failed;
}
