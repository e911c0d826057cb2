"""The whole: a real genied, a real genie-agent that is killed and stopped, a real Gitea, and a proxy before it that holds
a request, so that what the agent is at is known. In the end there is one pull request and one accepted result.
"""

import base64
import collections
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import re
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from agent import branch_of
from google.protobuf import json_format

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "e2e"))

from calls import until  # noqa: E402
from genied import BUILD, run  # noqa: E402
from test_run import Run, env_of  # noqa: E402

# It is named conftest.py as this folder's own, so it is loaded by its path.
spec = importlib.util.spec_from_file_location("e2e_conftest", HERE.parent / "e2e/conftest.py")
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
v1, server, make_server, connect = e2e.v1, e2e.server, e2e.make_server, e2e.connect

SECONDS = 120
LOOK = "^GET /api/v1/repos/"
FETCH = "^POST .*/git-upload-pack$"
BEFORE_PUSH = "^GET .*service=git-receive-pack$"
PUSH = "^POST .*/git-receive-pack$"
OPEN = "^POST /api/v1/repos/[^/]+/[^/]+/pulls$"
DRESS = "^POST .*/labels$"


class Follower:
    """Follows a task's log from its making to its end, in a thread; then `logs` has each attempt's."""

    def __init__(self, v1, tasks, name):
        self.v1, self.tasks, self.name = v1, tasks, name
        self.logs, self.error = collections.defaultdict(bytes), None
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        try:
            request = self.v1.ReadTaskLogRequest(name=self.name, follow=True)
            for piece in self.tasks.ReadTaskLog(request, timeout=SECONDS):
                assert piece.stream == self.v1.STDOUT and piece.offset == len(self.logs[piece.attempt]), "a hole"
                self.logs[piece.attempt] += piece.data
        except Exception as error:  # told to the test
            self.error = error

    def end(self):
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "the log does not end with its task"
        assert self.error is None, self.error
        return self.logs


class Agent:
    """The process genie-agent, with an organization of its own on the platform."""

    def __init__(self, folder, organization, proxy, repository):
        self.folder, self.organization, self.v1, self.process = folder, organization, organization.v1, None
        self.log, self.repository, self.token = folder / "agent.log", repository, repository.token
        self.url = f"https://{proxy.host}/{repository.name}"
        made = organization.agent()
        for name, secret in ("key", made.secret), ("token", self.token):
            (folder / name).write_text(secret + "\n")
        (folder / "config.json").write_text(json.dumps({
            "endpoint": organization.server.endpoint, "ca-file": str(organization.server.ca_file),
            "key-file": str(folder / "key"), "state-directory": str(folder / "state"),
            "cache-directory": str(folder / "cache"), "log-level": "debug",
            "git-hosts": [{
                "host": proxy.host, "forge": "gitea", "token-file": str(folder / "token"),
                "ca-file": str(repository.gitea.ca_file),
            }],
        }))

    def start(self):
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BUILD / "tools/genie-agent/genie-agent", "run", "--config", self.folder / "config.json"],
                env=environment, stdout=log, stderr=log,
            )
        return self

    def kill(self):
        self.process.kill()
        status = self.process.wait()
        assert status in (0, -signal.SIGKILL), f"the agent had ended with status {status}:\n{self.said()}"

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(SECONDS) == 0, self.said()
        assert "Sanitizer" not in self.said(), self.said()

    def said(self):
        return self.log.read_text(errors="replace")

    def create(self, **fields):
        """A task that changes one value of a Helm chart, and one who follows its log."""
        change = self.v1.HelmValueChanges(
            path="values.yaml", changes=[self.v1.HelmValueChange(path="resources.limits.memory", value="256Mi")]
        )
        request = self.v1.PullRequest(
            repository_url=self.url, title="More memory", helm_values=change, labels=["genie"], **fields
        )
        task = self.organization.task(payload=self.v1.TaskPayload(pull_request=request))
        return task, Follower(self.v1, self.organization.owner.tasks, task.name)

    def get(self, task):
        return self.organization.owner.tasks.GetTask(self.v1.GetTaskRequest(name=task.name))

    def cancel(self, task, **how):
        return self.organization.owner.tasks.CancelTask(self.v1.CancelTaskRequest(name=task.name, **how))

    def ended(self, task, state):
        """The task as it has ended, in this state."""
        over = (self.v1.Task.SUCCEEDED, self.v1.Task.FAILED, self.v1.Task.CANCELLED, self.v1.Task.DEAD,
                self.v1.Task.CANCEL_UNCONFIRMED)
        until(lambda: self.get(task).state in over, SECONDS)
        found = self.get(task)
        assert found.state == state, f"{found}\n{self.said()[-4000:]}"
        return found

    def effects(self):
        """What the platform has been told was made: {key: reference}."""
        rows = self.organization.stored("task_effects", "coalesce(json_object_agg(t.key, t.reference), '{}')")
        return json.loads(rows)

    def pulls(self, task):
        return self.repository.pull_requests(branch_of(task.name.split("/")[1], task.idempotency_key))


