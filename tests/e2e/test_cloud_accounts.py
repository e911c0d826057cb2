"""Cloud accounts of five providers, and their credentials, which go in and never come out."""

import functools
import json
import uuid

import pytest
from calls import code_of, everything
from genied import refused

GOOD_IDS = {
    "AWS": ["123456789012", "000000000000"],
    "AZURE": ["018f3c1e-7b1a-4c3d-9e2f-5a6b7c8d9e0f"],
    "GCP": ["acme-production-1", "abcdef", "a" + "b" * 29],
    "KUBERNETES": ["demo-context", "arn:aws:eks:eu-west-1:123456789012:cluster/acme", "kind@местный", "x" * 253, "c"],
    "GITHUB": ["octocat", "a", "Some-Org-1", "x" * 39],
}
BAD_IDS = {
    "AWS": [
        "12345678901",
        "1234567890123",
        "12345678901a",
        "123 56789012",
        "１２３４５６７８９０１２",
        "123456789012\n",
    ],
    "AZURE": [
        "018f3c1e7b1a4c3d9e2f5a6b7c8d9e0f",
        "018f3c1e-7b1a-4c3d-9e2f-5a6b7c8d9e0",
        "zzzzzzzz-7b1a-4c3d-9e2f-5a6b7c8d9e0f",
    ],
    "GCP": ["short", "Upper-case", "1-begins-with-a-digit", "ends-with-a-hyphen-", "under_score", "a" * 31],
    "KUBERNETES": ["two words", "tab\tbed", "new\nline", "\x7fdelete", "x" * 254],
    "GITHUB": ["-begins", "ends-", "two--hyphens", "under_score", "x" * 40, "dot.ted"],
}
KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n# S3cret-kubeconfig\n"
GCP_KEY = {
    "type": "service_account",
    "client_email": "scanner@acme.iam.gserviceaccount.com",
    "private_key": "-----BEGIN PRIVATE KEY-----\nS3cretGcpKey\n-----END PRIVATE KEY-----\n",
}
AWS_SECRET = "S3cretAws/" + "k" * 29 + "="
GITHUB_SECRET = "S3cretGithub" + "x" * 24
ANY_UUID = str(uuid.uuid4())

GOOD_CREDENTIALS = {
    "AWS": [
        {"aws": {"role_arn": "arn:aws:iam::123456789012:role/S3cretRole"}},
        {"aws": {"role_arn": "arn:aws-us-gov:iam::123456789012:role/path/S3cretRole"}},
        {"aws": {"access_key_id": "AKIA" + "A1" * 8, "secret_access_key": AWS_SECRET}},
        {"aws": {"access_key_id": "ASIA" + "A1" * 8, "secret_access_key": AWS_SECRET, "session_token": "S3cretToken"}},
    ],
    "AZURE": [{"azure": {"tenant_id": ANY_UUID, "client_id": ANY_UUID, "client_secret": "S3cretAzure~"}}],
    "GCP": [{"gcp": {"service_account_key": json.dumps(GCP_KEY)}}],
    "KUBERNETES": [{"kubernetes": {"kubeconfig": KUBECONFIG}}],
    "GITHUB": [{"github": {"token": prefix + GITHUB_SECRET}} for prefix in ("ghp_", "gho_", "ghs_", "github_pat_")],
}
BAD_CREDENTIALS = {
    "AWS": [
        {"aws": {}},
        {"aws": {"role_arn": "arn:aws:iam::123456789012:user/someone"}},
        {"aws": {"role_arn": "arn:aws:iam::999999999999:role/another-account"}},
        {"aws": {"role_arn": "role/x"}},
        {"aws": {"access_key_id": "AKIA" + "A1" * 8}},
        {"aws": {"access_key_id": "BKIA" + "A1" * 8, "secret_access_key": AWS_SECRET}},
        {"aws": {"access_key_id": "AKIA" + "a1" * 8, "secret_access_key": AWS_SECRET}},
        {"aws": {"access_key_id": "AKIA" + "A1" * 8, "secret_access_key": AWS_SECRET[1:]}},
        {"aws": {"access_key_id": "ASIA" + "A1" * 8, "secret_access_key": AWS_SECRET}},
        {"aws": {"access_key_id": "AKIA" + "A1" * 8, "secret_access_key": AWS_SECRET, "session_token": "of no use"}},
        {
            "aws": {
                "role_arn": "arn:aws:iam::123456789012:role/x",
                "access_key_id": "AKIA" + "A1" * 8,
                "secret_access_key": AWS_SECRET,
            }
        },
    ],
    "AZURE": [
        {"azure": {}},
        {"azure": {"tenant_id": "contoso", "client_id": ANY_UUID, "client_secret": "x"}},
        {"azure": {"tenant_id": ANY_UUID, "client_id": ANY_UUID}},
        {"azure": {"tenant_id": ANY_UUID, "client_id": ANY_UUID, "client_secret": "x" * 1001}},
    ],
    "GCP": [
        {"gcp": {"service_account_key": "not JSON"}},
        {"gcp": {"service_account_key": json.dumps({**GCP_KEY, "type": "authorized_user"})}},
        {"gcp": {"service_account_key": json.dumps({"type": "service_account"})}},
        {"gcp": {"service_account_key": json.dumps(GCP_KEY)[:-1]}},
        {"gcp": {"service_account_key": json.dumps({**GCP_KEY, "x": "y" * 16384})}},
    ],
    "KUBERNETES": [
        {"kubernetes": {}},
        {"kubernetes": {"kubeconfig": "just words"}},
        {"kubernetes": {"kubeconfig": KUBECONFIG + "x" * 65536}},
    ],
    "GITHUB": [
        {"github": {}},
        {"github": {"token": "ghx_" + GITHUB_SECRET}},
        {"github": {"token": "password"}},
        {"github": {"token": "ghp_" + GITHUB_SECRET + " "}},
        {"github": {"token": "ghp_" + "x" * 252}},
    ],
}


