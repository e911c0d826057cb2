"""GitLab, in the shapes that its documentation shows (see gitlab.py)."""

import pytest
from faulty_proxy import in_front_of
from gitlab import GitLab


@pytest.fixture
def gitlab(gitea, repository, make_agent):
    gitlab = GitLab(repository, repository.token, users=("ada", "grace"))
    with in_front_of(gitea, gitlab) as proxy:
        gitlab.proxy = proxy
        gitlab.agent = make_agent(proxy.host, repository.token, "GITLAB", ca_file=gitea.ca_file)
        gitlab.url = f"https://{proxy.host}/{repository.name}"
        yield gitlab


def test_a_merge_request(gitlab, repository):
    task = gitlab.agent.task(gitlab.url, draft=True, labels=["a b", "c", "d,e"], reviewers=["nobody-here", "grace"])
    outputs = task.succeed()
    [made] = gitlab.merge_requests
    assert outputs == {
        "branch": made["source_branch"], "commit": repository.branches()[made["source_branch"]],
        "pull_request_number": "1", "pull_request_url": made["web_url"], "pull_request_state": "OPEN",
    }
    assert (made["title"], made["target_branch"], made["labels"]) == ("Draft: A better file", "main", ["a b", "c"])
    assert made["reviewers"] == [{"id": 41}] and "left out" in task.log
    made["reviewers"].append({"id": 7})  # whom a person has asked is asked still
    assert task.succeed() == outputs and len(gitlab.merge_requests) == 1
    assert {user["id"] for user in made["reviewers"]} == {7, 41}
    made["state"] = "merged"
    assert task.succeed() == {**outputs, "pull_request_state": "MERGED"}


def test_a_fork_s_merge_request_of_the_same_branch_is_not_ours(gitlab):
    task = gitlab.agent.task(gitlab.url)
    gitlab.merge_requests.append({
        "iid": 1, "web_url": "https://gitlab.example/1", "state": "closed", "source_branch": task.branch,
        "source_project_id": 6, "target_project_id": 5, "sha": "0" * 40, "labels": [],
    })
    assert task.succeed()["pull_request_number"] == "2"


def test_refusals(gitlab):
    gitlab.archived = True
    gitlab.agent.task(gitlab.url).fail("REPOSITORY_ARCHIVED")
    gitlab.archived = False
    gitlab.agent.task(gitlab.url + "-not").fail("REPOSITORY_NOT_FOUND")
    gitlab.agent.rotate("glpat-other")
    gitlab.agent.task(gitlab.url).fail("TOKEN_INVALID")
