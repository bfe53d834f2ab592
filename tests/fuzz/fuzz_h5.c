/*
 * Fuzz target: the program's own HDF5 files. What begins as HDF5 does is such
 * a file. Anything else is a recipe: the first byte chooses one of the four
 * kinds, as the program writes it, and the others change it through HDF5, so
 * that the library finds a sound file and our readers one of any shape:
 * objects gone, of other types, sizes and layouts, links, attributes. With the
 * highest bit of the first byte, the last bytes then damage the file itself.
 * What is read has to be refused or come whole, and all be given back; the
 * address sanitizer watches the buffers that HDF5 fills.
 */
#include "base/error.h"
#include "base/sha256.h"
#include "store/checkpoint.h"
#include "store/conditions.h"
#include "store/file.h"
#include "store/inspect.h"
#include "store/trajectory.h"
#include "store/weights_file.h"

#include "fuzz_folder.h"
#include "fuzz_recipe.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { KINDS = 4, PARAMS = 2, VALUES = 10, ROWS = 3, WIDTH = 5 };

static Comm comm;
static FILE *nowhere;
static struct {
    char *bytes;
    size_t size;
} kind[KINDS];

static const CheckpointParam params[PARAMS] = { { "a.weight", 0, 2, { 2, 3 } },
                                                { "b", 6, 1, { 4 } } };

static const char *const prompt[ROWS] = { "a circle", "b", "two squares" };

/* Content ---------------------------------------------------------------- */

typedef struct Own {
    float values[2][VALUES];
    CheckpointArray arrays[2];
    CheckpointCounter counter;
    CheckpointNote note;
    Checkpoint checkpoint;
    WeightTensor tensors[PARAMS];
} Own;

static void fill(Own *o)
{
    *o = (Own) { .counter = { "optimizer_step", 7 },
                 .note = { "base_sha256", "abc", 1, NULL, NULL } };
    for (int i = 0; i < 2 * VALUES; i++)
        o->values[i / VALUES][i % VALUES] = (float)i / 4;
    for (int i = 0; i < 2; i++) {
        o->arrays[i] = (CheckpointArray) { .name = i ? "ema" : "weights",
                                           .long_name = "an array",
                                           .data = o->values[i],
                                           .num = VALUES };
        o->tensors[i] =
            (WeightTensor) { params[i].name,
                             params[i].num_dims,
                             { params[i].dims[0], params[i].dims[1] },
                             o->values[0] + params[i].offset };
    }
    o->checkpoint = (Checkpoint) { 5, o->arrays, 2, params, PARAMS, &o->counter,
                                   1, &o->note,  1 };
}

static int write_conditions(const char *path, const FileInfo *info)
{
    static float rows[ROWS * WIDTH];
    HexDigest digest[ROWS], key[ROWS];
    ConditionsContent k = { .prompt = prompt,
                            .key = key,
                            .tokens = key,
                            .condition = digest,
                            .num = ROWS,
                            .num_local = ROWS,
                            .width = WIDTH,
                            .type = DG_H5_F32,
                            .encoder = "0123",
                            .rows = rows };
    int err = DG_OK;

    for (int i = 0; i < ROWS && !err; i++) {
        err = dg_sha256_bytes(key[i], prompt[i], strlen(prompt[i]));
        if (!err)
            err = dg_sha256_bytes(digest[i], rows, sizeof *rows * WIDTH);
    }
    return err ? err : dg_conditions_write(&comm, path, &k, info);
}

/* A column, or with b > 0 a table. */
static H5Item table(const char *name, H5Type type, const void *data, int64_t a,
                    int64_t b)
{
    return (H5Item) { .name = name,
                      .type = type,
                      .num_dims = b > 0 ? 2 : 1,
                      .dims = { a, b },
                      .data = data,
                      .units = "1",
                      .long_name = name,
                      .axes = "item" };
}

static int write_trajectory(const FileInfo *info, float *values)
{
    static const int64_t index[ROWS] = { 0 }, kept[2] = { 0, 1 };
    static const int32_t whole[4] = { 0 };
    static const float real[2 * ROWS] = { 1 };
    static const char *const names[] = { "shapes" };
    const H5Item items[] = {
        { .name = "latent",
          .type = DG_H5_F32,
          .num_dims = 2,
          .dims = { 2, WIDTH },
          .data = values,
          .units = "1",
          .long_name = "latents",
          .axes = "item, element" },
        { .name = "prompt",
          .type = DG_H5_TEXT,
          .num_dims = 1,
          .dims = { ROWS },
          .data = prompt,
          .units = "1",
          .long_name = "prompts",
          .axes = "prompt" },
        table("prompt_index", DG_H5_I64, index, ROWS, 0),
        table("reward_name", DG_H5_TEXT, names, 1, 0),
        table("reward", DG_H5_F32, real, 2 * ROWS, 1),
        table("strict", DG_H5_F32, real, 2 * ROWS, 1),
        table("advantage", DG_H5_F32, real, 2 * ROWS, 1),
        table("total_advantage", DG_H5_F32, real, 2 * ROWS, 0),
        table("kept", DG_H5_I64, kept, 2, 0),
        table("update", DG_H5_I32, whole, 2, 0),
        table("ratio", DG_H5_F32, real, 2, 2),
        table("clipped", DG_H5_I32, whole, 2, 2),
    };
    const TrajectoryNote note = { "weights_sha256", "abc", 0 };

    return dg_trajectory_write(&comm, fuzz_folder, 1, items,
                               sizeof items / sizeof *items, &note, 1, info);
}

