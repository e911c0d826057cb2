"""Bad input: bytes that no client library would send, and values out of all bounds. Each gets its code and its details,
and the server answers the next call as if nothing had been."""

import socket
import ssl

import grpc
import pytest
from calls import code_of
from genied import Details, refused

PATH = "/devopsgenie.v1.{}"
SQL = ("SELECT", "INSERT", "UPDATE ", "relation", "column", "constraint", "syntax", "psql", "PG", "libpq")


@pytest.fixture(autouse=True)
def still_answers(v1, server, connect):
    """After every test the same server process answers an ordinary call, if perhaps on another connection."""
    process, token = server.process.pid, server.token("platform", "--service-role", "platform-admin")
    yield
    assert connect(server, token).organizations.ListOrganizations(v1.ListOrganizationsRequest(), timeout=20)
    assert server.process.pid == process and server.process.poll() is None


def raw(api, method, data, **options):
    """A unary call whose request is these very bytes."""
    return api.channel.unary_unary(PATH.format(method))(data, timeout=20, **options)


def field(number, data):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def refused_raw(api, method, data, code="INVALID_ARGUMENT"):
    with refused(code) as error:
        raw(api, method, data)
    shown = error.details.message + str(error.details.all)
    assert not any(word in shown for word in SQL), shown
    assert error.details.reason.replace("_", "").isalnum() and error.details.reason.isupper()
    return error.details


# --- Bytes ---


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x08" + b"\x80" * 20,
        b"\x00\x00",
        b"\x0f\x01",
        b"\x0b",
        b"\x0c",
        b"\x0b" * 1000,
        b"\x0d\x01\x02",
        bytes(range(256)),
    ],
)
def test_bytes_that_are_no_message(organization, data):
    refused_raw(organization.owner, "FindingService/GetFinding", data)


def test_a_message_cut_anywhere(v1, organization):
    account = v1.CloudAccount(provider=v1.CloudAccount.AWS, account_uid="123456789012", display_name="Konto")
    whole = v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=account).SerializeToString()
    for size in range(len(whole)):
        code = code_of(lambda cut=whole[:size]: raw(organization.owner, "CloudAccountService/CreateCloudAccount", cut))
        assert code in ("INVALID_ARGUMENT", "PERMISSION_DENIED"), size


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xc3", b"\x80", b"\xfe"]
)
def test_a_string_that_is_no_utf_8(v1, organization, text):
    name = field(1, organization.name.encode() + b"/findings/" + text)
    details = refused_raw(organization.owner, "FindingService/GetFinding", name)
    assert [v.field for v in details.all["BadRequest"].field_violations] == ["name"]
    request = v1.CreateMemberRequest(parent=organization.name).SerializeToString() + field(
        2, field(3, b"a@b.example" + text)
    )
    details = refused_raw(organization.owner, "MemberService/CreateMember", request)
    assert [v.field for v in details.all["BadRequest"].field_violations] == ["member.email"]


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "a\x00", "\x00a"])
def test_a_nul_in_a_string(v1, organization, text):
    """PostgreSQL cannot store one, and C would stop reading at it."""
    owner = organization.owner
    key = v1.ApiKey(display_name=text, role=v1.VIEWER)
    with refused("INVALID_ARGUMENT") as error:
        owner.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=organization.name, api_key=key))
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["api_key.display_name"]
    with refused("INVALID_ARGUMENT"):
        owner.members.ListMembers(v1.ListMembersRequest(parent=organization.name + text))
    with refused("INVALID_ARGUMENT"):
        owner.members.ListMembers(v1.ListMembersRequest(parent=organization.name, page_token=text))


def test_a_nul_in_an_import_is_refused_and_not_cut(v1, scanner):
    with scanner.open() as call:
        call.send(header=scanner.header())
        with refused("INVALID_ARGUMENT"):
            call.send(batch=scanner.batch(scanner.result("cut\x00here")))
    assert scanner.findings() == []


@pytest.mark.parametrize("depth", [101, 1000, 50_000])
def test_nesting_without_end(organization, depth):
    """In unknown fields and groups too: whatever reads them must not recurse on the caller's word."""
    name = field(1, organization.name.encode())
    groups = name + b"\xa3\x06" * depth + b"\xa4\x06" * depth
    assert code_of(lambda: raw(organization.owner, "OrganizationService/GetOrganization", groups)) in (
        "OK",
        "INVALID_ARGUMENT",
    )
    nested = b""
    for _ in range(min(depth, 3000)):
        nested = field(2, nested)
    code = code_of(lambda: raw(organization.owner, "CloudAccountService/CreateCloudAccount", nested))
    assert code == "INVALID_ARGUMENT"


