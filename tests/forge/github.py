"""GitHub's REST API as it publishes it: every request goes to Prism, which holds it against the OpenAPI description (npm
@octokit/openapi) and answers with the description's example. What Prism has no memory for, pull requests that exist, is
kept here and put into its answers. Git itself is a real Gitea's.

$GENIE_PRISM names the folder of node modules (tools/test forge installs it once).
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

from git_host import free_port

START_SECONDS = 120
PATHS = (
    "/repos/{owner}/{repo}", "/repos/{owner}/{repo}/pulls", "/repos/{owner}/{repo}/issues/{issue_number}/labels",
    "/repos/{owner}/{repo}/pulls/{pull_number}/requested_reviewers",
)


class Prism:
    def __init__(self, folder):
        modules = Path(os.environ["GENIE_PRISM"])
        description = json.loads((modules / "@octokit/openapi/generated/api.github.com.deref.json").read_text())
        # All 800 paths would take Prism half a minute.
        description["paths"] = {path: description["paths"][path] for path in PATHS}
        description.pop("x-webhooks", None)
        file = folder / "github.json"
        file.write_text(json.dumps(description))
        self.port = free_port()
        self.log = folder / "prism.log"
        command = [shutil.which("node"), str(modules / "@stoplight/prism-cli/dist/index.js"), "mock", "-h",
                   "127.0.0.1", "-p", str(self.port), str(file)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.call("GET", "/repos/a/b", {}, b"")
                break
            except OSError:
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.1)

    def call(self, method, path, headers, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        said = response.read()
        connection.close()
        return response.status, json.loads(said) if said else None

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)


class GitHub:
    def __init__(self, prism, repository, token, collaborators=()):
        self.prism, self.repository, self.token, self.collaborators = prism, repository, token, collaborators
        self.pulls, self.labels, self.reviewers, self.wrong = [], [], [], []
        self.archived = False
        self.owner = repository.name.split("/")[0].title()  # GitHub writes it in its own way
        self.stale_lists = 0  # so many lists are empty

    def __call__(self, method, path, headers, body):
        if not path.startswith("/repos/"):
            return None
        sent = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection", "content-length")}
        # What GitHub recommends to accept is in its prose, not in its description.
        status, example = self.prism.call(method, path, {**sent, "Accept": "application/json"}, body)
        if status >= 400:
            self.wrong.append((method, path, body, status, example))
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"}
        expected = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        if any(headers.get(name) != value for name, value in expected.items()) or not headers.get("User-Agent"):
            self.wrong.append((method, path, "headers", dict(headers)))
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        rest = url.path.removeprefix(f"/repos/{self.repository.name}")
        said = json.loads(body) if body else None
        if rest == url.path or rest[:1] not in ("", "/"):
            return 404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}
        if (method, rest) == ("GET", ""):
            return 200, {**example, "default_branch": "main", "archived": self.archived, "owner": {"login": self.owner}}
        if (method, rest) == ("GET", "/pulls"):
            if self.stale_lists > 0:
                self.stale_lists -= 1
                return 200, []
            return 200, [pull for pull in self.pulls if query["head"] == pull["head"]["label"] and query["state"] == "all"]
        if (method, rest) == ("POST", "/pulls"):
            return self.make(example, said)
        if re.fullmatch(r"/issues/\d+/labels", rest):
            self.labels += said["labels"]
            return 200, [{"id": 1, "name": name} for name in self.labels]
        if set(said["reviewers"]) - set(self.collaborators):
            return 422, {"message": "Reviews may only be requested from collaborators.", "status": "422"}
        self.reviewers += said["reviewers"]
        return 201, example

    def make(self, example, said):
        label = f"{self.owner}:{said['head']}"
        if any(pull["head"]["label"] == label and pull["state"] == "open" for pull in self.pulls):
            return 422, {"message": "Validation Failed", "errors": [
                {"resource": "PullRequest", "code": "custom", "message": f"A pull request already exists for {label}."},
            ]}
        sha = self.repository.branches()[said["head"]]
        number = len(self.pulls) + 1
        self.pulls.append({
            **example, "number": number, "html_url": f"https://github.com/{self.repository.name}/pull/{number}",
            "state": "open", "merged_at": None, "draft": said["draft"], "title": said["title"], "body": said["body"],
            "head": {**example["head"], "label": label, "ref": said["head"], "sha": sha},
        })
        return 201, self.pulls[-1]
