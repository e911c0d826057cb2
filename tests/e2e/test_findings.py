"""Findings: four states, the transitions that people and scans may make, and the history that tells of each."""

import pytest
from calls import everything, until
from genied import refused
from google.protobuf.timestamp_pb2 import Timestamp

UID = "arn:aws:s3:::one"


class Case:
    """One finding, and what may happen to it: what people do as the owner, what scans do as its scanner."""

    def __init__(self, v1, organization, scanner):
        self.v1, self.organization, self.scanner = v1, organization, scanner
        self.api = organization.owner.findings
        scanner.scan(scanner.result(UID))
        self.name = scanner.finding(UID).name

    def get(self):
        return self.api.GetFinding(self.v1.GetFindingRequest(name=self.name))

    def listed(self):
        request = self.v1.ListFindingsRequest(parent=self.organization.name)
        (found,) = [finding for finding in everything(self.api.ListFindings, request) if finding.name == self.name]
        return found

    def events(self):
        return self.scanner.events(self.get())

    def story(self):
        """The states that the history goes through, each with why."""
        state = self.v1.Finding.State.Name
        return [(state(event.to_state), event.reason) for event in self.events()]

    def acknowledge(self, **fields):
        return self.api.AcknowledgeFinding(self.v1.AcknowledgeFindingRequest(name=self.name, **fields))

    def reopen(self, **fields):
        return self.api.ReopenFinding(self.v1.ReopenFindingRequest(name=self.name, **fields))

    def accept(self, justification="It is a decoy.", expires_in=None, **fields):
        request = self.v1.AcceptRiskRequest(name=self.name, justification=justification, **fields)
        if expires_in is not None:
            request.expire_time.GetCurrentTime()
            request.expire_time.FromNanoseconds(request.expire_time.ToNanoseconds() + int(expires_in * 1e9))
        return self.api.AcceptRisk(request)

    def withdraw(self, **fields):
        return self.api.WithdrawAcceptance(self.v1.WithdrawAcceptanceRequest(name=self.name, **fields))

    def scan(self, status="FAIL", **fields):
        return self.scanner.scan(self.scanner.result(UID, status=status), **fields)

    def bring_to(self, state):
        assert self.get().state == self.v1.Finding.OPEN
        {
            "OPEN": lambda: None,
            "ACKNOWLEDGED": self.acknowledge,
            "ACCEPTED_RISK": self.accept,
            "RESOLVED": lambda: self.scan("PASS"),
        }[state]()
        assert self.v1.Finding.State.Name(self.get().state) == state


@pytest.fixture
def case(v1, organization, scanner):
    return Case(v1, organization, scanner)


STATES = ["OPEN", "ACKNOWLEDGED", "ACCEPTED_RISK", "RESOLVED"]
TRANSITIONS = {  # what people may do, from where, to where; everything else is refused
    "acknowledge": {"OPEN": "ACKNOWLEDGED"},
    "reopen": {"ACKNOWLEDGED": "OPEN"},
    "accept": {"OPEN": "ACCEPTED_RISK", "ACKNOWLEDGED": "ACCEPTED_RISK"},
    "withdraw": {"ACCEPTED_RISK": "OPEN"},
}
PAIRS = [(action, state) for action in TRANSITIONS for state in STATES]


def test_a_new_finding_is_open_and_complete(v1, case):
    finding = case.get()
    assert finding.state == v1.Finding.OPEN and finding.cloud_account == case.scanner.account.name
    assert (finding.check, finding.service, finding.resource_uid, finding.region) == (
        "s3_bucket_versioning", "s3", UID, "us-east-1"
    )  # fmt: skip
    assert finding.severity == v1.Finding.MEDIUM and finding.ordinal == finding.regression_count == 0
    assert finding.name == f"{case.organization.name}/findings/{finding.uid}"
    assert finding.etag and finding.create_time.seconds and finding.last_seen_time.seconds
    assert not finding.HasField("acceptance") and not finding.HasField("resolve_time") and finding.note == ""
    (event,) = case.events()
    assert (event.from_state, event.to_state) == (v1.Finding.STATE_UNSPECIFIED, v1.Finding.OPEN)
    assert event.scan.startswith(f"{case.organization.name}/scans/")


