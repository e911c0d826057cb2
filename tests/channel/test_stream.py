"""The stream: how it begins, what it bears, and each way in which it ends."""

import itertools
import queue
import threading
import time
import uuid

import pytest
from calls import until
from dialogue import CONNECT, named
from genied import refused


@pytest.fixture(autouse=True)
def nobody_notices(v1, scene):
    """Whatever a test does with its stream, another agent's goes on, and the server is the same process."""
    process, over = scene.server.process.pid, threading.Event()
    bystander = scene.agent("bystander").stream(kinds=[v1.PULL_REQUEST])

    def live():
        while not over.wait(5):
            bystander.barrier()

    living = threading.Thread(target=live)
    living.start()
    yield
    over.set()
    living.join()
    bystander.barrier()
    assert scene.server.process.pid == process and scene.server.process.poll() is None


# --- How it begins ---


def test_hello_is_answered_with_welcome(v1, agent):
    stream = agent.stream()
    welcome = stream.welcome
    assert welcome.protocol_version == 1 and welcome.session_epoch >= 1 and welcome.session_token
    times = [
        welcome.heartbeat_interval,
        welcome.silence_limit,
        welcome.lease,
        welcome.renew_interval,
        welcome.offer_limit,
    ]
    beat, silence, lease, renewal, offer = (t.ToTimedelta().total_seconds() for t in times)
    assert 0 < beat < silence and 0 < renewal < lease and offer > 0
    assert 0 < welcome.max_log_chunk_bytes <= 64 * 1024
    assert welcome.max_log_chunk_bytes <= welcome.log_window_bytes and 0 < welcome.max_log_bytes
    assert not welcome.dispositions
    stream.barrier()


def test_both_sides_count_and_tell_what_they_took_in(v1, agent):
    stream = agent.stream()
    for _ in range(3):
        number = stream.send(heartbeat=v1.Heartbeat())
        message = stream.next()
        assert message.WhichOneof("part") == "ping" and message.ack_seq == number


def test_hello_counts_too(v1, agent):
    """Its number is acknowledged with Welcome, and a message that does not go beyond it is dropped."""
    stream = agent.dial()
    stream.seq = 6
    assert stream.hello() == 7
    message = stream.next()
    assert message.WhichOneof("part") == "welcome" and message.ack_seq == 7
    for seq in (1, 7):
        stream.send(seq=seq, goodbye=v1.Goodbye())
    stream.seq = 7
    stream.barrier()


def test_a_message_whose_number_is_not_above_the_last_is_dropped(v1, agent):
    stream = agent.stream()
    stream.barrier()
    for seq in (stream.seq, 1, 0, -5):
        stream.send(seq=seq, heartbeat=v1.Heartbeat())
    number = stream.send(seq=100, heartbeat=v1.Heartbeat())
    message = stream.next()
    assert message.WhichOneof("part") == "ping" and message.ack_seq == number == 100


def test_a_part_that_this_server_does_not_know_is_ignored(v1, agent):
    stream = agent.stream()
    stream.seq += 1
    # seq, and field 999 of length 3: a part of a newer protocol.
    stream.send_bytes(v1.WorkerMessage(seq=stream.seq).SerializeToString() + b"\xba\x3e\x03abc")
    stream.send()  # no part at all
    stream.barrier()


def test_what_hello_said_is_what_the_agent_is(v1, agent):
    agent.stream(labels={"region": "eu", "x": ""}, kinds=[v1.COMMAND, v1.PULL_REQUEST], version="1.2.3")
    got = agent.get()
    assert got.state == v1.Agent.CONNECTED and got.version == "1.2.3"
    assert dict(got.labels) == {"region": "eu", "x": ""}
    assert set(got.kinds) == {v1.COMMAND, v1.PULL_REQUEST}
    assert got.state_time.seconds > 0 and got.last_seen_time.seconds > 0


def test_a_kind_that_this_server_does_not_know_is_ignored(v1, scene, agent):
    stream = agent.stream(kinds=[77, v1.COMMAND])
    stream.credits(5, kind=77)
    stream.credits(1)
    stream.offered(scene.task())


@pytest.mark.parametrize("credential", ["none", "nonsense", "another key", "a person", "an API key"])
def test_who_is_no_agent_has_no_stream(v1, scene, agent, credential):
    key = {
        "none": None, "nonsense": "dga_nonsense", "another key": agent.key[:20] + "A" * (len(agent.key) - 20),
        "a person": scene.organization.owner.credential, "an API key": scene.organization.key("OWNER").credential,
    }[credential]  # fmt: skip
    stream = scene.stream(key)
    stream.hello()
    stream.ends("PERMISSION_DENIED" if credential.startswith("a ") or "API" in credential else "UNAUTHENTICATED")


