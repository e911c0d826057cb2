"""GitHub: each request as its published description has it, and what it answers understood."""

import pytest
from faulty_proxy import in_front_of
from github import GitHub, Prism


@pytest.fixture(scope="module")
def prism(tmp_path_factory):
    prism = Prism(tmp_path_factory.mktemp("prism"))
    try:
        yield prism
    finally:
        prism.close()


@pytest.fixture
def github(prism, gitea, repository, make_agent):
    github = GitHub(prism, repository, repository.token, collaborators=("octocat",))
    with in_front_of(gitea, github) as proxy:
        github.proxy = proxy
        github.agent = make_agent(
            proxy.host, repository.token, "GITHUB", ca_file=gitea.ca_file, api_url=f"https://{proxy.host}/"
        )
        github.url = f"https://{proxy.host}/{repository.name}"
        yield github
        assert github.wrong == []


def test_a_pull_request(github, repository):
    task = github.agent.task(github.url, draft=True, body="Why\n", labels=["a b", "c"], reviewers=["nobody-here", "octocat"])
    outputs = task.succeed()
    [pull] = github.pulls
    branch = task.branch
    assert outputs == {
        "branch": branch, "commit": repository.branches()[branch], "pull_request_number": "1",
        "pull_request_url": pull["html_url"], "pull_request_state": "OPEN",
    }
    assert (pull["draft"], pull["title"], pull["body"]) == (True, "A better file", "Why\n")
    assert (github.labels, github.reviewers) == (["a b", "c"], ["octocat"])
    assert "nobody-here is left out" in task.log
    assert task.succeed() == outputs and len(github.pulls) == 1
    pull |= {"state": "closed", "merged_at": "2026-01-01T00:00:00Z"}
    assert task.succeed() == {**outputs, "pull_request_state": "MERGED"}


def test_one_that_is_there_though_the_list_did_not_say_so(github):
    task = github.agent.task(github.url)
    first = task.succeed()
    github.stale_lists = 1
    assert task.succeed() == first
    assert len(github.pulls) == 1 and "looking" in task.log


def test_refusals(github):
    github.archived = True
    github.agent.task(github.url).fail("REPOSITORY_ARCHIVED")
    github.archived = False
    github.agent.task(github.url + "-not").fail("REPOSITORY_NOT_FOUND")
    github.agent.rotate("ghp_other")
    github.agent.task(github.url).fail("TOKEN_INVALID")
