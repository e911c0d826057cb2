"""Faults, each on the recorded history of what both sides said: whatever dies, hangs or lies, no task is lost or done
twice, no log has a hole, and every cancel is answered.

What is random here comes from one seed, which a failing test prints: GENIE_SEED=… runs it again.
"""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import grpc
import pytest
from calls import until
from genied import free_port
from harness import HERE, Clock, GenieAgents, Observer, Postgres, Proxy, Replica, Workers
from history import read

# Times of a channel in a hurry, so that what lapses does so within seconds.
LEASE, SILENCE = 6.0, 4.0
HURRY = (
    "--task-lease-ms", "6000", "--agent-silence-ms", "4000", "--agent-heartbeat-ms", "1500", "--task-offer-ms", "2000",
    "--drain-spread-ms", "1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        postgres = Postgres(tmp_path_factory.mktemp("postgres"))
        patch.setenv("GENIE_TEST_DATABASE_URL", postgres.url)
        yield postgres
        postgres.stop()


class World:
    """A server on a PostgreSQL that may both die, an organization, workers behind a proxy or not, and the history."""

    def __init__(self, genie, postgres, server, scene, workers, path):
        self.genie, self.names = genie, itertools.count(1)
        self.seed = int(os.environ.get("GENIE_SEED") or random.randrange(1 << 32))
        print(f"GENIE_SEED={self.seed}")
        self.random = random.Random(self.seed)
        self.postgres, self.server, self.scene, self.workers, self.path = postgres, server, scene, workers, path
        self.observer, self.agents = Observer(scene, path), {}

    def worker(self, slots=4, agent=None, endpoint=None, unruly=False, state=None, **how):
        """An agent of the kind that the test is for. The endpoint is a front() of some server."""
        agent, name = agent or self.scene.agent(), str(next(self.names))
        endpoint = endpoint or self.front(self.server.endpoint, unruly)
        state = state or self.workers.folder / f"state-{name}"  # what outlives a process
        how = {"slots": slots, "endpoint": endpoint, "unruly": unruly, "state": state, **how}
        worker = self.start(agent, name, **how)
        self.agents[worker] = (name, agent, how)
        return worker

    def front(self, endpoint, unruly=False):
        """Where agents dial to get to an endpoint."""
        if not self.genie:
            return endpoint
        return self.workers.front(self.server, endpoint, self.random if unruly else None)

    def start(self, agent, name, *, slots, endpoint, unruly, state, **how):
        if self.genie:
            return self.workers(agent, name, slots=slots, endpoint=endpoint, state=state, **how)
        seed = str(self.random.randrange(1 << 32))
        options = ("--seed", seed, "--label", f"process={name}", "--slots", str(slots))
        return self.workers(agent, *options, endpoint=endpoint, program="chaos.py" if unruly else "worker.py")

    def kill_worker(self, worker):
        """kill -9, and a new process of the same agent. A genie-agent has what the old one kept on its disk; the other
        knows nothing of it."""
        worker.kill()
        name, agent, how = self.agents.pop(worker)
        for who in {e["who"] for e in read(self.path) if e.get("part") == "hello" and e["labels"]["process"] == name}:
            self.observer.record("killed", who=who)
        return self.worker(agent=agent, **how)

    def request_id(self):
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def task(self, kind=None):
        """A task of some kind that ends by itself."""
        kind = kind or self.random.choice(["echo", "steps", "loud", "flaky", "failing", "both"])
        script = {
            "echo": "echo hello",
            "steps": "for i in 1 2 3 4 5 6 7 8; do echo step $i; sleep 0.1; done",
            "loud": f"seq 1 {self.random.randrange(1000, 60000)}",
            "flaky": "echo try; test $(od -An -N1 -tu1 /dev/urandom) -lt 128",
            "failing": "echo no; exit 3",
            "both": "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.05; done",
        }[kind]
        return self.script(script, max_attempts=10, time_to_live={"seconds": 3600})

    def script(self, script, **fields):
        request_id = self.request_id()
        return self.observer.create("script", [script, request_id], request_id, **fields)

    def event(self, is_it, begin=0):
        """An event in the history, once there is one."""
        return until(lambda: next((event for event in read(self.path)[begin:] if is_it(event)), None), 60)

    def said(self, task, part, begin=0, what=None):
        return self.event(
            lambda e: e.get("part") == part and e.get("task") == task.name and what in (None, e["what"]), begin
        )

    def pause(self, least, most):
        time.sleep(self.random.uniform(least, most))  # a moment that is as good as any: no test waits for it

    def hurry(self):
        """Tasks that wait for their next attempt wait no longer."""
        with contextlib.suppress(AssertionError):
            self.scene.age("tasks", "next_attempt_time", "state = 'PENDING' AND next_attempt_time > now()", "1 hour")

    def settle(self, seconds=150):
        """All is well again: every task ends."""

        def ended():
            self.hurry()
            try:
                rows = self.scene.rows("tasks", "state")
            except AssertionError:  # the database is still coming back
                return False
            return all(r["state"] not in ("PENDING", "OFFERED", "RUNNING", "CANCELLING") for r in rows)

        until(ended, seconds)

    def check(self):
        self.settle()
        self.logs_arrive()
        self.observer.check()

    def logs_arrive(self):
        """What agents that live still have of logs they send, results or not, once they are connected again."""

        def quiet():
            begin = time.monotonic()
            until(lambda: self.living() <= self.heard_from(begin), 60)
            return not any(e["t"] > begin and e.get("part") in ("log_chunk", "log_ack") for e in read(self.path))

        until(quiet, 60)

    def living(self):
        return {agent.name for worker, (_, agent, _) in self.agents.items() if worker.alive()}

    def heard_from(self, begin):
        """Which agents have had an answer to a Heartbeat since."""
        events = read(self.path)
        names = {e["who"]: e["labels"]["process"] for e in events if e.get("part") == "hello"}
        agents = {name: agent.name for name, agent, _ in self.agents.values()}
        return {agents.get(names[e["who"]]) for e in events if e["t"] > begin and e.get("part") == "ping"}


@pytest.fixture(params=["python", "genie-agent"])
def world(request, v1, postgres, make_server, make_scene, stubs, tmp_path):
    genie = request.param == "genie-agent"
    server = make_server(*HURRY)
    scene = make_scene(server)
    workers = GenieAgents(tmp_path, v1) if genie else Workers(tmp_path, stubs)
    world = World(genie, postgres, server, scene, workers, workers.history)
    yield world
    world.observer.over = True
    workers.close()
    assert server.process.poll() is None, f"genied has died, with {server.process.poll()}"


# --- Deaths ---


def kill_server(world, workers):
    world.server.kill()
    world.server.start()
    return workers


def kill_backend(world, workers):
    """One of the server's own connections: PostgreSQL then ends them all, and recovers."""
    sql = f"SELECT pid FROM pg_stat_activity WHERE datname = '{world.server.database.name}' AND pid <> pg_backend_pid()"
    pids = world.server.database.query(sql).split()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(world.random.choice(pids)), signal.SIGKILL)
    until(lambda: answers(world))
    return workers


