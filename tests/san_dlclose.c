/*
 * Linked into sanitized programs only: libraries that MPI opens stay mapped,
 * so that what they leave behind can be told by name and suppressed.
 */
int dlclose(void *handle);

int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
