#ifndef DG_WEIGHTS_ZIP_H
#define DG_WEIGHTS_ZIP_H
/*
 * Stored zip archives in memory, with the zip64 extension: where each member
 * lies. Sizes come from the central directory; nothing is unpacked.
 */
#include "mapped.h"

typedef struct ZipMember {
    const char *name; /* not terminated */
    size_t name_length;
    uint64_t at, num_bytes; /* in the archive */
    uint32_t crc; /* CRC-32 that the directory has; 0: none was taken */
} ZipMember;

typedef struct Zip {
    ZipMember *members; /* by name */
    int64_t num;
    unsigned char *directory; /* the archive's, with the names */
} Zip;

/**
 * Reads the directory of an archive, whose bytes may be mapped.
 * Errors: DG_EFORMAT naming path and, where there is one, member: no end
 * record, a range beyond the file, a compressed or encrypted member, members
 * that overlap, a name that is there twice; DG_ENOMEM; as dg_bytes_take().
 * Checksums are not
 * compared.
 */
int dg_zip_open(Zip *zip, const FileBytes *in);
void dg_zip_close(Zip *zip);

/** The member of that name, or NULL. */
const ZipMember *dg_zip_find(const Zip *zip, const char *name,
                             size_t name_length);

#endif
