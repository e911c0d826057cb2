"""Every method × every kind of caller, against a table that is written out from the API's design, not from the code."""

import secrets

import grpc
import pytest
from calls import code_of, until
from conftest import Organization, connections
from genied import refused
from google.protobuf import descriptor_pool
from google.protobuf.timestamp_pb2 import Timestamp
from tokens import Tokens

# Who may call what:  U  UNAUTHENTICATED, whatever the request says
#                     -  PERMISSION_DENIED, whatever the request says
#                     +  may; the answer is then what REQUESTS says
# V A P D O are viewer, analyst, approver, admin and owner: as members and as API keys alike.
# agent is any organization's agent: what it may, it may in its own, which no request names.
# Anyone else: a person who is in no organization, another organization's owner, and that organization's API key.
TABLE = """
method                                          nobody  invalid  anyone  V A P D O  platform-admin  scanner  assistant  agent
AuthService.WhoAmI                              U       U        +       + + + + +  +               +        +          +
OrganizationService.CreateOrganization          U       U        -       - - - - -  +               -        -          -
OrganizationService.GetOrganization             U       U        -       + + + + +  -               -        -          -
OrganizationService.ListOrganizations           U       U        +       + + + + +  +               +        +          +
OrganizationService.UpdateOrganization          U       U        -       - - - + +  -               -        -          -
OrganizationService.DeleteOrganization          U       U        -       - - - - +  -               -        -          -
OrganizationService.UndeleteOrganization        U       U        -       - - - - +  -               -        -          -
MemberService.CreateMember                      U       U        -       - - - - +  -               -        -          -
MemberService.GetMember                         U       U        -       + + + + +  -               -        -          -
MemberService.ListMembers                       U       U        -       + + + + +  -               -        -          -
MemberService.UpdateMember                      U       U        -       - - - - +  -               -        -          -
MemberService.DeleteMember                      U       U        -       - - - - +  -               -        -          -
ApiKeyService.CreateApiKey                      U       U        -       - - - + +  -               -        -          -
ApiKeyService.GetApiKey                         U       U        -       - - - + +  -               -        -          -
ApiKeyService.ListApiKeys                       U       U        -       - - - + +  -               -        -          -
ApiKeyService.RevokeApiKey                      U       U        -       - - - + +  -               -        -          -
CloudAccountService.CreateCloudAccount          U       U        -       - - - + +  -               -        -          -
CloudAccountService.GetCloudAccount             U       U        -       + + + + +  -               -        -          -
CloudAccountService.ListCloudAccounts           U       U        -       + + + + +  -               -        -          -
CloudAccountService.UpdateCloudAccount          U       U        -       - - - + +  -               -        -          -
CloudAccountService.DeleteCloudAccount          U       U        -       - - - + +  -               -        -          -
CloudAccountService.SetCloudAccountCredentials  U       U        -       - - - + +  -               -        -          -
ScanService.ImportResults                       U       U        -       - + + + +  -               +        -          -
ScanService.GetScan                             U       U        -       + + + + +  -               -        -          -
ScanService.ListScans                           U       U        -       + + + + +  -               -        -          -
ResourceService.GetResource                     U       U        -       + + + + +  -               -        -          -
ResourceService.ListResources                   U       U        -       + + + + +  -               -        -          -
FindingService.GetFinding                       U       U        -       + + + + +  -               -        -          -
FindingService.ListFindings                     U       U        -       + + + + +  -               -        -          -
FindingService.ListFindingEvents                U       U        -       + + + + +  -               -        -          -
FindingService.AcknowledgeFinding               U       U        -       - + + + +  -               -        -          -
FindingService.ReopenFinding                    U       U        -       - + + + +  -               -        -          -
FindingService.AcceptRisk                       U       U        -       - - + + +  -               -        -          -
FindingService.WithdrawAcceptance               U       U        -       - - + + +  -               -        -          -
AuditService.ListAuditEvents                    U       U        -       - - - + +  -               -        -          -
AgentService.CreateAgent                        U       U        -       - - - + +  -               -        -          -
AgentService.GetAgent                           U       U        -       + + + + +  -               -        -          -
AgentService.ListAgents                         U       U        -       + + + + +  -               -        -          -
AgentService.UpdateAgent                        U       U        -       - - - + +  -               -        -          -
AgentService.DeleteAgent                        U       U        -       - - - + +  -               -        -          -
AgentService.RotateAgentKey                     U       U        -       - - - + +  -               -        -          -
AgentService.WatchAgents                        U       U        -       + + + + +  -               -        -          -
TaskService.CreateTask                          U       U        -       - + + + +  -               -        -          -
TaskService.GetTask                             U       U        -       + + + + +  -               -        -          -
TaskService.ListTasks                           U       U        -       + + + + +  -               -        -          -
TaskService.CancelTask                          U       U        -       - + + + +  -               -        -          -
TaskService.RetryTask                           U       U        -       - + + + +  -               -        -          -
TaskService.ReadTaskLog                         U       U        -       + + + + +  -               -        -          -
TaskService.WatchTasks                          U       U        -       + + + + +  -               -        -          -
TaskChannelService.Connect                      U       U        -       - - - - -  -               -        -          +
"""
HEAD, *ROWS = (line.split() for line in TABLE.strip().splitlines())
MATRIX = {row[0]: dict(zip(HEAD[1:], row[1:], strict=True)) for row in ROWS}
ROLES = {"V": "VIEWER", "A": "ANALYST", "P": "APPROVER", "D": "ADMIN", "O": "OWNER"}
NOWHERE = "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"

