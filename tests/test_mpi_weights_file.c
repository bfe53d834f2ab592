#define _GNU_SOURCE
#include "mpi_test.h"
#include "base/error.h"
#include "store/file.h"
#include "store/weights_file.h"
#include "weights/half.h"

#include <math.h>

static char folder[256], path[300];
static const FileInfo info = { .program = "test",
                               .git_commit = "abc",
                               .command = "test",
                               .config = "a = 1;\n",
                               .seed = 1 };
static float kernel[6000], bias[60], scale[1];
static const WeightTensor tensors[] = {
    { "net.0.to_q.weight", 2, { 60, 100 }, kernel },
    { "net.0.to_q.bias", 1, { 60 }, bias },
    { "net.scale", 0, { 0 }, scale },
};
static const WeightNote notes[] = { { "steps", "1600" }, { "score", "0.5" } };
static const char *const words[] = { "<pad>", "a", "two words", "\xc3\xa9" };
static const WeightList lists[] = { { "vocabulary", words, 4 } };
static const WeightsContent content = { tensors, 3, notes, 2,
                                        lists,   1, NULL,  NULL };

static int says(const char *word)
{
    const int yes = strstr(dg_last_error()->text, word) != NULL;

    if (!yes)
        fprintf(stderr, "rank %d said: %s\n", comm.rank, dg_last_error()->text);
    return yes;
}

static int start(void **state)
{
    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/net.h5", folder);
    for (int i = 0; i < 6000; i++)
        kernel[i] = (float)(i - 3000) / 777.0F;
    for (int i = 0; i < 60; i++)
        bias[i] = ldexpf(1.0F, -i / 2);
    scale[0] = -0.0F;
    return 0;
}

static int end(void **state)
{
    (void)state;
    drop_folder(folder);
    return 0;
}

/* a copy of them, without their data */
static WeightTensor named[3];

/* Only the last rank has it. */
static int fetch(void *user, const WeightTensor *t, float *to)
{
    const WeightTensor *from = &tensors[t - named];
    int64_t num = 1;

    for (int k = 0; k < t->num_dims; k++)
        num *= t->dims[k];
    if (comm.rank == comm.size - 1)
        memcpy(to, from->data, sizeof *to * (size_t)num);
    dg_comm_bcast(&comm, to, sizeof *to * (size_t)num, comm.size - 1);
    ++*(int *)user;
    return DG_OK;
}

static void test_tensors_are_fetched_one_by_one(void **state)
{
    static float k2[6000], b2[60], s2[1];
    WeightTensor back[3] = { tensors[0], tensors[1], tensors[2] };
    int fetched = 0;
    WeightsContent there = content;

    (void)state;
    for (int i = 0; i < 3; i++) {
        named[i] = tensors[i];
        named[i].data = NULL;
    }
    there.tensors = named;
    there.fetch = fetch;
    there.user = &fetched;
    back[0].data = k2;
    back[1].data = b2;
    back[2].data = s2;
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F32, &there, &info));
    EXPECT(fetched == 3);
    EXPECT(!dg_weights_read(path, "", back, 3));
    EXPECT(memcmp(k2, kernel, sizeof k2) == 0);
    EXPECT(memcmp(b2, bias, sizeof b2) == 0 && signbit(s2[0]));
    dg_comm_barrier(&comm);
    bias[7] = NAN;
    EXPECT(dg_weights_write(&comm, path, DG_H5_F16, &there, &info) ==
               DG_ENUMERIC &&
           says("net.0.to_q.bias[7]"));
    bias[7] = ldexpf(1.0F, -3);
    EXPECT(!dg_weights_read(path, "", back, 3)); /* as it was */
    VERDICT();
}

static void test_tensors_come_back(void **state)
{
    static float k2[6000], b2[60], s2[1];
    WeightTensor back[3] = { tensors[0], tensors[1], tensors[2] };
    char **texts = NULL, *steps = NULL;
    int64_t num = 0;

    (void)state;
    back[0].data = k2;
    back[1].data = b2;
    back[2].data = s2;
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F32, &content, &info));
    EXPECT(!dg_weights_read(path, "", back, 3));
    EXPECT(memcmp(k2, kernel, sizeof k2) == 0);
    EXPECT(memcmp(b2, bias, sizeof b2) == 0 && signbit(s2[0]));
    EXPECT(!dg_weights_read_list(path, "vocabulary", &texts, &num));
    EXPECT(num == 4);
    for (int i = 0; i < num; i++)
        EXPECT(strcmp(texts[i], words[i]) == 0);
    dg_h5_free_texts(texts);
    EXPECT(!dg_weights_read_note(path, "steps", &steps));
    EXPECT(steps && strcmp(steps, "1600") == 0);
    free(steps);
    dg_comm_barrier(&comm);
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F16, &content, &info));
    EXPECT(!dg_weights_read(path, "", back, 3));
    for (int i = 0; i < 6000; i++)
        EXPECT(k2[i] == dg_half_to_float(dg_half_from_float(kernel[i])));
    EXPECT(b2[48] == bias[48] && s2[0] == 0);
    VERDICT();
}

