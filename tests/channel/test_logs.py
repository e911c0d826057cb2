"""Logs: byte for byte, in order, durable when acknowledged; offsets, checksums and limits; and ReadTaskLog."""

import random
import threading

import pytest
from calls import until
from dialogue import named
from genied import refused


@pytest.fixture
def running(scene, agent):
    """A stream, and what it runs."""
    stream = agent.stream()
    return stream, stream.start(scene.task())


def pieces(data, size):
    return [(at, data[at : at + size]) for at in range(0, len(data), size)]


def stored(scene, offer, stream=1):
    """What the database holds of a log, without a hole."""
    uid = offer.task.rpartition("/")[2]
    where = f"task_id = '{uid}' AND attempt = {offer.attempt} AND stream = {stream}"
    data = b""
    for row in scene.rows("task_logs", "log_offset, encode(data, 'hex') AS data", where, "log_offset"):
        assert row["log_offset"] == len(data)
        data += bytes.fromhex(row["data"])
    return data


# --- Chunks ---


def test_a_log_is_stored_byte_for_byte(scene, running):
    stream, offer = running
    data = random.Random(1).randbytes(300_000)
    for at, piece in pieces(data, stream.welcome.max_log_chunk_bytes):
        stream.log(offer, piece, at)
    stream.acked(offer, len(data))
    assert stored(scene, offer) == data == scene.log_of(offer_task(scene, offer))


def offer_task(scene, offer):
    return scene.get(offer)


def test_what_is_acknowledged_is_stored(scene, running):
    stream, offer = running
    for n in range(20):
        stream.log(offer, b"x" * 10, n * 10)
        stream.acked(offer, n * 10 + 10)
        assert len(stored(scene, offer)) == n * 10 + 10


def test_both_parts_have_their_own_offsets(v1, scene, running):
    stream, offer = running
    stream.log(offer, b"out")
    stream.log(offer, b"error", stream="STDERR")
    stream.log(offer, b"put", 3)
    until(lambda: stored(scene, offer) == b"output" and stored(scene, offer, 2) == b"error")


def test_a_part_that_is_not_set_is_stdout(v1, scene, running):
    stream, offer = running
    stream.log(offer, b"abc", stream="LOG_STREAM_UNSPECIFIED")
    assert v1.LogStream.Name(stream.expect("log_ack", next_offset=3).stream) in ("STDOUT", "LOG_STREAM_UNSPECIFIED")
    assert stored(scene, offer) == b"abc"


def test_an_offset_in_the_future_is_a_gap(scene, running):
    stream, offer = running
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
    stream.log(offer, b"later", 10)
    stream.acked(offer, 3, "GAP")
    stream.log(offer, b"def", 3)
    stream.acked(offer, 6)
    assert stored(scene, offer) == b"abcdef"


@pytest.mark.parametrize("offset", [2**63 - 1, 2**62, -1, -(2**63)])
def test_an_offset_out_of_all_bounds(v1, scene, running, offset):
    stream, offer = running
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
    stream.log(offer, b"xyz", offset)
    message = stream.next()
    if message is None:
        assert offset < 0 and stream.error.code.name == "INVALID_ARGUMENT"
    else:
        assert message.log_ack.problem == v1.LogAck.GAP and message.log_ack.next_offset == 3
    assert stored(scene, offer) == b"abc"


def test_an_offset_in_the_past_is_no_problem(scene, running):
    """What is known of it is passed over; what is new is taken."""
    stream, offer = running
    stream.log(offer, b"abcdef")
    stream.acked(offer, 6)
    stream.log(offer, b"abc", 0)
    stream.acked(offer, 6)
    stream.log(offer, b"efghi", 4)
    stream.acked(offer, 9)
    stream.log(offer, b"abcdefghi", 0)
    stream.acked(offer, 9)
    assert stored(scene, offer) == b"abcdefghi"