@pytest.mark.parametrize("action, state", [pair for pair in PAIRS if pair[1] in TRANSITIONS[pair[0]]])
def test_what_people_may_do(v1, case, action, state):
    case.bring_to(state)
    before, count = case.get(), len(case.events())
    after = getattr(case, action)()
    expected = v1.Finding.State.Value(TRANSITIONS[action][state])
    assert after.state == expected and after.etag != before.etag
    assert case.get() == after and case.listed().state == expected
    event = case.events()[-1]
    assert len(case.events()) == count + 1
    assert (event.from_state, event.to_state) == (before.state, expected)
    assert event.actor == f"user:owner-{case.organization.slug}" and event.scan == ""


@pytest.mark.parametrize("action, state", [pair for pair in PAIRS if pair[1] not in TRANSITIONS[pair[0]]])
def test_what_people_may_not_do(case, action, state):
    case.bring_to(state)
    before, events = case.get(), case.events()
    with refused("FAILED_PRECONDITION") as error:
        getattr(case, action)()
    (violation,) = error.details.all["PreconditionFailure"].violations
    assert violation.subject == case.name and violation.type
    assert state in violation.description, "the state that it is in"
    assert any(allowed in violation.description.replace(state, "", 1) for allowed in TRANSITIONS[action]), "the rule"
    assert error.details.metadata["state"] == state
    assert case.get() == before and case.events() == events


def test_a_note_stands_in_the_finding_and_in_its_history(case):
    note = 'seen by <b>Zoë</b>; "it\'s fine" 🧞\n\\o/'
    assert case.acknowledge(note=note).note == note
    assert case.reopen(note="not fine").note == "not fine"
    assert case.story()[1:] == [("ACKNOWLEDGED", note), ("OPEN", "not fine")]


def test_an_acceptance_says_who_why_and_until_when(case):
    acceptance = case.accept("A decoy.", expires_in=3600).acceptance
    assert (acceptance.approver, acceptance.justification) == (f"user:owner-{case.organization.slug}", "A decoy.")
    assert 3590 < acceptance.expire_time.seconds - acceptance.accept_time.seconds <= 3601
    event = case.events()[-1]
    assert (event.reason, event.expire_time) == ("A decoy.", acceptance.expire_time)


def test_an_acceptance_without_an_end_has_none(case):
    assert not case.accept().acceptance.HasField("expire_time")


def test_an_acceptance_needs_a_justification_and_a_future(case):
    for fields, field in (
        ({"justification": ""}, "justification"),
        ({"justification": "x" * 4001}, "justification"),
        ({"expires_in": -1}, "expire_time"),
        ({"expires_in": -1e9}, "expire_time"),
    ):
        with refused("INVALID_ARGUMENT") as error:
            case.accept(**fields)
        assert [v.field for v in error.details.all["BadRequest"].field_violations] == [field]
    assert case.get().state == case.v1.Finding.OPEN
    assert case.accept(justification="🧞" * 4000).acceptance.justification == "🧞" * 4000


def test_a_withdrawn_acceptance_is_gone(case):
    case.accept(expires_in=3600)
    finding = case.withdraw(note="It was no decoy.")
    assert not finding.HasField("acceptance") and finding.note == "It was no decoy."
    assert case.story()[1:] == [("ACCEPTED_RISK", "It is a decoy."), ("OPEN", "It was no decoy.")]


def test_a_decision_on_what_has_changed_since_is_refused(case):
    seen = case.get()
    case.acknowledge(etag=seen.etag)
    for action in ("reopen", "accept", "acknowledge", "withdraw"):
        with refused("ABORTED"):
            getattr(case, action)(etag=seen.etag)
    assert case.accept(etag=case.get().etag).state == case.v1.Finding.ACCEPTED_RISK


