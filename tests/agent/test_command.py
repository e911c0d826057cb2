"""COMMAND: what the allow-list permits, without a shell, byte for byte, and never longer than it may."""

import os
import signal

import pytest
from agent import AGENT, eventually
from test_crashes import alive


@pytest.fixture
def run(platform, make_agent, tmp_path):
    """run(script, *arguments) offers a shell script of this test as a command; the stream."""

    def run(script, *arguments, time_limit=None, world=None, options=None, **rule):
        rule = {"argv": ["/bin/sh", "-c", script, "script"], "more-arguments": ".*", **rule}
        agent = make_agent(AGENT, world, commands={"script": rule}, **(options or {})).start()
        stream = platform.stands()
        command = {"name": "script", "arguments": arguments}
        if time_limit:
            command["time_limit"] = platform.ms(time_limit)
        platform.offer(stream, "a", kind="COMMAND", command=command)
        stream.agent = agent
        return stream

    return run


def log(platform, part=1):
    return bytes(platform.logs.get((platform.task("a"), 1, part), b""))


def test_output_byte_for_byte(platform, run, v1):
    run(r"printf 'a\000b\377'; printf err >&2")
    result = platform.hears("result").body
    assert result.status == v1.Result.SUCCEEDED and dict(result.outputs) == {"exit_status": "0"}
    platform.wait(lambda: log(platform) == b"a\0b\xff" and log(platform, 2) == b"err")


def test_a_lot_of_output(platform, run):
    run("head -c 3000000 /dev/zero; echo end")
    platform.hears("result")
    platform.wait(lambda: len(log(platform)) == 3000004)
    assert log(platform).endswith(b"\0end\n")


def test_a_status_that_is_not_zero(platform, run, v1):
    run("exit 3")
    result = platform.hears("result").body
    assert (result.status, result.failure.reason, result.failure.permanent) == (v1.Result.FAILED, "COMMAND_FAILED", True)
    assert dict(result.outputs) == {"exit_status": "3"}


def test_a_signal(platform, run):
    run("kill -SEGV $$")
    result = platform.hears("result").body
    assert result.failure.reason == "COMMAND_FAILED" and dict(result.outputs) == {"exit_status": "139"}


def test_a_program_that_is_not_there(platform, run):
    run("", argv=["/no/such/program"])
    result = platform.hears("result").body
    assert (result.failure.reason, result.failure.permanent) == ("COMMAND_NOT_STARTED", True)
    assert "No such file" in result.failure.message


def test_no_shell_reads_arguments(platform, run):
    run('printf "%s|" "$@"', "$(id)", "; id", "a b", "*", "")
    platform.wait(lambda: log(platform) == b"$(id)|; id|a b|*||")


def test_arguments_that_are_not_permitted(platform, run, v1):
    stream = run("true", "--namespace=prod; id", arguments=["--namespace=[a-z]+"])
    reject = platform.hears("task_reject").body
    assert (reject.reason, reject.permanent) == ("ARGUMENT_NOT_ALLOWED", True)
    platform.offer(stream, "b", kind="COMMAND", command={"name": "other"})
    reject = platform.hears("task_reject", count=2).body
    assert (reject.reason, reject.permanent) == ("COMMAND_NOT_ALLOWED", True)


def test_a_minimal_world(platform, run, tmp_path):
    """No environment but what is named, standard input empty, the folder that is named, a process group of its own,
    no descriptor and no ignored signal of the agent's, no secret anywhere."""
    secret = {"GENIE_AGENT_KEY": "dga_secret", "WANTED": "yes", "OTHER": "no", "PATH": os.environ["PATH"]}
    run(
        "env | cut -d= -f1 | sort; pwd; wc -c; ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status; "
        'test $(cut -d" " -f5 /proc/$$/stat) = $$ && echo own group',
        world=secret, directory=str(tmp_path), environment=["WANTED", "PATH"],
    )  # fmt: skip
    platform.hears("result")
    platform.wait(lambda: b"own group\n" in log(platform))
    lines = log(platform).decode().splitlines()
    assert lines == ["PATH", "PWD", "WANTED", str(tmp_path), "0", "4", "SigIgn:\t0000000000000000", "own group"]


