"""Imports, message by message: what the stream takes and refuses, what coverage resolves, and what a break leaves."""

import uuid

import pytest
from calls import code_of, until
from genied import refused
from google.protobuf.timestamp_pb2 import Timestamp
from scanning import Scanner


def states(v1, scanner):
    return {finding.resource_uid: v1.Finding.State.Name(finding.state) for finding in scanner.findings()}


def coverage(v1, extent, **fields):
    return v1.Coverage(extent=v1.Coverage.Extent.Value(extent), **fields)


def send_all(scanner, results, header, skip=0):
    """Sends results as batches of one, beginning where the server says; returns the summary and where it began."""
    with scanner.open() as call:
        begin = call.send(header=header).next_record
        for record in range(begin, len(results) + 1):
            call.send(batch=scanner.batch(results[record - 1], first_record=record))
        return call.send(end=scanner.v1.ImportEnd(record_count=len(results))), begin


# --- What a scan says ---


def test_a_scan_counts_what_came_in(v1, scanner):
    results = [scanner.result("a"), scanner.result("b", muted=True), scanner.result("c", status="PASS", muted=True)]
    scan = scanner.scan(*results, scanner.result("d", status="MANUAL", region="eu-west-1"), scanner_version="5.46.0")
    assert scan.state == v1.Scan.COMPLETED and scan.cloud_account == scanner.account.name
    assert scan.results == v1.ResultCounts(**{"pass": 1}, fail=2, manual=1, muted=1)
    assert scan.findings == v1.FindingCounts(created=2)
    assert (scan.pair_count, scan.partial, scan.scanner, scan.scanner_version) == (2, False, "Prowler", "5.46.0")
    assert scan.coverage.extent == v1.Coverage.REPORTED and scan.end_time.seconds
    assert scan.creator == scanner.api.auth.WhoAmI(v1.WhoAmIRequest()).caller
    assert scanner.api.scans.GetScan(v1.GetScanRequest(name=scan.name)) == scan
    assert scanner.scans() == [scan]


def test_a_scan_of_nothing_is_a_scan(v1, scanner):
    scan = scanner.scan()
    assert (scan.state, scan.pair_count, scan.findings) == (v1.Scan.COMPLETED, 0, v1.FindingCounts())


def test_importing_twice_changes_the_list_of_scans_alone(scanner):
    results = [scanner.result(str(n), status=status) for n, status in enumerate(["FAIL", "PASS", "MANUAL"] * 5)]
    scanner.scan(*results)
    before = scanner.findings()
    again = scanner.scan(*results)
    after = scanner.findings()
    assert (again.findings.created, again.findings.unchanged) == (0, 5)
    for finding in before + after:
        finding.ClearField("last_seen_time")
    assert after == before
    assert len(scanner.scans()) == 2
    assert all(len(scanner.events(finding)) == 1 for finding in after)


def test_nothing_is_seen_before_the_end_and_then_all_of_it(v1, scanner):
    with scanner.open() as call:
        started = call.send(header=scanner.header())
        call.send(batch=scanner.batch(scanner.result("a"), scanner.result("b")))
        assert scanner.findings() == []
        running = scanner.api.scans.GetScan(v1.GetScanRequest(name=started.scan))
        assert running.state == v1.Scan.RUNNING and not running.HasField("end_time")
        call.send(batch=scanner.batch(scanner.result("c"), first_record=3))
        assert scanner.findings() == []
        assert call.send(end=v1.ImportEnd(record_count=3)).findings.created == 3
        assert len(scanner.findings()) == 3


def test_checks_and_resources_are_described_once_and_shown_everywhere(v1, scanner):
    check = v1.CheckDescription(
        check="s3_bucket_versioning", service="s3", title="Versioning", description="*d*", risk="**r**",
        remediation="`m`", reference_urls=["https://a.example", "https://b.example"], compliance_json='{"CIS": ["1"]}',
    )  # fmt: skip
    resource = v1.ResourceDescription(
        uid="arn:aws:s3:::one", region="us-east-1", display_name="one", type="AwsS3Bucket", service="s3",
        labels=["a:b", "c:d:e"], metadata_json='{"deep": [[[{}]]]}',
    )  # fmt: skip
    scanner.scan(scanner.result(), checks=[check], resources=[resource])
    finding = scanner.finding()
    assert (finding.title, finding.description, finding.risk, finding.remediation) == (
        "Versioning",
        "*d*",
        "**r**",
        "`m`",
    )
    assert (finding.reference_urls, finding.resource_display_name) == (
        ["https://a.example", "https://b.example"],
        "one",
    )
    seen = scanner.api.resources.GetResource(v1.GetResourceRequest(name=finding.resource))
    assert (seen.resource_uid, seen.display_name, seen.type, seen.service, seen.region) == (
        "arn:aws:s3:::one", "one", "AwsS3Bucket", "s3", "us-east-1"
    )  # fmt: skip
    assert (seen.labels, seen.metadata_json) == (["a:b", "c:d:e"], '{"deep": [[[{}]]]}')
    check.title = "Versioning is on"
    scanner.scan(scanner.result(), checks=[check])
    assert scanner.finding().title == "Versioning is on"
    assert scanner.finding().resource == finding.resource


