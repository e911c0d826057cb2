#include "auth/api_key.h"
#include "server/services/new_key.h"

#include <devopsgenie/v1/api_key_service.pb-c.h>
#include <string.h>

bool api_key_service_create_api_key_before(struct call *call);
bool api_key_service_create_api_key_before(struct call *call) { return give_new_key(call, api_key_scheme); }

// A repeat of an earlier call gets the key that the earlier one made, and its secret is not known any more.
bool api_key_service_create_api_key_after(struct call *call, ProtobufCMessage *response);
bool api_key_service_create_api_key_after(struct call *call, ProtobufCMessage *response) {
        Devopsgenie__V1__ApiKey *key = (Devopsgenie__V1__ApiKey *)(void *)response;
        if (!strcmp(key->uid, call->new_id))
                key->secret = call->state;
        return true;
}
