"""genie import ocsf, with what a scanner really wrote: three scans that must come out as worked out independently, and
a test for each of the fourteen points in which the files are odd."""

import copy
import datetime
import gzip
import hashlib
import json
import os
import secrets
import subprocess

import pytest
from calls import everything, until
from conftest import Organization, connections
from genied import DATA, GENIE
from scanning import Scanner, evaluation, identity, read_ocsf, write_ocsf

AWS = "aws-123456789012-"
SCANS = [f"{AWS}scan1", f"{AWS}scan2", f"{AWS}scan3-partial-s3-iam"]
ACCOUNT = "123456789012"
WHOLE, PARTIAL, FAILED, USAGE = 0, 3, 1, 2  # exit statuses of genie


def data(name):
    return DATA / f"{name}.ocsf.json.gz"


class Account:
    """A cloud account in an organization of its own, into which genie imports files."""

    def __init__(self, v1, organization, account_uid=ACCOUNT, provider="AWS"):
        self.v1, self.organization = v1, organization
        self.scanner = Scanner(v1, organization.owner, organization.cloud_account(account_uid, provider))
        self.key = organization.key("ANALYST").credential

    def genie(self, path, *options, **more):
        return self.organization.server.genie(
            "import", "ocsf", path, *options, credential=self.key, organization=self.organization.slug, **more
        )

    def take(self, path, *options, status=WHOLE):
        """Imports a file and returns the scans that it became, oldest first."""
        before = {scan.name for scan in self.scanner.scans()}
        done = self.genie(path, *options)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}{done.stderr}"
        return [scan for scan in reversed(self.scanner.scans()) if scan.name not in before]

    def take_one(self, path, *options, status=WHOLE):
        (scan,) = self.take(path, *options, status=status)
        return scan

    def identities(self, *states):
        """Of the findings in these states, or of all."""
        wanted = {self.v1.Finding.State.Value(state) for state in states} or set(self.v1.Finding.State.values())
        uid = self.scanner.account.account_uid
        return {identity(finding, uid) for finding in self.scanner.findings() if finding.state in wanted}

    def resources(self):
        request = self.v1.ListResourcesRequest(parent=self.organization.name)
        return everything(self.organization.owner.resources.ListResources, request)


@pytest.fixture
def account(v1, organization):
    return Account(v1, organization)


@pytest.fixture(scope="module")
def expected():
    return json.loads((DATA / "expected.json").read_text())["modes"]["ordinal"]


@pytest.fixture(scope="module")
def history(v1, module_organization):
    """Scan 1, 2 and 3 in their order; after each, the scan, all findings and what was open."""
    account = Account(v1, module_organization)
    after = []
    for name in SCANS:
        scan = account.take_one(data(name))
        after.append((scan, account.scanner.findings(), account.identities("OPEN")))
        if len(after) == 1:
            account.first_resources = account.resources()
    return account, after


def digest(identities):
    return hashlib.sha256("\n".join(json.dumps(i, ensure_ascii=False) for i in sorted(identities)).encode()).hexdigest()


# --- Three scans ---


def test_the_first_scan_is_in_to_the_last_finding(v1, history, expected):
    scan, findings, opened = history[1][0]
    counts = expected["counts"]
    assert scan.results == v1.ResultCounts(
        **{"pass": counts["scan1.pass"]}, fail=counts["scan1.fail"], manual=counts["scan1.manual"]
    )
    assert scan.findings == v1.FindingCounts(created=counts["scan1.fail"])
    assert (scan.pair_count, scan.partial) == (expected["coverage"]["scan1_pairs"], False)
    assert len(findings) == len(opened) == counts["scan1.fail"]
    assert digest(opened) == expected["sha256_of_sorted_json_lines"]["scan1.fail"]


