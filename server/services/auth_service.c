#include "server/rpc/call.h"

#include <devopsgenie/v1/auth_service.pb-c.h>

typedef Devopsgenie__V1__WhoAmIResponse Response;

void auth_service_who_am_i(struct call *call);
void auth_service_who_am_i(struct call *call) {
        const struct principal *principal = &call->principal;
        Response *response = arena_alloc(&call->arena, sizeof *response);
        Google__Protobuf__Timestamp *expires = arena_alloc(&call->arena, sizeof *expires);
        if (!response || !expires) {
                call_fail(call, "arena");
                return;
        }
        devopsgenie__v1__who_am_iresponse__init(response);
        google__protobuf__timestamp__init(expires);
        response->kind = (Devopsgenie__V1__WhoAmIResponse__Kind)principal->kind;
        response->caller = call->principal.caller;
        response->email = call->principal.email;
        response->service_role = (Devopsgenie__Options__ServiceRole)principal->service_role;
        response->role = (Devopsgenie__Options__Role)principal->role;
        if (principal->kind == PRINCIPAL_API_KEY || principal->kind == PRINCIPAL_AGENT)
                response->organization = arena_printf(&call->arena, "organizations/%s", principal->organization_slug);
        if (principal->expire_time) {
                expires->seconds = principal->expire_time;
                response->expire_time = expires;
        }
        call->response = &response->base;
}
