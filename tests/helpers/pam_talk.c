/* A PAM module that says what its arguments tell it to, and writes down what it hears.
 *
 *   answers=FILE   where the answers go, one on a line, in the order of the prompts
 *   user_prompt=T  set PAM_USER_PROMPT
 *   rounds=N       say it all N times; 0 is until the application gives up
 *   as=CODE        return CODE where the application gives up, instead of its own code
 *   STYLE:TEXT     a message, with its pam_message style in decimal; all go in one round
 *   STYLE          the same without a text
 *
 * The declarations are Linux-PAM's, so that no headers need to be installed.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAM_CONV 5
#define PAM_USER_PROMPT 9
#define MOST 64

struct pam_message { int msg_style; const char *msg; };
struct pam_response { char *resp; int resp_retcode; };
struct pam_conv {
    int (*conv)(int, const struct pam_message **, struct pam_response **, void *);
    void *appdata_ptr;
};

int pam_get_item(const void *handle, int item, const void **value);
int pam_set_item(void *handle, int item, const void *value);

static const char *value_of(const char *argument, const char *name)
{
    size_t length = strlen(name);
    return strncmp(argument, name, length) == 0 ? argument + length : NULL;
}

static void write_down(const char *path, int count, struct pam_response *responses)
{
    FILE *file = path ? fopen(path, "a") : NULL;
    for (int i = 0; i < count; i++) {
        const char *answer = responses[i].resp;
        if (file)
            fprintf(file, "%s\n", answer ? answer : "(null)");
        free(responses[i].resp);
    }
    free(responses);
    if (file)
        fclose(file);
}

int pam_sm_authenticate(void *handle, int flags, int argc, const char **argv)
{
    struct pam_message messages[MOST];
    const struct pam_message *pointers[MOST];
    const char *answers = NULL, *value;
    int count = 0, rounds = 1, as = 0;

    (void)flags;
    for (int i = 0; i < argc; i++) {
        if ((value = value_of(argv[i], "answers=")))
            answers = value;
        else if ((value = value_of(argv[i], "user_prompt=")))
            pam_set_item(handle, PAM_USER_PROMPT, value);
        else if ((value = value_of(argv[i], "rounds=")))
            rounds = atoi(value);
        else if ((value = value_of(argv[i], "as=")))
            as = atoi(value);
        else if (count < MOST) {
            messages[count].msg_style = atoi(argv[i]);
            value = strchr(argv[i], ':');
            messages[count].msg = value ? value + 1 : NULL;
            pointers[count] = &messages[count];
            count++;
        }
    }
    for (int round = 0; rounds == 0 || round < rounds; round++) {
        const void *item;
        const struct pam_conv *application;
        struct pam_response *responses = NULL;

        pam_get_item(handle, PAM_CONV, &item);
        application = item;
        int code = application->conv(count, pointers, &responses, application->appdata_ptr);
        if (code)
            return as ? as : code;
        write_down(answers, count, responses);
    }
    return 0;
}

int pam_sm_setcred(void *handle, int flags, int argc, const char **argv)
{
    (void)handle, (void)flags, (void)argc, (void)argv;
    return 0;
}
