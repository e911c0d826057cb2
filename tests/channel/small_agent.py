"""An agent for COMMAND tasks, whole, by the comments of task_channel_service.proto alone: a start for one of your own.

    small_agent.py HOST:PORT CA-FILE KEY-FILE FOLDER SLOTS 'NAME PATTERN PROGRAM ARGUMENT…' …

A task's arguments follow the program's own; each has to match the pattern, whole. SIGTERM: it ends what it has, and goes. The
folder outlives a kill -9: of each attempt it has the log, and the result, which is AGENT_RESTARTED until there is another.
"""

import os, queue, random, re, shlex, shutil, signal, subprocess, sys, threading, uuid  # noqa: E401
from pathlib import Path
from time import monotonic as now
from time import sleep

import google_crc32c
import grpc
from devopsgenie.v1 import task_channel_service_pb2 as pb
from devopsgenie.v1.task_channel_service_pb2_grpc import TaskChannelServiceStub
from devopsgenie.v1.task_service_pb2 import COMMAND, STDOUT, TaskCancellation, TaskFailure

NEVER = float("inf")


class Attempt:
    def __init__(self, folder, about, argv=(), result=None):
        self.id = {"task": about.task, "attempt": about.attempt, "fence": about.fence}
        self.folder = folder / f"{about.task.rpartition('/')[2]}-{about.attempt}"
        self.offer, self.argv, self.process, self.why, self.kill_at = about, argv, None, "", 0
        self.result, self.log, self.log_offset, self.said = result, result and open(self.folder / "log", "rb"), 0, False

    def begin(self):
        self.folder.mkdir()
        self.log = open(self.folder / "log", "w+b")
        self.end("AGENT_RESTARTED")
        self.kill_at = now() + (self.offer.payload.command.time_limit.ToSeconds() or 600)
        command = ["setpriv", "--pdeathsig", "KILL", *self.argv]  # it dies with the agent
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        self.process = subprocess.Popen(command, **streams, start_new_session=True)

    def end(self, why, **outputs):
        status = {"": pb.Result.SUCCEEDED, "CANCELLED": pb.Result.CANCELLED}.get(why, pb.Result.FAILED)
        failure = TaskFailure(reason=why) if status == pb.Result.FAILED else None
        self.result = pb.Result(**self.id, result_id=str(uuid.uuid4()), status=status, failure=failure, outputs=outputs)
        (self.folder / "new").write_bytes(self.result.SerializeToString())
        (self.folder / "new").rename(self.folder / "result")


