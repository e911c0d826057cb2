"""What a git host refuses, and what a task may not do: each its own reason."""

import subprocess
import tempfile

import pytest
from faulty_proxy import wait_for
from gitea import Refused, Repository


def test_protected_branch(repository, agent):
    repository.api("POST", "/branch_protections", {"rule_name": "devopsgenie/*", "enable_push": False})
    task = agent.task(repository.url)
    assert "protected" in task.fail("BRANCH_PROTECTED")["message"]
    assert list(repository.branches()) == ["main"] and repository.pull_requests() == []


def test_missing_right_to_write(gitea, repository, agent):
    reader, token = gitea.make_user()
    repository.collaborator(reader, "read")
    agent.rotate(token)
    agent.task(repository.url).fail("FORBIDDEN")


def test_a_token_without_the_scope(gitea, repository, agent):
    bot, token = gitea.make_user(scopes=("read:repository",))
    repository.collaborator(bot, "write")
    agent.rotate(token)
    agent.task(repository.url).fail("FORBIDDEN")


def test_unknown_token(shared_repository, shared_agent):
    shared_agent.rotate("0" * 40)
    shared_agent.task(shared_repository.url).fail("TOKEN_INVALID")


@pytest.mark.parametrize("content", ["", "\n", "two words\n", "x" * 5000])
def test_a_token_file_without_a_token(shared_repository, shared_agent, content):
    shared_agent.token_file.write_text(content)
    shared_agent.task(shared_repository.url).fail("TOKEN_MISSING")


def test_token_file_missing(shared_repository, shared_agent):
    shared_agent.token_file.unlink()
    assert str(shared_agent.token_file) in shared_agent.task(shared_repository.url).fail("TOKEN_MISSING")["message"]


def test_a_repository_that_is_not_there_and_one_that_may_not_be_seen(gitea, shared_agent):
    shared_agent.task(Repository(gitea, private=True).url).fail("REPOSITORY_NOT_FOUND")
    shared_agent.task(f"{gitea.url}/boss/nothing-here").fail("REPOSITORY_NOT_FOUND")


def test_archived_repository(repository, agent):
    repository.api("PATCH", "", {"archived": True})
    agent.task(repository.url).fail("REPOSITORY_ARCHIVED")


def test_a_repository_that_has_moved(repository, agent):
    repository.api("PATCH", "", {"name": "moved-" + repository.name.split("/")[1]})
    agent.task(repository.url).fail("REPOSITORY_MOVED")


def test_an_empty_repository(gitea, repository, agent):
    gitea.api("POST", "user/repos", {"name": "empty-" + repository.bot, "private": False})
    gitea.api("PUT", f"repos/boss/empty-{repository.bot}/collaborators/{repository.bot}", {"permission": "write"})
    agent.task(f"{gitea.url}/boss/empty-{repository.bot}").fail("BASE_BRANCH_MISSING")


def test_pull_requests_that_were_merged_or_closed_are_not_made_again(repository, agent):
    for state, change in (("MERGED", None), ("CLOSED", {"state": "closed"})):
        task = agent.task(repository.url, files=[{"path": f"{state}.txt", "content": "x\n"}])
        first = task.succeed()
        number = first["pull_request_number"]
        if change:
            repository.api("PATCH", f"/pulls/{number}", change)
        else:
            merge(repository, number)
        count = len(repository.pull_requests())
        again = task.succeed()
        assert again == {**first, "pull_request_state": state}
        assert len(repository.pull_requests()) == count


def merge(repository, number):
    def merged():
        try:  # Gitea looks for conflicts first, in the background
            repository.api("POST", f"/pulls/{number}/merge", {"Do": "merge", "delete_branch_after_merge": True})
        except Refused as refused:
            if refused.status != 405:
                raise
            return False
        return True

    wait_for(merged, "Gitea to merge")


def test_a_branch_of_others_is_left_alone(repository, agent):
    task = agent.task(repository.url)
    theirs = repository.commit({"theirs.txt": ("x\n", False)}, branch=task.branch)
    task.fail("BRANCH_TAKEN")
    assert repository.branches()[task.branch] == theirs
    assert repository.pull_requests() == []
    # A key that another one's trailer ends with is another key.
    other = agent.task(repository.url, key=f"{task.key}-2")
    trailer = f"Theirs\n\nDevOps-Genie-Task: acme/{other.key}0"
    repository.commit({"theirs.txt": ("x\n", False)}, branch=other.branch, message=trailer)
    other.fail("BRANCH_TAKEN")


