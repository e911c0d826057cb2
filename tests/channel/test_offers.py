"""Offers: who gets which task and in which order, credits, refusals, and what becomes of an offer without an answer."""

import time
import uuid

import pytest
from dialogue import duration, named
from genied import refused


def test_an_offer_has_all_of_the_task(v1, scene, agent):
    stream = agent.stream()
    task = scene.task("echo", ["a", "b"], idempotency_key="key-1", time_to_live={"seconds": 600})
    stream.credits(1)
    offer = stream.offered(task)
    assert offer.attempt == 1 and offer.fence > 0 and offer.kind == v1.COMMAND
    assert offer.payload == task.payload and offer.idempotency_key == "key-1" and not offer.side_effects
    assert 0 < offer.time_to_live.ToTimedelta().total_seconds() <= 600
    got = scene.get(task)
    assert got.state == v1.Task.OFFERED and got.attempt == 1 and got.agent == agent.name and got.start_count == 0


def test_an_idempotency_key_is_never_empty(scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    assert stream.offered(task).idempotency_key == task.uid


def test_a_task_that_comes_later_is_offered_at_once(scene, agent):
    stream = agent.stream()
    stream.credits(1)
    stream.barrier()
    stream.offered(scene.task())


def test_a_task_runs_from_its_grant_on(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.start(task)
    got = scene.get(task)
    assert got.state == v1.Task.RUNNING and got.start_count == 1 and got.HasField("start_time")
    assert list(agent.get().running_tasks) == [task.name]


# --- Credits ---


def test_without_credits_nothing_is_offered(v1, scene, agent):
    stream = agent.stream()
    task = scene.task()
    stream.credits(0)
    stream.credits(5, kind=v1.PULL_REQUEST)
    other = scene.agent().stream()
    other.credits(1)
    other.offered(task)
    stream.barrier()


def test_no_more_is_offered_than_there_is_room_for(scene, agent):
    stream = agent.stream()
    made = [scene.task() for _ in range(5)]
    stream.credits(3)
    offers = [stream.offered(task) for task in made[:3]]
    stream.barrier()
    for offer in offers:
        stream.take(offer)
    stream.barrier()
    stream.finish(offers[0])
    stream.credits(1)
    stream.offered(made[3])
    stream.barrier()
    assert scene.state(made[4]) == "PENDING"


def test_what_has_ended_takes_no_room(v1, scene, agent):
    """However many attempts of a session have ended, it is offered more."""
    stream = agent.stream()
    first = stream.start(scene.task())
    stream.finish(first)
    stream = agent.stream(running=[v1.RunningTask(**named(first), result_pending=True)] * 1000)
    assert {d.decision for d in stream.welcome.dispositions} == {v1.Disposition.RESULT_KNOWN}
    for _ in range(3):
        stream.finish(stream.start(scene.task()))


def test_offers_behind_ack_seq_are_taken_off(scene, agent):
    """Credits that were said before an offer was seen do not count it, so the platform does."""
    stream = agent.stream()
    made = [scene.task() for _ in range(4)]
    stream.credits(2)
    before = stream.seen
    first, second = stream.offered(made[0]), stream.offered(made[1])
    stream.credits(2, ack_seq=before)  # none of the two was seen: no room is left
    stream.barrier()
    stream.take(first), stream.take(second)
    stream.credits(1, ack_seq=before)  # less than is on its way
    stream.barrier()
    stream.credits(3, ack_seq=before)  # room for one more
    stream.offered(made[2])
    stream.barrier()
    stream.credits(1)  # all were seen: this is for another
    stream.offered(made[3])


def test_credits_replace_what_was_said_before(v1, scene, agent):
    stream = agent.stream()
    stream.credits(5)
    stream.send(credits=v1.Credits())  # none of any kind
    stream.barrier()
    task = scene.task()
    for _ in range(3):
        stream.barrier()
    assert scene.state(task) == "PENDING"


def test_credits_of_all_kinds_at_once(v1, scene, agent):
    stream = agent.stream(kinds=[v1.COMMAND, v1.PULL_REQUEST])
    pull = v1.PullRequest(repository_url="https://git.example/a/b", title="t", unified_diff="--- a\n+++ b\n")
    task, other = scene.task(), scene.task(payload=v1.TaskPayload(pull_request=pull))
    stream.send(credits=v1.Credits(free=[v1.KindCredits(kind=kind, free=1) for kind in (v1.COMMAND, v1.PULL_REQUEST)]))
    offers = {stream.offered().task: None for _ in range(2)}
    assert set(offers) == {task.name, other.name}


@pytest.mark.parametrize("free", [-1, 1001, 2**31 - 1])
def test_credits_out_of_bounds(v1, scene, agent, free):
    """More than 1,000 is no harm that others see: it counts as 1,000, or is refused with its field."""
    stream = agent.stream()
    stream.credits(free)
    stream.send(heartbeat=v1.Heartbeat())
    message = stream.next()
    if message is None:
        assert stream.error.code.name == "INVALID_ARGUMENT" and "BadRequest" in stream.error.all
    else:
        assert message.WhichOneof("part") == "ping"


def test_a_draining_agent_gets_no_more(v1, scene, agent):
    stream = agent.stream()
    stream.credits(5)
    offer = stream.take(stream.offered(scene.task()))
    stream.send(draining=v1.Draining())
    stream.barrier()
    task = scene.task()
    stream.credits(5)
    stream.barrier()
    assert scene.state(task) == "PENDING"
    stream.finish(offer)
    scene.agent().stream().start(task)


# --- Which ---


def test_higher_priorities_go_first_and_of_equal_ones_the_older(scene, agent):
    made = [scene.task(priority=p) for p in (0, -100, 5, 0, 100, 5)]
    stream = agent.stream()
    stream.credits(6)
    want = [made[n].name for n in (4, 2, 5, 0, 3, 1)]
    assert [stream.offered().task for _ in made] == want


def test_a_task_goes_to_an_agent_that_has_all_its_labels(scene):
    one, two = (
        scene.agent().stream(labels={"region": "eu"}),
        scene.agent().stream(labels={"region": "eu", "gpu": "yes"}),
    )
    task = scene.task(labels={"gpu": "yes", "region": "eu"})
    for value in ("no", ""):
        scene.task(labels={"gpu": value})
    one.credits(9)
    one.offered(scene.task(labels={"region": "eu"}, priority=-1))
    two.credits(9)
    two.offered(task)
    two.offered(scene.task(labels={"gpu": "yes"}))
    one.barrier()


def test_a_label_as_long_as_they_come(scene):
    labels = {"é" * 100: "ü" * 100}
    stream = scene.agent().stream(labels=labels)
    stream.credits(1)
    stream.offered(scene.task(labels=labels))


def test_a_task_goes_to_its_target(scene):
    one, two = scene.agent(), scene.agent()
    task = scene.task(target_agent=two.name)
    first, second = one.stream(), two.stream()
    first.credits(9)
    first.offered(scene.task(priority=-1))
    second.credits(9)
    second.offered(task)


def test_a_target_that_there_is_not(v1, scene, make_scene):
    other = make_scene().agent()
    for target in (other.name, f"{scene.name}/agents/{uuid.uuid4()}", "nobody"):
        with refused("INVALID_ARGUMENT"):
            scene.task(target_agent=target)


def test_an_agent_gets_only_what_it_can_do(v1, scene, agent):
    stream = agent.stream(kinds=[v1.PULL_REQUEST])
    task = scene.task(priority=100)
    stream.send(credits=v1.Credits(free=[v1.KindCredits(kind=kind, free=5) for kind in (v1.COMMAND, v1.PULL_REQUEST)]))
    pull = v1.PullRequest(repository_url="https://git.example/a/b", title="t", unified_diff="--- a\n+++ b\n")
    stream.offered(scene.task(payload=v1.TaskPayload(pull_request=pull)))
    assert scene.state(task) == "PENDING"


def test_another_organization_s_tasks_are_never_offered(scene, make_scene):
    theirs = make_scene()
    other = theirs.agent().stream()
    other.credits(100)
    for _ in range(3):
        scene.task(priority=100)
        other.offered(theirs.task())
    other.barrier()


def test_two_agents_share_and_neither_gets_the_other_s(scene):
    streams = [scene.agent().stream() for _ in range(2)]
    for stream in streams:
        stream.credits(10)
    made = {scene.task().name for _ in range(20)}
    got = [[stream.offered().task for _ in range(10)] for stream in streams]
    assert not set(got[0]) & set(got[1]) and set(got[0]) | set(got[1]) == made


# --- Not taken ---


def test_a_rejected_offer_is_pending_again_after_its_wait(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    offer = stream.offered(task)
    stream.send(task_reject=v1.TaskReject(**named(offer), reason="BUSY", message="later", retry_after=duration(100)))
    got = scene.becomes(task, "PENDING")
    wait = got.next_attempt_time.ToMilliseconds() - got.update_time.ToMilliseconds()
    assert 99_000 < wait < 101_000 and got.attempt == 1 and got.start_count == 0
    stream.credits(1)
    stream.barrier()
    scene.age("tasks", "next_attempt_time", f"task_id = '{task.uid}'", "100 seconds")
    again = stream.offered(task)
    assert again.attempt == 2 and again.fence > offer.fence


def test_a_rejected_offer_waits_5_seconds_by_itself(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    stream.send(task_reject=v1.TaskReject(**named(stream.offered(task)), reason="BUSY"))
    got = scene.becomes(task, "PENDING")
    assert 4_000 < got.next_attempt_time.ToMilliseconds() - got.update_time.ToMilliseconds() < 6_000


def test_rejections_count_not_against_max_attempts(v1, scene, agent):
    stream, task = agent.stream(), scene.task(max_attempts=1)
    for attempt in range(1, 6):
        stream.credits(1)
        offer = stream.offered(task)
        assert offer.attempt == attempt
        stream.send(task_reject=v1.TaskReject(**named(offer), reason="BUSY", retry_after=duration(0)))
    stream.start(task)


def test_a_permanent_rejection_fails_the_task(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    stream.send(task_reject=v1.TaskReject(
        **named(stream.offered(task)), reason="COMMAND_NOT_ALLOWED", message="no such command", permanent=True
    ))  # fmt: skip
    got = scene.becomes(task, "FAILED")
    assert (got.failure.reason, got.failure.message, got.failure.permanent) == (
        "COMMAND_NOT_ALLOWED", "no such command", True
    )  # fmt: skip
    assert got.HasField("end_time") and got.start_count == 0


def test_a_late_rejection_changes_nothing(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    stream.send(task_reject=v1.TaskReject(**named(offer), permanent=True))
    stream.barrier()
    stream.finish(offer)
    assert scene.state(task) == "SUCCEEDED"


def test_one_that_rejects_all_stalls_no_one(v1, scene):
    """It has the most room, and says no; another takes what comes."""
    bad, good = scene.agent().stream(), scene.agent().stream()
    bad.credits(100)
    good.credits(5)
    made = [scene.task() for _ in range(10)]
    taken = set()
    deadline = time.monotonic() + 60
    while len(taken) < len(made):
        assert time.monotonic() < deadline, f"{len(taken)} of {len(made)}"
        bad.send(heartbeat=v1.Heartbeat())
        while (message := bad.next()).WhichOneof("part") != "ping":
            offer = message.task_assign
            bad.send(task_reject=v1.TaskReject(**named(offer), reason="NO", retry_after=duration(0.2)))
        good.send(heartbeat=v1.Heartbeat())
        while (message := good.next()).WhichOneof("part") != "ping":
            if message.WhichOneof("part") == "task_assign":
                good.send(task_ack=v1.TaskAck(**named(message.task_assign)))
            elif message.WhichOneof("part") == "start_grant":
                taken.add(message.start_grant.task)
                good.result(message.start_grant)
                good.credits(5)


def test_one_that_answers_nothing_stalls_no_one(scene):
    """What it was offered goes to another when the offer lapses, 10 seconds later."""
    mute, good = scene.agent().stream(), scene.agent().stream()
    task = scene.task()
    mute.credits(1)
    mute.offered(task)
    good.credits(1)
    good.barrier()
    scene.age("task_leases", "lease_time", f"task_id = '{task.uid}'", "10 seconds")
    offer = good.offered(task)
    assert offer.attempt == 2
    good.take(offer)


def test_an_offer_that_lapsed_cannot_be_taken(v1, scene, agent):
    stream, task = agent.stream(), scene.task(target_agent=agent.name)
    stream.credits(1)
    offer = stream.offered(task)
    scene.age("task_leases", "lease_time", f"task_id = '{task.uid}'", "10 seconds")
    scene.becomes(task, "PENDING")
    stream.send(task_ack=v1.TaskAck(**named(offer)))
    stream.expect("lease_lost", task=task.name, attempt=1, fence=offer.fence)
    stream.start(task)


def test_an_offer_lapses_by_itself(scene, agent):
    stream, task = agent.stream(), scene.task()
    limit = stream.welcome.offer_limit.ToTimedelta().total_seconds()
    stream.credits(1)
    stream.offered(task)
    began = time.monotonic()
    got = scene.becomes(task, "PENDING", seconds=limit + 15)
    assert time.monotonic() - began > limit * 0.8 and got.attempt == 1 and got.start_count == 0


def test_an_offer_taken_twice_is_granted_once_or_again_but_counts_once(v1, scene, agent):
    stream, task = agent.stream(), scene.task()
    offer = stream.start(task)
    stream.send(task_ack=v1.TaskAck(**named(offer)))
    stream.send(heartbeat=v1.Heartbeat())
    while (message := stream.next()).WhichOneof("part") != "ping":
        assert message.WhichOneof("part") == "start_grant"
    assert scene.get(task).start_count == 1 and scene.state(task) == "RUNNING"


def test_offers_of_an_agent_that_goes_are_others_soon(scene, agent):
    """It has not taken them: nobody need wait for a lease."""
    stream, task = agent.stream(), scene.task()
    stream.credits(1)
    stream.offered(task)
    stream.call.cancel()
    other = scene.agent().stream()
    other.credits(1)
    other.offered(task)


# --- What time does ---


def test_a_task_that_nobody_starts_in_its_time_is_dead(v1, scene, agent):
    task = scene.task(time_to_live={"seconds": 1})
    got = scene.becomes(task, "DEAD")
    assert got.failure.reason == "TIME_TO_LIVE" and got.HasField("end_time")
    stream = agent.stream()
    stream.credits(1)
    stream.barrier()


def test_time_to_live_does_not_end_what_runs(scene, agent):
    stream = agent.stream()
    task = scene.task(time_to_live={"seconds": 3600})
    offer = stream.start(task)
    scene.age("tasks", "expire_time", f"task_id = '{task.uid}'", "2 hours")
    for _ in range(3):
        stream.barrier()
    stream.finish(offer)
    assert scene.state(task) == "SUCCEEDED"


def test_a_task_that_was_started_may_wait_no_longer_either(scene, agent):
    """After a failure that may pass, its time to live goes on."""
    stream = agent.stream()
    task = scene.task(time_to_live={"seconds": 3600}, max_attempts=10)
    stream.finish(stream.start(task), "FAILED", retry_after=duration(600))
    scene.age("tasks", "expire_time", f"task_id = '{task.uid}'", "2 hours")
    scene.becomes(task, "DEAD")
    assert scene.rows("task_events", "reason", order="sequence")[-1]["reason"] == "TIME_TO_LIVE"


# --- Creation ---


def test_the_same_idempotency_key_is_the_same_task(v1, scene):
    task = scene.task(idempotency_key="once")
    with refused("ALREADY_EXISTS", "TASK_EXISTS"):
        scene.task("sleep", ["1"], idempotency_key="once")
    with refused("ALREADY_EXISTS", "TASK_EXISTS"):
        scene.task(idempotency_key="once")
    assert [row["task_id"] for row in scene.rows("tasks", "task_id")] == [task.uid]


def test_an_idempotency_key_is_the_organization_s_own(scene, make_scene):
    assert scene.task(idempotency_key="k").uid != make_scene().task(idempotency_key="k").uid


def test_a_request_id_gives_the_same_task_again(scene):
    request_id = str(uuid.uuid4())
    assert scene.task(request_id=request_id).name == scene.task(request_id=request_id).name
    assert len(scene.rows("tasks")) == 1


@pytest.mark.parametrize("fields", [
    {"priority": 101}, {"priority": -101}, {"max_attempts": 11}, {"max_attempts": -1},
    {"time_to_live": {"seconds": -1}}, {"time_to_live": {"seconds": 2592001}},
    {"labels": {str(n): "" for n in range(21)}}, {"idempotency_key": "x" * 101},
    {"command": ""}, {"arguments": ["x"] * 101},
])  # fmt: skip
def test_a_task_that_is_not_valid(scene, fields):
    with refused("INVALID_ARGUMENT"):
        scene.task(**fields)


def test_a_task_without_a_payload(v1, scene):
    for payload in (None, v1.TaskPayload()):
        with refused("INVALID_ARGUMENT"):
            scene.tasks.CreateTask(v1.CreateTaskRequest(parent=scene.name, task=v1.Task(payload=payload)))
