"""Tasks: what may be asked for, once per idempotency key; cancelled and retried in the states that allow it."""

import uuid

import pytest
from calls import at_once, everything
from conftest import Organization
from genied import refused
from google.protobuf.duration_pb2 import Duration

GOOD_UUID = "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"
URL = "https://git.example/acme/infrastructure"


def get(v1, organization, task):
    return organization.owner.tasks.GetTask(v1.GetTaskRequest(name=task.name))


def cancel(v1, organization, task, **fields):
    return organization.owner.tasks.CancelTask(v1.CancelTaskRequest(name=task.name, **fields))


def retry(v1, organization, task, **fields):
    return organization.owner.tasks.RetryTask(v1.RetryTaskRequest(name=task.name, **fields))


def pull_request(v1, change=None, **fields):
    change = change or {"files": v1.FileChanges(changes=[v1.FileChange(path="a.txt", content=b"a\n")])}
    return v1.TaskPayload(
        pull_request=v1.PullRequest(**{"repository_url": URL, "title": "A title", **change, **fields})
    )


def wrong_fields(organization, **fields):
    with refused("INVALID_ARGUMENT") as error:
        organization.task(**fields)
    return [violation.field for violation in error.details.all["BadRequest"].field_violations]


# --- What is made ---


def test_a_task_has_its_defaults(v1, organization: Organization):
    made = organization.task()
    assert made.name == f"{organization.name}/tasks/{made.uid}"
    assert (made.kind, made.state, made.priority, made.max_attempts) == (v1.COMMAND, v1.Task.PENDING, 0, 3)
    assert made.time_to_live == Duration(seconds=86400)
    assert made.expire_time.ToNanoseconds() - made.create_time.ToNanoseconds() == 86400 * 10**9
    assert made.idempotency_key == made.uid and made.attempt == made.start_count == 0
    assert made.next_attempt_time == made.create_time == made.update_time
    assert made.creator == organization.owner.auth.WhoAmI(v1.WhoAmIRequest()).caller
    for unset in ("failure", "cancellation", "start_time", "end_time"):
        assert not made.HasField(unset)
    assert (made.target_agent, made.agent, dict(made.labels), dict(made.outputs)) == ("", "", {}, {})
    assert get(v1, organization, made) == made


def test_a_task_is_kept_as_it_was_asked_for(v1, organization: Organization):
    agent = organization.agent()
    files = v1.FileChanges(changes=[
        v1.FileChange(path="deep/er/ä.txt", content=bytes(range(256))),
        v1.FileChange(path="gone", delete=True, executable=False),
        v1.FileChange(path=".gitignore", executable=True),
    ])  # fmt: skip
    asked = v1.Task(
        payload=pull_request(
            v1, {"files": files}, base_branch="main", branch_prefix="fix/", body="*text*", labels=["a"],
            reviewers=["b"], draft=True,
        ),
        labels={"zone": "eu", "ä": ""}, target_agent=agent.name, priority=-100,
        time_to_live=Duration(seconds=90, nanos=500_000_000), max_attempts=10, idempotency_key="ä" * 100,
    )  # fmt: skip
    fields = {f.name: getattr(asked, f.name) for f, _ in asked.ListFields()}
    made = organization.task(**fields)
    assert {name: getattr(made, name) for name in fields} == fields
    assert made.kind == v1.PULL_REQUEST and get(v1, organization, made) == made


@pytest.mark.parametrize("kind", ["unified_diff", "helm_values"])
def test_other_changes(v1, organization: Organization, kind):
    values = v1.HelmValueChanges(path="chart/values.yaml", changes=[v1.HelmValueChange(path="a.b", value="3")])
    change = {"unified_diff": "--- a/x\n+++ b/x\n", "helm_values": values}[kind]
    payload = pull_request(v1, {kind: change})
    assert organization.task(payload=payload).payload == payload


def test_lists_leave_payloads_out(v1, organization: Organization):
    made = [organization.task() for _ in range(3)][::-1]
    for task in made:
        task.ClearField("payload")
    assert everything(organization.owner.tasks.ListTasks, v1.ListTasksRequest(parent=organization.name)) == made


# --- What is refused ---


def test_a_payload_is_exactly_one_kind(v1, organization: Organization):
    assert wrong_fields(organization, payload=None) == ["task.payload"]
    assert wrong_fields(organization, payload=v1.TaskPayload()) == ["task.payload"]


