/*
 * Whether what a trajectory file says agrees with itself, and with the line of
 * metrics of its iteration:
 *   trajectory_facts FILE METRICS PROMPTS WEIGHT...
 * PROMPTS is the prompts file, WEIGHT those of the rewards. Of flows whose
 * rewards are summed, whose log-densities are Gaussian, and whose decoded latent
 * is not the last one, as it is without a WEIGHT: then nothing is said of rewards
 * and densities. What is recomputed is so from the file alone, by the equations
 * that it carries.
 */
#include <cjson/cJSON.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIMS = 3 };

static hid_t file;
static int bad;
static void *held[256]; /* until the end */
static int num_held;

static void *hold(void *p)
{
    if (num_held == sizeof held / sizeof *held || p == NULL)
        exit(2);
    return held[num_held++] = p;
}

static void must(int holds, const char *what, long long at)
{
    if (!holds && bad++ < 10)
        printf("trajectory_facts: %s, at %lld\n", what, at);
}

static int close_to(double a, double b)
{
    return fabs(a - b) <= 1e-5 * (1 + fabs(b));
}

/* A dataset as doubles, its extents in dims. */
static double *read_all(const char *name, hsize_t dims[DIMS])
{
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t space = H5Dget_space(set);
    const hssize_t num = H5Sget_simple_extent_npoints(space);
    double *v = hold(calloc((size_t)num + 1, sizeof *v));

    memset(dims, 0, DIMS * sizeof *dims);
    if (set < 0 || H5Sget_simple_extent_ndims(space) > DIMS ||
        H5Sget_simple_extent_dims(space, dims, NULL) < 0 ||
        H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) < 0) {
        fprintf(stderr, "trajectory_facts: %s cannot be read\n", name);
        exit(2);
    }
    return v;
}

static double *read_of(const char *name)
{
    hsize_t dims[DIMS];

    return read_all(name, dims);
}

/* An attribute of the root. */
static long long note_of(const char *name)
{
    const hid_t a = H5Aopen(file, name, H5P_DEFAULT);
    long long v = -1;

    H5Aread(a, H5T_NATIVE_LLONG, &v);
    return v;
}

/* Line number at of a file, from 0; or with key that whose "iteration" it is. */
static cJSON *line_of(const char *path, long long at, const char *key)
{
    FILE *f = fopen(path, "r");
    cJSON *line = NULL;
    char *text = NULL;
    size_t room = 0;

    for (long long i = 0; f != NULL && getline(&text, &room, f) > 0; i++) {
        cJSON *o = cJSON_Parse(text);

        if (key == NULL ? i == at
                        : cJSON_GetNumberValue(cJSON_GetObjectItem(o, key)) ==
                              (double)at)
            line = hold(o);
        else
            cJSON_Delete(o);
    }
    free(text);
    if (f != NULL)
        fclose(f);
    return line;
}

static double metric(const cJSON *line, const char *key)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItem(line, key));
}

/* Noise levels fall to nothing; what was decoded is, or is not, the last. */
static void check_samples(int is_last)
{
    hsize_t of[DIMS], levels[DIMS];
    const double *z = read_all("latents", of), *end = read_of("decoded");
    const double *sigma = read_all("sigma", levels), *time = read_of("time");
    const hsize_t T = of[1] - 1, D = of[2];
    long long equal = 0;

    must(levels[0] == T + 1 && sigma[0] == 1 && sigma[T] == 0, "sigma's ends",
         0);
    for (hsize_t i = 0; i < T; i++) {
        must(sigma[i + 1] < sigma[i], "sigma falls", (long long)i);
        must(close_to(time[i], sigma[i]) || close_to(time[i], 1000 * sigma[i]),
             "time is that of sigma", (long long)i);
    }
    for (hsize_t i = 0; i < of[0] * D; i++) {
        must(isfinite(end[i]), "decoded is finite", (long long)i);
        equal += end[i] == z[(i / D * (T + 1) + T) * D + i % D];
    }
    must(is_last == (equal == (long long)(of[0] * D)), "decoded is the last",
         equal);
}

/* The noise of a step is normal, by its density; of the last step the density
 * follows from what was decoded, which says what the network predicted. */