@pytest.fixture
def repository(shared_repository):
    return shared_repository


@pytest.fixture
def make_whole(tmp_path, v1, connect, proxy, repository):
    """make_whole(server) is a started Agent."""
    with contextlib.ExitStack() as stack:

        def make(server):
            organization = e2e.Organization(v1, server, connect, "org-" + secrets.token_hex(6))
            agent = Agent(tmp_path, organization, proxy, repository)
            return stack.enter_context(contextlib.closing(agent)).start()

        yield make


@pytest.fixture
def whole(make_whole, server):
    return make_whole(server)


def check_logs(agent, task, followed):
    """What was followed is what is read afterwards, and what the database holds: byte for byte."""
    rows = agent.organization.stored(
        "task_logs", "json_agg(json_build_array(t.attempt, t.log_offset, encode(t.data, 'base64')) "
                     "ORDER BY t.attempt, t.log_offset)"
    )
    stored = collections.defaultdict(bytes)
    for attempt, offset, data in json.loads(rows or "[]") or []:
        assert offset == len(stored[attempt]), "a hole"
        stored[attempt] += base64.b64decode(data)
    assert followed == stored
    for attempt in followed:
        request = agent.v1.ReadTaskLogRequest(name=task.name, attempt=attempt)
        read = agent.organization.owner.tasks.ReadTaskLog(request)
        assert b"".join(piece.data for piece in read) == followed[attempt]


def check_once(agent, task):
    """One pull request, with the change on its branch, as the task's outputs say; and one accepted result."""
    task = agent.ended(task, agent.v1.Task.SUCCEEDED)
    [pull] = agent.pulls(task)
    [branch] = [name for name in agent.repository.branches() if task.idempotency_key in name]
    assert dict(task.outputs) == {
        "branch": branch, "commit": agent.repository.branches()[branch], "pull_request_number": str(pull["number"]),
        "pull_request_url": pull["html_url"], "pull_request_state": "OPEN",
    }
    assert pull["head"]["sha"] == task.outputs["commit"] and [label["name"] for label in pull["labels"]] == ["genie"]
    values = agent.repository.FILES["values.yaml"].replace("128Mi", "256Mi")
    assert agent.repository.content("values.yaml", branch) == values.encode()
    effects = agent.effects()
    assert effects["branch"] == f"{branch} {task.outputs['commit']}"
    # One that was found by looking was noted before it was made.
    assert effects["pull_request"] in (f"{pull['number']} {pull['html_url']}", f"opening {branch}")
    outcomes = agent.organization.stored("task_attempts", "string_agg(t.outcome, ',' ORDER BY t.attempt)").split(",")
    assert outcomes.count("SUCCEEDED") == 1 and outcomes[-1] == "SUCCEEDED"
    assert agent.organization.stored("task_events", "count(*) FILTER (WHERE t.to_state = 'SUCCEEDED')") == "1"
    return task


def test_a_pull_request_from_the_api_to_the_git_host(whole):
    task, follower = whole.create(body="Out of memory on Monday.")
    task = check_once(whole, task)
    logs, outputs = follower.end(), task.outputs
    assert logs == {1: (
        f"repository {whole.url}.git, branch {outputs['branch']}\nfetching main\n"
        f"pushing commit {outputs['commit']}\nthe pull request: {outputs['pull_request_url']}\n"
    ).encode()}  # fmt: skip
    check_logs(whole, task, logs)
    [pull] = whole.pulls(task)
    assert (pull["title"], pull["user"]["login"]) == ("More memory", whole.repository.bot)
    assert pull["body"].startswith("Out of memory on Monday.")


