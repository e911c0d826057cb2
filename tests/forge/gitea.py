"""A real Gitea for the tests (tools/lib/git_host.py) in a folder that goes with it, and repositories on it.

$GENIE_GITEA names the folder with its program and what it serves (tools/test forge builds it once).
"""

import base64
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools/lib"))

import git_host  # noqa: E402
from git_host import BOT_SCOPES, START_SECONDS, Refused  # noqa: E402


class Gitea(git_host.Gitea):
    def __init__(self):
        super().__init__(tempfile.mkdtemp(prefix="genie-gitea-", dir="/tmp"), os.environ["GENIE_GITEA"])

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_user(self, scopes=BOT_SCOPES):
        """A new user's name and a token with these scopes."""
        name, password = "u" + secrets.token_hex(5), secrets.token_hex(16)
        self.api("POST", "admin/users", {
            "username": name, "password": password, "email": f"{name}@forge.example", "must_change_password": False,
        })
        return name, self.make_token((name, password), scopes)

    def make_token(self, basic, scopes):
        body = {"name": secrets.token_hex(6), "scopes": list(scopes)}
        return self.api("POST", f"users/{basic[0]}/tokens", body, basic=basic)["sha1"]


class Repository:
    """A repository of `owner` with some files, and a bot who may write to it."""

    FILES = {
        "README.md": "# Acme\n",
        "values.yaml": "# The service\nimage:\n  tag: \"1.0\"   # pinned\n\nresources: {limits: {memory: 128Mi}}\n",
        "scripts/run.sh": "#!/bin/sh\necho one\necho two\necho three\n",
        "old/gone.txt": "away\n",
    }

    def __init__(self, gitea, private=False):
        self.gitea = gitea
        self.bot, self.token = gitea.make_user()
        name = "r" + secrets.token_hex(5)
        self.name = f"boss/{name}"
        gitea.api("POST", "user/repos", {"name": name, "private": private, "default_branch": "main"})
        self.url = f"{gitea.url}/{self.name}"
        self.collaborator(self.bot, "write")
        self.commit({path: (content, path.endswith(".sh")) for path, content in self.FILES.items()})
        # Gitea's API learns of a push some moments after git has been told that it is taken.
        end = time.monotonic() + START_SECONDS
        while self.api("GET")["empty"] or not self.api("GET", "/branches"):
            assert time.monotonic() < end, "Gitea does not see what was pushed"
            time.sleep(0.05)

    def api(self, method, path="", body=None):
        return self.gitea.api(method, f"repos/{self.name}{path}", body)

    def collaborator(self, name, permission):
        self.api("PUT", f"/collaborators/{name}", {"permission": permission})

    def git(self, *arguments, folder=None, check=True):
        """git as a person runs it, on a clone that `folder` names."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_SSL_CAINFO": str(self.gitea.ca_file),
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: token {self.gitea.token}",
            "GIT_AUTHOR_NAME": "A person", "GIT_AUTHOR_EMAIL": "person@forge.example",
            "GIT_COMMITTER_NAME": "A person", "GIT_COMMITTER_EMAIL": "person@forge.example",
        }
        done = subprocess.run(["git", *map(str, arguments)], cwd=folder, env=environment, capture_output=True)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace") if check else done

    def commit(self, files, branch="main", base=None, links=None, message="By a person"):
        """Pushes a commit with files {path: (content, executable)}; a content of None deletes."""
        with tempfile.TemporaryDirectory() as folder:
            self.git("clone", "-q", self.url, folder)
            exists = self.git("ls-remote", "--heads", "origin", branch, folder=folder)
            self.git("checkout", "-q", *(["-B", branch, f"origin/{branch}"] if exists else ["-B", branch]), folder=folder)
            for path, (content, executable) in files.items():
                place = Path(folder) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if content is None:
                    place.unlink()
                else:
                    place.write_text(content)
                    place.chmod(0o755 if executable else 0o644)
            for path, target in (links or {}).items():
                (Path(folder) / path).symlink_to(target)
            self.git("add", "-A", folder=folder)
            self.git("commit", "-q", "-m", message, folder=folder)
            self.git("push", "-q", "origin", branch, folder=folder)
            return self.git("rev-parse", "HEAD", folder=folder).strip()

    def clone(self, folder):
        self.git("clone", "-q", "--bare", self.url, folder)
        return folder

    def branches(self):
        lines = self.git("ls-remote", "--heads", self.url).splitlines()
        return {line.split("\t")[1].removeprefix("refs/heads/"): line.split("\t")[0] for line in lines}

    def pull_requests(self, branch=None):
        """All of them, of a branch or of all."""
        found, page = [], 1
        while more := self.api("GET", f"/pulls?state=all&limit=50&page={page}"):
            found, page = found + more, page + 1
        return [pull for pull in found if branch in (None, pull["head"]["ref"])]

    def content(self, path, ref):
        """A file's bytes, or None."""
        try:
            said = self.api("GET", f"/contents/{path}?ref={urllib.parse.quote(ref, safe='')}")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return base64.b64decode(said["content"])

    def mode(self, path, ref):
        tree = self.api("GET", f"/git/trees/{urllib.parse.quote(ref, safe='')}?recursive=true")
        return next((entry["mode"] for entry in tree["tree"] if entry["path"] == path), None)
