"""A platform that does as a test says: a real gRPC server over TLS that speaks the proto, and writes down both sides."""

import os
import queue
import subprocess
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = float(os.environ.get("GENIE_TEST_DEADLINE", "30"))  # sanitizers on a busy machine; usually it is a fraction of a second


def crc32c(data, table=[]):  # noqa: B006: made once
    """CRC-32C by its definition (RFC 3720): nobody's library is trusted with it."""
    if not table:
        for i in range(256):
            for _ in range(8):
                i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
            table.append(i)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class Said:
    """A message of the history: who said it, on which stream, which part."""

    def __init__(self, by, stream, message):
        self.by, self.stream, self.message, self.time = by, stream, message, time.monotonic()
        self.part = message.WhichOneof("part")
        self.seq = message.seq

    @property
    def body(self):
        return getattr(self.message, self.part)

    def __repr__(self):
        text = " ".join(str(self.message).split())
        return f"{self.stream.number} {self.by} {text[:300]}"


class Stream:
    """One call of Connect."""

    def __init__(self, platform, number, context):
        self.platform, self.number = platform, number
        self.metadata = dict(context.invocation_metadata())
        self.peer = context.peer()
        self.outgoing = queue.Queue()
        self.seq = self.taken_seq = 0
        self.standing = self.agent_closed = self.ended = False
        self.lock = threading.Lock()

    @property
    def key(self):
        return self.metadata.get("authorization", "").removeprefix("Bearer ")

    def say(self, seq=None, ack_seq=None, **part):
        """Says a part, such as ping=v1.Ping(); returns what was said."""
        with self.lock:
            self.seq = seq or self.seq + 1
            message = self.platform.v1.PlatformMessage(
                seq=self.seq, ack_seq=self.taken_seq if ack_seq is None else ack_seq, **part
            )
            said = self.platform.note("platform", self, message)
            self.outgoing.put(message)
        return said

    def say_again(self, said):
        """The same bytes once more."""
        self.outgoing.put(said.message)

    def end(self, code=grpc.StatusCode.OK, details=""):
        self.outgoing.put((code, details))