@pytest.mark.parametrize("number", [2, 3])
def test_the_next_scans_change_what_has_changed_to_the_last_finding(v1, history, expected, number):
    scan, findings, opened = history[1][number - 1]
    counts = {name.partition(".")[2]: n for name, n in expected["counts"].items() if name.startswith(f"scan{number}.")}
    assert scan.findings == v1.FindingCounts(
        created=counts["new_fail"] - expected["counts"]["scan3.reopened_failed_in_1_not_open_after_2"] * (number == 3),
        unchanged=counts["still_failing"] + counts["open_now_manual"],
        passed=counts["resolved_now_pass"],
        unreported=counts["absent_pair_covered_may_be_resolved"],
    )
    assert scan.results.fail == counts["fail"] and not scan.partial
    assert scan.pair_count == expected["coverage"][f"scan{number}_pairs"]
    assert len(opened) == counts["open_after"]
    assert digest(opened) == expected["sha256_of_sorted_json_lines"][f"scan{number}.open_after"]
    before = {identity(finding, ACCOUNT) for finding in history[1][number - 2][1]}
    now = {identity(finding, ACCOUNT): finding.state for finding in findings}
    new = set(now) - before
    assert digest(new) == expected["sha256_of_sorted_json_lines"][f"scan{number}.new_fail"]
    resolved = history[1][number - 2][2] - opened
    lists = expected["lists"]
    names = (f"scan{number}.resolved_now_pass", f"scan{number}.absent_pair_covered_may_be_resolved")
    assert resolved == {tuple(entry) for name in names for entry in lists[name]}
    assert all(now[finding] == v1.Finding.RESOLVED for finding in resolved)


def test_the_history_tells_what_became_of_each_finding_that_changed(v1, history, expected):
    account, after = history
    scans = [scan.name for scan, _, _ in after]
    state = v1.Finding
    stories = {}
    for number in (2, 3):
        for name, reason in (("resolved_now_pass", "passed"), ("absent_pair_covered_may_be_resolved", "not reported")):
            for entry in expected["lists"][f"scan{number}.{name}"]:
                stories[tuple(entry)] = (state.OPEN, state.RESOLVED, scans[number - 1], reason)
    checked = 0
    first = {
        identity(finding, ACCOUNT): number
        for number, (_, findings, _) in reversed(list(enumerate(after)))
        for finding in findings
    }
    for finding in account.scanner.findings():
        found = identity(finding, ACCOUNT)
        if found not in stories:
            continue
        began, ended = account.scanner.events(finding)
        assert (began.from_state, began.to_state, began.scan) == (
            state.STATE_UNSPECIFIED,
            state.OPEN,
            scans[first[found]],
        )
        assert (ended.from_state, ended.to_state, ended.scan, ended.reason) == stories[found]
        checked += 1
    assert checked == len(stories) > 800


def test_what_did_not_change_has_no_more_history(v1, history):
    account, after = history
    changed = {identity(finding, ACCOUNT) for finding in after[2][1] if finding.state != v1.Finding.OPEN}
    quiet = [finding for finding in after[2][1] if identity(finding, ACCOUNT) not in changed]
    for finding in quiet[::100]:
        assert len(account.scanner.events(finding)) == 1


def test_a_scan_imported_again_changes_nothing_but_the_list_of_scans(v1, history):
    account, after = history

    def rows(table):
        return account.organization.stored(table, "md5(string_agg(t::text, '' ORDER BY t::text))")

    tables = ["findings", "resources", "checks", "finding_events"]
    before = {table: rows(table) for table in tables}
    again = account.take_one(data(SCANS[2]))
    assert again.findings == v1.FindingCounts(unchanged=again.results.fail)
    assert {table: rows(table) for table in tables} == before


def test_two_readers_of_the_format_agree(v1, history, make_organization):
    """The same file over plain grpc, read by a few lines of Python."""
    organization = make_organization()
    scanner = Scanner(v1, organization.owner, organization.cloud_account())
    scan = scanner.scan(*(evaluation(scanner, record) for record in read_ocsf(data(SCANS[0]))))
    first = history[1][0][0]
    assert (scan.results, scan.findings, scan.pair_count) == (first.results, first.findings, first.pair_count)
    ours = {identity(f, ACCOUNT): (f.severity, f.muted, f.status_detail) for f in scanner.findings()}
    theirs = {identity(f, ACCOUNT): (f.severity, f.muted, f.status_detail) for f in history[1][0][1]}
    assert ours == theirs


# --- The fourteen points ---


@pytest.fixture(scope="module")
def records():
    """Scan 1, as it lies in its file."""
    return read_ocsf(data(SCANS[0]))


@pytest.fixture
def record(records):
    """One failing record, to make others of."""
    return copy.deepcopy(next(r for r in records if r["status_code"] == "FAIL"))


