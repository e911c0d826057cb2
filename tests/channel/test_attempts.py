"""Attempts that run: fences, leases, results, side effects, retries, cancels, and what a reconnect makes of them."""

import threading
import types
import uuid

import pytest
from calls import code_of, until
from dialogue import duration, named
from genied import refused
from google.protobuf.duration_pb2 import Duration


def about(thing, **changed):
    """Something's task, attempt and fence, some of them changed."""
    return types.SimpleNamespace(**{**named(thing), **changed})


def lapse(scene, task):
    """What the lease of the task would do by itself some time later, and its backoff with it."""
    scene.age("task_leases", "lease_time", f"task_id = '{task.uid}'", "1 hour")


def no_wait(scene, task):
    scene.age("tasks", "next_attempt_time", f"task_id = '{task.uid}'", "1 hour")


# --- Whose it is ---


def wrong_names(scene, make_scene, offer):
    """Names that are not this agent's to say: each with what is wrong with it."""
    other = scene.agent().stream()
    theirs = other.start(scene.task(labels={}))
    foreign_scene = make_scene()
    foreign = foreign_scene.agent().stream().start(foreign_scene.task())
    return {
        "fence of the future": about(offer, fence=offer.fence + 1),
        "fence of the past": about(offer, fence=offer.fence - 1),
        "no fence": about(offer, fence=0),
        "attempt of the past": about(offer, attempt=offer.attempt - 1),
        "attempt of the future": about(offer, attempt=offer.attempt + 1),
        "attempt below all": about(offer, attempt=-(2**31)),
        "another agent's": theirs,
        "another organization's": foreign,
        "none at all": about(offer, task=f"{scene.name}/tasks/{uuid.uuid4()}"),
        "no name": about(offer, task="x"),
        "an empty name": about(offer, task=""),
    }


def test_what_is_said_with_a_wrong_name_is_fenced_and_moves_nothing(v1, scene, make_scene, agent):
    stream = agent.stream()
    offer = stream.start(scene.task(target_agent=agent.name))
    for what, name in wrong_names(scene, make_scene, offer).items():
        stream.send(task_ack=v1.TaskAck(**named(name)))
        lost = stream.expect("lease_lost")
        assert named(lost) == named(name) and lost.reason == "FENCED", what
        stream.send(side_effect=v1.SideEffect(**named(name), key="k", reference="r"))
        lost = stream.expect("lease_lost")
        assert named(lost) == named(name) and lost.reason == "FENCED", what
        stream.finish(name, answer="FENCED")
        stream.log(name, b"stolen")
        ack = stream.expect("log_ack", task=name.task, attempt=name.attempt)
        assert ack.problem == v1.LogAck.FENCED, what
        number = stream.send(lease_renew=v1.LeaseRenew(tasks=[v1.LeasedTask(**named(name))]))
        heard = [stream.expect_one_of("lease_lost", "lease_ack") for _ in range(2)]
        assert {type(part).__name__ for part in heard} == {"LeaseLost", "LeaseAck"}, what
        for part in heard:
            assert part.renew_seq == number if hasattr(part, "renew_seq") else named(part) == named(name), what
        stream.send(task_reject=v1.TaskReject(**named(name), permanent=True))
        stream.send(progress=v1.Progress(**named(name), percent=99))
        stream.send(cancel_ack=v1.CancelAck(**named(name), answer=v1.TaskCancellation.STOPPED))
        stream.barrier_past("lease_lost")
        assert scene.state(offer) == "RUNNING", what
    assert not scene.rows("task_effects") and not scene.rows("task_logs")
    assert {row["state"] for row in scene.rows("tasks")} == {"RUNNING"}
    stream.finish(offer)


