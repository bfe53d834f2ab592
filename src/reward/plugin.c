/* A user's shared library as a reward: rewards[].plugin. What it may and must do
 * stands in include/dancegrpo/reward_plugin.h; here is the other side of that.
 * A library is read at creation, since its table alone says what a plan has to
 * know, and opened before weights of others are loaded. */
#include "kinds.h"

#include "base/error.h"
#include "base/float_env.h"
#include "base/in_file.h"
#include "base/legible.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text_out.h"
#include "dancegrpo/reward_plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20, ALIGNMENT = 64, REASON = 500 };

/* Scratch that no machine has; as much for each thread is still a number. */
#define BEYOND ((size_t)1 << 50)

typedef struct PluginReward {
    RewardConfig c;
    int64_t index; /* in rewards */
    int gpu;
    char sha256[DG_SHA256_HEX]; /* of its file */
    void *library;              /* of dlopen() */
    const DgRewardPlugin *plugin;
    void *self;
    int opened;
} PluginReward;

/* --- its file ------------------------------------------------------------- */

static int add_file(Sha256 *sum, int fd, const char *path)
{
    char *piece = malloc(PIECE);
    ssize_t n = 1;

    if (piece == NULL)
        return dg_fail(DG_ENOMEM, "SHA-256 of %s", path);
    while (n > 0 || (n < 0 && errno == EINTR)) {
        n = read(fd, piece, PIECE);
        if (n > 0)
            dg_sha256_update(sum, piece, (size_t)n);
    }
    free(piece);
    return n == 0
               ? DG_OK
               : dg_fail(DG_EIO, "%s: cannot read: %s", path, strerror(errno));
}

static int digest_file(char hex[DG_SHA256_HEX], const char *path)
{
    int64_t bytes;
    Sha256 sum;
    int fd;
    int err = dg_in_open(&fd, &bytes, path);

    if (err)
        return err;
    err = dg_sha256_init(&sum);
    if (!err) {
        err = add_file(&sum, fd, path);
        if (err)
            dg_sha256_fini(&sum);
        else
            dg_sha256_final(&sum, hex);
    }
    close(fd);
    return err;
}

static int refuse(int code, const PluginReward *n, const char *why)
{
    return dg_fail(code, "rewards[%lld].plugin = \"%.250s\": %.*s",
                   (long long)n->index, n->c.plugin, REASON, why);
}

/* The error of before, with the key in front of it. */
static int refuse_again(int code, const PluginReward *n)
{
    char why[sizeof dg_last_error()->text];

    memcpy(why, dg_last_error()->text, sizeof why);
    return refuse(code, n, why);
}

static int check_table(const PluginReward *n)
{
    const DgRewardPlugin *p = n->plugin;
    char why[160];

    if (p == NULL)
        return refuse(DG_EFORMAT, n, "its dg_reward_plugin() returns NULL");
    if (p->abi != DG_REWARD_PLUGIN_ABI) {
        snprintf(why, sizeof why,
                 "was built with version %d of dancegrpo/reward_plugin.h, this "
                 "program has version %d: build it again with the program's",
                 (int)p->abi, DG_REWARD_PLUGIN_ABI);
        return refuse(DG_EFORMAT, n, why);
    }
    if (p->score == NULL)
        return refuse(DG_EFORMAT, n, "its table has no score()");
    if (p->flags & ~(uint32_t)DG_REWARD_THREAD_SAFE) {
        snprintf(why, sizeof why,
                 "its table has flags 0x%x: must be DG_REWARD_THREAD_SAFE or 0",
                 (unsigned)p->flags);
        return refuse(DG_EFORMAT, n, why);
    }
    return DG_OK;
}

/* How long a library of this machine's kind has to be, by its own tables; 0:
 * not known. */
static int64_t needed_bytes(int fd)
{
    ElfW(Ehdr) head;
    ElfW(Phdr) part;
    uint64_t most;

    if (pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] !=
            (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        head.e_phentsize != sizeof part)
        return 0;
    most = head.e_shoff + (uint64_t)head.e_shnum * head.e_shentsize;
    for (int i = 0; i < head.e_phnum; i++) {
        const uint64_t at = head.e_phoff + (uint64_t)i * sizeof part;

        if (pread(fd, &part, sizeof part, (off_t)at) != (ssize_t)sizeof part)
            return (int64_t)(at + sizeof part);
        if (part.p_type == PT_LOAD && part.p_offset + part.p_filesz > most)
            most = part.p_offset + part.p_filesz;
    }
    return most < INT64_MAX ? (int64_t)most : 0;
}

/* dlopen() maps what the tables say, and to touch what a copy broke off has not
 * brought ends the process. */
