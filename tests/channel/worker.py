"""An agent written by the proto alone: all that it knows of the platform stands in task_channel_service.proto.

It runs commands of a small allow-list. As a program:

    python worker.py --endpoint HOST:PORT --ca FILE --key-file FILE [--history FILE] [--slots N] [--label KEY=VALUE]…

A test that wants it to misbehave overrides on_MESSAGE or what it says, in a subclass.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import uuid
from pathlib import Path

import google_crc32c
import grpc
from devopsgenie.v1 import task_channel_service_pb2 as pb
from devopsgenie.v1 import task_channel_service_pb2_grpc as rpc
from devopsgenie.v1 import task_service_pb2 as tasks
from google.protobuf.duration_pb2 import Duration
from history import Recorder

COMMANDS = {"echo": ["echo"], "sleep": ["sleep"], "script": ["sh", "-c"]}
LOG_BUFFER = 1 << 20  # what a command has said and the platform has not; it waits when there is more


class Log:
    """One part of an attempt's log. `data` begins at offset `acked`."""

    def __init__(self):
        self.data, self.acked, self.sent, self.eof, self.told = bytearray(), 0, 0, False, False

    end = property(lambda self: self.acked + len(self.data))
    done = property(lambda self: self.eof and self.told and not self.data)

    def acknowledged(self, offset):
        offset = min(max(offset, self.acked), self.end)
        del self.data[: offset - self.acked]
        self.acked, self.sent = offset, max(offset, self.sent)


class Attempt:
    def __init__(self, offer):
        self.name = {"task": offer.task, "attempt": offer.attempt, "fence": offer.fence}
        self.offer, self.leased, self.cancelled = offer, time.monotonic(), None
        self.logs = {tasks.STDOUT: Log(), tasks.STDERR: Log()}
        self.work = self.child = self.result = None
        self.effects, self.known, self.stopped, self.room = {}, False, False, asyncio.Event()


class Session:
    """One stream, from Hello to its end. `stands` is True with Welcome, False where none comes."""

    def __init__(self, worker, number):
        self.worker, self.number, self.seq, self.seen = worker, number, 0, 0
        self.out, self.renewals, self.welcome = asyncio.Queue(), {}, None
        self.stands, self.move = asyncio.get_running_loop().create_future(), asyncio.Event()
        self.said_time = self.heard_time = self.renew_time = time.monotonic()

    def say(self, **part):
        """Numbers are given here, not when it is written: Credits go with what was seen when they were counted."""
        self.seq += 1
        message = pb.WorkerMessage(seq=self.seq, ack_seq=self.seen, **part)
        self.last_message = message
        self.out.put_nowait(message)
        self.said_time = time.monotonic()
        self.worker.record("said", session=self.number, message=message)
        return self.seq

    async def run(self):
        credentials = grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(self.worker.ca), grpc.access_token_call_credentials(self.worker.key)
        )
        async with grpc.aio.secure_channel(self.worker.endpoint, credentials) as channel:
            self.call = rpc.TaskChannelServiceStub(channel).Connect(timeout=None)
            self.listed = self.worker.hello(self)
            writer = asyncio.create_task(self.write())
            try:
                async for message in self.call:
                    self.hear(message)
                self.worker.record("ended", session=self.number, code="OK", reason="")
            except grpc.RpcError as error:
                self.worker.record("ended", session=self.number, code=error.code().name, reason=error.details())
            finally:
                writer.cancel()
                self.move.set()
                self.stands.done() or self.stands.set_result(False)

    async def write(self):
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while message := await self.out.get():
                await self.call.write(message)
            await self.call.done_writing()

    def hear(self, message):
        self.heard_time = time.monotonic()
        if message.seq <= self.seen:
            return
        self.seen, part = message.seq, message.WhichOneof("part")
        self.worker.record("heard", session=self.number, message=message)
        if part == "welcome":
            self.welcome = message.welcome
        if part and (handler := getattr(self.worker, "on_" + part, None)):
            handler(self, getattr(message, part))