def test_several_records_of_one_check_on_one_resource_are_told_apart_by_name_and_detail(v1, scanner):
    """Whatever their order; and the next scan finds each of them again."""
    names = [("key 2", "b"), ("key 1", "z"), ("key 2", "a")]
    results = [scanner.result(resource_display_name=name, status_detail=detail) for name, detail in names]
    scanner.scan(*results)
    found = sorted(scanner.findings(), key=lambda finding: finding.ordinal)
    assert [(f.ordinal, f.status_detail) for f in found] == [(0, "z"), (1, "a"), (2, "b")]
    assert scanner.scan(*results[::-1]).findings.unchanged == 3


# --- What a scan resolves ---


def test_what_is_covered_and_not_reported_is_resolved(v1, scanner):
    scanner.scan(scanner.result("gone"), scanner.result("stays"), scanner.result("elsewhere", region="eu-west-1"))
    scan = scanner.scan(scanner.result("stays"))
    assert (scan.findings.unreported, scan.findings.unchanged) == (1, 1)
    assert states(v1, scanner) == {"gone": "RESOLVED", "stays": "OPEN", "elsewhere": "OPEN"}
    (gone,) = [finding for finding in scanner.findings() if finding.resource_uid == "gone"]
    event = scanner.events(gone)[-1]
    assert (event.reason, event.scan) == ("not reported", scan.name)


def test_a_pair_with_any_result_is_covered(v1, scanner):
    scanner.scan(scanner.result("gone"))
    scanner.scan(scanner.result("other", status="MANUAL"))
    assert states(v1, scanner) == {"gone": "RESOLVED"}


def test_a_pair_without_a_result_is_not(v1, scanner):
    """A scan that finds no resource for a check writes nothing: that it looked cannot be known."""
    scanner.scan(scanner.result("gone"))
    scanner.scan(scanner.result("other", check="s3_another_check"))
    assert states(v1, scanner) == {"gone": "OPEN", "other": "OPEN"}


def test_whole_account_resolves_all_that_is_not_reported(v1, scanner):
    scanner.scan(
        scanner.result("a"), scanner.result("b", region="eu-west-1"), scanner.result("c", check="x", service="ec2")
    )
    scan = scanner.scan(scanner.result("a"), coverage=coverage(v1, "WHOLE_ACCOUNT"))
    assert scan.coverage.extent == v1.Coverage.WHOLE_ACCOUNT and scan.findings.unreported == 2
    assert states(v1, scanner) == {"a": "OPEN", "b": "RESOLVED", "c": "RESOLVED"}


def test_whole_account_with_no_results_resolves_everything(v1, scanner):
    scanner.scan(scanner.result("a"), scanner.result("b"))
    assert scanner.scan(coverage=coverage(v1, "WHOLE_ACCOUNT")).findings.unreported == 2


@pytest.mark.parametrize(
    "services, regions, resolved",
    [
        (["s3"], [], {"s3 us", "s3 eu"}),
        ([], ["us-east-1"], {"s3 us", "ec2 us", "iam"}),
        (["s3", "ec2"], ["eu-west-1"], {"s3 eu", "ec2 eu"}),
        (["iam"], ["eu-west-1"], {"iam"}),
        (["rds"], [], set()),
        ([], ["ap-south-1"], {"iam"}),
        ([], [], {"s3 us", "s3 eu", "ec2 us", "ec2 eu", "iam"}),
    ],
)
def test_listed_resolves_what_is_listed(v1, scanner, services, regions, resolved):
    """A global service's findings belong to no region: a list of regions never leaves them out."""
    regional = [
        scanner.result(f"{service} {region[:2]}", check=f"{service}_check", service=service, region=region)
        for service in ("s3", "ec2")
        for region in ("us-east-1", "eu-west-1")
    ]
    scanner.scan(*regional, scanner.result("iam", check="iam_check", service="iam", region="us-east-1"))
    listed = coverage(v1, "LISTED", services=services, regions=regions)
    scan = scanner.scan(coverage=listed)
    assert scan.coverage == listed
    assert {uid for uid, state in states(v1, scanner).items() if state == "RESOLVED"} == resolved


