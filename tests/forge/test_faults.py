"""Crashes, stops and a git host with faults: in the end there is one branch and one pull request."""

import signal
import time

import pytest
from faulty_proxy import wait_for

REST_POST = r"^POST /api/v1/repos/[^/]+/[^/]+/pulls$"
PUSH = r"^POST .*/git-receive-pack$"
FETCH = r"^POST .*/git-upload-pack$"

EDGES = [f"note {key} {when}" for key in ("commit_time 1", "branch 1", "pull_request 1", "pull_request 2")
         for when in ("before", "after")]
STEPS = [f"step {name}" for name in ("reading the settings", "looking", "fetching", "changing", "pushing",
                                     "opening the pull request", "setting labels and reviewers")]


@pytest.fixture
def repository(shared_repository):
    return shared_repository


def pull_requests(repository, task):
    return repository.pull_requests(task.branch)


def once(repository, task):
    """The next attempt ends well, and there is exactly one branch and one pull request."""
    outputs = task.succeed()
    [branch] = [name for name in repository.branches() if task.key in name]
    [pull] = pull_requests(repository, task)
    assert (outputs["branch"], outputs["pull_request_number"]) == (branch, str(pull["number"]))
    assert outputs["commit"] == repository.branches()[branch] == pull["head"]["sha"]
    assert task.effects["pull_request"] == f"{pull['number']} {pull['html_url']}"
    return outputs


@pytest.mark.parametrize("edge", EDGES + STEPS)
def test_a_crash_at_each_edge(repository, agent, edge):
    task = agent.task(repository.url, labels=["genie"])
    assert task.run(crash_at=edge) is None
    once(repository, task)
    assert [label["name"] for label in pull_requests(repository, task)[0]["labels"]] == ["genie"]


@pytest.mark.parametrize("request_", [PUSH, REST_POST])
def test_a_crash_while_the_host_does_it(repository, behind, proxy, request_):
    fault = proxy.add(request_, forward=True)
    task = behind.task(behind.url)
    process = task.start()
    assert fault.happened.wait(60)
    process.kill()
    task.finish(process)
    once(repository, task)


def test_the_commit_is_the_same_again_where_the_base_has_not_moved(repository, agent):
    task = agent.task(repository.url)
    assert task.run(crash_at="note branch 1 after") is None
    first = task.effects["branch"]
    began = int(task.effects["commit_time"])
    wait_for(lambda: time.time() >= began + 2, "the clock to go on")
    assert task.run(crash_at="note branch 1 after") is None
    assert task.effects["branch"] == first == f"{task.branch} {once(repository, task)['commit']}"


def test_a_host_with_a_fault(repository, behind, proxy):
    task = behind.task(behind.url)
    for request in ("^GET /api/v1/", "^GET .*info/refs", FETCH, PUSH):
        proxy.add(request, status=503, headers={"Retry-After": "7"}, body=b"<html>down</html>")
        result = task.fail("GIT_HOST_UNAVAILABLE", permanent=False)
        assert result["retry_after_ms"] == 7000 and "html" not in result["message"]
    # After each of these the host has no pull request, though it was asked for one.
    proxy.add(REST_POST, status=500)
    task.fail("GIT_HOST_UNAVAILABLE", permanent=False)
    assert pull_requests(repository, task) == []
    once(repository, task)


@pytest.mark.parametrize("fault", [
    {"status": 500, "forward": True}, {"status": 502, "forward": True, "body": b"<html>"}, {"forward": True},
    {"cut": True}, {"status": 201, "forward": True, "body": b"{}"},
])
def test_a_pull_request_that_was_made_though_the_host_did_not_say_so(repository, behind, proxy, fault):
    proxy.add(REST_POST, **fault)
    task = behind.task(behind.url)
    task.succeed({"request_limit_ms": 1500})
    assert proxy.count(REST_POST) == 1
    assert "looking" in task.log
    once(repository, task)


def test_a_push_that_was_taken_though_the_host_did_not_say_so(repository, behind, proxy):
    proxy.add(PUSH, status=502, forward=True)
    task = behind.task(behind.url)
    result = task.fail("GIT_HOST_UNAVAILABLE", permanent=False)
    assert "pull_request_number" not in result["outputs"]
    once(repository, task)
    assert proxy.count(PUSH) == 1


def test_a_second_pull_request_is_refused_by_the_host_and_the_first_one_found(repository, behind, proxy):
    # The host's list lags: the first look does not show what another attempt has just made.
    task = behind.task(behind.url)
    task.succeed()
    proxy.add(r"^GET /api/v1/repos/[^/]+/[^/]+/pulls/main/", status=404)
    once(repository, task)