static void check_densities(void)
{
    hsize_t of[DIMS];
    const double *z = read_all("latents", of), *end = read_of("decoded");
    const double *sigma = read_of("sigma"), *std = read_of("std");
    const double *mz = read_of("mean_z"), *mu = read_of("mean_u");
    const double *given = read_of("log_prob");
    const hsize_t T = of[1] - 1, D = of[2];
    const double spread = 6 * sqrt(2 / (double)D), half_log = 0.918938533204673;

    for (hsize_t i = 0; i < of[0] * T; i++) {
        const double s = std[i % T];
        const double squares = -2 * (given[i] + log(s) + half_log);

        must(s > 0 ? fabs(squares - 1) < spread : given[i] == 0,
             "a step's noise is normal", (long long)i);
    }
    for (hsize_t i = 0; i < of[0] && std[T - 1] > 0; i++) {
        const double *x = z + (i * (T + 1) + T - 1) * D, s = std[T - 1];
        double sum = 0;

        for (hsize_t e = 0; e < D; e++) {
            const double u = (x[e] - end[i * D + e]) / sigma[T - 1];
            const double d = x[D + e] - mz[T - 1] * x[e] - mu[T - 1] * u;

            sum += d * d;
        }
        must(fabs(given[i * T + T - 1] + sum / (double)D / (2 * s * s) +
                  log(s) + half_log) < 1e-4,
             "the last step's density", (long long)i);
    }
}

/* Half the log of the signal-to-noise ratio. */
static double lambda(double sigma)
{
    return log((1 - sigma) / sigma);
}

/* Steps of second order are the published ones, by the levels alone. */
static void check_second_order(void)
{
    hsize_t of[DIMS];
    const double *mx = read_all("mean_x0", of), *sigma = read_of("sigma");
    const double *mz = read_of("mean_z"), *mu = read_of("mean_u");
    const double *std = read_of("std");
    const hsize_t end =
        (hsize_t)(note_of("window_start") + note_of("window_size"));
    int num = 0;

    for (hsize_t i = 0; i < of[0]; i++) {
        double q, c;

        if (mx[i] == 0)
            continue;
        must(i > end && i + 1 < of[0] && std[i] == 0,
             "a step of second order is one behind the window", (long long)i);
        num++;
        q = sigma[i + 1] / sigma[i];
        c = (lambda(sigma[i + 1]) - lambda(sigma[i])) / 2 /
            (lambda(sigma[i]) - lambda(sigma[i - 1]));
        must(close_to(mz[i], 1 + (1 - q) * c) && close_to(mx[i], (q - 1) * c) &&
                 close_to(mu[i], (sigma[i + 1] - sigma[i]) * (1 + c)),
             "a step of second order", (long long)i);
    }
    if (num > 0)
        printf("%d steps of second order\n", num);
}

/* Advantages of a group's members for one of K rewards. */
static void check_group(const double *reward, const double *missing,
                        const double *advantage, hsize_t G, hsize_t K)
{
    double mean = 0, squares = 0, n = 0, std;

    for (hsize_t i = 0; i < G; i++) {
        n += missing[i * K] == 0;
        mean += missing[i * K] == 0 ? reward[i * K] : 0;
    }
    mean /= n;
    for (hsize_t i = 0; i < G; i++)
        if (missing[i * K] == 0)
            squares += (reward[i * K] - mean) * (reward[i * K] - mean);
    std = n > 1 ? sqrt(squares / (n - 1)) : 0;
    for (hsize_t i = 0; i < G; i++)
        must(missing[i * K] != 0 || n < 2 || std < 1e-6
                 ? advantage[i * K] == 0
                 : close_to(advantage[i * K],
                            (reward[i * K] - mean) / (std + 1e-8)),
             "an advantage in its group", (long long)i);
}

static void check_advantages(char *const *weights)
{
    hsize_t of[DIMS];
    const double *reward = read_all("reward", of),
                 *missing = read_of("missing");
    const double *advantage = read_of("advantage");
    const double *weight = read_of("reward_weight");
    const hsize_t G = (hsize_t)note_of("num_generations"), K = of[1];

    for (hsize_t k = 0; k < K; k++) {
        must(weight[k] == atof(weights[k]), "a weight", (long long)k);
        for (hsize_t i = 0; i < of[0]; i += G)
            check_group(reward + i * K + k, missing + i * K + k,
                        advantage + i * K + k, G, K);
    }
}

static void check_prompts(const char *path)
{
    const hid_t set = H5Dopen2(file, "prompt", H5P_DEFAULT);
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    const size_t size = H5Tget_size(type);
    const hssize_t num = H5Sget_simple_extent_npoints(space);
    char *text = hold(calloc((size_t)num + 1, size));
    const double *at = read_of("prompt_index");

    H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text);
    for (hssize_t i = 0; i < num; i++) {
        const char *want = cJSON_GetStringValue(cJSON_GetObjectItem(
            line_of(path, (long long)at[i], NULL), "prompt"));
        const char *got = H5Tis_variable_str(type) > 0
                              ? *(char **)(void *)(text + (size_t)i * size)
                              : text + (size_t)i * size;

        must(want != NULL && strncmp(got, want, strlen(want)) == 0,
             "a prompt is that of its index", i);
    }
}

