// SSH signatures of commits, by ssh-keygen as a child.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { SSH_SIGNATURE_MAX = 16 << 10 };

// Signs for namespace `git` with a private key's file. The child gets no terminal, no environment but PATH and HOME,
// and `limit_ms`; then it is killed. False with a text in ret_error.
bool ssh_signature_make(const char *key_file, const void *data, size_t size, int limit_ms,
        char ret_signature[SSH_SIGNATURE_MAX], char *ret_error, size_t error_capacity)
        __attribute__((warn_unused_result));