BRANCH = {"commit_time", "branch"}
OPENING = {*BRANCH, "pull_request"}


@pytest.mark.parametrize("request_, forward, effects", [
    (LOOK, False, set()),
    (FETCH, False, set()),
    (BEFORE_PUSH, False, BRANCH),
    (PUSH, False, BRANCH),
    (PUSH, True, BRANCH),
    (OPEN, False, OPENING),
    (OPEN, True, OPENING),
    (DRESS, False, OPENING),
    (DRESS, True, OPENING),
], ids=["looking", "fetching", "before pushing", "pushing", "pushed", "opening", "opened", "dressing", "dressed"])  # fmt: skip
def test_the_agent_is_killed_in_the_middle_of_a_step(whole, proxy, request_, forward, effects):
    fault = proxy.add(request_, forward=forward)
    task, follower = whole.create()
    assert fault.happened.wait(SECONDS), whole.said()
    until(lambda: set(whole.effects()) == effects)
    whole.kill()
    assert whole.get(task).state == whole.v1.Task.RUNNING
    whole.start()
    task = check_once(whole, task)
    # Its journal tells it what it was at: the same attempt goes on, and so does its log.
    assert '"recovered"' in whole.said() and task.start_count == task.attempt == 1
    logs = follower.end()
    check_logs(whole, task, logs)
    assert logs[1].decode().count("repository ") == 2
    assert proxy.count(PUSH) == (2 if request_ == PUSH and not forward else 1)
    assert proxy.count(OPEN) == (2 if request_ == OPEN and not forward else 1)


@pytest.mark.parametrize("request_", [PUSH, OPEN], ids=["pushed", "opened"])
def test_the_agent_is_killed_and_its_journal_is_lost(make_server, make_whole, proxy, request_):
    """As a pod with its node: when its lease has lapsed, another attempt is handed what the platform was told of it."""
    whole = make_whole(make_server("--task-lease-ms", "5000"))
    fault = proxy.add(request_, forward=True)
    task, follower = whole.create()
    assert fault.happened.wait(SECONDS), whole.said()
    whole.kill()
    shutil.rmtree(whole.folder / "state")
    shutil.rmtree(whole.folder / "cache")
    whole.start()
    task = check_once(whole, task)
    assert task.start_count > 1 and '"recovered"' not in whole.said()
    logs = follower.end()
    check_logs(whole, task, logs)
    assert proxy.count(PUSH) == proxy.count(OPEN) == 1


@pytest.mark.parametrize("request_, how, ending", [
    (FETCH, "GRACEFUL", "stopped; no branch was made, and no pull request"),
    (OPEN, "FORCED", "stopped; there is the branch {branch}, and no pull request that this agent knows of"),
], ids=["fetching", "opening"])  # fmt: skip
def test_a_task_is_cancelled_in_the_middle(whole, proxy, request_, how, ending):
    fault = proxy.add(request_)
    task, follower = whole.create()
    assert fault.happened.wait(SECONDS), whole.said()
    whole.cancel(task, mode=how)
    task = whole.ended(task, whole.v1.Task.CANCELLED)
    branch = branch_of(task.name.split("/")[1], task.idempotency_key)
    made = {branch} if request_ == OPEN else set()
    assert whole.pulls(task) == [] and {name for name in whole.repository.branches() if name == branch} == made
    assert task.outputs.get("branch", "") == "".join(made) and "pull_request_number" not in task.outputs
    logs = follower.end()
    assert logs[1].decode().splitlines()[-1] == ending.format(branch=branch)
    check_logs(whole, task, logs)


