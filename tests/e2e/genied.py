"""A real genied for tests: TLS on a free port, on a fresh database of the server of GENIE_TEST_DATABASE_URL."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("GENIE_BUILD_DIR") or ROOT / "build/debug")
DATA = Path(os.environ.get("GENIE_TEST_DATA") or ROOT / "tests/data")
GENIED = BUILD / "server/genied"
GENIE = BUILD / "tools/genie/genie"
START_SECONDS = 60  # under sanitizers on a busy machine; otherwise it takes less than one
DEADLINE = '{"methodConfig": [{"name": [{}], "timeout": "120s"}]}'  # so that no test waits for ever


def run(*command, env=None, **options):
    """Runs a program, and fails with what it said."""
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, **(env or {})}, text=True, capture_output=True, **options
    )
    assert done.returncode == 0, f"{command[0]}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Database:
    """A database of its own, owned by the role `genie`, which is no superuser."""

    def __init__(self):
        self.server = os.environ["GENIE_TEST_DATABASE_URL"]
        self.name = "e2e_" + secrets.token_hex(6)
        self.psql(self.server, f"CREATE DATABASE {self.name} OWNER genie")
        url = urllib.parse.urlsplit(self.server)
        self.url = url._replace(netloc="genie@", path="/" + self.name).geturl()
        self.superuser_url = url._replace(path="/" + self.name).geturl()

    @staticmethod
    def psql(url, sql):
        return run("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1", url, "-c", sql)

    def query(self, sql):
        """What psql prints, as a superuser: row-level security does not apply."""
        return self.psql(self.superuser_url, sql).strip()

    @contextlib.contextmanager
    def gone(self):
        """While this lasts, nobody is connected to the database, and nobody can connect."""
        self.psql(self.server, f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.psql(self.server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")
        try:
            yield
        finally:
            self.psql(self.server, f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def drop(self):
        self.psql(self.server, f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


class Genied:
    """A genied and all that belongs to it. `folder` holds its keys, certificates and log."""

    def __init__(self, folder, *options):
        self.folder, self.options, self.process = Path(folder), options, None
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.database = Database()
        self.log = self.folder / "genied.log"
        self.ca_file = self.folder / "ca.pem"
        self.signing_key = self.folder / "signing-key.pem"
        run("bash", ROOT / "tools/lib/certificates.sh", self.folder)
        run(GENIED, "keys", "create", self.folder / "vault-key")
        run(GENIE, "keys", self.folder)
        self.environment = {"GENIED_DATABASE_URL": self.database.url}
        run(GENIED, "migrate", env=self.environment)

    def start(self):
        """Also after stop() and kill(): it comes back under the same endpoint, with what it kept."""
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [
                    GENIED, "serve", "--listen", self.endpoint, "--tls-certificate", self.folder / "server.pem",
                    "--tls-key", self.folder / "server-key.pem", "--vault-key-file", self.folder / "vault-key",
                    "--jwks-file", self.folder / "jwks.json", "--issuer", "https://genie.local",
                    "--audience", "devopsgenie", *self.options,
                ],
                env={**os.environ, **self.environment}, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while '"ready"' not in (said := self.log.read_bytes()[begin:].decode()):
            assert self.process.poll() is None and time.monotonic() < deadline, f"genied does not start:\n{said}"
            time.sleep(0.02)
        return self

    def stop(self):
        """Ends it in order, as an operator does; a sanitizer's report or a crash fails the test."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        assert status == 0, f"genied ended with status {status}:\n{self.tail()}"

    def kill(self):
        self.process.kill()
        status = self.process.wait()
        assert status in (0, -signal.SIGKILL), f"genied had ended with status {status}:\n{self.tail()}"

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.stop()
        finally:
            if self.process and self.process.poll() is None:
                self.kill()
            self.database.drop()

    def tail(self):
        return self.log.read_text(errors="replace")[-4000:]

    def token(self, subject, *options):
        """A JWT; options are those of `genie token`, such as "--email", "a@example.com"."""
        return run(GENIE, "token", "--key", self.signing_key, "--subject", subject, *options).strip()

    def channel(self, credential=None, options=()):
        """A channel over TLS; every call on it carries the credential, a JWT or an API key."""
        secure = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        if credential:
            secure = grpc.composite_channel_credentials(secure, grpc.access_token_call_credentials(credential))
        return grpc.secure_channel(self.endpoint, secure, options=[("grpc.service_config", DEADLINE), *options])

    def genie_environment(self, credential="", organization=""):
        """With which genie calls this server."""
        return {
            **os.environ, "GENIE_ENDPOINT": self.endpoint, "GENIE_CA_FILE": str(self.ca_file),
            "GENIE_API_KEY" if credential.startswith("dgk_") else "GENIE_TOKEN": credential,
            "GENIE_ORGANIZATION": organization,
        }  # fmt: skip

    def genie(self, *arguments, credential="", organization="", **options):
        """Runs genie against this server; returns the finished process, whatever its status."""
        environment = self.genie_environment(credential, organization)
        command = [str(word) for word in (GENIE, *arguments)]
        return subprocess.run(command, env=environment, text=True, capture_output=True, **options)


class Details:
    """What a refusal says: `reason` and `metadata` of its ErrorInfo, and any other detail by its type's name."""

    def __init__(self, error):
        self.code, self.message = error.code(), error.details()
        self.trailers = dict(error.trailing_metadata() or ())
        self.all = {}
        status = rpc_status.from_call(error)
        for packed in status.details if status else ():
            name = packed.type_url.rpartition(".")[2]
            self.all[name] = detail = getattr(error_details_pb2, name)()
            packed.Unpack(detail)
        info = self.all.get("ErrorInfo")
        self.reason, self.metadata = (info.reason, dict(info.metadata)) if info else ("", {})


@contextlib.contextmanager
def refused(code, reason=None):
    """with refused("NOT_FOUND", "FINDING_NOT_FOUND") as error: …; error.details is a Details afterwards."""

    class Error:
        details = None

    error = Error()
    try:
        yield error
    except grpc.RpcError as caught:
        error.details = details = Details(caught)
        assert details.code == grpc.StatusCode[code], f"{details.code.name} {details.reason}: {details.message}"
        assert reason is None or details.reason == reason, f"{details.reason}: {details.message}"
        assert "ErrorInfo" in details.all, f"no ErrorInfo: {details.message}"
        assert details.all["ErrorInfo"].domain == "devopsgenie.dev"
    else:
        raise AssertionError(f"not refused with {code}")
