"""Members: invited by address, bound to a person at the first call, and never without an owner."""

import pytest
from calls import at_once, code_of, everything
from genied import refused
from google.protobuf.field_mask_pb2 import FieldMask
from tokens import Tokens


def invite(v1, organization, email, role="VIEWER", **fields):
    member = v1.Member(email=email, role=v1.Role.Value(role))
    request = v1.CreateMemberRequest(parent=organization.name, member=member, **fields)
    return organization.owner.members.CreateMember(request)


def members(v1, organization, api=None):
    return everything((api or organization.owner).members.ListMembers, v1.ListMembersRequest(parent=organization.name))


def get(v1, api, member):
    return api.members.GetMember(v1.GetMemberRequest(name=member.name))


def change(v1, api, member, role, **fields):
    changed = v1.Member(name=member.name, role=v1.Role.Value(role), **fields)
    return api.members.UpdateMember(v1.UpdateMemberRequest(member=changed, update_mask=FieldMask(paths=["role"])))


def remove(v1, api, member, **fields):
    return api.members.DeleteMember(v1.DeleteMemberRequest(name=member.name, **fields))


@pytest.fixture
def person(server, connect):
    """person("subject", "address", verified=True) is an Api for a person."""
    return lambda *claims, **verified: connect(server, Tokens(server).user(*claims, **verified))


def may_read(v1, organization, api):
    return code_of(lambda: members(v1, organization, api)) == "OK"


def test_an_invitation_is_bound_at_the_first_call_with_the_verified_address(v1, organization, person):
    member = invite(v1, organization, "Eve@Example.Com")
    assert (member.email, member.subject, member.HasField("bind_time")) == ("eve@example.com", "", False)
    eve = person("eve", "EVE@example.com")
    assert may_read(v1, organization, eve)
    bound = get(v1, eve, member)
    assert (bound.subject, bound.HasField("bind_time")) == ("eve", True)
    assert bound.etag != member.etag


def test_an_address_that_is_not_verified_binds_nothing(v1, organization, person):
    member = invite(v1, organization, "eve@example.com")
    assert not may_read(v1, organization, person("liar", "eve@example.com", verified=False))
    assert not may_read(v1, organization, person("vague", "eve@example.com", verified=None))
    assert not may_read(v1, organization, person("word", "eve@example.com", verified="true"))
    assert get(v1, organization.owner, member).subject == ""
    assert may_read(v1, organization, person("eve", "eve@example.com"))


def test_a_bound_membership_is_the_subjects_not_the_addresss(v1, organization, person):
    invite(v1, organization, "eve@example.com")
    assert may_read(v1, organization, person("eve", "eve@example.com"))
    assert may_read(v1, organization, person("eve", "eve.new@example.com")), "the person, with a new address"
    assert may_read(v1, organization, person("eve")), "the person, with none"
    assert not may_read(v1, organization, person("mallory", "eve@example.com")), "another person, with the old address"


def test_two_people_with_one_address_cannot_both_be_bound(v1, organization, person):
    invite(v1, organization, "eve@example.com")
    people = [person(f"eve{n}", "eve@example.com") for n in range(8)]
    answers = at_once(*(lambda api=api: members(v1, organization, api) for api in people))
    assert sum(isinstance(answer, list) for answer in answers) == 1


def test_a_persons_first_calls_may_come_all_at_once(v1, organization, person):
    """As those of a web page do, right after the first login."""
    for n in range(5):
        invite(v1, organization, f"eve{n}@example.com")
        eve = person(f"eve{n}", f"eve{n}@example.com")
        answers = at_once(*[lambda eve=eve: members(v1, organization, eve)] * 8)
        assert all(isinstance(answer, list) for answer in answers), [str(answer) for answer in answers]


def test_an_address_is_a_member_once(v1, organization):
    invite(v1, organization, "eve@example.com")
    with refused("ALREADY_EXISTS"):
        invite(v1, organization, "EVE@example.com", role="ADMIN")


@pytest.mark.parametrize(
    "bad", ["", "eve", "eve@", "@example.com", "eve@a@b", "e ve@example.com", "x" * 250 + "@a.example"]
)
def test_an_invitation_needs_an_address(v1, organization, bad):
    with refused("INVALID_ARGUMENT") as error:
        invite(v1, organization, bad)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["member.email"]


