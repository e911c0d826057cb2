"""What a task makes on a real Gitea."""

import os
import subprocess

from gitea import Repository

DIFF = """\
diff --git a/scripts/run.sh b/scripts/run.sh
--- a/scripts/run.sh
+++ b/scripts/run.sh
@@ -1,4 +1,4 @@
 #!/bin/sh
 echo one
-echo two
+echo 2
 echo three
diff --git a/old/gone.txt b/old/gone.txt
deleted file mode 100644
--- a/old/gone.txt
+++ /dev/null
@@ -1 +0,0 @@
-away
diff --git a/docs/new.md b/docs/new.md
new file mode 100644
--- /dev/null
+++ b/docs/new.md
@@ -0,0 +1 @@
+# New
diff --git a/README.md b/READ.md
similarity index 100%
rename from README.md
rename to READ.md
"""


def test_files_are_added_replaced_deleted_and_made_executable(repository, agent):
    before = repository.branches()["main"]
    task = agent.task(repository.url + ".git", title="A better\nfile", body="Because.\n\n- so", files=[
        {"path": "docs/new.md", "content": "# Neu: äöü\n"},
        {"path": "scripts/run.sh", "content": "#!/bin/sh\n"},
        {"path": "scripts/new.sh", "content": "#!/bin/sh\n", "executable": True},
        {"path": "old/gone.txt", "delete": True},
        {"path": "never/there.txt", "delete": True},
    ])
    outputs = task.succeed()
    branch = task.branch
    [pull] = repository.pull_requests()
    assert outputs == {
        "branch": branch, "commit": repository.branches()[branch], "pull_request_number": str(pull["number"]),
        "pull_request_url": pull["html_url"], "pull_request_state": "OPEN",
    }
    assert (pull["title"], pull["body"], pull["draft"]) == ("A better file", "Because.\n\n- so", False)
    assert (pull["head"]["ref"], pull["base"]["ref"], pull["user"]["login"]) == (branch, "main", repository.bot)
    assert repository.content("docs/new.md", branch) == "# Neu: äöü\n".encode()
    assert repository.content("scripts/run.sh", branch) == b"#!/bin/sh\n"
    assert repository.mode("scripts/run.sh", branch) == "100755"  # it keeps its mode
    assert repository.mode("scripts/new.sh", branch) == "100755"
    assert repository.mode("docs/new.md", branch) == "100644"
    assert repository.mode("old", branch) is None, "a folder that is empty is none"
    commit = repository.api("GET", f"/git/commits/{outputs['commit']}")
    assert [parent["sha"] for parent in commit["parents"]] == [before]
    assert commit["commit"]["author"]["email"] == commit["commit"]["committer"]["email"] == "genie@forge.example"
    assert commit["commit"]["message"].rstrip("\n") == f"A better file\n\nDevOps-Genie-Task: acme/{task.key}"
    assert repository.branches()["main"] == before


def test_a_diff_is_applied(repository, agent):
    task = agent.task(repository.url, unified_diff=DIFF)
    branch = task.succeed()["branch"]
    assert repository.content("scripts/run.sh", branch) == b"#!/bin/sh\necho one\necho 2\necho three\n"
    assert repository.mode("scripts/run.sh", branch) == "100755"
    assert repository.content("old/gone.txt", branch) is None
    assert repository.content("docs/new.md", branch) == b"# New\n"
    assert repository.content("READ.md", branch) == repository.FILES["README.md"].encode()
    assert repository.content("README.md", branch) is None
    assert repository.content("values.yaml", branch) == repository.FILES["values.yaml"].encode()


def test_a_diff_that_does_not_fit_is_a_merge_conflict_of_its_file(repository, agent):
    repository.commit({"scripts/run.sh": ("#!/bin/sh\necho other\n", True)})
    assert "scripts/run.sh" in agent.task(repository.url, unified_diff=DIFF).fail("MERGE_CONFLICT")["message"]
    repository.commit({"scripts/run.sh": (repository.FILES["scripts/run.sh"], True), "docs/new.md": ("mine\n", False)})
    assert "docs/new.md" in agent.task(repository.url, unified_diff=DIFF).fail("MERGE_CONFLICT")["message"]
    repository.commit({"docs/new.md": (None, False), "old/gone.txt": (None, False)})
    assert "old/gone.txt" in agent.task(repository.url, unified_diff=DIFF).fail("MERGE_CONFLICT")["message"]
    agent.task(repository.url, unified_diff="no diff at all\n").fail("INVALID_DIFF")
    assert list(repository.branches()) == ["main"]


def test_helm_values_change_and_all_else_of_the_file_stays(repository, agent):
    task = agent.task(repository.url, helm_values={"path": "values.yaml", "changes": [
        {"path": "image.tag", "value": '"1.1"'}, {"path": "resources.limits.memory", "value": "256Mi"},
    ]})
    branch = task.succeed()["branch"]
    expected = repository.FILES["values.yaml"].replace('"1.0"', '"1.1"').replace("128Mi", "256Mi")
    assert repository.content("values.yaml", branch) == expected.encode()

    def fail(reason, path="image.tag", value="2", file="values.yaml"):
        changes = {"path": file, "changes": [{"path": path, "value": value}]}
        return agent.task(repository.url, helm_values=changes).fail(reason)["message"]

    assert "image.name" in fail("HELM_VALUE_MISSING", path="image.name")
    assert "image" in fail("HELM_VALUE_UNEDITABLE", path="image")
    fail("INVALID_VALUE", value="a: b")
    fail("INVALID_PATH", path="image..tag")
    fail("FILE_MISSING", file="charts/values.yaml")
    fail("HELM_VALUE_MISSING", file="README.md", path="a")