static int write_kinds(void)
{
    const FileInfo info = { "p", "c", "x", "run.seed = 1;\n", 1 };
    const WeightNote note = { "how", "by hand" };
    const WeightList list = { "words", prompt, ROWS };
    char path[KINDS][300];
    Own o;
    int err;

    fill(&o);
    const WeightsContent w = {
        o.tensors, PARAMS, &note, 1, &list, 1, NULL, NULL
    };
    dg_checkpoint_path(path[0], 300, fuzz_folder, 5);
    dg_trajectory_path(path[1], 300, fuzz_folder, 1);
    snprintf(path[2], 300, "%s/weights.h5", fuzz_folder);
    snprintf(path[3], 300, "%s/conditions.h5", fuzz_folder);
    err = dg_checkpoint_write(&comm, fuzz_folder, &o.checkpoint, &info, 0);
    if (!err)
        err = write_trajectory(&info, o.values[0]);
    if (!err)
        err = dg_weights_write(&comm, path[2], DG_H5_F16, &w, &info);
    if (!err)
        err = write_conditions(path[3], &info);
    for (int i = 0; i < KINDS && !err; i++)
        err = dg_file_read(path[i], &kind[i].bytes, &kind[i].size);
    return err;
}

/* Readers ---------------------------------------------------------------- */

static void read_conditions(const char *path)
{
    Conditions *c;
    const char *tokens;
    char hex[DG_SHA256_HEX];

    (void)dg_conditions_digest(path, hex);
    if (dg_conditions_open(&c, path) != 0)
        return;
    float *row = malloc(sizeof *row * (size_t)dg_conditions_width(c) + 1);
    if (row == NULL)
        abort();
    for (int i = 0; i < ROWS; i++) {
        const int64_t at = dg_conditions_find(c, prompt[i], &tokens);

        if (at >= 0 && strlen(tokens) < 1 << 20)
            (void)dg_conditions_read(c, at, row);
    }
    free(row);
    dg_conditions_close(c);
}

static void read_trajectory(const char *path)
{
    const int64_t dims[] = { 2, WIDTH };
    float values[2 * WIDTH];
    char **texts, *text;
    int64_t num;
    H5File *f;

    if (dg_trajectory_open(&f, path) != 0)
        return;
    (void)dg_h5_read(f, "latent", DG_H5_F32, 2, dims, values);
    (void)dg_h5_read_rows(f, "latent", DG_H5_F32, 2, dims, 1, 1, values);
    if (dg_h5_read_texts(f, "prompt", &texts, &num) == 0) {
        for (int64_t i = 0; i < num; i++)
            if (strlen(texts[i]) > 1 << 20)
                abort();
        dg_h5_free_texts(texts);
    }
    if (dg_h5_get_text(f, NULL, "weights_sha256", &text) == 0)
        free(text);
    dg_h5_close(f);
}

static void read_all(const char *path)
{
    char hex[DG_SHA256_HEX], **texts, *text;
    int64_t num;
    Own o;

    fill(&o);
    (void)dg_inspect_describe(path, nowhere);
    (void)dg_inspect_digest(path, hex);
    (void)dg_inspect_table(&path, 1, nowhere);
    (void)dg_checkpoint_read(&comm, path, &o.checkpoint);
    (void)dg_weights_read(path, "", o.tensors, PARAMS);
    if (dg_weights_read_list(path, "words", &texts, &num) == 0)
        dg_h5_free_texts(texts);
    if (dg_weights_read_note(path, "how", &text) == 0)
        free(text);
    read_conditions(path);
    read_trajectory(path);
}

/* Four bytes each: a place, modulo the file's size, and what is there then. */
static void damage(const char *path, const uint8_t *data, size_t size)
{
    FILE *f = fopen(path, "r+b");
    long bytes;

    if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (bytes = ftell(f)) <= 0)
        abort();
    for (int i = 0; i < 4 && size >= 4; i++, size -= 4, data += 4) {
        const long at =
            ((long)data[0] << 16 | (long)data[1] << 8 | data[2]) % bytes;

        if (fseek(f, at, SEEK_SET) != 0 || fputc(data[3], f) == EOF)
            abort();
    }
    fclose(f);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    /* one process needs no daemon of MPI's */
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 1);
    make_fuzz_folder();
    nowhere = fopen("/dev/null", "w");
    if (nowhere == NULL || dg_comm_init(&comm, argc, argv) != 0 ||
        write_kinds() != 0)
        abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[300];

    if (size == 0)
        return 0;
    if (size > 8 && memcmp(data, "\x89HDF", 4) == 0) {
        put_fuzz_file(path, "file.h5", data, size);
    } else {
        const int k = data[0] % KINDS;
        const size_t last = size > 17 ? 16 : (size - 1) / 4 * 4;

        put_fuzz_file(path, "file.h5", kind[k].bytes, kind[k].size);
        if (data[0] & 0x80)
            size -= last;
        fuzz_recipe(path, data + 1, size - 1);
        if (data[0] & 0x80)
            damage(path, data + size, last);
    }
    read_all(path);
    /* leaks of HDF5's and MPI's own are not looked for, but of what they lend */
    if (H5Fget_obj_count(H5F_OBJ_ALL, H5F_OBJ_ALL) > 0)
        abort();
    return 0;
}
