"""Fixtures: a real Gitea for all tests, repositories on it, an agent with a token, a proxy that injects faults."""

import secrets

import pytest
from agent import Agent
from faulty_proxy import in_front_of
from gitea import Gitea, Repository


@pytest.fixture(scope="session")
def gitea():
    server = Gitea()
    try:
        yield server.start().administer()
    finally:
        server.close()


@pytest.fixture
def repository(gitea):
    return Repository(gitea)


@pytest.fixture(scope="session")
def shared_repository(gitea):
    """One for the tests that only add branches of their own to it: a new one takes seconds."""
    return Repository(gitea)


@pytest.fixture
def make_agent(tmp_path):
    """make_agent(host, token, …) has a folder, a cache and a token file of its own."""

    def make(*arguments, **options):
        return Agent(tmp_path / f"agent-{secrets.token_hex(4)}", *arguments, **options)

    return make


@pytest.fixture
def agent(make_agent, gitea, repository):
    """An agent with the token of the repository's bot."""
    return make_agent(gitea.host, repository.token, ca_file=gitea.ca_file)


@pytest.fixture
def shared_agent(make_agent, gitea, shared_repository):
    return make_agent(gitea.host, shared_repository.token, ca_file=gitea.ca_file)


@pytest.fixture
def proxy(gitea):
    with in_front_of(gitea) as proxy:
        yield proxy


@pytest.fixture
def behind(make_agent, gitea, repository, proxy):
    """The same agent, which sees Gitea through the proxy: behind.task(behind.url)."""
    made = make_agent(proxy.host, repository.token, ca_file=gitea.ca_file)
    made.url = f"https://{proxy.host}/{repository.name}"
    return made
