"""Fixtures: a genied over TLS, the API's messages and services, organizations with their people and keys."""

import contextlib
import importlib
import itertools
import os
import secrets
import shutil
import subprocess
import sys
import types

import grpc_tools
import pytest
from genied import ROOT, Genied
from grpc_tools import protoc
from scanning import Scanner


def pytest_configure(config):
    config.addinivalue_line("markers", "grpcurl: needs grpcurl; set on the tests that ask for the fixture")


def pytest_collection_modifyitems(items):
    for item in items:
        if "grpcurl" in item.fixturenames:
            item.add_marker("grpcurl")


@pytest.fixture(scope="session")
def v1(tmp_path_factory):
    """Package devopsgenie.v1: every message, enum and stub of proto/, generated for this run.

    google/api and google/rpc come from Google's own package: one process cannot hold two copies of a file.
    """
    folder = tmp_path_factory.mktemp("stubs")
    protos = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto/devopsgenie").rglob("*.proto"))
    well_known = next(iter(grpc_tools.__path__)) + "/_proto"
    arguments = [f"-I{ROOT}/proto", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *arguments, *map(str, protos)]) == 0
    sys.path.insert(0, str(folder))
    package = types.SimpleNamespace()
    for path in protos:
        for suffix in ("_pb2", "_pb2_grpc"):
            module = importlib.import_module(".".join(path.with_suffix("").parts) + suffix)
            vars(package).update({name: value for name, value in vars(module).items() if name[0] != "_"})
    return package


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The genied that tests share. A test that stops or breaks one makes its own with make_server."""
    server = Genied(tmp_path_factory.mktemp("genied"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def make_server(tmp_path_factory):
    """make_server("--option", "value") starts a genied that is this test's alone."""
    made = []

    def make(*options):
        made.append(Genied(tmp_path_factory.mktemp("genied"), *options))
        return made[-1].start()

    yield make
    for server in made:
        server.close()


class Api:
    """The services as one caller sees them: api.findings.GetFinding(request)."""

    def __init__(self, v1, server, credential):
        self.credential, self.channel = credential, server.channel(credential)
        for name, short in {
            "AuthService": "auth",
            "OrganizationService": "organizations",
            "MemberService": "members",
            "ApiKeyService": "api_keys",
            "CloudAccountService": "cloud_accounts",
            "ScanService": "scans",
            "ResourceService": "resources",
            "FindingService": "findings",
            "AuditService": "audit",
            "AgentService": "agents",
            "TaskService": "tasks",
        }.items():
            setattr(self, short, getattr(v1, name + "Stub")(self.channel))


@contextlib.contextmanager
def connections(v1):
    opened = []

    def make(server, credential=None):
        opened.append(Api(v1, server, credential))
        return opened[-1]

    try:
        yield make
    finally:
        for api in opened:
            api.channel.close()


@pytest.fixture
def connect(v1):
    """connect(server, credential) is an Api; without a credential, an anonymous one."""
    with connections(v1) as make:
        yield make


@pytest.fixture
def admin(connect, server):
    """An Api for a platform-admin."""
    return connect(server, server.token("platform", "--service-role", "platform-admin"))


class Organization:
    """A new organization: its name, slug, and callers of every kind."""

    def __init__(self, v1, server, connect, slug):
        self.v1, self.server, self.connect = v1, server, connect
        self.slug, self.name = slug, f"organizations/{slug}"
        self.numbers = itertools.count(1)
        self.owner_email = f"owner@{slug}.example"
        platform = connect(server, server.token("platform", "--service-role", "platform-admin"))
        self.resource = platform.organizations.CreateOrganization(
            v1.CreateOrganizationRequest(
                organization_id=slug, organization=v1.Organization(display_name=slug), owner_email=self.owner_email
            )
        )
        self.owner = self.user(f"owner-{slug}", self.owner_email)

    def user(self, subject, email):
        """An Api for a person, member or not."""
        return self.connect(self.server, self.server.token(subject, "--email", email))

    def member(self, role):
        """An Api for a new member with a role, such as "ANALYST"."""
        name = f"{role.lower()}{next(self.numbers)}"
        email = f"{name}@{self.slug}.example"
        member = self.v1.Member(email=email, role=self.v1.Role.Value(role))
        self.owner.members.CreateMember(self.v1.CreateMemberRequest(parent=self.name, member=member))
        return self.user(f"{name}-{self.slug}", email)

    def key(self, role):
        """An Api for a new API key with a role."""
        key = self.v1.ApiKey(display_name=role, role=self.v1.Role.Value(role))
        made = self.owner.api_keys.CreateApiKey(self.v1.CreateApiKeyRequest(parent=self.name, api_key=key))
        return self.connect(self.server, made.secret)

    def cloud_account(self, account_uid="123456789012", provider="AWS"):
        account = self.v1.CloudAccount(
            provider=self.v1.CloudAccount.Provider.Value(provider),
            account_uid=account_uid,
            display_name=account_uid[:100],
        )
        return self.owner.cloud_accounts.CreateCloudAccount(
            self.v1.CreateCloudAccountRequest(parent=self.name, cloud_account=account)
        )

    def agent(self, display_name="an agent", **fields):
        """A new agent as CreateAgent answers it, with its key."""
        agent = self.v1.Agent(display_name=display_name)
        return self.owner.agents.CreateAgent(self.v1.CreateAgentRequest(parent=self.name, agent=agent, **fields))

    def task(self, request_id="", **fields):
        """A new task, of kind COMMAND where its fields have no payload."""
        command = self.v1.TaskPayload(command=self.v1.Command(name="restart", arguments=["--all"]))
        task = self.v1.Task(**{"payload": command, **fields})
        return self.owner.tasks.CreateTask(
            self.v1.CreateTaskRequest(parent=self.name, task=task, request_id=request_id)
        )

    def stored(self, table, select="count(*)"):
        """What the database holds of this organization, seen past all policies; `t` is the table."""
        own = f"JOIN organization_slugs s USING (organization_id) WHERE s.slug = '{self.slug}'"
        return self.server.database.query(f"SELECT {select} FROM {table} t {own}")


@pytest.fixture
def make_organization(v1, server, connect):
    """make_organization() makes one on the shared server; make_organization(other_server) on another."""

    def make(on=None):
        return Organization(v1, on or server, connect, "org-" + secrets.token_hex(6))

    return make


@pytest.fixture(scope="module")
def module_organization(v1, server):
    """One for all tests of a module, where they only read what a costly fixture has made, or change what is theirs."""
    with connections(v1) as connect:
        yield Organization(v1, server, connect, "org-" + secrets.token_hex(6))


@pytest.fixture
def organization(make_organization):
    return make_organization()


@pytest.fixture
def scanner(v1, organization):
    """A Scanner of an AWS account in the organization, as its owner."""
    return Scanner(v1, organization.owner, organization.cloud_account())


@pytest.fixture
def grpcurl(server):
    """grpcurl("devopsgenie.v1.AuthService/WhoAmI", credential, "-d", "{}") returns the finished process."""
    program = os.environ.get("GRPCURL") or shutil.which("grpcurl")
    if not program:
        pytest.skip("grpcurl is not on the PATH, and $GRPCURL names none; tools/test grpcurl installs it")

    def call(method, credential=None, *options):
        header = ["-H", f"authorization: Bearer {credential}"] if credential else []
        command = [program, "-cacert", str(server.ca_file), *header, *options, server.endpoint, *method.split()]
        return subprocess.run(command, text=True, capture_output=True)

    return call
