#ifndef DG_BASE_FLOAT_ENV_H
#define DG_BASE_FLOAT_ENV_H

/**
 * The calling thread, and those it starts from now on, compute as IEEE 754 has
 * it: to nearest, with subnormal numbers. A shared library that was linked with
 * -ffast-math turns subnormals off in every program that loads it, and bits
 * would depend on which libraries a machine has. To be called once all libraries
 * are there. No errors.
 */
void dg_float_env_standard(void);

#endif