def variant(record, **changes):
    """A record with other values, each at a path such as resources__0__uid."""
    record = copy.deepcopy(record)
    for path, value in changes.items():
        *way, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        place = record
        for part in way:
            place = place[part]
        place[last] = value
    return record


def test_point_1_no_file_and_an_empty_file_are_no_scan(account, tmp_path):
    missing = account.genie(tmp_path / "none.ocsf.json")
    assert missing.returncode == FAILED and "none.ocsf.json" in missing.stderr
    empty = tmp_path / "empty.ocsf.json"
    empty.touch()
    done = account.genie(empty)
    assert done.returncode == FAILED and done.stderr.count("\n") == 1, done.stderr
    assert account.scanner.scans() == []


def test_point_2_records_whose_identities_collide_are_findings_of_their_own(records, history):
    uids = {record["finding_info"]["uid"] for record in records}
    keys = {(r["metadata"]["event_code"], r["resources"][0]["uid"], r["resources"][0]["region"]) for r in records}
    assert len(uids) < len(keys) < len(records)
    _, findings, identities = history[1][0]
    failing = [record for record in records if record["status_code"] == "FAIL"]
    assert len(findings) == len(identities) == len({f.name for f in findings}) == len(failing)
    assert {finding.ordinal for finding in findings} > {0}


def test_point_3_one_arn_in_two_accounts_is_two_findings(v1, organization, record, tmp_path):
    first, second = Account(v1, organization), Account(v1, organization, "210987654321")
    arn = record["resources"][0]["uid"] = "arn:aws:s3:::shared-name"
    for account in (first, second):
        record["cloud"]["account"]["uid"] = record["unmapped"]["provider_uid"] = account.scanner.account.account_uid
        scan = account.take_one(write_ocsf(tmp_path / "one.json", record))
        assert scan.cloud_account == account.scanner.account.name, "the file says whose it is"
    found = [finding for account in (first, second) for finding in account.scanner.findings()]
    assert [finding.resource_uid for finding in found] == [arn, arn]
    assert found[0].name != found[1].name and found[0].cloud_account != found[1].cloud_account


def test_point_4_a_global_service_is_one_whatever_region_was_asked_for(account, tmp_path):
    name = "aws-extra-region-eu-west-1"
    asked_elsewhere = read_ocsf(data(name))
    for record in asked_elsewhere:
        if record["resources"][0]["group"]["name"] == "iam":
            record["resources"][0]["region"] = record["cloud"]["region"] = "us-east-1"
    first = account.take_one(write_ocsf(tmp_path / "us.json", *asked_elsewhere))
    before = account.identities()
    second = account.take_one(data(name))
    assert second.findings.unchanged == first.findings.created > 0 and second.findings.created == 0
    assert account.identities() == before
    assert len(account.resources()) == len({r["resources"][0]["uid"] for r in asked_elsewhere})


def test_point_5_a_scan_has_the_one_time_of_its_records(account, history, records):
    assert {record["time"] for record in records} == {history[1][0][0].scan_time.seconds}
    few = read_ocsf(data("aws-extra-unix-timestamp"))
    assert {record["time"] for record in few} == {account.take_one(data("aws-extra-unix-timestamp")).scan_time.seconds}


