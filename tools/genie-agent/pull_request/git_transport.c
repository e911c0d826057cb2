#include "tools/genie-agent/pull_request/git_transport.h"

#include "tools/genie-agent/pull_request/text.h"

#include <git2/errors.h>
#include <git2/sys/transport.h>
#include <stdlib.h>
#include <string.h>

enum { SENT_MAX = 1 << 30, SAID_MAX = 4096, URL_MAX = 2000 };

struct subtransport {
        git_smart_subtransport parent;
        struct git_transport_context *context;
};

// One request and its answer. What is written is gathered: our packs are small, and hosts want to know the length.
struct stream {
        git_smart_subtransport_stream parent;
        struct git_transport_context *context;
        struct http_exchange *exchange;
        git_smart_service_t service;
        char url[URL_MAX];
        char *sent;
        size_t sent_size, sent_capacity;
        bool answered;
};

static const struct {
        const char *suffix, *accept, *type;
} services[] = {
        [GIT_SERVICE_UPLOADPACK_LS] = {.suffix = "/info/refs?service=git-upload-pack"},
        [GIT_SERVICE_UPLOADPACK] = {"/git-upload-pack", "Accept: application/x-git-upload-pack-result",
                "Content-Type: application/x-git-upload-pack-request"},
        [GIT_SERVICE_RECEIVEPACK_LS] = {.suffix = "/info/refs?service=git-receive-pack"},
        [GIT_SERVICE_RECEIVEPACK] = {"/git-receive-pack", "Accept: application/x-git-receive-pack-result",
                "Content-Type: application/x-git-receive-pack-request"},
};

void git_transport_forget(struct git_transport_context *context) {
        http_response_drop(&context->response);
        context->end = HTTP_OK;
        context->response = (struct http_response){.status = 0};
}

// libgit2's own error says nothing that could be secret: what went wrong is in the context.
static int failed(struct stream *stream, enum http_end end) {
        stream->context->end = end;
        git_error_set_str(GIT_ERROR_HTTP, "the git host could not be spoken with");
        return -1;
}

static int refused(struct stream *stream) {
        char *said = malloc(SAID_MAX + 1);
        size_t size = 0, got = 1;
        while (said && got > 0 && size < SAID_MAX &&
                http_read(stream->exchange, said + size, SAID_MAX - size, &got) == HTTP_OK)
                size += got;
        if (said)
                said[size] = '\0';
        stream->context->response.body = said;
        stream->context->response.size = said ? size : 0;
        return failed(stream, HTTP_OK);
}

static int begin(struct stream *stream) {
        const char *headers[] = {services[stream->service].accept, services[stream->service].type, NULL};
        struct http_request request = {
                .url = stream->url,
                .headers = headers[0] ? headers : NULL,
                .body = stream->sent,
                .body_size = stream->sent_size,
                .git = true,
                .changes = stream->service == GIT_SERVICE_RECEIVEPACK,
        };
        stream->exchange = http_begin(stream->context->http, &request);
        return stream->exchange ? 0 : failed(stream, HTTP_NO_MEMORY);
}

static int stream_read(git_smart_subtransport_stream *parent, char *data, size_t capacity, size_t *ret_size) {
        struct stream *stream = (struct stream *)parent;
        if (!stream->exchange && begin(stream) != 0)
                return -1;
        if (!stream->answered) {
                // Nothing of a refusal's text must reach the parser of packets: look at the status first.
                size_t none;
                enum http_end end = http_read(stream->exchange, NULL, 0, &none);
                if (end != HTTP_OK)
                        return failed(stream, end);
                git_transport_forget(stream->context);
                http_answer(stream->exchange, &stream->context->response);
                if (stream->context->response.status != 200)
                        return refused(stream);
                git_transport_forget(stream->context);
                stream->answered = true;
        }
        enum http_end end = http_read(stream->exchange, data, capacity, ret_size);
        return end == HTTP_OK ? 0 : failed(stream, end);
}

static int stream_write(git_smart_subtransport_stream *parent, const char *data, size_t size) {
        struct stream *stream = (struct stream *)parent;
        if (size > SENT_MAX - stream->sent_size)
                return failed(stream, HTTP_TOO_LARGE);
        if (stream->sent_size + size > stream->sent_capacity) {
                size_t capacity = 2 * stream->sent_capacity + size;
                char *sent = realloc(stream->sent, capacity);
                if (!sent)
                        return failed(stream, HTTP_NO_MEMORY);
                stream->sent = sent;
                stream->sent_capacity = capacity;
        }
        memcpy(stream->sent + stream->sent_size, data, size);
        stream->sent_size += size;
        return 0;
}

static void stream_free(git_smart_subtransport_stream *parent) {
        struct stream *stream = (struct stream *)parent;
        http_close(stream->exchange);
        free(stream->sent);
        free(stream);
}

static int action(git_smart_subtransport_stream **ret_stream, git_smart_subtransport *parent, const char *url,
        git_smart_service_t service) {
        struct subtransport *transport = (struct subtransport *)parent;
        struct stream *stream = calloc(1, sizeof *stream);
        if (!stream || !text_format(stream->url, sizeof stream->url, "%s%s", url, services[service].suffix)) {
                free(stream);
                git_error_set_oom();
                return -1;
        }
        stream->parent = (git_smart_subtransport_stream){
                .subtransport = parent, .read = stream_read, .write = stream_write, .free = stream_free};
        stream->context = transport->context;
        stream->service = service;
        *ret_stream = &stream->parent;
        return 0;
}

static int transport_close(git_smart_subtransport *transport) {
        (void)transport;
        return 0;
}

static void transport_free(git_smart_subtransport *transport) { free(transport); }

static int subtransport_make(git_smart_subtransport **ret_transport, git_transport *owner, void *context) {
        struct subtransport *transport = calloc(1, sizeof *transport);
        (void)owner;
        if (!transport) {
                git_error_set_oom();
                return -1;
        }
        transport->parent = (git_smart_subtransport){
                .action = action, .close = transport_close, .free = transport_free};
        transport->context = context;
        *ret_transport = &transport->parent;
        return 0;
}

int git_transport_make(git_transport **ret_transport, git_remote *owner, void *context) {
        git_smart_subtransport_definition definition = {.callback = subtransport_make, .rpc = 1, .param = context};
        return git_transport_smart(ret_transport, owner, &definition);
}
