#include "tools/genie-agent/check_git_host.h"

#include "tools/genie-agent/text.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <strings.h>
#include <time.h>

enum { TIMEOUT_S = 20, TOKEN_SIZE = 8192, URL_SIZE = 1200 };

static bool __attribute__((format(printf, 3, 4)))
finding(struct git_host_finding *finding, bool good, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(finding->text, sizeof finding->text, format, arguments);
        va_end(arguments);
        return good;
}

static bool read_token(const struct git_host *host, char ret_token[static TOKEN_SIZE], struct git_host_finding *said) {
        const char *variable = host->token_variable ? getenv(host->token_variable) : NULL;
        if (variable) {
                snprintf(ret_token, TOKEN_SIZE, "%s", variable);
        } else if (host->token_variable) {
                return finding(
                        said, false, "the variable %s, which is to hold the token, is not set", host->token_variable);
        } else {
                FILE *file = fopen(host->token_file, "re");
                if (!file)
                        return finding(said, false, "the token's file %s cannot be read: %s", host->token_file,
                                strerror(errno));
                setvbuf(file, NULL, _IONBF, 0); // no copy that nobody wipes
                ret_token[fread(ret_token, 1, TOKEN_SIZE - 1, file)] = '\0';
                fclose(file);
        }
        size_t size = strlen(ret_token);
        while (size > 0 && isspace((unsigned char)ret_token[size - 1]))
                ret_token[--size] = '\0';
        return size > 0 ? true : finding(said, false, "the token is empty");
}

static void make_url(const struct git_host *host, char ret_url[static URL_SIZE]) {
        const char *scheme = host->allow_http ? "http" : "https";
        if (host->api_url)
                snprintf(ret_url, URL_SIZE, "%s/user", host->api_url);
        else if (host->forge == FORGE_GITHUB)
                snprintf(ret_url, URL_SIZE, "https://api.github.com/user");
        else
                snprintf(ret_url, URL_SIZE, "%s://%s/api/%s/user", scheme, host->name,
                        host->forge == FORGE_GITLAB ? "v4" : "v1");
}

// curl may call it with nothing to say; what the body holds does not matter.
static size_t drop_body(char *, size_t size, size_t count, void *) { return size * count; }

static size_t take_header(char *line, size_t size, size_t count, void *context) {
        struct git_host_finding *said = context;
        char text[64];
        if (count > 6 && !strncasecmp(line, "Date:", 5)) {
                snprintf(text, sizeof text, "%.*s", (int)(count < 60 ? count - 5 : 55), line + 5);
                time_t theirs = curl_getdate(text, NULL);
                said->has_date = theirs != -1;
                said->skew_s = (long long)(time(NULL) - theirs);
        }
        return size * count;
}

static bool judge(CURLcode code, long status, const char *url, struct git_host_finding *said) {
        if (code == CURLE_PEER_FAILED_VERIFICATION)
                return finding(said, false, "its certificate is refused; set the host's ca-file");
        if (code != CURLE_OK)
                return finding(said, false, "%s cannot be reached: %s; check api-url, firewalls and proxies", url,
                        curl_easy_strerror(code));
        if (status == 401)
                return finding(said, false, "it refuses the token: make a new one");
        if (status == 403)
                return finding(said, false, "the token may not ask who it is: check its scopes, or the rate limit");
        if (status != 200)
                return finding(said, false, "%s answers %ld: check api-url", url, status);
        return finding(said, true, "it can be reached, and takes the token");
}

bool check_git_host(const struct git_host *host, struct git_host_finding *ret_finding) {
        char token[TOKEN_SIZE], header[TOKEN_SIZE + 64], url[URL_SIZE];
        long status = 0;
        if (!read_token(host, token, ret_finding))
                return false;
        make_url(host, url);
        snprintf(header, sizeof header, host->forge == FORGE_GITLAB ? "PRIVATE-TOKEN: %s" : "Authorization: Bearer %s",
                token);
        CURL *curl = curl_easy_init();
        struct curl_slist *headers = curl ? curl_slist_append(NULL, header) : NULL;
        explicit_bzero(token, sizeof token);
        explicit_bzero(header, sizeof header);
        if (!headers)
                return finding(ret_finding, false, "out of memory");
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_USERAGENT, "genie-agent/" GENIE_VERSION);
        curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, host->allow_http ? "http,https" : "https");
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop_body);
        curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
        curl_easy_setopt(curl, CURLOPT_HEADERDATA, ret_finding);
        if (host->ca_file) { // alone, as in http.c
                curl_easy_setopt(curl, CURLOPT_CAINFO, host->ca_file);
                curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
        }
        CURLcode code = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        explicit_bzero(headers->data, strlen(headers->data));
        curl_slist_free_all(headers);
        curl_easy_cleanup(curl);
        return judge(code, status, url, ret_finding);
}
