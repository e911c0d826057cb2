"""Streams: how they begin, how they end, what takes their place."""

import re

import grpc
import pytest
from agent import eventually


def running(platform):
    return [(r.task, r.result_pending) for r in platform.said("hello")[-1].body.running]


def test_the_next_stream_knows_the_one_before(platform, stream):
    platform.hears("heartbeat")
    stream.end(grpc.StatusCode.UNAVAILABLE)
    platform.stands(2)
    first, second = (said.body for said in platform.said("hello"))
    assert second.instance_id == first.instance_id
    assert second.session_token == "token-1"
    assert second.last_seen_seq == stream.seq


def test_running_tasks_go_on_over_a_reconnect(platform, stream, tmp_path, v1):
    platform.offer(stream, "a", body=f"touch {tmp_path}/made\nawait {tmp_path}/go")
    platform.hears("lease_renew")
    stream.end(grpc.StatusCode.UNAVAILABLE)
    platform.stands(2)
    assert running(platform) == [(platform.task("a"), False)]
    (tmp_path / "go").touch()
    assert platform.hears("result").body.status == v1.Result.SUCCEEDED
    assert (tmp_path / "made").read_text().count("\n") == 1


@pytest.mark.parametrize("decision", ["ABORT_FENCED", "UNKNOWN"])
def test_dispositions_that_end_an_attempt(platform, stream, tmp_path, decision):
    platform.offer(stream, "a", body=f"await {tmp_path}/never")
    platform.hears("lease_renew")
    platform.decide = lambda running: decision
    stream.end()
    platform.stands(2)
    platform.hears("credits", stream=platform.streams[-1], count=2)  # its slot is free again
    platform.streams[-1].end()
    platform.stands(3)
    assert running(platform) == [] and not platform.said("result")


def test_an_effect_is_said_in_the_next_session(platform, stream, v1):
    platform.does -= {"side_effect"}
    platform.offer(stream, "a", body="effect branch b")
    platform.hears("side_effect")
    platform.does |= {"side_effect"}
    stream.end()
    platform.hears("side_effect", stream=platform.stands(2), key="branch", reference="b")
    platform.hears("result")


def test_a_grant_that_was_lost(platform, stream, tmp_path):
    """The platform has started it, the agent has not heard: CONTINUE starts it."""
    platform.does -= {"task_ack"}
    platform.offer(stream, "a", body=f"touch {tmp_path}/made")
    platform.hears("task_ack")
    platform.granted.add((platform.task("a"), 1))
    stream.end()
    platform.hears("result")
    assert (tmp_path / "made").read_text().count("\n") == 1


def test_an_ack_that_was_lost(platform, stream):
    platform.does -= {"task_ack"}
    platform.offer(stream, "a")
    platform.hears("task_ack")
    platform.does |= {"task_ack"}
    stream.end()
    platform.hears("task_ack", stream=platform.stands(2))  # OFFERED
    platform.hears("result")


@pytest.mark.parametrize("does", ["nothing", "ends", "garbage", "welcome twice"])
def test_streams_that_end_at_odd_places(platform, make_agent, does, v1):
    def odd(stream, hello, said):
        platform.take_welcome = Platform_take_welcome
        if does == "ends":
            stream.end(grpc.StatusCode.INTERNAL, "\x00 odd \xff")
        elif does == "garbage":  # a Cancel, of nothing, before Welcome; then the end
            stream.say(cancel=v1.Cancel())
            stream.end()
        elif does == "welcome twice":
            Platform_take_welcome(stream, hello, said)
            stream.say(welcome=platform.welcome(hello))
        else:
            stream.end(grpc.StatusCode.OK)

    Platform_take_welcome, platform.take_welcome = platform.take_welcome, odd
    make_agent().start()
    stream = platform.stands(1 if does == "welcome twice" else 2)
    platform.offer(stream, "a")
    platform.hears("result")


def test_heartbeats_and_silence(platform, make_agent):
    platform.limits.update(heartbeat=200, silence=1000)
    make_agent().start()
    stream = platform.stands()
    platform.hears("heartbeat", count=5)
    platform.does -= {"heartbeat"}
    platform.wait(lambda: stream.agent_closed, "the end of a silent stream")
    platform.does |= {"heartbeat"}
    platform.stands(2)
    platform.hears("heartbeat", stream=platform.streams[-1], count=8)
    assert len(platform.streams) == 2


def test_the_server_is_away(platform, make_agent, tmp_path):
    agent = make_agent().start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"await {tmp_path}/go")
    platform.hears("lease_renew")
    platform.stop()
    platform.wait(lambda: agent.said().count("the stream has ended") >= 3, "attempts to reconnect")
    platform.start()
    platform.stands(2)
    assert running(platform) == [(platform.task("a"), False)]
    (tmp_path / "go").touch()
    platform.hears("result")