def test_our_branch_is_used_again_where_the_base_has_moved(repository, agent):
    task = agent.task(repository.url)
    assert task.run(crash_at="note pull_request 1 before") is None
    ours = repository.branches()[task.branch]
    repository.commit({"moved.txt": ("x\n", False)})
    assert task.succeed()["commit"] == ours == repository.branches()[task.branch]
    assert len(repository.pull_requests()) == 1


def test_nothing_to_change(repository, agent):
    same = [{"path": "README.md", "content": repository.FILES["README.md"]}, {"path": "none", "delete": True}]
    agent.task(repository.url, files=same).fail("NOTHING_TO_CHANGE")
    agent.task(repository.url, files=[]).fail("NOTHING_TO_CHANGE")
    assert list(repository.branches()) == ["main"]


# What a path is unsafe by itself for is in tests/unit/test_pr_tree_path.c; this is what stands in its way.
UNSAFE = ["../x", ".git/config", "link", "link/x", "README.md/x", "scripts", "module", "module/x"]


def test_paths_that_are_not_safe(repository, agent):
    repository.commit({}, links={"link": "scripts"})
    module(repository)
    for path in UNSAFE:
        agent.task(repository.url, files=[{"path": path, "content": "x"}]).fail("PATH_UNSAFE")
    agent.task(repository.url, files=[{"path": "link", "delete": True}]).fail("PATH_UNSAFE")
    agent.task(repository.url, helm_values={"path": "link", "changes": [{"path": "a", "value": "1"}]}).fail("PATH_UNSAFE")
    twice = [{"path": "a", "content": "x"}, {"path": "a/b", "content": "x"}]
    agent.task(repository.url, files=twice).fail("PATH_UNSAFE")
    for diff in (
        "--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/.git/x b/.git/x\nnew file mode 100644\n--- /dev/null\n+++ b/.git/x\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n",
        "--- a/link\n+++ b/link\n@@ -1 +1 @@\n-scripts\n\\ No newline at end of file\n+/etc\n\\ No newline at end of file\n",
        "diff --git a/link/x b/link/x\nnew file mode 100644\n--- /dev/null\n+++ b/link/x\n@@ -0,0 +1 @@\n+x\n",
    ):
        result = agent.task(repository.url, unified_diff=diff).run()
        assert result["reason"] in ("PATH_UNSAFE", "INVALID_DIFF"), (diff, result)
    assert list(repository.branches()) == ["main"]


def module(repository):
    """A submodule `module` on main."""
    with tempfile.TemporaryDirectory() as folder:
        repository.git("clone", "-q", repository.url, folder)
        head = repository.git("rev-parse", "HEAD", folder=folder).strip()
        repository.git("update-index", "--add", "--cacheinfo", f"160000,{head},module", folder=folder)
        repository.git("commit", "-q", "-m", "module", folder=folder)
        repository.git("push", "-q", "origin", "HEAD:main", folder=folder)


@pytest.mark.parametrize("url, reason", [
    ("https://elsewhere.example/a/b", "GIT_HOST_UNKNOWN"),
    ("http://{host}/a/b", "INVALID_URL"),
    ("https://user:sesame@{host}/a/b", "INVALID_URL"),
    ("https://{host}/a", "INVALID_URL"),
    ("https://{host}/a/../b", "INVALID_URL"),
    ("ssh://{host}/a/b", "INVALID_URL"),
    ("file:///etc", "INVALID_URL"),
])
def test_urls_that_are_not_good(shared_agent, gitea, url, reason):
    task = shared_agent.task(url.format(host=gitea.host))
    task.fail(reason)
    assert "sesame" not in task.log + "".join(task.said)


def test_a_host_without_a_certificate_that_can_be_verified(make_agent, gitea, shared_repository):
    agent = make_agent(gitea.host, shared_repository.token)
    assert "certificate" in agent.task(shared_repository.url).fail("GIT_HOST_UNAVAILABLE", permanent=False)["message"]


def test_the_proxy_comes_from_the_environment(shared_agent, shared_repository):
    nowhere = {"https_proxy": "http://127.0.0.1:9"}
    shared_agent.task(shared_repository.url).fail("GIT_HOST_UNAVAILABLE", permanent=False, env=nowhere)
    shared_agent.task(shared_repository.url).succeed(env={**nowhere, "no_proxy": "127.0.0.1"})


def test_a_person_s_git_configuration_is_not_read(shared_agent, shared_repository, tmp_path):
    (tmp_path / ".gitconfig").write_text('[url "https://127.0.0.1:9/"]\n\tinsteadOf = https://127.0.0.1\n')
    assert subprocess.run(["git", "config", "--file", tmp_path / ".gitconfig", "-l"], stdout=subprocess.DEVNULL).returncode == 0
    shared_agent.task(shared_repository.url).succeed(env={"HOME": str(tmp_path)})
