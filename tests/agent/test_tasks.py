"""The way of a task: offer, grant, effects, log, result; and what of it is said again."""


def test_hello_says_what_the_agent_has(platform, make_agent, v1):
    make_agent(labels={"region": "eu", "tier": "prod"}).start()
    hello = platform.hears("hello")
    assert list(hello.body.protocol_versions) == [1]
    assert hello.body.session_token == "" and hello.body.last_seen_seq == 0 and not hello.body.running
    assert dict(hello.body.labels) == {"region": "eu", "tier": "prod"}
    assert list(hello.body.kinds) == [v1.COMMAND, v1.PULL_REQUEST]
    assert hello.stream.key == platform.key
    assert len(hello.body.instance_id) == 36 and hello.body.version


def test_credits_are_absolute_and_come_back(platform, stream, v1):
    free = {credit.kind: credit.free for credit in platform.hears("credits").body.free}
    assert free == {v1.COMMAND: 4, v1.PULL_REQUEST: 2}
    before = platform.said("credits")[-1]
    platform.offer(stream, "a")
    result = platform.hears("result")
    platform.hears("credits", after=before)
    platform.wait(lambda: {c.kind: c.free for c in platform.said("credits", after=result)[-1].body.free} == free
                  if platform.said("credits", after=result) else False)  # fmt: skip


def test_a_task_from_offer_to_result(platform, stream, v1):
    platform.offer(stream, "a", body="effect branch genie/a\nlog hello\nprogress 50 half\noutput commit abc")
    ack = platform.hears("task_ack")
    assert (ack.body.task, ack.body.attempt, ack.body.fence) == (platform.task("a"), 1, 1)
    result = platform.hears("result").body
    assert result.status == v1.Result.SUCCEEDED and dict(result.outputs) == {"commit": "abc"}
    assert {offset.stream: offset.offset for offset in result.log_offsets} == {v1.STDOUT: 6, v1.STDERR: 0}
    assert platform.effects[(platform.task("a"), 1)] == {"branch": "genie/a"}
    platform.wait(lambda: platform.logs.get((platform.task("a"), 1, v1.STDOUT)) == b"hello\n")
    platform.wait(lambda: any(said.body.eof for said in platform.said("log_chunk")), "eof")
    progress = platform.hears("progress").body
    assert (progress.percent, progress.step) == (50, "half")


def test_nothing_is_done_before_the_grant(platform, agent, stream, tmp_path, v1):
    platform.does -= {"task_ack"}
    platform.offer(stream, "a", body=f"touch {tmp_path}/made")
    ack = platform.hears("task_ack").body
    platform.hears("heartbeat", count=2)  # it lives, and had the time
    assert not (tmp_path / "made").exists()
    stream.say(start_grant=v1.StartGrant(task=ack.task, attempt=1, fence=99))  # of no attempt of its
    platform.hears("heartbeat", count=3)
    assert not (tmp_path / "made").exists()
    platform.take_task_ack(stream, ack, None)
    platform.hears("result")
    assert (tmp_path / "made").read_text().count("\n") == 1


def test_an_effect_waits_for_its_acknowledgement(platform, stream, tmp_path, v1):
    platform.does -= {"side_effect"}
    platform.offer(stream, "a", body=f"effect branch b\ntouch {tmp_path}/made")
    effect = platform.hears("side_effect")
    platform.hears("heartbeat", count=2, after=effect)
    assert not (tmp_path / "made").exists()
    platform.take_side_effect(stream, effect.body, effect)
    platform.hears("result")
    assert (tmp_path / "made").exists()


def test_earlier_attempts_effects_are_handed_over(platform, stream, v1):
    made = [v1.EffectRecord(key="branch", reference="genie/a", attempt=1)]
    platform.offer(stream, "a", attempt=2, effects=made, body="effect branch other")
    platform.hears("result")
    assert not platform.said("side_effect")


