#include "base/sha256.h"

#include "base/error.h"

#include <openssl/evp.h>
#include <stdio.h>

int dg_sha256_init(Sha256 *s)
{
    EVP_MD_CTX *state = EVP_MD_CTX_new();

    s->state = NULL;
    if (state == NULL || EVP_DigestInit_ex(state, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(state);
        return dg_fail(DG_ENOMEM, "SHA-256: no memory for its state");
    }
    s->state = state;
    return DG_OK;
}

void dg_sha256_update(Sha256 *s, const void *data, size_t size)
{
    if (EVP_DigestUpdate(s->state, data, size) != 1)
        dg_panic("SHA-256 refused %zu bytes", size);
}

static void end(Sha256 *s, unsigned char digest[32])
{
    if (EVP_DigestFinal_ex(s->state, digest, NULL) != 1)
        dg_panic("SHA-256 refused to end");
    dg_sha256_fini(s);
}

void dg_sha256_final(Sha256 *s, char hex[DG_SHA256_HEX])
{
    unsigned char digest[32];

    end(s, digest);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void dg_sha256_fini(Sha256 *s)
{
    EVP_MD_CTX_free(s->state);
    s->state = NULL;
}

int dg_sha256_bytes(char hex[DG_SHA256_HEX], const void *data, size_t size)
{
    Sha256 s;
    int err = dg_sha256_init(&s);

    if (err)
        return err;
    dg_sha256_update(&s, data, size);
    dg_sha256_final(&s, hex);
    return DG_OK;
}

int dg_sha256_raw(unsigned char digest[32], const void *data, size_t size)
{
    Sha256 s;
    int err = dg_sha256_init(&s);

    if (err)
        return err;
    dg_sha256_update(&s, data, size);
    end(&s, digest);
    return DG_OK;
}
