"""Logs: byte-exact, in the window, again from where something is missing, and never in the way of anything else."""

import pytest


def pattern(size):
    return bytes(i * 31 % 251 for i in range(size))


def complete(platform, name, size, part=1):
    platform.wait(lambda: len(platform.logs.get((platform.task(name), 1, part), b"")) == size, "the whole log")
    assert platform.logs[(platform.task(name), 1, part)] == pattern(size)


def test_both_parts(platform, stream):
    platform.offer(stream, "a", body="bytes 300000\nerror-bytes 200001\nbytes 0")
    complete(platform, "a", 300000)
    complete(platform, "a", 200001, part=2)
    offsets = {o.stream: o.offset for o in platform.hears("result").body.log_offsets}
    assert offsets == {1: 300000, 2: 200001}
    def ended():  # the end may come behind the result, in a chunk of its own
        last = {chunk.body.stream: chunk.body for chunk in platform.said("log_chunk")}
        return last[1].eof and last[2].eof

    platform.wait(ended, "the end of both")


@pytest.fixture
def small(platform, make_agent):
    """A stream with a window of ten chunks; nothing acknowledges them but the test."""
    platform.limits.update(window=10000, chunk=1000)
    platform.does -= {"log_chunk"}
    make_agent().start()
    return platform.stands()


def test_the_window_holds(platform, small):
    platform.offer(small, "a", body="bytes 100000")
    chunks = platform.hears("log_chunk", count=10)
    platform.hears("heartbeat", count=2, after=chunks)
    assert len(platform.said("log_chunk")) == 10
    platform.log_ack(small, chunks.body, 5000)
    chunk = platform.hears("log_chunk", count=15)
    assert chunk.body.offset == 14000
    platform.hears("heartbeat", after=chunk)
    assert len(platform.said("log_chunk")) == 15
    platform.log_ack(small, chunks.body, 15000, window=3000)
    assert platform.hears("log_chunk", count=18).body.offset == 17000
    platform.hears("heartbeat", after=platform.said("log_chunk")[-1])
    assert len(platform.said("log_chunk")) == 18


def test_the_window_is_of_all_logs_together(platform, small, tmp_path):
    platform.offer(small, "a", body="bytes 100000")
    platform.hears("log_chunk", count=10)
    platform.offer(small, "b", body="bytes 100000")
    grant = platform.hears("task_ack", count=2)
    platform.hears("heartbeat", count=2, after=grant)
    assert len(platform.said("log_chunk")) == 10


def test_a_cancel_while_the_window_is_full(platform, small, tmp_path, v1):
    """Neither the cancel nor renewals nor the result wait for the log."""
    platform.offer(small, "a", body=f"bytes 5000000\nawait {tmp_path}/never")
    chunk = platform.hears("log_chunk", count=10)
    platform.hears("lease_renew", after=chunk, count=2)
    platform.cancel(small, "a", grace=200)
    assert platform.hears("cancel_ack").body.answer == v1.TaskCancellation.STOPPING
    assert platform.hears("cancel_ack", count=2).body.answer == v1.TaskCancellation.STOPPED
    assert platform.hears("result").body.status == v1.Result.CANCELLED


def troubled(platform, stream, problem, when, times=1):
    """Has each chunk for which `when` holds answered with the problem, so many times, and not taken."""
    left = {"times": times}
    take = platform.take_log_chunk

    def trouble(stream, chunk, said):
        if left["times"] and when(chunk):
            left["times"] -= 1
            if problem:
                at = len(platform.logs.get((chunk.task, chunk.attempt, chunk.stream), b""))
                platform.log_ack(stream, chunk, at, problem)
        else:
            take(stream, chunk, said)

    platform.take_log_chunk = trouble
    platform.does |= {"log_chunk"}