def kill_postgres(world, workers):
    world.postgres.kill()
    world.postgres.start()
    return workers


def kill_agent(world, workers):
    victim = world.random.choice(workers)
    return [world.kill_worker(w) if w is victim else w for w in workers]


def answers(world):
    try:
        return world.server.database.query("SELECT 1") == "1"
    except AssertionError:
        return False


DEATHS = [kill_server, kill_backend, kill_postgres, kill_agent]
EDGES = [  # what has just been said or heard when somebody dies
    ("heard", "task_assign"), ("said", "task_ack"), ("heard", "start_grant"), ("said", "side_effect"),
    ("heard", "side_effect_ack"), ("said", "log_chunk"), ("heard", "log_ack"), ("said", "result"),
    ("heard", "result_ack"),
]  # fmt: skip


@pytest.mark.parametrize("death", DEATHS)
def test_a_death_at_every_edge(world, death):
    workers = [world.worker(slots=2) for _ in range(2)]
    for what, part in EDGES:
        if world.genie and "side_effect" in part:
            continue  # its commands have none to tell of
        begin = len(read(world.path)) if Path(world.path).exists() else 0
        task = world.task("steps" if part != "result_ack" else "echo")
        world.said(task, part, begin, what)
        workers = death(world, workers)
        world.hurry()
    world.check()


