// What newer versions of gRPC core changed, or never promised: TLS set-up, core's own log, Abseil's mutexes.
#include "server/log.h"
#include "server/rpc/server_private.h"

#include <grpc/grpc_security.h>
#if __has_include(<grpc/credentials.h>)
#include <grpc/credentials.h>
#endif
#include <grpc/support/log.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RELOAD_SECONDS = 10 };

#ifdef GPR_ASSERT // as long as core has a log of its own that can be redirected
static void core_says(gpr_log_func_args *args) {
        if (args->severity == GPR_LOG_SEVERITY_ERROR)
                log_event("grpc", "message", args->message, NULL);
}
#endif

// Debian builds Abseil with deadlock detection in every mutex, which costs 8 % of the rate of small calls. There is no
// C name for turning it off; where the library has another one, this is NULL and nothing is lost but speed.
extern void set_deadlock_detection(int mode) __asm__(
        "_ZN4absl7debian329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE") __attribute__((weak));

void rpc_init(void) {
        if (set_deadlock_detection)
                set_deadlock_detection(0);
#ifdef GPR_ASSERT
        gpr_set_log_function(core_says);
#endif
        grpc_init();
}

// Core reads the files in the background and says nothing when it cannot: so they are read here once before.
static bool is_pair(const char *certificate, const char *key, char **ret_error) {
        bool good = false;
        X509 *x509 = NULL;
        EVP_PKEY *pkey = NULL;
        FILE *file = fopen(certificate, "re");
        if (!file || !(x509 = PEM_read_X509(file, NULL, NULL, NULL))) {
                if (asprintf(ret_error, "%s: not a certificate in PEM form that can be read", certificate) < 0)
                        *ret_error = NULL;
                goto out;
        }
        fclose(file);
        file = fopen(key, "re");
        if (!file || !(pkey = PEM_read_PrivateKey(file, NULL, NULL, NULL))) {
                if (asprintf(ret_error, "%s: not a private key in PEM form that can be read", key) < 0)
                        *ret_error = NULL;
                goto out;
        }
        good = X509_check_private_key(x509, pkey) == 1;
        if (!good && asprintf(ret_error, "%s is not the private key of %s", key, certificate) < 0)
                *ret_error = NULL;
out:
        if (file)
                fclose(file);
        X509_free(x509);
        EVP_PKEY_free(pkey);
        return good;
}

grpc_server_credentials *tls_credentials(const char *certificate, const char *key, char **ret_error) {
        if (!is_pair(certificate, key, ret_error))
                return NULL;
        grpc_tls_certificate_provider *provider = grpc_tls_certificate_provider_file_watcher_create(
                key, certificate, NULL, RELOAD_SECONDS);
        grpc_tls_credentials_options *options = grpc_tls_credentials_options_create();
        grpc_tls_credentials_options_set_certificate_provider(options, provider);
        grpc_tls_credentials_options_watch_identity_key_cert_pairs(options);
        grpc_tls_credentials_options_set_cert_request_type(options, GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
        grpc_tls_certificate_provider_release(provider);
        return grpc_tls_server_credentials_create(options);
}