def test_an_unknown_field_is_passed_over(v1, organization):
    """As protobuf asks: a newer client may send what this server does not know."""
    data = field(1, organization.name.encode()) + field(1000, b"new") + varint(999 << 3) + varint(7)
    answer = v1.Organization.FromString(raw(organization.owner, "OrganizationService/GetOrganization", data))
    assert answer.name == organization.name


def test_the_last_of_a_repeated_singular_field_counts(v1, organization):
    data = field(1, b"organizations/another-one") + field(1, organization.name.encode())
    answer = v1.Organization.FromString(raw(organization.owner, "OrganizationService/GetOrganization", data))
    assert answer.name == organization.name


def test_a_name_in_two_parts_cannot_smuggle_another_organization(v1, make_organization, organization):
    """What was authorized is what is done, whichever copy of a field the two would read."""
    other = make_organization()
    for names in ((organization.name, other.name), (other.name, organization.name)):
        carried = b"".join(field(1, field(1, name.encode()) + field(3, b"pwned")) for name in names)
        code = code_of(lambda data=carried: raw(organization.owner, "OrganizationService/UpdateOrganization", data))
        assert code == ("PERMISSION_DENIED" if names[-1] == other.name else "OK")
    assert (
        other.owner.organizations.GetOrganization(v1.GetOrganizationRequest(name=other.name)).display_name == other.slug
    )


def test_a_wire_type_that_is_not_the_fields(organization):
    """A number where a name should be: to protobuf an unknown field, so the name is missing."""
    refused_raw(organization.owner, "FindingService/GetFinding", b"\x08\x01")


# --- Sizes ---


def test_a_message_that_is_too_large(v1, organization):
    huge = v1.AcknowledgeFindingRequest(name=organization.name + "/findings/x", note="x" * 5 * 1024 * 1024)
    method = "FindingService/AcknowledgeFinding"
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"):
        raw(organization.owner, method, huge.SerializeToString())
    # What is far larger gRPC refuses by itself, before any of our code: there are no details.
    assert code_of(lambda: raw(organization.owner, method, huge.SerializeToString() * 4)) == "RESOURCE_EXHAUSTED"


def test_a_message_in_a_stream_that_is_too_large(v1, scanner):
    with scanner.open() as call:
        call.send(header=scanner.header())
        results = [scanner.result(str(n), status_detail="x" * 16000) for n in range(330)]
        assert code_of(lambda: call.send(batch=scanner.batch(*results))) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_is_turned_away(organization, compression):
    with pytest.raises(grpc.RpcError) as caught:
        raw(organization.owner, "FindingService/ListFindings", b"", compression=compression)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "disabled" in caught.value.details()


def test_a_message_that_swells_when_it_is_read(organization):
    """A few bytes each on the wire, far more in memory: millions of empty elements."""
    for method, number in (("OrganizationService/UpdateOrganization", 2), ("FindingService/GetFinding", 15)):
        data = field(number, b"") * 2_000_000
        code = code_of(lambda method=method, data=data: raw(organization.owner, method, data))
        assert code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
def test_metadata_that_is_too_large(v1, organization, size):
    stub = organization.owner.auth
    code = code_of(lambda: stub.WhoAmI(v1.WhoAmIRequest(), metadata=[("x-large", "x" * size)], timeout=20))
    assert code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "CANCELLED") if size > 20_000 else True


@pytest.mark.parametrize("value", ["", "x" * 65, "a b", "ü".encode(), 'say "hi"', "{}"])
def test_a_request_id_that_is_none_is_replaced(v1, organization, value):
    metadata = [("x-request-id-bin" if isinstance(value, bytes) else "x-request-id", value)]
    _, call = organization.owner.auth.WhoAmI.with_call(v1.WhoAmIRequest(), metadata=metadata)
    made = dict(call.trailing_metadata())["x-request-id"]
    assert made and made != value and made.isalnum()


# --- Methods ---