def test_an_invitation_needs_a_role(v1, organization):
    with refused("INVALID_ARGUMENT") as error:
        invite(v1, organization, "eve@example.com", role="ROLE_UNSPECIFIED")
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["member.role"]


def test_members_are_listed_in_the_order_of_their_invitations(v1, organization):
    for name in ("zoe", "adam", "mia"):
        invite(v1, organization, f"{name}@example.com")
    emails = [member.email for member in members(v1, organization)]
    assert emails == [organization.owner_email, "zoe@example.com", "adam@example.com", "mia@example.com"]


def test_a_role_holds_from_the_moment_it_is_given(v1, organization, person):
    member = invite(v1, organization, "eve@example.com")
    eve = person("eve", "eve@example.com")
    audit = v1.ListAuditEventsRequest(parent=organization.name)
    for _ in range(3):
        assert code_of(lambda: eve.audit.ListAuditEvents(audit)) == "PERMISSION_DENIED"
        change(v1, organization.owner, member, "ADMIN")
        assert code_of(lambda: eve.audit.ListAuditEvents(audit)) == "OK"
        change(v1, organization.owner, member, "VIEWER")


def test_a_membership_ends_at_once(v1, organization, person):
    member = invite(v1, organization, "eve@example.com")
    eve = person("eve", "eve@example.com")
    assert may_read(v1, organization, eve)
    remove(v1, organization.owner, member)
    assert not may_read(v1, organization, eve)
    with refused("NOT_FOUND"):
        get(v1, organization.owner, member)
    with refused("NOT_FOUND"):
        remove(v1, organization.owner, member)


def test_the_last_owner_stays(v1, organization):
    members(v1, organization)  # binds the owner
    (owner,) = members(v1, organization)
    for attempt in (
        lambda: remove(v1, organization.owner, owner),
        lambda: change(v1, organization.owner, owner, "ADMIN"),
    ):
        with refused("FAILED_PRECONDITION", "LAST_OWNER") as error:
            attempt()
        (violation,) = error.details.all["PreconditionFailure"].violations
        assert violation.type == "LAST_OWNER" and violation.subject == owner.name
    assert members(v1, organization) == [owner]


def test_an_owner_may_go_where_another_stays(v1, organization):
    organization.member("OWNER")
    (first, second) = members(v1, organization)
    remove(v1, organization.owner, second)
    with refused("FAILED_PRECONDITION", "LAST_OWNER"):
        remove(v1, organization.owner, first)


@pytest.mark.parametrize("how", ["both go", "both step down", "one goes and one steps down"])
def test_of_two_owners_who_go_at_once_one_stays(v1, make_organization, how):
    for _ in range(10):
        organization = make_organization()
        second_owner = organization.member("OWNER")
        assert may_read(v1, organization, second_owner)
        first, second = members(v1, organization)

        def go(api, member):
            return lambda: remove(v1, api, member)

        def step_down(api, member):
            return lambda: change(v1, api, member, "ADMIN")

        ways = {
            "both go": (go, go),
            "both step down": (step_down, step_down),
            "one goes and one steps down": (go, step_down),
        }[how]
        answers = at_once(ways[0](organization.owner, second), ways[1](second_owner, first))
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        assert len(failures) == 1
        # The loser was an owner no more, or would have been the last one: whichever was decided first.
        assert failures[0].code().name in ("FAILED_PRECONDITION", "PERMISSION_DENIED")
        assert organization.stored("members", "count(*) FILTER (WHERE role = 5)") == "1"


def test_a_member_that_changed_is_not_changed_unseen(v1, organization):
    member = invite(v1, organization, "eve@example.com")
    changed = change(v1, organization.owner, member, "ADMIN", etag=member.etag)
    assert changed.etag != member.etag
    with refused("ABORTED"):
        change(v1, organization.owner, member, "VIEWER", etag=member.etag)
    with refused("ABORTED"):
        remove(v1, organization.owner, member, etag=member.etag)
    remove(v1, organization.owner, member, etag=changed.etag)
