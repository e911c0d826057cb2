"""Cancel: answered each time, with the truth."""

import pytest


@pytest.fixture
def answers(v1):
    return v1.TaskCancellation


def test_graceful(platform, stream, tmp_path, answers, v1):
    platform.offer(stream, "a", body=f"await {tmp_path}/never")
    platform.hears("lease_renew")
    platform.cancel(stream, "a")
    assert platform.hears("cancel_ack").body.answer == answers.STOPPING
    assert platform.hears("cancel_ack", count=2).body.answer == answers.STOPPED
    assert platform.hears("result").body.status == v1.Result.CANCELLED


def test_too_late(platform, stream, tmp_path, answers, v1):
    """A task that was done before it looked has succeeded, and the answer says so."""
    platform.offer(stream, "a", title="too late", body=f"await {tmp_path}/never")
    platform.hears("lease_renew")
    platform.cancel(stream, "a")
    assert platform.hears("cancel_ack", count=2).body.answer == answers.TOO_LATE
    assert platform.hears("result").body.status == v1.Result.SUCCEEDED


def test_said_again(platform, stream, tmp_path, answers):
    platform.offer(stream, "a", body=f"stubborn {tmp_path}/go")
    platform.hears("lease_renew")
    for count in (1, 2, 3):
        platform.cancel(stream, "a")
        assert platform.hears("cancel_ack", count=count).body.answer == answers.STOPPING
    (tmp_path / "go").touch()
    assert platform.hears("cancel_ack", count=4).body.answer == answers.STOPPED


def test_in_a_new_session(platform, stream, tmp_path, answers):
    platform.offer(stream, "a", body=f"stubborn {tmp_path}/go")
    platform.hears("lease_renew")
    stream.end()
    second = platform.stands(2)
    platform.cancel(second, "a")
    assert platform.hears("cancel_ack").body.answer == answers.STOPPING
    (tmp_path / "go").touch()
    assert platform.hears("cancel_ack", count=2).body.answer == answers.STOPPED


def test_of_what_has_ended(platform, stream, answers):
    platform.does -= {"result"}
    platform.offer(stream, "a")
    first = platform.hears("result")
    platform.cancel(stream, "a")
    assert platform.hears("cancel_ack").body.answer == answers.TOO_LATE
    again = platform.hears("result", count=2)  # a result follows in any case
    assert again.body == first.body


def test_of_what_it_does_not_have(platform, stream, answers):
    platform.fences[platform.task("x")] = 1
    platform.cancel(stream, "x")
    assert platform.hears("cancel_ack").body.answer == answers.TOO_LATE


def test_before_the_grant(platform, stream, answers, v1):
    platform.does -= {"task_ack"}
    platform.offer(stream, "a")
    platform.hears("task_ack")
    platform.cancel(stream, "a")
    assert platform.hears("cancel_ack").body.answer == answers.STOPPED
    assert platform.hears("result").body.status == v1.Result.CANCELLED


def test_the_grace_ends(platform, stream, tmp_path, answers, v1):
    """A kind that waits for room in the log is freed when the grace is over."""
    platform.does -= {"log_chunk"}
    platform.offer(stream, "a", body="bytes 30000000")
    platform.hears("log_chunk")
    platform.cancel(stream, "a", grace=300)
    assert platform.hears("result").body.status == v1.Result.CANCELLED


def cancelled_at_once(platform, stream, v1):
    platform.hears("lease_renew")
    platform.cancel(stream, "a", mode="FORCED", grace=0)
    result = platform.hears("result").body
    assert result.status == v1.Result.CANCELLED
    return {offset.stream: offset.offset for offset in result.log_offsets}[1]


def test_the_last_words_of_a_forced_cancel(platform, stream, v1):
    platform.offer(stream, "a", body="log begun\nclosing stopped")
    end = cancelled_at_once(platform, stream, v1)
    platform.wait(lambda: len(platform.logs[(platform.task("a"), 1, 1)]) == end)
    assert platform.logs[(platform.task("a"), 1, 1)] == b"begun\nstopped\n"


def test_the_last_words_wait_for_no_room(platform, make_agent, v1):
    platform.does -= {"log_chunk"}
    make_agent(**{"log-spool-bytes": 65536}).start()
    stream = platform.stands()
    platform.offer(stream, "a", body="bytes 65530\nclosing stopped")
    assert cancelled_at_once(platform, stream, v1) == 65536
