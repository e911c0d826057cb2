"""Organizations: made by a platform-admin, owned by people, deleted for 30 days before they are gone."""

import secrets
from datetime import timedelta

import pytest
from calls import everything
from genied import refused
from tokens import Tokens


def slug():
    return "org-" + secrets.token_hex(6)


def create(v1, admin, organization_id, display_name="Acme", owner_email="first@acme.example", **fields):
    return admin.organizations.CreateOrganization(
        v1.CreateOrganizationRequest(
            organization_id=organization_id,
            organization=v1.Organization(display_name=display_name),
            owner_email=owner_email,
            **fields,
        )
    )


def get(v1, api, name):
    return api.organizations.GetOrganization(v1.GetOrganizationRequest(name=name))


def listed(v1, api, **fields):
    request = v1.ListOrganizationsRequest(**fields)
    return [organization.name for organization in everything(api.organizations.ListOrganizations, request)]


def delete(v1, organization, **fields):
    request = v1.DeleteOrganizationRequest(name=organization.name, **fields)
    return organization.owner.organizations.DeleteOrganization(request)


def undelete(v1, organization, **fields):
    request = v1.UndeleteOrganizationRequest(name=organization.name, **fields)
    return organization.owner.organizations.UndeleteOrganization(request)


def test_a_new_organization_is_complete_and_its_owner_invited(v1, admin, connect, server):
    made = create(v1, admin, slug(), owner_email="First@Acme.Example")
    assert (made.display_name, made.state) == ("Acme", v1.Organization.ACTIVE)
    assert made.uid and made.etag and made.create_time.seconds and made.update_time == made.create_time
    assert not made.HasField("delete_time") and not made.HasField("purge_time")

    owner = connect(server, Tokens(server).user("first", "first@acme.example"))
    assert get(v1, owner, made.name) == made
    (member,) = owner.members.ListMembers(v1.ListMembersRequest(parent=made.name)).members
    assert (member.email, member.role, member.subject) == ("first@acme.example", v1.OWNER, "first")


def test_what_only_the_server_says_is_ignored_in_a_create(v1, admin):
    organization = v1.Organization(
        display_name="A", uid="x", state=v1.Organization.DELETED, etag="y", name="organizations/z"
    )
    organization.create_time.seconds = 1
    made = admin.organizations.CreateOrganization(
        v1.CreateOrganizationRequest(organization_id=slug(), organization=organization, owner_email="a@example.com")
    )
    assert made.state == v1.Organization.ACTIVE and made.uid != "x" and made.create_time.seconds > 1


def test_a_slug_is_taken_once(v1, admin, organization):
    with refused("ALREADY_EXISTS"):
        create(v1, admin, organization.slug)


@pytest.mark.parametrize(
    "bad", ["", "ab", "Abc", "1abc", "-abc", "a_b", "a.b", "a b", "ä-corp", "a" * 64, "abc/def", "abc\n"]
)
def test_a_slug_has_its_form(v1, admin, bad):
    with refused("INVALID_ARGUMENT") as error:
        create(v1, admin, bad)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["organization_id"]


def test_the_longest_and_the_shortest_slug(v1, admin):
    for good in ("a" + secrets.token_hex(31), "z" + secrets.token_hex(1)):
        assert create(v1, admin, good).name == f"organizations/{good}"


@pytest.mark.parametrize("bad", ["", "a", "@example.com", "a@", "a@b@c.example", "a b@example.com", "a\x01@b.example"])
def test_the_first_owner_needs_an_address(v1, admin, bad):
    with refused("INVALID_ARGUMENT") as error:
        create(v1, admin, slug(), owner_email=bad)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["owner_email"]


def test_a_display_name_is_for_people_in_any_script(v1, admin):
    for name in ("Müller & Söhne", "株式会社", "🧞" * 100, "<b>O'Neil</b>"):
        assert create(v1, admin, slug(), display_name=name).display_name == name
    for name in ("", "x" * 101, "🧞" * 101):
        with refused("INVALID_ARGUMENT") as error:
            create(v1, admin, slug(), display_name=name)
        fields = [v.field for v in error.details.all["BadRequest"].field_violations]
        assert fields == ["organization.display_name"]


def test_list_gives_everyone_what_is_theirs(v1, admin, make_organization, server, connect):
    first, second = make_organization(), make_organization()
    second.owner.members.CreateMember(
        v1.CreateMemberRequest(parent=second.name, member=v1.Member(email=first.owner_email, role=v1.VIEWER))
    )
    assert {first.name, second.name} <= set(listed(v1, admin))
    assert listed(v1, first.owner) == sorted([first.name, second.name])
    assert listed(v1, second.owner) == [second.name]
    assert listed(v1, first.key("VIEWER")) == [first.name]
    assert listed(v1, connect(server, Tokens(server).user("nobody", "nobody@example.com"))) == []
    assert listed(v1, connect(server, Tokens(server).user("liar", first.owner_email, verified=False))) == []


def test_list_is_in_the_order_of_slugs(v1, admin, make_organization):
    for _ in range(3):
        make_organization()
    names = listed(v1, admin)
    assert names == sorted(names)


def test_a_deleted_organization_is_out_of_use_at_once(v1, organization):
    key = organization.key("OWNER")
    assert len(listed(v1, key)) == 1
    deleted = delete(v1, organization)
    assert deleted.state == v1.Organization.DELETED
    assert deleted.purge_time.ToDatetime() - deleted.delete_time.ToDatetime() == timedelta(days=30)
    for caller in (organization.owner, key):
        with refused("FAILED_PRECONDITION") as error:
            caller.members.ListMembers(v1.ListMembersRequest(parent=organization.name))
        assert error.details.all["PreconditionFailure"].violations
        assert get(v1, caller, organization.name).state == v1.Organization.DELETED
    assert listed(v1, organization.owner) == []
    assert listed(v1, organization.owner, show_deleted=True) == [organization.name]


def test_a_deleted_slug_stays_taken(v1, admin, organization):
    delete(v1, organization)
    with refused("ALREADY_EXISTS"):
        create(v1, admin, organization.slug)


def test_a_deletion_can_be_taken_back(v1, organization):
    account = organization.cloud_account()
    delete(v1, organization)
    back = undelete(v1, organization)
    assert back.state == v1.Organization.ACTIVE
    assert not back.HasField("delete_time") and not back.HasField("purge_time")
    request = v1.GetCloudAccountRequest(name=account.name)
    assert organization.owner.cloud_accounts.GetCloudAccount(request) == account


def test_what_is_deleted_cannot_be_deleted_and_what_is_not_cannot_be_undeleted(v1, organization):
    with refused("ALREADY_EXISTS"):  # AIP-164
        undelete(v1, organization)
    delete(v1, organization)
    with refused("FAILED_PRECONDITION"):
        delete(v1, organization)


def test_a_stranger_does_not_learn_that_an_organization_was_deleted(v1, organization, server, connect):
    delete(v1, organization)
    with refused("PERMISSION_DENIED"):
        get(v1, connect(server, Tokens(server).user("stranger")), organization.name)
    member = connect(server, Tokens(server).user("other", "other@example.com"))
    with refused("PERMISSION_DENIED"):
        member.members.ListMembers(v1.ListMembersRequest(parent=organization.name))


def test_an_organization_that_changed_is_not_deleted_unseen(v1, organization):
    with refused("ABORTED"):
        delete(v1, organization, etag="0")
    etag = get(v1, organization.owner, organization.name).etag
    assert delete(v1, organization, etag=etag).state == v1.Organization.DELETED
    with refused("ABORTED"):
        undelete(v1, organization, etag=etag)
