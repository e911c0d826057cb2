"""Running: what a stop, a lost database and a deadline do to calls, and what the log says of each."""

import contextlib
import json
import secrets
import signal
import subprocess
import threading
import time
import uuid

import grpc
import pytest
from calls import code_of, until
from conftest import Organization, connections
from genied import BUILD, Details, refused
from scanning import Scanner
from tokens import Tokens


class Scene:
    """A server of the test's own, with an organization and an account in it."""

    def __init__(self, v1, server, connect):
        self.v1, self.server, self.database = v1, server, server.database
        self.organization = Organization(v1, server, connect, "org-" + secrets.token_hex(6))
        self.account = self.organization.cloud_account()
        self.scanner = Scanner(v1, self.organization.owner, self.account)
        self.accounts = self.organization.owner.cloud_accounts

    def read(self, **options):
        return self.accounts.GetCloudAccount(self.v1.GetCloudAccountRequest(name=self.account.name), **options)

    def write(self, name="renamed", **options):
        account = self.v1.CloudAccount(name=self.account.name, display_name=name)
        return self.accounts.UpdateCloudAccount(self.v1.UpdateCloudAccountRequest(cloud_account=account), **options)

    def delete(self, **options):
        return self.accounts.DeleteCloudAccount(self.v1.DeleteCloudAccountRequest(name=self.account.name), **options)

    def waiting(self):
        """How many statements wait for a lock."""
        return int(
            self.database.query(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                f" AND datname = '{self.database.name}'"
            )
        )

    @contextlib.contextmanager
    def locked(self):
        """While this lasts, nobody can change the account: a call that does waits in the database."""
        psql = subprocess.Popen(
            ["psql", "-qXAt", self.database.superuser_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        lock = f"SELECT 'locked' FROM cloud_accounts WHERE cloud_account_id = '{self.account.uid}' FOR UPDATE;"
        psql.stdin.write(f"BEGIN; {lock}\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            psql.communicate("COMMIT;\n")


@pytest.fixture
def make_scene(v1, make_server):
    with contextlib.ExitStack() as stack:
        connect = stack.enter_context(connections(v1))
        yield lambda *options: Scene(v1, make_server(*options), connect)


@pytest.fixture(scope="module")
def module_scene(v1, server):
    with connections(v1) as connect:
        yield Scene(v1, server, connect)


class Outcome(threading.Thread):
    """A call that is under way in a thread; result() is what it returned, or the RpcError that it raised."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call = call
        self.start()

    def run(self):
        try:
            self.value = self.call()
        except grpc.RpcError as error:
            self.value = error

    def result(self, seconds=30):
        self.join(seconds)
        assert not self.is_alive(), "still waiting"
        return self.value


def lines_of(server):
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def lines_about(server, request_id):
    return [line for line in lines_of(server) if line.get("request_id") == request_id]


# --- Stopping ---


def test_a_call_in_flight_finishes_before_the_server_ends(make_scene):
    scene = make_scene()
    with scene.locked():
        call = Outcome(lambda: scene.write("in flight"))
        until(scene.waiting)
        scene.server.process.send_signal(signal.SIGTERM)
        until(lambda: code_of(lambda: scene.read(timeout=2)) == "UNAVAILABLE")
        assert scene.server.process.poll() is None, "it waits for the call"
    assert call.result().display_name == "in flight"
    assert scene.server.process.wait(10) == 0


def test_what_does_not_finish_is_cut_off_when_the_time_is_over(make_scene):
    scene = make_scene("--drain-timeout-ms", "500")
    with scene.locked():
        call = Outcome(lambda: scene.write("too late"))
        until(scene.waiting)
        began = time.monotonic()
        scene.server.process.send_signal(signal.SIGTERM)
        assert call.result().code().name in ("UNAVAILABLE", "CANCELLED")
        assert scene.server.process.wait(10) == 0
        assert time.monotonic() - began < 8
        until(lambda: not scene.waiting(), 10)


def test_an_import_that_a_stop_cut_off_goes_on_after_the_start(v1, make_scene):
    scene = make_scene("--drain-timeout-ms", "500")
    header = scene.scanner.header()
    with scene.scanner.open() as call:
        call.send(header=header)
        call.send(batch=scene.scanner.batch(scene.scanner.result("a")))
        scene.server.stop()
    scene.server.start()
    with scene.scanner.open() as call:
        until(lambda: code_of(scene.read) == "OK")
        assert call.send(header=header).next_record == 2
        assert call.send(end=v1.ImportEnd(record_count=1)).findings.created == 1


@pytest.mark.skipif(BUILD.name == "tsan", reason="ThreadSanitizer holds signals back while gRPC core waits")
def test_a_second_signal_ends_it_at_once(make_scene):
    scene = make_scene()
    with scene.locked():
        call = Outcome(lambda: scene.write("in flight"))
        until(scene.waiting)
        scene.server.process.send_signal(signal.SIGTERM)
        until(lambda: '"draining"' in scene.server.tail())
        scene.server.process.send_signal(signal.SIGTERM)
        assert scene.server.process.wait(5) == 1
    assert call.result().code().name == "UNAVAILABLE"


def test_nothing_is_left_behind_in_the_database(make_scene):
    scene = make_scene()
    sessions = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{scene.database.name}' AND pid <> pg_backend_pid()"
    )
    assert int(scene.database.query(sessions)) > 0
    scene.server.stop()
    until(lambda: scene.database.query(sessions) == "0")


# --- The database ---


def test_without_a_database_calls_are_unavailable_and_with_it_they_work_again(v1, make_scene):
    scene = make_scene()
    process = scene.server.process.pid
    with scene.database.gone():
        until(lambda: code_of(lambda: scene.read(timeout=10)) == "UNAVAILABLE")
        for call in (scene.read, scene.write, scene.delete):
            with refused("UNAVAILABLE") as error:
                call(timeout=10)
            assert error.details.all["RetryInfo"].retry_delay.ToMilliseconds() > 0
            assert "FATAL" not in error.details.message and "psql" not in error.details.message.lower()
        with refused("UNAVAILABLE"), scene.scanner.open() as stream:
            stream.send(header=scene.scanner.header())
        jwt = scene.organization.owner.auth.WhoAmI(v1.WhoAmIRequest(), timeout=10)
        assert jwt.kind == v1.WhoAmIResponse.USER, "what needs no database goes on"
    until(lambda: code_of(lambda: scene.read(timeout=10)) == "OK", 30)
    until(lambda: code_of(lambda: scene.write("back", timeout=10)) == "OK", 30)
    until(lambda: code_of(lambda: scene.scanner.scan(scene.scanner.result())) == "OK", 30)
    assert scene.scanner.finding() and scene.read().display_name == "back"
    assert scene.server.process.pid == process and scene.server.process.poll() is None


def test_a_key_is_not_good_because_nobody_can_look(v1, make_scene, connect):
    """Who cannot be looked up is not let in, and is not told that the key is wrong either."""
    scene = make_scene()
    key = scene.organization.key("VIEWER").credential
    with scene.database.gone():
        until(lambda: code_of(lambda: scene.read(timeout=10)) == "UNAVAILABLE")
        time.sleep(1.1)  # what is remembered of a key is remembered for a second
        for credential in (key, key[:20] + "A" * 46):
            code = code_of(lambda c=credential: connect(scene.server, c).auth.WhoAmI(v1.WhoAmIRequest(), timeout=10))
            assert code in ("UNAVAILABLE", "UNAUTHENTICATED") if credential != key else code == "UNAVAILABLE"


def test_an_import_goes_on_after_the_database_was_gone(v1, make_scene):
    scene = make_scene()
    scanner, header = scene.scanner, scene.scanner.header()
    with scanner.open() as call:
        call.send(header=header)
        call.send(batch=scanner.batch(scanner.result("a")))
        with scene.database.gone():
            with refused("UNAVAILABLE"):
                call.send(batch=scanner.batch(scanner.result("b"), first_record=2))

    def goes_on():
        with scanner.open() as call:
            return call.send(header=header).next_record == 2

    until(lambda: code_of(goes_on) == "OK", 30)
    with scanner.open() as call:
        assert call.send(header=header).next_record == 2
        call.send(batch=scanner.batch(scanner.result("b"), first_record=2))
        assert call.send(end=v1.ImportEnd(record_count=2)).findings.created == 2


def test_the_server_waits_for_no_database_that_is_not_there(make_server):
    server = make_server()
    server.stop()
    with server.database.gone(), pytest.raises(AssertionError, match="genied does not start"):
        server.start()
    assert "password" not in server.tail()


# --- Deadlines ---


@pytest.mark.parametrize("kind, seconds", [("write", 8), ("delete", 4)])
def test_a_deadline_holds_down_to_the_database(module_scene, kind, seconds):
    """A call alone on its connection is cancelled there; one among others goes with its statement timeout, 5 s."""
    scene = module_scene
    with scene.locked():
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            getattr(scene, kind)(timeout=1)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0.9 < time.monotonic() - began < 3
        until(lambda: not scene.waiting(), seconds)
    assert scene.read().display_name != "renamed"


def test_a_caller_that_goes_stops_what_it_asked_for(module_scene):
    scene = module_scene
    request = scene.v1.DeleteCloudAccountRequest(name=scene.account.name)
    with scene.locked():
        call = scene.accounts.DeleteCloudAccount.future(request)
        until(scene.waiting)
        call.cancel()
        until(lambda: not scene.waiting(), 4)
    assert scene.read()


def test_a_default_deadline_holds_where_the_caller_set_none(make_scene):
    scene = make_scene("--default-timeout-ms", "500")
    channel = scene.server.channel(scene.organization.owner.credential, [("grpc.service_config", "{}")])
    stub = scene.v1.CloudAccountServiceStub(channel)
    account = scene.v1.CloudAccount(name=scene.account.name, display_name="late")
    with scene.locked():
        with refused("DEADLINE_EXCEEDED"):
            stub.UpdateCloudAccount(scene.v1.UpdateCloudAccountRequest(cloud_account=account))
        until(lambda: not scene.waiting(), 8)
    channel.close()


def test_a_statement_that_takes_too_long_is_ended_and_says_no_sql(make_scene):
    scene = make_scene("--statement-timeout-ms", "500")
    with scene.locked():
        with pytest.raises(grpc.RpcError) as caught:
            scene.write(timeout=20)
    details = Details(caught.value)
    assert details.code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")
    assert details.reason.isupper() and "statement" not in details.message


def test_one_who_waits_holds_up_no_reader(module_scene):
    scene = module_scene
    with scene.locked():
        call = Outcome(lambda: scene.write("later"))
        until(scene.waiting)
        for _ in range(20):
            began = time.monotonic()
            scene.read(timeout=5)
            assert time.monotonic() - began < 2
    assert call.result().display_name == "later"
    scene.write("as before")


# --- Request ids and the log ---


def trailers_of(call, *arguments, **options):
    _, finished = call.with_call(*arguments, **options)
    return dict(finished.trailing_metadata())


def test_a_request_id_is_taken_and_given_back(v1, module_scene):
    whoami = module_scene.organization.owner.auth.WhoAmI
    for given in ("my-request-1", str(uuid.uuid4()), "A" * 64, "trace:01/02.3_4+5="):
        assert trailers_of(whoami, v1.WhoAmIRequest(), metadata=[("x-request-id", given)])["x-request-id"] == given


def test_a_request_id_is_made_where_none_was_given(v1, module_scene):
    whoami = module_scene.organization.owner.auth.WhoAmI
    made = {trailers_of(whoami, v1.WhoAmIRequest())["x-request-id"] for _ in range(50)}
    assert len(made) == 50


def test_a_refusal_has_its_request_id_in_trailers_and_details(v1, module_scene):
    for metadata in ([("x-request-id", "mine-1")], []):
        with refused("INVALID_ARGUMENT") as error:
            module_scene.accounts.GetCloudAccount(v1.GetCloudAccountRequest(), metadata=metadata)
        assert error.details.trailers["x-request-id"] == error.details.metadata["request_id"] != ""


def test_a_stream_has_a_request_id_too(v1, module_scene):
    scanner = module_scene.scanner
    call = scanner.api.scans.ImportResults(
        iter([v1.ImportResultsRequest(end=v1.ImportEnd())]), metadata=[("x-request-id", "stream-1")]
    )
    with pytest.raises(grpc.RpcError):
        list(call)
    assert dict(call.trailing_metadata())["x-request-id"] == "stream-1"


def test_every_call_has_one_line_in_the_log(v1, make_scene):
    scene = make_scene()
    owner, server = scene.organization.owner, scene.server
    anonymous = server.channel()
    unknown = anonymous.unary_unary("/devopsgenie.v1.FindingService/NoSuchMethod")
    calls = {  # request id: the call, its code, its method
        "log-ok": (lambda m: scene.read(metadata=m), "OK", "devopsgenie.v1.CloudAccountService.GetCloudAccount"),
        "log-invalid": (
            lambda m: owner.findings.GetFinding(v1.GetFindingRequest(name="x"), metadata=m),
            "INVALID_ARGUMENT", "devopsgenie.v1.FindingService.GetFinding",
        ),
        "log-nobody": (
            lambda m: v1.AuthServiceStub(anonymous).WhoAmI(v1.WhoAmIRequest(), metadata=m),
            "UNAUTHENTICATED", "devopsgenie.v1.AuthService.WhoAmI",
        ),
        "log-denied": (
            lambda m: owner.findings.ListFindings(v1.ListFindingsRequest(parent="organizations/other"), metadata=m),
            "PERMISSION_DENIED", "devopsgenie.v1.FindingService.ListFindings",
        ),
        "log-unknown": (lambda m: unknown(b"", metadata=m), "UNIMPLEMENTED", None),
        "log-stream": (
            lambda m: list(owner.scans.ImportResults(iter([v1.ImportResultsRequest(
                header=scene.scanner.header()), v1.ImportResultsRequest(end=v1.ImportEnd())]), metadata=m)),
            "OK", "devopsgenie.v1.ScanService.ImportResults",
        ),
    }  # fmt: skip
    for request_id, (call, code, _) in calls.items():
        assert code_of(lambda call=call, i=request_id: call([("x-request-id", i)])) == code
    server.stop()
    for request_id, (_, code, method) in calls.items():
        (line,) = lines_about(server, request_id)
        assert (line["event"], line["code"]) == ("call", code)
        assert method is None or line["method"] == method
        assert line["ms"] >= 0 and line["time"].endswith("Z")
    (line,) = lines_about(server, "log-ok")
    assert line["caller"] == f"user:owner-{scene.organization.slug}"
    assert line["organization"] == scene.organization.slug
    (line,) = lines_about(server, "log-nobody")
    assert not line.get("caller")


def test_a_call_whose_caller_went_is_logged_too(v1, make_scene):
    scene = make_scene()
    with scene.scanner.open() as call:
        call.send(header=scene.scanner.header())
    scene.server.stop()
    imports = [line for line in lines_of(scene.server) if line.get("method", "").endswith("ImportResults")]
    assert [line["code"] for line in imports] == ["CANCELLED"]


def test_no_secret_is_in_the_log(v1, make_scene, connect):
    scene = make_scene()
    server, organization, tokens = scene.server, scene.organization, Tokens(scene.server)
    keys = [organization.key(role).credential for role in ("VIEWER", "OWNER")]
    bad = [tokens.sign(exp=1), tokens.confuse_public_key_with_secret(), tokens.leave_unsigned(), keys[0][:-1] + "!"]
    for credential in keys + bad:
        code_of(lambda c=credential: connect(server, c).auth.WhoAmI(v1.WhoAmIRequest(), timeout=20))
        code_of(lambda c=credential: v1.AuthServiceStub(server.channel()).WhoAmI(
            v1.WhoAmIRequest(), metadata=[("x-api-key", c)], timeout=20))  # fmt: skip
    secret = "S3cretAws/" + "k" * 29 + "="
    for access_key_id in ("AKIA" + "A1" * 8, "wrong"):
        code_of(lambda i=access_key_id: scene.accounts.SetCloudAccountCredentials(
            v1.SetCloudAccountCredentialsRequest(name=scene.account.name, aws=v1.AwsCredentials(
                access_key_id=i, secret_access_key=secret))))  # fmt: skip
    with scene.database.gone():
        for credential in keys:
            code_of(lambda c=credential: connect(server, c).auth.WhoAmI(v1.WhoAmIRequest(), timeout=10))
    server.stop()
    log = server.log.read_text()
    assert len(log) > 1000
    private = [*keys, *bad, secret, organization.owner.credential, (server.folder / "vault-key").read_text()]
    for value in private:
        for part in {value, value[-24:], value.rpartition(".")[2] or value}:
            assert part not in log, value
    assert "BEGIN" not in log and "S3cret" not in log


def test_a_caller_cannot_write_lines_of_its_own_into_the_log(v1, make_scene):
    scene = make_scene()
    for name in ('x"}\n{"event":"forged"}', "x\r\nforged", '\\"', "\x1b[31m"):
        code_of(lambda n=name: scene.accounts.GetCloudAccount(v1.GetCloudAccountRequest(name=n)))
        code_of(
            lambda n=name: scene.server.channel().unary_unary("/x/" + n.replace("\n", "").replace("\r", ""))(
                b"", timeout=20
            )
        )
    scene.server.stop()
    assert all(line["event"] != "forged" for line in lines_of(scene.server))
    assert "\x1b" not in scene.server.log.read_text()