def test_chunks_said_twice_in_one_breath(scene, running):
    stream, offer = running
    data = random.Random(2).randbytes(5000)
    for at, piece in pieces(data, 500):
        for _ in range(3):
            stream.log(offer, piece, at)
    stream.acked(offer, len(data))
    assert stored(scene, offer) == data


def test_chunks_in_any_order_end_as_one_log(v1, scene, running):
    """An agent that sends again from where it is told gets there, whatever was lost or came late."""
    stream, offer = running
    random_source = random.Random(3)
    data = random_source.randbytes(2000)
    at = 0
    while at < len(data):
        begin = max(0, at + random_source.randint(-30, 30))
        stream.log(offer, data[begin : begin + random_source.randint(0, 90)], begin)
        ack = stream.expect("log_ack", task=offer.task)
        assert ack.problem in (v1.LogAck.PROBLEM_UNSPECIFIED, v1.LogAck.GAP) and ack.next_offset >= at
        at = ack.next_offset
    assert stored(scene, offer) == data


def test_a_checksum_that_does_not_match(scene, running):
    stream, offer = running
    stream.log(offer, b"abc", crc32c=12345)
    stream.acked(offer, 0, "CHECKSUM")
    stream.log(offer, b"abc", crc32c=0)
    stream.acked(offer, 0, "CHECKSUM")
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
    assert stored(scene, offer) == b"abc"


def test_a_chunk_that_is_too_large(scene, running):
    stream, offer = running
    most = stream.welcome.max_log_chunk_bytes
    stream.log(offer, b"x" * (most + 1))
    stream.acked(offer, 0, "CHUNK_TOO_LARGE")
    stream.log(offer, b"x" * most)
    stream.acked(offer, most)