def test_an_agent_may_do_nothing_else(v1, scene, agent, connect):
    api = connect(scene.server, agent.key)
    with refused("PERMISSION_DENIED"):
        v1.TaskServiceStub(api.channel).ListTasks(v1.ListTasksRequest(parent=scene.name))
    with refused("PERMISSION_DENIED"):
        v1.AgentServiceStub(api.channel).GetAgent(v1.GetAgentRequest(name=agent.name))


# --- What ends it ---


def test_goodbye(v1, agent):
    stream = agent.stream()
    stream.send(goodbye=v1.Goodbye(reason="done"))
    stream.ends("OK")


def test_what_comes_behind_goodbye_is_not_read(v1, scene, agent):
    stream = agent.stream()
    offer = stream.start(scene.task())
    stream.send(goodbye=v1.Goodbye())
    stream.result(offer)
    stream.send_bytes(b"\xff\xff")
    stream.ends("OK")
    assert scene.state(offer) == "RUNNING"


def test_a_half_close(agent):
    stream = agent.stream()
    stream.half_close()
    stream.ends("OK")


def test_a_half_close_before_hello(agent):
    stream = agent.dial()
    stream.half_close()
    stream.ends("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


def test_a_first_message_that_is_no_hello(v1, agent):
    for part in ({"heartbeat": v1.Heartbeat()}, {"credits": v1.Credits()}, {"goodbye": v1.Goodbye()}, {}):
        stream = agent.dial()
        stream.send(**part)
        stream.ends("INVALID_ARGUMENT", "HELLO_MISSING")


def test_no_message_at_all(agent):
    began = time.monotonic()
    agent.dial().ends("DEADLINE_EXCEEDED", "FIRST_MESSAGE_TIMEOUT")
    assert time.monotonic() - began > 5, "an agent has time to say Hello"


def test_a_second_hello(agent):
    stream = agent.stream()
    stream.hello()
    stream.ends("FAILED_PRECONDITION", "HELLO_REPEATED")


@pytest.mark.parametrize("versions", [[2], [0], [-1, 99], [2**31 - 1]])
def test_no_protocol_version_in_common(agent, versions):
    stream = agent.dial()
    stream.hello(protocol_versions=versions)
    stream.ends("FAILED_PRECONDITION", "PROTOCOL_UNSUPPORTED")
    assert stream.error.metadata["supported"] == "1"


def test_one_protocol_version_in_common(agent):
    assert agent.stream(protocol_versions=[7, 1, 2]).welcome.protocol_version == 1


@pytest.mark.parametrize("field, fields", [
    ("protocol_versions", {"protocol_versions": []}),
    ("instance_id", {"instance_id": ""}),
    ("instance_id", {"instance_id": "me"}),
    ("version", {"version": "x" * 101}),
    ("session_token", {"session_token": "x" * 101}),
    ("labels", {"labels": {str(n): "" for n in range(51)}}),
    ("labels", {"labels": {"x" * 101: ""}}),
    ("labels", {"labels": {"x": "é" * 101}}),
    ("kinds", {"kinds": [1] * 21}),
])  # fmt: skip
def test_a_hello_that_is_not_valid(agent, field, fields):
    stream = agent.dial()
    stream.hello(**fields)
    stream.ends("INVALID_ARGUMENT")
    violations = stream.error.all["BadRequest"].field_violations
    assert violations and all(field in violation.field for violation in violations), violations


def test_a_session_token_that_is_none_of_ours_is_no_harm(agent):
    """It is a hint: who the agent is its key says."""
    agent.stream(session_token="nonsense", last_seen_seq=77).barrier()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x08" + b"\xff" * 11, b"\x42\x02\x0a\xff"])
def test_a_message_that_cannot_be_read(agent, data):
    for stream in (agent.dial(), agent.stream()):
        stream.send_bytes(data)
        stream.ends("INVALID_ARGUMENT")


def test_a_message_with_a_field_out_of_bounds_names_it(v1, scene, agent):
    stream = agent.stream()
    offer = stream.start(scene.task())
    stream.send(result=v1.Result(**named(offer), result_id="no UUID", status=v1.Result.SUCCEEDED))
    stream.ends("INVALID_ARGUMENT")
    assert "result_id" in stream.error.all["BadRequest"].field_violations[0].field
    assert scene.state(offer) == "RUNNING"


def test_a_message_of_more_than_4_mib(v1, agent):
    stream = agent.stream()
    stream.send(goodbye=v1.Goodbye(reason="x" * (4 << 20)))
    stream.ends("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")


def test_bytes_without_end(agent):
    """Far beyond 4 MiB gRPC refuses by itself, without details."""
    stream = agent.stream()
    stream.send_bytes(b"\x7a" + b"\x00" * (40 << 20))
    while stream.next():
        pass
    assert stream.error.code.name in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")


def test_a_newer_instance_takes_over(agent):
    old = agent.stream()
    new = agent.stream()
    assert new.welcome.session_epoch > old.welcome.session_epoch
    (message,) = old.ends("ABORTED", "SUPERSEDED")
    assert message.superseded.session_epoch == new.welcome.session_epoch
    new.barrier()


def test_the_agent_is_deleted(agent):
    stream = agent.stream()
    agent.delete()
    stream.ends("UNAUTHENTICATED", "CREDENTIALS_INVALID")
    again = agent.dial()
    again.hello()
    again.ends("UNAUTHENTICATED")


def test_the_key_it_came_with_ends(v1, agent):
    stream, made = agent.stream(), agent.rotate(overlap={"seconds": 0})
    stream.ends("UNAUTHENTICATED", "CREDENTIALS_INVALID")
    agent.stream(key=made.secret).barrier()


def test_a_caller_that_just_goes(v1, agent):
    stream = agent.stream()
    stream.call.cancel()
    until(lambda: agent.state() == "DISCONNECTED")


# --- A flood ---


def test_a_flood_is_read_slowly_and_is_no_end(v1, scene, agent):
    """At most 1,000 messages a second are taken; a neighbour's round trips go on meanwhile."""
    stream, neighbour = agent.stream(), scene.agent().stream()
    stream.barrier()
    count, began = 4000, time.monotonic()
    for _ in range(count):
        stream.send(heartbeat=v1.Heartbeat())
    for _ in range(20):
        neighbour.barrier()
    pings = 0
    while pings < count and (message := stream.next()):
        pings += message.WhichOneof("part") == "ping"
    assert pings == count
    assert time.monotonic() - began > 2, "more than 1,000 messages a second"
    stream.barrier()


def test_a_flood_of_nonsense_about_tasks(v1, scene, agent):
    """Each message gets its answer, or none where the proto gives none; nothing moves."""
    stream = agent.stream()
    task = scene.task()
    about = {"task": task.name, "attempt": 1, "fence": 1}
    for _ in range(300):
        stream.send(task_ack=v1.TaskAck(**about))
        stream.send(progress=v1.Progress(**about, percent=50))
        stream.send(cancel_ack=v1.CancelAck(**about))
        stream.send(side_effect=v1.SideEffect(**about, key="k", reference="r"))
    stream.send(heartbeat=v1.Heartbeat())
    while (message := stream.next()).WhichOneof("part") != "ping":
        assert message.WhichOneof("part") == "lease_lost" and message.lease_lost.reason == "FENCED"
    assert scene.state(task) == "PENDING" and not scene.rows("task_effects")


def test_who_is_not_listened_to_is_not_silent(v1, make_server, make_scene):
    """While the database takes nothing, an agent with much to say is not read; it has not gone for that."""
    scene = make_scene(make_server("--agent-heartbeat-ms", "1000", "--agent-silence-ms", "2000"))
    stream = scene.agent().stream()
    offer = stream.start(scene.task())
    with scene.transaction() as run:
        run("LOCK TABLE task_effects IN ACCESS EXCLUSIVE MODE")
        for n in range(100):
            stream.send(side_effect=v1.SideEffect(**named(offer), key=f"key-{n}", reference="r"))
        for _ in range(2):  # who is silent from now on is noticed
            scene.agent().stream().ends("DEADLINE_EXCEEDED", "SILENT")
    for n in range(100):
        stream.expect("side_effect_ack", key=f"key-{n}")


def test_a_session_that_begins_while_the_server_drains(make_server, make_scene):
    """It is told so, as those are that stood already."""
    server = make_server("--drain-pause-ms", "0", "--drain-timeout-ms", "20000")
    scene = make_scene(server)
    agent, other = scene.agent(), scene.agent().stream()
    with scene.transaction() as run:
        run(f"SELECT FROM agents WHERE agent_id = '{agent.uid}' FOR UPDATE")
        stream = agent.dial()
        stream.hello()
        until(scene.waiting)
        server.process.terminate()
        other.expect("drain")
    stream.expect("welcome")
    told = stream.expect("drain")
    assert 0 < told.deadline.ToTimedelta().total_seconds() <= 20
    for each in (stream, other):
        each.half_close()
        each.ends("OK")
    assert server.process.wait(60) == 0


# A connection of its own, whose window of HTTP/2 stays as small as it begins.
NARROW = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]


