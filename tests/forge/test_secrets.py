"""The token is where it has to be, and nowhere else."""

import os
from pathlib import Path

from faulty_proxy import wait_for


def everywhere(agent, *tasks):
    """All that a task leaves behind, as bytes: logs, journal, results, what the program printed, the cache."""
    for path in agent.folder.rglob("*"):
        if path.is_file() and path != agent.token_file:
            yield path, path.read_bytes()
    for task in tasks:
        yield task, "".join(task.said).encode()


def test_the_token_occurs_nowhere(repository, behind, proxy):
    token = repository.token
    good = behind.task(behind.url, labels=["x"], reviewers=["nobody-here"])
    fault = proxy.add("^POST .*/git-receive-pack$")
    process = good.start()
    assert fault.happened.wait(60)
    for name in ("cmdline", "environ"):
        assert token.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()
    process.kill()
    good.finish(process)
    good.succeed()
    # A host that says it back, in each place where a host is quoted.
    echo = f"the token {token} is bad, see https://bot:{token}@forge.example/".encode()
    bad = behind.task(behind.url)
    for request in ("^GET /api", "^GET .*info/refs", "^POST .*/git-receive-pack", "^POST /api.*/pulls$"):
        proxy.add(request, status=403, body=echo)
        assert "***" in bad.fail("FORBIDDEN")["message"]
    for path, content in everywhere(behind, good, bad):
        assert token.encode() not in content, path
    assert not any(token in request for request in proxy.requests), "a token in a URL"


def test_a_token_that_is_rotated_between_tasks(gitea, repository, agent):
    agent.task(repository.url).succeed()
    bot, token = gitea.make_user()
    repository.collaborator(bot, "write")
    agent.rotate(token)
    agent.task(repository.url).succeed()
    assert {pull["user"]["login"] for pull in repository.pull_requests()} == {repository.bot, bot}


def test_a_token_from_the_environment(gitea, repository, make_agent):
    agent = make_agent(gitea.host, "none", ca_file=gitea.ca_file)
    host = agent.settings["hosts"][0]
    del host["token_file"]
    host["token_variable"] = "GENIE_TEST_GIT_TOKEN"
    agent.task(repository.url).fail("TOKEN_MISSING")
    task = agent.task(repository.url)
    task.succeed(env={"GENIE_TEST_GIT_TOKEN": repository.token})
    for path, content in everywhere(agent, task):
        assert repository.token.encode() not in content, path


def test_the_cache_is_the_agent_s_alone(repository, agent):
    agent.task(repository.url).succeed()
    assert os.stat(agent.cache).st_mode & 0o077 == 0
    wait_for(lambda: not list(agent.cache.glob("*/objects/**/tmp_*")), "no file half written")
