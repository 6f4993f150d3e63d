/* A client that asks one question after another; the program says how one is asked. */
#include "clients.h"

static enum verdict ask(const struct plan *plan, const struct packet *packet);

static void *run_client(void *argument) {
    struct client *me = argument;
    struct plan *plan = me->plan;
    long user = first_user(me);
    int failures = 0;

    pthread_barrier_wait(&plan->start);
    me->began = me->ended = clock_ns();
    while (may_go_on(me, me->done)) {
        uint64_t before = me->ended;
        enum verdict verdict = ask(plan, &plan->packets[user]);
        me->ended = clock_ns();
        me->latency[me->done++] = me->ended - before;
        me->count[verdict]++;
        failures = verdict == NO_ANSWER ? failures + 1 : 0;
        if (failures == PATIENCE) break;
        if (++user == plan->users) user = 0;
    }
    return NULL;
}
