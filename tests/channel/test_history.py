"""The checker of histories: a good one passes, and each way to be bad is told."""

import base64
import copy

import pytest
from history import Recorder, check, read

TASK, OTHER = "organizations/acme/tasks/1", "organizations/acme/tasks/2"


def b64(text):
    return base64.b64encode(text.encode()).decode()


class Story:
    """A history made by hand: a task whose first agent is lost and whose second does it, and one that is cancelled."""

    def __init__(self):
        self.events, self.clock = [], 0
        self.api("CreateTask", {"name": TASK})
        self.attempt(1, 11, "one")
        self.wrote(1, 11, "one", "lost")
        self.add("said", "one", part="side_effect", task=TASK, attempt=1, key="branch", reference="b1")
        self.add("heard", "one", part="side_effect_ack", task=TASK, attempt=1, key="branch")
        self.acked(1, 4, "one")
        self.add("killed", "one")
        self.attempt(2, 12, "two")
        self.wrote(2, 12, "two", "hello\n")
        self.add("stopped", "two", task=TASK, attempt=2, fence=12)
        self.result(2, 12, "two", "r2")
        self.acked(2, 6, "two")
        self.api("CreateTask", {"name": OTHER})
        self.api("CancelTask", {"name": OTHER})
        ways = [(None, "PENDING", 0), ("PENDING", "OFFERED", 1), ("OFFERED", "RUNNING", 1), ("RUNNING", "PENDING", 1),
                ("PENDING", "OFFERED", 2), ("OFFERED", "RUNNING", 2), ("RUNNING", "SUCCEEDED", 2)]  # fmt: skip
        changes = [{"task": TASK, "from_state": a, "to_state": b, "attempt": n} for a, b, n in ways]
        changes += [
            {"task": OTHER, "from_state": None, "to_state": "PENDING", "attempt": 0},
            {"task": OTHER, "from_state": "PENDING", "to_state": "CANCELLED", "attempt": 0},
        ]
        for change in changes:
            self.add("watched", "watcher", **change)
        self.add("read", "api", task=TASK, attempt=2, stream="STDOUT", data=b64("hello\n"))
        self.rows("task_events", changes)
        self.rows("tasks", [
            {"task": TASK, "state": "SUCCEEDED", "outputs": {"exit_status": "0"}},
            {"task": OTHER, "state": "CANCELLED", "outputs": {}},
        ])  # fmt: skip
        self.rows("task_attempts", [
            {"task": TASK, "attempt": 1, "fence": 11, "outcome": "LEASE_LOST"},
            {"task": TASK, "attempt": 2, "fence": 12, "outcome": "SUCCEEDED"},
        ])  # fmt: skip
        self.rows("task_effects", [{"task": TASK, "key": "branch", "reference": "b1"}])
        self.rows("task_logs", [
            {"task": TASK, "attempt": 1, "stream": "STDOUT", "log_offset": 0, "data": b64("lost")},
            {"task": TASK, "attempt": 2, "stream": "STDOUT", "log_offset": 0, "data": b64("hel")},
            {"task": TASK, "attempt": 2, "stream": "STDOUT", "log_offset": 3, "data": b64("lo\n")},
        ])  # fmt: skip

    def add(self, what, who, **fields):
        self.clock += 1
        self.events.append({"t": self.clock, "what": what, "who": who, "session": 1, **fields})

    def api(self, method, answer):
        self.add("called", "api", method=method, answer=answer)

    def rows(self, table, rows):
        self.add("rows", None, table=table, rows=rows)

    def attempt(self, attempt, fence, who):
        name = {"task": TASK, "attempt": attempt, "fence": fence}
        self.add("heard", who, part="task_assign", **name)
        self.add("heard", who, part="start_grant", **name)
        self.add("began", who, **name)

    def wrote(self, attempt, fence, who, text):
        name = {"task": TASK, "attempt": attempt, "fence": fence}
        self.add("wrote", who, **name, stream="STDOUT", data=b64(text))

    def acked(self, attempt, offset, who, problem="PROBLEM_UNSPECIFIED"):
        self.add("heard", who, part="log_ack", task=TASK, attempt=attempt, stream="STDOUT", next_offset=offset,
                 problem=problem)  # fmt: skip

    def result(self, attempt, fence, who, result_id, status="SUCCEEDED", answer="ACCEPTED"):
        name = {"task": TASK, "attempt": attempt, "result_id": result_id}
        self.add("said", who, part="result", fence=fence, status=status, outputs={"exit_status": "0"}, **name)
        self.add("heard", who, part="result_ack", **name, status=answer)

    def table(self, name):
        return next(event["rows"] for event in self.events if event.get("table") == name)

    def drop(self, **fields):
        keep = [e for e in self.events if any(e.get(name) != value for name, value in fields.items())]
        assert len(keep) < len(self.events)
        self.events = keep