class Worker:
    session_kind = Session

    def __init__(self, endpoint, ca, key_file, *, slots=4, labels=(), version="python", record=lambda what, **_: None):
        self.endpoint, self.ca, self.key_file = endpoint, Path(ca).read_bytes(), Path(key_file)
        self.key = self.key_file.read_text().strip()
        self.slots, self.labels, self.version, self.record = slots, dict(labels), version, record
        self.instance, self.token, self.last_seen, self.sessions = str(uuid.uuid4()), "", 0, 0
        self.attempts, self.session, self.leaving, self.wait, self.window = {}, None, False, None, 0

    # --- Streams ---

    async def run(self):
        ticking, failures, old = asyncio.create_task(self.tick()), 0, None
        while not self.leaving:
            self.sessions, self.wait = self.sessions + 1, None
            session = self.session_kind(self, self.sessions)
            running = asyncio.create_task(session.run())
            done, _ = await asyncio.wait([session.stands], timeout=20)
            if old:  # a draining platform's stream ends when the new one stands
                old.out.put_nowait(None)
            if done and session.stands.result():
                failures, old = 0, session
                await session.move.wait()
            else:
                failures, old = failures + 1, None
                running.cancel()
            if self.session is session and running.done():
                self.session, old = None, None
            if self.wait is None:  # else the platform has said when
                self.wait = random.uniform(0, min(5, 0.1 * 2**failures))
            if not self.leaving:
                await asyncio.sleep(self.wait)
        ticking.cancel()

    def hello(self, session):
        listed = list(self.attempts.values())
        running = [pb.RunningTask(**a.name, result_pending=a.result is not None) for a in listed]
        session.say(hello=pb.Hello(
            protocol_versions=[1], instance_id=self.instance, session_token=self.token, last_seen_seq=self.last_seen,
            labels=self.labels, kinds=[tasks.COMMAND], version=self.version, running=running,
        ))  # fmt: skip
        return listed

    def say(self, **part):
        """Nothing where there is no stream: what matters is said again when one stands."""
        return self.session.say(**part) if self.session else None

    def credits(self):
        free = self.slots - sum(not attempt.known for attempt in self.attempts.values())
        self.say(credits=pb.Credits(free=[pb.KindCredits(kind=tasks.COMMAND, free=max(0, free))]))

    async def tick(self):
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if (session := self.session) and (welcome := session.welcome):
                self.last_seen = session.seen
                if now - session.heard_time > welcome.silence_limit.ToTimedelta().total_seconds():
                    session.call.cancel()
                if now - session.renew_time > welcome.renew_interval.ToTimedelta().total_seconds():
                    self.renew(session, now)
                if now - session.said_time > welcome.heartbeat_interval.ToTimedelta().total_seconds() * 0.8:
                    session.say(heartbeat=pb.Heartbeat())
                self.send_logs()
            for attempt in list(self.attempts.values()):
                if attempt.cancelled and not attempt.stopped and attempt.child and attempt.child.returncode is not None:
                    self.say_stopped(attempt)
                if attempt.work and not attempt.result and now - attempt.leased > 0.8 * self.lease:
                    self.stop(attempt, "its lease has lapsed")

    def renew(self, session, now):
        session.renew_time = now
        running = [attempt for attempt in self.attempts.values() if attempt.work and not attempt.known]
        if running:
            names = [pb.LeasedTask(**attempt.name) for attempt in running]
            session.renewals[session.say(lease_renew=pb.LeaseRenew(tasks=names))] = (now, running)

    # --- What the platform says ---

    def on_welcome(self, session, welcome):
        self.session, self.token, self.window = session, welcome.session_token, welcome.log_window_bytes
        self.lease = welcome.lease.ToTimedelta().total_seconds()
        for attempt, disposition in zip(session.listed, welcome.dispositions, strict=True):
            for at in disposition.log_offsets:
                attempt.logs[at.stream].acknowledged(at.offset)
            if disposition.decision == pb.Disposition.OFFERED:
                self.say(task_ack=pb.TaskAck(**attempt.name))
            elif disposition.decision == pb.Disposition.RESULT_KNOWN:
                attempt.known = True
            elif disposition.decision == pb.Disposition.CONTINUE:  # perhaps its StartGrant was lost
                attempt.leased = session.said_time
                attempt.work = attempt.work or asyncio.create_task(self.do(attempt))
            else:
                self.stop(attempt, "the platform does not want it")
        self.credits()
        if self.leaving:  # it was asked to while it said Hello
            self.leave()
        for attempt in list(self.attempts.values()):
            for log in attempt.logs.values():
                log.sent, log.told = log.acked, False
            for key, reference in attempt.effects.items():
                self.say(side_effect=pb.SideEffect(**attempt.name, key=key, reference=reference))
            if attempt.result and not attempt.known:
                self.say(result=attempt.result)
        self.send_logs()
        session.stands.done() or session.stands.set_result(True)

    def on_task_assign(self, session, offer):
        if offer.payload.command.name not in COMMANDS:
            session.say(task_reject=pb.TaskReject(
                task=offer.task, attempt=offer.attempt, fence=offer.fence, reason="COMMAND_NOT_ALLOWED", permanent=True
            ))  # fmt: skip
            return self.credits()
        attempt = self.attempts[offer.task, offer.attempt] = Attempt(offer)
        session.say(task_ack=pb.TaskAck(**attempt.name))

    def on_start_grant(self, session, grant):
        attempt = self.attempts.get((grant.task, grant.attempt))
        if attempt and attempt.offer.fence == grant.fence and not attempt.work:
            attempt.work = asyncio.create_task(self.do(attempt))

    def on_lease_ack(self, session, ack):
        sent, attempts = session.renewals.pop(ack.renew_seq, (0, []))
        for attempt in attempts:
            attempt.leased = max(attempt.leased, sent)

    def on_lease_lost(self, session, lost):
        if attempt := self.attempts.get((lost.task, lost.attempt)):
            self.stop(attempt, lost.reason)

    def on_side_effect_ack(self, session, ack):
        if attempt := self.attempts.get((ack.task, ack.attempt)):
            attempt.effects.pop(ack.key, None)

    def on_log_ack(self, session, ack):
        self.window = ack.window
        if not (attempt := self.attempts.get((ack.task, ack.attempt))):
            return
        log = attempt.logs[ack.stream]
        log.acknowledged(ack.next_offset)
        if ack.problem in (pb.LogAck.FULL, pb.LogAck.FENCED):
            log.acknowledged(log.end)
            log.told = True
        elif ack.problem:
            log.sent, log.told = log.acked, False
        attempt.room.set()
        self.forget_if_done(attempt)
        self.send_logs()

    def on_result_ack(self, session, ack):
        attempt = self.attempts.get((ack.task, ack.attempt))
        if attempt and attempt.result:
            attempt.known = True
            if ack.status == pb.ResultAck.FENCED:
                self.stop(attempt, "its result does not count")
            self.forget_if_done(attempt)
            self.credits()

    def on_cancel(self, session, cancel):
        attempt = self.attempts.get((cancel.task, cancel.attempt))
        answer, fresh = tasks.TaskCancellation.STOPPING, False
        if not attempt or attempt.result or not attempt.work:
            answer = tasks.TaskCancellation.TOO_LATE
        else:
            fresh = attempt.cancelled is None or attempt.cancelled.mode != cancel.mode
            attempt.cancelled = cancel
        session.say(
            cancel_ack=pb.CancelAck(task=cancel.task, attempt=cancel.attempt, fence=cancel.fence, answer=answer)
        )
        if fresh and attempt.child:
            self.terminate(attempt)

    def on_key_offer(self, session, offer):
        self.key = offer.key
        self.key_file.write_text(offer.key)

    def on_superseded(self, session, superseded):
        for attempt in list(self.attempts.values()):
            self.stop(attempt, "superseded")
        self.wait = 5

    def on_retry_later(self, session, later):
        self.wait = later.after.ToTimedelta().total_seconds()

    def on_drain(self, session, drain):
        self.wait = drain.reconnect_in.ToTimedelta().total_seconds()
        session.move.set()

    # --- Attempts ---

    async def do(self, attempt):
        """Runs the command, and says how it went."""
        command = attempt.offer.payload.command
        self.record("began", **attempt.name)
        attempt.child = await asyncio.create_subprocess_exec(
            *COMMANDS[command.name], *command.arguments, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        if attempt.cancelled:
            self.terminate(attempt)
        key, reference = f"process-{attempt.offer.attempt}", str(attempt.child.pid)
        attempt.effects[key] = reference
        self.say(side_effect=pb.SideEffect(**attempt.name, key=key, reference=reference))
        self.say(progress=pb.Progress(**attempt.name, percent=10, step="started"))
        parts = ((tasks.STDOUT, attempt.child.stdout), (tasks.STDERR, attempt.child.stderr))
        await asyncio.gather(*(self.read(attempt, stream, pipe) for stream, pipe in parts))
        status, stopped = await attempt.child.wait(), attempt.cancelled is not None
        self.record("stopped", **attempt.name)
        outcome = pb.Result.CANCELLED if stopped else pb.Result.FAILED if status else pb.Result.SUCCEEDED
        attempt.result = pb.Result(
            **attempt.name, result_id=str(uuid.uuid4()), status=outcome, outputs={"exit_status": str(status)},
            log_offsets=[pb.LogOffset(stream=stream, offset=log.end) for stream, log in attempt.logs.items()],
            retry_after=Duration(seconds=1),
        )  # fmt: skip
        if outcome == pb.Result.FAILED:
            attempt.result.failure.reason, attempt.result.failure.permanent = "COMMAND_FAILED", status == 3
        if stopped:
            self.say_stopped(attempt)
        self.say(result=attempt.result)
        self.send_logs()

    async def read(self, attempt, stream, pipe):
        log = attempt.logs[stream]
        while data := await pipe.read(LOG_BUFFER // 4):
            self.record("wrote", **attempt.name, stream=tasks.LogStream.Name(stream), data=data)
            log.data += data
            self.send_logs()
            while len(log.data) > LOG_BUFFER:
                attempt.room.clear()
                await attempt.room.wait()
        log.eof = True

    def send_logs(self):
        """As much as the window holds; logs of attempts that have ended too."""
        if not self.session:
            return
        flying = sum(log.sent - log.acked for attempt in self.attempts.values() for log in attempt.logs.values())
        for attempt in self.attempts.values():
            for stream, log in attempt.logs.items():
                while not log.told and (log.sent < log.end or log.eof):
                    at = log.sent - log.acked
                    data = bytes(log.data[at : at + self.session.welcome.max_log_chunk_bytes])
                    if flying + len(data) > self.window:
                        return
                    log.sent, flying = log.sent + len(data), flying + len(data)
                    log.told = log.eof and log.sent == log.end
                    self.say(log_chunk=pb.LogChunk(
                        **attempt.name, stream=stream, offset=log.sent - len(data), data=data,
                        crc32c=google_crc32c.value(data), eof=log.told,
                    ))  # fmt: skip

    def say_stopped(self, attempt):
        """Once it is true, though its log may still wait for room."""
        attempt.stopped = True
        self.say(cancel_ack=pb.CancelAck(**attempt.name, answer=tasks.TaskCancellation.STOPPED))

    def terminate(self, attempt):
        cancel = attempt.cancelled
        with contextlib.suppress(ProcessLookupError):
            if cancel.mode == tasks.TaskCancellation.FORCED:
                return attempt.child.kill()
            attempt.child.terminate()
        asyncio.get_running_loop().call_later(cancel.grace.ToTimedelta().total_seconds(), self.kill, attempt)

    def kill(self, attempt):
        if attempt.child and attempt.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                attempt.child.kill()

    def stop(self, attempt, why):
        """It is the worker's no longer: ends what it does, and says nothing more of it."""
        self.kill(attempt)
        if attempt.work and not attempt.result:
            attempt.work.cancel()
            self.record("stopped", **attempt.name, why=why)
        self.attempts.pop((attempt.offer.task, attempt.offer.attempt), None)
        self.credits()

    def forget_if_done(self, attempt):
        if attempt.known and all(log.done for log in attempt.logs.values()):
            self.attempts.pop((attempt.offer.task, attempt.offer.attempt), None)

    def leave(self):
        self.leaving = True
        if self.session:
            self.say(goodbye=pb.Goodbye(reason="asked to"))
            self.session.out.put_nowait(None)


def main(kind=Worker):
    parser = argparse.ArgumentParser()
    for name in ("--endpoint", "--ca", "--key-file"):
        parser.add_argument(name, required=True)
    parser.add_argument("--history")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    random.seed(options.seed)

    async def live():
        record = Recorder(options.history) if options.history else None
        worker = kind(
            options.endpoint, options.ca, options.key_file, slots=options.slots,
            labels=[label.split("=", 1) for label in options.label], version=f"pid-{os.getpid()}",
        )  # fmt: skip
        if record:
            worker.record = lambda what, **fields: record(what, who=worker.instance, **fields)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.leave)
        await worker.run()

    asyncio.run(live())


if __name__ == "__main__":
    sys.exit(main())
