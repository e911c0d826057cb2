#include "tools/genie-agent/pull_request/commit.h"

#include "tools/genie-agent/pull_request/ssh_signature.h"
#include "tools/genie-agent/pull_request/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        ENCODED_MAX = 3 * TASK_IDENTITY_MAX,
        TITLE_MAX = 200 * 4,
        MESSAGE_MAX = ENCODED_MAX + TITLE_MAX + 100,
        SIGN_LIMIT_MS = 30 * 1000,
};

#define TRAILER "DevOps-Genie-Task: "

// An identity on one line: control characters, spaces at an end and `%` are percent-encoded.
static bool trailer_make(const char *identity, char *ret_trailer, size_t capacity) {
        size_t length = strlen(TRAILER), size = strlen(identity);
        if (capacity < length + 3 * size + 1)
                return false;
        memcpy(ret_trailer, TRAILER, length + 1);
        for (size_t i = 0; i < size; i++) {
                unsigned char c = (unsigned char)identity[i];
                bool plain = c > ' ' && c != 0x7f && c != '%';
                if (plain || (c == ' ' && i > 0 && i + 1 < size))
                        ret_trailer[length++] = identity[i];
                else
                        length += (size_t)snprintf(ret_trailer + length, 4, "%%%02X", c);
        }
        ret_trailer[length] = '\0';
        return true;
}

static bool message_make(const char *title, const char *identity, char *ret_message, size_t capacity) {
        char line[TITLE_MAX + 1], trailer[ENCODED_MAX + sizeof TRAILER];
        text_show(title, strlen(title), NULL, line, sizeof line);
        return trailer_make(identity, trailer, sizeof trailer) &&
               text_format(ret_message, capacity, "%s\n\n%s\n", line, trailer);
}

bool commit_is_ours(git_repository *repository, const git_oid *id, const char *identity) {
        char trailer[ENCODED_MAX + sizeof TRAILER];
        git_commit *commit = NULL;
        if (!trailer_make(identity, trailer, sizeof trailer) || git_commit_lookup(&commit, repository, id) != 0)
                return false;
        const char *message = git_commit_message_raw(commit);
        size_t size = strlen(message), length = strlen(trailer);
        while (size > 0 && message[size - 1] == '\n')
                size--;
        bool ours = size > length && message[size - length - 1] == '\n' &&
                    memcmp(message + size - length, trailer, length) == 0;
        git_commit_free(commit);
        return ours;
}

static bool sign(const struct pull_request_settings *settings, git_repository *repository, const git_buf *content,
        git_oid *ret_commit, struct job_result *result) {
        char error[TEXT_SHORT];
        char *signature = malloc(SSH_SIGNATURE_MAX);
        if (!signature) {
                job_fail(result, /* permanent= */ false, "OUT_OF_MEMORY", "out of memory");
                return false;
        }
        bool made = ssh_signature_make(
                settings->signing_key_file, content->ptr, content->size, SIGN_LIMIT_MS, signature, error, sizeof error);
        int status = made ? git_commit_create_with_signature(ret_commit, repository, content->ptr, signature, NULL) : 0;
        free(signature);
        if (!made)
                job_fail(result, /* permanent= */ true, "SIGNING_FAILED", "the commit cannot be signed: %s", error);
        else if (status != 0)
                job_fail(result, /* permanent= */ false, "CACHE_FAILED", "the commit cannot be stored");
        return made && status == 0;
}

static int create(const struct pull_request_settings *settings, git_repository *repository, const git_oid *parent_id,
        const git_oid *tree_id, const char *message, int64_t time, git_buf *ret_content) {
        git_signature *person = NULL;
        git_commit *parent = NULL;
        git_tree *tree = NULL;
        int status = git_signature_new(&person, settings->author_name, settings->author_email, time, /* offset= */ 0);
        if (status == 0)
                status = git_commit_lookup(&parent, repository, parent_id);
        if (status == 0)
                status = git_tree_lookup(&tree, repository, tree_id);
        const git_commit *parents[] = {parent};
        if (status == 0)
                status = git_commit_create_buffer(
                        ret_content, repository, person, person, NULL, message, tree, 1, parents);
        git_tree_free(tree);
        git_commit_free(parent);
        git_signature_free(person);
        return status;
}

static int store(git_repository *repository, const git_buf *content, git_oid *ret_commit) {
        git_odb *objects = NULL;
        int status = git_repository_odb(&objects, repository);
        if (status == 0)
                status = git_odb_write(ret_commit, objects, content->ptr, content->size, GIT_OBJECT_COMMIT);
        git_odb_free(objects);
        return status;
}

bool commit_make(struct http *http, const struct pull_request_settings *settings, git_repository *repository,
        const char *identity, const git_oid *parent, const git_oid *tree, int64_t time, git_oid *ret_commit,
        struct job_result *result) {
        const struct job *job = http_job(http);
        char message[MESSAGE_MAX];
        git_buf content = {.ptr = NULL};
        if (!message_make(job_payload(job)->pull_request->title, identity, message, sizeof message)) {
                job_fail(result, /* permanent= */ true, "INVALID_PAYLOAD", "title or idempotency key are too long");
                return false;
        }
        bool good = create(settings, repository, parent, tree, message, time, &content) == 0;
        if (good && settings->signing_key_file)
                good = sign(settings, repository, &content, ret_commit, result);
        else if (good)
                good = store(repository, &content, ret_commit) == 0;
        git_buf_dispose(&content);
        if (!good && !result->reason)
                job_fail(result, /* permanent= */ false, "CACHE_FAILED", "the commit cannot be stored");
        return good;
}
