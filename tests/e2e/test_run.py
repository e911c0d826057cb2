"""tools/run as a newcomer uses it: started, its tour pasted, stopped, started again; and what it says when it cannot."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from base64 import b64decode
from pathlib import Path

import pytest
from calls import until
from genied import ROOT, free_port

pytestmark = pytest.mark.usefixtures("grpcurl")


class Run:
    def __init__(self, folder):
        self.folder, self.listen, self.process = Path(folder), f"127.0.0.1:{free_port()}", None

    def command(self, *options):
        return [ROOT / "tools/run", "--dir", self.folder, "--listen", self.listen, *options]

    def start(self, *options, when_importing=None):
        """Waits until it stands, and returns what it printed."""
        self.process = subprocess.Popen(
            self.command(*options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell starts what it puts in the background with SIGINT ignored, and bash cannot trap what was ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        said = ""
        for line in self.process.stdout:
            said += line
            if line == "Ctrl-C stops it.\n":
                return said
            if when_importing and line.startswith("importing"):
                when_importing()
                if self.process.poll() is not None:
                    break
        raise AssertionError(f"status {self.process.wait()}:\n{said}")

    def child(self, program):
        """Its genied's or agent's process."""
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                if Path(f"/proc/{child}/comm").read_text() == f"{program}\n":
                    return int(child)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=60)[0]
        return self.process.returncode, rest

    def refusal(self, *options):
        """Starts it where it must fail, and returns its one line."""
        done = subprocess.run(self.command(*options), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, f"{done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr


@pytest.fixture
def folder():
    # Not pytest's own: PostgreSQL's user has to get there.
    folder = tempfile.mkdtemp(prefix="genie-run.", dir="/tmp")
    os.chmod(folder, 0o711)
    yield Path(folder) / "kept"
    shutil.rmtree(folder)


@pytest.fixture
def runner(folder):
    runner = Run(folder)
    yield runner
    if runner.process and runner.process.poll() is None:
        runner.stop(signal.SIGTERM)


def paste(command):
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def env_of(folder):
    lines = subprocess.run(["bash", "-c", '. "$1/env" && env', "bash", folder], capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in lines.splitlines() if line.startswith("GENIE_"))


def tour_of(said):
    return re.findall(r"^grpcurl (?:.*\\\n)*.*$", said, re.MULTILINE)


def task_of(said):
    """The tour's last two commands, which go together: a task, and its log."""
    return said[said.index("task=$(") : said.index("Ctrl-C stops it.")]