def test_4_mib_in_one_chunk(scene, running):
    """As a message it is just small enough: it is refused, and the stream goes on."""
    stream, offer = running
    stream.log(offer, b"x" * ((4 << 20) - 1000))
    stream.acked(offer, 0, "CHUNK_TOO_LARGE")
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
    stream.log(offer, b"x" * (4 << 20), 3)
    stream.ends("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert scene.state(offer) == "RUNNING" and stored(scene, offer) == b"abc"


def test_an_empty_chunk(scene, running):
    stream, offer = running
    stream.log(offer, b"")
    stream.acked(offer, 0)
    stream.log(offer, b"a", eof=True)
    stream.acked(offer, 1)


def test_chunks_come_after_the_result_too(scene, running):
    stream, offer = running
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
    stream.finish(offer, log_offsets=[{"stream": "STDOUT", "offset": 9}])
    stream.log(offer, b"defghi", 3, eof=True)
    stream.acked(offer, 9)
    assert stored(scene, offer) == b"abcdefghi"


@pytest.mark.parametrize("told", ["chunk", "result"])
@pytest.mark.parametrize("session", ["same", "next"])
def test_nothing_is_taken_behind_the_end_of_a_part(v1, scene, agent, told, session):
    stream = agent.stream()
    offer = stream.start(scene.task())
    stream.log(offer, b"abc", eof=told == "chunk")
    stream.acked(offer, 3)
    stream.finish(offer, log_offsets=[{"stream": "STDOUT", "offset": 3}] if told == "result" else [])
    if session == "next":
        stream = agent.stream(running=[v1.RunningTask(**named(offer), result_pending=True)])
    for _ in range(2):
        stream.log(offer, b"cde", 2)
        stream.acked(offer, 3, "FULL")
    stream.log(offer, b"", 3, eof=True)  # it is said again, and changes nothing
    stream.acked(offer, 3)
    stream.log(offer, b"more", stream="STDERR")  # whose end was not told
    stream.acked(offer, 4, stream="STDERR")
    assert stored(scene, offer) == b"abc"


def test_chunks_of_a_lapsed_attempt_are_fenced(v1, scene, running):
    stream, offer = running
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
    uid = offer.task.rpartition("/")[2]
    scene.age("task_leases", "lease_time", f"task_id = '{uid}'", "1 hour")
    scene.becomes(offer, "PENDING")
    stream.log(offer, b"def", 3)
    while (ack := stream.until("log_ack")).problem == v1.LogAck.PROBLEM_UNSPECIFIED and ack.next_offset <= 3:
        pass
    assert ack.problem == v1.LogAck.FENCED
    assert stored(scene, offer) == b"abc"


@pytest.mark.parametrize("cut", [6, 4, 2])
def test_what_two_sessions_say_of_one_log_is_written_once(v1, scene, agent, running, cut):
    """A session says again what the one before it has said, while that still waits to be written."""
    stream, offer = running
    busy = scene.agent().stream()
    first = busy.start(scene.task())
    uid = first.task.rpartition("/")[2]
    with scene.transaction() as psql:
        psql(f"SELECT 1 FROM task_attempts WHERE task_id = '{uid}' FOR UPDATE")
        busy.log(first, b"x")
        until(scene.waiting)
        stream.log(offer, b"abcdef"[:cut])
        stream.log(offer, b"abcdef"[cut:], cut, eof=True)
        stream.barrier()
        again = agent.stream(running=[v1.RunningTask(**named(offer))])
        again.log(offer, b"abcd")
        again.log(offer, b"ef", 4, eof=True)
        again.barrier()
    again.acked(offer, 6)
    assert stored(scene, offer) == b"abcdef" == scene.log_of(scene.get(offer))


# --- Limits ---


def test_the_window_holds(v1, scene, running):
    """More than the window at once is refused or held back; what is refused is sent again, and nothing is lost."""
    stream, offer = running
    most, window = stream.welcome.max_log_chunk_bytes, stream.welcome.log_window_bytes
    data = random.Random(4).randbytes(window * 3)
    with scene.transaction() as psql:  # no log is written while this lasts
        uid = offer.task.rpartition("/")[2]
        psql(f"SELECT 1 FROM task_attempts WHERE task_id = '{uid}' FOR UPDATE")
        sent = 0
        while sent <= window + 4 * most:
            stream.log(offer, data[sent : sent + most], sent)
            sent += most
        ack = stream.expect("log_ack", task=offer.task)
        assert ack.problem == v1.LogAck.WINDOW and ack.window <= window
        stream.barrier_past("log_ack")  # a full window delays nothing else
        number = stream.send(lease_renew=v1.LeaseRenew())
        while (part := stream.expect_one_of("log_ack", "lease_ack")) and not hasattr(part, "renew_seq"):
            pass
        assert part.renew_seq == number
    at = 0
    while at < len(data):
        stream.log(offer, data[at : at + most], at)
        while (ack := stream.until("log_ack")).next_offset <= at:
            pass
        at = ack.next_offset
    assert stored(scene, offer) == data


def test_a_full_window_delays_no_cancel(v1, scene, running):
    stream, offer = running
    most, window = stream.welcome.max_log_chunk_bytes, stream.welcome.log_window_bytes
    uid = offer.task.rpartition("/")[2]
    with scene.transaction() as psql:
        psql(f"SELECT 1 FROM task_attempts WHERE task_id = '{uid}' FOR UPDATE")
        for at in range(0, window + most, most):
            stream.log(offer, b"x" * most, at)
        scene.cancel(scene.get(offer))
        assert named(stream.until("cancel")) == named(offer)


def test_an_attempt_has_only_so_much_log(v1, scene, make_server, make_scene):
    scene = make_scene(make_server("--max-log-bytes", "200000"))
    stream = scene.agent().stream()
    offer = stream.start(task := scene.task())
    assert stream.welcome.max_log_bytes == 200_000
    data, at, problem = random.Random(5).randbytes(260_000), 0, 0
    while at < len(data) and problem != v1.LogAck.FULL:
        stream.log(offer, data[at : at + 20_000], at)
        ack = stream.expect("log_ack", task=offer.task)
        at, problem = ack.next_offset, ack.problem
    assert problem == v1.LogAck.FULL and 180_000 <= at <= 200_000
    stream.log(offer, b"more", at, stream="STDERR")
    ack = stream.expect("log_ack")
    assert ack.problem == v1.LogAck.FULL or ack.next_offset <= 200_000 - at
    assert stored(scene, offer) == data[:at]
    stream.finish(offer, log_offsets=[{"stream": "STDOUT", "offset": len(data)}])
    assert scene.log_of(task, follow=True) == data[:at], "who follows is not left waiting for what was refused"


# --- ReadTaskLog ---


def test_a_log_is_read_from_an_offset(v1, scene, running):
    stream, offer = running
    data = random.Random(6).randbytes(200_000)
    for at, piece in pieces(data, stream.welcome.max_log_chunk_bytes):
        stream.log(offer, piece, at)
    stream.acked(offer, len(data))
    task = scene.get(offer)
    for at in (0, 1, 65535, 65536, 65537, 199_999, 200_000):
        assert scene.log_of(task, offset=at) == data[at:]


def test_an_offset_beyond_the_end(v1, scene, running):
    stream, offer = running
    stream.log(offer, b"abc", eof=True)
    stream.acked(offer, 3)
    stream.finish(offer, log_offsets=[{"stream": "STDOUT", "offset": 3}])
    task = scene.get(offer)
    assert scene.log_of(task, offset=3) == b""
    with refused("OUT_OF_RANGE"):
        scene.log_of(task, offset=4)
    with refused("OUT_OF_RANGE"):
        scene.log_of(task, offset=1 << 40, follow=True)


def test_an_offset_needs_a_part(v1, scene, running):
    _, offer = running
    with refused("INVALID_ARGUMENT"):
        list(scene.read_log(scene.get(offer), offset=1))


@pytest.mark.parametrize("fields", [{"attempt": -1}, {"attempt": 1000001}, {"offset": -1}, {"offset": 1 << 41}])
def test_a_read_that_is_not_valid(v1, scene, running, fields):
    _, offer = running
    with refused("INVALID_ARGUMENT"):
        list(scene.read_log(scene.get(offer), stream=v1.STDOUT, **fields))


def test_a_log_of_a_task_that_there_is_not_or_is_another_s(v1, scene, make_scene, running):
    _, offer = running
    other = make_scene()
    task = other.task()
    with refused("PERMISSION_DENIED"):
        list(scene.read_log(task))
    task.name = scene.name + "/tasks/" + task.uid
    with refused("NOT_FOUND"):
        list(scene.read_log(task))


def test_a_log_of_an_attempt_that_there_is_not(v1, scene, running):
    _, offer = running
    with refused("OUT_OF_RANGE", "ATTEMPT_UNKNOWN"):
        list(scene.read_log(scene.get(offer), attempt=7))


def test_a_task_without_a_log(scene):
    assert list(scene.read_log(scene.task())) == []


def test_both_parts_as_they_came(v1, scene, running):
    stream, offer = running
    sent = {v1.STDOUT: b"", v1.STDERR: b""}
    for n in range(10):
        part = v1.STDERR if n % 3 == 0 else v1.STDOUT
        data = f"line {n}\n".encode()
        stream.log(offer, data, len(sent[part]), stream=v1.LogStream.Name(part))
        sent[part] += data
        stream.acked(offer, len(sent[part]), stream=v1.LogStream.Name(part))
    got, order = {v1.STDOUT: b"", v1.STDERR: b""}, b""
    for piece in scene.read_log(scene.get(offer)):
        assert piece.attempt == 1 and piece.offset == len(got[piece.stream])
        got[piece.stream] += piece.data
        order += piece.data
    assert got == sent and order == b"".join(f"line {n}\n".encode() for n in range(10))


class Follower:
    """Reads a log as it comes, in a thread of its own."""

    def __init__(self, scene, task, **fields):
        self.pieces, self.error = [], None
        self.call = scene.read_log(task, follow=True, **fields)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            for piece in self.call:
                self.pieces.append(piece)
        except Exception as error:
            self.error = error

    def data(self, attempt, stream):
        return b"".join(p.data for p in list(self.pieces) if (p.attempt, p.stream) == (attempt, stream))

    def ends(self):
        self.thread.join(30)
        assert not self.thread.is_alive() and self.error is None, self.error


def test_a_follower_sees_it_grow_and_ends_with_it(v1, scene, running):
    stream, offer = running
    follower = Follower(scene, scene.get(offer), stream=v1.STDOUT)
    for n in range(5):
        stream.log(offer, b"x" * 10, n * 10)
        until(lambda n=n: len(follower.data(1, v1.STDOUT)) == n * 10 + 10)
    stream.until_answered("result_ack", lambda: stream.result(
        offer, log_offsets=[{"stream": "STDOUT", "offset": 60}]
    ))  # fmt: skip
    assert follower.thread.is_alive()
    stream.log(offer, b"y" * 10, 50, eof=True)
    follower.ends()
    assert follower.data(1, v1.STDOUT) == b"x" * 50 + b"y" * 10


def test_a_follower_from_before_the_first_attempt_goes_on_over_all(v1, scene, agent):
    task = scene.task()
    follower = Follower(scene, task)
    stream = agent.stream()
    first = stream.start(task)
    stream.log(first, b"one\n")
    stream.log(first, b"oops\n", stream="STDERR")
    until(lambda: follower.data(1, v1.STDERR) == b"oops\n")
    stream.until_answered("result_ack", lambda: stream.result(
        first, "FAILED", log_offsets=[{"stream": "STDOUT", "offset": 4}, {"stream": "STDERR", "offset": 5}]
    ))  # fmt: skip
    scene.age("tasks", "next_attempt_time", f"task_id = '{task.uid}'", "1 hour")
    second = stream.start(task)
    stream.log(second, b"two\n")
    stream.until_answered("result_ack", lambda: stream.result(
        second, log_offsets=[{"stream": "STDOUT", "offset": 4}, {"stream": "STDERR", "offset": 0}]
    ))  # fmt: skip
    follower.ends()
    assert follower.data(1, v1.STDOUT) == b"one\n" and follower.data(2, v1.STDOUT) == b"two\n"
    attempts = [piece.attempt for piece in follower.pieces]
    assert attempts == sorted(attempts)


def test_a_follower_of_one_attempt_ends_with_it(v1, scene, agent):
    task, stream = scene.task(), agent.stream()
    first = stream.start(task)
    follower = Follower(scene, task, attempt=1)
    stream.log(first, b"one\n", eof=True)
    stream.acked(first, 4)
    stream.finish(first, "FAILED", log_offsets=[{"stream": "STDOUT", "offset": 4}])
    follower.ends()
    assert follower.data(1, v1.STDOUT) == b"one\n"


def test_a_follower_of_an_attempt_whose_agent_was_lost_ends(v1, scene, agent):
    """Its log will never be complete: what there is of it is all."""
    task, stream = scene.task(max_attempts=1), agent.stream()
    first = stream.start(task)
    stream.log(first, b"one\n")
    stream.acked(first, 4)
    follower = Follower(scene, task)
    scene.age("task_leases", "lease_time", f"task_id = '{task.uid}'", "1 hour")
    follower.ends()
    assert follower.data(1, v1.STDOUT) == b"one\n" and scene.state(task) == "DEAD"


def test_a_follower_of_a_task_that_is_cancelled_before_it_starts_ends(scene):
    task = scene.task()
    follower = Follower(scene, task)
    scene.cancel(task)
    follower.ends()
    assert not follower.pieces


def test_a_follower_that_goes_is_no_harm(v1, scene, running):
    stream, offer = running
    followers = [Follower(scene, scene.get(offer)) for _ in range(10)]
    for follower in followers:
        follower.call.cancel()
    stream.log(offer, b"abc")
    stream.acked(offer, 3)
