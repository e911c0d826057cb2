"""The worker in Python does tasks, by the proto alone, and stays what it is in small troubles."""

import signal

import pytest
from calls import until
from harness import Observer
from history import check, read


@pytest.fixture
def observer(scene, tmp_path):
    return Observer(scene, tmp_path / "history.jsonl")


def test_it_does_what_it_is_asked(v1, scene, agent, start_worker, observer):
    start_worker(agent, "--label", "os=linux")
    hello = observer.create("echo", ["hello", "world"], "", labels={"os": "linux"})
    loud = observer.create("script", ["echo out; echo err >&2; head -c 300000 /dev/zero | tr '\\0' x"], "")
    failing = observer.create("script", ["echo no >&2; exit 3"], "")
    flaky = observer.create("script", ["exit 1"], "", max_attempts=2)
    unknown = observer.create("rm", ["-rf", "/"], "")
    assert dict(scene.becomes(hello, "SUCCEEDED").outputs) == {"exit_status": "0"}
    assert scene.log_of(hello) == b"hello world\n"
    scene.becomes(loud, "SUCCEEDED")
    until(lambda: len(scene.log_of(loud)) == 300_004)
    assert scene.log_of(loud) == b"out\n" + b"x" * 300_000 and scene.log_of(loud, "STDERR") == b"err\n"
    assert scene.becomes(failing, "FAILED").failure.reason == "COMMAND_FAILED"
    assert scene.becomes(flaky, "FAILED", "DEAD").start_count == 2
    assert scene.becomes(unknown, "FAILED").failure.reason == "COMMAND_NOT_ALLOWED"
    observer.check()


def test_a_cancel_stops_what_it_runs(v1, scene, agent, start_worker, observer):
    start_worker(agent)
    task = observer.create("sleep", ["600"], "")
    scene.becomes(task, "RUNNING")
    observer.cancel(task)
    got = scene.becomes(task, "CANCELLED")
    assert got.cancellation.answer in (v1.TaskCancellation.STOPPED, v1.TaskCancellation.STOPPING)
    observer.check()


def test_a_cancel_that_is_not_obeyed_ends_in_force(v1, scene, agent, start_worker, observer):
    start_worker(agent)
    task = observer.create("script", ["trap '' TERM; echo up; while :; do sleep 0.05; done"], "")
    until(lambda: scene.log_of(task) == b"up\n")
    observer.cancel(task, grace=1)
    scene.becomes(task, "CANCELLED")
    observer.check()


def test_no_more_at_once_than_it_has_slots(scene, agent, start_worker, observer, tmp_path):
    start_worker(agent, "--slots", "2")
    tasks = [observer.create("sleep", ["0.2"], "") for _ in range(8)]
    for task in tasks:
        scene.becomes(task, "SUCCEEDED")
    most = now = 0
    for event in read(tmp_path / "history.jsonl"):
        now += {"began": 1, "stopped": -1}.get(event["what"], 0)
        most = max(most, now)
    assert most == 2
    observer.check()


def test_it_leaves_in_order(v1, scene, agent, start_worker):
    watch = scene.watch_agents()
    worker = start_worker(agent)
    watch.since(v1.WatchAgentsResponse.CONNECTED)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert watch.take(1)[0].reason == "GOODBYE"


def test_the_history_of_a_bad_agent_is_bad(scene, agent, observer, tmp_path):
    """What is recorded is what is checked: a log that is not what was made is told."""
    stream = agent.stream()
    task = observer.create("echo", ["x"], "")
    offer = stream.start(task)
    observer.record("began", who="bad", task=task.name, attempt=1, fence=offer.fence)
    observer.record("wrote", who="bad", task=task.name, attempt=1, fence=offer.fence, stream="STDOUT", data=b"truth")
    stream.log(offer, b"lying")
    stream.acked(offer, 5)
    stream.finish(offer)
    wrong = check(observer.finish())
    assert any(line.startswith("logs:") and "not what was written" in line for line in wrong), wrong