def test_retry_later(platform, make_agent, v1):
    def later(stream, hello, said):
        platform.take_welcome = take
        stream.say(retry_later=v1.RetryLater(after=platform.ms(1500), reason="OVERLOADED"))
        stream.end(grpc.StatusCode.UNAVAILABLE)

    take, platform.take_welcome = platform.take_welcome, later
    make_agent().start()
    platform.stands(2)
    first, second = platform.said("hello")
    assert second.time - first.time >= 1.5


def test_superseded(platform, make_agent, tmp_path, v1):
    """Everything stops; the next try is late, and with the token of the session that was superseded."""
    agent = make_agent(**{"superseded-delay-ms": 3000}).start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"tick {tmp_path}/ticks")
    eventually(lambda: (tmp_path / "ticks").exists())
    platform.hears("lease_renew")
    said = stream.say(superseded=v1.Superseded(session_epoch=99))
    stream.end(grpc.StatusCode.ABORTED, "SUPERSEDED")
    platform.wait(lambda: "another agent with the same key" in agent.said())
    platform.wait(lambda: '"to":"FORGOTTEN"' in agent.said())
    ticks = (tmp_path / "ticks").read_text()
    platform.stands(2)
    assert platform.said("hello")[-1].time - said.time >= 1.5
    assert platform.said("hello")[-1].body.session_token == "token-1"
    assert running(platform) == [] and (tmp_path / "ticks").read_text() == ticks
    assert not platform.said("result")


def test_retry_later_for_superseded(platform, make_agent, v1):
    def later(stream, hello, said):
        platform.take_welcome = take
        stream.say(retry_later=v1.RetryLater(after=platform.ms(0), reason="SUPERSEDED"))
        stream.end(grpc.StatusCode.UNAVAILABLE)

    take, platform.take_welcome = platform.take_welcome, later
    make_agent(**{"superseded-delay-ms": 3000}).start()
    platform.stands(2)
    first, second = platform.said("hello")
    assert second.time - first.time >= 1.5


def test_drain(platform, stream, tmp_path, v1):
    """The new stream stands before the old one ends; what runs is not stopped, and no byte of its log is lost."""
    platform.offer(stream, "a", body=f"touch {tmp_path}/made\nbytes 100000\nawait {tmp_path}/go\nbytes 100000")
    platform.hears("log_chunk")
    drain = stream.say(drain=v1.Drain(reconnect_in=platform.ms(700), deadline=platform.ms(20000)))
    second = platform.stands(2)
    hello = platform.said("hello")[-1]
    assert hello.time - drain.time >= 0.7
    assert running(platform) == [(platform.task("a"), False)]
    platform.wait(lambda: stream.agent_closed, "the end of the old stream")
    assert not second.agent_closed
    renewal = platform.hears("lease_renew", stream=second)
    assert not [said for said in platform.said("lease_renew", after=renewal) if said.stream is stream]
    (tmp_path / "go").touch()
    assert platform.hears("result", stream=second).body.status == v1.Result.SUCCEEDED
    assert (tmp_path / "made").read_text().count("\n") == 1
    platform.wait(lambda: len(platform.logs[(platform.task("a"), 1, 1)]) == 200000)


def test_the_drained_stream_is_used_until_the_new_one_stands(platform, stream, tmp_path, v1):
    platform.offer(stream, "a", body=f"await {tmp_path}/go")
    platform.hears("lease_renew")
    held = []
    take, platform.take_welcome = platform.take_welcome, lambda *arguments: held.append(arguments)
    stream.say(drain=v1.Drain(reconnect_in=platform.ms(0), deadline=platform.ms(20000)))
    platform.wait(lambda: held)
    platform.hears("lease_renew", stream=stream, after=platform.said("hello")[-1], count=2)
    take(*held[0])
    platform.hears("lease_renew", stream=platform.streams[1])
    (tmp_path / "go").touch()
    platform.hears("result", stream=platform.streams[1])


def test_superseded_by_its_own_next_stream(platform, stream, tmp_path, v1):
    """A platform that tells the old stream of the new one, before the new one hears Welcome, stops nothing."""
    platform.offer(stream, "a", body=f"await {tmp_path}/go")
    platform.hears("lease_renew")
    take = platform.take_welcome

    def supersede_first(new, hello, said):
        stream.say(superseded=v1.Superseded(session_epoch=2))
        platform.hears("heartbeat", stream=stream, after=said)
        take(new, hello, said)

    platform.take_welcome = supersede_first
    stream.say(drain=v1.Drain(reconnect_in=platform.ms(0), deadline=platform.ms(20000)))
    platform.stands(2)
    (tmp_path / "go").touch()
    platform.hears("result", stream=platform.streams[1])