def test_who_reads_late_misses_nothing(v1, scene, agent):
    """More answers than are kept for a stream: it is not listened to until it has read, and goes on."""
    channel, said = scene.server.channel(agent.key, NARROW), queue.SimpleQueue()
    nobody_s = v1.LeaseRenew(tasks=[v1.LeasedTask(task="nobody's " * 22, attempt=n, fence=1) for n in range(1000)])
    watch = scene.watch_agents()
    said.put(v1.WorkerMessage(seq=1, hello=v1.Hello(
        protocol_versions=[1], instance_id=str(uuid.uuid4()), kinds=[v1.COMMAND])))  # fmt: skip
    for n in range(10):
        said.put(v1.WorkerMessage(seq=2 + n, lease_renew=nobody_s))
    call = channel.stream_stream(CONNECT)(message.SerializeToString() for message in iter(said.get, None))
    try:
        while watch.since(v1.WatchAgentsResponse.CONNECTED).agent != agent.name:
            pass
        with pytest.raises(queue.Empty):
            watch.take(1, seconds=3)
        heard = (v1.PlatformMessage.FromString(data) for data in call)
        assert next(heard).WhichOneof("part") == "welcome"
        lost = []
        while len(lost) < 10_000:
            message = next(heard)
            assert message.WhichOneof("part") in ("lease_lost", "lease_ack"), message
            lost += [message.lease_lost.attempt] if message.HasField("lease_lost") else []
        assert lost == list(range(1000)) * 10
        said.put(v1.WorkerMessage(seq=100, heartbeat=v1.Heartbeat()))
        while next(heard).WhichOneof("part") != "ping":
            pass
    finally:
        said.put(None)
        call.cancel()
        channel.close()