/* Mean and spread of the valid members of all groups, and of strict scores. */
static void check_rewards(const cJSON *line, char *const *weights, int K)
{
    hsize_t of[DIMS], P[DIMS];
    const double *reward = read_all("reward", of), *strict = read_of("strict");
    const double *missing = read_of("missing"), *adv = read_of("advantage");
    const double *total = read_of("total_advantage");
    double mean = 0, spread = 0, strict_sum = 0;
    long long groups = 0, num_strict = 0, G;

    read_all("prompt_index", P);
    G = (long long)(of[0] / P[0]);
    must((int)of[1] == K, "rewards", (long long)of[1]);
    for (long long g = 0; g < (long long)P[0]; g++) {
        double sum = 0, squares = 0;
        long long n = 0;

        for (long long i = g * G; i < (g + 1) * G; i++) {
            double v = 0, weighted = 0;

            for (int k = 0; k < K; k++) {
                const long long at = i * K + k;

                must(isnan(reward[at]) == (missing[at] != 0),
                     "a missing reward is NaN", at);
                must(isnan(strict[at]) || strict[at] == 0 || strict[at] == 1,
                     "strict is 0 or 1", at);
                v += atof(weights[k]) * reward[at];
                weighted += atof(weights[k]) * adv[at];
                strict_sum += isnan(strict[at]) ? 0 : strict[at];
                num_strict += !isnan(strict[at]);
            }
            must(close_to(total[i], weighted), "a total advantage", i);
            sum += isnan(v) ? 0 : v;
            squares += isnan(v) ? 0 : v * v;
            n += !isnan(v);
        }
        if (n == 0)
            continue;
        mean += sum / (double)n;
        spread +=
            n > 1 ? sqrt((squares - sum * sum / (double)n) / (double)(n - 1))
                  : 0;
        groups++;
    }
    must(close_to(metric(line, "reward_mean"), mean / (double)groups),
         "reward_mean", groups);
    must(close_to(metric(line, "reward_std"), spread / (double)groups),
         "reward_std", groups);
    must(close_to(metric(line, "strict_mean"), strict_sum / (double)num_strict),
         "strict_mean", num_strict);
}

/* Terms of the objective: which, and what became of them. */
static void check_terms(const cJSON *line)
{
    hsize_t of[DIMS], steps[DIMS];
    const double *step = read_all("timestep", of), *kept = read_of("kept");
    const double *old = read_all("log_prob", steps);
    const double *now = read_of("replayed_log_prob"), *ratio = read_of("ratio");
    const double *clipped = read_of("clipped"), *loss = read_of("loss");
    const double *update = read_of("update");
    const double first = (double)note_of("window_start");
    const double end = first + (double)note_of("window_size");
    double clips = 0, losses = 0, updates = 0;

    must(first >= 0 && end > first && end <= (double)steps[1], "the window",
         (long long)first);
    for (hsize_t k = 0; k < of[0]; k++) {
        must(kept[k] >= 0 && kept[k] < (double)steps[0] &&
                 (k == 0 || kept[k] > kept[k - 1]),
             "kept items", (long long)k);
        updates = fmax(updates, update[k] + 1);
        for (hsize_t j = 0; j < of[1]; j++) {
            const hsize_t at = k * of[1] + j;
            const double before =
                old[(hsize_t)kept[k] * steps[1] + (hsize_t)step[at]];

            must(step[at] >= first && step[at] < end &&
                     (j == 0 || step[at] != step[at - 1]),
                 "steps", (long long)at);
            must(update[k] > 0 || (now[at] == before && ratio[at] == 1),
                 "the first update's terms are the rollout's", (long long)at);
            must(fabs(ratio[at] - exp(now[at] - before)) < 1e-5,
                 "a ratio is that of its densities", (long long)at);
            must(clipped[at] == 0 || ratio[at] != 1, "clipped", (long long)at);
            clips += clipped[at];
            losses += loss[at];
        }
    }
    must(close_to(metric(line, "clip_fraction"),
                  clips / (double)(of[0] * of[1])),
         "clip_fraction", (long long)clips);
    must(close_to(metric(line, "loss"), losses / updates), "loss",
         (long long)updates);
}

int main(int argc, char **argv)
{
    const cJSON *line;

    if (argc < 4) {
        fprintf(stderr,
                "usage: trajectory_facts FILE METRICS PROMPTS WEIGHT...\n");
        return 2;
    }
    file = H5Fopen(argv[1], H5F_ACC_RDONLY, H5P_DEFAULT);
    line = line_of(argv[2], note_of("iteration"), "iteration");
    must(line != NULL, "no line of its iteration", note_of("iteration"));
    check_samples(argc == 4);
    check_second_order();
    check_prompts(argv[3]);
    if (argc > 4) {
        check_rewards(line, argv + 4, argc - 4);
        check_advantages(argv + 4);
        check_densities();
    }
    check_terms(line);
    H5Fclose(file);
    return bad > 0;
}
