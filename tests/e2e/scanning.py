"""Scan results sent straight over ImportResults, and OCSF files read without any code of genie's."""

import gzip
import json
import queue
import uuid

from calls import everything
from google.protobuf.timestamp_pb2 import Timestamp

BATCH = 1000


class Import:
    """An ImportResults call that is driven message by message."""

    def __init__(self, v1, api):
        self.v1, self.requests = v1, queue.SimpleQueue()
        self.call = api.scans.ImportResults(iter(self.requests.get, None), timeout=120)

    def send(self, **part):
        """Sends header=, batch= or end=, and returns the answer's own part."""
        self.requests.put(self.v1.ImportResultsRequest(**part))
        answer = next(self.call)
        return getattr(answer, answer.WhichOneof("part"))

    def half_close(self):
        """Says that no more comes; raises what the call ends with, where that is not OK."""
        self.requests.put(None)
        assert not list(self.call), "an answer that nobody asked for"

    def cancel(self):
        self.call.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)  # ends the thread that feeds the call
        self.call.cancel()


class Scanner:
    """Imports for one cloud account, as one caller."""

    def __init__(self, v1, api, account):
        self.v1, self.api, self.account = v1, api, account
        self.parent = account.name.partition("/cloudAccounts/")[0]

    def result(self, uid="arn:aws:s3:::one", check="s3_bucket_versioning", status="FAIL", severity="MEDIUM", **fields):
        fields = {"account_uid": self.account.account_uid, "service": "s3", "region": "us-east-1", **fields}
        return self.v1.Evaluation(
            resource_uid=uid, check=check, status=self.v1.Evaluation.Status.Value(status),
            severity=self.v1.Finding.Severity.Value(severity), **fields,
        )  # fmt: skip

    def header(self, **fields):
        now = Timestamp()
        now.GetCurrentTime()
        fields = {"scanner": "Prowler", "scan_time": now, "request_id": str(uuid.uuid4()), **fields}
        return self.v1.ImportHeader(parent=self.account.name, **fields)

    def batch(self, *results, first_record=1, count=None, **fields):
        """A batch whose results are the records from first_record on."""
        for record, result in enumerate(results, first_record):
            result.record = result.record or record
        return self.v1.ImportBatch(
            first_record=first_record, record_count=count or len(results), evaluations=results, **fields
        )

    def open(self):
        return Import(self.v1, self.api)

    def scan(self, *results, checks=(), resources=(), interrupted=False, **header):
        """A whole import, with as many batches as it takes; returns the summary. Descriptions go with the first."""
        with self.open() as call:
            assert call.send(header=self.header(**header)).next_record == 1
            for at in range(0, len(results), BATCH):
                described = {} if at else {"checks": checks, "resources": resources}
                batch = self.batch(*results[at : at + BATCH], first_record=at + 1, **described)
                assert call.send(batch=batch).next_record == at + 1 + batch.record_count
            summary = call.send(end=self.v1.ImportEnd(record_count=len(results), interrupted=interrupted))
            call.half_close()
            return summary

    def findings(self):
        """Every finding of the account."""
        listed = everything(self.api.findings.ListFindings, self.v1.ListFindingsRequest(parent=self.parent))
        return [finding for finding in listed if finding.cloud_account == self.account.name]

    def finding(self, uid="arn:aws:s3:::one"):
        """The one finding of a resource, as GetFinding has it."""
        (found,) = [finding for finding in self.findings() if finding.resource_uid == uid]
        return self.api.findings.GetFinding(self.v1.GetFindingRequest(name=found.name))

    def events(self, finding):
        request = self.v1.ListFindingEventsRequest(parent=finding.name)
        return everything(self.api.findings.ListFindingEvents, request)

    def scans(self):
        return everything(self.api.scans.ListScans, self.v1.ListScansRequest(parent=self.parent))


def read_ocsf(path):
    """The records of a whole file, as Python has them."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def write_ocsf(path, *records):
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def evaluation(scanner, record):
    """What one of Prowler's records says: the second reader of the format, beside genie's."""
    resource = record["resources"][0]
    cloud = record.get("cloud") or {}
    return scanner.result(
        uid=resource["uid"],
        check=record["metadata"]["event_code"],
        status=record["status_code"],
        severity=record["severity"].upper(),
        service=record["finding_info"]["analytic"]["category"],
        region=resource.get("region") or cloud.get("region") or resource["namespace"],
        resource_display_name=resource["name"],
        status_detail=record["status_detail"],
        muted=record["status_id"] == 3,
    )


def identity(finding, account_uid):
    """What tells findings apart, as the expected lists have it."""
    return (account_uid, finding.check, finding.resource_uid, finding.region, finding.ordinal)
