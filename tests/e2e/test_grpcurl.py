"""grpcurl, which knows the API by reflection alone: the commands that a newcomer types."""

import base64
import json

import pytest
from test_health_reflection import OURS

CREDENTIALS = "devopsgenie.v1.CloudAccountService/SetCloudAccountCredentials"


@pytest.fixture
def key(organization):
    return organization.key("OWNER").credential


def ask(grpcurl, method, credential, request, *options):
    """Sends a request given as a dict, and returns the answer as one."""
    done = grpcurl(f"devopsgenie.v1.{method}", credential, "-d", json.dumps(request), *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "{}")


def test_it_lists_the_services_and_their_methods(grpcurl):
    listed = grpcurl("list").stdout.split()
    assert {f"devopsgenie.v1.{name}" for name in OURS} <= set(listed)
    methods = grpcurl("list devopsgenie.v1.FindingService").stdout.split()
    assert "devopsgenie.v1.FindingService.AcceptRisk" in methods


def test_it_describes_a_method_with_our_options_and_comments(grpcurl):
    done = grpcurl("describe devopsgenie.v1.FindingService.AcceptRisk")
    assert done.returncode == 0, done.stderr
    assert "least_role" in done.stdout and "acceptRisk" in done.stdout


@pytest.mark.parametrize(
    "symbol", ["devopsgenie.v1.Finding", "google.rpc.PreconditionFailure", CREDENTIALS.replace("/", ".")]
)
def test_it_describes_a_symbol(grpcurl, symbol):
    done = grpcurl(f"describe {symbol}")
    assert done.returncode == 0 and symbol.rpartition(".")[2] in done.stdout, done.stderr


def test_it_makes_and_reads_what_belongs_to_an_organization(grpcurl, key, organization):
    account = {"provider": "AWS", "accountUid": "123456789012", "displayName": "Prod"}
    made = ask(
        grpcurl, "CloudAccountService/CreateCloudAccount", key, {"parent": organization.name, "cloudAccount": account}
    )
    assert made["provider"] == "AWS" and made["externalId"]
    assert ask(grpcurl, "CloudAccountService/GetCloudAccount", key, {"name": made["name"]}) == made
    listed = ask(grpcurl, "CloudAccountService/ListCloudAccounts", key, {"parent": organization.name})
    assert listed == {"cloudAccounts": [made]}
    # grpcurl writes a field mask as the message that it is, with the names of the proto file.
    changed = {"cloudAccount": {"name": made["name"], "displayName": "Test"}, "updateMask": {"paths": ["display_name"]}}
    assert ask(grpcurl, "CloudAccountService/UpdateCloudAccount", key, changed)["displayName"] == "Test"
    assert ask(grpcurl, "CloudAccountService/DeleteCloudAccount", key, {"name": made["name"]}) == {}


def test_it_takes_a_finding_through_its_states(grpcurl, key, scanner):
    scanner.scan(scanner.result())
    name = scanner.finding().name
    states = [
        ask(grpcurl, f"FindingService/{method}", key, {"name": name, **more})["state"]
        for method, more in (
            ("AcknowledgeFinding", {"note": "seen"}),
            ("AcceptRisk", {"justification": "a decoy", "expireTime": "2100-01-01T00:00:00Z"}),
            ("WithdrawAcceptance", {}),
        )
    ]
    assert states == ["ACKNOWLEDGED", "ACCEPTED_RISK", "OPEN"]
    events = ask(grpcurl, "FindingService/ListFindingEvents", key, {"parent": name})["findingEvents"]
    assert [event["toState"] for event in events] == ["OPEN", *states]


@pytest.mark.parametrize(
    "request_, code, details",
    [
        ({"name": "x"}, "InvalidArgument", ["ErrorInfo", "BadRequest"]),
        ({"name": "{org}/findings/018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"}, "NotFound", ["ErrorInfo", "ResourceInfo"]),
        (
            {"name": "organizations/another-one/findings/018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"},
            "PermissionDenied",
            ["ErrorInfo"],
        ),
    ],
)
def test_it_prints_every_detail_of_a_refusal(grpcurl, key, organization, request_, code, details):
    text = json.dumps(request_).replace("{org}", organization.name)
    done = grpcurl("devopsgenie.v1.FindingService/AcknowledgeFinding", key, "-d", text)
    assert f"Code: {code}" in done.stderr
    for name in details:
        assert f"google.rpc.{name}" in done.stderr
    # An undecoded detail is shown as bytes in base64.
    assert (
        base64.b64encode(b"devopsgenie.dev").decode()[:-2] not in done.stderr
        and '"domain": "devopsgenie.dev"' in done.stderr
    )


def test_it_names_state_and_rule_of_a_wrong_transition(grpcurl, key, scanner):
    scanner.scan(scanner.result())
    done = grpcurl(
        "devopsgenie.v1.FindingService/ReopenFinding", key, "-d", json.dumps({"name": scanner.finding().name})
    )
    assert "Code: FailedPrecondition" in done.stderr
    assert "google.rpc.PreconditionFailure" in done.stderr and "OPEN" in done.stderr and "ACKNOWLEDGED" in done.stderr


def test_it_imports_results_over_a_stream(grpcurl, key, scanner):
    parts = [
        {"header": {"parent": scanner.account.name, "scanner": "by hand", "scanTime": "2026-01-01T00:00:00Z",
                    "requestId": "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"}},
        {"batch": {"firstRecord": "1", "recordCount": 1, "evaluations": [
            {"record": "1", "accountUid": "123456789012", "check": "c", "resourceUid": "r", "status": "FAIL"}]}},
        {"end": {"recordCount": "1"}},
    ]  # fmt: skip
    done = grpcurl("devopsgenie.v1.ScanService/ImportResults", key, "-d", "".join(map(json.dumps, parts)))
    assert done.returncode == 0, done.stderr
    assert '"summary"' in done.stdout and [f.resource_uid for f in scanner.findings()] == ["r"]


def test_it_checks_health(grpcurl):
    done = grpcurl("grpc.health.v1.Health/Check")
    assert done.returncode == 0 and json.loads(done.stdout) == {"status": "SERVING"}
