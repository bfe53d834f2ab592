#define _GNU_SOURCE /* PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP */
#include "h5_internal.h"

#include "base/error.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t turn = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void dg_h5_hold(void)
{
    pthread_mutex_lock(&turn);
}

void dg_h5_release(void)
{
    pthread_mutex_unlock(&turn);
}

static herr_t keep_reason(unsigned n, const H5E_error2_t *e, void *reason)
{
    (void)n;
    if (e->desc != NULL && ((char *)reason)[0] == '\0')
        snprintf(reason, 256, "%s", e->desc);
    return 0;
}

void dg_h5_quiet(void)
{
    dg_h5_hold();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    dg_h5_release();
}

int dg_h5_fail(int code, const H5File *f, const char *object, const char *what)
{
    char reason[256] = "";

    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_reason, reason);
    H5Eclear2(H5E_DEFAULT);
    reason[strcspn(reason, "\n")] = '\0';
    return dg_fail(code, "%s: %s%s%s%s%s", f->path, object ? object : "",
                   object ? ": " : "", what, reason[0] ? ": " : "", reason);
}

/* Of 16 bits: the sign, so many bits of exponent, then of mantissa. */
static hid_t make_16(size_t exponent, size_t mantissa, size_t bias)
{
    const hid_t t = H5Tcopy(H5T_IEEE_F32LE);

    if (H5Tset_fields(t, 15, mantissa, exponent, 0, mantissa) < 0 ||
        H5Tset_size(t, 2) < 0 || H5Tset_ebias(t, bias) < 0) {
        H5Tclose(t);
        return H5I_INVALID_HID;
    }
    return t;
}

/* The same on disk and in memory: data go to disk as they lie in memory. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "files are little-endian and written without conversion"
#endif

hid_t dg_h5_make_type(H5Type type)
{
    switch (type) {
    case DG_H5_F16:
        return make_16(5, 10, 15); /* IEEE binary16 */
    case DG_H5_BF16:
        return make_16(8, 7, 127); /* float32's upper half */
    case DG_H5_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case DG_H5_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case DG_H5_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case DG_H5_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case DG_H5_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case DG_H5_U64:
        return H5Tcopy(H5T_STD_U64LE);
    case DG_H5_TEXT:
        break;
    }
    return H5I_INVALID_HID;
}

hid_t dg_h5_make_text_type(size_t bytes)
{
    const hid_t t = H5Tcopy(H5T_C_S1);

    H5Tset_size(t, bytes > 0 ? bytes : 1);
    H5Tset_strpad(t, H5T_STR_NULLPAD);
    H5Tset_cset(t, H5T_CSET_UTF8);
    return t;
}

size_t dg_h5_type_bytes(H5Type type)
{
    static const size_t bytes[] = { 2, 2, 4, 8, 1, 4, 8, 8, sizeof(char *) };

    return bytes[type];
}

const char *dg_h5_type_name(H5Type type)
{
    static const char *const names[] = { "float16", "bfloat16", "float32",
                                         "float64", "uint8",    "int32",
                                         "int64",   "uint64",   "text" };

    return names[type];
}

const char *dg_h5_library(void)
{
    static char text[48];
    unsigned major = 0, minor = 0, release = 0;

    dg_h5_hold();
    H5get_libversion(&major, &minor, &release);
    dg_h5_release();
    snprintf(text, sizeof text, "HDF5 %u.%u.%u", major, minor, release);
    return text;
}

int dg_h5_match_digest(H5File *f, const char *name, int of_root,
                       const char *key, const char *digest)
{
    char *stored = NULL;
    int err = dg_h5_get_text(f, of_root ? NULL : name, key, &stored);

    if (!err && strcmp(digest, stored) != 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: dataset %s: SHA-256 is %.16s..., stored is "
                      "%.16s...: the file is damaged",
                      f->path, name, digest, stored);
    free(stored);
    return err;
}
