#include "grpo/diversity.h"

#include <math.h>

/* Where a cell's pixels begin, and the next one's, on a side of n pixels; at
 * least one is between. */
static int64_t edge(int64_t cell, int64_t n)
{
    return cell * n / DG_DIVERSITY_SIDE;
}

static int64_t end(int64_t cell, int64_t n)
{
    const int64_t from = edge(cell, n), to = edge(cell + 1, n);

    return to > from ? to : from + 1;
}

/* Adds a row of pixels to the cells that it runs through. */
static void add_row(double *sums, const float *row, int64_t width)
{
    for (int64_t x = 0; x < DG_DIVERSITY_SIDE; x++)
        for (int64_t i = edge(x, width); i < end(x, width); i++)
            for (int k = 0; k < 3; k++)
                sums[3 * x + k] += (double)row[3 * i + k];
}

int dg_diversity_cells(int32_t *cells, const float *rgb, int64_t height,
                       int64_t width)
{
    for (int64_t y = 0; y < DG_DIVERSITY_SIDE; y++) {
        double sums[3 * DG_DIVERSITY_SIDE] = { 0 };
        const int64_t rows = end(y, height) - edge(y, height);

        for (int64_t i = 0; i < rows; i++)
            add_row(sums, rgb + 3 * width * (edge(y, height) + i), width);
        for (int64_t x = 0; x < DG_DIVERSITY_SIDE; x++) {
            const int64_t pixels = rows * (end(x, width) - edge(x, width));

            for (int k = 0; k < 3; k++) {
                const double mean = sums[3 * x + k] / (double)pixels;

                if (!(mean >= 0 && mean <= 1)) /* NaN is neither */
                    return 0;
                *cells++ = (int32_t)floor(mean * DG_DIVERSITY_LEVELS + 0.5);
            }
        }
    }
    return 1;
}

void dg_diversity_add(GroupPictures *group, const int32_t *cells)
{
    group->num++;
    for (int m = 0; m < DG_DIVERSITY_CELLS; m++) {
        group->sum[m] += cells[m];
        group->squares += (int64_t)cells[m] * cells[m];
    }
}

/* n sum_i x_i^2 - (sum_i x_i)^2 = n (n - 1) variance, over all cells: each of
 * both is at most (MOST LEVELS)^2 CELLS < 2^60. */
double dg_diversity_of(const GroupPictures *group)
{
    const double n = (double)group->num, white = DG_DIVERSITY_LEVELS;
    int64_t sum = group->num * group->squares;

    if (group->num < 2)
        return NAN;
    for (int m = 0; m < DG_DIVERSITY_CELLS; m++)
        sum -= group->sum[m] * group->sum[m];
    return sqrt((double)sum / (n * (n - 1) * DG_DIVERSITY_CELLS)) / white;
}

double dg_diversity_mean(const GroupPictures *groups, int64_t num)
{
    double sum = 0;
    int64_t measured = 0;

    for (int64_t p = 0; p < num; p++) {
        const double one = dg_diversity_of(&groups[p]);

        if (isnan(one))
            continue;
        sum += one;
        measured++;
    }
    return measured > 0 ? sum / (double)measured : NAN;
}
