/*
 * scorer HOW [N]: a program of rewards[].command, for tests. It scores a picture
 * by the mean of its bytes, and writes of each request id, prompt and where it
 * runs into the file of $SCORER_LOG. HOW is one word, or several by commas:
 *   plain            nothing else
 *   version=TEXT     says so in its first line
 *   slow=S           takes S seconds for a picture
 *   lazy=S           takes S seconds more for its first
 *   die=N once=FILE  exits at its N-th picture, but not if FILE is there, which
 *                    it makes
 *   quit, no-hello, bad-hello, late-hello=S, flood  at its start
 *   deaf             answers before it has read the picture, which it does not
 *   stays            does not end when it should
 *   strict           has a strict score
 *   at=0, at=bad     does what is named besides at each picture, or at those of
 *                    prompts that begin with "bad": exit, kill, hang, child,
 *                    shut, noise, nonsense, other, nan, huge, text, missing,
 *                    stricter, long, twice, zero
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Request {
    long id, height, width;
    char line[1 << 18];
} Request;

static char how[1024];

/* text behind NAME= in how, up to the next comma; NULL: not there */
static const char *value(const char *name)
{
    static char text[256];
    const size_t n = strlen(name);

    for (const char *at = how; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, n) == 0 && strchr(",=", at[n]) != NULL) {
            snprintf(text, sizeof text, "%.*s",
                     at[n] == '=' ? (int)strcspn(at + n + 1, ",") : 0,
                     at + n + (at[n] == '='));
            return text;
        }
    }
    return NULL;
}

static long number(const char *json, const char *key)
{
    const char *at = strstr(json, key);

    return at != NULL ? atol(at + strlen(key)) : -1;
}

static void put(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

/* faster than anybody listens */
static void flood(void)
{
    static char much[1 << 15];

    for (size_t i = 0; i < sizeof much; i++)
        much[i] = i % 4 == 3 ? '\n' : 'x';
    while (write(2, much, sizeof much) > 0)
        continue;
}

static void hello(void)
{
    const char *version = value("version");

    if (value("quit")) {
        fprintf(stderr, "first line\nscorer: no such weights\n");
        exit(7);
    }
    if (value("late-hello"))
        sleep(atoi(value("late-hello")));
    while (value("no-hello"))
        pause();
    if (value("flood"))
        flood();
    if (value("bad-hello"))
        put("Loading weights ...\n");
    else if (version != NULL)
        printf("{\"protocol\": 1, \"version\": \"%s\"}\n", version);
    else
        put("{\"protocol\": 1}\n");
    fflush(stdout);
}

static void note(const Request *r)
{
    const char *path = getenv("SCORER_LOG");
    FILE *f = path != NULL ? fopen(path, "a") : NULL;

    if (f == NULL)
        return;
    fprintf(f, "%s %s/%s %s/%s %s%s pid %ld: %s", getenv("DANCEGRPO_REWARD"),
            getenv("DANCEGRPO_RANK"), getenv("DANCEGRPO_RANKS"),
            getenv("DANCEGRPO_LOCAL_RANK"), getenv("DANCEGRPO_LOCAL_RANKS"),
            getenv("DANCEGRPO_DEVICE"),
            getenv("OMPI_COMM_WORLD_RANK") != NULL ? " MPI's" : "",
            (long)getpid(), r->line);
    fclose(f);
}

static int read_request(Request *r)
{
    if (fgets(r->line, sizeof r->line, stdin) == NULL)
        return 0;
    r->id = number(r->line, "\"id\": ");
    r->height = number(r->line, "\"height\": ");
    r->width = number(r->line, "\"width\": ");
    return 1;
}

/* its mean byte, of 255 */
static double read_picture(const Request *r)
{
    const long bytes = 3 * r->height * r->width;
    double sum = 0;

    for (long i = 0; i < bytes; i++) {
        const int c = getchar();

        if (c == EOF)
            exit(9);
        sum += c;
    }
    return sum / (255.0 * (double)bytes);
}

/* A fault. 1: nothing is answered */
static int misbehave(const Request *r)
{
    if (value("exit")) {
        fprintf(stderr, "Traceback:\nValueError: picture %ld\n", r->id);
        exit(3);
    }
    if (value("kill")) {
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's to tell of */
        raise(SIGSEGV);
    }
    while (value("hang"))
        pause();
    if (value("child") && fork() == 0) { /* it has our standard output */
        sleep(600);
        exit(0);
    }
    if (value("child"))
        exit(4);
    if (value("noise"))
        for (int i = 0; i < 6000; i++)
            fprintf(stderr, "line %d of much that nobody reads\r%d\n", i, i);
    if (value("shut")) {
        fclose(stdout);
        pause();
    }
    if (value("nonsense"))
        put("\033[1mepoch 3: 0.7 of \"all\"\033[0m, and a lot of other things "
            "that are said in so many words\n");
    else if (value("other"))
        printf("{\"id\": %ld, \"score\": 0.5}\n", r->id + 1);
    else if (value("nan"))
        printf("{\"id\": %ld, \"score\": NaN}\n", r->id);
    else if (value("huge"))
        printf("{\"id\": %ld, \"score\": 1e300}\n", r->id);
    else if (value("text"))
        printf("{\"id\": %ld, \"score\": \"0.5\"}\n", r->id);
    else if (value("missing"))
        printf("{\"id\": %ld, \"missing\": \"no \\u001bface\\nat\\tall\"}\n",
               r->id);
    else if (value("zero"))
        printf("{\"id\": %ld, \"score\": 1}%c nan\n", r->id, 0);
    else if (value("stricter"))
        printf("{\"id\": %ld, \"score\": 0.5, \"strict\": 2}\n", r->id);
    else if (value("long"))
        for (int i = 0; i < 9000; i++)
            putchar(' ');
    fflush(stdout);
    return !value("twice") && !value("noise");
}

static void answer(const Request *r, double score)
{
    static int answered;
    const char *nap = value("slow");

    if (nap != NULL)
        usleep((useconds_t)(1e6 * atof(nap)));
    nap = value("lazy");
    if (nap != NULL && !answered)
        usleep((useconds_t)(1e6 * atof(nap)));
    answered = 1;
    printf("{\"id\": %ld, \"score\": %.17g%s}\n", r->id, score,
           value("strict") ? score > 0.5 ? ", \"strict\": 1" : ", \"strict\": 0"
                           : "");
    if (value("twice"))
        printf("{\"id\": %ld, \"score\": 0}\n", r->id);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static Request r;
    long n = 0;

    snprintf(how, sizeof how, "%s", argc > 1 ? argv[1] : "plain");
    hello();
    while (read_request(&r)) {
        const char *at = value("at");
        const int now =
            at != NULL && (strcmp(at, "0") == 0 ||
                           strstr(r.line, "\"prompt\": \"bad") != NULL);
        const long die = value("die") != NULL ? atol(value("die")) : 0;
        double score;

        n++;
        if (n == die && open(value("once"), O_CREAT | O_EXCL, 0644) >= 0) {
            fprintf(stderr, "CUDA out of memory\n");
            exit(5);
        }
        note(&r);
        if (value("deaf")) { /* answers, and does not read pictures */
            printf("{\"id\": %ld, \"score\": 0.5}\n", r.id);
            fflush(stdout);
            pause();
        }
        score = read_picture(&r);
        if (now && misbehave(&r))
            continue;
        answer(&r, score);
    }
    while (value("stays"))
        pause();
    return 0;
}