def test_streams_that_are_not_read_do_not_outlive_their_sessions(v1, make_server, make_scene):
    """Each takes over from the one before it, and reads nothing, not even that it is over. They would fill the server."""
    scene = make_scene(make_server("--max-open-streams", "3"))
    agent, calls = scene.agent(), []
    nobody_s = v1.LeaseRenew(tasks=[v1.LeasedTask(task="nobody's " * 22, attempt=n, fence=1) for n in range(1000)])
    channel = scene.server.channel(agent.key, NARROW)
    try:
        for _ in range(3):
            hello = v1.Hello(protocol_versions=[1], instance_id=str(uuid.uuid4()), kinds=[v1.COMMAND])
            out = queue.SimpleQueue()
            out.put(v1.WorkerMessage(seq=1, hello=hello).SerializeToString())
            out.put(v1.WorkerMessage(seq=2, lease_renew=nobody_s).SerializeToString())
            calls.append(channel.stream_stream(CONNECT)(iter(out.get, 0)))
            assert [v1.PlatformMessage.FromString(next(calls[-1])).WhichOneof("part") for _ in range(2)] == [
                "welcome", "lease_lost"
            ]  # the others wait, and are more than the window of HTTP/2
        other = scene.agent()

        def there_is_room():
            stream = other.dial()
            stream.hello()
            message = stream.next()
            return message and message.WhichOneof("part") == "welcome"

        assert not there_is_room()
        until(there_is_room)
    finally:
        for call in calls:
            call.cancel()
        channel.close()


def test_a_reader_that_does_not_read(v1, make_server, make_scene):
    """It is not listened to, and its stream ends as one does that is silent; the platform's memory is not its to fill.

    The client takes nothing from the call, so that HTTP/2's flow control stops what comes.
    """
    scene = make_scene(make_server("--agent-heartbeat-ms", "1000", "--agent-silence-ms", "5000"))
    agent = scene.agent()
    channel = scene.server.channel(agent.key, NARROW)
    hello = v1.Hello(protocol_versions=[1], instance_id=str(uuid.uuid4()), kinds=[v1.COMMAND])
    over = threading.Event()
    # Each message has a hundred answers: a window that has grown to megabytes is full in seconds.
    nobody_s = v1.LeaseRenew(tasks=[v1.LeasedTask(task="nobody's", attempt=1, fence=1)] * 100)

    def said():
        yield v1.WorkerMessage(seq=1, hello=hello).SerializeToString()
        for n in itertools.count(2):
            if over.is_set():
                return
            yield v1.WorkerMessage(seq=n, lease_renew=nobody_s).SerializeToString()

    watch = scene.watch_agents()
    call = channel.stream_stream(CONNECT)(said())
    try:
        watch.since(v1.WatchAgentsResponse.CONNECTED)
        gone = watch.take(1, seconds=90)[0]
        assert gone.event == v1.WatchAgentsResponse.DISCONNECTED and gone.reason == "PROTOCOL"
        assert agent.state() == "DISCONNECTED"
    finally:
        over.set()
        call.cancel()
        channel.close()
