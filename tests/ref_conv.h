#ifndef REF_CONV_H
#define REF_CONV_H
/* The kernels of maps for ref_kernels.c, and their cases for ref_cases.c. */
#include "kernel_case.h"
#include "tensor/backend.h"

size_t ref_conv_scratch(const ConvArgs *a);
size_t ref_group_norm_scratch(int64_t width);
void ref_conv(const ConvArgs *a);
void ref_conv_input_grad(const ConvArgs *a);
void ref_conv_weight_grad(const ConvArgs *a);
void ref_group_norm(const GroupNormArgs *a);
void ref_group_norm_grad(const GroupNormArgs *a);
void ref_add_rows(const AddRowsArgs *a);
void ref_add_rows_grad(const AddRowsArgs *a);

/** Cases give kernels the scratch that this backend asks for. */
void ref_conv_scratch_for(const Backend *be);

/* map side, channels in, out; kernel, stride, padding as one number each */
void ref_conv_case(Case *c);
void ref_group_norm_case(Case *c);
void ref_add_rows_case(Case *c);
void ref_halves_case(Case *c);

#endif
