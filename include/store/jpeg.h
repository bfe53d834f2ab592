#ifndef DG_STORE_JPEG_H
#define DG_STORE_JPEG_H
/*
 * How large a picture is as a JPEG file. No file is made.
 */
#include <stdint.h>

/**
 * Bytes of the picture as libjpeg-turbo's defaults write it, and Pillow's: a
 * JFIF header, baseline, YCbCr with colours at half the resolution (4:2:0), the
 * standard's Huffman tables. The transform is JDCT_ISLOW, in whole numbers:
 * its vector code has the bits of its plain one, so the count does not depend
 * on the machine. Other libraries' encoders may count otherwise.
 * bytes   out
 * rgb     [height, width, 3] u8 in
 * quality 1 to 100, libjpeg's scale
 * libjpeg takes memory for some rows of the picture and gives it back; the
 * file goes through a few kilobytes of the stack. Not collective.
 * Errors: DG_EINVAL on sizes that JPEG has not, DG_ENOMEM; *bytes is then
 * untouched.
 */
int dg_jpeg_size(int64_t *bytes, const uint8_t *rgb, int64_t height,
                 int64_t width, int quality);

#endif
