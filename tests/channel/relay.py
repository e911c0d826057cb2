"""A relay between agents and the platform, for agents that write no history of their own: it ends the TLS of both
sides, and notes each message before it passes it on. What it notes as heard is on its way to the agent, and may not
arrive.
"""

import itertools
import queue
import random
import threading
from concurrent import futures

import grpc
from history import Recorder

CONNECT = "/devopsgenie.v1.TaskChannelService/Connect"
TWICE, LATE = 0.3, 0.3
# What may come once more at any time. Everything may come twice at once.
MAY_BE_LATE = {
    "task_ack", "lease_renew", "log_chunk", "result", "cancel_ack", "progress",
    "lease_ack", "lease_lost", "log_ack", "result_ack", "cancel",
}  # fmt: skip


class Way:
    """One direction of a stream. Numbers are the relay's own, since some messages go out more often than they came."""

    def __init__(self, kind, note, random_):
        self.kind, self.note, self.random, self.other = kind, note, random_, None
        self.queue, self.numbers, self.lock = queue.SimpleQueue(), [], threading.Lock()

    def take(self, data):
        message = self.kind.FromString(data)
        self.put(message)
        if self.random and message.WhichOneof("part") not in ("hello", "welcome"):
            if self.random.random() < TWICE:
                self.queue.put(self.last)  # with the same number: it is dropped
                self.put(message, again=True)  # with another: it is answered as what it is
            if message.WhichOneof("part") in MAY_BE_LATE and self.random.random() < LATE:
                late = threading.Timer(self.random.uniform(0.01, 3), self.put, (message, True))
                late.daemon = True
                late.start()

    def put(self, message, again=False):
        with self.lock:
            copy = self.kind.FromString(message.SerializeToString())
            self.numbers.append(message.seq)
            copy.seq = len(self.numbers)
            copy.ack_seq = max(self.other.numbers[: message.ack_seq], default=0)
            if message.WhichOneof("part") == "lease_ack" and 0 < message.lease_ack.renew_seq <= len(self.other.numbers):
                copy.lease_ack.renew_seq = self.other.numbers[message.lease_ack.renew_seq - 1]
            if not again:  # what comes again nobody has said
                self.note(copy)
            self.last = copy.SerializeToString()
            self.queue.put(self.last)


class Relay:
    """`unruly`, a random.Random, makes messages come twice, and again when they are long out of date."""

    def __init__(self, v1, server, target, path, unruly=None):
        self.v1, self.server, self.target, self.unruly, self.record = v1, server, target, unruly, Recorder(path)
        self.sessions = itertools.count(1)
        self.grpc = grpc.server(
            futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0), ("grpc.http2.max_ping_strikes", 0)]
        )
        handler = grpc.stream_stream_rpc_method_handler(self.connect)
        service, _, method = CONNECT[1:].partition("/")
        self.grpc.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        pair = [(server.folder / name).read_bytes() for name in ("server-key.pem", "server.pem")]
        port = self.grpc.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([tuple(pair)]))
        self.endpoint = f"127.0.0.1:{port}"
        self.grpc.start()

    def connect(self, requests, context):
        who, session = None, next(self.sessions)

        def note(what):
            def write(message):
                nonlocal who
                who = message.hello.instance_id if message.WhichOneof("part") == "hello" else who
                self.record(what, who=who, session=session, message=message)

            return write

        up = Way(self.v1.WorkerMessage, note("said"), self.unruly)
        down = Way(self.v1.PlatformMessage, note("heard"), self.unruly)
        up.other, down.other = down, up
        credentials = grpc.ssl_channel_credentials(self.server.ca_file.read_bytes())
        with grpc.secure_channel(self.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            key = [pair for pair in context.invocation_metadata() if pair[0] == "authorization"]
            call = channel.stream_stream(CONNECT)(iter(up.queue.get, None), metadata=key)
            if not context.add_callback(call.cancel):
                return
            for source, way in ((requests, up), (call, down)):
                threading.Thread(target=self.pump, args=(source, way), daemon=True).start()
            yield from iter(down.queue.get, None)
            self.record("ended", who=who, session=session, code=call.code().name, reason=call.details())
            up.queue.put(None)
            context.set_trailing_metadata(call.trailing_metadata() or ())
            context.set_code(call.code())
            context.set_details(call.details() or "")

    @staticmethod
    def pump(source, way):
        try:
            for data in source:
                way.take(data)
        except Exception as error:  # grpc has one of its own for an agent that is gone
            if not isinstance(error, grpc.RpcError) and type(error) is not Exception:
                raise
        way.queue.put(None)

    def close(self):
        self.grpc.stop(0).wait()