def test_a_log_that_was_not_stored_when_the_server_died(world):
    """Its result was: the task has ended, and its log comes with the next session."""
    world.worker()
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    with world.scene.transaction() as psql:
        psql("LOCK TABLE task_logs IN SHARE MODE")
        task = world.task("echo")
        world.said(task, "result_ack")
        world.server.kill()
        psql(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {others}")
    world.server.start()
    world.check()
    assert b"hello" in world.scene.log_of(task)


@pytest.mark.parametrize("death", DEATHS)
def test_a_death_while_tasks_are_cancelled(world, death):
    workers = [world.worker()]
    for part in ("task_assign", "start_grant", "log_ack"):
        task = world.script("echo up; exec sleep 300")
        world.said(task, part)
        world.observer.cancel(task)
        workers = death(world, workers)
    world.check()
    rows = world.scene.rows("tasks", "state, failure_reason")
    for row in rows:  # of a command that ran when it was killed, a genie-agent says that it does not know
        known = row["state"] in ("CANCELLED", "CANCEL_UNCONFIRMED", "DEAD")
        assert known or world.genie and row == {"state": "FAILED", "failure_reason": "AGENT_RESTARTED"}, rows


def test_deaths_of_all_kinds_at_random(world):
    workers = [world.worker() for _ in range(3)]
    stop = threading.Event()

    def make():
        for _ in range(40):
            if stop.is_set():
                return
            task = world.task()
            if world.random.random() < 0.2:
                world.observer.cancel(task)

    maker = threading.Thread(target=make)
    maker.start()
    for _ in range(8):
        world.pause(0.5, 2)
        workers = world.random.choice(DEATHS)(world, workers)
    maker.join(120)
    stop.set()
    assert not maker.is_alive()
    world.check()


# Each subtransaction takes a number, and leaves nothing durable.
FORGETTABLE = """
CREATE TEMPORARY TABLE junk (number int);
DO $$ BEGIN
  FOR i IN 1..1000 LOOP
    BEGIN
      INSERT INTO junk VALUES (i);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RAISE 'this is rolled back';
END $$
"""


@pytest.mark.parametrize("kind", ["task", "agent"])
def test_a_token_outlives_transactions_that_a_crash_forgets(postgres, make_server, make_scene, kind):
    """PostgreSQL gives the numbers of transactions that left nothing durable to others after its crash. What one of
    them writes is told to who comes back with a token from before."""
    server = make_server()
    scene = make_scene(server)
    make, watch = {"task": (scene.task, scene.watch), "agent": (scene.agent, scene.watch_agents)}[kind]
    make()
    xmax = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    for _ in range(10):  # the server's next second makes durable what was before it
        until(lambda: called(watch)).close()
        os.kill(int(server.database.query(writer)), signal.SIGSTOP)  # else it does, sooner
        with contextlib.suppress(AssertionError):
            server.database.query(FORGETTABLE)
        before, seen = int(server.database.query(xmax)), watch()
        postgres.kill()
        seen.close()
        postgres.start()
        if int(server.database.query(xmax)) < before:
            break
    else:
        pytest.fail("PostgreSQL forgets nothing")
    made = until(lambda: called(make))
    told = until(lambda: called(lambda: watch(resume_token=seen.token).take(1)[0]))
    assert getattr(told, kind) == made.name


def called(call):
    """What it returns; None while the server has not found its database again."""
    try:
        return call()
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise


# --- Connections ---


@pytest.fixture
def proxy(world):
    """Before agents: what it does to them, they see."""
    with contextlib.closing(Proxy(world.front(world.server.endpoint))) as proxy:
        yield proxy


@pytest.mark.parametrize("mode", ["up", "down", "stall", "slow"])
def test_a_connection_that_passes_one_way_or_none_or_slowly(world, proxy, mode):
    world.worker(endpoint=proxy.endpoint)
    other = world.worker(slots=1)
    tasks = [world.task(kind) for kind in ("steps", "loud", "steps", "echo", "both", "loud")]
    world.said(tasks[0], "start_grant")
    proxy.mode = mode
    more = [world.task() for _ in range(4)]
    time.sleep(SILENCE + LEASE)  # the fault lasts until all that can lapse has lapsed
    proxy.mode = "pass"
    assert other.alive() and more
    world.check()


def test_a_connection_that_is_cut_again_and_again(world, proxy):
    world.worker(endpoint=proxy.endpoint)
    for _ in range(15):
        world.task()
    for _ in range(20):
        world.pause(0.05, 0.6)
        proxy.cut()
    world.check()


# --- Agents that lie, sleep, or are two ---


def test_an_agent_that_sleeps_beyond_its_lease_and_wakes(world, tmp_path):
    """A genie-agent's commands are awake meanwhile: they are ended when its lease is over."""
    sleeper = world.worker(slots=2)
    count = "n=20; mkdir {} && n=300; while [ $n -gt 0 ]; do echo $n; n=$((n-1)); sleep 0.1; done"  # long at first
    tasks = [world.script(count.format(tmp_path / name), max_attempts=10) for name in ("one", "other")]
    for task in tasks:
        world.said(task, "log_ack")
    sleeper.signal(signal.SIGSTOP)
    world.worker(slots=2)

    def again():
        world.hurry()
        return {e["task"] for e in read(world.path) if e.get("part") == "log_ack" and e["attempt"] > 1}

    until(lambda: len(again()) == len(tasks), 60)
    sleeper.signal(signal.SIGCONT)
    world.check()
    assert {world.scene.state(task) for task in tasks} == {"SUCCEEDED"}


def test_two_agents_with_one_key(world):
    agent = world.scene.agent()
    for _ in range(2):
        world.worker(slots=2, agent=agent)
    for _ in range(12):
        world.task()
    world.check()


def test_messages_that_come_twice_and_late(world):
    for _ in range(2):
        world.worker(unruly=True)
    for _ in range(25):
        task = world.task()
        if world.random.random() < 0.2:
            world.observer.cancel(task)
    world.check()


def test_a_full_log_window_delays_no_cancel(world):
    """The database takes no log while this lasts, so that the window fills; the cancel is obeyed all the same."""
    world.worker()
    task = world.script("exec yes")
    world.said(task, "log_ack")
    with world.scene.transaction() as psql:
        psql(f"SELECT 1 FROM task_attempts WHERE task_id = '{task.uid}' FOR UPDATE")
        until(lambda: quiet_logs(world, task))
        begin = len(read(world.path))
        world.observer.cancel(task, grace=1)
        world.said(task, "cancel", begin, "heard")
        until(lambda: any(e.get("part") == "cancel_ack" and e["answer"] == "STOPPED" for e in read(world.path)[begin:]))
    world.check()
    assert world.scene.state(task) == "CANCELLED"


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("world", ["genie-agent"], indirect=True)
def test_a_full_disk_under_the_journal(world, small_disk):
    """It fills while tasks run and others are offered, the agent is killed, and there is room again."""
    worker = world.worker(state=small_disk / "state")
    for killed in (False, True):
        tasks = [world.task(kind) for kind in ("steps", "both", "loud")]
        world.said(tasks[0], "start_grant")
        with contextlib.suppress(OSError), open(small_disk / "filler", "ab", buffering=0) as filler:
            while True:
                filler.write(b"x" * 1024)
        for _ in range(3):
            world.task()
        if killed:  # the journal has room for as many tasks as there were: whether it refuses some is open
            world.pause(0.2, 1)
            worker = world.kill_worker(worker)
        else:
            world.event(lambda e: e.get("part") == "task_reject" and e["reason"] == "JOURNAL_FULL")
        (small_disk / "filler").unlink()
    world.check()


def quiet_logs(world, task):
    """No more of the log is sent: the window is full."""

    def count():
        return sum(e.get("part") == "log_chunk" for e in read(world.path))

    before = count()
    time.sleep(0.3)
    return count() == before


# --- Replicas ---


BALANCER = """
global
    maxconn 8000
defaults
    mode tcp
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    retries 3
    option redispatch
listen platform
    bind 127.0.0.1:{port}
    balance roundrobin
    default-server check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
    server one {one}
    server two {two}
"""


@contextlib.contextmanager
def balancer(folder, one, two):
    """haproxy before two replicas; it passes TLS through."""
    port = free_port()
    settings = folder / "haproxy.cfg"
    # A drained replica's connections are the agents' to end: no shutdown-sessions.
    text = BALANCER.replace(" on-marked-down shutdown-sessions", "")
    settings.write_text(text.format(port=port, one=one.endpoint, two=two.endpoint))
    process = subprocess.Popen(["haproxy", "-db", "-f", settings], stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_tasks_go_on_while_replicas_behind_a_balancer_are_restarted(world, tmp_path):
    with contextlib.closing(Replica(world.server, tmp_path).start()) as second:
        with balancer(tmp_path, world.server, second) as endpoint:
            for _ in range(4):
                world.worker(endpoint=world.front(endpoint))
            for round in range(2):
                for replica in (world.server, second):
                    for _ in range(6):
                        world.task()
                    world.pause(0.2, 1)
                    replica.stop() if round == 0 else replica.kill()
                    replica.start()
            world.check()


@pytest.mark.parametrize("world", ["python"], indirect=True)
def test_a_thousand_agents_come_back_when_a_replica_is_stopped(v1, world, stubs, tmp_path):
    count = int(os.environ.get("GENIE_HERD") or 1000)
    create = world.scene.agents.CreateAgent.future
    keys = []
    for at in range(0, count, 50):
        made = [create(v1.CreateAgentRequest(parent=world.scene.name, agent=v1.Agent(display_name=str(at + n))))
                for n in range(min(50, count - at))]  # fmt: skip
        keys += [future.result().secret for future in made]
    (tmp_path / "keys").write_text("\n".join(keys))
    environment = {**os.environ, "PYTHONPATH": f"{stubs}:{HERE}"}

    def connected():
        return len(world.scene.rows("agent_sessions", "1 AS one", "disconnect_time IS NULL"))

    with contextlib.closing(Replica(world.server, tmp_path, *PATIENT).start()) as second:
        world.server.options = PATIENT
        world.server.stop()
        world.server.start()
        with balancer(tmp_path, world.server, second) as endpoint, open(tmp_path / "herd.log", "wb") as log:
            herd = subprocess.Popen(
                [sys.executable, HERE / "herd.py", "--endpoint", endpoint, "--ca", world.server.ca_file, "--keys",
                 tmp_path / "keys"], env=environment, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                until(lambda: connected() == count, 120)
                for replica in (world.server, second):
                    replica.stop()
                    replica.start()
                    until(lambda: connected() == count, 120)
                text = (tmp_path / "herd.log").read_text()
                assert "Traceback" not in text, text[-3000:]
            finally:
                herd.kill()
                herd.wait()


PATIENT = ("--drain-spread-ms", "5000")  # a lease and a silence as they are by default


# --- Clocks ---


@pytest.fixture
def clock(postgres, whose):
    if whose == "database":
        yield postgres.clock
        postgres.clock.set(0)
    else:
        with contextlib.closing(Clock()) as clock:
            yield clock


@pytest.mark.parametrize("world", ["genie-agent"], indirect=True)
@pytest.mark.parametrize("whose", ["server", "agent", "database"])
def test_a_wall_clock_that_jumps(world, clock, whose, tmp_path):
    """By an hour, ahead and back, while tasks run: no lease is lost, no stream ends, and tasks are done as ever."""
    begin, go, agent = time.time(), tmp_path / "go", world.scene.agent()
    if whose == "server":
        key = world.scene.organization.key("ADMIN")  # a token would be refused: as one of the future
        world.scene.tasks = world.scene.v1.TaskServiceStub(key.channel)
        world.server.stop()
        world.server.environment |= clock.environment
        world.server.start()
    world.worker(slots=3, agent=agent, environment=clock.environment if whose == "agent" else None)
    tasks = [world.script(f"while ! [ -e {go} ]; do date; sleep 0.2; done", max_attempts=10) for _ in range(2)]
    for task in tasks:
        world.said(task, "log_ack")
    for jump in (3600, -3600, 0):
        at = len(read(world.path))
        clock.set(jump)
        quick = world.task("steps")
        for _ in range(3):  # renewals that are sent after the jump, and answered
            renewal = world.event(lambda e: e.get("part") == "lease_renew" and len(e["tasks"]) >= 2, at)
            world.event(lambda e, seq=renewal["seq"]: e.get("part") == "lease_ack" and e["renew_seq"] >= seq, at)
            at = len(read(world.path))
        until(lambda task=quick: row_state(world, task) == "SUCCEEDED", 60)
    go.touch()
    world.check()
    rows = world.scene.rows("tasks", "state, attempt", "labels = '{}'")
    assert {(row["state"], row["attempt"]) for row in rows} == {("SUCCEEDED", 1)}, "a clock has lost a lease"
    assert not [e for e in read(world.path) if e["what"] == "ended"], "a stream has ended"
    if whose != "database":
        times = "extract(epoch FROM create_time)::float8 AS made, extract(epoch FROM end_time)::float8 AS ended"
        for row in world.scene.rows("tasks", times):
            assert begin - 1 < row["made"] <= row["ended"] < time.time() + 1


def row_state(world, task):
    return world.scene.rows("tasks", "state", f"task_id = '{task.uid}'")[0]["state"]
