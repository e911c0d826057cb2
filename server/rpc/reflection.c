// Server reflection, v1 and v1alpha (the same on the wire): serves the embedded descriptor set. Files are found by name
// or by a symbol in them, and sent with what they import, the requested one first.
#include "server/rpc/call.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MAX = 128 };

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;
typedef Google__Protobuf__FileDescriptorProto File;

static struct {
        pthread_once_t once;
        Google__Protobuf__FileDescriptorSet *set;
        ProtobufCBinaryData raw[FILES_MAX]; // the files' own bytes, beside set->file
} api = {.once = PTHREAD_ONCE_INIT};

// The set is FileDescriptorProto messages in field 1, each with tag and length: their bytes are served as they stand.
static void load(void) {
        const unsigned char *at = descriptor_set, *end = descriptor_set_end;
        api.set = google__protobuf__file_descriptor_set__unpack(NULL, (size_t)(end - at), at);
        for (unsigned i = 0; at < end && i < FILES_MAX; i++) {
                size_t size = 0;
                unsigned shift = 0;
                for (at++; *at & 0x80; at++, shift += 7)
                        size |= (size_t)(*at & 0x7f) << shift;
                size |= (size_t)*at++ << shift;
                api.raw[i] = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)at};
                at += size;
        }
}

static int file_by_name(const char *name) {
        for (size_t i = 0; api.set && i < api.set->n_file && i < FILES_MAX; i++)
                if (!strcmp(api.set->file[i]->name, name))
                        return (int)i;
        return -1;
}

// Whether `name` stands first in `symbol`: NULL if not, else what follows, without the dot.
static const char *after(const char *symbol, const char *name) {
        size_t size = strlen(name);
        if (strncmp(symbol, name, size) || (symbol[size] && symbol[size] != '.'))
                return NULL;
        return symbol[size] ? symbol + size + 1 : "";
}

static bool message_has(const Google__Protobuf__DescriptorProto *message, const char *symbol) {
        const char *rest = after(symbol, message->name);
        if (!rest || !*rest)
                return rest != NULL;
        for (size_t i = 0; i < message->n_field; i++)
                if (!strcmp(message->field[i]->name, rest))
                        return true;
        for (size_t i = 0; i < message->n_enum_type; i++)
                if (!strcmp(message->enum_type[i]->name, rest))
                        return true;
        for (size_t i = 0; i < message->n_nested_type; i++)
                if (message_has(message->nested_type[i], rest))
                        return true;
        return false;
}

static bool service_has(const Google__Protobuf__ServiceDescriptorProto *service, const char *symbol) {
        const char *rest = after(symbol, service->name);
        for (size_t i = 0; rest && *rest && i < service->n_method; i++)
                if (!strcmp(service->method[i]->name, rest))
                        return true;
        return rest && !*rest;
}

static bool file_has(const File *file, const char *symbol) {
        const char *rest = after(symbol, file->package);
        if (!rest)
                return false;
        for (size_t i = 0; i < file->n_message_type; i++)
                if (message_has(file->message_type[i], rest))
                        return true;
        for (size_t i = 0; i < file->n_service; i++)
                if (service_has(file->service[i], rest))
                        return true;
        for (size_t i = 0; i < file->n_enum_type; i++)
                if (!strcmp(file->enum_type[i]->name, rest))
                        return true;
        for (size_t i = 0; i < file->n_extension; i++)
                if (!strcmp(file->extension[i]->name, rest))
                        return true;
        return false;
}

static int file_by_symbol(const char *symbol) {
        for (size_t i = 0; api.set && i < api.set->n_file && i < FILES_MAX; i++)
                if (file_has(api.set->file[i], symbol))
                        return (int)i;
        return -1;
}

static int file_by_extension(const Grpc__Reflection__V1__ExtensionRequest *extension) {
        for (size_t i = 0; api.set && i < api.set->n_file && i < FILES_MAX; i++)
                for (size_t j = 0; j < api.set->file[i]->n_extension; j++) {
                        const Google__Protobuf__FieldDescriptorProto *field = api.set->file[i]->extension[j];
                        if (field->number == extension->extension_number &&
                                !strcmp(field->extendee + 1, extension->containing_type))
                                return (int)i;
                }
        return -1;
}

