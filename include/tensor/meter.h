#ifndef DG_TENSOR_METER_H
#define DG_TENSOR_METER_H
/*
 * A kernel table around another one that notes every call: time by kind,
 * FLOPs and the sizes of all matrix products. For measurements; the numbers
 * computed are the inner table's.
 */
#include "tensor/backend.h"

#include <stdint.h>

typedef enum MeterKind {
    DG_METER_LINEAR,      /* products of linear layers with bias, act */
    DG_METER_INPUT_GRAD,  /* plain products: gradients of their inputs */
    DG_METER_WEIGHT_GRAD, /* gradients of weights and biases */
    DG_METER_ATTENTION,
    DG_METER_ATTENTION_GRAD,
    DG_METER_CONV,
    DG_METER_CONV_INPUT_GRAD,
    DG_METER_CONV_WEIGHT_GRAD,
    DG_METER_NORM, /* forward and backward, as all below */
    DG_METER_QK,
    DG_METER_GATE,
    DG_METER_ACT,
    DG_METER_COPY,
    DG_METER_EMBED,
    DG_METER_OTHER, /* sums, scale, fill, search for NaN */
    DG_METER_KINDS,
    DG_METER_PRODUCT_KINDS = DG_METER_NORM /* those with products */
} MeterKind;

enum { DG_METER_PRODUCTS = 256 };

/* c[m,n] = a[m,k] b[k,n], asked for 'calls' times */
typedef struct MeterProduct {
    int64_t m, n, k, calls;
    MeterKind kind; /* of the call that asked: one with products */
} MeterProduct;

typedef struct Meter {
    Backend table; /* to be used */
    const Backend *inner;
    int on; /* 0: calls go through unnoted */
    int64_t calls[DG_METER_KINDS];
    uint64_t flops[DG_METER_KINDS];
    double seconds[DG_METER_KINDS]; /* CPU time of the thread */
    MeterProduct products[DG_METER_PRODUCTS];
    int num_products;
    int64_t dropped; /* calls of products beyond DG_METER_PRODUCTS sizes */
} Meter;

/**
 * Makes m the calling thread's meter and turns it on; m->table may then be
 * used by this thread alone, until another meter is made. inner is borrowed.
 *
 * Products are counted as the ops state them: y = x w^T is [rows, out, in];
 * dw = dy^T x is one [out, in, rows] per sample, or one over all samples
 * where a sample has a single row; attention has two products per sample and
 * head, its backward five (the scores once more); a convolution is one product
 * per sample over the windows of its pixels.
 */
void dg_meter_init(Meter *m, const Backend *inner);

/** Forgets what was noted. */
void dg_meter_clear(Meter *m);

/** Sums over the kinds. */
uint64_t dg_meter_flops(const Meter *m);
double dg_meter_seconds(const Meter *m);
/** 2 m n k over all products: the same number as dg_meter_flops(). */
uint64_t dg_meter_product_flops(const Meter *m);

/** "linear", "input grad", ... */
const char *dg_meter_name(MeterKind kind);

#endif
