/* A PAM module that returns the codes given as arguments: for auth, and for account. */

#include <stdlib.h>

int pam_sm_authenticate(void *handle, int flags, int argc, const char **argv)
{
    (void)handle, (void)flags;
    return argc > 0 ? atoi(argv[0]) : 0;
}

int pam_sm_acct_mgmt(void *handle, int flags, int argc, const char **argv)
{
    (void)handle, (void)flags;
    return argc > 1 ? atoi(argv[1]) : 0;
}

int pam_sm_setcred(void *handle, int flags, int argc, const char **argv)
{
    (void)handle, (void)flags, (void)argc, (void)argv;
    return 0;
}
