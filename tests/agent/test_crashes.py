"""kill -9 of the agent at each edge, and a disk that is full: nothing that was acknowledged is lost."""

import os
import random
import signal
import subprocess

import pytest
from agent import eventually
from test_logs import complete, pattern


def running(platform):
    return [(r.task, r.attempt, r.fence, r.result_pending) for r in platform.said("hello")[-1].body.running]


def test_before_the_grant(platform, agent, stream, tmp_path):
    platform.does -= {"task_ack"}
    platform.offer(stream, "a", body=f"touch {tmp_path}/made")
    platform.hears("task_ack")
    agent.kill()
    platform.does |= {"task_ack"}
    agent.start()
    second = platform.stands(2)
    assert running(platform) == [(platform.task("a"), 1, 1, False)]
    platform.hears("task_ack", stream=second)
    platform.hears("result")
    assert (tmp_path / "made").read_text().count("\n") == 1
    first, again = (said.body for said in platform.said("hello"))
    assert first.instance_id != again.instance_id and again.session_token == ""


def test_while_it_runs(platform, agent, stream, tmp_path, v1):
    """It goes on with what it has noted: what was made is not made again."""
    body = f"stamp branch\ntouch {tmp_path}/runs\nawait {tmp_path}/go\noutput branch b"
    platform.offer(stream, "a", body=body)
    eventually(lambda: (tmp_path / "runs").exists() and (tmp_path / "runs").read_text())
    agent.kill()
    (tmp_path / "go").touch()
    agent.start()
    platform.stands(2)
    assert running(platform) == [(platform.task("a"), 1, 1, False)]
    assert platform.hears("result").body.status == v1.Result.SUCCEEDED
    assert (tmp_path / "runs").read_text().count("\n") == 2
    assert len({said.body.reference for said in platform.said("side_effect")}) == 1


def test_between_a_note_and_its_ack(platform, agent, stream, v1):
    platform.does -= {"side_effect"}
    platform.offer(stream, "a", body="stamp branch")
    noted = platform.hears("side_effect").body
    agent.kill()
    platform.does |= {"side_effect"}
    agent.start()
    platform.stands(2)
    platform.hears("result")
    assert {said.body.reference for said in platform.said("side_effect")} == {noted.reference}


def test_before_the_result_is_acknowledged(platform, agent, stream, tmp_path):
    platform.does -= {"result"}
    platform.offer(stream, "a", body=f"touch {tmp_path}/made\nlog hello")
    first = platform.hears("result").body
    agent.kill()
    agent.start()
    second = platform.stands(2)
    assert running(platform) == [(platform.task("a"), 1, 1, True)]
    again = platform.hears("result", stream=second)
    assert again.body == first and (tmp_path / "made").read_text().count("\n") == 1
    platform.take_result(second, again.body, again)
    platform.wait(lambda: '"to":"FORGOTTEN"' in agent.said())
    agent.kill()
    agent.start()
    platform.stands(3)
    assert running(platform) == []
    assert not list(agent.state.glob("log-*"))


def test_before_the_log_is_acknowledged(platform, agent, stream):
    platform.does -= {"log_chunk"}
    platform.offer(stream, "a", body="bytes 150000")
    platform.hears("result")
    agent.kill()
    platform.does |= {"log_chunk"}
    agent.start()
    platform.stands(2)
    complete(platform, "a", 150000)


@pytest.mark.parametrize("state, left", [("RUNNING", [False]), ("ENDED", [True]), ("FORGOTTEN", [])])
def test_what_it_says_is_on_disk(platform, make_agent, state, left):
    """Killed when it has just said how far a task is: the next process knows that."""
    agent = make_agent(environment={"SCRIPTED_LAST_WORDS": f'"to":"{state}"'}).start()
    platform.offer(platform.stands(), "a", body="log hello")
    assert agent.wait() == -signal.SIGKILL
    del agent.environment["SCRIPTED_LAST_WORDS"]
    agent.start()
    platform.stands(2)
    assert running(platform) == [(platform.task("a"), 1, 1, pending) for pending in left]


@pytest.mark.parametrize("decision", ["ABORT_FENCED", "UNKNOWN", "RESULT_KNOWN"])
def test_what_is_no_longer_wanted(platform, agent, stream, tmp_path, decision):
    platform.offer(stream, "a", body=f"touch {tmp_path}/runs\nawait {tmp_path}/never")
    eventually(lambda: (tmp_path / "runs").exists() and (tmp_path / "runs").read_text())
    agent.kill()
    platform.decide = lambda running: decision
    agent.start()
    platform.stands(2)
    platform.wait(lambda: '"to":"FORGOTTEN"' in agent.said())
    agent.kill()
    agent.start()
    platform.stands(3)
    assert running(platform) == [] and not platform.said("result")
    assert (tmp_path / "runs").read_text().count("\n") == 1


def test_a_command_cannot_go_on(platform, make_agent, tmp_path, v1):
    """Its process ends with the agent, and the next process says that it has failed, in a way that may pass."""
    platform.limits.update(lease=600000)  # it does not end because of that
    script = f"echo $$ > {tmp_path}/pid; sleep 1000 & echo $! > {tmp_path}/child; wait"
    agent = make_agent(commands={"wait": {"argv": ["/bin/sh", "-c", script], "environment": ["PATH"]}}).start()
    stream = platform.stands()
    platform.offer(stream, "a", kind="COMMAND", command={"name": "wait"})
    pids = [int(eventually(lambda: (tmp_path / name).exists() and (tmp_path / name).read_text())) for name in ("pid", "child")]
    agent.kill()
    for pid in pids:
        eventually(lambda pid=pid: not alive(pid), "the end of the command")
    agent.start()
    result = platform.hears("result").body
    assert (result.status, result.failure.reason) == (v1.Result.FAILED, "AGENT_RESTARTED")
    assert not result.failure.permanent


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False


