#include "tools/genie-agent/pull_request/repository_url.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *scheme_parse(const char *text, bool *ret_http) {
        *ret_http = strncasecmp(text, "http://", 7) == 0;
        return *ret_http ? text + 7 : strncasecmp(text, "https://", 8) == 0 ? text + 8 : NULL;
}

// HOST, [IPv6], and an optional port.
static bool host_parse(const char *text, size_t size, char *ret_host) {
        size_t name_size = strcspn(text, "/:");
        if (text[0] == '[')
                name_size = strspn(text + 1, "0123456789abcdefABCDEF:.") + 2;
        if (size == 0 || size > REPOSITORY_HOST_MAX || name_size > size || name_size == 0 || text[0] == '-')
                return false;
        for (size_t i = 0; i < name_size; i++)
                if (text[0] != '[' && !isalnum((unsigned char)text[i]) && text[i] != '-' && text[i] != '.')
                        return false;
        if (text[0] == '[' && text[name_size - 1] != ']')
                return false;
        if (name_size < size && (text[name_size] != ':' || size - name_size < 2 || size - name_size > 6 ||
                                        strspn(text + name_size + 1, "0123456789") != size - name_size - 1))
                return false;
        for (size_t i = 0; i < size; i++)
                ret_host[i] = (char)tolower((unsigned char)text[i]);
        ret_host[size] = '\0';
        return true;
}

// The port that goes without saying is not said.
static void port_drop(char *host, const char *port) {
        size_t size = strlen(host), length = strlen(port);
        if (size > length && strcmp(host + size - length, port) == 0)
                host[size - length] = '\0';
}

// Parts of characters that need no escape anywhere; none that a server could resolve to another place.
static bool path_good(const char *path) {
        for (const char *part = path;; part++) {
                size_t size = strcspn(part, "/");
                if (size == 0 || strncmp(part, ".", size) == 0 || strncmp(part, "..", size) == 0)
                        return false;
                for (size_t i = 0; i < size; i++)
                        if (!isalnum((unsigned char)part[i]) && !strchr("-_.~+", part[i]))
                                return false;
                part += size;
                if (!*part)
                        return true;
        }
}

const char *repository_url_parse(const char *text, struct repository_url *ret_url) {
        struct repository_url url = {.http = false};
        const char *host = scheme_parse(text, &url.http);
        if (!host)
                return "it begins with neither https:// nor http://";
        size_t host_size = strcspn(host, "/");
        if (memchr(host, '@', host_size))
                return "it has a user or a password in it; those are the agent's";
        if (strpbrk(host, "?#@"))
                return "it has more than a host and a path";
        if (!host_parse(host, host_size, url.host))
                return "its host is none";
        port_drop(url.host, url.http ? ":80" : ":443");
        const char *path = host + host_size + (host[host_size] == '/');
        size_t size = strlen(path);
        if (size > 0 && path[size - 1] == '/')
                size--;
        if (size > 4 && strncmp(path + size - 4, ".git", 4) == 0)
                size -= 4;
        if (size > REPOSITORY_PATH_MAX)
                return "it is too long";
        memcpy(url.path, path, size);
        char *slash = memrchr(url.path, '/', size);
        if (!path_good(url.path) || !slash)
                return "its path names no repository";
        memcpy(url.owner, url.path, (size_t)(slash - url.path));
        const char *owner = strrchr(url.owner, '/');
        if (owner)
                memmove(url.owner, owner + 1, strlen(owner));
        snprintf(url.url, sizeof url.url, "http%s://%s/%s.git", url.http ? "" : "s", url.host, url.path);
        *ret_url = url;
        ret_url->name = ret_url->path + (slash - url.path) + 1;
        return NULL;
}