class Platform:
    """What it does by itself is in `does`; a test takes members out to do those itself."""

    def __init__(self, v1, folder):
        self.v1, self.folder = v1, Path(folder)
        self.does = {"welcome", "lease_renew", "heartbeat", "log_chunk", "side_effect", "result", "task_ack"}
        self.history, self.streams, self.problems = [], [], []
        self.changed = threading.Condition()
        self.key = "dga_configured"
        self.keys = {self.key}  # that are good
        self.epoch = 0
        self.limits = dict(heartbeat=1000, silence=6000, lease=6000, renew=300, window=1 << 20, chunk=65536)
        self.logs, self.results, self.effects, self.granted, self.fences = {}, {}, {}, set(), {}
        self.decide = None  # RunningTask -> the name of a decision, or None
        subprocess.run(["bash", ROOT / "tools/lib/certificates.sh", self.folder], check=True, capture_output=True)
        self.server, self.port = None, 0
        self.start()

    # The server.

    def start(self):
        v1, platform = self.v1, self

        class Channel(v1.TaskChannelServiceServicer):
            def Connect(self, requests, context):
                yield from platform.connect(requests, context)

        class Auth(v1.AuthServiceServicer):
            def WhoAmI(self, request, context):
                key = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
                if key not in platform.keys:
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")
                return v1.WhoAmIResponse(caller="organizations/acme/agents/one")

        self.server = grpc.server(
            futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0), ("grpc.http2.max_ping_strikes", 0)]
        )
        v1.add_TaskChannelServiceServicer_to_server(Channel(), self.server)
        v1.add_AuthServiceServicer_to_server(Auth(), self.server)
        files = [(self.folder / "server-key.pem").read_bytes(), (self.folder / "server.pem").read_bytes()]
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", grpc.ssl_server_credentials([tuple(files)]))
        self.server.start()

    def stop(self):
        for stream in self.streams:
            stream.end(grpc.StatusCode.UNAVAILABLE, "the server ends")
        self.server.stop(0).wait()

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.port}"

    def connect(self, requests, context):
        stream = Stream(self, len(self.streams) + 1, context)
        if stream.key not in self.keys:
            stream.agent_closed = True
            with self.changed:
                self.streams.append(stream)
                self.changed.notify_all()
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        with self.changed:
            self.streams.append(stream)
            self.changed.notify_all()
        threading.Thread(target=self.read, args=(stream, requests), daemon=True).start()
        context.add_callback(lambda: stream.outgoing.put((grpc.StatusCode.OK, "")))
        while not isinstance(message := stream.outgoing.get(), tuple):
            yield message
        with self.changed:
            stream.ended = True
            self.changed.notify_all()
        context.set_code(message[0])
        context.set_details(message[1])

    def read(self, stream, requests):
        try:
            for message in requests:
                said = self.note("agent", stream, message)
                assert message.seq == stream.taken_seq + 1, f"seq {message.seq} after {stream.taken_seq}"
                stream.taken_seq = message.seq
                if said.part == "goodbye":
                    break
                self.answer(stream, said)
            stream.end()
        except grpc.RpcError:
            pass
        except Exception as problem:  # of the agent's, or of the double's own
            self.problems.append(problem)
            stream.end(grpc.StatusCode.INTERNAL, "the double has failed")
        with self.changed:
            stream.agent_closed = True
            self.changed.notify_all()

    # What it does by itself.

    def answer(self, stream, said):
        name = "welcome" if said.part == "hello" else said.part
        if name in self.does and hasattr(self, "take_" + name):
            getattr(self, "take_" + name)(stream, said.body, said)

    def take_welcome(self, stream, hello, said):
        stream.say(welcome=self.welcome(hello))
        stream.standing = True

    def welcome(self, hello, **changes):
        self.epoch += 1
        limits, ms = self.limits, self.ms
        welcome = self.v1.Welcome(
            protocol_version=1, session_epoch=self.epoch, session_token=f"token-{self.epoch}",
            heartbeat_interval=ms(limits["heartbeat"]), silence_limit=ms(limits["silence"]),
            lease=ms(limits["lease"]), renew_interval=ms(limits["renew"]), offer_limit=ms(10000),
            max_log_chunk_bytes=limits["chunk"], log_window_bytes=limits["window"], max_log_bytes=1 << 24,
            dispositions=[self.disposition(running) for running in hello.running],
        )  # fmt: skip
        for name, value in changes.items():
            setattr(welcome, name, value)
        return welcome

    @staticmethod
    def ms(value):
        return Duration(seconds=value // 1000, nanos=value % 1000 * 1000000)

    def disposition(self, running):
        key = (running.task, running.attempt)
        name = self.decide(running) if self.decide else None
        if not name and key in self.results:
            name = "RESULT_KNOWN"
        if not name and self.fences.get(running.task) != running.fence:
            name = "ABORT_FENCED"
        if not name:
            name = "CONTINUE" if key in self.granted else "OFFERED"
        offsets = [
            self.v1.LogOffset(stream=part, offset=len(self.logs.get((*key, part), b""))) for part in (1, 2)
        ]
        return self.v1.Disposition(
            task=running.task, attempt=running.attempt, log_offsets=offsets,
            decision=self.v1.Disposition.Decision.Value(name),
        )  # fmt: skip

    def take_task_ack(self, stream, ack, said):
        self.granted.add((ack.task, ack.attempt))
        stream.say(start_grant=self.v1.StartGrant(task=ack.task, attempt=ack.attempt, fence=ack.fence))

    def take_lease_renew(self, stream, renew, said):
        stream.say(lease_ack=self.v1.LeaseAck(renew_seq=said.seq))

    def take_heartbeat(self, stream, heartbeat, said):
        stream.say(ping=self.v1.Ping())

    def take_side_effect(self, stream, effect, said):
        self.effects.setdefault((effect.task, effect.attempt), {})[effect.key] = effect.reference
        stream.say(side_effect_ack=self.v1.SideEffectAck(task=effect.task, attempt=effect.attempt, key=effect.key))

    def take_log_chunk(self, stream, chunk, said):
        log = self.logs.setdefault((chunk.task, chunk.attempt, chunk.stream), bytearray())
        problem = 0
        if crc32c(chunk.data) != chunk.crc32c:
            problem = self.v1.LogAck.CHECKSUM
        elif chunk.offset > len(log):
            problem = self.v1.LogAck.GAP
        else:
            known = log[chunk.offset :][: len(chunk.data)]
            assert known == chunk.data[: len(known)], f"a byte of the log has changed: {said}"
            log += chunk.data[len(known) :]
        self.log_ack(stream, chunk, len(log), problem)

    def log_ack(self, stream, chunk, next_offset, problem=0, window=None, **options):
        if isinstance(problem, str):
            problem = self.v1.LogAck.Problem.Value(problem)
        return stream.say(
            log_ack=self.v1.LogAck(
                task=chunk.task, attempt=chunk.attempt, stream=chunk.stream, next_offset=next_offset,
                window=self.limits["window"] if window is None else window, problem=problem,
            ), **options
        )  # fmt: skip

    def take_result(self, stream, result, said):
        key = (result.task, result.attempt)
        if self.fences.get(result.task) != result.fence:
            status = "FENCED"
        else:
            status = "DUPLICATE" if key in self.results else "ACCEPTED"
            self.results.setdefault(key, result)
        self.result_ack(stream, result, status)

    def result_ack(self, stream, result, status):
        status = self.v1.ResultAck.Status.Value(status)
        stream.say(
            result_ack=self.v1.ResultAck(
                task=result.task, attempt=result.attempt, result_id=result.result_id, status=status
            )
        )

    # What a test does with it.

    def note(self, by, stream, message):
        said = Said(by, stream, message)
        with self.changed:
            self.history.append(said)
            self.changed.notify_all()
        return said

    def wait(self, condition, what="the condition"):
        """Waits until the condition gives something true, and returns that; the history says why it did not."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self.changed:
            while not (found := condition()):
                if self.problems:
                    raise self.problems[0]
                left = deadline - time.monotonic()
                assert left > 0, f"{what} did not come:\n" + "\n".join(map(repr, self.history[-40:]))
                self.changed.wait(min(left, 0.2))
        return found

    def said(self, part, by="agent", after=None, stream=None, **fields):
        """All messages of the history with this part and these values."""
        begin = self.history.index(after) + 1 if after else 0
        return [
            said
            for said in self.history[begin:]
            if said.by == by and said.part == part and stream in (None, said.stream)
            and all(getattr(said.body, name) == value for name, value in fields.items())
        ]  # fmt: skip

    def hears(self, part, count=1, **fields):
        """Waits for the agent to say it, so many times; the last of them."""
        return self.wait(lambda: (found := self.said(part, **fields)) and len(found) >= count and found[count - 1],
                         f"{part} {fields}")  # fmt: skip

    def stands(self, number=1):
        """The stream of this number, when it stands and credits have come on it."""
        self.wait(lambda: len(self.streams) >= number, f"stream {number}")
        stream = self.streams[number - 1]
        self.hears("credits", stream=stream)
        return stream

    def task(self, name):
        return f"organizations/acme/tasks/{name}"

    def offer(self, stream, name, kind="PULL_REQUEST", attempt=1, fence=None, effects=(), title="t", body="", command=None):
        v1, task = self.v1, self.task(name)
        self.fences[task] = fence or attempt
        if kind == "COMMAND":
            payload = v1.TaskPayload(command=v1.Command(**command))
        else:
            payload = v1.TaskPayload(pull_request=v1.PullRequest(title=title, body=body))
        return stream.say(
            task_assign=v1.TaskAssign(
                task=task, attempt=attempt, fence=self.fences[task], kind=v1.TaskKind.Value(kind), payload=payload,
                idempotency_key=name, side_effects=effects,
            )
        )  # fmt: skip

    def cancel(self, stream, name, attempt=1, mode="GRACEFUL", grace=20000):
        mode = self.v1.TaskCancellation.Mode.Value(mode)
        task = self.task(name)
        return stream.say(
            cancel=self.v1.Cancel(
                task=task, attempt=attempt, fence=self.fences[task], mode=mode, grace=self.ms(grace)
            )
        )

    def lose(self, stream, name, attempt=1, reason="FENCED"):
        task = self.task(name)
        return stream.say(
            lease_lost=self.v1.LeaseLost(task=task, attempt=attempt, fence=self.fences[task], reason=reason)
        )

    def settle(self):
        """Does everything again, on a new stream, so that agents have nothing left to wait for."""
        vars(self).pop("take_log_chunk", None)
        vars(self).pop("take_welcome", None)
        self.decide = None
        self.does |= {"welcome", "lease_renew", "heartbeat", "log_chunk", "side_effect", "result", "task_ack"}
        for stream in self.streams:
            stream.end()

    def check(self):
        """What must hold of every history."""
        if self.problems:
            raise self.problems[0]
        streams, ids = {}, {}
        for said in self.history:
            if said.by != "agent":
                continue
            first = said.stream not in streams
            assert first == (said.part == "hello"), f"Hello is the first message, and only the first: {said}"
            assert said.seq == streams.get(said.stream, 0) + 1, f"seq: {said}"
            streams[said.stream] = said.seq
            assert said.message.ack_seq <= said.stream.seq, f"ack_seq: {said}"
            if said.part == "result":
                one = ids.setdefault((said.body.task, said.body.attempt), said.body.result_id)
                assert one == said.body.result_id, f"two results of one attempt: {said}"
            if said.part == "log_chunk":
                assert len(said.body.data) <= self.limits["chunk"], "a chunk is too large"
