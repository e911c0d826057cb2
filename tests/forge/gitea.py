"""A real Gitea on loopback, over TLS with a test's own certificate authority, on SQLite, as a user that is not root.

$GENIE_GITEA names the folder with its program and what it serves (tools/test forge builds it once).
"""

import base64
import json
import os
import pwd
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120

SETTINGS = """
APP_NAME = forge
RUN_MODE = prod
RUN_USER = {user}
WORK_PATH = {folder}
[server]
PROTOCOL = https
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = https://127.0.0.1:{port}/
CERT_FILE = {folder}/server.pem
KEY_FILE = {folder}/server-key.pem
STATIC_ROOT_PATH = {folder}/static
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = {folder}/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = {secret}
INTERNAL_TOKEN =
PASSWORD_HASH_ALGO = pbkdf2$1$50
[service]
DISABLE_REGISTRATION = true
[repository]
ROOT = {folder}/repositories
DEFAULT_BRANCH = main
[indexer]
ISSUE_INDEXER_TYPE = db
[session]
PROVIDER = memory
[actions]
ENABLED = false
[packages]
ENABLED = false
[cron]
ENABLED = false
[log]
MODE = file
LEVEL = Warn
ROOT_PATH = {folder}/log
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status


class Gitea:
    def __init__(self):
        source = Path(os.environ["GENIE_GITEA"])
        self.folder = Path(tempfile.mkdtemp(prefix="genie-gitea-", dir="/tmp"))
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"https://{self.host}"
        self.user = pwd.getpwuid(65534) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        subprocess.run(["bash", str(ROOT / "tools/lib/certificates.sh"), str(self.folder)], check=True)
        shutil.copy(source / "gitea", self.folder)
        for name in ("templates", "options", "public"):
            shutil.copytree(source / name, self.folder / "static" / name)
        values = {"user": self.user.pw_name, "folder": self.folder, "port": self.port, "secret": secrets.token_hex(32)}
        (self.folder / "app.ini").write_text(SETTINGS.format(**values))
        self.process = None
        # Before everything in it is handed over: the tests read it too, they run as root or as this user.
        self.ca_file = self.folder / "ca.pem"
        if os.getuid() == 0:
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        self.context = ssl.create_default_context(cafile=str(self.ca_file))

    def command(self, *arguments, **options):
        """A Popen of Gitea's program."""
        if os.getuid() == 0:
            options |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GITEA_WORK_DIR": str(self.folder)}
        command = [str(self.folder / "gitea"), *arguments, "--config", str(self.folder / "app.ini")]
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **options)

    def admin(self, *arguments):
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = self.command("admin", "user", *arguments, **pipe)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return out.strip()

    def start(self):
        self.process = self.command("web", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.logs()
            try:
                urllib.request.urlopen(f"{self.url}/api/healthz", context=self.context, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end, "Gitea does not start\n" + self.logs()
                time.sleep(0.1)
        password = secrets.token_hex(16)
        self.admin("create", "--admin", "--username", "boss", "--password", password, "--email", "boss@forge.example",
                   "--must-change-password=false")
        self.token = self.admin("generate-access-token", "--username", "boss", "--scopes", "all", "--raw")
        return self

    def logs(self):
        return "\n".join(path.read_text() for path in (self.folder / "log").glob("*.log"))

    def close(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def api(self, method, path, body=None, token=None, basic=None):
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", method=method)
        request.add_header("Content-Type", "application/json")
        if basic:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(basic).encode()).decode())
        else:
            request.add_header("Authorization", f"token {token or self.token}")
        data = json.dumps(body).encode() if body is not None else None
        try:
            with urllib.request.urlopen(request, data, context=self.context, timeout=60) as response:
                said = response.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode()) from None
        return json.loads(said) if said else None

    def make_user(self, scopes=("write:repository", "write:issue", "read:user", "read:organization")):
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