def test_a_pull_request_is_exactly_one_change(v1, organization: Organization):
    place = "task.payload.pull_request"
    for change, field in (
        ({"title": "x"}, place),
        ({"files": v1.FileChanges()}, place + ".files.changes"),
        ({"unified_diff": ""}, place + ".unified_diff"),
        ({"helm_values": v1.HelmValueChanges(path="x")}, place + ".helm_values.changes"),
    ):
        assert wrong_fields(organization, payload=pull_request(v1, change)) == [field]


UNSAFE = [
    "/a", "/", "a/", "a//b", "..", "../a", "a/..", "a/../b", ".", "./a", "a/./b", ".git", ".git/hooks/x", "a/.git/x",
    ".GIT/config", "a/.Git",
]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE)
def test_a_path_stays_in_the_repository(v1, organization: Organization, path):
    good = v1.FileChange(path="ok")
    files = {"files": v1.FileChanges(changes=[good, v1.FileChange(path=path)])}
    values = {"helm_values": v1.HelmValueChanges(path=path, changes=[v1.HelmValueChange(path="a", value="b")])}
    for change, field in ((files, "files.changes[1].path"), (values, "helm_values.path")):
        assert wrong_fields(organization, payload=pull_request(v1, change)) == ["task.payload.pull_request." + field]


@pytest.mark.parametrize("path", ["...", "..a", "a..", ".gitignore", "a.git", ".git_", ".github/x", "a b", "ä"])
def test_a_path_that_only_looks_unsafe(v1, organization: Organization, path):
    payload = pull_request(v1, {"files": v1.FileChanges(changes=[v1.FileChange(path=path)])})
    assert organization.task(payload=payload).payload == payload


@pytest.mark.parametrize("url", [
    "git.example/a", "ssh://git.example/a", "git@git.example:a/b", "file:///etc", "https://", "https:///a",
    "https://git.example", "https://git.example/", "https://user@git.example/a", "https://user:token@git.example/a",
    "https://:token@git.example/a", "https://git.example/a?x=1", "https://git.example/a#x", "https://git.example/a b",
    "https://git.example/a\n", "https://git.example:x/a", "https://git.example//a", "HTTPS://git.example/a",
    "https://git.example\\@evil.example/a", "javascript:alert(1)", "ext::sh -c id",
])  # fmt: skip
def test_a_repository_url_has_its_form(v1, organization: Organization, url):
    payload = pull_request(v1, repository_url=url)
    assert wrong_fields(organization, payload=payload) == ["task.payload.pull_request.repository_url"]


@pytest.mark.parametrize("url", [
    URL, URL + ".git", "http://localhost:3000/a", "https://[::1]:8443/a/b", "https://10.0.0.1/~a/b/", "https://h/%20@x",
])  # fmt: skip
def test_a_good_repository_url(v1, organization: Organization, url):
    assert organization.task(payload=pull_request(v1, repository_url=url)).payload.pull_request.repository_url == url


