"""small_agent.py, the agent to begin one's own from, does tasks on a real server, and loses none when it or the server
is killed.
"""

import os
import sys

import pytest
from calls import until
from harness import HERE, Process

COMMANDS = ("show [a-z]+ cat", "wait [0-9.]+ sleep", "script .* sh -c", "missing . /nothing/here")


@pytest.fixture
def start(stubs, tmp_path):
    """start(agent) starts it, with the state of the one before."""
    folder, started = tmp_path / "state", []
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(stubs), "GRPC_ENABLE_FORK_SUPPORT": "0"}

    def start(agent):
        (tmp_path / "key").write_text(agent.key)
        program = [sys.executable, HERE / "small_agent.py", agent.server.endpoint, agent.server.ca_file]
        command = [*program, tmp_path / "key", folder, "2", *COMMANDS]
        started.append(Process([str(word) for word in command], environment, None, tmp_path / "agent.log"))
        return started[-1]

    yield start
    for process in started:
        process.kill()
    noise = (tmp_path / "agent.log").read_text()
    assert "Traceback" not in noise, noise


def test_it_does_what_it_is_asked_and_no_more(v1, scene, agent, start, tmp_path):
    data = os.urandom(1_000_000)
    (tmp_path / "data").write_bytes(data)
    process = start(agent)
    show = scene.task("script", [f"cat {tmp_path}/data; echo >&2 end"])
    broken, unknown = scene.task("script", ["exit 3"], max_attempts=1), scene.task("rm", ["-rf", "/"])
    wrong, missing = scene.task("wait", ["1; ls"]), scene.task("missing", [], max_attempts=1)
    slow = scene.task(payload=v1.TaskPayload(command=v1.Command(
        name="wait", arguments=["600"], time_limit={"seconds": 1})), max_attempts=1)  # fmt: skip
    assert dict(scene.becomes(show, "SUCCEEDED").outputs) == {"exit_status": "0"}
    assert scene.log_of(show) == data + b"end\n"
    assert scene.becomes(broken, "DEAD").failure.reason == "COMMAND_FAILED"
    assert scene.becomes(unknown, "FAILED").failure.reason == "COMMAND_NOT_ALLOWED"
    assert scene.becomes(wrong, "FAILED").failure.reason == "COMMAND_NOT_ALLOWED"
    assert scene.becomes(missing, "DEAD").failure.reason == "COMMAND_FAILED"
    assert b"/nothing/here" in scene.log_of(missing)
    assert scene.becomes(slow, "DEAD").failure.reason == "TIME_LIMIT"
    process.process.terminate()
    assert process.wait() == 0
    until(lambda: agent.state() == "DISCONNECTED")


def test_a_cancel_ends_it_with_force_where_it_has_to(v1, scene, agent, start):
    start(agent)
    polite = scene.task("wait", ["600"])
    stubborn = scene.task("script", ["trap '' TERM; echo up; while :; do sleep 1; done"])
    scene.becomes(polite, "RUNNING")
    until(lambda: scene.log_of(stubborn) == b"up\n")
    for task in (polite, stubborn):
        scene.cancel(task, grace={"seconds": 1})
    assert scene.becomes(polite, "CANCELLED").cancellation.answer == v1.TaskCancellation.STOPPED
    assert dict(scene.becomes(stubborn, "CANCELLED").outputs) == {"exit_status": "-9"}


def test_a_kill_in_the_middle_and_its_restart(scene, agent, start):
    process = start(agent)
    task = scene.task("script", ["echo up; sleep 600"], max_attempts=2)
    until(lambda: scene.log_of(task) == b"up\n")
    process.kill()
    start(agent)
    until(lambda: scene.get(task).failure.reason == "AGENT_RESTARTED")
    scene.age("tasks", "next_attempt_time", "state = 'PENDING'", "1 minute")
    again = until(lambda: scene.state(task) == "RUNNING" and scene.get(task))
    assert again.attempt == 2


def test_a_task_that_outlives_its_first_lease(make_server, make_scene, start):
    scene = make_scene(make_server("--task-lease-ms", "9000", "--agent-heartbeat-ms", "1000"))
    start(scene.agent())
    task = scene.task("wait", ["11"], max_attempts=1)
    scene.becomes(task, "SUCCEEDED", "DEAD")
    assert scene.state(task) == "SUCCEEDED"


@pytest.mark.parametrize("what", ["the server drains", "the server is killed", "the server and the agent are killed"])
def test_a_task_that_ends_while_nobody_can_be_told(make_server, make_scene, start, tmp_path, what):
    server = make_server()
    scene = make_scene(server)
    agent = scene.agent()
    process = start(agent)
    gate, tail = tmp_path / "gate", os.urandom(200_000)
    (tmp_path / "tail").write_bytes(tail)
    task = scene.task("script", [f"echo up; while [ ! -e {gate} ]; do sleep 0.1; done; cat {tmp_path}/tail"])
    until(lambda: scene.log_of(task) == b"up\n")
    if what == "the server drains":
        server.stop()
    else:
        server.kill()
    gate.touch()
    until(lambda: any(b"AGENT_RESTARTED" not in path.read_bytes() for path in (tmp_path / "state").glob("*/result")))
    if what == "the server and the agent are killed":
        process.kill()
        start(agent)
    server.start()
    done = until(lambda: scene.state(task) == "SUCCEEDED" and scene.get(task), 60)
    assert done.attempt == 1 and scene.log_of(task) == b"up\n" + tail