@pytest.mark.parametrize(
    "path",
    [
        "/devopsgenie.v1.FindingService/NoSuchMethod",
        "/devopsgenie.v1.FindingService/getfinding",
        "/devopsgenie.v1.FindingService/",
        "/devopsgenie.v1.NoSuchService/Get",
        "/devopsgenie.v1.FindingService",
        "/",
        "//",
        "/devopsgenie.v1.FindingService/GetFinding/",
        "/" + "x" * 5000 + "/y",
    ],
)
def test_a_method_that_there_is_not(organization, path):
    with pytest.raises(grpc.RpcError) as caught:
        organization.owner.channel.unary_unary(path)(b"", timeout=20)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    info = Details(caught.value).all["ErrorInfo"]
    assert info.domain == "devopsgenie.dev" and info.reason.isupper()


def test_a_stream_to_a_method_that_takes_one_message(v1, organization):
    call = organization.owner.channel.stream_unary(PATH.format("OrganizationService/GetOrganization"))
    request = v1.GetOrganizationRequest(name=organization.name).SerializeToString()
    assert code_of(lambda: call(iter([request] * 3), timeout=20)) in (
        "OK",
        "INTERNAL",
        "UNIMPLEMENTED",
        "INVALID_ARGUMENT",
        "CANCELLED",
    )
    with refused("INVALID_ARGUMENT"):
        call(iter([]), timeout=20)


def test_one_message_to_a_method_that_takes_a_stream(v1, scanner):
    request = v1.ImportResultsRequest(header=scanner.header()).SerializeToString()
    code = code_of(lambda: raw(scanner.api, "ScanService/ImportResults", request))
    assert code in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "INTERNAL")


def test_a_stream_without_a_message(scanner):
    with refused("INVALID_ARGUMENT"), scanner.open() as call:
        call.half_close()


# --- Values ---


NAMES = [
    "", "organizations", "organizations/", "organizations//findings/x", "findings/x", "/organizations/acme",
    "{org}/findings", "{org}/findings/", "{org}/findings/x", "{org}/findings/{uuid}/", "{org}/findings/{uuid}/x",
    "{org}/members/{uuid}", "{org}/Findings/{uuid}", "{org}/findings/{uuid} ", " {org}/findings/{uuid}",
    "{org}//findings/{uuid}", "{org}/findings/{uuid}0", "{org}/findings/{braced}", "{org}/findings/{plain}",
    "{org}/findings/-", "{org}/findings/*", "{org}/findings/..", "{org}/findings/%2e", "{org}\n/findings/{uuid}",
    "https://genie.example/{org}/findings/{uuid}", "//genie.local/{org}/findings/{uuid}",
    "{org}/findings/zzzzzzzz-7b1a-7c3d-9e2f-5a6b7c8d9e0f", "{org}/findings/018f3c1e-7b1a7c3d-9e2f-5a6b-7c8d9e0f",
    "{org}/findings/' OR 1=1 --", "{org}/findings/" + "x" * 100_000, "organizations/x' OR '1'='1/findings/{uuid}",
    "organizations/-/findings/{uuid}", "organizations/AB/findings/{uuid}",
]  # fmt: skip
GOOD_UUID = "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:50])
def test_a_name_that_is_none(v1, organization, name):
    name = name.replace("{org}", organization.name).replace("{uuid}", GOOD_UUID)
    name = name.replace("{braced}", "{" + GOOD_UUID + "}").replace("{plain}", GOOD_UUID.replace("-", ""))
    with refused("INVALID_ARGUMENT") as error:
        organization.owner.findings.GetFinding(v1.GetFindingRequest(name=name))
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["name"]
    assert len(error.details.message) < 2000


def test_a_uuid_is_the_same_in_capitals(v1, scanner):
    scanner.scan(scanner.result())
    finding = scanner.finding()
    capitals = finding.name.replace(finding.uid, finding.uid.upper())
    assert scanner.api.findings.GetFinding(v1.GetFindingRequest(name=capitals)) == finding


@pytest.mark.parametrize("number", [6, 99, -1, 2**31 - 1, -(2**31)])
def test_an_enum_out_of_range(v1, organization, number):
    with refused("INVALID_ARGUMENT") as error:
        member = v1.Member(email="eve@example.com", role=number)
        organization.owner.members.CreateMember(v1.CreateMemberRequest(parent=organization.name, member=member))
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["member.role"]
    with refused("INVALID_ARGUMENT") as error:
        account = v1.CloudAccount(provider=number, account_uid="x", display_name="x")
        organization.owner.cloud_accounts.CreateCloudAccount(
            v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=account)
        )
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["cloud_account.provider"]


