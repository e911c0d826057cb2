"""What everybody said and did in a test, and the rules that must hold for it.

A history is a file of JSON lines, one an event, from any number of processes: each line is one write to a file opened
for appending, and times are of CLOCK_MONOTONIC, which all processes of a machine share. Every event has `t`, `what`
and, but for the database's rows, `who`:

    said, heard       a worker's message: session, seq, part, and its fields
    ended             a worker's stream: session, code, reason
    began, stopped    an attempt's work, as the worker does it: task, attempt, fence
    wrote             a piece of an attempt's log, as it was made: task, attempt, fence, stream, data
    killed            a worker's process that the test ended: what it would have said it does not say
    called            the API: method, request, and answer or code
    watched           a message of WatchTasks
    read              a log as ReadTaskLog gave it, whole: task, attempt, stream, data
    rows              a table at the end: table, rows

`check(events)` returns what is wrong, in words; an empty list is a good history.
"""

import base64
import collections
import itertools
import json
import os
import time

from google.protobuf.message import Message

ENDED = {"SUCCEEDED", "FAILED", "CANCELLED", "CANCEL_UNCONFIRMED", "DEAD"}
# The drawing in task_service.proto, RetryTask, and TaskReject.permanent.
EDGES = {
    (None, "PENDING"), ("PENDING", "OFFERED"), ("OFFERED", "RUNNING"), ("RUNNING", "SUCCEEDED"), ("RUNNING", "FAILED"),
    ("OFFERED", "PENDING"), ("RUNNING", "PENDING"), ("RUNNING", "DEAD"), ("PENDING", "CANCELLED"),
    ("OFFERED", "CANCELLED"), ("RUNNING", "CANCELLING"), ("CANCELLING", "CANCELLED"), ("CANCELLING", "SUCCEEDED"),
    ("CANCELLING", "FAILED"), ("CANCELLING", "CANCEL_UNCONFIRMED"), ("PENDING", "DEAD"), ("OFFERED", "FAILED"),
    ("FAILED", "PENDING"), ("CANCELLED", "PENDING"), ("CANCEL_UNCONFIRMED", "PENDING"), ("DEAD", "PENDING"),
}  # fmt: skip


# --- Recording ---


def plain(value, field=None):
    """A message, or a field's value, as JSON has it: enums by name, a log's bytes by their length."""
    if isinstance(value, Message):
        fields = [f for f in value.DESCRIPTOR.fields if not f.has_presence or value.HasField(f.name)]
        return {f.name: plain(getattr(value, f.name), f) for f in fields}
    if isinstance(value, bytes):
        return len(value)
    if hasattr(value, "items"):
        return dict(value)
    if hasattr(value, "append"):
        return [plain(element, field) for element in value]
    if field is not None and field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value


class Recorder:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, what, message=None, **fields):
        event = {"t": time.monotonic(), "what": what, **fields}
        if message is not None:
            part = message.WhichOneof("part")
            event |= {"seq": message.seq, "part": part, **(plain(getattr(message, part)) if part else {})}
        if isinstance(event.get("data"), bytes):
            event["data"] = base64.b64encode(event["data"]).decode()
        os.write(self.file, json.dumps(event).encode() + b"\n")

    def close(self):
        os.close(self.file)


def read(path):
    with open(path, encoding="utf-8") as lines:
        whole = (line for line in lines if line.endswith("\n"))  # the last may still be being written
        return sorted((json.loads(line) for line in whole), key=lambda event: event["t"])


# --- Checking ---


class History:
    """Events by what they are about."""

    def __init__(self, events):
        self.events, self.tables = events, collections.defaultdict(list)
        for event in self.of("rows"):
            self.tables[event["table"]] += event["rows"]
        self.tasks = {row["task"]: row for row in self.tables["tasks"]}
        self.attempts = {(row["task"], row["attempt"]): row for row in self.tables["task_attempts"]}
        self.changes = collections.defaultdict(list)
        for row in self.tables["task_events"]:
            self.changes[row["task"]].append(row)

    def of(self, what, part=None, **fields):
        for event in self.events:
            if event["what"] == what and (part is None or event.get("part") == part):
                if all(event.get(name) == value for name, value in fields.items()):
                    yield event

    def by(self, events, *names):
        groups = collections.defaultdict(list)
        for event in events:
            groups[tuple(event[name] for name in names)].append(event)
        return groups

    def log(self, task, attempt, stream):
        """What the database holds, and what is wrong with it."""
        rows = [
            r for r in self.tables["task_logs"] if (r["task"], r["attempt"], r["stream"]) == (task, attempt, stream)
        ]
        data = bytearray()
        for row in sorted(rows, key=lambda row: row["log_offset"]):
            if row["log_offset"] != len(data):
                return bytes(data), f"a piece at {row['log_offset']} where the log ends at {len(data)}"
            data += base64.b64decode(row["data"])
        return bytes(data), None


