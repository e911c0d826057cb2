#include "auth/api_key.h"
#include "server/channel/channel.h"
#include "server/services/new_key.h"

#include <devopsgenie/v1/agent_service.pb-c.h>
#include <string.h>

typedef Devopsgenie__V1__Agent Agent;
typedef Devopsgenie__V1__RotateAgentKeyRequest RotateRequest;

static void tell(const struct call *call, const char *agent_id) {
        channel_changed(
                server_channel(call->server), CHANGE_AGENTS | CHANGE_EVENTS, call->principal.organization_id, agent_id);
}

bool agent_service_create_agent_before(struct call *call);
bool agent_service_create_agent_before(struct call *call) { return give_new_key(call, agent_key_scheme); }

// A repeat of an earlier call gets the agent that the earlier one made, and its key's text is not known any more.
bool agent_service_create_agent_after(struct call *call, ProtobufCMessage *response);
bool agent_service_create_agent_after(struct call *call, ProtobufCMessage *response) {
        Agent *agent = (Agent *)(void *)response;
        if (!strcmp(agent->uid, call->new_id)) {
                agent->secret = call->state;
                tell(call, agent->uid);
        }
        return true;
}

bool agent_service_delete_agent_after(struct call *call, ProtobufCMessage *response);
bool agent_service_delete_agent_after(struct call *call, ProtobufCMessage *response) {
        (void)response;
        tell(call, call->name_values[1]);
        return true;
}

bool agent_service_rotate_agent_key_before(struct call *call);
bool agent_service_rotate_agent_key_before(struct call *call) { return give_new_key(call, agent_key_scheme); }

// With in_channel the statement has made no key: the agent's session does.
bool agent_service_rotate_agent_key_after(struct call *call, ProtobufCMessage *response);
bool agent_service_rotate_agent_key_after(struct call *call, ProtobufCMessage *response) {
        Agent *agent = (Agent *)(void *)response;
        if (!((const RotateRequest *)(const void *)call->request)->in_channel)
                agent->secret = call->state;
        tell(call, agent->uid);
        return true;
}