def test_an_acceptance_ends_at_its_moment_in_every_read(v1, case):
    """Long before the sweep: Get and List say OPEN as soon as the moment has passed, and not before."""
    accepted = case.accept(expires_in=2)
    expiry = accepted.acceptance.expire_time.ToNanoseconds()

    def now():
        stamp = Timestamp()
        stamp.GetCurrentTime()
        return stamp.ToNanoseconds()

    while True:
        asked, finding, listed, answered = now(), case.get(), case.listed(), now()
        if answered < expiry:
            assert finding.state == listed.state == v1.Finding.ACCEPTED_RISK
        elif asked > expiry:
            break
    assert finding.state == listed.state == v1.Finding.OPEN
    assert not finding.HasField("acceptance") and not listed.HasField("acceptance")


def test_what_an_acceptance_no_longer_holds_can_be_decided_anew(v1, case):
    case.accept(expires_in=1)
    until(lambda: case.get().state == v1.Finding.OPEN, 5)
    with refused("FAILED_PRECONDITION"):
        case.withdraw()
    assert case.acknowledge().state == v1.Finding.ACKNOWLEDGED
    assert [state for state, _ in case.story()] == ["OPEN", "ACCEPTED_RISK", "OPEN", "ACKNOWLEDGED"]


def test_the_sweep_writes_an_expiry_down_with_its_event(v1, case):
    expiry = case.accept(expires_in=1).acceptance.expire_time
    event = until(lambda: len(case.events()) == 3 and case.events()[2], 40)
    assert (event.from_state, event.to_state) == (v1.Finding.ACCEPTED_RISK, v1.Finding.OPEN)
    assert (event.actor, event.scan, event.event_time) == ("system", "", expiry)


def test_a_pass_resolves_and_a_failure_brings_back(v1, case):
    first = case.get()
    scan = case.scan("PASS")
    assert (scan.findings.passed, scan.findings.unchanged, scan.findings.regressed) == (1, 0, 0)
    resolved = case.get()
    assert resolved.state == v1.Finding.RESOLVED and resolved.HasField("resolve_time")
    assert resolved.last_seen_time == first.last_seen_time, "a pass is not a sight of the failure"
    again = case.scan("FAIL")
    assert (again.findings.regressed, again.findings.created) == (1, 0)
    regressed = case.get()
    assert (regressed.state, regressed.regression_count) == (v1.Finding.OPEN, 1)
    assert not regressed.HasField("resolve_time") and regressed.create_time == first.create_time
    case.scan("PASS")
    case.scan("FAIL")
    assert case.get().regression_count == 2
    story = case.events()
    assert [v1.Finding.State.Name(event.to_state) for event in story] == [
        "OPEN",
        "RESOLVED",
        "OPEN",
        "RESOLVED",
        "OPEN",
    ]
    assert story[1].reason == "passed" and story[1].scan == scan.name and story[2].scan == again.name


@pytest.mark.parametrize("state", ["OPEN", "ACKNOWLEDGED", "ACCEPTED_RISK"])
def test_a_pass_resolves_from_every_state(v1, case, state):
    case.bring_to(state)
    case.scan("PASS")
    assert case.get().state == v1.Finding.RESOLVED
    event = case.events()[-1]
    assert (event.from_state, event.to_state) == (v1.Finding.State.Value(state), v1.Finding.RESOLVED)


@pytest.mark.parametrize("status", ["FAIL", "MANUAL"])
@pytest.mark.parametrize("state", ["OPEN", "ACKNOWLEDGED", "ACCEPTED_RISK"])
def test_a_scan_that_sees_it_again_leaves_what_people_decided(case, state, status):
    case.bring_to(state)
    before, events = case.get(), case.events()
    scan = case.scan(status)
    assert scan.findings.unchanged == 1
    after = case.get()
    assert (after.state, after.note, after.acceptance, after.etag) == (
        before.state, before.note, before.acceptance, before.etag
    )  # fmt: skip
    assert case.events() == events
    if status == "FAIL":
        assert after.last_seen_time == scan.scan_time


