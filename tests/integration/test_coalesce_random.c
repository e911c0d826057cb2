// Many connections, several threads that send, gather, fill, close and shut down as chance has it, and a reader that is
// sometimes slow: every stream is right at every byte. GENIE_TEST_SEED repeats a run.
#include "server/rpc/coalesce.h"
#include "tests/integration/sockets.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { PLACES = 24, SENDERS = 3, TURNS = 4000, TURN_SENDS = 12 };

// The lock is what core's is: one thread at a time sends to a connection, closes it or replaces it.
static struct place {
        pthread_mutex_t lock;
        struct connection connection;
        bool cut; // closed or shut down: less may come than was sent
} places[PLACES];
static atomic_uint senders_left;
static unsigned seed;
static atomic_uint full; // these two show a run that tests nothing
static unsigned ended;

static unsigned draw(unsigned *state, unsigned below) { return (unsigned)rand_r(state) % below; }

// Mostly small, now and then more than is gathered.
static size_t draw_size(unsigned *state) {
        unsigned kind = draw(state, 100);
        return kind < 80 ? draw(state, 400) : kind < 98 ? draw(state, 20000) : draw(state, 150000);
}

static void act(struct place *place, unsigned *state) {
        struct connection *connection = &place->connection;
        unsigned chance = draw(state, 400);
        if (place->cut)
                return;
        if (chance == 0) {
                close(connection->writer);
                connection->writer = -1;
                place->cut = true;
        } else if (chance == 1) {
                shutdown(connection->writer, SHUT_RDWR);
                place->cut = true;
        } else if (send_next(connection, draw_size(state)) < 0) {
                assert_int_equal(errno, EAGAIN);
                atomic_fetch_add(&full, 1);
        }
}

static void *run_sender(void *number) {
        unsigned state = seed + (unsigned)(uintptr_t)number;
        for (unsigned turn = 0; turn < TURNS; turn++) {
                if (draw(&state, 4))
                        coalesce_begin();
                for (unsigned i = draw(&state, TURN_SENDS); i > 0; i--) {
                        struct place *place = &places[draw(&state, PLACES)];
                        pthread_mutex_lock(&place->lock);
                        act(place, &state);
                        pthread_mutex_unlock(&place->lock);
                }
                coalesce_end();
        }
        atomic_fetch_sub(&senders_left, 1);
        return NULL;
}

// At a stream's end all of it has come, but for what a full kernel left of one that was cut.
static void renew(struct place *place, unsigned *state) {
        struct connection *connection = &place->connection;
        assert_true(place->cut);
        assert_in_range(connection->sent - connection->received, 0, COALESCE_BYTES);
        connection_drop(connection);
        *connection = connection_make(draw(state, SOCKET_KINDS));
        place->cut = false;
        ended++;
}

static void read_place(struct place *place, unsigned *state) {
        pthread_mutex_lock(&place->lock);
        ssize_t got = receive_some(&place->connection, 1 + draw(state, 50000));
        // A TCP socket that is closed at both ends resets what comes behind.
        if (got == 0 || (got < 0 && errno == ECONNRESET))
                renew(place, state);
        else if (got < 0)
                assert_int_equal(errno, EAGAIN);
        pthread_mutex_unlock(&place->lock);
}

static void test_random(void **) {
        pthread_t threads[SENDERS];
        unsigned state = seed;
        atomic_store(&senders_left, SENDERS);
        for (unsigned i = 0; i < PLACES; i++) {
                pthread_mutex_init(&places[i].lock, NULL);
                places[i].connection = connection_make(i % SOCKET_KINDS);
        }
        for (uintptr_t i = 0; i < SENDERS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, run_sender, (void *)(i + 1)), 0);
        while (atomic_load(&senders_left)) {
                struct pollfd wait[PLACES];
                for (unsigned i = 0; i < PLACES; i++)
                        wait[i] = (struct pollfd){.fd = places[i].connection.reader, .events = POLLIN};
                poll(wait, PLACES, 1);
                for (unsigned i = 0; i < PLACES; i++)
                        if (wait[i].revents && draw(&state, 3))
                                read_place(&places[i], &state);
        }
        for (unsigned i = 0; i < SENDERS; i++)
                pthread_join(threads[i], NULL);
        for (unsigned i = 0; i < PLACES; i++) {
                if (places[i].cut)
                        receive_end(&places[i].connection);
                else
                        receive_all(&places[i].connection);
                connection_drop(&places[i].connection);
                pthread_mutex_destroy(&places[i].lock);
        }
        print_message("%u sends met a full socket, %u streams ended\n", atomic_load(&full), ended);
        assert_true(atomic_load(&full) > 0 && ended > 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
        const char *given = getenv("GENIE_TEST_SEED");
        seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
        print_message("GENIE_TEST_SEED=%u\n", seed);
        if (!coalesce_start())
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
