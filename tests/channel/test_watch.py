"""WatchTasks and WatchAgents: each event once, in order, and nothing missed by who comes back with a token."""

import contextlib
import itertools
import random
import threading
import time

import grpc
import pytest
from calls import until
from dialogue import named
from genied import refused


def ways(v1, events, task):
    return [
        (v1.Task.State.Name(e.from_state), v1.Task.State.Name(e.to_state), e.attempt)
        for e in events
        if e.task == task.name
    ]


def stored_ways(scene, table="task_events"):
    rows = scene.rows(table, "*, position::text::bigint AS place", order="place, sequence")
    return [(row["task_id"], row["from_state"] or "STATE_UNSPECIFIED", row["to_state"], row["attempt"]) for row in rows]


def told(v1, events):
    return [
        (e.task.rpartition("/")[2], v1.Task.State.Name(e.from_state), v1.Task.State.Name(e.to_state), e.attempt)
        for e in events
    ]


def test_each_change_of_a_task_is_told(v1, scene, agent):
    watch, stream = scene.watch(), agent.stream()
    task = scene.task()
    stream.finish(stream.start(task))
    events = watch.take(4)
    assert ways(v1, events, task) == [
        ("STATE_UNSPECIFIED", "PENDING", 0), ("PENDING", "OFFERED", 1), ("OFFERED", "RUNNING", 1),
        ("RUNNING", "SUCCEEDED", 1),
    ]  # fmt: skip
    assert events[0].actor == task.creator
    assert all(agent.uid in events[n].actor for n in (2, 3))
    assert all(event.HasField("event_time") and event.resume_token for event in events)
    other = scene.task()
    scene.cancel(other)
    assert ways(v1, watch.take(2), other) == [("STATE_UNSPECIFIED", "PENDING", 0), ("PENDING", "CANCELLED", 0)]


def test_one_task_alone(v1, scene):
    task, other = scene.task(), scene.task()
    watch = scene.watch(task=task.name)
    scene.cancel(other)
    scene.cancel(task)
    assert ways(v1, watch.take(1), task) == [("PENDING", "CANCELLED", 0)]


def test_another_organization_hears_nothing(scene, make_scene):
    other = make_scene()
    watch = other.watch()
    scene.task()
    mine = other.task()
    assert watch.take(1)[0].task == mine.name


def test_a_token_resumes_behind_its_message(v1, scene):
    watch = scene.watch()
    tasks = [scene.task() for _ in range(6)]
    events = watch.take(6)
    watch.close()
    for n, event in enumerate(events):
        again = scene.watch(resume_token=event.resume_token)
        assert [e.task for e in again.take(5 - n)] == [task.name for task in tasks[n + 1 :]]
        again.close()
    more = scene.task()
    assert scene.watch(resume_token=events[-1].resume_token).take(1)[0].task == more.name


@pytest.mark.parametrize("token", ["x", "0", "-1", "99999999999999999999", "18446744073709551615-1", "é"])
def test_a_token_that_is_none_of_ours(scene, token):
    with refused("INVALID_ARGUMENT"):
        scene.watch(resume_token=token).take(1, seconds=5)


