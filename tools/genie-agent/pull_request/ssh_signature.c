#include "tools/genie-agent/pull_request/ssh_signature.h"

#include "tools/genie-agent/pull_request/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// What is to be signed, as a file without a name: the child reads it as it likes, no pipe can fill.
static int input_make(const void *data, size_t size) {
        int file = memfd_create("commit", MFD_CLOEXEC);
        if (file < 0)
                return -1;
        if (write(file, data, size) == (ssize_t)size && lseek(file, 0, SEEK_SET) == 0)
                return file;
        close(file);
        return -1;
}

static int child_start(const char *key_file, int input, int output, pid_t *ret_child) {
        static char program[] = "ssh-keygen", sign[] = "-Y", what[] = "sign", name[] = "-n", space[] = "git",
                    with[] = "-f";
        static char path[] = "PATH=/usr/local/bin:/usr/bin:/bin", home[] = "HOME=/",
                    ask[] = "SSH_ASKPASS_REQUIRE=never";
        char *key = strdup(key_file);
        char *arguments[] = {program, sign, what, name, space, with, key, NULL};
        char *environment[] = {path, home, ask, NULL};
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        if (!key || posix_spawn_file_actions_init(&actions) != 0)
                return free(key), ENOMEM;
        int status = posix_spawnattr_init(&attributes);
        if (status == 0) {
                // A session of its own: without a terminal it cannot ask for a passphrase.
                status = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
                if (status == 0 && (status = posix_spawn_file_actions_adddup2(&actions, input, 0)) == 0 &&
                        (status = posix_spawn_file_actions_adddup2(&actions, output, 1)) == 0 &&
                        (status = posix_spawn_file_actions_adddup2(&actions, output, 2)) == 0 &&
                        // curl's connections are open to every child.
                        (status = posix_spawn_file_actions_addclosefrom_np(&actions, 3)) == 0)
                        status = posix_spawnp(ret_child, program, &actions, &attributes, arguments, environment);
                posix_spawnattr_destroy(&attributes);
        }
        posix_spawn_file_actions_destroy(&actions);
        free(key);
        return status;
}

// All that the child says until it ends; false past the limit.
static bool output_read(int output, int64_t end, char *ret_text, size_t capacity) {
        size_t size = 0;
        struct pollfd wait = {.fd = output, .events = POLLIN};
        for (;;) {
                int64_t left = end - now_ms();
                if (left <= 0 || size + 1 == capacity)
                        return false;
                if (poll(&wait, 1, (int)left) <= 0)
                        continue;
                ssize_t got = read(output, ret_text + size, capacity - size - 1);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0) {
                        ret_text[size] = '\0';
                        return got == 0;
                }
                size += (size_t)got;
        }
}

static bool child_end(pid_t child, bool force) {
        int status = -1;
        if (force)
                kill(child, SIGKILL);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
        return !force && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// ssh-keygen may say something before the signature.
static bool signature_take(char *text) {
        char *begin = strstr(text, "-----BEGIN SSH SIGNATURE-----");
        char *end = begin ? strstr(begin, "-----END SSH SIGNATURE-----") : NULL;
        if (!end)
                return false;
        end += strlen("-----END SSH SIGNATURE-----");
        *end = '\0';
        memmove(text, begin, (size_t)(end - begin) + 1);
        return true;
}

bool ssh_signature_make(const char *key_file, const void *data, size_t size, int limit_ms,
        char ret_signature[SSH_SIGNATURE_MAX], char *ret_error, size_t error_capacity) {
        int output[2];
        pid_t child;
        int input = input_make(data, size);
        if (input < 0 || pipe2(output, O_CLOEXEC) != 0) {
                snprintf(ret_error, error_capacity, "%s", strerror(errno));
                if (input >= 0)
                        close(input);
                return false;
        }
        int status = child_start(key_file, input, output[1], &child);
        close(input);
        close(output[1]);
        if (status != 0) {
                snprintf(ret_error, error_capacity, "ssh-keygen: %s", strerror(status));
                close(output[0]);
                return false;
        }
        ret_signature[0] = '\0';
        bool read = output_read(output[0], now_ms() + limit_ms, ret_signature, SSH_SIGNATURE_MAX);
        close(output[0]);
        bool good = child_end(child, /* force= */ !read);
        if (good && signature_take(ret_signature))
                return true;
        if (read)
                text_show(ret_signature, strlen(ret_signature), NULL, ret_error, error_capacity);
        else
                snprintf(ret_error, error_capacity, "ssh-keygen took too long");
        return false;
}