# The request of each call, and what a caller who may gets. Each names something that is not there or breaks a rule,
# so that nothing is changed, and a caller who may not would show it if anything were looked at before the permission.
REQUESTS = {
    "AuthService.WhoAmI": ({}, "OK"),
    "OrganizationService.CreateOrganization": ({}, "INVALID_ARGUMENT"),
    "OrganizationService.GetOrganization": ({"name": "{org}"}, "OK"),
    "OrganizationService.ListOrganizations": ({"page_size": -1}, "INVALID_ARGUMENT"),
    "OrganizationService.UpdateOrganization": ({"organization": {"name": "{org}"}}, "INVALID_ARGUMENT"),
    "OrganizationService.DeleteOrganization": ({"name": "{org}", "etag": "stale"}, "ABORTED"),
    "OrganizationService.UndeleteOrganization": ({"name": "{org}"}, "ALREADY_EXISTS"),
    "MemberService.CreateMember": ({"parent": "{org}"}, "INVALID_ARGUMENT"),
    "MemberService.GetMember": ({"name": "{org}/members/" + NOWHERE}, "NOT_FOUND"),
    "MemberService.ListMembers": ({"parent": "{org}", "page_token": "x"}, "INVALID_ARGUMENT"),
    "MemberService.UpdateMember": ({"member": {"name": "{org}/members/" + NOWHERE, "role": 1}}, "NOT_FOUND"),
    "MemberService.DeleteMember": ({"name": "{org}/members/" + NOWHERE}, "NOT_FOUND"),
    "ApiKeyService.CreateApiKey": ({"parent": "{org}", "api_key": {"role": 99}}, "INVALID_ARGUMENT"),
    "ApiKeyService.GetApiKey": ({"name": "{org}/apiKeys/" + NOWHERE}, "NOT_FOUND"),
    "ApiKeyService.ListApiKeys": ({"parent": "{org}"}, "OK"),
    "ApiKeyService.RevokeApiKey": ({"name": "{org}/apiKeys/" + NOWHERE}, "NOT_FOUND"),
    "CloudAccountService.CreateCloudAccount": ({"parent": "{org}"}, "INVALID_ARGUMENT"),
    "CloudAccountService.GetCloudAccount": ({"name": "{org}/cloudAccounts/" + NOWHERE}, "NOT_FOUND"),
    "CloudAccountService.ListCloudAccounts": ({"parent": "{org}"}, "OK"),
    "CloudAccountService.UpdateCloudAccount": (
        {"cloud_account": {"name": "{org}/cloudAccounts/" + NOWHERE, "display_name": "x"}},
        "NOT_FOUND",
    ),
    "CloudAccountService.DeleteCloudAccount": ({"name": "{org}/cloudAccounts/" + NOWHERE}, "NOT_FOUND"),
    "CloudAccountService.SetCloudAccountCredentials": (
        {"name": "{org}/cloudAccounts/" + NOWHERE, "github": {"token": "not a token"}},
        "INVALID_ARGUMENT",
    ),
    "ScanService.ImportResults": (
        {
            "header": {
                "parent": "{org}/cloudAccounts/" + NOWHERE,
                "scanner": "Prowler",
                "scan_time": Timestamp(seconds=1),
                "request_id": NOWHERE,
            }
        },
        "NOT_FOUND",
    ),
    "ScanService.GetScan": ({"name": "{org}/scans/" + NOWHERE}, "NOT_FOUND"),
    "ScanService.ListScans": ({"parent": "{org}", "page_size": -1}, "INVALID_ARGUMENT"),
    "ResourceService.GetResource": ({"name": "{org}/resources/" + NOWHERE}, "NOT_FOUND"),
    "ResourceService.ListResources": ({"parent": "{org}"}, "OK"),
    "FindingService.GetFinding": ({"name": "{org}/findings/" + NOWHERE}, "NOT_FOUND"),
    "FindingService.ListFindings": ({"parent": "{org}"}, "OK"),
    "FindingService.ListFindingEvents": ({"parent": "{org}/findings/" + NOWHERE}, "NOT_FOUND"),
    "FindingService.AcknowledgeFinding": (
        {"name": "{org}/findings/" + NOWHERE, "note": "x" * 5000},
        "INVALID_ARGUMENT",
    ),
    "FindingService.ReopenFinding": ({"name": "{org}/findings/" + NOWHERE}, "NOT_FOUND"),
    "FindingService.AcceptRisk": ({"name": "{org}/findings/" + NOWHERE}, "INVALID_ARGUMENT"),
    "FindingService.WithdrawAcceptance": ({"name": "{org}/findings/" + NOWHERE}, "NOT_FOUND"),
    "AuditService.ListAuditEvents": ({"parent": "{org}"}, "OK"),
    "AgentService.CreateAgent": ({"parent": "{org}"}, "INVALID_ARGUMENT"),
    "AgentService.GetAgent": ({"name": "{org}/agents/" + NOWHERE}, "NOT_FOUND"),
    "AgentService.ListAgents": ({"parent": "{org}"}, "OK"),
    "AgentService.UpdateAgent": ({"agent": {"name": "{org}/agents/" + NOWHERE, "display_name": "x"}}, "NOT_FOUND"),
    "AgentService.DeleteAgent": ({"name": "{org}/agents/" + NOWHERE}, "NOT_FOUND"),
    "AgentService.RotateAgentKey": ({"name": "{org}/agents/" + NOWHERE}, "NOT_FOUND"),
    "AgentService.WatchAgents": ({"parent": "{org}", "resume_token": "x" * 101}, "INVALID_ARGUMENT"),
    "TaskService.CreateTask": ({"parent": "{org}", "task": {"payload": {}}}, "INVALID_ARGUMENT"),
    "TaskService.GetTask": ({"name": "{org}/tasks/" + NOWHERE}, "NOT_FOUND"),
    "TaskService.ListTasks": ({"parent": "{org}"}, "OK"),
    "TaskService.CancelTask": ({"name": "{org}/tasks/" + NOWHERE}, "NOT_FOUND"),
    "TaskService.RetryTask": ({"name": "{org}/tasks/" + NOWHERE}, "NOT_FOUND"),
    "TaskService.ReadTaskLog": ({"name": "{org}/tasks/" + NOWHERE, "offset": -1}, "INVALID_ARGUMENT"),
    "TaskService.WatchTasks": ({"parent": "{org}", "resume_token": "x" * 101}, "INVALID_ARGUMENT"),
    "TaskChannelService.Connect": ({"hello": {"session_token": "x" * 101}}, "INVALID_ARGUMENT"),
}