def test_the_time_limit(platform, run, v1):
    run("trap '' TERM; echo begin; sleep 100; sleep 100", time_limit=1000)
    result = platform.hears("result").body
    assert (result.status, result.failure.reason) == (v1.Result.FAILED, "TIME_LIMIT")
    assert dict(result.outputs) == {"exit_status": "137"}  # it had ignored SIGTERM


def test_cancel_asks_first(platform, run, v1):
    stream = run("trap 'echo ended; exit 7' TERM; echo begin; while :; do sleep 0.01; done", environment=["PATH"])
    platform.wait(lambda: log(platform) == b"begin\n")
    platform.cancel(stream, "a")
    assert platform.hears("cancel_ack", count=2).body.answer == v1.TaskCancellation.STOPPED
    result = platform.hears("result").body
    assert result.status == v1.Result.CANCELLED and dict(result.outputs) == {"exit_status": "7"}
    platform.wait(lambda: log(platform) == b"begin\nended\n")


@pytest.mark.parametrize("how", [{"grace": 200}, {"mode": "FORCED"}])
def test_cancel_uses_force(platform, run, tmp_path, v1, how):
    """The whole process group ends."""
    stream = run(f"trap '' TERM; (trap '' TERM; sleep 1000) & echo $! > {tmp_path}/child; echo begin; wait; sleep 1000")
    platform.wait(lambda: log(platform) == b"begin\n")
    platform.cancel(stream, "a", **how)
    assert platform.hears("result").body.status == v1.Result.CANCELLED
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not alive(child))


def test_cancel_while_it_floods_the_log(platform, run, v1):
    """The window and the spool are full: the command waits in its write, and still hears."""
    platform.does -= {"log_chunk"}
    stream = run("", argv=["/usr/bin/yes"], options={"log-spool-bytes": 65536})
    spools = stream.agent.state.glob
    eventually(lambda: any(spool.stat().st_size == 65536 for spool in spools("log-*")))
    platform.cancel(stream, "a")
    assert platform.hears("result").body.status == v1.Result.CANCELLED


def test_what_it_leaves_behind_ends(platform, run, tmp_path):
    run(f"sleep 1000 & echo $! > {tmp_path}/child")
    platform.hears("result")
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not alive(child))


def test_what_has_left_its_group_does_not_hold_it_up(platform, run, v1):
    """A process that floods the log from a session of its own is heard no more when the command has ended."""
    flood = "for i in 1 2 3 4 5 6 7 8 9; do setsid yes & done; sleep 0.1"
    run(flood, options={"log-spool-bytes": 65536})  # so small that the flood is faster than the log in any case
    result = platform.hears("result").body
    assert result.status == v1.Result.SUCCEEDED


def test_lease_lost_ends_it(platform, run, tmp_path):
    stream = run(f"echo $$ > {tmp_path}/pid; echo begin; sleep 1000; true")
    platform.wait(lambda: log(platform) == b"begin\n")
    lost = platform.lose(stream, "a")
    eventually(lambda: not alive(int((tmp_path / "pid").read_text())))
    platform.hears("credits", after=lost)
    assert not platform.said("result")


def test_shutdown_ends_it(platform, run, v1):
    """SIGTERM, and a result that says that it may be tried again."""
    stream = run("trap 'exit 0' TERM; echo begin; while :; do sleep 0.01; done")
    stream.agent.options["shutdown-grace-ms"] = 0
    platform.wait(lambda: log(platform) == b"begin\n")
    stream.agent.kill()
    stream.agent.start()  # with the new option; what ran has failed
    second = platform.stands(2)
    platform.hears("result")
    platform.offer(second, "b", kind="COMMAND", command={"name": "script"})
    platform.wait(lambda: platform.logs.get((platform.task("b"), 1, 1)) == b"begin\n")
    stream.agent.stop()
    result = platform.said("result", task=platform.task("b"))[0].body
    assert (result.status, result.failure.reason, result.failure.permanent) == (v1.Result.FAILED, "AGENT_RESTARTED", False)


def test_a_second_signal_ends_at_once(platform, run, tmp_path):
    stream = run(f"echo $$ > {tmp_path}/pid; echo begin; sleep 1000; true")
    platform.wait(lambda: log(platform) == b"begin\n")
    stream.agent.signal(signal.SIGTERM)
    platform.hears("draining")
    stream.agent.signal(signal.SIGTERM)
    assert stream.agent.wait() == 1
    eventually(lambda: not alive(int((tmp_path / "pid").read_text())))
