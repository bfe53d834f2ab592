#ifndef DG_WEIGHTS_ZIP_H
#define DG_WEIGHTS_ZIP_H
/*
 * Stored zip archives in memory, with the zip64 extension: where each member
 * lies. Sizes come from the central directory; nothing is unpacked.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct ZipMember {
    const char *name; /* not terminated */
    size_t name_length;
    const unsigned char *data;
    uint64_t num_bytes;
    uint32_t crc; /* CRC-32 that the directory has; 0: none was taken */
} ZipMember;

typedef struct Zip {
    ZipMember *members; /* by name */
    int64_t num;
} Zip;

/**
 * Reads the directory of an archive; its names and data stay in bytes.
 * Errors: DG_EFORMAT naming path and, where there is one, member: no end
 * record, a range beyond the file, a compressed or encrypted member, members
 * that overlap, a name that is there twice; DG_ENOMEM. Checksums are not
 * compared.
 */
int dg_zip_open(Zip *zip, const char *path, const unsigned char *bytes,
                size_t num_bytes);
void dg_zip_close(Zip *zip);

/** The member of that name, or NULL. */
const ZipMember *dg_zip_find(const Zip *zip, const char *name,
                             size_t name_length);

#endif
