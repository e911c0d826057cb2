"""What fault tests are made of: workers in processes of their own, a proxy, a second replica, a PostgreSQL that may
die, and one history of it all.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
from calls import until
from genied import BUILD, ROOT, Genied, free_port, run
from history import Recorder, check, plain, read
from relay import Relay

HERE = Path(__file__).resolve().parent


class Process:
    """An agent as a process: the Python worker, or any program that is started the same way."""

    def __init__(self, command, environment, key_file, log):
        self.key_file, self.log = key_file, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)

    def signal(self, number):
        """To all that it started too: a machine that sleeps sleeps as a whole."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def alive(self):
        return self.process.poll() is None

    def wait(self, seconds=30):
        return self.process.wait(seconds)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()


class Workers:
    """Starts workers for agents, and ends what is left of them."""

    def __init__(self, folder, stubs, record=None):
        self.folder, self.started, self.record = Path(folder), [], record
        self.environment = {**os.environ, "PYTHONPATH": f"{stubs}:{HERE}", "GRPC_ENABLE_FORK_SUPPORT": "0"}
        self.history = self.folder / "history.jsonl"

    def __call__(self, agent, *options, endpoint=None, key=None, program="worker.py"):
        number = len(self.started)
        key_file, log = self.folder / f"key-{number}", self.folder / f"worker-{number}.log"
        key_file.write_text(key or agent.key)
        command = [
            sys.executable, HERE / program, "--endpoint", endpoint or agent.server.endpoint,
            "--ca", agent.server.ca_file, "--key-file", key_file, "--history", self.history, *options,
        ]  # fmt: skip
        self.started.append(Process([str(word) for word in command], self.environment, key_file, log))
        return self.started[-1]

    def close(self):
        for worker in self.started:
            if worker.alive():
                worker.kill()
        noise = "".join(worker.log.read_text() for worker in self.started)
        assert "Traceback" not in noise, noise


class GenieAgents:
    """Starts genie-agents, and ends them in order. What they and the platform say is noted by a relay between them, and
    what their commands do by the commands (marked.py)."""

    def __init__(self, folder, v1):
        self.folder, self.v1, self.started, self.relays = Path(folder), v1, [], {}
        self.history = self.folder / "history.jsonl"

    def front(self, server, endpoint, unruly=None):
        """Where to dial so that what is said with the endpoint is noted."""
        if endpoint not in self.relays:
            self.relays[endpoint] = Relay(self.v1, server, endpoint, self.history, unruly)
        return self.relays[endpoint].endpoint

    def __call__(self, agent, name, *, endpoint, slots, state, environment=None):
        config, key_file, log = (self.folder / f"{what}-{name}" for what in ("config", "key", "agent.log"))
        key_file.write_text(agent.key)
        command = [sys.executable, "-I", "-S", str(HERE / "marked.py"), str(self.history)]
        config.write_text(json.dumps({
            "endpoint": endpoint, "ca-file": str(agent.server.ca_file), "key-file": str(key_file),
            "state-directory": str(state), "labels": {"process": name}, "command-slots": slots,
            "superseded-delay-ms": 4000, "log-spool-bytes": 1 << 20, "log-level": "debug",
            "commands": {"script": {"argv": command, "arguments": [".*", ".*"], "environment": ["PATH"]}},
        }))  # fmt: skip
        command = [BUILD / "tools/genie-agent/genie-agent", "run", "--config", config]
        self.started.append(Process(command, {**os.environ, **(environment or {})}, key_file, log))
        return self.started[-1]

    def close(self):
        living = [agent for agent in self.started if agent.alive()]
        for agent in living:
            agent.signal(signal.SIGTERM)
        statuses = [agent.wait() for agent in living]
        for relay in self.relays.values():
            relay.close()
        noise = "".join(agent.log.read_text(errors="replace") for agent in self.started)
        assert not any(statuses) and "Sanitizer" not in noise, f"{statuses}\n{noise[-6000:]}"


class Replica(Genied):
    """Another genied of the same database, keys and certificates."""

    def __init__(self, first, folder, *options):
        self.folder, self.options, self.process = first.folder, options or first.options, None
        self.endpoint, self.log = f"127.0.0.1:{free_port()}", Path(folder) / "genied.log"
        self.database, self.ca_file, self.signing_key = first.database, first.ca_file, first.signing_key
        self.environment = first.environment

    def close(self):
        if self.process and self.process.poll() is None:
            self.stop()