def test_the_drain_deadline_comes_first(platform, stream, tmp_path, v1):
    platform.offer(stream, "a", body=f"await {tmp_path}/go")
    platform.hears("lease_renew")
    stream.say(drain=v1.Drain(reconnect_in=platform.ms(1000), deadline=platform.ms(1)))
    stream.end(grpc.StatusCode.UNAVAILABLE, "DRAINED")
    platform.stands(2)
    (tmp_path / "go").touch()
    platform.hears("result")


def test_key_offer(platform, make_agent, v1):
    """It is kept, used from the next stream on, which comes soon, and by the next process too."""
    agent = make_agent().start()
    stream = platform.stands()
    platform.keys.add("dga_new")
    stream.say(key_offer=v1.KeyOffer(key="dga_new", overlap=platform.ms(60000)))
    platform.stands(2)
    assert platform.streams[1].key == "dga_new"
    kept = agent.state / "offered-key"
    assert kept.stat().st_mode & 0o777 == 0o600
    platform.keys.remove(platform.key)
    agent.stop()
    agent.start()
    platform.stands(3)
    assert platform.streams[2].key == "dga_new"
    assert "dga_" not in agent.said()
    # A changed key file wins.
    platform.keys.add("dga_by_hand")
    agent.key_file.write_text("dga_by_hand")
    platform.streams[2].end()
    platform.stands(4)
    assert platform.streams[3].key == "dga_by_hand"


def test_an_offered_key_that_is_refused(platform, make_agent, v1):
    """An offer can be void by the time it is used: the configured key has another turn."""
    agent = make_agent().start()
    platform.stands().say(key_offer=v1.KeyOffer(key="dga_void", overlap=platform.ms(60000)))
    platform.wait(lambda: any(stream.key == "dga_void" for stream in platform.streams))
    platform.streams[0].end()
    platform.wait(lambda: len(platform.streams) >= 3 and platform.streams[-1].standing)
    assert platform.streams[-1].key == platform.key
    assert "UNAUTHENTICATED" in agent.said()


def test_the_key_file_is_read_at_each_connect(platform, make_agent):
    agent = make_agent()
    agent.key_file.write_text("dga_wrong")
    agent.start()
    platform.wait(lambda: platform.streams and "UNAUTHENTICATED" in agent.said())
    assert not platform.said("hello")
    agent.key_file.write_text(platform.key)
    platform.wait(lambda: platform.said("credits"))
    assert "dga_" not in agent.said()


def test_a_wrong_certificate_authority(platform, make_agent, tmp_path):
    import subprocess

    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=o",
         "-keyout", tmp_path / "k.pem", "-out", tmp_path / "other.pem"], check=True, capture_output=True,
    )  # fmt: skip
    agent = make_agent(**{"ca-file": str(tmp_path / "other.pem")}).start()
    platform.wait(lambda: agent.said().count("the stream has ended") >= 2)
    assert not platform.streams and '"code":"UNAVAILABLE"' in agent.said()


def test_goodbye(platform, agent, stream, v1):
    agent.stop()
    draining, goodbye = platform.said("draining"), platform.said("goodbye")
    assert draining and goodbye and goodbye[-1] is platform.history[-1]
    assert not platform.said("credits")[-1].body.free


def test_shutdown_waits_for_what_runs(platform, agent, stream, tmp_path, v1):
    import signal

    platform.offer(stream, "a", body=f"await {tmp_path}/go\nlog done")
    platform.hears("lease_renew")
    agent.signal(signal.SIGTERM)
    draining = platform.hears("draining")
    platform.offer(stream, "b")
    assert platform.hears("task_reject").body.reason == "SHUTTING_DOWN"
    platform.hears("lease_renew", after=draining)
    (tmp_path / "go").touch()
    assert agent.wait() == 0
    assert platform.said("result")[0].body.status == v1.Result.SUCCEEDED and platform.said("goodbye")


def test_shutdown_leaves_what_does_not_end(platform, make_agent, tmp_path):
    """A kind that can go on is left to the next process."""
    agent = make_agent(**{"shutdown-grace-ms": 100}).start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"effect k v\nawait {tmp_path}/go\noutput k k")
    platform.hears("lease_renew")
    agent.stop()
    assert not platform.said("result")
    (tmp_path / "go").touch()
    agent.start()
    platform.hears("result")
    assert len(platform.said("side_effect", key="k")) == 1 or platform.effects


def test_backoff_has_jitter_and_grows(platform, make_agent):
    platform.keys.clear()
    agent = make_agent().start()
    tries = platform.wait(lambda: len(found := re.findall(r'"next_try_ms":"(\d+)"', agent.said())) >= 5 and found)
    waits = [int(ms) for ms in tries]
    assert all(ms < min(200 << (number + 1), 30000) for number, ms in enumerate(waits)), waits
    assert len(set(waits)) > 1, waits
