"""Agents as the API shows them: true within 30 seconds whatever died, and their keys, takeovers and drains."""

import signal
import time
import uuid

from calls import until
from dialogue import duration, named
from genied import refused

# --- Status ---


def test_an_agent_that_never_connected(v1, agent):
    got = agent.get()
    assert got.state == v1.Agent.DISCONNECTED
    assert not got.HasField("state_time") and not got.HasField("last_seen_time") and got.creator


def test_an_agent_whose_stream_is_closed(v1, agent):
    stream = agent.stream()
    assert agent.state() == "CONNECTED"
    stream.half_close()
    until(lambda: agent.state() == "DISCONNECTED")
    assert agent.get().HasField("last_seen_time")


def test_the_running_tasks_of_an_agent(scene, agent):
    stream = agent.stream()
    tasks = [scene.task() for _ in range(3)]
    stream.credits(3)
    offers = [stream.offered(task) for task in tasks]
    assert list(agent.get().running_tasks) == [task.name for task in tasks]
    for offer in offers:
        stream.take(offer)
    stream.finish(offers[1])
    assert list(agent.get().running_tasks) == [tasks[0].name, tasks[2].name]


def test_a_client_that_is_killed_is_gone_within_30_seconds(start_worker, agent):
    worker = start_worker(agent)
    until(lambda: agent.state() == "CONNECTED")
    worker.kill()
    until(lambda: agent.state() == "DISCONNECTED", 30)


def test_a_client_that_is_stopped_is_gone_within_30_seconds_and_is_back_when_it_goes_on(v1, scene, start_worker, agent):
    """Nothing is closed: it just says no more."""
    watch, worker = scene.watch_agents(), start_worker(agent)
    until(lambda: agent.state() == "CONNECTED")
    worker.signal(signal.SIGSTOP)
    until(lambda: agent.state() == "DISCONNECTED", 35)
    worker.signal(signal.SIGCONT)
    until(lambda: agent.state() == "CONNECTED", 60)
    watch.since(v1.WatchAgentsResponse.CONNECTED)
    assert [e.reason for e in watch.take(2)] == ["SILENT", ""]


QUICK = ("--agent-silence-ms", "3000", "--agent-heartbeat-ms", "1000")


def test_silence_ends_the_stream(v1, make_server, make_scene):
    agent = make_scene(make_server(*QUICK)).agent()
    stream = agent.stream()
    began, limit = time.monotonic(), stream.welcome.silence_limit.ToTimedelta().total_seconds()
    stream.ends("DEADLINE_EXCEEDED", "SILENT", seconds=limit + 15)
    assert limit * 0.8 < time.monotonic() - began
    until(lambda: agent.state() == "DISCONNECTED")


def test_a_heartbeat_is_enough_to_live(v1, make_server, make_scene):
    agent = make_scene(make_server(*QUICK)).agent()
    stream = agent.stream()
    limit = stream.welcome.silence_limit.ToTimedelta().total_seconds()
    beat = stream.welcome.heartbeat_interval.ToTimedelta().total_seconds()
    began = time.monotonic()
    while time.monotonic() - began < 2 * limit:
        stream.barrier()
        time.sleep(beat / 2)  # what is tested is that so much silence is borne
    assert agent.state() == "CONNECTED"


def test_a_session_that_no_server_has_ends(scene, agent):
    """Its opening was committed, its answer lost on the way to the server, and the agent went."""
    there = scene.agent()
    there.stream()
    scene.server.database.query(f"""
        INSERT INTO agent_sessions (organization_id, agent_id, session_epoch, replica_id, instance_id, version, labels,
                                    kinds)
          SELECT organization_id, '{agent.uid}', 1, replica_id, instance_id, version, labels, kinds
            FROM agent_sessions WHERE agent_id = '{there.uid}'""")
    assert agent.state() == "CONNECTED"
    until(lambda: agent.state() == "DISCONNECTED", 30)
    assert there.state() == "CONNECTED"