static void test_prefix_selects_a_network(void **state)
{
    static float k2[6000], b2[60];
    const WeightTensor back[] = {
        { "0.to_q.weight", 2, { 60, 100 }, k2 },
        { "0.to_q.bias", 1, { 60 }, b2 },
    };

    (void)state;
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F32, &content, &info));
    EXPECT(dg_weights_read(path, "net.", back, 2) == DG_EFORMAT);
    EXPECT(says("0 tensors missing, 1 unexpected: unexpected net.scale"));
    EXPECT(!dg_weights_read(
        path, "net.0.",
        (WeightTensor[]) { { "to_q.weight", 2, { 60, 100 }, k2 },
                           { "to_q.bias", 1, { 60 }, b2 } },
        2));
    EXPECT(memcmp(k2, kernel, sizeof k2) == 0);
    VERDICT();
}

static void test_wrong_files_are_named(void **state)
{
    static float k2[6000], b2[60], s2[1];
    WeightTensor back[3] = { tensors[0], tensors[1], tensors[2] };
    char *bytes = NULL, *value = NULL;
    size_t num = 0;

    (void)state;
    back[0].data = k2;
    back[1].data = b2;
    back[2].data = s2;
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F32, &content, &info));
    back[1].name = "net.0.to_k.bias";
    EXPECT(dg_weights_read(path, "", back, 3) == DG_EFORMAT);
    EXPECT(says("1 tensors missing, 1 unexpected"));
    EXPECT(says("missing net.0.to_k.bias, unexpected net.0.to_q.bias"));
    back[1].name = tensors[1].name;
    back[0].dims[0] = 100;
    back[0].dims[1] = 60;
    EXPECT(dg_weights_read(path, "", back, 3) == DG_EFORMAT);
    EXPECT(says("weights/net.0.to_q.weight is float32 [60, 100]"));
    back[0].dims[0] = 60;
    back[0].dims[1] = 100;
    EXPECT(dg_weights_read_note(path, "nothing", &value) == DG_EFORMAT);
    dg_comm_barrier(&comm); /* all have read the whole file */
    if (comm.rank == 0) {   /* one bit of a weight, found by its bytes */
        EXPECT(!dg_file_read(path, &bytes, &num));
        char *at = memmem(bytes, num, kernel + 100, 64);
        EXPECT(at != NULL);
        if (at != NULL)
            *at ^= 4;
        EXPECT(!dg_file_write(path, bytes, num));
        EXPECT(dg_weights_read(path, "", back, 3) == DG_EFORMAT);
        EXPECT(says("SHA-256") && says("net.0.to_q.weight"));
        EXPECT(!dg_file_write(path, bytes, num / 2));
        EXPECT(dg_weights_read(path, "", back, 3) == DG_EFORMAT);
        EXPECT(says("cut short"));
        free(bytes);
    }
    VERDICT();
}

static void test_values_are_checked(void **state)
{
    (void)state;
    kernel[7] = 70000.0F;
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F32, &content, &info));
    EXPECT(dg_weights_write(&comm, path, DG_H5_F16, &content, &info) ==
           DG_EINVAL);
    EXPECT(says("to_q.weight[7] is 70000"));
    kernel[7] = NAN;
    EXPECT(dg_weights_write(&comm, path, DG_H5_F32, &content, &info) ==
           DG_ENUMERIC);
    VERDICT();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tensors_come_back, start, end),
        cmocka_unit_test_setup_teardown(test_tensors_are_fetched_one_by_one,
                                        start, end),
        cmocka_unit_test_setup_teardown(test_prefix_selects_a_network, start,
                                        end),
        cmocka_unit_test_setup_teardown(test_wrong_files_are_named, start, end),
        cmocka_unit_test_setup_teardown(test_values_are_checked, start, end),
    };

    if (mpi_test_start(&argc, &argv) != 0)
        return 1;
    const int failed =
        cmocka_run_group_tests_name("mpi_weights_file", tests, NULL, NULL);
    dg_comm_fini(&comm);
    return failed != 0;
}