def cases(table):
    return [pytest.param(p, case, id=f"{p}-{n}") for p, these in table.items() for n, case in enumerate(these)]


def set_credentials(v1, organization, account, **fields):
    request = v1.SetCloudAccountCredentialsRequest(name=account.name, **fields)
    return organization.owner.cloud_accounts.SetCloudAccountCredentials(request)


def get(v1, organization, account):
    return organization.owner.cloud_accounts.GetCloudAccount(v1.GetCloudAccountRequest(name=account.name))


def delete(v1, organization, account, **fields):
    request = v1.DeleteCloudAccountRequest(name=account.name, **fields)
    return organization.owner.cloud_accounts.DeleteCloudAccount(request)


def secrets_of(credentials):
    ((kind, fields),) = credentials.items()
    return [value for name, value in fields.items() if value != ANY_UUID]


@pytest.mark.parametrize("provider, account_uid", cases(GOOD_IDS))
def test_an_account_is_made_with_its_providers_id(v1, module_organization, provider, account_uid):
    made = module_organization.cloud_account(account_uid, provider)
    assert (made.provider, made.account_uid) == (v1.CloudAccount.Provider.Value(provider), account_uid)
    assert made.uid == made.name.rpartition("/")[2] and made.etag and not made.HasField("credentials_time")
    assert bool(made.external_id) == (provider == "AWS")
    assert get(v1, module_organization, made) == made


@pytest.mark.parametrize("provider, account_uid", cases(BAD_IDS))
def test_an_account_is_not_made_with_anything_else(v1, module_organization, provider, account_uid):
    with refused("INVALID_ARGUMENT") as error:
        module_organization.cloud_account(account_uid, provider)
    fields = [v.field for v in error.details.all["BadRequest"].field_violations]
    assert fields == ["cloud_account.account_uid"]


def test_an_account_needs_provider_id_and_name(v1, organization):
    request = v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=v1.CloudAccount())
    with refused("INVALID_ARGUMENT") as error:
        organization.owner.cloud_accounts.CreateCloudAccount(request)
    fields = {v.field for v in error.details.all["BadRequest"].field_violations}
    assert fields == {"cloud_account.provider", "cloud_account.account_uid", "cloud_account.display_name"}


def test_an_account_is_connected_once(v1, organization, make_organization):
    organization.cloud_account()
    with refused("ALREADY_EXISTS"):
        organization.cloud_account()
    organization.cloud_account("octocat", "GITHUB")
    assert make_organization().cloud_account().account_uid == "123456789012", "another organization may have it too"


def test_an_azure_subscription_is_one_in_either_case(v1, organization):
    """A UUID is the same in capitals (RFC 9562)."""
    organization.cloud_account(ANY_UUID, "AZURE")
    with refused("ALREADY_EXISTS"):
        organization.cloud_account(ANY_UUID.upper(), "AZURE")


def test_every_aws_account_has_an_external_id_of_its_own(v1, organization, make_organization):
    first = organization.cloud_account()
    second = make_organization().cloud_account()
    assert first.external_id != second.external_id and min(len(first.external_id), len(second.external_id)) >= 16


def test_nobody_chooses_an_external_id(v1, organization):
    account = v1.CloudAccount(
        provider=v1.CloudAccount.AWS, account_uid="123456789012", display_name="x", external_id="mine"
    )
    request = v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=account)
    assert organization.owner.cloud_accounts.CreateCloudAccount(request).external_id != "mine"


@pytest.mark.parametrize("provider, credentials", cases(GOOD_CREDENTIALS))
def test_credentials_go_in_and_never_come_out(v1, organization, provider, credentials):
    account = organization.cloud_account(GOOD_IDS[provider][0], provider)
    answer = set_credentials(v1, organization, account, **credentials)
    assert answer.HasField("credentials_time") and answer.etag != account.etag
    listed = everything(
        organization.owner.cloud_accounts.ListCloudAccounts, v1.ListCloudAccountsRequest(parent=organization.name)
    )
    audited = everything(organization.owner.audit.ListAuditEvents, v1.ListAuditEventsRequest(parent=organization.name))
    shown = str([answer, get(v1, organization, account), listed, audited])
    for secret in secrets_of(credentials):
        assert secret not in shown