class Clock:
    """A wall clock for programs that are started with its environment. set() makes it so many seconds fast."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="genie-clock."))
        self.folder.chmod(0o755)  # for PostgreSQL's user too
        library, self.file = self.folder / "shift_clock.so", self.folder / "shift"
        run("cc", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-o", library, HERE / "shift_clock.c")
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self.file),
            "ASAN_OPTIONS": ":".join(filter(None, ("verify_asan_link_order=0", os.environ.get("ASAN_OPTIONS")))),
        }  # fmt: skip

    def set(self, seconds):
        with open(self.file, "r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def close(self):
        shutil.rmtree(self.folder)


class Postgres:
    """A PostgreSQL of the test's own, that keeps what it acknowledged through kill -9: synchronous_commit is on. (fsync
    is off: the kernel outlives it. A kill may tear a page that is being written, so they are in the WAL whole.) It goes
    by a clock of its own."""

    def __init__(self, folder):
        self.folder, self.clock = Path(folder), Clock()
        self.folder.chmod(0o711)
        self.start()

    def bash(self, command, **environment):
        script = f"set -euo pipefail; cd {ROOT}; . tools/lib/common.sh; . tools/lib/postgres.sh; {command}"
        done = subprocess.run(
            ["bash", "-c", script, "postgres"], text=True, capture_output=True, check=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        return done.stdout.strip()

    def start(self):
        self.url = self.bash(
            f"postgres_start {self.folder} 'fsync = off'; postgres_url postgres postgres",
            **self.clock.environment,
        )

    def pid(self):
        return int((self.folder / "postgres/data/postmaster.pid").read_text().split()[0])

    def children(self):
        return [int(p) for p in Path(f"/proc/{self.pid()}/task/{self.pid()}/children").read_text().split()]

    def kill(self):
        """The whole of it, as a machine's power does, but for the kernel."""
        pids = [self.pid(), *self.children()]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        (self.folder / "postgres/data/postmaster.pid").unlink(missing_ok=True)

    def stop(self):
        self.bash(f"postgres_place {self.folder}; postgres_stop")
        self.clock.close()