// Adds a file and what it imports, each once.
static void collect(int file, int *list, size_t *count) {
        for (size_t i = 0; i < *count; i++)
                if (list[i] == file)
                        return;
        if (file < 0 || *count == FILES_MAX)
                return;
        list[(*count)++] = file;
        const File *proto = api.set->file[file];
        for (size_t i = 0; i < proto->n_dependency; i++)
                collect(file_by_name(proto->dependency[i]), list, count);
}

static Response response_to(Request *request) {
        Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
        response.valid_host = request->host;
        response.original_request = request;
        return response;
}

static void send_error(struct call *call, Request *request, int code, const char *what) {
        Response response = response_to(request);
        Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
        error.error_code = code;
        error.error_message = (char *)(uintptr_t)what;
        response.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
        response.error_response = &error;
        stream_send(call, &response.base);
}

static void send_file(struct call *call, Request *request, int file) {
        if (file < 0) {
                send_error(call, request, CODE_NOT_FOUND, "not in this server's API");
                return;
        }
        int list[FILES_MAX];
        size_t count = 0;
        collect(file, list, &count);
        ProtobufCBinaryData bytes[FILES_MAX];
        for (size_t i = 0; i < count; i++)
                bytes[i] = api.raw[list[i]];
        Response response = response_to(request);
        Grpc__Reflection__V1__FileDescriptorResponse files = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
        files.n_file_descriptor_proto = count;
        files.file_descriptor_proto = bytes;
        response.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
        response.file_descriptor_response = &files;
        stream_send(call, &response.base);
}

static void send_services(struct call *call, Request *request) {
        Grpc__Reflection__V1__ServiceResponse services[FILES_MAX], *list[FILES_MAX];
        size_t count = 0;
        for (unsigned i = 0; i < method_count && count < FILES_MAX; i++) {
                if (i && !strcmp(methods[i].service, methods[i - 1].service))
                        continue;
                grpc__reflection__v1__service_response__init(&services[count]);
                services[count].name = (char *)(uintptr_t)methods[i].service;
                list[count] = &services[count];
                count++;
        }
        Response response = response_to(request);
        Grpc__Reflection__V1__ListServiceResponse all = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
        all.n_service = count;
        all.service = list;
        response.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
        response.list_services_response = &all;
        stream_send(call, &response.base);
}

static void send_extensions(struct call *call, Request *request, const char *type) {
        int32_t list[FILES_MAX];
        Response response = response_to(request);
        Grpc__Reflection__V1__ExtensionNumberResponse numbers = GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
        numbers.extension_number = list;
        for (size_t i = 0; api.set && i < api.set->n_file; i++)
                for (size_t j = 0; j < api.set->file[i]->n_extension; j++) {
                        const Google__Protobuf__FieldDescriptorProto *field = api.set->file[i]->extension[j];
                        if (!strcmp(field->extendee + 1, type) && numbers.n_extension_number < FILES_MAX)
                                list[numbers.n_extension_number++] = field->number;
                }
        if (!numbers.n_extension_number && file_by_symbol(type) < 0) {
                send_error(call, request, CODE_NOT_FOUND, "not in this server's API");
                return;
        }
        numbers.base_type_name = (char *)(uintptr_t)type;
        response.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
        response.all_extension_numbers_response = &numbers;
        stream_send(call, &response.base);
}

static void answer(struct call *call, ProtobufCMessage *message) {
        Request *request = (Request *)(void *)message;
        pthread_once(&api.once, load);
        switch ((int)request->message_request_case) {
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
                send_file(call, request, file_by_name(request->file_by_filename));
                break;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
                send_file(call, request, file_by_symbol(request->file_containing_symbol));
                break;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
                send_file(call, request, file_by_extension(request->file_containing_extension));
                break;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
                send_extensions(call, request, request->all_extension_numbers_of_type);
                break;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
                send_services(call, request);
                break;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
        default:
                send_error(call, request, CODE_INVALID_ARGUMENT, "the request asks nothing");
        }
        if (call->refusal.code != CODE_OK)
                stream_finish(call);
        else
                stream_read(call);
}

extern const struct stream_handler server_reflection_server_reflection_info;
const struct stream_handler server_reflection_server_reflection_info = {
        .message = answer, .half_closed = stream_finish};
