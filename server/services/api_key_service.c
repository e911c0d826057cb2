#include "auth/api_key.h"
#include "server/rpc/call.h"

#include <devopsgenie/v1/api_key_service.pb-c.h>
#include <string.h>

// The new key's text waits in call->state for the response; its hash and prefix go to the statement.
bool api_key_service_create_api_key_before(struct call *call);
bool api_key_service_create_api_key_before(struct call *call) {
        call->secret = true;
        char *text = arena_alloc(&call->arena, API_KEY_TEXT + 1),
             *prefix = arena_alloc(&call->arena, API_KEY_PREFIX + 1);
        unsigned char *hash = arena_alloc(&call->arena, API_KEY_HASH);
        char *role = arena_printf(&call->arena, "%d", (int)call->principal.role);
        if (!text || !prefix || !hash || !role || !api_key_make(text, prefix, hash))
                return call_fail(call, "api_key_make");
        call->state = text;
        call->given[0] = (struct storage_value){(const char *)hash, API_KEY_HASH};
        call->given[1] = (struct storage_value){prefix, API_KEY_PREFIX};
        call->given[2] = (struct storage_value){role, (int)strlen(role)};
        return true;
}

// A repeat of an earlier call gets the key that the earlier one made, and its secret is not known any more.
bool api_key_service_create_api_key_after(struct call *call, ProtobufCMessage *response);
bool api_key_service_create_api_key_after(struct call *call, ProtobufCMessage *response) {
        Devopsgenie__V1__ApiKey *key = (Devopsgenie__V1__ApiKey *)(void *)response;
        if (!strcmp(key->uid, call->new_id))
                key->secret = call->state;
        return true;
}
