"""A Gitea on loopback, over TLS with a certificate authority of its own, on SQLite, as a user that is not root.

For tests/forge, and for tools/run --git-host, which runs this file: python3 git_host.py PROGRAMS DIR keeps Gitea in
DIR/gitea, with a repository that holds a small Helm chart and a user for the agent. DIR/git-token is that user's token
and DIR/git-hosts.json what genie-agent has to be told. PROGRAMS is what gitea_need (tools.sh) makes.
"""

import base64
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 120
BOT_SCOPES = ("write:repository", "write:issue", "read:user", "read:organization")

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
STATIC_ROOT_PATH = {programs}
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

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: shop\nversion: 0.1.0\nappVersion: \"1.4.2\"\n",
    "values.yaml": """\
# The shop's front end.
replicaCount: 2   # enough for a quiet day

image:
  repository: registry.example.com/shop
  tag: "1.4.2"

resources:
  limits: {cpu: 500m, memory: 128Mi}   # measured in May
""",
    "templates/deployment.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicaCount }}
  selector:
    matchLabels: {app: {{ .Release.Name }}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
    spec:
      containers:
        - name: shop
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
          resources: {{ toYaml .Values.resources | nindent 12 }}
""",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status


class Gitea:
    """One in a folder of its own, which its user can reach; what is there already is used again."""

    def __init__(self, folder, source):
        self.folder, self.process, self.token = Path(folder).resolve(), None, None
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.user = pwd.getpwuid(65534 if os.getuid() == 0 else os.getuid())
        certificates = Path(__file__).with_name("certificates.sh")
        subprocess.run(["bash", str(certificates), str(self.folder)], check=True)
        self.ca_file = self.folder / "ca.pem"
        self.context = ssl.create_default_context(cafile=str(self.ca_file))
        self.program = self.copy(Path(source)) / "gitea"
        kept = self.keep()
        self.host = f"127.0.0.1:{kept['port']}"
        self.url = f"https://{self.host}"
        values = {"user": self.user.pw_name, "folder": self.folder, "programs": self.program.parent, **kept}
        (self.folder / "app.ini").write_text(SETTINGS.format(**values))
        if os.getuid() == 0:
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def copy(self, source):
        """The programs, where its user can read them."""
        programs = self.folder / source.name
        if not programs.exists():
            new = self.folder / "programs.new"
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(source, new)
            new.rename(programs)
        return programs

    def keep(self):
        """What holds from the first start on: URLs have the port, and the database what the secret encrypts."""
        kept = self.folder / "kept.json"
        if not kept.exists():
            new = kept.with_suffix(".new")
            new.write_text(json.dumps({"port": free_port(), "secret": secrets.token_hex(32)}))
            new.rename(kept)
        return json.loads(kept.read_text())

    def command(self, *arguments, **options):
        """A Popen of Gitea's program, which ends with this process."""
        if os.getuid() == 0:
            options |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GITEA_WORK_DIR": str(self.folder)}
        command = ["setpriv", "--pdeathsig", "TERM", str(self.program), *arguments, "--config", str(self.folder / "app.ini")]
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **options)

    def admin(self, *arguments):
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = self.command("admin", "user", *arguments, **pipe)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return out.strip()

    def add_user(self, name, *options):
        """Makes a user, where there is none of this name, whose password nobody knows."""
        if name not in self.admin("list").split():
            self.admin("create", "--username", name, "--email", f"{name}@forge.example", "--random-password",
                       "--must-change-password=false", *options)

    def add_token(self, name, *scopes):
        return self.admin("generate-access-token", "--username", name, "--token-name", secrets.token_hex(6),
                          "--scopes", ",".join(scopes), "--raw")

    def start(self):
        """Returns when it answers."""
        self.process = self.command("web", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, "Gitea does not start\n" + self.logs()
            try:
                urllib.request.urlopen(f"{self.url}/api/healthz", context=self.context, timeout=5).close()
                return self
            except OSError:
                assert time.monotonic() < end, "Gitea does not start\n" + self.logs()
                time.sleep(0.1)

    def administer(self):
        """Gives this object a token that may do everything, of the user `boss`."""
        self.add_user("boss", "--admin")
        self.token = self.add_token("boss", "all")
        return self

    def logs(self):
        return "\n".join(path.read_text() for path in (self.folder / "log").glob("*.log"))

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

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


def make_repository(gitea, owner, name, files):
    """One of an organization, with these files, where there is none yet."""
    try:
        gitea.api("POST", "orgs", {"username": owner})
    except Refused as refused:
        if refused.status != 422:
            raise
    try:
        gitea.api("POST", f"orgs/{owner}/repos", {"name": name, "auto_init": True, "default_branch": "main"})
    except Refused as refused:
        if refused.status != 409:
            raise
    if not any(entry["path"] == "Chart.yaml" for entry in gitea.api("GET", f"repos/{owner}/{name}/contents")):
        changes = [
            {"operation": "create", "path": path, "content": base64.b64encode(content.encode()).decode()}
            for path, content in files.items()
        ]
        gitea.api("POST", f"repos/{owner}/{name}/contents", {"branch": "main", "message": "The chart", "files": changes})


def write(path, text):
    """All of it or nothing."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def make_demo(gitea, folder):
    """The repository acme/shop, and the user genie-bot who may write to it; each step once."""
    gitea.administer()
    make_repository(gitea, "acme", "shop", CHART)
    gitea.add_user("genie-bot")
    gitea.api("PUT", "repos/acme/shop/collaborators/genie-bot", {"permission": "write"})
    token_file = folder / "git-token"
    write(token_file, gitea.add_token("genie-bot", *BOT_SCOPES) + "\n")
    host = {"host": gitea.host, "forge": "gitea", "token-file": str(token_file), "ca-file": str(gitea.ca_file)}
    write(folder / "git-hosts.json", json.dumps([host]) + "\n")


def main(source, folder):
    """Says `ready` when all is there, and runs until SIGTERM or Gitea's end."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = Path(folder)
    gitea = Gitea(folder / "gitea", source)
    try:
        gitea.start()
        if not (folder / "git-hosts.json").exists():
            make_demo(gitea, folder)
        print("ready", gitea.url, flush=True)
        sys.exit(gitea.process.wait())
    finally:
        gitea.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