@pytest.mark.parametrize(
    "seconds, nanos",
    [(253402300800, 0), (-62135596801, 0), (2**63 - 1, 0), (-(2**63), 0), (4 * 10**9, 10**9), (4 * 10**9, -1)],
)
def test_a_time_that_there_is_not(v1, organization, seconds, nanos):
    key = v1.ApiKey(display_name="x", role=v1.VIEWER)
    key.expire_time.seconds, key.expire_time.nanos = seconds, nanos
    with refused("INVALID_ARGUMENT") as error:
        organization.owner.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=organization.name, api_key=key))
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["api_key.expire_time"]


def test_the_last_moment_there_is(v1, organization):
    key = v1.ApiKey(display_name="x", role=v1.VIEWER)
    key.expire_time.seconds, key.expire_time.nanos = 253402300799, 999_999_000
    made = organization.owner.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=organization.name, api_key=key))
    assert made.expire_time == key.expire_time


@pytest.mark.parametrize("method, message, path, most", [
    ("api_keys.CreateApiKey", "CreateApiKeyRequest", "api_key.display_name", 100),
    ("members.ListMembers", "ListMembersRequest", "page_token", 4000),
    ("cloud_accounts.DeleteCloudAccount", "DeleteCloudAccountRequest", "etag", 64),
    ("findings.AcknowledgeFinding", "AcknowledgeFindingRequest", "note", 4000),
    ("agents.CreateAgent", "CreateAgentRequest", "agent.display_name", 100),
    ("tasks.ListTasks", "ListTasksRequest", "page_token", 4000),
])  # fmt: skip
def test_a_string_that_is_too_long(v1, organization, method, message, path, most):
    request = getattr(v1, message)()
    owner = next(f for f in ("name", "parent") if f in request.DESCRIPTOR.fields_by_name)
    collections = {"Delete": f"/cloudAccounts/{GOOD_UUID}", "Acknow": f"/findings/{GOOD_UUID}"}
    setattr(request, owner, organization.name + collections.get(message[:6], ""))
    if message == "CreateApiKeyRequest":
        request.api_key.role = v1.VIEWER
    place, *rest = path.split(".")
    at, last = (getattr(request, place), rest[0]) if rest else (request, place)
    setattr(at, last, "ü" * (most + 1))
    service, _, call = method.partition(".")
    with refused("INVALID_ARGUMENT") as error:
        getattr(getattr(organization.owner, service), call)(request)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == [path]


def test_every_wrong_field_is_named(v1, organization):
    account = v1.CloudAccount(provider=77, display_name="x" * 101)
    request = v1.CreateCloudAccountRequest(parent=organization.name, cloud_account=account, request_id="x")
    with refused("INVALID_ARGUMENT") as error:
        organization.owner.cloud_accounts.CreateCloudAccount(request)
    fields = {v.field for v in error.details.all["BadRequest"].field_violations}
    assert fields == {
        "cloud_account.provider", "cloud_account.account_uid", "cloud_account.display_name", "request_id"
    }  # fmt: skip
    assert all(v.description for v in error.details.all["BadRequest"].field_violations)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE members; --", "\\", "$1", "%s%n", "\u202e", "{}", "NULL", "ÿ" * 100, "\n\r\t"]
)
def test_what_looks_like_code_is_text(v1, organization, text):
    key = v1.ApiKey(display_name=text, role=v1.VIEWER)
    made = organization.owner.api_keys.CreateApiKey(v1.CreateApiKeyRequest(parent=organization.name, api_key=key))
    assert made.display_name == text
    assert organization.owner.api_keys.GetApiKey(v1.GetApiKeyRequest(name=made.name)).display_name == text


# --- What is no gRPC at all ---


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500]
)
@pytest.mark.parametrize("over", ["tcp", "tls", "tls that speaks h2"])
def test_a_connection_that_speaks_something_else(server, said, over):
    host, _, port = server.endpoint.partition(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    with plain:
        if over != "tcp":
            context = ssl.create_default_context(cafile=str(server.ca_file))
            if over == "tls that speaks h2":
                context.set_alpn_protocols(["h2"])
            try:
                plain = context.wrap_socket(plain, server_hostname="localhost")
            except ssl.SSLError:
                return  # turned away before it could say anything
        try:
            plain.sendall(said)
            while plain.recv(4096):
                pass
        except (OSError, TimeoutError):
            pass


def test_old_tls_is_turned_away(server):
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, _, port = server.endpoint.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain, pytest.raises(OSError):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_tls_is_welcome(server, version):
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    host, _, port = server.endpoint.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        assert context.wrap_socket(plain, server_hostname="localhost").selected_alpn_protocol() == "h2"
