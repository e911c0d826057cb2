"""Updates: what the mask names changes and nothing else (AIP-134), and what has changed since is not overwritten."""

import pytest
from calls import at_once
from genied import refused
from google.protobuf.field_mask_pb2 import FieldMask


class Organizations:
    field, other = "display_name", "state"
    value = "Another name"

    def __init__(self, v1, organization):
        self.api, self.resource = organization.owner.organizations, organization.resource
        self.update_request, self.type = v1.UpdateOrganizationRequest, v1.Organization
        self.call, self.carrier = self.api.UpdateOrganization, "organization"
        self.get = lambda: self.api.GetOrganization(v1.GetOrganizationRequest(name=self.resource.name))
        assert self.get() == self.resource  # and the owner's membership is bound


class Members:
    field, other = "role", "subject"

    def __init__(self, v1, organization):
        self.api, self.value = organization.owner.members, v1.ADMIN
        member = v1.Member(email="eve@example.com", role=v1.VIEWER)
        self.resource = self.api.CreateMember(v1.CreateMemberRequest(parent=organization.name, member=member))
        self.update_request, self.type = v1.UpdateMemberRequest, v1.Member
        self.call, self.carrier = self.api.UpdateMember, "member"
        self.get = lambda: self.api.GetMember(v1.GetMemberRequest(name=self.resource.name))


class CloudAccounts:
    field, other = "display_name", "external_id"
    value = "Another name"

    def __init__(self, v1, organization):
        self.api, self.resource = organization.owner.cloud_accounts, organization.cloud_account()
        self.update_request, self.type = v1.UpdateCloudAccountRequest, v1.CloudAccount
        self.call, self.carrier = self.api.UpdateCloudAccount, "cloud_account"
        self.get = lambda: self.api.GetCloudAccount(v1.GetCloudAccountRequest(name=self.resource.name))


class Agents:
    field, other = "display_name", "key_prefix"
    value = "Another name"

    def __init__(self, v1, organization):
        self.api = organization.owner.agents
        self.resource = organization.agent()
        self.resource.secret = ""  # the first answer alone has it
        self.update_request, self.type = v1.UpdateAgentRequest, v1.Agent
        self.call, self.carrier = self.api.UpdateAgent, "agent"
        self.get = lambda: self.api.GetAgent(v1.GetAgentRequest(name=self.resource.name))


IMMUTABLE = {
    Organizations: ["name"],
    Members: ["email", "name"],
    CloudAccounts: ["provider", "account_uid", "name"],
    Agents: ["name"],
}


@pytest.fixture(params=list(IMMUTABLE), ids=lambda kind: kind.__name__)
def kind(request, v1, organization):
    return request.param(v1, organization)


def update(kind, *paths, **fields):
    carried = kind.type(name=kind.resource.name, **fields)
    mask = {"update_mask": FieldMask(paths=paths)} if paths else {}
    return kind.call(kind.update_request(**{kind.carrier: carried}, **mask))


def unchanged(kind):
    return kind.get() == kind.resource


def changed_alone(kind, answer):
    """Only the field, the version and the time of change differ from before."""
    expected = type(answer)()
    expected.CopyFrom(kind.resource)
    setattr(expected, kind.field, kind.value)
    expected.etag = answer.etag
    expected.update_time.CopyFrom(answer.update_time)
    return answer == expected and answer.etag != kind.resource.etag and kind.get() == answer


def test_what_the_mask_names_changes(kind):
    assert changed_alone(kind, update(kind, kind.field, **{kind.field: kind.value}))


def test_without_a_mask_what_is_set_changes(kind):
    assert changed_alone(kind, update(kind, **{kind.field: kind.value}))


def test_an_empty_mask_is_none(kind):
    carried = kind.type(name=kind.resource.name, **{kind.field: kind.value})
    answer = kind.call(kind.update_request(**{kind.carrier: carried}, update_mask=FieldMask()))
    assert changed_alone(kind, answer)


def test_a_star_replaces_all_that_can_be_changed(kind):
    assert changed_alone(kind, update(kind, "*", **{kind.field: kind.value}))


def test_a_star_with_a_required_field_left_out_is_refused(kind):
    with refused("INVALID_ARGUMENT") as error:
        update(kind, "*")
    assert f"{kind.carrier}.{kind.field}" in [v.field for v in error.details.all["BadRequest"].field_violations]
    assert unchanged(kind)


def test_a_required_field_cannot_be_emptied(kind):
    with refused("INVALID_ARGUMENT") as error:
        update(kind, kind.field)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == [f"{kind.carrier}.{kind.field}"]
    assert unchanged(kind)


def test_nothing_to_change_is_refused(kind):
    with refused("INVALID_ARGUMENT"):
        update(kind)
    assert unchanged(kind)


@pytest.mark.parametrize(
    "path",
    ["no_such_field", "", "display_name.x", "displayName", "DISPLAY_NAME", "**", " ", "uid\x00", "x" * 5000, "ä"],
)
def test_a_path_that_is_no_field_is_refused(kind, path):
    with refused("INVALID_ARGUMENT") as error:
        update(kind, kind.field, path, **{kind.field: kind.value})
    assert unchanged(kind)
    if "\x00" not in path:  # that one is refused for its NUL, where the paths are
        assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["update_mask"]


def test_what_the_server_says_cannot_be_set(kind):
    for path in ("uid", "create_time", "update_time", kind.other):
        with refused("INVALID_ARGUMENT"):
            update(kind, path)
        with refused("INVALID_ARGUMENT"):
            update(kind, kind.field, path, **{kind.field: kind.value})
    assert unchanged(kind)


def test_what_is_immutable_cannot_be_changed(kind):
    for path in IMMUTABLE[type(kind)]:
        with refused("INVALID_ARGUMENT"):
            update(kind, path, **{kind.field: kind.value})
    assert unchanged(kind)


def test_what_the_mask_does_not_name_is_ignored_whatever_it_holds(kind):
    answer = update(kind, kind.field, **{kind.field: kind.value, "uid": "not even a UUID"})
    assert changed_alone(kind, answer)


def test_a_star_among_others_is_refused(kind):
    with refused("INVALID_ARGUMENT"):
        update(kind, "*", kind.field, **{kind.field: kind.value})
    assert unchanged(kind)


def test_the_same_path_twice_is_one_path(kind):
    assert changed_alone(kind, update(kind, kind.field, kind.field, **{kind.field: kind.value}))


def test_the_current_etag_lets_a_change_through_and_a_stale_one_does_not(kind):
    first = update(kind, kind.field, **{kind.field: kind.value, "etag": kind.resource.etag})
    for stale in (kind.resource.etag, "0", "x" * 60):
        with refused("ABORTED") as error:
            update(kind, kind.field, **{kind.field: kind.value, "etag": stale})
        assert error.details.all["ResourceInfo"].resource_name == kind.resource.name
    assert kind.get() == first


def test_of_two_changes_of_the_same_version_one_is_refused(kind):
    change = {kind.field: kind.value, "etag": kind.resource.etag}
    answers = at_once(*[lambda: update(kind, kind.field, **change)] * 6)
    codes = sorted(answer.code().name for answer in answers if isinstance(answer, Exception))
    assert codes == ["ABORTED"] * 5


def test_what_is_not_there_is_not_made(kind):
    name = kind.resource.name
    if name.count("/") == 1:
        return  # another organization is none of the caller's: test_access has it
    kind.resource.name = name.rpartition("/")[0] + "/018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"
    with refused("NOT_FOUND") as error:
        update(kind, kind.field, **{kind.field: kind.value})
    assert error.details.all["ResourceInfo"].resource_name == kind.resource.name