@pytest.mark.parametrize("problem", ["CHECKSUM", "WINDOW", "CHUNK_TOO_LARGE", None])
@pytest.mark.parametrize("times", [1, 3])
def test_go_back(platform, small, problem, times):
    """A chunk that is lost or not taken makes a gap before those that follow it; the log is whole in the end."""
    troubled(platform, small, problem, lambda chunk: chunk.offset == 3000, times)
    platform.offer(small, "a", body="bytes 40000")
    complete(platform, "a", 40000)
    platform.hears("result")
    sent = len(platform.said("log_chunk"))
    assert sent <= 40 * (2 if problem == "CHUNK_TOO_LARGE" and times == 1 else 8) + 10 * (times + 1)
    if problem != "CHUNK_TOO_LARGE":
        assert sent <= 41 + 10 * times, "each going back costs a window at most"


def test_old_gaps_are_passed_over(platform, small, tmp_path):
    """Nine chunks behind a gap tell of it nine times; the agent goes back once."""
    platform.offer(small, "a", body=f"bytes 10000\nawait {tmp_path}/go")
    last = platform.hears("log_chunk", count=10)
    for chunk in platform.said("log_chunk")[1:]:
        platform.log_ack(small, chunk.body, 0, "GAP", ack_seq=last.seq)
    platform.hears("log_chunk", count=20)
    platform.hears("heartbeat", count=2, after=platform.said("log_chunk")[-1])
    assert len(platform.said("log_chunk")) == 20
    (tmp_path / "go").touch()


def test_full(platform, small, v1):
    def full(stream, chunk, said):
        if chunk.offset < 5000:
            take(stream, chunk, said)
        else:
            platform.log_ack(stream, chunk, 5000, "FULL")

    take, platform.take_log_chunk = platform.take_log_chunk, full
    platform.does |= {"log_chunk"}
    platform.offer(small, "a", body="bytes 20000000\noutput done yes")
    result = platform.hears("result").body
    assert result.status == v1.Result.SUCCEEDED and dict(result.outputs) == {"done": "yes"}
    small.end()
    platform.stands(2)
    assert not platform.said("hello")[-1].body.running


def test_fenced(platform, small, tmp_path):
    platform.offer(small, "a", body=f"bytes 100000\nawait {tmp_path}/never")
    chunk = platform.hears("log_chunk")
    fenced = platform.log_ack(small, chunk.body, 0, "FENCED")
    platform.hears("credits", after=fenced)
    assert not platform.said("result")
    platform.hears("heartbeat", count=2, after=fenced)
    later = platform.said("log_chunk", after=platform.said("credits")[-1])
    assert not later


def test_over_reconnects(platform, make_agent):
    """The stream ends in the middle of a log, again and again."""
    platform.limits.update(window=20000, chunk=1000)
    make_agent().start()
    stream = platform.stands()
    platform.offer(stream, "a", body="bytes 200000")
    for number in range(2, 6):
        chunks = len(platform.said("log_chunk"))
        platform.hears("log_chunk", count=chunks + 15)
        platform.streams[-1].end()
        platform.stands(number)
    complete(platform, "a", 200000)
    platform.hears("result")


def test_the_log_goes_on_after_the_result_is_known(platform, small):
    platform.offer(small, "a", body="bytes 30000")
    platform.hears("result")
    platform.wait(lambda: platform.said("result_ack", by="platform"))
    small.end()
    platform.does |= {"log_chunk"}
    platform.stands(2)
    assert platform.said("hello")[-1].body.running[0].result_pending
    complete(platform, "a", 30000)
    platform.streams[-1].end()
    platform.stands(3)
    assert not platform.said("hello")[-1].body.running


def test_the_spool_is_bounded(platform, make_agent, tmp_path):
    """What waits for the platform takes no more disk than is configured; the task waits."""
    platform.limits.update(window=10000, chunk=1000)
    platform.does -= {"log_chunk"}
    agent = make_agent(**{"log-spool-bytes": 65536}).start()
    stream = platform.stands()
    platform.offer(stream, "a", body=f"bytes 200000\ntouch {tmp_path}/done")
    chunk = platform.hears("log_chunk", count=10)
    platform.hears("heartbeat", count=2, after=chunk)
    assert not (tmp_path / "done").exists()
    assert max(file.stat().st_size for file in agent.state.glob("log-*")) == 65536
    platform.does |= {"log_chunk"}
    for chunk in platform.said("log_chunk"):
        platform.take_log_chunk(stream, chunk.body, chunk)
    complete(platform, "a", 200000)
    platform.hears("result")