def test_point_5_milliseconds_are_told_from_seconds_and_a_zone_is_read(account, record, tmp_path):
    moment = int(datetime.datetime(2026, 11, 23, 12, 0, 0, 500_000, datetime.timezone.utc).timestamp() * 1000)
    for time, time_dt in (
        (moment, None),
        (moment // 1000, None),
        (None, "2026-11-23T12:00:00Z"),
        (None, "2026-11-23T14:00:00+02:00"),
        (None, "2026-11-23T12:00:00.000000"),
    ):
        changed = variant(record, time=time, time_dt=time_dt, finding_info__created_time=None)
        scan = account.take_one(write_ocsf(tmp_path / "time.json", changed))
        assert scan.scan_time.seconds == moment // 1000, (time, time_dt)


def test_point_6_a_scanners_mute_is_a_mark_and_no_decision(v1, account):
    muted = read_ocsf(data("aws-extra-mutelist"))
    count = sum(record["status_id"] == 3 and record["status_code"] == "FAIL" for record in muted)
    scan = account.take_one(data("aws-extra-mutelist"))
    assert scan.results == v1.ResultCounts(**{"pass": 217}, fail=271, muted=count)
    findings = account.scanner.findings()
    assert sum(finding.muted for finding in findings) == count > 0
    assert {finding.state for finding in findings} == {v1.Finding.OPEN}


def test_point_7_the_longest_texts_are_whole(history, records):
    account, after = history
    findings = after[0][1]
    longest = max((r for r in records if r["status_code"] == "FAIL"), key=lambda r: len(r["status_detail"]))
    assert longest["status_detail"] in {finding.status_detail for finding in findings}
    uids = {record["resources"][0]["uid"] for record in records}
    assert max(map(len, uids)) == 374 and any(not uid.startswith("arn:") for uid in uids)
    listed = account.resources()
    assert uids <= {resource.resource_uid for resource in listed}
    names = {}
    for r in records:
        names.setdefault((r["resources"][0]["uid"], r["resources"][0]["region"]), set()).add(r["resources"][0]["name"])
    assert any(len(several) > 1 for several in names.values())
    assert max(max(map(len, several)) for several in names.values()) == 311


def test_point_7_longer_ones_and_none_at_all_go_in(account, record, tmp_path):
    uids = ["u" * 2000, "", "株" * 4000, "<script>alert('x')</script>\r\n\t\x01\x7f", "=cmd|'/c calc'!A1"]
    scan = account.take_one(
        write_ocsf(tmp_path / "uids.json", *(variant(record, resources__0__uid=uid) for uid in uids))
    )
    assert scan.findings.created == len(uids)
    assert {finding.resource_uid for finding in account.scanner.findings()} == set(uids)


def test_point_8_labels_are_kept_as_they_are(history, records, account, record, tmp_path):
    shown = {tuple(resource.labels) for resource in history[0].first_resources}
    written = {tuple(record["resources"][0]["labels"]) for record in records}
    assert shown <= written and max(map(len, shown)) == 24
    labels = ["aws:cloudformation:stack-name:x", "\x01\x02<b>\x7f", "no colon", ":", ""]
    account.take_one(write_ocsf(tmp_path / "labels.json", variant(record, resources__0__labels=labels)))
    (resource,) = account.resources()
    assert resource.labels == labels


def test_point_9_markdown_and_metadata_of_any_depth_are_kept(account, record, tmp_path):
    deep = value = []
    for _ in range(500):
        value.append([])
        value = value[0]
    metadata = {"a": {"b": deep}, "big": 2**70, "text": "\x01<b>"}
    account.take_one(write_ocsf(tmp_path / "deep.json", variant(record, resources__0__data={"metadata": metadata})))
    (finding,) = account.scanner.findings()
    info = record["finding_info"]
    assert (finding.title, finding.description) == (info["title"], info["desc"])
    assert (finding.risk, finding.remediation) == (record["risk_details"], record["remediation"]["desc"])
    assert set(record["remediation"]["references"]) <= set(finding.reference_urls)
    (resource,) = account.resources()
    kept = json.loads(resource.metadata_json)
    assert kept["a"]["b"] == deep and kept["text"] == "\x01<b>" and kept["big"] == pytest.approx(2**70)


def test_point_9_the_metadata_of_the_real_file_is_whole(history, records):
    written = {}
    for record in records:
        resource = record["resources"][0]
        written.setdefault((resource["uid"], resource["region"]), []).append(resource["data"]["metadata"])
    shown = history[0].first_resources
    assert {(resource.resource_uid, resource.region) for resource in shown} == set(written)
    for resource in shown:
        assert json.loads(resource.metadata_json) in written[resource.resource_uid, resource.region]


def test_point_10_kubernetes_has_no_cloud_and_a_namespace(v1, organization):
    account = Account(v1, organization, "demo-context", "KUBERNETES")
    scan = account.take_one(data("kubernetes-demo-scan1"))
    assert scan.results == v1.ResultCounts(**{"pass": 1266}, fail=980, manual=10)
    records = [r for r in read_ocsf(data("kubernetes-demo-scan1")) if r["status_code"] == "FAIL"]
    regions = {finding.region for finding in account.scanner.findings()}
    assert regions == {record["resources"][0]["namespace"] for record in records} and len(regions) > 1
    assert len(account.scanner.findings()) == 980


def test_point_11_the_compliance_of_44_frameworks_is_kept(v1, organization, records):
    Account(v1, organization).take_one(data(SCANS[0]))
    written = {r["metadata"]["event_code"]: r["unmapped"]["compliance"] for r in records}
    kept = organization.stored("checks", "json_object_agg(check_key, compliance_json::json)")
    assert json.loads(kept) == written
    assert len({framework for of_check in written.values() for framework in of_check}) == 44


def test_point_12_gzip_that_packs_1_to_40_is_read(v1, history):
    packed = data(SCANS[0]).stat().st_size
    with gzip.open(data(SCANS[0])) as file:
        assert file.seek(0, os.SEEK_END) > 35 * packed
    assert history[1][0][0].state == v1.Scan.COMPLETED


def test_point_12_plain_json_lines_and_standard_input_are_read_too(account, records, tmp_path):
    few = records[:50]
    plain = write_ocsf(tmp_path / "plain.json", *few)
    lines = tmp_path / "lines.json"
    lines.write_text("".join(json.dumps(record) + "\n" for record in few))
    first = account.take_one(plain)
    assert account.take_one(lines).results == first.results
    done = account.genie("-", stdin=plain.open("rb"))
    assert done.returncode == 0, done.stderr
    assert account.scanner.scans()[0].results == first.results


def test_point_13_a_pair_that_found_nothing_any_more_resolves_when_the_caller_says_so(v1, account, record, tmp_path):
    account.take_one(write_ocsf(tmp_path / "before.json", record, variant(record, metadata__event_code="s3_gone")))
    now = write_ocsf(tmp_path / "now.json", record)
    assert account.take_one(now).findings.unreported == 0
    assert len(account.identities("OPEN")) == 2
    scan = account.take_one(now, "--whole-account")
    assert (scan.coverage.extent, scan.findings.unreported) == (v1.Coverage.WHOLE_ACCOUNT, 1)
    assert len(account.identities("OPEN")) == 1


def test_point_13_a_caller_may_say_which_services_and_regions(v1, account, record, tmp_path):
    service, region = record["finding_info"]["analytic"]["category"], record["resources"][0]["region"]
    gone = variant(record, metadata__event_code="gone")
    account.take_one(write_ocsf(tmp_path / "before.json", record, gone))
    now = write_ocsf(tmp_path / "now.json", record)
    assert account.take_one(now, "--services", "nothing").findings.unreported == 0
    scan = account.take_one(now, "--services", f"x,{service}", "--regions", f"{region},eu-north-1")
    assert scan.coverage == v1.Coverage(
        extent=v1.Coverage.LISTED, services=["x", service], regions=[region, "eu-north-1"]
    )
    assert scan.findings.unreported == 1


def test_point_14_a_compliance_finding_is_refused_with_its_position(v1, account, record, tmp_path):
    other = variant(record, class_uid=2003, class_name="Compliance Finding")
    mixed = write_ocsf(tmp_path / "mixed.json", record, other)
    done = account.genie(mixed)
    assert done.returncode == PARTIAL and "record 2" in done.stdout and "CLASS_UNSUPPORTED" in done.stdout
    (scan,) = account.scanner.scans()
    assert (scan.results.fail, scan.results.refused, scan.partial) == (1, 1, True)


def test_point_14_a_file_of_another_class_alone_is_no_scan(account, record, tmp_path):
    done = account.genie(write_ocsf(tmp_path / "other.json", variant(record, class_uid=2003)))
    assert done.returncode == FAILED, done.stdout + done.stderr
    assert account.scanner.scans() == []


# --- Broken files ---


def whole_records(name):
    """The records of a file that is cut, read one by one to where it breaks."""
    with gzip.open(data(name), "rt", encoding="utf-8") as file:
        text = file.read()
    decoder, at, found = json.JSONDecoder(), text.index("{"), []
    while True:
        try:
            record, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return found
        found.append(record)
        at = text.find("{", at)
        if at < 0:
            return found


@pytest.mark.parametrize("name", [f"{AWS}killed", f"{AWS}killed-cut-in-record"])
def test_a_file_that_is_cut_goes_in_as_far_as_it_is_whole(v1, account, name):
    whole = whole_records(name)
    counts = {code: sum(record["status_code"] == code for record in whole) for code in ("PASS", "FAIL", "MANUAL")}
    done = account.genie(data(name))
    assert done.returncode == PARTIAL and "partial" in done.stdout, done.stdout + done.stderr
    (scan,) = account.scanner.scans()
    assert scan.partial and scan.state == v1.Scan.COMPLETED
    results = (scan.results.fail, getattr(scan.results, "pass"), scan.results.manual)
    assert results == (counts["FAIL"], counts["PASS"], counts["MANUAL"])


def test_a_file_that_is_cut_resolves_nothing_that_it_did_not_see_pass(v1, make_organization):
    account = Account(v1, make_organization())
    account.take_one(data(SCANS[0]))
    before = account.identities("OPEN")
    passed = {
        (r["metadata"]["event_code"], r["resources"][0]["uid"])
        for r in whole_records(f"{AWS}killed")
        if r["status_code"] == "PASS"
    }
    scan = account.take_one(data(f"{AWS}killed"), "--whole-account", status=PARTIAL)
    assert scan.findings.unreported == 0
    for finding in before - account.identities("OPEN"):
        assert (finding[1], finding[2]) in passed


def test_two_runs_in_one_file_are_two_scans(v1, account):
    records = whole_records("aws-extra-same-filename-twice")
    runs = [record["unmapped"]["scan_id"] for record in records]
    sizes = [runs.count(run) for run in dict.fromkeys(runs)]
    assert len(sizes) == 2
    done = account.genie(data("aws-extra-same-filename-twice"))
    scans = account.scanner.scans()[::-1]
    assert [getattr(s.results, "pass") + s.results.fail + s.results.manual for s in scans] == sizes, done.stdout
    assert {s.state for s in scans} == {v1.Scan.COMPLETED}


def test_failures_alone_are_a_scan_too(v1, account):
    scan = account.take_one(data("aws-extra-fail-only"))
    assert scan.results == v1.ResultCounts(fail=6)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"status_code": "WARN"}, "STATUS_UNKNOWN"),
        ({"status_code": None}, "STATUS_UNKNOWN"),
        ({"metadata__event_code": "", "finding_info__analytic__uid": ""}, "CHECK_MISSING"),
        ({"resources": []}, "RESOURCE_MISSING"),
        ({"cloud__account__uid": "999999999999", "unmapped__provider_uid": "999999999999"}, "ACCOUNT_MISMATCH"),
        ({"resources__0__uid": 7}, "FIELD_INVALID"),
        ({"metadata__event_code": "c" * 300}, "FIELD_INVALID"),
    ],
)
def test_a_record_that_cannot_be_placed_is_refused_and_the_rest_goes_in(account, record, tmp_path, changes, reason):
    done = account.genie(write_ocsf(tmp_path / "one-bad.json", record, variant(record, **changes)))
    assert done.returncode == PARTIAL, done.stdout + done.stderr
    assert reason in done.stdout and "record 2" in done.stdout
    (scan,) = account.scanner.scans()
    assert (scan.results.fail, scan.results.refused) == (1, 1)