def test_draft_labels_and_reviewers(gitea, repository, agent):
    known = repository.api("POST", "/labels", {"name": "known", "color": "#ff0000"})
    reviewer, _ = gitea.make_user()
    repository.collaborator(reviewer, "write")
    task = agent.task(repository.url, draft=True, labels=["known", "made for it"], reviewers=["nobody-here", reviewer])
    task.succeed()
    [pull] = repository.pull_requests()
    assert pull["draft"] and pull["title"] == "WIP: A better file"
    assert {label["name"]: label["id"] == known["id"] for label in pull["labels"]} == {"known": True, "made for it": False}
    assert [user["login"] for user in pull["requested_reviewers"]] == [reviewer]
    assert "nobody-here is left out: the git host refuses" in task.log


def test_a_base_branch_other_than_the_default(repository, agent):
    repository.commit({"release.txt": ("1.0\n", False)}, branch="release/1.0")
    outputs = agent.task(repository.url, base_branch="release/1.0", branch_prefix="genie/").succeed()
    [pull] = repository.pull_requests()
    assert pull["base"]["ref"] == "release/1.0" and outputs["branch"].startswith("genie/")
    assert repository.content("release.txt", outputs["branch"]) == b"1.0\n"
    agent.task(repository.url, base_branch="release/2.0").fail("BASE_BRANCH_MISSING")


def test_a_commit_is_signed_where_a_key_is_configured(repository, agent, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "genie", "-f", str(key)], check=True)
    commit = agent.task(repository.url).succeed({"signing_key_file": str(key)})["commit"]
    signers = tmp_path / "signers"
    signers.write_text("genie@forge.example " + key.with_suffix(".pub").read_text())
    clone = repository.clone(tmp_path / "clone")

    def verify(name):
        options = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}"]
        return repository.git("-C", clone, *options, "verify-commit", name, check=False)

    assert verify(commit).returncode == 0, verify(commit).stderr
    assert verify("main").returncode != 0
    agent.task(repository.url).fail("SIGNING_FAILED", {"signing_key_file": str(tmp_path / "missing")})
    assert len(repository.pull_requests()) == 1


def test_a_key_that_makes_no_name_of_a_branch_gets_one(repository, agent):
    outputs = agent.task(repository.url, key="pay: up / 100%..").succeed()
    assert outputs["branch"].startswith("devopsgenie/pay--up---100")
    task = agent.task(repository.url, key="pay: up / 100%..")
    assert task.succeed()["pull_request_number"] == outputs["pull_request_number"]
    assert len(repository.pull_requests()) == 1
    message = repository.api("GET", f"/git/commits/{outputs['commit']}")["commit"]["message"]
    assert message.rstrip("\n").endswith("\n\nDevOps-Genie-Task: acme/pay: up / 100%25..")


def test_one_key_of_two_organizations(repository, agent):
    """Each has its own branch and pull request, and neither takes the other's for its own."""
    ours, theirs = (agent.task(repository.url, key="nightly", organization=name) for name in ("acme", "other"))
    first, second = ours.succeed(), theirs.succeed()
    assert (first["branch"], second["branch"]) == (ours.branch, theirs.branch)
    assert len({first["pull_request_number"], second["pull_request_number"]}) == 2 == len(repository.pull_requests())
    assert (ours.succeed(), theirs.succeed()) == (first, second)
    assert len(repository.pull_requests()) == 2


def test_a_change_as_large_as_they_come(repository, agent):
    large = "large" * 700_000
    files = [{"path": f"many/{i % 7}/{i}.txt", "content": f"{i}\n"} for i in range(499)]
    branch = agent.task(repository.url, files=[*files, {"path": "large.txt", "content": large}]).succeed()["branch"]
    assert repository.content("large.txt", branch) == large.encode()
    assert repository.content("many/1/498.txt", branch) == b"498\n"
    assert len(repository.api("GET", "/contents/many/0?ref=" + branch)) == 72


def test_the_cache_is_bounded_and_mends_itself(gitea, repository, agent):
    agent.task(repository.url).succeed()
    [first] = agent.cache.glob("*/")
    for pack in first.rglob("*.pack"):
        pack.chmod(0o600)
        os.truncate(pack, 40)
    task = agent.task(repository.url)
    if task.run()["status"] == "FAILED":  # what is broken is found by reading, and gone for the next attempt
        task.succeed()
    other = Repository(gitea)
    made = agent.task(other.url)
    agent.rotate(other.token)
    limit = sum(path.stat().st_blocks * 512 for path in first.rglob("*")) * 3 // 2
    made.succeed({"cache_limit_bytes": limit})
    [kept] = agent.cache.glob("*/")
    assert kept != first, "the one that was used last is kept"
    other.commit({"large.bin": (os.urandom(1 << 20).hex(), False)})
    made = agent.task(other.url)
    made.fail("REPOSITORY_TOO_LARGE", {"cache_limit_bytes": limit})


def test_two_tasks_of_one_repository_at_once(repository, agent):
    tasks = [agent.task(repository.url) for _ in range(4)]
    processes = [task.start() for task in tasks]
    results = [task.finish(process) for task, process in zip(tasks, processes)]
    assert [result["status"] for result in results] == ["SUCCEEDED"] * 4, results
    assert len(repository.pull_requests()) == 4
