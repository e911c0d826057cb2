#include "tools/genie-agent/pull_request/secret.h"

#include "auth/small_file.h"

#include <stdlib.h>
#include <string.h>

static bool take(const char *text, char *ret_token) {
        text += strspn(text, " \t\r\n");
        size_t size = strlen(text);
        while (size > 0 && strchr(" \t\r\n", text[size - 1]))
                size--;
        if (size == 0 || size > SECRET_MAX)
                return false;
        for (size_t i = 0; i < size; i++)
                if (text[i] <= ' ' || text[i] == 0x7f)
                        return false;
        memcpy(ret_token, text, size);
        ret_token[size] = '\0';
        return true;
}

static bool missing(const char *what, const char *name, const char *why, struct job_result *result) {
        job_fail(result, /* permanent= */ true, "TOKEN_MISSING", "the token for the git host: %s%s%s", what, name, why);
        return false;
}

bool secret_read(const struct git_host *host, char ret_token[SECRET_MAX + 1], struct job_result *result) {
        ret_token[0] = '\0';
        if (host->token_file) {
                struct stat status;
                size_t size;
                char *error = NULL;
                char *content = small_file_read(host->token_file, &status, &size, &error);
                if (!content) {
                        missing("", error ? error : "out of memory", "", result);
                        free(error);
                        return false;
                }
                bool good = take(content, ret_token) || missing("", host->token_file, " holds none", result);
                small_file_free(content, size);
                return good;
        }
        const char *value = host->token_variable ? getenv(host->token_variable) : NULL;
        if (value && take(value, ret_token))
                return true;
        return missing("the variable ", host->token_variable ? host->token_variable : "", " holds none", result);
}
