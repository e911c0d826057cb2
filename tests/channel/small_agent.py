"""An agent for COMMAND tasks, whole, by the comments of task_channel_service.proto alone: a start for one of your own.

    small_agent.py HOST:PORT CA-FILE KEY-FILE FOLDER SLOTS 'NAME PATTERN PROGRAM ARGUMENT…' …

Each of a task's arguments has to match the pattern. SIGTERM: it ends what it has, and goes. FOLDER outlives a kill -9.
"""

import os, queue, random, re, shlex, shutil, signal, subprocess, sys, threading, types, uuid  # noqa: E401
from pathlib import Path
from time import monotonic as now, sleep

import grpc
from devopsgenie.v1.task_channel_service_pb2 import Disposition, LogAck, Result, WorkerMessage
from devopsgenie.v1.task_channel_service_pb2_grpc import TaskChannelServiceStub
from devopsgenie.v1.task_service_pb2 import COMMAND, STDOUT, TaskCancellation
from google_crc32c import value as crc32c


class Agent:
    def __init__(self, endpoint, ca_file, key_file, folder, slots, *allowed):
        self.endpoint, self.ca = endpoint, grpc.ssl_channel_credentials(Path(ca_file).read_bytes())
        self.key = [("x-api-key", Path(key_file).read_text().strip())]
        self.folder, self.slots, self.attempts, self.lock = Path(folder), int(slots), {}, threading.Lock()
        self.allowed = {name: (pattern, argv) for name, pattern, *argv in map(shlex.split, allowed)}
        self.instance, self.token, self.failures, self.welcome, self.leaving = str(uuid.uuid4()), "", 0, None, False
        self.silence, self.deaf_at = 30, float("inf")
        for path in self.folder.glob("*/result"):
            self.add(r := Result.FromString(path.read_bytes()), result=r, log=open(path.with_name("log"), "rb"))

    def add(self, about, **more):
        id = {"task": about.task, "attempt": about.attempt, "fence": about.fence}
        folder = self.folder / f"{about.task.rpartition('/')[2]}-{about.attempt}"
        a = types.SimpleNamespace(id=id, folder=folder, process=None, why="", log_offset=0, said=False, **more)
        return self.attempts.setdefault((about.task, about.attempt), a)

    def end(self, a, why, **outputs):
        status = {"": Result.SUCCEEDED, "CANCELLED": Result.CANCELLED}.get(why, Result.FAILED)
        failure = {"reason": why} if status == Result.FAILED else None
        a.result = Result(**a.id, result_id=str(uuid.uuid4()), status=status, failure=failure, outputs=outputs)
        (a.folder / "new").write_bytes(a.result.SerializeToString())
        (a.folder / "new").rename(a.folder / "result")

    def say(self, **part):
        if self.welcome or "hello" in part:  # where no stream stands: what matters is said again
            self.seq += 1
            self.out.put(WorkerMessage(seq=self.seq, ack_seq=self.seen, **part))

    def turn(self):
        for a in list(self.attempts.values()):
            if a.process and now() >= min(a.kill_at, self.leased + self.lease):
                a.why = a.why or ("TIME_LIMIT" if now() >= a.kill_at else "LEASE_LOST")
                os.killpg(a.process.pid, signal.SIGKILL)
            if a.process and (code := a.process.poll()) is not None:
                a.process = None
                self.end(a, a.why or ("COMMAND_FAILED" if code else ""), exit_status=str(code))
            if a.why == "FORGET" and not a.process:
                del self.attempts[a.id["task"], a.id["attempt"]]
                shutil.rmtree(a.folder, ignore_errors=True)
            elif self.welcome and a.log and not a.said:  # a piece of the log at a time, and behind the last the result
                if data := os.pread(a.log.fileno(), self.piece, a.log_offset):
                    self.say(log_chunk=dict(a.id, stream=STDOUT, offset=a.log_offset, data=data, crc32c=crc32c(data)))
                elif not a.process:
                    self.say(result=a.result)
                a.said = data or not a.process
        if self.welcome and self.free != (free := 0 if self.leaving else self.slots - len(self.attempts)):
            self.free = free
            self.say(credits={"free": [{"kind": COMMAND, "free": free}]})
        if self.welcome and now() >= self.beat_at:
            self.beat_at, self.renewed_at, self.renewal = now() + self.beat, now(), self.seq + 1
            self.say(lease_renew={"tasks": [a.id for a in self.attempts.values() if a.log]})
            self.say(heartbeat={})
        if now() >= self.deaf_at:
            self.call.cancel()

    def hear(self, part, m):
        a = self.attempts.get((getattr(m, "task", ""), getattr(m, "attempt", 0)))
        if part == "welcome":
            self.welcome, self.token, self.failures, self.free, self.beat_at = m, m.session_token, 0, 0, now()
            self.beat, self.leased = min(m.heartbeat_interval.ToSeconds(), m.renew_interval.ToSeconds()), self.hello_at
            self.piece = min(m.max_log_chunk_bytes, m.log_window_bytes // self.slots)  # so that all have room at once
            self.lease, self.silence = 0.8 * m.lease.ToSeconds(), m.silence_limit.ToSeconds()
            for d in m.dispositions:
                a = self.attempts[d.task, d.attempt]
                a.said, a.log_offset = False, sum(log.offset for log in d.log_offsets)
                if d.decision == Disposition.OFFERED:
                    self.say(task_ack=a.id)
                else:
                    self.hear("start_grant" if d.decision == Disposition.CONTINUE else "lease_lost", d)
        elif part == "task_assign":
            self.free -= 1
            pattern, argv = self.allowed.get(m.payload.command.name, ("", []))
            if argv and all(re.fullmatch(pattern, word) for word in m.payload.command.arguments):
                self.say(task_ack=self.add(m, command=m.payload.command, log=None).id)
            else:
                id = {"task": m.task, "attempt": m.attempt, "fence": m.fence}
                self.say(task_reject=dict(id, reason="COMMAND_NOT_ALLOWED", permanent=True))
        elif part == "start_grant" and a and not a.log:
            a.folder.mkdir()
            log = a.log = open(a.folder / "log", "w+b")
            self.end(a, "AGENT_RESTARTED")  # until there is another
            a.kill_at = now() + (a.command.time_limit.ToSeconds() or 600)
            argv = ["setpriv", "--pdeathsig=KILL", *self.allowed[a.command.name][1], *a.command.arguments]
            a.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        elif part == "lease_ack" and m.renew_seq == self.renewal:
            self.leased = self.renewed_at
        elif part == "log_ack" and a:
            a.said, a.log_offset = False, m.next_offset if m.problem != LogAck.FULL else a.log_offset + self.piece
        elif part in ("lease_lost", "result_ack") and a:
            a.why, a.kill_at = "FORGET", 0
        elif part == "cancel" and a and a.process:  # else its result has been said, or will be
            a.why, a.kill_at = "CANCELLED", min(a.kill_at, now() + m.grace.ToSeconds())
            os.killpg(a.process.pid, signal.SIGKILL if m.mode == TaskCancellation.FORCED else signal.SIGTERM)
            self.say(cancel_ack=dict(a.id, answer=TaskCancellation.STOPPING))
        elif part == "superseded":
            os._exit(1)  # its commands die with it
        elif part in ("retry_later", "drain"):
            self.pause = (m.after if part == "retry_later" else m.reconnect_in).ToSeconds()
            self.out.put(None)

    def streams(self):
        while True:
            with self.lock:
                self.seq, self.seen, self.pause, self.out = 0, 0, None, queue.SimpleQueue()
                self.hello_at, self.deaf_at = now(), now() + self.silence
                has = [dict(a.id, result_pending=bool(a.log and not a.process)) for a in self.attempts.values()]
                self.say(hello=dict(protocol_versions=[1], instance_id=self.instance, session_token=self.token,
                                    kinds=[COMMAND], version="small_agent.py", running=has))  # fmt: skip
            with grpc.secure_channel(self.endpoint, self.ca) as channel:
                self.call = TaskChannelServiceStub(channel).Connect(iter(self.out.get, None), metadata=self.key)
                try:
                    for m in self.call:
                        with self.lock:
                            self.seen, part, self.deaf_at = m.seq, m.WhichOneof("part"), now() + self.silence
                            self.hear(part, getattr(m, part or "seq"))
                except grpc.RpcError as error:
                    print(error.code().name, error.details(), file=sys.stderr, flush=True)
            self.out.put(None)
            self.welcome, self.failures = None, self.failures + 1
            sleep(random.uniform(0, min(30, 2**self.failures)) if self.pause is None else self.pause + random.random())


agent = Agent(*sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: setattr(agent, "leaving", True))
threading.Thread(target=agent.streams, daemon=True).start()
while agent.attempts or not agent.leaving:
    with agent.lock:
        agent.turn()
    sleep(0.05)
agent.say(goodbye={"reason": "SIGTERM"})
sleep(1)