@pytest.mark.parametrize("how", ["interrupted", "refused"])
@pytest.mark.parametrize("extent", ["REPORTED", "WHOLE_ACCOUNT", "LISTED"])
def test_a_partial_scan_resolves_only_what_it_saw_pass(v1, scanner, extent, how):
    scanner.scan(scanner.result("gone"), scanner.result("mended"), scanner.result("stays"))
    results = [scanner.result("mended", status="PASS"), scanner.result("stays")]
    if how == "refused":
        results.append(scanner.result("bad", account_uid="999999999999"))
    scan = scanner.scan(*results, coverage=coverage(v1, extent), interrupted=how == "interrupted")
    assert scan.partial
    assert states(v1, scanner) == {"gone": "OPEN", "mended": "RESOLVED", "stays": "OPEN"}


def test_one_account_does_not_resolve_anothers_findings(v1, organization, scanner):
    other = Scanner(v1, organization.owner, organization.cloud_account("210987654321"))
    scanner.scan(scanner.result())
    other.scan(other.result())
    other.scan(other.result("arn:aws:s3:::two", account_uid="210987654321"), coverage=coverage(v1, "WHOLE_ACCOUNT"))
    assert states(v1, scanner) == {"arn:aws:s3:::one": "OPEN"}


def test_last_seen_follows_the_scans_that_cover_it(v1, scanner):
    def at(seconds, *results):
        return scanner.scan(*results, scan_time=Timestamp(seconds=seconds))

    at(1_700_000_000, scanner.result("a"), scanner.result("b", check="x"))
    at(1_700_001_000, scanner.result("a"))
    seen = {finding.resource_uid: finding.last_seen_time.seconds for finding in scanner.findings()}
    assert seen == {"a": 1_700_001_000, "b": 1_700_000_000}


# --- What is refused ---


def refused_records(scanner, *results, **fields):
    with scanner.open() as call:
        call.send(header=scanner.header())
        ack = call.send(batch=scanner.batch(*results, **fields))
        scan = call.send(end=scanner.v1.ImportEnd(record_count=ack.next_record - 1))
    assert scan.results.refused == len(ack.refused) + len(fields.get("refused", ()))
    assert scan.partial
    return {error.record: error.reason for error in ack.refused}, scan


def test_a_result_that_breaks_a_bound_is_refused_alone(v1, scanner):
    status = v1.Evaluation.Status
    long = [
        scanner.result("c" * 4001), scanner.result(check="c" * 256), scanner.result(check=""),
        scanner.result(service="s" * 101), scanner.result(region="r" * 256),
        scanner.result(resource_display_name="n" * 4001), scanner.result(status_detail="d" * 16001),
        scanner.result(account_uid="210987654321"), scanner.result(account_uid=""),
        scanner.result(status=status.Name(0)),
    ]  # fmt: skip
    fits = [
        scanner.result("🧞" * 4000), scanner.result(check="c" * 255), scanner.result(service="s" * 100),
        scanner.result(region="r" * 255), scanner.result(resource_display_name="n" * 4000),
        scanner.result(status_detail="d" * 16000), scanner.result(""), scanner.result("no region", region=""),
    ]  # fmt: skip
    errors, scan = refused_records(scanner, *long, *fits)
    assert set(errors) == set(range(1, len(long) + 1))
    assert all(reason.isupper() for reason in errors.values())
    assert errors[8] == errors[9] == "ACCOUNT_MISMATCH" and errors[10] == "STATUS_UNKNOWN"
    assert scan.findings.created == len(fits)


def test_an_enum_that_is_none_is_refused_with_its_record_alone(v1, scanner):
    wild = v1.Evaluation.FromString(scanner.result("wild").SerializeToString() + b"\x40\x63")
    odd = scanner.result("odd severity")
    odd = v1.Evaluation.FromString(odd.SerializeToString() + b"\x48\x63")
    assert wild.status == 99 and odd.severity == 99
    errors, scan = refused_records(scanner, wild, odd, scanner.result("good"))
    assert errors == {1: "STATUS_UNKNOWN"}
    assert {f.resource_uid: f.severity for f in scanner.findings()} == {
        "odd severity": v1.Finding.UNKNOWN, "good": v1.Finding.MEDIUM
    }  # fmt: skip