class Agent:
    def __init__(self, endpoint, ca_file, key_file, folder, slots, *allowed):
        self.endpoint, self.ca, self.key_file = endpoint, Path(ca_file).read_bytes(), Path(key_file)
        self.folder, self.slots, self.lock = Path(folder), int(slots), threading.Lock()
        self.allowed = {name: (pattern, argv) for name, pattern, *argv in map(shlex.split, allowed)}
        self.instance, self.token, self.failures, self.welcome, self.leaving = str(uuid.uuid4()), "", 0, None, False
        results = [pb.Result.FromString(path.read_bytes()) for path in self.folder.glob("*/result")]
        self.attempts = {(r.task, r.attempt): Attempt(self.folder, r, result=r) for r in results}
        self.seen, self.deaf_at, self.lease_end = 0, NEVER, 0

    def say(self, **part):
        if self.welcome or "hello" in part:  # where no stream stands: what matters is said again
            self.seq += 1
            self.out.put(pb.WorkerMessage(seq=self.seq, ack_seq=self.seen, **part))

    def look_after(self, a):
        if a.process and now() >= min(a.kill_at, self.lease_end):
            a.why = a.why or ("TIME_LIMIT" if now() >= a.kill_at else "LEASE_LOST")
            os.killpg(a.process.pid, signal.SIGKILL)
        if a.process and (code := a.process.poll()) is not None:
            a.process = None
            a.end(a.why or ("COMMAND_FAILED" if code else ""), exit_status=str(code))
        if a.why == "FORGET" and not a.process:
            del self.attempts[a.id["task"], a.id["attempt"]]
            shutil.rmtree(a.folder, ignore_errors=True)
        elif self.welcome and a.log and not a.said:  # a piece of the log at a time, and behind the last the result
            data = os.pread(a.log.fileno(), self.piece, a.log_offset)
            a.said, crc32c = bool(data) or not a.process, google_crc32c.value(data)
            if data:
                self.say(log_chunk=pb.LogChunk(**a.id, stream=STDOUT, offset=a.log_offset, data=data, crc32c=crc32c))
            elif not a.process:
                self.say(result=a.result)

    def turn(self):
        for a in list(self.attempts.values()):
            self.look_after(a)
        free = 0 if self.leaving else self.slots - len(self.attempts)
        if self.welcome and free != self.free:
            self.free = free
            self.say(credits=pb.Credits(free=[pb.KindCredits(kind=COMMAND, free=free)]))
        if self.welcome and now() >= self.beat_at:
            self.beat_at, self.renewed_at, self.renewal = now() + self.beat, now(), self.seq + 1
            self.say(lease_renew=pb.LeaseRenew(tasks=[pb.LeasedTask(**a.id) for a in self.attempts.values() if a.log]))
            self.say(heartbeat=pb.Heartbeat())
        if now() >= self.deaf_at:
            self.call.cancel()

    def hear(self, part, m):
        a = self.attempts.get((getattr(m, "task", ""), getattr(m, "attempt", 0)))
        if part == "welcome":
            self.welcome, self.token, self.failures, self.free, self.beat_at = m, m.session_token, 0, 0, now()
            self.lease, self.beat = m.lease.ToSeconds(), min(m.heartbeat_interval.ToSeconds(), m.renew_interval.ToSeconds())
            self.lease_end, self.piece = self.hello_at + 0.8 * self.lease, min(m.max_log_chunk_bytes, m.log_window_bytes // self.slots)
            for d in m.dispositions:
                a = self.attempts[d.task, d.attempt]
                a.said, a.log_offset = False, sum(offset.offset for offset in d.log_offsets)
                if d.decision == pb.Disposition.OFFERED:
                    self.say(task_ack=pb.TaskAck(**a.id))
                elif d.decision != pb.Disposition.CONTINUE:
                    a.why, a.kill_at = "FORGET", 0
                elif not a.log:
                    a.begin()
        elif part == "task_assign":
            self.free -= 1
            pattern, argv = self.allowed.get(m.payload.command.name, ("", []))
            a = Attempt(self.folder, m, argv + list(m.payload.command.arguments))
            if argv and all(re.fullmatch(pattern, word) for word in m.payload.command.arguments):
                self.attempts[m.task, m.attempt] = a
                self.say(task_ack=pb.TaskAck(**a.id))
            else:
                self.say(task_reject=pb.TaskReject(**a.id, reason="COMMAND_NOT_ALLOWED", permanent=True))
        elif part == "start_grant" and a and not a.log:
            a.begin()
        elif part == "lease_ack" and m.renew_seq == self.renewal:
            self.lease_end = self.renewed_at + 0.8 * self.lease
        elif part == "log_ack" and a:
            a.said, a.log_offset = False, m.next_offset if m.problem != m.FULL else a.log_offset + self.piece
        elif part in ("lease_lost", "result_ack") and a:
            a.why, a.kill_at = "FORGET", 0
        elif part == "cancel" and a and a.process:  # else its result has been said, or will be
            grace = 0 if m.mode == TaskCancellation.FORCED else m.grace.ToSeconds()
            a.why, a.kill_at = "CANCELLED", min(a.kill_at, now() + grace)
            os.killpg(a.process.pid, signal.SIGTERM)
            self.say(cancel_ack=pb.CancelAck(**a.id, answer=TaskCancellation.STOPPING))
        elif part == "superseded":  # its commands die with it
            os._exit(1)
        elif part == "retry_later":
            self.pause = m.after.ToSeconds()
        elif part == "drain":
            self.pause = 0
            threading.Timer(m.reconnect_in.ToSeconds(), self.out.put, [None]).start()  # half-closes

    def streams(self):
        """One after the other, each from its Hello on."""
        while True:
            with self.lock:
                last, self.seq, self.seen, self.out, self.pause = self.seen, 0, 0, queue.SimpleQueue(), None
                has = [pb.RunningTask(**a.id, result_pending=bool(a.log and not a.process)) for a in self.attempts.values()]
                self.say(hello=pb.Hello(
                    protocol_versions=[1], instance_id=self.instance, session_token=self.token, last_seen_seq=last,
                    kinds=[COMMAND], version="small_agent.py", running=has))  # fmt: skip
            with grpc.secure_channel(self.endpoint, grpc.ssl_channel_credentials(self.ca)) as channel:
                key = [("x-api-key", self.key_file.read_text().strip())]
                self.call = TaskChannelServiceStub(channel).Connect(iter(self.out.get, None), metadata=key)
                self.hello_at, self.deaf_at = now(), now() + 30
                try:
                    for m in self.call:
                        with self.lock:
                            self.seen, part = m.seq, m.WhichOneof("part")
                            self.hear(part, getattr(m, part or "seq"))
                            self.deaf_at = now() + (self.welcome.silence_limit.ToSeconds() if self.welcome else 30)
                except grpc.RpcError as error:
                    print(error.code().name, error.details(), file=sys.stderr, flush=True)
                self.deaf_at = NEVER
            with self.lock:
                self.welcome = self.out.put(None)
            self.failures += 1
            sleep(random.uniform(0, min(30, 2**self.failures)) if self.pause is None else self.pause + random.random())


if __name__ == "__main__":
    agent = Agent(*sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: setattr(agent, "leaving", True))
    threading.Thread(target=agent.streams, daemon=True).start()
    while agent.attempts or not agent.leaving:
        with agent.lock:
            agent.turn()
        sleep(0.05)
    agent.say(goodbye=pb.Goodbye(reason="SIGTERM"))
    sleep(1)