def test_messages_doubled_and_late(platform, stream, tmp_path, v1):
    """Each message of the platform comes twice, and once more at the end."""
    say = stream.say
    said = []

    def twice(**part):
        said.append(say(**part))
        stream.say_again(said[-1])
        return said[-1]

    stream.say = twice
    platform.offer(stream, "a", body=f"touch {tmp_path}/made\neffect k v\nbytes 200000")
    result = platform.hears("result")
    for old in said:
        stream.say_again(old)
    platform.hears("heartbeat", count=2, after=result)
    assert (tmp_path / "made").read_text().count("\n") == 1
    assert len(platform.said("task_ack")) == 1
    assert len(platform.logs[(platform.task("a"), 1, v1.STDOUT)]) == 200000


def test_an_offer_said_again_is_acknowledged_again(platform, stream):
    platform.does -= {"task_ack"}
    platform.offer(stream, "a")
    platform.hears("task_ack")
    platform.offer(stream, "a")
    platform.hears("task_ack", count=2)


def test_refusals(platform, stream, v1):
    platform.offer(stream, "a", title="refuse")
    reject = platform.hears("task_reject").body
    assert (reject.reason, reject.permanent, reject.message) == ("REFUSED", True, "the script says so")
    platform.offer(stream, "b", kind="COMMAND", command={"name": "rm", "arguments": ["-rf"]})
    assert platform.hears("task_reject", count=2).body.reason == "COMMAND_NOT_ALLOWED"
    stream.say(task_assign=v1.TaskAssign(task=platform.task("c"), attempt=1, fence=1, kind=77))
    reject = platform.hears("task_reject", count=3).body
    assert (reject.reason, reject.permanent) == ("KIND_NOT_OFFERED", False)
    stream.say(task_assign=v1.TaskAssign(task=platform.task("d"), attempt=1, fence=1, kind=v1.COMMAND))
    assert platform.hears("task_reject", count=4).body.reason == "PAYLOAD_MISSING"


def test_more_offers_than_slots(platform, stream, tmp_path):
    for name in "abc":
        platform.offer(stream, name, body=f"await {tmp_path}/go")
    reject = platform.hears("task_reject").body
    assert (reject.task, reject.reason, reject.permanent) == (platform.task("c"), "NO_FREE_SLOT", False)
    (tmp_path / "go").touch()
    platform.hears("result", count=2)


def test_a_failure_says_why(platform, stream, v1):
    platform.offer(stream, "a", body="fail MERGE_CONFLICT values.yaml")
    result = platform.hears("result").body
    assert result.status == v1.Result.FAILED
    assert (result.failure.reason, result.failure.message) == ("MERGE_CONFLICT", "values.yaml")
    assert not result.failure.permanent


def test_the_result_is_said_until_it_is_acknowledged(platform, stream):
    platform.does -= {"result"}
    platform.offer(stream, "a")
    first = platform.hears("result").body
    stream.end()
    second = platform.stands(2)
    hello = platform.said("hello")[-1].body
    assert [(r.task, r.result_pending) for r in hello.running] == [(platform.task("a"), True)]
    again = platform.hears("result", stream=second)
    assert again.body == first
    platform.take_result(second, again.body, again)
    second.end()
    platform.stands(3)
    assert not platform.said("hello")[-1].body.running


def test_a_result_that_is_fenced_is_let_go(platform, stream, v1):
    platform.does -= {"result"}
    platform.offer(stream, "a")
    result = platform.hears("result").body
    platform.result_ack(stream, result, "FENCED")
    stream.end()
    platform.stands(2)
    assert not platform.said("hello")[-1].body.running


def test_a_result_ack_of_another_result_counts_for_nothing(platform, stream, v1):
    platform.does -= {"result"}
    platform.offer(stream, "a")
    result = platform.hears("result").body
    other = v1.Result()
    other.CopyFrom(result)
    other.result_id = "00000000-0000-4000-8000-000000000000"
    platform.result_ack(stream, other, "ACCEPTED")
    stream.end()
    platform.stands(2)
    assert len(platform.said("hello")[-1].body.running) == 1


def test_unknown_members_are_ignored(platform, stream, v1):
    unknown = v1.PlatformMessage.FromString(bytes([8, 99, 0xFA, 0x7D, 2, 8, 1]))  # seq 99, field 2015
    stream.outgoing.put(unknown)
    stream.seq = 99
    platform.offer(stream, "a")
    platform.hears("result")
    assert len(platform.streams) == 1