def test_a_torn_journal(platform, agent, stream, tmp_path):
    platform.offer(stream, "a", body=f"await {tmp_path}/go")
    platform.hears("lease_renew")
    agent.kill()
    with open(agent.state / "journal-1", "ab") as journal:
        journal.write(os.urandom(37))
    agent.start()
    platform.stands(2)
    assert running(platform) == [(platform.task("a"), 1, 1, False)]
    assert "torn end" in agent.said()
    (tmp_path / "go").touch()
    platform.hears("result")


def test_one_process_a_folder(platform, agent, stream):
    second = subprocess.run(agent.command(), text=True, capture_output=True, timeout=60)
    assert second.returncode == 1
    assert second.stderr == f"genie-agent: another genie-agent uses the state directory {agent.state}\n"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, and a function that fills it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting takes root")

    def fill():
        with open(folder / "filler", "ab", buffering=0) as file:
            try:
                while file.write(b"x" * 4096) == 4096:
                    pass
            except OSError:
                pass

    yield folder, fill
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(platform, make_agent, small_disk, v1):
    """No new offers while it is full; what was acknowledged is on it; with room again, offers are taken again."""
    folder, fill = small_disk
    agent = make_agent(**{"state-directory": str(folder / "state")}).start()
    stream = platform.stands()
    platform.offer(stream, "a")
    platform.hears("result")
    fill()
    platform.offer(stream, "b", body="effect k v\n#" + 300000 * "x")
    said = platform.hears("task_reject")
    reject = said.body
    assert (reject.task, reject.reason, reject.permanent) == (platform.task("b"), "JOURNAL_FULL", False)
    assert not platform.said("task_ack", task=platform.task("b"))
    assert not platform.hears("credits", after=said).body.free
    (folder / "filler").unlink()
    platform.wait(lambda: platform.said("credits", after=said)[-1].body.free)
    platform.offer(stream, "b", attempt=2, body="effect k v")
    assert platform.hears("result", count=2).body.status == v1.Result.SUCCEEDED
    assert agent.process.poll() is None


def test_a_disk_that_fills_while_a_task_runs(platform, make_agent, small_disk, tmp_path, v1):
    """The log waits for room, bounded in time, and then the task fails; its result comes."""
    folder, fill = small_disk
    make_agent(**{"state-directory": str(folder / "state"), "full-disk-wait-ms": 500}).start()
    stream = platform.stands()
    platform.does -= {"log_chunk"}
    platform.offer(stream, "a", body=f"await {tmp_path}/go\nbytes 5000000")
    platform.hears("lease_renew")
    fill()
    (tmp_path / "go").touch()
    result = platform.hears("result").body
    assert (result.status, result.failure.reason) == (v1.Result.FAILED, "JOURNAL_FULL")
    assert not result.failure.permanent


def test_room_that_comes_in_time(platform, make_agent, small_disk, tmp_path, v1):
    folder, fill = small_disk
    make_agent(**{"state-directory": str(folder / "state")}).start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"await {tmp_path}/go\nbytes 50000")
    platform.hears("lease_renew")
    fill()
    (tmp_path / "go").touch()
    platform.hears("heartbeat", count=2, after=platform.history[-1])
    (folder / "filler").unlink()
    complete(platform, "a", 50000)
    assert platform.hears("result").body.status == v1.Result.SUCCEEDED


def test_kills_at_random(platform, make_agent, tmp_path):
    """Tasks under a storm of kill -9: each has one result, a whole log, and what it makes outside is noted first."""
    seed = int(os.environ.get("GENIE_TEST_SEED") or random.randrange(1 << 32))
    print("GENIE_TEST_SEED =", seed)
    chance = random.Random(seed)
    platform.limits.update(lease=600000, silence=600000)  # no attempt ends because this machine is slow
    agent = make_agent(**{"pull-request-slots": 4, "journal-bytes": 4096}).start()
    names = [f"task-{i}" for i in range(12)]
    pending, offered = list(names), []

    def done():
        return len(platform.results) == len(names)

    def feed():
        while pending and len(offered) - len(platform.results) < 4:
            offered.append(pending.pop(0))
            name = offered[-1]
            body = f"effect branch {name}\nbytes 70000\neffect request {name}\noutput done {name}"
            platform.offer(platform.streams[-1], name, body=body)

    platform.stands()
    for kill in range(25):
        feed()
        heard, steps = len(platform.history), chance.randrange(1, 60)
        platform.wait(lambda: len(platform.history) >= heard + steps or done())  # noqa: B023
        agent.kill()
        # An offer that was not acknowledged is made again, as the platform would after 10 s.
        unheard = [name for name in offered if not platform.said("task_ack", task=platform.task(name))]
        offered[:] = [name for name in offered if name not in unheard]
        pending[:0] = unheard
        agent.start()
        platform.wait(lambda: len(platform.streams) >= kill + 2 and platform.streams[-1].standing)  # noqa: B023
    while not done():
        feed()
        count = len(platform.results)
        platform.wait(lambda: len(platform.results) > count)  # noqa: B023
    assert not platform.said("task_reject")
    for name in names:
        task, result = platform.task(name), platform.results[(platform.task(name), 1)]
        end = {offset.stream: offset.offset for offset in result.log_offsets}[1]
        platform.wait(lambda: len(platform.logs[(task, 1, 1)]) == end, "the whole log")  # noqa: B023
        assert platform.logs[(task, 1, 1)].endswith(pattern(70000))  # of its last run; the ones before are in front
        assert platform.effects[(task, 1)] == {"branch": name, "request": name}
        assert dict(result.outputs) == {"done": name}