def test_a_token_of_another_organization_tells_nothing_of_it(scene, make_scene):
    other = make_scene()
    token = other.watch().token
    other.task()
    mine = scene.task()
    try:
        assert scene.watch(resume_token=token).take(1)[0].task == mine.name
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_nothing_is_missed_and_nothing_is_told_twice_under_concurrent_writers(v1, scene, agent):
    """Writers on many connections, a transaction that is held open meanwhile, and watchers that come back again and
    again: each of them has told every event of the database once, and each task's in its order."""
    writers, count = 4, 25
    stop = threading.Event()
    streams = [scene.agent().stream() for _ in range(2)]

    def work(stream):
        while not stop.is_set():
            stream.credits(5)
            stream.send(heartbeat=v1.Heartbeat())
            while (message := stream.next()).WhichOneof("part") != "ping":
                if message.WhichOneof("part") == "task_assign":
                    offer = message.task_assign
                    if random.random() < 0.3:
                        stream.send(task_reject=v1.TaskReject(**named(offer), reason="NO", retry_after={"nanos": 1}))
                    else:
                        stream.send(task_ack=v1.TaskAck(**named(offer)))
                elif message.WhichOneof("part") == "start_grant":
                    stream.result(message.start_grant)

    first, seen = scene.watch(), {"whole": [], "broken": []}

    def write():
        for _ in range(count):
            task = scene.task()
            if random.random() < 0.2:
                try:
                    scene.cancel(task)
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION

    def resume(token):
        while not stop.is_set():
            watch = scene.watch(resume_token=token)
            for _ in range(random.randint(1, 20)):
                try:
                    seen["broken"] += watch.take(1, seconds=1)
                except Exception:
                    break
            token = watch.token
            watch.close()
        seen["token"] = token

    threads = [threading.Thread(target=work, args=(stream,)) for stream in streams]
    threads += [threading.Thread(target=write) for _ in range(writers)]
    resumer = threading.Thread(target=resume, args=(first.token,))
    with scene.transaction() as psql:
        psql("SELECT pg_current_xact_id()")
        for thread in [*threads, resumer]:
            thread.start()
        until(lambda: len(stored_ways(scene)) > 100, 60)
    for thread in threads[len(streams) :]:
        thread.join(60)
    ended = "state NOT IN ('PENDING', 'OFFERED', 'RUNNING', 'CANCELLING')"
    until(lambda: len(scene.rows("tasks", "1", ended)) == writers * count, 90)
    stop.set()
    for thread in threads[: len(streams)]:
        thread.join(60)
    resumer.join(60)
    want = stored_ways(scene)
    sentinel = scene.task()
    seen["whole"] = first.take(len(want) + 1, seconds=60)
    seen["broken"] += scene.watch(resume_token=seen["token"]).take(len(want) + 1 - len(seen["broken"]), seconds=60)
    assert seen["whole"][-1].task == sentinel.name
    assert told(v1, seen["whole"][:-1]) == want
    assert told(v1, [e for e in seen["broken"] if e.task != sentinel.name]) == want
    for task in {way[0] for way in want}:
        states = [way[1:3] for way in want if way[0] == task]
        assert states[0] == ("STATE_UNSPECIFIED", "PENDING")
        assert all(a[1] == b[0] for a, b in itertools.pairwise(states)), states


def test_a_task_s_events_are_in_their_order_however_transactions_lie(v1, scene):
    """A transaction that changes much, and began its changes before a task was there, changes that task too: a batch of
    offers, say. Its number is the lower one; the task was made first all the same."""
    watch = scene.watch()
    made = []
    maker = threading.Thread(target=lambda: made.append(scene.task(idempotency_key="held")))
    with contextlib.ExitStack() as stack:
        with scene.transaction(end="ROLLBACK") as first:
            organization = f"(SELECT organization_id FROM organization_slugs WHERE slug = '{scene.organization.slug}')"
            first(f"INSERT INTO task_keys SELECT {organization}, 'held', gen_random_uuid()")
            maker.start()
            until(scene.waiting)
            batch = stack.enter_context(scene.transaction())
            batch("SELECT pg_current_xact_id()")
        maker.join(30)
        batch(f"UPDATE tasks SET state = 'OFFERED', attempt = 1 WHERE task_id = '{made[0].uid}'")
    events = watch.take(2)
    assert ways(v1, events, made[0]) == [("STATE_UNSPECIFIED", "PENDING", 0), ("PENDING", "OFFERED", 1)]


def test_who_watches_where_nothing_happens_asks_seldom(scene):
    """Its statement's result is no reason to run the next."""
    watch = scene.watch()
    watch_agents = scene.watch_agents()
    count = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    begin, before = time.monotonic(), int(scene.server.database.query(count))
    until(lambda: time.monotonic() - begin > 4)  # its counters are written down once a second
    asked = int(scene.server.database.query(count)) - before
    assert asked < 400, f"{asked} transactions in 4 s"
    for each in (watch, watch_agents):
        each.close()


def test_who_waits_for_a_transaction_does_not_ask_all_the_time(scene):
    """While an event is held back the database is asked again now and then, not as fast as it can answer."""
    watch = scene.watch()
    count = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"

    def committed():
        return int(scene.server.database.query(count))

    with scene.transaction() as psql:
        psql("SELECT pg_current_xact_id()")
        task, begin, before = scene.task(), time.monotonic(), committed()
        until(lambda: time.monotonic() - begin > 3)  # its counters are written down once a second
        asked = committed() - before
    assert watch.take(1)[0].task == task.name
    assert asked < 1000, f"{asked} transactions in 3 s"