class StoryOfRuns(Story):
    """The same, told by the commands themselves: each run's log begins with its name."""

    def __init__(self):
        super().__init__()
        self.add("made", "api", job="job", task=TASK)
        for event in self.events:
            if event["what"] in ("began", "wrote", "stopped"):
                for name in ("task", "fence"):
                    del event[name]
                event |= {"job": "job", "run": f"r{event.pop('attempt')}"}
            if event["what"] == "wrote":
                event["data"] = b64(f"run {event['run']}\n" + base64.b64decode(event["data"]).decode())
            elif event["what"] == "read":
                event["data"] = b64("run r2\nhello\n")
        one, two, three = self.table("task_logs")
        one["data"], two["data"], three["log_offset"] = b64("run r1\nlost"), b64("run r2\nhel"), 10

    def run(self, what, run, **fields):
        self.add(what, f"run {run}", job="job", run=run, **fields)


def run_of_nobody(story):
    story.run("began", "r3")


def run_before_its_grant(story):
    story.clock = -1
    story.run("began", "r0")
    story.drop(what="began", run="r1")


def run_of_two_attempts(story):
    story.table("task_logs")[1]["data"] = b64("run r1\nhel")


def attempt_of_two_runs(story):
    story.table("task_logs").append({
        "task": TASK, "attempt": 1, "stream": "STDERR", "log_offset": 0, "data": b64("run r2\n")
    })  # fmt: skip


def run_that_did_not_end(story):
    story.drop(what="stopped")


def log_of_a_success_that_is_cut(story):
    story.table("task_logs").pop()


def runs_at_once(story):
    story.run("wrote", "r1", stream="STDOUT", data="")


@pytest.mark.parametrize("rule, broken", [
    ("runs", run_of_nobody), ("runs", run_before_its_grant), ("runs", run_of_two_attempts),
    ("runs", attempt_of_two_runs), ("runs", run_that_did_not_end), ("runs", log_of_a_success_that_is_cut),
    ("one_at_a_time", runs_at_once),
])  # fmt: skip
def test_each_rule_of_runs_tells_what_breaks_it(rule, broken):
    story = StoryOfRuns()
    assert check(copy.deepcopy(story.events)) == []
    broken(story)
    assert rule in {wrong.partition(":")[0] for wrong in check(sorted(story.events, key=lambda event: event["t"]))}


def test_a_cancel_of_an_attempt_that_was_lost_needs_no_answer():
    story = Story()
    cancel_unanswered(story)
    told = {"task": TASK, "attempt": 2, "fence": 12, "decision": "ABORT_FENCED"}
    story.add("heard", "two", part="welcome", dispositions=[told])
    assert check(story.events) == []


def test_a_good_history_passes():
    assert check(Story().events) == []


def test_an_empty_history_passes():
    assert check([]) == []


def second_result(story):
    story.result(2, 12, "two", "another")


def late_result(story):
    story.result(1, 11, "one", "late")
    story.table("task_events")[3]["to_state"] = "SUCCEEDED"


def result_of_nobody(story):
    story.drop(part="result")


def result_after_success(story):
    story.result(3, 13, "two", "r3")


def grant_after_lost(story):
    story.add("heard", "two", part="lease_lost", task=TASK, attempt=2, fence=12)
    story.add("heard", "two", part="start_grant", task=TASK, attempt=2, fence=12)


def grant_after_newer_offer(story):
    story.add("heard", "two", part="start_grant", task=TASK, attempt=1, fence=11)


def grant_of_nothing(story):
    story.add("heard", "two", part="start_grant", task=TASK, attempt=3, fence=13)


def grant_with_another_fence(story):
    story.table("task_attempts")[1]["fence"] = 99


def fence_that_does_not_grow(story):
    story.add("heard", "three", part="task_assign", task=TASK, attempt=3, fence=12)


def one_attempt_to_two(story):
    story.add("heard", "three", part="task_assign", task=TASK, attempt=2, fence=13)


def log_with_a_hole(story):
    story.table("task_logs")[2]["log_offset"] = 4


def log_written_twice(story):
    story.table("task_logs").append({**story.table("task_logs")[2]})


def log_of_other_bytes(story):
    story.table("task_logs")[1]["data"] = b64("heL")


def log_cut(story):
    story.table("task_logs").pop()


def log_lost(story):
    del story.table("task_logs")[:]


def log_read_otherwise(story):
    story.add("read", "api", task=TASK, attempt=2, stream="STDOUT", data=b64("hello"))


def log_longer_than_made(story):
    story.table("task_logs").append(
        {"task": TASK, "attempt": 2, "stream": "STDOUT", "log_offset": 6, "data": b64("more")}
    )