def test_an_attempt_from_the_past_is_fenced(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    old = stream.start(task)
    lapse(scene, task)
    scene.becomes(task, "PENDING")
    no_wait(scene, task)
    new = scene.agent().stream().start(task)
    assert new.attempt == 2 and new.fence > old.fence
    stream.finish(old, answer="FENCED")
    stream.finish(about(old, attempt=2, fence=new.fence), answer="FENCED")
    stream.log(old, b"late")
    assert stream.expect("log_ack").problem == v1.LogAck.FENCED
    assert scene.state(task) == "RUNNING" and not scene.rows("task_logs")


# --- Leases ---


def test_leases_are_renewed(v1, scene, agent):
    stream = agent.stream()
    tasks = [scene.task() for _ in range(3)]
    stream.credits(3)
    offers = [stream.offered(task) for task in tasks]
    for offer in offers:
        stream.take(offer)
    scene.age("task_leases", "lease_time", f"task_id = '{tasks[0].uid}'", "5 seconds")
    before = {row["task_id"]: row["lease_time"] for row in scene.rows("task_leases")}
    number = stream.send(lease_renew=v1.LeaseRenew(tasks=[v1.LeasedTask(**named(offer)) for offer in offers]))
    stream.expect("lease_ack", renew_seq=number)
    after = {row["task_id"]: row["lease_time"] for row in scene.rows("task_leases")}
    assert all(after[task] > time for task, time in before.items())


def test_an_empty_renewal_is_answered(v1, agent):
    stream = agent.stream()
    number = stream.send(lease_renew=v1.LeaseRenew())
    stream.expect("lease_ack", renew_seq=number)


def test_a_lease_that_lapsed_is_lost(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    lapse(scene, task)
    got = scene.becomes(task, "PENDING")
    assert got.failure.reason == "LEASE_LOST" and not got.failure.permanent and got.start_count == 1
    assert 5_000 < got.next_attempt_time.ToMilliseconds() - got.update_time.ToMilliseconds() < 15_000
    stream.send(lease_renew=v1.LeaseRenew(tasks=[v1.LeasedTask(**named(offer))]))
    lost = stream.until("lease_lost")
    assert named(lost) == named(offer) and lost.reason in ("EXPIRED", "FENCED")


def test_leases_that_lapse_are_spent_in_the_end(scene, agent):
    stream, task = agent.stream(), scene.task(max_attempts=2)
    for attempt in (1, 2):
        stream.credits(1)
        offer = stream.until("task_assign")
        assert offer.attempt == attempt
        stream.take(offer)
        lapse(scene, task)
        scene.becomes(task, "PENDING" if attempt == 1 else "DEAD")
        no_wait(scene, task)
    got = scene.get(task)
    assert got.failure.reason == "LEASE_LOST" and got.start_count == 2 and got.HasField("end_time")


def test_an_attempt_lives_for_as_long_as_it_is_renewed_and_no_longer(v1, scene, agent):
    """In real time, with what Welcome promised."""
    stream, task = agent.stream(), scene.task(max_attempts=1)
    lease = stream.welcome.lease.ToTimedelta().total_seconds()
    offer = stream.start(task)
    stream.send(lease_renew=v1.LeaseRenew(tasks=[v1.LeasedTask(**named(offer))]))
    stream.expect("lease_ack")
    scene.age("task_leases", "lease_time", f"task_id = '{task.uid}'", f"{lease - 4} seconds")
    assert scene.state(task) == "RUNNING"
    stream.barrier()
    scene.becomes(task, "DEAD", seconds=30)


# --- Results ---


def test_a_result_ends_the_task(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    stream.finish(offer, outputs={"exit_status": "0", "ü": "é" * 2000})
    got = scene.get(task)
    assert got.state == v1.Task.SUCCEEDED and dict(got.outputs) == {"exit_status": "0", "ü": "é" * 2000}
    assert got.HasField("end_time") and not got.HasField("failure") and got.agent == agent.name
    assert not agent.get().running_tasks


def test_a_result_that_is_said_again_is_a_duplicate(scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    result_id = stream.finish(offer)
    stream.finish(offer, result_id=result_id, answer="DUPLICATE")
    again = agent.stream()
    again.finish(offer, result_id=result_id, answer="DUPLICATE")


def test_results_said_twice_in_one_breath_count_once(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    result_id = str(uuid.uuid4())
    for _ in range(5):
        stream.result(offer, result_id=result_id)
    answers = [v1.ResultAck.Status.Name(stream.expect("result_ack").status) for _ in range(5)]
    assert sorted(answers) == ["ACCEPTED"] + ["DUPLICATE"] * 4


def test_another_result_for_an_attempt_that_has_one_is_fenced(scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    stream.finish(offer)
    stream.finish(offer, "FAILED", answer="FENCED")
    assert scene.state(task) == "SUCCEEDED"


def test_a_result_before_the_grant_is_fenced(scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    offer = stream.offered(task)
    stream.finish(offer, answer="FENCED")
    assert scene.state(task) == "OFFERED"


def test_a_failure_that_may_pass_is_tried_again(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.finish(stream.start(task), "FAILED", reason="RATE_LIMITED", retry_after=duration(200))
    got = scene.get(task)
    assert got.state == v1.Task.PENDING and got.failure.reason == "RATE_LIMITED" and not got.failure.permanent
    assert 199_000 < got.next_attempt_time.ToMilliseconds() - got.update_time.ToMilliseconds() < 201_000
    no_wait(scene, task)
    again = stream.start(task)
    assert again.attempt == 2
    stream.finish(again)
    assert not scene.get(task).HasField("failure")


def test_the_wait_doubles_with_each_attempt(scene, agent):
    stream, task = agent.stream(), scene.task(max_attempts=10)
    for attempt in range(4):
        stream.finish(stream.start(task), "FAILED")
        got = scene.get(task)
        wait = got.next_attempt_time.ToMilliseconds() - got.update_time.ToMilliseconds()
        assert 10_000 * 2**attempt - 100 <= wait <= 10_000 * 2**attempt + 100
        no_wait(scene, task)


def test_failures_spend_the_attempts(v1, scene, agent):
    """The last one fails the task: it is told why, as the agent said."""
    stream, task = agent.stream(), scene.task(max_attempts=3)
    for attempt in (1, 2, 3):
        stream.finish(stream.start(task), "FAILED", reason=f"TRY_{attempt}")
        assert scene.state(task) == ("PENDING" if attempt < 3 else scene.state(task))
        no_wait(scene, task)
    got = scene.get(task)
    # «RUNNING → PENDING | DEAD: its agent was lost, or failed in a way that may pass: again, or attempts spent».
    assert got.state == v1.Task.DEAD and got.failure.reason == "TRY_3" and got.start_count == 3


def test_max_attempts_of_0_are_3(scene):
    assert scene.task().max_attempts == 3


def test_a_permanent_failure_fails_the_task(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.finish(stream.start(task), "FAILED", reason="MERGE_CONFLICT", permanent=True)
    got = scene.get(task)
    assert got.state == v1.Task.FAILED and got.failure.reason == "MERGE_CONFLICT" and got.failure.permanent


@pytest.mark.parametrize("outputs", [{str(n): "" for n in range(51)}, {"k": "é" * 2001}])
def test_a_result_with_too_many_outputs_is_a_message_that_is_not_valid(scene, agent, outputs):
    stream, task = agent.stream(), scene.task()
    stream.result(stream.start(task), outputs=outputs)
    stream.ends("INVALID_ARGUMENT")
    assert scene.state(task) == "RUNNING"


def test_outputs_that_grow_on_their_way_to_the_database(scene, agent):
    """A control character is six in JSON: what waits for one statement still fits into it."""
    stream = agent.stream()
    offer = stream.start(scene.task())
    outputs = {str(n): "\x01" * 2000 for n in range(50)}
    with scene.transaction() as run:
        run("LOCK TABLE task_attempts IN ACCESS EXCLUSIVE MODE")
        for _ in range(45):
            stream.result(about(offer, fence=offer.fence + 1), outputs=outputs)
        stream.barrier()
    for _ in range(45):
        stream.expect("result_ack")
    stream.finish(offer)


@pytest.mark.parametrize("retry_after", [
    Duration(nanos=2_000_000_000), Duration(nanos=-1), Duration(seconds=-(2**63)), Duration(seconds=3600, nanos=1),
])  # fmt: skip
def test_a_wait_that_is_no_length_of_time_stops_nobody_s_results(scene, agent, retry_after):
    other = scene.agent().stream()
    theirs = other.start(scene.task())
    stream = agent.stream()
    stream.result(stream.start(scene.task()), "FAILED", retry_after=retry_after)
    stream.ends("INVALID_ARGUMENT")
    assert "retry_after" in stream.error.all["BadRequest"].field_violations[0].field
    other.finish(theirs)


def test_a_result_without_a_status(scene, agent):
    """Nothing says what it is to mean; it is no success."""
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    stream.result(offer, "STATUS_UNSPECIFIED")
    message = stream.next()
    if message is None:
        assert stream.error.code.name == "INVALID_ARGUMENT"
    assert scene.state(task) != "SUCCEEDED"


def test_a_result_that_says_cancelled_where_nobody_cancelled(scene, agent):
    """It is no success and no cancel: the attempt has failed."""
    stream, task = agent.stream(), scene.task(max_attempts=1)
    stream.finish(stream.start(task), "CANCELLED")
    assert scene.state(task) in ("FAILED", "DEAD")


def test_progress_is_shown_while_it_runs(v1, scene, agent):
    """With the next renewal, at the latest."""
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    for percent in (10, 40):
        stream.send(progress=v1.Progress(**named(offer), percent=percent, step=f"at {percent}"))
    stream.send(lease_renew=v1.LeaseRenew(tasks=[v1.LeasedTask(**named(offer))]))
    stream.expect("lease_ack")
    got = until(lambda: (t := scene.get(task)).progress_percent == 40 and t)
    assert got.progress_step == "at 40"
    for percent in (-1, 101, 2**31 - 1):
        stream.send(progress=v1.Progress(**named(offer), percent=percent))
        stream.send(lease_renew=v1.LeaseRenew(tasks=[v1.LeasedTask(**named(offer))]))
        stream.expect("lease_ack")
        assert 0 <= scene.get(task).progress_percent <= 100
    stream.finish(offer)
    assert scene.get(task).progress_percent == 0 and not scene.get(task).progress_step


# --- Side effects ---


def effect(v1, stream, offer, key, reference):
    stream.send(side_effect=v1.SideEffect(**named(offer), key=key, reference=reference))
    stream.expect("side_effect_ack", task=offer.task, attempt=offer.attempt, key=key)


def test_side_effects_are_handed_to_the_next_attempt(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    effect(v1, stream, offer, "branch", "devopsgenie/x")
    effect(v1, stream, offer, "pull_request", "https://git.example/1")
    effect(v1, stream, offer, "branch", "devopsgenie/y")
    stream.finish(offer, "FAILED")
    no_wait(scene, task)
    again = stream.start(task)
    got = {record.key: (record.reference, record.attempt) for record in again.side_effects}
    assert got == {"branch": ("devopsgenie/y", 1), "pull_request": ("https://git.example/1", 1)}
    effect(v1, stream, again, "branch", "devopsgenie/z")
    lapse(scene, task)
    scene.becomes(task, "PENDING")
    no_wait(scene, task)
    third = scene.agent().stream().start(task)
    assert {record.key: (record.reference, record.attempt) for record in third.side_effects} == {
        "branch": ("devopsgenie/z", 2), "pull_request": ("https://git.example/1", 1)
    }  # fmt: skip


def test_a_side_effect_is_durable_when_it_is_acknowledged(v1, scene, agent):
    stream = agent.stream()
    offer = stream.start(scene.task())
    for n in range(20):
        effect(v1, stream, offer, f"key-{n}", "x" * 2000)
        assert len(scene.rows("task_effects")) == n + 1


def test_a_result_does_not_overtake_what_was_said_before_it(v1, scene, agent):
    """The database takes side effects and answers to Cancels later than results; the agent does not wait for them."""
    stream, other, task = agent.stream(), scene.agent().stream(), scene.task()
    offer, another = stream.start(task), other.start(scene.task())
    scene.cancel(task)
    stream.expect("cancel")
    with scene.transaction() as run:
        run("LOCK TABLE task_effects IN ACCESS EXCLUSIVE MODE")
        stream.send(side_effect=v1.SideEffect(**named(offer), key="branch", reference="b"))
        stream.send(cancel_ack=v1.CancelAck(**named(offer), answer=v1.TaskCancellation.STOPPED))
        stream.result(offer, "FAILED")
        until(lambda: scene.get(task).cancellation.answer == v1.TaskCancellation.STOPPED)
        result_id = other.finish(another)  # results are taken, and this one's was said before
        other.finish(another, answer="DUPLICATE", result_id=result_id)
    stream.expect("side_effect_ack", key="branch")
    stream.expect("result_ack", status=v1.ResultAck.ACCEPTED)
    stream.barrier()
    assert [row["key"] for row in scene.rows("task_effects")] == ["branch"]


def test_what_the_database_never_takes_ends_its_own_session_alone(v1, scene):
    """Messages of many agents go to it together; those of the others are taken all the same."""
    streams = [scene.agent().stream() for _ in range(4)]
    offers = [stream.start(scene.task()) for stream in streams]
    query = scene.server.database.query
    query("ALTER TABLE task_effects ADD CONSTRAINT no_poison CHECK (reference <> 'poison') NOT VALID")
    try:
        with scene.transaction() as run:
            run("LOCK TABLE task_effects IN ACCESS EXCLUSIVE MODE")
            streams[0].send(side_effect=v1.SideEffect(**named(offers[0]), key="first", reference="r"))
            until(scene.waiting)
            for n, (stream, offer) in enumerate(zip(streams, offers, strict=True)):
                stream.send(side_effect=v1.SideEffect(**named(offer), key="a", reference="r"))
                reference = "poison" if n == 2 else "r"
                stream.send(side_effect=v1.SideEffect(**named(offer), key="b", reference=reference))
            for stream in streams:
                stream.barrier()  # they go together once the first is done
        for n, stream in enumerate(streams):
            if n == 2:
                stream.ends("INTERNAL", "INTERNAL")
                continue
            for key in (["first"] if n == 0 else []) + ["a", "b"]:
                stream.expect("side_effect_ack", key=key)
            stream.barrier()
    finally:
        query("ALTER TABLE task_effects DROP CONSTRAINT no_poison")


def test_leases_are_renewed_in_turn(v1, scene):
    """More than a second's statement takes: who renews again and again does not keep the others from it."""
    count, agents = 600, [scene.agent() for _ in range(2)]
    tasks = [scene.task() for _ in range(2)]
    streams = [agent.stream() for agent in agents]
    offers = [stream.start(task) for stream, task in zip(streams, tasks, strict=True)]
    running = []
    for offer in offers:  # each has many more, in the database as they would be
        uid = offer.task.rpartition("/")[2]
        scene.server.database.query(f"""
            WITH made AS (
              INSERT INTO tasks SELECT (jsonb_populate_record(t, jsonb_build_object('task_id', uuid_v7()))).*
                FROM tasks t, generate_series(2, {count}) WHERE task_id = '{uid}' RETURNING *
            ), attempts AS (
              INSERT INTO task_attempts (organization_id, task_id, attempt, fence, agent_id)
                SELECT organization_id, task_id, attempt, fence, agent_id FROM made
            )
            INSERT INTO task_leases SELECT (jsonb_populate_record(l, jsonb_build_object('task_id', made.task_id))).*
              FROM task_leases l, made WHERE l.task_id = '{uid}'""")
    for agent in agents:
        has = scene.rows("task_leases", "task_id, attempt, fence", f"agent_id = '{agent.uid}'")
        running.append([{"task": f"{scene.name}/tasks/{row['task_id']}", "attempt": row["attempt"],
                         "fence": row["fence"]} for row in has])  # fmt: skip
        assert len(has) == count
    streams = [agent.stream(running=has) for agent, has in zip(agents, running, strict=True)]
    for stream in streams:
        assert {d.decision for d in stream.welcome.dispositions} == {v1.Disposition.CONTINUE}
    numbers = [stream.send(lease_renew=v1.LeaseRenew(tasks=has)) for stream, has in zip(streams, running, strict=True)]
    over, beats = threading.Event(), []

    def renew_again_and_again():
        number = numbers[0]
        while not over.is_set():
            streams[0].expect("lease_ack", renew_seq=number)
            beats.append(number)
            number = streams[0].send(lease_renew=v1.LeaseRenew(tasks=running[0]))

    greedy = threading.Thread(target=renew_again_and_again)
    greedy.start()
    try:
        streams[1].expect("lease_ack", renew_seq=numbers[1])
        assert len(beats) <= 3
    finally:
        over.set()
        greedy.join()


def test_a_renewal_of_nothing_is_answered(v1, agent):
    stream = agent.stream()
    for _ in range(2):
        stream.expect("lease_ack", renew_seq=stream.send(lease_renew=v1.LeaseRenew()))


def test_a_task_has_at_most_100_side_effects(v1, scene, agent):
    stream = agent.stream()
    offer = stream.start(scene.task())
    for n in range(100):
        stream.send(side_effect=v1.SideEffect(**named(offer), key=f"key-{n}", reference="r"))
    for _ in range(100):
        stream.expect("side_effect_ack")
    effect(v1, stream, offer, "key-7", "new")
    stream.send(side_effect=v1.SideEffect(**named(offer), key="one too many", reference="r"))
    stream.expect("lease_lost")
    assert len(scene.rows("task_effects")) == 100


def test_a_side_effect_of_a_task_that_waits_for_its_grant_is_fenced(v1, scene, agent):
    stream = agent.stream()
    task = scene.task()
    stream.credits(1)
    offer = stream.offered(task)
    stream.send(side_effect=v1.SideEffect(**named(offer), key="early", reference="r"))
    stream.expect("lease_lost")
    assert not scene.rows("task_effects")


# --- Retries ---


@pytest.mark.parametrize("end", ["FAILED", "DEAD", "CANCELLED", "CANCEL_UNCONFIRMED"])
def test_what_ended_without_success_can_be_retried(v1, scene, agent, end):
    stream, task = agent.stream(), scene.task(max_attempts=1)
    offer = stream.start(task)
    effect(v1, stream, offer, "branch", "b")
    if end == "FAILED":
        stream.finish(offer, "FAILED", permanent=True)
    elif end == "CANCELLED":
        scene.cancel(task)
        stream.expect("cancel")
        stream.finish(offer, "CANCELLED")
    else:
        if end == "CANCEL_UNCONFIRMED":
            scene.cancel(task)
            stream.expect("cancel")
        lapse(scene, task)
    before = scene.becomes(task, end)
    got = scene.retry(task, etag=before.etag)
    assert got.state == v1.Task.PENDING and got.start_count == 0 and not got.HasField("end_time")
    assert not got.HasField("cancellation")
    stream.credits(1)
    again = stream.until("task_assign")
    assert again.attempt == 2 and again.fence > offer.fence and again.side_effects[0].reference == "b"
    stream.take(again)
    stream.finish(again)
    assert scene.state(task) == "SUCCEEDED"


def test_what_has_not_ended_or_has_succeeded_cannot_be_retried(scene, agent):
    stream, task = agent.stream(), scene.task()
    with refused("FAILED_PRECONDITION", "TASK_NOT_RETRYABLE"):
        scene.retry(task)
    offer = stream.start(task)
    with refused("FAILED_PRECONDITION", "TASK_NOT_RETRYABLE"):
        scene.retry(task)
    stream.finish(offer)
    with refused("FAILED_PRECONDITION", "TASK_NOT_RETRYABLE"):
        scene.retry(task)


# --- Cancels ---


def test_a_task_that_waits_is_cancelled_at_once(v1, scene, agent):
    task = scene.task()
    got = scene.cancel(task, reason="no longer needed")
    assert got.state == v1.Task.CANCELLED and got.HasField("end_time")
    assert got.cancellation.reason == "no longer needed" and got.cancellation.caller == task.creator
    assert got.cancellation.HasField("cancel_time")
    stream = agent.stream()
    stream.credits(1)
    stream.offered(scene.task())


def test_an_offered_task_is_cancelled_at_once_and_not_granted(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    offer = stream.offered(task)
    assert scene.cancel(task).state == v1.Task.CANCELLED
    stream.send(task_ack=v1.TaskAck(**named(offer)))
    stream.expect("lease_lost", task=task.name, attempt=1, fence=offer.fence, reason="FENCED")
    stream.finish(offer, answer="FENCED")
    assert scene.state(task) == "CANCELLED"


@pytest.mark.parametrize("mode", ["GRACEFUL", "FORCED", "MODE_UNSPECIFIED"])
def test_a_running_task_is_cancelled_by_its_agent(v1, scene, agent, mode):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    got = scene.cancel(task, mode, grace=duration(7) if mode == "GRACEFUL" else None)
    assert got.state == v1.Task.CANCELLING
    cancel = stream.expect("cancel")
    assert named(cancel) == named(offer)
    assert v1.TaskCancellation.Mode.Name(cancel.mode) == ("FORCED" if mode == "FORCED" else "GRACEFUL")
    assert cancel.grace.ToTimedelta().total_seconds() == (7 if mode == "GRACEFUL" else 30)
    for answer in ("STOPPING", "STOPPED"):
        stream.send(cancel_ack=v1.CancelAck(**named(offer), answer=v1.TaskCancellation.Answer.Value(answer)))
        until(lambda a=answer: v1.TaskCancellation.Answer.Name(scene.get(task).cancellation.answer) == a)
    assert scene.state(task) == "CANCELLING"
    stream.until_answered("result_ack", lambda: stream.result(offer, "CANCELLED"))
    assert scene.state(task) == "CANCELLED"


@pytest.mark.parametrize("status, permanent, state", [
    ("SUCCEEDED", False, "SUCCEEDED"), ("FAILED", True, "FAILED"), ("FAILED", False, "FAILED")
])  # fmt: skip
def test_a_result_answers_a_cancel_that_was_not(v1, scene, agent, status, permanent, state):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    scene.cancel(task)
    stream.expect("cancel")
    for answer in (v1.TaskCancellation.STOPPING, 0, 77):  # the last ones say nothing
        stream.send(cancel_ack=v1.CancelAck(**named(offer), answer=answer))
    stream.finish(offer, status, permanent=permanent)
    assert scene.state(task) == state
    assert scene.get(task).cancellation.answer == v1.TaskCancellation.TOO_LATE


@pytest.mark.parametrize("status, permanent, state", [
    ("SUCCEEDED", False, "SUCCEEDED"), ("FAILED", True, "FAILED"), ("FAILED", False, "FAILED")
])  # fmt: skip
def test_a_cancel_that_comes_too_late(v1, scene, agent, status, permanent, state):
    """The task ends as it ended; one that failed is not tried again."""
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    scene.cancel(task)
    stream.expect("cancel")
    stream.send(cancel_ack=v1.CancelAck(**named(offer), answer=v1.TaskCancellation.TOO_LATE))
    stream.finish(offer, status, permanent=permanent)
    assert scene.state(task) == state


def test_a_cancel_is_said_again_in_every_session_until_it_is_answered(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    scene.cancel(task)
    stream.expect("cancel", task=task.name)
    stream.send(cancel_ack=v1.CancelAck(**named(offer), answer=v1.TaskCancellation.STOPPING))
    until(lambda: scene.get(task).cancellation.answer == v1.TaskCancellation.STOPPING)
    instance = agent.stream(running=[v1.RunningTask(**named(offer))])
    assert [d.decision for d in instance.welcome.dispositions] == [v1.Disposition.CONTINUE]
    instance.expect("cancel", task=task.name)
    instance.send(cancel_ack=v1.CancelAck(**named(offer), answer=v1.TaskCancellation.STOPPED))
    until(lambda: scene.get(task).cancellation.answer == v1.TaskCancellation.STOPPED)
    agent.stream(running=[v1.RunningTask(**named(offer))]).barrier()  # it is answered: it does not come again
    last = agent.stream(running=[v1.RunningTask(**named(offer), result_pending=True)])
    last.finish(offer, "CANCELLED")
    assert scene.state(task) == "CANCELLED"


def test_a_cancel_can_be_made_harder_and_nothing_else(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.start(task)
    scene.cancel(task, grace=duration(60), reason="first")
    assert scene.cancel(task, grace=duration(20), reason="second").cancellation.grace.seconds == 20
    assert scene.cancel(task, grace=duration(300)).cancellation.grace.seconds == 20
    got = scene.cancel(task, "FORCED", grace=duration(20))
    assert got.cancellation.mode == v1.TaskCancellation.FORCED
    assert scene.cancel(task, "GRACEFUL").cancellation.mode == v1.TaskCancellation.FORCED
    assert scene.get(task).cancellation.reason == "first"
    while stream.until("cancel").mode != v1.TaskCancellation.FORCED:
        pass


def test_a_cancel_whose_agent_is_lost_is_unconfirmed(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    scene.cancel(task)
    stream.expect("cancel")
    lapse(scene, task)
    got = scene.becomes(task, "CANCEL_UNCONFIRMED")
    assert got.HasField("end_time")
    stream.until_answered("result_ack", lambda: stream.result(offer, "CANCELLED"), status=v1.ResultAck.FENCED)


def test_what_has_ended_cannot_be_cancelled(scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.finish(stream.start(task))
    with refused("FAILED_PRECONDITION", "TASK_ENDED"):
        scene.cancel(task)
    task = scene.task()
    scene.cancel(task)
    with refused("FAILED_PRECONDITION", "TASK_ENDED"):
        scene.cancel(task)


def test_a_cancel_or_retry_of_something_that_has_changed_since(scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.start(task)
    with refused("ABORTED"):
        scene.cancel(task, etag=task.etag)
    with refused("ABORTED"):
        scene.retry(task, etag=task.etag)


def test_a_cancel_and_a_result_at_the_same_moment(scene, agent):
    """Whichever comes first, the result counts: the task has ended as it says, or had ended."""
    stream = agent.stream()
    for _ in range(25):
        offer = stream.start(task := scene.task())
        stream.result(offer)
        code = code_of(lambda task=task: scene.cancel(task))
        assert code in ("OK", "FAILED_PRECONDITION")
        assert stream.until("result_ack").status == stream.v1.ResultAck.ACCEPTED
        assert scene.state(task) == "SUCCEEDED"


def test_a_result_that_waits_for_the_cancel_s_transaction_counts(scene, agent):
    """The race above, held still: the row is locked by the cancel when the result comes."""
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    with scene.transaction() as psql:
        psql(
            f"UPDATE tasks SET state = 'CANCELLING', cancel_mode = 1, cancel_grace = '30s' WHERE task_id = '{task.uid}'"
        )
        psql(f"UPDATE task_leases SET cancelling = true WHERE task_id = '{task.uid}'")
        stream.result(offer)
        until(scene.waiting)
    assert stream.until("result_ack").status == stream.v1.ResultAck.ACCEPTED
    assert scene.state(task) == "SUCCEEDED"


# --- Reconnecting ---


def listed(v1, offer, pending=False, **changed):
    return v1.RunningTask(**{**named(offer), **changed}, result_pending=pending)


def test_what_becomes_of_what_an_agent_has(v1, scene, make_scene, agent):
    stream = agent.stream()
    stream.credits(5)
    runs, ended, offered, lost, failed = (scene.task() for _ in range(5))
    offers = {offer.task: offer for offer in (stream.offered() for _ in range(5))}
    runs, ended, offered, lost, failed = (offers[task.name] for task in (runs, ended, offered, lost, failed))
    for offer in (runs, ended, lost, failed):
        stream.take(offer)
    stream.log(runs, b"abc")
    stream.acked(runs, 3)
    stream.log(ended, b"abcdef", stream="STDERR")
    stream.acked(ended, 6, stream="STDERR")
    stream.finish(ended)
    stream.finish(failed, "FAILED", retry_after=duration(3600))
    uid = lost.task.rpartition("/")[2]
    scene.age("task_leases", "lease_time", f"task_id = '{uid}'", "1 hour")
    scene.becomes(lost, "PENDING")
    scene.age("tasks", "next_attempt_time", f"task_id = '{uid}'", "1 hour")
    scene.agent().stream().start(lost_task := scene.get(lost))
    assert lost_task.attempt == 1
    foreign = make_scene()
    theirs = foreign.agent().stream().start(foreign.task())
    nothing = listed(v1, runs, task=f"{scene.name}/tasks/{uuid.uuid4()}")
    again = agent.stream(running=[
        listed(v1, runs), listed(v1, ended, True), listed(v1, offered), listed(v1, lost), nothing,
        listed(v1, theirs), listed(v1, runs, fence=runs.fence + 1), listed(v1, failed, True),
        listed(v1, runs, task="x"),
    ])  # fmt: skip
    got = [(d.task, d.attempt, v1.Disposition.Decision.Name(d.decision)) for d in again.welcome.dispositions]
    assert got[:6] == [
        (runs.task, 1, "CONTINUE"), (ended.task, 1, "RESULT_KNOWN"), (offered.task, 1, "OFFERED"),
        (lost.task, 1, "ABORT_FENCED"), (nothing.task, 1, "UNKNOWN"), (theirs.task, 1, "UNKNOWN"),
    ]  # fmt: skip
    assert got[6] == (runs.task, 1, "ABORT_FENCED")
    assert got[7] == (failed.task, 1, "RESULT_KNOWN")
    assert got[8] == ("x", 1, "UNKNOWN")
    offsets = [{o.stream: o.offset for o in d.log_offsets} for d in again.welcome.dispositions]
    assert offsets[0].get(v1.STDOUT) == 3 and offsets[1].get(v1.STDERR) == 6
    again.send(task_ack=v1.TaskAck(**named(offered)))
    assert named(again.until("start_grant")) == named(offered)
    again.finish(runs)
    again.finish(offered)


def test_what_an_agent_does_not_list_it_does_not_have(v1, scene, agent):
    """The lease lapses: it is not taken at once, for the agent's work may still go on."""
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    again = agent.stream()
    assert scene.state(task) == "RUNNING"
    lapse(scene, task)
    scene.becomes(task, "PENDING")
    again.finish(offer, answer="FENCED")


def test_an_attempt_outlives_its_stream(v1, scene, agent):
    instance = str(uuid.uuid4())
    stream, task = agent.stream(instance_id=instance), scene.task()
    offer = stream.start(task)
    token, seen = stream.welcome.session_token, stream.seen
    stream.call.cancel()
    until(lambda: agent.state() == "DISCONNECTED")
    assert scene.state(task) == "RUNNING"
    again = agent.stream(
        instance_id=instance, session_token=token, last_seen_seq=seen, running=[listed(v1, offer, pending=True)]
    )
    assert again.welcome.session_epoch > stream.welcome.session_epoch
    assert [d.decision for d in again.welcome.dispositions] == [v1.Disposition.CONTINUE]
    again.finish(offer)
    assert scene.state(task) == "SUCCEEDED"


def test_a_grant_that_was_lost_comes_again_with_the_next_ack(v1, scene, agent):
    """The platform said it, and the stream was cut: to the platform the attempt runs."""
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    offer = stream.offered(task)
    stream.send(task_ack=v1.TaskAck(**named(offer)))
    scene.becomes(task, "RUNNING")
    stream.call.cancel()
    again = agent.stream(running=[listed(v1, offer)])
    assert again.welcome.dispositions[0].decision == v1.Disposition.CONTINUE
    again.finish(offer)
    assert scene.state(task) == "SUCCEEDED"
