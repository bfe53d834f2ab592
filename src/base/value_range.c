#include "base/value_range.h"

#include <inttypes.h>
#include <math.h>

void dg_value_range_add(ValueRange *r, double x)
{
    if (!isfinite(x)) {
        r->not_finite++;
        return;
    }
    r->least = r->finite && r->least < x ? r->least : x;
    r->greatest = r->finite && r->greatest > x ? r->greatest : x;
    r->sum += x;
    r->finite++;
}

void dg_value_range_print(const ValueRange *r, FILE *out)
{
    if (r->finite > 0)
        fprintf(out, "    least %.6g, greatest %.6g, mean %.6g", r->least,
                r->greatest, r->sum / (double)r->finite);
    else
        fprintf(out, "    no finite values");
    if (r->not_finite > 0)
        fprintf(out, ", %" PRId64 " not finite", r->not_finite);
    fputc('\n', out);
}
