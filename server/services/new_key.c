#include "server/services/new_key.h"

#include "auth/api_key.h"

bool give_new_key(struct call *call, const char *scheme) {
        call->secret = true;
        char *text = arena_alloc(&call->arena, API_KEY_TEXT + 1),
             *prefix = arena_alloc(&call->arena, API_KEY_PREFIX + 1);
        unsigned char *hash = arena_alloc(&call->arena, API_KEY_HASH);
        if (!text || !prefix || !hash || !api_key_make(scheme, text, prefix, hash))
                return call_fail(call, "api_key_make");
        call->state = text;
        call->given[0] = (struct storage_value){(const char *)hash, API_KEY_HASH};
        call->given[1] = (struct storage_value){prefix, API_KEY_PREFIX};
        return true;
}
