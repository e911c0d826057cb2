"""Streams of the task channel that a test drives message by message, and the organization, agents and tasks
about them.
"""

import contextlib
import json
import queue
import subprocess
import threading
import time
import uuid

import google_crc32c
import grpc
from calls import until
from genied import Details
from google.protobuf.duration_pb2 import Duration

CONNECT = "/devopsgenie.v1.TaskChannelService/Connect"
SECONDS = 30  # for what should come at once; sanitizers and busy machines are slow


def duration(seconds):
    return Duration(nanos=round(seconds % 1 * 10**9), seconds=int(seconds))


def named(about):
    """The task, attempt and fence of anything that has them."""
    return {"task": about.task, "attempt": about.attempt, "fence": about.fence}


class Stream:
    """One Connect call. It acknowledges with each message what the test has taken in with next()."""

    def __init__(self, v1, server, key):
        self.v1, self.seq, self.seen, self.heard = v1, 0, 0, queue.SimpleQueue()
        self.out, self.welcome, self.error, self.over = queue.SimpleQueue(), None, None, False
        self.channel = server.channel(key, [("grpc.use_local_subchannel_pool", 1)])
        self.call = self.channel.stream_stream(CONNECT)(iter(self.out.get, None))
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for data in self.call:
                self.heard.put(self.v1.PlatformMessage.FromString(data))
            self.heard.put(None)
        except grpc.RpcError as error:
            self.heard.put(error)

    def send(self, *, seq=None, ack_seq=None, **part):
        """Says one message; returns its number."""
        self.seq = self.seq + 1 if seq is None else seq
        message = self.v1.WorkerMessage(seq=self.seq, ack_seq=self.seen if ack_seq is None else ack_seq, **part)
        self.send_bytes(message.SerializeToString())
        return self.seq

    def send_bytes(self, data):
        self.out.put(data)

    def next(self, seconds=SECONDS):
        """The next message; None where the stream has ended."""
        if self.over:
            return None
        try:
            message = self.heard.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing came in {seconds} s") from None
        if isinstance(message, grpc.RpcError):
            self.error, message = Details(message), None
        if message is None:
            self.over = True
            return None
        assert message.seq == self.seen + 1, f"number {message.seq} after {self.seen}"
        self.seen = message.seq
        return message

    def expect(self, part, seconds=SECONDS, **fields):
        """The next message's part, which must be this one; Pings that nobody waits for are passed over."""
        while True:
            message = self.next(seconds)
            assert message is not None, f"the stream ended, with {self.how()}, where {part} was to come"
            got = message.WhichOneof("part")
            if got != "ping" or part == "ping":
                break
        assert got == part, f"{part} was to come and not {message}"
        said = getattr(message, part)
        for name, value in fields.items():
            assert getattr(said, name) == value, f"{name} is {getattr(said, name)!r} and not {value!r} in {said}"
        return said

    def until(self, part, seconds=SECONDS):
        """The next message of this kind, whatever comes before it."""
        deadline = time.monotonic() + seconds
        while message := self.next(max(0.01, deadline - time.monotonic())):
            if message.WhichOneof("part") == part:
                return getattr(message, part)
        raise AssertionError(f"the stream ended, with {self.how()}, where {part} was to come")

    def expect_one_of(self, *parts):
        message = self.next()
        assert message is not None and message.WhichOneof("part") in parts, message
        return getattr(message, message.WhichOneof("part"))

    def until_answered(self, part, say, **fields):
        """Says something, and takes its answer; what was on its way before, such as another Cancel, is passed over."""
        say()
        said = self.until(part)
        assert all(getattr(said, name) == value for name, value in fields.items()), said

    def barrier_past(self, *parts):
        """A barrier that lets these come before it."""
        self.send(heartbeat=self.v1.Heartbeat())
        while (message := self.next()).WhichOneof("part") != "ping":
            assert message.WhichOneof("part") in parts, message

    def barrier(self):
        """The answer to a Heartbeat is next: nothing else was on its way, and the stream lives."""
        self.send(heartbeat=self.v1.Heartbeat())
        self.expect("ping")

    def how(self):
        return f"{self.error.code.name} {self.error.reason}: {self.error.message}" if self.error else "OK"

    def ends(self, code, reason=None, seconds=SECONDS):
        """It ends so; returns the messages that came before."""
        before, deadline = [], time.monotonic() + seconds
        while message := self.next(max(0.01, deadline - time.monotonic())):
            before.append(message)
        assert (self.error.code.name if self.error else "OK") == code, self.how()
        assert reason is None or self.error.reason == reason, self.how()
        if self.error:
            assert "ErrorInfo" in self.error.all and self.error.all["ErrorInfo"].domain == "devopsgenie.dev"
        return before

    def half_close(self):
        self.out.put(None)

    def close(self):
        self.out.put(None)
        self.call.cancel()
        self.channel.close()

    # --- What many tests say ---

    def hello(self, **fields):
        v1 = self.v1
        fields = {
            "protocol_versions": [1], "instance_id": str(uuid.uuid4()), "kinds": [v1.COMMAND], "version": "test",
            **fields,
        }  # fmt: skip
        return self.send(hello=v1.Hello(**fields))

    def credits(self, free=1, kind=None, **numbers):
        kinds = [self.v1.KindCredits(kind=self.v1.COMMAND if kind is None else kind, free=free)]
        return self.send(credits=self.v1.Credits(free=kinds), **numbers)

    def offered(self, task=None):
        offer = self.expect("task_assign")
        assert task is None or offer.task == task.name, offer
        return offer

    def take(self, offer):
        """Takes an offer, and is told to start."""
        self.send(task_ack=self.v1.TaskAck(**named(offer)))
        grant = self.expect("start_grant")
        assert named(grant) == named(offer)
        return offer

    def start(self, task=None):
        """Has room for one task, is offered it, takes it, and is told to start."""
        self.credits(1)
        return self.take(self.offered(task))

    def result(self, about, status="SUCCEEDED", reason="", permanent=False, result_id=None, **fields):
        failure = self.v1.TaskFailure(reason=reason or "BROKEN", permanent=permanent) if status == "FAILED" else None
        result_id = result_id or str(uuid.uuid4())
        self.send(result=self.v1.Result(
            **named(about), result_id=result_id, status=self.v1.Result.Status.Value(status), failure=failure, **fields
        ))  # fmt: skip
        return result_id

    def finish(self, about, status="SUCCEEDED", answer="ACCEPTED", **fields):
        """Says a result, and it is answered so."""
        result_id = self.result(about, status, **fields)
        ack = self.expect("result_ack", task=about.task, attempt=about.attempt, result_id=result_id)
        assert self.v1.ResultAck.Status.Name(ack.status) == answer
        return result_id

    def log(self, about, data, offset=0, stream="STDOUT", crc32c=None, eof=False):
        self.send(log_chunk=self.v1.LogChunk(
            **named(about), stream=self.v1.LogStream.Value(stream), offset=offset, data=data, eof=eof,
            crc32c=google_crc32c.value(data) if crc32c is None else crc32c,
        ))  # fmt: skip

    def acked(self, about, offset, problem="PROBLEM_UNSPECIFIED", stream="STDOUT"):
        """LogAcks come until one says that this much is durable, or what was wrong."""
        while True:
            ack = self.expect("log_ack", task=about.task, attempt=about.attempt)
            if ack.problem or ack.next_offset >= offset:
                break
        got = (self.v1.LogAck.Problem.Name(ack.problem), ack.next_offset, self.v1.LogStream.Name(ack.stream))
        assert got == (problem, offset, stream)
        return ack


