"""request_id (AIP-155): a Create that is repeated gives what the first one made, and makes nothing more."""

import secrets
import uuid

import pytest
from calls import at_once, everything
from genied import refused


class Organizations:
    def __init__(self, v1, organization, admin):
        self.v1, self.admin, self.slug = v1, admin, "org-" + secrets.token_hex(6)

    def create(self, request_id):
        return self.admin.organizations.CreateOrganization(
            self.v1.CreateOrganizationRequest(
                organization_id=self.slug,
                organization=self.v1.Organization(display_name="A"),
                owner_email="a@example.com",
                request_id=request_id,
            )
        )

    def count(self):
        listed = everything(self.admin.organizations.ListOrganizations, self.v1.ListOrganizationsRequest())
        return sum(organization.name == f"organizations/{self.slug}" for organization in listed)


class Members:
    def __init__(self, v1, organization, admin):
        self.v1, self.api, self.parent = v1, organization.owner.members, organization.name

    def create(self, request_id):
        member = self.v1.Member(email="eve@example.com", role=self.v1.VIEWER)
        return self.api.CreateMember(
            self.v1.CreateMemberRequest(parent=self.parent, member=member, request_id=request_id)
        )

    def count(self):
        return len(everything(self.api.ListMembers, self.v1.ListMembersRequest(parent=self.parent))) - 1


class ApiKeys:
    def __init__(self, v1, organization, admin):
        self.v1, self.api, self.parent = v1, organization.owner.api_keys, organization.name

    def create(self, request_id):
        key = self.v1.ApiKey(display_name="ci", role=self.v1.VIEWER)
        made = self.api.CreateApiKey(
            self.v1.CreateApiKeyRequest(parent=self.parent, api_key=key, request_id=request_id)
        )
        made.secret = ""  # the first answer alone has it
        return made

    def count(self):
        return len(everything(self.api.ListApiKeys, self.v1.ListApiKeysRequest(parent=self.parent)))


class CloudAccounts:
    def __init__(self, v1, organization, admin):
        self.v1, self.api, self.parent = v1, organization.owner.cloud_accounts, organization.name

    def create(self, request_id):
        account = self.v1.CloudAccount(provider=self.v1.CloudAccount.GITHUB, account_uid="octocat", display_name="x")
        request = self.v1.CreateCloudAccountRequest(parent=self.parent, cloud_account=account, request_id=request_id)
        return self.api.CreateCloudAccount(request)

    def count(self):
        return len(everything(self.api.ListCloudAccounts, self.v1.ListCloudAccountsRequest(parent=self.parent)))


class Agents:
    def __init__(self, v1, organization, admin):
        self.v1, self.organization = v1, organization

    def create(self, request_id):
        made = self.organization.agent(request_id=request_id)
        made.secret = ""  # the first answer alone has it
        return made

    def count(self):
        request = self.v1.ListAgentsRequest(parent=self.organization.name)
        return len(everything(self.organization.owner.agents.ListAgents, request))


class Tasks:
    """With an idempotency key, which a repeat carries too."""

    def __init__(self, v1, organization, admin):
        self.v1, self.organization = v1, organization

    def create(self, request_id):
        return self.organization.task(request_id, idempotency_key="the same")

    def count(self):
        request = self.v1.ListTasksRequest(parent=self.organization.name)
        return len(everything(self.organization.owner.tasks.ListTasks, request))


KINDS = [Organizations, Members, ApiKeys, CloudAccounts, Agents, Tasks]
WITHOUT_BOUND = (ApiKeys, Agents)  # there may be many of the same


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request, v1, organization, admin):
    organization.owner.members.ListMembers(v1.ListMembersRequest(parent=organization.name))  # binds the owner
    return request.param(v1, organization, admin)


def test_a_repeat_gives_what_the_first_made(kind):
    request_id = str(uuid.uuid4())
    first = kind.create(request_id)
    assert kind.create(request_id) == first
    assert kind.create(request_id.upper()) == first, "a UUID is the same in capitals"
    assert kind.count() == 1


def test_repeats_at_once_make_one(kind):
    request_id = str(uuid.uuid4())
    answers = at_once(*[lambda: kind.create(request_id)] * 16)
    failed = [str(answer) for answer in answers if isinstance(answer, Exception)]
    assert not failed, failed[0]
    assert all(answer == answers[0] for answer in answers)
    assert kind.count() == 1


def test_another_request_is_another_request(kind):
    kind.create(str(uuid.uuid4()))
    if isinstance(kind, WITHOUT_BOUND):
        kind.create(str(uuid.uuid4()))
        assert kind.count() == 2
    else:
        with refused("ALREADY_EXISTS"):
            kind.create(str(uuid.uuid4()))
        assert kind.count() == 1


def test_creates_of_the_same_at_once_make_one_where_there_can_be_one(kind):
    answers = at_once(*[lambda: kind.create("")] * 8)
    made = [answer for answer in answers if not isinstance(answer, Exception)]
    if isinstance(kind, WITHOUT_BOUND):
        assert len(made) == 8
    else:
        assert len(made) == 1
        assert {answer.code().name for answer in answers if isinstance(answer, Exception)} == {"ALREADY_EXISTS"}


@pytest.mark.parametrize("bad", ["x", "018f3c1e7b1a7c3d9e2f5a6b7c8d9e0f", "{018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f}"])
def test_a_request_id_is_a_uuid(kind, bad):
    with refused("INVALID_ARGUMENT") as error:
        kind.create(bad)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["request_id"]
    assert kind.count() == 0


def test_the_same_request_id_in_two_organizations_is_two_requests(v1, make_organization):
    request_id = str(uuid.uuid4())
    for _ in range(2):
        assert Members(v1, make_organization(), None).create(request_id).email == "eve@example.com"


def test_a_request_id_outlives_a_change_of_what_it_made(v1, organization, admin):
    kind = CloudAccounts(v1, organization, admin)
    request_id = str(uuid.uuid4())
    made = kind.create(request_id)
    made.display_name = "renamed"
    changed = kind.api.UpdateCloudAccount(v1.UpdateCloudAccountRequest(cloud_account=made))
    assert kind.create(request_id) == changed