def services(v1):
    """The services as the proto files have them: from name to descriptor."""
    names = {name.removesuffix("Stub") for name in vars(v1) if name.endswith("ServiceStub")}
    return {name: descriptor_pool.Default().FindServiceByName(f"devopsgenie.v1.{name}") for name in names}


def filled(value, organization):
    if isinstance(value, str):
        return value.replace("{org}", organization)
    return {k: filled(v, organization) for k, v in value.items()} if isinstance(value, dict) else value


class Caller:
    """Somebody at the end of a channel, with any header whatsoever."""

    def __init__(self, v1, server, *metadata):
        self.v1, self.channel, self.metadata = v1, server.channel(), metadata

    def code(self, method, organization):
        service, _, name = method.partition(".")
        descriptor = services(self.v1)[service].methods_by_name[name]
        message = getattr(self.v1, descriptor.input_type.name)(**filled(REQUESTS[method][0], organization))
        stub = getattr(getattr(self.v1, service + "Stub")(self.channel), name)
        request = iter([message]) if descriptor.client_streaming else message
        answer = list if descriptor.server_streaming else (lambda call: call)
        return code_of(lambda: answer(stub(request, metadata=self.metadata, timeout=20)))


def bearer(credential):
    return ("authorization", f"Bearer {credential}")


