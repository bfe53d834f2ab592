#include "cli/command.h"

#include "base/error.h"
#include "base/file_lock.h"
#include "base/out_file.h"
#include "train/cache.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* Keeps others from the cache's temporary file, which ranks write together and
 * so cannot lock. */
typedef struct Hold {
    char path[DG_CONFIG_STRING + 8];
    int fd; /* -1: none */
} Hold;

static int take(Hold *h, const char *cache)
{
    snprintf(h->path, sizeof h->path, "%s.lock", cache);
    if (dg_file_lock(&h->fd, h->path, O_CREAT) == DG_LOCK_OTHERS)
        return dg_fail(DG_EBUSY,
                       "prompts.cache = \"%s\": another process encodes into "
                       "it (it has %s locked)",
                       cache, h->path);
    return DG_OK; /* the trial says why nothing can be written */
}

static void give_back(Hold *h)
{
    if (h->fd < 0)
        return;
    unlink(h->path);
    close(h->fd);
}

/* The encoders may take long: first whether there is a place for what they
 * give. */
static int try_cache(const Cli *cli, Hold *h)
{
    const char *path = cli->config.prompts.cache;
    int err = DG_OK;

    if (cli->comm.rank == 0 && path[0] != '\0') {
        err = take(h, path);
        if (!err)
            err = dg_out_try(path);
    }
    return dg_agree(&cli->comm, err);
}

static int encode(Cli *cli, void *none)
{
    Hold hold = { .fd = -1 };
    Session session;
    int err = try_cache(cli, &hold);

    (void)none;
    if (!err)
        err = dg_cli_session(&session, cli);
    if (!err)
        err = dg_encode(&session, cli->dry_run);
    give_back(&hold);
    return err;
}

int dg_cli_encode(int argc, char **argv)
{
    static const CliSpec spec = {
        .work = encode,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Encodes the prompts of all prompts files once and writes "
                   "them to prompts.cache, from which train and evaluate then "
                   "read them.",
    };

    return dg_cli_run(&spec, NULL, argc, argv);
}