def test_a_server_that_is_killed_has_no_agents_30_seconds_later(v1, make_server, make_scene, make_replica):
    """Another replica says so; the agent comes to it."""
    scene = make_scene(make_server())
    other = make_replica(scene.server)
    agent, idle = scene.agent(), scene.agent()
    agent.stream(), idle.stream()
    scene.server.kill()
    agents = v1.AgentServiceStub(other.channel(scene.organization.owner.credential))
    state = lambda a: v1.Agent.State.Name(agents.GetAgent(v1.GetAgentRequest(name=a.name)).state)  # noqa: E731
    agent.stream(on=other)
    until(lambda: state(idle) == "DISCONNECTED", 30)
    assert state(agent) == "CONNECTED"
    gone = f"agent_id = '{idle.uid}' AND event = 4"
    assert [row["reason"] for row in until(lambda: scene.rows("agent_events", "reason", gone))] == ["REPLICA_LOST"]
    scene.server.start()
    assert idle.state() == "DISCONNECTED"


def test_a_server_that_stops_has_no_agents(v1, make_server, make_scene, make_replica):
    scene = make_scene(make_server())
    other = make_replica(scene.server)
    agent = scene.agent()
    stream = agent.stream()
    scene.server.process.send_signal(signal.SIGTERM)
    drain = stream.expect("drain")
    assert 0 <= drain.reconnect_in.ToTimedelta().total_seconds() <= drain.deadline.ToTimedelta().total_seconds()
    agents = v1.AgentServiceStub(other.channel(scene.organization.owner.credential))
    stream.ends("UNAVAILABLE", "DRAINED", seconds=60)
    assert scene.server.process.wait(60) == 0
    got = until(
        lambda: (a := agents.GetAgent(v1.GetAgentRequest(name=agent.name))).state == v1.Agent.DISCONNECTED and a
    )
    assert got.HasField("state_time")


def test_a_draining_server_makes_no_offers_and_takes_what_comes(v1, make_server, make_scene):
    scene = make_scene(make_server())
    stream = scene.agent().stream()
    stream.credits(5)
    offer = stream.take(stream.offered(scene.task()))
    scene.server.process.send_signal(signal.SIGTERM)
    stream.expect("drain")
    stream.log(offer, b"abc", eof=True)
    stream.acked(offer, 3)
    stream.finish(offer)
    stream.send(goodbye=v1.Goodbye())
    stream.ends("OK")
    assert scene.server.process.wait(60) == 0
    assert scene.rows("tasks", "state")[0]["state"] == "SUCCEEDED"


# --- Takeovers ---


def test_a_takeover_across_replicas(v1, make_server, make_scene, make_replica):
    scene = make_scene(make_server())
    other, agent = make_replica(scene.server), scene.agent()
    old = agent.stream()
    new = agent.stream(on=other)
    (message,) = old.ends("ABORTED", "SUPERSEDED")
    assert message.superseded.session_epoch == new.welcome.session_epoch > old.welcome.session_epoch
    new.barrier()
    assert agent.state() == "CONNECTED"


def test_the_older_instance_does_not_take_over_again(v1, agent):
    """Two processes with one key do not flap: the older is told to wait for as long as the newer lives."""
    one = str(uuid.uuid4())
    old = agent.stream(instance_id=one)
    token = old.welcome.session_token
    new = agent.stream()
    old.ends("ABORTED", "SUPERSEDED")
    for _ in range(3):
        back = agent.dial()
        back.hello(instance_id=one, session_token=token)
        (later,) = back.ends("UNAVAILABLE")
        assert later.retry_later.reason == "SUPERSEDED"
        assert later.retry_later.after.ToTimedelta().total_seconds() > 0
        new.barrier()
    new.send(goodbye=v1.Goodbye())
    new.ends("OK")
    until(lambda: agent.state() == "DISCONNECTED")
    agent.stream(instance_id=one, session_token=token).barrier()


