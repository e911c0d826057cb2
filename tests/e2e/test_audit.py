"""Audit: every write leaves an event that says who changed what with which call, and holds no secret."""

import json
import uuid

import pytest
from calls import everything
from google.protobuf.field_mask_pb2 import FieldMask

METHOD = "devopsgenie.v1.{}"


@pytest.fixture
def audit(v1, organization):
    """audit(call, …) makes a call with a request id of its own, and returns its answer and the events it left."""

    def listed():
        return everything(organization.owner.audit.ListAuditEvents, v1.ListAuditEventsRequest(parent=organization.name))

    def make(call, request):
        request_id = f"audit-{uuid.uuid4()}"
        answer = call(request, metadata=[("x-request-id", request_id)])
        return answer, [event for event in listed() if event.request_id == request_id]

    make.listed = listed
    listed()  # the first call binds the owner's membership, which is an event too
    return make


def changes(event):
    return json.loads(event.changes_json)


def expect(event, organization, method, operation, collection, resource_uid):
    assert event.caller == f"user:owner-{organization.slug}"
    assert event.method == METHOD.format(method)
    assert (event.operation, event.collection, event.row_count) == (operation, collection, 1)
    assert event.resource_uid == resource_uid and event.event_time.seconds


def test_the_making_of_an_organization(v1, organization, audit):
    made = [
        event for event in audit.listed() if event.method == METHOD.format("OrganizationService.CreateOrganization")
    ]
    assert sorted((event.operation, event.collection) for event in made) == [
        ("INSERT", "members"),
        ("INSERT", "organizations"),
    ]
    assert {event.caller for event in made} == {"service:platform"}
    assert organization.resource.uid in [event.resource_uid for event in made]


def test_a_change_of_the_organization(v1, organization, audit):
    changed = v1.Organization(name=organization.name, display_name="Ältere & Söhne")
    answer, (event,) = audit(
        organization.owner.organizations.UpdateOrganization, v1.UpdateOrganizationRequest(organization=changed)
    )
    expect(event, organization, "OrganizationService.UpdateOrganization", "UPDATE", "organizations", answer.uid)
    assert changes(event) == {"display_name": [organization.slug, "Ältere & Söhne"]}


def test_a_deletion_and_its_taking_back(v1, organization, audit):
    owner = organization.owner.organizations
    owner.DeleteOrganization(v1.DeleteOrganizationRequest(name=organization.name))
    _, (undeleted,) = audit(owner.UndeleteOrganization, v1.UndeleteOrganizationRequest(name=organization.name))
    assert set(changes(undeleted)) == {"delete_time", "purge_time"} and changes(undeleted)["delete_time"][1] is None
    deleted = [event for event in audit.listed() if event.method.endswith("DeleteOrganization")]
    assert [event.operation for event in deleted][-1] == "UPDATE"


def test_a_members_way(v1, organization, audit):
    members = organization.owner.members
    member = v1.Member(email="eve@example.com", role=v1.VIEWER)
    made, (event,) = audit(members.CreateMember, v1.CreateMemberRequest(parent=organization.name, member=member))
    expect(event, organization, "MemberService.CreateMember", "INSERT", "members", made.uid)
    assert changes(event)["email"] == "eve@example.com"
    changed = v1.Member(name=made.name, role=v1.ADMIN)
    _, (event,) = audit(
        members.UpdateMember, v1.UpdateMemberRequest(member=changed, update_mask=FieldMask(paths=["role"]))
    )
    expect(event, organization, "MemberService.UpdateMember", "UPDATE", "members", made.uid)
    assert list(changes(event)) == ["role"]
    _, (event,) = audit(members.DeleteMember, v1.DeleteMemberRequest(name=made.name))
    expect(event, organization, "MemberService.DeleteMember", "DELETE", "members", made.uid)
    assert changes(event)["email"] == "eve@example.com"


def test_the_binding_of_a_member_is_its_own_doing(v1, organization, audit):
    eve = organization.member("VIEWER")
    request = v1.ListMembersRequest(parent=organization.name)
    eve.members.ListMembers(request)
    (event,) = [
        e for e in audit.listed() if e.collection == "members" and e.operation == "UPDATE" and "viewer" in e.caller
    ]
    assert changes(event)["subject"][1].startswith("viewer") and event.caller == "user:" + changes(event)["subject"][1]


def test_a_keys_way_without_its_secret(v1, organization, audit):
    keys = organization.owner.api_keys
    key = v1.ApiKey(display_name="ci", role=v1.ANALYST)
    made, (event,) = audit(keys.CreateApiKey, v1.CreateApiKeyRequest(parent=organization.name, api_key=key))
    expect(event, organization, "ApiKeyService.CreateApiKey", "INSERT", "apiKeys", made.uid)
    assert changes(event)["display_name"] == "ci" and "sha256" not in event.changes_json
    _, (event,) = audit(keys.RevokeApiKey, v1.RevokeApiKeyRequest(name=made.name))
    expect(event, organization, "ApiKeyService.RevokeApiKey", "UPDATE", "apiKeys", made.uid)
    assert list(changes(event)) == ["revoke_time"]
    assert made.secret[16:] not in str(audit.listed())