def test_what_the_reader_refused_counts_too(v1, scanner):
    error = v1.RecordError(record=2, reason="JSON_INVALID", message="x")
    errors, scan = refused_records(scanner, scanner.result(), count=2, refused=[error])
    assert errors == {} and scan.results.refused == 1


def refuse_stream(code, reason, scanner, *parts):
    with refused(code, reason) as error, scanner.open() as call:
        for part in parts:
            call.send(**part)
    return error.details


def test_the_header_comes_first(v1, scanner):
    for part in ({"batch": scanner.batch(scanner.result())}, {"end": v1.ImportEnd()}, {}):
        refuse_stream("INVALID_ARGUMENT", None, scanner, part)


def test_one_header_is_enough(v1, scanner):
    refuse_stream("INVALID_ARGUMENT", None, scanner, {"header": scanner.header()}, {"header": scanner.header()})


@pytest.mark.parametrize("field", ["scanner", "scan_time", "request_id"])
def test_a_header_is_whole(scanner, field):
    header = scanner.header()
    header.ClearField(field)
    details = refuse_stream("INVALID_ARGUMENT", None, scanner, {"header": header})
    assert [v.field for v in details.all["BadRequest"].field_violations] == [f"header.{field}"]


def test_a_batch_begins_where_the_one_before_ended(v1, scanner):
    start = {"header": scanner.header()}
    for first_record in (0, -1, 2, 10**10):
        batch = scanner.batch(scanner.result(), first_record=first_record)
        refuse_stream("INVALID_ARGUMENT", None, scanner, start, {"batch": batch})


def test_a_batch_has_its_bounds(v1, scanner):
    start = {"header": scanner.header()}
    thousand = [scanner.result(str(n)) for n in range(1000)]
    for batch in (
        scanner.batch(*thousand, scanner.result("one too many")),
        scanner.batch(scanner.result(), count=1001),
        v1.ImportBatch(first_record=1),
    ):
        refuse_stream("INVALID_ARGUMENT", None, scanner, start, {"batch": batch})
    assert scanner.scan(*thousand).findings.created == 1000


def test_who_hears_of_a_refusal_can_begin_anew_at_once(v1, scanner):
    for _ in range(100):
        start, bad = {"header": scanner.header()}, {"batch": v1.ImportBatch(first_record=1)}
        refuse_stream("INVALID_ARGUMENT", None, scanner, start, bad)


def test_a_batch_sent_twice_counts_once(v1, scanner):
    with scanner.open() as call:
        call.send(header=scanner.header())
        for _ in range(3):
            assert call.send(batch=scanner.batch(scanner.result("a"), scanner.result("b"))).next_record == 3
        call.send(batch=scanner.batch(scanner.result("c"), first_record=3))
        assert call.send(batch=scanner.batch(scanner.result("a"), scanner.result("b"))).next_record == 4
        scan = call.send(end=v1.ImportEnd(record_count=3))
    assert (scan.results.fail, scan.findings.created) == (3, 3)
    assert [finding.ordinal for finding in scanner.findings()] == [0, 0, 0]


def test_an_end_that_comes_too_early_is_not_the_end(v1, scanner):
    details = refuse_stream(
        "ABORTED", "IMPORT_INCOMPLETE", scanner,
        {"header": scanner.header()}, {"batch": scanner.batch(scanner.result())}, {"end": v1.ImportEnd(record_count=2)},
    )  # fmt: skip
    assert "RetryInfo" in details.all
    assert scanner.findings() == []


def test_sixteen_batches_may_wait_for_their_acks(v1, scanner):
    with scanner.open() as call:
        call.send(header=scanner.header())
        for n in range(16):
            call.requests.put(v1.ImportResultsRequest(batch=scanner.batch(scanner.result(str(n)), first_record=n + 1)))
        assert [next(call.call).ack.next_record for _ in range(16)] == list(range(2, 18))
        assert call.send(end=v1.ImportEnd(record_count=16)).findings.created == 16


# --- One at a time, and what a break leaves ---


def test_two_imports_of_one_account_do_not_run_at_once(v1, organization, scanner):
    with scanner.open() as first:
        running = first.send(header=scanner.header()).scan
        details = refuse_stream("FAILED_PRECONDITION", "SCAN_RUNNING", scanner, {"header": scanner.header()})
        assert "PreconditionFailure" in details.all and "RetryInfo" in details.all
        other = Scanner(v1, organization.owner, organization.cloud_account("210987654321"))
        assert other.scan(other.result()).findings.created == 1, "another account's may"
        first.send(batch=scanner.batch(scanner.result()))
        assert first.send(end=v1.ImportEnd(record_count=1)).name == running
    assert scanner.scan(scanner.result()).findings.unchanged == 1


