"""API keys: their secret is shown once, their role is at most their maker's, and revoking ends them at once."""

import uuid

import pytest
from calls import code_of, everything, until
from conftest import Organization
from genied import refused

ROLES = ["VIEWER", "ANALYST", "APPROVER", "ADMIN", "OWNER"]


def create(v1, api, organization, role="VIEWER", display_name="ci", expires_in=None, **fields):
    key = v1.ApiKey(display_name=display_name, role=v1.Role.Value(role))
    if expires_in:
        key.expire_time.GetCurrentTime()
        key.expire_time.seconds += expires_in
    return api.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=organization.name, api_key=key, **fields))


def get(v1, api, key):
    return api.api_keys.GetApiKey(v1.GetApiKeyRequest(name=key.name))


def revoke(v1, api, key, **fields):
    return api.api_keys.RevokeApiKey(v1.RevokeApiKeyRequest(name=key.name, **fields))


def works(v1, api):
    return code_of(lambda: api.auth.WhoAmI(v1.WhoAmIRequest())) == "OK"


def test_the_secret_is_shown_once(v1, organization: Organization):
    made = create(v1, organization.owner, organization)
    assert made.secret.startswith("dgk_") and made.key_prefix == made.secret[:16]
    listed = everything(organization.owner.api_keys.ListApiKeys, v1.ListApiKeysRequest(parent=organization.name))
    revoked = revoke(v1, organization.owner, made)
    for seen in (get(v1, organization.owner, made), *listed, revoked):
        assert (seen.name, seen.key_prefix, seen.secret) == (made.name, made.key_prefix, "")


def test_the_secret_is_not_in_the_database(v1, organization: Organization, server):
    made = create(v1, organization.owner, organization)
    secret = made.secret[len(made.key_prefix) :].strip("_")
    assert server.database.query(f"SELECT count(*) FROM api_keys k WHERE k::text LIKE '%{made.key_prefix}%'") == "1"
    for table in ("api_keys", "api_key_prefixes", "audit_events"):
        assert server.database.query(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%{secret}%'") == "0", table


def test_a_repeat_gives_the_first_ones_key_without_its_secret(v1, organization: Organization):
    request_id = str(uuid.uuid4())
    first = create(v1, organization.owner, organization, request_id=request_id)
    again = create(v1, organization.owner, organization, request_id=request_id)
    assert again.name == first.name and again.secret == ""
    first.ClearField("secret")
    assert again == first


@pytest.mark.parametrize("maker", ["ADMIN", "OWNER"])
def test_a_key_is_at_most_what_its_maker_is(v1, organization: Organization, maker):
    for caller in (organization.member(maker), organization.key(maker)):
        for role in ROLES:
            if ROLES.index(role) <= ROLES.index(maker):
                assert create(v1, caller, organization, role).role == v1.Role.Value(role)
            else:
                with refused("PERMISSION_DENIED"):
                    create(v1, caller, organization, role)


@pytest.mark.parametrize("caller", ["ADMIN", "OWNER"])
def test_a_key_is_ended_by_no_lesser_role(v1, organization: Organization, connect, server, caller):
    for api in (organization.member(caller), organization.key(caller)):
        for role in ROLES:
            made = create(v1, organization.owner, organization, role)
            if ROLES.index(role) <= ROLES.index(caller):
                assert revoke(v1, api, made).HasField("revoke_time")
            else:
                for etag in ("", "0"):
                    with refused("PERMISSION_DENIED", "ROLE_ABOVE_CALLER"):
                        revoke(v1, api, made, etag=etag)
                assert works(v1, connect(server, made.secret))


def test_a_key_says_who_made_it(v1, organization: Organization):
    made = create(v1, organization.owner, organization)
    assert made.creator == organization.owner.auth.WhoAmI(v1.WhoAmIRequest()).caller


def test_a_key_calls_with_either_header(v1, organization: Organization, server):
    made = create(v1, organization.owner, organization)
    stub = v1.AuthServiceStub(server.channel())
    for header in (
        ("authorization", f"Bearer {made.secret}"),
        ("authorization", f"bearer {made.secret}"),
        ("x-api-key", made.secret),
    ):
        assert stub.WhoAmI(v1.WhoAmIRequest(), metadata=[header]).caller == made.name


def test_revoking_ends_a_key_at_once(v1, organization: Organization, connect, server):
    for _ in range(5):
        made = create(v1, organization.owner, organization)
        caller = connect(server, made.secret)
        assert works(v1, caller)
        revoked = revoke(v1, organization.owner, made)
        assert revoked.HasField("revoke_time") and revoked.etag != made.etag
        assert not works(v1, caller)


def test_revoking_a_revoked_key_changes_nothing(v1, organization: Organization):
    made = create(v1, organization.owner, organization)
    assert revoke(v1, organization.owner, made) == revoke(v1, organization.owner, made)


def test_a_key_may_end_itself(v1, organization: Organization, connect, server):
    made = create(v1, organization.owner, organization, "ADMIN")
    caller = connect(server, made.secret)
    revoke(v1, caller, made)
    assert not works(v1, caller)


def test_a_key_ends_by_itself(v1, organization: Organization, connect, server):
    made = create(v1, organization.owner, organization, expires_in=2)
    caller = connect(server, made.secret)
    assert caller.auth.WhoAmI(v1.WhoAmIRequest()).expire_time.seconds == made.expire_time.seconds
    until(lambda: not works(v1, caller), 10)


def test_a_key_cannot_have_ended_before_it_begins(v1, organization: Organization):
    with refused("INVALID_ARGUMENT") as error:
        create(v1, organization.owner, organization, expires_in=-60)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["api_key.expire_time"]


def test_a_key_that_changed_is_not_revoked_unseen(v1, organization: Organization, connect, server):
    made = create(v1, organization.owner, organization)
    with refused("ABORTED"):
        revoke(v1, organization.owner, made, etag=made.etag + "0")
    assert works(v1, connect(server, made.secret))
    revoke(v1, organization.owner, made, etag=made.etag)


def test_keys_are_listed_newest_first_dead_ones_included(v1, organization: Organization):
    names = [create(v1, organization.owner, organization, display_name=str(n)).name for n in range(3)]
    revoke(v1, organization.owner, v1.ApiKey(name=names[1]))
    listed = everything(organization.owner.api_keys.ListApiKeys, v1.ListApiKeysRequest(parent=organization.name))
    assert [key.name for key in listed] == names[::-1]


def test_a_key_stays_in_its_organization(v1, make_organization, connect, server):
    here, there = make_organization(), make_organization()
    caller = connect(server, create(v1, here.owner, here, "OWNER").secret)
    with refused("PERMISSION_DENIED"):
        create(v1, caller, there)


def test_use_is_noted_by_the_day(v1, organization: Organization, connect, server):
    made = create(v1, organization.owner, organization)
    assert works(v1, connect(server, made.secret))
    used = until(lambda: get(v1, organization.owner, made).last_use_time.seconds, 90)
    assert used % 86400 == 0 and abs(used - made.create_time.seconds) <= 86400
    assert get(v1, organization.owner, made).etag == made.etag