def test_two_workers_with_one_key_do_not_flap(scene, start_worker, agent):
    watch = scene.watch_agents()
    one, two = start_worker(agent), start_worker(agent)
    tasks = [scene.task() for _ in range(10)]
    for task in tasks:
        scene.becomes(task, "SUCCEEDED", seconds=120)  # what the older one had begun goes on when its lease lapses
    events = scene.rows("agent_events", "event", f"agent_id = '{agent.uid}' AND event = 3")
    assert len(events) <= 4, "each takes over from the other again and again"
    assert one.alive() and two.alive()
    watch.close()


def test_the_same_instance_comes_back_while_its_old_stream_still_stands(v1, scene, agent):
    """It is the same process, on a new connection: it takes over its own attempts, and the old stream ends."""
    instance = str(uuid.uuid4())
    old = agent.stream(instance_id=instance)
    offer = old.start(scene.task())
    new = agent.stream(
        instance_id=instance, session_token=old.welcome.session_token, running=[v1.RunningTask(**named(offer))]
    )
    assert [d.decision for d in new.welcome.dispositions] == [v1.Disposition.CONTINUE]
    old.ends("ABORTED", "SUPERSEDED")
    new.finish(offer)


def test_a_superseded_instance_can_do_no_more(v1, scene, agent):
    """What it says in the moment before it hears of it does not count."""
    old = agent.stream()
    offer = old.start(scene.task())
    new = agent.stream()
    old.result(offer)
    old.ends("ABORTED", "SUPERSEDED")
    assert scene.state(offer) in ("RUNNING", "SUCCEEDED")
    new.barrier()


# --- Keys ---


def test_a_key_is_shown_once(v1, scene, agent):
    assert agent.key.startswith("dga_") and agent.made.key_prefix == agent.key[:16]
    assert not agent.get().secret and agent.key not in str(scene.rows("agent_keys"))


def test_rotation_with_overlap(v1, scene, agent):
    stream = agent.stream()
    made = agent.rotate(overlap=duration(600))
    assert made.secret.startswith("dga_") and made.secret != agent.key and made.key_prefix == made.secret[:16]
    stream.barrier()
    agent.stream(key=agent.key).barrier()
    agent.stream(key=made.secret).barrier()
    scene.age("agent_keys", "expire_time", f"agent_id = '{agent.uid}' AND expire_time IS NOT NULL", "600 seconds")
    until(lambda: ended(agent, agent.key), 10)
    agent.stream(key=made.secret).barrier()


def ended(agent, key):
    """Whether a key lets nobody in any more."""
    stream = agent.dial(key=key)
    stream.hello()
    message = stream.next()
    assert message is not None or stream.error.code.name == "UNAUTHENTICATED", stream.how()
    stream.close()
    return message is None


def test_an_old_key_ends_the_stream_that_came_with_it(v1, scene, agent):
    old = agent.stream()
    agent.rotate(overlap=duration(600))
    scene.age("agent_keys", "expire_time", f"agent_id = '{agent.uid}' AND expire_time IS NOT NULL", "600 seconds")
    old.ends("UNAUTHENTICATED", "CREDENTIALS_INVALID")


def test_rotation_in_the_channel(v1, scene, agent):
    stream = agent.stream()
    made = agent.rotate(in_channel=True, overlap=duration(600))
    assert not made.secret and made.key_offered
    offer = stream.expect("key_offer")
    assert offer.key.startswith("dga_") and offer.overlap.seconds == 600
    again = agent.stream()  # with the older key: it is offered anew, and the offer before is void
    second = again.until("key_offer")
    assert second.key != offer.key
    assert ended(agent, offer.key)
    new = agent.stream(key=second.key)
    new.barrier()
    until(lambda: not agent.get().key_offered)
    assert agent.get().key_prefix == second.key[:16]
    agent.stream(key=agent.key).barrier()  # for the overlap
    scene.age("agent_keys", "expire_time", f"agent_id = '{agent.uid}' AND expire_time IS NOT NULL", "600 seconds")
    until(lambda: ended(agent, agent.key), 10)
    agent.stream(key=second.key).barrier()