def test_the_tour_works_as_printed_and_a_second_start_keeps_everything(runner):
    said = runner.start()
    tour = tour_of(said)
    assert len(tour) == 6
    who, findings, acknowledged, events, _ = map(paste, tour[:5])
    assert who["kind"] == "API_KEY" and who["organization"] == "organizations/demo"
    assert len(findings["findings"]) == 3
    assert acknowledged["state"] == "ACKNOWLEDGED"
    assert [event["toState"] for event in events["findingEvents"]] == ["OPEN", "ACKNOWLEDGED"]
    assert b64decode(paste(task_of(said))["data"]) == b"1\n2\n3\n"

    for path in runner.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and "postgres" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    env = env_of(runner.folder)
    assert runner.stop()[0] == 0
    assert not (runner.folder / "postgres/data/postmaster.pid").exists()

    tour = tour_of(runner.start())
    again = env_of(runner.folder)
    assert {name: again[name] for name in env if name != "GENIE_TOKEN"} == {
        name: env[name] for name in env if name != "GENIE_TOKEN"
    }
    scans = tour[0].replace("AuthService/WhoAmI", "ScanService/ListScans")
    scans = paste(scans.replace("'{}'", "'{\"parent\": \"organizations/demo\"}'"))
    assert len(scans["scans"]) == 1
    assert runner.stop(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("while_importing", [True, False])
def test_an_agent_that_is_killed_is_started_again(runner, while_importing):
    killed = []

    def kill():
        killed.append(until(lambda: runner.child("genie-agent")))
        os.kill(killed[0], signal.SIGKILL)

    said = runner.start(when_importing=kill if while_importing else None)
    if not while_importing:
        kill()
    until(lambda: runner.child("genie-agent") not in [None, *killed])
    assert b64decode(paste(task_of(said))["data"]) == b"1\n2\n3\n"
    runner.process.terminate()
    assert "is started again" in runner.process.stdout.read()  # some of which may be in its buffer


@pytest.mark.parametrize("while_importing", [True, False])
def test_a_server_that_is_killed_ends_it(runner, while_importing):
    def kill():
        os.kill(until(lambda: runner.child("genied")), signal.SIGKILL)

    if while_importing:
        with pytest.raises(AssertionError, match=r"status 1:\n(.*\n)*tools/run: genied has ended \(status 137\)"):
            runner.start(when_importing=kill)
    else:
        runner.start()
        kill()
        assert "tools/run: genied has ended (status 137)" in runner.process.communicate(timeout=60)[0]
        assert runner.process.returncode == 1


def test_a_start_that_is_killed_is_taken_up_by_the_next(runner):
    def kill():
        until(lambda: any(log.stat().st_size for log in runner.folder.glob("agent.log")))
        runner.process.kill()
        runner.process.wait()

    with pytest.raises(AssertionError, match="status -9"):
        runner.start(when_importing=kill)
    assert len(tour_of(runner.start())) == 6


# Loaded into PostgreSQL, it keeps a server's first process for a second after it has removed its pid file.
SLOW_END = """
#include <string.h>
#include <unistd.h>
static pid_t server;
__attribute__((constructor)) static void begin(int argc, char **argv) {
	if (argc > 1 && strcmp(argv[1], "-D") == 0) server = getpid();
}
__attribute__((destructor)) static void end(void) {
	if (server == getpid()) sleep(1);
}
"""


def test_postgresql_has_ended_when_it_is_stopped(folder):
    folder.mkdir()
    folder.chmod(0o755)
    subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", folder / "slow.so"], input=SLOW_END, text=True, check=True)
    script = f"""
        set -euo pipefail
        . tools/lib/common.sh
        . tools/lib/postgres.sh
        LD_PRELOAD={folder}/slow.so postgres_start {folder}
        read -r pid <"$postgres_home/data/postmaster.pid"
        tr '\\0' '\\n' <"/proc/$pid/cmdline" | head -1
        postgres_stop
        # What waits for its parent to ask how it ended has no command line any more.
        grep -qs . "/proc/$pid/cmdline" && echo it runs || echo it has ended"""
    said = subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.endswith("/postgres\nit has ended\n")


def test_one_folder_is_for_one_at_a_time(runner, folder):
    runner.start("--no-demo")
    other = Run(folder)
    assert "another tools/run uses" in other.refusal("--no-demo")
    assert runner.process.poll() is None


def test_a_port_in_use_is_said_before_anything_is_made(runner, folder):
    with socket.create_server(("127.0.0.1", int(runner.listen.split(":")[1]))):
        assert f"something listens on {runner.listen}" in runner.refusal("--no-demo")
    assert not folder.exists()


def test_a_newer_schema_is_left_alone(runner, folder):
    runner.start("--no-demo")
    url = env_of(folder)["GENIE_DATABASE_URL"]
    sql = "INSERT INTO schema_migrations (number, name, sha256) VALUES (9999, 'later', '')"
    subprocess.run(["psql", "-qX", "-v", "ON_ERROR_STOP=1", url, "-c", sql], check=True)
    runner.stop()
    assert "older than the schema" in runner.refusal("--no-demo")
    assert not (folder / "postgres/data/postmaster.pid").exists()


def test_nothing_is_deleted_unasked(runner, folder):
    folder.mkdir()
    (folder / "precious").write_text("mine")
    assert "holds other things" in runner.refusal("--no-demo", "--fresh", "--yes")
    (folder / "lock").touch()
    assert "say --yes" in runner.refusal("--no-demo", "--fresh")
    assert (folder / "precious").read_text() == "mine"


def test_fresh_starts_anew(runner, folder):
    runner.start("--no-demo")
    before = (folder / "vault-key").read_bytes()
    runner.stop()
    runner.start("--no-demo", "--fresh", "--yes")
    assert (folder / "vault-key").read_bytes() != before


@pytest.mark.parametrize("options", [["--listen", "8443"], ["--dir"], ["--build-type", "fast"], ["--unknown"]])
def test_a_mistake_on_the_command_line_is_named(options):
    done = subprocess.run([ROOT / "tools/run", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("tools/run: ") and done.stderr.count("\n") == 1