def effect_lost(story):
    story.table("task_effects").clear()


def effect_of_other_reference(story):
    story.table("task_effects")[0]["reference"] = "b0"


def result_lost(story):
    story.table("task_attempts")[1]["outcome"] = ""


def success_lost(story):
    story.table("tasks")[0]["state"] = "DEAD"
    story.table("task_events")[6]["to_state"] = "DEAD"


def outputs_lost(story):
    story.table("tasks")[0]["outputs"] = {}


def task_lost(story):
    story.table("tasks").pop()
    del story.table("task_events")[7:]


def cancel_lost(story):
    story.table("tasks")[1]["state"] = "PENDING"
    story.table("task_events").pop()


def cancel_that_never_ends(story):
    story.table("tasks")[1]["state"] = "CANCELLING"
    story.table("task_events")[8]["to_state"] = "CANCELLING"


def cancel_unanswered(story):
    story.add("heard", "two", part="cancel", task=TASK, attempt=2, fence=12)


def two_at_once(story):
    story.wrote(1, 11, "one", "")


def one_begins_late(story):
    story.add("began", "one", task=TASK, attempt=1, fence=11)


def attempts_that_begin_twice(story):
    story.table("task_events")[5]["attempt"] = 1


def way_without_an_edge(story):
    story.table("task_events")[3]["to_state"] = "CANCELLED"
    story.table("task_events")[4]["from_state"] = "CANCELLED"


def way_with_a_gap(story):
    del story.table("task_events")[4]


def way_in_another_order(story):
    changes = story.table("task_events")
    changes[3], changes[4] = changes[4], changes[3]


def way_that_ends_elsewhere(story):
    story.table("tasks")[1]["state"] = "DEAD"


def task_without_events(story):
    story.table("tasks").append({"task": "organizations/acme/tasks/3", "state": "PENDING", "outputs": {}})


def told_twice(story):
    watched = next(event for event in story.events if event["what"] == "watched")
    story.events.append(copy.deepcopy(watched))


def told_never(story):
    story.drop(what="watched", to_state="SUCCEEDED")


@pytest.mark.parametrize("rule, broken", [
    ("accepted_results", second_result), ("accepted_results", late_result), ("accepted_results", result_of_nobody),
    ("accepted_results", result_after_success),
    ("grants", grant_after_lost), ("grants", grant_after_newer_offer), ("grants", grant_of_nothing),
    ("grants", grant_with_another_fence), ("grants", fence_that_does_not_grow), ("grants", one_attempt_to_two),
    ("logs", log_with_a_hole), ("logs", log_written_twice), ("logs", log_of_other_bytes), ("logs", log_cut),
    ("logs", log_lost), ("logs", log_read_otherwise), ("logs", log_longer_than_made),
    ("acknowledged", effect_lost), ("acknowledged", effect_of_other_reference), ("acknowledged", result_lost),
    ("acknowledged", success_lost), ("acknowledged", outputs_lost), ("acknowledged", task_lost),
    ("cancels", cancel_lost), ("cancels", cancel_that_never_ends), ("cancels", cancel_unanswered),
    ("one_at_a_time", two_at_once), ("one_at_a_time", one_begins_late), ("one_at_a_time", attempts_that_begin_twice),
    ("states", way_without_an_edge), ("states", way_with_a_gap), ("states", way_in_another_order),
    ("states", way_that_ends_elsewhere), ("states", task_without_events),
    ("watched", told_twice), ("watched", told_never),
])  # fmt: skip
def test_each_rule_tells_what_breaks_it(rule, broken):
    story = Story()
    broken(story)
    assert rule in {wrong.partition(":")[0] for wrong in check(story.events)}


def test_what_is_recorded_is_read(tmp_path):
    """By several recorders of one file, in the order of time."""
    one, two = Recorder(tmp_path / "history"), Recorder(tmp_path / "history")
    one("began", who="one", task=TASK, attempt=1, fence=11)
    two("wrote", who="two", task=TASK, attempt=1, fence=11, stream="STDOUT", data=b"\x00\xff")
    one("stopped", who="one", task=TASK, attempt=1, fence=11)
    assert [event["what"] for event in read(tmp_path / "history")] == ["began", "wrote", "stopped"]
    assert base64.b64decode(read(tmp_path / "history")[1]["data"]) == b"\x00\xff"


def test_lines_that_are_not_whole_are_passed_over(tmp_path):
    whole = '{"t": 1, "what": "began"}\n'
    (tmp_path / "history").write_text(whole + whole[:9] + whole + whole[:-1])
    assert [event["what"] for event in read(tmp_path / "history")] == ["began", "began"]