class Scene:
    """An organization on a server, its tasks and agents. `owner` and the like are an Organization's."""

    def __init__(self, v1, server, organization):
        self.v1, self.server, self.organization, self.name = v1, server, organization, organization.name
        self.tasks = v1.TaskServiceStub(organization.owner.channel)
        self.agents = v1.AgentServiceStub(organization.owner.channel)
        self.opened = []

    def close(self):
        for stream in self.opened:
            stream.close()

    def agent(self, display_name="agent", on=None):
        agent = self.agents.CreateAgent(
            self.v1.CreateAgentRequest(parent=self.name, agent=self.v1.Agent(display_name=display_name))
        )
        return Agent(self, agent, on or self.server)

    def stream(self, key, on=None):
        self.opened.append(Stream(self.v1, on or self.server, key))
        return self.opened[-1]

    def task(self, command="echo", arguments=("hello",), request_id="", **fields):
        payload = fields.pop("payload", None) or self.v1.TaskPayload(
            command=self.v1.Command(name=command, arguments=arguments)
        )
        task = self.v1.Task(payload=payload, **fields)
        return self.tasks.CreateTask(self.v1.CreateTaskRequest(parent=self.name, task=task, request_id=request_id))

    def get(self, task):
        return self.tasks.GetTask(self.v1.GetTaskRequest(name=getattr(task, "name", None) or task.task))

    def state(self, task):
        return self.v1.Task.State.Name(self.get(task).state)

    def becomes(self, task, *states, seconds=SECONDS):
        until(lambda: self.state(task) in states, seconds)
        return self.get(task)

    def cancel(self, task, mode="GRACEFUL", **fields):
        return self.tasks.CancelTask(
            self.v1.CancelTaskRequest(name=task.name, mode=self.v1.TaskCancellation.Mode.Value(mode), **fields)
        )

    def retry(self, task, **fields):
        return self.tasks.RetryTask(self.v1.RetryTaskRequest(name=task.name, **fields))

    def read_log(self, task, **fields):
        """The pieces of a log, as they come."""
        return self.tasks.ReadTaskLog(self.v1.ReadTaskLogRequest(name=task.name, **fields))

    def log_of(self, task, stream="STDOUT", **fields):
        """A log's bytes; its pieces follow each other."""
        data, at = b"", fields.get("offset", 0)
        for piece in self.read_log(task, stream=self.v1.LogStream.Value(stream), **fields):
            assert piece.offset == at + len(data) and 0 < len(piece.data) <= 65536
            data += piece.data
        return data

    def watch(self, resume_token="", **fields):
        return Watch(self.tasks.WatchTasks, self.v1.WatchTasksRequest(
            parent=self.name, resume_token=resume_token, **fields))  # fmt: skip

    def watch_agents(self, resume_token=""):
        return Watch(self.agents.WatchAgents, self.v1.WatchAgentsRequest(parent=self.name, resume_token=resume_token))

    def rows(self, table, columns="t.*", where="true", order="1"):
        """A table's rows of this organization, as the database has them."""
        sql = (
            f"SELECT coalesce(json_agg(r), '[]') FROM (SELECT {columns} FROM {table} t JOIN organization_slugs s"
            f" USING (organization_id) WHERE s.slug = '{self.organization.slug}' AND {where} ORDER BY {order}) r"
        )
        return json.loads(self.server.database.query(sql))

    @contextlib.contextmanager
    def transaction(self, end="COMMIT"):
        """What is called with SQL runs it in a transaction that stays open until the block ends."""
        database = self.server.database
        psql = subprocess.Popen(
            ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", database.superuser_url], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

        def run(sql):
            psql.stdin.write(f"{sql};\n\\echo done\n")
            psql.stdin.flush()
            while (line := psql.stdout.readline()) != "done\n":
                assert line, "psql has ended"

        run("BEGIN")
        try:
            yield run
        finally:
            psql.communicate(f"{end};\n")

    def waiting(self):
        """How many statements wait for a lock."""
        return int(self.server.database.query(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ))  # fmt: skip

    def age(self, table, column, where, interval):
        """Makes a time in the database so much earlier, instead of waiting for so long."""
        self.server.database.query(f"UPDATE {table} SET {column} = {column} - interval '{interval}' WHERE {where}")


class Agent:
    def __init__(self, scene, agent, server):
        self.scene, self.v1, self.server = scene, scene.v1, server
        self.name, self.uid, self.key, self.made = agent.name, agent.uid, agent.secret, agent

    def get(self):
        return self.scene.agents.GetAgent(self.v1.GetAgentRequest(name=self.name))

    def state(self):
        return self.v1.Agent.State.Name(self.get().state)

    def dial(self, key=None, on=None):
        """A stream on which nothing has been said."""
        return self.scene.stream(key or self.key, on or self.server)

    def stream(self, key=None, on=None, **hello):
        """A stream that stands."""
        stream = self.dial(key, on)
        stream.hello(**hello)
        stream.welcome = stream.expect("welcome")
        return stream

    def rotate(self, **fields):
        return self.scene.agents.RotateAgentKey(self.v1.RotateAgentKeyRequest(name=self.name, **fields))

    def delete(self):
        return self.scene.agents.DeleteAgent(self.v1.DeleteAgentRequest(name=self.name))


class Watch:
    """A Watch call. Without a token to resume from, its first message is a token's, and has come."""

    def __init__(self, method, request):
        self.begin = 0 if request.resume_token else time.time()
        self.call, self.messages = method(request), queue.SimpleQueue()
        threading.Thread(target=self.read, daemon=True).start()
        self.token = request.resume_token
        if not self.token:
            first = self.next()
            self.token = first.resume_token
            assert self.token and not first.HasField("event_time"), first

    def read(self):
        try:
            for message in self.call:
                self.messages.put(message)
        except grpc.RpcError as error:
            self.messages.put(error)

    def next(self, seconds=SECONDS):
        message = self.messages.get(timeout=seconds)
        if isinstance(message, grpc.RpcError):
            raise message
        return message

    def since(self, event, seconds=SECONDS):
        """The first event of that kind."""
        while True:
            found = self.take(1, seconds)[0]
            if found.event == event:
                return found

    def take(self, count, seconds=SECONDS):
        """So many events, and the token of the last. What was before the watch is passed over: where others'
        transactions run beside it, it is told too."""
        events = []
        while len(events) < count:
            message = self.next(seconds)
            self.token = message.resume_token
            if message.HasField("event_time") and message.event_time.ToNanoseconds() >= self.begin * 10**9:
                events.append(message)
        return events

    def close(self):
        self.call.cancel()