def dead_keys(v1, organization, key):
    """Keys that were good once: one revoked, one expired."""
    request = v1.CreateApiKeyRequest(
        parent=organization.name, api_key=v1.ApiKey(display_name="short", role=v1.OWNER), request_id=NOWHERE
    )
    request.api_key.expire_time.GetCurrentTime()
    request.api_key.expire_time.seconds += 2
    expired = organization.owner.api_keys.CreateApiKey(request).secret
    request.api_key.ClearField("expire_time")
    request.ClearField("request_id")
    revoked = organization.owner.api_keys.CreateApiKey(request)
    organization.owner.api_keys.RevokeApiKey(v1.RevokeApiKeyRequest(name=revoked.name))
    return {"a revoked key": [bearer(revoked.secret)], "an expired key": [bearer(expired)]}


def dead_agents(v1, organization):
    """Agents' keys that were good once: of a deleted agent, and one that another has replaced at once."""
    agents, deleted, rotated = organization.owner.agents, organization.agent(), organization.agent()
    agents.DeleteAgent(v1.DeleteAgentRequest(name=deleted.name))
    agents.RotateAgentKey(v1.RotateAgentKeyRequest(name=rotated.name, overlap={}))
    return {"a deleted agent's key": [bearer(deleted.secret)], "a replaced key": [bearer(rotated.secret)]}