def test_a_payload_has_its_bounds(v1, organization: Organization):
    def files(size):
        parts = [v1.FileChange(path=str(n), content=b"x" * (size // 2)) for n in range(2)]
        return pull_request(v1, {"files": v1.FileChanges(changes=parts)})

    most = 2**20
    rest = most - files(10**6).ByteSize()
    payload = files(10**6 + rest)
    assert payload.ByteSize() == most and organization.task(payload=payload).payload == payload
    assert wrong_fields(organization, payload=files(10**6 + rest + 2)) == ["task.payload"]


@pytest.mark.parametrize("labels", [{"": "x"}, {"ä" * 101: ""}, {"x": "ä" * 101}, {str(n): "" for n in range(21)}])
def test_labels_have_their_bounds(organization: Organization, labels):
    assert wrong_fields(organization, labels=labels) == ["task.labels"]


@pytest.mark.parametrize("field, value", [
    ("priority", 101), ("priority", -101), ("max_attempts", 11), ("max_attempts", -1), ("idempotency_key", "x" * 101),
    ("time_to_live", Duration()), ("time_to_live", Duration(nanos=999_999_999)), ("time_to_live", Duration(seconds=-5)),
    ("time_to_live", Duration(seconds=30 * 86400 + 1)),
])  # fmt: skip
def test_numbers_have_their_bounds(organization: Organization, field, value):
    assert wrong_fields(organization, **{field: value}) == ["task." + field]


def test_a_commands_time_limit_has_its_bounds(v1, organization: Organization):
    for limit in (Duration(), Duration(seconds=86401)):
        payload = v1.TaskPayload(command=v1.Command(name="x", time_limit=limit))
        assert wrong_fields(organization, payload=payload) == ["task.payload.command.time_limit"]


def test_a_target_is_an_agent_of_the_organization(v1, make_organization):
    here, there = make_organization(), make_organization()
    mine, theirs = here.agent(), there.agent()
    gone = here.agent()
    here.owner.agents.DeleteAgent(v1.DeleteAgentRequest(name=gone.name))
    assert here.task(target_agent=mine.name).target_agent == mine.name
    moved = theirs.name.replace(there.name, here.name)
    for wrong in (theirs.name, moved, gone.name, mine.uid, mine.name + "/", f"{here.name}/agents/x", here.name,
                  mine.name.replace("agents", "tasks")):  # fmt: skip
        assert wrong_fields(here, target_agent=wrong) == ["task.target_agent"], wrong


# --- Once per idempotency key ---


def test_an_idempotency_key_makes_one_task(v1, organization: Organization):
    first = organization.task(idempotency_key="one")
    with refused("ALREADY_EXISTS", "TASK_EXISTS") as error:
        organization.task(idempotency_key="one", priority=5)
    assert error.details.metadata["task"] == first.name and first.name in error.details.message
    organization.task(idempotency_key="One")
    assert organization.stored("tasks") == "2"


def test_an_idempotency_key_is_the_organizations_own(v1, make_organization):
    for _ in range(2):
        make_organization().task(idempotency_key="one")


def test_a_task_keeps_its_key_when_it_has_ended(v1, organization: Organization):
    first = organization.task(idempotency_key="one")
    cancel(v1, organization, first)
    with refused("ALREADY_EXISTS", "TASK_EXISTS") as error:
        organization.task(idempotency_key="one")
    assert error.details.metadata["task"] == first.name


def test_of_many_at_once_with_one_key_one_is_made(v1, organization: Organization):
    calls = [lambda: organization.task(str(uuid.uuid4()), idempotency_key="one") for _ in range(12)]
    answers = at_once(*calls)
    made = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(made) == 1
    assert {answer.code().name for answer in answers if isinstance(answer, Exception)} == {"ALREADY_EXISTS"}
    assert organization.stored("tasks") == organization.stored("task_keys") == "1"


def test_a_repeat_comes_before_the_key(v1, organization: Organization):
    """A repeat is the first call's, whatever it carries: also where the first has taken the key that it asks for."""
    request_id = str(uuid.uuid4())
    first = organization.task(request_id, idempotency_key="one")
    assert organization.task(request_id, idempotency_key="one") == first
    assert organization.task(request_id, idempotency_key="two") == first
    assert organization.task(request_id, idempotency_key="one", target_agent=organization.name + "/agents/" + GOOD_UUID) == first


# --- Cancelling and retrying ---


def test_what_waits_is_cancelled_at_once(v1, organization: Organization):
    made = organization.task()
    cancelled = cancel(v1, organization, made, mode=v1.TaskCancellation.FORCED, reason="a mistake",
                       grace=Duration(seconds=5), etag=made.etag)  # fmt: skip
    assert cancelled.state == v1.Task.CANCELLED and cancelled.etag != made.etag
    how = cancelled.cancellation
    assert (how.mode, how.grace, how.reason) == (v1.TaskCancellation.FORCED, Duration(seconds=5), "a mistake")
    assert how.caller == made.creator and how.cancel_time == cancelled.end_time
    assert not cancelled.HasField("next_attempt_time") and not cancelled.HasField("expire_time")
    assert get(v1, organization, made) == cancelled and cancelled.payload == made.payload


def test_a_cancel_has_its_defaults(v1, organization: Organization):
    how = cancel(v1, organization, organization.task()).cancellation
    assert (how.mode, how.grace, how.reason) == (v1.TaskCancellation.GRACEFUL, Duration(seconds=30), "")


def test_what_has_ended_is_not_cancelled(v1, organization: Organization):
    made = organization.task()
    cancel(v1, organization, made)
    with refused("FAILED_PRECONDITION", "TASK_ENDED") as error:
        cancel(v1, organization, made)
    assert error.details.metadata["state"] == "CANCELLED" and "CANCELLED" in error.details.message
    assert error.details.all["ResourceInfo"].resource_name == made.name


@pytest.mark.parametrize("grace", [Duration(seconds=-1), Duration(seconds=600, nanos=1), Duration(seconds=601)])
def test_a_grace_has_its_bounds(v1, organization: Organization, grace):
    with refused("INVALID_ARGUMENT") as error:
        cancel(v1, organization, organization.task(), grace=grace)
    assert [v.field for v in error.details.all["BadRequest"].field_violations] == ["grace"]


def test_what_was_cancelled_can_wait_again(v1, organization: Organization):
    made = organization.task(time_to_live=Duration(seconds=100), max_attempts=2)
    cancelled = cancel(v1, organization, made)
    again = retry(v1, organization, made, etag=cancelled.etag)
    assert again.state == v1.Task.PENDING and again.start_count == 0
    assert not again.HasField("cancellation") and not again.HasField("end_time")
    assert again.next_attempt_time == again.update_time
    assert again.expire_time.ToNanoseconds() - again.update_time.ToNanoseconds() == 100 * 10**9
    assert get(v1, organization, made) == again


def test_what_waits_is_not_retried(v1, organization: Organization):
    made = organization.task()
    with refused("FAILED_PRECONDITION", "TASK_NOT_RETRYABLE") as error:
        retry(v1, organization, made)
    assert error.details.metadata["state"] == "PENDING"
    assert get(v1, organization, made) == made


def test_what_is_filed_is_not_retried_and_still_found(v1, organization: Organization, server):
    made = organization.task(idempotency_key="one")
    cancelled = cancel(v1, organization, made)
    server.database.query(f"UPDATE tasks SET filed_time = end_time WHERE task_id = '{made.uid}'")
    with refused("FAILED_PRECONDITION", "TASK_FILED"):
        retry(v1, organization, made)
    with refused("FAILED_PRECONDITION", "TASK_ENDED"):
        cancel(v1, organization, made)
    assert get(v1, organization, made) == cancelled
    with refused("ALREADY_EXISTS", "TASK_EXISTS"):
        organization.task(idempotency_key="one")


def test_of_a_change_that_was_not_seen_nothing_comes(v1, organization: Organization):
    made = organization.task()
    with refused("ABORTED", "ETAG_MISMATCH"):
        cancel(v1, organization, made, etag="0")
    cancelled = cancel(v1, organization, made)
    with refused("ABORTED", "ETAG_MISMATCH"):
        retry(v1, organization, made, etag=made.etag)
    assert get(v1, organization, made) == cancelled


def test_of_many_cancels_at_once_one_ends_it(v1, organization: Organization):
    made = organization.task()
    answers = at_once(*[lambda: cancel(v1, organization, made)] * 8)
    refusals = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(refusals) == 7 and {answer.code().name for answer in refusals} == {"FAILED_PRECONDITION"}


def test_each_change_of_state_is_an_event_with_its_caller(v1, organization: Organization):
    made = organization.task()
    cancel(v1, organization, made)
    retry(v1, organization, made)
    told = organization.stored(
        "task_events",
        "string_agg(concat_ws(' ', coalesce(from_state, '-'), to_state, actor), ',' ORDER BY position, sequence)",
    )
    who = made.creator
    assert told == f"- PENDING {who},PENDING CANCELLED {who},CANCELLED PENDING {who}"


def test_a_tasks_way_is_audited_without_its_payload(v1, organization: Organization):
    secret = "S3cret-argument"
    command = v1.Command(name="restart", arguments=[secret])
    made = organization.task(payload=v1.TaskPayload(command=command))
    cancel(v1, organization, made)
    events = everything(organization.owner.audit.ListAuditEvents, v1.ListAuditEventsRequest(parent=organization.name))
    mine = [event for event in events if event.collection == "tasks"]
    assert [(e.operation, e.resource_uid) for e in mine] == [("UPDATE", made.uid), ("INSERT", made.uid)]
    assert secret not in str(events) and secret.encode().hex() not in str(events)