def test_a_manual_result_finds_nothing_new(case):
    case.scan("PASS")
    scan = case.scan("MANUAL")
    assert scan.results.manual == 1
    assert case.get().state == case.v1.Finding.RESOLVED


def test_an_acceptance_outlives_a_resolve(v1, case):
    accepted = case.accept(expires_in=3600)
    case.scan("PASS")
    resolved = case.get()
    assert resolved.state == v1.Finding.RESOLVED and resolved.acceptance == accepted.acceptance
    case.scan("FAIL")
    back = case.get()
    assert (back.state, back.acceptance) == (v1.Finding.ACCEPTED_RISK, accepted.acceptance)
    assert back.regression_count == 1
    assert [state for state, _ in case.story()] == ["OPEN", "ACCEPTED_RISK", "RESOLVED", "ACCEPTED_RISK"]


def test_an_acceptance_that_ends_while_it_is_resolved_is_over(v1, case):
    case.accept(expires_in=1)
    case.scan("PASS")
    until(lambda: not case.get().HasField("acceptance"), 5)
    case.scan("FAIL")
    assert case.get().state == v1.Finding.OPEN


def test_an_acknowledgement_does_not_outlive_a_resolve(v1, case):
    case.acknowledge(note="seen")
    case.scan("PASS")
    assert case.get().note == ""
    case.scan("FAIL")
    assert (case.get().state, case.get().note) == (v1.Finding.OPEN, "")


def test_a_scan_changes_what_is_the_scanners(v1, case):
    case.acknowledge(note="seen")
    scanner = case.scanner
    scanner.scan(scanner.result(UID, severity="CRITICAL", status_detail="worse", muted=True))
    finding = case.get()
    assert (finding.severity, finding.status_detail, finding.muted) == (v1.Finding.CRITICAL, "worse", True)
    assert (finding.state, finding.note) == (v1.Finding.ACKNOWLEDGED, "seen")
    assert len(case.events()) == 2, "no change of state, no event"


def test_what_was_not_seen_is_not_found(v1, organization):
    name = f"{organization.name}/findings/018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"
    for call, request in (
        ("GetFinding", v1.GetFindingRequest),
        ("AcknowledgeFinding", v1.AcknowledgeFindingRequest),
        ("ReopenFinding", v1.ReopenFindingRequest),
        ("WithdrawAcceptance", v1.WithdrawAcceptanceRequest),
    ):
        with refused("NOT_FOUND") as error:
            getattr(organization.owner.findings, call)(request(name=name))
        info = error.details.all["ResourceInfo"]
        assert (info.resource_type, info.resource_name) == ("devopsgenie.dev/Finding", name)


def test_a_resource_counts_its_active_findings(v1, organization, scanner):
    checks = {"CRITICAL": 1, "FATAL": 1, "HIGH": 2, "MEDIUM": 3, "LOW": 1, "INFORMATIONAL": 1, "UNKNOWN": 1}
    scanner.scan(*(scanner.result(check=f"{s}_{n}", severity=s) for s, count in checks.items() for n in range(count)))
    by_check = {finding.check: finding for finding in scanner.findings()}
    findings = organization.owner.findings
    findings.AcknowledgeFinding(v1.AcknowledgeFindingRequest(name=by_check["HIGH_0"].name))
    findings.AcceptRisk(v1.AcceptRiskRequest(name=by_check["MEDIUM_0"].name, justification="fine"))
    (name,) = {finding.resource for finding in by_check.values()}
    active = organization.owner.resources.GetResource(v1.GetResourceRequest(name=name)).active_findings
    assert active == v1.ActiveFindings(critical=2, high=2, medium=2, low=1, other=2)


def test_severities_keep_their_order(v1, scanner):
    severities = ["LOW", "FATAL", "UNKNOWN", "HIGH", "INFORMATIONAL", "CRITICAL", "MEDIUM"]
    scanner.scan(*(scanner.result(check=severity, severity=severity) for severity in severities))
    listed = [finding.check for finding in scanner.findings()]
    assert listed == ["FATAL", "CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNKNOWN"]