@pytest.fixture(scope="module")
def callers(v1, server, module_organization):
    """From a column of the table to its callers, by what they are."""
    organization, tokens = module_organization, Tokens(server)
    with connections(v1) as connect:
        other = Organization(v1, server, connect, "org-" + secrets.token_hex(6))
        other_owner = [bearer(tokens.user(f"owner-{other.slug}", other.owner_email))]
        other_key = [bearer(other.key("OWNER").credential)]
        other_agent = [bearer(other.agent().secret)]
    key, agent = organization.key("OWNER").credential, organization.agent().secret
    invalid = {
        "no token at all": [("authorization", "Bearer ")],
        "garbage": [bearer("garbage")],
        "three parts of garbage": [bearer("a.b.c")],
        "another scheme": [("authorization", "Basic " + key)],
        "an expired token": [bearer(tokens.sign(exp=1_600_000_000, iat=1_500_000_000))],
        "a token of tomorrow": [bearer(tokens.sign(nbf=4_000_000_000, exp=4_000_000_600))],
        "a token without an end": [bearer(tokens.sign(exp=None))],
        "a public key as the secret": [bearer(tokens.confuse_public_key_with_secret())],
        "algorithm none": [bearer(tokens.leave_unsigned())],
        "another issuer": [bearer(tokens.sign(iss="https://elsewhere.example"))],
        "another audience": [bearer(tokens.sign(aud="something-else"))],
        "another signing key": [bearer(tokens.sign_with_another_key())],
        "an unknown signing key": [bearer(tokens.sign_with_unknown_key_id())],
        "changed claims": [bearer(tokens.tamper())],
        "a service role that there is not": [bearer(tokens.sign(genie_service_role="root"))],
        "a key that never was": [bearer("dgk_" + "0" * 62)],
        "a key with its last letter changed": [bearer(key[:-1] + ("a" if key[-1] != "a" else "b"))],
        "an agent's key that never was": [bearer("dga_" + "0" * 62)],
        "an agent's key with its last letter changed": [bearer(agent[:-1] + ("a" if agent[-1] != "a" else "b"))],
        "an agent's key as an API key": [bearer("dgk_" + agent[4:])],
        "an API key as an agent's": [bearer("dga_" + key[4:])],
        "a token in the place of a key": [("x-api-key", tokens.sign())],
        **dead_keys(v1, organization, key),
        **dead_agents(v1, organization),
    }
    wait = Caller(v1, server, *invalid["an expired key"])
    until(lambda: wait.code("AuthService.WhoAmI", organization.name) == "UNAUTHENTICATED")

    columns = {
        "nobody": {"nobody": []},
        "invalid": invalid,
        "anyone": {
            "a person of no organization": [bearer(tokens.user("stranger", "stranger@example.com"))],
            "another organization's owner": other_owner,
            "another organization's key": other_key,
            "the owner's address, not verified": [
                bearer(tokens.user("liar", organization.owner_email, verified=False))
            ],
        },
    }
    for letter, role in ROLES.items():
        api_key = organization.key(role).credential
        columns[letter] = {
            f"{role} member": [bearer(organization.member(role).credential)],
            f"{role} key": [bearer(api_key)],
            f"{role} key as x-api-key": [("x-api-key", api_key)],
        }
    columns["agent"] = {
        "an agent": [bearer(agent)],
        "an agent with x-api-key": [("x-api-key", agent)],
        "another organization's agent": other_agent,
    }
    for role in ("platform-admin", "scanner", "assistant"):
        columns[role] = {role: [bearer(tokens.sign(genie_service_role=role))]}
    return {
        column: {who: Caller(v1, server, *metadata) for who, metadata in people.items()}
        for column, people in columns.items()
    }


def test_the_table_names_every_method(v1):
    methods = {f"{name}.{method.name}" for name, service in services(v1).items() for method in service.methods}
    assert methods == set(MATRIX) == set(REQUESTS)


@pytest.mark.parametrize("method", MATRIX)
def test_who_may_call(method, callers, module_organization):
    allowed = REQUESTS[method][1]
    expected, answered = {}, {}
    for column, people in callers.items():
        mark = MATRIX[method][column]
        for who, caller in people.items():
            expected[who] = {"U": "UNAUTHENTICATED", "-": "PERMISSION_DENIED", "+": allowed}[mark]
            answered[who] = caller.code(method, module_organization.name)
    assert answered == expected


@pytest.mark.parametrize("method", [method for method in MATRIX if "{org}" in str(REQUESTS[method][0])])
def test_a_stranger_cannot_tell_whether_an_organization_exists(method, callers):
    nowhere = "organizations/org-" + secrets.token_hex(6)
    for who, caller in (callers["anyone"] | callers["agent"]).items():
        assert caller.code(method, nowhere) == "PERMISSION_DENIED", who


def test_a_denial_says_the_same_of_what_exists_and_what_does_not(v1, module_organization, connect, server):
    stranger = connect(server, Tokens(server).user("stranger"))
    said = []
    for slug in (module_organization.slug, "org-" + secrets.token_hex(6)):
        with refused("PERMISSION_DENIED") as error:
            stranger.organizations.GetOrganization(v1.GetOrganizationRequest(name=f"organizations/{slug}"))
        said.append((error.details.reason, sorted(error.details.all), error.details.message.replace(slug, "")))
    assert said[0] == said[1]