def test_rate_limits(repository, behind, proxy):
    task = behind.task(behind.url)
    proxy.add("^GET /api/v1/", status=429, headers={"Retry-After": "30"})
    assert task.fail("RATE_LIMITED", permanent=False)["retry_after_ms"] == 30000
    proxy.add(PUSH, status=429)
    assert task.fail("RATE_LIMITED", permanent=False)["retry_after_ms"] == 0
    reset = str(int(time.time()) + 60)
    proxy.add(REST_POST, status=403, headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset})
    assert 50000 < task.fail("RATE_LIMITED", permanent=False)["retry_after_ms"] <= 62000
    # GitHub's secondary limits need no header.
    proxy.add("^GET /api/v1/", status=403, body=b'{"message": "You have exceeded a secondary rate limit. Please wait"}')
    assert task.fail("RATE_LIMITED", permanent=False)["retry_after_ms"] == 60000
    proxy.add(r"/labels", status=429, headers={"Retry-After": "5"})
    task.payload["labels"] = ["late"]
    result = task.fail("RATE_LIMITED", permanent=False)
    assert result["retry_after_ms"] == 5000 and result["outputs"]["pull_request_number"]
    once(repository, task)
    assert [label["name"] for label in pull_requests(repository, task)[0]["labels"]] == ["late"]


def test_transfers_that_are_cut_or_say_nothing_more(repository, behind, proxy):
    task = behind.task(behind.url)
    for request in (FETCH, "^GET .*info/refs", "^GET /api"):
        proxy.add(request, cut=True)
        task.fail("GIT_HOST_UNAVAILABLE", permanent=False)
        proxy.add(request)
        task.fail("GIT_HOST_UNAVAILABLE", {"stall_limit_ms": 1000, "request_limit_ms": 1000}, permanent=False)
    proxy.add(FETCH)
    task.fail("TIME_LIMIT", {"time_limit_ms": 3000}, permanent=False)
    proxy.add("^GET .*info/refs", status=200, body=b"<html>Please log in</html>")
    task.fail("GIT_HOST_UNAVAILABLE", permanent=False)
    once(repository, task)


def test_a_host_that_cannot_be_reached(make_agent, repository):
    agent = make_agent("127.0.0.1:9", repository.token)
    agent.task("https://127.0.0.1:9/a/b").fail("GIT_HOST_UNAVAILABLE", permanent=False)


@pytest.mark.parametrize("how, status", [
    ("CANCEL_NOW", "CANCELLED"), ("CANCEL_GRACEFULLY", "CANCELLED"), ("LEASE_LOST", "UNFINISHED"), ("SHUTDOWN", "UNFINISHED"),
])
@pytest.mark.parametrize("edge", ["note branch 1 before", "note pull_request 1 before", "note branch 1 after", "step fetching"])
def test_a_stop_at_each_edge(repository, agent, edge, how, status):
    task = agent.task(repository.url)
    result = task.run(stop_at=edge, stop=how)
    assert result["status"] == status and "reason" not in result
    made = task.branch in repository.branches()
    assert made == (edge == "note pull_request 1 before")
    assert ("there is the branch" in task.log) == made
    assert pull_requests(repository, task) == []
    once(repository, task)


@pytest.mark.parametrize("number, status", [
    (signal.SIGUSR1, "CANCELLED"), (signal.SIGHUP, "UNFINISHED"), (signal.SIGTERM, "UNFINISHED"),
])
@pytest.mark.parametrize("request_", ["^GET /api", FETCH, PUSH, REST_POST])
def test_a_stop_while_the_host_says_nothing(repository, behind, proxy, request_, number, status):
    fault = proxy.add(request_)
    task = behind.task(behind.url)
    process = task.start({"request_limit_ms": 600_000, "stall_limit_ms": 600_000})
    assert fault.happened.wait(60)
    process.send_signal(number)
    result = task.finish(process)
    assert result["status"] == status and "reason" not in result
    assert ("there may be the branch" in task.log) == (request_ == PUSH)
    once(repository, task)


def test_a_graceful_cancel_waits_for_what_the_host_makes_and_no_longer_than_its_grace(repository, behind, proxy):
    fault = proxy.add(REST_POST)
    task = behind.task(behind.url)
    process = task.start({"request_limit_ms": 600_000, "stall_limit_ms": 600_000}, grace_ms=1000)
    assert fault.happened.wait(60)
    process.send_signal(signal.SIGUSR2)
    assert task.finish(process)["status"] == "CANCELLED"
    once(repository, task)


def test_another_task_that_holds_the_repository_can_be_waited_for_and_stopped(repository, behind, proxy):
    fault = proxy.add(FETCH)
    first, second = behind.task(behind.url), behind.task(behind.url)
    process = first.start({"stall_limit_ms": 600_000})
    assert fault.happened.wait(60)
    waiting = second.start()
    wait_for(lambda: "waiting for another task" in second.log, "the second task to wait")
    waiting.send_signal(signal.SIGUSR1)
    assert second.finish(waiting)["status"] == "CANCELLED"
    process.kill()
    first.finish(process)
    second.succeed()
