/* Checks that a file is N lines of one JSON object each, and that "iteration"
 * counts 1..N: json_lines FILE N */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

static int check(const char *line, long number)
{
    const char *end;
    cJSON *object = cJSON_ParseWithOpts(line, &end, 0);
    const cJSON *i = cJSON_GetObjectItemCaseSensitive(object, "iteration");
    const int ok = cJSON_IsObject(object) && *end == '\n' &&
                   cJSON_IsNumber(i) && (long)i->valuedouble == number;

    cJSON_Delete(object);
    return ok;
}

int main(int argc, char **argv)
{
    FILE *f = argc == 3 ? fopen(argv[1], "r") : NULL;
    char *line = NULL;
    size_t room = 0;
    long count = 0;
    int ok = 1;

    if (f == NULL) {
        fprintf(stderr, "usage: json_lines FILE N\n");
        return 2;
    }
    while (ok && getline(&line, &room, f) > 0)
        ok = check(line, ++count);
    if (!ok)
        fprintf(stderr, "%s: line %ld: %s", argv[1], count, line);
    free(line);
    fclose(f);
    if (ok && count != strtol(argv[2], NULL, 10))
        fprintf(stderr, "%s: %ld lines, wanted %s\n", argv[1], count, argv[2]);
    return !ok || count != strtol(argv[2], NULL, 10);
}