def test_a_caller_that_goes_away_leaves_the_way_free(v1, scanner):
    with scanner.open() as call:
        gone = call.send(header=scanner.header()).scan
        call.send(batch=scanner.batch(scanner.result("half")))
        call.cancel()
    until(lambda: code_of(lambda: scanner.scan(scanner.result("whole"))) == "OK", 10)
    assert states(v1, scanner) == {"whole": "OPEN"}
    failed = scanner.api.scans.GetScan(v1.GetScanRequest(name=gone))
    assert failed.state == v1.Scan.FAILED and failed.failure and failed.findings == v1.FindingCounts()


def test_a_caller_that_comes_back_goes_on_where_it_was(v1, scanner):
    results = [scanner.result(str(n)) for n in range(5)]
    header = scanner.header()
    with scanner.open() as call:
        scan = call.send(header=header).scan
        call.send(batch=scanner.batch(*results[:3]))
        call.cancel()
    summary, begin = send_all(scanner, results, header)
    assert (begin, summary.name, summary.findings.created) == (4, scan, 5)
    assert [scan.name for scan in scanner.scans()] == [summary.name]


def test_closing_without_an_end_can_be_continued(v1, scanner):
    header = scanner.header()
    with scanner.open() as call:
        call.send(header=header)
        call.send(batch=scanner.batch(scanner.result("a")))
        with refused("INVALID_ARGUMENT"):
            call.half_close()
    summary, begin = send_all(scanner, [scanner.result("a"), scanner.result("b")], header)
    assert (begin, summary.findings.created) == (2, 2)


def test_a_completed_import_is_not_continued(v1, scanner):
    """The request id continues a scan while it runs; after that it starts another one."""
    header = scanner.header()
    first, _ = send_all(scanner, [scanner.result()], header)
    second, begin = send_all(scanner, [scanner.result()], header)
    assert begin == 1 and second.name != first.name and second.findings.unchanged == 1


def test_a_killed_server_goes_on_where_the_import_was(v1, make_server, make_organization):
    server = make_server()
    organization = make_organization(server)
    scanner = Scanner(v1, organization.owner, organization.cloud_account())
    results = [scanner.result(str(n)) for n in range(5)]
    header = scanner.header()
    with scanner.open() as call:
        scan = call.send(header=header).scan
        call.send(batch=scanner.batch(*results[:3]))
        server.kill()
        with pytest.raises(Exception, match="UNAVAILABLE"):
            call.send(batch=scanner.batch(results[3], first_record=4))
    server.start()
    until(lambda: code_of(scanner.findings) == "OK")
    assert scanner.findings() == []
    summary, begin = send_all(scanner, results, header)
    assert begin in (4, 5) and summary.name == scan
    assert (summary.findings.created, summary.partial) == (5, False)
    assert len(scanner.findings()) == 5


def test_a_killed_server_leaves_no_half_of_the_end(v1, make_server, make_organization):
    """Killed while it completes a scan: the scan is in whole, or it can be completed."""
    server = make_server()
    organization = make_organization(server)
    scanner = Scanner(v1, organization.owner, organization.cloud_account())
    results = [scanner.result(str(n)) for n in range(1000)]
    header = scanner.header()
    with scanner.open() as call:
        call.send(header=header)
        call.send(batch=scanner.batch(*results))
        call.requests.put(v1.ImportResultsRequest(end=v1.ImportEnd(record_count=1000)))
        server.kill()
    server.start()
    until(lambda: code_of(scanner.findings) == "OK")
    assert len(scanner.findings()) in (0, 1000)
    with scanner.open() as call:
        begin = call.send(header=header).next_record
        if begin == 1:
            call.send(batch=scanner.batch(*results))
        call.send(end=v1.ImportEnd(record_count=1000))
    assert len(scanner.findings()) == 1000
    assert all(finding.ordinal == 0 and finding.regression_count == 0 for finding in scanner.findings())


def test_a_scanner_service_imports_into_any_organization(v1, server, connect, organization):
    account = organization.cloud_account()
    service = connect(server, server.token("prowler", "--service-role", "scanner"))
    scanner = Scanner(v1, service, account)
    assert scanner.scan(scanner.result()).creator == "service:prowler"


def test_an_unknown_account_has_no_scans(v1, organization, scanner):
    header = scanner.header()
    header.parent = f"{organization.name}/cloudAccounts/{uuid.uuid4()}"
    details = refuse_stream("NOT_FOUND", None, scanner, {"header": header})
    assert details.all["ResourceInfo"].resource_name == header.parent