def test_credentials_are_sealed_in_the_database_and_not_in_the_log(v1, organization, server):
    for provider, several in GOOD_CREDENTIALS.items():
        account = organization.cloud_account(GOOD_IDS[provider][0], provider)
        for credentials in several:
            set_credentials(v1, organization, account, **credentials)
        for credentials in BAD_CREDENTIALS[provider]:
            code_of(functools.partial(set_credentials, v1, organization, account, **credentials))
    assert organization.stored("credentials") == str(len(GOOD_CREDENTIALS)), "a new record takes the old one's place"
    tables = server.database.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    for table in tables.split():
        # As text, and as bytes: a bytea prints in hexadecimal.
        for mark in ("S3cret", "S3cret".encode().hex()):
            found = server.database.query(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%{mark}%'")
            assert found == "0", f"{mark} in {table}"
    assert "S3cret" not in server.log.read_text(errors="replace")


@pytest.mark.parametrize("provider, credentials", cases(BAD_CREDENTIALS))
def test_credentials_have_their_providers_form(v1, organization, provider, credentials):
    account = organization.cloud_account(GOOD_IDS[provider][0], provider)
    with refused("INVALID_ARGUMENT") as error:
        set_credentials(v1, organization, account, **credentials)
    ((kind, fields),) = credentials.items()
    assert all(v.field.split(".")[0] == kind for v in error.details.all["BadRequest"].field_violations)
    for value in fields.values():
        # The error names the field and does not repeat what may be a secret.
        assert len(value) < 8 or value not in str(error.details.all) + error.details.message
    assert not get(v1, organization, account).HasField("credentials_time")


def test_credentials_are_of_the_accounts_provider(v1, organization):
    for provider in GOOD_IDS:
        account = organization.cloud_account(GOOD_IDS[provider][0], provider)
        for other, (credentials, *_) in GOOD_CREDENTIALS.items():
            if other != provider:
                with refused("INVALID_ARGUMENT"):
                    set_credentials(v1, organization, account, **credentials)
        assert get(v1, organization, account) == account


def test_credentials_must_be_given(v1, organization):
    with refused("INVALID_ARGUMENT"):
        set_credentials(v1, organization, organization.cloud_account())


def test_credentials_of_an_account_that_changed_are_not_replaced_unseen(v1, organization):
    account = organization.cloud_account()
    credentials = GOOD_CREDENTIALS["AWS"][0]
    changed = set_credentials(v1, organization, account, etag=account.etag, **credentials)
    with refused("ABORTED"):
        set_credentials(v1, organization, account, etag=account.etag, **credentials)
    set_credentials(v1, organization, account, etag=changed.etag, **credentials)


def test_sealed_credentials_differ_each_time(v1, organization, server):
    """The same secret twice gives two ciphertexts: one cannot tell from the database who shares a secret."""
    account = organization.cloud_account()
    ciphertexts = set()
    for _ in range(2):
        set_credentials(v1, organization, account, **GOOD_CREDENTIALS["AWS"][2])
        ciphertexts.add(
            server.database.query(f"SELECT ciphertext FROM credentials WHERE cloud_account_id = '{account.uid}'")
        )
    assert len(ciphertexts) == 2


def test_an_account_goes_with_all_that_it_has(v1, organization, scanner):
    set_credentials(v1, organization, scanner.account, **GOOD_CREDENTIALS["AWS"][0])
    scan = scanner.scan(scanner.result())
    finding = scanner.finding()
    delete(v1, organization, scanner.account)
    owner = organization.owner
    for call in (
        lambda: get(v1, organization, scanner.account),
        lambda: delete(v1, organization, scanner.account),
        lambda: owner.scans.GetScan(v1.GetScanRequest(name=scan.name)),
        lambda: owner.findings.GetFinding(v1.GetFindingRequest(name=finding.name)),
        lambda: owner.resources.GetResource(v1.GetResourceRequest(name=finding.resource)),
    ):
        with refused("NOT_FOUND"):
            call()
    for table in ("cloud_accounts", "credentials", "organization_keys", "scans", "resources", "findings"):
        assert organization.stored(table) == "0", table
    assert organization.cloud_account().name != scanner.account.name, "it can be connected anew"


def test_an_account_stays_while_a_scan_runs(v1, organization, scanner):
    with scanner.open() as call:
        call.send(header=scanner.header())
        with refused("FAILED_PRECONDITION", "SCAN_RUNNING") as error:
            delete(v1, organization, scanner.account)
        assert error.details.all["PreconditionFailure"].violations[0].type == "SCAN_RUNNING"


def test_an_account_that_changed_is_not_deleted_unseen(v1, organization):
    account = organization.cloud_account()
    with refused("ABORTED"):
        delete(v1, organization, account, etag="0")
    delete(v1, organization, account, etag=account.etag)


def test_the_last_scan_is_shown(v1, organization, scanner):
    assert scanner.account.last_scan == ""
    scan = scanner.scan(scanner.result())
    seen = get(v1, organization, scanner.account)
    assert seen.last_scan == scan.name and seen.etag == scanner.account.etag
