"""WhoAmI: the first thing to try with a credential."""

from conftest import Organization
from genied import refused


def test_a_user_is_told_who_it_is(v1, organization: Organization):
    answer = organization.owner.auth.WhoAmI(v1.WhoAmIRequest())
    assert answer.kind == v1.WhoAmIResponse.USER
    assert answer.caller == f"user:owner-{organization.slug}"
    assert answer.email == organization.owner_email


def test_a_service_is_told_its_role(v1, admin):
    answer = admin.auth.WhoAmI(v1.WhoAmIRequest())
    assert (answer.kind, answer.service_role) == (v1.WhoAmIResponse.SERVICE, v1.PLATFORM_ADMIN)


def test_an_api_key_is_told_its_organization_and_role(v1, organization: Organization):
    answer = organization.key("ANALYST").auth.WhoAmI(v1.WhoAmIRequest())
    assert (answer.kind, answer.organization) == (v1.WhoAmIResponse.API_KEY, organization.name)
    assert answer.role == v1.ANALYST


def test_an_agent_is_told_its_name_and_organization(v1, organization: Organization, connect, server):
    agent = organization.agent()
    answer = connect(server, agent.secret).auth.WhoAmI(v1.WhoAmIRequest())
    assert answer == v1.WhoAmIResponse(
        kind=v1.WhoAmIResponse.AGENT, caller=agent.name, organization=organization.name
    )


def test_without_a_credential_nobody_is_anybody(v1, server, connect):
    with refused("UNAUTHENTICATED"):
        connect(server).auth.WhoAmI(v1.WhoAmIRequest())


def test_grpcurl_needs_no_proto_files(server, grpcurl):
    services = grpcurl("list")
    assert services.returncode == 0, services.stderr
    assert "devopsgenie.v1.FindingService" in services.stdout.split()
    answer = grpcurl("devopsgenie.v1.AuthService/WhoAmI", server.token("me", "--email", "me@example.com"))
    assert answer.returncode == 0, answer.stderr
    assert '"user:me"' in answer.stdout


def test_grpcurl_prints_the_details_of_a_refusal(grpcurl):
    answer = grpcurl("devopsgenie.v1.AuthService/WhoAmI")
    assert "Code: Unauthenticated" in answer.stderr
    assert "google.rpc.ErrorInfo" in answer.stderr and "devopsgenie.dev" in answer.stderr