def test_every_wrong_credential_gets_the_same_answer(v1, callers):
    said = set()
    for caller in callers["invalid"].values():
        with refused("UNAUTHENTICATED") as error:
            v1.AuthServiceStub(caller.channel).WhoAmI(v1.WhoAmIRequest(), metadata=caller.metadata)
        said.add((error.details.reason, error.details.message))
    assert len(said) == 1


def test_who_calls_is_asked_before_the_request_is_read(server):
    call = server.channel().unary_unary("/devopsgenie.v1.FindingService/GetFinding")
    assert code_of(lambda: call(b"\xff\xff not a message", timeout=20)) == "UNAUTHENTICATED"


def test_a_service_that_is_no_platform_admin_sees_no_organization(v1, server, connect, module_organization):
    for role in ("scanner", "assistant"):
        service = connect(server, Tokens(server).sign(genie_service_role=role))
        try:
            listed = service.organizations.ListOrganizations(v1.ListOrganizationsRequest()).organizations
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        else:
            assert not listed, f"a {role} is shown {len(listed)} organizations"


def test_an_agent_is_shown_no_organization(v1, server, connect, module_organization):
    agent = connect(server, module_organization.agent().secret)
    assert not agent.organizations.ListOrganizations(v1.ListOrganizationsRequest()).organizations


def test_a_person_is_what_the_organization_says_not_what_another_does(v1, make_organization, connect, server):
    """An owner here is a viewer there, with one and the same token."""
    here, there = make_organization(), make_organization()
    member = v1.Member(email=here.owner_email, role=v1.VIEWER)
    there.owner.members.CreateMember(v1.CreateMemberRequest(parent=there.name, member=member))
    listing = v1.ListAuditEventsRequest
    assert code_of(lambda: here.owner.audit.ListAuditEvents(listing(parent=here.name))) == "OK"
    assert code_of(lambda: here.owner.audit.ListAuditEvents(listing(parent=there.name))) == "PERMISSION_DENIED"
    assert code_of(lambda: here.owner.members.ListMembers(v1.ListMembersRequest(parent=there.name))) == "OK"


def test_names_of_another_organization_are_found_nowhere(v1, make_organization):
    """What exists there does not exist here: the id alone opens nothing."""
    here, there = make_organization(), make_organization()
    account = there.cloud_account()
    key = there.owner.api_keys.CreateApiKey(
        v1.CreateApiKeyRequest(parent=there.name, api_key=v1.ApiKey(display_name="x", role=v1.VIEWER))
    )
    agent, task = there.agent(), there.task()
    (member,) = there.owner.members.ListMembers(v1.ListMembersRequest(parent=there.name)).members

    def moved(resource):
        return resource.name.replace(there.name, here.name)

    owner = here.owner
    for call in (
        lambda: owner.cloud_accounts.GetCloudAccount(v1.GetCloudAccountRequest(name=moved(account))),
        lambda: owner.cloud_accounts.DeleteCloudAccount(v1.DeleteCloudAccountRequest(name=moved(account))),
        lambda: owner.api_keys.GetApiKey(v1.GetApiKeyRequest(name=moved(key))),
        lambda: owner.api_keys.RevokeApiKey(v1.RevokeApiKeyRequest(name=moved(key))),
        lambda: owner.members.GetMember(v1.GetMemberRequest(name=moved(member))),
        lambda: owner.members.DeleteMember(v1.DeleteMemberRequest(name=moved(member))),
        lambda: owner.agents.GetAgent(v1.GetAgentRequest(name=moved(agent))),
        lambda: owner.agents.RotateAgentKey(v1.RotateAgentKeyRequest(name=moved(agent))),
        lambda: owner.agents.DeleteAgent(v1.DeleteAgentRequest(name=moved(agent))),
        lambda: owner.tasks.GetTask(v1.GetTaskRequest(name=moved(task))),
        lambda: owner.tasks.CancelTask(v1.CancelTaskRequest(name=moved(task))),
    ):
        with refused("NOT_FOUND"):
            call()
    assert (
        code_of(lambda: there.owner.cloud_accounts.GetCloudAccount(v1.GetCloudAccountRequest(name=account.name)))
        == "OK"
    )