def test_the_token_stays_with_the_agent(whole, proxy, server):
    """Not even a git host that says it back brings it to the platform."""
    user = base64.b64encode(f"genie:{whole.token}".encode()).decode()
    echo = f"the token {whole.token} is bad: https://bot:{whole.token}@forge.example/".encode()
    proxy.add(OPEN, status=503, body=echo)
    proxy.add(DRESS, status=403, body=echo)
    task, follower = whole.create()
    task = whole.ended(task, whole.v1.Task.SUCCEEDED)
    refused, _ = whole.create()
    proxy.add(PUSH, status=403, body=echo)
    refused = whole.ended(refused, whole.v1.Task.FAILED)
    assert refused.failure.reason == "FORBIDDEN" and "***" in refused.failure.message
    log = b"".join(follower.end().values())
    dump = run("pg_dump", "--data-only", server.database.superuser_url)
    branch = task.outputs["branch"]
    # That these are the places: the branch's name is in them, in hexadecimal where a column is bytes.
    assert branch in dump and branch.encode().hex() in dump and branch.encode() in log
    assert task.uid in whole.said() and "TaskService.CreateTask" in server.log.read_text()
    for what, text in {
        "database": dump, "server's log": server.log.read_text(), "agent's log": whole.said(), "task": str(task),
        "refused task": str(refused), "task's log": log.decode(),
    }.items():
        for form in (whole.token, whole.token.encode().hex(), user):
            assert form not in text, f"the token is in the {what}"
    for path in [*(whole.folder / "state").rglob("*"), *(whole.folder / "cache").rglob("*")]:
        assert not path.is_file() or whole.token.encode() not in path.read_bytes(), path


@pytest.fixture
def runner():
    # Not pytest's own folder: PostgreSQL's and Gitea's users have to get there.
    folder = Path(tempfile.mkdtemp(prefix="genie-run.", dir="/tmp"))
    folder.chmod(0o711)
    runner = Run(folder / "kept")
    yield runner
    if runner.process and runner.process.poll() is None:
        runner.stop(signal.SIGTERM)
    shutil.rmtree(folder)


def do_the_tours_pull_request(v1, runner, said):
    """The request that the tour prints, sent; the task as it has ended."""
    env = env_of(runner.folder)
    key = grpc.access_token_call_credentials(env["GENIE_API_KEY"])
    secure = grpc.ssl_channel_credentials(Path(env["GENIE_CA_FILE"]).read_bytes())
    with grpc.secure_channel(env["GENIE_ENDPOINT"], grpc.composite_channel_credentials(secure, key)) as channel:
        tasks = v1.TaskServiceStub(channel)
        [request] = [r for r in re.findall(r"-d '([^']*)'", said) if "pull_request" in r]
        task = tasks.CreateTask(json_format.Parse(request, v1.CreateTaskRequest()))
        follow = v1.ReadTaskLogRequest(name=task.name, follow=True)
        log = b"".join(piece.data for piece in tasks.ReadTaskLog(follow, timeout=SECONDS))
        task = tasks.GetTask(v1.GetTaskRequest(name=task.name))
    assert task.state == v1.Task.SUCCEEDED and task.outputs["pull_request_url"].encode() in log, (task, log)
    return task


def test_tools_run_with_a_git_host(v1, runner):
    options = "--git-host", "--build-type", BUILD.name
    said = runner.start(*options)
    [pages] = re.findall(r"^https://127.0.0.1:\d+/acme/shop/pulls$", said, re.MULTILINE)
    first = do_the_tours_pull_request(v1, runner, said).outputs["pull_request_url"]
    assert first == f"{pages}/1"
    token = (runner.folder / "git-token").read_text().strip()
    assert token not in said and stat.S_IMODE((runner.folder / "git-token").stat().st_mode) == 0o600
    context = ssl.create_default_context(cafile=runner.folder / "gitea/ca.pem")
    with urllib.request.urlopen(f"{first}.diff", context=context) as diff:
        assert b"\n-replicaCount: 2   # enough" in (text := diff.read()) and b"\n+replicaCount: 3   # enough" in text
    assert runner.stop()[0] == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(pages, context=context)

    said = runner.start(*options)
    assert pages in said and (runner.folder / "git-token").read_text().strip() == token
    assert do_the_tours_pull_request(v1, runner, said).outputs["pull_request_url"] == f"{pages}/2"
    assert runner.stop()[0] == 0
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert str(runner.folder).encode() not in process.read_bytes()