static int check_length(const PluginReward *n, int fd, int64_t bytes)
{
    const int64_t needed = needed_bytes(fd);
    char why[160];

    if (bytes >= needed)
        return DG_OK;
    snprintf(why, sizeof why,
             "is cut short: it has %lld bytes, and at least %lld by its own "
             "tables; copy or build it again",
             (long long)bytes, (long long)needed);
    return refuse(DG_EFORMAT, n, why);
}

/* Of a name alone dlopen() would look elsewhere than other files are looked for.
 * A library that is not unmapped may leave threads behind. */
static int open_library(PluginReward *n)
{
    char path[DG_CONFIG_STRING + 2];
    const DgRewardPlugin *(*table)(void);

    snprintf(path, sizeof path, "%s%s",
             strchr(n->c.plugin, '/') != NULL ? "" : "./", n->c.plugin);
    n->library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (n->library == NULL)
        return refuse(DG_EFORMAT, n, dlerror());
    *(void **)&table = dlsym(n->library, "dg_reward_plugin");
    if (table == NULL)
        return refuse(DG_EFORMAT, n,
                      "has no function dg_reward_plugin(): see "
                      "dancegrpo/reward_plugin.h");
    n->plugin = table();
    return check_table(n);
}

static void destroy(void *net)
{
    PluginReward *n = net;

    if (n->opened && n->plugin->close != NULL) {
        n->plugin->close(n->self);
        dg_float_env_standard();
    }
    if (n->library != NULL)
        dlclose(n->library);
    free(n);
}

static int create(void **net, const RewardConfig *c, int64_t index)
{
    PluginReward *n = calloc(1, sizeof *n);
    int64_t bytes;
    int fd, err;

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    n->c = *c;
    n->index = index;
    n->gpu = -1;
    err = dg_in_open(&fd, &bytes, c->plugin); /* a pipe would be waited for */
    if (err) {
        err = refuse_again(err, n);
    } else {
        err = check_length(n, fd, bytes);
        close(fd);
        if (!err)
            err = open_library(n);
        dg_float_env_standard();
    }
    if (err)
        destroy(n);
    else
        *net = n;
    return err;
}

/* --- an instance ------------------------------------------------------------ */

/* Ranks whose libraries differ would make scores a matter of who has which
 * sample. */
static int compare_ranks(PluginReward *n, const Comm *comm)
{
    char first[DG_SHA256_HEX], why[160];
    int err = digest_file(n->sha256, n->c.plugin);

    if (err)
        err = refuse_again(err, n);
    err = dg_agree(comm, err);
    if (err)
        return err;
    memcpy(first, n->sha256, sizeof first);
    dg_comm_bcast(comm, first, sizeof first, 0);
    if (strcmp(first, n->sha256) != 0) {
        snprintf(why, sizeof why,
                 "has SHA-256 %.16s... here and %.16s... for rank 0: must be "
                 "the same library on all ranks",
                 n->sha256, first);
        err = refuse(DG_EINVAL, n, why);
    }
    return dg_agree(comm, err);
}

static int open_instance(PluginReward *n, const Comm *comm)
{
    const DgRewardSeat seat = { .name = n->c.name,
                                .options = n->c.options,
                                .rank = comm->rank,
                                .num_ranks = comm->size,
                                .node_rank = comm->node_rank,
                                .node_ranks = comm->node_size,
                                .device = n->gpu };
    char reason[DG_REWARD_REASON] = "", why[REASON];
    int refused;

    if (n->plugin->open == NULL) {
        n->opened = 1;
        return DG_OK;
    }
    refused = n->plugin->open(&n->self, &seat, reason);
    dg_float_env_standard();
    n->opened = !refused;
    if (!refused)
        return DG_OK;
    reason[sizeof reason - 1] = '\0';
    dg_legible_line(reason);
    snprintf(why, sizeof why, "refuses to open%s%.400s",
             reason[0] != '\0' ? ": " : ", without a reason", reason);
    return refuse(DG_EREWARD, n, why);
}

static void seat(void *net, int gpu)
{
    PluginReward *n = net;

    n->gpu = gpu;
}

static int prepare(void *net, const Comm *comm)
{
    PluginReward *n = net;
    char about[200] = "";
    int err = compare_ranks(n, comm);

    if (n->plugin->description != NULL)
        snprintf(about, sizeof about, "%s", n->plugin->description);
    dg_legible_line(about);
    if (!err)
        err = dg_agree(comm, open_instance(n, comm));
    if (!err)
        dg_info("reward %s: %s%s%.200s, SHA-256 %.16s...", n->c.name,
                n->c.plugin, about[0] != '\0' ? ", " : "", about, n->sha256);
    return err;
}

/* --- scores ----------------------------------------------------------------- */

static size_t wanted(const PluginReward *n, int64_t height, int64_t width)
{
    return n->plugin->scratch_bytes != NULL
               ? n->plugin->scratch_bytes(n->c.options, height, width)
               : 0;
}