def accepted_results(history):
    """At most one accepted result for an attempt, and none after the one that ended the task."""
    said = {event["result_id"]: event for event in history.of("said", "result")}
    accepted = list(history.of("heard", "result_ack", status="ACCEPTED"))
    for (task, attempt), acks in history.by(accepted, "task", "attempt").items():
        if len(acks) > 1:
            yield f"{len(acks)} results of {task}, attempt {attempt}, were accepted"
    for (task,), acks in history.by(accepted, "task").items():
        numbers = sorted({ack["attempt"] for ack in acks})
        for before, after in itertools.pairwise(numbers):
            again = [c for c in history.changes[task] if before <= c["attempt"] < after and c["to_state"] == "PENDING"]
            if not again:
                yield f"results of attempts {before} and {after} of {task} were accepted, and it did not wait between"
        for ack in acks:
            result = said.get(ack["result_id"])
            if result is None:
                yield f"a result of {task} that nobody has said was accepted"
            elif result["status"] == "SUCCEEDED" and max(numbers) > ack["attempt"]:
                yield f"{task} succeeded with attempt {ack['attempt']}, and a result of a later one was accepted"


def grants(history):
    """Nothing starts with a fence that is dead: one that was lost, that a newer offer has followed, or none."""
    heard = list(history.of("heard"))
    for _, stream in history.by(heard, "who", "session").items():
        dead = set()
        newest = collections.defaultdict(int)
        for event in stream:
            if event["part"] == "lease_lost":
                dead.add((event["task"], event["attempt"], event["fence"]))
            elif event["part"] == "task_assign":
                newest[event["task"]] = max(newest[event["task"]], event["fence"])
            elif event["part"] == "start_grant":
                name = (event["task"], event["attempt"], event["fence"])
                if name in dead or event["fence"] < newest[event["task"]]:
                    yield f"a grant for the dead fence {event['fence']} of {event['task']}"
    for event in heard:
        if event["part"] == "start_grant":
            row = history.attempts.get((event["task"], event["attempt"]))
            if row is None or row["fence"] != event["fence"]:
                yield f"a grant for {event['task']}, attempt {event['attempt']}, that the database knows nothing of"
    fences = collections.defaultdict(set)
    for event in heard:
        if event["part"] == "task_assign":
            fences[event["task"]].add((event["attempt"], event["fence"]))
    for task, pairs in fences.items():
        for (one, fence), (other, later) in itertools.pairwise(sorted(pairs)):
            if one == other or fence >= later:
                yield f"attempts {one} and {other} of {task} have the fences {fence} and {later}"


def logs(history):
    """Byte for byte what was made, without a hole, and as long as was acknowledged."""
    made = history.by(history.of("wrote"), "task", "attempt", "stream")
    acks = history.by(history.of("heard", "log_ack"), "task", "attempt", "stream")
    stored = {(row["task"], row["attempt"], row["stream"]) for row in history.tables["task_logs"]}
    given = history.by(history.of("read"), "task", "attempt", "stream")
    for key in {*made, *acks, *stored, *given}:
        name = f"the log {key[2]} of {key[0]}, attempt {key[1]}"
        data, problem = history.log(*key)
        if problem:
            yield f"{name} has a hole: {problem}"
        whole = b"".join(base64.b64decode(event["data"]) for event in made[key])
        if data != whole[: len(data)]:
            yield f"{name} is not what was written"
        durable = max((a["next_offset"] for a in acks[key] if a["problem"] != "FENCED"), default=0)
        if durable > len(data):
            yield f"{name} has {len(data)} bytes, and {durable} were acknowledged"
        for event in given[key]:
            if base64.b64decode(event["data"]) != data:
                yield f"{name} was read otherwise than it is stored"


