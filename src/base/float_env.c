#include "base/float_env.h"

#include <fenv.h>

void dg_float_env_standard(void)
{
    fesetenv(FE_DFL_ENV);
}