/* What is beyond all memory stays so, and is told where it is reserved. */
static size_t scratch(const void *net, int64_t height, int64_t width)
{
    const size_t bytes = wanted(net, height, width);

    dg_float_env_standard();
    return bytes == 0 ? 0 : bytes > BEYOND ? BEYOND : bytes + ALIGNMENT;
}

static void *aligned(void *scratch)
{
    const uintptr_t at = (uintptr_t)scratch;

    return (char *)scratch + (ALIGNMENT - at % ALIGNMENT) % ALIGNMENT;
}

static int call(const PluginReward *n, const RewardInput *in,
                DgRewardScore *out)
{
    DgRewardPicture picture = { .rgb = in->rgb,
                                .height = in->height,
                                .width = in->width,
                                .prompt = in->prompt->text,
                                .metadata = in->prompt->json };

    if (wanted(n, in->height, in->width) > 0)
        picture.scratch = aligned(in->scratch);
    return n->plugin->score(n->self, &picture, out);
}

static int ask(const PluginReward *n, const RewardInput *in, DgRewardScore *out)
{
    int status;

    if (n->plugin->flags & DG_REWARD_THREAD_SAFE) {
        status = call(n, in, out);
    } else {
        /* all libraries: two of them may be built on one that is not safe */
#pragma omp critical(dg_reward_plugin)
        status = call(n, in, out);
    }
    dg_float_env_standard();
    out->reason[sizeof out->reason - 1] = '\0';
    dg_legible_line(out->reason); /* it stands in logs and in files */
    return status;
}

static int cannot_go_on(const PluginReward *n, int status,
                        const DgRewardScore *made)
{
    const char *file = n->c.plugin;

    if (status != DG_REWARD_FATAL)
        return dg_fail(DG_EREWARD,
                       "reward %s: score() of %.250s returned %d: must be "
                       "DG_REWARD_SCORED, _MISSING or _FATAL (0 to 2)",
                       n->c.name, file, status);
    return dg_fail(
        DG_EREWARD, "reward %s: %.250s cannot go on%s%.500s", n->c.name, file,
        made->reason[0] != '\0' ? ": " : ", without a reason", made->reason);
}

static int score(const void *net, const RewardInput *in, RewardScore *out)
{
    const PluginReward *n = net;
    DgRewardScore made = { .score = NAN, .strict = NAN };
    int status;

    if (in->rgb == NULL) /* a plan, of the program's own networks */
        return DG_OK;
    status = ask(n, in, &made);
    if (status == DG_REWARD_MISSING)
        return dg_fail(DG_ENOSCORE, "%s",
                       made.reason[0] != '\0' ? made.reason
                                              : "its library gave no reason");
    if (status != DG_REWARD_SCORED)
        return cannot_go_on(n, status, &made);
    if (!isnan(made.strict) && made.strict != 0 && made.strict != 1)
        return dg_fail(DG_ENUMERIC, "strict = %g: must be 0, 1 or NaN",
                       (double)made.strict);
    out->value = made.score;
    out->strict = made.strict;
    return DG_OK;
}

static const RewardNet net = {
    .create = create,
    .destroy = destroy,
    .seat = seat,
    .prepare = prepare,
    .scratch = scratch,
    .score = score,
};

const RewardKind dg_reward_of_plugin = { .name = "plugin",
                                         .keys = DG_KEY_OPTIONS,
                                         .net = &net };

/* --- for a run's files -------------------------------------------------------- */

static int describe(TextOut *t, const Config *c)
{
    const char *between = "";

    for (int64_t k = 0; k < c->num_rewards; k++) {
        const RewardConfig *r = &c->rewards[k];
        char hex[DG_SHA256_HEX];
        int err;

        if (r->plugin[0] == '\0')
            continue;
        err = digest_file(hex, r->plugin);
        if (err == DG_ENOMEM)
            return err;
        fprintf(t->file, "%s%s: %s, %s%s", between, r->name, r->plugin,
                err ? "not read" : "SHA-256 ", err ? "" : hex);
        between = "\n";
    }
    dg_clear_error();
    return DG_OK;
}

int dg_rewards_plugins(char **text, const Config *c, const Comm *comm)
{
    char *made = NULL;
    size_t bytes = 0;
    TextOut t;
    int err = DG_OK;

    if (comm->rank == 0)
        err = dg_text_open(&t, "libraries of rewards");
    if (comm->rank == 0 && !err) {
        t.failed = describe(&t, c) != DG_OK;
        err = dg_text_close(&t, &made);
    }
    err = dg_agree(comm, err);
    if (!err && comm->rank == 0)
        bytes = strlen(made) + 1;
    if (!err)
        err = dg_comm_bcast_alloc(comm, &made, &bytes, 0);
    if (!err)
        *text = made;
    else
        free(made);
    return err;
}