def test_who_goes_while_the_database_is_asked_for_him_is_no_harm(v1, make_server, make_scene):
    """Watchers and followers that just go, whatever is under way for them, and a server that stops with some left."""
    scene = make_scene(make_server())
    task = scene.task()
    scene.agent().stream().start(task)
    with scene.transaction() as psql:
        psql("SELECT pg_current_xact_id()")
        for n in range(30):
            scene.task()
            calls = [scene.tasks.WatchTasks(v1.WatchTasksRequest(parent=scene.name)) for _ in range(3)]
            calls += [scene.agents.WatchAgents(v1.WatchAgentsRequest(parent=scene.name))]
            calls += [scene.read_log(task, follow=True)]
            next(calls[n % 4])
            for call in calls:
                call.cancel()
        assert scene.server.process.poll() is None, "genied has died"
        left = [scene.watch() for _ in range(20)]
        scene.server.stop()  # in order, or this fails
    assert len(left) == 20


def test_what_happens_to_agents_is_told(v1, scene):
    watch = scene.watch_agents()
    agent = scene.agent()
    stream = agent.stream()
    stream.send(goodbye=v1.Goodbye())
    stream.ends("OK")
    scene.agents.UpdateAgent(v1.UpdateAgentRequest(agent=v1.Agent(name=agent.name, display_name="new")))
    events = watch.take(4)
    assert {e.agent for e in events} == {agent.name}
    got = [(v1.WatchAgentsResponse.Event.Name(e.event), e.reason) for e in events]
    assert got == [("CREATED", ""), ("CONNECTED", ""), ("DISCONNECTED", "GOODBYE"), ("UPDATED", "")] or got == [
        ("CREATED", ""), ("CONNECTED", ""), ("UPDATED", ""), ("DISCONNECTED", "GOODBYE")
    ]  # fmt: skip
    agent.delete()
    assert watch.take(1)[0].event == v1.WatchAgentsResponse.DELETED


def test_an_agents_token_resumes(v1, scene):
    watch = scene.watch_agents()
    agents = [scene.agent() for _ in range(3)]
    events = watch.take(3)
    again = scene.watch_agents(resume_token=events[0].resume_token)
    assert [e.agent for e in again.take(2)] == [agent.name for agent in agents[1:]]


@pytest.mark.parametrize("end, reason", [
    ("goodbye", "GOODBYE"), ("half_close", "CLOSED"), ("cancel", "CLOSED"), ("protocol", "PROTOCOL"),
])  # fmt: skip
def test_why_an_agent_is_gone(v1, scene, agent, end, reason):
    watch, stream = scene.watch_agents(), agent.stream()
    {
        "goodbye": lambda: stream.send(goodbye=v1.Goodbye()), "half_close": stream.half_close,
        "cancel": lambda: stream.call.cancel(), "protocol": stream.hello,
    }[end]()  # fmt: skip
    watch.since(v1.WatchAgentsResponse.CONNECTED)
    gone = watch.take(1)[0]
    assert gone.event == v1.WatchAgentsResponse.DISCONNECTED and gone.reason == reason


def test_a_takeover_is_told_once(v1, scene, agent):
    """CONNECTED: «it connected, or another instance of it took over». It was connected all the time."""
    watch = scene.watch_agents()
    agent.stream()
    agent.stream().send(goodbye=v1.Goodbye())
    events = [v1.WatchAgentsResponse.Event.Name(e.event) for e in watch.take(3)]
    assert events == ["CONNECTED", "CONNECTED", "DISCONNECTED"]


def test_a_watcher_ends_with_its_server_and_resumes(v1, make_server, make_scene):
    scene = make_scene(make_server())
    watch, task = scene.watch(), scene.task()
    assert watch.take(1)[0].task == task.name
    scene.server.stop()
    with refused("UNAVAILABLE"):
        watch.take(1)
    scene.server.start()
    until(lambda: scene.server.process.poll() is None)
    again = scene.watch(resume_token=watch.token)
    scene.cancel(task)
    assert ways(v1, again.take(1), task) == [("PENDING", "CANCELLED", 0)]


def test_who_leaves_while_a_look_is_under_way(v1, scene):
    """Streams that end at any moment of a statement: before it, while it runs, between its end and its taking over."""
    task, failures = scene.task(), []

    def come_and_go():
        try:
            for n in range(150):
                watch = scene.tasks.WatchTasks(v1.WatchTasksRequest(parent=scene.name))
                log = scene.tasks.ReadTaskLog(v1.ReadTaskLogRequest(name=task.name, follow=True))
                next(watch)
                if n % 5 == 0:
                    scene.cancel(scene.task())  # wakes them all
                log.cancel()
                watch.cancel()
        except grpc.RpcError as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and scene.get(task).name == task.name
