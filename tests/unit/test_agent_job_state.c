// The states of an attempt: the drawing is that of the table, edge for edge.
#include "tests/unit/cmocka_all.h"
#include "tools/genie-agent/job_state.h"

#include <stdio.h>
#include <string.h>

static enum job_state state_of(const char *name) {
        enum job_state state = 0;
        while (state < STATES && strcmp(job_state_name(state), name) != 0)
                state++;
        if (state == STATES)
                fail_msg("there is no state %s", name);
        return state;
}

static void test_the_drawing(void **) {
        bool drawn[STATES][STATES] = {0};
        char line[200], from[50], to[50];
        FILE *file = fopen(SOURCE_DIR "/tools/genie-agent/job_state.dot", "re");
        assert_non_null(file);
        while (fgets(line, sizeof line, file))
                if (sscanf(line, " %49s -> %49s", from, to) == 2)
                        drawn[state_of(from)][state_of(to)] = true;
        fclose(file);
        for (enum job_state i = 0; i < STATES; i++)
                for (enum job_state j = 0; j < STATES; j++)
                        if (drawn[i][j] != job_state_may_follow(i, j))
                                fail_msg("%s -> %s: %s only", job_state_name(i), job_state_name(j),
                                        drawn[i][j] ? "drawn" : "in the table");
}

// Nothing comes back from the dead, and everything can be forgotten.
static void test_ends(void **) {
        for (enum job_state state = 0; state < STATES; state++) {
                assert_false(job_state_may_follow(STATE_FORGOTTEN, state));
                assert_false(job_state_may_follow(state, state));
                assert_false(job_state_may_follow(state, STATE_OFFERED));
        }
        assert_false(job_state_may_follow(STATE_LOST, STATE_ENDED));        // no result of a lost attempt
        assert_false(job_state_may_follow(STATE_RUNNING, STATE_FORGOTTEN)); // not before its thread has ended
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_drawing),
                cmocka_unit_test(test_ends),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
