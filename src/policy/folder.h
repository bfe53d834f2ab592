#ifndef DG_SRC_POLICY_FOLDER_H
#define DG_SRC_POLICY_FOLDER_H
/*
 * What the generators that come from a Hugging Face folder share: their
 * config.json files, tokenizers, weights, and the decoder.
 */
#include "models/clip.h"
#include "models/vae.h"
#include "parallel/comm.h"
#include "text/tokenizer.h"
#include "weights/model_config.h"

enum { DG_FOLDER_PATH = 1024 };

/** out = folder/component, or folder/component/file. DG_EINVAL: too long. */
int dg_folder_path(char out[DG_FOLDER_PATH], const char *folder,
                   const char *component, const char *file);

/** The folder holds the part 'own' of a pipeline of that kind: of another kind,
 *  or not a whole one, it is told by what is there, since the first file that is
 *  missing would not tell. Errors: DG_EFORMAT. */
int dg_folder_check_part(const char *folder, const char *own,
                         const char *own_kind, const char *other,
                         const char *other_kind);

/** 1 if there is a folder of that name. */
int dg_folder_exists(const char *folder);

/* --- config.json ---------------------------------------------------------- */

/* A folder, and what it must be: "FLUX.1". */
typedef struct Folder {
    const char *path, *model;
} Folder;

/* A file being read. The first error stays; then readers do nothing and give
 * their standard value. */
typedef struct FolderReader {
    char path[DG_FOLDER_PATH];
    const char *model;
    ModelConfig *file;
    int err;
} FolderReader;

void dg_folder_open(FolderReader *r, const Folder *folder,
                    const char *component, const char *file);
/** scheduler/scheduler_config.json, which a folder may lack: then there = 0 and
 *  nothing is open. Errors: a path too long. */
int dg_folder_open_scheduler(FolderReader *r, const Folder *folder, int *there);
/** The first error of them all. */
int dg_folder_close(FolderReader *r);

/** In [1, most]; 1 after an error. */
int64_t dg_folder_whole(FolderReader *r, const char *key, int64_t most);
/** std where the key is left out, as files of an older program do. */
double dg_folder_real(FolderReader *r, const char *key, double std);
int dg_folder_flag(FolderReader *r, const char *key, int std);

/** What must be so where the key is there. */
void dg_folder_want_text(FolderReader *r, const char *key, const char *want);
void dg_folder_want_flag(FolderReader *r, const char *key, int want);
void dg_folder_want_real(FolderReader *r, const char *key, double want);
void dg_folder_want_null(FolderReader *r, const char *key);

/** block_out_channels: their number. */
int dg_folder_widths(FolderReader *r, int64_t *out, int most);

/**
 * vae/config.json and text_encoder/config.json.
 * Errors: DG_EIO, DG_EFORMAT naming file and key.
 */
int dg_folder_read_vae(VaeConfig *out, const Folder *folder);
int dg_folder_read_clip(ClipTextConfig *out, const Folder *folder);

/* --- tokenizers and weights ----------------------------------------------- */

/**
 * Opens folder/component, which must be of that kind and have no more ids
 * than its encoder. Errors: those of dg_tokenizer_open(); DG_EFORMAT.
 */
int dg_folder_tokenizer(Tokenizer **out, const Folder *folder,
                        const char *component, TokenizerKind kind,
                        int64_t vocab_size);

/** A network's complaint of its sizes (DG_EINVAL) with the folder that has
 *  them; any other error, or none, as it is. */
int dg_folder_blame(const Folder *folder, int err);

/**
 * Fills the parameters of set whose names begin with "component." from
 * folder/component; a decoder is half of what its files hold. Of a set without
 * memory the files' lists of tensors are checked alone.
 * Collective. Errors, agreed: those of dg_load_values().
 */
int dg_folder_load(const Folder *folder, const Comm *comm, ParamSet *set,
                   const char *component, int decoder);

/* --- decoder -------------------------------------------------------------- */

/**
 * Adds a decoder's parameters to set, "vae."; and takes their memory, unless
 * outline. Errors: those of dg_vae_create(), DG_ENOMEM.
 */
int dg_folder_decoder(Vae **out, const VaeConfig *c, ParamSet *set,
                      int outline);

/* Its copy in the memory of a backend; zero: there is none. */
typedef struct FolderCopy {
    void *at;
    const Backend *on;
} FolderCopy;

/**
 * Copies a loaded decoder to the backend's memory, which is apart, where the
 * networks read it from now on. Errors: DG_ENOMEM.
 */
int dg_folder_place(FolderCopy *out, ParamSet *set, const Backend *backend);
/** After the last use of the set. */
void dg_folder_unplace(FolderCopy *copy);

/**
 * A model's latent map z [1, h, w, channels], kernel memory,
 * overwritten, to pixels: rgb [H, W, 3] in [0, 1] on the host, NaN kept; not
 * written in a plan. z may be NULL after
 * an error. Errors: those of the context.
 */
int dg_folder_paint(const Vae *vae, Context *ctx, Tensor *z, float *rgb);

#endif
