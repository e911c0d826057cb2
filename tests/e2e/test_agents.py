"""Agents: their keys are shown once, rotated with an overlap, and end with them."""

import uuid

import pytest
from calls import code_of, everything, until
from conftest import Organization
from genied import refused
from google.protobuf.duration_pb2 import Duration


def get(v1, organization, agent):
    return organization.owner.agents.GetAgent(v1.GetAgentRequest(name=agent.name))


def rotate(v1, organization, agent, overlap=None, **fields):
    if overlap is not None:
        fields["overlap"] = Duration(seconds=overlap)
    return organization.owner.agents.RotateAgentKey(v1.RotateAgentKeyRequest(name=agent.name, **fields))


def works(v1, connect, server, agent):
    return code_of(lambda: connect(server, agent.secret).auth.WhoAmI(v1.WhoAmIRequest())) == "OK"


def test_a_new_agent_is_not_connected(v1, organization: Organization):
    made = organization.agent("build cluster")
    assert made.name == f"{organization.name}/agents/{made.uid}" and made.display_name == "build cluster"
    assert made.state == v1.Agent.DISCONNECTED
    assert not made.HasField("state_time") and not made.HasField("last_seen_time")
    assert made.creator == organization.owner.auth.WhoAmI(v1.WhoAmIRequest()).caller
    assert (made.version, dict(made.labels), list(made.kinds), list(made.running_tasks)) == ("", {}, [], [])
    assert not made.key_offered and made.create_time == made.update_time and made.etag


def test_the_key_is_shown_once(v1, organization: Organization):
    made = organization.agent()
    assert made.secret.startswith("dga_") and made.key_prefix == made.secret[:16]
    listed = everything(organization.owner.agents.ListAgents, v1.ListAgentsRequest(parent=organization.name))
    renamed = organization.owner.agents.UpdateAgent(
        v1.UpdateAgentRequest(agent=v1.Agent(name=made.name, display_name="x"))
    )
    for seen in (get(v1, organization, made), *listed, renamed):
        assert (seen.name, seen.key_prefix, seen.secret) == (made.name, made.key_prefix, "")


def test_the_key_is_not_in_the_database_and_not_in_the_log(v1, organization: Organization, server):
    made = organization.agent()
    rotated = rotate(v1, organization, made)
    for key in (made, rotated):
        secret = key.secret[len(key.key_prefix) :].strip("_")
        for table in ("agent_keys", "agent_key_prefixes", "agents", "audit_events", "agent_events"):
            assert server.database.query(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%{secret}%'") == "0"
        assert secret not in server.log.read_text()
    assert organization.stored("agent_keys") == "2"


def test_a_repeat_gives_the_first_ones_agent_without_its_key(v1, organization: Organization):
    request_id = str(uuid.uuid4())
    first = organization.agent(request_id=request_id)
    again = organization.agent("another name", request_id=request_id)
    first.secret = ""
    assert again == first
    assert organization.stored("agent_keys") == "1"


def test_rotation_leaves_the_older_key_its_time(v1, organization: Organization, connect, server):
    made = organization.agent()
    rotated = rotate(v1, organization, made)
    assert rotated.secret.startswith("dga_") and rotated.secret != made.secret
    assert rotated.key_prefix == rotated.secret[:16] and rotated.etag != made.etag
    assert works(v1, connect, server, made) and works(v1, connect, server, rotated)
    left = organization.stored("agent_keys", "extract(epoch FROM max(t.expire_time - t.create_time))::int")
    assert abs(int(left) - 86400) < 60


def test_rotation_without_overlap_ends_the_older_key_at_once(v1, organization: Organization, connect, server):
    for _ in range(3):
        made = organization.agent()
        assert works(v1, connect, server, made)
        rotated = rotate(v1, organization, made, overlap=0)
        assert not works(v1, connect, server, made)
        assert works(v1, connect, server, rotated)


def test_a_key_ends_after_its_overlap(v1, organization: Organization, connect, server):
    made = organization.agent()
    rotate(v1, organization, made, overlap=2)
    caller = connect(server, made.secret)
    assert caller.auth.WhoAmI(v1.WhoAmIRequest()).HasField("expire_time")
    until(lambda: not works(v1, connect, server, made), 10)


def test_a_longer_overlap_does_not_bring_a_key_back(v1, organization: Organization, connect, server):
    made = organization.agent()
    second = rotate(v1, organization, made, overlap=0)
    rotate(v1, organization, made, overlap=3600)
    assert not works(v1, connect, server, made)
    assert works(v1, connect, server, second)
    assert organization.stored("agent_keys") == "2", "what has ended is not kept"


@pytest.mark.parametrize("overlap", [Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=30 * 86400, nanos=1)])
def test_an_overlap_has_its_bounds(v1, organization: Organization, overlap):
    made = organization.agent()
    with refused("INVALID_ARGUMENT") as error:
        organization.owner.agents.RotateAgentKey(v1.RotateAgentKeyRequest(name=made.name, overlap=overlap))
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["overlap"]