def test_a_key_is_named_as_the_caller(v1, organization, audit):
    key = organization.key("ADMIN")
    name = key.auth.WhoAmI(v1.WhoAmIRequest()).caller
    account = v1.CloudAccount(provider=v1.CloudAccount.GITHUB, account_uid="octocat", display_name="x")
    _, (event,) = audit(
        key.cloud_accounts.CreateCloudAccount,
        v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=account),
    )
    assert event.caller == name and name.startswith(organization.name + "/apiKeys/")


def test_an_accounts_way_without_its_credentials(v1, organization, audit):
    accounts = organization.owner.cloud_accounts
    account = v1.CloudAccount(provider=v1.CloudAccount.GITHUB, account_uid="octocat", display_name="x")
    made, (event,) = audit(
        accounts.CreateCloudAccount, v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=account)
    )
    expect(event, organization, "CloudAccountService.CreateCloudAccount", "INSERT", "cloudAccounts", made.uid)
    changed = v1.CloudAccount(name=made.name, display_name="y")
    _, (event,) = audit(accounts.UpdateCloudAccount, v1.UpdateCloudAccountRequest(cloud_account=changed))
    expect(event, organization, "CloudAccountService.UpdateCloudAccount", "UPDATE", "cloudAccounts", made.uid)
    assert changes(event) == {"display_name": ["x", "y"]}
    secret = "ghp_S3cret" + "x" * 30
    for _ in range(2):
        credentials = v1.SetCloudAccountCredentialsRequest(name=made.name, github=v1.GithubCredentials(token=secret))
        _, events = audit(accounts.SetCloudAccountCredentials, credentials)
        assert "credentials" in {event.collection for event in events}
        assert {event.method for event in events} == {METHOD.format("CloudAccountService.SetCloudAccountCredentials")}
    assert "S3cret" not in str(audit.listed()) and b"S3cret".hex() not in str(audit.listed())
    _, events = audit(accounts.DeleteCloudAccount, v1.DeleteCloudAccountRequest(name=made.name))
    assert ("DELETE", "cloudAccounts", made.uid) in {(e.operation, e.collection, e.resource_uid) for e in events}


def test_a_findings_decisions(v1, organization, audit, scanner):
    scanner.scan(scanner.result())
    finding, api = scanner.finding(), organization.owner.findings
    steps = [
        ("AcknowledgeFinding", v1.AcknowledgeFindingRequest(name=finding.name, note="seen"), "ACKNOWLEDGED"),
        ("ReopenFinding", v1.ReopenFindingRequest(name=finding.name), "OPEN"),
        ("AcceptRisk", v1.AcceptRiskRequest(name=finding.name, justification="a decoy"), "ACCEPTED_RISK"),
        ("WithdrawAcceptance", v1.WithdrawAcceptanceRequest(name=finding.name), "OPEN"),
    ]
    state = "OPEN"
    for method, request, then in steps:
        _, (event,) = audit(getattr(api, method), request)
        expect(event, organization, f"FindingService.{method}", "UPDATE", "findings", finding.uid)
        assert changes(event)["state"] == [state, then]
        state = then
    assert "a decoy" in str(audit.listed())


def test_an_import_names_the_scan_and_counts_no_rows_one_by_one(v1, organization, audit, scanner):
    scan = scanner.scan(*(scanner.result(str(n)) for n in range(100)))
    (event,) = [event for event in audit.listed() if event.collection == "scans"]
    expect(event, organization, "ScanService.ImportResults", "INSERT", "scans", scan.uid)
    assert len([e for e in audit.listed() if e.method.endswith("ImportResults")]) < 5


def test_what_was_refused_or_only_read_leaves_nothing(v1, organization, audit, scanner):
    scanner.scan(scanner.result())
    before = audit.listed()
    organization.owner.findings.GetFinding(v1.GetFindingRequest(name=scanner.finding().name))
    for call, request in (
        ("ReopenFinding", v1.ReopenFindingRequest(name=scanner.finding().name)),
        ("AcknowledgeFinding", v1.AcknowledgeFindingRequest(name=scanner.finding().name, etag="stale")),
    ):
        with pytest.raises(Exception, match="FAILED_PRECONDITION|ABORTED"):
            getattr(organization.owner.findings, call)(request)
    assert audit.listed() == before


def test_events_are_the_organizations_own(v1, make_organization):
    here, there = make_organization(), make_organization()
    there.cloud_account()
    events = everything(here.owner.audit.ListAuditEvents, v1.ListAuditEventsRequest(parent=here.name))
    assert events and there.slug not in str(events)