def test_a_severity_nobody_knows_is_unknown(v1, account, record, tmp_path):
    severities = {99: "UNKNOWN", 0: "UNKNOWN", 77: "UNKNOWN", 6: "FATAL", 1: "INFORMATIONAL"}
    made = [variant(record, severity_id=s, resources__0__uid=str(s)) for s in severities]
    account.take_one(write_ocsf(tmp_path / "severities.json", *made))
    found = {int(f.resource_uid): v1.Finding.Severity.Name(f.severity) for f in account.scanner.findings()}
    assert found == severities


# --- Breaks ---


class Piped:
    """genie importing what is written to its standard input piece by piece."""

    def __init__(self, account):
        self.process = subprocess.Popen(
            [GENIE, "import", "ocsf", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=account.organization.server.genie_environment(account.key, account.organization.slug),
        )

    def write(self, records):
        self.process.stdin.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self.process.stdin.flush()

    def finish(self):
        said, _ = self.process.communicate(timeout=180)
        return self.process.returncode, said.decode()


@pytest.fixture
def own_account(v1, make_server):
    """On a server that the test may kill."""
    server = make_server()
    with connections(v1) as connect:
        yield Account(v1, Organization(v1, server, connect, "org-" + secrets.token_hex(6)))


def stored_batches(account):
    return int(account.organization.server.database.query("SELECT count(*) FROM import_batches"))


def test_genie_goes_on_by_itself_when_the_server_is_killed_and_comes_back(v1, own_account, records, expected):
    server = own_account.organization.server
    piped = Piped(own_account)
    piped.write(records[:4000])
    until(lambda: stored_batches(own_account) >= 1)
    server.kill()
    server.start()
    piped.write(records[4000:])
    status, said = piped.finish()
    assert status == WHOLE, said
    (scan,) = own_account.scanner.scans()
    assert (scan.state, scan.partial, scan.findings.created) == (
        v1.Scan.COMPLETED,
        False,
        expected["counts"]["scan1.fail"],
    )
    assert digest(own_account.identities("OPEN")) == expected["sha256_of_sorted_json_lines"]["scan1.fail"]


def test_the_next_import_of_the_same_file_completes_what_a_kill_left(v1, own_account, records, tmp_path, expected):
    """Server and client are both killed in the middle."""
    server = own_account.organization.server
    piped = Piped(own_account)
    piped.write(records[:4000])
    until(lambda: stored_batches(own_account) >= 1)
    server.kill()
    piped.process.kill()
    piped.finish()
    server.start()
    assert own_account.scanner.findings() == []
    lines = tmp_path / "scan1.json"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    scan = own_account.take(lines)[-1:] or own_account.scanner.scans()
    assert scan[-1].state == v1.Scan.COMPLETED and not scan[-1].partial
    assert digest(own_account.identities("OPEN")) == expected["sha256_of_sorted_json_lines"]["scan1.fail"]
    assert {s.state for s in own_account.scanner.scans()} <= {v1.Scan.COMPLETED, v1.Scan.FAILED}
    assert sum(s.state == v1.Scan.COMPLETED for s in own_account.scanner.scans()) == 1


def test_a_genie_that_is_killed_leaves_nothing_that_the_next_does_not_mend(v1, account, records):
    piped = Piped(account)
    piped.write(records[:4000])
    until(lambda: any(scan.state == v1.Scan.RUNNING for scan in account.scanner.scans()))
    piped.process.kill()
    piped.finish()
    assert account.scanner.findings() == []
    done = account.genie(data(SCANS[0]))
    assert done.returncode == WHOLE, done.stdout + done.stderr
    assert sum(scan.state == v1.Scan.COMPLETED for scan in account.scanner.scans()) == 1


def test_what_a_scan_covers_is_what_the_import_says_that_completes_it(v1, account, records, tmp_path):
    piped = Piped(account)
    piped.write(records[:4000])
    until(lambda: any(scan.state == v1.Scan.RUNNING for scan in account.scanner.scans()))
    piped.process.kill()
    piped.finish()
    lines = tmp_path / "scan1.json"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    (scan,) = account.take(lines, "--whole-account")
    assert scan.state == v1.Scan.COMPLETED and scan.coverage.extent == v1.Coverage.WHOLE_ACCOUNT


# --- Who may, and what is said where it cannot be ---


def test_a_viewer_cannot_import(account):
    viewer = account.organization.key("VIEWER").credential
    done = account.organization.server.genie(
        "import", "ocsf", data("aws-extra-fail-only"), credential=viewer, organization=account.organization.slug
    )
    assert done.returncode == FAILED and "may not" in done.stderr, done.stderr
    assert viewer not in done.stdout + done.stderr


def test_an_accounts_id_is_the_same_in_capitals(v1, organization, record, tmp_path):
    subscription = "0A1B2C3D-0000-4000-8000-00000000ABCD"
    azure = Account(v1, organization, subscription.lower(), "AZURE")
    cloud = {"provider": "azure", "account": {"uid": subscription}}
    file = write_ocsf(tmp_path / "azure.json", variant(record, cloud=cloud, unmapped__provider_uid=subscription))
    for options in ((), ("--account", azure.scanner.account.name)):
        assert azure.take_one(file, *options).results.fail == 1


def test_an_account_that_nobody_connected_is_named(v1, organization):
    key = organization.key("ANALYST").credential
    done = organization.server.genie(
        "import", "ocsf", data("aws-extra-fail-only"), credential=key, organization=organization.slug
    )
    assert done.returncode == FAILED and ACCOUNT in done.stderr, done.stderr