def acknowledged(history):
    """What was acknowledged is in the database at the end."""
    effects = {(row["task"], row["key"]): row["reference"] for row in history.tables["task_effects"]}
    said = history.by(history.of("said", "side_effect"), "task", "key")
    for event in history.of("heard", "side_effect_ack"):
        key = (event["task"], event["key"])
        if effects.get(key) not in {effect["reference"] for effect in said[key]}:
            yield f"the side effect {event['key']} of {event['task']} was acknowledged and is lost"
    results = {event["result_id"]: event for event in history.of("said", "result")}
    for ack in history.of("heard", "result_ack", status="ACCEPTED"):
        row, task = history.attempts.get((ack["task"], ack["attempt"])), history.tasks.get(ack["task"])
        if row is None or not row["outcome"]:
            yield f"the result of {ack['task']}, attempt {ack['attempt']}, was accepted and is lost"
        elif (result := results.get(ack["result_id"])) and result["status"] == "SUCCEEDED":
            if task["state"] != "SUCCEEDED" or task["outputs"] != result["outputs"]:
                yield f"{ack['task']} was accepted as succeeded and is {task['state']}, {task['outputs']}"
    for event in history.of("called"):
        if event["method"] == "CreateTask" and "answer" in event and event["answer"]["name"] not in history.tasks:
            yield f"{event['answer']['name']} was created and is lost"


def cancels(history):
    """Every cancel is answered: by the agent that hears it, and by the task's end."""
    for event in history.of("called", method="CancelTask"):
        if "answer" not in event:
            continue
        task = event["answer"]["name"]
        asked = [c for c in history.changes[task] if c["to_state"] in ("CANCELLING", "CANCELLED")]
        if not asked:
            yield f"the cancel of {task} was acknowledged and is lost"
        if task not in history.tasks or history.tasks[task]["state"] not in ENDED and not retried(history, task):
            yield f"{task} was cancelled and has not ended"
    for event in history.of("heard", "cancel"):
        name = {field: event[field] for field in ("who", "task", "attempt", "fence")}
        later = [e for e in history.events if e["t"] >= event["t"] and e.get("who") == event["who"]]
        answers = [e for e in later if e["what"] == "said" and e["part"] in ("cancel_ack", "result", "goodbye")]
        lost = [e for e in later if e["what"] == "heard" and e["part"] in ("lease_lost", "superseded")]
        gone = [e for e in later if e["what"] == "killed"]
        if not gone and not any(e["part"] == "goodbye" or e["task"] == name["task"] for e in answers) and not lost:
            yield f"{name['who']} heard a cancel of {name['task']} and did not answer"


def retried(history, task):
    return any("answer" in e and e["answer"]["name"] == task for e in history.of("called", method="RetryTask"))


def one_at_a_time(history):
    """While an attempt works no other does, and none works behind its end."""
    work = history.by((e for e in history.events if e["what"] in ("began", "wrote", "stopped")), "task")
    for (task,), events in work.items():
        newest = 0
        for event in events:
            if event["what"] != "stopped" and event["attempt"] < newest:
                yield f"attempt {event['attempt']} of {task} {event['what']} after attempt {newest} began"
            newest = max(newest, event["attempt"]) if event["what"] == "began" else newest
    for task, changes in history.changes.items():
        begun = [change["attempt"] for change in changes if change["to_state"] == "RUNNING"]
        if begun != sorted(set(begun)):
            yield f"the attempts of {task} began in the order {begun}"


def states(history):
    """A task's state moves along the drawing, from nothing to what it is."""
    for task, changes in history.changes.items():
        state, attempt = None, 0
        for change in changes:
            edge = (change["from_state"], change["to_state"])
            if change["from_state"] != state:
                yield f"{task} went from {state}, and is said to have gone from {edge[0]} to {edge[1]}"
            elif edge not in EDGES:
                yield f"{task} went from {edge[0]} to {edge[1]}"
            step = 1 if edge == ("PENDING", "OFFERED") else 0
            if change["attempt"] != attempt + step:
                yield f"{task} became {edge[1]} with attempt {change['attempt']} after {attempt}"
            state, attempt = edge[1], change["attempt"]
        if task in history.tasks and history.tasks[task]["state"] != state:
            yield f"{task} is {history.tasks[task]['state']}, and its last event says {state}"
    for task in history.tasks.keys() - history.changes.keys():
        yield f"{task} has no events"


def watched(history):
    """WatchTasks told each change once, and those of a task in their order."""
    for who, messages in history.by(history.of("watched"), "who").items():
        told = history.by(messages, "task")
        for task, changes in history.changes.items():
            want = [(c["from_state"], c["to_state"], c["attempt"]) for c in changes]
            got = [(m["from_state"], m["to_state"], m["attempt"]) for m in told.get((task,), ())]
            if got != want:
                yield f"{who[0]} was told of {task} {got}; it went {want}"


RULES = (accepted_results, grants, logs, acknowledged, cancels, one_at_a_time, states, watched)


def check(events):
    history = History(events)
    return [f"{rule.__name__}: {wrong}" for rule in RULES for wrong in rule(history)]