class Proxy:
    """A TCP proxy to a server. `mode` may change at any time, for all connections:

    "pass"; "up" or "down": only this direction passes; "stall": nothing does; "slow": a few kB a second; and cut() ends
    every connection at once.
    """

    def __init__(self, target):
        self.target, self.mode, self.open = target, "pass", set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self.run(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.endpoint = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def serve(self, reader, writer):
        host, _, port = self.target.partition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return writer.close()
        pair = (writer, far_writer)
        self.open.add(pair)
        ways = [
            asyncio.ensure_future(self.pump(reader, far_writer, "up")),
            asyncio.ensure_future(self.pump(far_reader, writer, "down")),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if self.mode in ("pass", "slow"):
            self.end(pair)
        else:  # one who looks through a dead line does not see the other's end
            await asyncio.wait(ways)
            self.end(pair)

    async def pump(self, reader, writer, way):
        try:
            while data := await reader.read(4096 if self.mode == "slow" else 1 << 16):
                while self.mode not in ("pass", "slow", way):
                    await asyncio.sleep(0.02)
                if self.mode == "slow":
                    await asyncio.sleep(len(data) / 16384)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    def end(self, pair):
        self.open.discard(pair)
        for writer in pair:
            writer.transport.abort()

    def cut(self):
        async def cut():
            for pair in list(self.open):
                self.end(pair)

        self.run(cut())

    def close(self):
        self.mode = "pass"
        self.cut()
        self.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


class Observer:
    """Records a scene: calls of the API, what WatchTasks tells, and at the end all logs and rows. check() checks it."""

    def __init__(self, scene, path):
        self.scene, self.v1, self.path = scene, scene.v1, path
        self.record, self.over, self.tasks = Recorder(path), False, []
        self.token = scene.watch().token
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def call(self, method, request, seconds=60):
        """Calls, again for as long as nobody can answer; what was not answered may still have been done."""

        def attempt():
            try:
                answer = getattr(self.scene.tasks, method)(request, timeout=10)
                self.record("called", who="api", method=method, answer=plain(answer))
                return answer
            except grpc.RpcError as error:
                self.record("called", who="api", method=method, code=error.code().name)
                if error.code().name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise
                return None

        return until(attempt, seconds)

    def create(self, command, arguments, request_id, **fields):
        v1 = self.v1
        payload = v1.TaskPayload(command=v1.Command(name=command, arguments=arguments))
        request = v1.CreateTaskRequest(
            parent=self.scene.name, request_id=request_id, task=v1.Task(payload=payload, **fields)
        )
        self.tasks.append(self.call("CreateTask", request))
        if len(arguments) > 1:  # by which its commands know it
            self.record("made", who="api", job=arguments[1], task=self.tasks[-1].name)
        return self.tasks[-1]

    def cancel(self, task, mode=1, grace=1):
        try:
            return self.call(
                "CancelTask", self.v1.CancelTaskRequest(name=task.name, mode=mode, grace={"seconds": grace})
            )
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            return None

    def watch(self):
        state = self.v1.Task.State.Name
        while not self.over:
            try:
                request = self.v1.WatchTasksRequest(parent=self.scene.name, resume_token=self.token)
                for m in self.scene.tasks.WatchTasks(request):
                    self.token = m.resume_token
                    if m.HasField("event_time"):
                        before = state(m.from_state) if m.from_state else None
                        self.record("watched", who="watcher", task=m.task, from_state=before,
                                    to_state=state(m.to_state), attempt=m.attempt)  # fmt: skip
            except grpc.RpcError as error:
                if error.code().name not in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"):
                    self.record("watch_failed", who="watcher", code=error.code().name, reason=error.details())
                    return

    def settled(self, seconds=120):
        """Every task has ended; returns their states."""

        def ended():
            rows = self.scene.rows("tasks", "state")
            return all(r["state"] not in ("PENDING", "OFFERED", "RUNNING", "CANCELLING") for r in rows) and rows

        return [row["state"] for row in until(ended, seconds)]

    def told_all(self):
        """The watcher has caught up: it has told a task that is made last."""
        self.create("echo", ["the last"], "", labels={"nobody": "has this"})
        last = self.tasks[-1]
        self.cancel(last)
        until(lambda: any(
            e["what"] == "watched" and e["task"] == last.name and e["to_state"] == "CANCELLED" for e in read(self.path)
        ), 60)  # fmt: skip
        self.over = True

    def finish(self):
        """Writes down what the database has, and what logs are read."""
        self.told_all()
        v1, name = self.v1, f"'{self.scene.name}/tasks/' || t.task_id AS task"
        stream = "CASE stream WHEN 1 THEN 'STDOUT' ELSE 'STDERR' END AS stream"
        tables = {
            "tasks": (f"{name}, state, outputs", "1"),
            "task_attempts": (f"{name}, attempt, fence, outcome", "1, 2"),
            "task_effects": (f"{name}, key, reference", "1, 2"),
            "task_logs": (f"{name}, attempt, {stream}, log_offset, encode(data, 'base64') AS data", "1, 2, 3, 4"),
            "task_events": (
                f"{name}, from_state, to_state, attempt, position::text::bigint AS place, sequence", "place, sequence"
            ),
        }  # fmt: skip
        found = {table: self.scene.rows(table, columns, order=order) for table, (columns, order) in tables.items()}
        for row in found["task_attempts"]:
            for part in ("STDOUT", "STDERR"):
                request = v1.ReadTaskLogRequest(
                    name=row["task"], attempt=row["attempt"], stream=v1.LogStream.Value(part)
                )
                data = b"".join(piece.data for piece in self.scene.tasks.ReadTaskLog(request, timeout=30))
                self.record("read", who="api", task=row["task"], attempt=row["attempt"], stream=part,
                            data=base64.b64encode(data).decode())  # fmt: skip
        for table, rows in found.items():
            self.record("rows", table=table, rows=rows)
        return read(self.path)

    def check(self):
        events = self.finish()
        wrong = check(events)
        told = [json.dumps(e)[:300] for e in events if wrong and "task" in e and e["task"] in wrong[0]]
        assert not wrong, "\n".join([*wrong[:20], f"the history, {self.path}, of the first:", *told[-100:]])