def test_rotation_in_the_channel_of_an_agent_that_is_away(agent):
    agent.rotate(in_channel=True, overlap=duration(600))
    assert agent.get().key_offered
    offer = agent.stream().expect("key_offer")
    agent.stream(key=offer.key).barrier()


def test_the_older_keys_work_until_the_new_one_is_used(v1, scene, agent):
    """An agent that could not store the key comes back with the old one, however late."""
    agent.rotate(in_channel=True, overlap=duration(0))
    stream = agent.stream()
    offer = stream.expect("key_offer")
    for _ in range(3):
        again = agent.stream()
        offer = again.until("key_offer")
    agent.stream(key=offer.key).barrier()
    until(lambda: ended(agent, agent.key), 10)


def test_a_worker_takes_the_key_that_it_is_offered(scene, start_worker, agent):
    worker = start_worker(agent)
    until(lambda: agent.state() == "CONNECTED")
    before = worker.key_file.read_text()
    agent.rotate(in_channel=True, overlap=duration(0))
    until(lambda: worker.key_file.read_text() != before)
    worker.signal(signal.SIGTERM)
    worker.wait()
    start_worker(agent, key=worker.key_file.read_text())
    until(lambda: agent.state() == "CONNECTED" and not agent.get().key_offered)
    scene.becomes(scene.task(), "SUCCEEDED")


def test_no_key_is_in_the_log_or_the_database(v1, make_server, make_scene):
    scene = make_scene(make_server())
    agent = scene.agent()
    stream = agent.stream()
    agent.rotate(in_channel=True)
    offer = stream.expect("key_offer")
    made = agent.rotate()
    stream.until("key_offer") if agent.get().key_offered else None
    agent.stream(key=made.secret).barrier()
    stored = "".join(str(scene.rows(t)) for t in ("agents", "agent_keys", "agent_events", "agent_sessions"))
    scene.server.stop()
    log = scene.server.log.read_text()
    for key in (agent.key, offer.key, made.secret):
        assert key[16:] not in log and key[16:] not in stored


# --- Deletion ---


def test_what_a_deleted_agent_has_goes_on_elsewhere(v1, scene, agent):
    stream, other = agent.stream(), scene.agent().stream()
    offer = stream.start(task := scene.task())
    agent.delete()
    stream.ends("UNAUTHENTICATED", "CREDENTIALS_INVALID")
    with refused("NOT_FOUND"):
        agent.get()
    scene.age("task_leases", "lease_time", f"task_id = '{task.uid}'", "1 hour")
    scene.becomes(task, "PENDING")
    scene.age("tasks", "next_attempt_time", f"task_id = '{task.uid}'", "1 hour")
    again = other.start(task)
    assert again.attempt == 2 and again.fence > offer.fence
    other.finish(again)


def test_a_deleted_agent_is_gone_from_another_replica_too(v1, make_server, make_scene, make_replica):
    scene = make_scene(make_server())
    other, agent = make_replica(scene.server), scene.agent()
    stream = agent.stream(on=other)
    agent.delete()
    stream.ends("UNAUTHENTICATED", "CREDENTIALS_INVALID")


def test_a_person_who_may_not(v1, scene, connect):
    api = scene.organization.member("ANALYST")
    agents = v1.AgentServiceStub(api.channel)
    with refused("PERMISSION_DENIED"):
        agents.CreateAgent(v1.CreateAgentRequest(parent=scene.name, agent=v1.Agent(display_name="x")))
    assert not agents.ListAgents(v1.ListAgentsRequest(parent=scene.name)).agents