def test_a_rotation_in_the_channel_waits_for_the_agent(v1, organization: Organization, connect, server):
    """The key is made when the agent is there; nobody else ever sees it."""
    made = organization.agent()
    rotated = rotate(v1, organization, made, in_channel=True)
    assert rotated.secret == "" and rotated.key_offered and rotated.key_prefix == made.key_prefix
    assert organization.stored("agent_keys") == "1"
    assert works(v1, connect, server, made)
    # One that is shown instead takes its place.
    shown = rotate(v1, organization, made)
    assert shown.secret and not shown.key_offered
    assert not get(v1, organization, made).key_offered


def test_of_a_change_that_was_not_seen_nothing_comes(v1, organization: Organization, connect, server):
    made = organization.agent()
    agents = organization.owner.agents
    for call in (
        lambda: rotate(v1, organization, made, etag="0"),
        lambda: rotate(v1, organization, made, etag="0", in_channel=True),
        lambda: agents.DeleteAgent(v1.DeleteAgentRequest(name=made.name, etag="0")),
    ):
        with refused("ABORTED", "ETAG_MISMATCH"):
            call()
    assert organization.stored("agent_keys") == "1" and works(v1, connect, server, made)
    made.secret = ""
    assert get(v1, organization, made) == made
    agents.DeleteAgent(v1.DeleteAgentRequest(name=made.name, etag=made.etag))


def test_deleting_an_agent_ends_its_keys_at_once(v1, organization: Organization, connect, server):
    for _ in range(3):
        made = organization.agent()
        rotated = rotate(v1, organization, made)
        assert works(v1, connect, server, made) and works(v1, connect, server, rotated)
        organization.owner.agents.DeleteAgent(v1.DeleteAgentRequest(name=made.name))
        assert not works(v1, connect, server, made) and not works(v1, connect, server, rotated)
        with refused("NOT_FOUND"):
            get(v1, organization, made)
    assert organization.stored("agent_keys") == organization.stored("agent_key_prefixes") == "0"


def test_an_agent_of_a_deleted_organization_is_told_so(v1, organization: Organization, connect, server):
    made = organization.agent()
    organization.owner.organizations.DeleteOrganization(v1.DeleteOrganizationRequest(name=organization.name))
    agent = connect(server, made.secret)
    channel = v1.TaskChannelServiceStub(agent.channel)
    with refused("FAILED_PRECONDITION", "ORGANIZATION_DELETED") as error:
        list(channel.Connect(iter([v1.WorkerMessage()]), timeout=20))
    assert organization.name in error.details.message
    assert agent.auth.WhoAmI(v1.WhoAmIRequest()).caller == made.name


def test_what_happens_to_an_agent_is_an_event(v1, organization: Organization):
    made = organization.agent()
    rotate(v1, organization, made)
    organization.owner.agents.DeleteAgent(v1.DeleteAgentRequest(name=made.name))
    told = organization.stored("agent_events", "string_agg(t.event::text, ',' ORDER BY position, sequence)")
    assert told == ",".join(str(e) for e in (
        v1.WatchAgentsResponse.CREATED, v1.WatchAgentsResponse.UPDATED, v1.WatchAgentsResponse.DELETED
    ))  # fmt: skip
