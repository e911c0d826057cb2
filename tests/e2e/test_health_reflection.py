"""Health and reflection, as balancers and grpcurl use them: without a credential."""

import queue
import threading

import grpc
import pytest
from calls import until
from genied import Details
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

OURS = [
    "AuthService", "OrganizationService", "MemberService", "ApiKeyService", "CloudAccountService", "ScanService",
    "ResourceService", "FindingService", "AuditService",
]  # fmt: skip
SERVICES = ["", *(f"devopsgenie.v1.{name}" for name in OURS)]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def health(server):
    return health_pb2_grpc.HealthStub(server.channel())


def check(server, service):
    return health(server).Check(health_pb2.HealthCheckRequest(service=service)).status


class Watch:
    """A Watch call; what it says is taken one by one with next()."""

    def __init__(self, server, service=""):
        self.call = health(server).Watch(health_pb2.HealthCheckRequest(service=service))
        self.said = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for answer in self.call:
                self.said.put(answer.status)
        except grpc.RpcError as error:
            self.said.put(error.code())

    def next(self, seconds=30):
        return self.said.get(timeout=seconds)

    def is_quiet(self):
        return self.said.empty()


# --- Health ---


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_serving(server, service):
    assert check(server, service) == SERVING


def test_a_service_that_there_is_not_is_not_found(server):
    for name in ("devopsgenie.v1.NoSuchService", "FindingService", "x" * 300):
        with pytest.raises(grpc.RpcError) as caught:
            check(server, name)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_says_at_once_how_things_are(server):
    for service in SERVICES:
        watch = Watch(server, service)
        assert watch.next() == SERVING
        watch.call.cancel()


def test_a_watch_of_a_service_that_there_is_not_stays_open(server):
    watch = Watch(server, "devopsgenie.v1.NoSuchService")
    assert watch.next() == SERVICE_UNKNOWN
    assert watch.call.is_active()
    watch.call.cancel()


def test_many_watchers_cost_no_one_else(v1, server, organization):
    watches = [Watch(server) for _ in range(200)]
    assert {watch.next() for watch in watches} == {SERVING}
    assert organization.owner.auth.WhoAmI(v1.WhoAmIRequest()).caller
    for watch in watches:
        watch.call.cancel()


def test_health_follows_the_database(make_server):
    server = make_server()
    watches = {service: Watch(server, service) for service in ("", "devopsgenie.v1.FindingService")}
    assert {watch.next() for watch in watches.values()} == {SERVING}
    with server.database.gone():
        assert {watch.next() for watch in watches.values()} == {NOT_SERVING}
        assert check(server, "") == NOT_SERVING
    assert {watch.next() for watch in watches.values()} == {SERVING}
    assert check(server, "devopsgenie.v1.FindingService") == SERVING
    assert all(watch.is_quiet() for watch in watches.values())


def test_a_watcher_hears_that_the_server_goes(make_server):
    server = make_server("--drain-pause-ms", "500")
    watch = Watch(server)
    assert watch.next() == SERVING
    server.stop()
    assert watch.next() == NOT_SERVING
    assert watch.next() == grpc.StatusCode.UNAVAILABLE  # or the server would wait for its watcher


# --- Reflection ---


@pytest.fixture(params=["v1", "v1alpha"])
def ask(request, server):
    """ask(field="value", …) sends a request for each field over one stream, and returns the answers."""
    call = server.channel().stream_stream(
        f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    def ask(**fields):
        requests = [reflection_pb2.ServerReflectionRequest(**{name: value}) for name, value in fields.items()]
        return list(call(iter(requests), timeout=20))

    return ask


def files(answer):
    return [
        descriptor_pb2.FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto
    ]


def test_reflection_lists_every_service(ask):
    (answer,) = ask(list_services="")
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {*SERVICES[1:], "grpc.health.v1.Health"}
    assert names & {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize("symbol", [
    "devopsgenie.v1.FindingService", "devopsgenie.v1.FindingService.GetFinding", "devopsgenie.v1.Finding",
    "devopsgenie.v1.Finding.State", "devopsgenie.v1.Finding.name", "devopsgenie.options.rule",
    "devopsgenie.options.Role",
    "google.rpc.ErrorInfo", "google.rpc.BadRequest.FieldViolation", "google.rpc.PreconditionFailure",
    "google.rpc.ResourceInfo", "google.rpc.RetryInfo", "google.rpc.QuotaFailure", "google.rpc.Status",
    "google.protobuf.Timestamp", "google.api.http", "grpc.health.v1.Health",
])  # fmt: skip
def test_reflection_describes_a_symbol(ask, symbol):
    (answer,) = ask(file_containing_symbol=symbol)
    assert files(answer), answer


def test_what_reflection_gives_is_complete(ask):
    """Whoever follows the imports can build every method, with its options."""
    pool, known = descriptor_pool.DescriptorPool(), {}

    def learn(answer):
        for file in files(answer):
            known[file.name] = file
            for name in file.dependency:
                if name not in known:
                    learn(ask(file_by_filename=name)[0])

    for symbol in SERVICES[1:]:
        learn(ask(file_containing_symbol=symbol)[0])

    def add(name, done):
        """Adds a file after those that it imports."""
        if name not in done:
            done.add(name)
            for other in known[name].dependency:
                add(other, done)
            pool.Add(known[name])

    done = set()
    for name in known:
        add(name, done)
    method = pool.FindMethodByName("devopsgenie.v1.FindingService.GetFinding")
    assert method.input_type.fields_by_name["name"] and method.has_options


def test_reflection_knows_our_extensions(ask):
    extension = reflection_pb2.ExtensionRequest(containing_type="google.protobuf.MethodOptions", extension_number=51700)
    (answer,) = ask(file_containing_extension=extension)
    assert [file.name for file in files(answer)][0] == "devopsgenie/options/options.proto"
    (answer,) = ask(all_extension_numbers_of_type="google.protobuf.MethodOptions")
    assert 51700 in answer.all_extension_numbers_response.extension_number


def test_what_reflection_does_not_know_ends_no_stream(ask):
    answers = ask(
        file_containing_symbol="devopsgenie.v1.NoSuchThing",
        file_by_filename="no/such/file.proto",
        list_services="",
    )
    assert [answer.WhichOneof("message_response") for answer in answers] == [
        "error_response", "error_response", "list_services_response"
    ]  # fmt: skip
    assert {answer.error_response.error_code for answer in answers[:2]} == {grpc.StatusCode.NOT_FOUND.value[0]}
    assert answers[0].original_request.file_containing_symbol == "devopsgenie.v1.NoSuchThing"


def test_reflection_can_be_turned_off(v1, make_server):
    server = make_server("--reflection", "off")
    for version in ("v1", "v1alpha"):
        call = server.channel().stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b""]), timeout=20))
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert until(lambda: check(server, "") == SERVING)


def test_every_detail_of_a_refusal_can_be_read_by_one_who_knows_only_reflection(ask, v1, organization):
    with pytest.raises(grpc.RpcError) as caught:
        organization.owner.findings.GetFinding(v1.GetFindingRequest())
    details = Details(caught.value).all
    assert {"ErrorInfo", "BadRequest"} <= set(details)
    for name in details:
        (answer,) = ask(file_containing_symbol=f"google.rpc.{name}")
        assert any(name in [message.name for message in file.message_type] for file in files(answer))
