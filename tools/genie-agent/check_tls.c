#include "tools/genie-agent/check_tls.h"

#include "tools/client/client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { TIMEOUT_S = 10 };

static bool __attribute__((format(printf, 2, 3))) wrong(struct tls_finding *finding, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(finding->text, sizeof finding->text, format, arguments);
        va_end(arguments);
        return false;
}

static const char *first_set(const char *const *names) {
        const char *value = NULL;
        for (; *names && !value; names++)
                value = getenv(*names);
        return value;
}

// The proxy that gRPC would use: the first of these that is set.
static const char *find_proxy(const char *endpoint) {
        static const char *const names[] = {"grpc_proxy", "https_proxy", "http_proxy", NULL};
        const char *proxy = client_is_local(endpoint) ? NULL : first_set(names);
        return proxy ? proxy : "";
}

static void cannot_reach(
        CURL *curl, CURLcode code, const char *endpoint, bool by_proxy, const char *said, struct tls_finding *finding) {
        long error = 0;
        curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &error);
        if (code == CURLE_COULDNT_RESOLVE_HOST)
                wrong(finding, "%s cannot be resolved; check the endpoint and this machine's DNS", endpoint);
        else
                wrong(finding, "%s cannot be reached%s: %s; check the endpoint, firewalls and proxies", endpoint,
                        by_proxy ? " by the proxy that the environment names" : "",
                        error   ? strerror((int)error)
                        : *said ? said
                                : curl_easy_strerror(code));
}

// A connection, which is curl's; -1 after saying why there is none.
static int dial(CURL *curl, const char *endpoint, struct tls_finding *finding) {
        static const char *const exceptions[] = {"no_grpc_proxy", "no_proxy", NULL};
        const struct timeval limit = {.tv_sec = TIMEOUT_S};
        const char *proxy = find_proxy(endpoint), *without = first_set(exceptions);
        char url[300], said[CURL_ERROR_SIZE] = "";
        curl_socket_t connected = CURL_SOCKET_BAD;
        snprintf(url, sizeof url, "http://%s", endpoint);
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
        curl_easy_setopt(curl, CURLOPT_PROXY, proxy);
        curl_easy_setopt(curl, CURLOPT_NOPROXY, without ? without : "");
        curl_easy_setopt(curl, CURLOPT_HTTPPROXYTUNNEL, 1L);
        curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, said);
        CURLcode code = curl_easy_perform(curl);
        if (code != CURLE_OK || curl_easy_getinfo(curl, CURLINFO_ACTIVESOCKET, &connected) != CURLE_OK ||
                connected == CURL_SOCKET_BAD) {
                cannot_reach(curl, code, endpoint, *proxy, said, finding);
                return -1;
        }
        fcntl(connected, F_SETFL, fcntl(connected, F_GETFL) & ~O_NONBLOCK);
        setsockopt(connected, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(connected, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        return connected;
}

// What is known of each problem of a certificate, and what to do about it.
static const char *advice(long problem) {
        switch (problem) {
        case X509_V_ERR_CERT_NOT_YET_VALID:
        case X509_V_ERR_CERT_HAS_EXPIRED:
                return "check this machine's clock, and the certificate";
        case X509_V_ERR_HOSTNAME_MISMATCH:
        case X509_V_ERR_IP_ADDRESS_MISMATCH:
                return "use the name that the certificate is for as the endpoint";
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
                return "set ca-file to the certificate authority that has signed it";
        default:
                return "see the platform's operator";
        }
}

static void time_text(const ASN1_TIME *time, char ret_text[static 32]) {
        struct tm parts = {0};
        ASN1_TIME_to_tm(time, &parts);
        strftime(ret_text, 32, "%Y-%m-%d %H:%M:%S UTC", &parts);
}

static bool shake_hands(SSL *ssl, const char *host, struct tls_finding *finding) {
        char from[32] = "", to[32] = "";
        int done = SSL_connect(ssl);
        X509 *certificate = SSL_get0_peer_certificate(ssl);
        long problem = SSL_get_verify_result(ssl);
        if (certificate) {
                time_text(X509_get0_notBefore(certificate), from);
                time_text(X509_get0_notAfter(certificate), to);
        }
        if (done != 1 && problem != X509_V_OK)
                return wrong(finding, "the certificate of %s is refused: %s%s%s%s%s; %s", host,
                        X509_verify_cert_error_string(problem), *from ? "; it is valid from " : "", from,
                        *to ? " to " : "", to, advice(problem));
        if (done != 1) {
                unsigned long error = ERR_get_error();
                return wrong(finding, "no TLS with %s: %s; check that the endpoint is the platform's port with TLS",
                        host, error ? ERR_reason_error_string(error) : "the connection was closed");
        }
        wrong(finding, "%s, the certificate is good from %s to %s, and by that so is this machine's clock",
                SSL_get_version(ssl), from, to);
        return true;
}

static bool prepare(SSL *ssl, const char *host) {
        unsigned char address[sizeof(struct in6_addr)];
        bool is_address = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
        if (is_address)
                return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
        return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static bool try(SSL_CTX *context, const char *endpoint, const char *host, struct tls_finding *finding) {
        CURL *curl = curl_easy_init();
        int socket = curl ? dial(curl, endpoint, finding) : -1;
        SSL *ssl = socket >= 0 ? SSL_new(context) : NULL;
        bool good = ssl && prepare(ssl, host) && SSL_set_fd(ssl, socket) == 1 && shake_hands(ssl, host, finding);
        SSL_free(ssl);
        curl_easy_cleanup(curl);
        return good;
}

bool check_tls(const char *endpoint, const char *ca_file, struct tls_finding *ret_finding) {
        static const unsigned char http2[] = {2, 'h', '2'};
        const char *colon = strrchr(endpoint, ':');
        char host[256];
        if (!colon || colon == endpoint || (size_t)(colon - endpoint) >= sizeof host)
                return wrong(ret_finding, "the endpoint must be HOST:PORT or unix:PATH");
        bool brackets = endpoint[0] == '[';
        snprintf(host, sizeof host, "%.*s", (int)(colon - endpoint) - (brackets ? 2 : 0), endpoint + brackets);
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        bool good = context && SSL_CTX_set_alpn_protos(context, http2, sizeof http2) == 0;
        if (good &&
                (ca_file ? SSL_CTX_load_verify_file(context, ca_file) : SSL_CTX_set_default_verify_paths(context)) != 1)
                good = wrong(ret_finding, "ca-file %s holds no certificate that can be read", ca_file ? ca_file : "");
        if (good) {
                SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
                good = try(context, endpoint, host, ret_finding);
        }
        SSL_CTX_free(context);
        return good;
}
