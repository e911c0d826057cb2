"""Leases: renewed together, counted from when the renewal was sent, and at 80 % the agent stops by itself."""

import signal
import time

from agent import eventually


def now_ms():
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


def ticks(path):
    return [int(line.split()[2]) for line in path.read_text().splitlines()] if path.exists() else []


def test_all_attempts_in_one_renewal(platform, stream, tmp_path):
    for name in "ab":
        platform.offer(stream, name, body=f"await {tmp_path}/go")
    both = {platform.task("a"), platform.task("b")}
    renewal = platform.wait(
        lambda: next((r for r in platform.said("lease_renew") if {t.task for t in r.body.tasks} == both), None)
    )
    assert {(t.attempt, t.fence) for t in renewal.body.tasks} == {(1, 1)}
    (tmp_path / "go").touch()
    platform.hears("result", count=2)


def test_an_attempt_whose_result_waits_is_renewed(platform, stream):
    platform.does -= {"result"}
    platform.offer(stream, "a")
    result = platform.hears("result")
    renewal = platform.hears("lease_renew", after=result)
    assert [t.task for t in renewal.body.tasks] == [platform.task("a")]


def test_renewed_leases_go_on(platform, make_agent, tmp_path):
    platform.limits.update(lease=1000, renew=100)
    make_agent().start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"await {tmp_path}/go\nlog done")
    platform.hears("lease_renew", count=20)  # two leases long
    (tmp_path / "go").touch()
    assert platform.hears("result").body.status == 1


def test_without_acks_the_attempt_stops_at_80_percent(platform, make_agent, tmp_path):
    platform.limits.update(lease=2000, renew=100)
    platform.does -= {"lease_renew"}
    make_agent().start()
    stream = platform.stands()
    begin = now_ms()
    platform.offer(stream, "a", body=f"tick {tmp_path}/ticks")
    acked = platform.hears("task_ack").time * 1000 + now_ms() - time.monotonic() * 1000
    # When it has stopped, it is not renewed any more, and has its slot again.
    credits = platform.hears("credits", count=2)
    assert now_ms() >= begin + 1600
    assert ticks(tmp_path / "ticks")[-1] <= acked + 1600
    assert not platform.said("result")
    renewed = platform.said("lease_renew")[-1]
    platform.hears("heartbeat", after=credits)
    assert platform.said("lease_renew")[-1] is renewed


def test_a_late_ack_counts_from_the_renewal(platform, make_agent, tmp_path):
    """An ack that comes 1.2 s after its renewal leaves 0.4 s of 2 s, not 1.6."""
    platform.limits.update(lease=2000, renew=100)
    platform.does -= {"lease_renew"}
    make_agent().start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"tick {tmp_path}/ticks")
    renewal = platform.hears("lease_renew")
    sent = renewal.time * 1000 + now_ms() - time.monotonic() * 1000
    eventually(lambda: now_ms() > sent + 1200)
    platform.take_lease_renew(stream, renewal.body, renewal)
    platform.hears("credits", count=2)
    assert ticks(tmp_path / "ticks")[-1] <= sent + 1600


def test_stopped_beyond_the_lease(platform, make_agent, tmp_path):
    """SIGSTOP, then SIGCONT: nothing is done outside after 80 % of the lease, nor by a command."""
    platform.limits.update(lease=2000, renew=100, silence=60000)
    loop = f"while :; do cut -d' ' -f1 /proc/uptime >> {tmp_path}/command; sleep 0.02; done"
    agent = make_agent(commands={"loop": {"argv": ["/bin/sh", "-c", loop], "environment": ["PATH"]}}).start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"tick {tmp_path}/ticks")
    platform.offer(stream, "b", kind="COMMAND", command={"name": "loop"})
    platform.wait(lambda: platform.said("lease_ack", by="platform") and (tmp_path / "command").exists())
    eventually(lambda: len(ticks(tmp_path / "ticks")) > 3)
    agent.signal(signal.SIGSTOP)
    stopped = now_ms()
    # The command does not wait for the agent to come back.
    eventually(lambda: now_ms() > stopped + 1700)
    written = (tmp_path / "command").read_text()
    eventually(lambda: now_ms() > stopped + 2500)
    assert (tmp_path / "command").read_text() == written
    agent.signal(signal.SIGCONT)
    platform.wait(lambda: agent.said().count("the lease was not renewed in time") == 2)
    platform.hears("credits", count=2)
    assert ticks(tmp_path / "ticks")[-1] <= stopped + 1600
    assert not platform.said("result")


def test_lease_lost(platform, stream, tmp_path):
    platform.offer(stream, "a", body=f"tick {tmp_path}/ticks")
    eventually(lambda: ticks(tmp_path / "ticks"))
    lost = platform.lose(stream, "a")
    credits = platform.hears("credits", after=lost)  # its slot is free: it has stopped
    seen = ticks(tmp_path / "ticks")
    renewed = [t for r in platform.said("lease_renew", after=credits) for t in r.body.tasks]
    platform.hears("heartbeat", count=1, after=credits)
    assert ticks(tmp_path / "ticks") == seen and not renewed
    assert not platform.said("result") and not platform.said("log_chunk", after=lost)


def test_nothing_is_said_of_a_lost_attempt(platform, stream, tmp_path):
    """Not even of what a job that has not looked yet wants to have noted."""
    platform.offer(stream, "a", body=f"note-late {tmp_path}/go {tmp_path}/end\ntouch {tmp_path}/made")
    platform.hears("lease_renew")
    lost = platform.lose(stream, "a")
    platform.wait(lambda: any(said.by == "agent" and said.message.ack_seq >= lost.seq for said in platform.history))
    (tmp_path / "go").touch()
    platform.hears("heartbeat", count=2, after=platform.history[-1])
    (tmp_path / "end").touch()
    platform.hears("credits", after=lost)
    assert not platform.said("side_effect") and not (tmp_path / "made").exists()


def test_lease_lost_of_another_fence_counts_for_nothing(platform, stream, tmp_path, v1):
    platform.offer(stream, "a", fence=7, body=f"await {tmp_path}/go")
    platform.hears("lease_renew")
    stream.say(lease_lost=v1.LeaseLost(task=platform.task("a"), attempt=1, fence=6, reason="FENCED"))
    (tmp_path / "go").touch()
    platform.hears("result")


def test_an_offer_that_is_no_longer_good(platform, stream):
    platform.does -= {"task_ack"}
    platform.offer(stream, "a")
    platform.hears("task_ack")
    lost = platform.lose(stream, "a", reason="EXPIRED")
    platform.hears("credits", after=lost)
    stream.end()
    platform.stands(2)
    assert not platform.said("hello")[-1].body.running


def test_the_next_attempt_of_the_same_task(platform, stream, tmp_path):
    """It proves that the one before is over; until that has stopped, the offer is not taken."""
    platform.offer(stream, "a", body=f"stubborn {tmp_path}/go")
    platform.hears("lease_renew")
    platform.offer(stream, "a", attempt=2, body="log two")
    assert platform.hears("task_reject").body.reason == "ATTEMPT_STOPPING"
    (tmp_path / "go").touch()
    platform.hears("credits", after=platform.said("task_reject")[-1], count=2)
    platform.offer(stream, "a", attempt=3, body="log three")
    assert platform.hears("result").body.attempt == 3
